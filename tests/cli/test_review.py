"""review: what waits for a person, and what becomes of what they say."""

from __future__ import annotations

from typing import Any

import pytest

from tests.cli.conftest import PEOPLE, Desk

CITY = {"salesforce": "MailingCity", "hubspot": "city"}
#: Fields that people have, in the names of each CRM.
STATE = {"salesforce": "MailingState", "hubspot": "state"}


def configure(desk: Desk) -> None:
    """Two fields wait for a person: the city and the state."""
    desk.configure(
        {
            f"      {name}: person.{source}": f"      {name}: {{from: person.{source}, write: review}}"
            for names, source in ((CITY, "city"), (STATE, "state"))
            for name in (names[desk.crm],)
        }
    )


def value(desk: Desk, record_id: str, field: str) -> str:
    found = desk.sandbox.apps[desk.crm].extensions["simulator"].edit(PEOPLE[desk.crm], record_id, {})
    return str(found.get("properties", found).get(field) or "")


def waiting(desk: Desk, *filters: str) -> list[dict[str, Any]]:
    said = desk.run("review", "list", "--limit", "999", "--json", *filters)
    assert said.code == 0, said.text
    found: list[dict[str, Any]] = said.json
    return found


@pytest.fixture
def asked(desk: Desk) -> list[dict[str, Any]]:
    """What a run has put on the list."""
    configure(desk)
    said = desk.run("run", "contacts", "--limit", "20")
    assert said.code == 0, said.text
    found = waiting(desk)
    assert f"{len(found)} proposals wait for a person: crm-sync review" in said.flat
    return found


def test_the_list_says_what_is_there_what_is_proposed_and_what_to_do(desk: Desk, asked: list[dict[str, Any]]) -> None:
    shown = desk.run("review").flat
    some = asked[0]

    assert len(asked) > 10
    assert {each["kind"] for each in asked} == {"field"}
    assert {each["field"] for each in asked} == {CITY[desk.crm], STATE[desk.crm]}
    assert f"{PEOPLE[desk.crm]} {some['id']}" in shown
    assert str(some["proposed"]) in shown
    assert "Next: crm-sync review accept NUMBER … or crm-sync review refuse NUMBER …" in shown
    assert len(desk.run("review", "list", "--limit", "3", "--json").json) == 3
    assert f"{len(asked)} in all; --limit shows more" in desk.run("review", "list", "--limit", "3").flat


def test_filters_are_heard_by_the_list(desk: Desk, asked: list[dict[str, Any]]) -> None:
    cities = waiting(desk, "--field", CITY[desk.crm])

    assert cities == [each for each in asked if each["field"] == CITY[desk.crm]]
    assert waiting(desk, "--sync", "contacts") == asked
    assert waiting(desk, "--sync", "nothing") == []
    assert waiting(desk, "--kind", "match") == []
    assert waiting(desk, "--state", "refused") == []
    assert "Nothing was refused." in desk.run("review", "list", "--state", "refused").flat


def test_what_is_accepted_is_written_and_leaves_the_list(desk: Desk, asked: list[dict[str, Any]]) -> None:
    one, other = asked[0], asked[1]

    dry = desk.run("review", "accept", str(one["number"]), "--dry-run")
    before = value(desk, one["id"], one["field"])
    said = desk.run("review", "accept", str(one["number"]), str(one["number"]), "--yes", "--json")

    assert dry.code == 0
    assert "1 field would be written on 1 record, 0 conflicts." in dry.flat
    assert before != one["proposed"]
    assert said.code == 0, said.text
    [run] = said.json
    assert (run["kind"], run["credits"], run["updated"]) == ("review", 0, 1)
    assert value(desk, one["id"], one["field"]) == one["proposed"]
    assert value(desk, other["id"], other["field"]) != other["proposed"]
    assert [each["number"] for each in waiting(desk)] == [each["number"] for each in asked[1:]]
    [done] = waiting(desk, "--state", "accepted")
    assert done["number"] == one["number"]
    assert desk.run("undo", run["id"], "--yes").code == 0
    assert value(desk, one["id"], one["field"]) == before


def test_what_was_edited_since_it_was_proposed_stays_open(desk: Desk, asked: list[dict[str, Any]]) -> None:
    one = asked[0]
    desk.sandbox.apps[desk.crm].extensions["simulator"].edit(
        PEOPLE[desk.crm], one["id"], {one["field"]: "Typed meanwhile"}
    )

    said = desk.run("review", "accept", str(one["number"]), "--yes")

    assert said.code == 3
    assert "Conflict: changed since: left as it is" in said.flat
    assert value(desk, one["id"], one["field"]) == "Typed meanwhile"
    assert one["number"] in {each["number"] for each in waiting(desk)}


def test_what_is_refused_is_not_proposed_again(desk: Desk, asked: list[dict[str, Any]]) -> None:
    cities = [each for each in asked if each["field"] == CITY[desk.crm]]

    said = desk.run("review", "refuse", "--all", "--field", CITY[desk.crm], "--yes")
    left = waiting(desk)
    desk.run("run", "contacts", "--limit", "20", "--json")

    assert said.flat == f"Refused {len(cities)} proposals."
    assert {each["field"] for each in left} == {STATE[desk.crm]}
    again = {each["number"] for each in waiting(desk)}
    assert not again & {each["number"] for each in cities}
    assert [each["number"] for each in waiting(desk, "--state", "refused")] == [each["number"] for each in cities]


def test_all_is_accepted_at_once(desk: Desk, asked: list[dict[str, Any]]) -> None:
    said = desk.run("review", "accept", "--all", "--yes", "--json")

    assert said.code == 0, said.text
    assert [(run["kind"], run["credits"]) for run in said.json] == [("review", 0)]
    assert all(value(desk, each["id"], each["field"]) == each["proposed"] for each in asked)
    assert waiting(desk) == []
    assert "Nothing waits for a person." in desk.run("review").flat


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["accept"], "Give numbers or --all, not both."),
        (["accept", "1", "--all"], "Give numbers or --all, not both."),
        (["refuse"], "Give numbers or --all, not both."),
        (["accept", "9999", "--yes"], "There is no proposal 9999; crm-sync review lists them"),
        (["refuse", "9999", "--yes"], "There is no proposal 9999; crm-sync review lists them"),
        (["accept", "--all", "--sync", "nothing", "--yes"], "Nothing of that waits for a person"),
        (["refuse", "1"], "Refuse 1 proposal? Nobody can be asked here: say --yes."),
        (["accept", "--kind", "nonsense", "--all"], "Invalid value for '--kind'"),
    ],
)
def test_what_cannot_be_meant_is_refused_and_changes_nothing(
    desk: Desk, asked: list[dict[str, Any]], words: list[str], why: str
) -> None:
    said = desk.run("review", *words)

    assert (said.code, why in said.flat) == (2, True), said.text
    assert waiting(desk) == asked


def test_what_has_its_answer_is_not_answered_again(desk: Desk, asked: list[dict[str, Any]]) -> None:
    number = str(asked[0]["number"])
    assert desk.run("review", "refuse", number, "--yes").code == 0

    said = desk.run("review", "accept", number, "--yes")

    assert said.code == 2
    assert f"Proposal {number} was refused by" in said.flat
