"""What becomes of each record of a collections update, whatever the org answers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from adapters.http import InDoubtError
from adapters.salesforce.wire import SAVED, Fault, RefusedRequestError, SaveResult
from adapters.salesforce.writing import Row, Update, rows_of
from crm_sync.domain.changes import WriteOutcome, Written
from crm_sync.domain.records import RecordRef, Value
from crm_sync.errors import ContractError, CredentialsError, QuotaError, TransientError
from crm_sync.ports import WriteRequest
from tests.adapters.salesforce_schema import contact, schema
from tests.clocks import FakeClock


class Org:
    """Answers `send` by a judgement per row, a whole call's refusal first; keeps what it saved."""

    def __init__(
        self,
        judge: Callable[[Row], SaveResult] = lambda _row: SAVED,
        refuse: Callable[[Sequence[Row]], Exception | None] = lambda _rows: None,
    ) -> None:
        self._judge = judge
        self._refuse = refuse
        self.calls: list[int] = []
        self.saved: dict[str, dict[str, Any]] = {}

    def __call__(self, rows: Sequence[Row]) -> list[SaveResult]:
        self.calls.append(len(rows))
        error = self._refuse(rows)
        if error is not None:
            raise error
        results = [self._judge(row) for row in rows]
        for row, result in zip(rows, results, strict=True):
            if not result.faults:
                self.saved[row.ref.id] = dict(row.values)
        return results


def request(number: int = 0, **values: Value) -> WriteRequest:
    ref = RecordRef(crm="salesforce", object_type="Contact", id=contact(number))
    return WriteRequest(ref=ref, values=values or {"Title": "CTO"})


def written(
    org: Org, *requests: WriteRequest, switched_off: dict[str, str] | None = None, clock: FakeClock | None = None
) -> list[WriteOutcome]:
    rows = rows_of(requests, schema())
    Update(send=org, switched_off={} if switched_off is None else switched_off, clock=clock or FakeClock()).run(rows)
    return [row.settled() for row in rows]


def refused(code: str, *fields: str, message: str = "m") -> SaveResult:
    return SaveResult((Fault(code, message, fields),))


def refused_call(code: str, message: str = "m", status: int = 400, fields: tuple[str, ...] = ()) -> RefusedRequestError:
    fault = Fault(code, message, fields)
    return RefusedRequestError("no", fault=fault, provider="salesforce", operation="write", status=status)


def kinds(outcomes: Sequence[WriteOutcome]) -> list[Written]:
    return [outcome.written for outcome in outcomes]


# --- before anything is sent --------------------------------------------------------------------------------------


def test_a_short_id_is_sent_in_full() -> None:
    org = Org()
    short = WriteRequest(
        ref=RecordRef(crm="salesforce", object_type="Contact", id=contact(1)[:15]), values={"Title": "CTO"}
    )

    (outcome,) = written(org, short)

    assert outcome.ref.id == contact(1)
    assert org.saved == {contact(1): {"Title": "CTO"}}


def test_what_is_no_id_is_refused_without_a_call() -> None:
    org = Org()
    bad = WriteRequest(ref=RecordRef(crm="salesforce", object_type="Contact", id="5"), values={"Title": "CTO"})

    outcomes = written(org, bad, request(1))

    assert kinds(outcomes) == [Written.REJECTED, Written.WRITTEN]
    assert outcomes[0].code == "MALFORMED_ID"
    assert org.calls == [1]


@pytest.mark.parametrize(
    ("values", "why"),
    [
        ({"Gone__c": "x"}, "no such field"),
        ({"Name": "x"}, "compound field"),
        ({"Reports__c": "51-200"}, "not a number"),
        ({"Phone": None}, "does not erase"),
        ({"Phone": " "}, "does not erase"),
    ],
)
def test_what_a_field_cannot_take_is_dropped_and_the_rest_written(values: dict[str, Value], why: str) -> None:
    org = Org()

    (outcome,) = written(org, request(1, Title="CTO", **values))

    assert outcome.written is Written.WRITTEN
    ((name, reason),) = outcome.dropped
    assert name in values
    assert why in reason
    assert org.saved == {contact(1): {"Title": "CTO"}}


