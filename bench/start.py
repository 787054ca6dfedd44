"""`python -m bench.start [--records 100000] [--deliveries 10000]`: from the moment `crm-sync serve` is started to the
first delivery carried out, and to the first page of records that a queued run asks for, with so much in the database.

The simulator looks through all its contacts for a page, in seconds where Salesforce has an index; so the moment counts
at which it is asked, and how long it took to answer stands beside it."""

from __future__ import annotations

import argparse
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from rich import box
from rich.console import Console
from rich.table import Table

from bench.measure import ROOT, run, sandbox
from bench.phones import body_of, office, ordered
from crm_sync.bootstrap import App
from crm_sync.domain.runs import Asked, RunStatus
from crm_sync.pipeline.scheduling import queue_by_hand
from tests.faults.pool import postgres

#: What the issue wants, in seconds.
WANTED_S = 5.0
_KEY = "a secret key of the benchmark's own"
_LONGEST_S = 60.0
#: Contacts that the queued run finds due.
_DUE = 3_000


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.start", description=__doc__)
    add_arguments(parser)
    measure(parser.parse_args(), Console(width=None if sys.stdout.isatty() else 130))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--records", type=int, default=100_000, help="start: records that a run has gone through before"
    )
    parser.add_argument("--deliveries", type=int, default=10_000, help="start: deliveries that wait")
    parser.add_argument("--starts", type=int, default=3, help="start: how often it is started, each time killed")


def measure(given: argparse.Namespace, console: Console) -> list[dict[str, Any]]:
    """Prints the table and returns its figures."""
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="crm-sync-bench-") as name, _databases(Path(name)) as databases:
        for kind, url in databases.items():
            folder = Path(name) / kind
            folder.mkdir()
            with sandbox(given.records + _DUE) as settings:
                settings |= {
                    "CRM_SYNC_DATABASE_URL": url,
                    "CRM_SYNC_SECRET_KEY": _KEY,
                    "CRM_SYNC_STATE_FILE": f"{folder}/crm_sync.instance",
                }
                console.print(f"{kind}: filling …", style="dim")
                held = fill(settings, folder, given)
                tap = Tap(settings["CRM_SYNC_SALESFORCE_URL"])
                for nth in range(1, given.starts + 1):
                    console.print(f"{kind}: start {nth} …", style="dim")
                    rows.append({"database": kind, "nth": nth, **held, **start(settings, folder, tap)})
                    console.print(table(rows[-1:]))
    console.print(table(rows))
    return rows


class Tap:
    """Stands before a simulator and notes when it is asked for a page of records, and when its answer comes."""

    _QUESTION = b"GET /services/data/"

    def __init__(self, url: str) -> None:
        self._target = urlsplit(url)
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listening.getsockname()[1]}"
        self.asked_at: float | None = None
        self.answered_at: float | None = None
        self._nth = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def reset(self) -> None:
        """Forget what was seen; what still comes over connections of a process before is not looked at."""
        self._nth += 1
        self.asked_at = self.answered_at = None

    def _accept(self) -> None:
        while True:
            client, _ = self._listening.accept()
            server = socket.create_connection((self._target.hostname or "", self._target.port or 80))
            asks, nth = threading.Event(), self._nth
            for source, goal, is_question in ((client, server, True), (server, client, False)):
                threading.Thread(target=self._carry, args=(source, goal, is_question, asks, nth), daemon=True).start()

    def _carry(
        self, source: socket.socket, goal: socket.socket, is_question: bool, asks: threading.Event, nth: int
    ) -> None:
        with suppress(OSError):  # either side is gone
            while data := source.recv(65536):
                is_of_now = nth == self._nth
                if (
                    is_of_now
                    and is_question
                    and data.startswith(self._QUESTION)
                    and b"/query" in data.split(b"\r\n", 1)[0]
                ):
                    self.asked_at = self.asked_at or time.monotonic()
                    asks.set()
                elif is_of_now and not is_question and asks.is_set():
                    self.answered_at = self.answered_at or time.monotonic()
                    asks.clear()
                goal.sendall(data)
        with suppress(OSError):
            goal.shutdown(socket.SHUT_WR)


@contextmanager
def _databases(folder: Path) -> Iterator[dict[str, str]]:
    with tempfile.TemporaryDirectory(prefix="crm-sync-postgres-", dir=folder.parent) as own, postgres(Path(own)) as url:
        yield {"SQLite": f"sqlite:///{folder}/crm_sync.db", "PostgreSQL": url}


