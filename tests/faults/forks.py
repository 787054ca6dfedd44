"""Processes that may be killed, made quickly: a command runs in a child forked from a parent that has everything
imported and no threads, and a database is a copy of one that stands ready."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import threading
import time
import traceback
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from sqlalchemy import create_engine, text

from tests.conftest import _with_database

#: Who has not ended by then hangs.
LIMIT_S = 60.0


# --- a child ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Ended:
    """How a child ended: `code` is its exit code, minus the number of the signal that killed it."""

    code: int
    output: str

    @property
    def was_killed(self) -> bool:
        return self.code == -signal.SIGKILL


@dataclass(kw_only=True)
class Child:
    """A process forked from this one, which runs `work` and nothing of what this one would do afterwards."""

    pid: int
    output: Path

    @classmethod
    def fork(cls, work: Callable[[], int], output: Path) -> Child:
        assert threading.active_count() == 1, "a fork copies one thread only; the others' locks would stay locked"
        pid = os.fork()
        if pid == 0:
            code = 70
            try:
                for number in (signal.SIGINT, signal.SIGTERM):
                    signal.signal(number, signal.SIG_DFL)
                file = os.open(output, os.O_CREAT | os.O_TRUNC | os.O_WRONLY, 0o600)
                os.dup2(file, 1)
                os.dup2(file, 2)
                sys.stdout = os.fdopen(1, "w", closefd=False)
                sys.stderr = os.fdopen(2, "w", closefd=False)
                code = work()
            except BaseException:
                traceback.print_exc()
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(code)
        return cls(pid=pid, output=output)

    def ended(self) -> Ended | None:
        """How it ended; None while it runs. Not to be asked once more after that."""
        pid, status = os.waitpid(self.pid, os.WNOHANG)
        if not pid:
            return None
        return Ended(code=os.waitstatus_to_exitcode(status), output=self.output.read_text(errors="replace"))

    def wait(self, limit_s: float = LIMIT_S) -> Ended:
        deadline = time.monotonic() + limit_s
        nap = 0.0005
        while True:
            ended = self.ended()
            if ended is not None:
                return ended
            if time.monotonic() > deadline:
                os.kill(self.pid, signal.SIGKILL)
                os.waitpid(self.pid, 0)
                said = self.output.read_text(errors="replace")
                return Ended(code=75, output=f"it hung for {limit_s:g} s and was stopped\n{said}")
            time.sleep(nap)
            nap = min(nap * 1.5, 0.01)


# --- databases ----------------------------------------------------------------------------------------------------


@dataclass(kw_only=True)
class Databases:
    """Makes databases of one kind: `fill(url)` once for each template, then copies of it."""

    kind: str
    folder: Path
    server: str = ""
    _templates: dict[str, str] = field(default_factory=dict)

    def make(self, template: str, fill: Callable[[str], None] | None) -> str:
        """A new database: a copy of the template, which is filled when first asked for; empty without `fill`."""
        if fill is None:
            return self._new(None)
        if template not in self._templates:
            url = self._new(None)
            fill(url)
            self._templates[template] = url
        return self._new(self._templates[template])

    def _new(self, origin: str | None) -> str:
        name = f"c{uuid.uuid4().hex[:12]}"
        if self.kind == "sqlite":
            target = self.folder / name / "crm_sync.db"
            target.parent.mkdir()
            if origin is not None:
                shutil.copy(origin.removeprefix("sqlite:///"), target)
            return f"sqlite:///{target}"
        like = f" template {origin.partition('?')[0].rpartition('/')[2]}" if origin is not None else ""
        self._say(f"create database {name}{like}")
        return _with_database(self.server, name)

    def drop(self, url: str) -> None:
        if self.kind == "sqlite":
            shutil.rmtree(Path(url.removeprefix("sqlite:///")).parent)
        else:
            self._say(f"drop database {url.partition('?')[0].rpartition('/')[2]} with (force)")

    def _say(self, statement: str) -> None:
        url = self.server.replace("postgresql://", "postgresql+psycopg://")
        engine = create_engine(url, isolation_level="AUTOCOMMIT")
        try:
            with engine.connect() as connection:
                connection.execute(text(statement))
        finally:
            engine.dispose()
