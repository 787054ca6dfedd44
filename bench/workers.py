"""`python -m bench.workers`: one run shared by 1, 2 and 4 workers on PostgreSQL, with an Apollo that takes 800 ms; how
much of a limit of 200 calls a minute they use together; and what each process takes. Needs a redis-server."""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import orjson
from rich import box
from rich.console import Console
from rich.table import Table
from sqlalchemy import create_engine, text

from bench.measure import ROOT, ask, command, controls, run, sandbox
from tests.faults.forks import Databases
from tests.faults.pool import postgres
from tests.redis import RedisServer

_ENDPOINT = "people/bulk_match"
_READY_S = 6.0


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.workers", description=__doc__)
    add_arguments(parser)
    parser.add_argument("--json", type=Path, help="where the figures go")
    given = parser.parse_args()
    told = measure(given, Console(width=None if sys.stdout.isatty() else 130))
    if given.json:
        given.json.write_bytes(orjson.dumps(told, option=orjson.OPT_INDENT_2) + b"\n")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--workers", default="1,2,4", help="workers: how many, several; empty: none without a limit")
    parser.add_argument("--contacts", type=int, default=6000, help="workers: records of the run without a limit")
    parser.add_argument("--latency-ms", type=int, default=800, help="workers: how long Apollo takes for an answer")
    parser.add_argument("--per-minute", type=int, default=200, help="workers: Apollo's limit")
    parser.add_argument("--minutes", type=int, default=5, help="workers: how long it is to be used up; 0: not at all")
    parser.add_argument("--shared-by", default="2", help="workers: how many use up the limit, several")


def measure(given: argparse.Namespace, console: Console) -> dict[str, Any]:
    """Prints the tables and returns their figures."""
    program = shutil.which("redis-server")
    if program is None:
        console.print("workers: redis-server is not here: nothing was measured")
        return {}
    free, limited = [], []
    with tempfile.TemporaryDirectory(prefix="crm-sync-bench-") as name, ExitStack() as stack:
        folder = Path(name)
        url = stack.enter_context(postgres(folder))
        broker = stack.enter_context(_redis(program, folder))
        for count in map(int, filter(None, given.workers.split(","))):
            console.print(f"workers: {count}, {given.contacts:,} contacts …", style="dim")
            free.append(_shared(count, given.contacts, given, 0, url, broker, folder))
        if given.minutes:
            contacts = 10 * given.per_minute * given.minutes
            for count in map(int, filter(None, given.shared_by.split(","))):
                console.print(f"workers: {count}, {given.per_minute} calls a minute for {given.minutes} …", style="dim")
                limited.append(_shared(count, contacts, given, given.per_minute, url, broker, folder))
    if free:
        console.print(_table(free, given))
    if limited:
        console.print(_limit_table(limited, given))
    return {"latency_ms": given.latency_ms, "free": free, "limited": limited}


def _shared(
    count: int, contacts: int, given: argparse.Namespace, per_minute: int, server: str, broker: str, folder: Path
) -> dict[str, Any]:
    options = ("--latency-ms", str(given.latency_ms), "--per-minute", str(per_minute))
    with (
        sandbox(contacts, *options) as found,
        _database(server, folder) as (address, engine),
        tempfile.TemporaryDirectory(dir=folder) as name,
    ):
        place = Path(name)
        settings = found | {
            "CRM_SYNC_DATABASE_URL": address,
            "CRM_SYNC_BROKER_URL": broker,
            "CRM_SYNC_SECRET_KEY": "bench-bench-bench-bench-bench-bench-bench",
        }
        run(command("init", "--crm", "salesforce"), settings, folder=place, records=0)
        file = place / "crm_sync.yaml"
        file.write_text(file.read_text().replace("at_most: 1000 ", f"at_most: {contacts} "))
        run(command("config", "apply"), settings, folder=place, records=0)
        with ExitStack() as stack:
            workers = [stack.enter_context(_worker(settings, place, n)) for n in range(count)]
            time.sleep(_READY_S)
            run(command("run", "contacts", "--queue"), settings, folder=place, records=0)
            row, connections = _ended(engine)
            memory = [_peak_mib(worker.pid) for worker in workers]
            cpu = [_cpu_s(worker.pid) for worker in workers]
            with engine.connect() as connection:
                size = connection.execute(text("select pg_database_size(current_database())")).scalar_one()
        state = ask(f"{controls(settings)['apollo']}/_sandbox/state")
    seconds = (row.finished_at - row.started_at) / 1000
    minutes = state["minutes"].get(_ENDPOINT, [])
    return {
        "workers": count,
        "records": contacts,
        "status": row.status,
        "updated": orjson.loads(row.counts)["updated"],
        "seconds": round(seconds, 1),
        "records_per_minute": round(60 * contacts / seconds),
        "calls": contacts // 10,
        "refused_by_limit": state["refused_by_limit"],
        "minutes": minutes,
        "used_of_limit": round(min(minutes[: given.minutes - 1]) / per_minute, 3) if per_minute and minutes else None,
        "cpu_s": [round(each, 1) for each in cpu],
        "peak_mib": [round(each) for each in memory],
        "connections": connections,
        "crm_calls_per_1k": round(1000 * _crm_calls(row) / contacts, 1),
        "database_mib": round(size / 2**20, 1),
    }


