"""A small HubSpot account and a client without a network, for tests of its simulator."""

from __future__ import annotations

from typing import Any

from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from crm_sync.sandbox.hubspot import TOKEN, create
from crm_sync.sandbox.hubspot.portal import FIRST_ID
from crm_sync.sandbox.hubspot.simulator import Simulator
from crm_sync.sandbox.world import World

CONTACTS = "/crm/v3/objects/contacts"
COMPANIES = "/crm/v3/objects/companies"
#: 2026-11-02 12:00 UTC
NOON = 1_793_620_800.0


class Clock:
    def __init__(self, seconds: float = NOON) -> None:
        self.seconds = seconds

    def __call__(self) -> float:
        return self.seconds

    def forward(self, seconds: float) -> None:
        self.seconds += seconds


class Account:
    """One account with `contacts` contacts, without limits and index lag unless the options for `create` ask for it."""

    def __init__(self, contacts: int = 400, *, tidy: bool = False, **options: Any) -> None:
        self.clock: Clock = options.setdefault("now", Clock())
        self.world = World(7, contacts, tidy=tidy)
        free = {"burst": None, "daily": None, "searches_per_s": None, "lag_s": 0.0}
        app = create(self.world, **{**free, **options})
        app.testing = True
        self.simulator: Simulator = app.extensions["simulator"]
        self.http: FlaskClient = app.test_client()
        self.token = TOKEN

    def call(self, method: str, path: str, *, headers: dict[str, str] | None = None, **more: Any) -> TestResponse:
        return self.http.open(
            path, method=method, headers={"Authorization": f"Bearer {self.token}"} | (headers or {}), **more
        )

    def get(self, path: str, **query: Any) -> TestResponse:
        return self.call("GET", path, query_string=query)

    def search(self, *filters: dict[str, Any], path: str = CONTACTS, **body: Any) -> TestResponse:
        """`filters` make one group; give filterGroups for more."""
        if filters:
            body["filterGroups"] = [{"filters": list(filters)}]
        return self.call("POST", f"{path}/search", json=body)

    def found(self, *filters: dict[str, Any], path: str = CONTACTS, **body: Any) -> list[str]:
        """Ids of the first 200 at most, in the order of the answer."""
        answer = self.search(*filters, path=path, **{"limit": 200, **body})
        assert answer.status_code == 200, answer.text
        return [record["id"] for record in answer.get_json()["results"]]

    def read(self, *ids: str, path: str = CONTACTS, **body: Any) -> TestResponse:
        return self.call("POST", f"{path}/batch/read", json={"inputs": [{"id": each} for each in ids], **body})

    def update(self, *inputs: dict[str, Any], path: str = CONTACTS) -> TestResponse:
        return self.call("POST", f"{path}/batch/update", json={"inputs": list(inputs)})

    def value(self, record_id: str, name: str, path: str = CONTACTS) -> str | None:
        answer = self.get(f"{path}/{record_id}", properties=name)
        assert answer.status_code == 200, answer.text
        found: str | None = answer.get_json()["properties"][name]
        return found


def contact_id(index: int) -> str:
    return str(FIRST_ID["contacts"] + index)


def company_id(index: int) -> str:
    return str(FIRST_ID["companies"] + index)


def a_filter(name: str, operator: str, *values: str, high: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {"propertyName": name, "operator": operator}
    if operator in ("IN", "NOT_IN"):
        return found | {"values": list(values)}
    if values:
        found["value"] = values[0]
    return found | ({"highValue": high} if high else {})


def an_input(record_id: str, *, trace: str | None = None, **properties: str | None) -> dict[str, Any]:
    traced = {} if trace is None else {"objectWriteTraceId": trace}
    return {"id": record_id, "properties": properties, **traced}
