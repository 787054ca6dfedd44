"""Whole walks against the sandbox with the real client libraries."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from crm_sync.bootstrap import App
from crm_sync.clock import SystemClock
from crm_sync.config.loader import load
from crm_sync.config.starter import starter
from crm_sync.domain.runs import RunKind, SyncRun
from crm_sync.pipeline.run import run_sync
from crm_sync.sandbox.run import Sandbox
from tests.factories import SECRET_KEY


class QuickClock(SystemClock):
    """The machine's clock, with short naps: back-off is real and does not hold up the tests."""

    def sleep(self, seconds: float) -> None:
        super().sleep(min(seconds, 0.01))


class Later(SystemClock):
    """The machine's clock, some days on."""

    def __init__(self, days: float) -> None:
        self._ahead = timedelta(days=days)

    def now(self) -> datetime:
        return super().now() + self._ahead


class Office:
    """One installation that points at a sandbox; `restart` is a new process on the same database."""

    def __init__(self, sandbox: Sandbox, crm: str, database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
        self.sandbox = sandbox
        self.crm = crm
        settings = sandbox.settings() | {"CRM_SYNC_DATABASE_URL": database_url}
        if not database_url.startswith("sqlite"):
            settings["CRM_SYNC_SECRET_KEY"] = SECRET_KEY
        for name, value in settings.items():
            monkeypatch.setenv(name, value)
        self.app = App()
        self.restart()
        client = self.app.crm(crm, crm)
        self.text = starter(crm, crm, {each: client.describe(each) for each in client.object_types()})
        self.apply(self.text)

    def restart(self) -> None:
        self.app.close()
        self.app = App()
        self.app.__dict__["clock"] = QuickClock()

    def apply(self, text: str) -> None:
        config = load(text.encode()).require()
        self.app.versions.add(config.text, config.files, author="test", note="", now=self.app.clock.now())

    def walk(self, sync: str = "contacts", *, kind: RunKind = RunKind.RUN, limit: int | None = None) -> SyncRun:
        services = self.app.services()
        return run_sync(services.config.syncs[sync], services, kind=kind, trigger="test", limit=limit)

    def plan(self, sync: str = "contacts", *, limit: int | None = 10) -> SyncRun:
        return self.walk(sync, kind=RunKind.PLAN, limit=limit)

    def record(self, index: int, object_type: str = "") -> dict[str, Any]:
        """A record as the CRM holds it now."""
        simulator = self.sandbox.apps[self.crm].extensions["simulator"]
        return simulator.edit(object_type or self.people, self.id_of(index), {})

    def edit(self, index: int, fields: dict[str, Any], object_type: str = "") -> None:
        self.sandbox.apps[self.crm].extensions["simulator"].edit(object_type or self.people, self.id_of(index), fields)

    @property
    def people(self) -> str:
        return "Contact" if self.crm == "salesforce" else "contacts"

    def id_of(self, index: int) -> str:
        if self.crm == "salesforce":
            from crm_sync.sandbox.salesforce import ids

            return ids.encode("003", index)
        from crm_sync.sandbox.hubspot.portal import FIRST_ID

        return str(FIRST_ID["contacts"] + index)

    def value(self, index: int, field: str) -> Any:
        record = self.record(index)
        return record.get("properties", record).get(field)

    @property
    def charged(self) -> dict[str, int]:
        """Credits by Apollo id."""
        return dict(self.sandbox.apps["apollo"].extensions["ledger"].charged)

    def calls(self, provider: str) -> dict[str, int]:
        return self.sandbox.traffic[provider].calls()

    def forget_calls(self) -> None:
        for traffic in self.sandbox.traffic.values():
            traffic.clear()


def later(office: Office, monkeypatch: pytest.MonkeyPatch, days: float) -> None:
    """So many days go by, for the office and for every command that is called after it."""
    office.restart()
    monkeypatch.setattr("crm_sync.bootstrap.SystemClock", lambda: Later(days))
    office.app.__dict__["clock"] = Later(days)


Open = Callable[..., Office]


@pytest.fixture(params=["salesforce", "hubspot"])
def crm(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def open_office(crm: str, tmp_path: Path, migrated_file: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Open]:
    """open_office(contacts=…, **sandbox options) -> Office."""
    running: list[tuple[Sandbox, Office]] = []
    shutil.copy(migrated_file, tmp_path / "crm_sync.db")

    def open_(**options: Any) -> Office:
        sandbox = Sandbox(**{"contacts": 60, "unlimited": True, "per_minute": None, **options}).start()
        office = Office(sandbox, crm, f"sqlite:///{tmp_path}/crm_sync.db", monkeypatch)
        running.append((sandbox, office))
        return office

    yield open_
    for sandbox, office in running:
        office.app.close()
        sandbox.stop()
