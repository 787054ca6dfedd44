"""No paid call leaves unwritten, nobody is bought twice, and no budget is exceeded, whoever asks at the same time."""

from __future__ import annotations

import multiprocessing
import random
import secrets
import threading
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy import insert, select
from sqlalchemy.exc import IntegrityError

from crm_sync.domain.enrichment import Purpose, RawAnswer, Verdict
from crm_sync.errors import StoreError
from crm_sync.store.engine import Store
from crm_sync.store.journal import ABANDONED, ASKED, IN_DOUBT, LEFT_OPEN, Expansion, Journal, NewAnswer, Plan, Spent
from crm_sync.store.runs import Runs
from crm_sync.store.tables import answers, batches
from tests.factories import NOON, a_run, a_vault, an_intent, company_keys, person_keys
from tests.store.books import Books, a_row, people_keys, within


@pytest.fixture
def books(store: Store) -> Books:
    return Books.opened(store)


# --- a call's life ------------------------------------------------------------------------------------------------


def test_a_planned_call_is_written_down_with_its_worst_cost_and_its_guard(books: Books) -> None:
    [planned] = books.plan(people_keys(1, 2), most=Decimal("1.5")).calls

    call = books.call(planned.id)
    assert (call.state, call.keys, call.single) == ("planned", people_keys(1, 2), False)
    assert (call.run_id, call.sync, call.endpoint) == (a_run().id, "contacts", "people/bulk_match")
    assert (call.most, call.credits, call.day) == (Decimal(3), None, "2026-10-08")
    assert (call.planned_at, call.sent_at, call.answered_at) == (NOON, None, None)
    assert [books.verdict(person) for person in (1, 2, 3)] == [ASKED, ASKED, ""]
    assert books.runs.unsettled(a_run().id).in_doubt == 3
    assert books.journal.spent(a_run().id) == 0


def test_each_step_is_committed_with_its_time(books: Books) -> None:
    [planned] = books.plan(people_keys(1)).calls
    steps = [books.call(planned.id)]

    books.journal.sent(planned.id, now=NOON + timedelta(seconds=1))
    steps.append(books.call(planned.id))
    raw = RawAnswer(body=b'{"matches": []}', credits=Decimal("0.01"), request_id="-612")
    books.journal.received(planned.id, raw, now=NOON + timedelta(seconds=2))
    steps.append(books.call(planned.id))
    books.expand(planned.id, a_row(1), now=NOON + timedelta(seconds=3))
    steps.append(books.call(planned.id))

    assert [step.state for step in steps] == ["planned", "sent", "received", "done"]
    assert steps[-1].planned_at == NOON
    assert steps[-1].sent_at == NOON + timedelta(seconds=1)
    assert steps[-1].answered_at == NOON + timedelta(seconds=2)
    assert steps[-1].credits == Decimal("0.01")


def test_calls_planned_together_have_each_their_own_number_keys_and_cost(books: Books) -> None:
    calls = books.plan(people_keys(1, 2), people_keys(3), people_keys(4, 5, 6)).calls

    assert [call.keys for call in calls] == [people_keys(1, 2), people_keys(3), people_keys(4, 5, 6)]
    assert [books.call(call.id).keys for call in calls] == [call.keys for call in calls]
    assert [books.call(call.id).most for call in calls] == [2, 1, 3]
    assert books.runs.unsettled(a_run().id).in_doubt == 6
    assert books.recomputed() == books.sums()


def test_one_step_of_a_call_leaves_its_neighbours_where_they_are(books: Books) -> None:
    one, other = books.plan(people_keys(1), people_keys(2)).calls
    books.journal.sent(one.id, now=NOON)

    books.journal.not_charged(one.id, "refused", "no", now=NOON)

    assert (books.call(one.id).state, books.call(other.id).state) == ("refused", "planned")
    assert (books.verdict(1), books.verdict(2)) == ("", ASKED)


def test_a_call_that_was_never_planned_is_not_there(books: Books) -> None:
    assert books.journal.call(4711) is None


def test_what_is_unfinished_comes_with_its_bytes_and_what_has_an_end_does_not(books: Books) -> None:
    books.plan(people_keys(1))
    sent, received = books.sent(2), books.received(3)
    books.done(4)
    books.doubted(5)
    books.journal.not_charged(books.sent(6), "refused", "no", now=NOON)

    unfinished = books.journal.unfinished(a_run().id)

    assert [call.state for call in unfinished] == ["planned", "sent", "received"]
    assert [call.id for call in unfinished][1:] == [sent, received]
    assert [call.body for call in unfinished] == [b"", b"", b"{}"]
    assert books.journal.unfinished("another run") == []


