"""When the next call to Apollo may leave, agreed between all threads and processes through the database.

The rule (design/performance.md 5, 2026-10): a call counts against a window of W seconds from its permission until W
after its **answer**. So departure(k) >= answer(k-N) + W >= arrival(k-N) + W whatever the network does, and never more
than N calls arrive in any W seconds, sliding or fixed, of any phase.

How it is kept: one row per endpoint holds what is out (permissions without an answer) and, per window, when answers
came. Permission for a moment a little ahead is *reserved*, so that a waiting thread sleeps exactly until its slot
opens instead of polling. Where limits are large, permissions are taken in blocks, and answers are told when the next
block is taken: until told, a call counts as being out, which is only ever too careful.
"""

from __future__ import annotations

import threading
from bisect import insort
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import orjson
from sqlalchemy import Connection, bindparam, literal_column, select, update

from crm_sync.errors import QuotaError, StoreError
from crm_sync.ports import UNLIMITED, Clock, Window
from crm_sync.store.engine import Store
from crm_sync.store.tables import pace
from crm_sync.store.upsert import upsert

#: How many calls may be out together while no answer has told a limit yet.
UNTOLD_AT_ONCE = 4
#: … and for how long one that is not answered holds up others: its process may have been killed, and the next one
#: has to be at work within five seconds (design/reliability.md 6).
_UNTOLD_FOR_S = 3.0
#: A slot that opens within this time is reserved at once; for a later one the thread looks again.
_RESERVE_AHEAD_S = 5.0
_LOOK_EVERY_S = 1.0
_LONGEST_NAP_S = 2.0
_SHORTEST_NAP_S = 1e-5  # a clock counts whole microseconds: a shorter nap may not move it at all
_UNTOLD_NAP_S = 0.02
#: Expired answers are remembered so much longer, to tell other users of the same limit from our own calls.
_REMEMBER_S = 2.0
_LONGEST_PARK_S = 2 * 86_400.0
_MOST_PER_BLOCK = 1000
_SINGLE_LIFE_S = 2.0  # from the opening of a single permission to the first byte, with time to spare
_EXACT_UP_TO = 256  # above, a window's answers are counted in that many steps


