"""What a purge takes and what it leaves."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy import insert, select

from crm_sync.config.loader import load
from crm_sync.config.model import Config
from crm_sync.pipeline.purge import cutoffs, purge_daily
from crm_sync.store.engine import Store
from crm_sync.store.orders import blank_order
from crm_sync.store.provenance import Provenance
from crm_sync.store.retention import Cutoffs, Retention
from crm_sync.store.runs import RunRecord, Runs
from crm_sync.store.tables import answers, batches, deliveries, phone_waits, reveal_orders, spending
from tests.factories import NOON, a_run, a_vault

DAY = timedelta(days=1)
BASE = """
version: 1
crms: {salesforce: {type: salesforce, environment: sandbox}}
syncs:
  contacts:
    crm: salesforce
    object: Contact
    choose: {or_older_than: 40d, after_no_match_wait: 90d}
    match: {send: {email: Email}}
    fields: {Title: person.title}
"""


def config(keep: str = "{}", base: str = BASE) -> Config:
    return load(f"{base}keep: {keep}\n".encode()).require()


@pytest.fixture
def retention(store: Store) -> Iterator[Retention]:
    Runs(store).open(a_run(started_at=NOON - 400 * DAY), owner="here:1")
    return Retention(store, Provenance(store, a_vault(store)))


def a_call(store: Store, state: str, answered_at: datetime, **values: object) -> int:
    row = {
        "run_id": a_run().id, "sync": "contacts", "purpose": "person", "single": 0, "endpoint": "people/bulk_match",
        "fingerprint": "f" * 64, "request": b"sealed", "asked": 1, "state": state, "day": "2026-10-08",
        "purse": "lookups", "most": Decimal(1), "planned_at": answered_at, "sent_at": answered_at,
        "answered_at": answered_at, "credits": Decimal(1), "request_id": "1", "body": b"sealed", "error": "",
        "resolved_by": "",
    }  # fmt: skip
    with store.write() as connection:
        return int(connection.execute(insert(batches).values({**row, **values})).inserted_primary_key[0])  # type: ignore[index]


def a_row(store: Store, key: bytes, verdict: str, obtained_at: datetime, *, purpose: str = "person") -> None:
    with store.write() as connection:
        connection.execute(
            insert(answers).values(
                purpose=purpose,
                key=key,
                verdict=verdict,
                source="bulk",
                batch_id=1,
                position=0,
                obtained_at=obtained_at,
            )
        )


def kept_calls(store: Store) -> set[int]:
    with store.read() as connection:
        return set(connection.execute(select(batches.c.id).where(batches.c.body.is_not(None))).scalars())


def kept_keys(store: Store) -> set[bytes]:
    with store.read() as connection:
        return {bytes(key) for key in connection.execute(select(answers.c.key)).scalars()}


def test_the_index_stays_as_long_as_any_sync_counts_on_it_and_answers_go_at_their_time() -> None:
    limits = cutoffs(config("{answers: 50d, run_details: 20d, undo: 30d}"), NOON)

    assert limits == Cutoffs(
        bodies=NOON - 50 * DAY,
        found=NOON - 50 * DAY,
        not_found=NOON - 90 * DAY,
        details=NOON - 20 * DAY,
        written=NOON - 30 * DAY,
        deliveries=NOON - 30 * DAY,
        orders=NOON - 36 * DAY,
    )
    assert cutoffs(config("{deliveries: 60d}"), NOON).orders == NOON - 60 * DAY


def test_a_sync_without_a_window_counts_on_an_answer_for_half_a_year() -> None:
    without = BASE.replace("or_older_than: 40d, ", "")

    assert cutoffs(config("{answers: 1d}", without), NOON).found == NOON - 180 * DAY


def test_old_answers_are_emptied_and_the_ledger_stays(store: Store, retention: Retention) -> None:
    old, young = a_call(store, "done", NOON - 51 * DAY), a_call(store, "done", NOON - 49 * DAY)
    doubtful = a_call(store, "in doubt", NOON - 300 * DAY)
    unread = a_call(store, "received", NOON - 300 * DAY)
    refused = a_call(store, "refused", NOON - 300 * DAY, body=None)
    with store.write() as connection:
        connection.execute(
            insert(spending).values(
                day="2026-10-08", run_id=a_run().id, purse="lookups", sync="contacts", calls=3, reserved=Decimal(0),
                settled=Decimal(3), doubted=Decimal(0),
            )
        )  # fmt: skip
    limits = cutoffs(config("{answers: 50d}"), NOON)

    counted = retention.count(limits)
    done = retention.purge(limits, now=NOON)

    assert done == counted == {
        "batches": 2, "answers": 0, "run_records": 0, "deliveries": 0, "reveal_orders": 0, "phone_waits": 0,
    }  # fmt: skip
    assert kept_calls(store) == {young, doubtful, unread}
    with store.read() as connection:
        row = connection.execute(select(batches).where(batches.c.id == old)).one()
        assert (bytes(row.request), row.fingerprint, row.credits, row.state) == (b"", "", Decimal(1), "done")
        assert bytes(connection.execute(select(batches.c.request).where(batches.c.id == refused)).scalar_one()) == b""
        assert connection.execute(select(spending.c.settled)).scalar() == 3
    assert retention.purge(limits, now=NOON)["batches"] == 0


def test_an_emptied_call_can_still_be_looked_at(store: Store, retention: Retention) -> None:
    from crm_sync.store.answers import Answers
    from crm_sync.store.journal import Journal
    from crm_sync.store.vault import Vault

    vault = Vault({1: b"1" * 32}, b"2" * 32, dict)
    old = a_call(store, "done", NOON - 300 * DAY)
    retention.purge(cutoffs(config(), NOON), now=NOON)

    call = Journal(store, vault).call(old)

    assert call is not None
    assert (call.keys, call.credits) == ((), 1)
    assert Answers(store, vault).load([old]) == {}


def test_index_rows_go_behind_their_window_and_guards_never(store: Store, retention: Retention) -> None:
    for key, verdict, days in [
        (b"matched young", "matched", 49), (b"matched old", "matched", 51), (b"unproved old", "unproved", 51),
        (b"nobody young", "no match", 89), (b"nobody old", "no match", 91), (b"abandoned young", "abandoned", 89),
        (b"in doubt", "in doubt", 900), (b"asked", "asked", 900),
    ]:  # fmt: skip
        a_row(store, key, verdict, NOON - days * DAY)

    done = retention.purge(cutoffs(config("{answers: 50d}"), NOON), now=NOON)

    assert done["answers"] == 3
    assert kept_keys(store) == {b"matched young", b"nobody young", b"abandoned young", b"in doubt", b"asked"}


def test_run_details_go_and_what_can_be_undone_or_is_not_confirmed_stays(store: Store, retention: Retention) -> None:
    runs = Runs(store)
    for number, (outcome, days) in enumerate(
        [("Updated", 25), ("Updated", 35), ("No match", 15), ("No match", 25), ("Writing", 300)]
    ):
        record = RunRecord(object_type="Contact", record_id=str(number), outcome=outcome, reason="")
        runs.settle(
            a_run().id, sync="contacts", confirmed=[], amended=[], others=[record], states=[], now=NOON - days * DAY
        )

    done = retention.purge(cutoffs(config("{run_details: 20d, undo: 30d}"), NOON), now=NOON)

    assert done["run_records"] == 2
    assert {record.record_id for record in runs.records(a_run().id)} == {"0", "2", "4"}


def test_more_than_one_commit_takes_is_purged_all_the_same(store: Store, retention: Retention) -> None:
    for number in range(1_203):
        a_row(store, b"%016d" % number, "matched", NOON - 400 * DAY)

    assert retention.purge(cutoffs(config(), NOON), now=NOON)["answers"] == 1_203


def test_it_is_done_once_a_day_and_again_when_the_clock_was_set_back(store: Store, retention: Retention) -> None:
    assert retention.last() is None
    assert purge_daily(config(), retention, NOON) is not None
    assert purge_daily(config(), retention, NOON + 23 * timedelta(hours=1)) is None
    assert purge_daily(config(), retention, NOON + DAY) is not None
    assert purge_daily(config(), retention, NOON) is not None
    assert retention.last() == NOON


# --- phones -----------------------------------------------------------------------------------------------------------


def an_order(store: Store, name: str, state: str, days: float, *, probe: bool = False) -> None:
    batch = None if probe else a_call(store, "done", NOON - days * DAY, purpose="phone", purse="phones")
    with store.write() as connection:
        connection.execute(
            insert(reveal_orders).values(
                **blank_order(name, now=NOON - days * DAY, gives_up_at=NOON - (days - 29) * DAY)
                | {"state": state, "batch_id": batch, "sync": "contacts", "run_id": a_run().id}
            )
        )


def a_delivery(store: Store, order: str, state: str, days: float, *, ended: float | None = None) -> None:
    with store.write() as connection:
        connection.execute(
            insert(deliveries).values(
                order_id=order, digest=f"{order} {state} {days}".encode(), body=b"sealed", size=1, state=state,
                attempts=0, reason="", received_at=NOON - days * DAY, times=1, source="callback", belief="",
                ended_at=None if state in ("new", "waiting") else NOON - (days if ended is None else ended) * DAY,
            )
        )  # fmt: skip


def a_wait(store: Store, record_id: str, order: str | None, state: str, days: float) -> None:
    with store.write() as connection:
        connection.execute(
            insert(phone_waits).values(
                crm="salesforce", object_type="Contact", record_id=record_id, sync="contacts", run_id=a_run().id,
                person=b"p" * 16, identity=b"i" * 16, batch_id=1, position=0, order_id=order, state=state, reason="",
                asked_at=NOON - days * DAY, settled_run="",
                settled_at=None if state in ("due", "waiting") else NOON - days * DAY,
            )
        )  # fmt: skip


def kept(store: Store, column: Any) -> set[Any]:
    with store.read() as connection:
        return set(connection.execute(select(column)).scalars())


def purged(retention: Retention, keep: str = "{}") -> dict[str, int]:
    """What a purge takes of phones; a dry run says the same before."""
    limits = cutoffs(config(keep), NOON)
    counted = retention.count(limits)
    done = retention.purge(limits, now=NOON)
    assert done == counted
    assert sum(retention.purge(limits, now=NOON).values()) == 0
    return {table: done[table] for table in ("deliveries", "reveal_orders", "phone_waits")}


def test_what_was_delivered_goes_at_its_time_and_what_is_awaited_or_unread_stays(
    store: Store, retention: Retention
) -> None:
    for name, state, days, ended in [
        ("old", "done", 31, None), ("replayed", "done", 31, 2), ("young", "done", 29, None), ("rejected", "dead", 31, None),
        ("unread", "new", 31, None), ("put off", "waiting", 31, None),
    ]:  # fmt: skip
        an_order(store, name, "closed", 32)
        a_delivery(store, name, state, days, ended=ended)
    for state in ("open", "in doubt", "skipped", "sent"):
        an_order(store, state, state, 32)
        a_delivery(store, state, "done", 31)

    done = purged(retention)

    assert done == {"deliveries": 2, "reveal_orders": 0, "phone_waits": 0}
    assert kept(store, deliveries.c.order_id) == {
        "replayed", "young", "unread", "put off", "open", "in doubt", "skipped", "sent",
    }  # fmt: skip


def test_the_deliveries_of_one_order_go_together(store: Store, retention: Retention) -> None:
    an_order(store, "order", "closed", 35)
    a_delivery(store, "order", "done", 34)
    a_delivery(store, "order", "done", 5)

    assert purged(retention)["deliveries"] == 0
    assert purged(retention, "{deliveries: 4d}")["deliveries"] == 2


def test_orders_go_when_their_token_has_expired_with_all_that_came_for_them(store: Store, retention: Retention) -> None:
    for state in ("closed", "expired", "not sent", "nothing", "open", "in doubt", "skipped"):
        an_order(store, f"old {state}", state, 37)
        an_order(store, f"young {state}", state, 35)
    a_delivery(store, "old closed", "done", 36, ended=1)
    an_order(store, "old probe", "sent", 37, probe=True)
    an_order(store, "young probe", "sent", 1, probe=True)
    a_delivery(store, "old probe", "new", 37)
    an_order(store, "waited for", "closed", 37)
    a_wait(store, "1", "waited for", "waiting", 1)
    an_order(store, "unread", "expired", 37)
    a_delivery(store, "unread", "new", 30)

    done = purged(retention)

    assert done == {"deliveries": 2, "reveal_orders": 5, "phone_waits": 0}
    left = kept(store, reveal_orders.c.id)
    assert {each for each in left if not each.startswith("young")} == {
        "old open", "old in doubt", "old skipped", "waited for", "unread",
    }  # fmt: skip


def test_waits_that_are_over_go_with_the_details_of_runs(store: Store, retention: Retention) -> None:
    an_order(store, "over", "closed", 30)
    an_order(store, "awaited", "open", 30)
    for record_id, order, state, days in [
        ("applied", "over", "applied", 21), ("young", "over", "applied", 19), ("never ordered", None, "not ordered", 21),
        ("order gone", "purged long ago", "kept", 21), ("still awaited by others", "awaited", "applied", 21),
        ("waiting", "awaited", "waiting", 21), ("due", None, "due", 21),
    ]:  # fmt: skip
        a_wait(store, record_id, order, state, days)

    done = purged(retention, "{run_details: 20d}")

    assert done["phone_waits"] == 3
    assert kept(store, phone_waits.c.record_id) == {"young", "still awaited by others", "waiting", "due"}


def test_guards_of_phones_go_by_the_rules_of_the_index(store: Store, retention: Retention) -> None:
    for key, verdict, days in [
        (b"phone young", "matched", 49), (b"phone old", "matched", 51), (b"none young", "no match", 89), (b"asked", "asked", 900),
    ]:  # fmt: skip
        a_row(store, key, verdict, NOON - days * DAY, purpose="phone")

    assert retention.purge(cutoffs(config("{answers: 50d}"), NOON), now=NOON)["answers"] == 1
    assert kept_keys(store) == {b"phone young", b"none young", b"asked"}
