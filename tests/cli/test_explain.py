"""explain: the story of one record, found by whatever an admin has of it."""

from __future__ import annotations

import json

import pytest

from tests.cli.conftest import PEOPLE, Desk

TITLE = {"salesforce": "Title", "hubspot": "jobtitle"}


@pytest.fixture
def told(desk: Desk) -> str:
    """The id of a record that was written, edited by a person, and looked at again by an undo."""
    title = TITLE[desk.crm]
    desk.configure({f"      {title}: person.title": f"      {title}: {{from: person.title, write: track}}"})
    run = desk.run("run", "contacts", "--limit", "20", "--json").json["id"]
    records = desk.run("show", run, "--json").json["records"]
    one = next(r["id"] for r in records if any((f["field"], f["outcome"]) == (title, "Written") for f in r["fields"]))
    simulator = desk.sandbox.apps[desk.crm].extensions["simulator"]
    simulator.edit(PEOPLE[desk.crm], one, {title: "Typed by Kim"})
    assert desk.run("undo", run, "--yes").code == 3
    return str(one)


def test_the_story_reads_from_what_was_sent_to_what_became_of_it(desk: Desk, told: str) -> None:
    title = TITLE[desk.crm]
    said = desk.run("explain", told, "--field", title).text

    lines = [line.strip() for line in said.splitlines() if line.strip()]
    order = [
        f"{PEOPLE[desk.crm]} {told} in {desk.crm}",
        "Apollo was sent email",
        "and answered: matched",
        f"{title}  written",
        "received     person.title = ",
        "made of it   ",
        "the CRM had  ",
        "rule         track: writes into a blank field, or over crm-sync's own value",
        "decision     filled: was",
        "Updated",
        "· undo ",
        f"{title}  conflict, left alone",
        "was to hold  ",
        "the CRM had  Typed by Kim",
        "decision     changed since: left as it is",
    ]
    places = [next(at for at, line in enumerate(lines) if part in line) for part in order]
    assert places == sorted(places), lines
    assert said.count("rule  ") == 1  # an undo goes by no rule
    assert "first name" in said
    assert "first_name" not in said


def test_the_record_is_found_by_id_by_its_page_and_by_the_address_it_was_asked_by(desk: Desk, told: str) -> None:
    by_id = desk.run("explain", told, "--json").json
    sent = next(chapter["sent"] for chapter in by_id if chapter["sent"])
    page = {
        "salesforce": f"https://acme.lightning.force.com/lightning/r/Contact/{told}/view",
        "hubspot": f"https://app.hubspot.com/contacts/1234/record/0-1/{told}",
    }[desk.crm]

    assert desk.run("explain", page, "--json").json == by_id
    assert desk.run("explain", sent["email"].upper(), "--json").json == by_id
    if desk.crm == "salesforce":
        assert desk.run("explain", told[:15], "--json").json == by_id
    assert [(chapter["kind"], chapter["outcome"]) for chapter in by_id] == [("run", "Updated"), ("undo", "Updated")]
    assert by_id[0]["fields"][0].keys() >= {"field", "received", "made", "had", "rule", "outcome", "reason"}


def test_one_field_is_all_that_is_told_where_it_is_asked_for(desk: Desk, told: str) -> None:
    found = desk.run("explain", told, "--field", TITLE[desk.crm], "--json").json

    assert {field["field"] for chapter in found for field in chapter["fields"]} == {TITLE[desk.crm]}


@pytest.mark.parametrize("what", ["nobody@nowhere.example", "003000000000099AAA", "https://nowhere.example/x/1"])
def test_what_no_run_has_looked_at_is_said_without_naming_anybody(desk: Desk, told: str, what: str) -> None:
    said = desk.run("explain", what)

    assert said.code == 2
    assert "No run has looked at" in said.flat
    assert "nobody@" not in said.text


def test_a_field_that_nobody_decided_about_is_said(desk: Desk, told: str) -> None:
    said = desk.run("explain", told, "--field", "Nonsense")

    assert said.code == 2
    assert "No run has decided about a field Nonsense" in said.flat


def test_after_the_details_are_purged_there_is_no_story(desk: Desk, told: str) -> None:
    from crm_sync.store.engine import Store
    from crm_sync.store.tables import run_records

    store = Store(f"sqlite:///{desk.folder}/crm_sync.db")
    with store.write() as connection:
        connection.execute(run_records.delete())
    store.close()

    said = desk.run("explain", told)

    assert said.code == 2
    assert "is not kept any more (keep.run_details)" in said.flat


def test_the_story_is_json_of_plain_values(desk: Desk, told: str) -> None:
    said = desk.run("explain", told, "--json")

    assert json.loads(said.out) == said.json
    assert said.err == ""
