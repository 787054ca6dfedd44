"""An installation that orders phones, its own receiver on a real server, and the worker that carries deliveries out."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import requests

from crm_sync.bootstrap import App, web_app
from crm_sync.pipeline.resolve import Resolver
from crm_sync.sandbox.run import Sandbox
from crm_sync.web.serving import WebServer
from tests.journeys.conftest import Office

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
STATUS = {"salesforce": "Status__c", "hubspot": "outreach_status"}


class PhoneOffice(Office):
    """`server` receives; `resolver` is this process's."""

    server: WebServer

    def __init__(self, sandbox: Sandbox, crm: str, database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
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

    def numbers_of(self, index: int) -> list[Any]:
        """What Apollo sells of a person, as it delivers it."""
        return list(self.sandbox.world.phones(index))


OpenPhones = Callable[..., PhoneOffice]


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
def open_phones(crm: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[OpenPhones]:
    """open_phones(contacts=…, **sandbox options) -> PhoneOffice."""
    from contextlib import ExitStack

    with ExitStack() as stack:

        def open_(**options: Any) -> PhoneOffice:
            url = f"sqlite:///{tmp_path}/crm_sync.db"
            return stack.enter_context(office_of(crm, url, monkeypatch, **options))

        yield open_
