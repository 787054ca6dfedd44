"""Somebody whose phone was asked for is erased: before it comes, after, and in a restored database; nothing is left."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import orjson
import pytest
from click.testing import CliRunner, Result
from sqlalchemy import select

from crm_sync.cli import cli
from crm_sync.pipeline.purge import cutoffs
from crm_sync.store.deliveries import delivery_name
from crm_sync.store.journal import body_name, request_name
from crm_sync.store.tables import answers, batches, deliveries, phone_waits
from tests.conftest import database_of
from tests.journeys.conftest import later
from tests.journeys.phones.conftest import MOBILE, STATUS, PhoneOffice, office_of
from tests.journeys.privacy.office import SECRET, all_columns, raw_bytes

PAIRS = [
    pytest.param(("salesforce", "sqlite"), id="salesforce-sqlite"),
    pytest.param(("hubspot", "postgresql"), id="hubspot-postgresql", marks=pytest.mark.postgres),
]
NEW = "a-new-secret-of-the-tests-that-is-long-enough"


@pytest.fixture(params=PAIRS)
def office(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[PhoneOffice]:
    """With 30 contacts, of whom some are to get a phone; each office keeps its key in the environment."""
    crm, database = request.param
    monkeypatch.setenv("CRM_SYNC_SECRET_KEY", SECRET)
    monkeypatch.chdir(tmp_path)
    with (
        database_of(database, request, tmp_path, is_empty=False) as url,
        office_of(crm, url, monkeypatch, contacts=30, tidy=True) as opened,
    ):
        yield opened


def command(*words: str) -> Result:
    """In a process of its own, as far as the store goes."""
    return CliRunner().invoke(cli, list(words))


def told(*words: str) -> Any:
    result = command(*words)
    assert result.exit_code == 0, result.output
    return orjson.loads(result.stdout)


def fetched(office: PhoneOffice, *, seconds: float = 10.0) -> dict[str, int]:
    """Ask Apollo for everything that is awaited until it is there: a reveal takes a moment. Ends of waits."""
    ends: Counter[str] = Counter()
    deadline = time.monotonic() + seconds
    while office.app.reveals.waiting() and time.monotonic() < deadline:
        ends.update(told("phones", "poll", "--all", "--json")["waits"])
    return dict(ends)


def targets(office: PhoneOffice) -> list[int]:
    """Who is to get a phone."""
    return [index for index in range(30) if office.sandbox.world.contact(index).status == "Target"]


def address_of(office: PhoneOffice, index: int) -> str:
    return str(office.sandbox.world.person(index).email)


def apollo_id(office: PhoneOffice, index: int) -> str:
    [found] = told("privacy", "export", address_of(office, index))["known_by"]["apollo_ids"]
    return str(found)


def words_of(office: PhoneOffice, index: int, known_as: str) -> list[bytes]:
    """What may be left nowhere of a person; numbers as they are delivered and as they are written."""
    person = office.sandbox.world.person(index)
    numbers = [each for phone in office.numbers_of(index) for each in (phone.raw, phone.sanitized)]
    words = [person.email, person.linkedin_slug, known_as, office.id_of(index), *filter(None, numbers)]
    return [word.encode() for word in words]


def traces_of(office: PhoneOffice, words: list[bytes]) -> dict[str, list[bytes]]:
    """Column or file -> the words that stand there, sealed columns opened."""
    store, vault = office.app.store, office.app.vault
    places = all_columns(store)
    with store.read() as connection:
        for row in connection.execute(select(batches)):
            if row.request:
                places[f"request {row.id}"] = vault.unseal(bytes(row.request), request_name(row.fingerprint))
            if row.body:
                places[f"body {row.id}"] = vault.unseal(bytes(row.body), body_name(row.id))
        for row in connection.execute(select(deliveries)):
            name = delivery_name(row.order_id, bytes(row.digest))
            places[f"delivery {row.id}"] = vault.unseal(bytes(row.body), name)
    places["file"] = raw_bytes(store)
    found = {
        place: [word for word in words if word in content or word.lower() in content.lower()]
        for place, content in places.items()
    }
    return {place: there for place, there in found.items() if there}


def test_who_is_erased_before_the_number_comes_gets_none_and_it_is_not_kept(office: PhoneOffice) -> None:
    office.script({"what": "never", "times": 50})
    office.walk()
    one, other = targets(office)[:2]
    words = words_of(office, one, apollo_id(office, one))
    awaited = office.app.reveals.counts()["waiting"]

    result = told("erase", address_of(office, one), "--yes", "--json")
    between = traces_of(office, words)
    ends = fetched(office)

    assert result["removed"]["phone_waits"] == 1
    assert result["left"] == {}
    assert between == {}
    assert ends == {"applied": awaited - 1}
    assert traces_of(office, words) == {}
    assert not office.value(one, MOBILE[office.crm])
    assert office.value(other, MOBILE[office.crm])
    assert office.app.reveals.counts() == {"applied": awaited - 1}
    assert {each.state for each in office.app.deliveries.listed()} == {"done"}


def test_who_is_erased_while_the_delivery_lies_unread_costs_the_others_nothing(office: PhoneOffice) -> None:
    office.walk()
    one, other = targets(office)[:2]
    words = words_of(office, one, apollo_id(office, one))
    deadline = time.monotonic() + 10
    while not office.app.deliveries.listed(states=("new",)) and time.monotonic() < deadline:
        time.sleep(0.05)

    result = told("erase", address_of(office, one), "--yes", "--json")
    between = traces_of(office, words)
    office.carry_out()

    assert (result["removed"]["deliveries"], result["left"], between) == (1, {}, {})
    assert traces_of(office, words) == {}
    assert office.app.reveals.counts() == {"applied": len(targets(office)) - 1}
    assert office.value(other, MOBILE[office.crm])
    assert not office.value(one, MOBILE[office.crm])
    assert office.app.reveals.bills() == {"to_come": 0, "billed": office.sold["charged"]}
    assert {wait.state for wait in office.app.reveals.settled()} == {"applied"}


def test_who_is_erased_after_the_number_came_is_told_it_and_leaves_no_trace(office: PhoneOffice) -> None:
    run = office.walk()
    office.carry_out()
    one, other = targets(office)[:2]
    known_as = apollo_id(office, one)
    words = words_of(office, one, known_as)
    others = traces_of(office, words_of(office, other, apollo_id(office, other)))
    spent = office.app.journal.spent(run.id)
    before = traces_of(office, words)

    export = told("privacy", "export", address_of(office, one))
    result = command("erase", address_of(office, one), "--yes")

    delivered = [
        phone["raw_number"] for each in export["deliveries"] for p in each["entries"] for phone in p["phone_numbers"]
    ]
    assert set(delivered) == {phone.raw for phone in office.numbers_of(one)}
    assert [(wait["record_id"], wait["state"]) for wait in export["phone_waits"]] == [(office.id_of(one), "applied")]
    assert {row["purpose"] for row in export["answers"]} >= {"person", "phone"}
    assert any(place.startswith("delivery") for place in before)
    assert result.exit_code == 0, result.output
    assert "phones asked for (phone_waits)" in result.output
    assert traces_of(office, words) == {}
    kept = traces_of(office, words_of(office, other, apollo_id(office, other)))
    assert {place: found for place, found in kept.items() if place != "file"} == {
        place: found for place, found in others.items() if place != "file"
    }
    assert office.app.journal.spent(run.id) == spent
    assert told("suppress", "check", "apollo", known_as, "--json")["by"][0]["source"] == "erased"


def test_who_is_erased_is_not_asked_for_again_by_apollos_id(office: PhoneOffice) -> None:
    """Another record of theirs, under another address, is found by the person's page and says who they are."""
    office.script({"what": "never", "times": 50})
    office.walk()
    one, other = targets(office)[:2]
    known_as = apollo_id(office, other)
    office.app.suppressions.add([f"apollo:{known_as}"], "erased", now=office.app.clock.now())
    fetched(office)
    with office.app.store.write() as connection:
        connection.execute(phone_waits.delete())
        connection.execute(answers.delete().where(answers.c.purpose == "phone"))
    for index in (one, other):
        office.edit(index, {MOBILE[office.crm]: None if office.crm == "salesforce" else ""})

    run = office.walk()

    assert run.left_out["do not enrich: suppressed Apollo id"] >= 1
    waits = office.app.reveals.waiting()
    assert office.id_of(one) in {wait.record_id for wait in waits}
    assert office.id_of(other) not in {wait.record_id for wait in waits}
    assert known_as not in office.sold["ordered_more_than_once"]


