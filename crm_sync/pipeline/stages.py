"""Reading, asking and writing at the same time, with bounded queues between them.

One thread reads the CRM and forms batches, `workers` threads ask Apollo, and the caller's thread maps and writes. A
queue that is full makes the stage before it wait, so memory does not grow with the number of records. An error in
any stage raises the stop sign: no new work is taken, what was paid for still reaches the writer.
"""

from __future__ import annotations

import contextvars
import queue
import threading
from collections import Counter
from collections.abc import Callable, Generator, Iterator
from typing import TypeVar

from crm_sync import crash
from crm_sync.domain.runs import RecordOutcome
from crm_sync.errors import CrmSyncError
from crm_sync.mapping.match_keys import weakness
from crm_sync.pipeline.batch import Batch, Desk, likely_same_together
from crm_sync.pipeline.enrich import EnrichRoom
from crm_sync.pipeline.select import DuePage, due_pages, to_reveal
from crm_sync.pipeline.walk import Answered, Due, Walk
from crm_sync.store.journal import PlannedCall

T = TypeVar("T")

#: While Apollo asks to wait, the run still shows that it is alive, and hears that it is to stop.
_HEARTBEAT_S = 1.0
#: Plan so many calls in one commit.
_PLAN_AT = 16


class _Lane:
    """Records that are asked for in one way: by plain calls, or by calls that order their phones too."""

    def __init__(self, walk: Walk) -> None:
        self.desk = Desk(walk.enricher.per_call)
        self.room = EnrichRoom(walk, self.desk)
        self.formed: list[Batch] = []


