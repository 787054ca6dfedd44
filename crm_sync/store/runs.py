"""Runs, their records and what each record was last seen with."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from decimal import Decimal
from typing import Any

import orjson
from sqlalchemy import ColumnElement, Connection, Row, bindparam, delete, func, insert, select, tuple_, update
from sqlalchemy.exc import IntegrityError

from crm_sync import crash
from crm_sync.domain.changes import FieldDecision, FieldOutcome, WriteRule
from crm_sync.domain.runs import Counts, RecordOutcome, RunKind, RunStatus, SyncRun, Unsettled
from crm_sync.errors import BusyError, LostRunError
from crm_sync.store.engine import Store
from crm_sync.store.orders import AWAITED
from crm_sync.store.tables import (
    millis,
    record_states,
    reveal_orders,
    run_records,
    runs,
    shares,
    spending,
    unmapped_values,
)
from crm_sync.store.upsert import run_many, upsert

#: A run record whose CRM write was intended and is not yet confirmed.
WRITING = "Writing"


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRecord:
    """One record in one run, as `show` and the audit tell it. `decisions` is empty where nothing was mapped; `identity`
    stands for whom Apollo was asked by (Answers.digest), None for nobody."""

    object_type: str
    record_id: str
    outcome: str
    reason: str
    decisions: tuple[FieldDecision, ...] = ()
    batch_id: int | None = None
    identity: bytes | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordState:
    """A sync's last attempt at a record. `seen` digests what it was based on (pipeline/select.py)."""

    object_type: str
    record_id: str
    outcome: str
    seen: bytes
    attempted_at: datetime