def test_a_restored_database_is_rid_of_them_again(office: PhoneOffice) -> None:
    office.walk()
    office.carry_out()
    one = targets(office)[0]
    words = words_of(office, one, apollo_id(office, one))
    if office.app.store.path is None:
        pytest.skip("the file is put back as it was")
    office.app.store.compact()
    backup = office.app.store.path.read_bytes()
    command("erase", address_of(office, one), "--yes")
    office.app.close()
    office.front.close()
    for end in ("-wal", "-shm"):
        Path(f"{office.app.store.path}{end}").unlink(missing_ok=True)
    office.app.store.path.write_bytes(backup)
    office.restart()

    restored = traces_of(office, words)
    done = told("erase", "--again", "--yes", "--json")

    assert any(place.startswith("delivery") for place in restored)
    assert (done["removed"]["phone_waits"], done["left"]) == (1, {})
    assert traces_of(office, words) == {}
    assert command("erase", "--again", "--yes").output == "Nothing is kept about anybody erased before.\n"


def test_numbers_are_kept_for_thirty_days_and_nobody_is_bought_twice(
    office: PhoneOffice, monkeypatch: pytest.MonkeyPatch
) -> None:
    office.walk()
    office.carry_out()
    one = targets(office)[0]
    bodies = len(office.app.deliveries.listed())
    numbers = [phone.raw.encode() for phone in office.numbers_of(one)]
    later(office, monkeypatch, 29)
    young = told("purge", "--json")["purged"]
    later(office, monkeypatch, 31)

    dry = told("purge", "--dry-run", "--json")["purged"]
    purged = told("purge", "--json")["purged"]

    assert (young["deliveries"], young["reveal_orders"]) == (0, 0)
    assert dry == purged
    assert purged["deliveries"] == bodies
    assert not any(place.startswith("delivery") for place in traces_of(office, numbers))
    charged = dict(office.charged)

    later(office, monkeypatch, 100)
    office.text = office.text.replace("or_older_than: 120d", "or_older_than: 300d") + "\nkeep: {answers: 300d}\n"
    office.order_phones()
    later(office, monkeypatch, 100)
    gone = told("purge", "--json")["purged"]
    for index in targets(office):
        office.edit(index, {MOBILE[office.crm]: None if office.crm == "salesforce" else ""})
    office.walk()
    again = office.walk()

    assert gone["reveal_orders"] > 0
    assert gone["phone_waits"] == len(targets(office))
    assert office.sold["more_than_once"] == {}
    assert {name: office.charged[name] for name in charged} == charged
    assert set(office.app.reveals.counts()) == {"skipped"}
    assert again.left_out["phone: asked for before, and the answer is fresh"] == len(targets(office))
    [wait] = office.app.reveals.of_record(office.people, office.id_of(one))
    assert wait.reason.endswith("is not kept any more (keep.deliveries)")


