"""Removing what has been kept for long enough, some rows to a commit: a purge must not hold up a run."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Column, ColumnElement, Connection, Table, and_, delete, exists, func, or_, select, update

from crm_sync import crash
from crm_sync.domain.enrichment import Verdict
from crm_sync.domain.runs import RecordOutcome, RunKind
from crm_sync.store.engine import Store
from crm_sync.store.journal import ABANDONED, GUARDING
from crm_sync.store.orders import DUE, WAITING
from crm_sync.store.provenance import Provenance
from crm_sync.store.reviews import OPEN
from crm_sync.store.runs import WRITING
from crm_sync.store.tables import (
    answers,
    batches,
    deliveries,
    marks,
    phone_waits,
    reveal_orders,
    reviews,
    run_records,
    runs,
)
from crm_sync.store.upsert import upsert

_MARK = "purged"
#: So many calls are emptied in one commit; each has some 60 kB.
_AT_ONCE = 500
#: A call that nobody has to look at any more. One in doubt keeps what it asked for, whatever its age.
_ENDED = ("done", "refused", "unsent", "not charged", "charged", "accepted")
#: Orders that nothing is expected of any more, and deliveries that are still to be read.
_ORDER_ENDED = ("closed", "expired", "not sent", "nothing")
_UNREAD = ("new", "waiting")
_NO_ANSWER = (Verdict.NO_MATCH.value, ABANDONED)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cutoffs:
    """What is older goes: `bodies` and requests of paid calls, index rows of `found` and `not_found` people, run
    `details`, and those of `written` records; `deliveries`, with the numbers in them, and `orders`, for which nothing
    is delivered any more."""

    bodies: datetime
    found: datetime
    not_found: datetime
    details: datetime
    written: datetime
    deliveries: datetime
    orders: datetime


class Retention:
    def __init__(self, store: Store, provenance: Provenance) -> None:
        self._store = store
        self._provenance = provenance

    def last(self) -> datetime | None:
        """When it was last purged."""
        with self._store.read() as connection:
            return connection.execute(select(marks.c.at).where(marks.c.name == _MARK)).scalar()

    def count(self, cutoffs: Cutoffs) -> dict[str, int]:
        """How many rows of each table a purge would touch."""
        with self._store.read() as connection:

            def rows(table: Table, which: ColumnElement[bool]) -> int:
                return int(connection.execute(select(func.count()).select_from(table).where(which)).scalar() or 0)

            return {
                "batches": rows(batches, _emptied(cutoffs)),
                "answers": rows(answers, _stale(cutoffs)),
                "run_records": rows(run_records, _past(cutoffs)),
                "deliveries": rows(deliveries, _delivered(cutoffs)),
                "reveal_orders": rows(reveal_orders, _over(cutoffs)),
                "phone_waits": rows(phone_waits, _settled(cutoffs)),
            }

    def purge(self, cutoffs: Cutoffs, *, now: datetime) -> dict[str, int]:
        """Rows touched by table: of `batches` the request and answer are emptied, the ledger's figures stay."""
        done = {
            "batches": sum(self._each(lambda connection: _empty_some(connection, cutoffs))),
            "answers": sum(self._each(lambda connection: _forget_some(connection, cutoffs))),
            "run_records": sum(self._runs(cutoffs)),
            "deliveries": self._delete(deliveries, deliveries.c.id, _delivered(cutoffs)),
            # One may come at this moment, by a clock that runs behind.
            "reveal_orders": self._delete(reveal_orders, reveal_orders.c.id, and_(_over(cutoffs), ~_has_delivery())),
            "phone_waits": self._delete(phone_waits, phone_waits.c.id, _settled(cutoffs)),
        }
        with self._store.write() as connection:
            connection.execute(
                upsert(connection, marks, ("at",), add=("number",)), {"name": _MARK, "number": 1, "at": now}
            )
        return done

    def _each(self, some: Callable[[Connection], int]) -> Iterator[int]:
        while True:
            with self._store.write() as connection:
                count = some(connection)
            if not count:
                return
            yield count

    def _delete(self, table: Table, key: Column[Any], which: ColumnElement[bool]) -> int:
        def some(connection: Connection) -> int:
            keys = connection.execute(select(key).where(which).limit(_AT_ONCE)).scalars().all()
            if keys:
                connection.execute(delete(table).where(key.in_(keys), which))
            return len(keys)

        return sum(self._each(some))

    def _runs(self, cutoffs: Cutoffs) -> Iterator[int]:
        """Run by run: the records of one lie together. Oldest first: what an undo took back must be kept before it."""
        before = max(cutoffs.details, cutoffs.written)
        has_some = exists().where(run_records.c.run_id == runs.c.id)
        with self._store.read() as connection:
            query = select(runs.c.id).where(runs.c.started_at < before, has_some).order_by(runs.c.started_at)
            old = connection.execute(query).scalars().all()
        for run_id in old:
            past = (run_records.c.run_id == run_id, _past(cutoffs))
            with self._store.write() as connection:
                written = (
                    select(run_records, runs.c.crm, runs.c.kind)
                    .join(runs, runs.c.id == run_records.c.run_id)
                    .where(
                        *past, run_records.c.outcome == RecordOutcome.UPDATED.value, runs.c.kind != RunKind.PLAN.value
                    )
                )
                self._provenance.keep(connection, connection.execute(written))
                crash.point("purge.kept")
                expired = (reviews.c.state == OPEN, reviews.c.created_at < cutoffs.details)
                connection.execute(delete(reviews).where(reviews.c.run_id == run_id, *expired))
                count = connection.execute(delete(run_records).where(*past)).rowcount
            crash.point("purge.run")
            yield count


