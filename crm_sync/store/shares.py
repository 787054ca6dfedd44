"""A run that several workers share: its records in chunks, and who has taken which.

The run selects; what is due is cut into chunks of record ids. A worker joins the run with a share of its own and takes
chunks one after another. A share that has ended, or whose process has died, gives back what it has not done, and
another one takes it. What was done is told by the attempts that are remembered in the same commits as the audit
(record_states), so that a chunk needs no count of its own.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

import orjson
from sqlalchemy import Column, ColumnElement, Connection, Select, delete, exists, func, insert, or_, select, update

from crm_sync import crash
from crm_sync.domain.runs import Counts, RunStatus, SyncRun
from crm_sync.errors import BusyError
from crm_sync.store.engine import Store
from crm_sync.store.journal import others_ask
from crm_sync.store.runs import Runs, lost_run, run_of
from crm_sync.store.tables import chunks, record_states, run_records, runs, shares

#: A chunk that is given back so often is left to the next run: whoever takes it dies, or cannot do it.
_MOST_ATTEMPTS = 3
#: Somebody whom another worker is asking for at this moment has an answer by then.
_TRY_AGAIN_AFTER = timedelta(seconds=2)
#: A time so far ahead is that of another clock, or of this one before it was set back.
_NOBODY_WAITS_FOR = timedelta(seconds=15)
_AT_ONCE = 500

_OPEN = chunks.c.share.is_(None) & (chunks.c.attempt < _MOST_ATTEMPTS)
_WORKING, _ENDED = "working", "ended"


class Standing(StrEnum):
    """How far the selection of a shared run is; `stopping`: nobody is to go on."""

    SELECTING = "selecting"
    SELECTED = "selected"
    STOPPING = "stopping"


class Giving(StrEnum):
    """What a share gives back at its end: all that has no outcome (it was to stop, or has died), what was left open
    because others were asking for it (it came to its end), or nothing (nobody is asked for)."""

    UNFINISHED = "unfinished"
    HELD = "held"
    NOTHING = "nothing"


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunk:
    """`attempt`: 0 where nobody has had it before."""

    number: int
    record_ids: tuple[str, ...]
    attempt: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """One worker's part in a run; the run's owner and this one's are those of pipeline/recover.owner."""

    run_id: str
    number: int
    owner: str
    alive_at: datetime


@dataclass(slots=True, kw_only=True)
class Tally:
    """What a share has to say beside its audit. `stopped`: why it ended before its time, and `stopped_by` the class of
    the error that is to stop the run for all, "" where it is not."""

    counts: Counts = field(default_factory=Counts)
    calls: dict[str, int] = field(default_factory=dict)
    left_out: dict[str, int] = field(default_factory=dict)
    unwritten: dict[str, int] = field(default_factory=dict)
    refused_fields: int = 0
    unstamped: int = 0
    put_back: int = 0
    conflicts: int = 0
    stopped: str = ""
    stopped_by: str = ""


