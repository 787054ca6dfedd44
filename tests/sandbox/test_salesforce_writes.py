"""Writing and re-reading by id: one result per record, in order, and each of the service's refusals."""

from __future__ import annotations

from typing import Any

import pytest

from crm_sync.sandbox.salesforce import ValidationRule, auth
from tests.sandbox.salesforce_org import OrgClient, account_id, contact_id, lead_id

RULE = ValidationRule(object_type="Contact", field="Title", forbidden="wizard", message="No wizards, please.")


@pytest.fixture
def org() -> OrgClient:
    return OrgClient(contacts=60, validation_rules=[RULE])


def verdict(org: OrgClient, fields: dict[str, Any], *, index: int = 0, object_type: str = "Contact") -> dict[str, Any]:
    """Write one record between two sound neighbours and return its result; the neighbours must have been saved."""
    make = {"Contact": contact_id, "Lead": lead_id, "Account": account_id}[object_type]
    answer = org.update(
        {"Id": make(index + 1), "Phone": "1"},
        {"Id": make(index), **fields},
        {"Id": make(index + 2), "Phone": "2"},
        object_type=object_type,
    )
    assert answer.status_code == 200, answer.text
    before, middle, after = answer.json
    assert before == {"id": make(index + 1), "success": True, "errors": []}
    assert after == {"id": make(index + 2), "success": True, "errors": []}
    return middle


def test_a_written_value_is_kept_trimmed_behind_and_stamped(org: OrgClient) -> None:
    was = org.field(contact_id(0), "LastModifiedDate")

    assert verdict(org, {"Title": " Head of Sales  "}) == {"id": contact_id(0), "success": True, "errors": []}

    assert org.field(contact_id(0), "Title") == " Head of Sales"
    assert was < org.field(contact_id(0), "LastModifiedDate") == "2026-11-01T12:00:00.000+0000"
    assert org.field(contact_id(0), "SystemModstamp") == "2026-11-01T12:00:00.000+0000"
    assert org.field(contact_id(0), "LastModifiedById") == auth.INTEGRATION_USER


def test_a_blank_text_is_null_and_a_number_given_as_text_is_a_number(org: OrgClient) -> None:
    verdict(org, {"Phone": "  ", "NumberOfEmployees": "10000"}, object_type="Account")

    assert org.field(account_id(0), "Phone", "Account") is None
    assert org.field(account_id(0), "NumberOfEmployees", "Account") == 10000


def test_money_is_rounded_to_the_fields_scale(org: OrgClient) -> None:
    verdict(org, {"AnnualRevenue": 1234567.5}, object_type="Account")

    assert org.field(account_id(0), "AnnualRevenue", "Account") == 1234568.0


def test_a_datetime_comes_back_in_the_services_form(org: OrgClient) -> None:
    verdict(org, {"Apollo_Enriched_At__c": "2026-11-01T10:30:00+02:00"})

    assert org.field(contact_id(0), "Apollo_Enriched_At__c") == "2026-11-01T08:30:00.000+0000"


def test_a_record_can_be_named_by_its_short_id_and_any_case_of_field(org: OrgClient) -> None:
    answer = org.update({"id": contact_id(0)[:15], "title": "CTO"}).json

    assert answer == [{"id": contact_id(0), "success": True, "errors": []}]
    assert org.field(contact_id(0)[:15], "Title") == "CTO"


