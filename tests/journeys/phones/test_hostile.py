"""Everything that nobody should send to the receiver, under the address of an order that is awaited."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

import pytest
import requests

from crm_sync.store.exclusive import Exclusive
from crm_sync.store.reveals import Wait
from crm_sync.workers import PhoneWorker
from tests.journeys.phones.conftest import PHONES, OpenPhones, PhoneOffice
from tests.payloads.hostile_deliveries import corpus
from webhooks.receiver import MAX_BODY

#: Bodies and bytes for one order, with room for a good one (store/arrivals.py).
_MOST, _MOST_BYTES = 19, (1 << 20) - (32 << 10)


def packed(bodies: Iterable[bytes]) -> list[list[bytes]]:
    """As many to each order as it may get."""
    packs: list[list[bytes]] = [[]]
    size = 0
    for body in bodies:
        taken = len(body) if len(body) <= MAX_BODY else 0
        if len(packs[-1]) == _MOST or size + taken > _MOST_BYTES:
            packs.append([])
            size = 0
        packs[-1].append(body)
        size += taken
    return packs


@pytest.mark.parametrize("crm", ["salesforce"])  # none of it gets as far as the CRM's own matters
def test_no_body_stops_the_receiver_or_the_worker_or_a_good_one_behind_it(
    open_phones: OpenPhones, crm: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The key may not poll, so that all that can be read is believed."""
    without_polls = {"people/bulk_match", "people/match", "usage_stats/credit_usage_stats"}
    office = open_phones(tidy=True, contacts=1500, apollo_options={"scopes": without_polls, "callback_tries": 1})
    office.text = office.text.replace("at_most: 1000", "at_most: 1500")
    office.order_phones(PHONES[crm].replace("Status__c = 'Target'", "Id != null"))
    office.script({"what": "never", "times": 10_000})
    office.walk()
    reveals = office.sandbox.apps["apollo"].extensions["simulator"]._reveals
    orders = list(reveals._orders.values())
    valid = orders[0].people[0]
    packs = packed(corpus(valid).values())
    assert len(packs) < len(orders), "each pack has an order of its own, and one is left"

    def post(url: str, body: bytes) -> int:
        headers = {"Content-Type": "application/json"}
        return requests.post(url, data=body, headers=headers, timeout=20).status_code

    with ThreadPoolExecutor(4) as pool:
        posts = [
            (order.url, body.replace(valid.encode(), order.people[0].encode()))
            for order, bodies in zip(orders, packs, strict=False)
            for body in bodies
        ]
        answers = Counter(pool.map(lambda each: post(*each), posts))
    assert set(answers) == {200, 413}, answers
    stop = threading.Event()
    worker = PhoneWorker(office.app.services, Exclusive(office.app.store, "phones"))
    thread = threading.Thread(target=worker.run, args=(stop,), daemon=True)
    thread.start()
    try:
        office.until(lambda: "new" not in office.told(), seconds=45)
        for order in (orders[-1], orders[0], orders[len(packs) - 1]):
            assert post(order.url, reveals._body(order)) == 200
            people = [office.app.reveals.person(each) for each in order.people[1:]]
            office.until(lambda: not open_of(office, people), seconds=10)  # noqa: B023
        assert thread.is_alive()
    finally:
        stop.set()
        thread.join(timeout=10)

    assert [record.getMessage() for record in caplog.records if record.levelname == "ERROR"] == []
    assert office.told().get("dead", 0) > 100
    assert not office.told().get("waiting")
    # Whoever got a number got Apollo's, or one that a body could say as well as Apollo.
    numbers = {office.value(index, field) for index in range(1500) for field in ("MobilePhone", "OtherPhone")}
    sold = {number.sanitized for index in range(1500) for number in office.numbers_of(index)}
    before = {None, ""} | {office.sandbox.world.contact(index).phone for index in range(1500)}
    assert {each[-10:] for each in numbers - sold - before} <= {"5125550177", "5125550199"}  # read in the record's land
    assert office.money()["billed"] <= 8 * 10 * len(orders)


def open_of(office: PhoneOffice, people: list[bytes]) -> list[Wait]:
    return [wait for wait in office.app.reveals.waiting(limit=2000) if wait.person in people]