class Shares:
    """Every method commits before it returns."""

    def __init__(self, store: Store, of_runs: Runs) -> None:
        self._store = store
        self._runs = of_runs

    # --- the run's own side -------------------------------------------------------------------------------------

    def begin(self, run_id: str, *, now: datetime) -> None:
        """From here on others may join the run."""
        with self._store.write() as connection:
            connection.execute(insert(shares).values(_row(run_id, 0, Standing.SELECTING.value, "", now)))

    def add(self, run_id: str, record_ids: Sequence[str], *, now: datetime) -> int:
        """A chunk that whoever is free may take; returns its number. Only the run's own process adds.

        Raises:
            LostRunError: another process has taken the run over.
        """
        last = select(func.max(chunks.c.number)).where(chunks.c.run_id == run_id)
        with self._store.write() as connection:
            self._runs.refuse_lost(connection, run_id, 0)
            number = int(connection.execute(last).scalar() or 0) + 1
            row = {"run_id": run_id, "number": number, "records": orjson.dumps(record_ids), "attempt": 0, "try_at": now}
            connection.execute(insert(chunks).values(row))
            crash.point("chunks.add.inside")
        crash.point("chunks.add.after")
        return number

    def stand(self, run_id: str, standing: Standing, *, why: str = "") -> None:
        """`why`: it is stopping, and does not go on."""
        own = update(shares).where(shares.c.run_id == run_id, shares.c.number == 0)
        if standing is not Standing.STOPPING:
            own = own.where(shares.c.state != Standing.STOPPING.value)
        with self._store.write() as connection:
            connection.execute(own.values(state=standing.value, tally=_text(Tally(stopped=why))))

    def waiting(self, run_id: str) -> int:
        """How many chunks nobody has taken yet."""
        query = select(func.count()).select_from(chunks).where(chunks.c.run_id == run_id, _OPEN)
        with self._store.read() as connection:
            return int(connection.execute(query).scalar() or 0)

    def is_over(self, run_id: str) -> bool:
        """Whether nothing waits and nobody is at it: seen at one moment, since what is taken is given back, and what is
        given back is taken."""
        waits = exists().where(chunks.c.run_id == run_id, _OPEN)
        at_it = exists().where(shares.c.run_id == run_id, shares.c.state == _WORKING)
        with self._store.read() as connection:
            return bool(connection.execute(select(~(waits | at_it))).scalar())

    def tallies(self, run_id: str) -> dict[int, Tally]:
        """What the run's shares tell, by number."""
        query = select(shares.c.number, shares.c.tally).where(shares.c.run_id == run_id, shares.c.number > 0)
        with self._store.read() as connection:
            return {number: _tally(text) for number, text in connection.execute(query)}

    def cut(self, run_id: str) -> int:
        """How many records were cut into chunks."""
        query = select(chunks.c.records).where(chunks.c.run_id == run_id)
        with self._store.read() as connection:
            return sum(len(orjson.loads(records)) for records in connection.execute(query).scalars())

    def close(self, run_id: str) -> None:
        """The run is to have its books: its records are told as one, and nothing is left of who did what. Again is the
        same, and of a run that nobody shared nothing.

        Raises:
            LostRunError: as add.
            BusyError: somebody is still at it.
        """
        with self._store.read() as connection:
            found = set(connection.execute(select(shares.c.state).where(shares.c.run_id == run_id)).scalars())
        if not found:
            return
        if _WORKING in found:
            raise BusyError(f"{run_id} cannot be given its end yet: other workers are still at it")
        self._runs.make_one(run_id)
        with self._store.write() as connection:
            self._runs.refuse_lost(connection, run_id, 0)
            connection.execute(delete(chunks).where(chunks.c.run_id == run_id))
            connection.execute(delete(shares).where(shares.c.run_id == run_id))
        crash.point("shares.closed")

    # --- a worker's side ----------------------------------------------------------------------------------------

    def to_join(self, *, config_version: int | None) -> list[tuple[SyncRun, str, datetime]]:
        """(run, owner, last sign of life) of the runs in which something is to be done, oldest first; only those of the
        configuration that this process has."""
        query = (
            select(runs)
            .where(
                runs.c.status == RunStatus.RUNNING.value,
                runs.c.config_version == config_version,
                exists().where(chunks.c.run_id == runs.c.id, _OPEN),
                exists().where(
                    shares.c.run_id == runs.c.id, shares.c.number == 0, shares.c.state != Standing.STOPPING.value
                ),
            )
            .order_by(runs.c.started_at)
        )
        with self._store.read() as connection:
            return [(run_of(row), row.owner, row.alive_at) for row in connection.execute(query)]

    def join(self, run_id: str, *, owner: str, now: datetime) -> Share | None:
        """A share of the run for this process; None where there is nothing (any more) to be done."""
        last = select(func.max(shares.c.number)).where(shares.c.run_id == run_id)
        own = select(shares.c.state).where(shares.c.run_id == run_id, shares.c.number == 0).with_for_update()
        with self._store.write() as connection:
            if connection.execute(own).scalar() in (None, Standing.STOPPING.value):
                return None
            if connection.execute(_next(run_id, now)).first() is None:
                return None
            number = int(connection.execute(last).scalar() or 0) + 1
            connection.execute(insert(shares).values(_row(run_id, number, _WORKING, owner, now)))
            crash.point("shares.join.inside")
        self._runs.own_share(run_id, number, owner)
        crash.point("shares.join.after")
        return Share(run_id=run_id, number=number, owner=owner, alive_at=now)

    def take(self, share: Share, *, now: datetime) -> Chunk | None:
        """The next chunk; None where nothing is open at the moment.

        Raises:
            LostRunError: this process was taken for dead.
        """
        with self._store.write() as connection:
            self._runs.refuse_lost(connection, share.run_id, share.number)
            row = connection.execute(_next(share.run_id, now).with_for_update(skip_locked=True)).one_or_none()
            if row is None:
                return None
            mine = update(chunks).where(chunks.c.run_id == share.run_id, chunks.c.number == row.number)
            connection.execute(mine.values(share=share.number))
            crash.point("chunks.take.inside")
        crash.point("chunks.take.after")
        return Chunk(number=row.number, record_ids=tuple(orjson.loads(row.records)), attempt=row.attempt)

    def undone(self, run: SyncRun, record_ids: Sequence[str]) -> tuple[str, ...]:
        """Those of these records that have no outcome in this run yet."""
        with self._store.read() as connection:
            done = _done(connection, run, record_ids)
        return tuple(each for each in record_ids if each not in done)

    def standing(self, run_id: str) -> Standing:
        """A run that has ended is `stopping`."""
        query = select(shares.c.state).where(shares.c.run_id == run_id, shares.c.number == 0)
        with self._store.read() as connection:
            state = connection.execute(query).scalar()
        return Standing(state) if state is not None else Standing.STOPPING

    def why_stopping(self, run_id: str) -> str:
        """What made the run stop; "" where it goes on, or nobody knows."""
        query = select(shares.c.tally).where(shares.c.run_id == run_id, shares.c.number == 0)
        with self._store.read() as connection:
            text = connection.execute(query).scalar()
        return _tally(text).stopped if text is not None else ""

    def beat(self, share: Share, *, now: datetime, tally: Tally | None = None) -> None:
        """The share is alive, and stands so.

        Raises:
            LostRunError: this process was taken for dead.
        """
        with self._store.write() as connection:
            _note(connection, share, tally, alive_at=now)

    def end(self, share: Share, run: SyncRun, *, tally: Tally | None, giving: Giving, now: datetime) -> None:
        """A share's end; what it has not done is open again, in the same commit. `tally` None: as it told last.

        Raises:
            LostRunError: as beat.
        """
        with self._store.write() as connection:
            _note(connection, share, tally, state=_ENDED, alive_at=now)
            if giving is not Giving.NOTHING:
                is_early = giving is Giving.HELD and others_ask(connection, share.run_id, share.number)
                is_counted = not (tally and tally.stopped) and not is_early
                self._give_back(connection, share, run, giving, counted=is_counted, now=now)
            crash.point("shares.end.inside")
        self._runs.own_share(share.run_id, share.number, "")
        crash.point("shares.end.after")

    def _give_back(
        self, connection: Connection, share: Share, run: SyncRun, giving: Giving, *, counted: bool, now: datetime
    ) -> None:
        taken = (chunks.c.run_id == share.run_id, chunks.c.share == share.number)
        for row in connection.execute(select(chunks).where(*taken)).all():
            ids = orjson.loads(row.records)
            left = set(ids) - _done(connection, run, ids)
            if giving is Giving.HELD:
                left &= _met(connection, share, run, ids)
            if not left:
                continue
            # Its count of records stays: what is done of it is not done again.
            again = update(chunks).where(chunks.c.run_id == row.run_id, chunks.c.number == row.number)
            attempt = row.attempt + counted
            connection.execute(
                again.values(share=None, attempt=attempt, try_at=now + _TRY_AGAIN_AFTER * (giving is Giving.HELD))
            )

    # --- whoever looks after the dead ----------------------------------------------------------------------------

    def working(self) -> list[Share]:
        """The shares that have no end yet, of all runs."""
        query = select(shares).where(shares.c.state == _WORKING).order_by(shares.c.run_id, shares.c.number)
        with self._store.read() as connection:
            return [
                Share(run_id=row.run_id, number=row.number, owner=row.owner, alive_at=row.alive_at)
                for row in connection.execute(query)
            ]

    def take_over(self, share: Share, *, owner: str, now: datetime) -> Share | None:
        """A dead share made this process's, to give it its end; None where another one has, or it lives."""
        dead = update(shares).where(
            shares.c.run_id == share.run_id,
            shares.c.number == share.number,
            shares.c.state == _WORKING,
            shares.c.owner == share.owner,
            shares.c.alive_at == share.alive_at,
        )
        with self._store.write() as connection:
            if connection.execute(dead.values(owner=owner, alive_at=now)).rowcount != 1:
                return None
        self._runs.own_share(share.run_id, share.number, owner)
        return Share(run_id=share.run_id, number=share.number, owner=owner, alive_at=now)


