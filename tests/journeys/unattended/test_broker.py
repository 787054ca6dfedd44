"""`crm-sync worker`, several times over, with PostgreSQL and a real broker."""

from __future__ import annotations

import signal
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from pika.exceptions import AMQPConnectionError
from sqlalchemy import select

from crm_sync.domain.runs import RunStatus
from crm_sync.errors import ConfigError, TransientError
from crm_sync.store.tables import batches
from crm_sync.workers import Hints
from tests.conftest import database_of
from tests.journeys.unattended.conftest import OpenUnattended, UnattendedOffice, ended, process, queued
from tests.redis import RedisServer, redis_in

pytestmark = pytest.mark.postgres

CONTACTS = 1000


@pytest.fixture
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    with database_of("postgresql", request, tmp_path) as url:
        yield url


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with redis_in(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture
def office(
    redis: RedisServer, open_unattended: OpenUnattended, monkeypatch: pytest.MonkeyPatch
) -> Iterator[UnattendedOffice]:
    monkeypatch.setenv("CRM_SYNC_BROKER_URL", redis.url)
    return open_unattended(contacts=CONTACTS, tidy=True, latency_ms=300)


def sharers(office: UnattendedOffice, run_id: str) -> set[int]:
    with office.app.store.read() as connection:
        return set(connection.execute(select(batches.c.share).where(batches.c.run_id == run_id)).scalars())


def in_doubt(office: UnattendedOffice) -> int:
    return len({key.key for call in office.app.journal.doubts() for key in call.keys})


def all_is_done(office: UnattendedOffice) -> bool:
    return all(ended(run) for run in office.runs)


def test_two_workers_share_a_run(office: UnattendedOffice, tmp_path: Path) -> None:
    with process("worker", folder=tmp_path) as one, process("worker", folder=tmp_path) as two:
        run_id = queued(office)
        office.until(lambda: len(sharers(office, run_id)) >= 2)
        office.until(lambda: all_is_done(office), seconds=60)
        for worker in (one, two):
            worker.send_signal(signal.SIGTERM)
        assert [worker.wait(timeout=20) for worker in (one, two)] == [0, 0]
    (run,) = office.runs
    assert run.status is RunStatus.COMPLETED, run.reason
    assert run.counts.updated == CONTACTS
    assert run.calls["apollo people/bulk_match"] == CONTACTS // 10
    office.books_balance()
    logs = "".join(log.read_text() for log in tmp_path.glob("worker-*.log"))
    assert logs.count("took part in") >= 1
    assert "Traceback" not in logs


@pytest.mark.parametrize("which", ["the one who began it", "the one who helps"])
def test_a_killed_worker_is_made_up_for_by_the_other(office: UnattendedOffice, tmp_path: Path, which: str) -> None:
    with process("worker", folder=tmp_path) as first:
        run_id = queued(office)
        office.until(lambda: len(sharers(office, run_id)) == 1)
        with process("worker", folder=tmp_path) as second:
            office.until(lambda: len(sharers(office, run_id)) == 2)
            killed = first if which == "the one who began it" else second
            killed.kill()
            killed.wait()
            begun = time.monotonic()
            office.until(lambda: all_is_done(office), seconds=60)
            assert time.monotonic() - begun < 60
    last = office.runs[-1]
    assert last.status in (RunStatus.COMPLETED, RunStatus.COMPLETED_WITH_ERRORS), last.reason
    assert len(office.runs) == (2 if killed is first else 1)
    doubtful = in_doubt(office)
    assert doubtful <= 80, "at most the calls that were under way"
    if killed is second:
        told = f"{doubtful} in doubt, since a worker ended while Apollo was being asked" if doubtful else ""
        assert (last.left_out.get("in doubt", 0), last.reason) == (doubtful, told)
    assert sum(bool(office.value(index, "Title")) for index in range(CONTACTS)) == CONTACTS - doubtful
    office.books_balance()


def test_a_broker_that_goes_away_keeps_nobody_from_work(
    office: UnattendedOffice, redis: RedisServer, tmp_path: Path
) -> None:
    with process("worker", folder=tmp_path), process("worker", folder=tmp_path):
        run_id = queued(office)
        office.until(lambda: len(sharers(office, run_id)) >= 1)
        redis.stop()
        try:
            office.until(lambda: all_is_done(office), seconds=60)
            queued(office)  # nobody is told of it
            office.until(lambda: all_is_done(office), seconds=30)
        finally:
            redis.start()
        queued(office)
        office.until(lambda: all_is_done(office), seconds=30)
    assert [run.status for run in office.runs] == [RunStatus.COMPLETED] * 3
    assert office.runs[0].counts.updated == CONTACTS
    office.books_balance()
    logs = [log.read_text() for log in tmp_path.glob("worker-*.log")]
    assert sum(log.count("is away") for log in logs) in (1, 2, 3)
    assert all("Traceback" not in log for log in logs)


def test_an_installation_hears_its_own_hints_alone(redis: RedisServer) -> None:
    """Two of them may use one broker."""
    ours, theirs = Hints(redis.url, name="ours"), Hints(redis.url, name="theirs")
    heard: list[str] = []
    with ours.listening(lambda: heard.append("ours")):
        theirs.give()
        theirs.close()  # sent
        ours.give()
        deadline = time.monotonic() + 20
        while not heard and time.monotonic() < deadline:
            time.sleep(0.05)
        time.sleep(1)
    ours.close()
    assert heard == ["ours"]


def test_what_the_broker_setting_cannot_be(
    redis: RedisServer, tmp_path: Path, open_unattended: OpenUnattended, monkeypatch: pytest.MonkeyPatch
) -> None:
    for url in ("127.0.0.1:6379", "kafka://x", "redis://127.0.0.1:port"):
        with pytest.raises(ConfigError, match="CRM_SYNC_BROKER_URL"):
            Hints(url, name="x")
    Hints(redis.url, name="x").check()
    away = Hints("redis://127.0.0.1:1/0", name="x")
    away.give()  # which nobody hears
    with pytest.raises(TransientError, match="is away"):
        away.check()


@pytest.fixture
def silent() -> Iterator[int]:
    """The port of a broker that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0), backlog=64) as server:
        yield server.getsockname()[1]


@pytest.mark.parametrize("scheme", ["redis", "amqp"])
def test_a_broker_that_never_answers_keeps_no_run_waiting(silent: int, scheme: str) -> None:
    hints = Hints(f"{scheme}://127.0.0.1:{silent}/", name="x")
    begun = time.monotonic()
    for _ in range(1000):
        hints.give()
    assert time.monotonic() - begun < 1


def test_what_was_given_is_sent_before_the_process_ends(redis: RedisServer) -> None:
    heard = threading.Semaphore(0)
    giver, listener = Hints(redis.url, name="last-words"), Hints(redis.url, name="last-words")
    with listener.listening(heard.release):
        for _ in range(3):
            giver.give()
        giver.close()
        for _ in range(3):
            assert heard.acquire(timeout=10)


def test_a_rabbitmq_that_goes_away_is_noticed_on_a_connection_that_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """No server of it is at hand: what holds is what pika says of a connection."""
    is_up, opened = threading.Event(), []

    class Connection:
        def __init__(self, **_: object) -> None:
            if not is_up.is_set():
                raise AMQPConnectionError
            self.is_open, self.of = True, len(opened)
            opened.append(self)

        def process_data_events(self, **_: object) -> None:
            if not is_up.is_set() or not self.is_open:
                self.is_open = False
                raise AMQPConnectionError

        def close(self) -> None:
            self.is_open = False

    monkeypatch.setattr("pika.BlockingConnection", Connection)
    hints = Hints("amqp://127.0.0.1/", name="x")
    is_up.set()
    for _ in range(3):
        hints.check()
    assert len(opened) == 1
    is_up.clear()
    with pytest.raises(TransientError, match="is away"):
        hints.check()
    is_up.set()
    hints.check()
    opened[-1].is_open = False  # nobody spoke for so long that the server has closed it
    hints.check()
    assert len(opened) == 3
