"""What the store promises workers that share a run."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta

import pytest
from sqlalchemy import event

from crm_sync.domain.changes import FieldDecision, FieldOutcome
from crm_sync.domain.runs import Counts, RunStatus
from crm_sync.errors import BusyError, LostRunError
from crm_sync.store.engine import Store
from crm_sync.store.runs import WRITING, RecordState, RunRecord, Runs, one_of
from crm_sync.store.shares import Giving, Share, Shares, Standing, Tally, merged
from tests.factories import NOON, a_decision, a_run

RUN = a_run(status=RunStatus.RUNNING)
LATER = NOON + timedelta(minutes=1)


@pytest.fixture
def runs(store: Store) -> Runs:
    made = Runs(store)
    made.open(RUN, owner="main:1:x")
    return made


@pytest.fixture
def shares(store: Store, runs: Runs) -> Shares:
    made = Shares(store, runs)
    made.begin(RUN.id, now=NOON)
    return made


def joined(shares: Shares, owner: str = "worker:1:x") -> Share:
    share = shares.join(RUN.id, owner=owner, now=NOON)
    assert share is not None
    return share


def a_record(record_id: str, outcome: str = "Updated", *decisions: FieldDecision, reason: str = "") -> RunRecord:
    return RunRecord(
        object_type="Contact", record_id=record_id, outcome=outcome, reason=reason, decisions=tuple(decisions)
    )


def settled(runs: Runs, share: Share, *record_ids: str, reached: bool = True) -> None:
    states = [
        RecordState(object_type="Contact", record_id=each, outcome="Updated", seen=b"0" * 16, attempted_at=NOON)
        for each in record_ids
        if reached
    ]
    outcome = "Updated" if reached else "Skipped"
    runs.settle(
        RUN.id,
        sync=RUN.sync,
        confirmed=(),
        amended=(),
        others=[a_record(each, outcome) for each in record_ids],
        states=states,
        now=NOON,
        share=share.number,
    )


def taken(shares: Shares, share: Share, **more: object) -> tuple[str, ...] | None:
    chunk = shares.take(share, now=LATER)
    return shares.undone(RUN, chunk.record_ids) if chunk is not None else None


def test_each_chunk_is_taken_by_one_worker(shares: Shares) -> None:
    for number in range(12):
        shares.add(RUN.id, [f"{number}"], now=NOON)
    found: list[str] = []
    parts = [joined(shares, f"worker:{n}:x") for n in range(3)]

    def work(share: Share) -> None:
        while (chunk := shares.take(share, now=NOON)) is not None:
            found.extend(chunk.record_ids)

    threads = [threading.Thread(target=work, args=(share,)) for share in parts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(found) == sorted(str(number) for number in range(12))
    assert shares.waiting(RUN.id) == 0
    assert shares.join(RUN.id, owner="late:1:x", now=NOON) is None, "there is nothing to do"


def test_what_a_stopped_worker_has_not_done_is_open_again(shares: Shares, runs: Runs) -> None:
    shares.add(RUN.id, ["1", "2", "3"], now=NOON)
    first = joined(shares)
    assert taken(shares, first) == ("1", "2", "3")
    settled(runs, first, "2")
    settled(runs, first, "3", reached=False)
    shares.end(first, RUN, tally=Tally(stopped="stopped"), giving=Giving.UNFINISHED, now=NOON)
    assert taken(shares, joined(shares)) == ("1", "3")


def test_what_was_open_only_since_others_asked_for_it_is_tried_a_little_later(shares: Shares, runs: Runs) -> None:
    shares.add(RUN.id, ["1", "2", "left out"], now=NOON)
    first = joined(shares)
    assert shares.take(first, now=NOON) is not None
    settled(runs, first, "1")
    settled(runs, first, "2", reached=False)
    shares.end(first, RUN, tally=Tally(), giving=Giving.HELD, now=NOON)
    assert shares.join(RUN.id, owner="worker:2:x", now=NOON) is None
    second = shares.join(RUN.id, owner="worker:2:x", now=LATER)
    assert second is not None
    chunk = shares.take(second, now=LATER)
    assert chunk is not None
    assert chunk.attempt == 1
    settled(runs, second, "2")
    shares.end(second, RUN, tally=Tally(), giving=Giving.HELD, now=LATER)
    assert shares.waiting(RUN.id) == 0, "who was left out has no row, and is not due any more"


def test_a_chunk_that_nobody_can_do_is_left_to_the_next_run(shares: Shares) -> None:
    shares.add(RUN.id, ["1"], now=NOON)
    for number in range(3):
        share = joined(shares, f"worker:{number}:x")
        assert shares.take(share, now=NOON) is not None
        dead = shares.take_over(share, owner="another:1:x", now=NOON)
        assert dead is not None
        shares.end(dead, RUN, tally=None, giving=Giving.UNFINISHED, now=NOON)
    assert shares.waiting(RUN.id) == 0


def test_a_deploy_does_not_count_as_a_try(shares: Shares) -> None:
    shares.add(RUN.id, ["1"], now=NOON)
    for _ in range(5):
        share = joined(shares)
        assert shares.take(share, now=NOON) is not None
        shares.end(share, RUN, tally=Tally(stopped="stopped"), giving=Giving.UNFINISHED, now=NOON)
    assert shares.waiting(RUN.id) == 1


def test_a_worker_that_was_taken_for_dead_writes_nothing_down(store: Store, shares: Shares, runs: Runs) -> None:
    shares.add(RUN.id, ["1", "2"], now=NOON)
    asleep = joined(shares)
    assert shares.take(asleep, now=NOON) is not None
    elsewhere = Shares(store, Runs(store))
    assert elsewhere.take_over(asleep, owner="another:1:x", now=NOON) is not None
    assert elsewhere.take_over(asleep, owner="third:1:x", now=NOON) is None, "somebody has it"

    with pytest.raises(LostRunError):
        runs.intend(RUN.id, [a_record("1", WRITING)], now=NOON, share=asleep.number)
    with pytest.raises(LostRunError):
        settled(runs, asleep, "1")
    with pytest.raises(LostRunError):
        shares.take(asleep, now=NOON)
    with pytest.raises(LostRunError):
        shares.beat(asleep, now=NOON)
    with pytest.raises(LostRunError):
        shares.end(asleep, RUN, tally=Tally(), giving=Giving.HELD, now=NOON)
    assert list(runs.records(RUN.id)) == []
    runs.intend(RUN.id, [a_record("3", WRITING)], now=NOON)  # the run itself is not lost


def test_one_who_beats_is_not_taken_over(shares: Shares) -> None:
    shares.add(RUN.id, ["1"], now=NOON)
    share = joined(shares)
    shares.beat(share, now=LATER)
    assert shares.take_over(share, owner="another:1:x", now=LATER) is None


def test_nobody_joins_what_is_stopping_or_has_ended(shares: Shares) -> None:
    shares.add(RUN.id, ["1"], now=NOON)
    assert [run.id for run, _, _ in shares.to_join(config_version=None)] == [RUN.id]
    assert shares.to_join(config_version=7) == [], "that is another configuration's"
    shares.stand(RUN.id, Standing.STOPPING)
    assert shares.to_join(config_version=None) == []
    assert shares.join(RUN.id, owner="late:1:x", now=NOON) is None
    shares.close(RUN.id)
    assert shares.standing(RUN.id) is Standing.STOPPING
    assert shares.join(RUN.id, owner="late:1:x", now=NOON) is None


def test_a_run_is_closed_when_nobody_is_at_it(shares: Shares, runs: Runs) -> None:
    shares.add(RUN.id, ["1", "2"], now=NOON)
    first = joined(shares)
    assert taken(shares, first) == ("1", "2")
    settled(runs, first, "1")
    settled(runs, first, "2", reached=False)
    with pytest.raises(BusyError):
        shares.close(RUN.id)
    shares.end(first, RUN, tally=Tally(), giving=Giving.HELD, now=NOON)
    second = shares.join(RUN.id, owner="worker:2:x", now=LATER)
    assert second is not None
    assert taken(shares, second) == ("2",)
    settled(runs, second, "2")
    assert runs.record(RUN.id, "Contact", "2") == a_record("2")
    shares.end(second, RUN, tally=Tally(), giving=Giving.HELD, now=LATER)
    assert shares.cut(RUN.id) == 2
    for _ in range(2):
        shares.close(RUN.id)
        assert list(runs.records(RUN.id)) == [a_record("1"), a_record("2")]
        assert runs.reasons(RUN.id) == [("Contact", "Updated", "", 2)]


def test_tallies_are_added_up(shares: Shares) -> None:
    shares.add(RUN.id, ["1", "2"], now=NOON)
    first, second = joined(shares), joined(shares, "worker:2:x")
    shares.beat(first, now=NOON, tally=Tally(counts=Counts(selected=2, updated=2), conflicts=1, calls={"a": 2}))
    shares.beat(second, now=NOON, tally=Tally(counts=Counts(selected=1, skipped=1), unwritten={"x": 1}, calls={"a": 1}))
    told = merged(shares.tallies(RUN.id))
    assert told.counts == Counts(selected=3, updated=2, skipped=1)
    assert (told.conflicts, told.unwritten, told.calls) == (1, {"x": 1}, {"a": 3})


_FIRST = a_decision(old=None, new="VP Sales")
_AGAIN = a_decision(old="VP Sales", new="CTO")
_KEPT = a_decision(old="VP Sales", new="VP Sales", outcome=FieldOutcome.KEPT, reason="as it should be")
_CITY = a_decision(field="City", old="Rome", new="Oslo")


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        pytest.param(
            [a_record("1", "Skipped", reason="crm-sync was stopped"), a_record("1", "Updated", _FIRST)],
            a_record("1", "Updated", _FIRST),
            id="left to another, who wrote it",
        ),
        pytest.param(
            [a_record("1", "Updated", _FIRST), a_record("1", "Unchanged", _KEPT)],
            a_record("1", "Updated", _FIRST),
            id="written by one, and found so by another",
        ),
        pytest.param(
            [a_record("1", "Skipped", _FIRST, reason="not confirmed"), a_record("1", "Unchanged", _KEPT)],
            a_record("1", "Updated", _FIRST),
            id="written by one who died before it knew",
        ),
        pytest.param(
            [a_record("1", "Updated", _FIRST), a_record("1", "Updated", _AGAIN, _CITY)],
            a_record("1", "Updated", a_decision(old=None, new="CTO"), _CITY),
            id="written twice: an undo brings back what was there before both",
        ),
        pytest.param(
            [a_record("1", "Updated", _CITY), a_record("1", "Updated", _FIRST)],
            a_record("1", "Updated", _FIRST, _CITY),
            id="one field each",
        ),
        pytest.param(
            [a_record("1", "Skipped", reason="stopped"), a_record("1", "No match", reason="nobody")],
            a_record("1", "No match", reason="nobody"),
            id="nothing written",
        ),
        pytest.param(
            [a_record("1", "No match", reason="nobody"), a_record("1", "Skipped", reason="stopped")],
            a_record("1", "No match", reason="nobody"),
            id="told by one, and left alone by another, whose clock is ahead",
        ),
        pytest.param([a_record("1", "Skipped", _FIRST)], a_record("1", "Skipped", _FIRST), id="one row stays as it is"),
    ],
)
def test_what_several_did_with_one_record_is_told_as_one(rows: list[RunRecord], told: RunRecord) -> None:
    assert one_of(rows) == told


def test_workers_who_come_to_their_end_together_count_what_is_unmapped_together(store: Store, runs: Runs) -> None:
    pairs = [("Industry", f"value {number}") for number in range(2000)]
    one, other = dict.fromkeys(pairs, 1), dict.fromkeys(reversed(pairs), 1)
    with ThreadPoolExecutor(2) as pool:
        for counted in [pool.submit(runs.count_unmapped, RUN.sync, each, now=NOON) for each in (one, other) * 3]:
            counted.result()
    assert {seen for *_, seen in runs.unmapped()} == {6}


def test_who_began_first_may_have_written_last(shares: Shares, runs: Runs) -> None:
    shares.add(RUN.id, ["1"], now=NOON)
    first, second = joined(shares), joined(shares, "worker:2:x")
    for share, decision, now in ((second, _FIRST, NOON), (first, _AGAIN, LATER)):
        runs.settle(
            RUN.id, sync=RUN.sync, confirmed=(), amended=(), others=[a_record("1", "Updated", decision)], states=(),
            now=now, share=share.number,
        )  # fmt: skip
        shares.end(share, RUN, tally=Tally(), giving=Giving.HELD, now=now)
    assert runs.record(RUN.id, "Contact", "1") == a_record("1", "Updated", a_decision(old=None, new="CTO"))
    shares.close(RUN.id)
    assert runs.record(RUN.id, "Contact", "1") == a_record("1", "Updated", a_decision(old=None, new="CTO"))


def test_many_records_are_made_one_in_short_commits(
    shares: Shares, runs: Runs, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One of 300,000 records held the run's row for ten seconds: it could not show that it was alive."""
    monkeypatch.setattr("crm_sync.store.runs._MADE_ONE_AT_ONCE", 2)
    shares.add(RUN.id, ["1"], now=NOON)
    first, second = joined(shares), joined(shares, "worker:2:x")
    told = {"Account": "3", "Contact": "12345"}
    for share, decision in ((first, _FIRST), (second, _AGAIN)):
        rows = [
            replace(a_record(record_id, "Updated", decision), object_type=object_type)
            for object_type, ids in told.items()
            for record_id in ids
            if share is first or record_id in "345"
        ]
        runs.settle(
            RUN.id, sync=RUN.sync, confirmed=(), amended=(), others=rows, states=(), now=NOON, share=share.number
        )
        shares.end(share, RUN, tally=Tally(), giving=Giving.HELD, now=NOON)
    commits = []
    event.listen(store.engine, "commit", commits.append)
    runs.make_one(RUN.id)
    assert len(commits) >= 4
    made = [(each.object_type, each.record_id, each.decisions[0].new) for each in runs.records(RUN.id)]
    assert sorted(made) == [
        ("Account", "3", "CTO"),
        ("Contact", "1", "VP Sales"),
        ("Contact", "2", "VP Sales"),
        *(("Contact", each, "CTO") for each in "345"),
    ]


def test_a_clock_that_was_set_back_holds_up_no_run(shares: Shares, runs: Runs) -> None:
    shares.add(RUN.id, ["1"], now=LATER)
    first = joined(shares)
    assert shares.take(first, now=NOON) is not None
    settled(runs, first, "1", reached=False)
    shares.end(first, RUN, tally=Tally(), giving=Giving.HELD, now=LATER)
    assert shares.take(joined(shares), now=NOON) is not None