def merged(tallies: Mapping[int, Tally]) -> Tally:
    """The sums of what the shares of a run tell; not why one of them stopped."""
    sums: dict[str, Counter[str]] = {name: Counter() for name in ("calls", "left_out", "unwritten")}
    made = Tally()
    counts: Counter[str] = Counter()
    for tally in tallies.values():
        counts.update(asdict(tally.counts))
        for name, counter in sums.items():
            counter.update(getattr(tally, name))
        for name in ("refused_fields", "unstamped", "put_back", "conflicts"):
            setattr(made, name, getattr(made, name) + getattr(tally, name))
    made.counts = Counts(**counts)
    made.calls, made.left_out, made.unwritten = (dict(counter) for counter in sums.values())
    return made


def _note(connection: Connection, share: Share, tally: Tally | None, **values: object) -> None:
    """
    Raises:
        LostRunError: another process has taken it over.
    """
    if tally is not None:
        values["tally"] = _text(tally)
    mine = update(shares).where(
        shares.c.run_id == share.run_id, shares.c.number == share.number, shares.c.owner == share.owner
    )
    if connection.execute(mine.values(values)).rowcount != 1:
        raise lost_run(share.run_id)


def _next(run_id: str, now: datetime) -> Select[Any]:
    is_time = or_(chunks.c.try_at <= now, chunks.c.try_at > now + _NOBODY_WAITS_FOR)
    return select(chunks).where(chunks.c.run_id == run_id, _OPEN, is_time).order_by(chunks.c.number).limit(1)


