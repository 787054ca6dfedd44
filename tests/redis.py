"""A redis-server of the system, for the tests of workers that share a run."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.webhooks.servers import free_port

#: Set where a machine without a redis-server is a mistake: .ci/run installs one.
REQUIRED = "REDIS_REQUIRED"
_STARTS_S = 10.0


class RedisServer:
    """Keeps nothing on disk; may be stopped and started again on the same port."""

    def __init__(self, program: str, folder: Path) -> None:
        self._program = program
        self._folder = folder
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        options = ("--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no")
        self._process = subprocess.Popen(
            [self._program, *options, "--dir", str(self._folder)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        deadline = time.monotonic() + _STARTS_S
        while time.monotonic() < deadline:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            time.sleep(0.02)
        raise AssertionError("redis-server did not start")

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait(timeout=10)
            self._process = None


@contextmanager
def redis_in(folder: Path) -> Iterator[RedisServer]:
    """A server of one's own; skips, loudly, where the machine has none."""
    program = shutil.which("redis-server")
    if program is None:
        missing = "redis-server is not installed, so that nothing was tried of workers that share a run over a broker"
        if os.environ.get(REQUIRED):
            pytest.fail(missing)
        pytest.skip(f"{missing}: apt-get install redis-server")
    server = RedisServer(program, folder)
    server.start()
    try:
        yield server
    finally:
        server.stop()
