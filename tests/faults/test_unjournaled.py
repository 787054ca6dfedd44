"""What cannot be journaled is not spent, and work resumes by itself: locks, full disks, a database that goes away."""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from crm_sync.bootstrap import App
from crm_sync.config.loader import load
from crm_sync.domain.runs import RunKind, RunStatus, SyncRun
from crm_sync.errors import StoreError
from crm_sync.pipeline.run import run_sync
from crm_sync.ports import Window
from crm_sync.sandbox.run import Sandbox
from crm_sync.store.engine import Store
from crm_sync.store.pace import StorePace
from tests.clocks import FakeClock
from tests.factories import SECRET_KEY
from tests.postgres import postgres_in

ROOT = Path(__file__).parents[2]
CONFIG = """
version: 1
apollo: {workers: 2}
crms:
  salesforce: {type: salesforce, environment: sandbox}
syncs:
  one: &sync
    crm: salesforce
    object: Contact
    match:
      send: {email: Email, first_name: FirstName, last_name: LastName}
    fields: {Title: person.title, LinkedIn__c: person.linkedin_url}
  two:
    crm: salesforce
    object: Contact
    match:
      send: {email: Email, first_name: FirstName, last_name: LastName}
    fields: {Title: person.title, MailingCity: person.city}
""".replace(" &sync", "")
#: `crm-sync`, with a paid answer that waits for its database no longer than a test does.
COMMAND = """
import sys
from crm_sync.store.engine import Store
Store.patience_s = float(sys.argv.pop(1))
from crm_sync.cli import main
main()
"""


@dataclass
class Site:
    """A sandbox, and an installation whose commands run in processes of their own."""

    sandbox: Sandbox
    contacts: int
    folder: Path
    settings: dict[str, str]
    started: list[subprocess.Popen[str]] = field(default_factory=list)

    @property
    def database(self) -> Path:
        return Path(self.settings["CRM_SYNC_DATABASE_URL"].removeprefix("sqlite:///"))

    def configure(self, budget: str = "") -> None:
        with self.opened() as app:
            config = load(f"{CONFIG}{budget}\n".encode()).require()
            app.versions.add(config.text, config.files, author="test", note="", now=app.clock.now())

    @contextmanager
    def opened(self, clock: Any = None) -> Iterator[App]:
        """The installation in this process."""
        with pytest.MonkeyPatch.context() as patch:
            for name, value in self.settings.items():
                patch.setenv(name, value)
            patch.chdir(self.folder)
            app = App()
            if clock is not None:
                app.__dict__["clock"] = clock
            try:
                yield app
            finally:
                app.close()

    def start(
        self, *words: str, patience_s: float = 60.0, limit: Callable[[], None] | None = None
    ) -> subprocess.Popen[str]:
        child = subprocess.Popen(
            [sys.executable, "-c", COMMAND, str(patience_s), *words],
            cwd=self.folder,
            env={**os.environ, "PYTHONPATH": str(ROOT), **self.settings},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            preexec_fn=limit,  # noqa: PLW1509 - it sets a limit and takes no lock
        )
        self.started.append(child)
        return child

    def run(self, *words: str, code: int | None = 0, **more: Any) -> str:
        child = self.start("run", *words, **more)
        output, _ = child.communicate(timeout=120)
        assert code is None or child.returncode == code, output
        return " ".join(output.split())

    def titles(self) -> int:
        """Contacts that have the title Apollo knows."""
        from crm_sync.sandbox.salesforce import ids

        edit = self.sandbox.apps["salesforce"].extensions["simulator"].edit
        return sum(
            edit("Contact", ids.encode("003", index), {})["Title"] == self.sandbox.world.person(index).title
            for index in range(self.contacts)
        )

    def asked(self) -> int:
        """Paid calls that have reached Apollo."""
        return sum(count for call, count in self.sandbox.traffic["apollo"].calls().items() if "bulk_match" in call)

    def wait_for(self, happened: Callable[[], bool], seconds: float = 30.0) -> None:
        until = time.monotonic() + seconds
        while not happened():
            assert time.monotonic() < until, "it did not happen"
            time.sleep(0.02)

    @property
    def ledger(self) -> dict[str, Any]:
        state: dict[str, Any] = self.sandbox.apps["apollo"].extensions["simulator"].state()["credits"]
        return state

    def judge(self) -> list[SyncRun]:
        """The runs, oldest first, after the last of them ended: nobody was charged twice, and each credit that Apollo
        charged is in our ledger."""
        with self.opened() as app:
            with app.store.read() as connection:
                total = "select coalesce(sum(settled + reserved + doubted), 0) from spending"
                ours = int(connection.execute(text(total)).scalar() or 0) / 1_000_000
            runs = app.runs.latest()[::-1]
        assert self.ledger["more_than_once"] == {}
        assert self.ledger["charged"] <= ours
        assert all(run.status is not RunStatus.RUNNING for run in runs)
        return runs


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Callable[..., Site]]:
    made: list[Site] = []

    def make(*, contacts: int = 60, budget: str = "", database_url: str = "", **options: Any) -> Site:
        sandbox = Sandbox(
            **{"contacts": contacts, "tidy": True, "unlimited": True, "per_minute": None, **options}
        ).start()
        settings = sandbox.settings() | {
            "CRM_SYNC_DATABASE_URL": database_url or f"sqlite:///{tmp_path}/data/crm_sync.db",
            "CRM_SYNC_SECRET_KEY": SECRET_KEY,
        }
        (tmp_path / "data").mkdir()
        made.append(Site(sandbox=sandbox, contacts=contacts, folder=tmp_path, settings=settings))
        made[-1].configure(budget)
        return made[-1]

    yield make
    for one in made:
        for child in one.started:
            with suppress(ProcessLookupError):
                child.kill()
            child.communicate()
        one.sandbox.stop()