@pytest.mark.parametrize(
    ("fields", "code", "message", "named"),
    [
        ({"Title": "x" * 129}, "STRING_TOO_LONG", "Title: data value too large: {} (max length=128)", "Title"),
        (
            {"Seniority__c": "Wizard"},
            "INVALID_OR_NULL_FOR_RESTRICTED_PICKLIST",
            "Seniority: bad value for restricted picklist field: {}",
            "Seniority__c",
        ),
        (
            {"Seniority__c": "Chief"},
            "INVALID_OR_NULL_FOR_RESTRICTED_PICKLIST",
            "Seniority: bad value for restricted picklist field: {}",
            "Seniority__c",
        ),
        ({"Email": "no address"}, "INVALID_EMAIL_ADDRESS", "Email: invalid email address: {}", "Email"),
        (
            {"MailingLatitude": 91.0},
            "NUMBER_OUTSIDE_VALID_RANGE",
            "Mailing Latitude: value outside of valid range on numeric field: {}",
            "MailingLatitude",
        ),
        ({"LastName": " "}, "REQUIRED_FIELD_MISSING", "Required fields are missing: [LastName]", "LastName"),
        ({"AccountId": "acme"}, "MALFORMED_ID", "Account ID: id value of incorrect type: {}", "AccountId"),
        (
            {"AccountId": contact_id(3)},
            "MALFORMED_ID",
            "Account ID: id value of incorrect type: {}",
            "AccountId",
        ),
        ({"Title": "Chief Wizard"}, "FIELD_CUSTOM_VALIDATION_EXCEPTION", "No wizards, please.", "Title"),
    ],
)
def test_a_bad_value_costs_its_own_record_only(
    org: OrgClient, fields: dict[str, Any], code: str, message: str, named: str
) -> None:
    was = org.field(contact_id(0), named)

    result = verdict(org, fields | {"Phone": "+1 555 0100"})

    (value,) = fields.values()
    assert result == {
        "success": False,
        "errors": [{"statusCode": code, "message": message.format(value), "fields": [named]}],
    }
    assert org.field(contact_id(0), named) == was
    assert org.field(contact_id(0), "Phone") != "+1 555 0100"


@pytest.mark.parametrize("field", ["Name", "CreatedDate", "IsDeleted", "MailingAddress", "MasterRecordId"])
def test_a_read_only_field_is_refused_for_its_record(org: OrgClient, field: str) -> None:
    error = verdict(org, {field: None, "Title": "CTO"})["errors"][0]

    assert (error["statusCode"], error["fields"]) == ("INVALID_FIELD_FOR_INSERT_UPDATE", [field])
    assert error["message"].startswith(f"Unable to create/update fields: {field}. Please check the security settings")


def test_employees_have_eight_digits(org: OrgClient) -> None:
    fits = verdict(org, {"NumberOfEmployees": 99_999_999}, object_type="Account")
    too_many = verdict(org, {"NumberOfEmployees": 100_000_000}, object_type="Account")

    assert fits["success"]
    assert too_many["errors"][0]["statusCode"] == "NUMBER_OUTSIDE_VALID_RANGE"


@pytest.mark.parametrize(
    ("object_type", "field", "value"),
    [
        ("Account", "AnnualRevenue", 10**18),
        ("Account", "AnnualRevenue", 1e300),
        ("Account", "BillingLatitude", 2**63),
        ("Contact", "MailingLongitude", -180.1),
    ],
)
def test_a_number_of_any_size_is_refused_for_its_record_only(
    org: OrgClient, object_type: str, field: str, value: float
) -> None:
    error = verdict(org, {field: value}, object_type=object_type)["errors"][0]

    assert (error["statusCode"], error["fields"]) == ("NUMBER_OUTSIDE_VALID_RANGE", [field])


def test_an_industry_outside_the_list_is_taken_as_by_the_real_service(org: OrgClient) -> None:
    assert verdict(org, {"Industry": "logistics & supply chain"}, object_type="Account")["success"]
    assert verdict(org, {"Industry": "x" * 41}, object_type="Account")["errors"][0]["statusCode"] == "STRING_TOO_LONG"


@pytest.mark.parametrize(
    ("record_id", "code"),
    [
        (None, "MISSING_ARGUMENT"),
        ("nonsense", "MALFORMED_ID"),
        (contact_id(0)[:15] + "AAA", "MALFORMED_ID"),
        (contact_id(0).lower(), "MALFORMED_ID"),
        (account_id(0), "MALFORMED_ID"),
        (contact_id(60), "INVALID_CROSS_REFERENCE_KEY"),
        ("0035500001H9cakAAB", "INVALID_CROSS_REFERENCE_KEY"),
    ],
)
def test_an_id_that_names_nobody_is_refused_for_its_record(org: OrgClient, record_id: str | None, code: str) -> None:
    answer = org.update({"Id": record_id, "Title": "CTO"}, {"Id": contact_id(1), "Title": "CTO"}).json

    assert answer[0]["errors"][0]["statusCode"] == code
    assert "id" not in answer[0]
    assert answer[1]["success"]


