"""A lead whose phone is under way, and what becomes of it until the number comes."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from crm_sync.domain.runs import RunStatus
from crm_sync.sandbox.salesforce import ids
from crm_sync.store.reveals import Wait
from tests.cli.conftest import Desk
from tests.journeys.phones.conftest import PHONES, OpenPhones, PhoneOffice

CONTACTS = 20


@pytest.fixture
def crm() -> str:
    """HubSpot converts no leads."""
    return "salesforce"


class Leads(PhoneOffice):
    """Orders phones for leads alone."""

    def order_phones(self, text: str = "", **replaced: str) -> None:
        phones = text or PHONES["salesforce"].replace(", other: OtherPhone", ", other: skip")
        for old, new in replaced.items():
            assert old in phones
            phones = phones.replace(old, new)
        contacts, head, leads = self.text.partition("  leads:\n")
        before, sign, after = leads.partition("    fields:")
        assert head
        assert sign
        self.apply(contacts + head + before + phones + sign + after)
        self.restart()


def lead_of(index: int) -> str:
    return ids.encode("00Q", index)


@pytest.fixture
def office(open_phones: OpenPhones, monkeypatch: pytest.MonkeyPatch) -> Leads:
    monkeypatch.setattr("tests.journeys.phones.conftest.PhoneOffice", Leads)
    made = open_phones(tidy=True, contacts=CONTACTS)
    assert isinstance(made, Leads)
    return made


def targets(office: Leads) -> list[int]:
    count = office.sandbox.apps["salesforce"].extensions["simulator"].state()["records"]["Lead"]
    return [index for index in range(count) if office.sandbox.world.lead(index).status == "Target"]


def edit(office: Leads, index: int, fields: dict[str, Any]) -> None:
    office.sandbox.apps["salesforce"].extensions["simulator"].edit("Lead", lead_of(index), fields)


def held(office: Leads, index: int, field: str) -> Any:
    return office.sandbox.apps["salesforce"].extensions["simulator"].edit("Lead", lead_of(index), {})[field]


def wait_of(office: Leads, index: int) -> Wait:
    [wait] = office.app.reveals.of_record("Lead", lead_of(index))
    return wait


def number_of(office: Leads, index: int) -> str:
    """The mobile that Apollo sells of a lead's person."""
    return str(office.numbers_of(office.sandbox.world.lead(index).person)[0].sanitized)


def convert(office: Leads, index: int, contact: int, **fields: Any) -> None:
    """Into a contact that is about the same person, as a conversion makes it, but for `fields`."""
    person = office.sandbox.world.person(office.sandbox.world.lead(index).person)
    same = {"Email": person.email, "FirstName": person.first_name, "LastName": person.last_name, "Phone": None}
    office.edit(contact, {**same, **fields})
    edit(office, index, {"$convert": office.id_of(contact)})


def order(office: Leads) -> None:
    run = office.walk("leads")
    assert run.status is RunStatus.WAITING_FOR_PHONES, run.reason
    assert office.app.reveals.counts() == {"waiting": len(targets(office))}


def test_a_lead_gets_its_number_as_a_contact_does(office: Leads) -> None:
    order(office)
    office.carry_out()

    assert {held(office, index, "MobilePhone") for index in targets(office)} == {
        number_of(office, index) for index in targets(office)
    }
    office.books_agree()


