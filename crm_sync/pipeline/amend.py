"""Runs that write what was settled before: an undo, a plan that is applied, what a person accepted. Costs no credit."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta

from crm_sync import crash
from crm_sync.domain.changes import WriteMode
from crm_sync.domain.records import ObjectSchema
from crm_sync.domain.runs import RecordOutcome, RunKind, SyncRun
from crm_sync.errors import ConfigError, CrmSyncError
from crm_sync.mapping.apply import Mapper
from crm_sync.mapping.blanks import placeholder_form
from crm_sync.pipeline.audit import Attempt, Audit
from crm_sync.pipeline.recover import broken_off, recover
from crm_sync.pipeline.run import closed, end, opened, refuse_overlap
from crm_sync.pipeline.settled import Candidate, Settled, plain
from crm_sync.pipeline.suppress import Guard, Screen
from crm_sync.pipeline.verdict import verdict
from crm_sync.pipeline.walk import Stop, Target, WriteContext
from crm_sync.pipeline.write import write_candidates
from crm_sync.ports import Crm
from crm_sync.services import Services

_SAVE_EVERY = timedelta(seconds=2)
#: `write: auto`: an undo of so many records is guarded as a run is.
_STRICT_UP_TO = 300

#: What is to be remembered of an attempt at the run's own records, once they are settled.
Remember = Callable[[Sequence[Settled]], Mapping[str, Attempt]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Amending:
    """One such run. `candidates`: object -> those of it that are to change; `guards`: whom to leave alone, where
    suppressions count; `also_read`: fields of the run's own object to read beside those that change."""

    sync: str
    crm: str
    object_type: str
    kind: RunKind
    trigger: str
    candidates: Mapping[str, Sequence[Candidate]]
    guards: Mapping[str, Guard]
    also_read: tuple[str, ...] = ()
    remember: Remember | None = None


def amend(amending: Amending, services: Services, *, dry_run: bool = False, stop: Stop | None = None) -> SyncRun:
    """Write each amendment that still holds, and return the run's books; `dry_run` writes nothing.

    A neighbour's failure ends the run with a status and a reason, never with an exception.

    Raises:
        ConfigError: the configuration has no such CRM, or the CRM none of the objects; nothing has run. Where it hides
            one of several, that one's records are closed with the reason.
        StoreError: the database failed.
        BusyError: the sync is running.
    """
    if amending.crm not in services.config.crms:
        raise ConfigError(f"The configuration has no CRM {amending.crm} any more, so nothing can be written there")
    crm = services.crm(amending.crm)
    before = services.calls_so_far(amending.crm)
    recover(services, amending.crm)
    refuse_overlap(amending.sync, services)
    schemas = _schemas(amending, crm)
    run = opened(
        services,
        sync=amending.sync,
        crm=amending.crm,
        object_type=amending.object_type,
        kind=RunKind.PLAN if dry_run else amending.kind,
        trigger=amending.trigger,
    )
    crash.point("amend.opened")

    def to_its_end() -> SyncRun:
        return _to_its_end(run, amending, services, crm, schemas, Stop() if stop is None else stop)

    ended = closed(run, services, to_its_end, before=before)
    crash.point("amend.closed")
    return ended