def test_a_record_with_nothing_left_is_refused_without_a_call() -> None:
    org = Org()

    (outcome,) = written(org, request(1, Phone=None))

    assert (outcome.written, outcome.code) == (Written.REJECTED, "NOTHING_LEFT")
    assert "Phone" in outcome.reason
    assert org.calls == []


# --- a record refused ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "words", "written_as"),
    [
        ("FIELD_CUSTOM_VALIDATION_EXCEPTION", "m", Written.REJECTED),
        ("DUPLICATES_DETECTED", "m", Written.REJECTED),
        ("SOMETHING_NEW", "m", Written.REJECTED),
        ("ENTITY_IS_DELETED", "deleted, or merged", Written.GONE),
        ("CANNOT_UPDATE_CONVERTED_LEAD", "converted", Written.GONE),
    ],
)
def test_a_refused_record_says_why_and_stops_nobody(code: str, words: str, written_as: Written) -> None:
    org = Org(lambda row: refused(code) if row.ref.id == contact(1) else SAVED)

    outcomes = written(org, request(0), request(1), request(2))

    assert kinds(outcomes) == [Written.WRITTEN, written_as, Written.WRITTEN]
    assert outcomes[1].code == code
    assert f"{code}: m" in outcomes[1].reason
    assert words in outcomes[1].reason
    assert org.calls == [3]


def test_a_bad_value_costs_its_field_only() -> None:
    org = Org(lambda row: refused("STRING_TOO_LONG", "Title") if row.values.get("Title") == "long" else SAVED)

    outcomes = written(org, request(0, Title="long", Phone="1"), request(1, Title="CTO"))

    assert kinds(outcomes) == [Written.WRITTEN, Written.WRITTEN]
    assert outcomes[0].dropped == (("Title", "STRING_TOO_LONG: m"),)
    assert org.saved == {contact(0): {"Phone": "1"}, contact(1): {"Title": "CTO"}}
    assert org.calls == [2, 1]


def test_a_record_whose_only_field_is_bad_is_refused() -> None:
    org = Org(lambda _row: refused("INVALID_EMAIL_ADDRESS", "Email", message="bad: ada@lovelace.example"))

    (outcome,) = written(org, request(0, Email="ada@lovelace.example"))

    assert outcome.written is Written.REJECTED
    assert outcome.dropped[0][0] == "Email"
    assert "lovelace" not in str(outcome)
    assert org.calls == [1]


def test_bad_fields_told_one_at_a_time_are_all_dropped() -> None:
    def judge(row: Row) -> SaveResult:
        bad = sorted(name for name, value in row.values.items() if value == "bad")
        return refused("STRING_TOO_LONG", bad[0]) if bad else SAVED

    org = Org(judge)

    outcomes = written(org, *(request(n, Title="bad", Phone="bad", Email="bad", LinkedIn__c="ok") for n in range(50)))

    assert {outcome.written for outcome in outcomes} == {Written.WRITTEN}
    assert {name for name, _ in outcomes[0].dropped} == {"Title", "Phone", "Email"}
    assert org.calls == [50, 50, 50, 50]


def test_a_record_with_many_bad_fields_is_saved_with_its_last_good_one() -> None:
    bad = ("Email", "FirstName", "LastName", "LinkedIn__c", "MailingCity", "Phone")
    org = Org(lambda row: next((refused("STRING_TOO_LONG", name) for name in bad if name in row.values), SAVED))

    (outcome,) = written(org, request(0, Title="CTO", **dict.fromkeys(bad, "x")))

    assert outcome.written is Written.WRITTEN
    assert [name for name, _ in outcome.dropped] == list(bad)
    assert org.saved[contact(0)] == {"Title": "CTO"}
    assert org.calls == [1] * 7


