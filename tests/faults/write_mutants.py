"""Bugs put in on purpose where values are written back: each would cost somebody's edit, a good value, or an undo."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from adapters.hubspot.client import HubSpotCrm
from adapters.hubspot.guard import Guard
from adapters.salesforce import bulk, composite, wire, writing
from adapters.salesforce import client as salesforce
from adapters.salesforce.client import SalesforceCrm
from crm_sync.domain import changes
from crm_sync.domain.changes import FieldOutcome
from crm_sync.pipeline import deciding, diff, follow
from crm_sync.services import Services
from crm_sync.store import provenance
from crm_sync.store.runs import Runs
from tests.faults.mutant import Mutant

_COMPOSITE = "tests/adapters/test_salesforce_composite.py"
_BULK = "tests/adapters/test_salesforce_bulk.py"
_STRICT = "tests/adapters/test_hubspot_strict.py"
_SAME_TIME = "tests/journeys/writing_back/test_same_time.py"
_SALVAGE = "tests/journeys/writing_back/test_salvage.py"


def write_what_was_selected() -> None:
    """Records are not read again before they are written."""
    for client in (SalesforceCrm, HubSpotCrm):
        _without_reading(client)


def _without_reading(client: Any) -> None:
    select, read = client.select, client.read
    known: dict[str, Any] = {}

    def selected(self: Any, *given: Any, **more: Any) -> Any:
        for page in select(self, *given, **more):
            known.update((record.ref.id, record) for record in page.records)
            yield page

    def kept(self: Any, object_type: str, ids: Sequence[str], fields: Sequence[str]) -> Any:
        found = read(self, object_type, ids, fields)
        return [_older(known.pop(record_id, None), now) for record_id, now in zip(ids, found, strict=True)]

    client.select, client.read = selected, kept


def _older(before: Any, now: Any) -> Any:
    if before is None or now is None:
        return now
    return replace(now, version=before.version, values={**now.values, **_shared(before.values, now.values)})


def _shared(before: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in before.items() if name in now}


def guard_the_first_sending_only() -> None:
    subrequest = composite._subrequest
    sent: set[str] = set()

    def careless(at: int, row: Any, version: str, headers: Any) -> Any:
        made = subrequest(at, row, version, headers)
        if row.ref.id in sent:
            made["httpHeaders"].pop("If-Unmodified-Since", None)
        sent.add(row.ref.id)
        return made

    composite._subrequest = careless


def take_a_moved_record_for_written() -> None:
    result = composite._result
    composite._result = lambda status, said: wire.SAVED if status == composite._MOVED else result(status, said)


def pair_results_by_id() -> None:
    """A refused row carries no id: so the refusals fall to whoever is left."""
    results = wire.save_results

    def by_id(answer: Any, ids: Sequence[str]) -> Any:
        if not isinstance(answer, list):
            return results(answer, ids)
        rank = {record_id: at for at, record_id in enumerate(ids)}
        told = sorted(answer, key=lambda row: rank.get(row.get("id"), len(ids)))
        return results([{**row, "id": record_id} for row, record_id in zip(told, ids, strict=False)], ids)

    wire.save_results = by_id


def pair_bulk_results_by_position() -> None:
    ends_of = bulk.ends_of

    def by_position(ingest: Any, job: Any, rows: Sequence[Any]) -> Any:
        shuffled = iter(rows)
        bulk._id_of = lambda _: next(shuffled).ref.id
        return ends_of(ingest, job, rows)

    bulk.ends_of = by_position


def let_a_blank_be_a_value() -> None:
    decide = diff._decide

    def blank_too(want: Any, old: Any, *rest: Any) -> Any:
        made = decide(want, old, *rest)
        if made.outcome is FieldOutcome.NO_VALUE and old not in (None, "", diff._UNREAD):
            return made._replace(outcome=FieldOutcome.WRITTEN, new=None)
        return made

    diff._decide = blank_too


def undo_without_comparing() -> None:
    amend = deciding.amend

    def always(ref: Any, current: Any, amendments: Iterable[Any], *, schema: Any) -> Any:
        blind = [each._replace(expected=None) if hasattr(each, "_replace") else each for each in amendments]
        return amend(ref, current, [replace(each, expected=current.get(each.field)) for each in blind], schema=schema)

    deciding.amend = always


def let_one_conflict_hold_the_record() -> None:
    amend = deciding.amend

    def all_or_nothing(ref: Any, current: Any, amendments: Any, *, schema: Any) -> Any:
        change = amend(ref, current, amendments, schema=schema)
        return replace(change, writes={}) if _has_conflict(change) else change

    deciding.amend = all_or_nothing


def _has_conflict(change: Any) -> bool:
    return any(each.outcome is FieldOutcome.CONFLICT for each in change.decisions)


def count_plans_as_writes() -> None:
    """What was planned is taken for written."""
    record_of, written = provenance.record_of, provenance._written

    def as_written(row: Any) -> Any:
        record = record_of(row)
        decisions = (
            each._replace(outcome=FieldOutcome.WRITTEN) if each.outcome is FieldOutcome.PLANNED else each
            for each in record.decisions
        )  # fmt: skip
        return replace(record, decisions=tuple(decisions))

    class NoPlan:
        value = "nothing is called so"

    class Kinds:
        PLAN, UNDO = NoPlan, provenance.RunKind.UNDO

    provenance.record_of, provenance.RunKind, provenance._written = as_written, Kinds, written


def lock_what_was_never_written() -> None:
    """A write of which nobody knows counts as one that came."""
    provenance._of_values = _without_bare(provenance._of_values)


def _without_bare(of_values: Callable[..., Any]) -> Callable[..., Any]:
    return lambda *given: replace(of_values(*given), is_bare=changes.never)


def forget_unconfirmed_writes() -> None:
    """Only what was confirmed counts as ours."""
    of_values = provenance._of_values

    def confirmed_only(last: Any, before: Any) -> Any:
        del last.values[: len(last.values) - last.confirmed]
        return of_values(last, before)

    provenance._of_values = confirmed_only


def put_back_twice() -> None:
    restore = Guard._restore

    def again(self: Guard, watched: Any) -> None:
        restore(self, watched)
        restore(self, watched)

    Guard._restore = again


def drop_the_record_for_a_field() -> None:
    writing.Update._salvage = lambda _self, _row, _faults: False
    writing.Update._guess = lambda _self, _row, _faults: False


def follow_each_to_the_survivor() -> None:
    """Two records that were merged into one are both written there."""
    read_survivors = follow._read_survivors

    def each(context: Any, target: Any, keys: Any, survivors: Mapping[str, Any], found: Any) -> None:
        for record_id, ref in survivors.items():
            read_survivors(context, target, keys, {record_id: ref}, found)

    follow._read_survivors = each


def trust_any_plan() -> None:
    Services.is_signed = lambda *_, **__: True


def leave_accepted_records_as_tried() -> None:
    Runs.forget_attempts = lambda *_, **__: None


def write_a_job_again() -> None:
    """A job that another process began is not asked about."""
    SalesforceCrm.resume = lambda self, object_type, job_id, refs, *, uploaded: [
        changes.WriteOutcome(ref=ref, written=changes.Written.REJECTED, reason="lost") for ref in refs
    ]


def restore_what_was_gone_over_never() -> None:
    """HubSpot's history is not looked at after a write."""
    Guard.check = lambda _self, _inputs, _seen, outcomes: dict(outcomes)


