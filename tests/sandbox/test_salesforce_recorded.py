"""The simulator beside what a real org answered: describes, query rows, collections, errors, status codes."""

from __future__ import annotations

import json
import re
from importlib.resources import files
from typing import Any

import pytest

from crm_sync.sandbox.salesforce.errors import RequestCode, RowCode
from tests.sandbox import salesforce_recordings as recordings
from tests.sandbox.salesforce_org import VERSION, OrgClient, account_id

#: Attributes of an object's describe that say which org, version or feature it is, not what the object is.
_ORG_SPECIFIC = {"childRelationships", "fields", "recordTypeInfos", "supportedScopes", "urls"}
#: Attributes that newer API versions added (the Account was recorded at v48).
_NEWER = {"associateEntityType", "associateParentEntity", "sobjectDescribeOption"}


@pytest.fixture(scope="module")
def org() -> OrgClient:
    return OrgClient(contacts=60)


@pytest.fixture(scope="module", params=["Account", "Contact", "Lead"])
def pair(request: pytest.FixtureRequest, org: OrgClient) -> tuple[dict[str, Any], dict[str, Any]]:
    """One object's describe: recorded, simulated."""
    return recordings.describe(request.param), org.call("GET", f"sobjects/{request.param}/describe").json


def test_an_object_is_described_with_the_recorded_attributes(pair: tuple[dict[str, Any], dict[str, Any]]) -> None:
    recorded, simulated = pair

    assert set(recorded) - set(simulated) == set()
    assert set(simulated) - set(recorded) <= _NEWER
    for name in set(recorded) - _ORG_SPECIFIC:
        assert simulated[name] == recorded[name], name


def test_every_standard_field_has_exactly_the_recorded_attributes(
    pair: tuple[dict[str, Any], dict[str, Any]],
) -> None:
    recorded = {field["name"]: field for field in pair[0]["fields"]}
    simulated = {field["name"]: field for field in pair[1]["fields"]}
    shared = set(recorded) & set(simulated)

    assert len(shared) >= 48
    for name in shared:
        assert simulated[name] == recorded[name]


def test_fields_beyond_the_recording_are_the_orgs_own_or_hidden_there(
    pair: tuple[dict[str, Any], dict[str, Any]],
) -> None:
    recorded = {field["name"] for field in pair[0]["fields"]}
    attributes = set(pair[0]["fields"][0])

    for field in pair[1]["fields"]:
        assert set(field) == attributes
        if field["name"] not in recorded:
            assert field["custom"] or field["name"] in ("DoNotCall", "HasOptedOutOfEmail")


def test_opt_outs_look_like_the_ones_of_a_recorded_person_account(org: OrgClient) -> None:
    (recorded,) = (
        answer
        for _, answer in recordings.answers(
            "cumulusci/tests/cassettes/GET_sobjects_Account_PersonAccount_describe.yaml", "GET", "/describe"
        )
    )
    fields = {field["name"]: field for field in recorded["fields"]}
    simulated = org.call("GET", "sobjects/Contact/describe").json["fields"]

    for name in ("DoNotCall", "HasOptedOutOfEmail"):
        theirs, ours = fields[f"Person{name}"], next(field for field in simulated if field["name"] == name)
        for attribute in ("type", "length", "nillable", "updateable", "filterable", "defaultValue", "soapType"):
            assert ours[attribute] == theirs[attribute], (name, attribute)


def test_the_list_of_objects_has_the_recorded_shape(org: OrgClient) -> None:
    recorded = recordings.describe("Global")
    simulated = org.call("GET", "sobjects").json
    by_name = {item["name"]: item for item in recorded["sobjects"]}

    assert set(simulated) == set(recorded)
    for item in simulated["sobjects"]:
        theirs = by_name[item["name"]]
        assert set(item) == set(theirs)
        # cumulusci emptied some attributes of objects it does not need.
        for name in [name for name in item if name != "urls" and theirs[name] is not None]:
            assert item[name] == theirs[name], (item["name"], name)
        assert set(item["urls"]) <= set(theirs["urls"]) | {"listviews"}


UPDATES = "cumulusci/tasks/bulkdata/tests/cassettes/TestUpdatesIntegrationTests.test_updates_task.yaml"


def test_a_recorded_update_is_answered_as_recorded(org: OrgClient) -> None:
    ((body, answer),) = recordings.answers(UPDATES, "PATCH", "/composite/sobjects")
    translated = {record["Id"]: account_id(index) for index, record in enumerate(body["records"])}
    for record in body["records"]:
        record["Id"] = translated[record["Id"]]
    expected = [result | {"id": translated[result["id"]]} for result in answer]

    simulated = org.call("PATCH", "composite/sobjects", json=body).json

    assert simulated == expected
    assert [list(result) for result in simulated] == [list(result) for result in answer]
    assert org.field(account_id(0), "NumberOfEmployees", "Account") == 10000