def test_a_fault_that_dropping_cannot_cure_keeps_the_record_from_being_sent_again() -> None:
    both = SaveResult((Fault("STRING_TOO_LONG", "a", ("Title",)), Fault("ENTITY_IS_LOCKED", "b", ())))
    org = Org(lambda _row: both)

    (outcome,) = written(org, request(0, Title="x", Phone="1"))

    assert (outcome.written, outcome.code) == (Written.REJECTED, "ENTITY_IS_LOCKED")
    assert outcome.reason == "ENTITY_IS_LOCKED: b; a"
    assert org.calls == [1]


def test_a_blamed_field_that_was_not_sent_ends_the_record() -> None:
    org = Org(lambda _row: refused("FIELD_INTEGRITY_EXCEPTION", "MailingStateCode"))

    (outcome,) = written(org, request(0))

    assert (outcome.written, outcome.dropped) == (Written.REJECTED, ())
    assert org.calls == [1]


def test_a_field_nobody_may_write_is_left_out_for_every_later_record() -> None:
    off: dict[str, str] = {}
    org = Org(lambda row: refused("INVALID_FIELD_FOR_INSERT_UPDATE", "Title") if "Title" in row.values else SAVED)

    written(org, request(0, Title="CTO", Phone="1"), switched_off=off)
    (later,) = written(org, request(1, Title="CTO", Phone="2"), switched_off=off)

    assert org.calls == [1, 1, 1]
    assert (later.written, [name for name, _ in later.dropped]) == (Written.WRITTEN, ["Title"])
    assert org.saved[contact(1)] == {"Phone": "2"}


# --- erasing ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("blank", [None, "", " ", ()])
def test_a_blank_erases_only_where_it_was_asked_for(blank: Value) -> None:
    org = Org()
    ref = RecordRef(crm="salesforce", object_type="Contact", id=contact(1))
    both = WriteRequest(
        ref=ref, values={"Title": blank, "Phone": blank, "MailingCity": "Bonn"}, erase=frozenset({"Title"})
    )

    (outcome,) = written(org, both)

    assert org.saved == {contact(1): {"Title": None, "MailingCity": "Bonn"}}
    assert dict(outcome.dropped) == {"Phone": "crm-sync does not erase values unasked, and this one is blank"}


def test_a_value_stays_where_erasing_is_allowed_and_not_meant() -> None:
    org = Org()
    ref = RecordRef(crm="salesforce", object_type="Contact", id=contact(1))

    written(org, WriteRequest(ref=ref, values={"Title": "CTO"}, erase=frozenset({"Title", "Phone"})))

    assert org.saved == {contact(1): {"Title": "CTO"}}


def test_a_checkbox_is_never_sent_as_null() -> None:
    org = Org()
    ref = RecordRef(crm="salesforce", object_type="Contact", id=contact(1))
    values: dict[str, Value] = {"DoNotCall": None, "Title": None}

    (outcome,) = written(org, WriteRequest(ref=ref, values=values, erase=frozenset(values)))

    assert org.saved == {contact(1): {"Title": None}}
    assert "cannot be erased" in dict(outcome.dropped)["DoNotCall"]


def test_a_field_that_must_not_be_blank_is_kept_and_the_others_erased() -> None:
    org = Org(
        lambda row: refused("REQUIRED_FIELD_MISSING", "LastName") if row.values.get("LastName", "") is None else SAVED
    )
    ref = RecordRef(crm="salesforce", object_type="Contact", id=contact(1))
    values: dict[str, Value] = {"LastName": None, "Title": None}

    (outcome,) = written(org, WriteRequest(ref=ref, values=values, erase=frozenset(values)))

    assert outcome.written is Written.WRITTEN
    assert [name for name, _ in outcome.dropped] == ["LastName"]
    assert org.saved == {contact(1): {"Title": None}}


# --- locks and overload -------------------------------------------------------------------------------------------


