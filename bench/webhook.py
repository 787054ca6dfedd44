"""`python -m bench.webhook`: the receiver beside the same server that stores nothing, and beside a commit each request.

Figures of one run on one machine: what counts are the ratios, each the median of several rounds in turn.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from statistics import median
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from tests.faults.pool import postgres
from tests.webhooks.servers import ROOT, SERVERS, Installation, served

CONNECTIONS = 64
#: Under one token the receiver takes twenty bodies.
_A_TOKEN = 18
#: No server here answers more a second; so many orders are made before.
_FASTEST = 5_000
#: Connections that come before gunicorn's second process is there stay with the first one, all 64 of them.
_SETTLE_S = 1.5
NOOP, REAL, ALONE = "bench.webhook_apps:noop()", "wsgi:app", "bench.webhook_apps:alone()"

#: fsync and fdatasync of a disk that takes three milliseconds more.
_SLOW_DISK = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <unistd.h>
int fsync(int f) { usleep(3000); return ((int (*)(int))dlsym(RTLD_NEXT, "fsync"))(f); }
int fdatasync(int f) { usleep(3000); return ((int (*)(int))dlsym(RTLD_NEXT, "fdatasync"))(f); }
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rate:
    """What a server answered: how many a second, and how long one took."""

    per_s: float
    p50_ms: float
    p99_ms: float
    failed: int


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.webhook", description=__doc__)
    add_arguments(parser)
    console = Console(width=None if sys.stdout.isatty() else 130)
    measure(parser.parse_args(), console)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--rounds", type=int, default=3, help="webhook: of which the median is taken")
    parser.add_argument("--round-seconds", type=int, default=4, help="webhook: how long each round loads the server")
    parser.add_argument("--steady-seconds", type=int, default=20, help="webhook: how long 100 deliveries a second come")


def measure(given: argparse.Namespace, console: Console) -> dict[str, Any]:
    """Prints the table and returns its figures."""
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="crm-sync-bench-") as name, _databases(Path(name)) as databases:
        work = Path(name)
        for server in SERVERS:
            for kind, url in databases.items():
                console.print(f"webhook: {server}, {kind} …", style="dim")
                rows.append({"server": server, "database": kind, **_beside(server, url, work, given, NOOP)})
                rows[-1] |= _paced(server, url, work, given)
        slow = _slow_disk(work)
        if slow is None:
            console.print("webhook: gcc is not here: the slower disk was NOT measured")
        else:
            for server in SERVERS:
                console.print(f"webhook: {server}, a disk 3 ms slower …", style="dim")
                figures = _beside(server, databases["SQLite"], work, given, ALONE, settings={"LD_PRELOAD": str(slow)})
                rows.append({"server": server, "database": "SQLite, fsync + 3 ms", **figures})
    console.print(table(rows))
    return {"connections": CONNECTIONS, "load": "wrk" if shutil.which("wrk") else "python", "rows": rows}


@contextmanager
def _databases(work: Path) -> Iterator[dict[str, str]]:
    """SQLite is a new file for each server (`{folder}`); PostgreSQL is one, where each round has orders of its own."""
    with tempfile.TemporaryDirectory(prefix="crm-sync-postgres-", dir=work.parent) as own, postgres(Path(own)) as url:
        yield {"SQLite": "sqlite:///{folder}/crm_sync.db", "PostgreSQL": url}


def _beside(
    server: str,
    url: str,
    work: Path,
    given: argparse.Namespace,
    other: str,
    *,
    settings: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """The receiver and `other` in turn."""
    found: dict[str, list[Rate]] = {other: [], REAL: []}
    for _ in range(given.rounds):
        for app, rates in found.items():
            with tempfile.TemporaryDirectory(dir=work) as name, _installed(Path(name), url) as installation:
                many = 1 if app == NOOP else _FASTEST * given.round_seconds // _A_TOKEN
                addresses = [installation.address() for _ in range(many)]
                with served(server, Path(name), app=app, settings=settings or {}) as made:
                    time.sleep(_SETTLE_S)
                    rates.append(_load(made.port, addresses, given.round_seconds, Path(name)))
    mine, theirs = found[REAL], found[other]
    return {
        "against": "nothing stored" if other == NOOP else "a commit each",
        "per_s": round(median(rate.per_s for rate in mine)),
        "per_s_other": round(median(rate.per_s for rate in theirs)),
        "rate_ratio": round(median(a.per_s / b.per_s for a, b in zip(mine, theirs, strict=True)), 2),
        "rate_ratios": [round(a.per_s / b.per_s, 2) for a, b in zip(mine, theirs, strict=True)],
        "p99_ms": round(median(rate.p99_ms for rate in mine), 1),
        "p99_ratio": round(median(a.p99_ms / b.p99_ms for a, b in zip(mine, theirs, strict=True)), 2),
        "failed": sum(rate.failed for rate in mine),
    }


def _paced(server: str, url: str, work: Path, given: argparse.Namespace) -> dict[str, Any]:
    """Deliveries that come when they come, whether the ones before are answered or not."""
    with tempfile.TemporaryDirectory(dir=work) as name, _installed(Path(name), url) as installation:
        steady_count = 100 * given.steady_seconds
        addresses = [installation.address() for _ in range((steady_count + 1000) // _A_TOKEN + 2)]
        with served(server, Path(name)) as made:
            steady, _ = _come(made.port, addresses, steady_count, given.steady_seconds)
            burst, took = _come(made.port, addresses[::-1], 1000, 5)
        return {
            "steady_p99_ms": round(steady.p99_ms, 1),
            "steady_failed": steady.failed,
            "burst_failed": burst.failed,
            "burst_s": round(took, 1),
            "stored": sum(installation.kept().values()) == steady_count + 1000 - steady.failed - burst.failed,
        }


@contextmanager
def _installed(folder: Path, url: str) -> Iterator[Installation]:
    with Installation(folder, url.format(folder=folder)) as made:
        yield made


# --- load -----------------------------------------------------------------------------------------------------------


def _load(port: int, addresses: Sequence[str], seconds: int, folder: Path) -> Rate:
    """64 connections, each of which sends when it was answered."""
    if shutil.which("wrk") is None:
        until = time.monotonic() + seconds
        rate, took = _send(port, addresses, iter(lambda: 0.0, None), until=until)
        return Rate(per_s=rate.per_s / took, p50_ms=rate.p50_ms, p99_ms=rate.p99_ms, failed=rate.failed)
    file = folder / "addresses"
    file.write_text("\n".join(addresses) + "\n")
    script = str(ROOT / "bench" / "webhook.lua")
    command = ["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{seconds}s", "-s", script, f"http://127.0.0.1:{port}"]
    told = subprocess.run([*command, "--", str(file)], capture_output=True, text=True, check=True).stdout
    _, requests, bad, took, p50, p99 = next(line for line in told.splitlines() if line.startswith("figures")).split()
    return Rate(per_s=int(requests) / float(took), p50_ms=float(p50), p99_ms=float(p99), failed=int(bad))


def _come(port: int, addresses: Sequence[str], count: int, seconds: float) -> tuple[Rate, float]:
    """`count` deliveries spread evenly over `seconds`; a delivery's time runs from when it was due."""
    return _send(port, addresses, (number * seconds / count for number in range(count)))


