"""The hand-written contract of HubSpot's surface, held against every call a client makes (contracts/hubspot.md 9.3):
one made through urllib3's PoolManager, as hubspot-api-client does, or through our own BoundedSession."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest
import requests
import urllib3
from openapi_core import OpenAPI
from openapi_core.testing import MockRequest, MockResponse
from werkzeug.datastructures import ImmutableMultiDict

from adapters.http import BoundedSession

CONTRACT = Path(__file__).parents[3] / "shared" / "contracts" / "hubspot.openapi.json"


def contract(url: str) -> OpenAPI:
    """The contract for the service at `url`. A missing file is a failure, never a skip."""
    if not CONTRACT.is_file():
        pytest.fail("hubspot.openapi.json is missing: it is expected in ../shared/contracts beside the repository")
    content = json.loads(CONTRACT.read_text())
    content["servers"] = [{"url": url}]
    return OpenAPI.from_dict(content)


class Watched:
    """The calls seen so far, as "POST /path" -> status, all of them within the contract both ways."""

    def __init__(self, openapi: OpenAPI) -> None:
        self.calls: list[tuple[str, int]] = []
        self._openapi = openapi

    def request(self, method: str, url: str, body: Any, headers: Any) -> MockRequest:
        """
        Raises:
            OpenAPIError: what goes out breaks the contract; it has not been sent.
        """
        parts = urlsplit(url)
        sent = MockRequest(
            host_url=f"{parts.scheme}://{parts.netloc}",
            method=method,
            path=parts.path,
            headers=dict(headers or {}),
            data=body.encode() if isinstance(body, str) else body,
            content_type=dict(headers or {}).get("Content-Type", "application/json"),
        )
        sent.parameters.query = ImmutableMultiDict(parse_qsl(parts.query, keep_blank_values=True))
        self._openapi.validate_request(sent)
        return sent

    def response(self, sent: MockRequest, status: int, data: bytes, headers: Any) -> None:
        """
        Raises:
            OpenAPIError: the answer breaks the contract.
        """
        self.calls.append((f"{sent.method.upper()} {sent.path}", status))
        received = MockResponse(
            data, status_code=status, headers=dict(headers), content_type=headers.get("Content-Type", "")
        )
        self._openapi.validate_response(sent, received)


@contextmanager
def watching(url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Watched]:
    """Check each request before it leaves the process, and each answer before the client sees it."""
    watched = Watched(contract(url))
    urlopen = urllib3.PoolManager.urlopen

    def checked(self: urllib3.PoolManager, method: str, url: str, **more: Any) -> Any:
        sent = watched.request(method, url, more.get("body"), more.get("headers"))
        response = urlopen(self, method, url, **more)
        watched.response(sent, response.status, response.data, response.headers)
        return response

    send = BoundedSession.send

    def checked_too(self: BoundedSession, request: requests.PreparedRequest, **more: Any) -> requests.Response:
        sent = watched.request(str(request.method), str(request.url), request.body, request.headers)
        response = send(self, request, **more)
        watched.response(sent, response.status_code, response.content, response.headers)
        return response

    with monkeypatch.context() as patched:
        patched.setattr(urllib3.PoolManager, "urlopen", checked)
        patched.setattr(BoundedSession, "send", checked_too)
        yield watched