def test_locked_records_are_sent_again_alone_with_growing_waits() -> None:
    left = {contact(1): 2, contact(2): 4, contact(3): 99}
    clock = FakeClock()

    def judge(row: Row) -> SaveResult:
        left[row.ref.id] = left.get(row.ref.id, 0) - 1
        return refused("UNABLE_TO_LOCK_ROW") if left[row.ref.id] >= 0 else SAVED

    org = Org(judge)

    outcomes = written(org, *(request(n) for n in range(4)), clock=clock)

    assert kinds(outcomes) == [Written.WRITTEN, Written.WRITTEN, Written.WRITTEN, Written.REJECTED]
    assert outcomes[3].code == "UNABLE_TO_LOCK_ROW"
    assert org.calls == [4, 3, 3, 2, 2]
    assert clock.slept == [1, 2, 4, 8]


def test_a_record_both_locked_and_with_a_bad_field_is_saved_in_the_end() -> None:
    tries: list[dict[str, Any]] = []

    def judge(row: Row) -> SaveResult:
        tries.append(dict(row.values))
        if "Title" in row.values:
            return refused("STRING_TOO_LONG", "Title")
        return refused("UNABLE_TO_LOCK_ROW") if len(tries) == 2 else SAVED

    (outcome,) = written(Org(judge), request(0, Title="x", Phone="1"))

    assert outcome.written is Written.WRITTEN
    assert [name for name, _ in outcome.dropped] == ["Title"]


def test_a_batch_too_much_for_the_orgs_triggers_is_halved() -> None:
    overload = refused("CANNOT_INSERT_UPDATE_ACTIVATE_ENTITY", message="Too many SOQL queries: 101")
    sizes: list[int] = []
    org = Org(lambda _row: overload if sizes[-1] > 50 else SAVED, lambda rows: sizes.append(len(rows)))

    outcomes = written(org, *(request(n) for n in range(200)))

    assert {outcome.written for outcome in outcomes} == {Written.WRITTEN}
    assert org.calls == [200, 100, 100, 50, 50, 50, 50]


def test_a_trigger_that_fails_on_a_single_record_refuses_it_after_a_bounded_number_of_calls() -> None:
    org = Org(lambda _row: refused("CANNOT_EXECUTE_FLOW_TRIGGER", message="CPU time limit exceeded"))

    outcomes = written(org, *(request(n) for n in range(200)))

    assert {(o.written, o.code) for o in outcomes} == {(Written.REJECTED, "CANNOT_EXECUTE_FLOW_TRIGGER")}
    assert len(org.calls) <= 42


# --- a whole call refused -----------------------------------------------------------------------------------------


def test_an_unknown_column_is_left_out_and_the_call_repeated_once() -> None:
    off: dict[str, str] = {}
    org = Org(
        refuse=lambda rows: (
            refused_call("INVALID_FIELD", "No such column 'Title' on sobject of type Contact")
            if any("Title" in row.values for row in rows)
            else None
        )
    )

    outcomes = written(org, *(request(n, Title="CTO", Phone="1") for n in range(20)), switched_off=off)

    assert {outcome.written for outcome in outcomes} == {Written.WRITTEN}
    assert org.calls == [20, 20]
    assert list(off) == ["Title"]
    assert "left out from now on" in dict(outcomes[0].dropped)["Title"]


@pytest.mark.parametrize("guilty", [[0], [199], [77, 78], [3, 190]])
def test_a_record_that_spoils_a_whole_call_costs_only_itself(guilty: list[int]) -> None:
    bad = {contact(n) for n in guilty}
    org = Org(refuse=lambda rows: refused_call("JSON_PARSER_ERROR") if any(row.ref.id in bad for row in rows) else None)

    outcomes = written(org, *(request(n) for n in range(200)))

    assert [n for n, outcome in enumerate(outcomes) if outcome.written is Written.REJECTED] == guilty
    assert len(org.saved) == 200 - len(guilty)
    assert len(org.calls) <= 42


