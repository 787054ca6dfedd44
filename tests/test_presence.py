"""A process that shows itself: what it says of the others and of the database, and how often."""

from __future__ import annotations

import logging
import threading
from dataclasses import replace
from datetime import timedelta

import pytest

from crm_sync.domain.processes import Process
from crm_sync.errors import StoreError
from crm_sync.presence import Presence
from crm_sync.store.engine import Store
from crm_sync.store.processes import Processes
from crm_sync.store.speed import Speed
from tests.factories import NOON
from tests.store.test_processes import a_process

FAST, SLOW = Speed(round_trip_s=0.001, write_s=0.004), Speed(round_trip_s=0.05, write_s=0.3)


class Desk:
    """One process and what it meets; its clock is `now`."""

    def __init__(self, store: Store) -> None:
        self.processes = Processes(store)
        self.me = a_process("me", pid=1)
        self.speed = FAST
        self.error: Exception | None = None
        self.presence = Presence(
            self._me,
            lambda: self.processes,
            measure=lambda: self.speed,
        )

    def _me(self) -> Process:
        if self.error is not None:
            raise self.error
        return self.me

    def beat(self, times: int = 1) -> None:
        for _ in range(times):
            self.presence.once()
            self.me = replace(self.me, seen_at=self.me.seen_at + timedelta(seconds=30))


@pytest.fixture
def desk(sqlite_store: Store) -> Desk:
    return Desk(sqlite_store)


@pytest.fixture(autouse=True)
def _all_lines(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)


def test_it_is_seen_while_it_works_and_gone_when_it_ends(desk: Desk) -> None:
    desk.beat()
    assert [each.id for each in desk.processes.alive(now=NOON)] == ["me"]

    desk.presence.leave()
    assert desk.processes.alive(now=NOON) == []


def test_another_that_differs_is_told_once_and_again_when_it_is_another(
    desk: Desk, caplog: pytest.LogCaptureFixture
) -> None:
    other = a_process("other", version="0.2.0", seen_at=NOON + timedelta(minutes=1))
    desk.processes.seen(other)
    desk.beat(3)

    (told,) = caplog.messages
    assert told.startswith(
        "worker on one.example.com (process 7) works on the same database and differs: it is crm-sync"
    )
    assert told.endswith(
        "0.1.0. Give all processes of one database the same version and the same settings, and restart them"
    )
    desk.processes.gone("other")
    desk.beat()
    desk.processes.seen(replace(other, pid=8, seen_at=desk.me.seen_at))
    desk.beat(2)
    assert len(caplog.messages) == 2
    assert "(process 8)" in caplog.messages[1]


def test_a_slow_database_is_told_when_it_becomes_so_and_when_it_is_well(
    desk: Desk, caplog: pytest.LogCaptureFixture
) -> None:
    desk.beat()
    desk.speed = SLOW
    desk.beat(3)
    desk.speed = Speed(round_trip_s=0.018, write_s=0.1)  # near the limit
    desk.beat()
    desk.speed = FAST
    desk.beat(2)

    began, ended = caplog.messages
    assert began.startswith(
        "the database answers slowly: 50 ms for a round trip, 300 ms for a small write (limits: 20 ms"
    )
    assert ended == "the database answers well again: 1.0 ms for a round trip, 4.0 ms for a small write"
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]


def test_what_keeps_it_from_showing_itself_is_told_once_and_ends_nothing(
    desk: Desk, caplog: pytest.LogCaptureFixture
) -> None:
    desk.error = StoreError("the database is away")
    stop = threading.Event()
    thread = threading.Thread(target=desk.presence.run, args=(stop,), kwargs={"every_s": 0.01})
    thread.start()
    while not caplog.messages:
        stop.wait(0.01)
    stop.wait(0.1)
    desk.error = None
    while not desk.processes.alive(now=NOON):
        stop.wait(0.01)
    stop.set()
    thread.join(timeout=10)

    assert caplog.messages == ["this process does not show that it is at work: the database is away"]
    assert desk.processes.alive(now=NOON) == [], "it said that it ended"
