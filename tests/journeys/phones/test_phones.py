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