def _emptied(cutoffs: Cutoffs) -> ColumnElement[bool]:
    return and_(
        batches.c.state.in_(_ENDED),
        batches.c.planned_at < cutoffs.bodies,  # what an index helps with
        func.coalesce(batches.c.answered_at, batches.c.planned_at) < cutoffs.bodies,
        or_(batches.c.request != b"", batches.c.body.is_not(None)),
    )


def _stale(cutoffs: Cutoffs) -> ColumnElement[bool]:
    return and_(
        answers.c.verdict.not_in(GUARDING),
        or_(
            and_(answers.c.verdict.in_(_NO_ANSWER), answers.c.obtained_at < cutoffs.not_found),
            and_(answers.c.verdict.not_in(_NO_ANSWER), answers.c.obtained_at < cutoffs.found),
        ),
    )


def _past(cutoffs: Cutoffs) -> ColumnElement[bool]:
    """A write that is not confirmed yet stays until its run is closed; one that can be undone, until it cannot."""
    outcome = run_records.c.outcome
    return or_(
        and_(outcome.not_in((WRITING, RecordOutcome.UPDATED.value)), run_records.c.at < cutoffs.details),
        and_(outcome == RecordOutcome.UPDATED.value, run_records.c.at < cutoffs.written),
    )


def _has_delivery(*which: ColumnElement[bool]) -> ColumnElement[bool]:
    return exists().where(deliveries.c.order_id == reveal_orders.c.id, *which)


def _over(cutoffs: Cutoffs) -> ColumnElement[bool]:
    """Orders whose token has expired, whatever became of them; a probe's deliveries are never read."""
    is_probe = reveal_orders.c.batch_id.is_(None)
    awaited = exists().where(phone_waits.c.order_id == reveal_orders.c.id, phone_waits.c.state.in_((DUE, WAITING)))
    ended = and_(reveal_orders.c.state.in_(_ORDER_ENDED), ~awaited, ~_has_delivery(deliveries.c.state.in_(_UNREAD)))
    return and_(reveal_orders.c.created_at < cutoffs.orders, or_(is_probe, ended))


def _delivered(cutoffs: Cutoffs) -> ColumnElement[bool]:
    """Those of one order go together, the last of them being old enough: who asks for its people later is served from
    all of them or from none. Orders that are over take theirs with them."""
    young = _has_delivery(
        or_(
            deliveries.c.state.in_(_UNREAD),
            func.coalesce(deliveries.c.ended_at, deliveries.c.received_at) >= cutoffs.deliveries,
        )
    )
    old = select(reveal_orders.c.id).where(or_(_over(cutoffs), and_(reveal_orders.c.state.in_(_ORDER_ENDED), ~young)))
    return deliveries.c.order_id.in_(old)


def _settled(cutoffs: Cutoffs) -> ColumnElement[bool]:
    """Waits that are over, under orders that are. That a phone was asked for is known by the index without them."""
    order = select(reveal_orders.c.id).where(
        reveal_orders.c.id == phone_waits.c.order_id, reveal_orders.c.state.not_in(_ORDER_ENDED)
    )
    return and_(phone_waits.c.state.not_in((DUE, WAITING)), phone_waits.c.settled_at < cutoffs.details, ~order.exists())


def _empty_some(connection: Connection, cutoffs: Cutoffs) -> int:
    ids = connection.execute(select(batches.c.id).where(_emptied(cutoffs)).limit(_AT_ONCE)).scalars().all()
    if ids:
        # The fingerprint digests the request without a key: it could be tried out.
        connection.execute(update(batches).where(batches.c.id.in_(ids)).values(request=b"", body=None, fingerprint=""))
    return len(ids)


def _forget_some(connection: Connection, cutoffs: Cutoffs) -> int:
    keys = connection.execute(select(answers.c.purpose, answers.c.key).where(_stale(cutoffs)).limit(_AT_ONCE)).all()
    for purpose in {row.purpose for row in keys}:
        some = [row.key for row in keys if row.purpose == purpose]
        connection.execute(
            delete(answers).where(answers.c.purpose == purpose, answers.c.key.in_(some), _stale(cutoffs))
        )
    return len(keys)
