"""The inbox on a real database."""

from __future__ import annotations

import threading
from datetime import timedelta

import pytest
from sqlalchemy import func, select

from crm_sync.store.deliveries import MOST_BODIES, MOST_BYTES, Deliveries, Taken
from crm_sync.store.engine import Store
from crm_sync.store.hook_tokens import new_order_id
from crm_sync.store.tables import deliveries as table
from crm_sync.store.tables import reveal_orders
from tests.factories import NOON, a_vault


@pytest.fixture
def inbox(store: Store) -> Deliveries:
    return Deliveries(store, a_vault(store))


def ordered(inbox: Deliveries) -> str:
    order = new_order_id()
    inbox.open_order(order, now=NOON)
    inbox.sent(order)
    return order


def count(store: Store) -> int:
    with store.read() as connection:
        return int(connection.execute(select(func.count()).select_from(table)).scalar() or 0)


def test_a_body_is_kept_as_it_came_and_its_double_once(store: Store, inbox: Deliveries) -> None:
    order = ordered(inbox)
    raw = b'{"people": [\x00\xff]}'

    taken = [inbox.take(order, raw, now=NOON), inbox.take(order, raw, now=NOON + timedelta(hours=1))]

    assert taken == [Taken.STORED, Taken.DUPLICATE]
    with store.read() as connection:
        [row] = connection.execute(select(table)).all()
    assert (row.state, row.times, row.size, row.received_at) == ("new", 2, len(raw), NOON)
    assert raw not in row.body
    assert inbox.body(row.id) == raw


def test_an_order_that_was_never_sent_takes_nothing(store: Store, inbox: Deliveries) -> None:
    planned = new_order_id()
    inbox.open_order(planned, now=NOON)

    assert inbox.take(planned, b"{}", now=NOON) is Taken.UNKNOWN
    assert inbox.take(new_order_id(), b"{}", now=NOON) is Taken.UNKNOWN
    assert not inbox.need_poll(planned)
    assert count(store) == 0


def test_a_flood_for_one_order_is_held_back_and_others_are_taken(store: Store, inbox: Deliveries) -> None:
    flooded, other = ordered(inbox), ordered(inbox)

    taken = [inbox.take(flooded, b"%d" % number, now=NOON) for number in range(MOST_BODIES + 3)]

    assert taken == [Taken.STORED] * MOST_BODIES + [Taken.FLOOD] * 3
    assert inbox.take(flooded, b"1", now=NOON) is Taken.DUPLICATE
    assert inbox.take(other, b"1", now=NOON) is Taken.STORED
    heavy = ordered(inbox)
    assert inbox.take(heavy, b"a" * (MOST_BYTES - 10), now=NOON) is Taken.STORED
    assert inbox.take(heavy, b"b" * 11, now=NOON) is Taken.FLOOD


def test_many_at_once_are_each_kept_once(store: Store, inbox: Deliveries) -> None:
    orders = [ordered(inbox) for _ in range(5)]
    taken: list[Taken] = []

    def deliver(seed: int) -> None:
        taken.extend(inbox.take(orders[(seed + number) % 5], b"%d" % number, now=NOON) for number in range(8))

    threads = [threading.Thread(target=deliver, args=(seed,)) for seed in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(taken) == 80
    assert taken.count(Taken.STORED) == count(store) == 40
    assert taken.count(Taken.DUPLICATE) == 40
    with store.read() as connection:
        told = connection.execute(select(func.sum(reveal_orders.c.deliveries))).scalar()
    assert told == 40


def test_a_delivery_too_large_is_noted_to_be_fetched(store: Store, inbox: Deliveries) -> None:
    order = ordered(inbox)

    assert inbox.need_poll(order)

    with store.read() as connection:
        assert connection.execute(select(reveal_orders.c.poll_needed)).scalar() == 1