def test_a_deleted_record_and_a_converted_lead_cannot_be_written(org: OrgClient) -> None:
    org.simulator.edit("Contact", contact_id(0), {"IsDeleted": True})

    deleted = org.update({"Id": contact_id(0), "Title": "CTO"}).json[0]["errors"][0]
    converted = org.update({"Id": lead_id(5), "Title": "CTO"}, object_type="Lead").json[0]["errors"][0]

    assert deleted == {"statusCode": "ENTITY_IS_DELETED", "message": "entity is deleted", "fields": []}
    assert converted == {
        "statusCode": "CANNOT_UPDATE_CONVERTED_LEAD",
        "message": "cannot reference converted lead",
        "fields": [],
    }


def test_a_parent_must_exist_and_live(org: OrgClient) -> None:
    org.simulator.edit("Account", account_id(1), {"IsDeleted": True})

    unknown = verdict(org, {"AccountId": account_id(10**6)})
    gone = verdict(org, {"AccountId": account_id(1)})
    stranger = verdict(org, {"OwnerId": "0055e000A0q0999AAA"})
    moved = verdict(org, {"AccountId": account_id(2)[:15]})

    assert unknown["errors"][0]["statusCode"] == "INVALID_CROSS_REFERENCE_KEY"
    assert gone["errors"][0]["statusCode"] == "ENTITY_IS_DELETED"
    assert stranger["errors"][0]["statusCode"] in ("MALFORMED_ID", "INVALID_CROSS_REFERENCE_KEY")
    assert moved["success"]
    assert org.field(contact_id(0), "AccountId") == account_id(2)


def test_the_same_record_twice_in_a_call_is_written_once(org: OrgClient) -> None:
    answer = org.update(
        {"Id": contact_id(0), "Title": "First"}, {"Id": contact_id(0)[:15], "Title": "Second"}, {"Id": contact_id(1)}
    ).json

    assert [result["success"] for result in answer] == [True, False, True]
    assert answer[1]["errors"][0]["statusCode"] == "DUPLICATE_VALUE"
    assert "duplicate id" in answer[1]["errors"][0]["message"]
    assert org.field(contact_id(0), "Title") == "First"


def test_a_locked_record_yields_after_as_many_attempts_as_told(org: OrgClient) -> None:
    org.simulator.edit("Contact", contact_id(0), {"$lock": 2})

    codes = [org.update({"Id": contact_id(0), "Title": "CTO"}).json[0] for _ in range(3)]

    assert [result["success"] for result in codes] == [False, False, True]
    assert codes[0]["errors"][0]["statusCode"] == "UNABLE_TO_LOCK_ROW"


def test_all_or_none_writes_nothing_and_marks_the_innocent(org: OrgClient) -> None:
    was = org.field(contact_id(0), "Title")

    answer = org.update(
        {"Id": contact_id(0), "Title": "CTO"}, {"Id": contact_id(1), "Email": "no"}, all_or_none=True
    ).json

    assert [result["errors"][0]["statusCode"] for result in answer] == [
        "ALL_OR_NONE_OPERATION_ROLLED_BACK",
        "INVALID_EMAIL_ADDRESS",
    ]
    assert org.field(contact_id(0), "Title") == was


