"""HubSpotCrm and the strict simulator behind real HTTP; the client's sleeping takes no time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import requests

from adapters.hubspot.client import HubSpotCredentials, HubSpotCrm
from crm_sync.domain.records import RecordRef, Value
from crm_sync.ports import WriteRequest
from crm_sync.sandbox import hubspot as sandbox
from crm_sync.sandbox import wordings
from crm_sync.sandbox.faults import Faults
from crm_sync.sandbox.hubspot.records import FIRST_ID
from crm_sync.sandbox.server import Server, control
from crm_sync.sandbox.world import World
from tests.clocks import FakeClock

UNLIMITED: dict[str, Any] = {"burst": None, "daily": None, "searches_per_s": None, "lag_s": 0.0}


@dataclass
class Simulated:
    url: str
    contacts: int
    clock: FakeClock
    crm: HubSpotCrm

    def ids(self, object_type: str = "contacts") -> list[str]:
        return [str(FIRST_ID[object_type] + n) for n in range(self.contacts)]

    def post(self, path: str, body: Any) -> Any:
        answer = requests.post(f"{self.url}/_sandbox/{path}", json=body, timeout=10)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def edit(self, record_id: str, **fields: Any) -> Any:
        return self.post(f"records/contacts/{record_id}", fields)

    def meanwhile(self, call: str, record_id: str, *, when: str = "before", nth: int = 1, **fields: Any) -> None:
        """A colleague's edit with the `nth` "read" or "update" from now on."""
        edit = {"call": f"POST */batch/{call}", "nth": nth, "when": when, "object": "contacts", "id": record_id}
        self.post("edits", [{**edit, "fields": fields}])

    def value(self, record_id: str, name: str) -> Any:
        """What a property holds, seen behind the service's back."""
        return self.edit(record_id)["properties"][name]

    def forgive(self) -> None:
        """Forget the scripts of faults and edits."""
        for script in ("faults", "edits"):
            requests.delete(f"{self.url}/_sandbox/{script}", timeout=10)

    def calls(self) -> dict[str, int]:
        return requests.get(f"{self.url}/_sandbox/calls", timeout=10).json()  # type: ignore[no-any-return]

    def connections(self) -> int:
        return int(requests.get(f"{self.url}/_sandbox/state", timeout=10).json()["connections"])


@contextmanager
def serving(**options: Any) -> Iterator[str]:
    """A simulator without limits and without index lag unless asked."""
    contacts = options.pop("contacts", 300)
    app = sandbox.create(World(7, contacts), **{**UNLIMITED, **options})
    control(app, app.extensions["simulator"], Faults(wordings.hubspot))
    server = Server(app).start()
    try:
        yield server.url
    finally:
        server.stop()


@contextmanager
def connected(url: str, contacts: int, credentials: HubSpotCredentials | None = None) -> Iterator[Simulated]:
    """A client whose sleeping takes no time."""
    clock = FakeClock()
    credentials = credentials or HubSpotCredentials(token=sandbox.TOKEN)
    crm = HubSpotCrm(name="hubspot", url=url, credentials=credentials, clock=clock)
    try:
        yield Simulated(url, contacts, clock, crm)
    finally:
        crm.close()


@contextmanager
def simulated(
    *, contacts: int = 300, credentials: HubSpotCredentials | None = None, **options: Any
) -> Iterator[Simulated]:
    with serving(contacts=contacts, **options) as url, connected(url, contacts, credentials) as it:
        yield it


def a_request(record_id: str, **values: Value) -> WriteRequest:
    return WriteRequest(ref=RecordRef(crm="hubspot", object_type="contacts", id=record_id), values=values)
