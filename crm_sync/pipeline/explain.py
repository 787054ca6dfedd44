"""Everything ever done to one record, and why: what was sent, received, made of it, decided, and what became of it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from crm_sync.config.expressions import parse_template
from crm_sync.domain.changes import FieldDecision
from crm_sync.domain.enrichment import Enrichment, MatchKeys, Purpose
from crm_sync.domain.runs import SyncRun
from crm_sync.errors import ContractError
from crm_sync.mapping.apply import reader
from crm_sync.mapping.identities import of_email
from crm_sync.pipeline.undo import is_record
from crm_sync.services import Services
from crm_sync.store.answers import StoredBatch
from crm_sync.store.reveals import Wait
from crm_sync.store.runs import RunRecord


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """One field in one run. `received`: Apollo's own values by attribute, as far as the answer is still kept."""

    decision: FieldDecision
    received: tuple[tuple[str, Any], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Chapter:
    """One record in one run. `sent` is None where nobody was asked, or the call is not kept any more; `call` its
    number in the ledger; `phone`: what came of the record's phone, as it is now, where the sync has asked for it."""

    run: SyncRun
    record: RunRecord
    at: datetime
    sent: MatchKeys | None
    call: int | None
    enrichment: Enrichment | None
    fields: tuple[Field, ...]
    phone: Wait | None = None


def story(what: str, services: Services) -> list[Chapter]:
    """Chapters, oldest first, of every record that `what` names: a CRM's id, the address of its page in the CRM, or an
    e-mail address that Apollo was asked by. Empty when nothing is kept of any."""
    return chapters(_named(what.strip(), services), services)


def chapters(found: Sequence[tuple[SyncRun, RunRecord, datetime]], services: Services) -> list[Chapter]:
    """A chapter for each record in a run."""
    batches = services.answers.load(record.batch_id for _, record, _ in found if record.batch_id is not None)
    readings: dict[int, Sequence[Enrichment | None]] = {}
    phones = {
        (wait.crm, wait.object_type, wait.record_id, wait.sync): wait
        for object_type, record_id in dict.fromkeys((r.object_type, r.record_id) for _, r, _ in found)
        for wait in services.reveals.of_record(object_type, record_id)
    }
    return [
        replace(
            _chapter(run, record, at, batches, readings, services),
            phone=phones.get((run.crm, record.object_type, record.record_id, run.sync)),
        )
        for run, record, at in found
    ]


def _named(what: str, services: Services) -> list[tuple[SyncRun, RunRecord, datetime]]:
    if "@" in what:
        identity = of_email(what) or ""
        address = identity.removeprefix("email:") or what.casefold()
        keys = MatchKeys(purpose=Purpose.PERSON, email=address)
        by_address = services.runs.of_identity([services.answers.identity(keys.key)])
        ids = {record.record_id for _, record, _ in by_address}
        return services.runs.of_record(sorted(ids)) if ids else []
    ids = set()
    for word in _words(what):
        ids.add(word)
        if len(word) == 15:
            ids.update(each for each in services.runs.ids_beginning(word) if is_record(word, each))
    return services.runs.of_record(sorted(ids))


def _words(what: str) -> list[str]:
    """The parts of an address that may be an id, or the id itself."""
    path = what.split("?", 1)[0].split("#", 1)[0]
    return [part for part in path.split("/") if part] if "/" in path else [what]


def _chapter(
    run: SyncRun,
    record: RunRecord,
    at: datetime,
    batches: dict[int, StoredBatch],
    readings: dict[int, Sequence[Enrichment | None]],
    services: Services,
) -> Chapter:
    batch = batches.get(record.batch_id) if record.batch_id is not None else None
    position = _position(record, batch, services)
    enrichment = None
    if batch is not None and position is not None:
        if batch.id not in readings:
            readings[batch.id] = _read(batch, services)
        told = readings[batch.id]
        enrichment = told[position] if position < len(told) else None
    return Chapter(
        run=run,
        record=record,
        at=at,
        sent=batch.keys[position] if batch is not None and position is not None else None,
        call=record.batch_id,
        enrichment=enrichment,
        fields=tuple(Field(decision=d, received=_received(d.source, enrichment)) for d in record.decisions),
    )


def _position(record: RunRecord, batch: StoredBatch | None, services: Services) -> int | None:
    """Where in the call it was asked for; a company that came with a person was not."""
    if batch is None or record.identity is None:
        return None
    for position, key in enumerate(batch.keys):
        if key.key and services.answers.identity(key.key) == record.identity:
            return position
    return None


def _read(batch: StoredBatch, services: Services) -> Sequence[Enrichment | None]:
    try:
        return services.enricher().read(batch.purpose, batch.keys, batch.body).enrichments
    except ContractError:
        return ()


def _received(source: str, enrichment: Enrichment | None) -> tuple[tuple[str, Any], ...]:
    if enrichment is None:
        return ()
    return tuple((path, reader(path)(enrichment)) for path in _paths(source))


def _paths(source: str) -> Iterable[str]:
    if source.startswith(("person.", "organization.")) and " " not in source:
        return (source,)
    if "{{" in source:
        return tuple(dict.fromkeys(part.path for part in parse_template(source) if part.path))
    return ()
