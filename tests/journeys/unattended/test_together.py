"""Processes on one database that do not belong together: each says so at once, and those that do go on."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from crm_sync.domain.runs import Asked, RunStatus
from crm_sync.pipeline.scheduling import queue_by_hand
from tests.conftest import database_of
from tests.journeys.unattended.conftest import OpenUnattended, ended, process
from tests.lines import a_pooler, through
from tests.webhooks.servers import Installation, post, served

OTHER_KEY = "another key that is long enough for it"


def logged(folder: Path, role: str = "worker") -> str:
    return "".join(file.read_text() for file in sorted(folder.glob(f"{role}-*.log")))


def until(holds: Callable[[], object], *, seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.parametrize("role", ["serve", "worker"])
def test_a_process_with_another_key_ends_at_once_and_names_the_key(
    open_unattended: OpenUnattended, role: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    office = open_unattended(contacts=20)
    office.app.vault  # noqa: B018 - sealed from now on
    monkeypatch.setenv("CRM_SYNC_SECRET_KEY", OTHER_KEY)

    with process(role, *(["--port", "0"] if role == "serve" else []), folder=tmp_path) as begun:
        assert begun.wait(timeout=30) == 2

    assert "CRM_SYNC_SECRET_KEY has" in logged(tmp_path, role)
    assert "put that key back into the list" in " ".join(logged(tmp_path, role).split())


def test_workers_with_other_settings_say_so_once_and_work_on(
    open_unattended: OpenUnattended, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    office = open_unattended(contacts=20, tidy=True)
    with process("worker", folder=tmp_path):
        office.until(lambda: office.app.processes.alive(now=office.app.clock.now()))
        monkeypatch.setenv("CRM_SYNC_PUBLIC_URL", "https://elsewhere.example.com")
        with process("worker", folder=tmp_path):
            office.until(lambda: len(office.app.processes.alive(now=office.app.clock.now())) == 2)
            office.until(lambda: "differs" in logged(tmp_path))
            services = office.app.services()
            queue_by_hand(services.config.syncs["contacts"], services, Asked())
            office.until(lambda: office.runs and ended(office.runs[0]), seconds=60)
            said = logged(tmp_path)

    assert office.runs[0].status is RunStatus.COMPLETED
    assert said.count("works on the same database and differs: it has another CRM_SYNC_PUBLIC_URL. Give all") == 1
    assert "elsewhere" not in said


def test_a_worker_whose_database_was_migrated_under_it_takes_nothing_more(
    open_unattended: OpenUnattended, tmp_path: Path
) -> None:
    office = open_unattended(contacts=20, tidy=True)
    services = office.app.services()
    with process("worker", folder=tmp_path) as worker:
        office.until(lambda: office.app.processes.alive(now=office.app.clock.now()))
        with office.app.store.write() as connection:
            connection.exec_driver_sql("update alembic_version set version_num = '9999'")
        office.until(lambda: "queued runs wait: The database has schema 9999" in logged(tmp_path))
        queue_by_hand(services.config.syncs["contacts"], services, Asked())
        time.sleep(3)
        assert worker.poll() is None

    assert [run.status for run in office.runs] == [RunStatus.QUEUED]
    assert logged(tmp_path).count("queued runs wait") == 1
    assert office.charged == {}


@pytest.mark.postgres
def test_a_slow_database_is_told_once_and_a_run_goes_on(open_slow: OpenUnattended, tmp_path: Path) -> None:
    office = open_slow(contacts=20, tidy=True)
    services = office.app.services()
    queue_by_hand(services.config.syncs["contacts"], services, Asked())
    with process("worker", folder=tmp_path):
        office.until(lambda: office.runs and ended(office.runs[0]), seconds=90)

    assert office.runs[0].status is RunStatus.COMPLETED, office.runs[0].reason
    assert logged(tmp_path).count("the database answers slowly: ") == 1


@pytest.mark.postgres
def test_behind_a_pooler_that_lends_out_sessions_nothing_begins_to_work(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with (
        database_of("postgresql", request, tmp_path) as url,
        Installation(tmp_path, url),
        a_pooler(url) as pooler,
    ):
        monkeypatch.setenv("CRM_SYNC_DATABASE_URL", through(url, pooler.port))
        with process("worker", folder=tmp_path) as begun:
            assert begun.wait(timeout=30) == 1

    assert "let PgBouncer pool by the session (pool_mode = session)" in " ".join(logged(tmp_path).split())


def test_web_processes_are_seen_with_what_they_read(tmp_path: Path) -> None:
    with Installation(tmp_path, f"sqlite:///{tmp_path}/crm_sync.db") as installation:
        app = installation.app

        def alive() -> list[str]:
            return [each.role for each in app.processes.alive(now=app.clock.now())]

        with served("gunicorn", tmp_path) as server:
            until(lambda: alive() == ["web", "web"])
            assert {name for each in app.processes.alive(now=app.clock.now()) for name in each.agree} == {
                "CRM_SYNC_SECRET_KEY"
            }
            server.stop()
        assert alive() == []


def test_a_web_process_with_another_key_takes_no_delivery_and_says_why_once(tmp_path: Path) -> None:
    with Installation(tmp_path, f"sqlite:///{tmp_path}/crm_sync.db") as installation:
        address = installation.address()
        other = {"CRM_SYNC_SECRET_KEY": OTHER_KEY}
        with served("gunicorn", tmp_path, settings=other, more=["--workers", "1"]) as server:
            statuses = [post(server.port, address, b"{}") for _ in range(5)]
        said = server.log.read_text()
        with served("gunicorn", tmp_path) as server:
            taken = post(server.port, address, b"{}")

    assert statuses == [503] * 5, "it will come again, unlike what is answered with 404"
    assert taken == 200
    assert said.count("a delivery was not taken: ") == 1
    assert said.count("does not show that it is at work: ") == 1
    assert said.count("put that key back into the list") == 2
