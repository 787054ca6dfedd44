"""Salesforce's JSON and our values, translated."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.salesforce import wire
from adapters.salesforce.wire import Fault, RefusedRequestError, SaveResult
from crm_sync.domain.records import Choice, FieldKind, Record, RecordRef, Value
from crm_sync.errors import (
    ContractError,
    CredentialsError,
    ProviderError,
    QuotaError,
    RateLimitError,
    RefusedError,
    TransientError,
)
from crm_sync.sandbox.salesforce import ids as sandbox_ids
from tests.adapters.salesforce_schema import a_field, contact, schema
from tests.sandbox import salesforce_recordings as recordings

NOON = datetime(2026, 10, 8, 12, 0, tzinfo=UTC)

# --- ids ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("full", ["0012300000bVTpmAAG", "003P000001avB4GIAU", "0037e00001WZ316AAD"])
def test_a_short_id_grows_the_suffix_that_salesforce_gives_it(full: str) -> None:
    # Ids of real orgs, from the recordings in the cumulusci wheel.
    assert wire.long_id(full[:15]) == full
    assert wire.long_id(full) == full


@given(st.text("ABCXYZabcxyz0189", min_size=15, max_size=15))
def test_every_short_id_grows_as_the_sandbox_says(short: str) -> None:
    assert wire.long_id(short) == short + sandbox_ids.checksum(short)


@pytest.mark.parametrize("text", ["", "123", "0012A00002I4MrbQA", "0012A00002I4Mr'", "0012A00002I4Mrb\n", "١" * 15])
def test_what_is_no_id_is_none(text: str) -> None:
    assert wire.long_id(text) is None


# --- describe -----------------------------------------------------------------------------------------------------


def test_fields_are_described_in_our_words() -> None:
    fields = schema().fields

    assert fields["Title"].kind is FieldKind.TEXT
    assert fields["Title"].length == 128
    assert (fields["Reports__c"].digits, fields["Reports__c"].length) == (8, None)
    assert (fields["Score__c"].digits, fields["Score__c"].scale) == (4, 2)
    assert fields["Level__c"].choices == (Choice(value="VP", label="VP"), Choice(value="Manager", label="MANAGER"))
    assert fields["Level__c"].restricted
    assert not fields["Bio__c"].filterable
    assert (fields["AccountId"].relationship, fields["AccountId"].refers_to) == ("Account", ("Account",))


@pytest.mark.parametrize(
    ("described", "said"),
    [
        (a_field("A", calculated=True, updateable=False), "calculates it"),
        (a_field("A", autoNumber=True, updateable=False), "numbers it"),
        (a_field("A", "address", updateable=False), "compound"),
        (a_field("A", deprecatedAndHidden=True), "retired"),
        (a_field("A", "id", updateable=False), "never changes it"),
        (a_field("A", "base64"), "type base64 cannot be filled"),
        (a_field("A", updateable=False), "not changed afterwards"),
        (a_field("A", updateable=False, createable=False), "field-level security"),
    ],
)
def test_a_field_that_cannot_be_written_says_why(described: dict[str, Any], said: str) -> None:
    field = wire.object_schema("sf", {"name": "X", "label": "X", "fields": [described]}).fields["A"]

    assert not field.writable
    assert said in field.why_not


def test_a_compound_field_names_its_parts() -> None:
    assert schema().fields["Name"].why_not.endswith("write its parts: FirstName, LastName")
    assert schema().fields["MailingAddress"].why_not.endswith("MailingCity")
    assert schema("Account").fields["Name"].writable


def test_an_inactive_choice_is_known_as_such() -> None:
    choices = [{"value": "Old", "label": "Old", "active": False}, {"value": None, "label": "?", "active": True}]
    described = {"name": "X", "fields": [a_field("A", "picklist", picklistValues=choices)]}

    assert wire.object_schema("sf", described).fields["A"].choices == (Choice(value="Old", label="Old", active=False),)


@pytest.mark.parametrize("described", [None, [], {}, {"name": "X"}, {"name": "X", "fields": [{}]}, {"fields": []}])
def test_what_is_no_describe_breaks_the_contract(described: Any) -> None:
    with pytest.raises(ContractError, match="described an object in a form"):
        wire.object_schema("sf", described)


@pytest.mark.parametrize("name", ["Account", "Contact", "Lead"])
def test_a_recorded_describe_of_a_real_org_is_read_whole(name: str) -> None:
    described = recordings.describe(name)

    read = wire.object_schema("sf", described)

    assert len(read.fields) == len(described["fields"])
    assert all(field.writable or field.why_not for field in read.fields.values())
    writable = {field.name for field in read.fields.values() if field.writable}
    assert "Phone" in writable
    assert not writable & {"Id", "CreatedDate", "SystemModstamp", "PhotoUrl", "BillingAddress", "MailingAddress"}
    if name == "Contact":
        assert "FirstName, " in read.fields["Name"].why_not or ", FirstName" in read.fields["Name"].why_not
    else:
        # contracts/salesforce.md 2.6
        assert read.fields["NumberOfEmployees"].digits == 8
        assert (read.fields["AnnualRevenue"].digits, read.fields["AnnualRevenue"].scale) == (18, 0)
        assert len(read.fields["Industry"].choices) == 32
        assert not read.fields["Industry"].restricted


# --- records ------------------------------------------------------------------------------------------------------


def test_a_row_becomes_a_record_under_the_names_asked_for() -> None:
    read = wire.record_reader(
        "sf", schema(), {"Title": "Title", "account.website": "Account.Website", "Topics__c": "Topics__c"}
    )
    row = {"Id": contact(1), "Title": None, "Account": {"Website": "acme.com"}, "Topics__c": "Sales;HR"}

    assert read(row) == Record(
        ref=RecordRef(crm="sf", object_type="Contact", id=contact(1)),
        values={"Title": None, "account.website": "acme.com", "Topics__c": ("Sales", "HR")},
    )


def test_a_record_without_a_parent_has_no_value_of_it() -> None:
    read = wire.record_reader("sf", schema(), {"p": "Account.Parent.Name", "t": "Topics__c"})

    assert read({"Id": contact(1), "Account": None}).values == {"p": None, "t": None}
    assert read({"Id": contact(1), "Account": {"Parent": None}}).values["p"] is None
    assert read({"Id": contact(1), "Account": {"Parent": {"Name": "A"}}}).values["p"] == "A"


def test_a_retrieved_record_in_the_wrong_place_is_never_taken() -> None:
    asked = [contact(1), contact(2)]
    rows = [{"Id": each} for each in asked]

    assert wire.retrieved([rows[0], None], asked) == [rows[0], None]
    assert wire.retrieved([rows[1], rows[0]], asked) is None
    assert wire.retrieved(rows[:1], asked) is None
    assert wire.retrieved(["unexpected", None], asked) is None
    assert wire.retrieved({"records": rows}, asked) is None


@pytest.mark.parametrize("answer", [None, [], ["unexpected"], {}, {"records": None}, {"records": [1]}])
def test_what_is_no_query_answer_is_none(answer: Any) -> None:
    assert wire.rows_of(answer) is None


# --- values -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("field", "value", "sent"),
    [
        ("Title", "CTO", "CTO"),
        ("Title", 5, "5"),
        ("Topics__c", ("Sales", "HR"), "Sales;HR"),
        ("DoNotCall", False, False),
        ("Reports__c", 51, 51),
        ("Reports__c", Decimal("51.0"), 51),
        ("Reports__c", " 51 ", 51),
        ("Score__c", Decimal("1.25"), 1.25),
        ("Score__c", 3.0, 3),
        ("Birthdate", "1980-01-31", "1980-01-31"),
    ],
)
def test_a_value_goes_out_as_its_fields_json_type(field: str, value: Value, sent: Any) -> None:
    result = wire.to_json(schema().fields[field], value)

    assert result == sent
    assert type(result) is type(sent)


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("Title", None, "does not erase"),
        ("Title", "", "does not erase"),
        ("Title", "  ", "does not erase"),
        ("Topics__c", (), "does not erase"),
        ("Title", True, "takes text"),
        ("Title", ("a", "b"), "one value"),
        ("Topics__c", ("a;b",), "semicolon"),
        ("DoNotCall", "true", "true or false"),
        ("Reports__c", "51-200", "not a number"),
        ("Reports__c", 5.5, "whole number"),
        ("Reports__c", True, "takes a number"),
        ("Score__c", float("nan"), "not a number"),
        ("Score__c", Decimal("Infinity"), "not a number"),
        ("Score__c", 10**400, "too large"),
    ],
)
def test_a_value_that_could_spoil_a_whole_call_is_refused_first(field: str, value: Value, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        wire.to_json(schema().fields[field], value)


@given(st.decimals(allow_nan=True, allow_infinity=True) | st.floats() | st.integers() | st.text(max_size=8))
def test_no_number_ever_goes_out_as_null(value: Any) -> None:
    try:
        sent = wire.to_json(schema().fields["Score__c"], value)
    except ValueError:
        return
    assert orjson.loads(orjson.dumps(sent)) is not None


# --- results of a write -------------------------------------------------------------------------------------------


def test_results_are_paired_by_position() -> None:
    answer = [
        {"id": contact(1), "success": True, "errors": []},
        {"success": False, "errors": [{"statusCode": "STRING_TOO_LONG", "message": "m", "fields": ["Title"]}]},
        {"id": contact(3), "success": True, "errors": []},
    ]

    assert wire.save_results(answer, [contact(1), contact(2), contact(3)]) == [
        wire.SAVED,
        SaveResult((Fault("STRING_TOO_LONG", "m", ("Title",)),)),
        wire.SAVED,
    ]


@pytest.mark.parametrize(
    "answer",
    [
        None,
        [],
        {},
        ["unexpected"],
        [{"success": True, "id": contact(1)}] * 2,
        [{"success": True, "id": contact(9)}],
        [{"success": "true"}],
        [{}],
    ],
)
def test_an_answer_that_does_not_account_for_each_record_in_its_place_is_none(answer: Any) -> None:
    assert wire.save_results(answer, [contact(1)]) is None


def test_a_refusal_without_a_reason_is_still_a_refusal() -> None:
    (result,) = wire.save_results([{"success": False}], [contact(1)]) or []

    assert [fault.code for fault in result.faults] == ["UNKNOWN"]


def test_recorded_results_of_a_real_org_are_read() -> None:
    cassette = "cumulusci/tasks/bulkdata/tests/cassettes/TestUpdatesIntegrationTests.test_updates_task.yaml"
    ((request, answer),) = recordings.answers(cassette, "PATCH", "composite/sobjects")
    sent = [record["Id"] for record in request["records"]]

    assert len(sent) > 1
    assert wire.save_results(answer, sent) == [wire.SAVED] * len(sent)


def test_a_recorded_query_answer_of_a_real_org_is_read() -> None:
    cassette = "cumulusci/tasks/bulkdata/tests/cassettes/TestUpdatesIntegrationTests.test_updates_task.yaml"
    answer = recordings.answers(cassette, "GET", "query")[0][1]
    read = wire.record_reader("sf", schema("Account"), {"Name": "Name"})

    records = [read(row) for row in wire.rows_of(answer) or []]

    assert records[0].ref.id == "0012300000bVTq1AAG"
    assert records[0].values == {"Name": "Account 4"}


@pytest.mark.parametrize(
    ("code", "message", "locked", "overload"),
    [
        ("UNABLE_TO_LOCK_ROW", "unable to obtain exclusive access", True, False),
        ("CANNOT_INSERT_UPDATE_ACTIVATE_ENTITY", "T: UNABLE_TO_LOCK_ROW, unable to obtain", True, False),
        ("CANNOT_INSERT_UPDATE_ACTIVATE_ENTITY", "T: Too many SOQL queries: 101", False, True),
        ("CANNOT_EXECUTE_FLOW_TRIGGER", "Apex CPU time limit exceeded", False, True),
        ("CANNOT_EXECUTE_FLOW_TRIGGER", "the flow failed", False, False),
        ("FIELD_CUSTOM_VALIDATION_EXCEPTION", "UNABLE_TO_LOCK_ROW is no title", False, False),
    ],
)
def test_locks_and_overload_are_seen_behind_a_triggers_words(
    code: str, message: str, locked: bool, overload: bool
) -> None:
    fault = Fault(code, message, ())

    assert (fault.is_lock, fault.is_overload) == (locked, overload)


# --- errors -------------------------------------------------------------------------------------------------------


def an_error(status: int, body: Any, headers: dict[str, str] | None = None) -> ProviderError:
    raw = body if isinstance(body, bytes) else orjson.dumps(body)
    return wire.refusal(
        status=status, headers=headers or {}, body=raw, provider="salesforce", operation="write", now=NOON
    )


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (401, [{"errorCode": "INVALID_SESSION_ID", "message": "Session expired or invalid"}], CredentialsError),
        (401, [{"errorCode": "INVALID_AUTH_HEADER", "message": "x"}], CredentialsError),
        (401, b"<html>sign in to the proxy</html>", CredentialsError),
        (403, [{"errorCode": "API_DISABLED_FOR_ORG", "message": "x"}], CredentialsError),
        (403, [{"errorCode": "REQUEST_LIMIT_EXCEEDED", "message": "TotalRequests Limit exceeded."}], QuotaError),
        (403, [{"errorCode": "REQUEST_LIMIT_EXCEEDED", "message": "ConcurrentRequests Limit"}], RateLimitError),
        (429, b"", RateLimitError),
        (420, b"Enhance your calm", RateLimitError),
        (406, b"", RateLimitError),
        (500, [{"errorCode": "UNKNOWN_EXCEPTION", "message": "ErrorId: 5-5"}], TransientError),
        (502, b"<html>Bad Gateway</html>", TransientError),
        (503, b"\xff\xfe", TransientError),
        (400, [{"errorCode": "SERVER_UNAVAILABLE", "message": "busy"}], TransientError),
        (400, [{"errorCode": "MALFORMED_QUERY", "message": "x"}], RefusedError),
        (404, [{"errorCode": "NOT_FOUND", "message": "x"}], RefusedError),
        (414, b"<h1>Bad Message 414</h1>", RefusedError),
        (400, b"[]", RefusedError),
        (400, b'{"a": 1}', RefusedError),
    ],
)
def test_each_error_is_sorted_by_remedy(status: int, body: Any, kind: type[ProviderError]) -> None:
    error = an_error(status, body)

    assert isinstance(error, kind)
    assert isinstance(error, RateLimitError) == (kind is RateLimitError)
    assert (error.provider, error.operation, error.status) == ("salesforce", "write", status)
    assert "html" not in str(error).casefold()


def test_a_wait_that_is_asked_for_is_told() -> None:
    error = an_error(429, b"", {"retry-after": "7"})

    assert isinstance(error, RateLimitError)
    assert error.retry_after_s == 7


@pytest.mark.parametrize(
    ("body", "columns"),
    [
        ({"errorCode": "INVALID_FIELD", "message": "No such column 'A__c' on sobject of type Contact"}, ("A__c",)),
        ({"errorCode": "INVALID_FIELD", "message": "x", "fields": ["B__c"]}, ("B__c",)),
        ({"errorCode": "JSON_PARSER_ERROR", "message": "No such column 'A__c'"}, ()),
    ],
)
def test_an_unknown_column_is_named(body: dict[str, Any], columns: tuple[str, ...]) -> None:
    error = an_error(400, [body])

    assert isinstance(error, RefusedRequestError)
    assert error.columns == columns


def test_a_refused_query_is_told_without_its_text() -> None:
    message = "\nWHERE Email = 'ada@lovelace.example'\n      ^\nERROR at Row:1:Column:42\nunexpected token: 'x'"

    error = an_error(400, [{"errorCode": "MALFORMED_QUERY", "message": message}])

    assert str(error) == "salesforce refused write (MALFORMED_QUERY: unexpected token: 'x')"


@pytest.mark.parametrize(
    "private", ["ada@lovelace.example", "+49 (30) 123456-78", "Bearer abc.def", "00Dxx0000001gERabc!AQ4AQ.x_y"]
)
def test_nothing_private_is_shown(private: str) -> None:
    shown = wire.scrubbed(f"Email: invalid: {private} (x)")

    assert private not in shown
    assert shown == "Email: invalid: … (x)"


@pytest.mark.parametrize(
    ("body", "expired"),
    [
        ([{"errorCode": "INVALID_SESSION_ID", "message": "Session expired or invalid"}], True),
        (
            [{"errorCode": "INVALID_SESSION_ID", "message": "This session is not valid for use with the REST API"}],
            False,
        ),
        ([{"errorCode": "INVALID_SESSION_ID", "message": "This session is not valid for the REST API"}], False),
        ([{"errorCode": "INVALID_SESSION_ID", "message": "The app is not attached to an agent"}], False),
        ([{"errorCode": "INVALID_AUTH_HEADER", "message": "x"}], False),
        (b"<html>", False),
        (b"[]", False),
    ],
)
def test_only_an_ended_session_is_worth_a_new_log_in(body: Any, expired: bool) -> None:
    raw = body if isinstance(body, bytes) else orjson.dumps(body)

    assert wire.is_expired(401, raw) is expired
    assert not wire.is_expired(403, raw)