class Runs:
    """The history: one row a run, one row a record in a run, one row a record for its last attempt."""

    def __init__(self, store: Store) -> None:
        self._store = store
        #: Runs of this process: nothing is saved of one that another process has taken over.
        self._owned: dict[str, str] = {}
        #: Its shares of runs (run id, number), likewise.
        self._owned_shares: dict[tuple[str, int], str] = {}

    # --- runs ---------------------------------------------------------------------------------------------------

    def open(self, run: SyncRun, *, owner: str) -> None:
        """
        Raises:
            BusyError: another run of the sync was begun at the same moment.
        """
        try:
            with self._store.write() as connection:
                connection.execute(insert(runs).values(run_values(run) | {"owner": owner, "alive_at": run.started_at}))
        except IntegrityError as error:
            if not any(other.sync == run.sync for other, _, _ in self.unfinished()):
                raise
            raise BusyError(
                f"{run.sync} was begun by another process at this moment; `crm-sync runs` shows it"
            ) from error
        self._owned[run.id] = owner

    def own(self, run_id: str, owner: str) -> None:
        """This process carries the run out from now on."""
        self._owned[run_id] = owner

    def own_share(self, run_id: str, share: int, owner: str) -> None:
        """This process carries out a share of the run from now on; "": not any more."""
        if owner:
            self._owned_shares[run_id, share] = owner
        else:
            self._owned_shares.pop((run_id, share), None)

    def save(self, run: SyncRun, *, now: datetime, beside: Callable[[Connection], None] | None = None) -> None:
        """Its books as they stand, in one commit with what `beside` writes; also the sign that the run is alive.

        Raises:
            LostRunError: it was this process's, and another one has taken it over.
        """
        saving = update(runs).where(runs.c.id == run.id).values(run_values(run) | {"alive_at": now})
        owner = self._owned.get(run.id)
        if owner is not None:
            saving = saving.where(runs.c.owner == owner)
        with self._store.write() as connection:
            if connection.execute(saving).rowcount != 1:
                raise lost_run(run.id)
            if beside is not None:
                beside(connection)
        if run.status is not RunStatus.RUNNING:
            self._owned.pop(run.id, None)

    def beat(self, run_id: str, *, now: datetime) -> None:
        """A run of this process is alive.

        Raises:
            LostRunError: another process has taken it over.
        """
        mine = update(runs).where(runs.c.id == run_id, runs.c.owner == self._owned.get(run_id, ""))
        with self._store.write() as connection:
            if connection.execute(mine.values(alive_at=now)).rowcount != 1:
                raise lost_run(run_id)

    def keep(self, run_id: str, owner: str) -> None:
        """A dead run that this process has taken over stays with it, without an end for now."""
        was = self._owned.get(run_id)
        if was is None or was == owner:
            return
        with self._store.write() as connection:
            mine = update(runs).where(runs.c.id == run_id, runs.c.owner == was)
            if connection.execute(mine.values(owner=owner)).rowcount == 1:
                self._owned[run_id] = owner

    def refuse_lost(self, connection: Connection, run_id: str, share: int) -> None:
        """Nothing more is written down of a run, or of a share of it, that another process has taken over and may have
        closed: nor, since it is noted before, into the CRM.

        Raises:
            LostRunError: another process has.
        """
        if share:
            owner = self._owned_shares.get((run_id, share))
            lost = owner is not None and connection.execute(_SHARER, {"id": run_id, "share": share}).scalar() != owner
        else:
            owner = self._owned.get(run_id)
            lost = owner is not None and connection.execute(_OWNER, {"id": run_id}).scalar() != owner
        if lost:
            raise lost_run(run_id)

    def take_over(self, run_id: str, *, was: str, alive_at: datetime, owner: str, now: datetime) -> bool:
        """Make a dead run this process's, to give it its end; False where another one has, or it lives."""
        dead = update(runs).where(
            runs.c.id == run_id,
            runs.c.status == RunStatus.RUNNING.value,
            runs.c.owner == was,
            runs.c.alive_at == alive_at,
        )
        with self._store.write() as connection:
            taken = connection.execute(dead.values(owner=owner, alive_at=now)).rowcount == 1
        if taken:
            self._owned[run_id] = owner
        return taken

    def ask_to_cancel(self, run_id: str, *, now: datetime) -> bool:
        """Note that somebody wants the run to stop; False when it is not running (any more). One that is queued yet is
        over at once."""
        queued = update(runs).where(runs.c.id == run_id, runs.c.status == RunStatus.QUEUED.value)
        over = {"status": RunStatus.CANCELLED.value, "reason": "cancelled before it began", "finished_at": now}
        with self._store.write() as connection:
            if connection.execute(queued.values(**over, cancel_asked_at=now)).rowcount:
                return True
            return (
                connection.execute(
                    update(runs)
                    .where(runs.c.id == run_id, runs.c.status == RunStatus.RUNNING.value)
                    .values(cancel_asked_at=now)
                ).rowcount
                == 1
            )

    def cancel_asked(self, run_id: str) -> bool:
        with self._store.read() as connection:
            return connection.execute(select(runs.c.cancel_asked_at).where(runs.c.id == run_id)).scalar() is not None

    def unsettled(self, run_id: str) -> Unsettled:
        """What the run may have cost beside its credits, or may yet cost."""
        reserved = select(func.sum(spending.c.reserved)).where(spending.c.run_id == run_id)
        awaited = select(func.sum(reveal_orders.c.to_come)).where(
            reveal_orders.c.run_id == run_id, reveal_orders.c.state.in_(AWAITED)
        )
        with self._store.read() as connection:
            total = connection.execute(reserved).scalar() or Decimal(0)
            to_come = connection.execute(awaited).scalar() or Decimal(0)
        return Unsettled(in_doubt=total - to_come, to_come=to_come)

    def unfinished(self) -> list[tuple[SyncRun, str, datetime]]:
        """(run, owner, last sign of life) of every run that has not ended."""
        query = select(runs).where(runs.c.status == RunStatus.RUNNING.value).order_by(runs.c.started_at)
        with self._store.read() as connection:
            return [(run_of(row), row.owner, row.alive_at) for row in connection.execute(query)]

    def get(self, run_id: str) -> SyncRun | None:
        """By id, or by the only id that begins so."""
        found = self.beginning_with(run_id, limit=2)
        return found[0] if len(found) == 1 else next((run for run in found if run.id == run_id), None)

    def beginning_with(self, beginning: str, *, limit: int) -> list[SyncRun]:
        """The runs whose id begins so, newest first."""
        query = select(runs).where(runs.c.id.startswith(beginning, autoescape=True)).order_by(runs.c.started_at.desc())
        with self._store.read() as connection:
            return [run_of(row) for row in connection.execute(query.limit(limit))]

    def latest(self, *, limit: int = 20, sync: str | None = None) -> list[SyncRun]:
        """Newest first."""
        query = select(runs).order_by(runs.c.started_at.desc(), runs.c.id.desc()).limit(limit)
        if sync is not None:
            query = query.where(runs.c.sync == sync)
        with self._store.read() as connection:
            return [run_of(row) for row in connection.execute(query)]

    def ended(self, sync: str, *, limit: int) -> list[SyncRun]:
        """The sync's own runs that have an end, newest first; no plans, and nothing that changes an earlier run."""
        query = (
            select(runs)
            .where(runs.c.sync == sync, runs.c.kind == RunKind.RUN.value, runs.c.finished_at.is_not(None))
            .order_by(runs.c.started_at.desc(), runs.c.id.desc())
            .limit(limit)
        )
        with self._store.read() as connection:
            return [run_of(row) for row in connection.execute(query)]

    def gone_on_with(self, run_ids: Sequence[str]) -> set[str]:
        """Those of these runs that another one goes on with."""
        query = select(runs.c.continues).where(runs.c.continues.in_(list(run_ids)))
        with self._store.read() as connection:
            return set(connection.execute(query).scalars())

    def triggered(self, trigger: str) -> list[SyncRun]:
        """The runs that were begun by this, oldest first."""
        query = select(runs).where(runs.c.trigger == trigger).order_by(runs.c.started_at)
        with self._store.read() as connection:
            return [run_of(row) for row in connection.execute(query)]

    # --- records in a run ---------------------------------------------------------------------------------------

    def intend(self, run_id: str, records: Sequence[RunRecord], *, now: datetime, share: int = 0) -> None:
        """What is about to be written, committed before the CRM is asked.

        Raises:
            LostRunError: another process has taken the run over.
        """
        crash.point("runs.intend.before")
        with self._store.write() as connection:
            self.refuse_lost(connection, run_id, share)
            # Again, where the record changed before it was written and was decided anew.
            statement = upsert(connection, run_records, ("outcome", "reason", "decisions", "at"))
            rows = [_record_row(run_id, share, record, millis(now)) for record in records]
            run_many(connection, statement, _RECORD, rows)
            crash.point("runs.intend.inside")
        crash.point("runs.intend.after")

    def settle(
        self,
        run_id: str,
        *,
        sync: str,
        confirmed: Sequence[RunRecord],
        amended: Sequence[RunRecord],
        others: Sequence[RunRecord],
        states: Sequence[RecordState],
        now: datetime,
        beside: Callable[[Connection], None] | None = None,
        share: int = 0,
    ) -> None:
        """In one commit: the intended records that came out as intended, those that came out otherwise, those that
        needed no write, the last attempts, and what `beside` writes.

        Raises:
            LostRunError: another process has taken the run over.
        """
        crash.point("runs.settle.before")
        at = millis(now)
        with self._store.write() as connection:
            self.refuse_lost(connection, run_id, share)
            if confirmed:
                done = [_settled_row(run_id, share, record, at) for record in confirmed]
                run_many(connection, _CONFIRM, _SETTLED, done)
            if amended:
                rows = [(*_settled_row(run_id, share, record, at), _encode(record.decisions)) for record in amended]
                run_many(connection, _AMEND, (*_SETTLED, "b_decisions"), rows)
            if others:
                run_many(connection, _RECORDED, _RECORD, [_record_row(run_id, share, record, at) for record in others])
            crash.point("runs.settle.inside")
            if states:
                attempts = [
                    (sync, each.object_type, each.record_id, each.outcome, each.seen, millis(each.attempted_at), run_id)
                    for each in states
                ]
                run_many(connection, upsert(connection, record_states, _STATE[3:]), _STATE, attempts)
            if beside is not None:
                beside(connection)
        crash.point("runs.settle.after")

    def remember(self, sync: str, states: Sequence[RecordState], *, run_id: str) -> None:
        """Last attempts that another database made; what is known of later ones stays."""
        if not states:
            return
        with self._store.write() as connection:
            statement = upsert(
                connection, record_states, ("outcome", "seen", "attempted_at", "run_id"), where=_OLDER_ATTEMPT
            )
            connection.execute(
                statement,
                [
                    {
                        "sync": sync,
                        "object_type": state.object_type,
                        "record_id": state.record_id,
                        "outcome": state.outcome,
                        "seen": state.seen,
                        "attempted_at": state.attempted_at,
                        "run_id": run_id,
                        "b_attempted_at": state.attempted_at,
                    }
                    for state in states
                ],
            )

    def forget_attempts(self, object_type: str, *record_ids: str) -> None:
        """Let every sync look at these records again, whatever was tried with them before."""
        with self._store.write() as connection:
            for start in range(0, len(record_ids), 500):
                connection.execute(
                    delete(record_states).where(
                        record_states.c.object_type == object_type,
                        record_states.c.record_id.in_(record_ids[start : start + 500]),
                    )
                )

    def close_intended(self, run_id: str, reason: str, *, now: datetime, share: int | None = None) -> None:
        """The intended writes of a dead run, or of a `share` of it, get an end: Skipped, with the reason."""
        intended = update(run_records).where(run_records.c.run_id == run_id, run_records.c.outcome == WRITING)
        if share is not None:
            intended = intended.where(run_records.c.share == share)
        with self._store.write() as connection:
            connection.execute(intended.values(outcome=RecordOutcome.SKIPPED.value, reason=reason, at=now))

    def make_one(self, run_id: str) -> None:
        """One row for each record of a run whose workers wrote several: those of a company that they met both, and of a
        record that one of them left to another. Again is the same.

        In many short commits: what holds the run's row keeps it from showing that it is alive.
        """
        after: tuple[str, str] | None = ("", "")
        while after is not None:
            with self._store.write() as connection:
                self.refuse_lost(connection, run_id, 0)
                after = _make_some_one(connection, run_id, after)

    def records(
        self,
        run_id: str,
        *,
        outcome: str | None = None,
        limit: int | None = None,
        object_type: str | None = None,
        with_reason: bool = False,
        share: int | None = None,
    ) -> Iterator[RunRecord]:
        """The records of a run in id order; `with_reason`: only those about which something is to be said."""
        query = select(run_records).where(run_records.c.run_id == run_id).order_by(run_records.c.record_id)
        if share is not None:
            query = query.where(run_records.c.share == share)
        if outcome is not None:
            query = query.where(run_records.c.outcome == outcome)
        if object_type is not None:
            query = query.where(run_records.c.object_type == object_type)
        if with_reason:
            query = query.where(run_records.c.reason != "")
        if limit is not None:
            query = query.limit(limit)
        with self._store.read() as connection:
            for row in connection.execute(query):
                yield record_of(row)

    def record(self, run_id: str, object_type: str, record_id: str) -> RunRecord | None:
        """One record of a run."""
        query = (
            select(run_records)
            .where(
                run_records.c.run_id == run_id,
                run_records.c.object_type == object_type,
                run_records.c.record_id == record_id,
            )
            .order_by(*_OF_WORK)
        )
        with self._store.read() as connection:
            rows = connection.execute(query).all()
        return one_of([record_of(row) for row in rows]) if rows else None

    def of_record(self, record_ids: Sequence[str]) -> list[tuple[SyncRun, RunRecord, datetime]]:
        """Everything kept about records with these ids, oldest first, each with its run and when it was settled."""
        return self._told(run_records.c.record_id.in_(list(record_ids)))

    def of_identity(self, identities: Sequence[bytes]) -> list[tuple[SyncRun, RunRecord, datetime]]:
        """As of_record, of the records for which somebody was asked who has one of these digests (Answers.digest)."""
        return self._told(run_records.c.identity.in_(list(identities)))

    def ids_beginning(self, beginning: str) -> list[str]:
        """The ids of known records that begin so."""
        query = select(run_records.c.record_id).where(run_records.c.record_id.startswith(beginning, autoescape=True))
        with self._store.read() as connection:
            return list(connection.execute(query.distinct().limit(100)).scalars())

    def _told(self, which: ColumnElement[bool]) -> list[tuple[SyncRun, RunRecord, datetime]]:
        with self._store.read() as connection:
            rows = connection.execute(select(run_records).where(which)).all()
            ids = sorted({row.run_id for row in rows})
            found = {
                row.id: run_of(row)
                for start in range(0, len(ids), 500)
                for row in connection.execute(select(runs).where(runs.c.id.in_(ids[start : start + 500])))
            }
        told = [(found[row.run_id], record_of(row), row.at) for row in rows]
        return sorted(told, key=lambda each: (each[0].started_at, each[2]))

    def of_call(self, run_id: str, batch_id: int) -> list[tuple[str, str]]:
        """(object type, record id) of the records of a run that a paid call was about."""
        query = (
            select(run_records.c.object_type, run_records.c.record_id)
            .where(run_records.c.run_id == run_id, run_records.c.batch_id == batch_id)
            .order_by(run_records.c.object_type, run_records.c.record_id)
        )
        with self._store.read() as connection:
            return [(row[0], row[1]) for row in connection.execute(query)]

    def reasons(self, run_id: str) -> list[tuple[str, str, str, int]]:
        """(object type, outcome, reason, how many), most frequent first."""
        count = func.count().label("n")
        query = (
            select(run_records.c.object_type, run_records.c.outcome, run_records.c.reason, count)
            .where(run_records.c.run_id == run_id)
            .group_by(run_records.c.object_type, run_records.c.outcome, run_records.c.reason)
            .order_by(count.desc(), run_records.c.outcome, run_records.c.reason)
        )
        with self._store.read() as connection:
            return [(row[0], row[1], row[2], row[3]) for row in connection.execute(query)]

    # --- last attempts ------------------------------------------------------------------------------------------

    def states(self, sync: str, object_type: str, record_ids: Sequence[str]) -> dict[str, RecordState]:
        """The last attempt at each of these records, where there was one."""
        found: dict[str, RecordState] = {}
        with self._store.read() as connection:
            for start in range(0, len(record_ids), 500):
                rows = connection.execute(
                    select(
                        record_states.c.record_id,
                        record_states.c.outcome,
                        record_states.c.seen,
                        record_states.c.attempted_at,
                    ).where(
                        record_states.c.sync == sync,
                        record_states.c.object_type == object_type,
                        record_states.c.record_id.in_(record_ids[start : start + 500]),
                    )
                )
                for record_id, outcome, seen, attempted_at in rows:
                    found[record_id] = RecordState(
                        object_type=object_type,
                        record_id=record_id,
                        outcome=outcome,
                        seen=bytes(seen),
                        attempted_at=attempted_at,
                    )
        return found

    def attempted_before(
        self, sync: str, object_type: str, before: datetime, outcomes: Iterable[str], *, after: str, limit: int
    ) -> list[str]:
        """Record ids in id order behind `after` whose last attempt is older than `before`."""
        with self._store.read() as connection:
            return list(
                connection.execute(
                    select(record_states.c.record_id)
                    .where(
                        record_states.c.sync == sync,
                        record_states.c.object_type == object_type,
                        record_states.c.attempted_at < before,
                        record_states.c.outcome.in_(list(outcomes)),
                        record_states.c.record_id > after,
                    )
                    .order_by(record_states.c.record_id)
                    .limit(limit)
                ).scalars()
            )

    # --- picklist values nobody mapped --------------------------------------------------------------------------

    def count_unmapped(self, sync: str, seen: Mapping[tuple[str, str], int], *, now: datetime) -> None:
        """Add to the tally of (CRM field, Apollo value) pairs that no table maps. In one order: the workers of a run
        come to their end together."""
        if not seen:
            return
        with self._store.write() as connection:
            statement = upsert(
                connection,
                unmapped_values,
                ("last_at",),
                add=("seen",),
            )
            connection.execute(
                statement,
                [
                    {"sync": sync, "field": field, "value": value[:400], "seen": count, "first_at": now, "last_at": now}
                    for (field, value), count in sorted(seen.items())
                ],
            )

    def unmapped(self, sync: str | None = None) -> list[tuple[str, str, str, int]]:
        """(sync, CRM field, Apollo value, times seen), most frequent first."""
        query = select(
            unmapped_values.c.sync, unmapped_values.c.field, unmapped_values.c.value, unmapped_values.c.seen
        ).order_by(unmapped_values.c.seen.desc(), unmapped_values.c.value)
        if sync is not None:
            query = query.where(unmapped_values.c.sync == sync)
        with self._store.read() as connection:
            return [(row[0], row[1], row[2], row[3]) for row in connection.execute(query)]


