"""Those who send a byte now and then take no place from a genuine delivery."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from tests.webhooks.servers import Installation, post, served

#: Each of both kinds; the goal is 300 (SLOW_SENDERS=300), of which the drill takes a minute.
MANY = int(os.environ.get("SLOW_SENDERS", "100"))


@contextmanager
def slow(port: int, beginning: bytes, more: bytes, many: int) -> Iterator[None]:
    """Connections that have sent `beginning` and go on with `more`, a piece a second each."""
    is_over = threading.Event()
    with ExitStack() as stack:
        connections = []
        for _ in range(many):
            connection = stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=10))
            connection.sendall(beginning)
            connections.append(connection)

        def drip() -> None:
            while not is_over.wait(1):
                for each in connections:
                    each.sendall(more)

        thread = threading.Thread(target=drip)
        thread.start()
        try:
            yield
        finally:
            is_over.set()
            thread.join()


def test_a_genuine_delivery_is_stored_among_slow_senders(installation: Installation) -> None:
    address = installation.address()
    body = f"POST {address} HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n".encode()
    with (
        served("waitress", installation.folder) as server,
        slow(server.port, b"POST /webhooks/apollo/x HTTP/1.1\r\nHost: a\r\n", b"X-A: b\r\n", MANY),
        slow(server.port, body, b"x", MANY),
    ):
        time.sleep(MANY / 50)

        is_alive = server.is_alive(timeout=2)
        status = post(server.port, address, b"genuine", timeout=5)

    assert is_alive
    assert status == 200
    assert installation.kept() == {b"genuine": 1}
