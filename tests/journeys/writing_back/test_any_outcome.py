"""Whatever a CRM answers to a write, in whatever order: every record has one end, and the audit says what it holds."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import func, select

from crm_sync.domain.changes import Amendment, FieldOutcome, WantedValue, WriteMode, WriteOutcome, WriteRule, Written
from crm_sync.domain.records import FieldKind, FieldSchema, ObjectSchema, Record, RecordRef, Value
from crm_sync.domain.runs import RecordOutcome, RunKind
from crm_sync.errors import TransientError
from crm_sync.mapping.apply import Mapper
from crm_sync.mapping.blanks import is_blank
from crm_sync.pipeline.audit import Audit
from crm_sync.pipeline.settled import Candidate, Settled
from crm_sync.pipeline.suppress import Guard, Screen
from crm_sync.pipeline.walk import Target, WriteContext
from crm_sync.pipeline.write import write_candidates
from crm_sync.ports import JobBook, Whereabouts, WriteRequest
from crm_sync.store.answers import Answers
from crm_sync.store.engine import Store
from crm_sync.store.provenance import Provenance
from crm_sync.store.reviews import Reviews
from crm_sync.store.runs import WRITING, RunRecord, Runs
from crm_sync.store.suppressions import Suppressions
from crm_sync.store.tables import run_records
from crm_sync.store.write_jobs import WriteJobs
from tests.clocks import FakeClock
from tests.factories import a_decision, a_run, a_vault

FIELDS = ("Title", "City", "Phone")
SCHEMA = ObjectSchema(
    crm="crm",
    object_type="Contact",
    label="Contact",
    fields={
        name: FieldSchema(name=name, label=name, kind=FieldKind.TEXT, native_type="any", writable=True)
        for name in FIELDS
    },
)
#: What becomes of one write of one record.
FATES = (
    "written", "written", "written", "refused", "dropped", "lost before", "lost after", "edited first", "deleted",
    "merged", "merged into another of them", "not written", "put back",
)  # fmt: skip


def a_ref(record_id: str) -> RecordRef:
    return RecordRef(crm="crm", object_type="Contact", id=record_id)


@dataclass(slots=True)
class FakeCrm:
    """Records, and for each the fates of its writes, one after the other; when they are used up it writes.

    `typed` is what people typed into a record, by (id, field): `untouched` what a field held before we wrote it, kept
    up with what people type.
    """

    records: dict[str, dict[str, Value]]
    fates: dict[str, list[str]]
    #: Numbers of the reads and writes that fail whole.
    failing_reads: set[int]
    failing_writes: set[int]
    moved_to: dict[str, str] = field(default_factory=dict)
    typed: dict[tuple[str, str], str] = field(default_factory=dict)
    restored: set[tuple[str, str]] = field(default_factory=set)
    name: str = "crm"
    read_size: int = 2000
    write_size: int = 200
    bulk_size: int = 0
    reads: int = 0
    writes: int = 0
    blanks_sent: list[tuple[str, str]] = field(default_factory=list)
    numbers: Iterator[int] = field(default_factory=itertools.count)

    def read(self, object_type: str, ids: Sequence[str], fields: Sequence[str]) -> list[Record | None]:
        self.reads += 1
        if self.reads in self.failing_reads:
            raise TransientError("the CRM is away", provider="crm", operation="read", status=503)
        found: list[Record | None] = []
        for each in ids:
            values = self.records.get(each)
            shown = None if values is None else {name: values.get(name) for name in fields}
            found.append(None if shown is None else Record(ref=a_ref(each), values=shown))
        return found

    def whereabouts(self, object_type: str, ids: Sequence[str]) -> list[Whereabouts]:
        return [
            Whereabouts(ref=a_ref(self.place(each)), how="merged", reason=f"merged into {self.place(each)}")
            if self.place(each) in self.records
            else Whereabouts(ref=None, how="deleted", reason="deleted in the CRM")
            for each in ids
        ]

    def write(
        self,
        object_type: str,
        requests: Sequence[WriteRequest],
        *,
        mode: WriteMode = WriteMode.FAST,
        jobs: JobBook | None = None,
    ) -> list[WriteOutcome]:
        self.writes += 1
        if self.writes in self.failing_writes:
            raise TransientError("the CRM is away", provider="crm", operation="write", status=503)
        ids = [request.ref.id for request in requests]
        assert len(ids) == len(set(ids)), "two requests name one record"
        return [self._one(request) for request in requests]

    def _one(self, request: WriteRequest) -> WriteOutcome:
        record_id, ref = request.ref.id, request.ref
        left = self.fates.get(record_id, [])
        fate = left.pop(0) if left else "written"
        assert request.values
        for name, value in request.values.items():
            if is_blank(value):
                assert name in request.erase, "a blank that is not meant to erase"
                self.blanks_sent.append((record_id, name))
        first = next(iter(request.values))
        if record_id not in self.records:
            return WriteOutcome(ref=ref, written=Written.GONE, reason="entity is deleted")
        if fate == "refused":
            return WriteOutcome(ref=ref, written=Written.REJECTED, reason="a rule of the CRM says no", code="NO")
        if fate == "lost before":
            return WriteOutcome(ref=ref, written=Written.UNACCOUNTED, reason="the answer was lost")
        if fate == "not written":
            return WriteOutcome(ref=ref, written=Written.NOT_WRITTEN, reason="the day's calls are used up")
        if fate == "edited first":
            self.type(record_id, first)
            return WriteOutcome(ref=ref, written=Written.MOVED)
        if fate.startswith(("deleted", "merged")):
            values = self.records.pop(record_id)
            others = sorted(each for each in self.records if each in self.fates)
            if fate == "merged into another of them" and others:
                self.moved_to[record_id] = others[0]
            elif fate != "deleted":
                self.moved_to[record_id] = f"{record_id}-survivor"
                self.records[f"{record_id}-survivor"] = {**values, "City": "of the survivor"}
            return WriteOutcome(ref=ref, written=Written.GONE, reason="entity is deleted")
        refused = first if fate == "dropped" and len(request.values) > 1 else ""
        put_back: tuple[tuple[str, Value], ...] = ()
        for name, value in request.values.items():
            if name == refused:
                continue
            if fate == "put back" and name == first:
                put_back = ((name, self.type(record_id, name)),)
                self.restored.add((record_id, name))
                continue
            self.records[record_id][name] = None if is_blank(value) else value
        if fate == "lost after":
            return WriteOutcome(ref=ref, written=Written.UNACCOUNTED, reason="the answer was lost")
        dropped = ((refused, "no such value in the picklist"),) if refused else ()
        return WriteOutcome(ref=ref, written=Written.WRITTEN, dropped=dropped, restored=put_back)

    def type(self, record_id: str, name: str) -> str:
        """A person types something nobody else has."""
        text = f"typed {next(self.numbers)}"
        self.records[record_id][name] = text
        self.typed[record_id, name] = text
        return text

    def now(self, record_id: str) -> dict[str, Value] | None:
        return self.records.get(self.place(record_id))

    def place(self, record_id: str) -> str:
        """Where the record is by now, at the end of all merges."""
        while record_id in self.moved_to:
            record_id = self.moved_to[record_id]
        return record_id


# --- cases ------------------------------------------------------------------------------------------------------------

VALUES = st.sampled_from([None, None, "", "n/a", "ours", "old", "other"])
RULES = st.sampled_from(list(WriteRule))


@dataclass(slots=True)
class Case:
    """Candidates by a number that the test makes an id of; what the CRM holds of each (None: gone already), and what
    crm-sync wrote into it before."""

    kind: RunKind
    held: list[dict[str, Value] | None]
    ours: list[set[str]]
    wanted: list[tuple[WantedValue, ...]]
    amendments: list[tuple[Amendment, ...]]
    fates: list[list[str]]
    failing_reads: set[int]
    failing_writes: set[int]


@st.composite
def cases(draw: st.DrawFn) -> Case:
    kind = draw(st.sampled_from([RunKind.RUN, RunKind.RUN, RunKind.UNDO, RunKind.PLAN]))
    count = draw(st.integers(1, 6))
    case = Case(
        kind=kind, held=[], ours=[], wanted=[], amendments=[], fates=[],
        failing_reads=draw(st.sets(st.integers(1, 5), max_size=1)) if draw(st.integers(0, 4)) == 0 else set(),
        failing_writes=draw(st.sets(st.integers(1, 4), max_size=1)) if draw(st.integers(0, 4)) == 0 else set(),
    )  # fmt: skip
    for _ in range(count):
        is_there = draw(st.integers(0, 9)) > 0
        case.held.append({name: draw(VALUES) for name in FIELDS} if is_there else None)
        case.ours.append(draw(st.sets(st.sampled_from(FIELDS), max_size=2)))
        names = draw(st.lists(st.sampled_from(FIELDS), min_size=1, unique=True))
        if kind is RunKind.UNDO:
            case.wanted.append(())
            case.amendments.append(
                tuple(
                    Amendment(
                        field=name,
                        source="r",
                        rule=draw(RULES),
                        expected=draw(VALUES),
                        value=draw(VALUES),
                        reason="undone",
                    )
                    for name in names
                )
            )
        else:
            case.amendments.append(())
            wishes = st.sampled_from(["new", "new", "newer", None, "n/a", "ours"])
            case.wanted.append(
                tuple(
                    WantedValue(field=name, source="person.x", rule=draw(RULES), value=draw(wishes)) for name in names
                )
            )
        case.fates.append(draw(st.lists(st.sampled_from(FATES), max_size=6)))
    return case


class Bench:
    """One store for all cases: each has ids and a run of its own."""

    def __init__(self, store: Store) -> None:
        vault = a_vault(store)
        self.store, self.clock = store, FakeClock()
        self.runs, self.answers = Runs(store), Answers(store, vault)
        self.provenance, self.reviews = Provenance(store, vault), Reviews(store, vault)
        self.screen = Screen(Suppressions(store, vault))
        self.jobs = WriteJobs(store)
        self._numbers = itertools.count()

    def carried_out(self, case: Case) -> tuple[FakeCrm, Audit, list[Candidate], list[Settled]]:
        number = next(self._numbers)
        ids = [f"{number}-{place}" for place in range(len(case.held))]
        self._written_before(f"before {number}", ids, case)
        self.clock.forward(60)
        run_id = f"run {number}"
        self.runs.open(a_run(id=run_id, crm="crm", kind=case.kind, started_at=self.clock.now()), owner="here:1")
        crm = FakeCrm(
            records={each: dict(held) for each, held in zip(ids, case.held, strict=True) if held is not None},
            fates={each: list(fates) for each, fates in zip(ids, case.fates, strict=True)},
            failing_reads=case.failing_reads,
            failing_writes=case.failing_writes,
        )
        context = WriteContext(
            run_id=run_id, kind=case.kind, sync_name="contacts", object_type="Contact", crm=crm, write="strict",  # type: ignore[arg-type]
            runs=self.runs, provenance=self.provenance, reviews=self.reviews, answers=self.answers,
            jobs=self.jobs.book(run_id, "crm", self.clock), screen=self.screen, clock=self.clock,
            folded_placeholders=frozenset({"n/a"}),
        )  # fmt: skip
        target = Target(
            object_type="Contact", schema=SCHEMA, mapper=Mapper((), SCHEMA), read_fields=FIELDS,
            guard=Guard(crm="crm", object_type="Contact"), unguarded=case.kind is RunKind.UNDO, tracks=True,
        )  # fmt: skip
        candidates = [
            Candidate(record_id=each, wanted=wanted, amendments=amendments)
            for each, wanted, amendments in zip(ids, case.wanted, case.amendments, strict=True)
        ]
        audit = Audit(context=context)
        settled = write_candidates(context, target, candidates, audit)
        audit.close(target, settled, {})
        return crm, audit, candidates, settled

    def _written_before(self, run_id: str, ids: Sequence[str], case: Case) -> None:
        records = [
            RunRecord(
                object_type="Contact",
                record_id=each,
                outcome="Updated",
                reason="",
                decisions=tuple(a_decision(field=name, new="ours") for name in sorted(ours)),
            )
            for each, ours in zip(ids, case.ours, strict=True)
            if ours
        ]
        self.runs.open(a_run(id=run_id, crm="crm", started_at=self.clock.now()), owner="here:1")
        self.runs.settle(
            run_id, sync="contacts", confirmed=[], amended=[], others=records, states=[], now=self.clock.now()
        )


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    folder: Path = tmp_path_factory.mktemp("outcomes")
    store = Store(f"sqlite:///{folder}/crm_sync.db")
    store.ready()
    try:
        yield Bench(store)
    finally:
        store.close()


# --- properties -------------------------------------------------------------------------------------------------------


@settings(max_examples=200, deadline=None)
@given(case=cases())
def test_outcomes_keep_order_and_number_and_the_books_balance(bench: Bench, case: Case) -> None:
    _, audit, candidates, settled = bench.carried_out(case)

    run_id = audit.context.run_id
    with bench.store.read() as connection:
        rows = connection.execute(
            select(run_records.c.record_id, run_records.c.outcome).where(run_records.c.run_id == run_id)
        ).all()
        total = connection.execute(
            select(func.count()).select_from(run_records).where(run_records.c.run_id == run_id)
        ).scalar()
    assert [one.record_id for one in settled] == [each.record_id for each in candidates]
    assert audit.counts(len(candidates)).balanced
    assert total == len(candidates)
    assert {row.record_id: row.outcome for row in rows} == {one.record_id: one.outcome.value for one in settled}
    assert WRITING not in {row.outcome for row in rows}
    for one in settled:
        stored = bench.runs.record(run_id, "Contact", one.record_id)
        assert stored is not None
        assert (stored.reason, stored.decisions) == (one.reason, one.decisions)


@settings(max_examples=250, deadline=None)
@given(case=cases())
def test_the_audit_says_what_the_record_holds(bench: Bench, case: Case) -> None:
    crm, _, candidates, settled = bench.carried_out(case)

    for candidate, one, held in zip(candidates, settled, case.held, strict=True):
        now = crm.now(candidate.record_id)
        if now is None:
            assert one.outcome in (RecordOutcome.SKIPPED, RecordOutcome.REJECTED, RecordOutcome.UNCHANGED)
            continue
        assert held is not None
        place = crm.place(candidate.record_id)
        for decision in one.decisions:
            name = decision.field
            if decision.outcome is FieldOutcome.WRITTEN:
                assert one.outcome is RecordOutcome.UPDATED
                assert now[name] == decision.new or (is_blank(now[name]) and is_blank(decision.new))
            elif decision.outcome in (FieldOutcome.UNCONFIRMED, FieldOutcome.PLANNED):
                assert one.outcome is RecordOutcome.SKIPPED or case.kind is RunKind.PLAN
            elif decision.outcome is not FieldOutcome.REJECTED:
                assert now[name] == decision.old or (is_blank(now[name]) and is_blank(decision.old))
            if decision.outcome is FieldOutcome.PLANNED:
                assert now[name] == decision.old or (place, name) in crm.typed
        if one.outcome is RecordOutcome.UPDATED and case.kind is not RunKind.PLAN:
            assert any(d.outcome is FieldOutcome.WRITTEN for d in one.decisions)
            assert one.values is not None
            assert {name: now[name] or "" for name in FIELDS} == {name: one.values[name] or "" for name in FIELDS}


@settings(max_examples=250, deadline=None)
@given(case=cases())
def test_no_blank_replaces_a_value_and_a_persons_edit_stands(bench: Bench, case: Case) -> None:
    crm, audit, candidates, settled = bench.carried_out(case)

    if case.kind is not RunKind.UNDO:
        assert crm.blanks_sent == []
    if case.kind is RunKind.PLAN:
        assert crm.writes == 0
    erased = {
        (place, each.field)
        for candidate in candidates
        for place in (candidate.record_id, f"{candidate.record_id}-survivor", crm.place(candidate.record_id))
        for each in candidate.amendments
        if is_blank(each.value)
    }
    assert set(crm.blanks_sent) <= erased
    rules: Mapping[tuple[str, str], Any] = {
        (candidate.record_id, want.field): want.rule for candidate in candidates for want in candidate.wanted
    }
    for (record_id, name), text in crm.typed.items():
        place = crm.place(record_id)
        values = crm.records.get(place)
        if values is None or place not in (record_id, f"{record_id}-survivor"):
            continue  # gone with its record: a merge keeps the survivor's values
        if (record_id, name) in crm.restored or rules.get((record_id, name)) is not WriteRule.REPLACE:
            survived = text if place == record_id or name != "City" else "of the survivor"
            latest = crm.typed.get((place, name), survived)
            assert values[name] == latest
    assert audit.put_back == sum(one.put_back for one in settled)


@settings(max_examples=100, deadline=None)
@given(case=cases())
def test_a_candidate_is_written_at_most_once_more_than_it_moved(bench: Bench, case: Case) -> None:
    """No fate of one record makes another one be sent again."""
    crm, audit, candidates, _ = bench.carried_out(case)

    assert crm.writes <= 2 + 2 * 4
    assert audit.context.changed <= len(candidates) * 2 * 5