@pytest.mark.parametrize(
    ("fields", "code", "words"),
    [
        ({"Titel": "CTO"}, "INVALID_FIELD", "No such column 'Titel' on sobject of type Contact"),
        ({"Title": 5}, "JSON_PARSER_ERROR", "Cannot deserialize instance of string from VALUE_NUMBER_INT value 5"),
        ({"Title": ["CTO"]}, "JSON_PARSER_ERROR", "instance of string from START_ARRAY"),
        ({"DoNotCall": "true"}, "JSON_PARSER_ERROR", "instance of boolean from VALUE_STRING value true"),
        ({"DoNotCall": None}, "JSON_PARSER_ERROR", "instance of boolean from VALUE_NULL"),
        ({"Birthdate": "01.11.2026"}, "JSON_PARSER_ERROR", "instance of date from VALUE_STRING"),
        ({"Apollo_Enriched_At__c": "2026-11-01T10:00:00"}, "JSON_PARSER_ERROR", "instance of datetime"),
        ({"Apollo_Enriched_At__c": 1793534400}, "JSON_PARSER_ERROR", "instance of datetime from VALUE_NUMBER_INT"),
        ({"MailingLatitude": "51.5"}, "JSON_PARSER_ERROR", "instance of double from VALUE_STRING"),
    ],
)
def test_an_unknown_column_or_wrong_json_type_rejects_the_whole_call(
    org: OrgClient, fields: dict[str, Any], code: str, words: str
) -> None:
    was = org.field(contact_id(0), "Title")

    answer = org.update({"Id": contact_id(0), "Title": "Innocent"}, {"Id": contact_id(1), **fields})

    assert answer.status_code == 400
    assert answer.json[0]["errorCode"] == code
    assert words in answer.json[0]["message"]
    assert org.field(contact_id(0), "Title") == was


@pytest.mark.parametrize("value", ["51-200", 5.5, 2**31, True])
def test_what_is_no_whole_number_rejects_the_whole_call(org: OrgClient, value: object) -> None:
    answer = org.update({"Id": account_id(0), "NumberOfEmployees": value}, object_type="Account")

    assert answer.json[0]["errorCode"] == "JSON_PARSER_ERROR"
    assert "Cannot deserialize instance of int from VALUE_" in answer.json[0]["message"]
    assert "[line:1, column:" in answer.json[0]["message"]


def test_a_hidden_field_is_an_unknown_column() -> None:
    org = OrgClient(contacts=50, hidden={"Contact": ["DoNotCall"]})

    answer = org.update({"Id": contact_id(0), "DoNotCall": True})

    assert (answer.status_code, answer.json[0]["errorCode"]) == (400, "INVALID_FIELD")


def test_more_than_200_records_are_refused_whole() -> None:
    org = OrgClient(contacts=300)

    full = org.update(*({"Id": contact_id(index), "Title": "CTO"} for index in range(200)))
    over = org.update(*({"Id": contact_id(index), "Title": "CIO"} for index in range(201)))

    assert [result["id"] for result in full.json] == [contact_id(index) for index in range(200)]
    assert (over.status_code, over.json[0]["errorCode"]) == (400, "EXCEEDED_ID_LIMIT")
    assert org.field(contact_id(0), "Title") == "CTO"


def test_types_may_alternate_ten_times_and_no_more(org: OrgClient) -> None:
    def mixed(pairs: int) -> list[dict[str, Any]]:
        records: list[dict[str, Any]] = []
        for index in range(pairs):
            records.append({"attributes": {"type": "Contact"}, "Id": contact_id(index), "Phone": "1"})
            records.append({"attributes": {"type": "Account"}, "Id": account_id(index), "Phone": "1"})
        return records

    fits = org.update(*mixed(5))
    refused = org.update(*mixed(6))

    assert [result["success"] for result in fits.json] == [True] * 10
    assert refused.status_code == 400
    assert "10 chunks" in refused.json[0]["message"]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b'{"records": 5}',
        b'{"records": [5]}',
        b'{"records": [{"Id": "x"}]}',
        b'{"records": [{"attributes": {"type": "Nobody"}, "Id": "x"}]}',
        b'{"records": [], "allornone": true}',
        b'{"records": [], "allOrNone": "no"}',
        b'{"records": [{"attributes": {"type": "Contact"}, "Id": 5}]}',
        b'{"records": ["\xff"]}',
    ],
)
def test_a_malformed_body_is_refused_in_the_services_shape(org: OrgClient, body: bytes) -> None:
    answer = org.call("PATCH", "composite/sobjects", data=body, content_type="application/json")

    assert answer.status_code == 400
    assert set(answer.json[0]) == {"message", "errorCode"}


def test_a_body_must_say_it_is_json(org: OrgClient) -> None:
    answer = org.call("PATCH", "composite/sobjects", data=b'{"records": []}')

    assert (answer.status_code, answer.json[0]["errorCode"]) == (415, "UNSUPPORTED_MEDIA_TYPE")


