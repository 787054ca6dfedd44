"""What orders, deliveries and phones' runs log: their ids, and nothing of people, numbers, tokens and keys."""

from __future__ import annotations

import io

import pytest

from crm_sync import logs
from crm_sync.domain.runs import RunStatus
from tests.journeys.phones.conftest import OpenPhones
from tests.journeys.phones.test_deliveries import walked
from tests.logged import lines, logging_as_before


@pytest.mark.parametrize("what", ["double", "latin1", "changed"])
def test_phones_are_carried_out_without_a_word_about_whose_they_are(open_phones: OpenPhones, what: str) -> None:
    out = io.StringIO()
    with logging_as_before():
        logs.set_up(kind="json", level="debug", stream=out)
        office = open_phones(tidy=True, contacts=20)
        assert walked(office, {"what": what, "times": 9}) is RunStatus.WAITING_FOR_PHONES
        office.until(lambda: sum(office.told().values()) >= 1)
        office.carry_out(until=lambda: "new" not in office.told())
        office.poll()
        office.carry_out()

    said, told = out.getvalue(), lines(out)
    deliveries = [each for each in told if each["event"].startswith("a delivery is")]
    assert deliveries
    assert all(each["delivery"] and each["order"] for each in deliveries)
    world = office.sandbox.world
    people = [world.person(index) for index in office.targets]
    numbers = [phone.sanitized for index in office.targets for phone in office.numbers_of(index)]
    assert people
    assert len(numbers) >= len(people)
    tokens = [office.app.hook_tokens.make(each["order"], now=office.app.clock.now()) for each in deliveries]
    keys = [value for value in office.sandbox.settings().values() if len(value) > 18 and not value.startswith("http")]
    for canary in [
        *numbers, *(number.lstrip("+") for number in numbers), *tokens, *(token[-32:] for token in tokens), *keys,
        *(person.email for person in people), *(f"{person.first_name} {person.last_name}" for person in people),
    ]:  # fmt: skip
        assert canary not in said, canary
    assert "v1_" not in said
