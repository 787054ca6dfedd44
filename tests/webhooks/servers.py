"""The web application behind real servers, each in a process of its own, and orders whose callbacks they take."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from http.client import HTTPConnection
from pathlib import Path

import psutil
from sqlalchemy import func, select

from crm_sync.bootstrap import App
from crm_sync.store.hook_tokens import new_order_id
from crm_sync.store.tables import deliveries
from tests.factories import SECRET_KEY

ROOT = Path(__file__).parents[2]
SERVERS = ("waitress", "gunicorn")


class Installation:
    """A folder with an .env in which a server of ours begins, and what its database holds."""

    def __init__(self, folder: Path, database_url: str) -> None:
        self.folder = folder
        self._before = 0
        env = folder / ".env"
        env.write_text(
            f"CRM_SYNC_DATABASE_URL={database_url}\nCRM_SYNC_SECRET_KEY={SECRET_KEY}\n"
            f"CRM_SYNC_STATE_FILE={folder / 'crm_sync.instance'}\n"
        )
        self.app = App(env_file=env)
        self.app.vault  # noqa: B018 - the schema and the keys are there before several processes ask for them

    def __enter__(self) -> Installation:
        return self

    def __exit__(self, *_: object) -> None:
        self.app.close()

    def begin_anew(self) -> None:
        """What came until now is no longer counted as kept."""
        self._before = self._newest()

    def order(self) -> str:
        order = new_order_id()
        self.app.deliveries.open_order(order, now=self.app.clock.now())
        self.app.deliveries.sent(order)
        return order

    def token(self, order: str | None = None) -> str:
        return self.app.hook_tokens.make(order or self.order(), now=self.app.clock.now())

    def address(self, order: str | None = None) -> str:
        return f"/webhooks/apollo/{self.token(order)}"

    def kept(self) -> Counter[bytes]:
        """How often each body is in the database."""
        with self.app.store.read() as connection:
            ids = connection.execute(select(deliveries.c.id).where(deliveries.c.id > self._before)).scalars().all()
        return Counter(self.app.deliveries.body(each) for each in ids)

    def _newest(self) -> int:
        with self.app.store.read() as connection:
            return connection.execute(select(func.max(deliveries.c.id))).scalar() or 0


class Served:
    """One server on one port of this machine, which may be killed and started again."""

    def __init__(
        self, server: str, folder: Path, *, app: str = "wsgi:app", more: Sequence[str] = (),
        settings: Mapping[str, str] | None = None,
    ) -> None:  # fmt: skip
        self.folder = folder
        self.port = free_port()
        self.log = folder / f"{server}.log"
        if server == "waitress":
            self.command = [sys.executable, "-m", "tests.webhooks.waitress_server", app, str(self.port)]
        else:
            conf = ROOT / "deploy" / "gunicorn.conf.py"
            bind = f"127.0.0.1:{self.port}"
            self.command = [sys.executable, "-m", "gunicorn", "-c", str(conf), "-b", bind, *more, app]
        clean = {name: value for name, value in os.environ.items() if not name.startswith("CRM_SYNC_")}
        self.environment = {**clean, "PYTHONPATH": str(ROOT), **(settings or {})}
        self._child: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> Served:
        with self.log.open("ab") as log:
            self._child = subprocess.Popen(
                self.command, cwd=self.folder, env=self.environment, stdout=log, stderr=log, start_new_session=True
            )
        until = time.monotonic() + 60
        while not self.is_alive():
            if time.monotonic() > until or self._child.poll() is not None:
                raise RuntimeError(f"the server did not start:\n{self.log.read_text()[-3000:]}")
            time.sleep(0.05)
        return self

    def is_alive(self, timeout: float = 5) -> bool:
        with closing(HTTPConnection("127.0.0.1", self.port, timeout=timeout)) as connection:
            try:
                connection.request("GET", "/healthz")
                return connection.getresponse().status == 200
            except OSError:
                return False

    def processes(self) -> list[psutil.Process]:
        assert self._child is not None
        master = psutil.Process(self._child.pid)
        return [master, *master.children(recursive=True)]

    def kill(self) -> None:
        """kill -9, for all its processes at once; the same port is free for the next start."""
        assert self._child is not None
        os.killpg(self._child.pid, signal.SIGKILL)  # our own session: nobody else's process is in it
        self._child.wait(30)

    def stop(self) -> int:
        """SIGTERM; returns the exit code."""
        assert self._child is not None
        if self._child.poll() is None:
            self._child.terminate()
        return self._child.wait(60)


@contextmanager
def served(server: str, folder: Path, **more: object) -> Iterator[Served]:
    made = Served(server, folder, **more)  # type: ignore[arg-type]
    made.start()
    try:
        yield made
    finally:
        if made._child is not None and made._child.poll() is None:
            made.stop()


def post(port: int, path: str, body: bytes, *, timeout: float = 10) -> int:
    """The status of one POST over a connection of its own."""
    with closing(HTTPConnection("127.0.0.1", port, timeout=timeout)) as connection:
        connection.request("POST", path, body=body, headers={"Content-Type": "application/json"})
        answer = connection.getresponse()
        answer.read()
        return answer.status


def raw(port: int, request: bytes, *, timeout: float = 20) -> bytes:
    """What is answered to these bytes until the server closes, or `timeout` after the last byte."""
    with closing(socket.create_connection(("127.0.0.1", port), timeout=timeout)) as connection:
        answer = b""
        # A server that refuses a body does not read it to its end, and its answer may be lost in the reset.
        with suppress(ConnectionResetError, BrokenPipeError):
            connection.sendall(request)
        with suppress(ConnectionResetError, TimeoutError):
            while part := connection.recv(65536):
                answer += part
        return answer


def free_port() -> int:
    with closing(socket.socket()) as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])
