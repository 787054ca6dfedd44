"""What happens to a record, to the configuration and to the CRM between the order and the number."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from crm_sync.domain.runs import RunKind
from crm_sync.sandbox.numbers import Phone
from crm_sync.sandbox.salesforce.rules import ValidationRule
from tests.journeys.phones.conftest import MOBILE, PHONES, STATUS, OpenPhones, PhoneOffice

NAMES = {"salesforce": ("Email", "FirstName", "LastName"), "hubspot": ("email", "firstname", "lastname")}
MERGE = {"salesforce": "MasterRecordId", "hubspot": "merge_into"}
OPT_OUT = {"salesforce": "HasOptedOutOfEmail", "hubspot": "hs_contact_enrichment_opt_out"}
DELETED = {"salesforce": {"IsDeleted": True}, "hubspot": {"archived": True}}
GOOD = Phone("+1 212-555-0177", "+12125550177", "mobile", "valid_number", "high", "not_found", "United States")


@pytest.fixture
def office(open_phones: OpenPhones) -> PhoneOffice:
    made = open_phones(tidy=True, contacts=20)
    run = made.walk()
    assert made.app.reveals.waiting_in(run.id) == len(made.targets)
    return made


def rest_is_applied(office: PhoneOffice, *but: int) -> None:
    assert [index for index in office.with_mobile if index not in but] == [i for i in office.targets if i not in but]
    office.books_agree()


def test_a_record_that_was_deleted_gets_none(office: PhoneOffice, crm: str) -> None:
    index = office.targets[0]
    office.edit(index, DELETED[crm])
    office.carry_out()

    state, reason = office.ended(index)
    assert state == "skipped"
    assert "deleted" in reason
    office.books_agree()


def test_a_merged_record_is_followed_to_the_one_it_became(office: PhoneOffice, crm: str) -> None:
    index, survivor = office.targets[0], 0
    email, first, last = NAMES[crm]
    person = office.sandbox.world.person(index)
    office.edit(survivor, {email: person.email, first: person.first_name, last: person.last_name})
    office.edit(index, {MERGE[crm]: office.id_of(survivor)})
    office.carry_out()

    assert office.ended(index)[0] == "applied"
    assert office.value(survivor, MOBILE[crm]) == office.numbers_of(index)[0].sanitized


@pytest.mark.parametrize("crm", ["salesforce"])  # there is no mark of HubSpot's own
def test_a_survivor_that_is_marked_as_do_not_call_gets_none(office: PhoneOffice, crm: str) -> None:
    index, survivor = office.targets[0], 0
    person = office.sandbox.world.person(index)
    email, first, last = NAMES[crm]
    fields = {email: person.email, first: person.first_name, last: person.last_name, "DoNotCall": True}
    office.edit(survivor, fields)
    office.edit(index, {MERGE[crm]: office.id_of(survivor)})
    office.carry_out()

    state, reason = office.ended(index)
    assert (state, office.value(survivor, MOBILE[crm])) == ("skipped", None)
    assert "do not call" in reason


def test_a_record_that_was_merged_into_somebody_else_gives_its_number_to_nobody(office: PhoneOffice, crm: str) -> None:
    index, survivor = office.targets[0], 0
    office.edit(index, {MERGE[crm]: office.id_of(survivor)})
    office.carry_out()

    assert office.ended(index)[0] in ("skipped", "held")
    assert not office.value(survivor, MOBILE[crm])


def test_who_opted_out_or_was_suppressed_gets_none(office: PhoneOffice, crm: str) -> None:
    opted, by_email, by_phone = office.targets[:3]
    office.edit(opted, {OPT_OUT[crm]: True if crm == "salesforce" else "true"})
    email = office.value(by_email, NAMES[crm][0])
    number = office.numbers_of(by_phone)[0].sanitized
    office.app.suppressions.add(
        [f"email:{email.casefold()}", f"phone:{number}"], source="test", now=office.app.clock.now()
    )
    office.carry_out()

    for index, words in ((opted, "do not enrich"), (by_email, "suppressed e-mail"), (by_phone, "leave alone")):
        state, reason = office.ended(index)
        assert state == "skipped", (index, state, reason)
        assert words in reason
        assert not office.value(index, MOBILE[crm])
    rest_is_applied(office, opted, by_email, by_phone)


@pytest.mark.parametrize("crm", ["salesforce"])
def test_who_was_marked_as_do_not_call_gets_none(office: PhoneOffice, crm: str) -> None:
    index = office.targets[0]
    office.edit(index, {"DoNotCall": True})
    office.carry_out()

    state, reason = office.ended(index)
    assert state == "skipped"
    assert "marked as do not call" in reason
    rest_is_applied(office, index)


def test_what_a_rep_typed_meanwhile_is_kept(office: PhoneOffice, crm: str) -> None:
    index = office.targets[0]
    office.edit(index, {MOBILE[crm]: "+1 512 555 0100"})
    office.carry_out()

    assert office.ended(index) == ("kept", f"{MOBILE[crm]}: already filled")
    assert office.value(index, MOBILE[crm]) == "+1 512 555 0100"
    rest_is_applied(office, index)


def test_a_record_that_is_about_somebody_else_by_now_is_held(office: PhoneOffice, crm: str) -> None:
    email, first, last = NAMES[crm]
    reused, corrected = office.targets[:2]
    office.edit(reused, {email: "zoe.quill@elsewhere.example", first: "Zoe", last: "Quill"})
    office.edit(corrected, {email: "corrected.address@elsewhere.example"})
    office.carry_out()

    assert office.ended(reused)[0] == "held"
    assert not office.value(reused, MOBILE[crm])
    assert office.ended(corrected)[0] == "applied"
    rest_is_applied(office, reused)


def test_the_route_of_today_counts(office: PhoneOffice, crm: str) -> None:
    field = {"salesforce": "AssistantPhone", "hubspot": "hs_whatsapp_phone_number"}[crm]
    text = PHONES[crm].replace(f"mobile: {MOBILE[crm]}", f"mobile: {field}").replace(f"other: {field}", "other: skip")
    office.order_phones(text)
    office.carry_out()

    assert office.with_mobile == []
    assert [index for index in range(20) if office.value(index, field)] == office.targets
    office.books_agree()


@pytest.mark.parametrize("gone", ["phones", "sync"])
def test_without_its_sync_a_delivery_waits_for_a_replay(office: PhoneOffice, crm: str, gone: str) -> None:
    """Told, billed, and carried out when the configuration has the sync again."""
    before = office.app.versions.latest()
    assert before is not None
    office.until(lambda: office.told().get("new") == 1)
    office.apply(office.text if gone == "phones" else office.text.replace("  contacts:\n", "  renamed:\n"))
    office.restart()
    office.carry_out(until=lambda: "new" not in office.told())

    [delivery] = office.app.deliveries.listed()
    assert (delivery.state, office.with_mobile) == ("dead", [])
    assert "no sync contacts with `phones`" in delivery.reason
    assert office.money()["settled"] == office.money()["apollo"]
    office.apply(before.text.decode())
    office.restart()
    office.app.reveals.replay([delivery.id])
    office.carry_out()
    rest_is_applied(office)


@pytest.mark.parametrize("crm", ["salesforce"])
def test_a_sync_that_is_about_other_records_by_now_gets_no_number(office: PhoneOffice, crm: str) -> None:
    """As without its sync: an id is one of the object and the CRM that it was read from."""
    before = office.app.versions.latest()
    assert before is not None
    office.until(lambda: office.told().get("new") == 1)
    text = before.text.decode()
    office.apply(text.replace("\n  salesforce:\n", "\n  copy:\n").replace("crm: salesforce", "crm: copy"))
    office.restart()
    office.carry_out(until=lambda: "new" not in office.told())

    [delivery] = office.app.deliveries.listed()
    assert (delivery.state, office.with_mobile) == ("dead", [])
    assert "no sync contacts with `phones`" in delivery.reason
    office.apply(before.text.decode())
    office.restart()
    office.app.reveals.replay([delivery.id])
    office.carry_out()
    rest_is_applied(office)


def test_a_field_that_is_gone_from_the_crm_is_told_and_mended(office: PhoneOffice, crm: str) -> None:
    text = PHONES[crm].replace(MOBILE[crm], "Gone__c" if crm == "salesforce" else "gone")
    office.order_phones(text)
    office.carry_out()

    assert {office.ended(index)[0] for index in office.targets} == {"rejected"}
    assert "not in the CRM" in office.ended(office.targets[0])[1]
    office.order_phones()
    office.app.reveals.replay([each.id for each in office.app.deliveries.listed()])
    office.carry_out()
    rest_is_applied(office)


def test_a_crm_that_is_down_for_a_while_gets_its_numbers_when_it_is_back(office: PhoneOffice, crm: str) -> None:
    office.until(lambda: office.told().get("new") == 1)
    office.fault(crm, call="*", what="503", times=1000)
    office.carry_out(until=lambda: "new" not in office.told())
    [delivery] = office.app.deliveries.listed()
    assert delivery.state == "waiting"
    assert delivery.reason
    office.sandbox.faults[crm].clear()
    office.later(timedelta(minutes=1))
    office.carry_out()

    rest_is_applied(office)


def test_a_crm_that_is_down_for_days_is_told_and_what_came_is_not_given_up(office: PhoneOffice, crm: str) -> None:
    """After eight tries it is left to a person, and to the next poll."""
    office.until(lambda: office.told().get("new") == 1)
    office.fault(crm, call="*", what="503", times=100_000)
    for _ in range(9):
        office.carry_out(until=lambda: "new" not in office.told())
        office.later(timedelta(hours=4))
        resolver_sees = office.app.deliveries.to_read(now=office.app.clock.now(), limit=1)
        if not resolver_sees:
            break
        office.app.deliveries.revive(resolver_sees[0].order_id, b"")  # another order's bytes revive nothing
        office.carry_out(until=lambda: not office.app.deliveries.to_read(now=office.app.clock.now(), limit=1))
    assert office.told() == {"dead": 1}
    office.sandbox.faults[crm].clear()
    assert office.sweep().polled == 1
    office.carry_out()

    rest_is_applied(office)


@pytest.mark.parametrize("crm", ["salesforce"])
def test_a_number_that_the_crm_refuses_is_told_in_its_words(open_phones: OpenPhones, crm: str) -> None:
    said = "Mobiles begin with a zero here"
    rule = ValidationRule(object_type="Contact", field="MobilePhone", forbidden="+", message=said)
    office = open_phones(tidy=True, contacts=20, salesforce_options={"validation_rules": [rule]})
    office.walk()
    office.carry_out()

    assert {office.ended(index)[0] for index in office.targets} == {"rejected"}
    assert said in office.ended(office.targets[0])[1]
    phones = [each for each in office.app.runs.latest() if each.kind is RunKind.PHONES]
    assert phones[0].counts.rejected == len(office.targets)
    office.books_agree()


# --- people ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("crm", ["salesforce"])  # in HubSpot an address is one contact's
def test_two_records_of_one_person_are_one_purchase_and_both_get_it(open_phones: OpenPhones, crm: str) -> None:
    office = open_phones(tidy=True, contacts=20)
    index, twin = office.targets[0], 0
    email, first, last = NAMES[crm]
    person = office.sandbox.world.person(index)
    office.edit(twin, {email: person.email, first: person.first_name, last: person.last_name, STATUS[crm]: "Target"})
    office.walk()
    office.carry_out()

    number = office.numbers_of(index)[0].sanitized
    assert (office.value(index, MOBILE[crm]), office.value(twin, MOBILE[crm])) == (number, number)
    office.books_agree()


@pytest.mark.parametrize("crm", ["salesforce"])
def test_a_record_that_asks_for_a_phone_that_is_here_gets_it_without_a_credit(office: PhoneOffice, crm: str) -> None:
    """Later than the first one: the delivery is read once more, for it."""
    index, twin = office.targets[0], 0
    email, first, last = NAMES[crm]
    office.carry_out()
    person = office.sandbox.world.person(index)
    office.edit(twin, {email: person.email, first: person.first_name, last: person.last_name, STATUS[crm]: "Target"})
    office.edit(twin, {"Title": None})
    before = office.sold["charged"]
    run = office.walk()
    office.carry_out()

    assert office.sold["charged"] == before
    assert office.value(twin, MOBILE[crm]) == office.numbers_of(index)[0].sanitized, run.left_out
    office.books_agree()


def words(dnc: str | None = "not_found", **changed: Any) -> Phone:
    told = {
        "raw": "+1 212-555-0177",
        "sanitized": "+12125550177",
        "type_cd": "mobile",
        "status_cd": "valid_number",
        "confidence_cd": "high",
        "dnc_status_cd": dnc,
        "dnc_country": "United States",
    }
    return Phone(**{**told, **changed})


NUMBERS = {
    "listed": (words("found"),),
    "unheard of": (words("pending_review"),),
    "no number": (words(raw="n/a", sanitized="n/a"),),
    "switchboard": (words(type_cd="work_hq"),),
    "two": (words("found"), words(raw="+1 212-555-0178", sanitized="+12125550178", type_cd="work_direct")),
}


@pytest.mark.parametrize("if_listed", ["skip", "write", "mark_only"])
@pytest.mark.parametrize("crm", ["salesforce"])
def test_numbers_that_nobody_should_call(open_phones: OpenPhones, crm: str, if_listed: str) -> None:
    office = open_phones(tidy=True, contacts=30)
    office.order_phones(**{"if_listed: skip": f"if_listed: {if_listed}"})
    mine = dict(zip(NUMBERS, office.targets, strict=False))
    for word, index in mine.items():
        office.sell(index, *NUMBERS[word])
        office.edit(index, {"Phone": None})
    office.walk()
    office.carry_out()

    ended = {word: office.ended(index)[0] for word, index in mine.items()}
    got = {
        word: (office.value(index, "MobilePhone"), office.value(index, "Phone"), office.value(index, "DoNotCall"))
        for word, index in mine.items()
    }
    nothing = (None, None, False)
    assert {word: (ended[word], got[word]) for word in ("unheard of", "no number", "switchboard")} == {
        "unheard of": ("held", nothing),
        "no number": ("no number", nothing),
        "switchboard": ("no number", nothing),
    }
    direct = "+12125550178"
    assert (ended["listed"], got["listed"], ended["two"], got["two"]) == {
        "skip": ("listed", (None, None, True), "applied", (None, direct, True)),
        "write": ("applied", ("+12125550177", None, True), "applied", ("+12125550177", direct, True)),
        "mark_only": ("listed", (None, None, True), "listed", (None, None, True)),
    }[if_listed]
    rest_is_applied(office, *mine.values())


def test_a_replay_writes_what_was_kept_once_its_field_is_empty(office: PhoneOffice, crm: str) -> None:
    index = office.targets[0]
    office.edit(index, {MOBILE[crm]: "+1 512 555 0100"})
    office.carry_out()
    runs = len(office.app.runs.latest())
    office.edit(index, {MOBILE[crm]: None if crm == "salesforce" else ""})
    assert office.app.reveals.replay([each.id for each in office.app.deliveries.listed()]) == 1
    office.carry_out()

    assert office.ended(index)[0] == "applied"
    assert len(office.app.runs.latest()) == runs + 1
    rest_is_applied(office)