def _to_its_end(
    run: SyncRun,
    amending: Amending,
    services: Services,
    crm: Crm,
    schemas: Mapping[str, ObjectSchema | ConfigError],
    stop: Stop,
) -> SyncRun:
    context = _context(run, amending, services, crm, stop)
    audit = Audit(context=context)
    selected = len(amending.candidates.get(amending.object_type, ()))
    saved_at = services.clock.now()
    try:
        for object_type, chunk in _chunks(amending, crm):
            schema = schemas[object_type]
            if isinstance(schema, ConfigError):
                hidden = ObjectSchema(crm=amending.crm, object_type=object_type, label=object_type, fields={})
                skipped = [plain(each, RecordOutcome.SKIPPED, str(schema)) for each in chunk]
                audit.close(_target(amending, hidden, ()), skipped, {})
                continue
            target = _target(amending, schema, chunk)
            settled = write_candidates(context, target, chunk, audit)
            is_own = object_type == amending.object_type
            audit.close(target, settled, _attempts(amending, settled, stop) if is_own else {})
            now = services.clock.now()
            if now - saved_at > _SAVE_EVERY:
                saved_at = now
                services.runs.save(replace(run, counts=audit.counts(selected)), now=now)
                if services.runs.cancel_asked(run.id):
                    stop.cancel()
            if stop:
                break
    except CrmSyncError as error:
        stop.raise_(str(error), error)
        run = broken_off(run, services, str(error))
        return end(run, services, *verdict(run, audit, stop))
    # What was not reached before it was stopped is not counted as selected.
    run = replace(run, counts=audit.counts(audit.outcomes.total()), parents=audit.parent_counts())
    return end(run, services, *verdict(run, audit, stop))


def _schemas(amending: Amending, crm: Crm) -> dict[str, ObjectSchema | ConfigError]:
    """
    Raises:
        ConfigError: the CRM shows none of the objects.
    """
    found: dict[str, ObjectSchema | ConfigError] = {}
    for object_type in amending.candidates:
        try:
            found[object_type] = crm.describe(object_type)
        except ConfigError as error:
            found[object_type] = error
    hidden = [each for each in found.values() if isinstance(each, ConfigError)]
    if hidden and len(hidden) == len(found):
        raise hidden[0]
    return found


def _attempts(amending: Amending, settled: Sequence[Settled], stop: Stop) -> Mapping[str, Attempt]:
    """What to remember; nothing where the CRM does not answer: what was written is closed all the same."""
    if amending.remember is None:
        return {}
    try:
        return amending.remember(settled)
    except CrmSyncError as error:
        stop.raise_(f"{error}; what was written just before may be changed again by the sync's next run", error)
        return {}


def _chunks(amending: Amending, crm: Crm) -> Iterator[tuple[str, Sequence[Candidate]]]:
    for object_type, candidates in amending.candidates.items():
        for start in range(0, len(candidates), crm.read_size):
            yield object_type, candidates[start : start + crm.read_size]


def _context(run: SyncRun, amending: Amending, services: Services, crm: Crm, stop: Stop) -> WriteContext:
    config = services.config
    configured = config.crms[amending.crm].write
    return WriteContext(
        run_id=run.id,
        kind=run.kind,
        sync_name=amending.sync,
        object_type=amending.object_type,
        crm=crm,
        write=WriteMode.FAST.value if configured == "auto" and _is_large_undo(run, amending, crm) else configured,
        runs=services.runs,
        provenance=services.provenance,
        reviews=services.reviews,
        answers=services.answers,
        jobs=services.write_jobs.book(run.id, amending.crm, services.clock),
        screen=Screen(services.suppressions),
        clock=services.clock,
        folded_placeholders=frozenset(placeholder_form(word) for word in config.placeholders),
        stop=stop,
    )


def _is_large_undo(run: SyncRun, amending: Amending, crm: Crm) -> bool:
    """Too many records for guarded writes, where those take a call for every few (Salesforce: 25): each field is
    compared with what it must hold just before it is written anyway, and what somebody types within that second is
    gone over."""
    is_undo = run.kind is RunKind.UNDO
    return is_undo and crm.bulk_size > 0 and sum(map(len, amending.candidates.values())) > _STRICT_UP_TO


def _target(amending: Amending, schema: ObjectSchema, candidates: Sequence[Candidate]) -> Target:
    names = dict.fromkeys(each.field for candidate in candidates for each in candidate.amendments)
    if schema.object_type == amending.object_type:
        names.update(dict.fromkeys(amending.also_read))
    guard = amending.guards.get(schema.object_type)
    return Target(
        object_type=schema.object_type,
        schema=schema,
        mapper=Mapper((), schema),
        read_fields=tuple(name for name in names if name in schema.fields and schema.fields[name].readable),
        guard=guard or Guard(crm=schema.crm, object_type=schema.object_type),
        unguarded=guard is None,
    )