def fill(settings: dict[str, str], folder: Path, given: argparse.Namespace) -> dict[str, Any]:
    """A run over the records, orders and deliveries that wait, and a run that is queued and finds some contacts due."""
    for verbs in (("init", "--crm", "salesforce"), ("config", "apply")):
        run([sys.executable, "-m", "crm_sync", *verbs], settings, folder=folder, records=0)
        file = folder / "crm_sync.yaml"
        file.write_text(file.read_text().replace("at_most: 1000 ", f"at_most: {given.records} "))
    verbs = ("run", "contacts", "--json", "--limit", str(given.records))
    run([sys.executable, "-m", "crm_sync", *verbs], settings, folder=folder, records=given.records)
    with _opened(settings, folder), office("salesforce", settings, folder) as (app, services):
        for number, (record, order_id) in enumerate(ordered(services, "salesforce", given.deliveries)):
            app.deliveries.take(order_id, body_of(record, number), now=app.clock.now())
        for opened, _, _ in services.runs.unfinished():  # the one that has ordered them
            ended = replace(opened, status=RunStatus.WAITING_FOR_PHONES, finished_at=app.clock.now())
            services.runs.save(ended, now=app.clock.now())
        sync = next(each for each in services.config.syncs.values() if each.phones is not None)
        queue_by_hand(sync, services, Asked())
        return {"records": _count(app, "record_states"), "deliveries": _count(app, "deliveries")}


@contextmanager
def _opened(settings: dict[str, str], folder: Path) -> Iterator[None]:
    """This process has the settings, and stands in the folder, meanwhile."""
    before, here = dict(os.environ), Path.cwd()
    os.environ.update(settings)
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(here)
        os.environ.clear()
        os.environ.update(before)


def _count(app: App, table: str, where: str = "1 = 1") -> int:
    with app.store.read() as connection:
        return int(connection.exec_driver_sql(f"select count(*) from {table} where {where}").scalar() or 0)


def start(settings: dict[str, str], folder: Path, tap: Tap) -> dict[str, float]:
    """Seconds from the start of the process to each sign of work; it is killed then, as by a power cut."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("CRM_SYNC_")}
    environment |= settings | {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1", "CRM_SYNC_SALESFORCE_URL": tap.url}
    tap.reset()
    with _opened(settings, folder):
        app = App()
        waiting = _count(app, "deliveries", "state = 'new'")
        dead = _running(app)
        signs: dict[str, Callable[[], bool]] = {
            "listening_s": lambda: "crm-sync serves" in log.read_text(),
            "run_taken_s": lambda: _running(app) > dead,
            "first_page_s": lambda: tap.answered_at is not None,
            "first_delivery_s": lambda: _count(app, "deliveries", "state = 'new'") < waiting,
        }
        log = folder / f"serve-{time.monotonic_ns()}.log"
        seen: dict[str, float] = {}
        with log.open("wb") as out:
            began = time.monotonic()
            child = subprocess.Popen(
                [sys.executable, "-m", "crm_sync", "serve", "--port", "0"],
                cwd=folder,
                env=environment,
                stdout=out,
                stderr=out,
            )
            try:
                while len(seen) < len(signs) and time.monotonic() - began < _LONGEST_S and child.poll() is None:
                    for name, is_there in signs.items():
                        if name not in seen and is_there():
                            seen[name] = time.monotonic() - began
                    time.sleep(0.03)  # looking must not take what is measured from it
            finally:
                child.send_signal(signal.SIGKILL)
                child.wait()
        app.close()
    if len(seen) < len(signs):
        raise SystemExit(f"only {', '.join(seen)} were seen:\n{log.read_text()[-3000:]}")
    assert tap.asked_at is not None
    assert tap.answered_at is not None
    return seen | {"asked_s": tap.asked_at - began, "page_took_s": tap.answered_at - tap.asked_at}


def _running(app: App) -> str:
    """The newest run that has begun and not ended; ids are in the order of time."""
    with app.store.read() as connection:
        newest = "select max(id) from runs where status = 'Running' and kind = 'run'"
        return connection.exec_driver_sql(newest).scalar() or ""


def table(rows: list[dict[str, Any]]) -> Table:
    made = Table(title=f"start to first work, s (wanted {WANTED_S:.0f})", box=box.SIMPLE_HEAD, title_justify="left")
    for name in ("database", "start", "records", "deliveries"):
        made.add_column(name)
    for name in ("listening", "run taken", "first page asked for", "which took", "first delivery carried out"):
        made.add_column(name, justify="right")
    for row in rows:
        made.add_row(
            row["database"],
            str(row["nth"]),
            f"{row['records']:,}",
            f"{row['deliveries']:,}",
            *(
                f"{row[name]:.2f}"
                for name in ("listening_s", "run_taken_s", "asked_s", "page_took_s", "first_delivery_s")
            ),
        )
    return made


if __name__ == "__main__":
    main()
