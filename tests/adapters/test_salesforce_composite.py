"""Guarded writes: what is sent, what an answer means, and who wins against a person's edit, with the real library."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest

from adapters.salesforce import composite
from adapters.salesforce.client import SalesforceCrm
from adapters.salesforce.wire import SAVED, Fault, SaveResult
from adapters.salesforce.writing import rows_of
from crm_sync.clock import SystemClock
from crm_sync.domain.changes import WriteMode, Written
from crm_sync.domain.records import Record, RecordRef, Value
from crm_sync.ports import WriteRequest
from crm_sync.sandbox.salesforce import ValidationRule
from tests.adapters.salesforce_org import RunningOrg, running_org
from tests.adapters.salesforce_schema import contact, schema
from tests.sandbox.salesforce_org import contact_id, lead_id

RULES = (
    ValidationRule(object_type="Contact", field="Title", forbidden="wizard", message="No wizards, please."),
    ValidationRule(
        object_type="Contact", field="Phone", forbidden="000", message="This is not allowed here.", names_field=False
    ),
)
VERSION = "2026-11-01T12:00:00.000+0000"


@pytest.fixture
def org() -> Iterator[RunningOrg]:
    with running_org(contacts=400, validation_rules=RULES) as running:
        yield running


@pytest.fixture
def crm(org: RunningOrg) -> Iterator[SalesforceCrm]:
    crm = org.crm()
    yield crm
    crm.close()


def seen(crm: SalesforceCrm, *numbers: int) -> dict[int, Record]:
    found = crm.read("Contact", [contact_id(number) for number in numbers], ["Title"])
    return {number: record for number, record in zip(numbers, found, strict=True) if record is not None}


def change(record: Record | None, number: int = 0, **values: Value) -> WriteRequest:
    ref = RecordRef(crm="salesforce", object_type="Contact", id=contact_id(number))
    return WriteRequest(ref=ref if record is None else record.ref, values=values or {"Title": "CTO"}, seen=record)


def write(crm: SalesforceCrm, *requests: WriteRequest) -> list[Any]:
    return crm.write("Contact", requests, mode=WriteMode.STRICT)


# --- what is sent and answered ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("version", "date"),
    [
        (VERSION, "Sun, 01 Nov 2026 12:00:00 GMT"),
        ("2026-11-01T12:00:00.999+0000", "Sun, 01 Nov 2026 12:00:00 GMT"),
        ("2026-11-01T14:00:00.000+0200", "Sun, 01 Nov 2026 12:00:00 GMT"),
        ("2026-11-01T12:00:00Z", "Sun, 01 Nov 2026 12:00:00 GMT"),
        ("2026-11-01T12:00:00", None),
        ("yesterday", None),
        ("", None),
    ],
)
def test_a_version_becomes_an_http_date(version: str, date: str | None) -> None:
    assert composite.http_date(version) == date


def test_each_record_is_guarded_by_its_own_version_where_it_has_one() -> None:
    ref = RecordRef(crm="salesforce", object_type="Contact", id=contact(1))
    guarded = WriteRequest(ref=ref, values={"Title": "CTO"}, seen=Record(ref=ref, values={}, version=VERSION))
    free = WriteRequest(ref=RecordRef(crm="salesforce", object_type="Contact", id=contact(2)), values={"Title": "VP"})

    sent = composite.body(rows_of([guarded, free], schema()), version="62.0", headers={"X": "y"})

    assert sent == {
        "allOrNone": False,
        "collateSubrequests": False,
        "compositeRequest": [
            {
                "method": "PATCH",
                "url": f"/services/data/v62.0/sobjects/Contact/{contact(1)}",
                "referenceId": "r0",
                "httpHeaders": {"X": "y", "If-Unmodified-Since": "Sun, 01 Nov 2026 12:00:00 GMT"},
                "body": {"Title": "CTO"},
            },
            {
                "method": "PATCH",
                "url": f"/services/data/v62.0/sobjects/Contact/{contact(2)}",
                "referenceId": "r1",
                "httpHeaders": {"X": "y"},
                "body": {"Title": "VP"},
            },
        ],
    }


def entry(status: int, body: Any = None, at: int = 0) -> dict[str, Any]:
    return {"body": body, "httpHeaders": {}, "httpStatusCode": status, "referenceId": f"r{at}"}


def said(code: str, message: str = "m", **more: Any) -> list[dict[str, Any]]:
    return [{"errorCode": code, "message": message, **more}]


NO_COLUMN = "No such column 'Title' on sobject of type Contact"


@pytest.mark.parametrize(
    ("status", "body", "result"),
    [
        (204, None, SAVED),
        (200, {"id": "x", "success": True}, SAVED),
        (412, None, SaveResult(moved=True)),
        (412, said("PRECONDITION_FAILED"), SaveResult(moved=True)),
        (404, said("NOT_FOUND"), SaveResult((Fault("NOT_FOUND", "m", ()),))),
        (404, said("ENTITY_IS_DELETED", fields=[]), SaveResult((Fault("ENTITY_IS_DELETED", "m", ()),))),
        (400, said("STRING_TOO_LONG", fields=["Title"]), SaveResult((Fault("STRING_TOO_LONG", "m", ("Title",)),))),
        (400, said("INVALID_FIELD", NO_COLUMN), SaveResult((Fault("INVALID_FIELD", NO_COLUMN, ("Title",)),))),
        (400, None, SaveResult((Fault("HTTP 400", "no reason given", ()),))),
        (503, said("SERVER_UNAVAILABLE"), SaveResult((Fault("SERVER_UNAVAILABLE", "m", ()),), False, True, True)),
        (500, "<html>", SaveResult((Fault("HTTP 500", "no reason given", ()),), False, True, True)),
        (429, None, SaveResult((Fault("HTTP 429", "no reason given", ()),), False, True, False)),
        (
            403,
            said("REQUEST_LIMIT_EXCEEDED"),
            SaveResult((Fault("REQUEST_LIMIT_EXCEEDED", "m", ()),), False, True, False),
        ),
    ],
)
def test_a_subrequests_end_is_understood(status: int, body: Any, result: SaveResult) -> None:
    assert composite.results({"compositeResponse": [entry(status, body)]}, 1) == [result]


@pytest.mark.parametrize(
    "answer",
    [
        None,
        [],
        {"compositeResponse": []},
        {"compositeResponse": [entry(204), entry(204, at=1)]},
        {"compositeResponse": [entry(204, at=1)]},
        {"compositeResponse": ["x"]},
        {"compositeResponse": [entry(204) | {"httpStatusCode": "204"}]},
    ],
)
def test_an_answer_that_does_not_account_for_every_record_is_none(answer: Any) -> None:
    assert composite.results(answer, 1) is None


# --- against the org ----------------------------------------------------------------------------------------------


def test_a_persons_edit_after_the_read_stands(org: RunningOrg, crm: SalesforceCrm) -> None:
    records = seen(crm, 0, 1, 2)
    org.simulator.edit("Contact", contact_id(1), {"Phone": "+1 typed"})

    outcomes = write(crm, *(change(record) for record in records.values()))

    assert [outcome.written for outcome in outcomes] == [Written.WRITTEN, Written.MOVED, Written.WRITTEN]
    assert org.field(contact_id(1), "Title") != "CTO"
    assert org.field(contact_id(1), "Phone") == "+1 typed"
    assert org.field(contact_id(2), "Title") == "CTO"


def test_a_record_read_again_after_it_moved_is_written(org: RunningOrg, crm: SalesforceCrm) -> None:
    records = seen(crm, 0)
    org.simulator.edit("Contact", contact_id(0), {"Phone": "+1 typed"})
    write(crm, change(records[0]))

    (outcome,) = write(crm, change(seen(crm, 0)[0]))

    assert outcome.written is Written.WRITTEN


@pytest.mark.parametrize(("later_s", "written"), [(1.0, Written.MOVED), (0.4, Written.WRITTEN)])
def test_the_guard_alone_does_not_see_an_edit_in_the_very_second_of_the_one_before_it(
    later_s: float, written: Written
) -> None:
    """If-Unmodified-Since has whole seconds (contracts/salesforce.md 2.5, 2026-11). This org's clock stands still long
    ago, so nobody waits for the second to end; what closes the hole is tested below."""
    moment = [1_793_534_400.0]
    with running_org(now=lambda: moment[0]) as org:
        crm = org.crm()
        org.simulator.edit("Contact", contact_id(0), {"Phone": "+1 first"})
        record = seen(crm, 0)[0]
        moment[0] += later_s
        org.simulator.edit("Contact", contact_id(0), {"Phone": "+1 second"})

        (outcome,) = write(crm, change(record))
        crm.close()

    assert outcome.written is written


def test_twenty_five_records_go_in_a_call(org: RunningOrg, crm: SalesforceCrm) -> None:
    records = seen(crm, *range(260))

    outcomes = write(crm, *(change(record) for record in records.values()))

    assert {outcome.written for outcome in outcomes} == {Written.WRITTEN}
    assert org.calls("composite") == 8 + 3
    assert crm.calls()["write"] == 11


def test_what_was_not_read_is_written_unguarded(org: RunningOrg, crm: SalesforceCrm) -> None:
    org.simulator.edit("Contact", contact_id(0), {"Phone": "+1 typed"})

    (outcome,) = write(crm, change(None))

    assert outcome.written is Written.WRITTEN


def test_what_was_read_without_a_version_is_not_sent(org: RunningOrg, crm: SalesforceCrm) -> None:
    ref = RecordRef(crm="salesforce", object_type="Contact", id=contact_id(0))

    (outcome,) = write(crm, change(Record(ref=ref, values={})))

    assert outcome.written is Written.NOT_WRITTEN
    assert "cannot be guarded" in outcome.reason
    assert org.calls("composite") == 0


def test_a_bad_field_costs_itself_and_the_rest_is_still_guarded(org: RunningOrg, crm: SalesforceCrm) -> None:
    records = seen(crm, *range(30))
    bad: dict[str, Value] = {"Title": "VP", "Seniority__c": "Chief", "LinkedIn__c": "x" * 300}

    outcomes = write(crm, change(records[0], **bad), *(change(records[n]) for n in range(1, 30)))

    assert {outcome.written for outcome in outcomes} == {Written.WRITTEN}
    assert [name for name, _ in outcomes[0].dropped] == ["Seniority__c", "LinkedIn__c"]
    assert org.field(contact_id(0), "Title") == "VP"
    assert org.calls("composite") == 4


def test_each_record_that_cannot_be_written_says_why(org: RunningOrg, crm: SalesforceCrm) -> None:
    records = seen(crm, 1, 2, 3)
    org.simulator.edit("Contact", contact_id(1), {"IsDeleted": True})
    lead = RecordRef(crm="salesforce", object_type="Lead", id=lead_id(5))

    outcomes = write(crm, change(records[1]), change(None, 999_999), change(records[2], Title="Grand Wizard"))
    (converted,) = crm.write("Lead", [WriteRequest(ref=lead, values={"Title": "CTO"})], mode=WriteMode.STRICT)

    assert [(outcome.written, outcome.code) for outcome in [*outcomes, converted]] == [
        (Written.GONE, "ENTITY_IS_DELETED"),
        (Written.GONE, "NOT_FOUND"),
        (Written.REJECTED, "FIELD_CUSTOM_VALIDATION_EXCEPTION"),
        (Written.GONE, "CANNOT_UPDATE_CONVERTED_LEAD"),
    ]


def test_a_column_that_is_gone_is_left_out_from_then_on() -> None:
    with running_org() as before, running_org(hidden={"Contact": ["Title"]}) as after:
        described, crm = before.crm(), after.crm()
        crm._schemas["Contact"] = described.describe("Contact")

        outcomes = write(crm, *(change(None, n, Title="CTO", Phone=f"+1 {n}") for n in range(30)))
        described.close()
        crm.close()

        assert {outcome.written for outcome in outcomes} == {Written.WRITTEN}
        assert {name for outcome in outcomes for name, _ in outcome.dropped} == {"Title"}
        assert after.field(contact_id(29), "Phone") == "+1 29"
        assert after.calls("composite") == 3


def test_locked_records_and_ones_in_trouble_are_tried_again_alone(org: RunningOrg, crm: SalesforceCrm) -> None:
    records = seen(crm, *range(30))
    org.simulator.edit("Contact", contact_id(1), {"$lock": 2})
    org.simulator.edit("Contact", contact_id(2), {"$fail": 1})
    org.simulator.edit("Contact", contact_id(3), {"$lock": 9})
    org.simulator.edit("Contact", contact_id(4), {"$fail": 9})

    outcomes = write(crm, *(change(record) for record in records.values()))

    assert [outcome.written for outcome in outcomes[:5]] == [
        Written.WRITTEN, Written.WRITTEN, Written.WRITTEN, Written.REJECTED, Written.UNACCOUNTED,
    ]  # fmt: skip
    assert outcomes[3].code == "UNABLE_TO_LOCK_ROW"
    assert org.calls("composite") == 2 + 4
    assert org.clock.slept == [1, 2, 4, 8]


@pytest.mark.parametrize("what", ["500", "502_html", "cut", "garbage", "wrong_type", "empty", "reset", "408"])
def test_a_call_that_was_done_before_its_answer_was_lost_is_read_again_and_not_taken_for_a_persons_edit(
    org: RunningOrg, crm: SalesforceCrm, what: str
) -> None:
    records = seen(crm, 0, 1)
    org.spoil("composite", what, when="after")

    outcomes = write(crm, change(records[0]), change(records[1]))

    assert [outcome.written for outcome in outcomes] == [Written.UNACCOUNTED] * 2
    assert "by a try of ours" in outcomes[0].reason
    assert org.field(contact_id(0), "Title") == "CTO"


@pytest.mark.parametrize("what", ["500", "cut", "reset", "garbage", "403", "429", "401"])
def test_a_fault_before_the_call_is_not_noticed(org: RunningOrg, crm: SalesforceCrm, what: str) -> None:
    records = seen(crm, 0, 1)
    org.spoil("composite", what, when="before")

    outcomes = write(crm, change(records[0]), change(records[1]))

    assert [outcome.written for outcome in outcomes] == [Written.WRITTEN] * 2


def test_an_answer_that_never_comes_is_unaccounted(org: RunningOrg, crm: SalesforceCrm) -> None:
    records = seen(crm, *range(60))
    org.spoil("composite", "cut", when="after", times=5)

    outcomes = write(crm, *(change(record) for record in records.values()))

    assert [outcome.written for outcome in outcomes] == [Written.UNACCOUNTED] * 25 + [Written.WRITTEN] * 35


@pytest.mark.parametrize("mode", [WriteMode.FAST, WriteMode.STRICT])
def test_a_field_is_erased_where_it_was_asked_for(org: RunningOrg, crm: SalesforceCrm, mode: WriteMode) -> None:
    org.simulator.edit("Contact", contact_id(0), {"Title": "CTO", "Phone": "+1 0", "LastName": "Curie"})
    record = seen(crm, 0)[0]
    values: dict[str, Value] = {"Title": None, "Phone": "", "LastName": None, "Department": "IT"}
    request = WriteRequest(ref=record.ref, values=values, seen=record, erase=frozenset({"Title", "LastName"}))

    (outcome,) = crm.write("Contact", [request], mode=mode)

    assert outcome.written is Written.WRITTEN
    assert {name for name, _ in outcome.dropped} == {"Phone", "LastName"}
    after = org.simulator.edit("Contact", contact_id(0), {})
    assert [after[name] for name in values] == [None, "+1 0", "Curie", "IT"]


# --- a rule of the org's own --------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", [WriteMode.FAST, WriteMode.STRICT])
def test_the_field_a_rule_forbids_is_found_and_the_rest_written(
    org: RunningOrg, crm: SalesforceCrm, mode: WriteMode
) -> None:
    records = seen(crm, 0, 1, 2)
    requests = [
        change(records[0], Department="IT", Title="Grand Wizard", MailingCity="Bonn"),
        change(records[1], Department="IT", Title="CTO", MailingCity="Bonn", Phone="+1 000"),
        change(records[2], Department="IT", Title="Grand Wizard", MailingCity="Bonn", Phone="+1 000"),
    ]

    outcomes = crm.write("Contact", requests, mode=mode)

    assert [outcome.written for outcome in outcomes] == [Written.WRITTEN] * 3
    assert dict(outcomes[0].dropped) == {
        "Title": "FIELD_CUSTOM_VALIDATION_EXCEPTION: No wizards, please. (without it that was no longer said)"
    }
    assert [name for name, _ in outcomes[1].dropped] == ["Phone"]
    assert [name for name, _ in outcomes[2].dropped] == ["Title", "Phone"]
    assert (org.field(contact_id(0), "Department"), org.field(contact_id(1), "MailingCity")) == ("IT", "Bonn")
    assert crm.calls()["write"] <= 1 + 4


def test_a_rule_that_no_field_of_ours_breaks_refuses_the_record_after_a_bounded_number_of_calls() -> None:
    names = ("FirstName", "Title", "Phone", "MobilePhone", "Fax", "Department", "MailingCity", "MailingState", "Email")
    always = tuple(
        ValidationRule(object_type="Contact", field=name, forbidden="", message="Closed.", names_field=False)
        for name in names
    )
    with running_org(validation_rules=always) as org:
        crm = org.crm()
        (outcome,) = crm.write("Contact", [change(None, **dict.fromkeys(names, "a@b.example"))])
        crm.close()

    assert (outcome.written, outcome.code) == (Written.REJECTED, "FIELD_CUSTOM_VALIDATION_EXCEPTION")
    assert outcome.reason == "FIELD_CUSTOM_VALIDATION_EXCEPTION: Closed."
    assert org.calls("write") == 1 + 8


# --- within one second ----------------------------------------------------------------------------------------------


def test_an_edit_in_the_very_second_of_the_one_before_it_stands(org: RunningOrg) -> None:
    crm = org.crm(clock=SystemClock())
    seen(crm, 1, 2)
    # At the beginning of a second, so that both edits and our read are within it.
    time.sleep(1.02 - time.time() % 1)
    for number in (1, 2):
        org.simulator.edit("Contact", contact_id(number), {"Department": "Sales"})
    records = seen(crm, 1, 2)
    org.simulator.edit("Contact", contact_id(1), {"Title": "Typed by a person"})

    outcomes = write(crm, change(records[1]), change(records[2]))
    crm.close()

    assert [outcome.written for outcome in outcomes] == [Written.MOVED, Written.WRITTEN]
    assert org.field(contact_id(1), "Title") == "Typed by a person"
    assert org.field(contact_id(2), "Title") == "CTO"


def test_records_that_rested_are_written_without_waiting(org: RunningOrg, crm: SalesforceCrm) -> None:
    records = seen(crm, *range(50))
    reads = crm.calls()["read"]

    outcomes = write(crm, *(change(record) for record in records.values()))

    assert {outcome.written for outcome in outcomes} == {Written.WRITTEN}
    assert crm.calls()["read"] == reads