Make = Callable[..., Site]

# --- several processes, and locks ---------------------------------------------------------------------------------


def test_two_processes_that_want_the_same_people_buy_each_once(site: Make) -> None:
    here = site(contacts=120, latency_ms=50)

    children = [here.start("run", "one"), here.start("run", "two")]
    for child in children:
        child.communicate(timeout=120)
    here.run("--all")

    runs = here.judge()
    assert here.ledger["charged"] == 120
    assert sum(run.counts.updated for run in runs if run.sync == "one") == 120


def test_two_processes_of_one_sync_do_not_run_at_once_or_share_the_work(site: Make) -> None:
    here = site(contacts=60, latency_ms=50)

    children = [here.start("run", "one") for _ in range(2)]
    outputs = [child.communicate(timeout=120)[0] for child in children]
    here.run("one")

    here.judge()
    assert here.ledger["charged"] == 60
    assert any("is running already" in output for output in outputs) or len(set(outputs)) == 2


def test_while_another_process_holds_the_lock_nothing_is_asked_and_then_it_goes_on(site: Make) -> None:
    here = site()
    holder = Store(here.settings["CRM_SYNC_DATABASE_URL"])
    with holder.write() as connection:
        connection.execute(text("select 1"))
        child = here.start("run", "one")
        time.sleep(3)
        asked, ended = here.asked(), child.poll()
    holder.close()
    output, _ = child.communicate(timeout=60)

    assert (asked, ended) == (0, None)
    assert child.returncode == 0, output
    assert here.judge()[-1].counts.updated == 60


def test_a_foreign_program_that_locks_the_file_costs_no_paid_answer(site: Make) -> None:
    """A database browser with an open transaction knows nothing of our lock file; SQLite's own time-out is 30 s."""
    import sqlite3

    here = site(contacts=20, latency_ms=1500)
    child = here.start("run", "one")
    here.wait_for(lambda: here.asked() >= 1)
    browser = sqlite3.connect(here.database, isolation_level=None, timeout=10)
    browser.execute("begin immediate")
    time.sleep(3)  # the answers have come, and cannot be stored
    browser.execute("rollback")
    browser.close()
    output, _ = child.communicate(timeout=60)

    assert child.returncode == 0, output
    run = here.judge()[-1]
    assert run.counts.updated == 20
    assert run.counts.in_doubt == 0


# --- a full disk --------------------------------------------------------------------------------------------------


def _no_file_beyond(size: int) -> Callable[[], None]:
    return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


@pytest.mark.parametrize("room", [120_000, 180_000, 280_000])
def test_a_full_disk_stops_spending_and_the_next_run_goes_on(site: Make, room: int) -> None:
    """No file may grow beyond the limit, so that commits fail in the middle of the run."""
    here = site(contacts=300)
    limit = max(here.database.stat().st_size, room)

    output = here.run("one", code=None, patience_s=1.0, limit=_no_file_beyond(limit))
    before = dict(here.ledger)
    here.run("one", code=None)
    here.run("one", code=None)

    assert "Traceback" not in output
    assert "did not take the request" in output or before["charged"] == 300, output
    runs = here.judge()
    assert runs[-1].status in (RunStatus.COMPLETED, RunStatus.COMPLETED_WITH_ERRORS)
    doubted = sum(run.counts.in_doubt for run in runs)
    assert here.ledger["charged"] + doubted >= 280
    assert before["charged"] < 300, "the limit was met"