def test_calls_without_an_end_are_counted_from_a_moment_on(books: Books) -> None:
    books.sent(1, now=NOON - timedelta(hours=1))
    books.sent(2)
    books.doubted(3)
    books.done(4)

    assert books.journal.open_calls(NOON) == 1
    assert books.journal.open_calls(NOON - timedelta(hours=1)) == 2


# --- the guard ----------------------------------------------------------------------------------------------------


def test_a_second_plan_for_the_same_person_finds_it_held(books: Books) -> None:
    books.plan(people_keys(1, 2))

    plan = books.plan(people_keys(2, 3))

    assert [call.keys for call in plan.calls] == [people_keys(3)]
    assert (plan.held, plan.left) == (people_keys(2), ())


def test_somebody_who_is_held_costs_nothing_and_leaves_no_call(books: Books) -> None:
    books.plan(people_keys(1, 2))

    plan = books.plan(people_keys(2, 1))

    assert (plan.calls, plan.held) == ((), people_keys(2, 1))
    assert books.runs.unsettled(a_run().id).in_doubt == 2
    assert books.sums() == books.recomputed()


def test_another_run_and_another_process_find_it_held_too(books: Books, database_url: str) -> None:
    books.plan(people_keys(1))
    other_store = Store(database_url)
    other = Books(other_store)
    other.runs.open(a_run(id="20261008-130000-0002", sync="leads"), owner="there:2")

    plan = other.plan(people_keys(1), run_id="20261008-130000-0002", sync="leads")

    other_store.close()
    assert (plan.calls, plan.held) == ((), people_keys(1))


def test_the_database_itself_refuses_a_second_guard(books: Books) -> None:
    batch = books.sent(1)
    with books.store.read() as connection:
        row = connection.execute(select(answers).where(answers.c.batch_id == batch)).one()._asdict()

    with pytest.raises(IntegrityError), books.store.write() as connection:
        connection.execute(insert(answers).values(row | {"batch_id": batch + 1}))

    assert books.guards() == {batch: {row["key"]}}


