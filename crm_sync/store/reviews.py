"""What waits for a person, and what they said."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, func, select, text, update

from crm_sync.store.engine import Store
from crm_sync.store.tables import reviews
from crm_sync.store.vault import Vault

OPEN, ACCEPTED, REFUSED = "open", "accepted", "refused"
#: Kinds of a review: one field, or the whole record.
FIELD, MATCH, JOB_CHANGE = "field", "match", "job_change"
_AT_ONCE = 500
#: Of PostgreSQL: one at a time puts something on the list. SQLite's writers take turns anyway.
_PUTTING_LOCK = int.from_bytes(b"reviews", "big")


@dataclass(frozen=True, slots=True, kw_only=True)
class Proposal:
    """Something a person is to decide. `field` is "" where it is about the whole record; `what` says what is proposed,
    in any spelling that stays the same (it is kept as a digest)."""

    object_type: str
    record_id: str
    field: str
    kind: str
    what: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Review:
    """A proposal as it is kept. `run_id`: the run whose record holds the values."""

    id: int
    sync: str
    crm: str
    object_type: str
    record_id: str
    field: str
    kind: str
    proposal: bytes
    reason: str
    run_id: str
    state: str
    created_at: datetime
    resolved_at: datetime | None
    resolved_by: str


class Reviews:
    def __init__(self, store: Store, vault: Vault) -> None:
        self._store = store
        self._vault = vault

    def proposal(self, what: str) -> bytes:
        return self._vault.digest(f"proposal:{what}")

    def proposing(
        self, proposals: Sequence[Proposal], *, run_id: str, sync: str, crm: str, now: datetime
    ) -> Callable[[Connection], None] | None:
        """What puts them on the list, in the transaction that closes their records (Runs.settle); None for none.

        What was refused before stays refused; another proposal for the same place takes its place. A field that was
        accepted and is proposed again was changed since: it waits again.
        """
        if not proposals:
            return None
        rows = [
            {
                "sync": sync,
                "crm": crm,
                "object_type": each.object_type,
                "record_id": each.record_id,
                "field": each.field,
                "kind": each.kind,
                "proposal": self.proposal(each.what),
                "reason": each.reason,
                "run_id": run_id,
                "state": OPEN,
                "created_at": now,
                "resolved_by": "",
            }
            for each in proposals
        ]
        return lambda connection: _put(connection, rows)

    def said(self, sync: str, object_type: str, record_ids: Sequence[str]) -> dict[tuple[str, str], Review]:
        """(record id, field) -> the review that a person has resolved, for these records."""
        found: dict[tuple[str, str], Review] = {}
        with self._store.read() as connection:
            for start in range(0, len(record_ids), _AT_ONCE):
                rows = connection.execute(
                    select(reviews).where(
                        reviews.c.sync == sync,
                        reviews.c.object_type == object_type,
                        reviews.c.record_id.in_(record_ids[start : start + _AT_ONCE]),
                        reviews.c.state != OPEN,
                    )
                )
                found.update({(row.record_id, row.field): _review(row) for row in rows})
        return found

    def listed(
        self,
        *,
        state: str = OPEN,
        sync: str = "",
        kind: str = "",
        field: str = "",
        record_id: str = "",
        ids: Collection[int] = (),
        limit: int | None = None,
    ) -> list[Review]:
        """Those in a state, oldest first, as far as the filters say."""
        query = select(reviews).where(reviews.c.state == state).order_by(reviews.c.id)
        for column, wanted in (
            (reviews.c.sync, sync),
            (reviews.c.kind, kind),
            (reviews.c.field, field),
            (reviews.c.record_id, record_id),
        ):
            if wanted:
                query = query.where(column == wanted)
        if ids:
            query = query.where(reviews.c.id.in_(list(ids)))
        if limit is not None:
            query = query.limit(limit)
        with self._store.read() as connection:
            return [_review(row) for row in connection.execute(query)]

    def get(self, ids: Collection[int]) -> dict[int, Review]:
        """By number, whatever their state."""
        found: dict[int, Review] = {}
        wanted = list(ids)
        with self._store.read() as connection:
            for start in range(0, len(wanted), _AT_ONCE):
                some = wanted[start : start + _AT_ONCE]
                rows = connection.execute(select(reviews).where(reviews.c.id.in_(some)))
                found.update({row.id: _review(row) for row in rows})
        return found

    def count(self, sync: str = "") -> int:
        """How many are open; of all syncs where none is named."""
        query = select(func.count()).select_from(reviews).where(reviews.c.state == OPEN)
        if sync:
            query = query.where(reviews.c.sync == sync)
        with self._store.read() as connection:
            return int(connection.execute(query).scalar() or 0)

    def resolve(self, ids: Collection[int], state: str, *, by: str, now: datetime) -> int:
        """Give open ones their end; how many had been open."""
        wanted, done = list(ids), 0
        with self._store.write() as connection:
            for start in range(0, len(wanted), _AT_ONCE):
                done += connection.execute(
                    update(reviews)
                    .where(reviews.c.id.in_(wanted[start : start + _AT_ONCE]), reviews.c.state == OPEN)
                    .values(state=state, resolved_at=now, resolved_by=by)
                ).rowcount
        return done


def _put(connection: Connection, rows: Sequence[dict[str, Any]]) -> None:
    if connection.dialect.name == "postgresql":
        # Workers that share a run may propose for the same companies at the same moment, in another order.
        connection.execute(text("select pg_advisory_xact_lock(:key)"), {"key": _PUTTING_LOCK})
    for row in rows:
        known = connection.execute(
            select(reviews.c.id, reviews.c.proposal, reviews.c.state).where(_place(row))
        ).one_or_none()
        if known is None:
            connection.execute(reviews.insert(), row)
        elif bytes(known.proposal) != row["proposal"] or (known.state == ACCEPTED and row["field"]):
            connection.execute(update(reviews).where(reviews.c.id == known.id).values({**row, "resolved_at": None}))
        elif known.state == OPEN:  # the newest run has the newest values
            connection.execute(update(reviews).where(reviews.c.id == known.id).values(run_id=row["run_id"]))


def _place(row: dict[str, Any]) -> Any:
    return (
        (reviews.c.object_type == row["object_type"])
        & (reviews.c.record_id == row["record_id"])
        & (reviews.c.sync == row["sync"])
        & (reviews.c.field == row["field"])
    )


def _review(row: Row[Any]) -> Review:
    return Review(
        id=row.id,
        sync=row.sync,
        crm=row.crm,
        object_type=row.object_type,
        record_id=row.record_id,
        field=row.field,
        kind=row.kind,
        proposal=bytes(row.proposal),
        reason=row.reason,
        run_id=row.run_id,
        state=row.state,
        created_at=row.created_at,
        resolved_at=row.resolved_at,
        resolved_by=row.resolved_by,
    )
