"""A run that several workers share: one process selects and cuts what is due into chunks, whoever is free walks them.

The process that began the run is one of the workers, so that a run comes to its end with nobody's help. Each worker has
a share with an owner and a heartbeat of its own; what a dead or stopped one has not done is open again
(store/shares.py, pipeline/recover.py). Guard, budgets and pace hold across all of them, being kept in the database.
"""

from __future__ import annotations

import contextvars
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from datetime import timedelta

from crm_sync import crash, errors
from crm_sync.config.model import Sync
from crm_sync.domain.runs import Asked, RecordOutcome, SyncRun
from crm_sync.errors import CrmSyncError, HeldError, LostRunError, ProviderError, StoreError
from crm_sync.log_ids import log_ids
from crm_sync.pipeline import restore
from crm_sync.pipeline.audit import Audit
from crm_sync.pipeline.heartbeat import alive
from crm_sync.pipeline.recover import (
    PAUSED,
    give_up_share,
    is_alive,
    owner,
    recover_everywhere,
    settle_calls,
)
from crm_sync.pipeline.reveal import with_match
from crm_sync.pipeline.select import LEFT_OUT_DOUBT, DuePage, due_pages, named_pages
from crm_sync.pipeline.stages import Stages
from crm_sync.pipeline.walk import Due, Spending, Stop, Walk, prepare
from crm_sync.pipeline.writing_desk import WritingDesk
from crm_sync.services import Services
from crm_sync.spans import span
from crm_sync.store.answers import StoredAnswer
from crm_sync.store.shares import Chunk, Giving, Share, Standing, Tally, merged

#: So many records are one chunk: twenty paid calls, which a worker at Apollo's published pace has done in seconds.
CHUNK = 200
#: So many chunks wait at most: selecting goes no further ahead of the asking.
_AHEAD = 20
#: How often a worker tells how it stands, and looks whether it is to go on.
_LOOK_EVERY = timedelta(seconds=2)
#: How soon a worker sees a chunk that was cut or given back meanwhile: one look at an index.
_LOOK_FOR_CHUNKS_EVERY_S = 0.25
#: How often whoever waits for the others looks whether one of them has died.
_RECOVER_EVERY_S = 1.0
#: Selected, and when their turn came changed, gone or to be left alone.
LEFT_OUT_GONE = "not due any more when their turn came"

#: A worker that met one of these has met it for all of them.
_FOR_ALL = ("BudgetError", "HeldError", "CredentialsError", "QuotaError", "ContractError")


@dataclass(frozen=True, slots=True, kw_only=True)
class Shared:
    """What came of a run's shares: its audit's sums, the calls of the other processes, what was left out, and
    sentences about what went wrong."""

    audit: Audit
    calls: dict[str, int]
    left_out: dict[str, int]
    expected: list[int]
    remarks: tuple[str, ...] = ()


def share_out(walk: Walk, run: SyncRun, sync: Sync, services: Services, asked: Asked) -> Shared:
    """Walk a run together with whoever joins it, until all that is due is done or `walk.stop` is raised; returns when
    nobody is at it any more.

    Raises:
        CrmSyncError: as a walk.
    """
    shares = services.shares
    shares.begin(run.id, now=services.clock.now())
    cutter = _Cutter(walk, run, services)
    cutter.start()

    def look() -> None:
        if services.runs.cancel_asked(run.id):
            walk.stop.cancel()
        tallies = shares.tallies(run.id)
        for tally in tallies.values():
            if tally.stopped_by in _FOR_ALL:
                walk.stop.raise_(tally.stopped, _told_error(tally))
        told = merged(tallies)
        spent = services.journal.spent(run.id)
        standing = replace(run, counts=told.counts, left_out=dict(cutter.left_out), credits=spent)
        services.runs.save(standing, now=services.clock.now())

    others = _Others(run, services)
    looked_at = services.clock.now()
    try:
        while not walk.stop:
            share = shares.join(run.id, owner=owner(), now=services.clock.now())
            if share is not None:
                take_part(share, run, sync, services, asked, stop=walk.stop, meanwhile=look, at_hand=cutter)
            elif cutter.is_done and shares.is_over(run.id):
                break
            else:
                others.are_at_it()
                time.sleep(_LOOK_FOR_CHUNKS_EVERY_S)
            if services.clock.now() - looked_at > _LOOK_EVERY:
                looked_at = services.clock.now()
                look()
    except LostRunError as error:
        services.runs.beat(run.id, now=services.clock.now())  # raises where it is the run itself that is lost
        raise StoreError("this process slept for so long that its part of the run was given to others") from error
    finally:
        cutter.stop()
        shares.stand(run.id, Standing.STOPPING, why=walk.stop.reason)
        while others.are_at_it():
            time.sleep(_LOOK_FOR_CHUNKS_EVERY_S)
    look()
    return _told(walk, run, services, cutter)


