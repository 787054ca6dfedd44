"""`plan` and `run`: what they call things, and what to do next."""

from __future__ import annotations

import re

import pytest

from tests.cli.conftest import Desk


def test_a_plan_says_would_update_wherever_it_is_shown(desk: Desk) -> None:
    desk.configure()

    planned = desk.run("plan", "contacts", "--limit", "8")
    shown = desk.run("show")
    told = desk.run("show", "--json").json

    for said in (planned, shown):
        assert said.code == 0
        assert "· Would update" in said.out
        assert not re.search(r"\bUpdated\b", said.out)
    assert "\nWould update\n" in shown.out
    assert {record["outcome"] for record in told["records"]} == {"Would update"}
    assert desk.run("show", "--outcome", "updated").out.count("· Would update") == shown.out.count("· Would update")


def test_a_plan_names_the_people_it_is_about(desk: Desk) -> None:
    desk.configure()

    planned = desk.run("plan", "contacts", "--limit", "20").out

    heads = re.findall(r"^(?:Contact|contacts) \w+ (.*) · Would update", planned, re.MULTILINE)
    assert len(heads) > 10
    assert all(re.fullmatch(r"\S+( \S+)+", name) for name in heads), heads


def test_a_plan_names_companies_by_their_domain(desk: Desk) -> None:
    desk.configure()

    planned = desk.run("plan", "accounts" if desk.crm == "salesforce" else "companies").out

    heads = re.findall(r"^(?:Account|companies) \w+ (.*) · Would update", planned, re.MULTILINE)
    assert heads
    assert all("." in name for name in heads), heads


def test_a_plan_ends_with_the_run_that_writes_it(desk: Desk) -> None:
    desk.configure()

    planned = desk.run("plan", "contacts", "--limit", "4")

    assert planned.out.rstrip().endswith("Next: crm-sync run contacts --limit 4 writes these.")


def test_a_run_that_stops_at_its_limit_says_how_many_more_are_due_and_how_to_go_on(desk: Desk) -> None:
    desk.configure({"at_most: 1000": "at_most: 12"})
    due = desk.run("run", "contacts", "--limit", "99999", "--json")

    by_configuration = desk.run("run", "contacts")
    by_option = desk.run("run", "contacts", "--limit", "5")
    last = desk.run("run", "contacts", "--json")
    while last.json["selected"]:
        last = desk.run("run", "contacts", "--json")

    assert due.json["selected"] == 12
    more = due.json["left_out"]["beyond the limit"] if desk.crm == "hubspot" else None
    if more is not None:
        assert (
            f"{more - 12} more records are due, beyond at_most: 12; to go on: crm-sync run contacts"
            in by_configuration.out
        )
    assert re.search(
        r"\d+ more records are due, beyond at_most: 12; to go on: crm-sync run contacts", by_configuration.out
    )
    assert re.search(r"\d+ more records are due, beyond --limit 5; to go on: crm-sync run contacts", by_option.out)
    assert not [reason for reason in last.json["left_out"] if reason.startswith("beyond")]


def test_applying_a_configuration_ends_with_the_next_step(desk: Desk) -> None:
    desk.run("init", "--crm", desk.crm)

    assert desk.run("config", "apply").out.endswith("\nNext: crm-sync plan contacts\n")


@pytest.mark.parametrize("crm", ["hubspot"])
def test_a_sync_that_is_named_twice_runs_once(desk: Desk) -> None:
    desk.configure()

    said = desk.run("run", "contacts", "contacts", "--limit", "1", "--json")

    assert said.json["selected"] == 1
    assert len(desk.run("runs", "--json").json) == 1


@pytest.mark.parametrize("crm", ["hubspot"])
def test_one_call_is_one_call_and_an_object_named_like_its_sync_is_named_once(desk: Desk) -> None:
    desk.configure()
    desk.run("run", "contacts")

    said = desk.run("run", "contacts").out

    assert "contacts in hubspot" in said.splitlines()[0]
    assert "contacts · contacts" not in said
    assert not re.search(r"\b1 calls\b", said)


@pytest.mark.parametrize("crm", ["hubspot"])
def test_records_that_apollo_refuses_like_all_others_are_not_blamed_for_it(desk: Desk) -> None:
    desk.configure()
    desk.sandbox.faults["apollo"].add([{"call": "POST */people/bulk_match", "what": "422", "times": 999}])

    said = desk.run("run", "contacts")

    assert said.code == 1
    assert "this record's match keys" not in said.flat