#: JSON's writer takes whole numbers of 64 bits.
_MOST = 2**63
_OLDER_ATTEMPT = record_states.c.attempted_at < bindparam("b_attempted_at", type_=record_states.c.attempted_at.type)
# Built once: composing a statement costs more than running it.
_CONFIRM = (
    update(run_records)
    .where(
        run_records.c.run_id == bindparam("b_run"),
        run_records.c.object_type == bindparam("b_type"),
        run_records.c.record_id == bindparam("b_id"),
        run_records.c.share == bindparam("b_share"),
    )
    .values(outcome=bindparam("b_outcome"), reason=bindparam("b_reason"), at=bindparam("b_at"))
)
_AMEND = _CONFIRM.values(decisions=bindparam("b_decisions"))
_SETTLED = ("b_run", "b_type", "b_id", "b_share", "b_outcome", "b_reason", "b_at")
_RECORDED = insert(run_records)
_OWNER = select(runs.c.owner).where(runs.c.id == bindparam("id")).with_for_update(read=True)
_SHARER = (
    select(shares.c.owner)
    .where(shares.c.run_id == bindparam("id"), shares.c.number == bindparam("share"))
    .with_for_update(read=True)
)
_RECORD = (
    "run_id", "object_type", "record_id", "share", "outcome", "reason", "decisions", "batch_id", "identity", "at",
)  # fmt: skip
_STATE = ("sync", "object_type", "record_id", "outcome", "seen", "attempted_at", "run_id")


