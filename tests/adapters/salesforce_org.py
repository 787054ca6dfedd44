"""The sandbox's Salesforce org on a loopback port, with its script of faults, for the adapter's tests."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from adapters.salesforce.client import SalesforceCrm
from adapters.salesforce.session import SalesforceCredentials
from crm_sync.domain.records import RecordRef, Value
from crm_sync.ports import WriteRequest
from crm_sync.sandbox import wordings
from crm_sync.sandbox.faults import Faults
from crm_sync.sandbox.salesforce import Credentials, Simulator, create
from crm_sync.sandbox.server import Server, control
from crm_sync.sandbox.world import World
from tests.clocks import FakeClock
from tests.sandbox.salesforce_org import contact_id

KNOWN = Credentials()
APP = SalesforceCredentials(consumer_key=KNOWN.consumer_key, consumer_secret=KNOWN.consumer_secret)

CALLS = {
    "login": "POST /services/oauth2/token",
    "describe": "GET /services/data/v<version>/sobjects/<name>/describe",
    "query": "GET /services/data/v<version>/query",
    "queryAll": "GET /services/data/v<version>/queryAll",
    "read": "POST /services/data/v<version>/composite/sobjects/<name>",
    "write": "PATCH /services/data/v<version>/composite/sobjects",
    "composite": "POST /services/data/v<version>/composite",
    "limits": "GET /services/data/v<version>/limits",
    "job": "POST /services/data/v<version>/jobs/ingest",
    "upload": "PUT /services/data/v<version>/jobs/ingest/<job_id>/batches",
    "close": "PATCH /services/data/v<version>/jobs/ingest/<job_id>",
    "poll": "GET /services/data/v<version>/jobs/ingest/<job_id>",
    "results": "GET /services/data/v<version>/jobs/ingest/<job_id>/<kind>",
    "query job": "POST /services/data/v<version>/jobs/query",
    "query poll": "GET /services/data/v<version>/jobs/query/<job_id>",
    "query results": "GET /services/data/v<version>/jobs/query/<job_id>/results",
}


class RunningOrg:
    def __init__(self, server: Server, simulator: Simulator, faults: Faults, traffic: Any) -> None:
        self.url = server.url
        self.simulator = simulator
        self._faults = faults
        self._traffic = traffic
        self.clock = FakeClock()

    def crm(self, credentials: SalesforceCredentials = APP, **more: Any) -> SalesforceCrm:
        return SalesforceCrm(
            **{"name": "salesforce", "url": self.url, "credentials": credentials, "clock": self.clock, **more}
        )

    def spoil(self, call: str, what: str, **more: Any) -> None:
        """A fault at one of CALLS, as POST /_sandbox/faults takes it."""
        self._faults.add([{"call": CALLS[call], "what": what, **more}])

    def forget(self) -> None:
        """Faults, counts of calls and the time that has passed."""
        self._faults.clear()
        self._traffic.clear()
        self.clock = FakeClock()

    def calls(self, call: str) -> int:
        return int(self._traffic.calls().get(CALLS[call], 0))

    @property
    def connections(self) -> int:
        return int(self._traffic.connections)

    def field(self, record_id: str, name: str, object_type: str = "Contact") -> Any:
        return self.simulator.edit(object_type, record_id, {})[name]


@contextmanager
def running_org(contacts: int = 60, **options: Any) -> Iterator[RunningOrg]:
    """`options` go to the sandbox's `create`."""
    app = create(World(7, contacts), **options)
    simulator = app.extensions["simulator"]
    faults = Faults(wordings.salesforce)
    traffic = control(app, simulator, faults)
    server = Server(app).start()
    try:
        yield RunningOrg(server, simulator, faults, traffic)
    finally:
        server.stop()
        simulator.close()


@cache
def key_pair() -> tuple[str, str]:
    """(private, public) PEM."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    public = key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return private.decode(), public.decode()


def retitle(number: int, **values: Value) -> WriteRequest:
    ref = RecordRef(crm="salesforce", object_type="Contact", id=contact_id(number))
    return WriteRequest(ref=ref, values=values or {"Title": "CTO"})
