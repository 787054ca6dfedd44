"""What crm-sync wrote last: as the audit tells it, and as a purge leaves it."""

from __future__ import annotations

from datetime import datetime, timedelta
from decimal import Decimal

import pytest
from sqlalchemy import select, update

from crm_sync.domain.changes import FieldOutcome
from crm_sync.domain.records import FieldKind, Value
from crm_sync.domain.runs import RunKind
from crm_sync.store.engine import Store
from crm_sync.store.provenance import Provenance
from crm_sync.store.retention import Cutoffs, Retention
from crm_sync.store.runs import WRITING, RunRecord, Runs
from crm_sync.store.tables import provenance as table
from crm_sync.store.tables import runs as runs_table
from tests.factories import NOON, a_decision, a_run, a_vault

DAY = timedelta(days=1)
TEXT = FieldKind.TEXT


class Audit:
    """Runs of one record and what each wrote; every further run is a day later."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.runs = Runs(store)
        self.provenance = Provenance(store, a_vault(store))
        self.at = NOON

    def run(
        self,
        run_id: str,
        new: Value = None,
        *,
        outcome: str = "Updated",
        of_field: FieldOutcome = FieldOutcome.WRITTEN,
        kind: RunKind = RunKind.RUN,
        crm: str = "salesforce",
        object_type: str = "Contact",
        record_id: str = "1",
        **decision: object,
    ) -> str:
        """One run with one record of one decision; its id again."""
        self.runs.open(
            a_run(id=run_id, kind=kind, crm=crm, object_type=object_type, started_at=self.at), owner="here:1"
        )
        record = RunRecord(
            object_type=object_type,
            record_id=record_id,
            outcome=outcome,
            reason="",
            decisions=(a_decision(new=new, outcome=of_field, **decision),),
        )
        self.runs.settle(run_id, sync="s", confirmed=[], amended=[], others=[record], states=[], now=self.at)
        self.at += DAY
        return run_id

    def unanswered(self, run_id: str, new: Value, outcome: str, of_field: FieldOutcome) -> str:
        return self.run(run_id, new, outcome=outcome, of_field=of_field)

    def undo(self, run_id: str, of: str, new: Value = None, **more: object) -> str:
        return self.run(run_id, new, kind=RunKind.UNDO, source=of, **more)  # type: ignore[arg-type]

    def is_ours(
        self, value: Value, kind: FieldKind = TEXT, *, field: str = "Title", crm: str = "salesforce",
        object_type: str = "Contact", record_id: str = "1",
    ) -> bool | None:  # fmt: skip
        """Whether the value is what we wrote last; None where nothing is ours."""
        fields = self.provenance.last_writes(crm, object_type, [record_id]).get(record_id, {})
        return fields[field].holds(value, kind) if field in fields else None

    def written_at(self, field: str = "Title") -> datetime:
        return self.provenance.last_writes("salesforce", "Contact", ["1"])["1"][field].at

    def purge(self, before: datetime | None = None) -> int:
        """Everything written before that moment leaves the audit; how many records."""
        limit = before or self.at
        limits = Cutoffs(**dict.fromkeys(Cutoffs.__dataclass_fields__, limit))
        return Retention(self.store, self.provenance).purge(limits, now=self.at)["run_records"]

    def rows(self) -> list[bytes]:
        with self.store.read() as connection:
            return [bytes(each) for each in connection.execute(select(table.c.fields)).scalars()]


@pytest.fixture
def audit(store: Store) -> Audit:
    return Audit(store)


# --- from the audit ---------------------------------------------------------------------------------------------------


def test_a_confirmed_write_is_ours_and_nothing_else_is(audit: Audit) -> None:
    audit.run("a", "VP Sales")

    assert audit.is_ours("VP Sales") is True
    assert audit.is_ours("CTO") is False
    assert audit.is_ours(None) is False
    assert audit.is_ours("VP Sales", field="Department") is None
    assert audit.is_ours("VP Sales", record_id="2") is None
    assert audit.written_at() == NOON


def test_the_newest_write_counts(audit: Audit) -> None:
    audit.run("a", "VP Sales")
    audit.run("b", "CRO")

    assert (audit.is_ours("CRO"), audit.is_ours("VP Sales")) == (True, False)
    assert audit.written_at() == NOON + DAY


UNANSWERED = pytest.mark.parametrize(
    ("outcome", "of_field"),
    [
        pytest.param(WRITING, FieldOutcome.WRITTEN, id="under way"),
        pytest.param("Skipped", FieldOutcome.WRITTEN, id="closed after a crash"),
        pytest.param("Skipped", FieldOutcome.UNCONFIRMED, id="answer lost"),
        pytest.param("Updated", FieldOutcome.UNCONFIRMED, id="answer lost beside others"),
    ],
)


@UNANSWERED
def test_a_write_without_an_answer_leaves_both_values_ours(audit: Audit, outcome: str, of_field: FieldOutcome) -> None:
    """Whichever of them the field holds, no person put it there."""
    audit.run("a", "VP Sales")
    audit.unanswered("b", "CRO", outcome, of_field)
    audit.unanswered("c", "CFO", outcome, of_field)

    assert [audit.is_ours(each) for each in ("VP Sales", "CRO", "CFO", "CTO")] == [True, True, True, False]
    assert audit.written_at() == NOON + 2 * DAY


@UNANSWERED
def test_a_confirmed_write_ends_the_doubt_about_older_ones(audit: Audit, outcome: str, of_field: FieldOutcome) -> None:
    audit.unanswered("a", "CRO", outcome, of_field)
    audit.run("b", "VP Sales")

    assert [audit.is_ours(each) for each in ("VP Sales", "CRO")] == [True, False]


@pytest.mark.parametrize("of_field", sorted(set(FieldOutcome) - {FieldOutcome.WRITTEN, FieldOutcome.UNCONFIRMED}))
def test_what_was_not_written_is_not_ours(audit: Audit, of_field: FieldOutcome) -> None:
    audit.run("a", "VP Sales", of_field=of_field)

    assert audit.is_ours("VP Sales") is None


def test_a_plan_wrote_nothing(audit: Audit) -> None:
    audit.run("a", "VP Sales", kind=RunKind.PLAN)
    audit.purge()

    assert audit.is_ours("VP Sales") is None


@pytest.mark.parametrize("kind", [RunKind.APPLY, RunKind.REVIEW])
def test_what_a_person_settled_is_ours_too(audit: Audit, kind: RunKind) -> None:
    audit.run("a", "VP Sales", kind=kind)

    assert audit.is_ours("VP Sales") is True


def test_a_record_of_the_same_number_elsewhere_is_another_one(audit: Audit) -> None:
    audit.run("a", "VP Sales")
    audit.run("b", "CRO", crm="hubspot")
    audit.run("c", "CFO", object_type="Lead")
    for _ in range(2):
        assert audit.is_ours("VP Sales") is True
        assert audit.is_ours("CRO", crm="hubspot") is True
        assert audit.is_ours("CFO", object_type="Lead") is True
        assert audit.is_ours("CRO") is False
        assert audit.is_ours("CFO", crm="hubspot", object_type="Lead") is None
        audit.purge()


def test_more_records_than_one_question_holds_are_asked_in_several(store: Store) -> None:
    audit = Audit(store)
    audit.runs.open(a_run(), owner="here:1")
    ids = [str(number) for number in range(1_201)]
    records = [
        RunRecord(
            object_type="Contact", record_id=each, outcome="Updated", reason="", decisions=(a_decision(new=each),)
        )
        for each in ids
    ]
    audit.runs.settle(a_run().id, sync="s", confirmed=[], amended=[], others=records, states=[], now=NOON)

    before = audit.provenance.last_writes("salesforce", "Contact", ids)
    audit.at += DAY
    assert audit.purge() == 1_201
    after = audit.provenance.last_writes("salesforce", "Contact", ids)

    assert before.keys() == after.keys() == set(ids)
    assert all(found[each]["Title"].holds(each, TEXT) for found in (before, after) for each in ids)


# --- undone -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("is_purged", [False, True])
def test_what_an_undo_took_back_is_not_ours(audit: Audit, is_purged: bool) -> None:
    audit.run("a", "VP Sales")
    audit.undo("u", "a")
    if is_purged:
        audit.purge()

    assert audit.is_ours("VP Sales") is None
    assert audit.is_ours(None) is None


def test_an_undo_of_the_newer_run_leaves_the_older_ones_value_ours(audit: Audit) -> None:
    audit.run("a", "VP Sales")
    audit.run("b", "CRO")
    audit.undo("u", "b", "VP Sales")

    assert [audit.is_ours(each) for each in ("VP Sales", "CRO")] == [True, False]
    assert audit.written_at() == NOON


def test_an_undo_of_the_older_run_leaves_the_newer_ones_value_ours(audit: Audit) -> None:
    audit.run("a", "VP Sales")
    audit.run("b", "CRO")
    audit.undo("u", "a", outcome="Skipped", of_field=FieldOutcome.CONFLICT)

    assert [audit.is_ours(each) for each in ("VP Sales", "CRO")] == [False, True]


def test_an_undo_that_was_undone_took_nothing_back(audit: Audit) -> None:
    audit.run("a", "VP Sales")
    audit.undo("u", "a")
    audit.undo("v", "u", "VP Sales")

    assert audit.is_ours("VP Sales") is True


def test_an_undo_of_an_undo_that_was_undone_takes_it_back_after_all(audit: Audit) -> None:
    audit.run("a", "VP Sales")
    audit.undo("u", "a")
    audit.undo("v", "u", "VP Sales")
    audit.undo("w", "v")

    assert audit.is_ours("VP Sales") is None


def test_an_undo_without_an_answer_may_not_have_happened(audit: Audit) -> None:
    audit.run("a", "VP Sales")
    audit.undo("u", "a", of_field=FieldOutcome.UNCONFIRMED)

    assert audit.is_ours("VP Sales") is True


def test_an_undo_of_one_field_leaves_the_others_ours(audit: Audit) -> None:
    audit.run("a", "VP Sales")
    audit.run("b", "Sales", field="Department")
    audit.undo("u", "b", field="Department")
    for _ in range(2):
        assert audit.is_ours("VP Sales") is True
        assert audit.is_ours("Sales", field="Department") is None
        audit.purge()


def test_what_is_written_after_an_undo_is_ours_again(audit: Audit) -> None:
    audit.run("a", "VP Sales")
    audit.undo("u", "a")
    audit.run("b", "CRO")
    for _ in range(2):
        assert [audit.is_ours(each) for each in ("VP Sales", "CRO")] == [False, True]
        audit.purge()


# --- after a purge ----------------------------------------------------------------------------------------------------


def test_a_purge_leaves_the_field_ours_and_no_value(audit: Audit) -> None:
    audit.run("a", "VP Sales")

    purged = audit.purge()

    assert purged == 1
    assert list(audit.runs.records("a")) == []
    assert [audit.is_ours(each) for each in ("VP Sales", "CRO", None)] == [True, False, False]
    assert audit.written_at() == NOON
    [row] = audit.rows()
    assert b"VP" not in row


def test_a_newer_write_stands_over_what_a_purge_left(audit: Audit) -> None:
    audit.run("a", "VP Sales")
    audit.purge()
    audit.run("b", "CRO")
    for _ in range(2):
        assert [audit.is_ours(each) for each in ("VP Sales", "CRO")] == [False, True]
        audit.purge()
    assert len(audit.rows()) == 1


@UNANSWERED
def test_a_write_without_an_answer_leaves_what_a_purge_left_ours(
    audit: Audit, outcome: str, of_field: FieldOutcome
) -> None:
    audit.run("a", "VP Sales")
    audit.purge()
    audit.unanswered("b", "CRO", outcome, of_field)

    assert [audit.is_ours(each) for each in ("VP Sales", "CRO", "CTO")] == [True, True, False]


def test_an_undo_takes_back_what_a_purge_left(audit: Audit) -> None:
    audit.run("a", "VP Sales")
    limit = audit.at
    audit.undo("u", "a")
    audit.purge(limit)
    assert audit.is_ours("VP Sales") is None

    audit.purge()
    assert audit.is_ours("VP Sales") is None


def test_runs_are_purged_oldest_first_in_whatever_order_the_database_has_them(audit: Audit) -> None:
    """The undo of a run that was kept after it would leave that run's values ours."""
    audit.at = NOON + DAY
    audit.undo("u", "a")
    audit.at = NOON
    audit.run("a", "VP Sales")
    audit.at = NOON + 2 * DAY
    with audit.store.write() as connection:  # on PostgreSQL a changed row moves to the end of its table
        connection.execute(update(runs_table).where(runs_table.c.id == "u").values(reason="x"))
        connection.execute(update(runs_table).where(runs_table.c.id == "a").values(reason="x"))

    audit.purge()

    assert audit.is_ours("VP Sales") is None


