"""Bulk jobs of updates, as the Salesforce simulator takes, works and answers them."""

from __future__ import annotations

import csv
import io
from typing import Any

import pytest
from werkzeug.test import TestResponse

from crm_sync.sandbox.salesforce import Habits, ValidationRule
from tests.sandbox.salesforce_org import OrgClient, contact_id, lead_id

RULE = ValidationRule(object_type="Contact", field="Title", forbidden="wizard", message="No wizards, please.")


def an_org(**habits: Any) -> OrgClient:
    return OrgClient(contacts=400, validation_rules=[RULE], bulk=Habits(**habits))


@pytest.fixture
def org() -> OrgClient:
    return an_org()


def create(org: OrgClient, **more: Any) -> TestResponse:
    return org.call(
        "POST", "jobs/ingest", json={"object": "Contact", "operation": "update", "lineEnding": "CRLF"} | more
    )


def put(org: OrgClient, job: str, content: str | bytes) -> TestResponse:
    raw = content.encode() if isinstance(content, str) else content
    return org.call("PUT", f"jobs/ingest/{job}/batches", data=raw, content_type="text/csv")


def to(org: OrgClient, job: str, state: str) -> TestResponse:
    return org.call("PATCH", f"jobs/ingest/{job}", json={"state": state})


def state(org: OrgClient, job: str) -> dict[str, Any]:
    return org.call("GET", f"jobs/ingest/{job}").json


def wait(org: OrgClient, job: str) -> dict[str, Any]:
    for _ in range(9):
        found = state(org, job)
        if found["state"] in ("JobComplete", "Failed", "Aborted"):
            return found
    raise AssertionError("it never ends")


def lines(answer: TestResponse) -> list[list[str]]:
    return list(csv.reader(io.StringIO(answer.get_data().decode(), newline="")))


def results(org: OrgClient, job: str, kind: str) -> list[list[str]]:
    answer = org.call("GET", f"jobs/ingest/{job}/{kind}")
    assert answer.status_code == 200, answer.text
    return lines(answer)


def run(org: OrgClient, content: str | bytes, **more: Any) -> tuple[str, dict[str, Any]]:
    job = create(org, **more).json["id"]
    assert put(org, job, content).status_code == 201
    assert to(org, job, "UploadComplete").json["state"] == "UploadComplete"
    return job, wait(org, job)


def test_a_job_goes_from_open_to_complete(org: OrgClient) -> None:
    made = create(org).json
    job = made["id"]
    put(org, job, f"Id,Title,Phone\r\n{contact_id(0)},CTO,\r\n{contact_id(1)},,#N/A\r\n")
    opened = state(org, job)["state"]
    to(org, job, "UploadComplete")
    states = [state(org, job)["state"] for _ in range(4)]

    assert made["contentUrl"] == f"services/data/v62.0/jobs/ingest/{job}/batches"
    assert (made["state"], opened) == ("Open", "Open")
    assert states == ["InProgress", "InProgress", "JobComplete", "JobComplete"]
    assert org.field(contact_id(0), "Title") == "CTO"
    assert org.field(contact_id(1), "Phone") is None


def test_an_empty_cell_leaves_its_field_alone(org: OrgClient) -> None:
    org.simulator.edit("Contact", contact_id(0), {"Title": "VP", "Phone": "+1 0"})

    run(org, f'Id,Title,Phone\r\n{contact_id(0)},"",\r\n')

    assert (org.field(contact_id(0), "Title"), org.field(contact_id(0), "Phone")) == ("VP", "+1 0")