def _told(walk: Walk, run: SyncRun, services: Services, cutter: _Cutter) -> Shared:
    """What came of it, when nobody is at it any more; from here on its records are told as one."""
    told, cut = merged(services.shares.tallies(run.id)), services.shares.cut(run.id)
    services.shares.close(run.id)
    reasons = services.runs.reasons(run.id)
    # Selected, and when their turn came not among those who were walked.
    missing = cut - sum(count for kind, _, _, count in reasons if kind == run.object_type)
    left_out = Counter(cutter.left_out)
    in_doubt = 0
    if not walk.stop and missing > 0:
        in_doubt = min(told.left_out.get(LEFT_OUT_DOUBT, 0), missing)
        left_out.update({LEFT_OUT_DOUBT: in_doubt, LEFT_OUT_GONE: missing - in_doubt})
    audit = Audit(
        context=walk,
        refused_fields=told.refused_fields,
        unstamped=told.unstamped,
        put_back=told.put_back,
        conflicts=told.conflicts,
        unwritten=_still(told.unwritten, reasons),
    )
    return Shared(
        audit=audit,
        calls=told.calls,
        left_out={reason: count for reason, count in left_out.items() if count},
        expected=cutter.expected,
        remarks=(f"{in_doubt} in doubt, since a worker ended while Apollo was being asked",) if in_doubt else (),
    )


def help_out(services: Services, *, stop: Stop) -> Share | None:
    """Join the oldest run in which something is to be done, and walk what nobody has taken; returns the share, None
    where there was nothing to do.

    Raises:
        CrmSyncError: the database, or what this process could not do; what it had taken is open again.
    """
    for run, its_owner, alive_at in services.shares.to_join(config_version=services.config_version):
        sync = services.config.syncs.get(run.sync)
        asked = services.queue.asked(run.id)
        if sync is None or asked is None or not is_alive(its_owner, alive_at, services.clock.now()):
            continue
        services.crm(sync.crm).refresh()  # this process may be up for months
        share = services.shares.join(run.id, owner=owner(), now=services.clock.now())
        if share is None:
            continue

        def look(run_id: str = run.id) -> None:
            if services.runs.cancel_asked(run_id):
                stop.cancel()
            elif services.shares.standing(run_id) is Standing.STOPPING or not _lives(run_id, services):
                stop.pause(services.shares.why_stopping(run_id) or PAUSED)

        with log_ids(run=run.id, sync=sync.name):
            take_part(share, run, sync, services, asked, stop=stop, meanwhile=look)
        if stop.error is not None and _is_for_all(stop.error):
            # The run's own process may not look for a while, and would be joined again at once.
            services.shares.stand(run.id, Standing.STOPPING, why=stop.reason)
        elif stop.error is not None:
            raise stop.error  # whatever it is: whoever looks for work tells of it, and rests
        return share
    return None


def take_part(
    share: Share,
    run: SyncRun,
    sync: Sync,
    services: Services,
    asked: Asked,
    *,
    stop: Stop,
    meanwhile: Callable[[], None],
    at_hand: _Cutter | None = None,
) -> None:
    """Walk chunks of a run until there are none, or `stop`. `meanwhile` is called every two seconds; `at_hand`:
    this is the run's own process, which counts its calls itself.

    Raises:
        LostRunError: this process was taken for dead, and others go on with what it had taken.
        CrmSyncError: nothing of this share's end could be written down; the next one closes it.
    """
    before = Counter(services.calls_so_far(sync.crm))

    def calls() -> dict[str, int]:
        if at_hand is not None:
            return {}
        made = Counter(services.calls_so_far(sync.crm))
        made.subtract(before)
        return {name: count for name, count in made.items() if count}

    try:
        with (
            alive(lambda: services.shares.beat(share, now=services.clock.now()), stop),
            span("share", run=run.id, sync=run.sync, number=share.number) as open_,
        ):
            tally = _walked(share, run, sync, services, asked, stop, meanwhile, at_hand, calls)
            open_.tell(**asdict(tally.counts))
        tally.calls = calls()
        giving = Giving.UNFINISHED if stop else Giving.NOTHING if asked.free else Giving.HELD
        services.shares.end(share, run, tally=tally, giving=giving, now=services.clock.now())
    except LostRunError:
        raise  # whoever has it gives it its end
    except BaseException:
        give_up_share(share)
        raise


