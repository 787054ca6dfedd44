"""What is kept about somebody whose phone was asked for: found, told, cut out, and never kept again."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy import select, update

from adapters.apollo.archive import ApolloArchive
from crm_sync.domain.enrichment import MatchKeys, Purpose, RawAnswer
from crm_sync.domain.reveals import Ordering
from crm_sync.domain.runs import RunStatus
from crm_sync.pipeline.enrich import expansion_of
from crm_sync.store.deliveries import Deliveries
from crm_sync.store.engine import Store
from crm_sync.store.journal import LOOKUPS, PHONES, Intent, Room
from crm_sync.store.ledger import Ledger, purpose_word
from crm_sync.store.orders import Ordered
from crm_sync.store.reveals import NewWait, Reveals
from crm_sync.store.suppressions import BY_HAND
from crm_sync.store.tables import answers, batches, deliveries, phone_waits, reveal_orders, runs
from crm_sync.store.vault import Vault, open_vault
from tests.factories import NOON, a_run
from tests.store.test_privacy import _OLD, ADA, BOB, PAGE, Books, person, told
from tests.store.test_suppressions import RING

MOBILE = "+4915100000001"


def id_of(address: str) -> str:
    """As `told` has it; Apollo's are 24 of these."""
    return str(told(address)["id"])


def delivered(*addresses: str, shape: str = "native") -> bytes:
    people = [
        {"id": id_of(each), "phone_numbers": [{"raw_number": MOBILE, "sanitized_number": MOBILE, "type_cd": "mobile"}]}
        for each in addresses
    ]
    tree: dict[str, Any] = {"status": "success", "credits_consumed": 8 * len(people), "people": people}
    if shape == "waterfall":
        tree |= {"target_fields": ["phone"], "records_enriched": len(people)}
    if shape == "envelope":
        tree = {"request_id": "7", "webhook_status": "delivered", "webhook_result": tree}
    return json.dumps(tree).encode()


class PhoneBooks(Books):
    """Books whose people get their phones asked for."""

    def __init__(self, store: Store, vault: Vault) -> None:
        super().__init__(store, vault)
        self.reveals = Reveals(store, vault, self.journal)
        self.deliveries = Deliveries(store, vault)

    def ordered(self, *people: MatchKeys, record_ids: Sequence[str] = ()) -> str:
        """A call for their phones, accepted by Apollo; records of theirs wait. The order's id."""
        keys = [replace(each, purpose=Purpose.PHONE, apollo_id=id_of(each.email)) for each in people]
        waits = [
            NewWait(record_id=record, apollo_id=key.apollo_id, key=each.key, batch_id=1, position=0)
            for each, key, record in zip(people, keys, record_ids or [k.email[:3] for k in keys], strict=True)
        ]
        self.reveals.choose(
            waits, crm="salesforce", object_type="Contact", sync="contacts", run_id=a_run().id, now=NOON
        )
        intent = Intent(
            run_id=a_run().id, sync="contacts", purpose=Purpose.PHONE, calls=(tuple(keys),), single=False,
            endpoint="people/bulk_match", most=Decimal(9), day="2026-10-08", fresh_since=_OLD, no_match_since=_OLD,
            gives_up_at=NOON + timedelta(days=29),
        )  # fmt: skip
        [call] = self.journal.plan(intent, lambda _: Room(), now=NOON).calls
        self.journal.sent(call.id, now=NOON, orders_phones=True)
        body = json.dumps({"matches": [told(each.email) for each in people]}).encode()
        self.journal.received(call.id, RawAnswer(body=body, credits=Decimal(1), request_id="7"), now=NOON)
        reading = ApolloArchive().read(Purpose.PHONE, keys, body)
        expansion = expansion_of(call.id, Purpose.PHONE, keys, reading, Decimal(1), single=False, answered_at=NOON)
        to_come = Ordered(
            ordering=Ordering.ACCEPTED,
            reason="",
            to_come=Decimal(8 * len(keys)),
            first_poll_at=NOON + timedelta(hours=2),
        )
        self.journal.expand([replace(expansion, ordered=to_come)], now=NOON)
        return call.order_id

    def taken(self, order_id: str, raw: bytes) -> int:
        self.deliveries.take(order_id, raw, now=NOON)
        with self.store.read() as connection:
            return int(
                connection.execute(select(deliveries.c.id).order_by(deliveries.c.id.desc())).scalars().first() or 0
            )

    def waiting(self) -> set[str]:
        return {each.record_id for each in self.reveals.waiting()}

    def phone_guards(self) -> int:
        with self.store.read() as connection:
            return len(connection.execute(select(answers.c.key).where(answers.c.purpose == "phone")).all())