@pytest.mark.skipif(os.geteuid() != 0 or shutil.which("mount") is None, reason="only root may mount a small disk")
def test_a_small_disk_that_fills_up_resumes_when_there_is_room(site: Make, tmp_path: Path) -> None:
    here = site(contacts=200)
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1500k", "tmpfs", str(disk)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("this container may not mount")
    try:
        shutil.copytree(tmp_path / "data", disk / "data")
        here.settings["CRM_SYNC_DATABASE_URL"] = f"sqlite:///{disk}/data/crm_sync.db"
        ballast = disk / "ballast"
        with suppress(OSError), ballast.open("wb") as file:
            file.write(b"\0" * (shutil.disk_usage(disk).free - 200_000))

        output = here.run("one", code=1, patience_s=1.0)
        spent = here.ledger["charged"]
        full = here.run("one", code=1, patience_s=1.0)
        held = here.ledger["charged"]
        ballast.unlink()
        subprocess.run(["mount", "-o", "remount,size=40m", str(disk)], check=True)
        here.run("one", code=None)

        assert "did not take the request" in output + full
        assert spent < 200
        assert held - spent <= 40, "two calls of ten may leave before the disk is full again"
        runs = here.judge()
        assert runs[-1].status in (RunStatus.COMPLETED, RunStatus.COMPLETED_WITH_ERRORS)
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)


