"""What crm-sync wrote last into a field: what the rule `track` goes by.

The audit says it (run_records). Before a purge takes a run's rows, what they wrote is kept as keyed digests, so that a
field is known as ours for as long as the record lives. A person who releases a field makes its present value count as
ours.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import orjson
from sqlalchemy import Connection, Row, select

from crm_sync.domain.changes import FieldOutcome, LastWrite
from crm_sync.domain.records import FieldKind, Value
from crm_sync.domain.runs import RecordOutcome, RunKind
from crm_sync.mapping.blanks import is_blank
from crm_sync.mapping.same import same, spelling
from crm_sync.store.engine import Store
from crm_sync.store.runs import WRITING, record_of
from crm_sync.store.tables import millis, provenance, run_records, runs
from crm_sync.store.upsert import upsert
from crm_sync.store.vault import Vault

#: Rows that may hold a write: confirmed, under way, or closed without being confirmed.
_WRITES = (RecordOutcome.UPDATED.value, RecordOutcome.SKIPPED.value, WRITING)
_AT_ONCE = 500

#: Digest, milliseconds, 1 where released. An empty digest: taken back.
_Entry = tuple[str, int, int]


@dataclass(slots=True)
class _Last:
    """The newest confirmed value of a field, with newer ones that were not confirmed before it. `bare`: what it holds
    if a write never arrived, or an undo did, of which nobody knows."""

    at: datetime
    values: list[Value] = field(default_factory=list)
    confirmed: bool = False
    bare: list[Value] = field(default_factory=list)


class Provenance:
    def __init__(self, store: Store, vault: Vault) -> None:
        self._store = store
        self._vault = vault

    def last_writes(self, crm: str, object_type: str, record_ids: Sequence[str]) -> dict[str, dict[str, LastWrite]]:
        """Record id -> CRM field -> the last write; nothing for what crm-sync never wrote, or has taken back."""
        found: dict[str, dict[str, LastWrite]] = {}
        with self._store.read() as connection:
            for start in range(0, len(record_ids), _AT_ONCE):
                some = record_ids[start : start + _AT_ONCE]
                for record_id, fields in _kept(connection, crm, object_type, some).items():
                    found[record_id] = {
                        name: self._of_digest(record_id, name, *entry) for name, entry in fields.items()
                    }
                for record_id, rows in _written(connection, crm, object_type, some).items():
                    of_record = found.setdefault(record_id, {})
                    writes, taken_back = _resolved(rows)
                    for name, at in taken_back.items():
                        if name in of_record and of_record[name].at < at:
                            del of_record[name]
                    for name, last in writes.items():
                        if name not in of_record or of_record[name].at <= last.at:
                            of_record[name] = _of_values(last, of_record.get(name))
        return {record_id: fields for record_id, fields in found.items() if fields}

    def places(self, beginning: str) -> list[tuple[str, str, str]]:
        """(CRM, object, record id) of the records whose id begins so and of which something is kept although no run's
        audit may tell of it any more."""
        query = select(provenance.c.crm, provenance.c.object_type, provenance.c.record_id).where(
            provenance.c.record_id.startswith(beginning, autoescape=True)
        )
        with self._store.read() as connection:
            return [(row.crm, row.object_type, row.record_id) for row in connection.execute(query.limit(100))]

    def release(self, crm: str, object_type: str, record_id: str, held: Mapping[str, Value], *, now: datetime) -> None:
        """Let `track` go on from what these fields hold now."""
        entries = {name: (self._digest(record_id, name, value), millis(now), 1) for name, value in held.items()}
        with self._store.write() as connection:
            _keep(connection, crm, object_type, {record_id: entries})

    def keep(self, connection: Connection, rows: Iterable[Row[Any]]) -> None:
        """Note what these rows of run_records, with the `crm` and `kind` of their runs, wrote: as digests, in the
        transaction that removes them."""
        by_record: dict[tuple[str, str, str], list[Row[Any]]] = defaultdict(list)
        for row in rows:
            by_record[row.crm, row.object_type, row.record_id].append(row)
        kept: dict[tuple[str, str], dict[str, dict[str, _Entry]]] = defaultdict(dict)
        for (crm, object_type, record_id), of_record in by_record.items():
            of_record.sort(key=lambda row: row.at, reverse=True)
            writes, taken_back = _resolved(of_record)
            entries: dict[str, _Entry] = {name: ("", millis(at), 0) for name, at in taken_back.items()}
            entries |= {
                name: (self._digest(record_id, name, last.values[-1]), millis(last.at), 0)
                for name, last in writes.items()
                if last.confirmed
            }
            if entries:
                kept[crm, object_type][record_id] = entries
        for (crm, object_type), records in kept.items():
            _keep(connection, crm, object_type, records)

    def _digest(self, record_id: str, name: str, value: Value) -> str:
        return self._vault.digest(f"value:{record_id}:{name}:{spelling(value)}").hex()

    def _of_digest(self, record_id: str, name: str, digest: str, at: int, released: int) -> LastWrite:
        def holds(value: Value, kind: FieldKind) -> bool:  # noqa: ARG001  a digest knows no kinds
            return self._digest(record_id, name, value) == digest

        return LastWrite(at=datetime.fromtimestamp(at / 1000, UTC), holds=holds, released=bool(released))


def _of_values(last: _Last, before: LastWrite | None) -> LastWrite:
    """`before`: what is kept of an earlier one, which counts on while this one is not confirmed."""

    def holds(value: Value, kind: FieldKind) -> bool:
        if any(same(value, each, kind) for each in last.values):
            return True
        return not last.confirmed and before is not None and before.holds(value, kind)

    def is_bare(value: Value, kind: FieldKind) -> bool:
        return any((is_blank(value) and is_blank(each)) or same(value, each, kind) for each in last.bare)

    return LastWrite(at=last.at, holds=holds, is_bare=is_bare)


def _resolved(rows: Iterable[Row[Any]]) -> tuple[dict[str, _Last], dict[str, datetime]]:
    """CRM field -> what was written into it last, by the rows of one record, newest first; and when an undo last took
    something back from it. What an undo took back was never written; an undo that was itself undone took nothing
    back; one that was not confirmed may have done either."""
    found: dict[str, _Last] = {}
    taken_back: dict[str, datetime] = {}
    undone: dict[str, set[str]] = defaultdict(set)
    #: Field -> run -> what the field holds if that run was undone: nobody knows.
    doubtful: dict[str, dict[str, Value]] = defaultdict(dict)
    for row in rows:
        is_undo = row.kind == RunKind.UNDO.value
        for decision in record_of(row).decisions:
            if decision.outcome not in (FieldOutcome.WRITTEN, FieldOutcome.UNCONFIRMED):
                continue
            name = decision.field
            is_confirmed = row.outcome == RecordOutcome.UPDATED.value and decision.outcome is FieldOutcome.WRITTEN
            if row.run_id in undone[name]:
                continue
            if is_undo:
                if is_confirmed and row.run_id not in doubtful[name]:
                    undone[name].add(decision.source)
                    taken_back.setdefault(name, row.at)
                else:
                    doubtful[name][decision.source] = decision.new
                continue
            last = found.setdefault(name, _Last(at=row.at))
            if last.confirmed:
                continue
            last.values.append(decision.new)
            last.confirmed = is_confirmed
            if row.run_id in doubtful[name]:
                last.bare.append(doubtful[name][row.run_id])
            if not is_confirmed:
                last.bare.append(decision.old)
    for last in found.values():
        if last.confirmed and len(last.values) > 1:
            # Where a later write never came, it holds what was confirmed before it.
            last.bare = [each for each in last.bare if each not in last.values]
    return found, taken_back


def _written(
    connection: Connection, crm: str, object_type: str, record_ids: Sequence[str]
) -> dict[str, list[Row[Any]]]:
    rows = connection.execute(
        select(run_records, runs.c.kind)
        .join(runs, runs.c.id == run_records.c.run_id)
        .where(
            run_records.c.object_type == object_type,
            run_records.c.record_id.in_(record_ids),
            run_records.c.outcome.in_(_WRITES),
            run_records.c.decisions.is_not(None),
            runs.c.crm == crm,
            runs.c.kind != RunKind.PLAN.value,
        )
        .order_by(run_records.c.at.desc(), runs.c.started_at.desc())
    )
    found: dict[str, list[Row[Any]]] = defaultdict(list)
    for row in rows:
        found[row.record_id].append(row)
    return found


def _kept(
    connection: Connection, crm: str, object_type: str, record_ids: Sequence[str]
) -> dict[str, dict[str, _Entry]]:
    rows = connection.execute(
        select(provenance.c.record_id, provenance.c.fields).where(
            provenance.c.crm == crm,
            provenance.c.object_type == object_type,
            provenance.c.record_id.in_(record_ids),
        )
    )
    return {
        row.record_id: {
            name: (digest, at, released) for name, (digest, at, released) in orjson.loads(row.fields).items()
        }
        for row in rows
    }


def _keep(connection: Connection, crm: str, object_type: str, records: Mapping[str, Mapping[str, _Entry]]) -> None:
    """Add entries to what is kept of each record; the newer one of a field stays."""
    ids = list(records)
    for start in range(0, len(ids), _AT_ONCE):
        some = ids[start : start + _AT_ONCE]
        before = _kept(connection, crm, object_type, some)
        rows = []
        for record_id in some:
            fields = dict(before.get(record_id, {}))
            fields.update(
                (name, entry)
                for name, entry in records[record_id].items()
                if name not in fields or fields[name][1] <= entry[1]
            )
            held = {name: entry for name, entry in fields.items() if entry[0]}
            rows.append({"crm": crm, "object_type": object_type, "record_id": record_id, "fields": orjson.dumps(held)})
        connection.execute(upsert(connection, provenance, ("fields",)), rows)
