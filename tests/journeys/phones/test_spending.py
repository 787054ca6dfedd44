"""Every phone is bought once, and what it costs stands in our books as it stands in Apollo's."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from pathlib import Path

import pytest

from crm_sync.domain.runs import RunKind, RunStatus
from crm_sync.pipeline.run import run_sync
from crm_sync.pipeline.walk import Spending
from tests.journeys.phones.conftest import MOBILE, OpenPhones, PhoneOffice, office_of


@pytest.fixture
def on_any_database(
    crm: str, request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, database_url: str
) -> object:
    """A sandbox of everybody, on SQLite and on PostgreSQL."""
    with office_of(crm, database_url, monkeypatch, contacts=40) as office:
        yield office


def test_one_run_after_the_other_buys_each_phone_once(on_any_database: PhoneOffice) -> None:
    office = on_any_database
    for day in range(3):
        office.walk()
        office.carry_out()
        office.books_agree()
        office.later(timedelta(days=1))
        office.restart()
        if day == 0:
            first = office.sold["ordered"]
            assert first > 5
    assert office.sold["ordered"] == first


def test_a_plan_and_a_free_run_order_nothing(open_phones: OpenPhones, crm: str) -> None:
    office = open_phones(tidy=True, contacts=20)
    office.plan()
    services = office.app.services()
    free = Spending(free=True)
    run_sync(services.config.syncs["contacts"], services, kind=RunKind.RUN, trigger="test", spending=free)

    assert office.sold["ordered"] == 0
    assert office.app.reveals.counts() == {}


def test_the_months_phones_stop_exactly_and_the_next_run_goes_on(open_phones: OpenPhones, crm: str) -> None:
    """Two people at nine credits fit into 20 while both are awaited; what they cost less makes room again."""
    office = open_phones(tidy=True, contacts=20)
    office.text = office.text.replace("syncs:", "budget: {phones_per_month: 20}\nsyncs:", 1)
    office.order_phones()

    run = office.walk()
    assert run.status is RunStatus.STOPPED_AT_BUDGET, run.reason
    assert "phones_per_month" in run.reason
    assert office.sold["ordered"] == 2
    assert office.app.reveals.counts() == {"waiting": 2, "not ordered": len(office.targets) - 2}
    office.carry_out()
    office.books_agree()
    office.text = office.text.replace("phones_per_month: 20", "phones_per_month: 200")
    office.order_phones()
    again = office.walk()
    assert again.status is RunStatus.WAITING_FOR_PHONES, again.reason
    office.carry_out()

    assert office.with_mobile == office.targets
    office.books_agree()


def test_what_a_run_may_spend_is_for_its_phones_too(open_phones: OpenPhones, crm: str) -> None:
    office = open_phones(tidy=True, contacts=20)
    services = office.app.services()
    most = Spending(max_credits=Decimal(20 + 9 * 3))
    run_sync(services.config.syncs["contacts"], services, kind=RunKind.RUN, trigger="test", spending=most)

    assert office.sold["ordered"] == 3
    office.carry_out()
    office.books_agree()


# --- the public address ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("trouble", ["not set", "nobody there", "another installation"])
def test_nothing_is_ordered_where_apollo_could_not_deliver(
    open_phones: OpenPhones, crm: str, trouble: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    office = open_phones(tidy=True, contacts=20)
    if trouble == "not set":
        monkeypatch.delenv("CRM_SYNC_PUBLIC_URL")
    elif trouble == "nobody there":
        monkeypatch.setenv("CRM_SYNC_PUBLIC_URL", "http://127.0.0.1:1")
    else:
        ours = office.app.settings.database_url
        other = PhoneOffice(office.sandbox, crm, f"sqlite:///{tmp_path}/other.db", monkeypatch)
        other.app.close()
        monkeypatch.setenv("CRM_SYNC_DATABASE_URL", ours)
    office.restart()

    run = office.walk()

    assert run.status is RunStatus.COMPLETED_WITH_ERRORS
    assert "no phone was ordered" in run.reason
    assert "CRM_SYNC_PUBLIC_URL" in run.reason
    assert office.sold["ordered"] == 0
    assert office.app.reveals.counts() == {}
    if trouble == "another installation":
        other.stop_serving()
        other.front.close()


# --- a lost answer --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("what", ["cut", "504"])
def test_a_delivery_proves_a_call_whose_answer_is_lost(on_any_database: PhoneOffice, what: str) -> None:
    office = on_any_database
    office.fault("apollo", call="*bulk_match", what=what, when="after", nth=5)  # the first phones' call
    run = office.walk()
    assert [call.purse for call in office.app.journal.doubts()] == ["phones"], run.calls
    office.carry_out()

    assert office.app.journal.doubts() == []
    assert set(office.app.reveals.counts()) <= {"applied", "kept", "no number", "listed", "held"}
    office.books_agree()
    office.walk()
    office.carry_out()
    office.books_agree()


def test_a_call_whose_answer_is_lost_and_that_nothing_comes_for_expires(open_phones: OpenPhones, crm: str) -> None:
    """The meter does not clear it, as its charge may still come; at last it counts at its worst cost, once. What comes
    then all the same corrects it."""
    office = open_phones(tidy=True, contacts=20, apollo_options={"callback_tries": 1})
    office.script({"what": "late", "times": 9, "seconds": 3})
    office.fault("apollo", call="*bulk_match", what="cut", when="after", nth=3)
    run = office.walk()
    office.later(timedelta(hours=1))
    again = office.walk()
    assert len(office.app.journal.doubts()) == 1
    assert again.credits == 0
    assert office.sold["skipped"] == 0
    office.later(timedelta(days=3))
    assert office.sweep().given_up == 1

    count = len(office.targets)
    assert office.app.reveals.counts() == {"expired": count}
    assert office.app.journal.doubts() == []
    assert office.money()["doubted"] == 9 * count
    ended = office.app.runs.get(run.id)
    assert ended is not None
    assert ended.status is not RunStatus.WAITING_FOR_PHONES
    office.walk()
    assert office.sold["skipped"] == 0, "it is not bought again"
    office.carry_out(until=lambda: office.told().get("late") == 1)
    office.books_agree()
    office.app.reveals.replay([each.id for each in office.app.deliveries.listed()])
    office.carry_out()
    assert office.with_mobile == office.targets
    office.books_agree()


# --- nothing in time ------------------------------------------------------------------------------------------------


def test_what_never_comes_is_given_up_at_its_worst_cost_and_a_late_bill_is_booked_once(
    open_phones: OpenPhones, crm: str
) -> None:
    office = open_phones(tidy=True, contacts=20, apollo_options={"reveal_delay_s": 3.0})
    run = office.walk()
    count = len(office.targets)
    assert office.money()["reserved"] == 8 * count
    office.later(timedelta(days=3, minutes=1))
    assert office.sweep().given_up == 1

    assert office.app.reveals.counts() == {"expired": count}
    assert "3 days" in office.ended(office.targets[0])[1]
    ended = office.app.runs.get(run.id)
    assert ended is not None
    assert ended.status is RunStatus.COMPLETED
    money = office.money()
    assert (money["reserved"], money["doubted"]) == (0, 8 * count)
    assert office.walk().credits == 0

    office.carry_out(until=lambda: office.told().get("late") == 1)
    assert office.with_mobile == []
    office.books_agree()
    delivery = office.app.deliveries.listed()[0].id
    assert office.app.reveals.replay([delivery]) == count
    office.carry_out()
    assert office.with_mobile == office.targets
    office.books_agree()
    office.app.reveals.replay([delivery])
    office.carry_out()
    office.books_agree()


@pytest.mark.parametrize("what", ["503", "429"])
def test_what_nobody_could_ask_about_is_not_given_up(open_phones: OpenPhones, crm: str, what: str) -> None:
    """The machine was off for days, and Apollo cannot be reached at once: it has the numbers for thirty days."""
    office = open_phones(tidy=True, contacts=20)
    office.script({"what": "never", "times": 9})
    office.walk()
    office.until(lambda: not office.sold["running"])
    office.later(timedelta(days=4))
    office.fault("apollo", call="*webhook_result*", what=what, times=1000)
    for _ in range(3):
        assert office.sweep().given_up == 0
        office.later(timedelta(minutes=6))
    assert office.app.reveals.counts() == {"waiting": len(office.targets)}
    office.sandbox.faults["apollo"].clear()
    office.later(timedelta(minutes=31))
    assert office.sweep().polled == 1
    office.carry_out()

    assert office.with_mobile == office.targets
    office.books_agree()


def test_what_nobody_could_ask_about_for_thirty_days_is_given_up(open_phones: OpenPhones, crm: str) -> None:
    """Apollo has nothing any more."""
    office = open_phones(tidy=True, contacts=20)
    office.script({"what": "never", "times": 9})
    office.walk()
    office.fault("apollo", call="*webhook_result*", what="503", times=1000)
    office.later(timedelta(days=30, hours=1))
    assert office.sweep().given_up == 1
    assert office.app.reveals.counts() == {"expired": len(office.targets)}


def test_who_waits_again_under_an_order_that_is_over_does_not_wait_for_ever(open_phones: OpenPhones, crm: str) -> None:
    """A replay that fails: the CRM is down until the delivery has had all its tries."""
    office = open_phones(tidy=True, contacts=20)
    index = office.targets[0]
    office.walk()
    office.edit(index, {MOBILE[crm]: "+1 512 555 0100"})
    office.carry_out()
    assert office.ended(index)[0] == "kept"
    delivery = office.app.deliveries.listed()[0].id
    office.app.reveals.replay([delivery])
    office.fault(crm, call="*", what="503", times=100_000)
    for _ in range(9):
        office.carry_out(until=lambda: not office.app.deliveries.to_read(now=office.app.clock.now(), limit=1))
        assert office.ended(index)[0] == "waiting"
        office.later(timedelta(hours=4))
    office.sweep()

    assert office.told() == {"dead": 1}
    assert office.ended(index)[0] == "expired"
    assert set(office.app.reveals.counts()) == {"applied", "expired"}


def test_a_phone_that_is_asked_for_again_after_its_delivery_was_purged_is_fetched(
    open_phones: OpenPhones, crm: str
) -> None:
    """By another record of the same person: the order is over, and Apollo still has the numbers."""
    if crm == "hubspot":
        pytest.skip("an address is one contact's there")
    office = open_phones(tidy=True, contacts=20)
    index, twin = office.targets[0], 0
    office.walk()
    office.carry_out()
    with office.app.store.write() as connection:
        connection.exec_driver_sql("delete from deliveries")
    person = office.sandbox.world.person(index)
    changed = {"Email": person.email, "FirstName": person.first_name, "LastName": person.last_name}
    office.edit(twin, {**changed, "Status__c": "Target"})
    office.walk()
    assert office.sweep().polled == 1
    office.carry_out()

    assert office.value(twin, "MobilePhone") == office.numbers_of(index)[0].sanitized
    office.books_agree()


def test_the_same_person_in_both_crms_is_bought_once_and_each_crm_gets_the_number(
    open_phones: OpenPhones, crm: str
) -> None:
    """The delivery of one sync's order serves the other's record, in its own CRM."""
    office = open_phones(tidy=True, contacts=20)
    theirs = "hubspot" if crm == "salesforce" else "salesforce"
    other = office.beside(theirs)
    run = office.walk()
    second = office.walk(f"{theirs}-contacts")
    assert second.status is RunStatus.WAITING_FOR_PHONES, second.reason
    office.carry_out()

    assert office.with_mobile == office.targets
    assert [index for index in range(20) if other(index, MOBILE[theirs])] == office.targets
    for each in (run, second):
        ended = office.app.runs.get(each.id)
        assert ended is not None
        assert ended.status is RunStatus.COMPLETED
    office.books_agree()
