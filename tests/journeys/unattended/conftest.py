"""An installation whose syncs run by themselves, and the processes that do it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from crm_sync.bootstrap import App
from crm_sync.domain.runs import Asked, RunStatus, SyncRun
from crm_sync.pipeline.scheduling import queue_by_hand
from crm_sync.sandbox.run import Sandbox
from crm_sync.scheduler import Scheduler
from crm_sync.store.exclusive import Exclusive
from crm_sync.workers import RunWorker
from tests.conftest import database_of
from tests.journeys.conftest import Office, QuickClock
from tests.lines import a_line, through


class ShiftedClock(QuickClock):
    """The machine's clock, ahead of it by the office's `shift`."""

    def __init__(self, office: UnattendedOffice) -> None:
        super().__init__()
        self._office = office

    def now(self) -> datetime:
        return super().now() + self._office.shift


class UnattendedOffice(Office):
    """`restart` is a new process; `another` one beside it. All have one clock, which `shift` puts forward."""

    shift = timedelta(0)

    def restart(self) -> None:
        super().restart()
        self.app.__dict__["clock"] = ShiftedClock(self)

    def later(self, span: timedelta) -> None:
        self.shift += span

    @contextmanager
    def another(self) -> Iterator[App]:
        app = App()
        app.__dict__["clock"] = ShiftedClock(self)
        try:
            yield app
        finally:
            app.close()

    def schedule(self, text: str, sync: str = "contacts") -> None:
        """Give a sync a schedule, "" for none, as a person who applies a configuration."""
        head = f"  {sync}:\n"
        lines = self.text.split(head)[1].split("\n")
        rest = "\n".join(line for line in lines if not line.startswith("    schedule:"))
        self.text = self.text.split(head)[0] + head + (f"    schedule: {text}\n" if text else "") + rest
        self.apply(self.text)

    @property
    def runs(self) -> list[SyncRun]:
        """Oldest first."""
        return self.app.runs.latest(limit=1000)[::-1]

    def work(self, app: App | None = None) -> list[SyncRun]:
        """Walk all that is queued."""
        worker, never = RunWorker((app or self.app).services), threading.Event()
        done: list[SyncRun] = []
        while (ended := worker.once(never)) is not None:
            done.append(ended)
        return done

    def until(self, holds: Callable[[], object], *, seconds: float = 30.0) -> None:
        deadline = time.monotonic() + seconds
        while not holds():
            assert time.monotonic() < deadline, [(run.id, run.status, run.reason) for run in self.runs]
            time.sleep(0.05)

    def books_balance(self) -> None:
        for run in self.runs:
            assert run.counts.balanced, run
            assert "books" not in run.reason, run
        assert max(self.charged.values(), default=0) <= 1, "somebody was charged twice"


def queued(office: UnattendedOffice, asked: Asked | None = None, sync: str = "contacts") -> str:
    """A run that somebody asks for; its id."""
    services = office.app.services()
    return queue_by_hand(services.config.syncs[sync], services, asked or Asked()).id


def scheduler_of(app: App) -> Scheduler:
    return Scheduler(app.services, Exclusive(app.store, "scheduler"))


@contextmanager
def process(*arguments: str, folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A crm-sync command as a process of its own; killed at the end where it lives."""
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    with (folder / f"{arguments[0]}-{time.monotonic_ns()}.log").open("wb") as log:
        begun = subprocess.Popen(
            [sys.executable, "-m", "crm_sync", *arguments], cwd=folder, env=environment, stdout=log, stderr=log
        )
        try:
            yield begun
        finally:
            if begun.poll() is None:
                begun.send_signal(signal.SIGKILL)
            begun.wait(timeout=30)


def _close(office: UnattendedOffice) -> None:
    office.app.close()  # the one that it has then


OpenUnattended = Callable[..., UnattendedOffice]


@pytest.fixture(params=["salesforce"])
def crm(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def open_unattended(crm: str, database_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[OpenUnattended]:
    """open_unattended(contacts=…, **sandbox options) -> UnattendedOffice, on SQLite and on PostgreSQL."""
    with ExitStack() as stack:

        def open_(**options: Any) -> UnattendedOffice:
            wanted = {"contacts": 60, "unlimited": True, "per_minute": None, **options}
            sandbox = stack.enter_context(Sandbox(**wanted))
            office = UnattendedOffice(sandbox, crm, database_url, monkeypatch)
            stack.callback(_close, office)
            return office

        yield open_


def ended(run: SyncRun) -> bool:
    return run.status not in (RunStatus.QUEUED, RunStatus.RUNNING)


@pytest.fixture
def open_slow(
    crm: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Iterator[OpenUnattended]:
    """As open_unattended, on a PostgreSQL whose answers take 30 ms more, for every process but this one."""
    with ExitStack() as stack:
        url = stack.enter_context(database_of("postgresql", request, tmp_path))
        line = stack.enter_context(a_line(url))
        line.delay_s = 0.015

        def open_(**options: Any) -> UnattendedOffice:
            wanted = {"contacts": 60, "unlimited": True, "per_minute": None, **options}
            office = UnattendedOffice(stack.enter_context(Sandbox(**wanted)), crm, url, monkeypatch)
            stack.callback(_close, office)
            office.app.store.ready()
            monkeypatch.setenv("CRM_SYNC_DATABASE_URL", through(url, line.port))
            return office

        yield open_
