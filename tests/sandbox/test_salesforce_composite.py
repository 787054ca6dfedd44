"""Several requests in one, as the Salesforce simulator answers them."""

from __future__ import annotations

from typing import Any

import pytest
from werkzeug.test import TestResponse

from crm_sync.sandbox.salesforce import auth
from tests.sandbox.salesforce_org import ROOT, OrgClient, contact_id, lead_id


@pytest.fixture
def org() -> OrgClient:
    return OrgClient(contacts=60)


def patch(number: int, body: dict[str, Any], *, headers: dict[str, str] | None = None, **more: Any) -> dict[str, Any]:
    return {
        "method": "PATCH",
        "url": f"{ROOT}/sobjects/Contact/{contact_id(number)}",
        "referenceId": f"r{number}",
        "body": body,
        "httpHeaders": {"Sforce-Auto-Assign": "FALSE"} | (headers or {}),
        **more,
    }


def send(org: OrgClient, *subrequests: Any, **more: Any) -> TestResponse:
    return org.call("POST", "composite", json={"compositeRequest": list(subrequests), "allOrNone": False, **more})


def statuses(answer: TestResponse) -> list[int]:
    assert answer.status_code == 200, answer.text
    return [entry["httpStatusCode"] for entry in answer.json["compositeResponse"]]


def test_each_subrequest_has_its_own_end_in_the_order_asked(org: OrgClient) -> None:
    org.simulator.edit("Contact", contact_id(3), {"IsDeleted": True})

    answer = send(
        org,
        patch(0, {"Title": "CTO"}),
        patch(1, {"Email": "no address"}),
        patch(2, {"Nonsense__c": "x"}),
        patch(3, {"Title": "CTO"}),
        patch(999_999, {"Title": "CTO"}),
        patch(5, {"Title": "VP"}),
    )

    assert statuses(answer) == [204, 400, 400, 404, 404, 204]
    entries = answer.json["compositeResponse"]
    assert [entry["referenceId"] for entry in entries] == ["r0", "r1", "r2", "r3", "r999999", "r5"]
    assert entries[0] == {"body": None, "httpHeaders": {}, "httpStatusCode": 204, "referenceId": "r0"}
    assert [entry["body"][0]["errorCode"] for entry in entries[1:5]] == [
        "INVALID_EMAIL_ADDRESS", "INVALID_FIELD", "ENTITY_IS_DELETED", "NOT_FOUND",
    ]  # fmt: skip
    assert (org.field(contact_id(0), "Title"), org.field(contact_id(5), "Title")) == ("CTO", "VP")


def test_each_subrequest_has_its_own_headers(org: OrgClient) -> None:
    org.simulator.edit("Contact", contact_id(1), {"Title": "Typed by hand"})
    before = {"If-Unmodified-Since": "Sun, 01 Nov 2026 11:59:59 GMT"}
    lead = {
        "method": "PATCH",
        "url": f"{ROOT}/sobjects/Lead/{lead_id(0)}",
        "referenceId": "lead",
        "body": {"Title": "CTO"},
    }

    answer = send(org, patch(0, {"Title": "CTO"}, headers=before), patch(1, {"Title": "CTO"}, headers=before), lead)

    assert statuses(answer) == [204, 412, 204]
    assert org.field(contact_id(1), "Title") == "Typed by hand"
    assert org.field(lead_id(0), "OwnerId", "Lead") == auth.LEAD_QUEUE


def test_it_costs_one_call(org: OrgClient) -> None:
    before = org.simulator.state()["api_calls"]["used"]

    answer = send(org, *(patch(number, {"Title": "CTO"}) for number in range(25)))

    assert statuses(answer) == [204] * 25
    assert org.simulator.state()["api_calls"]["used"] == before + 1
    assert answer.headers["Sforce-Limit-Info"].startswith(f"api-usage={before + 1}/")


def test_a_record_in_trouble_fails_alone_and_for_as_long_as_told(org: OrgClient) -> None:
    org.simulator.edit("Contact", contact_id(1), {"$fail": 1})

    first = send(org, patch(0, {"Title": "CTO"}), patch(1, {"Title": "CTO"}))
    second = send(org, patch(1, {"Title": "CTO"}))

    assert statuses(first) == [204, 503]
    assert first.json["compositeResponse"][1]["body"][0]["errorCode"] == "SERVER_UNAVAILABLE"
    assert statuses(second) == [204]


def test_it_is_no_way_around_the_log_in(org: OrgClient) -> None:
    org.simulator.expire_tokens()

    assert send(org, patch(0, {"Title": "CTO"})).status_code == 401


QUERY = {"method": "GET", "url": f"{ROOT}/query?q=SELECT+Id+FROM+Contact+LIMIT+1"}


@pytest.mark.parametrize(
    ("subrequests", "said"),
    [
        ([], "compositeRequest"),
        (["x"], "subrequest"),
        ([patch(number, {}) for number in range(26)], "at most 25"),
        ([patch(1, {}), patch(1, {})], "Duplicate referenceId"),
        ([patch(1, {}, referenceId="a-b")], "must start with a letter"),
        ([patch(1, {}, referenceId=None)], "referenceId"),
        ([patch(1, {}, richInput=True)], "Unrecognized field"),
        ([patch(1, {}, url="/services/apexrest/x")], "not one that"),
        ([patch(1, {}, url=f"{ROOT}/composite")], "not one that"),
        ([patch(1, {}, headers={"Authorization": "Bearer x"})], "cannot be set"),
        ([QUERY | {"referenceId": f"q{number}"} for number in range(6)], "At most 5"),
    ],
)
def test_a_call_that_is_not_well_formed_is_refused_whole(org: OrgClient, subrequests: list[Any], said: str) -> None:
    answer = send(org, *subrequests)

    assert answer.status_code == 400
    assert said in answer.json[0]["message"]
    assert org.simulator.state()["written"]["Contact"] == 0


def test_all_or_none_is_refused_by_name(org: OrgClient) -> None:
    answer = send(org, patch(0, {"Title": "CTO"}), allOrNone=True)

    assert answer.status_code == 400
    assert "does not simulate allOrNone" in answer.json[0]["message"]
