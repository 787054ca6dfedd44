"""Slots become runs: each once, whoever looks, and none beside itself."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from datetime import UTC, timedelta
from itertools import pairwise

import pytest

from crm_sync.domain.runs import Asked, RunKind, RunStatus
from crm_sync.errors import BusyError, StoreError
from crm_sync.pipeline.recover import recover
from crm_sync.pipeline.run import run_sync
from crm_sync.pipeline.scheduling import queue_by_hand, queue_slot
from crm_sync.store.exclusive import Exclusive
from tests.journeys.unattended.conftest import OpenUnattended, UnattendedOffice, scheduler_of

HOUR = timedelta(hours=1)


def looked(office: UnattendedOffice) -> None:
    """One look of a scheduler that begins now."""
    scheduler = scheduler_of(office.app)
    scheduler.look()
    scheduler.stand_down()


def test_a_slot_is_queued_run_and_not_queued_again(open_unattended: OpenUnattended) -> None:
    office = open_unattended()
    office.schedule("{every: 1h}")
    looked(office)
    assert office.runs == [], "it counts from when it was applied"

    office.later(HOUR)
    looked(office)
    looked(office)
    (queued,) = office.runs
    assert (queued.status, queued.trigger) == (RunStatus.QUEUED, "schedule")
    assert queued.slot is not None
    assert timedelta(0) <= office.app.clock.now() - queued.slot < timedelta(minutes=1)

    (run,) = office.work()
    looked(office)

    assert (run.id, run.status) == (queued.id, RunStatus.COMPLETED)
    assert run.counts.updated > 30
    assert run.started_at >= run.queued_at  # type: ignore[operator]
    assert [each.id for each in office.runs] == [run.id]
    office.books_balance()


def test_slots_that_were_missed_are_run_once(open_unattended: OpenUnattended) -> None:
    office = open_unattended()
    office.schedule("{every: 1h}")
    looked(office)

    office.later(50 * HOUR)
    looked(office)

    (queued,) = office.runs
    assert queued.slot is not None
    assert office.app.clock.now() - queued.slot < HOUR, "the last one stands for all of them"


def test_a_time_of_day_is_that_of_the_configuration(open_unattended: OpenUnattended) -> None:
    office = open_unattended()
    office.text = office.text.replace("timezone: UTC", "timezone: America/New_York")
    assert "New_York" in office.text
    office.schedule("{days: daily, at: '02:30'}")
    looked(office)

    office.later(timedelta(days=1))
    looked(office)

    (queued,) = office.runs
    assert queued.slot is not None
    assert queued.slot.astimezone(UTC).strftime("%H:%M") in ("06:30", "07:30")


def test_of_many_schedulers_one_queues(open_unattended: OpenUnattended) -> None:
    """Even where the lock fails: twenty threads of five processes that all believe to be the one."""
    office = open_unattended()
    office.schedule("{every: 1h}")
    looked(office)
    office.later(HOUR)

    with ExitStack() as stack:
        apps = [stack.enter_context(office.another()) for _ in range(5)]
        services = [app.services() for app in apps]
        with ThreadPoolExecutor(20) as pool:
            queued = list(pool.map(lambda n: queue_slot("contacts", services[n % 5]), range(40)))

    assert len([run for run in queued if run is not None]) == 1
    assert len(office.runs) == 1


def test_one_scheduler_has_the_lock_and_another_follows_it(open_unattended: OpenUnattended) -> None:
    office = open_unattended()
    with office.another() as first, office.another() as second:
        mine, other = Exclusive(first.store, "scheduler"), Exclusive(second.store, "scheduler")
        assert mine.take()
        assert not other.take()
        mine.release()
        assert other.take()
        other.release()


def test_a_paused_sync_rests_and_goes_on_with_its_next_slot(open_unattended: OpenUnattended) -> None:
    office = open_unattended()
    office.schedule("{every: 1h}")
    looked(office)
    assert office.app.schedules.pause("contacts", by="somebody", now=office.app.clock.now())

    office.later(5 * HOUR)
    looked(office)
    assert office.runs == []

    assert office.app.schedules.resume("contacts", now=office.app.clock.now())
    looked(office)
    assert office.runs == [], "what came while it rested is not made up for"
    office.later(HOUR)
    looked(office)
    assert len(office.runs) == 1


def test_a_new_configuration_is_followed_without_a_restart(open_unattended: OpenUnattended) -> None:
    office = open_unattended()
    office.schedule("{every: 10h}")
    scheduler = scheduler_of(office.app)
    try:
        scheduler.look()
        office.schedule("{every: 1h}")
        scheduler.look()
        office.later(HOUR)
        scheduler.look()
        assert len(office.runs) == 0, "its job queues it, a few seconds are left to it"
        office.later(timedelta(seconds=10))
        scheduler.look()
        assert len(office.runs) == 1

        office.schedule("")
        scheduler.look()
        office.later(5 * HOUR)
        scheduler.look()
        assert len(office.runs) == 1
    finally:
        scheduler.stand_down()


def test_apscheduler_wakes_for_a_slot(open_unattended: OpenUnattended) -> None:
    """On the real clock: the job, not the look, queues it."""
    office = open_unattended()
    office.schedule("{every: 1m}")
    office.app.schedules.agree({"contacts": "every 1m"}, now=office.app.clock.now() - timedelta(seconds=57))
    scheduler = scheduler_of(office.app)
    try:
        scheduler.look()
        assert office.runs == []
        office.until(lambda: office.runs, seconds=6)
    finally:
        scheduler.stand_down()
    (run,) = office.runs
    assert run.queued_at is not None
    assert run.slot is not None
    assert run.queued_at - run.slot < timedelta(seconds=1.5)


def test_a_slot_that_comes_while_the_sync_runs_is_run_when_it_has_ended(open_unattended: OpenUnattended) -> None:
    office = open_unattended(latency_ms=300)
    office.schedule("{every: 1h}")
    looked(office)
    office.later(HOUR)
    looked(office)
    with office.another() as app:
        walking = threading.Thread(target=lambda: office.work(app))
        walking.start()
        office.until(lambda: any(run.status is RunStatus.RUNNING for run in office.runs))
        office.later(HOUR)
        looked(office)
        assert [run.status for run in office.runs] == [RunStatus.RUNNING, RunStatus.QUEUED]
        assert office.app.queue.take(owner="x", config_version=1, now=office.app.clock.now()) is None
        office.later(HOUR)
        looked(office)
        assert len(office.runs) == 2, "one that waits will do for the next slot too"
        walking.join()

    assert [run.status for run in office.runs] == [RunStatus.COMPLETED, RunStatus.COMPLETED]
    assert office.runs[1].credits == 0
    assert office.runs[1].started_at >= office.runs[0].finished_at  # type: ignore[operator]
    office.books_balance()


def test_two_that_begin_a_sync_at_the_same_moment_do_not_both(open_unattended: OpenUnattended) -> None:
    office = open_unattended(latency_ms=50)
    outcomes: list[object] = []
    gate = threading.Barrier(4)

    with ExitStack() as stack:
        apps = [stack.enter_context(office.another()) for _ in range(4)]

        def begin(n: int) -> None:
            services = apps[n].services()
            services.crm("salesforce").describe("Contact")
            gate.wait()
            try:
                sync = services.config.syncs["contacts"]
                outcomes.append(run_sync(sync, services, kind=RunKind.RUN, trigger="test").status)
            except BusyError as error:
                outcomes.append(error)

        with ThreadPoolExecutor(4) as pool:
            list(pool.map(begin, range(4)))

    starts = sorted((run.started_at, run.finished_at) for run in office.runs)
    assert RunStatus.COMPLETED in outcomes
    for (_, first_end), (second_start, _) in pairwise(starts):
        assert first_end is not None
        assert second_start >= first_end, "they ran beside each other"
    office.books_balance()


# --- by hand ------------------------------------------------------------------------------------------------------


def test_what_somebody_queues_is_run_as_asked(open_unattended: OpenUnattended) -> None:
    office = open_unattended(tidy=True)
    services = office.app.services()
    queue_by_hand(services.config.syncs["contacts"], services, Asked(limit=7))

    (run,) = office.work()

    assert (run.trigger, run.counts.selected, run.status) == ("queue", 7, RunStatus.COMPLETED)
    assert office.work() == []


def test_a_queued_run_can_be_cancelled_before_it_begins(open_unattended: OpenUnattended) -> None:
    office = open_unattended()
    services = office.app.services()
    queued = queue_by_hand(services.config.syncs["contacts"], services, Asked())

    assert office.app.runs.ask_to_cancel(queued.id, now=office.app.clock.now())

    assert office.work() == []
    (run,) = office.runs
    assert (run.status, run.reason) == (RunStatus.CANCELLED, "cancelled before it began")


@pytest.mark.parametrize("gone", ["sync", "credentials"])
def test_a_queued_run_that_cannot_be_run_says_why(
    open_unattended: OpenUnattended, gone: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    office = open_unattended()
    services = office.app.services()
    queue_by_hand(services.config.syncs["leads"], services, Asked())
    if gone == "sync":
        head, _, rest = office.text.partition("  leads:\n")
        office.apply(head + "  others:\n" + rest)
        expected = "the configuration has no sync leads any more"
    else:
        monkeypatch.setenv("CRM_SYNC_SALESFORCE_CONSUMER_KEY", "")
        expected = "CRM_SYNC_SALESFORCE_CONSUMER_KEY"
    office.restart()

    (run,) = office.work()

    assert run.status is RunStatus.FAILED
    assert expected in run.reason
    assert office.work() == []


def test_a_queued_run_whose_end_could_not_be_written_down_does_not_stay_running(
    open_unattended: OpenUnattended, monkeypatch: pytest.MonkeyPatch
) -> None:
    office = open_unattended()
    services = office.app.services()
    queue_by_hand(services.config.syncs["leads"], services, Asked())
    head, _, rest = office.text.partition("  leads:\n")
    office.apply(head + "  others:\n" + rest)

    def refuse(*_: object, **__: object) -> None:
        raise StoreError("the disk is full")

    with monkeypatch.context() as patched:
        patched.setattr(office.app.runs, "save", refuse)
        with pytest.raises(StoreError):
            office.work()
    assert office.runs[0].status is RunStatus.RUNNING

    recover(office.app.services(), "salesforce")

    assert office.runs[0].status is RunStatus.FAILED
