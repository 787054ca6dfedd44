"""From the order to the field."""

from __future__ import annotations

from crm_sync.domain.runs import RunKind, RunStatus
from tests.journeys.phones.conftest import MOBILE, OpenPhones


def test_a_phone_is_ordered_delivered_and_written(open_phones: OpenPhones, crm: str) -> None:
    office = open_phones(tidy=True, contacts=30)

    run = office.walk()
    awaited = office.app.reveals.counts()
    office.carry_out()

    assert run.status is RunStatus.WAITING_FOR_PHONES, run.reason
    assert awaited["waiting"] > 3
    ended = office.app.runs.get(run.id)
    assert ended is not None
    assert ended.status is RunStatus.COMPLETED
    for index in range(30):
        is_target = office.sandbox.world.contact(index).status == "Target"
        assert bool(office.value(index, MOBILE[crm])) == is_target, index
    assert office.app.reveals.counts() == {"applied": awaited["waiting"]}
    phones = [each for each in office.app.runs.latest() if each.kind is RunKind.PHONES]
    assert [each.counts.updated for each in phones] == [awaited["waiting"]]


def test_match_and_order_in_one_call_asks_once_and_writes_both(open_phones: OpenPhones, crm: str) -> None:
    office = open_phones(tidy=True, contacts=30)
    office.order_phones(**{"      route:": "      order: with_match\n      route:"})

    run = office.walk()
    awaited = office.app.reveals.counts()
    office.carry_out()

    targets = [index for index in range(30) if office.sandbox.world.contact(index).status == "Target"]
    assert run.status is RunStatus.WAITING_FOR_PHONES, run.reason
    assert run.counts.updated == 30
    assert awaited == {"waiting": len(targets)}
    assert max(office.charged.values()) == 1, "the match and the order are one call"
    assert [index for index in range(30) if office.value(index, MOBILE[crm])] == targets
    again = office.walk()
    assert again.credits == 0
    assert office.sold["more_than_once"] == {}


def test_a_phone_ordered_with_a_match_that_nobody_trusts_is_held(open_phones: OpenPhones, crm: str) -> None:
    """The phone of somebody else: paid for, since it was ordered with the match, and never written."""
    office = open_phones(tidy=True, contacts=30)
    first = {"salesforce": "FirstName", "hubspot": "firstname"}[crm]
    targets = [index for index in range(30) if office.sandbox.world.contact(index).status == "Target"]
    for index in targets[:2]:
        office.edit(index, {first: "Zebedee"})
    office.text = office.text.replace("      send:", "      trust_when: {all: [first_name_agrees]}\n      send:", 1)
    office.order_phones(**{"      route:": "      order: with_match\n      route:"})

    run = office.walk()
    office.carry_out()

    assert run.counts.needs_review == 2
    assert office.app.reveals.counts() == {"held": 2, "applied": len(targets) - 2}
    assert [index for index in targets if not office.value(index, MOBILE[crm])] == targets[:2]


def test_a_run_with_a_limit_orders_so_many_and_notes_nobody_else(open_phones: OpenPhones, crm: str) -> None:
    office = open_phones(tidy=True, contacts=30)
    office.apply(office.text)
    office.restart()
    office.walk()
    office.order_phones()

    run = office.walk(limit=3)

    assert office.app.reveals.counts() == {"waiting": 3}
    assert run.left_out["phone: beyond the limit, as far as it looked"] > 0