def test_each_row_has_a_place_in_one_list_and_none_has_an_order(org: OrgClient) -> None:
    org.simulator.edit("Contact", contact_id(3), {"IsDeleted": True})
    rows = [
        (contact_id(0), "CTO", "", ""),
        (contact_id(1), "Grand Wizard", "", ""),
        (contact_id(2), "", "no address", ""),
        (contact_id(3), "CTO", "", ""),
        (contact_id(999_999), "CTO", "", ""),
        (contact_id(4)[:15], "Müller, \nVP", "", ""),
        (contact_id(5), "", "", "51-200"),
        (contact_id(0), "CFO", "", ""),
    ]
    text = io.StringIO()
    csv.writer(text, lineterminator="\r\n").writerows([("Id", "Title", "Email", "HasOptedOutOfEmail"), *rows])

    job, info = run(org, text.getvalue())

    succeeded = results(org, job, "successfulResults")
    assert succeeded[0] == ["sf__Id", "sf__Created", "Id", "Title", "Email", "HasOptedOutOfEmail"]
    assert [row[:3] for row in succeeded[1:]] == [
        [contact_id(4), "false", contact_id(4)[:15]],
        [contact_id(0), "false", contact_id(0)],
    ]
    failed = {row[0]: row[1] for row in results(org, job, "failedResults")[1:]}
    assert failed == {
        contact_id(1): "FIELD_CUSTOM_VALIDATION_EXCEPTION:No wizards, please.:Title --",
        contact_id(2): "INVALID_EMAIL_ADDRESS:Email: invalid email address: no address:Email --",
        contact_id(3): "ENTITY_IS_DELETED:entity is deleted:--",
        contact_id(999_999): "INVALID_CROSS_REFERENCE_KEY:invalid cross reference id:--",
        contact_id(5): (
            "INVALID_TYPE_ON_FIELD_IN_RECORD:Email Opt Out: value not of required type: 51-200:HasOptedOutOfEmail --"
        ),
        contact_id(0): f"DUPLICATE_VALUE:duplicate id specified: {contact_id(0)}:Id --",
    }
    assert results(org, job, "unprocessedRecords") == [["Id", "Title", "Email", "HasOptedOutOfEmail"]]
    assert (info["numberRecordsProcessed"], info["numberRecordsFailed"]) == (8, 6)
    assert org.field(contact_id(4), "Title") == "Müller, \nVP"


def test_results_are_csv_without_a_charset(org: OrgClient) -> None:
    job, _ = run(org, f"Id,Title\r\n{contact_id(0)},é\r\n")

    answer = org.call("GET", f"jobs/ingest/{job}/successfulResults")

    assert answer.headers["Content-Type"] == "text/csv"
    assert "é".encode() in answer.get_data()
    assert answer.headers["Sforce-Locator"] == "null"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (f"Id,Title\n{contact_id(0)},CTO\n", "LineEnding is invalid"),
        (f"Id,Nonsense__c\r\n{contact_id(0)},CTO\r\n", "InvalidBatch : Field name not found : Nonsense__c"),
        ("Title\r\nCTO\r\n", "Field name not found : Id"),
        (f"Id,Title\r\n{contact_id(0)},CTO,VP\r\n", "does not match the header"),
        (f'Id,Title\r\n{contact_id(0)},"CTO" x\r\n', "Error parsing CSV"),
        (f"Id,Title\r\n{contact_id(0)},é\r\n".encode("latin-1"), "Error parsing CSV"),
    ],
)
def test_a_file_that_cannot_be_read_fails_the_job_and_processes_nothing(
    org: OrgClient, content: str | bytes, said: str
) -> None:
    _, info = run(org, content)

    assert info["state"] == "Failed"
    assert said in info["errorMessage"]
    assert info["numberRecordsProcessed"] == 0
    assert org.simulator.state()["written"]["Contact"] == 0


def test_a_job_that_fails_on_its_way_keeps_what_it_did_and_lists_the_rest() -> None:
    org = an_org(fail_after=3)
    rows = "".join(f"{contact_id(number)},CTO\r\n" for number in range(5))

    job, info = run(org, "Id,Title\r\n" + rows)

    assert info["state"] == "Failed"
    assert len(results(org, job, "successfulResults")) == 1 + 3
    assert results(org, job, "unprocessedrecords")[1:] == [[contact_id(3), "CTO"], [contact_id(4), "CTO"]]
    assert org.simulator.state()["written"]["Contact"] == 3


@pytest.mark.parametrize("header_each", [True, False])
def test_results_come_in_pages_where_told(header_each: bool) -> None:
    org = an_org(page=2, header_each=header_each)
    job, _ = run(org, "Id,Title\r\n" + "".join(f"{contact_id(number)},CTO\r\n" for number in range(5)))
    path = f"jobs/ingest/{job}/successfulResults"

    pages = [org.call("GET", path)]
    while (locator := pages[-1].headers["Sforce-Locator"]) != "null":
        pages.append(org.call("GET", path, query_string={"locator": locator}))

    assert [len(lines(page)) for page in pages] == ([3, 3, 2] if header_each else [3, 2, 1])
    assert org.call("GET", path, query_string={"locator": "1"}).status_code == 400