def test_an_undo_of_an_undo_is_not_known_after_a_purge_and_the_field_is_a_persons(audit: Audit) -> None:
    """A digest does not tell which run it came from. The safe side: nothing is changed until somebody releases it."""
    audit.run("a", "VP Sales")
    audit.undo("u", "a")
    audit.undo("v", "u", "VP Sales")
    audit.purge()

    assert audit.is_ours("VP Sales") is None


# --- released ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("is_purged", [False, True])
def test_a_released_field_counts_as_ours_with_what_it_holds_now(audit: Audit, is_purged: bool) -> None:
    audit.run("a", "VP Sales")
    audit.run("b", "Sales", field="Department")
    if is_purged:
        audit.purge()

    audit.provenance.release("salesforce", "Contact", "1", {"Title": "Boss", "City": None}, now=audit.at)

    last = audit.provenance.last_writes("salesforce", "Contact", ["1"])["1"]
    assert [audit.is_ours(each) for each in ("VP Sales", "Boss")] == [False, True]
    assert audit.is_ours("Sales", field="Department") is True
    assert audit.is_ours(None, field="City") is True
    assert audit.is_ours("", field="City") is True
    assert {name: each.released for name, each in last.items()} == {"Title": True, "City": True, "Department": False}
    assert last["Title"].at == audit.at