def test_a_call_refused_whatever_it_holds_ends_after_a_bounded_number_of_tries() -> None:
    org = Org(refuse=lambda _rows: refused_call("JSON_PARSER_ERROR"))

    outcomes = written(org, *(request(n) for n in range(200)))

    assert {(o.written, o.code) for o in outcomes} == {(Written.REJECTED, "JSON_PARSER_ERROR")}
    assert len(org.calls) <= 42


def test_a_refusal_that_no_splitting_cures_is_not_split() -> None:
    org = Org(refuse=lambda _rows: refused_call("NOT_FOUND", status=404))

    outcomes = written(org, *(request(n) for n in range(200)))

    assert {outcome.written for outcome in outcomes} == {Written.REJECTED}
    assert org.calls == [200]


def test_a_single_record_refused_for_a_named_field_keeps_the_rest() -> None:
    org = Org(
        refuse=lambda rows: (
            refused_call("INVALID_EMAIL_ADDRESS", fields=("Email",)) if "Email" in rows[0].values else None
        )
    )

    (outcome,) = written(org, request(0, Email="x", Title="CTO"))

    assert outcome.written is Written.WRITTEN
    assert org.saved == {contact(0): {"Title": "CTO"}}


# --- answers lost -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [TransientError, ContractError])
def test_a_lost_answer_is_never_taken_for_a_refusal(kind: type[Exception]) -> None:
    org = Org(refuse=lambda _rows: InDoubtError(kind("gone", provider="salesforce")))  # type: ignore[call-arg]

    outcomes = written(org, request(0), request(1))

    assert kinds(outcomes) == [Written.UNACCOUNTED, Written.UNACCOUNTED]
    assert outcomes[0].reason == "gone"


def test_what_was_dropped_before_is_told_with_a_lost_answer() -> None:
    calls: list[int] = []

    def refuse(rows: Sequence[Row]) -> Exception | None:
        calls.append(len(rows))
        return InDoubtError(TransientError("gone", provider="salesforce")) if len(calls) == 2 else None

    org = Org(lambda row: refused("STRING_TOO_LONG", "Title") if "Title" in row.values else SAVED, refuse)

    outcomes = written(org, request(0, Title="x", Phone="1"), request(1, Phone="2"))

    assert kinds(outcomes) == [Written.UNACCOUNTED, Written.WRITTEN]
    assert [name for name, _ in outcomes[0].dropped] == ["Title"]


@pytest.mark.parametrize("kind", [CredentialsError, QuotaError])
def test_the_end_of_quota_or_session_keeps_what_is_known(kind: type[CredentialsError | QuotaError]) -> None:
    ends = [None, kind("over", provider="salesforce")]
    locked = contact(1)
    org = Org(
        lambda row: (
            refused("UNABLE_TO_LOCK_ROW")
            if row.ref.id == locked
            else refused("STRING_TOO_LONG", "Title")
            if row.values.get("Title") == "long"
            else SAVED
        ),
        lambda _rows: ends.pop(0),
    )
    rows = rows_of([request(0), request(1), request(2, Title="long", Phone="1")], schema())
    update = Update(send=org, switched_off={}, clock=FakeClock())

    update.run(rows)

    assert isinstance(update.error, kind)
    assert update.answered
    assert kinds([row.settled() for row in rows]) == [Written.WRITTEN, Written.NOT_WRITTEN, Written.NOT_WRITTEN]
    assert rows[1].settled().reason == "over"


def test_nothing_more_is_sent_once_a_call_could_not_be_made() -> None:
    org = Org(refuse=lambda _rows: TransientError("nobody there", provider="salesforce"))
    rows = rows_of([request(0), request(1)], schema())
    update = Update(send=org, switched_off={}, clock=FakeClock())

    update.run(rows)

    assert not update.answered
    assert kinds([row.settled() for row in rows]) == [Written.NOT_WRITTEN, Written.NOT_WRITTEN]
