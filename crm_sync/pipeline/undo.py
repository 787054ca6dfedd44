"""Taking back what a run wrote: a field is restored only if it still holds what we wrote into it."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence

from crm_sync.config.model import Sync
from crm_sync.domain.changes import Amendment, FieldOutcome
from crm_sync.domain.enrichment import MatchKeys
from crm_sync.domain.runs import RecordOutcome, RunKind, RunStatus, SyncRun
from crm_sync.errors import ConfigError
from crm_sync.mapping.blanks import lacking
from crm_sync.pipeline.amend import Amending, Remember
from crm_sync.pipeline.audit import Attempt
from crm_sync.pipeline.select import selected_fields
from crm_sync.pipeline.settled import Candidate, Settled
from crm_sync.pipeline.walk import Walk, compiled, seen
from crm_sync.pipeline.write import ELSEWHERE
from crm_sync.ports import Selection
from crm_sync.services import Services
from crm_sync.store.runs import RunRecord

_WRITTEN = (FieldOutcome.WRITTEN, FieldOutcome.UNCONFIRMED)
_SELECT_AT_ONCE = 500
#: How the trigger of an undo begins, and of its dry run.
UNDO_OF = "undo of "


def undoing(
    run: SyncRun, services: Services, *, records: Collection[str] = (), fields: Collection[str] = ()
) -> Amending:
    """The run that takes `run` back, or only these `records` (ids, or OBJECT/ID) and `fields` of it.

    Raises:
        ConfigError: there is nothing to take back; the sentence says why.
    """
    if run.kind is RunKind.PLAN:
        raise ConfigError(f"{run.id} was a plan: it wrote nothing, so there is nothing to undo")
    if run.status in (RunStatus.RUNNING, RunStatus.QUEUED):
        raise ConfigError(f"{run.id} is under way; wait for its end, or stop it with crm-sync cancel {run.id}")
    found = _candidates(run, services.runs.records(run.id), set(records), set(fields))
    if not found:
        raise ConfigError(_why_nothing(run, services, records, fields))
    _refuse_unclear(found, records)
    # Companies last, as they were written first.
    ordered = {name: found[name] for name in sorted(found, key=lambda name: name != run.object_type)}
    walk = _walk_of(run, services)
    return Amending(
        sync=run.sync,
        crm=run.crm,
        object_type=run.object_type,
        kind=RunKind.UNDO,
        trigger=f"{UNDO_OF}{run.id}",
        candidates=ordered,
        guards={},
        also_read=walk.sync.choose.missing_any if walk is not None else (),
        remember=_remembering(walk) if walk is not None else None,
    )


def _candidates(
    run: SyncRun, kept: Iterable[RunRecord], records: set[str], fields: set[str]
) -> dict[str, list[Candidate]]:
    found: dict[str, list[Candidate]] = {}
    for record in kept:
        object_type, record_id = _place_of(record)
        places = {(record.object_type, record.record_id), (object_type, record_id)}
        if records and not any(_is_meant(wanted, *place) for wanted in records for place in places):
            continue
        amendments = tuple(
            Amendment(
                field=decision.field,
                source=run.id,
                rule=decision.rule,
                expected=decision.new,
                value=decision.old,
                reason=f"restored: as it was before run {run.id}",
            )
            for decision in record.decisions
            if decision.outcome in _WRITTEN and (not fields or decision.field in fields)
        )
        if amendments:
            found.setdefault(object_type, []).append(
                Candidate(record_id=record_id, amendments=amendments, batch_id=record.batch_id)
            )
    return found


def _place_of(record: RunRecord) -> tuple[str, str]:
    """The object and id that the run wrote to: of a record that went elsewhere while it ran, those."""
    elsewhere = ELSEWHERE.search(record.reason)
    return (elsewhere["object"], elsewhere["id"]) if elsewhere else (record.object_type, record.record_id)


def _is_meant(wanted: str, object_type: str, record_id: str) -> bool:
    where, _, wanted_id = wanted.rpartition("/")
    return where in ("", object_type) and is_record(wanted_id, record_id)


def taken_back(run_id: str, services: Services) -> set[tuple[str, str]]:
    """The (object, record) of a run whose write was undone since, wherever it was written to."""
    undone = {
        (record.object_type, record.record_id)
        for undo in services.runs.triggered(f"{UNDO_OF}{run_id}")
        if undo.kind is RunKind.UNDO
        for record in services.runs.records(undo.id, outcome=RecordOutcome.UPDATED.value)
    }
    if not undone:
        return set()
    return {
        (record.object_type, record.record_id)
        for record in services.runs.records(run_id, outcome=RecordOutcome.UPDATED.value)
        if _place_of(record) in undone
    }


def _refuse_unclear(found: Mapping[str, Sequence[Candidate]], records: Collection[str]) -> None:
    """HubSpot counts each object by itself, so that a contact and its company may have the same id.

    Raises:
        ConfigError: an id is that of several records of the run.
    """
    for wanted in records:
        named = [
            f"{object_type}/{candidate.record_id}"
            for object_type, candidates in found.items()
            for candidate in candidates
            if _is_meant(wanted, object_type, candidate.record_id)
        ]
        if len(named) > 1:
            raise ConfigError(f"Several records of the run have the id {wanted}: say {' or '.join(sorted(named))}")


def is_record(wanted: str, record_id: str) -> bool:
    """Whether an id, as somebody typed it, is this record's: Salesforce shows 15 characters of 18."""
    return wanted == record_id or (len(wanted) == 15 and len(record_id) == 18 and record_id.startswith(wanted))


