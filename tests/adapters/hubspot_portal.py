"""A few contacts behind real HTTP, to see exactly what HubSpotCrm sends and how it takes odd answers.

Written from contracts/hubspot.md; the strict, large one is crm_sync/sandbox/hubspot.
"""

from __future__ import annotations

import json
import socket
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, urlsplit

import orjson

from tests.adapters.hubspot_schema import CONTACTS
from tests.adapters.scripted_server import scripted_server

#: A request as a test looks at it.
Headers = dict[str, str]


@dataclass
class Seen:
    method: str
    path: str
    query: dict[str, list[str]]
    headers: Headers
    text: str

    @property
    def body(self) -> Any:
        return orjson.loads(self.text) if self.text else None


#: What happens instead of the answer: (status, headers, body), or None for the answer.
Trick = Callable[[Seen], tuple[int, Headers, bytes] | None]


@dataclass
class Portal:
    """`records`: id -> properties. `tricks` are used up one per call whose path ends with their key."""

    records: dict[int, dict[str, str | None]] = field(default_factory=dict)
    merged: dict[int, int] = field(default_factory=dict)
    headers: Headers = field(default_factory=dict)
    tricks: dict[str, list[Trick]] = field(default_factory=dict)
    seen: list[Seen] = field(default_factory=list)
    token: str = "pat-test"
    token_lives_s: int = 1800
    tokens_given: int = 0
    url: str = ""

    def calls(self) -> Counter[str]:
        return Counter(seen.path for seen in self.seen)

    def last(self, ending: str) -> Seen:
        return [seen for seen in self.seen if seen.path.endswith(ending)][-1]

    def play(self, ending: str, *tricks: Trick) -> None:
        self.tricks.setdefault(ending, []).extend(tricks)

    # --- answers

    def answer(self, seen: Seen) -> tuple[int, Headers, bytes]:
        self.seen.append(seen)
        for ending, tricks in self.tricks.items():
            if seen.path.endswith(ending) and tricks:
                played = tricks.pop(0)(seen)
                if played is not None:
                    return played
        if seen.path == "/oauth/v1/token":
            self.tokens_given += 1
            self.token = f"at-{self.tokens_given}"
            return _json(200, {"access_token": self.token, "expires_in": self.token_lives_s})
        if seen.headers.get("authorization") != f"Bearer {self.token}":
            return _json(
                401, {"status": "error", "message": "expired 7 second(s) ago", "category": "EXPIRED_AUTHENTICATION"}
            )
        status, body = self._route(seen)
        return _json(status, body, {} if seen.path.endswith("/search") else self.headers)

    def _route(self, seen: Seen) -> tuple[int, Any]:
        kind = seen.path.rsplit("/", 1)[-1]
        if seen.path.startswith("/crm/v3/properties/"):
            return 200, {"results": CONTACTS}
        if seen.path.startswith("/account-info/"):
            return 200, {"portalId": 4711, "uiDomain": "app-eu1.hubspot.com"}
        if kind == "search":
            return self._search(seen)
        if kind == "read":
            return self._read(seen.body)
        if kind == "update":
            return 200, {"status": "COMPLETE", "results": [self._written(one) for one in seen.body["inputs"]]}
        if kind.isdecimal():
            found = self.raw(int(kind), seen.query["properties"])
            return (200, found) if found else (404, {"status": "error", "message": "resource not found"})
        return self._list(seen)

    def raw(self, record_id: int, properties: list[str]) -> dict[str, Any] | None:
        record_id = self.merged.get(record_id, record_id)
        held = self.records.get(record_id)
        if held is None:
            return None
        wanted = {name: held.get(name) for name in properties}
        return {"id": str(record_id), "properties": wanted | {"hs_object_id": str(record_id)}, "archived": False}

    def _search(self, seen: Seen) -> tuple[int, Any]:
        body = seen.body
        groups = body["filterGroups"]
        too_big = len(groups) > 5 or sum(len(g["filters"]) for g in groups) > 18 or len(seen.text) > 3_000
        if too_big or any(len(g["filters"]) > 6 for g in groups) or "after" in body:
            return 400, {"status": "error", "message": "too many filters", "category": "VALIDATION_ERROR"}
        found = [i for i in sorted(self.records) if any(self._all(i, g["filters"]) for g in groups)]
        page = [self.raw(i, body["properties"]) for i in found[: body["limit"]]]
        return 200, {"total": len(found), "results": page}

    def _all(self, record_id: int, filters: list[dict[str, Any]]) -> bool:
        return all(self._holds(record_id, each) for each in filters)

    def _holds(self, record_id: int, each: dict[str, Any]) -> bool:
        name, operator = each["propertyName"], each["operator"]
        value = str(record_id) if name == "hs_object_id" else self.records[record_id].get(name)
        if operator == "NOT_HAS_PROPERTY":
            return not value
        if not value:
            return False
        if operator == "IN":
            return value.lower() in each["values"]
        if operator == "GT":
            return int(value) > int(each["value"])
        return operator == "HAS_PROPERTY" or value.lower() == each["value"].lower()

    def _read(self, body: Any) -> tuple[int, Any]:
        asked = [int(one["id"]) for one in body["inputs"]]
        found = [raw for i in reversed(asked) if (raw := self.raw(i, body["properties"]))]
        gone = [str(i) for i in asked if self.raw(i, []) is None]
        answer: dict[str, Any] = {"status": "COMPLETE", "results": found}
        if not gone:
            return 200, answer
        entry = {"status": "error", "category": "OBJECT_NOT_FOUND", "message": "gone", "context": {"ids": gone}}
        return 207, {**answer, "numErrors": 1, "errors": [entry]}

    def _written(self, one: dict[str, Any]) -> dict[str, Any]:
        self.records[int(one["id"])].update(one["properties"])
        return {"id": one["id"], "properties": dict(one["properties"]), "archived": False}

    def _list(self, seen: Seen) -> tuple[int, Any]:
        first, limit = int(seen.query.get("after", ["0"])[0]), int(seen.query["limit"][0])
        ids = [i for i in sorted(self.records) if i >= first]
        body: dict[str, Any] = {"results": [self.raw(i, seen.query["properties"]) for i in ids[:limit]]}
        if len(ids) > limit:
            body["paging"] = {"next": {"after": str(ids[limit])}}
        return 200, body