@pytest.fixture
def books(store: Store) -> PhoneBooks:
    return PhoneBooks(store, open_vault(store, RING, now=NOON))


def both_matched(books: PhoneBooks) -> tuple[MatchKeys, MatchKeys]:
    ada, bob = person(email=ADA, linkedin_url=PAGE), person(email=BOB)
    books.bought([ada, bob], [told(ADA, linkedin_url=PAGE), told(BOB)])
    return ada, bob


@pytest.mark.parametrize("shape", ["native", "waterfall", "envelope"])
def test_waits_guards_and_deliveries_of_a_person_go_and_everybody_elses_stay(books: PhoneBooks, shape: str) -> None:
    ada, bob = both_matched(books)
    order = books.ordered(ada, bob)
    delivery = books.taken(order, delivered(ADA, BOB, shape=shape))

    found = books.privacy.find(ADA)
    counts = books.erase(ADA)

    assert [entry["phone_numbers"][0]["raw_number"] for entry in found.deliveries[0].entries] == [MOBILE]
    assert counts == {"batches": 2, "answers": 3, "phone_waits": 1, "deliveries": 1}
    assert books.waiting() == {"bob"}
    assert books.phone_guards() == 1
    body = books.deliveries.body(delivery)
    assert id_of(ADA).encode() not in body
    tree = json.loads(body)
    rest = tree.get("webhook_result") or tree
    assert [each["id"] for each in rest["people"]] == [id_of(BOB)]
    assert rest["credits_consumed"] == 16  # what it cost stays to be billed
    found_order = books.reveals.order(order)
    assert found_order is not None
    assert found_order.state == "open"
    assert books.suppressions.among([f"apollo:{id_of(ADA)}", f"apollo:{id_of(BOB)}"]) == {f"apollo:{id_of(ADA)}"}


def test_the_call_that_ordered_is_emptied_and_the_same_bytes_are_not_taken_again(books: PhoneBooks) -> None:
    ada, bob = both_matched(books)
    order = books.ordered(ada, bob)
    raw = delivered(ADA, BOB)
    delivery = books.taken(order, raw)

    books.erase(ADA)

    stored = books.answers.load([2])[2]
    assert [key.apollo_id for key in stored.keys] == ["", id_of(BOB)]
    assert ADA.encode() not in stored.body
    assert books.taken(order, raw) == delivery
    assert id_of(ADA).encode() not in books.deliveries.body(delivery)


def test_a_body_that_cannot_be_read_and_mentions_them_goes_whole_and_keeps_its_row(books: PhoneBooks) -> None:
    ada, bob = both_matched(books)
    order = books.ordered(ada, bob)
    cut = books.taken(order, delivered(ADA)[:-30])
    form = books.taken(order, f"id={id_of(ADA).upper()}&phone={MOBILE}".encode())
    wide = books.taken(order, delivered(ADA).decode().encode("utf-16"))
    other = books.taken(order, delivered(BOB)[:-30])
    books.deliveries.end(cut, "dead", "it cannot be read", now=NOON)

    counts = books.erase(ADA)

    assert counts["deliveries"] == 3
    assert books.deliveries.body(cut) == books.deliveries.body(form) == b"{}"
    assert json.loads(books.deliveries.body(wide))["people"] == []
    assert books.deliveries.body(other) == delivered(BOB)[:-30]
    row = books.deliveries.get(cut)
    assert row is not None
    assert (row.state, row.reason) == ("dead", "it cannot be read")


def test_a_run_that_waited_for_this_phone_alone_is_completed(books: PhoneBooks) -> None:
    ada, _ = both_matched(books)
    books.ordered(ada)
    with books.store.write() as connection:
        connection.execute(update(runs).where(runs.c.id == a_run().id).values(status="Waiting for phones"))

    books.erase(ADA)

    run = books.runs.get(a_run().id)
    assert run is not None
    assert run.status is RunStatus.COMPLETED