def _walked(
    share: Share,
    run: SyncRun,
    sync: Sync,
    services: Services,
    asked: Asked,
    stop: Stop,
    meanwhile: Callable[[], None],
    at_hand: _Cutter | None,
    calls: Callable[[], dict[str, int]],
) -> Tally:
    tally = Tally()
    try:
        walk = prepare(
            sync,
            services,
            run_id=run.id,
            share=share.number,
            kind=run.kind,
            limit=None,
            spending=Spending(max_credits=asked.max_credits, free=asked.free),
            crm=services.crm(sync.crm),
            enricher=services.enricher(),
        )
        walk = replace(walk, stop=stop, at_most=None)  # whoever selects counts
        if at_hand is None and not walk.free:
            restore.begin(walk, services)
        desk = WritingDesk(walk)
        left_out: Counter[str] = Counter()
        pages = _pages(walk, share, run, services, at_hand, left_out)
        stages = Stages(walk, on_expected=lambda _: None, pages=pages, revealing=with_match(walk, services))
        looked_at = services.clock.now()
        with closing(stages.answered()) as groups, stop.told_first():
            for group in groups:
                desk.take(group)
                now = services.clock.now()
                if now - looked_at > _LOOK_EVERY:
                    looked_at = now
                    tally = _tally(desk.audit, stages, left_out)
                    tally.calls = calls()  # it may be killed
                    services.shares.beat(share, now=now, tally=tally)
                    if not walk.free:
                        restore.advance(services)
                    meanwhile()
        desk.finish()
        tally = _tally(desk.audit, stages, left_out)
        services.runs.count_unmapped(sync.name, desk.unmapped, now=services.clock.now())
    except LostRunError:
        raise
    except CrmSyncError as error:
        stop.raise_(str(error), error)
        now = services.clock.now()
        services.runs.close_intended(run.id, f"not confirmed: {error}", now=now, share=share.number)
    settle_calls(run.id, services, share=share.number)
    crash.point("shares.walked")
    if isinstance(stop.error, LostRunError):
        raise stop.error
    if stop:
        tally.stopped = stop.reason
        tally.stopped_by = type(stop.error).__name__ if stop.error is not None and _is_for_all(stop.error) else ""
    return tally


def _pages(
    walk: Walk, share: Share, run: SyncRun, services: Services, at_hand: _Cutter | None, left_out: Counter[str]
) -> Iterator[DuePage]:
    """What this share has taken, chunk by chunk; a page of nobody where it waits for more to be selected."""
    shares = services.shares
    while not walk.stop:
        chunk = shares.take(share, now=services.clock.now())
        if chunk is not None:
            # A worker that was stopped may have had it before and done some of it.
            undone = shares.undone(run, chunk.record_ids)
            page = at_hand.page_of(chunk) if at_hand is not None else None
            if page is None:
                yield from named_pages(walk, undone, left_out)
            else:
                left = set(undone)
                yield replace(page, due=tuple(each for each in page.due if each.record.ref.id in left))
            continue
        if shares.standing(run.id) is not Standing.SELECTING:
            return
        yield DuePage(due=(), stored={}, expected=None)
        time.sleep(_LOOK_FOR_CHUNKS_EVERY_S)


