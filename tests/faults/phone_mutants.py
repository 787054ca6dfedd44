"""Bugs put in on purpose where phone numbers are ordered, delivered and written: each would lose a number that was paid
for, pay twice for one, or give it to somebody else."""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from typing import Any

from sqlalchemy import delete, select, update

from crm_sync.domain.enrichment import Purpose
from crm_sync.pipeline import phone_writing, recover
from crm_sync.pipeline.confirm import Believer, Weighed
from crm_sync.pipeline.phone_writing import PhoneWriting
from crm_sync.pipeline.resolve import Resolver
from crm_sync.store import orders
from crm_sync.store.deliveries import BY_POLL, POLL, Deliveries, Taken
from crm_sync.store.journal import Journal
from crm_sync.store.reveals import APPLIED, Reveals, WaitEnd
from crm_sync.store.suppressions import Suppressions
from crm_sync.store.tables import answers, phone_waits, reveal_orders
from tests.faults.mutant import Mutant

BULK = "people/bulk_match"


def acknowledge_before_the_commit() -> None:
    take = Deliveries.take

    def later(self: Deliveries, order_id: str, raw: bytes, **more: Any) -> Taken:
        if raw.startswith(b'{"probe"') or more.get("source") == POLL:
            return take(self, order_id, raw, **more)

        def work() -> None:
            time.sleep(0.05)
            take(self, order_id, raw, **more)

        threading.Thread(target=work).start()
        return Taken.STORED

    Deliveries.take = later


def know_the_token_after_the_answer() -> None:
    """An order counts as sent once Apollo's answer is there: what is delivered before finds no order."""
    orders.sent = lambda *_: None


def give_all_to_the_first_person() -> None:
    awaited = Resolver._awaited

    def first(self: Resolver, group: Any) -> Any:
        found = awaited(self, group)
        numbers = {each.delivery_id: each.numbers for each in reversed(found) if each.numbers}
        return [replace(each, numbers=numbers.get(each.delivery_id, ())) for each in found]

    Resolver._awaited = first


def wait_by_order() -> None:
    """Whoever waits for another order than the one that was delivered gets nothing."""
    waits_for = Reveals.waits_for

    def own(self: Reveals, order_id: str, people: Any, **_: Any) -> Any:
        return [wait for wait in waits_for(self, order_id, people) if wait.order_id == order_id]

    Reveals.waits_for = own


def bill_each_delivery() -> None:
    bill = orders.bill

    def again(connection: Any, order_id: str, charged: Any) -> Any:
        connection.execute(update(reveal_orders).where(reveal_orders.c.id == order_id).values(billed=None))
        return bill(connection, order_id, charged)

    orders.bill = again


def settle_before_writing() -> None:
    write, drain = PhoneWriting.write, Resolver.drain
    put_off: list[Any] = []

    def promise(_self: PhoneWriting, sync: Any, awaited: Any) -> Any:
        put_off.append((sync, awaited))
        return {each.wait.id: WaitEnd(wait_id=each.wait.id, state=APPLIED, reason="") for each in awaited}, ""

    def keep(self: Resolver, **more: Any) -> Any:
        done = drain(self, **more)
        while put_off:
            write(self._writing, *put_off.pop(0))
        return done

    PhoneWriting.write, Resolver.drain = promise, keep


def ignore_what_was_fetched() -> None:
    take = Deliveries.take

    def callbacks_only(self: Deliveries, order_id: str, raw: bytes, **more: Any) -> Taken:
        return Taken.STORED if more.get("source") == POLL else take(self, order_id, raw, **more)

    Deliveries.take = callbacks_only


def buy_again_what_expired() -> None:
    nothing_came = Journal.nothing_came

    def and_forget(self: Journal, connection: Any, order_id: str, why: str, *, now: Any) -> None:
        nothing_came(self, connection, order_id, why, now=now)
        batch = select(reveal_orders.c.batch_id).where(reveal_orders.c.id == order_id).scalar_subquery()
        connection.execute(delete(answers).where(answers.c.purpose == Purpose.PHONE.value, answers.c.batch_id == batch))
        connection.execute(update(phone_waits).where(phone_waits.c.order_id == order_id).values(state="not ordered"))

    Journal.nothing_came = and_forget


def drop_what_comes_early() -> None:
    put_off = Deliveries.put_off

    def end(self: Deliveries, delivery_id: int, why: str, **more: Any) -> None:
        if why.startswith("Apollo's answer to its order"):
            self.end(delivery_id, "done", why, now=more["until"])
        else:
            put_off(self, delivery_id, why, **more)

    Deliveries.put_off = end