def lost_run(run_id: str) -> LostRunError:
    return LostRunError(
        f"{run_id} was taken over by another process, since this one gave no sign of life for too long; what was paid "
        "for is kept, and `crm-sync runs` shows what goes on with it"
    )


def run_values(run: SyncRun) -> dict[str, Any]:
    return {
        "id": run.id,
        "sync": run.sync,
        "crm": run.crm,
        "object_type": run.object_type,
        "kind": run.kind.value,
        "status": run.status.value,
        "reason": run.reason,
        "trigger": run.trigger,
        "config_version": run.config_version,
        "started_at": run.started_at,
        "finished_at": run.finished_at,
        "counts": orjson.dumps(asdict(run.counts)).decode(),
        "credits": run.credits,
        "calls": orjson.dumps(run.calls, option=orjson.OPT_SORT_KEYS).decode(),
        "left_out": orjson.dumps(run.left_out, option=orjson.OPT_SORT_KEYS).decode(),
        "parents": orjson.dumps(asdict(run.parents)).decode(),
        "queued_at": run.queued_at,
        "slot": run.slot,
        "continues": run.continues or None,
    }


def run_of(row: Row[Any]) -> SyncRun:
    return SyncRun(
        id=row.id,
        sync=row.sync,
        crm=row.crm,
        object_type=row.object_type,
        kind=RunKind(row.kind),
        status=RunStatus(row.status),
        reason=row.reason,
        trigger=row.trigger,
        config_version=row.config_version,
        started_at=row.started_at,
        finished_at=row.finished_at,
        counts=Counts(**orjson.loads(row.counts)),
        credits=row.credits or Decimal(0),
        calls=orjson.loads(row.calls),
        left_out=orjson.loads(row.left_out),
        parents=Counts(**orjson.loads(row.parents)),
        queued_at=row.queued_at,
        slot=row.slot,
        continues=row.continues or "",
    )