def _done(connection: Connection, run: SyncRun, record_ids: Sequence[str]) -> set[str]:
    """Those whose attempt of this run is remembered."""
    mine = (
        record_states.c.sync == run.sync,
        record_states.c.object_type == run.object_type,
        record_states.c.run_id == run.id,
    )
    return _found(connection, record_states.c.record_id, record_ids, *mine)


def _met(connection: Connection, share: Share, run: SyncRun, record_ids: Sequence[str]) -> set[str]:
    """Those that the share has told something about."""
    its = (
        run_records.c.run_id == share.run_id,
        run_records.c.object_type == run.object_type,
        run_records.c.share == share.number,
    )
    return _found(connection, run_records.c.record_id, record_ids, *its)


def _found(
    connection: Connection, column: Column[str], record_ids: Sequence[str], *which: ColumnElement[bool]
) -> set[str]:
    found: set[str] = set()
    for start in range(0, len(record_ids), _AT_ONCE):
        query = select(column).where(column.in_(record_ids[start : start + _AT_ONCE]), *which)
        found.update(connection.execute(query).scalars())
    return found


def _row(run_id: str, number: int, state: str, owner: str, now: datetime) -> dict[str, object]:
    return {
        "run_id": run_id,
        "number": number,
        "state": state,
        "owner": owner,
        "alive_at": now,
        "tally": _text(Tally()),
    }


def _text(tally: Tally) -> str:
    return orjson.dumps(asdict(tally)).decode()


def _tally(text: str) -> Tally:
    told = orjson.loads(text)
    return Tally(**{**told, "counts": Counts(**told["counts"])})