def trust_the_record_to_be_the_same() -> None:
    phone_writing._refusal = lambda *_: None


def suppress_at_ordering_only() -> None:
    """Who was suppressed since the order gets its number."""
    Suppressions.among = lambda *_: frozenset()


def believe_whoever_rings() -> None:
    weigh = Believer.weigh

    def believing(self: Believer, delivery: Any, order: Any, content: Any) -> Weighed:
        weigh(self, delivery, order, content)
        return Weighed(content=content, belief=BY_POLL)

    Believer.weigh = believing


def recover_calls_without_their_orders() -> None:
    recover._with_order = lambda expansion, *_: expansion


def join_nobody() -> None:
    """The second record of a person waits for an order of its own, which is never made."""
    Reveals.join = lambda *_, **__: None


PHONE_MUTANTS = (
    Mutant(
        name="a delivery is acknowledged before it is committed",
        change=acknowledge_before_the_commit,
        cells=("salesforce/sqlite/receive/inbox.take.before:2", "hubspot/postgresql/receive/inbox.take.before:3"),
    ),
    Mutant(
        name="an order's token is known only once Apollo has answered",
        change=know_the_token_after_the_answer,
        cells=(
            f"salesforce/sqlite/order_early/wire.answered@{BULK}:1",
            f"hubspot/postgresql/order_early/wire.answered@{BULK}:3",
        ),
    ),
    Mutant(
        name="a delivery's numbers go to the first person in it",
        change=give_all_to_the_first_person,
        cells=("salesforce/sqlite/carry_out/resolve.judged:1", "hubspot/sqlite/order/run.closed:1"),
    ),
    Mutant(
        name="who waits is kept by order instead of by person",
        change=wait_by_order,
        cells=("salesforce/sqlite/skipped/orders.answered:1", "hubspot/sqlite/skipped/orders.answered:1"),
    ),
    Mutant(
        name="each delivery of an order is billed",
        change=bill_each_delivery,
        cells=("salesforce/sqlite/carry_out/reveals.settle.after:2", "hubspot/postgresql/carry_out/resolve.due:1"),
    ),
    Mutant(
        name="a delivery has its end before its numbers are written",
        change=settle_before_writing,
        cells=("salesforce/sqlite/carry_out/reveals.settle.after:1", "hubspot/sqlite/order/run.closed:1"),
    ),
    Mutant(
        name="what a poll fetched is not kept",
        change=ignore_what_was_fetched,
        cells=("salesforce/sqlite/serve/resolve.polled:1", "hubspot/postgresql/serve/resolve.polled:1"),
    ),
    Mutant(
        name="a phone that was given up is bought again",
        change=buy_again_what_expired,
        cells=("salesforce/sqlite/give_up/reveals.given_up:1", "hubspot/postgresql/give_up/reveals.given_up:1"),
    ),
    Mutant(
        name="a delivery that comes before Apollo's answer is dropped",
        change=drop_what_comes_early,
        cells=(
            f"salesforce/sqlite/order_early/wire.answered@{BULK}:1",
            "hubspot/postgresql/order_early/journal.received.before:1",
        ),
    ),
    Mutant(
        name="whom a record is about is not looked at again before its number is written",
        change=trust_the_record_to_be_the_same,
        cells=("salesforce/sqlite/carry_out/resolve.judged:1", "hubspot/sqlite/carry_out/resolve.judged:1"),
    ),
    Mutant(
        name="whoever was suppressed since the order gets the number",
        change=suppress_at_ordering_only,
        cells=("salesforce/sqlite/suppressed/resolve.judged:1", "hubspot/sqlite/suppressed/resolve.judged:1"),
    ),
    Mutant(
        name="a body that differs from Apollo's own is believed",
        change=believe_whoever_rings,
        cells=("salesforce/sqlite/carry_out/resolve.read:1", "hubspot/sqlite/carry_out/resolve.read:1"),
    ),
    Mutant(
        name="recovery reads a stored answer and forgets what it ordered",
        change=recover_calls_without_their_orders,
        cells=("salesforce/sqlite/order/journal.received.after:1", "hubspot/postgresql/order/enrich.read:1"),
    ),
    Mutant(
        name="a second record of the same person is not joined to its order",
        change=join_nobody,
        cells=("salesforce/sqlite/join/reveals.ordered:1", "salesforce/postgresql/join/reveals.ordered:1"),
    ),
)
