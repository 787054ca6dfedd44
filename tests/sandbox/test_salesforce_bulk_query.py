"""Query jobs, as the Salesforce simulator runs them and hands out their rows."""

from __future__ import annotations

import csv
import io
from typing import Any

import pytest
from werkzeug.test import TestResponse

from crm_sync.sandbox.salesforce import Habits
from tests.sandbox.salesforce_org import OrgClient, contact_id


@pytest.fixture
def org() -> OrgClient:
    return OrgClient(contacts=60)


def create(org: OrgClient, query: str, **more: Any) -> TestResponse:
    return org.call("POST", "jobs/query", json={"operation": "query", "query": query} | more)


def done(org: OrgClient, query: str) -> tuple[str, dict[str, Any]]:
    answer = create(org, query)
    assert answer.status_code == 200, answer.text
    job = answer.json["id"]
    for _ in range(5):
        info = org.call("GET", f"jobs/query/{job}").json
        if info["state"] not in ("UploadComplete", "InProgress"):
            return job, info
    raise AssertionError("it never ends")


def lines(answer: TestResponse) -> list[list[str]]:
    return list(csv.reader(io.StringIO(answer.get_data().decode(), newline="")))


def test_a_job_hands_out_its_rows_as_text_with_parents(org: OrgClient) -> None:
    org.simulator.edit(
        "Contact", contact_id(3), {"Title": 'Äußere\n"Dinge"', "HasOptedOutOfEmail": True, "Phone": None}
    )
    org.simulator.edit("Contact", contact_id(4), {"IsDeleted": True})
    columns = "Id,Title,Phone,HasOptedOutOfEmail,LastModifiedDate,Account.Name"

    job, info = done(org, f"SELECT {columns} FROM Contact WHERE Id >= '{contact_id(3)}' ORDER BY Id LIMIT 3")
    answer = org.call("GET", f"jobs/query/{job}/results")
    rows = lines(answer)

    assert (info["state"], info["numberRecordsProcessed"]) == ("JobComplete", 3)
    assert rows[0] == columns.split(",")
    assert [row[0] for row in rows[1:]] == [contact_id(n) for n in (3, 5, 6)]
    assert rows[1][1:5] == ['Äußere\n"Dinge"', "", "true", "2026-11-01T12:00:00.000Z"]
    assert (
        rows[1][5] == org.rows(f"SELECT Account.Name FROM Contact WHERE Id = '{contact_id(3)}'")[0]["Account"]["Name"]
    )
    assert answer.headers["Content-Type"] == "text/csv"
    assert (answer.headers["Sforce-NumberOfRecords"], answer.headers["Sforce-Locator"]) == ("3", "null")


def test_pages_are_as_large_as_asked_and_may_be_fetched_again(org: OrgClient) -> None:
    job, _ = done(org, "SELECT Id FROM Contact")
    path = f"jobs/query/{job}/results"

    first = org.call("GET", path, query_string={"maxRecords": "25"})
    pages = [
        org.call("GET", path, query_string={"maxRecords": "25", "locator": first.headers["Sforce-Locator"]})
        for _ in range(2)
    ]

    assert len(lines(first)) == 26
    assert pages[0].get_data() == pages[1].get_data()
    assert lines(pages[0])[0] == ["Id"]
    assert org.call("GET", path, query_string={"locator": "999"}).status_code == 400


def test_a_sorted_query_may_time_out() -> None:
    org = OrgClient(contacts=60, bulk=Habits(sorts=False))

    _, sorted_ = done(org, "SELECT Id FROM Contact ORDER BY Id")
    _, free = done(org, "SELECT Id FROM Contact")

    assert (sorted_["state"], free["state"]) == ("Failed", "JobComplete")
    assert sorted_["errorMessage"]


@pytest.mark.parametrize(
    "query",
    ["SELECT COUNT() FROM Contact", "SELECT Nonsense FROM Contact", "SELECT MailingAddress FROM Contact", "x"],
)
def test_a_query_that_cannot_be_run_makes_no_job(org: OrgClient, query: str) -> None:
    assert create(org, query).status_code == 400
    assert org.simulator.state()["query_jobs"] == {}


def test_a_job_ends_by_being_aborted_or_deleted(org: OrgClient) -> None:
    job = create(org, "SELECT Id FROM Contact").json["id"]

    assert org.call("GET", f"jobs/query/{job}/results").status_code == 400
    assert org.call("DELETE", f"jobs/query/{job}").status_code == 400
    assert org.call("PATCH", f"jobs/query/{job}", json={"state": "Aborted"}).json["state"] == "Aborted"
    assert org.call("PATCH", f"jobs/query/{job}", json={"state": "Aborted"}).status_code == 400
    assert org.call("DELETE", f"jobs/query/{job}").status_code == 204
    assert org.call("GET", f"jobs/query/{job}").status_code == 404


def test_results_have_the_version_of_their_job(org: OrgClient) -> None:
    job, _ = done(org, "SELECT Id FROM Contact")

    assert org.call("GET", f"/services/data/v61.0/jobs/query/{job}/results").status_code == 409