def test_the_record_whose_phone_was_asked_for_is_theirs(books: PhoneBooks) -> None:
    ada, bob = both_matched(books)
    books.ordered(ada, bob, record_ids=("A", "B"))
    books.recorded("A", person(first_name="Ada", last_name="X", domain="elsewhere.example"))  # looked up by a name then

    counts = books.erase(ADA)

    assert counts["run_records"] == 1
    assert books.suppressions.among(["record:salesforce:Contact:A", "record:salesforce:Contact:B"]) == {
        "record:salesforce:Contact:A"
    }


def test_where_no_answer_tells_apollos_id_any_more_wait_and_delivery_are_found_by_its_digest(books: PhoneBooks) -> None:
    ada, bob = both_matched(books)
    order = books.ordered(ada, bob)
    delivery = books.taken(order, delivered(ADA, BOB))
    with books.store.write() as connection:
        connection.execute(update(batches).values(request=b"", body=None, fingerprint=""))  # as a purge leaves them

    counts = books.erase(ADA)

    assert (counts["phone_waits"], counts["deliveries"]) == (1, 1)
    assert books.phone_guards() == 1
    assert id_of(ADA).encode() not in books.deliveries.body(delivery)
    assert books.waiting() == {"bob"}


def test_everything_of_phones_is_found_again_by_digests_alone(books: PhoneBooks) -> None:
    ada, bob = both_matched(books)
    order = books.ordered(ada, bob)
    delivery = books.taken(order, delivered(ADA, BOB))
    with books.store.write() as connection:
        connection.execute(update(batches).values(request=b"", body=None, fingerprint=""))
    digests = books.suppressions.digests([f"apollo:{id_of(ADA)}"])

    found = books.privacy.find_again(digests)
    for traces in found:
        books.privacy.erase(traces, now=NOON)

    assert sum(traces.counts().get("deliveries", 0) for traces in found) == 1
    assert sum(traces.counts().get("phone_waits", 0) for traces in found) == 1
    assert id_of(ADA).encode() not in books.deliveries.body(delivery)
    assert books.waiting() == {"bob"}
    assert books.phone_guards() == 1
    assert books.privacy.find_again(digests) == []


def test_a_wait_and_a_guard_without_anything_else_are_found_again_too(books: PhoneBooks) -> None:
    ada, bob = both_matched(books)
    books.ordered(ada, bob)
    with books.store.write() as connection:
        connection.execute(update(batches).values(request=b"", body=None, fingerprint=""))
    digests = books.suppressions.digests([f"apollo:{id_of(ADA)}"])

    [found] = books.privacy.find_again(digests)
    books.privacy.erase(found, now=NOON)

    assert found.counts() == {"answers": 1, "phone_waits": 1}
    assert (books.waiting(), books.phone_guards()) == ({"bob"}, 1)
    assert books.privacy.find_again(digests) == []


def test_what_comes_for_somebody_after_they_were_erased_is_cut_when_it_is_read(books: PhoneBooks) -> None:
    ada, bob = both_matched(books)
    order = books.ordered(ada, bob)
    books.erase(ADA)
    late = books.taken(order, delivered(ADA, BOB))
    broken = books.taken(order, delivered(ADA)[:-30])

    erased = [books.privacy.cut_erased(late), books.privacy.cut_erased(broken), books.privacy.cut_erased(late)]

    assert erased == [{id_of(ADA)}, {id_of(ADA)}, frozenset()]
    assert [each["id"] for each in json.loads(books.deliveries.body(late))["people"]] == [id_of(BOB)]
    assert books.deliveries.body(broken) == b"{}"
    assert books.privacy.cut_erased(99) == frozenset()


def test_who_is_suppressed_by_hand_is_not_cut_out(books: PhoneBooks) -> None:
    ada, bob = both_matched(books)
    order = books.ordered(ada, bob)
    books.suppressions.add([f"apollo:{id_of(ADA)}"], BY_HAND, now=NOON)
    delivery = books.taken(order, delivered(ADA, BOB))

    assert books.privacy.cut_erased(delivery) == frozenset()
    assert books.deliveries.body(delivery) == delivered(ADA, BOB)