def test_an_empty_list_may_be_no_content() -> None:
    org = an_org(empty="204")
    job, _ = run(org, f"Id,Title\r\n{contact_id(0)},CTO\r\n")

    assert org.call("GET", f"jobs/ingest/{job}/failedResults").status_code == 204


def test_a_second_upload_keeps_the_job_from_ever_being_closed(org: OrgClient) -> None:
    job = create(org).json["id"]
    for _ in range(2):
        assert put(org, job, f"Id,Title\r\n{contact_id(0)},CTO\r\n").status_code == 201

    answer = to(org, job, "UploadComplete")

    assert (answer.status_code, answer.json[0]["errorCode"]) == (400, "INVALIDJOB")
    assert "only do 'PUT' once" in answer.json[0]["message"]
    assert org.simulator.state()["written"]["Contact"] == 0


def test_a_job_can_only_take_the_steps_its_state_allows(org: OrgClient) -> None:
    job = create(org).json["id"]

    def code(answer: TestResponse) -> str:
        return "" if answer.status_code < 300 else answer.json[0]["errorCode"]

    assert code(to(org, job, "UploadComplete")) == "INVALIDJOBSTATE"
    assert code(org.call("GET", f"jobs/ingest/{job}/failedResults")) == "INVALIDJOBSTATE"
    assert code(org.call("DELETE", f"jobs/ingest/{job}")) == "INVALIDJOBSTATE"
    assert code(to(org, job, "JobComplete")) == "INVALIDJOBSTATE"
    put(org, job, f"Id,Title\r\n{contact_id(0)},CTO\r\n")
    assert code(to(org, job, "UploadComplete")) == ""
    assert code(to(org, job, "UploadComplete")) == "INVALIDJOBSTATE"
    assert code(put(org, job, "x")) == "INVALIDJOBSTATE"
    wait(org, job)
    assert code(to(org, job, "Aborted")) == "INVALIDJOBSTATE"
    assert code(org.call("DELETE", f"jobs/ingest/{job}")) == ""
    assert code(org.call("GET", f"jobs/ingest/{job}")) == "NOT_FOUND"


def test_an_aborted_job_does_nothing_and_says_so(org: OrgClient) -> None:
    job = create(org).json["id"]
    put(org, job, f"Id,Title\r\n{contact_id(0)},CTO\r\n")
    to(org, job, "UploadComplete")

    to(org, job, "Aborted")

    assert state(org, job)["state"] == "Aborted"
    assert results(org, job, "unprocessedrecords") == [["Id", "Title"], [contact_id(0), "CTO"]]
    assert org.simulator.state()["written"]["Contact"] == 0


@pytest.mark.parametrize(
    "more",
    [{"object": "Opportunity"}, {"operation": "insert"}, {"lineEnding": "CR"}, {"columnDelimiter": "TAB"}, {"x": 1}],
)
def test_a_job_that_makes_no_sense_is_not_made(org: OrgClient, more: dict[str, Any]) -> None:
    assert create(org, **more).status_code == 400
    assert org.simulator.state()["jobs"] == {}


def test_what_is_uploaded_must_be_csv_and_not_too_large(org: OrgClient) -> None:
    job = create(org).json["id"]

    assert org.call("PUT", f"jobs/ingest/{job}/batches", json={}).status_code == 415
    answer = put(org, job, b"x" * 100_000_001)

    assert (answer.status_code, answer.json[0]["errorCode"]) == (400, "CLIENTINPUTERROR")


def test_jobs_are_kept_for_seven_days(org: OrgClient) -> None:
    job, _ = run(org, f"Id,Title\r\n{contact_id(0)},CTO\r\n")
    org.clock.seconds += 7 * 86_400 + 1
    org.token = org.login().json["access_token"]

    assert org.call("GET", f"jobs/ingest/{job}").status_code == 404


def test_a_lead_keeps_its_owner_and_every_request_counts_as_a_call(org: OrgClient) -> None:
    before = org.simulator.state()["api_calls"]["used"]
    was = org.field(lead_id(0), "OwnerId", "Lead")

    run(org, f"Id,Title\r\n{lead_id(0)},CTO\r\n", object="Lead")

    assert org.field(lead_id(0), "OwnerId", "Lead") == was
    assert org.simulator.state()["api_calls"]["used"] == before + 2 + 3 + 3