def test_deliveries_are_sealed_again_under_a_new_key(office: PhoneOffice, monkeypatch: pytest.MonkeyPatch) -> None:
    office.walk()
    office.carry_out()
    found = office.app.deliveries.listed()
    bodies = {each.id: office.app.deliveries.body(each.id) for each in found}
    monkeypatch.setenv("CRM_SYNC_SECRET_KEY", f"{NEW},{os.environ['CRM_SYNC_SECRET_KEY']}")

    dry = command("secrets", "rotate", "--dry-run")
    result = command("secrets", "rotate")
    again = command("secrets", "rotate")
    monkeypatch.setenv("CRM_SYNC_SECRET_KEY", NEW)
    office.restart()

    counted = "1 delivery" if len(found) == 1 else f"{len(found)} deliveries"
    assert f"and {counted} anew" in dry.output
    assert (result.exit_code, again.exit_code) == (0, 0), result.output
    assert {each: office.app.deliveries.body(each) for each in bodies} == bodies
    vault = office.app.vault
    with office.app.store.read() as connection:
        assert all(vault.is_newest(row.body) for row in connection.execute(select(deliveries)))


def test_a_key_that_is_rotated_while_phones_are_awaited_is_to_be_kept_until_they_are_here(
    office: PhoneOffice, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Apollo has the addresses that were made with it. Without it the numbers are fetched."""
    office.script({"what": "late", "times": 9, "seconds": 2})
    office.walk()
    old = os.environ["CRM_SYNC_SECRET_KEY"]
    monkeypatch.setenv("CRM_SYNC_SECRET_KEY", f"{NEW},{old}")
    rotated = command("secrets", "rotate").output
    status = command("secrets", "status").output

    assert "phones are awaited" in " ".join(rotated.split())
    assert "not needed any more" not in rotated
    assert "it can be removed" not in status
    monkeypatch.setenv("CRM_SYNC_SECRET_KEY", NEW)
    office.restart()
    fetched(office)
    office.books_agree()
    assert "not needed any more" in command("secrets", "rotate").output
    monkeypatch.setenv("CRM_SYNC_SECRET_KEY", f"{NEW},{old}")
    assert "it can be removed" in command("secrets", "status").output


def test_what_is_delivered_after_its_call_was_forgotten_is_billed_all_the_same(
    office: PhoneOffice, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Answers kept for a day, numbers that come after two, and a key that may not poll."""
    office.text = office.text.replace("or_older_than: 120d", "") + "\nkeep: {answers: 1d}\n"
    office.order_phones()
    office.script({"what": "late", "times": 9, "seconds": 3})
    office.walk()
    office.later(timedelta(days=2))
    later_clock = office.app.clock.now()
    gone = office.app.retention.purge(cutoffs(office.app.services().config, later_clock), now=later_clock)
    assert gone["batches"] > 0
    office.fault("apollo", call="*webhook_result*", what="403", times=1000)
    office.carry_out()

    assert office.app.deliveries.listed()[0].belief == "token"
    assert set(office.app.reveals.counts()) <= {"applied", "no number", "held", "listed"}
    assert len(office.with_mobile) > 0
    office.books_agree()


def test_a_record_and_a_run_tell_of_their_phones(office: PhoneOffice) -> None:
    office.script({"what": "never", "times": 50})
    run = office.walk()
    one = targets(office)[0]
    awaited = told("explain", office.id_of(one), "--json")[-1]["phones"]
    waiting = command("explain", office.id_of(one)).output
    fetched(office)

    phones = [chapter["phones"] for chapter in told("explain", office.id_of(one), "--json")]
    shown = command("explain", office.id_of(one)).output
    of_run = told("show", run.id, "--json")["phones"]

    assert (awaited["state"], awaited["asked_by"]) == ("waiting", run.id)
    assert "Phone of contacts: awaited, asked for" in waiting
    assert {(phone["state"], phone["asked_by"]) for phone in phones} == {("applied", run.id)}
    assert "Phone of contacts: applied" in shown
    assert of_run == {"applied": len(targets(office))}
    assert f"Phones: {len(targets(office))} asked for: {len(targets(office))} applied" in command("show", run.id).output
    assert all(
        chapter["phones"] is None
        for index in range(30)
        if office.sandbox.world.contact(index).status != STATUS and index not in targets(office)
        for chapter in told("explain", office.id_of(index), "--json")
    )


def test_credits_tell_of_phones_by_their_own_purse_and_by_record(office: PhoneOffice) -> None:
    office.apply(f"{office.text}\nbudget: {{per_month: 1000, phones_per_month: 500}}\n")
    run = office.walk()
    assert run.credits == 30
    office.order_phones()
    office.apply(office.app.applied()[0].text.decode() + "\nbudget: {per_month: 1000, phones_per_month: 500}\n")
    office.restart()
    office.walk()
    office.carry_out()

    budgets = {each["limit"]: each["spent"] for each in told("credits", "--json")["budgets"]}
    lines = [line.split(",") for line in command("credits", "--csv").output.splitlines()]
    rows = [dict(zip(lines[0], line, strict=True)) for line in lines[1:]]

    phones = [row for row in rows if row["record"] in {office.id_of(index) for index in targets(office)}]
    paid = sum(office.charged.values()) + office.sold["charged"]
    assert budgets["this month"] == 30
    assert budgets["phones this month"] == paid - 30
    assert f"Budget phones this month: {paid - 30:,} of 500 credits" in command("credits").output
    assert round(sum(float(row["credits"]) for row in rows), 3) == paid
    assert {row["record"] for row in phones} == {office.id_of(index) for index in targets(office)}
    assert all(row["record"] for row in rows)
