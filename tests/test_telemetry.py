"""What reaches Sentry: kind, place and ids; nothing of people and keys. By the real library, against a server of ours."""

from __future__ import annotations

import gzip
import json
import logging
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from crm_sync import telemetry
from crm_sync.errors import ConfigError, StoreError
from crm_sync.log_ids import log_ids

sentry_sdk = pytest.importorskip("sentry_sdk", reason="SENTRY-SDK IS NOT INSTALLED: reports were not tried")
_log = logging.getLogger("crm_sync.test")


class Sentry:
    def __init__(self) -> None:
        self.bodies: list[bytes] = []
        sentry = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
                sentry.bodies.append(gzip.decompress(body) if self.headers.get("Content-Encoding") == "gzip" else body)
                self.send_response(200)
                self.send_header("Content-Length", "2")
                self.end_headers()
                self.wfile.write(b"{}")

            def log_message(self, *_: object) -> None: ...

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()

    @property
    def dsn(self) -> str:
        return f"http://publickey@127.0.0.1:{self.server.server_address[1]}/1"

    @property
    def events(self) -> list[dict[str, Any]]:
        sentry_sdk.flush(5)
        return [json.loads(body.split(b"\n")[2]) for body in self.bodies]


@pytest.fixture
def sentry() -> Iterator[Sentry]:
    made = Sentry()
    try:
        yield made
    finally:
        sentry_sdk.get_client().close()
        sentry_sdk.init()
        made.server.shutdown()
        made.server.server_close()


def test_an_error_is_reported_by_kind_place_and_ids(sentry: Sentry) -> None:
    telemetry.report_to(sentry.dsn)
    somebody = "Ada Lovelace"
    _log.info("the one before was about ada@lovelace.example")
    with log_ids(run="r1", sync="contacts"):
        try:
            raise ValueError(somebody)
        except ValueError:
            _log.exception("unforeseen with ada@lovelace.example, api_key=abcdef")

    [event] = sentry.events
    [error] = event["exception"]["values"]
    assert (error["type"], error["value"]) == ("ValueError", "")
    assert error["stacktrace"]["frames"][-1]["function"] == "test_an_error_is_reported_by_kind_place_and_ids"
    assert event["tags"] == {"run": "r1", "sync": "contacts"}
    assert event["logentry"] == {"message": "unforeseen with (an address), api_key=…"}
    whole = b"".join(sentry.bodies).decode()
    for canary in ("Ada", "lovelace", "abcdef", "somebody"):
        assert canary not in whole


def test_what_our_own_errors_say_is_reported_clean(sentry: Sentry) -> None:
    telemetry.report_to(sentry.dsn)
    try:
        raise StoreError("The disk is full at ada@lovelace.example")
    except StoreError:
        _log.exception("x")

    [event] = sentry.events
    assert event["exception"]["values"][-1]["value"] == "The disk is full at (an address)"


def test_warnings_are_not_reported(sentry: Sentry) -> None:
    telemetry.report_to(sentry.dsn)
    _log.warning("deliveries wait")

    assert sentry.events == []


def test_an_address_that_is_none_is_refused_and_not_repeated() -> None:
    with pytest.raises(ConfigError) as refused:
        telemetry.report_to("SECRET")

    assert "CRM_SYNC_SENTRY_DSN is no address of Sentry's" in str(refused.value)
    assert "SECRET" not in str(refused.value)