def test_a_write_after_the_release_is_an_ordinary_one(audit: Audit) -> None:
    audit.run("a", "VP Sales")
    audit.provenance.release("salesforce", "Contact", "1", {"Title": "Boss"}, now=audit.at)
    audit.at += DAY
    audit.run("b", "CRO")
    for _ in range(2):
        last = audit.provenance.last_writes("salesforce", "Contact", ["1"])["1"]["Title"]
        assert (last.holds("CRO", TEXT), last.holds("Boss", TEXT), last.released) == (True, False, False)
        audit.purge()


def test_a_purge_of_an_older_write_does_not_take_the_release_away(audit: Audit) -> None:
    audit.run("a", "VP Sales")
    audit.provenance.release("salesforce", "Contact", "1", {"Title": "Boss"}, now=audit.at)
    audit.at += DAY

    audit.purge()

    assert audit.is_ours("Boss") is True
    assert audit.provenance.last_writes("salesforce", "Contact", ["1"])["1"]["Title"].released


# --- one value, as each CRM spells it ---------------------------------------------------------------------------------

SPELLINGS = [
    pytest.param(5, ["5", 5.0, Decimal("5.00"), " 5 ", "5.0"], FieldKind.INTEGER, id="whole number"),
    pytest.param(2.5, ["2.5", "2.50", Decimal("2.5")], FieldKind.DECIMAL, id="number"),
    pytest.param(1_000_000_000, ["1000000000", "1E+9", 1e9, "1.0E9"], FieldKind.DECIMAL, id="a great number"),
    pytest.param("Ada@X.example", ["ada@x.example", " ada@x.example"], FieldKind.EMAIL, id="e-mail"),
    pytest.param("Ada@X.example", ["ada@x.example"], TEXT, id="e-mail in a text field"),
    pytest.param(("b", "a"), ["a;b", ("a", "b"), "b; a"], FieldKind.MULTI_PICKLIST, id="multi-select"),
    pytest.param(
        "2026-10-08T12:00:00Z",
        ["2026-10-08T12:00:00.000+0000", "2026-10-08T14:00:00+02:00", "2026-10-08T12:00:00.250Z"],
        FieldKind.DATETIME,
        id="date and time",
    ),
    pytest.param("2026-10-08", ["2026-10-08", "2026-10-08 "], FieldKind.DATE, id="date"),
    pytest.param(True, [True, "true", "True"], FieldKind.BOOLEAN, id="checkbox"),
    pytest.param("two\nlines", ["two\r\nlines", "two\nlines "], FieldKind.LONG_TEXT, id="long text"),
    pytest.param("VP Sales", ["VP Sales "], TEXT, id="text"),
]