def _json(status: int, body: Any, headers: Headers | None = None) -> tuple[int, Headers, bytes]:
    return status, {"content-type": "application/json", **(headers or {})}, json.dumps(body).encode()


def status(code: int, body: Any = None, **headers: str) -> Trick:
    """Answer with this status; bytes as they are, all else as JSON."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    if isinstance(body, bytes):
        return lambda _seen: (code, named, body)
    return lambda _seen: _json(code, body or {"status": "error", "message": "no"}, named)


def hang_up(_seen: Seen) -> tuple[int, Headers, bytes]:
    return 0, {}, b""


def cut(_seen: Seen) -> tuple[int, Headers, bytes]:
    return 200, {"content-length": "1000"}, b'{"results": [{"id": "1", "pro'


@contextmanager
def a_portal(**settings: Any) -> Iterator[Portal]:
    portal = Portal(**settings)

    def reply(peer: socket.socket, request: bytes) -> bool:
        head, _, body = request.partition(b"\r\n\r\n")
        line, *lines = head.decode().split("\r\n")
        method, target, _ = line.split(" ")
        parts = urlsplit(target)
        headers = {name.lower(): value.strip() for name, _, value in (each.partition(":") for each in lines)}
        code, more, data = portal.answer(Seen(method, parts.path, parse_qs(parts.query), headers, body.decode()))
        if not code:
            return False
        sent = {"content-length": str(len(data)), **more}
        text = "".join(f"{name}: {value}\r\n" for name, value in sent.items())
        peer.sendall(f"HTTP/1.1 {code} x\r\n{text}\r\n".encode() + data)
        return sent["content-length"] == str(len(data))

    with scripted_server(reply) as server:
        portal.url = server.url
        yield portal