class StorePace:
    """ports.Pace over the store. One per process; safe to use from several threads.

    `call_timeout_s` is the longest one call can be out: a permission nobody gave back (its process was killed) counts
    until then plus a window. `max_wait_s` bounds `acquire`. `close()` tells the last answers; without it they count
    as still out until their time-out.

    Times are the database server's on PostgreSQL, so that machines need not agree on the time, and this machine's on
    SQLite.
    """

    def __init__(
        self,
        store: Store,
        *,
        clock: Clock,
        call_timeout_s: float = 75.0,
        max_wait_s: float = 900.0,
        provider: str = "apollo",
    ) -> None:
        self._store = store
        self._clock = clock
        self._call_timeout_s = call_timeout_s
        self._max_wait_s = max_wait_s
        self._provider = provider
        self._lanes: dict[str, _Lane] = {}
        self._lanes_lock = threading.Lock()
        self._closed = False
        self._row = select(pace.c.parked_until, pace.c.limits, pace.c.state, _server_time(store.dialect)).where(
            pace.c.endpoint == bindparam("endpoint")
        )
        self._locked_row = self._row.with_for_update()
        self._update = (
            update(pace)
            .where(pace.c.endpoint == bindparam("key"))
            .values(parked_until=bindparam("parked_until"), limits=bindparam("limits"), state=bindparam("state"))
        )

    # --- the port ---

    def acquire(self, endpoint: str, *, waiting: Callable[[float], None] | None = None) -> PaceTicket:
        lane = self._lane(endpoint)
        while True:
            ticket, nap = self._try(lane)
            if ticket is None:
                if waiting is not None:
                    waiting(max(nap, self._parked_for(lane)))
                self._clock.sleep(max(nap, _SHORTEST_NAP_S))
                continue
            try:
                if self._sleep_until(lane, ticket.opens_at, waiting):
                    return ticket
            except BaseException:
                lane.give_back(ticket)
                raise
            lane.give_back(ticket)  # somebody was told to wait meanwhile: so do we

    def learn(self, endpoint: str, windows: Sequence[Window]) -> None:
        if not windows:
            return
        lane = self._lane(endpoint)
        limits = {w.seconds: w.limit for w in windows if w.limit > 0}
        now = self._now()
        with lane.lock:
            for w in windows:
                if w.left is not None and 0 < w.limit < UNLIMITED:
                    lane.told[w.seconds] = (lane.base.latest(now), w.limit - w.left)
            if all(lane.limits.get(seconds) == limit for seconds, limit in limits.items()):
                return
            lane.learned.update(limits)
        try:
            with lane.turn, self._transaction(lane):
                pass  # reading the row brings in what was learned, before it counts the answers
        except StoreError:
            pass  # a failing database must not cost the paid answer in hand; it is learned with the next question

    def park(self, endpoint: str, seconds: float) -> None:
        lane = self._lane(endpoint)
        seconds = min(max(seconds, 0.0), _LONGEST_PARK_S)
        with lane.turn, self._transaction(lane) as row:
            row.parked_until = max(row.parked_until, row.now_latest + seconds)

    def close(self) -> None:
        """Tell the answers nobody told yet."""
        self._closed = True
        for lane in list(self._lanes.values()):
            self._tell(lane)

    # --- permission ---

    def _try(self, lane: _Lane) -> tuple[PaceTicket | None, float]:
        """A ticket (which may open a little later), or how long to sleep before the next try."""
        ticket = self._take_held(lane)
        if ticket is not None:
            return ticket, 0.0
        with lane.turn:
            ticket = self._take_held(lane)  # the thread before us may have fetched a block
            if ticket is not None:
                return ticket, 0.0
            if lane.unlimited and self._now() - lane.looked_at < _LOOK_EVERY_S:
                return None, self._parked_nap(lane)
            if lane.unlimited:
                self._look(lane)
                ticket = self._take_held(lane)
                if ticket is not None or lane.unlimited:
                    return ticket, self._parked_nap(lane)
            return self._ask(lane)

    def _take_held(self, lane: _Lane) -> PaceTicket | None:
        """A ticket from what this process already holds; costs no database call."""
        local = self._now()
        with lane.lock:
            now = lane.base.earliest(local)
            if lane.parked_until > now:
                return None
            if lane.unlimited:
                if local - lane.looked_at >= _LOOK_EVERY_S:
                    return None
                return PaceTicket(self, lane, "", 0.0)
            block = lane.block
            if block is None:
                return None
            if block.left and now < block.closes_at:
                block.left -= 1
                return PaceTicket(self, lane, block.grant, block.opens_at)
            if block.left:
                lane.returned[block.grant] = lane.returned.get(block.grant, 0) + block.left
            lane.block = None
            return None

    def _ask(self, lane: _Lane) -> tuple[PaceTicket | None, float]:
        """Ask the database for a block of permissions. Runs under lane.turn."""
        with self._transaction(lane) as row:
            now = row.now_earliest
            if row.parked_until > now:
                self._refuse_long(lane, row.parked_until, row.parked_until - now)
                return None, min(row.parked_until - now, _LONGEST_NAP_S)
            limits = {s: n for s, n in row.limits.items() if n < UNLIMITED}
            if row.limits and not limits:
                return PaceTicket(self, lane, "", 0.0), 0.0
            if not limits:
                since = now - _UNTOLD_FOR_S + _SINGLE_LIFE_S + self._call_timeout_s
                if row.ledger.out(answered_after=since) >= UNTOLD_AT_ONCE:
                    return None, _UNTOLD_NAP_S
                return self._grant(lane, row, size=1, opens_at=now, life=_SINGLE_LIFE_S), 0.0
            shortest = min(limits)
            most = max(1, min(_MOST_PER_BLOCK, min(limits.values()) // 100))
            room = row.ledger.room(now, limits)
            size = min(most, room) if 2 * room >= most else most
            opens_at, certain = row.ledger.opens_at(now, size, limits)
            wait = opens_at - now
            if wait <= 0 or (certain and wait <= _RESERVE_AHEAD_S):
                life = min(max(shortest * 0.02, 0.02), 1.0) if size > 1 else _SINGLE_LIFE_S
                return self._grant(lane, row, size=size, opens_at=max(opens_at, now), life=life), 0.0
            soonest, _ = row.ledger.opens_at(now, 1, limits, answered_by=now)
            self._refuse_long(lane, soonest, soonest - now)
            if not certain:  # what is out may be answered any moment, and then has to age one window
                return None, min(_LONGEST_NAP_S, shortest / 8)
            return None, min(_LONGEST_NAP_S, wait - _RESERVE_AHEAD_S / 2)

    def _grant(self, lane: _Lane, row: _Row, *, size: int, opens_at: float, life: float) -> PaceTicket:
        grant = uuid4().hex[:12]
        row.ledger.grant(grant, size, opens_at + life + self._call_timeout_s)
        with lane.lock:
            if size > 1:
                lane.block = _Block(grant=grant, left=size - 1, opens_at=opens_at, closes_at=opens_at + life)
        return PaceTicket(self, lane, grant, opens_at)

    def _refuse_long(self, lane: _Lane, until: float, wait: float) -> None:
        if wait > self._max_wait_s:
            moment = datetime.fromtimestamp(until, UTC)
            raise QuotaError(
                f"{self._provider.capitalize()}'s limit for {lane.endpoint} is used up until {moment:%Y-%m-%d %H:%M} "
                "UTC; the run ends here and a later one goes on",
                provider=self._provider,
                operation=lane.endpoint,
            )

    def _sleep_until(self, lane: _Lane, opens_at: float, waiting: Callable[[float], None] | None) -> bool:
        """Sleep until a ticket opens; False when the endpoint was parked meanwhile."""
        slept = False
        while True:
            local = self._now()
            with lane.lock:
                if slept and lane.parked_until > lane.base.earliest(local):
                    return False
                wait = opens_at - lane.base.earliest(local)
            if wait <= 0:
                return True
            if waiting is not None:
                waiting(wait)
            self._clock.sleep(min(max(wait, _SHORTEST_NAP_S), _LONGEST_NAP_S))
            slept = True

    def parked_for(self, endpoint: str) -> float:
        """Seconds for which nobody calls `endpoint`, because the provider asked to wait; 0 when everybody may."""
        lane = self._lane(endpoint)
        self._look(lane)
        return self._parked_for(lane)

    def _parked_for(self, lane: _Lane) -> float:
        with lane.lock:
            return max(lane.parked_until - lane.base.earliest(self._now()), 0.0)

    def _parked_nap(self, lane: _Lane) -> float:
        wait = self._parked_for(lane)
        if wait <= 0:
            return 0.0
        self._refuse_long(lane, lane.parked_until, wait)
        return min(wait, _LONGEST_NAP_S)

    # --- answers ---

    def _answered(self, lane: _Lane, grant: str) -> None:
        """Note an answer; it is told to the database with the next question, or by a timer when none follows."""
        local = self._now()
        with lane.lock:
            if not grant:
                return
            # Exact to the call where permissions are single; a block's answers count from the last one told together.
            told = lane.answers.get(grant)
            at = lane.base.latest(local)
            lane.answers[grant] = (1, at) if told is None else (told[0] + 1, max(told[1], at))
            if lane.timer is not None or self._closed:
                return
            shortest = min(lane.limits, default=4.0)
            lane.timer = threading.Timer(min(1.0, shortest / 4), self._tell, (lane,))
            lane.timer.daemon = True
            lane.timer.start()

    def _tell(self, lane: _Lane) -> None:
        """Tell what nobody has told. A failing database must not cost the paid answer in hand, so it is left out."""
        with lane.lock:
            if lane.timer is not None:
                lane.timer.cancel()
                lane.timer = None
        try:
            # Asked under the turn, so that who closes waits for a timer that is telling: the store closes next.
            with lane.turn:
                if lane.answers or lane.returned:
                    with self._transaction(lane):
                        pass
        except Exception:  # noqa: BLE001  (the database may be gone or closing)
            return  # the calls count as out until their time-out: too careful, never too fast

    # --- the row ---

    def _lane(self, endpoint: str) -> _Lane:
        lane = self._lanes.get(endpoint)
        if lane is None:
            with self._lanes_lock:
                lane = self._lanes.setdefault(endpoint, _Lane(endpoint=endpoint))
        return lane

    def _now(self) -> float:
        return self._clock.now().timestamp()

    def _transaction(self, lane: _Lane) -> _Transaction:
        return _Transaction(self, lane)

    def _look(self, lane: _Lane) -> None:
        """Take parking and limits as they are now, without writing."""
        before = self._now()
        with self._store.read() as connection:
            found = connection.execute(self._row, {"endpoint": lane.endpoint}).first()
        if found is not None:
            self._note(lane, before, found)

    def _note(self, lane: _Lane, before: float, found: Any) -> None:
        after = self._now()
        with lane.lock:
            if found[3] is not None:
                lane.base.measure(before, found[3], after)
            lane.looked_at = after
            lane.parked_until = min(found[0], lane.base.latest(after) + _LONGEST_PARK_S)
            lane.limits = _limits(found[1])
            lane.unlimited = bool(lane.limits) and min(lane.limits.values()) >= UNLIMITED


class PaceTicket:
    """ports.Ticket. `opens_at` is when the call may leave, in the store's time."""

    __slots__ = ("_done", "_lane", "_pace", "grant", "opens_at")

    def __init__(self, owner: StorePace, lane: _Lane, grant: str, opens_at: float) -> None:
        self._pace = owner
        self._lane = lane
        self._done = False
        self.grant = grant
        self.opens_at = opens_at

    def answered(self) -> None:
        if not self._done:
            self._done = True
            self._pace._answered(self._lane, self.grant)  # noqa: SLF001  (one class in two halves)


@dataclass(slots=True)
class _Block:
    """Permissions this process holds and has not used; given back when it closes."""

    grant: str
    left: int
    opens_at: float
    closes_at: float


class _Timebase:
    """This process's clock against the database server's, between two certain bounds. Equal on SQLite."""

    __slots__ = ("high", "low", "measured_at")

    def __init__(self) -> None:
        self.low = self.high = 0.0
        self.measured_at = 0.0

    def measure(self, before: float, server: float, after: float) -> None:
        """The server read `server` somewhere between our `before` and `after`."""
        low, high = server - after, server - before
        if self.measured_at:
            # Clocks drift (100 ppm is a bad one); a jump of either makes the bounds cross and starts anew.
            drift = abs(after - self.measured_at) * 1e-4
            kept_low, kept_high = max(low, self.low - drift), min(high, self.high + drift)
            if kept_low <= kept_high:
                low, high = kept_low, kept_high
        self.low, self.high, self.measured_at = low, high, after

    def earliest(self, local: float) -> float:
        """Server time, certainly not later than it really is: for "may it leave"."""
        return local + self.low

    def latest(self, local: float) -> float:
        """Server time, certainly not earlier than it really is: for "when was it answered"."""
        return local + self.high


@dataclass(slots=True)
class _Lane:
    """What this process knows of one endpoint. `turn` is held around database calls, `lock` around memory."""

    endpoint: str
    turn: threading.Lock = field(default_factory=threading.Lock)
    lock: threading.Lock = field(default_factory=threading.Lock)
    base: _Timebase = field(default_factory=_Timebase)
    limits: dict[float, int] = field(default_factory=dict)
    unlimited: bool = False
    parked_until: float = 0.0
    looked_at: float = 0.0
    block: _Block | None = None
    #: grant -> (calls answered and not told, the last one's time)
    answers: dict[str, tuple[int, float]] = field(default_factory=dict)
    #: grant -> permissions not used and not told
    returned: dict[str, int] = field(default_factory=dict)
    #: window -> (when, calls the provider had counted by then)
    told: dict[float, tuple[float, int]] = field(default_factory=dict)
    #: window -> limit, as the last answers told and the row does not say yet
    learned: dict[float, int] = field(default_factory=dict)
    timer: threading.Timer | None = None

    def give_back(self, ticket: PaceTicket) -> None:
        with self.lock:
            if ticket.grant:
                self.returned[ticket.grant] = self.returned.get(ticket.grant, 0) + 1


class Ledger:
    """What is out, and when answers came: enough to say when the next call may leave. Pure, in the store's time.

    `_out`: grant -> [permissions without an answer, when they count as answered at the latest]. `_ends`: window ->
    rising [time of an answer, calls]; in a window of a large limit neighbours are counted together, from the last.
    """

    def __init__(self, state: bytes = b"") -> None:
        loaded = orjson.loads(state) if state else {}
        self._out: dict[str, list[float]] = loaded.get("out", {})
        self._ends: dict[float, list[list[float]]] = {float(s): ends for s, ends in loaded.get("ends", {}).items()}

    def dump(self) -> bytes:
        return orjson.dumps({"out": self._out, "ends": {f"{s:g}": ends for s, ends in self._ends.items()}})

    def out(self, *, answered_after: float = 0.0) -> int:
        """Permissions without an answer, of those that count as answered after that moment at the latest."""
        return int(sum(count for count, latest in self._out.values() if latest > answered_after))

    def grant(self, grant: str, size: int, answered_at_latest: float) -> None:
        self._out[grant] = [size, answered_at_latest]

    def give_back(self, grant: str, count: int) -> None:
        """Permissions that were never used."""
        held = self._out.get(grant)
        if held is not None:
            held[0] -= count
            if held[0] <= 0:
                del self._out[grant]

    def answered(self, grant: str, count: int, at: float, limits: Mapping[float, int]) -> None:
        self.give_back(grant, count)
        for seconds, limit in limits.items():
            self._add(seconds, limit, at, count)

    def others(self, seconds: float, limit: int, told_at: float, counted: int) -> None:
        """The provider had counted `counted` calls by `told_at`: what is not ours is somebody else's, and may have
        come as late as that."""
        ours = self.out() + sum(count for end, count in self._ends.get(seconds, ()) if end + seconds > told_at)
        if counted > ours:
            self._add(seconds, limit, told_at, counted - int(ours))

    def _add(self, seconds: float, limit: int, at: float, count: int) -> None:
        if limit >= UNLIMITED:
            return
        ends = self._ends.setdefault(seconds, [])
        if limit > _EXACT_UP_TO and ends:
            step = seconds / _EXACT_UP_TO
            last = ends[-1]
            if at <= last[0]:  # told late: count it with the last
                last[1] += count
                return
            if last[0] // step == at // step:
                last[0], last[1] = at, last[1] + count
                return
        if not ends or ends[-1][0] <= at:
            ends.append([at, count])
        else:
            insort(ends, [at, count])

    def forget(self, now: float, limits: Mapping[float, int]) -> None:
        """Drop what no window counts any more, and bound what a jump of the clock may have left in the future."""
        longest = max((s for s, n in limits.items() if n < UNLIMITED), default=0.0)
        for grant in [g for g, (_, latest) in self._out.items() if latest + longest + _REMEMBER_S < now]:
            del self._out[grant]
        for seconds in list(self._ends):
            if limits.get(seconds, UNLIMITED) >= UNLIMITED:
                del self._ends[seconds]
                continue
            ends = self._ends[seconds]
            gone = 0
            while gone < len(ends) and ends[gone][0] + seconds + _REMEMBER_S < now:
                gone += 1
            if gone:
                del ends[:gone]
            while ends and ends[-1][0] > now + _REMEMBER_S:
                late = ends.pop()
                insort(ends, [now, late[1]])

    def bound_out(self, now: float, longest_out_s: float) -> None:
        for held in self._out.values():
            held[1] = min(held[1], now + longest_out_s)

    def room(self, now: float, limits: Mapping[float, int]) -> int:
        """Calls that may leave at once."""
        return int(min(limit - self._counted(seconds, now) for seconds, limit in limits.items()))

    def _counted(self, seconds: float, at: float) -> float:
        return sum(count for end, count in self._ends.get(seconds, ()) if end + seconds > at) + sum(
            count for count, latest in self._out.values() if latest + seconds > at
        )

    def opens_at(
        self, now: float, size: int, limits: Mapping[float, int], *, answered_by: float | None = None
    ) -> tuple[float, bool]:
        """When `size` more calls fit into every window, and whether that is certain: not where it waits for calls
        that are out, which count as answered at their latest (or by `answered_by`)."""
        opens, certain = now, True
        for seconds, limit in limits.items():
            over = self._counted(seconds, now) + size - limit
            if over <= 0:
                continue
            freed = 0.0
            for end, count in self._ends.get(seconds, ()):
                if end + seconds > now:
                    freed += count
                    if freed >= over:
                        opens = max(opens, end + seconds)
                        break
            else:
                certain = False
                waits = sorted(
                    ((latest if answered_by is None else min(latest, answered_by)) + seconds, count)
                    for count, latest in self._out.values()
                )
                for opens_then, count in waits:
                    freed += count
                    opens = max(opens, opens_then)
                    if freed >= over:
                        break
        return opens, certain


@dataclass(slots=True)
class _Row:
    """One endpoint's row inside a transaction."""

    ledger: Ledger
    limits: dict[float, int]
    parked_until: float
    now_earliest: float
    now_latest: float


class _Transaction:
    """Read the row under its lock, bring in what this process has to tell, let the caller change it, write it back."""

    def __init__(self, owner: StorePace, lane: _Lane) -> None:
        self._pace = owner
        self._lane = lane
        self._write = owner._store.write()  # noqa: SLF001  (one class in two halves)
        self._answers: dict[str, tuple[int, float]] = {}
        self._returned: dict[str, int] = {}
        self._found: tuple[float, str, bytes] = (0.0, "", b"")

    def __enter__(self) -> _Row:
        connection = self._write.__enter__()
        try:
            self._row = self._read(connection)
        except BaseException as error:
            self._take_back()
            self._write.__exit__(type(error), error, error.__traceback__)
            raise
        self._connection = connection
        return self._row

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        row, lane = self._row, self._lane
        try:
            if error is None or isinstance(error, QuotaError):
                values = (
                    row.parked_until,
                    orjson.dumps({f"{s:g}": n for s, n in row.limits.items()}).decode(),
                    row.ledger.dump(),
                )
                if values != self._found:  # a look in vain writes nothing
                    self._connection.execute(
                        self._pace._update,  # noqa: SLF001
                        {"key": lane.endpoint, "parked_until": values[0], "limits": values[1], "state": values[2]},
                    )
                self._write.__exit__(None, None, None)
            else:
                self._write.__exit__(kind, error, trace)
        except BaseException:
            self._take_back()
            raise
        if error is not None and not isinstance(error, QuotaError):
            self._take_back()
            return
        with lane.lock:
            lane.parked_until = row.parked_until
            lane.limits = row.limits
            lane.unlimited = bool(row.limits) and min(row.limits.values()) >= UNLIMITED

    def _read(self, connection: Connection) -> _Row:
        owner, lane = self._pace, self._lane
        key = {"endpoint": lane.endpoint}
        before = owner._now()  # noqa: SLF001
        found = connection.execute(owner._locked_row, key).first()  # noqa: SLF001
        if found is None:
            # Whoever comes first makes the row; the second reading takes its lock.
            empty = {**key, "parked_until": 0.0, "limits": "{}", "state": b""}
            connection.execute(upsert(connection, pace, ()), empty)
            before = owner._now()  # noqa: SLF001
            found = connection.execute(owner._locked_row, key).one()  # noqa: SLF001
        self._found = (found[0], found[1], bytes(found[2]))
        owner._note(lane, before, found)  # noqa: SLF001
        local = owner._now()  # noqa: SLF001
        ledger = Ledger(found[2])
        with lane.lock:
            lane.limits = {**lane.limits, **lane.learned}
            lane.learned = {}
            limits, now, latest = lane.limits, lane.base.earliest(local), lane.base.latest(local)
            self._answers, lane.answers = lane.answers, {}
            self._returned, lane.returned = lane.returned, {}
            told, lane.told = lane.told, {}
            parked_until = lane.parked_until
        for grant, (count, at) in self._answers.items():
            ledger.answered(grant, count, at, limits)
        for grant, count in self._returned.items():
            ledger.give_back(grant, count)
        for seconds, (at, counted) in told.items():
            if latest - at < _REMEMBER_S and seconds in limits:
                ledger.others(seconds, limits[seconds], at, counted)
        ledger.forget(now, limits)
        ledger.bound_out(latest, 3 * owner._call_timeout_s + _RESERVE_AHEAD_S)  # noqa: SLF001
        return _Row(ledger=ledger, limits=dict(limits), parked_until=parked_until, now_earliest=now, now_latest=latest)

    def _take_back(self) -> None:
        """The transaction failed: what it was to tell is told by the next one."""
        with self._lane.lock:
            for grant, (count, at) in self._answers.items():
                told = self._lane.answers.get(grant, (0, at))
                self._lane.answers[grant] = (told[0] + count, max(told[1], at))
            for grant, count in self._returned.items():
                self._lane.returned[grant] = self._lane.returned.get(grant, 0) + count
        self._answers, self._returned = {}, {}


def _limits(text: str) -> dict[float, int]:
    return {float(seconds): int(limit) for seconds, limit in orjson.loads(text).items()}


def _server_time(dialect: str) -> Any:
    """The server's time in seconds; NULL on SQLite, whose processes share this machine's clock."""
    if dialect == "postgresql":
        return literal_column("extract(epoch from clock_timestamp())::float8")
    return literal_column("NULL")
