"""What was spent on what: the journal as an admin asks about it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any

from sqlalchemy import Connection, Row, func, select

from crm_sync.domain.enrichment import Purpose, Verdict
from crm_sync.store.engine import Store
from crm_sync.store.health import Health
from crm_sync.store.journal import IN_DOUBT, LOOKUPS, PHONES, keys_of, request_name
from crm_sync.store.tables import answers, batches, phone_waits, reveal_orders, run_records, spending
from crm_sync.store.vault import Vault

_FOUND = (Verdict.MATCHED.value, Verdict.UNPROVED.value)
#: What credits can be summed by.
BY = ("sync", "day", "run")


@dataclass(frozen=True, slots=True, kw_only=True)
class Total:
    """Credits of one sync, day or run. `settled` as Apollo reported; `open` at worst cost for calls without an end or
    in doubt; `doubted` at worst cost for calls in doubt that were given up on."""

    name: str
    calls: int
    settled: Decimal
    open: Decimal
    doubted: Decimal


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """What one record's place in one paid call cost. `record` is "" where no run has settled the record yet, or it was
    erased."""

    at: datetime
    day: str
    run: str
    sync: str
    call: int
    endpoint: str
    state: str
    object_type: str
    record: str
    verdict: str
    credits: Decimal


class Ledger:
    """Questions about the journal; it changes nothing."""

    def __init__(self, store: Store, vault: Vault) -> None:
        self._store = store
        self._vault = vault

    def totals(self, by: str, *, since: str = "", until: str = "9999") -> list[Total]:
        """Credits by "sync", "day" or "run", newest or largest first; `since` and `until` are budget days, both in."""
        column = {"sync": spending.c.sync, "day": spending.c.day, "run": spending.c.run_id}[by]
        query = (
            select(
                column,
                func.sum(spending.c.calls),
                func.sum(spending.c.settled),
                func.sum(spending.c.reserved),
                func.sum(spending.c.doubted),
            )
            .where(spending.c.day >= since, spending.c.day <= until)
            .group_by(column)
            .order_by(func.sum(spending.c.settled).desc() if by == "sync" else column.desc())
        )
        with self._store.read() as connection:
            return [
                Total(name=name, calls=int(calls), settled=settled, open=open_, doubted=doubted)
                for name, calls, settled, open_, doubted in connection.execute(query)
            ]

    def spent(self, since: str, until: str, *, purses: Collection[str] = (LOOKUPS, PHONES)) -> Decimal:
        """As Health.spent."""
        return Health(self._store).spent(since, until, purses=purses)

    def records_of(self, call: int) -> list[tuple[str, str]]:
        """(object, id) of the records whose phone a call has ordered."""
        query = (
            select(phone_waits.c.object_type, phone_waits.c.record_id)
            .join(reveal_orders, reveal_orders.c.id == phone_waits.c.order_id)
            .where(reveal_orders.c.batch_id == call)
            .order_by(phone_waits.c.id)
        )
        with self._store.read() as connection:
            return [(object_type, record_id) for object_type, record_id in connection.execute(query)]

    def in_doubt(self) -> tuple[int, Decimal]:
        """(calls in doubt, what they may have cost at worst)."""
        query = select(func.count(), func.sum(batches.c.most)).where(batches.c.state == IN_DOUBT)
        with self._store.read() as connection:
            calls, most = connection.execute(query).one()
        return int(calls), most if most is not None else Decimal(0)

    def request_ids(self) -> dict[str, int]:
        """Apollo's own number of each answer that is stored, to the number of its call: what Apollo's support asks for
        when a charge is in question."""
        query = select(batches.c.request_id, batches.c.id).where(
            batches.c.request_id != "", batches.c.body.is_not(None)
        )
        with self._store.read() as connection:
            return {row.request_id: row.id for row in connection.execute(query)}

    def entries(self, *, since: str = "", until: str = "9999", run_id: str = "") -> Iterator[Entry]:
        """Every credit with its run, sync, call, endpoint and record, oldest first.

        Apollo tells a cost by the call: it is shared out among those of the call that were found, among all where none
        was. What the delivery of a call that ordered phones has cost is in it.
        """
        query = select(batches).where(
            batches.c.day >= since, batches.c.day <= until, batches.c.state.not_in(("refused", "unsent", "planned"))
        )
        if run_id:
            query = query.where(batches.c.run_id == run_id)
        after = 0
        while True:
            with self._store.read() as connection:
                rows = connection.execute(query.where(batches.c.id > after).order_by(batches.c.id).limit(200)).all()
                records = self._records(connection, [row.id for row in rows])
                asked = {row.id: self._asked(row) for row in rows}
                verdicts = self._verdicts(connection, asked)
            for row in rows:
                yield from self._entries(row, asked[row.id], records, verdicts)
            if len(rows) < 200:
                return
            after = rows[-1].id

    def _asked(self, row: Row[Any]) -> list[bytes | None]:
        """The identities a call asked for, in order; None for one that was erased."""
        if not row.request:
            return [None] * row.asked
        keys = keys_of(self._vault.unseal(row.request, request_name(row.fingerprint)))
        return [self._vault.digest(key.key) if key.key else None for key in keys]

    def _entries(
        self,
        row: Row[Any],
        asked: list[bytes | None],
        records: Mapping[tuple[int, bytes | None], list[tuple[str, str]]],
        verdicts: Mapping[tuple[int, bytes], str],
    ) -> Iterator[Entry]:
        known = [verdicts.get((row.id, identity), "") if identity else "" for identity in asked]
        found = sum(verdict in _FOUND for verdict in known)
        for identity, verdict in zip(asked, known, strict=True):
            share = row.most / row.asked
            if row.state not in (IN_DOUBT, "accepted"):
                whole = row.credits or Decimal(0)
                share = whole / (found or row.asked) if verdict in _FOUND or not found else Decimal(0)
            places = records.get((row.id, identity)) or [("", "")]
            for nth, (object_type, record) in enumerate(places):
                yield Entry(
                    at=row.planned_at,
                    day=row.day,
                    run=row.run_id,
                    sync=row.sync,
                    call=row.id,
                    endpoint=row.endpoint,
                    state=row.state,
                    object_type=object_type,
                    record=record,
                    verdict=row.state if row.state in (IN_DOUBT, "accepted") else verdict,
                    credits=share if nth == 0 else Decimal(0),  # the same answer for several records is paid for once
                )

    def _records(
        self, connection: Connection, batch_ids: list[int]
    ) -> dict[tuple[int, bytes | None], list[tuple[str, str]]]:
        found: dict[tuple[int, bytes | None], list[tuple[str, str]]] = defaultdict(list)
        rows = connection.execute(
            select(run_records.c.batch_id, run_records.c.identity, run_records.c.object_type, run_records.c.record_id)
            .join(batches, batches.c.id == run_records.c.batch_id)
            .where(run_records.c.batch_id.in_(batch_ids), run_records.c.run_id == batches.c.run_id)
        )
        for batch_id, identity, object_type, record_id in rows:
            if identity is not None:
                found[batch_id, bytes(identity)].append((object_type, record_id))
        waits = connection.execute(
            select(reveal_orders.c.batch_id, phone_waits.c.person, phone_waits.c.object_type, phone_waits.c.record_id)
            .join(reveal_orders, reveal_orders.c.id == phone_waits.c.order_id)
            .where(reveal_orders.c.batch_id.in_(batch_ids))
            .order_by(phone_waits.c.id)
        )
        for batch_id, person, object_type, record_id in waits:
            found[batch_id, bytes(person)].append((object_type, record_id))
        return found

    def _verdicts(
        self, connection: Connection, asked: Mapping[int, list[bytes | None]]
    ) -> dict[tuple[int, bytes], str]:
        """What the index says of (call, identity), where it still points at that call."""
        wanted = sorted({identity for identities in asked.values() for identity in identities if identity})
        found: dict[tuple[int, bytes], str] = {}
        for start in range(0, len(wanted), 500):
            rows = connection.execute(
                select(answers.c.batch_id, answers.c.key, answers.c.verdict).where(
                    answers.c.purpose.in_([purpose.value for purpose in Purpose]),
                    answers.c.key.in_(wanted[start : start + 500]),
                )
            )
            found |= {(row.batch_id, bytes(row.key)): row.verdict for row in rows}
        return found


_WORDS = {
    Purpose.PERSON: ("person", "people"),
    Purpose.COMPANY: ("company", "companies"),
    Purpose.PHONE: ("phone", "phones"),
}


def purpose_word(purpose: Purpose, count: int) -> str:
    """ "1 person", "3 people", "2 companies", "3 phones"."""
    one, many = _WORDS[purpose]
    return f"{count:,} {one if count == 1 else many}"
