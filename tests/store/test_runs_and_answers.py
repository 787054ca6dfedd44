"""What the store promises the walk: runs, audit, last attempts, paid calls, known answers, versions."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal

import pytest

from crm_sync.domain.changes import FieldOutcome
from crm_sync.domain.enrichment import Purpose, RawAnswer, Verdict
from crm_sync.domain.records import FieldKind, Value
from crm_sync.domain.runs import Counts, RunStatus
from crm_sync.mapping.same import same
from crm_sync.store.config_versions import ConfigVersions
from crm_sync.store.engine import Store
from crm_sync.store.journal import IN_DOUBT
from crm_sync.store.runs import WRITING, RecordState, RunRecord, Runs
from tests.factories import NOON, a_decision, a_run, company_keys, person_keys
from tests.store.books import Books, a_row


def a_state(record_id: str, **changes: object) -> RecordState:
    values = {"object_type": "Contact", "outcome": "Updated", "seen": b"0" * 16, "attempted_at": NOON}
    return RecordState(record_id=record_id, **{**values, **changes})  # type: ignore[arg-type]


def test_a_run_reads_back_as_it_was_saved(store: Store) -> None:
    runs = Runs(store)
    runs.open(a_run(), owner="here:1")
    ended = a_run(
        status=RunStatus.COMPLETED_WITH_ERRORS,
        reason="1 rejected by the CRM",
        counts=Counts(selected=3, updated=2, rejected=1),
        credits=Decimal("2.01"),
        calls={"apollo people/bulk_match": 1},
        left_out={"in doubt": 4},
        finished_at=NOON + timedelta(seconds=4),
    )

    runs.save(ended, now=NOON)

    assert runs.get(ended.id) == ended
    assert runs.latest() == [ended]


@pytest.mark.parametrize(
    ("value", "kept"),
    [
        (12345678901234567890123, "12345678901234567890123"),
        (-(2**63), -(2**63)),
        (2**63 - 1, 2**63 - 1),
        (Decimal("1E+30"), "1E+30"),
        (Decimal("1234567.8901234567890123456"), "1234567.8901234567890123456"),
        (Decimal("12.50"), 12.5),
        ("half a face \ud83d", "half a face \ufffd"),
        ("two halves \ud83d\ude00", "two halves \U0001f600"),
        (("a", "b\ud83d"), ("a", "b\ufffd")),
        (True, True),
    ],
)
def test_no_value_of_a_crm_is_too_large_or_too_broken_for_the_audit(store: Store, value: Value, kept: Value) -> None:
    runs = Runs(store)
    runs.open(a_run(), owner="here:1")
    decision = a_decision(old=value, new=7)

    runs.intend(
        a_run().id,
        [RunRecord(object_type="C", record_id="1", outcome=WRITING, reason="", decisions=(decision,))],
        now=NOON,
    )

    record = runs.record(a_run().id, "C", "1")
    assert record is not None
    assert (record.decisions[0].old, record.decisions[0].new) == (kept, 7)
    if not isinstance(value, str | tuple):
        assert same(value, record.decisions[0].old, FieldKind.BOOLEAN if value is True else FieldKind.DECIMAL)


def test_a_run_is_found_by_a_beginning_that_only_one_has(store: Store) -> None:
    runs = Runs(store)
    for number in ("0001", "0002"):
        runs.open(a_run(id=f"20261008-120000-{number}"), owner="here:1")

    assert runs.get("20261008-120000-0002") is not None
    assert runs.get("20261008-120000-000") is None
    assert runs.get("2026100_") is None


def test_an_intended_write_is_in_the_audit_before_and_confirmed_after(store: Store) -> None:
    runs = Runs(store)
    runs.open(a_run(), owner="here:1")
    intended = RunRecord(
        object_type="Contact", record_id="1", outcome=WRITING, reason="", decisions=(a_decision(),), batch_id=7
    )
    runs.intend(a_run().id, [intended], now=NOON)

    before = list(runs.records(a_run().id))
    refused = a_decision(outcome=FieldOutcome.REJECTED, reason="refused: too long")
    confirmed = RunRecord(object_type="Contact", record_id="1", outcome="Rejected", reason="no", decisions=(refused,))
    other = RunRecord(object_type="Contact", record_id="2", outcome="No match", reason="nobody")
    runs.settle(
        a_run().id, sync="contacts", confirmed=[], amended=[confirmed], others=[other], states=[a_state("1")], now=NOON
    )

    assert [record.outcome for record in before] == [WRITING]
    after = {record.record_id: record for record in runs.records(a_run().id)}
    assert after["1"].outcome == "Rejected"
    assert after["1"].decisions == (refused,)
    assert after["2"].reason == "nobody"
    assert ("Contact", "No match", "nobody", 1) in runs.reasons(a_run().id)


def test_a_write_that_came_out_as_intended_keeps_the_decisions_of_its_intent(store: Store) -> None:
    runs = Runs(store)
    runs.open(a_run(), owner="here:1")
    intended = RunRecord(object_type="C", record_id="1", outcome=WRITING, reason="", decisions=(a_decision(),))
    runs.intend(a_run().id, [intended], now=NOON)

    done = RunRecord(object_type="C", record_id="1", outcome="Updated", reason="")
    runs.settle(a_run().id, sync="contacts", confirmed=[done], amended=[], others=[], states=[], now=NOON)

    [found] = runs.records(a_run().id)
    assert found.outcome == "Updated"
    assert found.decisions == (a_decision(),)


def test_values_of_every_kind_survive_the_audit(store: Store) -> None:
    runs = Runs(store)
    runs.open(a_run(), owner="here:1")
    kept = tuple(
        a_decision(field=f"f{place}", old=value, new=value)
        for place, value in enumerate(["é 'x'", 5, 2.5, True, ("a", "b"), None])
    )

    runs.intend(
        a_run().id, [RunRecord(object_type="C", record_id="1", outcome="x", reason="", decisions=kept)], now=NOON
    )

    assert next(iter(runs.records(a_run().id))).decisions == kept


def test_the_last_attempt_replaces_the_one_before(store: Store) -> None:
    runs = Runs(store)
    runs.open(a_run(), owner="here:1")
    for outcome in ("No match", "Updated"):
        state = a_state("1", outcome=outcome)
        runs.settle(a_run().id, sync="contacts", confirmed=[], amended=[], others=[], states=[state], now=NOON)

    found = runs.states("contacts", "Contact", ["1", "2"])

    assert found == {"1": a_state("1")}
    assert runs.states("other", "Contact", ["1"]) == {}


def test_records_past_their_window_come_in_id_order_behind_the_cursor(store: Store) -> None:
    runs = Runs(store)
    runs.open(a_run(), owner="here:1")
    old = [a_state(each, attempted_at=NOON - timedelta(days=200)) for each in ("3", "1", "2")]
    runs.settle(a_run().id, sync="contacts", confirmed=[], amended=[], others=[], states=[*old, a_state("4")], now=NOON)

    found = runs.attempted_before("contacts", "Contact", NOON - timedelta(days=120), ["Updated"], after="1", limit=10)

    assert found == ["2", "3"]


def test_a_dead_runs_intended_writes_get_an_end(store: Store) -> None:
    runs = Runs(store)
    runs.open(a_run(status=RunStatus.RUNNING), owner="here:1")
    runs.intend(a_run().id, [RunRecord(object_type="C", record_id="1", outcome=WRITING, reason="")], now=NOON)

    runs.close_intended(a_run().id, "not confirmed", now=NOON)

    assert [(r.outcome, r.reason) for r in runs.records(a_run().id)] == [("Skipped", "not confirmed")]
    assert [run.id for run, _, _ in runs.unfinished()] == [a_run().id]


def test_unmapped_values_are_tallied_over_runs(store: Store) -> None:
    runs = Runs(store)
    for _ in range(2):
        runs.count_unmapped("accounts", {("Industry", "gaming"): 3, ("Industry", "internet"): 1}, now=NOON)

    assert runs.unmapped("accounts") == [("accounts", "Industry", "gaming", 6), ("accounts", "Industry", "internet", 2)]


def test_a_paid_call_is_in_the_journal_before_it_leaves_and_its_bytes_before_they_are_read(store: Store) -> None:
    books = Books.opened(store)
    batch = books.sent(1, 2)

    assert [(call.id, call.state) for call in books.journal.unfinished(a_run().id)] == [(batch, "sent")]
    raw = RawAnswer(body=b'{"matches": []}', credits=Decimal("1.01"), request_id="-5")
    books.journal.received(batch, raw, now=NOON)

    [call] = books.journal.unfinished(a_run().id)
    assert (call.id, call.state, call.body) == (batch, "received", b'{"matches": []}')
    assert books.answers.load([batch])[batch].body == b'{"matches": []}'
    assert books.answers.load([batch])[batch].keys == (person_keys(1), person_keys(2))
    assert (call.purpose, call.keys, call.single) == (Purpose.PERSON, (person_keys(1), person_keys(2)), False)
    assert call.credits == Decimal("1.01")
    books.expand(batch)
    assert books.journal.spent(a_run().id) == Decimal("1.01")


def test_an_answer_is_found_by_the_identity_that_was_asked(store: Store) -> None:
    books = Books.opened(store)
    batch = books.sent(1, 2)

    books.expand(batch, a_row(1, Verdict.MATCHED), a_row(2, Verdict.NO_MATCH, position=1))

    found = books.answers.look_up(Purpose.PERSON, [person_keys(person).key for person in (1, 2, 3)])
    assert {key: answer.verdict for key, answer in found.items()} == {
        person_keys(1).key: "matched",
        person_keys(2).key: "no match",
    }
    assert found[person_keys(2).key].position == 1
    assert books.journal.unfinished(a_run().id) == []
    assert books.answers.look_up(Purpose.COMPANY, [person_keys(1).key]) == {}


def test_an_employers_thin_answer_never_replaces_a_companys_own(store: Store) -> None:
    books = Books.opened(store)
    own = a_row(1, Verdict.MATCHED, purpose=Purpose.COMPANY, key=company_keys().key)
    thin = a_row(1, Verdict.MATCHED, purpose=Purpose.COMPANY, key=company_keys().key, source="employer")

    for person, row in enumerate((thin, own, thin)):
        books.expand(books.sent(person), row)

    assert books.answers.look_up(Purpose.COMPANY, [company_keys().key])[company_keys().key].source == "bulk"


def test_a_call_without_an_answer_puts_everybody_it_asked_for_in_doubt(store: Store) -> None:
    books = Books.opened(store)
    batch = books.sent(1, 2)

    books.journal.in_doubt(batch, b"half", "no answer", now=NOON)

    found = books.answers.look_up(Purpose.PERSON, [person_keys(1).key, person_keys(2).key])
    assert len(found) == 2
    assert {answer.verdict for answer in found.values()} == {IN_DOUBT}
    assert books.journal.spent(a_run().id) == 0


def test_credits_nobody_told_are_those_the_walk_counted(store: Store) -> None:
    books = Books.opened(store)
    batch = books.received(1, credits_=None)

    books.expand(batch, credits_charged=Decimal(1))

    assert books.journal.spent(a_run().id) == 1


def test_no_address_stands_in_the_index_in_clear(sqlite_store: Store) -> None:
    Books.opened(sqlite_store).done(1)

    with sqlite_store.read() as connection:
        rows = connection.exec_driver_sql("select * from answers").all()

    assert rows
    assert "lovelace" not in repr(rows)


def test_configuration_versions_are_numbered_and_kept_byte_for_byte(store: Store) -> None:
    versions = ConfigVersions(store)
    first = b"version: 1  # a comment\r\n"

    made = versions.add(first, {"map.csv": b"apollo,crm\n"}, author="ada", note="", now=NOON)
    again = versions.add(first, {"map.csv": b"apollo,crm\n"}, author="bob", note="", now=NOON)
    other = versions.add(first, {"map.csv": b"apollo,crm\nx,y\n"}, author="bob", note="", now=NOON)

    assert (made.number, again.number, other.number) == (1, 1, 2)
    assert versions.get(1) == made
    assert versions.get(1).text == first  # type: ignore[union-attr]
    assert [version.number for version in versions.history()] == [2, 1]
    assert versions.latest() == other