def test_a_full_disk_that_gets_room_in_time_costs_no_answer(site: Make) -> None:
    """The answer waits in memory for its database."""
    here = site(contacts=20, latency_ms=1000)
    child = here.start("run", "one", patience_s=60)
    here.wait_for(lambda: here.asked() >= 1)
    before = resource.prlimit(child.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(child.pid, resource.RLIMIT_FSIZE, (10, before[1]))
    time.sleep(2.5)
    resource.prlimit(child.pid, resource.RLIMIT_FSIZE, before)
    output, _ = child.communicate(timeout=60)
    here.run("one", code=None)

    assert "Traceback" not in output
    runs = here.judge()
    assert sum(run.counts.in_doubt for run in runs) == 0
    assert here.ledger["charged"] == here.titles() == 20


# --- a database that goes away ------------------------------------------------------------------------------------


def test_a_database_file_that_is_replaced_under_a_run_takes_no_more_calls(site: Make) -> None:
    """An open file that was deleted takes every commit, and nobody would ever see them."""
    here = site(contacts=200, latency_ms=200)
    backup = here.folder / "backup.db"
    shutil.copy(here.database, backup)
    child = here.start("run", "one", patience_s=5)
    here.wait_for(lambda: here.asked() >= 4)
    here.database.unlink()
    for ending in ("-wal", "-shm"):
        Path(f"{here.database}{ending}").unlink()
    shutil.copy(backup, here.database)
    asked = here.asked()
    output, _ = child.communicate(timeout=60)

    assert child.returncode == 1
    assert "was moved, deleted or replaced while it was in use" in output
    assert here.asked() <= asked + 2, "what was out already"
    held = here.run("one", code=1)
    assert "this one is new" in held


@pytest.fixture
def server() -> Iterator[Any]:
    """A PostgreSQL of this test's own: it is stopped in the middle of its work. Its socket needs a short path."""
    with tempfile.TemporaryDirectory(prefix="crm-sync-postgres-", ignore_cleanup_errors=True) as folder:
        made = postgres_in(Path(folder))
        try:
            yield made
        finally:
            made.ensure_postgres_running()
            made.cleanup()


def stop_at_once(server: Any) -> None:
    """pg_ctl stop -m immediate: no checkpoint, no farewell."""
    pid = server.get_pid()
    os.kill(pid, signal.SIGQUIT)
    until = time.monotonic() + 20
    while time.monotonic() < until:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return
        time.sleep(0.05)
    raise AssertionError("the server did not stop")


@pytest.mark.postgres
def test_an_answer_outlives_a_server_that_is_stopped_and_started(site: Make, server: Any) -> None:
    here = site(contacts=40, latency_ms=2000, database_url=server.get_uri())
    child = here.start("run", "one", patience_s=60)
    here.wait_for(lambda: here.asked() >= 2)
    stop_at_once(server)
    time.sleep(2)  # the answers have come
    asked = here.asked()
    server.ensure_postgres_running()
    output, _ = child.communicate(timeout=90)
    here.run("one", code=None)

    assert "Traceback" not in output
    assert asked <= 4, "nothing leaves while it cannot be journaled"
    runs = here.judge()
    assert sum(run.counts.in_doubt for run in runs) == 0
    assert here.ledger["charged"] == here.titles() == 40


@pytest.mark.postgres
def test_a_server_that_stays_away_ends_the_run_and_the_next_one_goes_on(site: Make, server: Any) -> None:
    here = site(contacts=100, latency_ms=300, database_url=server.get_uri())
    child = here.start("run", "one", patience_s=1)
    here.wait_for(lambda: here.asked() >= 3)
    stop_at_once(server)
    output, _ = child.communicate(timeout=90)
    asked = here.asked()
    refused = here.run("one", code=1)
    server.ensure_postgres_running()
    here.run("one", code=None)
    after = here.run("one", code=None)

    assert child.returncode == 1, output
    assert "did not take the request" in output
    assert "Traceback" not in output + refused + after
    assert here.asked() >= asked
    runs = here.judge()
    assert runs[0].status is RunStatus.FAILED
    assert runs[-1].status in (RunStatus.COMPLETED, RunStatus.COMPLETED_WITH_ERRORS)


@pytest.mark.postgres
def test_sessions_that_are_killed_are_opened_again(site: Make, server: Any) -> None:
    here = site(contacts=80, latency_ms=300, database_url=server.get_uri())
    child = here.start("run", "one", patience_s=30)
    here.wait_for(lambda: here.asked() >= 2)
    server.psql(
        "select pg_terminate_backend(pid) from pg_stat_activity where pid <> pg_backend_pid() and backend_type = "
        "'client backend';"
    )
    output, _ = child.communicate(timeout=90)
    here.run("one", code=None)

    assert "Traceback" not in output
    runs = here.judge()
    assert here.ledger["charged"] == 80
    assert sum(run.counts.in_doubt for run in runs) == 0


def test_what_apollos_headers_tell_is_not_worth_the_answer_that_came_with_them(
    sqlite_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    pace = StorePace(sqlite_store, clock=FakeClock())
    pace.acquire("people/bulk_match").answered()

    def gone(_store: Store) -> Any:
        raise StoreError("The database did not take the request: disk I/O error")

    with monkeypatch.context() as broken:
        broken.setattr(Store, "write", gone)
        pace.learn("people/bulk_match", [Window(seconds=60, limit=5, left=4)])
        with pytest.raises(StoreError):
            pace.acquire("people/bulk_match")
    pace.acquire("people/bulk_match").answered()
    pace.close()


# --- in one process that lives on ---------------------------------------------------------------------------------


def test_a_run_whose_end_could_not_be_written_is_closed_by_the_next_one_of_the_same_process(
    site: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker lives for weeks: a full disk must not make its sync "running already" for ever."""
    here = site(contacts=20)
    with here.opened() as app:
        services = app.services()
        sync = services.config.syncs["one"]
        with monkeypatch.context() as disk:
            save = type(services.runs).save

            def full(runs: Any, run: SyncRun, **more: Any) -> None:
                if run.finished_at is not None:
                    raise StoreError("The database did not take the request: database or disk is full")
                save(runs, run, **more)

            disk.setattr(type(services.runs), "save", full)
            with pytest.raises(StoreError, match="disk is full"):
                run_sync(sync, services, kind=RunKind.RUN, trigger="test")
        run = run_sync(sync, services, kind=RunKind.RUN, trigger="test")

    assert run.status is RunStatus.COMPLETED
    assert [each.status for each in here.judge()] == [RunStatus.FAILED, RunStatus.COMPLETED]
    assert here.ledger["charged"] == 20


# --- the clock ----------------------------------------------------------------------------------------------------


def test_a_clock_set_back_opens_no_budget_again_buys_nobody_twice_and_goes_on(site: Make) -> None:
    here = site(contacts=60, budget="budget: {per_day: 30}")
    now = datetime.now(UTC).replace(hour=12)
    clock = FakeClock(now)
    with here.opened(clock) as app:
        services = app.services()
        sync = services.config.syncs["one"]

        def walk() -> SyncRun:
            return run_sync(sync, services, kind=RunKind.RUN, trigger="test")

        first = walk()
        clock.moment = now - timedelta(hours=20)
        back = walk()
        clock.moment = now - timedelta(days=30)
        far = walk()
        clock.moment = now + timedelta(minutes=5)
        right = walk()
        clock.moment = now + timedelta(days=1)
        tomorrow = walk()

    assert (first.status, first.credits) == (RunStatus.STOPPED_AT_BUDGET, 30)
    assert (back.status, back.credits) == (RunStatus.STOPPED_AT_BUDGET, 0)
    assert (far.status, far.credits) == (RunStatus.FAILED, 0)
    assert "nothing is bought until the clock is right" in far.reason
    assert (right.status, right.credits) == (RunStatus.STOPPED_AT_BUDGET, 0)
    assert (tomorrow.status, tomorrow.credits) == (RunStatus.COMPLETED, 30)
    here.judge()


def test_json_of_a_held_run_says_why(site: Make) -> None:
    here = site(contacts=20)
    here.run("one")
    Path(f"{here.database}.instance").unlink()

    told = json.loads(here.run("one", "--json", code=1))

    assert told["status"] == "Failed"
    assert told["selected"] == 0
    assert "is missing, and this database has spent before" in told["reason"]