def test_a_recorded_query_is_answered_in_the_recorded_shape(org: OrgClient) -> None:
    ((_, answer),) = recordings.answers(UPDATES, "GET", "/query/")

    simulated = org.query("SELECT Id,Name FROM Account").json

    assert list(simulated) == list(answer)
    assert list(simulated["records"][0]) == list(answer["records"][0])
    theirs, ours = (it["records"][0]["attributes"] for it in (answer, simulated))
    assert list(ours) == list(theirs)
    assert re.sub(r"vxx\.0|v62\.0", "", ours["url"])[:-18] == re.sub(r"vxx\.0", "", theirs["url"])[:-18]


def test_a_recorded_refusal_of_an_unknown_object_is_repeated_word_by_word(org: OrgClient) -> None:
    ((_, answer),) = recordings.answers(
        "cumulusci/utils/salesforce/tests/cassettes/TestCountSObjects.test_count_sobjects__errors.yaml",
        "POST",
        "/composite",
    )
    count, refused = answer["compositeResponse"]

    simulated = org.query("select count() from XYZZY")

    assert simulated.status_code == refused["httpStatusCode"]
    assert simulated.json == refused["body"]
    assert set(org.query("select count() from Account").json) == set(count["body"])


def test_an_unknown_path_is_refused_in_the_recorded_words(org: OrgClient) -> None:
    ((_, answer),) = recordings.answers(
        "cumulusci/utils/http/tests/cassettes/TestCompositeParallelSalesforce.test_errors.yaml", "POST", "/composite"
    )
    (refused,) = answer["compositeResponse"]

    simulated = org.call("GET", "sobjects/Foo")

    assert simulated.status_code == refused["httpStatusCode"]
    assert simulated.json == refused["body"]


def test_a_recorded_composite_call_is_answered_in_the_recorded_shape(org: OrgClient) -> None:
    where = "cumulusci/utils/http/tests/cassettes/TestCompositeParallelSalesforce"
    for cassette in ("test_errors", "test_reference_ids"):
        for asked, recorded in recordings.answers(f"{where}.{cassette}.yaml", "POST", "/composite"):
            text = json.dumps(asked).replace("vxx.0", f"v{VERSION}")

            simulated = org.call("POST", "composite", data=text, content_type="application/json").json

            assert [set(entry) for entry in simulated["compositeResponse"]] == [
                set(entry) for entry in recorded["compositeResponse"]
            ]
            for mine, theirs in zip(simulated["compositeResponse"], recorded["compositeResponse"], strict=True):
                assert mine["httpStatusCode"] == theirs["httpStatusCode"]
                assert mine["referenceId"] == theirs["referenceId"]
                if theirs["httpStatusCode"] != 200:
                    assert mine == theirs
                else:
                    assert set(mine["body"]) == set(theirs["body"])


def status_codes() -> set[str]:
    """The service's DML status codes, from the metadata.wsdl in simple-salesforce."""
    text = files("simple_salesforce").joinpath("metadata.wsdl").read_text(encoding="utf-8")
    kind = re.search(r'<xsd:simpleType name="StatusCode">(.*?)</xsd:simpleType>', text, re.DOTALL)
    assert kind is not None
    return set(re.findall(r'<xsd:enumeration value="([^"]+)"', kind.group(1)))


def test_a_record_is_refused_only_with_codes_the_service_knows() -> None:
    known = status_codes()

    assert len(known) == 592
    assert {code.value for code in RowCode} <= known


def test_request_codes_outside_the_enumeration_are_the_documented_ones() -> None:
    outside = {code.value for code in RequestCode} - status_codes()

    assert outside == {
        "API_ERROR",
        "CLIENTINPUTERROR",
        "EXCEEDED_ID_LIMIT",
        "INVALIDJOB",
        "INVALIDJOBSTATE",
        "INVALID_HTTP_HEADER",
        "INVALID_QUERY_FILTER_OPERATOR",
        "JSON_PARSER_ERROR",
        "MALFORMED_QUERY",
        "PRECONDITION_FAILED",
        "REQUEST_LIMIT_EXCEEDED",
        "SERVER_UNAVAILABLE",
        "UNSUPPORTED_API_VERSION",
        "UNSUPPORTED_MEDIA_TYPE",
    }