@pytest.mark.parametrize(("header", "kept"), [("FALSE", True), ("false", True), ("TRUE", False), (None, False)])
def test_a_lead_keeps_its_owner_only_when_assignment_is_switched_off(
    org: OrgClient, header: str | None, kept: bool
) -> None:
    owner = org.field(lead_id(0), "OwnerId", "Lead")
    record = {"attributes": {"type": "Lead"}, "Id": lead_id(0), "Title": "CTO"}
    headers = {"Sforce-Auto-Assign": header} if header else {}

    org.call("PATCH", "composite/sobjects", json={"allOrNone": False, "records": [record]}, headers=headers)

    assert (org.field(lead_id(0), "OwnerId", "Lead") == owner) is kept


# --- reading by id --------------------------------------------------------------------------------------------------


def test_a_retrieve_answers_by_position_with_null_for_whoever_is_gone(org: OrgClient) -> None:
    org.simulator.edit("Contact", contact_id(2), {"IsDeleted": True})
    wanted = [
        contact_id(3),
        contact_id(2),
        contact_id(60),
        "nonsense",
        account_id(0),
        contact_id(1)[:15],
        contact_id(3),
    ]

    answer = org.call("POST", "composite/sobjects/Contact", json={"ids": wanted, "fields": ["id", "LastName"]}).json

    assert [row and row["Id"] for row in answer] == [
        contact_id(3), None, None, None, None, contact_id(1), contact_id(3),
    ]  # fmt: skip
    assert list(answer[0]) == ["attributes", "Id", "LastName"]


def test_a_retrieve_by_url_answers_the_same(org: OrgClient) -> None:
    by_url = org.call(
        "GET",
        "composite/sobjects/Contact",
        query_string={"ids": f"{contact_id(1)},{contact_id(2)}", "fields": "Id,Name"},
    )
    by_body = org.call(
        "POST", "composite/sobjects/Contact", json={"ids": [contact_id(1), contact_id(2)], "fields": ["Id", "Name"]}
    )

    assert by_url.json == by_body.json


def test_a_retrieve_takes_2000_ids_and_no_more(org: OrgClient) -> None:
    full = org.call("POST", "composite/sobjects/Contact", json={"ids": [contact_id(0)] * 2000, "fields": ["Id"]})
    over = org.call("POST", "composite/sobjects/Contact", json={"ids": [contact_id(0)] * 2001, "fields": ["Id"]})

    assert len(full.json) == 2000
    assert (over.status_code, over.json[0]["errorCode"]) == (400, "EXCEEDED_ID_LIMIT")


@pytest.mark.parametrize("field", ["Nonsense", "Account.Name"])
def test_a_retrieve_with_one_unreadable_field_fails_whole(org: OrgClient, field: str) -> None:
    answer = org.call("POST", "composite/sobjects/Contact", json={"ids": [contact_id(0)], "fields": ["Id", field]})

    assert (answer.status_code, answer.json[0]["errorCode"]) == (400, "INVALID_FIELD")


@pytest.mark.parametrize("body", [{}, {"ids": "x", "fields": ["Id"]}, {"ids": [], "fields": []}, {"ids": [5]}, []])
def test_an_incomplete_retrieve_is_refused(org: OrgClient, body: object) -> None:
    assert org.call("POST", "composite/sobjects/Contact", json=body).json[0]["errorCode"] == "JSON_PARSER_ERROR"


def test_a_single_record_is_read_whole_with_its_compound_address(org: OrgClient) -> None:
    org.update({"Id": contact_id(0), "MailingCity": "Leeds", "MailingCountry": "UK"})

    record = org.call("GET", f"sobjects/Contact/{contact_id(0)}").json

    assert record["MailingAddress"]["city"] == "Leeds"
    assert record["Name"] == f"{record['FirstName']} {record['LastName']}"
    assert record["OtherAddress"] is None