def _settled_row(run_id: str, share: int, record: RunRecord, at: int) -> tuple[Any, ...]:
    """In the order of _SETTLED."""
    return run_id, record.object_type, record.record_id, share, record.outcome, record.reason, at


def _record_row(run_id: str, share: int, record: RunRecord, at: int) -> tuple[Any, ...]:
    """In the order of _RECORD."""
    return (
        run_id,
        record.object_type,
        record.record_id,
        share,
        record.outcome,
        record.reason,
        _encode(record.decisions),
        record.batch_id,
        record.identity,
        at,
    )


def _encode(decisions: tuple[FieldDecision, ...]) -> bytes | None:
    """One JSON array a record instead of a row a field: a run of a million records stays writable."""
    if not decisions:
        return None
    rows = [(d.field, d.source, d.rule, d.outcome, d.old, d.new, d.reason) for d in decisions]
    try:
        return orjson.dumps(rows, default=_plain)
    except orjson.JSONEncodeError:  # somebody's value of more than 64 bits, or with half a character
        return orjson.dumps([[_sayable(each) for each in row] for row in rows], default=_plain)


def _plain(value: object) -> object:
    """A number that JSON would not hold exactly is kept as its text, which is the same value to every field of numbers
    (mapping/same.py)."""
    if not isinstance(value, Decimal):
        raise TypeError(type(value).__name__)
    if value == value.to_integral_value():
        return int(value) if abs(value) < _MOST else str(value)
    return float(value) if Decimal(repr(float(value))) == value else str(value)