class _Cutter:
    """Selects, in a thread of its own, and cuts what is due into chunks."""

    def __init__(self, walk: Walk, run: SyncRun, services: Services) -> None:
        self._walk = walk
        self._run = run
        self._services = services
        self._ended = threading.Event()
        #: Its log lines carry the ids of whoever begins it.
        work = contextvars.copy_context().run
        self._thread = threading.Thread(target=work, args=(self._select,), name="selecting", daemon=True)
        self._lock = threading.Lock()
        #: What was read of the newest chunks, so that this process need not read them once more.
        self._read: dict[int, DuePage] = {}
        self.left_out: Counter[str] = Counter()
        self.expected: list[int] = []
        self.is_done = False

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._ended.set()
        self._thread.join()

    def page_of(self, chunk: Chunk) -> DuePage | None:
        """What was read of a chunk that nobody has had before; None where it is not at hand any more."""
        with self._lock:
            page = self._read.pop(chunk.number, None)
        return page if chunk.attempt == 0 else None

    def _select(self) -> None:
        stop = self._walk.stop
        try:
            due: list[Due] = []
            stored: dict[str, StoredAnswer] = {}
            for page in due_pages(self._walk, self.left_out):
                if page.expected is not None:
                    self.expected.append(page.expected)
                due += page.due
                stored |= page.stored
                while len(due) >= CHUNK and self._has_room():
                    self._cut(due[:CHUNK], stored)
                    due = due[CHUNK:]
                stored = {each.keys.key: stored[each.keys.key] for each in due if each.keys.key in stored}
                if self._is_over:
                    return
            if due and self._has_room():
                self._cut(due, stored)
            self._services.shares.stand(self._run.id, Standing.SELECTED)
            self.is_done = True
        except CrmSyncError as error:
            stop.raise_(str(error), error)
        except Exception as error:  # noqa: BLE001 - a bug in a thread must end the run, not hang it
            stop.raise_(f"unexpected {type(error).__name__}", error)

    @property
    def _is_over(self) -> bool:
        return self._ended.is_set() or bool(self._walk.stop)

    def _has_room(self) -> bool:
        """Wait for it; False where the run is to stop."""
        while not self._is_over and self._services.shares.waiting(self._run.id) >= _AHEAD:
            self._ended.wait(_LOOK_FOR_CHUNKS_EVERY_S)
        return not self._is_over

    def _cut(self, due: list[Due], stored: dict[str, StoredAnswer]) -> None:
        ids = [each.record.ref.id for each in due]
        number = self._services.shares.add(self._run.id, ids, now=self._services.clock.now())
        known = {each.keys.key: stored[each.keys.key] for each in due if each.keys.key in stored}
        with self._lock:
            self._read[number] = DuePage(due=tuple(due), stored=known, expected=None)
            while len(self._read) > _AHEAD:
                del self._read[next(iter(self._read))]
        self._services.tell_others()


class _Others:
    """The other workers of a run, as the one who waits for them sees them."""

    def __init__(self, run: SyncRun, services: Services) -> None:
        self._run = run
        self._services = services
        self._recovered_at = time.monotonic()

    def are_at_it(self) -> bool:
        """Whether somebody else works at the run. Now and then what dead ones left behind is opened again."""
        if not any(share.run_id == self._run.id for share in self._services.shares.working()):
            return False
        if time.monotonic() - self._recovered_at >= _RECOVER_EVERY_S:
            self._recovered_at = time.monotonic()
            recover_everywhere(self._services)
        return True


def _lives(run_id: str, services: Services) -> bool:
    now = services.clock.now()
    return any(
        run.id == run_id and is_alive(its_owner, alive_at, now)
        for run, its_owner, alive_at in services.runs.unfinished()
    )


def _tally(audit: Audit, stages: Stages, left_out: Counter[str]) -> Tally:
    return Tally(
        counts=audit.counts(stages.selected),
        left_out=dict(left_out),
        refused_fields=audit.refused_fields,
        unstamped=audit.unstamped,
        put_back=audit.put_back,
        conflicts=audit.conflicts,
        unwritten=dict(audit.unwritten),
    )


def _still(unwritten: dict[str, int], reasons: Sequence[tuple[str, str, str, int]]) -> Counter[str]:
    """What the shares could not write, without what another one has written since."""
    left: Counter[str] = Counter()
    for _, outcome, reason, count in reasons:
        if outcome == RecordOutcome.SKIPPED.value and reason in unwritten:
            left[reason] += count
    return left


def _is_for_all(error: Exception) -> bool:
    return type(error).__name__ in _FOR_ALL and not (isinstance(error, HeldError) and error.here_only)


def _told_error(tally: Tally) -> Exception:
    """Another worker's error, as far as the verdict asks."""
    kind: type[CrmSyncError] = getattr(errors, tally.stopped_by)
    return kind(tally.stopped, provider="") if issubclass(kind, ProviderError) else kind(tally.stopped)