def test_a_plan_that_the_guard_refuses_leaves_neither_a_call_nor_a_reservation(
    books: Books, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Were the look at what is held wrong, the primary key would still forbid the second call."""
    books.plan(people_keys(1))
    before = (books.sums(), books.recomputed(), books.guards())
    monkeypatch.setattr("crm_sync.store.journal._known", lambda *_: (set(), set()))

    with pytest.raises(IntegrityError):
        books.plan(people_keys(2), people_keys(1))

    assert (books.sums(), books.recomputed(), books.guards()) == before


def test_the_same_name_as_a_company_is_another_purchase(books: Books) -> None:
    books.plan((person_keys(1, email="", domain="lovelace.example"),))

    plan = books.plan((company_keys("lovelace.example"),), purpose=Purpose.COMPANY)

    assert len(plan.calls) == 1


DAY = timedelta(days=1)
#: Answers serve for 100 days, "no match" for 10.
FRESH, NO_MATCH_WAIT = 100 * DAY, 10 * DAY


def plan_at(books: Books, now: datetime, *people: int) -> Plan:
    return books.plan(
        people_keys(*people),
        now=now,
        fresh_since=now - FRESH,
        no_match_since=now - NO_MATCH_WAIT,
        day=f"{now:%Y-%m-%d}",
    )


@pytest.mark.parametrize(
    ("verdict", "age", "may_be_bought"),
    [
        (Verdict.MATCHED, FRESH, False),
        (Verdict.MATCHED, FRESH + timedelta(seconds=1), True),
        (Verdict.UNPROVED, FRESH, False),
        (Verdict.UNPROVED, FRESH + timedelta(seconds=1), True),
        (Verdict.NO_MATCH, NO_MATCH_WAIT, False),
        (Verdict.NO_MATCH, NO_MATCH_WAIT + timedelta(seconds=1), True),
    ],
)
def test_an_answer_is_bought_again_when_it_is_past_its_time_and_not_before(
    books: Books, verdict: Verdict, age: timedelta, may_be_bought: bool
) -> None:
    books.done(1, verdict=verdict)

    plan = plan_at(books, NOON + age, 1)

    assert (bool(plan.calls), bool(plan.held)) == (may_be_bought, not may_be_bought)
    assert books.verdict(1) == (ASKED if may_be_bought else verdict.value)


@pytest.mark.parametrize(("age", "may_be_bought"), [(NO_MATCH_WAIT, False), (NO_MATCH_WAIT + DAY, True)])
def test_who_was_given_up_waits_like_somebody_not_found(books: Books, age: timedelta, may_be_bought: bool) -> None:
    books.journal.accept(books.doubted(1), ask_again=False, by="ada", now=NOON)

    plan = plan_at(books, NOON + age, 1)

    assert bool(plan.calls) is may_be_bought


@pytest.mark.parametrize("state", [ASKED, IN_DOUBT])
def test_what_is_under_way_or_in_doubt_is_not_bought_again_however_old_it_is(books: Books, state: str) -> None:
    if state == ASKED:
        books.sent(1)
    else:
        books.doubted(1)

    plan = plan_at(books, NOON + 3650 * DAY, 1)

    assert (plan.calls, plan.held) == ((), people_keys(1))
    assert books.verdict(1) == state


def an_employer(domain: str = "lovelace.example") -> NewAnswer:
    """The company that came with a person's answer."""
    return NewAnswer(
        purpose=Purpose.COMPANY, key=company_keys(domain).key, verdict=Verdict.MATCHED, source="employer", position=0
    )


def test_a_company_known_only_as_an_employer_may_be_bought(books: Books) -> None:
    books.expand(books.received(1), a_row(1), an_employer())

    plan = books.plan((company_keys(),), purpose=Purpose.COMPANY)

    assert len(plan.calls) == 1


def test_an_employer_that_is_being_bought_keeps_its_guard(books: Books) -> None:
    [company] = books.plan((company_keys(),), purpose=Purpose.COMPANY).calls

    books.expand(books.received(1), a_row(1), an_employer())

    assert set(books.guards()) == {company.id}


def an_alias(person: int) -> NewAnswer:
    """`person` as another name for whom a call asked."""
    return a_row(person, source="alias")


def test_who_is_known_by_another_name_is_held(books: Books) -> None:
    books.expand(books.received(1), a_row(1), an_alias(2))

    plan = books.plan(people_keys(2))

    assert (plan.calls, plan.held) == ((), people_keys(2))


def test_another_name_never_replaces_an_answer_that_was_asked_for(books: Books) -> None:
    own = books.done(2)

    books.expand(books.received(1), a_row(1), an_alias(2))

    key = person_keys(2).key
    assert books.answers.look_up(Purpose.PERSON, [key])[key].batch_id == own


def test_another_name_is_as_fresh_as_the_newest_answer_it_came_with(books: Books) -> None:
    """Else the person is bought again by that name, days after the answer was."""
    books.expand(books.received(1), a_row(1), an_alias(2))
    later = NOON + FRESH + DAY
    [again] = plan_at(books, later, 1).calls
    books.journal.sent(again.id, now=later)
    books.expand(again.id, a_row(1), an_alias(2), now=later)

    plan = plan_at(books, later + DAY, 2)

    assert (plan.calls, plan.held) == ((), people_keys(2))


@pytest.mark.parametrize("state", ["refused", "unsent"])
def test_a_call_that_was_not_charged_gives_back_its_keys_and_its_credits(books: Books, state: str) -> None:
    batch = books.sent(1, 2)

    books.journal.not_charged(batch, state, "no implicit conversion", now=NOON)

    call = books.call(batch)
    assert (call.state, call.credits, call.error) == (state, 0, "no implicit conversion")
    assert books.guards() == {}
    assert (books.runs.unsettled(a_run().id).in_doubt, books.journal.spent(a_run().id)) == (0, 0)
    assert len(books.plan(people_keys(1, 2)).calls) == 1


def test_a_call_in_doubt_keeps_its_keys_and_its_credits(books: Books) -> None:
    batch = books.sent(1, 2)

    books.journal.in_doubt(batch, b'{"matches": [{"id"', "cut off", now=NOON)

    [call] = books.journal.doubts()
    assert (call.id, call.state, call.error) == (batch, "in doubt", "cut off")
    assert (books.verdict(1), books.verdict(2)) == (IN_DOUBT, IN_DOUBT)
    assert (books.runs.unsettled(a_run().id).in_doubt, books.journal.spent(a_run().id)) == (2, 0)
    assert books.plan(people_keys(1, 2)).held == people_keys(1, 2)


def test_the_bytes_that_came_with_a_doubt_are_kept(books: Books) -> None:
    batch = books.sent(1)

    books.journal.in_doubt(batch, b'{"matches": [{"id"', "cut off", now=NOON)

    assert books.answers.load([batch])[batch].body == b'{"matches": [{"id"'


def test_a_doubt_that_evidence_clears_may_be_asked_again_and_cost_nothing(books: Books) -> None:
    batch = books.doubted(1, 2)

    books.journal.clear(batch, "the meter did not move", by="evidence", now=NOON + DAY)

    call = books.call(batch)
    assert (call.state, call.credits, call.error) == ("not charged", 0, "the meter did not move")
    assert (call.resolved_at, call.resolved_by) == (NOON + DAY, "evidence")
    assert (books.journal.doubts(), books.guards()) == ([], {})
    assert books.runs.unsettled(a_run().id).in_doubt == 0
    assert len(books.plan(people_keys(1, 2)).calls) == 1


@pytest.mark.parametrize("ask_again", [True, False])
def test_a_doubt_that_is_given_up_counts_as_charged_at_worst(books: Books, ask_again: bool) -> None:
    batch = books.doubted(1, 2)

    books.journal.accept(batch, ask_again=ask_again, by="ada", now=NOON + DAY)

    call = books.call(batch)
    assert (call.state, call.credits, call.resolved_by) == ("accepted", 2, "ada")
    assert books.journal.doubts() == []
    assert books.spent() == Spent(run=Decimal(2), day=Decimal(2), month=Decimal(2))
    assert books.sums() == books.recomputed()
    plan = books.plan(people_keys(1, 2))
    assert bool(plan.calls) is ask_again
    assert books.verdict(1) == (ASKED if ask_again else ABANDONED)


@pytest.mark.parametrize("first", ["clear", "accept", "receive"])
def test_a_doubt_is_resolved_once(books: Books, first: str) -> None:
    batch = books.doubted(1)
    if first == "clear":
        books.journal.clear(batch, "evidence", by="ada", now=NOON)
    elif first == "accept":
        books.journal.accept(batch, ask_again=True, by="ada", now=NOON)
    else:
        books.journal.received(batch, RawAnswer(body=b"{}", credits=Decimal(1), request_id=""), now=NOON)
        books.expand(batch, a_row(1))
    before = (books.sums(), books.guards(), books.call(batch))

    with pytest.raises(StoreError, match=f"Call {batch} is not in doubt any more"):
        books.journal.clear(batch, "again", by="bob", now=NOON)
    with pytest.raises(StoreError, match=f"Call {batch} is not in doubt any more"):
        books.journal.accept(batch, ask_again=True, by="bob", now=NOON)

    assert (books.sums(), books.guards(), books.call(batch)) == before


def test_what_an_answer_left_open_is_asked_for_singly_and_not_in_bulk(books: Books) -> None:
    """In bulk again, a company that came under another domain would be paid for once more and left open once more."""
    batch = books.received(1, 2)

    books.expand(batch, a_row(1), open=people_keys(2))

    assert (books.verdict(1), books.verdict(2)) == ("matched", LEFT_OPEN)
    assert books.plan(people_keys(1, 2)).held == people_keys(1, 2)
    assert [call.keys for call in books.plan(people_keys(2), single=True).calls] == [people_keys(2)]


@pytest.mark.parametrize("state", ["unsent", "refused"])
def test_a_single_call_that_cost_nothing_leaves_its_key_to_single_calls(books: Books, state: str) -> None:
    books.expand(books.received(1), open=people_keys(1))
    [single] = books.plan(people_keys(1), single=True).calls

    books.journal.not_charged(single.id, state, "", now=NOON)

    assert books.verdict(1) == LEFT_OPEN
    assert not books.plan(people_keys(1)).calls


def test_what_was_left_open_long_ago_may_be_asked_in_bulk_again(books: Books) -> None:
    books.expand(books.received(1), open=people_keys(1))

    later = NOON + timedelta(days=200)
    plan = books.plan(people_keys(1), now=later, fresh_since=later - timedelta(days=180))

    assert [call.keys for call in plan.calls] == [people_keys(1)]


# --- two that do the same -----------------------------------------------------------------------------------------


def test_an_answer_that_two_processes_index_is_settled_once(books: Books) -> None:
    """Both found the run dead, and both read what it had left."""
    batch = books.received(1, 2, credits_=Decimal("1.01"))
    expansion = Expansion(batch_id=batch, rows=(a_row(1), a_row(2, Verdict.NO_MATCH, position=1)))

    for _ in range(2):
        books.journal.expand([expansion], now=NOON)

    assert (books.journal.spent(a_run().id), books.runs.unsettled(a_run().id).in_doubt) == (Decimal("1.01"), 0)
    assert (books.verdict(1), books.verdict(2)) == ("matched", "no match")
    assert books.sums() == books.recomputed()


def test_a_call_that_two_processes_close_gives_its_credits_back_once(books: Books) -> None:
    books.sent(3)
    [planned] = books.plan(people_keys(1, 2)).calls

    for _ in range(2):
        books.journal.not_charged(planned.id, "unsent", "the process ended", now=NOON)

    assert books.runs.unsettled(a_run().id).in_doubt == 1
    assert books.sums() == books.recomputed()


def test_a_call_that_has_its_end_cannot_come_into_doubt(books: Books) -> None:
    done, refused = books.done(1, credits_=Decimal(1)), books.sent(2)
    books.journal.not_charged(refused, "refused", "no", now=NOON)
    before = (books.sums(), books.verdict(1), books.verdict(2))

    for batch in (done, refused):
        books.journal.in_doubt(batch, b"", "late", now=NOON)

    assert books.journal.doubts() == []
    assert (books.call(done).state, books.call(refused).state) == ("done", "refused")
    assert (books.sums(), books.verdict(1), books.verdict(2)) == before


def test_an_answer_that_is_there_is_not_lost_to_somebody_who_saw_none(books: Books) -> None:
    """The process that was taken for dead committed the bytes just before the other gave the call up."""
    batch = books.received(1, credits_=Decimal(1))

    books.journal.in_doubt(batch, b"", "the process ended while Apollo was being asked", now=NOON)

    assert books.call(batch).state == "received"
    assert books.answers.load([batch])[batch].body == b"{}"


def test_an_answer_that_nobody_can_read_is_in_doubt_with_its_bytes(books: Books) -> None:
    batch = books.received(1, credits_=Decimal(1))

    books.journal.in_doubt(batch, b"{}", "no answer to that question", now=NOON)

    assert books.call(batch).state == "in doubt"
    assert books.answers.load([batch])[batch].body == b"{}"


def test_a_call_that_was_taken_for_dead_does_not_leave(books: Books) -> None:
    """Its run was silent for so long that another process closed it: its keys may be another call's by now."""
    [planned] = books.plan(people_keys(1)).calls
    books.journal.not_charged(planned.id, "unsent", "the process ended before it was sent", now=NOON)

    with pytest.raises(StoreError, match=f"Call {planned.id} is closed already"):
        books.journal.sent(planned.id, now=NOON)

    assert books.call(planned.id).state == "unsent"
    assert books.call(planned.id).sent_at is None


def test_a_call_that_is_sent_again_after_a_429_may_leave_again(books: Books) -> None:
    batch = books.sent(1)

    assert books.journal.sent(batch, now=NOON + timedelta(minutes=1))

    assert books.call(batch).sent_at == NOON + timedelta(minutes=1)


def test_an_answer_that_arrives_after_its_run_was_taken_for_dead_is_kept(books: Books) -> None:
    batch = books.doubted(1)

    books.journal.received(batch, RawAnswer(body=b"{}", credits=Decimal(1), request_id=""), now=NOON)
    books.expand(batch, a_row(1))

    assert books.verdict(1) == "matched"
    assert (books.journal.spent(a_run().id), books.runs.unsettled(a_run().id).in_doubt) == (1, 0)
    assert books.sums() == books.recomputed()


# --- cancelling ---------------------------------------------------------------------------------------------------


def test_a_call_of_a_cancelled_run_does_not_leave(books: Books) -> None:
    [planned] = books.plan(people_keys(1)).calls
    books.ask_to_cancel()

    may_leave = books.journal.sent(planned.id, now=NOON)

    assert not may_leave
    assert (books.call(planned.id).state, books.call(planned.id).sent_at) == ("planned", None)


def test_cancelling_one_run_lets_the_calls_of_others_leave(books: Books) -> None:
    books.runs.open(a_run(id="20261008-130000-0002"), owner="here:1")
    books.ask_to_cancel("20261008-130000-0002")

    assert books.sent(1)


# --- budgets ------------------------------------------------------------------------------------------------------


def test_what_is_open_counts_at_worst_and_what_is_settled_as_reported(books: Books) -> None:
    worst: dict[str, Any] = {"most": Decimal(3)}
    books.plan(people_keys(1, 2), **worst)
    books.sent(3, **worst)
    books.received(4, credits_=Decimal("0.5"), **worst)
    books.doubted(5, **worst)
    books.done(6, 7, credits_=Decimal("1.01"), **worst)
    books.journal.accept(books.doubted(8, **worst), ask_again=False, by="ada", now=NOON)
    books.journal.not_charged(books.sent(9, **worst), "refused", "no", now=NOON)
    books.journal.clear(books.doubted(10, **worst), "evidence", by="ada", now=NOON)

    spent = books.spent()

    expected = 6 + 3 + 3 + 3 + Decimal("1.01") + 3
    assert spent == Spent(run=expected, day=expected, month=expected)
    assert books.sums() == books.recomputed()


def test_nothing_spent_is_nought(books: Books) -> None:
    assert books.spent() == Spent(run=Decimal(0), day=Decimal(0), month=Decimal(0))


def test_a_run_a_day_and_a_month_count_each_their_own(books: Books) -> None:
    books.runs.open(a_run(id="20261008-130000-0002"), owner="here:1")
    books.done(1, credits_=Decimal(1), day="2026-09-30")
    books.done(2, credits_=Decimal(2), day="2026-10-01")
    books.done(3, credits_=Decimal(4), day="2026-10-08", run_id="20261008-130000-0002")
    books.done(4, credits_=Decimal(8), day="2026-10-08")

    assert books.spent() == Spent(run=Decimal(11), day=Decimal(12), month=Decimal(14))
    assert books.spent(day="2026-10-09") == Spent(run=Decimal(11), day=Decimal(0), month=Decimal(14))
    assert books.spent(day="2026-11-01") == Spent(run=Decimal(11), day=Decimal(0), month=Decimal(0))


def test_what_has_no_room_is_left_and_says_what_binds(books: Books) -> None:
    plan = books.plan(people_keys(1, 2), people_keys(3, 4), people_keys(5), room_of=within(per_run=10, per_day=3))

    assert [call.keys for call in plan.calls] == [people_keys(1, 2), people_keys(3)]
    assert (plan.held, plan.left) == ((), people_keys(4, 5))
    assert plan.room.limit == "budget.per_day of 3 credits"
    assert books.guards().keys() == {call.id for call in plan.calls}


def test_without_any_room_nothing_is_written(books: Books) -> None:
    books.sent(1)

    plan = books.plan(people_keys(2, 3), room_of=within(per_run=1))

    assert (plan.calls, plan.held, plan.left) == ((), (), people_keys(2, 3))
    assert books.verdict(2) == ""
    assert books.sums() == books.recomputed()


def test_half_a_credit_is_no_room_for_a_whole_one(books: Books) -> None:
    books.done(1, credits_=Decimal("0.5"))

    plan = books.plan(people_keys(2, 3), room_of=within(per_run=2))

    assert ([call.keys for call in plan.calls], plan.left) == ([people_keys(2)], people_keys(3))


def test_who_is_held_takes_no_room_from_who_may_be_asked(books: Books) -> None:
    books.sent(1, 2)

    plan = books.plan(people_keys(1, 2, 3, 4, 5), room_of=within(per_run=4))

    assert [call.keys for call in plan.calls] == [people_keys(3, 4)]
    assert (plan.held, plan.left) == (people_keys(1, 2), people_keys(5))


def test_an_old_answer_that_there_is_no_room_to_renew_stays(books: Books) -> None:
    books.done(1)
    now = NOON + FRESH + DAY

    plan = books.plan(people_keys(1), room_of=within(per_run=0), now=now, fresh_since=now - FRESH)

    assert plan.left == people_keys(1)
    assert books.verdict(1) == "matched"


def test_a_settled_call_makes_room_again(books: Books) -> None:
    batch = books.received(*range(10), credits_=Decimal("2.02"))
    full = books.plan(people_keys(20), room_of=within(per_day=10))

    books.expand(batch, *(a_row(person) for person in range(10)))
    again = books.plan(people_keys(*range(20, 30)), room_of=within(per_day=10))

    assert full.left == people_keys(20)
    assert [len(call.keys) for call in again.calls] == [7]


def test_a_clock_that_is_set_back_does_not_open_an_earlier_day(books: Books) -> None:
    books.done(1, 2, 3, credits_=Decimal(3), day="2026-10-09")

    plan = books.plan(people_keys(4), day="2026-10-08", room_of=within(per_day=3))
    [other] = books.plan(people_keys(5), day="2026-10-08").calls

    assert plan.left == people_keys(4)
    assert books.call(other.id).day == "2026-10-09"
    assert books.spent(day="2026-10-08") == books.spent(day="2026-10-09")


def test_a_clock_set_back_over_the_end_of_a_month_does_not_open_the_earlier_month(books: Books) -> None:
    books.done(1, credits_=Decimal(1), day="2026-11-01")

    assert books.spent(day="2026-10-31").month == 1


def test_decimals_add_up_exactly(books: Books) -> None:
    for person in range(100):
        books.done(person, credits_=Decimal("1.01"))
    books.done(100, credits_=Decimal("0.000001"))

    assert books.journal.spent(a_run().id) == Decimal("101.000001")
    assert books.spent() == Spent(run=Decimal("101.000001"), day=Decimal("101.000001"), month=Decimal("101.000001"))


def test_credits_nobody_told_are_counted_and_not_called_told(books: Books) -> None:
    told, counted = books.received(1, credits_=Decimal("1.01")), books.received(2)

    books.expand(told, a_row(1))
    books.expand(counted, a_row(2), credits_charged=Decimal(1))

    assert books.journal.spent(a_run().id) == Decimal("2.01")
    assert books.journal.told_between(NOON - DAY, NOON) == Decimal("1.01")


# --- at the same time ---------------------------------------------------------------------------------------------

LIMIT = 25


def greedy(journal: Journal, first: int, run_id: str = "") -> int:
    """Plan calls of three people each until there is no room; how many credits were got."""
    got = 0
    for call in range(20):
        people = people_keys(*range(first + 3 * call, first + 3 * call + 3))
        plan = journal.plan(an_intent(people, run_id=run_id or a_run().id), within(per_day=LIMIT), now=NOON)
        got += sum(len(planned.keys) for planned in plan.calls)
        if plan.left:
            break
    return got


def test_threads_that_plan_at_once_share_one_budget(books: Books) -> None:
    together = threading.Barrier(8)
    got: list[int] = []

    def work(number: int) -> None:
        together.wait()
        got.append(greedy(books.journal, 1000 * number))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(got) == 8
    assert sum(got) == LIMIT
    assert books.spent().day == LIMIT
    assert books.sums() == books.recomputed()


def greedy_process(url: str, first: int, run_id: str, together: Any, told: Any) -> None:
    store = Store(url)
    journal = Journal(store, a_vault(store))
    Runs(store).open(a_run(id=run_id), owner=f"here:{first}")
    together.wait(60)
    told.put(greedy(journal, first, run_id))
    store.close()


def test_processes_that_plan_at_once_share_one_budget(books: Books, database_url: str) -> None:
    context = multiprocessing.get_context("spawn")
    together, told = context.Barrier(3), context.Queue()
    processes = [
        context.Process(
            target=greedy_process, args=(database_url, 1000 * number, f"20261008-120000-000{number}", together, told)
        )
        for number in range(2, 5)
    ]
    for process in processes:
        process.start()
    got = [told.get(timeout=60) for _ in processes]
    for process in processes:
        process.join()

    assert sum(got) == LIMIT
    assert books.spent().day == LIMIT
    assert books.sums() == books.recomputed()


def test_threads_that_want_the_same_person_get_one_call(books: Books) -> None:
    together = threading.Barrier(8)
    plans: list[Plan] = []

    def work() -> None:
        together.wait()
        plans.append(books.plan(people_keys(1, 2)))

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sum(len(plan.calls) for plan in plans) == 1
    assert sum(plan.held == people_keys(1, 2) for plan in plans) == 7
    assert books.runs.unsettled(a_run().id).in_doubt == 2


def test_a_doubt_that_two_clear_at_once_gives_its_credits_back_once(books: Books) -> None:
    books.sent(99)
    for round_ in range(10):
        batch = books.doubted(round_)
        together = threading.Barrier(2)
        refused: list[StoreError] = []

        def clear(batch: int = batch, together: threading.Barrier = together, refused: Any = refused) -> None:
            together.wait()
            try:
                books.journal.clear(batch, "evidence", by="ada", now=NOON)
            except StoreError as error:
                refused.append(error)

        threads = [threading.Thread(target=clear) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

        assert len(refused) == 1
        assert books.runs.unsettled(a_run().id).in_doubt == 1


# --- whatever happens ---------------------------------------------------------------------------------------------


class Wanderer:
    """Takes steps that the walks, recovery and people take, in any order, on two runs and over several days."""

    RUNS = ("20261008-120000-0001", "20261008-120000-0002")
    LIMIT = Decimal(40)

    def __init__(self, books: Books, seed: int) -> None:
        self.books = books
        self.rng = random.Random(seed)
        self.now = NOON
        self.steps: list[str] = []
        books.runs.open(a_run(id=self.RUNS[1]), owner="here:1")

    def step(self) -> None:
        self.now += timedelta(hours=self.rng.choice([0, 0, 1, 5, 24 * 20, -30]))
        name = self.rng.choice(
            ["plan", "plan", "plan", "sent", "sent", "received", "expand", "not_charged", "doubt", "resolve"]
        )
        self.steps.append(name)
        getattr(self, name)()

    def plan(self) -> None:
        people = self.rng.sample(range(30), self.rng.randrange(1, 8))
        cut = self.rng.randrange(len(people))
        calls = [part for part in (people[:cut], people[cut:]) if part]
        self.books.journal.plan(
            an_intent(
                *(people_keys(*part) for part in calls),
                run_id=self.rng.choice(self.RUNS),
                day=f"{self.now:%Y-%m-%d}",
                most=self.rng.choice([Decimal(1), Decimal("1.5"), Decimal(9)]),
                fresh_since=self.now - FRESH,
                no_match_since=self.now - NO_MATCH_WAIT,
            ),
            within(per_month=int(self.LIMIT)),
            now=self.now,
        )

    def some(self, *states: str) -> int | None:
        with self.books.store.read() as connection:
            found = list(
                connection.execute(
                    select(batches.c.id).where(batches.c.state.in_(states)).order_by(batches.c.id)
                ).scalars()
            )
        return self.rng.choice(found) if found else None

    def sent(self) -> None:
        batch = self.some("planned", "sent")
        if batch is not None:
            self.books.journal.sent(batch, now=self.now)

    def received(self) -> None:
        batch = self.some("sent")
        if batch is not None:
            most = self.books.call(batch).most
            told = self.rng.choice([None, Decimal(0), most, Decimal("0.01"), Decimal("1.01")])
            self.books.journal.received(
                batch, RawAnswer(body=b"{}", credits=told and min(told, most), request_id=""), now=self.now
            )

    def expand(self) -> None:
        """Also what is settled already: another process may have read it."""
        batch = self.some("received", "received", "done")
        if batch is None:
            return
        call = self.books.call(batch)
        rows, left_open = [], []
        for position, key in enumerate(call.keys):
            if self.rng.random() < 0.2:
                left_open.append(key)
            else:
                verdict = self.rng.choice(list(Verdict))
                rows.append(
                    NewAnswer(purpose=call.purpose, key=key.key, verdict=verdict, source="bulk", position=position)
                )
        charged = None if call.credits is not None else Decimal(len(rows))
        expansion = Expansion(batch_id=batch, rows=tuple(rows), open=tuple(left_open), credits_charged=charged)
        self.books.journal.expand([expansion], now=self.now)

    def not_charged(self) -> None:
        batch = self.some("planned", "sent", "refused", "unsent")
        if batch is not None:
            self.books.journal.not_charged(batch, self.rng.choice(["refused", "unsent"]), "no", now=self.now)

    def doubt(self) -> None:
        batch = self.some("sent", "received", "in doubt")
        if batch is not None:
            self.books.journal.in_doubt(batch, b"half", "lost", now=self.now)

    def resolve(self) -> None:
        batch = self.some("in doubt")
        if batch is not None and self.rng.random() < 0.5:
            self.books.journal.clear(batch, "evidence", by="evidence", now=self.now)
        elif batch is not None:
            again = self.rng.random() < 0.5
            self.books.journal.accept(batch, ask_again=again, by="ada", now=self.now)


@pytest.mark.parametrize("seed", [1, 2, 3, secrets.randbelow(10**9)], ids=["1", "2", "3", "fresh"])
def test_the_sums_that_budgets_look_at_are_always_those_of_the_journal(books: Books, seed: int) -> None:
    print(f"seed {seed}")
    wanderer = Wanderer(books, seed)

    for _ in range(150):
        wanderer.step()

        sums = books.sums()
        assert sums == books.recomputed(), wanderer.steps
        assert all(amount >= 0 for amounts in sums.values() for amount in amounts), wanderer.steps
        spent_by_month: dict[str, Decimal] = {}
        for (day, _, _), (_, reserved, settled, doubted) in sums.items():
            spent_by_month[day[:7]] = spent_by_month.get(day[:7], Decimal(0)) + reserved + settled + doubted
        assert all(spent <= Wanderer.LIMIT for spent in spent_by_month.values()), wanderer.steps
        check_guards(books, wanderer)
    assert set(wanderer.steps) >= {"plan", "sent", "received", "expand", "not_charged", "doubt", "resolve"}


def check_guards(books: Books, wanderer: Wanderer) -> None:
    """Every call that may leave, is out or is in doubt guards exactly its keys; nothing else guards any."""
    with books.store.read() as connection:
        live = list(
            connection.execute(
                select(batches.c.id).where(batches.c.state.in_(("planned", "sent", "received", "in doubt")))
            ).scalars()
        )
    expected = {batch: {books.vault.digest(key.key) for key in books.call(batch).keys} for batch in live}
    assert books.guards() == expected, wanderer.steps
