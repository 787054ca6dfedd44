"""crm-sync phones, as an admin reads it."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from crm_sync.domain.runs import RunKind
from tests.cli.conftest import Desk
from tests.journeys.phones.conftest import MOBILE, OpenPhones, PhoneOffice


@pytest.fixture
def crm() -> str:
    return "salesforce"


@pytest.fixture
def office(open_phones: OpenPhones, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> PhoneOffice:
    monkeypatch.chdir(tmp_path)
    return open_phones(tidy=True, contacts=20)


@pytest.fixture
def desk(office: PhoneOffice, tmp_path: Path) -> Desk:
    return Desk(sandbox=office.sandbox, crm=office.crm, folder=tmp_path)


def test_what_is_awaited_and_what_came_is_told(office: PhoneOffice, desk: Desk) -> None:
    office.walk()
    office.until(lambda: office.told().get("new") == 1)
    count = len(office.targets)

    told = desk.run("phones", "--json").json
    assert told["waits"] == {"waiting": count}
    assert {each["record"] for each in told["waiting"]} == {office.id_of(index) for index in office.targets}
    assert told["deliveries"]["received"] == 1
    assert told["credits"] == {"to_come": 8 * count, "billed": 0}
    shown = desk.on_terminal(100, "phones")
    assert f"{count} phones awaited" in shown
    assert office.id_of(office.targets[0]) in shown
    assert "0 phones awaited" in desk.run("phones", "--sync", "another").text
    assert all(len(line) <= 80 for line in desk.on_terminal(80, "phones").splitlines())


def test_poll_carries_out_what_is_there_and_asks_for_what_cannot_be_read(office: PhoneOffice, desk: Desk) -> None:
    office.script({"what": "latin1", "times": 9})
    office.walk()
    office.until(lambda: office.told().get("new") == 1)

    said = desk.run("phones", "poll")

    assert "asked Apollo about 1 order" in said.flat
    assert "1 Applied" in said.flat
    assert "1 Rejected" in said.flat
    assert office.with_mobile == office.targets
    assert desk.run("phones", "--json").json["needs_a_look"] == [], "its numbers are there"
    assert desk.run("phones", "poll", "--all", "--json").json["polled"] == 0


def test_what_is_put_off_says_why(office: PhoneOffice, desk: Desk) -> None:
    office.walk()
    office.until(lambda: office.told().get("new") == 1)
    office.fault("salesforce", call="*", what="503", times=1000)
    office.carry_out(until=lambda: "new" not in office.told())

    [look] = desk.run("phones", "--json").json["needs_a_look"]
    assert look["state"] == "Received"
    assert "503" in look["reason"]
    shown = desk.run("phones", "show", str(look["id"])).flat
    assert "tried 1 time, again " in shown
    assert "Apollo's own copy" in shown


def test_show_tells_each_number_and_who_got_it(office: PhoneOffice, desk: Desk) -> None:
    office.walk()
    office.carry_out()
    [delivery] = office.app.deliveries.listed()
    index = office.targets[0]

    shown = desk.run("phones", "show", str(delivery.id)).flat
    assert "Applied" in shown
    assert f"Contact {office.id_of(index)}: applied" in shown
    assert office.value(index, MOBILE["salesforce"]) in shown
    told = desk.run("phones", "show", str(delivery.id), "--json").json
    assert (told["state"], told["believed_by"], told["sync"]) == ("Applied", "poll", "contacts")
    assert len(told["people"]) == len(office.targets)
    assert desk.run("phones", "show", "99").code == 2


def test_replay_of_one_of_a_state_and_of_a_time(office: PhoneOffice, desk: Desk) -> None:
    index = office.targets[0]
    office.walk()
    office.edit(index, {"MobilePhone": "+1 512 555 0100"})
    office.carry_out()
    [delivery] = office.app.deliveries.listed()
    office.edit(index, {"MobilePhone": None})
    today = f"{office.app.clock.now():%Y-%m-%d}"
    yesterday = f"{office.app.clock.now() - timedelta(days=1):%Y-%m-%d}"

    for words, count in (
        (["--state", "rejected"], 0),
        (["--state", "applied"], 1),
        (["--since", today], 1),
        (["--until", today], 1),
        (["--until", yesterday], 0),
        (["--sync", "contacts"], 1),
        (["--sync", "another"], 0),
    ):
        told = desk.run("phones", "replay", *words, "--dry-run", "--json").json
        assert told == {"deliveries": count, "dry_run": True}, words
    assert office.ended(index)[0] == "kept", "a dry run changes nothing"
    assert desk.run("phones", "replay").code == 2
    assert desk.run("phones", "replay", "99").code == 2
    assert desk.run("phones", "replay", str(delivery.id), "--sync", "contacts").code == 2

    told = desk.run("phones", "replay", str(delivery.id), "--json").json
    assert (told["waiting_again"], told["carried_out"], told["waits"]) == (1, True, {"applied": 1})
    assert office.with_mobile == office.targets
    again = desk.run("phones", "replay", "--state", "applied").flat
    assert "0 records waiting again" in again
    assert office.app.deliveries.listed()[0].reason == "whoever it is about had got an answer already"
    office.books_agree()


def test_a_number_that_waits_for_a_person_is_told_as_accepted_or_refused(office: PhoneOffice, desk: Desk) -> None:
    office.order_phones(**{"      wait: 2m": "      wait: 2m\n      write: review"})
    office.walk()
    office.carry_out()
    count = len(office.targets)
    assert office.app.reveals.counts() == {"held": count}
    assert office.with_mobile == []
    marked, refused, *rest = office.targets
    office.edit(marked, {"DoNotCall": True})
    number = {each.record_id: each.id for each in office.app.reviews.listed()}

    assert desk.run("review", "refuse", str(number[office.id_of(refused)]), "--yes").code == 0
    desk.run("review", "accept", "--all", "--yes")

    assert office.with_mobile == rest, "who was marked as do not call since gets none"
    assert office.app.reveals.counts() == {"held": 1, "kept": 1, "applied": count - 2}
    assert office.ended(refused)[1].startswith("MobilePhone: refused by ")
    assert office.ended(rest[0])[1].startswith("MobilePhone: accepted by ")
    told = desk.run("phones", "--json").json
    assert [each["record"] for each in told["not_written"]] == [office.id_of(marked)]
    run = office.app.runs.get(office.wait_of(rest[0]).settled_run)
    assert run is not None
    assert run.kind is RunKind.REVIEW
    assert [each.record_id for each in office.app.reviews.listed()] == [office.id_of(marked)]
    office.books_agree()