def test_a_lead_that_was_converted_gets_its_number_as_the_contact_it_became(
    office: Leads, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    index, contact = targets(office)[0], 3
    order(office)
    convert(office, index, contact)
    office.carry_out()

    wait = wait_of(office, index)
    assert (wait.state, office.value(contact, "MobilePhone")) == ("applied", number_of(office, index)), wait.reason
    assert office.id_of(contact) in wait.reason
    assert held(office, index, "MobilePhone") is None
    record = office.app.runs.record(wait.settled_run, "Lead", lead_of(index))
    assert record is not None
    assert (record.outcome, f"now Contact {office.id_of(contact)}" in record.reason) == ("Updated", True)
    office.books_agree()

    monkeypatch.chdir(tmp_path)
    desk = Desk(sandbox=office.sandbox, crm="salesforce", folder=tmp_path)
    told = desk.run("explain", lead_of(index)).flat
    assert "Phone of leads: applied" in told
    assert office.id_of(contact) in told
    assert desk.run("undo", wait.settled_run, "--yes").code == 0
    assert office.value(contact, "MobilePhone") is None
    assert [held(office, each, "MobilePhone") for each in targets(office)] == [None] * len(targets(office))


def test_a_lead_that_was_converted_into_somebody_else_gives_its_number_to_nobody(office: Leads) -> None:
    """A rep picked the wrong contact: two people's data in one record is bad enough."""
    index, contact = targets(office)[0], 3
    order(office)
    edit(office, index, {"$convert": office.id_of(contact)})
    office.carry_out()

    wait = wait_of(office, index)
    assert (wait.state, office.value(contact, "MobilePhone")) == ("skipped", None), wait.reason
    assert "not about whom Apollo was asked for" in wait.reason
    assert office.id_of(contact) in wait.reason
    office.books_agree()


@pytest.mark.parametrize("field", ["DoNotCall", "HasOptedOutOfEmail"])
def test_the_contact_that_it_became_is_heard_about_being_left_alone(office: Leads, field: str) -> None:
    index, contact = targets(office)[0], 3
    order(office)
    convert(office, index, contact, **{field: True})
    office.carry_out()

    wait = wait_of(office, index)
    assert (wait.state, office.value(contact, "MobilePhone")) == ("skipped", None), wait.reason
    assert "do not" in wait.reason
    office.books_agree()


def test_what_stands_in_the_contact_that_it_became_is_kept(office: Leads) -> None:
    index, contact = targets(office)[0], 3
    order(office)
    convert(office, index, contact, MobilePhone="+1 512 555 0100")
    office.carry_out()

    wait = wait_of(office, index)
    assert (wait.state, office.value(contact, "MobilePhone")) == ("kept", "+1 512 555 0100"), wait.reason
    office.books_agree()


def test_a_field_that_contacts_do_not_have_is_told_and_mended(office: Leads) -> None:
    """The number is paid for: a route to a field of both, and a replay."""
    office.order_phones(**{"mobile: MobilePhone": "mobile: PostalCode"})
    index, contact = targets(office)[0], 3
    order(office)
    convert(office, index, contact)
    office.carry_out()

    wait = wait_of(office, index)
    assert wait.state == "skipped", wait.reason
    assert f"became Contact {office.id_of(contact)}, which has none of the fields" in wait.reason
    office.order_phones()
    office.app.reveals.replay([each.id for each in office.app.deliveries.listed()])
    office.carry_out()
    assert (wait_of(office, index).state, office.value(contact, "MobilePhone")) == ("applied", number_of(office, index))
    office.books_agree()


def test_a_lead_whose_contact_was_merged_since_is_followed_to_the_end(office: Leads) -> None:
    index, contact, survivor = targets(office)[0], 3, 5
    order(office)
    convert(office, index, contact)
    person = office.sandbox.world.person(office.sandbox.world.lead(index).person)
    office.edit(survivor, {"Email": person.email, "FirstName": person.first_name, "LastName": person.last_name})
    office.edit(contact, {"MasterRecordId": office.id_of(survivor)})
    office.carry_out()

    wait = wait_of(office, index)
    assert (wait.state, office.value(survivor, "MobilePhone")) == ("applied", number_of(office, index)), wait.reason
    office.books_agree()


@pytest.mark.parametrize("gone", ["lead", "contact"])
def test_a_converted_lead_that_is_gone_ends_with_a_clear_word(office: Leads, gone: str) -> None:
    index, contact = targets(office)[0], 3
    order(office)
    convert(office, index, contact)
    if gone == "lead":
        edit(office, index, {"IsDeleted": True})
    else:
        office.edit(contact, {"IsDeleted": True})
    office.carry_out()

    wait = wait_of(office, index)
    assert wait.state == "skipped", wait.reason
    assert "deleted" in wait.reason
    office.books_agree()


def test_a_lead_that_is_converted_between_our_read_and_our_write_is_followed_too(office: Leads) -> None:
    index, contact = targets(office)[0], 3
    order(office)
    person = office.sandbox.world.person(office.sandbox.world.lead(index).person)
    office.edit(contact, {"Email": person.email, "FirstName": person.first_name, "LastName": person.last_name})
    office.sandbox.edits["salesforce"].add(
        [
            {
                "call": "POST */composite",
                "object": "Lead",
                "id": lead_of(index),
                "fields": {"$convert": office.id_of(contact)},
            }
        ]
    )
    office.carry_out()

    wait = wait_of(office, index)
    assert (wait.state, office.value(contact, "MobilePhone")) == ("applied", number_of(office, index)), wait.reason
    office.books_agree()


def test_a_lead_and_the_contact_it_became_both_wait_and_it_is_bought_once(office: Leads) -> None:
    """The contact is chosen by a sync of its own while the lead's number is under way."""
    index, contact = targets(office)[0], 3
    version = office.app.versions.latest()
    assert version is not None
    text = version.text.decode()
    before, sign, after = text.partition("    fields:")
    office.apply(before + PHONES["salesforce"] + sign + after)
    office.restart()
    order(office)
    convert(office, index, contact, Status__c="Target")
    for other in range(CONTACTS):
        if other != contact:
            office.edit(other, {"Status__c": "Customer"})
    office.walk("contacts")
    office.carry_out()

    wait = wait_of(office, index)
    [mine] = office.app.reveals.of_record("Contact", office.id_of(contact))
    assert office.value(contact, "MobilePhone") == number_of(office, index)
    assert (wait.state, mine.state) == ("applied", "applied"), (wait.reason, mine.reason)
    office.books_agree()
    office.later(timedelta(days=1))
    office.walk("contacts")
    office.carry_out()
    office.books_agree()
