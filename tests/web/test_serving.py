"""The web application on waitress: it stops without dropping what is under way, and tells nobody what it is made of."""

from __future__ import annotations

import resource
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from http.client import HTTPConnection
from pathlib import Path

import pytest
from flask import Blueprint, Flask, Response, request

from crm_sync.web import create_app
from crm_sync.web.serving import WebServer
from tests.webhooks.servers import Installation, served


@contextmanager
def running(app: Flask, **more: int) -> Iterator[tuple[WebServer, threading.Thread]]:
    server = WebServer(app, host="127.0.0.1", port=0, threads=4, **more)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        yield server, thread
    finally:
        server.stop()
        thread.join(20)
        assert not thread.is_alive()


def an_app(view: Callable[[], Response], **more: int) -> Flask:
    blueprint = Blueprint("test", __name__)
    blueprint.add_url_rule("/webhooks/apollo/view", view_func=view, methods=["GET", "POST"])
    return create_app(check_ready=lambda: None, receiver=blueprint, **more)


def get(port: int, path: str, headers: dict[str, str] | None = None) -> tuple[int, bytes, dict[str, str]]:
    with closing(HTTPConnection("127.0.0.1", port, timeout=15)) as connection:
        connection.request("GET", path, headers=headers or {})
        answer = connection.getresponse()
        return answer.status, answer.read(), dict(answer.getheaders())


def test_a_stop_waits_for_what_is_under_way_and_takes_nothing_new() -> None:
    is_in, may_go = threading.Event(), threading.Event()

    def view() -> Response:
        is_in.set()
        may_go.wait(10)
        return Response("done")

    answers: list[bytes] = []
    with running(an_app(view)) as (server, thread):
        port = server.port
        asking = threading.Thread(target=lambda: answers.append(get(port, "/webhooks/apollo/view")[1]))
        asking.start()
        assert is_in.wait(10)

        server.stop()
        refused = _until_refused(port)
        may_go.set()
        asking.join(10)
        thread.join(10)

    assert refused
    assert answers == [b"done"]


def _until_refused(port: int) -> bool:
    until = time.monotonic() + 5
    while time.monotonic() < until:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except ConnectionRefusedError:
            return True
        time.sleep(0.02)
    return False


def test_a_stop_does_not_wait_for_connections_that_ask_nothing() -> None:
    with running(an_app(lambda: Response("x"))) as (server, thread), ExitStack() as stack:
        for _ in range(5):
            connection = stack.enter_context(closing(HTTPConnection("127.0.0.1", server.port, timeout=10)))
            connection.request("GET", "/healthz")
            connection.getresponse().read()

        began = time.monotonic()
        server.stop()
        thread.join(20)
        took = time.monotonic() - began

    assert took < 4  # half of what it gives to requests that are under way


def test_a_request_that_does_not_end_does_not_keep_it_from_stopping(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("crm_sync.web.serving._GRACE_S", 0.5)
    with (
        running(an_app(lambda: Response("x"))) as (server, thread),
        closing(socket.create_connection(("127.0.0.1", server.port), timeout=10)) as slow,
    ):
        slow.sendall(b"POST /webhooks/apollo/view HTTP/1.1\r\nHost: a\r\n")
        get(server.port, "/healthz")

        server.stop()
        thread.join(20)

        assert not thread.is_alive()


def test_a_signal_ends_the_process_well(tmp_path: Path) -> None:
    with Installation(tmp_path, f"sqlite:///{tmp_path}/crm_sync.db"), served("waitress", tmp_path) as server:
        assert server.stop() == 0, server.log.read_text()


def test_a_port_that_is_taken_is_told_at_once() -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as taken, pytest.raises(OSError, match="in use"):
        WebServer(an_app(lambda: Response("x")), host="127.0.0.1", port=taken.getsockname()[1])


def test_more_connections_than_select_can_count() -> None:
    """select() ends a server at file number 1024."""
    if resource.getrlimit(resource.RLIMIT_NOFILE)[1] < 4000:
        pytest.skip("THIS USER MAY NOT OPEN 4,000 FILES: the poll of many connections was not tried")
    with running(an_app(lambda: Response("x"))) as (server, _), ExitStack() as stack:
        resource.setrlimit(resource.RLIMIT_NOFILE, (4000, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
        for _ in range(1100):
            stack.enter_context(closing(socket.create_connection(("127.0.0.1", server.port), timeout=20)))

        assert get(server.port, "/healthz")[0] == 200


def test_an_error_of_ours_tells_nothing_of_itself(caplog: pytest.LogCaptureFixture) -> None:
    def view() -> Response:
        raise ValueError("of /webhooks/apollo/a-secret")

    with running(an_app(view)) as (server, _):
        status, body, headers = get(server.port, "/webhooks/apollo/view")

    assert status == 500
    assert b"ValueError" not in body
    assert "Server" not in headers
    assert "ValueError" in caplog.text
    assert "a-secret" not in caplog.text
    assert "/webhooks/apollo/…" in caplog.text


@pytest.mark.parametrize(
    ("trusted", "seen"),
    [(0, "127.0.0.1 http"), (1, "203.0.113.2 https"), (2, "203.0.113.1 http"), (3, "127.0.0.1 http")],
)
def test_forwarded_headers_are_believed_of_so_many_proxies_only(trusted: int, seen: str) -> None:
    app = an_app(lambda: Response(f"{request.remote_addr} {request.scheme}"), trusted_proxies=trusted)
    forwarded = {"X-Forwarded-For": "203.0.113.1, 203.0.113.2", "X-Forwarded-Proto": "http, https"}

    with running(app, trusted_proxies=trusted) as (server, _):
        assert get(server.port, "/webhooks/apollo/view", forwarded)[1].decode() == seen
