"""Bodies as senders and attackers shape them, against both servers as they are shipped."""

from __future__ import annotations

import gzip
import re
import socket
import time
from collections.abc import Iterator
from contextlib import closing

import pytest

from tests.webhooks.servers import SERVERS, Installation, Served, raw, served
from webhooks.receiver import MAX_BODY

BODY = b'{"status": "success", "people": []}'
CHUNKED = "Transfer-Encoding: chunked"


@pytest.fixture(scope="module", params=SERVERS)
def place(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Served, Installation]]:
    """A server for a module: it keeps nothing of a request but what is in the database."""
    folder = tmp_path_factory.mktemp(request.param)
    with (
        Installation(folder, f"sqlite:///{folder}/crm_sync.db") as installation,
        served(request.param, folder) as server,
    ):
        yield server, installation


@pytest.fixture
def server(place: tuple[Served, Installation]) -> Served:
    return place[0]


@pytest.fixture
def installation(place: tuple[Served, Installation]) -> Installation:
    place[1].begin_anew()
    return place[1]


def request(address: str, *headers: str, body: bytes = b"") -> bytes:
    lines = [f"POST {address} HTTP/1.1", "Host: a", "Connection: close", *headers, "", ""]
    return "\r\n".join(lines).encode() + body


def chunks(body: bytes, size: int) -> bytes:
    parts = [body[start : start + size] for start in range(0, len(body), size)]
    return b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"


def statuses(answer: bytes) -> list[int]:
    return [int(found) for found in re.findall(rb"HTTP/1\.1 (\d{3})", answer)]


@pytest.mark.parametrize("size", [1, 7, 100_000])
def test_a_body_in_chunks_is_kept_whole(server: Served, installation: Installation, size: int) -> None:
    body = BODY * (20_000 if size > 7 else 20)
    body = body[:MAX_BODY]

    answer = raw(server.port, request(installation.address(), CHUNKED, body=chunks(body, size)))

    assert statuses(answer) == [200]
    assert installation.kept() == {body: 1}


@pytest.mark.parametrize("beyond", [1, 1000, 1 << 20, 5 << 20])
@pytest.mark.parametrize("in_chunks", [True, False])
def test_a_body_beyond_the_bound_is_never_cut_to_fit(
    server: Served, installation: Installation, beyond: int, in_chunks: bool
) -> None:
    body = b"x" * (MAX_BODY + beyond)
    address = installation.address()

    if in_chunks:
        answer = raw(server.port, request(address, CHUNKED, body=chunks(body, 60_000)))
    else:
        answer = raw(server.port, request(address, f"Content-Length: {len(body)}", body=body))

    assert statuses(answer) in ([413], [])  # [] where the connection was reset under five megabytes that nobody reads
    assert installation.kept() == {}


def test_whoever_sends_a_little_too_much_still_hears_so(server: Served, installation: Installation) -> None:
    """An answer before the body's end comes with a reset, which a proxy tells its client as 502."""
    body = b"x" * 500_000  # the proxies of deploy/ let it through
    head = request(installation.address(), f"Content-Length: {len(body)}", body=body[:1000])

    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as connection:
        connection.sendall(head)
        time.sleep(0.3)
        connection.sendall(body[1000 : MAX_BODY + 1])
        time.sleep(0.3)
        connection.sendall(body[MAX_BODY + 1 :])
        answer = connection.recv(1000)

    assert statuses(answer) == [413]


def test_what_is_compressed_is_kept_as_it_came(server: Served, installation: Installation) -> None:
    body = gzip.compress(BODY, mtime=0)
    headers = ("Content-Encoding: gzip", f"Content-Length: {len(body)}")

    answer = raw(server.port, request(installation.address(), *headers, body=body))

    assert statuses(answer) == [200]
    assert installation.kept() == {body: 1}


def test_two_lengths_never_make_two_requests(server: Served, installation: Installation) -> None:
    """What follows the body is another request to one who believes the other header."""
    hidden = request(installation.address(), f"Content-Length: {len(BODY)}", body=BODY)
    first = chunks(b"seen", 10)

    by_length = raw(
        server.port,
        request(installation.address(), f"Content-Length: {len(first)}", CHUNKED, body=first).replace(
            b"Connection: close\r\n", b""
        )
        + hidden,
        timeout=3,
    )

    assert statuses(by_length)[:1] in ([200], [400])
    assert BODY not in installation.kept() or len(statuses(by_length)) == 2  # answered as the request of its own it is
    assert set(installation.kept()) <= {b"seen", BODY}


@pytest.mark.parametrize("length", ["-1", "abc", "5, 5", "5, 6", "1e3", "0x5", "+5", " "])
def test_a_length_that_is_none_stores_nothing_wrong(server: Served, installation: Installation, length: str) -> None:
    answer = raw(server.port, request(installation.address(), f"Content-Length: {length}", body=b"12345"))

    assert statuses(answer) in ([400], [200])
    assert set(installation.kept()) <= {b"", b"12345"}


@pytest.mark.parametrize("announced", [len(BODY) + 1, 200_000])
def test_a_body_that_is_shorter_than_announced_is_not_acknowledged(
    server: Served, installation: Installation, announced: int
) -> None:
    with closing(socket.create_connection(("127.0.0.1", server.port), timeout=10)) as connection:
        connection.sendall(request(installation.address(), f"Content-Length: {announced}", body=BODY))
        connection.shutdown(socket.SHUT_WR)
        answer = connection.recv(65536)

    assert 200 not in statuses(answer)
    assert installation.kept() == {}


def test_a_body_that_is_longer_than_announced_is_cut_where_it_was_announced(
    server: Served, installation: Installation
) -> None:
    answer = raw(server.port, request(installation.address(), f"Content-Length: {len(BODY)}", body=BODY + b"GARBAGE"))

    assert statuses(answer)[0] == 200
    assert installation.kept() == {BODY: 1}


@pytest.mark.parametrize(
    "tail", [b"5\r\nabcde\r\n", b"5\r\nabc", b"zz\r\nabcde\r\n0\r\n\r\n", b"-5\r\nabcde\r\n0\r\n\r\n"]
)
def test_chunks_that_do_not_end_or_are_none_are_not_acknowledged(
    server: Served, installation: Installation, tail: bytes
) -> None:
    with closing(socket.create_connection(("127.0.0.1", server.port), timeout=10)) as connection:
        connection.sendall(request(installation.address(), CHUNKED, body=tail))
        connection.shutdown(socket.SHUT_WR)
        answer = b"".join(iter(lambda: connection.recv(65536), b""))

    assert 200 not in statuses(answer)
    assert installation.kept() == {}