def test_a_single_record_that_is_gone_says_so(org: OrgClient) -> None:
    org.simulator.edit("Contact", contact_id(0), {"IsDeleted": True})

    gone = org.call("GET", f"sobjects/Contact/{contact_id(0)}")
    never = org.call("GET", f"sobjects/Contact/{contact_id(60)}")

    assert (gone.status_code, gone.json[0]["errorCode"]) == (404, "ENTITY_IS_DELETED")
    assert (never.status_code, never.json[0]["errorCode"]) == (404, "NOT_FOUND")


def test_a_single_update_answers_nothing_or_the_reason(org: OrgClient) -> None:
    path = f"sobjects/Contact/{contact_id(0)}"

    saved = org.call("PATCH", path, json={"Title": "CTO"})
    refused = org.call("PATCH", path, json={"Email": "no"})

    assert (saved.status_code, saved.data) == (204, b"")
    assert refused.status_code == 400
    assert refused.json == [
        {"message": "Email: invalid email address: no", "errorCode": "INVALID_EMAIL_ADDRESS", "fields": ["Email"]}
    ]
    assert org.field(contact_id(0), "Title") == "CTO"


def test_a_conditional_update_gives_way_to_a_human(org: OrgClient) -> None:
    path = f"sobjects/Contact/{contact_id(0)}"
    org.simulator.edit("Contact", contact_id(0), {"Title": "Typed by hand"})

    def patch(since: str) -> int:
        return org.call("PATCH", path, json={"Title": "Apollo's"}, headers={"If-Unmodified-Since": since}).status_code

    assert patch("Sun, 01 Nov 2026 11:59:59 GMT") == 412
    assert org.field(contact_id(0), "Title") == "Typed by hand"
    assert patch("yesterday") == 400
    assert patch("Sun, 01 Nov 2026 12:00:00 GMT") == 204


# --- humans ---------------------------------------------------------------------------------------------------------


def test_a_human_edit_is_stamped_with_their_name(org: OrgClient) -> None:
    org.clock.seconds += 60

    record = org.simulator.edit("Contact", contact_id(0), {"Title": "Typed by hand"})

    assert (record["Title"], record["LastModifiedById"]) == ("Typed by hand", auth.HUMAN_USER)
    assert record["LastModifiedDate"] == "2026-11-01T12:01:00.000+0000"


def test_a_merge_deletes_the_loser_and_names_the_winner(org: OrgClient) -> None:
    record = org.simulator.edit("Contact", contact_id(0), {"MasterRecordId": contact_id(1)[:15]})

    assert (record["IsDeleted"], record["MasterRecordId"]) == (True, contact_id(1))
    with pytest.raises(ValueError, match="living"):
        org.simulator.edit("Contact", contact_id(2), {"MasterRecordId": contact_id(0)})
    with pytest.raises(ValueError, match="living"):
        org.simulator.edit("Contact", contact_id(2), {"MasterRecordId": contact_id(2)})


@pytest.mark.parametrize(
    ("object_type", "record_id", "fields", "words"),
    [
        ("Opportunity", contact_id(0), {}, "No object Opportunity"),
        ("Contact", contact_id(60), {}, "No Contact with the id"),
        ("Contact", contact_id(0), {"Titel": "x"}, "No such column"),
        ("Contact", contact_id(0), {"Email": "no"}, "invalid email"),
        ("Contact", contact_id(0), {"Name": "x"}, "Unable to create/update"),
    ],
)
def test_a_human_edit_that_makes_no_sense_says_why(
    org: OrgClient, object_type: str, record_id: str, fields: dict[str, Any], words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        org.simulator.edit(object_type, record_id, fields)


def test_the_state_tells_what_was_written(org: OrgClient) -> None:
    org.update({"Id": contact_id(0), "Title": "CTO"}, {"Id": contact_id(1), "Title": "CIO"})

    state = org.simulator.state(limit=1)

    assert state["records"] == {"Account": 7, "Contact": 60, "Lead": 15}
    assert state["written"] == {"Account": 0, "Contact": 2, "Lead": 0}
    assert list(state["touched"]["Contact"]) == [contact_id(0)]
    assert state["touched"]["Contact"][contact_id(0)]["Title"] == "CTO"
    assert state["logins"] == 1