def _why_nothing(run: SyncRun, services: Services, records: Collection[str], fields: Collection[str]) -> str:
    if records or fields:
        to = f" to {', '.join(sorted(records))}" if records else ""
        into = f" in {', '.join(sorted(fields))}" if fields else ""
        return f"Run {run.id} wrote nothing{to}{into}, or it is not kept any more; crm-sync show {run.id} tells"
    if run.counts.updated or run.parents.updated:
        kept = services.config.keep.undo.days
        return f"What run {run.id} wrote is not kept any more (keep.undo is {kept}d), so it cannot be undone"
    return f"Run {run.id} wrote nothing, so there is nothing to undo"


# --- so that the next run does not do it again ------------------------------------------------------------------------


def _walk_of(run: SyncRun, services: Services) -> Walk | None:
    """The run's sync as it is configured now; None where it is not, or does not fit the CRM any more."""
    sync: Sync | None = services.config.syncs.get(run.sync)
    if sync is None or sync.crm != run.crm or sync.object_type != run.object_type:
        return None
    try:
        return compiled(sync, services)
    except ConfigError:
        return None


def _remembering(walk: Walk) -> Remember:
    """What was taken back stays so until the record, its keys or the mapping changes: the next run must not write the
    same again."""
    keys: dict[str, MatchKeys] = {}

    def read(ids: Sequence[str]) -> None:
        for start in range(0, len(ids), _SELECT_AT_ONCE):
            selection = Selection(
                object_type=walk.object_type,
                fields=selected_fields(walk),
                ids=tuple(ids[start : start + _SELECT_AT_ONCE]),
            )
            for page in walk.crm.select(selection):
                keys.update((record.ref.id, walk.keys_of(record.values)) for record in page.records)

    def remember(settled: Sequence[Settled]) -> Mapping[str, Attempt]:
        done = {one.record_id: one.values for one in settled if one.reached and one.values is not None}
        read(list(done))
        return {
            record_id: Attempt(
                seen=seen(
                    walk, keys[record_id], lacking(values, walk.sync.choose.missing_any, walk.folded_placeholders)
                )
            )
            for record_id, values in done.items()
            if values is not None and record_id in keys
        }

    return remember