def test_reasons_that_should_hold_nobody_are_looked_at(books: PhoneBooks) -> None:
    ada, bob = both_matched(books)
    order = books.ordered(ada, bob)
    delivery = books.taken(order, delivered(BOB))
    with books.store.write() as connection:
        connection.execute(update(deliveries).values(reason=f"refused {ADA.upper()}"))
        connection.execute(update(reveal_orders).values(reason=f"about {ADA}"))

    counts = books.erase(ADA)

    assert (counts["deliveries"], counts["reveal_orders"]) == (1, 1)
    row, found = books.deliveries.get(delivery), books.reveals.order(order)
    assert row is not None
    assert found is not None
    assert (row.reason, found.reason) == ("", "")
    assert books.deliveries.body(delivery) == delivered(BOB)


def test_a_bill_comes_once_and_whole_for_a_call_without_them(books: PhoneBooks) -> None:
    ada, bob = both_matched(books)
    order = books.ordered(ada, bob)
    books.erase(ADA)

    with books.store.write() as connection:
        assert books.journal.bill(connection, order, Decimal(16))
        assert not books.journal.bill(connection, order, Decimal(16))

    assert books.journal.spent(a_run().id) == 1 + 1 + 16


def test_many_deliveries_are_searched_in_no_time(books: PhoneBooks) -> None:
    import time

    ada, bob = both_matched(books)
    order = books.ordered(ada, bob)
    with books.store.write() as connection:
        connection.execute(update(reveal_orders).values(received_bytes=0))
    for number in range(300):
        with books.store.write() as connection:
            connection.execute(update(reveal_orders).values(deliveries=0, received_bytes=0))
        books.taken(order, delivered(*(f"p{number}x{n}@y.example" for n in range(10))))
    books.taken(order, delivered(ADA, BOB))

    begun = time.process_time()
    traces = books.privacy.find(ADA)

    assert traces.counts()["deliveries"] == 1
    assert time.process_time() - begun < 2


def test_the_ledger_tells_the_whole_cost_of_a_phone_call_by_record_and_purse(books: PhoneBooks) -> None:
    ada, bob = both_matched(books)
    order = books.ordered(ada, bob, record_ids=("A", "B"))
    ledger = Ledger(books.store, books.vault)

    reserved = ledger.spent("2026-10-01", "2026-10-31", purses=(PHONES,))
    with books.store.write() as connection:
        books.journal.bill(connection, order, Decimal(8))
    entries = [entry for entry in ledger.entries() if entry.call == 2]

    assert reserved == 1 + 16
    assert ledger.spent("2026-10-01", "2026-10-31", purses=(PHONES,)) == 9
    assert ledger.spent("2026-10-01", "2026-10-31", purses=(LOOKUPS,)) == 1
    assert ledger.spent("2026-10-01", "2026-10-31") == 10
    assert {entry.record for entry in entries} == {"A", "B"}
    assert sum(entry.credits for entry in entries) == 9
    assert ledger.records_of(2) == [("Contact", "A"), ("Contact", "B")]
    assert purpose_word(Purpose.PHONE, 3) == "3 phones"


def test_a_call_that_found_no_number_still_has_its_cost_in_the_ledger(books: PhoneBooks) -> None:
    ada, bob = both_matched(books)
    books.ordered(ada, bob)
    with books.store.write() as connection:
        connection.execute(update(answers).where(answers.c.purpose == "phone").values(verdict="no match"))

    entries = [entry for entry in Ledger(books.store, books.vault).entries() if entry.call == 2]

    assert [entry.credits for entry in entries] == [Decimal("0.5"), Decimal("0.5")]


def test_whose_order_is_not_kept_any_more_waits_for_nothing(books: PhoneBooks) -> None:
    """A second record of somebody whose phone was asked for long ago: it is not bought again, and it says why."""
    ada, _ = both_matched(books)
    order = books.ordered(ada)
    with books.store.write() as connection:
        connection.execute(phone_waits.delete())
        connection.execute(reveal_orders.delete().where(reveal_orders.c.id == order))
    wait = NewWait(record_id="second", apollo_id=id_of(ADA), key=ada.key, batch_id=1, position=0)
    books.reveals.choose([wait], crm="salesforce", object_type="Contact", sync="contacts", run_id=a_run().id, now=NOON)

    books.reveals.join(a_run().id, now=NOON)

    [found] = books.reveals.of_record("Contact", "second")
    assert (found.state, books.waiting()) == ("skipped", set())
    assert "not kept any more" in found.reason
