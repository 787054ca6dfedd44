"""Stories of phone numbers: ordered, delivered, carried out, asked for and given up, with a kill in the run that orders,
in the receiver, in the command that carries out what came, or in `crm-sync serve`, which does both. Reveals are done
when a story says so. Each is told once without a kill and must end the same with one: tests/faults/phone_judge.py."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import orjson

from crm_sync import crash
from crm_sync.sandbox.hubspot.portal import FIRST_ID
from crm_sync.sandbox.salesforce import ids as salesforce_ids
from tests.faults.forks import LIMIT_S, Child
from tests.faults.scenes import CRMS, Command, _count
from tests.faults.stories import _SCENE, EMAIL, OBJECT, TITLE, Play
from tests.faults.witness import Report

#: What comes to rest does so in so many rounds.
_MOST = 6
MOBILE = {"salesforce": "MobilePhone", "hubspot": "mobilephone"}
_DIRECT = {"salesforce": "Phone", "hubspot": "phone"}
_WHEN = {
    "salesforce": "\"Status__c IN ('Target', 'Customer')\"",
    "hubspot": "[{property: outreach_status, operator: IN, values: [Target, Customer]}]",
}
_STATUS = {"salesforce": "Status__c", "hubspot": "outreach_status"}
#: Two contacts of one person (tests/faults/witness.SEED).
_TWINS = (19, 20)
_NAMES = {"salesforce": ("FirstName", "LastName"), "hubspot": ("firstname", "lastname")}

_TEXT = """
version: 1
apollo: {{workers: 1}}
crms: {{{crm}: {{type: {crm}, environment: sandbox}}}}
placeholders: ["[[unknown]]", "n/a", "-"]
syncs:
  contacts:
    crm: {crm}
    object: {object}
    choose: {{missing_any: [], after_no_match_wait: 7d}}
    match:
      send: {{email: {email}, first_name: {first}, last_name: {last}}}
    phones:
      order: {order}
      reveal_when: {when}
      route: {{mobile: {mobile}, work_direct: {direct}}}
      wait: 2m
      give_up_after: 1d
    fields:
      {title}: person.title
"""
RUN = ("run", "contacts")
POLL = ("phones", "poll", "--all")
_REPLAY = ("phones", "replay", "--state", "applied")


@dataclass(kw_only=True)
class PhonePlay(Play):
    """An installation whose receiver listens at `port`, in a process of its own."""

    port: int
    receiver: Child | None = None
    #: How often it was started after it had died.
    restarts: int = 0

    def apply(self, *, order: str = "after_match", mobile: str = "") -> None:
        crm = self.crm
        first, last = _NAMES[crm]
        self.configure_with(
            _TEXT.format(
                crm=crm, order=order, object=OBJECT[crm], email=EMAIL[crm], first=first, last=last, when=_WHEN[crm],
                mobile=mobile or MOBILE[crm], direct=_DIRECT[crm], title=TITLE[crm],
            ).encode()
        )  # fmt: skip

    # --- the receiver ---------------------------------------------------------------------------------------------

    def receive(self, *, kill: str = "", counts: Path | None = None) -> None:
        self._start(Receiving(settings=self.settings, port=self.port, kill=kill, counts=counts, mutant=self.mutant))

    def serve(self, *, kill: str = "", counts: Path | None = None) -> None:
        """The product's own: receiver and worker in one process."""
        words = ("serve", "--port", str(self.port))
        mutant = partial(_hasten, self.mutant)
        self._start(
            Command(
                crm=self.crm, scene=_SCENE, settings=self.settings, at=self.minutes, words=words, mutant=mutant,
                kill=kill, counts=counts,
            )
        )  # fmt: skip

    def _start(self, work: Callable[[], int]) -> None:
        self.receiver = child = Child.fork(work, self.bench.folder / "receiver.out")
        deadline = time.monotonic() + LIMIT_S
        while not _answers(self.port):
            ended = child.ended()
            if ended is not None or time.monotonic() > deadline:
                raise RuntimeError(f"the receiver does not come up: {ended}")
            time.sleep(0.002)

    def stop_receiving(self) -> None:
        if self.receiver is None:
            return
        child, self.receiver = self.receiver, None
        os.kill(child.pid, signal.SIGTERM)
        ended = child.wait()
        self.bench.said.append(f"--- the receiver -> {ended.code}\n{ended.output}")
        if ended.code != 0:
            self.told.append(f"the receiver ended with {ended.code}: {' '.join(ended.output.split())[-300:]}")

    def died(self) -> bool:
        """Whether the receiver was killed by now; it is gone then."""
        ended = self.receiver.ended() if self.receiver is not None else None
        if ended is None:
            return False
        self.receiver = None
        self.bench.said.append(f"--- the receiver -> {ended.code}\n{ended.output}")
        if not ended.was_killed:
            self.told.append(f"the receiver ended with {ended.code}: {' '.join(ended.output.split())[-300:]}")
        return True

    def receive_again(self) -> None:
        if self.died():
            self.restarts += 1
            self.receive()

    # --- what goes on ---------------------------------------------------------------------------------------------

    def ordered(self) -> None:
        """People are known by a plan, which buys and orders no phone, and their phones are ordered by a run."""
        self.well("plan", "contacts", "--limit", "100", "--yes")
        self.well(*RUN)

    def deliver(self) -> None:
        """All that was ordered is done, and is delivered as far as somebody takes it."""
        self.bench.sandbox.deliver()
        self.receive_again()
        self.bench.sandbox.wait_for_callbacks()

    def come_to_rest(self, words: Sequence[str] = RUN, *, delivers: bool = True) -> int:
        """Commands until they change nothing any more; how many rounds it took."""
        sandbox = self.bench.sandbox
        for count in range(1, _MOST + 1):
            before = sandbox.report()
            self.well(*POLL)
            if words != RUN:
                self.well(*RUN)  # what died of kind phones is closed by a run, or by the worker
            self.well(*words)
            if delivers:
                self.deliver()
            self.well(*POLL)
            if _is_same(before, sandbox.report()):
                return count
        self.told.append(f"{_MOST} rounds did not come to rest")
        return _MOST


