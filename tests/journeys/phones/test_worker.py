"""The process that carries deliveries out: one at a time, through failures, and quick."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text

from crm_sync.bootstrap import App
from crm_sync.domain.runs import RunKind, RunStatus
from crm_sync.errors import TransientError
from crm_sync.store.exclusive import Exclusive
from crm_sync.workers import PhoneWorker
from tests.journeys.phones.conftest import MOBILE, PHONES, OpenPhones, PhoneOffice, office_of


@pytest.fixture
def crm() -> str:
    """What is the worker's own is the same with either."""
    return "salesforce"


@pytest.fixture
def office(crm: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, database_url: str) -> Iterator[PhoneOffice]:
    with office_of(crm, database_url, monkeypatch, tidy=True, contacts=20) as made:
        yield made


@contextmanager
def working(office: PhoneOffice) -> Iterator[threading.Event]:
    """A worker of its own installation, as another process would have it."""
    app, stop = App(), threading.Event()
    worker = PhoneWorker(app.services, Exclusive(app.store, "phones"))
    thread = threading.Thread(target=worker.run, args=(stop,), daemon=True)
    thread.start()
    try:
        yield stop
        assert thread.is_alive() or stop.is_set()
    finally:
        stop.set()
        thread.join(timeout=20)
        app.close()
    assert not thread.is_alive()


def all_applied(office: PhoneOffice) -> bool:
    return office.app.reveals.counts() == {"applied": len(office.targets)}


def test_of_two_workers_one_works_and_the_other_takes_over(office: PhoneOffice) -> None:
    held = Exclusive(office.front.store, "phones")
    assert held.take()
    with working(office), working(office):
        office.walk()
        office.until(lambda: office.told().get("new") == 1)
        time.sleep(1.2)  # both of them have looked
        assert office.told() == {"new": 1}
        held.release()
        office.until(lambda: all_applied(office))

    phones = [run for run in office.app.runs.latest() if run.kind is RunKind.PHONES]
    assert [run.status for run in phones] == [RunStatus.COMPLETED]
    office.books_agree()


@pytest.mark.postgres
def test_a_database_that_is_gone_for_a_while_ends_nothing(
    postgres_url: str, crm: str, request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All its sessions are ended, the one with the lock too, and new ones are refused for a while."""
    from tests.conftest import database_of

    with (
        database_of("postgresql", request, tmp_path) as url,
        office_of(crm, url, monkeypatch, tidy=True, contacts=20) as office,
    ):
        name = re.search(r"/(t[0-9a-f]{32})", url)
        assert name is not None
        admin_url = postgres_url.replace("postgresql://", "postgresql+psycopg://")
        admin = create_engine(admin_url, isolation_level="AUTOCOMMIT")
        with working(office), admin.connect() as connection:
            office.walk()
            office.until(lambda: all_applied(office))
            connection.execute(text(f"alter database {name[1]} allow_connections false"))
            ended = "select pg_terminate_backend(pid) from pg_stat_activity where datname = :name"
            connection.execute(text(ended), {"name": name[1]})
            time.sleep(1.5)
            connection.execute(text(f"alter database {name[1]} allow_connections true"))
            office.restart()
            index = next(each for each in range(20) if each not in office.targets)
            office.edit(index, {"Status__c": "Target"})
            office.walk()
            office.until(lambda: office.value(index, MOBILE[crm]))
        admin.dispose()
        office.books_agree()


def test_a_configuration_that_is_applied_meanwhile_counts_from_the_next_delivery_on(office: PhoneOffice) -> None:
    with working(office):
        office.walk()
        office.until(lambda: all_applied(office))
        office.order_phones(PHONES[office.crm].replace("mobile: MobilePhone", "mobile: AssistantPhone"))
        index = next(each for each in range(20) if each not in office.targets)
        office.edit(index, {"Status__c": "Target"})
        office.walk()
        office.until(lambda: office.value(index, "AssistantPhone"))
    assert not office.value(index, "MobilePhone")


def test_a_crm_that_cannot_be_asked_about_a_broken_off_run_keeps_no_number_back(
    office: PhoneOffice, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor those of the other CRM, nor its own once it answers."""

    def silent(*_: object) -> None:
        raise TransientError("the CRM does not answer", provider="salesforce", operation="job")

    monkeypatch.setattr("crm_sync.pipeline.recover.recover", silent)
    office.walk()
    with working(office):
        office.until(lambda: all_applied(office))


# --- crm-sync serve, as it is started -------------------------------------------------------------------------------


@contextmanager
def served(office: PhoneOffice, tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """`crm-sync serve` as a child process, in the place of the office's own receiver."""
    port = office.server.port
    office.stop_serving()
    command = [sys.executable, "-m", "crm_sync", "serve", "--port", str(port)]
    child = subprocess.Popen(
        command, cwd=tmp_path, env=dict(os.environ), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    try:
        assert child.stdout is not None
        line = child.stdout.readline()
        assert "serves" in line, line + child.stdout.read()
        yield child
    finally:
        child.kill()
        child.wait(timeout=10)
        if child.stdout is not None:
            child.stdout.close()


def test_from_the_delivery_to_the_field_it_takes_less_than_five_seconds_and_a_stop_drains(
    open_phones: OpenPhones, tmp_path: Path
) -> None:
    office = open_phones(tidy=True, contacts=20)
    with served(office, tmp_path) as child:
        office.walk()
        office.until(lambda: office.sold["delivered"])
        begun = time.monotonic()
        office.until(lambda: all_applied(office))
        took = time.monotonic() - begun
        child.send_signal(signal.SIGTERM)
        out, _ = child.communicate(timeout=30)

    assert took < 5, took
    assert child.returncode == 0, out
    assert "Traceback" not in out
    phones = [run for run in office.app.runs.latest() if run.kind is RunKind.PHONES]
    assert [run.status for run in phones] == [RunStatus.COMPLETED], "its run has its end"
    office.books_agree()


def test_a_server_that_is_killed_leaves_nothing_behind_that_the_next_one_does_not_mend(
    open_phones: OpenPhones, tmp_path: Path
) -> None:
    """Its open run too: nobody else may begin one for months."""
    office = open_phones(tidy=True, contacts=20)
    with served(office, tmp_path) as child:
        office.walk()
        office.until(lambda: all_applied(office))
        child.kill()
        child.wait(timeout=10)
    phones = [run for run in office.app.runs.latest() if run.kind is RunKind.PHONES]
    assert [run.status for run in phones] == [RunStatus.RUNNING]

    with served(office, tmp_path):
        office.until(lambda: not office.app.runs.unfinished())

    [run] = [run for run in office.app.runs.latest() if run.kind is RunKind.PHONES]
    assert run.counts.updated == len(office.targets)
    office.books_agree()
