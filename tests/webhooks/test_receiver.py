"""The receiver behind a real server: what it answers, and what it keeps before it does."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import closing
from datetime import datetime
from urllib.parse import quote, urlsplit

import pytest
import requests

from crm_sync.errors import StoreError
from crm_sync.sandbox.server import Server
from crm_sync.store.deliveries import MOST_BODIES, Deliveries
from crm_sync.store.engine import Store
from crm_sync.store.hook_tokens import LIVES_FOR, HookTokens, new_order_id
from crm_sync.store.vault import Master
from crm_sync.web import create_app
from tests.factories import NOON, a_vault
from webhooks.receiver import MAX_BODY, receiver

BODY = b'{"status": "success", "people": []}'


class Post:
    """The receiver on a port of this machine."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.inbox = Deliveries(store, a_vault(store))
        self.tokens = HookTokens((Master.of("a secret of the tests, long enough"),), lambda: "here")
        self.now = NOON
        self.broken = False
        blueprint = receiver(read_token=self.read, inbox=self.box, now=lambda: self.now)
        self.server = Server(create_app(check_ready=lambda: None, receiver=blueprint)).start()
        self.url = self.server.url

    def read(self, token: str) -> str | None:
        return self.tokens.read(token, now=self.now)

    def box(self) -> Deliveries:
        if self.broken:
            raise StoreError("the disk is full")
        return self.inbox

    def order(self, at: datetime = NOON) -> str:
        order = new_order_id()
        self.inbox.open_order(order, now=at)
        self.inbox.sent(order)
        return order

    def address(self) -> str:
        return f"/webhooks/apollo/{self.tokens.make(self.order(), now=NOON)}"

    def deliver(self, path: str, body: bytes = BODY) -> requests.Response:
        return requests.post(f"{self.url}{path}", data=body, timeout=10, allow_redirects=False)

    def raw(self, request: bytes) -> bytes:
        """What is answered to these bytes."""
        place = urlsplit(self.url)
        with closing(socket.create_connection((place.hostname or "", place.port or 0), timeout=10)) as connection:
            connection.sendall(request)
            connection.shutdown(socket.SHUT_WR)
            answer = b""
            while part := connection.recv(65536):
                answer += part
        return answer

    def kept(self) -> list[bytes]:
        from sqlalchemy import select

        from crm_sync.store.tables import deliveries

        with self.store.read() as connection:
            ids = connection.execute(select(deliveries.c.id).order_by(deliveries.c.id)).scalars().all()
        return [self.inbox.body(each) for each in ids]


@pytest.fixture
def post(sqlite_store: Store) -> Iterator[Post]:
    post = Post(sqlite_store)
    yield post
    post.server.stop()


def test_a_delivery_is_kept_and_acknowledged_and_its_double_too(post: Post) -> None:
    address = post.address()

    answers = [post.deliver(address), post.deliver(address), post.deliver(quote(address))]

    assert [(each.status_code, each.content) for each in answers] == [(200, b"")] * 3
    assert post.kept() == [BODY]


@pytest.mark.parametrize(
    "body", [b"", b"\0", b"\xff\xfe", b"[" * 100_000, b"{" * 3, b"NaN", "[\ud800]".encode("utf-8", "surrogatepass")]
)
def test_what_cannot_be_read_is_kept_as_it_is(post: Post, body: bytes) -> None:
    assert post.deliver(post.address(), body).status_code == 200
    assert post.kept() == [body]


def test_everything_else_gets_one_and_the_same_answer(post: Post) -> None:
    address = post.address()
    expired = f"/webhooks/apollo/{post.tokens.make(post.order(), now=NOON - LIVES_FOR)}"
    stranger = f"/webhooks/apollo/{post.tokens.make(new_order_id(), now=NOON)}"
    paths = [
        "/webhooks", "/webhooks/", "/webhooks/apollo", "/webhooks/apollo/", "/webhooks/apollo/v1_x", expired, stranger,
        f"{address}/", f"{address}?a=b", f"{address}0", address.replace("apollo", "hubspot"), f"/webhooks/{'x' * 5000}",
        "/webhooks//apollo/x", address.replace("/webhooks/", "/webhooks//"), "/webhooks/apollo/../apollo/x",
    ]  # fmt: skip

    answers = {(a.status_code, a.content, a.headers["Content-Type"]) for a in map(post.deliver, paths)}
    others = {
        (answer.status_code, answer.content)
        for method in ("GET", "PUT", "PATCH", "DELETE", "OPTIONS")
        for answer in [requests.request(method, f"{post.url}{address}", data=BODY, timeout=10, allow_redirects=False)]
    }

    assert answers == {(404, b"not found\n", "text/plain; charset=utf-8")}
    assert others == {(404, b"not found\n")}
    assert post.kept() == []


def test_a_body_beyond_the_bound_is_refused_whole_also_in_chunks(post: Post) -> None:
    address, exact = post.address(), post.address()
    large = b"x" * (MAX_BODY + 1)

    plain = post.deliver(address, large)
    chunked = requests.post(f"{post.url}{address}", data=iter([large[:1000], large[1000:]]), timeout=10)
    fitting = requests.post(f"{post.url}{exact}", data=iter([large[:7], large[7:-1]]), timeout=10)

    assert (plain.status_code, chunked.status_code, fitting.status_code) == (413, 413, 200)
    assert post.kept() == [large[:-1]]


def test_a_body_that_breaks_off_is_not_acknowledged(post: Post) -> None:
    address = post.address()
    head = f"POST {address} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n"

    short = post.raw(f"{head}Content-Length: 500\r\n\r\n".encode() + BODY)
    unfinished = post.raw(f"{head}Transfer-Encoding: chunked\r\n\r\n5\r\nabcde\r\n".encode())

    assert b"200 OK" not in short
    assert b"200 OK" not in unfinished
    assert post.kept() == []


def test_a_database_that_does_not_take_it_asks_to_come_again(post: Post) -> None:
    address = post.address()
    post.broken = True

    answer = post.deliver(address)
    post.broken = False

    assert answer.status_code == 503
    assert int(answer.headers["Retry-After"]) > 0
    assert answer.content == b""
    assert post.deliver(address).status_code == 200
    assert post.kept() == [BODY]


def test_a_leaked_token_cannot_fill_the_disk(post: Post) -> None:
    address = post.address()

    answers = [post.deliver(address, b"%d" % number).status_code for number in range(MOST_BODIES + 2)]

    assert answers == [200] * MOST_BODIES + [429] * 2
    assert post.deliver(post.address()).status_code == 200
