"""A small org and a client without a network, for tests of the Salesforce simulator."""

from __future__ import annotations

import base64
from typing import Any

from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from crm_sync.sandbox.salesforce import Credentials, Simulator, create, ids
from crm_sync.sandbox.world import World

VERSION = "62.0"
ROOT = f"/services/data/v{VERSION}"
#: 2026-11-01 12:00 UTC
NOON = 1_793_534_400.0


class FakeClock:
    def __init__(self, seconds: float = NOON) -> None:
        self.seconds = seconds

    def __call__(self) -> float:
        return self.seconds


class OrgClient:
    """One org with `contacts` contacts, logged in; keyword arguments go to `create`."""

    def __init__(self, contacts: int = 400, **options: Any) -> None:
        self.clock = options.setdefault("now", FakeClock())
        self.world = World(7, contacts)
        app = create(self.world, **options)
        app.testing = True
        self.simulator: Simulator = app.extensions["simulator"]
        self.http: FlaskClient = app.test_client()
        self.token = self.login().json["access_token"]

    def login(self) -> TestResponse:
        known = Credentials()
        basic = base64.b64encode(f"{known.consumer_key}:{known.consumer_secret}".encode()).decode()
        return self.http.post(
            "/services/oauth2/token",
            data={"grant_type": "client_credentials"},
            headers={"Authorization": f"Basic {basic}"},
        )

    def call(self, method: str, path: str, *, headers: dict[str, str] | None = None, **more: Any) -> TestResponse:
        bearer = {"Authorization": f"Bearer {self.token}"}
        where = path if path.startswith("/services") else f"{ROOT}/{path}"
        return self.http.open(where, method=method, headers=bearer | (headers or {}), **more)

    def query(self, soql: str, *, all_rows: bool = False, headers: dict[str, str] | None = None) -> TestResponse:
        return self.call("GET", "queryAll" if all_rows else "query", query_string={"q": soql}, headers=headers)

    def rows(self, soql: str, *, all_rows: bool = False) -> list[dict[str, Any]]:
        answer = self.query(soql, all_rows=all_rows)
        assert answer.status_code == 200, answer.text
        assert answer.json["done"], "the test's query fills more than a page"
        return answer.json["records"]

    def update(
        self,
        *records: dict[str, Any],
        object_type: str = "Contact",
        all_or_none: bool = False,
        headers: dict[str, str] | None = None,
    ) -> TestResponse:
        typed = [{"attributes": {"type": object_type}} | record for record in records]
        return self.call(
            "PATCH",
            "composite/sobjects",
            json={"allOrNone": all_or_none, "records": typed},
            headers={"Sforce-Auto-Assign": "FALSE"} | (headers or {}),
        )

    def field(self, record_id: str, name: str, object_type: str = "Contact") -> Any:
        answer = self.call("GET", f"sobjects/{object_type}/{record_id}", query_string={"fields": name})
        assert answer.status_code == 200, answer.text
        return answer.json[name]


def contact_id(index: int) -> str:
    return ids.encode("003", index)


def lead_id(index: int) -> str:
    return ids.encode("00Q", index)


def account_id(index: int) -> str:
    return ids.encode("001", index)