def _is_same(before: Report, after: Report) -> bool:
    return (before.writes, len(before.answers), before.phones["ordered"], before.phones["charged"]) == (
        after.writes, len(after.answers), after.phones["ordered"], after.phones["charged"],
    )  # fmt: skip


def _answers(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


@contextmanager
def playing(bench: Any, crm: str, database: str, mutant: Callable[[], None] | None = None) -> Iterator[PhonePlay]:
    with bench.installation(crm, database) as settings, socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        port = held.getsockname()[1]
        held.close()
        known = settings | {"CRM_SYNC_PUBLIC_URL": f"http://127.0.0.1:{port}"}
        play = PhonePlay(bench=bench, crm=crm, settings=known, mutant=mutant, port=port)
        try:
            yield play
        finally:
            if play.receiver is not None:
                os.kill(play.receiver.pid, signal.SIGKILL)
                play.receiver.wait()


@dataclass(frozen=True, kw_only=True)
class Receiving:
    """The receiver alone, as gunicorn would run it; ends at SIGTERM, or at `kill`."""

    settings: Mapping[str, str]
    port: int
    kill: str = ""
    counts: Path | None = None
    mutant: Callable[[], None] | None = None

    def __call__(self) -> int:
        from crm_sync.bootstrap import App, web_app
        from crm_sync.web.serving import WebServer

        for name in [name for name in os.environ if name.startswith("CRM_SYNC_")]:
            del os.environ[name]
        os.environ.update(self.settings)
        if self.mutant is not None:
            self.mutant()
        met: Counter[str] = Counter()
        if self.counts is not None:
            crash.point = partial(_count, met)
        elif self.kill:
            crash.arm(self.kill)
        server = WebServer(web_app(App()), host="127.0.0.1", port=self.port, threads=4)
        signal.signal(signal.SIGTERM, lambda *_: server.stop())
        server.run()
        if self.counts is not None:
            self.counts.write_bytes(orjson.dumps(dict(met)))
        return 0


def _hasten(mutant: Callable[[], None] | None) -> None:
    """The worker looks as often as a story has no time to wait."""
    from crm_sync import workers

    workers._LOOK_EVERY_S, workers._SWEEP_EVERY_S, workers._TRY_AGAIN_S = 0.02, 0.1, 0.05
    if mutant is not None:
        mutant()


# --- the stories ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class PhoneStory:
    """`begin` comes before what is killed and gives the command's words: `victim` "command". Else the receiver is killed,
    or `crm-sync serve`, while Apollo delivers. `meanwhile` comes after the kill; `after`, when all has come to rest.
    `again`: the words that come to rest; `delivers`: whether Apollo does its reveals meanwhile; `lost`: answers that
    were lost before; `unknowns`: whether what is delivered for a lost answer may be about nobody we know."""

    name: str
    begin: Callable[[PhonePlay], Sequence[str]]
    victim: str = "command"
    meanwhile: Callable[[PhonePlay], None] = lambda _play: None
    after: Callable[[PhonePlay], None] = lambda _play: None
    again: Sequence[str] = RUN
    delivers: bool = True
    lost: int = 0
    unknowns: bool = False
    crms: tuple[str, ...] = CRMS
    #: Points to kill at, all that begin so.
    also: tuple[str, ...] = ()
    at_most: int = 2


def _order(play: PhonePlay, *script: Mapping[str, Any], order: str = "after_match") -> Sequence[str]:
    play.apply(order=order)
    play.receive()
    play.bench.sandbox.script(script)
    if order == "after_match":
        play.well("plan", "contacts", "--limit", "100", "--yes")
    return RUN


def _order_early(play: PhonePlay) -> Sequence[str]:
    """Two are delivered before Apollo's own answer to the order."""
    return _order(play, {"what": "early"}, {"what": "early", "nth": 3})


def _order_with_match(play: PhonePlay) -> Sequence[str]:
    return _order(play, {"what": "early", "nth": 2}, order="with_match")


def _awaited(play: PhonePlay, *script: Mapping[str, Any]) -> Sequence[str]:
    play.apply()
    play.receive()
    play.bench.sandbox.script(script)
    play.ordered()
    return POLL


def _receive(play: PhonePlay) -> Sequence[str]:
    play.apply()
    play.bench.sandbox.script([{"what": "double", "nth": 2}])
    play.well("plan", "contacts", "--limit", "100", "--yes")
    return RUN


def _carry_out(play: PhonePlay) -> Sequence[str]:
    """Late, twice, not at all, once more with other numbers; somebody was edited into somebody else since."""
    words = _awaited(play, {"what": "reversed"}, {"what": "changed", "nth": 2}, {"what": "double", "nth": 3})
    first, last = _NAMES[play.crm]
    other = {EMAIL[play.crm]: "somebody.else@elsewhere.example", first: "Somebody", last: "Else"}
    play.bench.sandbox.edit(OBJECT[play.crm], somebody(play, 0), other)
    play.deliver()
    return words


def _serve(play: PhonePlay) -> Sequence[str]:
    _awaited(play, {"what": "reversed"}, {"what": "never", "nth": 2}, {"what": "double", "nth": 3})
    play.stop_receiving()
    return ()


def _suppressed(play: PhonePlay) -> Sequence[str]:
    words = _awaited(play)
    play.deliver()
    return words


def _suppress(play: PhonePlay) -> None:
    play.well("suppress", "add", play.email(somebody(play, 1)))


def _give_up(play: PhonePlay) -> Sequence[str]:
    words = _awaited(play)
    play.minutes += 2 * 24 * 60
    return words


def _come_too_late(play: PhonePlay) -> None:
    """What comes then is kept as late, and nobody buys it again."""
    play.come_to_rest()


def _skipped(play: PhonePlay) -> Sequence[str]:
    """An answer is lost while Apollo works at it, and a person lets it be asked again: Apollo skips it."""
    _order(play)
    if not play.command(*RUN, kill="wire.answered@people/bulk_match:1").was_killed:
        play.told.append("the first order was not reached")
    play.minutes += 20
    play.well(*POLL)
    play.command(*RUN, kill="run.opened:1")  # it recovers, and orders nothing
    play.well("doubt", "resend", "--all", "--yes")
    return RUN


def _join(play: PhonePlay) -> Sequence[str]:
    """The second record of somebody whose phone was delivered for the first one comes in. HubSpot's second ones have no
    address, and are nobody."""
    play.apply()
    play.receive()
    second = record_id(play.crm, _TWINS[1])
    play.bench.sandbox.edit(OBJECT[play.crm], second, {_STATUS[play.crm]: "Archived"})
    play.ordered()
    play.deliver()
    play.well(*POLL)
    play.bench.sandbox.edit(OBJECT[play.crm], second, {_STATUS[play.crm]: "Customer"})
    return RUN


def _replay(play: PhonePlay) -> Sequence[str]:
    """Numbers had nowhere to go; the route was mended since."""
    play.apply(mobile="skip")
    play.receive()
    play.ordered()
    play.deliver()
    play.well(*POLL)
    play.apply()
    return _REPLAY


_ORDERING = (
    "probe.", "orders.", "reveals.", "journal.", "pace.granted", "enrich.read", "wire.asked@people/",
    "wire.answered@people/",
)  # fmt: skip
_CARRYING = (
    "resolve.", "reveals.", "phone_runs.", "inbox.", "runs.intend.after", "runs.settle", "write.reread",
    "write.answered", "wire.asked@write", "wire.answered@write", "wire.answered@webhook",
)  # fmt: skip
_SERVING = (
    "inbox.", "resolve.", "reveals.settle", "phone_runs.opened", "runs.settle.after", "wire.answered@write",
)  # fmt: skip
_EARLY = ("journal.sent.after", "wire.answered@people/", "journal.received", "journal.expand.before", "orders.answered")

PHONE_STORIES = (
    PhoneStory(name="order", begin=_order, also=(*_ORDERING, "run.closing", "run.closed")),
    PhoneStory(name="order_early", begin=_order_early, also=_EARLY),
    PhoneStory(name="order_with_match", begin=_order_with_match, unknowns=True, also=(*_ORDERING, "run.closing")),
    PhoneStory(name="receive", begin=_receive, victim="receiver", also=("inbox.",), at_most=4),
    PhoneStory(name="carry_out", begin=_carry_out, also=(*_CARRYING, "run.closing")),
    PhoneStory(name="serve", begin=_serve, victim="serve", also=_SERVING),
    PhoneStory(
        name="suppressed", begin=_suppressed, meanwhile=_suppress, also=("resolve.", "phone_runs.opened"), at_most=1
    ),
    PhoneStory(name="give_up", begin=_give_up, after=_come_too_late, delivers=False, also=("reveals.give",), at_most=3),
    PhoneStory(name="skipped", begin=_skipped, lost=1, also=("orders.", "reveals.", "journal.received"), at_most=1),
    PhoneStory(name="join", begin=_join, crms=("salesforce",), also=("reveals.", "run.closing"), at_most=1),
    PhoneStory(
        name="replay", begin=_replay, again=_REPLAY, also=("reveals.replay", "reveals.settle", "resolve.due", "write.answered")
    ),
)  # fmt: skip
BY_NAME = {story.name: story for story in PHONE_STORIES}


def somebody(play: PhonePlay, nth: int) -> str:
    """The id of a record that waits, or waited, for a phone."""
    return waiting_records(play.settings)[nth]


def record_id(crm: str, index: int) -> str:
    """The id of one of the world's contacts."""
    return salesforce_ids.encode("003", index) if crm == "salesforce" else str(FIRST_ID["contacts"] + index)


def waiting_records(settings: Mapping[str, str]) -> list[str]:
    from sqlalchemy import select

    from crm_sync.store.tables import phone_waits
    from tests.faults.stories import _opened

    with _opened(settings) as store, store.read() as connection:
        return sorted(connection.execute(select(phone_waits.c.record_id)).scalars())


# --- telling one --------------------------------------------------------------------------------------------------


def tell(play: PhonePlay, story: PhoneStory, *, kill: str = "", counts: Path | None = None) -> int:
    """Play it, killed or not; how often what was killed ran after that. With `counts` the victim's points are counted,
    and the story ends there."""
    words = story.begin(play)
    reached = _VICTIMS[story.victim](play, words, kill, counts)
    if counts is not None:
        return 0
    if kill and not reached:
        play.told.append("the point was not reached")
    story.meanwhile(play)
    count = play.restarts + play.come_to_rest(story.again, delivers=story.delivers)
    story.after(play)
    return count


def _command(play: PhonePlay, words: Sequence[str], kill: str, counts: Path | None) -> bool:
    if counts is not None:
        play.command(*words, counts=counts)
        return True
    return bool(kill) and play.command(*words, kill=kill).was_killed


def _receiver(play: PhonePlay, words: Sequence[str], kill: str, counts: Path | None) -> bool:
    """It is killed while the run tries its address, or while Apollo delivers, and started again on the same port."""
    play.receive(kill=kill, counts=counts)
    play.command(*words)
    restarts = play.restarts
    play.receive_again()
    play.deliver()
    if kill and play.restarts == restarts:
        time.sleep(0.2)  # it may be about to die
    if counts is not None:
        play.stop_receiving()
    play.receive_again()
    return play.restarts > restarts


def _serving(play: PhonePlay, _: Sequence[str], kill: str, counts: Path | None) -> bool:
    """It is killed while Apollo delivers and it carries out; the next one does the rest."""
    play.serve(kill=kill, counts=counts)
    play.bench.sandbox.deliver()
    was_killed = _work_off(play, bool(kill))
    if was_killed:
        play.restarts += 1
        play.minutes += 2
        play.serve()
        play.bench.sandbox.wait_for_callbacks()
        _work_off(play, False)
    play.stop_receiving()
    if counts is None:
        play.minutes += 2
        play.receive()
    return was_killed


def _work_off(play: PhonePlay, may_die: bool) -> bool:
    """Wait until nothing is left to be read, or the one who reads it is dead (True)."""
    from tests.faults.phone_judge import is_at_rest

    deadline = time.monotonic() + 8
    while time.monotonic() < deadline:
        if play.died():
            return True
        if is_at_rest(play.settings) and not may_die:
            return False
        time.sleep(0.02)
    if not may_die:
        play.told.append("serve did not carry out what was delivered")
    return play.died()


_VICTIMS: Mapping[str, Callable[[PhonePlay, Sequence[str], str, Path | None], bool]] = {
    "command": _command, "receiver": _receiver, "serve": _serving,
}  # fmt: skip
