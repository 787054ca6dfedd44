"""A loopback server that does exactly what a test scripts, down to the bytes and the moment it hangs up."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

Reply = Callable[[socket.socket, bytes], bool]


@dataclass
class Scripted:
    """`connections` counts accepts; `requests` holds each request's bytes as they came."""

    url: str
    connections: int = 0
    requests: list[bytes] = field(default_factory=list)


def answer(body: bytes, *, status: str = "200 OK", headers: str = "", length: int | None = None) -> Reply:
    """Send one answer and keep the connection; `length` may lie."""

    def reply(peer: socket.socket, _request: bytes) -> bool:
        size = len(body) if length is None else length
        peer.sendall(f"HTTP/1.1 {status}\r\ncontent-length: {size}\r\n{headers}\r\n".encode() + body)
        return length is None

    return reply


def hang_up(peer: socket.socket, _request: bytes) -> bool:
    return False


@contextmanager
def scripted_server(*replies: Reply) -> Iterator[Scripted]:
    """Serve one reply per request, the last one for ever; a reply that returns False closes the connection."""
    listener = socket.create_server(("127.0.0.1", 0))
    server = Scripted(url=f"http://127.0.0.1:{listener.getsockname()[1]}")
    lock = threading.Lock()
    peers: list[socket.socket] = []

    def serve(peer: socket.socket) -> None:
        with peer:
            while request := _read_request(peer):
                with lock:
                    server.requests.append(request)
                    reply = replies[min(len(server.requests), len(replies)) - 1]
                try:
                    if not reply(peer, request):
                        return
                except OSError:
                    return  # the client went away first

    def accept() -> None:
        while True:
            try:
                peer, _ = listener.accept()
            except OSError:
                return
            server.connections += 1
            peers.append(peer)
            threading.Thread(target=serve, args=(peer,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield server
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        for peer in peers:
            try:
                peer.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue  # closed already


def _read_request(peer: socket.socket) -> bytes:
    data = b""
    try:
        while b"\r\n\r\n" not in data:
            piece = peer.recv(65536)
            if not piece:
                return b""
            data += piece
        head, _, body = data.partition(b"\r\n\r\n")
        length = 0
        for line in head.split(b"\r\n"):
            name, _, value = line.partition(b":")
            if name.lower() == b"content-length":
                length = int(value)
        while len(body) < length:
            piece = peer.recv(65536)
            if not piece:
                return b""
            body += piece
    except OSError:
        return b""
    return head + b"\r\n\r\n" + body
