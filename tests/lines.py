"""What may stand between crm-sync and PostgreSQL: a long line, and a pooler that lends out sessions."""

from __future__ import annotations

import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import parse_qs, urlsplit


def socket_of(url: str) -> str:
    """The path of the server's socket."""
    return f"{parse_qs(urlsplit(url).query)['host'][0]}/.s.PGSQL.5432"


def through(url: str, port: int) -> str:
    """The same database by that port of this machine."""
    parts = urlsplit(url)
    return f"postgresql://{parts.username}:@127.0.0.1:{port}{parts.path}"


class _Listener:
    """Takes connections on a port of its own, each in a thread, until it is closed."""

    def __init__(self, server: str) -> None:
        self.server = server
        self._sockets: list[socket.socket] = []
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listening.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listening.accept()
            except OSError:
                return  # closed
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._sockets.append(client)
            threading.Thread(target=self._serve_one, args=(client,), daemon=True).start()

    def _serve_one(self, client: socket.socket) -> None:
        try:
            self.serve(client)
        except OSError:
            pass  # either side is gone
        finally:
            client.close()

    def serve(self, client: socket.socket) -> None:
        raise NotImplementedError

    def to_server(self) -> socket.socket:
        made = socket.socket(socket.AF_UNIX)
        made.connect(self.server)
        self._sockets.append(made)
        return made

    def close(self) -> None:
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        for each in self._sockets:
            each.close()


class Line(_Listener):
    """Carries bytes to the server and back, each way for `delay_s`, which may be changed meanwhile."""

    delay_s = 0.0

    def serve(self, client: socket.socket) -> None:
        server = self.to_server()
        back = threading.Thread(target=self._carry, args=(server, client), daemon=True)
        back.start()
        self._carry(client, server)
        server.close()

    def _carry(self, source: socket.socket, target: socket.socket) -> None:
        try:
            while data := source.recv(65536):
                time.sleep(self.delay_s)
                target.sendall(data)
        except OSError:
            pass  # the other side is gone


class Pooler(_Listener):
    """As PgBouncer with pool_mode = transaction: a client has a session of the server's for one transaction; the one
    that was given back last is lent first. For clients that ask and wait, all with one user and one database."""

    def __init__(self, server: str) -> None:
        self._free: list[socket.socket] = []
        self._greeting = b""
        self._turn = threading.Lock()
        super().__init__(server)

    def serve(self, client: socket.socket) -> None:
        (size,) = struct.unpack("!i", _exactly(client, 4))
        opening = _exactly(client, size - 4)
        if struct.unpack("!i", opening[:4])[0] == 80877103:  # may we speak TLS?
            client.sendall(b"N")
            (size,) = struct.unpack("!i", _exactly(client, 4))
            opening = _exactly(client, size - 4)
        with self._turn:
            if not self._greeting:
                self._give_back(self._open(opening))
        client.sendall(self._greeting)
        session: socket.socket | None = None
        while True:
            kind, message = _message(client)
            if kind == b"X":
                break
            if session is None:
                session = self._lent(opening)
            session.sendall(message)
            while kind not in (b"Q", b"S"):  # until the client waits for an answer
                kind, message = _message(client)
                session.sendall(message)
            kind = b""
            while kind != b"Z":
                kind, message = _message(session)
                client.sendall(message)
            if message[-1:] == b"I":
                self._give_back(session)
                session = None

    def _open(self, opening: bytes) -> socket.socket:
        made = self.to_server()
        made.sendall(struct.pack("!i", len(opening) + 4) + opening)
        greeting, kind = b"", b""
        while kind != b"Z":
            kind, message = _message(made)
            greeting += message
        self._greeting = greeting
        return made

    def _lent(self, opening: bytes) -> socket.socket:
        with self._turn:
            return self._free.pop() if self._free else self._open(opening)

    def _give_back(self, session: socket.socket) -> None:
        self._free.append(session)


def _message(source: socket.socket) -> tuple[bytes, bytes]:
    head = _exactly(source, 5)
    return head[:1], head + _exactly(source, struct.unpack("!i", head[1:])[0] - 4)


def _exactly(source: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        part = source.recv(size - len(data))
        if not part:
            raise ConnectionResetError
        data += part
    return data


@contextmanager
def a_line(url: str) -> Iterator[Line]:
    made = Line(socket_of(url))
    try:
        yield made
    finally:
        made.close()


@contextmanager
def a_pooler(url: str) -> Iterator[Pooler]:
    made = Pooler(socket_of(url))
    try:
        yield made
    finally:
        made.close()