class Stages:
    """The reading and the asking stage of one walk."""

    def __init__(
        self,
        walk: Walk,
        *,
        on_expected: Callable[[int], None],
        pages: Iterator[DuePage] | None = None,
        revealing: Walk | None = None,
    ) -> None:
        """`pages`: what to read in place of what is due. `revealing`: the walk whose calls order phones too, for those
        whom `phones.reveal_when` names; None where none does."""
        self._walk = walk
        self._on_expected = on_expected
        self._pages = pages
        self._lane = _Lane(walk)
        self._revealing = _Lane(revealing) if revealing is not None else None
        self._planned: queue.Queue[PlannedCall | None] = queue.Queue(maxsize=walk.workers)
        self._results: queue.Queue[list[Answered] | None] = queue.Queue(maxsize=4 * walk.workers)
        self._abandoned = threading.Event()
        self.left_out: Counter[str] = Counter()
        self.selected = 0

    def answered(self) -> Generator[list[Answered]]:
        """Every selected record exactly once, in no particular order; an empty group every second nothing comes."""
        walk = self._walk
        threads = [_thread(self._asking, f"asking-{n}") for n in range(walk.workers)]
        reader = _thread(self._reading, "reading")
        for thread in (*threads, reader):
            thread.start()
        alive = len(threads) + 1
        try:
            while alive:
                try:
                    group = self._results.get(timeout=_HEARTBEAT_S)
                except queue.Empty:
                    yield []
                    continue
                if group is None:
                    alive -= 1
                else:
                    yield group
        finally:
            if alive:
                # The writer failed or was interrupted: paid calls under way are finished and journaled, no more.
                walk.stop.raise_("the run ended")
                self._abandoned.set()
            for thread in (*threads, reader):
                thread.join()
            self._flush()

    @property
    def _lanes(self) -> list[_Lane]:
        return [self._lane] if self._revealing is None else [self._lane, self._revealing]

    def _flush(self) -> None:
        try:
            for lane in self._lanes:
                lane.room.flush()
        except CrmSyncError as error:  # the answers are stored; whoever closes the run indexes them
            self._walk.stop.raise_(str(error), error)

    # --- reading ------------------------------------------------------------------------------------------------

    def _reading(self) -> None:
        walk = self._walk
        try:
            for page in self._pages if self._pages is not None else due_pages(walk, self.left_out):
                if page.expected is not None:
                    self._on_expected(page.expected)
                self.selected += len(page.due)
                self._take(page)
                if not page.due:  # nothing more for the moment: what waits to make ten is asked for
                    self._form_rest()
                self._plan()
            self._form_rest()
            self._plan()
        except CrmSyncError as error:
            walk.stop.raise_(str(error), error)
        except Exception as error:  # noqa: BLE001 - a bug in a thread must end the run, not hang it
            walk.stop.raise_(f"unexpected {type(error).__name__}", error)
        finally:
            self._give_up_rest()
            for _ in range(walk.workers):
                self._pass_on(self._planned, None)
            self._put(None)

    def _form_rest(self) -> None:
        for lane in self._lanes:
            self._form(lane, lane.desk.rest())

    def _take(self, page: DuePage) -> None:
        walk = self._walk
        strong: list[Due] = []
        weak: list[Answered] = []
        for due in page.due:
            problem = weakness(due.keys, walk.match)
            if problem:
                weak.append(Answered(due=due, outcome=RecordOutcome.SKIPPED, reason=problem))
            else:
                strong.append(due)
        served, open_ = self._lane.room.serve(strong, page.stored)
        if weak or served:
            self._put([*weak, *served])
        chosen = to_reveal(walk, open_) if self._revealing is not None else frozenset()
        for due in open_:
            alone = self._lane.room.was_left_open(page.stored.get(due.keys.key))
            lane = self._lane
            if self._revealing is not None and due.record.ref.id in chosen and not alone:
                # Unless somebody else with this key has been put down for a plain call.
                lane = self._lane if self._lane.desk.waiting(due.keys.key) else self._revealing
            self._form(lane, lane.desk.take(due, alone=alone))

    def _form(self, lane: _Lane, batch: Batch | None) -> None:
        if batch is not None:
            lane.formed.append(batch)
            crash.point("batch.formed")
        if len(lane.formed) >= _PLAN_AT:
            self._plan()

    def _plan(self) -> None:
        per_call = self._walk.enricher.per_call
        for lane in self._lanes:
            for calls, answered in lane.room.plan(likely_same_together(lane.formed, per_call)):
                if answered:
                    self._put(answered)
                for call in calls:
                    self._pass_on(self._planned, call)
            lane.formed = []

    def _give_up_rest(self) -> None:
        """What the reader leaves behind when it was stopped in mid-page still has its place in the books."""
        for lane in self._lanes:
            rest = lane.desk.rest()
            formed, lane.formed = [*lane.formed, *([rest] if rest else [])], []
            left = lane.room.give_up((key for batch in formed for key in batch.keys), self._walk.stop.reason)
            if left:
                self._put(left)

    # --- asking -------------------------------------------------------------------------------------------------

    def _asking(self) -> None:
        try:
            while not self._abandoned.is_set():
                try:
                    call = self._planned.get(timeout=0.2)
                except queue.Empty:
                    continue
                if call is None:
                    break
                self._put(self._ask(call))
        finally:
            self._put(None)  # whatever happened: the writer waits for it

    def _ask(self, call: PlannedCall) -> list[Answered]:
        walk = self._walk
        room = (self._revealing if self._revealing is not None and call.order_id else self._lane).room
        try:
            if walk.stop:
                return room.let_go(call)
            refused = walk.screen.suppressed_since(call.keys)
            return room.ask_without(call, refused) if refused else room.ask(call)
        except CrmSyncError as error:
            walk.stop.raise_(str(error), error)
        except Exception as error:  # noqa: BLE001 - a bug in a thread must end the run, not hang it
            walk.stop.raise_(f"unexpected {type(error).__name__}", error)
        return room.give_up(call.keys, walk.stop.reason)

    def _put(self, group: list[Answered] | None) -> None:
        self._pass_on(self._results, group)

    def _pass_on(self, line: queue.Queue[T], item: T) -> None:
        """Put without hanging for ever when the other end has gone."""
        while not self._abandoned.is_set():
            try:
                line.put(item, timeout=0.2)
            except queue.Full:
                continue
            return


def _thread(work: Callable[[], None], name: str) -> threading.Thread:
    """A thread whose log lines carry the ids of whoever begins it."""
    return threading.Thread(target=contextvars.copy_context().run, args=(work,), name=name, daemon=True)
