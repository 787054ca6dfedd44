"""An installation that orders phones, its own receiver on a real server, and the worker that carries deliveries out."""

from __future__ import annotations

import re
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import requests
from sqlalchemy import func, select

from crm_sync import workers
from crm_sync.bootstrap import App, web_app
from crm_sync.config.starter import starter
from crm_sync.pipeline.resolve import Resolved, Resolver
from crm_sync.sandbox.numbers import Phone
from crm_sync.sandbox.run import Sandbox
from crm_sync.store.reveals import Wait
from crm_sync.store.tables import batches, reveal_orders, spending
from crm_sync.web.serving import WebServer
from tests.journeys.conftest import Office, QuickClock

PHONES = {
    "salesforce": """    phones:
      reveal_when: "Status__c = 'Target'"
      route: {mobile: MobilePhone, work_direct: Phone, work_hq: skip, other: OtherPhone}
      do_not_call: {if_listed: skip, mark: DoNotCall}
      wait: 2m
""",
    "hubspot": """    phones:
      reveal_when: [{property: outreach_status, operator: EQ, value: Target}]
      route: {mobile: mobilephone, work_direct: phone, work_hq: skip, other: hs_whatsapp_phone_number}
      do_not_call: {if_listed: skip}
      wait: 2m
""",
}
MOBILE = {"salesforce": "MobilePhone", "hubspot": "mobilephone"}
_KEPT = ("settled", "reserved", "doubted")
STATUS = {"salesforce": "Status__c", "hubspot": "outreach_status"}


class ShiftedClock(QuickClock):
    """The machine's clock, ahead of it by `shift`."""

    def __init__(self, shift: timedelta) -> None:
        super().__init__()
        self.shift = shift

    def now(self) -> datetime:
        return super().now() + self.shift