def _send(
    port: int, addresses: Sequence[str], due: Iterator[float], *, until: float = float("inf")
) -> tuple[Rate, float]:
    """64 threads with a connection each; `per_s` of the result is how many were answered at all."""
    began = time.monotonic()
    lock = threading.Lock()
    numbers = enumerate(due)
    times: list[float] = []
    statuses: Counter[int] = Counter()

    def work() -> None:
        with closing(HTTPConnection("127.0.0.1", port, timeout=30)) as connection:
            while time.monotonic() < until:
                with lock:
                    number, at = next(numbers, (-1, 0.0))
                if number < 0:
                    break
                wait = began + at - time.monotonic()
                if wait > 0:
                    time.sleep(wait)
                start = began + at if at else time.monotonic()
                status = _post(connection, addresses[number // _A_TOKEN % len(addresses)], number)
                with lock:
                    statuses[status] += 1
                    times.append(1000 * (time.monotonic() - start))

    threads = [threading.Thread(target=work) for _ in range(CONNECTIONS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    times.sort()
    failed = sum(count for status, count in statuses.items() if not 200 <= status < 300)
    p50, p99 = (times[min(len(times) - 1, int(len(times) * part))] for part in (0.5, 0.99))
    return Rate(per_s=len(times), p50_ms=p50, p99_ms=p99, failed=failed), time.monotonic() - began


def _post(connection: HTTPConnection, address: str, number: int) -> int:
    body = b'{"id": "%d", "pad": "%s"}' % (number, b"x" * 650)
    try:
        connection.request("POST", address, body=body, headers={"Content-Type": "application/json"})
        answer = connection.getresponse()
        answer.read()
    except (OSError, HTTPException):
        connection.close()
        return 0
    return answer.status


def _slow_disk(work: Path) -> Path | None:
    """The library to be preloaded; None without a compiler."""
    if shutil.which("gcc") is None:
        return None
    source, made = work / "slow_disk.c", work / "slow_disk.so"
    source.write_text(_SLOW_DISK)
    subprocess.run(["gcc", "-shared", "-fPIC", "-O1", "-o", str(made), str(source), "-ldl"], check=True)
    return made


# --- what is shown --------------------------------------------------------------------------------------------------


def table(rows: Sequence[Mapping[str, Any]]) -> Table:
    title = f"deliveries, {CONNECTIONS} connections: beside the same server that stores nothing, or commits each alone"
    made = Table(title=title, box=box.SIMPLE_HEAD, title_justify="left", pad_edge=False)
    for column in ("", "against"):
        made.add_column(column)
    columns: dict[str, tuple[str, Callable[[Mapping[str, Any]], str]]] = {
        "per_s": ("a second", lambda row: f"{row['per_s']:,} / {row['per_s_other']:,}"),
        "rate_ratio": (
            "ratio",
            lambda row: f"{row['rate_ratio']} ({min(row['rate_ratios'])}-{max(row['rate_ratios'])})",
        ),
        "p99_ratio": ("p99 ms, ratio", lambda row: f"{row['p99_ms']}, {row['p99_ratio']}"),
        "steady": ("100/s: p99 ms, failed", lambda row: f"{row['steady_p99_ms']}, {row['steady_failed']}"),
        "burst": ("1,000 in 5 s: took s, failed", lambda row: f"{row['burst_s']}, {row['burst_failed']}"),
    }
    for name, _ in columns.values():
        made.add_column(name, justify="right")
    for row in rows:
        shown = [
            show(row) if name not in ("steady", "burst") or "burst_s" in row else ""
            for name, (_, show) in columns.items()
        ]
        made.add_row(f"{row['server']}, {row['database']}", row["against"], *shown)
    wanted = ("wanted", "nothing stored", "", "≥ 0.40", "≤ 4", "< 1000, 0", "≤ 15, 0")
    made.add_row(*wanted, style="dim")
    made.add_row("", "a commit each", "", "≥ 5", "", "", "", style="dim")
    return made


if __name__ == "__main__":
    main()
