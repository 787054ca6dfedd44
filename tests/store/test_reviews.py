"""What waits for a person: put on the list once, answered once, and gone with what it was about."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from threading import Event

import pytest

from crm_sync.store.engine import Store
from crm_sync.store.provenance import Provenance
from crm_sync.store.retention import Cutoffs, Retention
from crm_sync.store.reviews import ACCEPTED, FIELD, JOB_CHANGE, MATCH, OPEN, REFUSED, Proposal, Review, Reviews
from crm_sync.store.runs import RunRecord, Runs
from tests.factories import NOON, a_run, a_vault

DAY = timedelta(days=1)


class Desk:
    """A list and the runs that put something on it, a day apart."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.runs, self.reviews = Runs(store), Reviews(store, a_vault(store))
        self.at = NOON

    def run(self, run_id: str, *proposals: Proposal, sync: str = "contacts") -> None:
        """A run whose records were settled with these proposals."""
        self.runs.open(a_run(id=run_id, sync=sync, started_at=self.at), owner="here:1")
        records = {
            (each.object_type, each.record_id): RunRecord(
                object_type=each.object_type, record_id=each.record_id, outcome="Needs review", reason=each.reason
            )
            for each in proposals
        }
        self.runs.settle(
            run_id, sync=sync, confirmed=[], amended=[], others=list(records.values()), states=[], now=self.at,
            beside=self.reviews.proposing(proposals, run_id=run_id, sync=sync, crm="salesforce", now=self.at),
        )  # fmt: skip
        self.at += DAY

    def only(self, state: str = OPEN) -> Review:
        [found] = self.reviews.listed(state=state)
        return found

    def say(self, state: str, *ids: int) -> int:
        return self.reviews.resolve(ids, state, by="lou", now=self.at)

    def purge(self, before: datetime) -> None:
        limits = Cutoffs(**dict.fromkeys(Cutoffs.__dataclass_fields__, before))
        Retention(self.store, Provenance(self.store, a_vault(self.store))).purge(limits, now=self.at)


def proposal(record_id: str = "1", what: str = "CTO", **changes: str) -> Proposal:
    values = {"object_type": "Contact", "field": "Title", "kind": FIELD, "reason": "waits for a person: rule review"}
    return Proposal(record_id=record_id, what=what, **{**values, **changes})


@pytest.fixture
def desk(store: Store) -> Desk:
    return Desk(store)


def test_what_is_proposed_stands_on_the_list_with_its_reason_and_run(desk: Desk) -> None:
    desk.run("a", proposal())

    found = desk.only()
    assert (found.sync, found.crm, found.object_type, found.record_id) == ("contacts", "salesforce", "Contact", "1")
    assert (found.field, found.kind, found.reason) == ("Title", FIELD, "waits for a person: rule review")
    assert (found.run_id, found.state, found.created_at) == ("a", OPEN, NOON)
    assert (found.resolved_at, found.resolved_by) == (None, "")
    assert desk.reviews.count() == 1


def test_a_record_with_nothing_to_ask_puts_nothing_on_the_list(desk: Desk) -> None:
    assert desk.reviews.proposing([], run_id="a", sync="contacts", crm="salesforce", now=NOON) is None


def test_what_fails_to_be_settled_is_not_on_the_list_either(desk: Desk) -> None:
    desk.run("a")
    put = desk.reviews.proposing([proposal()], run_id="a", sync="contacts", crm="salesforce", now=NOON)
    assert put is not None

    def fail_half_way() -> None:
        with desk.store.write() as connection:
            put(connection)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail_half_way()

    assert desk.reviews.count() == 0


def test_the_same_proposal_again_is_the_same_review_and_points_at_the_newest_values(desk: Desk) -> None:
    desk.run("a", proposal())
    first = desk.only()
    desk.run("b", proposal())

    again = desk.only()
    assert (again.id, again.run_id, again.created_at) == (first.id, "b", NOON)


def test_another_proposal_for_the_same_field_takes_its_place(desk: Desk) -> None:
    desk.run("a", proposal(what="CTO"))
    desk.run("b", proposal(what="CEO"))

    found = desk.only()
    assert (found.run_id, found.created_at) == ("b", NOON + DAY)
    assert found.proposal == desk.reviews.proposal("CEO")


def test_what_a_person_refused_is_not_asked_again(desk: Desk) -> None:
    desk.run("a", proposal())
    assert desk.say(REFUSED, desk.only().id) == 1

    desk.run("b", proposal())

    found = desk.only(REFUSED)
    assert desk.reviews.count() == 0
    assert (found.run_id, found.resolved_by, found.resolved_at) == ("a", "lou", NOON + DAY)


def test_a_field_that_was_accepted_and_does_not_hold_it_any_more_waits_again(desk: Desk) -> None:
    desk.run("a", proposal())
    desk.say(ACCEPTED, desk.only().id)

    desk.run("b", proposal())

    assert desk.only().run_id == "b"


@pytest.mark.parametrize("state", [ACCEPTED, REFUSED])
def test_another_proposal_after_an_answer_opens_it_anew(desk: Desk, state: str) -> None:
    desk.run("a", proposal(what="CTO"))
    number = desk.only().id
    desk.say(state, number)

    desk.run("b", proposal(what="CEO", reason="another reason"))

    found = desk.only()
    assert (found.id, found.run_id, found.reason) == (number, "b", "another reason")
    assert (found.resolved_at, found.resolved_by) == (None, "")
    assert desk.reviews.listed(state=state) == []
    assert desk.reviews.said("contacts", "Contact", ["1"]) == {}