class PhoneOffice(Office):
    """`server` receives; `resolver` is this process's."""

    server: WebServer
    shift = timedelta(0)

    def __init__(self, sandbox: Sandbox, crm: str, database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
        self._sold: dict[int, tuple[Phone, ...]] = {}
        super().__init__(sandbox, crm, database_url, monkeypatch)
        self.front = App()
        self.serve()
        monkeypatch.setenv("CRM_SYNC_PUBLIC_URL", f"http://127.0.0.1:{self.server.port}")
        self.restart()
        self.order_phones()

    def serve(self, port: int = 0) -> None:
        self.server = WebServer(web_app(self.front), host="127.0.0.1", port=port)
        self._thread = threading.Thread(target=self.server.run, daemon=True)
        self._thread.start()

    def stop_serving(self) -> None:
        self.server.stop()
        self._thread.join(timeout=15)

    def restart(self) -> None:
        super().restart()
        self.app.__dict__["clock"] = ShiftedClock(self.shift)

    def later(self, span: timedelta) -> None:
        """So much time goes by, for us and not for Apollo."""
        self.shift += span
        self.app.__dict__["clock"].shift = self.shift

    def order_phones(self, text: str = "", **replaced: str) -> None:
        """Apply the starting configuration with `phones:` in its people sync."""
        phones = text or PHONES[self.crm]
        for old, new in replaced.items():
            phones = phones.replace(old, new)
        before, sign, after = self.text.partition("    fields:")
        assert sign
        self.apply(before + phones + sign + after)
        self.restart()

    def script(self, *scripts: dict[str, Any]) -> None:
        url = f"{self.sandbox.apollo_url}/_sandbox/callbacks"
        answer = requests.post(url, json=list(scripts), timeout=10)
        assert answer.status_code == 200, answer.text

    @property
    def sold(self) -> dict[str, Any]:
        """What Apollo itself says about phones."""
        state: dict[str, Any] = requests.get(f"{self.sandbox.apollo_url}/_sandbox/state", timeout=10).json()["phones"]
        return state

    def carry_out(self, *, until: Callable[[], bool] | None = None, seconds: float = 15.0) -> None:
        """Resolve until nothing is awaited, or `until` holds."""
        resolver = Resolver(self.app.services())
        deadline = time.monotonic() + seconds
        try:
            while time.monotonic() < deadline:
                resolver.drain()
                counts = self.app.reveals.counts()
                if until() if until is not None else not (counts.get("waiting") or counts.get("due")):
                    break
                time.sleep(0.05)
            else:
                told = [(each.state, each.reason) for each in self.app.deliveries.listed()]
                raise AssertionError(f"still waiting: {self.app.reveals.counts()} {told}")
        finally:
            resolver.runs.close_quiet(all_of_them=True)
            self.app.reveals.finish_runs()

    def beside(self, crm: str) -> Callable[[int, str], Any]:
        """Apply a configuration with the other CRM's contacts too, as the sync "<crm>-contacts"; returns how its records
        are read: (index, field) -> value."""
        client = self.app.crm(crm, crm)
        text = starter(crm, crm, {each: client.describe(each) for each in client.object_types()})
        _, _, sync = text.partition("  contacts:\n")
        end = re.search(r"^  \w", sync, re.MULTILINE)
        before, sign, after = (sync[: end.start()] if end is not None else sync).partition("    fields:")
        version = self.app.versions.latest()
        assert version is not None
        mine = version.text.decode().replace("crms:\n", f"crms:\n  {crm}: {{type: {crm}, environment: sandbox}}\n", 1)
        self.apply(f"{mine.rstrip()}\n  {crm}-contacts:\n{before}{PHONES[crm]}{sign}{after}")
        self.restart()
        ours = self.crm

        def value(index: int, field: str) -> Any:
            self.crm = crm
            try:
                return self.value(index, field)
            finally:
                self.crm = ours

        return value

    def poll(self) -> Resolved:
        """Apollo is asked about everything that is awaited."""
        return Resolver(self.app.services()).sweep(now_all=True)

    def sweep(self) -> Resolved:
        """Apollo is asked about that whose time has come, and what is over is given up."""
        return Resolver(self.app.services()).sweep()

    def until(self, holds: Callable[[], object], *, seconds: float = 15.0) -> None:
        deadline = time.monotonic() + seconds
        while not holds():
            assert time.monotonic() < deadline, [(each.state, each.reason) for each in self.app.deliveries.listed()]
            time.sleep(0.02)

    def fault(self, provider: str, **fault: Any) -> None:
        self.sandbox.faults[provider].add([fault])

    def sell(self, index: int, *phones: Phone) -> None:
        """What Apollo finds of a person from now on."""
        self._sold[index] = phones
        known = type(self.sandbox.world).phones

        def sold(index: int) -> tuple[Phone, ...]:
            return self._sold.get(index, known(self.sandbox.world, index))

        self.sandbox.world.phones = sold  # type: ignore[method-assign]

    @property
    def targets(self) -> list[int]:
        """Whose phone is to be ordered."""
        world = self.sandbox.world
        return [index for index in range(world.contacts) if world.contact(index).status == "Target"]

    @property
    def with_mobile(self) -> list[int]:
        return [index for index in self.targets if self.value(index, MOBILE[self.crm])]

    def wait_of(self, index: int, sync: str = "contacts") -> Wait:
        waits = self.app.reveals.of_record(self.people, self.id_of(index))
        return next(wait for wait in waits if wait.sync == sync)

    def ended(self, index: int) -> tuple[str, str]:
        wait = self.wait_of(index)
        return wait.state, wait.reason

    def told(self) -> dict[str, int]:
        """The deliveries, by their state."""
        return self.app.deliveries.counts()

    def money(self) -> dict[str, int]:
        """What was spent, as each of those who count it says; in `ours` the three ways in which it is kept."""
        with self.app.store.read() as connection:
            of = {name: connection.execute(select(func.sum(spending.c[name]))).scalar() or 0 for name in _KEPT}
            calls = connection.execute(select(func.sum(batches.c.credits))).scalar() or 0
            billed = connection.execute(select(func.sum(reveal_orders.c.billed))).scalar() or 0
        return {
            "apollo": sum(self.charged.values()) + self.sold["charged"],
            "apollo phones": self.sold["charged"],
            **{name: int(value) for name, value in of.items()},
            "calls": int(calls),
            "billed": int(billed),
        }

    def books_agree(self) -> None:
        """Nothing is awaited any more, and each credit that Apollo took stands in our books once."""
        money = self.money()
        apollo, phones = money["apollo"], money["apollo phones"]
        assert money == {
            "apollo": apollo,
            "apollo phones": phones,
            "settled": apollo,
            "reserved": 0,
            "doubted": 0,
            "calls": apollo,
            "billed": phones,
        }
        assert self.sold["more_than_once"] == {}, "a phone was bought twice"

    def numbers_of(self, index: int) -> list[Any]:
        """What Apollo sells of a person, as it delivers it."""
        return list(self.sandbox.world.phones(index))


OpenPhones = Callable[..., PhoneOffice]


@pytest.fixture(autouse=True)
def _quick_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    """The workers of this process look as often as a test does."""
    monkeypatch.setattr(workers, "_LOOK_EVERY_S", 0.05)
    monkeypatch.setattr(workers, "_TRY_AGAIN_S", 0.2)


@contextmanager
def office_of(crm: str, database_url: str, monkeypatch: pytest.MonkeyPatch, **options: Any) -> Iterator[PhoneOffice]:
    with Sandbox(**{"contacts": 60, "unlimited": True, "per_minute": None, **options}) as sandbox:
        office = PhoneOffice(sandbox, crm, database_url, monkeypatch)
        try:
            yield office
        finally:
            office.stop_serving()
            office.front.close()
            office.app.close()


@pytest.fixture
def open_phones(crm: str, tmp_path: Path, migrated_file: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[OpenPhones]:
    """open_phones(contacts=…, **sandbox options) -> PhoneOffice."""
    from contextlib import ExitStack

    shutil.copy(migrated_file, tmp_path / "crm_sync.db")
    with ExitStack() as stack:

        def open_(**options: Any) -> PhoneOffice:
            url = f"sqlite:///{tmp_path}/crm_sync.db"
            return stack.enter_context(office_of(crm, url, monkeypatch, **options))

        yield open_
