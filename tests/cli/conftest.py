"""The command as an admin types it, in a folder of its own, against a sandbox."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from crm_sync.cli import cli
from crm_sync.clock import SystemClock
from crm_sync.sandbox.run import Sandbox

ROOT = Path(__file__).parents[2]
PEOPLE = {"salesforce": "Contact", "hubspot": "contacts"}


@dataclass(frozen=True, kw_only=True)
class Said:
    """How a command ended, and what it printed: to both outputs, and to each."""

    code: int
    text: str
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def flat(self) -> str:
        """The text as one line, so that a sentence is found wherever it was wrapped."""
        return " ".join(self.text.split())


@dataclass(kw_only=True)
class Desk:
    """One admin's folder: crm_sync.yaml, .env and the database lie in it; the settings are in the environment."""

    sandbox: Sandbox
    crm: str
    folder: Path

    def run(self, *words: str) -> Said:
        result = CliRunner().invoke(cli, list(words))
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return Said(code=result.exit_code, text=result.output, out=result.stdout, err=result.stderr)

    def configure(self, edits: Mapping[str, str] | None = None) -> None:
        """What `init` and `config apply` do; `edits` replace text of the file in between."""
        assert self.run("init", "--crm", self.crm).code == 0
        file = self.folder / "crm_sync.yaml"
        text = file.read_text()
        for old, new in (edits or {}).items():
            assert old in text
            text = text.replace(old, new)
        file.write_text(text)
        assert self.run("config", "apply").code == 0

    def on_terminal(self, columns: int, *words: str) -> str:
        """What the real command shows on a terminal of so many columns, without colours."""
        main, other = pty.openpty()
        fcntl.ioctl(other, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
        environment = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES")}
        environment |= {"PYTHONPATH": str(ROOT), "TERM": "xterm"}
        command = subprocess.Popen(
            [sys.executable, "-m", "crm_sync", *words], stdin=other, stdout=other, stderr=other, env=environment
        )
        os.close(other)
        shown = b""
        try:
            while piece := os.read(main, 65536):
                shown += piece
        except OSError:  # Linux tells the end of a terminal by EIO
            pass
        os.close(main)
        command.wait(timeout=60)
        return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown.decode()).replace("\r\n", "\n")


@pytest.fixture(scope="session")
def _sandbox() -> Iterator[Sandbox]:
    with Sandbox(contacts=60, unlimited=True, per_minute=None) as sandbox:
        yield sandbox


@pytest.fixture
def sandbox(_sandbox: Sandbox) -> Sandbox:
    """A world in which nothing has happened yet."""
    _sandbox.renew()
    return _sandbox


@pytest.fixture(params=["salesforce", "hubspot"])
def crm(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def a_desk(sandbox: Sandbox, crm: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Desk:
    monkeypatch.chdir(folder)
    monkeypatch.delenv("COLUMNS", raising=False)
    # Back-off is real and does not hold up the tests.
    monkeypatch.setattr(SystemClock, "sleep", lambda _self, seconds: time.sleep(min(seconds, 0.01)))
    for name, value in sandbox.settings().items():
        monkeypatch.setenv(name, value)
    return Desk(sandbox=sandbox, crm=crm, folder=folder)


@pytest.fixture
def desk(sandbox: Sandbox, crm: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Desk:
    return a_desk(sandbox, crm, tmp_path, monkeypatch)