def test_an_answer_is_given_once(desk: Desk) -> None:
    desk.run("a", proposal())
    number = desk.only().id

    assert desk.say(REFUSED, number, 999) == 1
    assert desk.say(ACCEPTED, number) == 0
    assert desk.reviews.get([number])[number].state == REFUSED


def test_what_was_said_is_told_by_record_and_field_of_that_sync_alone(desk: Desk) -> None:
    desk.run("a", proposal("1"), proposal("1", field="", kind=MATCH), proposal("2"), proposal("3"))
    desk.run("b", proposal("1"), sync="others")
    numbers = {(each.sync, each.record_id, each.field): each.id for each in desk.reviews.listed()}
    desk.say(REFUSED, numbers["contacts", "1", "Title"])
    desk.say(ACCEPTED, numbers["contacts", "1", ""], numbers["contacts", "2", "Title"], numbers["others", "1", "Title"])

    found = desk.reviews.said("contacts", "Contact", ["1", "3"])

    assert {place: each.state for place, each in found.items()} == {("1", "Title"): REFUSED, ("1", ""): ACCEPTED}
    assert desk.reviews.said("contacts", "Lead", ["1"]) == {}


def test_the_list_is_in_order_and_filtered(desk: Desk) -> None:
    desk.run(
        "a",
        proposal("1"),
        proposal("1", field="Phone"),
        proposal("2", field="", kind=MATCH),
        proposal("3", field="", kind=JOB_CHANGE),
    )
    desk.run("b", proposal("1"), sync="others")

    def listed(**filters: object) -> list[tuple[str, str, str]]:
        return [(r.sync, r.record_id, r.field) for r in desk.reviews.listed(**filters)]  # type: ignore[arg-type]

    everything = listed()
    assert everything == [
        ("contacts", "1", "Title"),
        ("contacts", "1", "Phone"),
        ("contacts", "2", ""),
        ("contacts", "3", ""),
        ("others", "1", "Title"),
    ]
    assert listed(sync="others") == [everything[4]]
    assert (desk.reviews.count(), desk.reviews.count("others"), desk.reviews.count("nothing")) == (5, 1, 0)
    assert listed(kind=MATCH) == [everything[2]]
    assert listed(kind=JOB_CHANGE) == [everything[3]]
    assert listed(field="Phone") == [everything[1]]
    assert listed(record_id="1", sync="contacts") == everything[:2]
    assert listed(limit=2) == everything[:2]
    assert listed(sync="nothing") == []
    numbers = [each.id for each in desk.reviews.listed()]
    assert listed(ids=numbers[1:3]) == everything[1:3]
    desk.say(REFUSED, numbers[0])
    assert listed(ids=numbers[:2]) == [everything[1]]


def test_more_than_one_question_holds_are_answered_in_several(desk: Desk) -> None:
    desk.run("a", *(proposal(str(number)) for number in range(1_201)))
    numbers = [each.id for each in desk.reviews.listed()]

    assert len(desk.reviews.get(numbers)) == 1_201
    assert desk.say(REFUSED, *numbers) == 1_201
    assert len(desk.reviews.said("contacts", "Contact", [str(number) for number in range(1_201)])) == 1_201


def test_a_purge_takes_what_nobody_answered_in_time_and_keeps_every_answer(desk: Desk) -> None:
    desk.run("a", proposal("old"), proposal("refused"), proposal("accepted"))
    numbers = {each.record_id: each.id for each in desk.reviews.listed()}
    desk.say(REFUSED, numbers["refused"])
    desk.say(ACCEPTED, numbers["accepted"])
    limit = desk.at
    desk.run("b", proposal("young"))

    desk.purge(limit)

    assert [each.record_id for each in desk.reviews.listed()] == ["young"]
    assert desk.only(REFUSED).record_id == "refused"
    assert desk.only(ACCEPTED).record_id == "accepted"
    assert list(desk.runs.records("a")) == []


def test_what_was_purged_is_proposed_again_by_the_next_run(desk: Desk) -> None:
    desk.run("a", proposal())
    desk.purge(desk.at)
    desk.run("b", proposal())

    assert desk.only().run_id == "b"


def test_a_proposal_is_kept_as_a_digest(desk: Desk) -> None:
    desk.run("a", proposal(what="ada@lovelace.example"))

    assert len(desk.only().proposal) == 16
    assert b"ada" not in desk.only().proposal


def test_two_workers_may_propose_for_one_company_at_the_same_moment(store: Store) -> None:
    """Each knows of nobody else until it commits."""
    if store.dialect == "sqlite":
        pytest.skip("writers take turns")
    list_ = Reviews(store, a_vault(store))
    Runs(store).open(a_run(id="r", started_at=NOON), owner="here:1")
    one, other = (
        Proposal(object_type="Account", record_id=each, field="Name", kind=FIELD, what="Acme", reason="differs")
        for each in ("1", "2")
    )

    def proposed(*proposals: Proposal) -> None:
        put = list_.proposing(proposals, run_id="r", sync="contacts", crm="salesforce", now=NOON)
        assert put is not None
        with store.write() as connection:
            put(connection)
            first.set()
            begun.wait(timeout=0.3)

    first, begun = Event(), Event()
    with ThreadPoolExecutor(2) as pool:
        ahead = pool.submit(proposed, one, other)
        assert first.wait(timeout=5)
        behind = pool.submit(proposed, other, one)
        ahead.result()
        behind.result()
    assert [review.record_id for review in list_.listed()] == ["1", "2"]