@contextmanager
def _redis(program: str, folder: Path) -> Iterator[str]:
    server = RedisServer(program, folder)
    server.start()
    try:
        yield server.url
    finally:
        server.stop()


@contextmanager
def _database(server: str, folder: Path) -> Iterator[tuple[str, Any]]:
    """A new database of the server: its address, and an engine that looks at it."""
    databases = Databases(kind="postgresql", folder=folder, server=server)
    address = databases.make("", None)
    engine = create_engine(address.replace("postgresql://", "postgresql+psycopg://", 1))
    try:
        yield address, engine
    finally:
        engine.dispose()
        databases.drop(address)


@contextmanager
def _worker(settings: dict[str, str], folder: Path, number: int) -> Iterator[subprocess.Popen[bytes]]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("CRM_SYNC_")}
    environment |= settings | {
        "PYTHONPATH": str(ROOT),
        "CRM_SYNC_STATE_FILE": str(folder / f"worker-{number}.instance"),
    }
    with (folder / f"worker-{number}.log").open("wb") as log:
        child = subprocess.Popen(command("worker"), cwd=folder, env=environment, stdout=log, stderr=log)
        try:
            yield child
        finally:
            child.terminate()
            child.wait(90)


def _ended(engine: Any) -> tuple[Any, int]:
    """The run when it has ended, and the most connections that were seen meanwhile."""
    most = 0
    while True:
        with engine.connect() as connection:
            row = connection.execute(text("select * from runs")).one()
            used = text("select count(*) from pg_stat_activity where datname = current_database()")
            most = max(most, connection.execute(used).scalar_one() - 1)
        if row.finished_at is not None:
            return row, most
        time.sleep(0.5)


def _crm_calls(row: Any) -> int:
    return sum(count for name, count in orjson.loads(row.calls).items() if not name.startswith("apollo"))


def _peak_mib(pid: int) -> float:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM"))


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _table(rows: list[dict[str, Any]], given: argparse.Namespace) -> Table:
    table = Table(box=box.SIMPLE_HEAD, title=f"One run, Apollo in {given.latency_ms} ms, no limit")
    for title in ("workers", "records a minute", "x 1 worker", "wanted", "CPU s of each", "MiB of each", "connections"):
        table.add_column(title, justify="right")
    first = rows[0]["records_per_minute"]
    for row in rows:
        table.add_row(
            str(row["workers"]),
            f"{row['records_per_minute']:,}",
            f"{row['records_per_minute'] / first:.2f}",
            "1.80" if row["workers"] == 2 else "",
            ", ".join(str(each) for each in row["cpu_s"]),
            ", ".join(str(each) for each in row["peak_mib"]),
            str(row["connections"]),
        )
    return table


def _limit_table(rows: list[dict[str, Any]], given: argparse.Namespace) -> Table:
    table = Table(box=box.SIMPLE_HEAD, title=f"{given.per_minute} calls a minute")
    for title in ("workers", "calls in each whole minute", "least used (wanted 95 %)", "calls", "429 (wanted < 0.5 %)"):
        table.add_column(title, justify="right")
    for row in rows:
        used = row["used_of_limit"]
        table.add_row(
            str(row["workers"]),
            ", ".join(str(each) for each in row["minutes"]),
            f"{100 * used:.1f} %" if used is not None else "",
            str(row["calls"]),
            str(row["refused_by_limit"]),
        )
    return table


if __name__ == "__main__":
    main()
