"""Running one thing against a fresh sandbox in processes of its own, and what it cost."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What one process took: CPU of it alone (user and system), its peak memory, the calls and connections it made."""

    records: int
    seconds: float
    cpu_s: float
    peak_mib: float
    calls: int
    connections: int
    output: str = ""

    @property
    def cpu_ms_per_record(self) -> float:
        return 1000 * self.cpu_s / max(self.records, 1)

    @property
    def calls_per_1k(self) -> float:
        return 1000 * self.calls / max(self.records, 1)


@contextmanager
def sandbox(contacts: int, *arguments: str) -> Iterator[dict[str, str]]:
    """The settings of a sandbox of tidy contacts without limits, in its own process."""
    command = [sys.executable, "-m", "crm_sync.sandbox", "--contacts", str(contacts), "--tidy", "--per-minute", "0"]
    with subprocess.Popen([*command, "--unlimited", *arguments], stdout=subprocess.PIPE, text=True, cwd=ROOT) as child:
        assert child.stdout is not None
        settings: dict[str, str] = {}
        for line in child.stdout:
            if line.strip() == "ready":
                break
            name, _, value = line.strip().partition("=")
            settings[name] = value
        try:
            yield settings
        finally:
            child.terminate()
            child.wait(30)


def controls(settings: dict[str, str]) -> dict[str, str]:
    """The simulators' addresses, by name."""
    return {
        "apollo": settings["CRM_SYNC_APOLLO_URL"].removesuffix("/api/v1"),
        "salesforce": settings["CRM_SYNC_SALESFORCE_URL"],
        "hubspot": settings["CRM_SYNC_HUBSPOT_URL"],
    }


def ask(url: str) -> Any:
    with urllib.request.urlopen(url, timeout=60) as answer:
        return json.load(answer)


def traffic(settings: dict[str, str]) -> tuple[int, int]:
    """(calls, connections) of all simulators so far."""
    calls = connections = 0
    for url in controls(settings).values():
        calls += sum(ask(f"{url}/_sandbox/calls").values())
        connections += ask(f"{url}/_sandbox/state")["connections"]
    return calls, connections


def command(*verbs: str) -> list[str]:
    """A crm-sync command."""
    return [sys.executable, "-m", "crm_sync", *verbs]


def run(command: list[str], settings: dict[str, str], *, folder: Path, records: int | None = None) -> Cost:
    """Run a command to its end; `records` None: its output is the number."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("CRM_SYNC_")}
    environment |= settings | {"PYTHONPATH": str(ROOT)}
    calls_before, connections_before = traffic(settings)
    began = time.monotonic()
    with tempfile.TemporaryFile("w+") as output:
        child = subprocess.Popen(command, cwd=folder, env=environment, stdout=output, stderr=subprocess.STDOUT)
        _, status, usage = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
        seconds = time.monotonic() - began
        output.seek(0)
        text = output.read()
    if child.returncode not in (0, 3):
        raise SystemExit(f"{' '.join(command[-4:])} ended with {child.returncode}:\n{text[-3000:]}")
    calls, connections = traffic(settings)
    return Cost(
        records=int(text.strip().splitlines()[-1]) if records is None else records,
        seconds=seconds,
        cpu_s=usage.ru_utime + usage.ru_stime,
        peak_mib=usage.ru_maxrss / 1024 / (1024 if sys.platform == "darwin" else 1),
        calls=calls - calls_before,
        # The question after `calls` itself opens some; each simulator was asked twice after the count.
        connections=max(connections - connections_before - 6, 0),
        output=text,
    )