@pytest.mark.parametrize("is_purged", [False, True])
@pytest.mark.parametrize(("ours", "answered", "kind"), SPELLINGS)
def test_a_value_is_ours_as_each_crm_answers_it(
    sqlite_store: Store, ours: Value, answered: list[Value], kind: FieldKind, is_purged: bool
) -> None:
    audit = Audit(sqlite_store)
    audit.run("a", ours)
    if is_purged:
        audit.purge()

    assert [audit.is_ours(each, kind) for each in (ours, *answered)] == [True] * (len(answered) + 1)


@pytest.mark.parametrize("is_purged", [False, True])
@pytest.mark.parametrize(
    ("ours", "edited", "kind"),
    [
        pytest.param(5, "6", FieldKind.INTEGER, id="whole number"),
        pytest.param(5, None, FieldKind.INTEGER, id="emptied"),
        pytest.param("VP Sales", "VP sales", TEXT, id="case of a title"),
        pytest.param("ada@x.example", "ada@y.example", FieldKind.EMAIL, id="e-mail"),
        pytest.param(("a", "b"), "a", FieldKind.MULTI_PICKLIST, id="multi-select"),
        pytest.param("2026-10-08T12:00:00Z", "2026-10-08T12:00:01Z", FieldKind.DATETIME, id="date and time"),
        pytest.param(True, False, FieldKind.BOOLEAN, id="checkbox"),
    ],
)
def test_an_edit_is_not_taken_for_ours(
    sqlite_store: Store, ours: Value, edited: Value, kind: FieldKind, is_purged: bool
) -> None:
    audit = Audit(sqlite_store)
    audit.run("a", ours)
    if is_purged:
        audit.purge()

    assert audit.is_ours(edited, kind) is False
