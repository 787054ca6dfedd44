"""HubSpot's words and ours: properties, values, problems and batch answers, as plain functions."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.hubspot import wire
from crm_sync.domain.records import FieldKind, Value
from crm_sync.errors import (
    ContractError,
    CredentialsError,
    QuotaError,
    RateLimitError,
    RefusedError,
    TransientError,
)
from tests.adapters.hubspot_schema import CONTACTS, contacts_schema

NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)


# --- paths


def test_todays_paths_are_the_librarys_own() -> None:
    assert wire.versioned("/crm/v3/objects/contacts/search") == "/crm/v3/objects/contacts/search"


def test_one_constant_moves_every_crm_path_to_a_dated_version() -> None:
    assert (
        wire.versioned("/crm/v3/objects/contacts/batch/read", "2026-09") == "/crm/objects/2026-09/contacts/batch/read"
    )
    assert wire.versioned("/crm/v3/properties/companies", "2026-09") == "/crm/properties/2026-09/companies"
    assert wire.versioned("/oauth/v1/token", "2026-09") == "/oauth/v1/token"


@pytest.mark.parametrize(
    ("method", "path", "operation"),
    [
        ("POST", "/oauth/v1/token", "token"),
        ("GET", "/crm/v3/properties/contacts", "properties"),
        ("POST", "/crm/v3/objects/contacts/search", "search"),
        ("GET", "/crm/v3/objects/contacts", "list"),
        ("GET", "/crm/v3/objects/contacts/101", "read"),
        ("POST", "/crm/v3/objects/contacts/batch/read", "read"),
        ("POST", "/crm/v3/objects/contacts/batch/update", "write"),
        ("GET", "/account-info/v3/details", "account"),
        ("GET", "/crm/objects/2026-09/contacts", "list"),
    ],
)
def test_every_request_is_counted_under_one_word(method: str, path: str, operation: str) -> None:
    assert wire.operation_of(method, path) == operation


def test_a_records_own_url_tells_the_portal_and_its_host() -> None:
    raw = {"url": "https://app-eu1.hubspot.com/contacts/4711/record/0-1/101"}

    portal = wire.portal_of(raw)

    assert portal == ("4711", "app-eu1.hubspot.com")
    assert wire.record_url(*portal, "companies", "9") == "https://app-eu1.hubspot.com/contacts/4711/record/0-2/9"
    assert wire.portal_of({"url": "https://evil.example/contacts/1/record/0-1/1"}) is None
    assert wire.portal_of({}) is None


# --- properties


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("hs_object_id", FieldKind.ID),
        ("email", FieldKind.EMAIL),
        ("jobtitle", FieldKind.TEXT),
        ("notes", FieldKind.LONG_TEXT),
        ("phone", FieldKind.PHONE),
        ("hs_linkedin_url", FieldKind.URL),
        ("website", FieldKind.URL),
        ("hs_seniority", FieldKind.PICKLIST),
        ("topics", FieldKind.MULTI_PICKLIST),
        ("score", FieldKind.DECIMAL),
        ("optout", FieldKind.BOOLEAN),
        ("born", FieldKind.DATE),
        ("seen", FieldKind.DATETIME),
        ("layout", FieldKind.OTHER),
        ("hubspot_owner_id", FieldKind.OTHER),
        ("associatedcompanyid", FieldKind.REFERENCE),
    ],
)
def test_each_property_type_becomes_the_kind_a_mapping_aims_at(name: str, kind: FieldKind) -> None:
    assert contacts_schema().fields[name].kind is kind


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("hs_object_id", "read-only"),
        ("hs_calculated_phone_number", "calculates"),
        ("old_field", "archived"),
        ("email", "409"),
        ("lifecyclestage", "forward"),
    ],
)
def test_an_unwritable_property_says_why(name: str, words: str) -> None:
    field = contacts_schema().fields[name]

    assert not field.writable
    assert words in field.why_not


def test_a_plain_property_is_writable_and_bounded() -> None:
    field = contacts_schema().fields["jobtitle"]

    assert field.writable
    assert field.why_not == ""
    assert field.length == 65_536
    assert field.native_type == "string/text"


def test_the_company_of_a_contact_can_be_followed() -> None:
    assert contacts_schema().fields["associatedcompanyid"].refers_to == ("companies",)


def test_hidden_options_stay_valid_and_choices_are_restricted() -> None:
    raw = {**CONTACTS[12], "options": [{"value": "vp", "label": "VP", "hidden": True}]}

    field = wire.object_schema("hubspot", "contacts", [raw]).fields["hs_seniority"]

    assert [(c.value, c.label, c.active) for c in field.choices] == [("vp", "VP", True)]
    assert field.restricted


@pytest.mark.parametrize("junk", [None, 7, "name", {}, {"name": 3}, {"name": "x", "options": "no", "type": None}])
def test_untidy_property_entries_do_not_break_the_schema(junk: Any) -> None:
    schema = wire.object_schema("hubspot", "contacts", [junk, *CONTACTS])

    assert "jobtitle" in schema.fields


# --- values


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("jobtitle", "CTO", "CTO"),
        ("jobtitle", None, None),
        ("jobtitle", "", ""),
        ("score", "1500", 1500),
        ("score", "-3", -3),
        ("score", "12.50", Decimal("12.50")),
        ("score", "1.5E7", Decimal("15000000")),
        ("score", "lots", "lots"),
        ("score", "NaN", "NaN"),
        ("score", "", ""),
        ("optout", "true", True),
        ("optout", "false", False),
        ("topics", "a;b", ("a", "b")),
        ("topics", ";a", ("a",)),
        ("born", "2026-01-31", "2026-01-31"),
        ("associatedcompanyid", "77", "77"),
    ],
)
def test_hubspots_text_becomes_our_value(name: str, text: str | None, value: Value) -> None:
    read = wire.value_reader(contacts_schema(), [name])

    found = read({name: text})[name]

    assert found == value
    assert type(found) is type(value)


def test_a_record_has_a_key_for_every_field_asked_for_and_no_other() -> None:
    read = wire.value_reader(contacts_schema(), ["jobtitle", "score", "city"])

    assert read({"jobtitle": "CTO", "createdate": "2020"}) == {"jobtitle": "CTO", "score": None, "city": None}


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("CTO", "CTO"),
        (1_500_000, "1500000"),
        (1.5e15, "1500000000000000"),
        (0.1, "0.1"),
        (Decimal("1E+3"), "1000"),
        (Decimal("10.00"), "10"),
        (Decimal("0.00"), "0"),
        (True, "true"),
        (False, "false"),
        (("a", "b"), "a;b"),
        (("", "a"), "a"),
        ("2026-01-31", "2026-01-31"),
    ],
)
def test_our_value_becomes_hubspots_text(value: Value, text: str) -> None:
    assert wire.to_text(value) == text


@pytest.mark.parametrize("blank", [None, "", "   ", (), ("",), float("nan"), float("inf"), Decimal("NaN")])
def test_what_would_erase_or_cannot_be_said_is_no_text(blank: Value) -> None:
    assert wire.to_text(blank) is None


@given(st.one_of(st.integers(-(10**15), 10**15), st.decimals(-(10**12), 10**12, places=4), st.floats(-1e12, 1e12)))
def test_numbers_go_out_as_digits_with_at_most_one_point_and_come_back_equal(number: Any) -> None:
    text = wire.to_text(number)

    assert text is not None
    assert set(text) <= set("-0123456789.")
    assert text.count(".") <= 1
    back = wire.value_reader(contacts_schema(), ["score"])({"score": text})["score"]
    assert back == Decimal(repr(number) if isinstance(number, float) else number)


@pytest.mark.parametrize(
    ("sent", "returned", "kind", "same"),
    [
        ("CTO", "CTO", FieldKind.TEXT, True),
        ("CTO", "Chief", FieldKind.TEXT, False),
        ("CTO", None, FieldKind.TEXT, False),
        ("CTO", "", FieldKind.TEXT, False),
        ("A@B.test", "a@b.test", FieldKind.EMAIL, True),
        ("1500", "1500.0", FieldKind.DECIMAL, True),
        ("1500", "1501", FieldKind.DECIMAL, False),
        ("a;b", "b;a", FieldKind.MULTI_PICKLIST, True),
        ("+49 30 1", "+49301", FieldKind.PHONE, True),
    ],
)
def test_a_returned_value_is_compared_but_for_hubspots_way_of_writing(
    sent: str, returned: str | None, kind: FieldKind, same: bool
) -> None:
    assert wire.kept(sent, returned, kind) is same


@pytest.mark.parametrize(
    ("properties", "due"),
    [
        ({"jobtitle": "CTO", "city": "Bonn"}, False),
        ({"jobtitle": "CTO"}, True),
        ({"jobtitle": "CTO", "city": ""}, True),
        ({"jobtitle": "CTO", "city": "  "}, True),
        ({"jobtitle": " N/A ", "city": "Bonn"}, True),
        ({"jobtitle": "n/a or so", "city": "Bonn"}, False),
    ],
)
def test_blank_and_placeholder_are_found_in_hand(properties: dict[str, str], due: bool) -> None:
    lacks = wire.blank_checker(["jobtitle", "city"], ["n/a", "-"], contacts_schema())

    assert lacks(properties) is due


# --- problems

_OPTION_MESSAGE = (
    'Property values were not valid: [{"isValid":false,"message":"Softwares was not one of the allowed options: '
    '[label: \\"Accounting\\"\\nvalue: ACCOUNTING, COMPUTER_SOFTWARE]","error":"INVALID_OPTION","name":"industry"}]'
)


def test_findings_inside_the_message_are_read() -> None:
    problem = wire.parse_problem({"status": "error", "message": _OPTION_MESSAGE, "category": "VALIDATION_ERROR"})

    assert [(f.property, f.code) for f in problem.faults] == [("industry", "INVALID_OPTION")]
    assert problem.code == "INVALID_OPTION"
    assert "ACCOUNTING" not in problem.sentence()


def test_findings_in_errors_and_in_the_message_are_joined() -> None:
    problem = wire.parse_problem(
        {
            "message": _OPTION_MESSAGE,
            "errors": [
                {"message": "no", "code": "PROPERTY_DOESNT_EXIST", "context": {"propertyName": ["ghost"]}},
                {"message": "no", "code": "INVALID_OPTION", "context": {"propertyName": ["industry"]}},
            ],
        }
    )

    assert set(problem.properties()) == {"ghost", "industry"}


def test_trace_ids_and_record_ids_of_a_207_entry_are_read() -> None:
    entry = {"category": "VALIDATION_ERROR", "message": "x", "context": {"objectWriteTraceId": ["7"], "ids": [999]}}

    problem = wire.parse_problem(entry)

    assert problem.trace_ids == ("7",)
    assert problem.ids == ("999",)


@given(
    st.recursive(
        st.one_of(st.none(), st.booleans(), st.integers(), st.text()),
        lambda inner: st.one_of(
            st.lists(inner, max_size=3),
            st.dictionaries(
                st.sampled_from(["message", "errors", "context", "category", "ids", "code", "propertyName"]), inner
            ),
        ),
        max_leaves=12,
    )
)
def test_no_error_body_breaks_the_reading_of_it(body: Any) -> None:
    problem = wire.parse_problem(body)

    assert isinstance(problem.sentence(), str)


def test_sentences_hold_no_personal_data_and_do_not_run_on() -> None:
    text = wire.scrubbed(
        "Email address jane.doe@example.test is invalid, phone +49 (30) 123-4567 too, token pat-na1-abc-def. "
        + "x" * 900
    )

    assert "jane" not in text
    assert "123" not in text
    assert "pat-" not in text
    assert len(text) <= 300


def _refusal(status: int, body: dict[str, Any] | None = None, operation: str = "read", **headers: str) -> Exception:
    return wire.refusal(
        status=status,
        headers={name.replace("_", "-"): value for name, value in headers.items()},
        problem=wire.parse_problem(body),
        provider="hubspot",
        operation=operation,
        now=NOW,
    )


@pytest.mark.parametrize(
    ("status", "body", "operation", "expected"),
    [
        (400, {"category": "VALIDATION_ERROR"}, "write", RefusedError),
        (
            400,
            {"status": "BAD_REFRESH_TOKEN", "message": "missing refresh token"},
            "token",
            CredentialsError,
        ),
        (401, {"category": "INVALID_AUTHENTICATION"}, "read", CredentialsError),
        (404, {"category": "OBJECT_NOT_FOUND"}, "read", RefusedError),
        (409, {"category": "CONFLICT"}, "write", RefusedError),
        (414, None, "list", RefusedError),
        (423, {"message": "Locked"}, "write", RateLimitError),
        (429, {"policyName": "DAILY"}, "read", QuotaError),
        (429, {"message": "You have reached your daily limit."}, "read", QuotaError),
        (429, {"policyName": "SECONDLY"}, "search", RateLimitError),
        (477, None, "read", QuotaError),
        (500, None, "read", TransientError),
        (502, None, "read", RateLimitError),
        (503, None, "read", TransientError),
        (522, None, "read", ContractError),
        (524, None, "read", TransientError),
    ],
)
def test_each_status_becomes_the_error_that_names_the_remedy(
    status: int, body: dict[str, Any] | None, operation: str, expected: type[Exception]
) -> None:
    error = _refusal(status, body, operation)

    assert type(error) is expected
    assert "hubspot" in str(error)


@pytest.mark.parametrize(
    ("body", "operation", "headers", "seconds"),
    [
        ({"policyName": "SECONDLY"}, "read", {}, 1.0),
        ({"policyName": "TEN_SECONDLY_ROLLING"}, "read", {}, 10.0),
        ({"message": "You have reached your ten_secondly_rolling limit."}, "read", {}, 10.0),
        ({"message": "You have reached your secondly limit."}, "read", {}, 1.0),
        ({"category": "RATE_LIMITS"}, "search", {}, 1.0),
        ({"category": "RATE_LIMITS"}, "read", {}, 3.0),
        ({"policyName": "SECONDLY"}, "read", {"retry_after": "4"}, 4.0),
        ({"policyName": "SECONDLY"}, "read", {"retry_after": "10000"}, 30.0),
    ],
)
def test_a_429_is_waited_out_as_its_policy_asks(
    body: dict[str, Any], operation: str, headers: dict[str, str], seconds: float
) -> None:
    error = _refusal(429, body, operation, **headers)

    assert isinstance(error, RateLimitError)
    assert error.retry_after_s == seconds


def test_a_move_to_another_data_centre_says_when_to_come_back() -> None:
    assert "in 2:00:00 h" in str(_refusal(477, None, retry_after="7200"))
    assert "in 5 min" in str(_refusal(477, None, retry_after="300"))


def test_a_missing_scope_is_named() -> None:
    body = {
        "category": "MISSING_SCOPES",
        "errors": [{"message": "x", "context": {"requiredGranularScopes": ["crm.objects.contacts.write"]}}],
    }

    error = _refusal(403, body, "write")

    assert isinstance(error, CredentialsError)
    assert "crm.objects.contacts.write" in str(error)


# --- batch answers


def _record(record_id: str, **properties: str | None) -> dict[str, Any]:
    return {"id": record_id, "properties": properties}


def test_records_without_a_usable_id_are_no_records() -> None:
    body = {"results": [_record("7"), {"id": 8, "properties": {}}, {"id": "x", "properties": {}}, None, {"id": "9"}]}

    assert [raw["id"] for raw in wire.records_of(body)] == ["7"]


def test_a_merged_record_is_found_by_the_forebears_it_names() -> None:
    survivor = _record("305", hs_merged_object_ids="101; 102")

    paired = wire.pair_merged(["101", "103"], [_record("1"), survivor], {"1", "101", "103"}, certain=True)

    assert paired == {"101": survivor}


def test_one_id_and_one_stranger_left_over_belong_together() -> None:
    stranger = _record("305")

    assert wire.pair_merged(["101"], [_record("1"), stranger], {"1", "101"}, certain=True) == {"101": stranger}


@pytest.mark.parametrize(
    ("left", "records", "certain"),
    [
        (["101", "102"], [_record("305")], True),
        (["101"], [_record("305"), _record("306")], True),
        (["101"], [_record("305")], False),
        (["101"], [], True),
    ],
)
def test_a_doubtful_pairing_is_left_open(left: list[str], records: list[dict[str, Any]], certain: bool) -> None:
    assert wire.pair_merged(left, records, set(left), certain=certain) == {}


def test_ids_are_compared_as_numbers() -> None:
    assert wire.is_rising([_record("99"), _record("100")], "98")
    assert not wire.is_rising([_record("100"), _record("99")], "")
    assert not wire.is_rising([_record("100")], "100")


def test_a_lists_cursor_is_read_and_ends() -> None:
    assert wire.next_after(orjson.loads('{"paging":{"next":{"after":"52","link":"x"}}}')) == "52"
    assert wire.next_after({"paging": None}) == ""
    assert wire.next_after({}) == ""
