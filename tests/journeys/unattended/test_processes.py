"""Workers that are stopped, killed or taken for dead: their runs go on elsewhere, and nobody is paid for twice."""

from __future__ import annotations

import signal
import threading
import time
from collections import Counter
from datetime import timedelta
from pathlib import Path

import pytest

from crm_sync.domain.runs import Asked, RunStatus, SyncRun
from crm_sync.errors import LostRunError
from crm_sync.pipeline.recover import recover
from crm_sync.workers import RunWorker
from tests.journeys.unattended.conftest import OpenUnattended, UnattendedOffice, ended, process, queued


def everybody_is_filled(office: UnattendedOffice, contacts: int) -> bool:
    return all(office.value(index, "Title") for index in range(contacts))


def test_a_worker_that_is_stopped_leaves_the_rest_to_the_next_one(
    open_unattended: OpenUnattended, tmp_path: Path
) -> None:
    office = open_unattended(contacts=200, tidy=True, latency_ms=400)
    first = queued(office)
    with process("worker", folder=tmp_path) as worker:
        office.until(lambda: sum(office.charged.values()) > 20)
        worker.send_signal(signal.SIGTERM)
        begun = time.monotonic()
        assert worker.wait(timeout=30) == 0
        assert time.monotonic() - begun < 15

    stopped, waiting = office.runs
    assert (stopped.id, stopped.status) == (first, RunStatus.CANCELLED)
    assert stopped.reason == f"crm-sync was stopped; {waiting.id} goes on"
    assert (waiting.status, waiting.continues) == (RunStatus.QUEUED, first)
    assert 0 < stopped.counts.updated < 200
    assert office.app.journal.doubts() == []

    with process("worker", folder=tmp_path):
        office.until(lambda: all(ended(run) for run in office.runs))

    assert office.runs[1].status is RunStatus.COMPLETED
    assert everybody_is_filled(office, 200)
    office.books_balance()


def test_what_is_left_of_a_limit_is_left_to_the_next_one(open_unattended: OpenUnattended) -> None:
    office = open_unattended(contacts=200, tidy=True, latency_ms=200)
    queued(office, Asked(limit=120))
    worker, never = RunWorker(office.app.services), threading.Event()
    walking = threading.Thread(target=worker.once, args=(never,))
    walking.start()
    with office.another() as app:
        office.until(lambda: sum(office.charged.values()) > 20)
        worker.pause()
        walking.join(timeout=30)
        stopped, waiting = office.runs
        asked = app.queue.asked(waiting.id)
    assert asked is not None
    assert asked.limit == 120 - stopped.counts.updated > 0
    assert asked.attempt == 1
    office.work()
    assert sum(run.counts.updated for run in office.runs) == 120
    office.books_balance()


def test_a_worker_that_is_killed_is_followed_by_another(open_unattended: OpenUnattended, tmp_path: Path) -> None:
    office = open_unattended(contacts=200, tidy=True, latency_ms=400)
    queued(office)
    with process("worker", folder=tmp_path) as worker:
        office.until(lambda: sum(office.charged.values()) > 20)
        worker.kill()
        worker.wait()
    begun = time.monotonic()

    with process("worker", folder=tmp_path):
        office.until(lambda: len(office.runs) == 2 and all(ended(run) for run in office.runs), seconds=60)

    dead, heir = office.runs
    assert dead.status is RunStatus.FAILED
    assert heir.continues == dead.id
    assert heir.id in dead.reason
    assert heir.status is RunStatus.COMPLETED, heir.reason
    assert heir.queued_at is not None
    assert time.monotonic() - begun < 60
    in_doubt = {key.key for call in office.app.journal.doubts() for key in call.keys}
    assert len(in_doubt) <= 40, "at most the calls that were under way"
    assert Counter(bool(office.value(index, "Title")) for index in range(200))[False] == len(in_doubt)
    office.books_balance()


def test_a_run_that_kills_its_process_each_time_is_given_up(open_unattended: OpenUnattended) -> None:
    office = open_unattended(contacts=20)
    queued(office)
    for _ in range(3):
        with office.another() as app:
            taken = app.queue.take(owner="elsewhere:1:x", config_version=1, now=app.clock.now())
            assert taken is not None
        office.later(timedelta(seconds=46))
        recover(office.app.services(), "salesforce")

    assert [run.status for run in office.runs] == [RunStatus.FAILED] * 3
    assert "goes on" in office.runs[0].reason
    assert "3 times in a row" in office.runs[2].reason
    assert office.work() == []


def test_a_run_that_is_alive_is_left_alone(open_unattended: OpenUnattended) -> None:
    office = open_unattended(contacts=20)
    queued(office)
    office.app.queue.take(owner="elsewhere:1:x", config_version=1, now=office.app.clock.now())

    office.later(timedelta(seconds=40))
    assert recover(office.app.services(), "salesforce") == []
    with office.another() as app:
        app.runs.own(office.runs[0].id, "elsewhere:1:x")
        app.runs.beat(office.runs[0].id, now=app.clock.now())
    office.later(timedelta(seconds=40))
    assert recover(office.app.services(), "salesforce") == []

    office.later(timedelta(seconds=10))
    (closed,) = recover(office.app.services(), "salesforce")
    assert closed.status is RunStatus.FAILED


@pytest.mark.parametrize("slept", [True, False])
def test_a_worker_that_was_taken_for_dead_writes_nothing_more_into_the_books(
    open_unattended: OpenUnattended, slept: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A machine that was asleep for a minute wakes up in the middle of its run."""
    monkeypatch.setattr("crm_sync.pipeline.heartbeat.BEAT_S", 0.1 if slept else 60.0)
    office = open_unattended(contacts=200, tidy=True, latency_ms=300)
    first = queued(office)
    met: list[BaseException] = []

    with office.another() as sleeper:

        def walk() -> None:
            try:
                RunWorker(sleeper.services).once(threading.Event())
            except LostRunError as error:
                met.append(error)

        walking = threading.Thread(target=walk)
        walking.start()
        office.until(lambda: sum(office.charged.values()) > 20)
        monkeypatch.setattr("crm_sync.pipeline.recover._LIFE", "another")  # we are another process from now on
        closed: list[SyncRun] = []
        # Where it beats between our look and our taking it over it is left alone, until the next look.
        office.until(lambda: closed.extend(recover(office.app.services(), "salesforce")) or closed)
        walking.join(timeout=60)
        assert not walking.is_alive()

    assert [str(error).split(" ", 1)[0] for error in met] == [first]
    office.work()
    dead, heir = office.runs
    assert (dead.status, dead.reason) == (RunStatus.FAILED, closed[0].reason)
    assert heir.status is RunStatus.COMPLETED, heir.reason
    office.books_balance()
