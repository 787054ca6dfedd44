"""What a run says at its end when a neighbour fails: what was not written, why, and whether it has failed."""

from __future__ import annotations

from pathlib import Path

import pytest

from crm_sync.sandbox.run import Sandbox
from tests.cli.conftest import Desk, a_desk

#: Calls in the words of /_sandbox/calls.
WRITE = {"salesforce": "POST */composite", "hubspot": "POST */batch/update"}
READ = {"salesforce": "POST */composite/sobjects/<name>", "hubspot": "POST */batch/read"}


def spoil(desk: Desk, provider: str, call: str, what: str, **more: object) -> None:
    desk.sandbox.faults[provider].add([{"call": call, "what": what, "times": 9999, **more}])


@pytest.mark.parametrize(
    ("crm", "what", "why"),
    [
        ("hubspot", "403", "lacks the scope crm.objects.contacts.write"),
        ("hubspot", "401", "does not accept the token"),
        ("hubspot", "429_daily", "API calls of this day are used up"),
        ("salesforce", "403_permission", "give it the permission"),
        ("salesforce", "403_daily", "API calls of these 24 hours are used up"),
    ],
)
def test_a_write_that_is_refused_to_everybody_is_told_as_not_written(desk: Desk, what: str, why: str) -> None:
    desk.configure()
    spoil(desk, desk.crm, WRITE[desk.crm], what)

    told = desk.run("run", "contacts", "--limit", "20", "--json")

    assert told.code == 1
    assert told.json["status"] == "Failed"
    assert why in told.json["reason"]
    assert told.json["rejected"] == told.json["updated"] == 0
    shown = desk.run("show", "--outcome", "Skipped", "--json").json
    unwritten = [record for record in shown["records"] if record["reason"].startswith("not written: ")]
    assert len(unwritten) == told.json["skipped"]
    assert all(why in record["reason"] for record in unwritten)
    assert {field["outcome"] for record in unwritten for field in record["fields"]} <= {
        "Planned", "Same", "Kept", "No value", "Invalid",
    }  # fmt: skip
    assert "lost" not in desk.run("show").flat
    assert "to go on" not in desk.run("run", "contacts", "--limit", "5").flat  # the reason has the next step


def test_what_was_not_written_is_written_by_the_next_run_for_no_credit(desk: Desk) -> None:
    desk.configure()
    spoil(desk, desk.crm, WRITE[desk.crm], "403_daily" if desk.crm == "salesforce" else "429_daily")
    stopped = desk.run("run", "contacts", "--json").json
    desk.sandbox.faults[desk.crm].clear()

    again = desk.run("run", "contacts", "--json").json

    assert again["status"] == "Completed"
    assert again["updated"] == stopped["skipped"] - weak(desk, stopped["id"])
    assert again["credits"] == 0


def weak(desk: Desk, run: str) -> int:
    shown = desk.run("show", run, "--outcome", "Skipped", "--limit", "999", "--json").json
    return sum("too weak" in record["reason"] for record in shown["records"])


def test_an_answer_that_is_lost_is_told_as_such_and_nothing_as_rejected(desk: Desk) -> None:
    desk.configure()
    spoil(desk, desk.crm, WRITE[desk.crm], "500", times=5)

    told = desk.run("run", "contacts", "--limit", "10", "--json").json

    assert told["status"] == "Failed"
    assert "HTTP 500" in told["reason"]
    assert "read again, the record does not hold the value" in told["reason"]
    assert told["rejected"] == 0


def test_an_answer_that_is_lost_after_the_write_is_no_error(desk: Desk) -> None:
    desk.configure()
    spoil(desk, desk.crm, WRITE[desk.crm], "500", when="after", times=5)

    told = desk.run("run", "contacts", "--limit", "10", "--json").json

    assert told["status"] == "Completed"
    assert told["updated"] > 0


def test_a_write_that_fails_between_others_makes_errors_and_no_failure(
    crm: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Sandbox(contacts=450, tidy=True, unlimited=True, per_minute=None) as sandbox:
        desk = a_desk(sandbox, crm, tmp_path, monkeypatch)
        desk.configure()
        spoil(desk, crm, WRITE[crm], "500", nth=2, times=5)

        told = desk.run("run", "contacts", "--json")

    assert told.code == 3
    assert told.json["status"] == "Completed with errors"
    size = {"salesforce": 25, "hubspot": 100}[crm]
    assert told.json["reason"] == f"{size} not written"
    assert (told.json["updated"], told.json["skipped"], told.json["rejected"]) == (450 - size, size, 0)


@pytest.mark.parametrize(
    ("crm", "provider", "call", "what"),
    [
        ("hubspot", "hubspot", READ["hubspot"], "garbage"),
        ("salesforce", "salesforce", READ["salesforce"], "500"),
        ("hubspot", "apollo", "POST */people/bulk_match", "422"),
        ("salesforce", "apollo", "POST */people/bulk_match", "422"),
        ("hubspot", "apollo", "POST */people/bulk_match", "401"),
    ],
)
def test_a_run_that_an_error_stopped_before_anything_came_of_it_has_failed(
    desk: Desk, provider: str, call: str, what: str
) -> None:
    desk.configure()
    spoil(desk, provider, call, what)

    told = desk.run("run", "contacts", "--json")

    assert told.json["status"] == "Failed", told.json
    assert told.code == 1
    assert told.json["updated"] == told.json["unchanged"] == 0


@pytest.mark.parametrize("crm", ["hubspot"])
def test_a_run_that_an_error_stopped_after_it_wrote_has_errors(desk: Desk) -> None:
    desk.configure()
    desk.run("run", "contacts", "--limit", "20")
    written = desk.run("show", "--outcome", "Updated", "--limit", "5", "--json").json["records"]
    for record in written:
        desk.sandbox.apps["hubspot"].extensions["simulator"].edit("contacts", record["id"], {"jobtitle": ""})
    # Those are written from stored answers; then Apollo breaks off three times in a row.
    spoil(desk, "apollo", "POST */people/bulk_match", "500")

    told = desk.run("run", "contacts", "--json")

    assert told.json["status"] == "Completed with errors", told.json
    assert told.code == 3
    assert told.json["updated"] == 5