def _sayable(value: object) -> object:
    if isinstance(value, tuple):
        return [_sayable(each) for each in value]
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) >= _MOST:
        return str(value)
    if type(value) is str:
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return value


def record_of(row: Row[Any]) -> RunRecord:
    decisions = tuple(
        FieldDecision(
            field=field,
            source=source,
            rule=WriteRule(rule),
            outcome=FieldOutcome(outcome),
            old=tuple(old) if isinstance(old, list) else old,
            new=tuple(new) if isinstance(new, list) else new,
            reason=reason,
        )
        for field, source, rule, outcome, old, new, reason in (orjson.loads(row.decisions) if row.decisions else ())
    )
    return RunRecord(
        object_type=row.object_type,
        record_id=row.record_id,
        outcome=row.outcome,
        reason=row.reason,
        decisions=decisions,
        batch_id=row.batch_id,
        identity=bytes(row.identity) if row.identity is not None else None,
    )


def one_of(rows: Sequence[RunRecord]) -> RunRecord:
    """What several workers of a run did with one record, told as one; `rows` in the order of their work.

    The last one that did not leave it to another says what became of it, unless an earlier one has written and it found
    nothing left to do: also where that one died before it could confirm it. Of a field that was written, once or again,
    the value before the first write is the old one, so that an undo brings it back.
    """
    if len(rows) == 1:
        return rows[0]
    told = max(reversed(rows), key=lambda row: _SAYS.get(row.outcome, 1))
    decisions = {decision.field: decision for decision in told.decisions}
    for row in reversed(rows):
        for decision in row.decisions:
            if decision.outcome in _WRITTEN and row is not told:
                known = decisions.get(decision.field)
                is_again = known is not None and known.outcome in _WRITTEN
                decisions[decision.field] = known._replace(old=decision.old) if known and is_again else decision
    is_written = any(decision.outcome in _WRITTEN for decision in decisions.values())
    outcome, reason = told.outcome, told.reason
    if outcome == RecordOutcome.UNCHANGED.value and is_written:
        outcome, reason = RecordOutcome.UPDATED.value, ""
    return replace(told, outcome=outcome, reason=reason, decisions=tuple(decisions.values()))