def write_strictly_as_fast() -> None:
    guarded = salesforce.SalesforceCrm._save
    salesforce.SalesforceCrm._save_guarded = guarded


WRITE_MUTANTS = (
    Mutant(
        name="records are not read again before they are written",
        change=write_what_was_selected,
        tests=(f"{_SAME_TIME}::test_two_hundred_edits_at_random_moments_all_stand",),
    ),
    Mutant(
        name="a strict write is guarded the first time only",
        change=guard_the_first_sending_only,
        tests=(
            f"{_COMPOSITE}::test_a_bad_field_costs_itself_and_the_rest_is_still_guarded",
            f"{_COMPOSITE}::test_a_call_that_was_done_before_its_answer_was_lost_is_read_again_and_not_taken_for_a_persons_edit",
        ),
    ),
    Mutant(
        name="a record that moved is taken for written",
        change=take_a_moved_record_for_written,
        cells=("salesforce/sqlite/same_time/run.closing:1",),
        tests=(f"{_COMPOSITE}::test_a_subrequests_end_is_understood",),
    ),
    Mutant(
        name="collection results are paired by id",
        change=pair_results_by_id,
        tests=("tests/adapters/test_salesforce_wire.py::test_results_are_paired_by_position",),
    ),
    Mutant(
        name="bulk results are paired by position",
        change=pair_bulk_results_by_position,
        tests=(f"{_BULK}::test_one_bad_record_stops_none_of_its_neighbours_whatever_the_orgs_habits",),
    ),
    Mutant(
        name="a blank is a value",
        change=let_a_blank_be_a_value,
        tests=("tests/unit/pipeline/test_diff.py::test_a_blank_answer_never_writes",),
    ),
    Mutant(
        name="an undo does not look at what is there",
        change=undo_without_comparing,
        cells=("salesforce/sqlite/undo/amend.opened:1", "hubspot/postgresql/undo/amend.opened:1"),
    ),
    Mutant(
        name="one conflict keeps a whole record from being restored",
        change=let_one_conflict_hold_the_record,
        cells=("hubspot/sqlite/undo/amend.opened:1", "salesforce/postgresql/undo/amend.opened:1"),
    ),
    Mutant(
        name="what was planned counts as written",
        change=count_plans_as_writes,
        cells=("salesforce/sqlite/bulk/run.closing:1", "hubspot/sqlite/same_time/run.closing:1"),
    ),
    Mutant(
        name="a write of which nobody knows locks an empty field",
        change=lock_what_was_never_written,
        cells=("salesforce/sqlite/same_time/runs.intend.after:1", "hubspot/postgresql/same_time/runs.intend.after:1"),
    ),
    Mutant(
        name="a write that was not confirmed is not ours",
        change=forget_unconfirmed_writes,
        tests=("tests/store/test_unconfirmed.py::test_what_nobody_knows_of_locks_nothing",),
    ),
    Mutant(
        name="an edit is put back twice",
        change=put_back_twice,
        tests=(
            f"{_STRICT}::test_a_person_who_edits_again_is_not_fought",
            f"{_STRICT}::test_an_edit_between_read_and_write_is_put_back_and_the_other_fields_stay_written",
        ),
    ),
    Mutant(
        name="HubSpot's history is not looked at",
        change=restore_what_was_gone_over_never,
        cells=("hubspot/sqlite/same_time/run.closing:1",),
    ),
    Mutant(
        name="a strict write is not guarded",
        change=write_strictly_as_fast,
        cells=("salesforce/sqlite/same_time/run.closing:1",),
    ),
    Mutant(
        name="a bad field drops the record",
        change=drop_the_record_for_a_field,
        tests=(f"{_SALVAGE}::test_a_value_that_was_retired_meanwhile_costs_only_its_field",),
    ),
    Mutant(
        name="two records that were merged are both written to the survivor",
        change=follow_each_to_the_survivor,
        tests=("tests/journeys/writing_back/test_merged.py::test_two_records_that_became_one_are_written_once",),
    ),
    Mutant(
        name="a plan file is not verified",
        change=trust_any_plan,
        tests=("tests/journeys/writing_back/test_plan_file.py::test_an_edited_plan_is_refused",),
    ),
    Mutant(
        name="what was accepted is not looked at again",
        change=leave_accepted_records_as_tried,
        cells=("salesforce/sqlite/doubts/review.accepted:1", "hubspot/sqlite/doubts/review.accepted:1"),
    ),
    Mutant(
        name="a bulk job of a dead run is not asked about",
        change=write_a_job_again,
        cells=("salesforce/postgresql/bulk/bulk.done:1", "salesforce/sqlite/bulk/bulk.closed:1"),
    ),
)
