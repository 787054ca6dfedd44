"""Who is told, on loopback: a web hook (also one as Slack's) and a mail server that take, refuse, hang or drip."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from email import message_from_bytes
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import StreamRequestHandler, ThreadingTCPServer
from typing import Any


class Hook:
    """`mode`: take | refuse | hang | drip | redirect, for each request from now on; `got`: path and body of each."""

    def __init__(self) -> None:
        self.mode = "take"
        self.got: list[tuple[str, Any]] = []
        self.released = threading.Event()
        hook = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                content = self.rfile.read(int(self.headers.get("Content-Length", "0")))
                hook.got.append((self.path, json.loads(content)))
                if hook.mode == "hang":
                    hook.released.wait(60)
                    return
                if hook.mode == "drip":
                    self.send_response(200)
                    self.send_header("Content-Length", "1000")
                    self.end_headers()
                    while not hook.released.wait(0.05):
                        self.wfile.write(b"x")
                        self.wfile.flush()
                    return
                self.send_response({"take": 200, "refuse": 403, "redirect": 302}[hook.mode])
                if hook.mode == "redirect":
                    self.send_header("Location", "/elsewhere")
                self.send_header("Content-Length", "2")
                self.end_headers()
                self.wfile.write(b"ok")

            def log_message(self, *_: object) -> None: ...

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._server.handle_error = lambda *_: None  # type: ignore[method-assign]
        self.port = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    @property
    def texts(self) -> list[str]:
        """Title and body of each message that was taken over json://."""
        return [f"{body['title']}\n{body['message']}" for _, body in self.got]

    def close(self) -> None:
        self.released.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(10)


class MailServer:
    """`mode`: take | refuse (each recipient) | hang (says nothing); `got`: each message with its recipients."""

    def __init__(self) -> None:
        self.mode = "take"
        self.got: list[tuple[list[str], Message]] = []
        self.released = threading.Event()
        server = self

        class Handler(StreamRequestHandler):
            def handle(self) -> None:
                if server.mode == "hang":
                    server.released.wait(60)
                    return
                self._say("220 here")
                recipients: list[str] = []
                while line := self.rfile.readline():
                    verb = line.strip().upper()
                    if verb.startswith(b"RCPT TO:"):
                        recipients.append(line.decode().partition("<")[2].partition(">")[0])
                        self._say("550 no such mailbox" if server.mode == "refuse" else "250 ok")
                    elif verb == b"DATA":
                        self._say("354 go on")
                        self._take(recipients)
                    elif verb == b"QUIT":
                        self._say("221 bye")
                        return
                    else:
                        self._say("250 ok")

            def _take(self, recipients: list[str]) -> None:
                lines = []
                while (line := self.rfile.readline()) not in (b".\r\n", b""):
                    lines.append(line)
                server.got.append((recipients, message_from_bytes(b"".join(lines))))
                self._say("250 taken")

            def _say(self, text: str) -> None:
                self.wfile.write(f"{text}\r\n".encode())

        class Server(ThreadingTCPServer):
            allow_reuse_address = True
            daemon_threads = True

            def handle_error(self, *_: object) -> None: ...

        self._server = Server(("127.0.0.1", 0), Handler)
        self.port = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    def close(self) -> None:
        self.released.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(10)


@contextmanager
def a_hook() -> Iterator[Hook]:
    made = Hook()
    try:
        yield made
    finally:
        made.close()


@contextmanager
def a_mail_server() -> Iterator[MailServer]:
    made = MailServer()
    try:
        yield made
    finally:
        made.close()


def a_closed_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def wait_for(condition: Any, seconds: float = 10.0) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.01)