def _make_some_one(connection: Connection, run_id: str, after: tuple[str, str]) -> tuple[str, str] | None:
    """Runs.make_one for the next records behind this one; returns the last of them, None where there is none."""
    place = tuple_(run_records.c.object_type, run_records.c.record_id)
    behind = (run_records.c.run_id == run_id, place > after)
    counted = select(run_records.c.object_type, run_records.c.record_id, func.count().label("n")).where(*behind)
    by_place = (run_records.c.object_type, run_records.c.record_id)
    found = connection.execute(counted.group_by(*by_place).order_by(*by_place).limit(_MADE_ONE_AT_ONCE)).all()
    if not found:
        return None
    several: dict[str, list[str]] = defaultdict(list)
    for object_type, record_id, count in found:
        if count > 1:
            several[object_type].append(record_id)
    for object_type, ids in several.items():
        which = (
            run_records.c.run_id == run_id,
            run_records.c.object_type == object_type,
            run_records.c.record_id.in_(ids),
        )
        rows: dict[str, list[Row[Any]]] = defaultdict(list)
        for row in connection.execute(select(run_records).where(*which).order_by(*_OF_WORK)):
            rows[row.record_id].append(row)
        made = [
            _record_row(run_id, each[-1].share, one_of([record_of(row) for row in each]), millis(each[-1].at))
            for each in rows.values()
        ]
        connection.execute(delete(run_records).where(*which))
        run_many(connection, _RECORDED, _RECORD, made)
    crash.point("runs.make_one.inside")
    return found[-1].object_type, found[-1].record_id


_WRITTEN = (FieldOutcome.WRITTEN, FieldOutcome.UNCONFIRMED)
_MADE_ONE_AT_ONCE = 1000
#: How much a worker's outcome says of what became of a record; any other: 1.
_SAYS = {RecordOutcome.UPDATED.value: 2, RecordOutcome.SKIPPED.value: 0}
#: A worker may have begun before another one and have taken up later what that one left.
_OF_WORK = (run_records.c.at, run_records.c.share)

#: What a later run may leave out when nothing changed since (pipeline/select.py).
SETTLED = tuple(
    outcome.value
    for outcome in (
        RecordOutcome.UPDATED,
        RecordOutcome.UNCHANGED,
        RecordOutcome.NO_MATCH,
        RecordOutcome.NEEDS_REVIEW,
        RecordOutcome.INVALID,
        RecordOutcome.SKIPPED,
    )
)
