"""`python -m tests.faults.workers` (100 kills, about 6 minutes; needs a redis-server): workers that share runs on a real
PostgreSQL are killed at random moments, the scheduler among them, and so is the database server; afterwards every slot
has had its run, every run its end, nobody was charged twice, and what a dead worker had was gone on with within a minute.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, create_engine, select, text
from sqlalchemy.exc import SQLAlchemyError

from crm_sync.bootstrap import App
from crm_sync.config.loader import load
from crm_sync.config.starter import starter
from crm_sync.domain.runs import Asked, RunStatus
from crm_sync.errors import CrmSyncError
from crm_sync.pipeline.scheduling import queue_by_hand
from crm_sync.sandbox.run import Sandbox
from crm_sync.store.exclusive import Exclusive
from crm_sync.store.tables import runs, shares
from tests.faults.receiver import Postgres, postgres_to_stop
from tests.redis import redis_in

_WORKERS = 3
_UNTIL_ENDED_S = 180.0
_TAKEN_OVER_S = 60.0
_SYNC = "contacts"


@dataclass
class Told:
    """`violations`: what must not be; `longest_s`: for how long a dead process still had a run, or a share of one."""

    kills: Counter[str] = field(default_factory=Counter)
    violations: list[str] = field(default_factory=list)
    longest_s: float = 0.0
    runs: int = 0
    gone_on: int = 0
    shared: int = 0
    records: int = 0
    charged: int = 0
    in_doubt: int = 0

    def __str__(self) -> str:
        killed = ", ".join(f"{count} x {what}" for what, count in sorted(self.kills.items()))
        return (
            f"{self.kills.total()} kills ({killed}): {self.runs} runs, {self.gone_on} gone on with, {self.shared} shares, "
            f"{self.records:,} records filled, {self.charged:,} people charged, {self.in_doubt} in doubt; taken over "
            f"within {self.longest_s:.1f} s; {len(self.violations)} violations"
        )


class Crew:
    """Workers that are started again when they are killed."""

    def __init__(self, folder: Path, settings: dict[str, str]) -> None:
        self._folder = folder
        self._settings = settings
        self.processes: list[subprocess.Popen[bytes]] = []
        #: Process number -> when it was killed.
        self.dead: dict[int, float] = {}

    @contextlib.contextmanager
    def at_work(self) -> Iterator[None]:
        self.processes = [self._start(place) for place in range(_WORKERS)]
        try:
            yield
        finally:
            for process in self.processes:
                process.kill()
                process.wait(timeout=30)

    def _start(self, place: int) -> subprocess.Popen[bytes]:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("CRM_SYNC_")}
        environment |= self._settings | {"CRM_SYNC_STATE_FILE": str(self._folder / f"worker-{place}.instance")}
        with (self._folder / f"worker-{place}.log").open("ab") as log:
            command = [sys.executable, "-m", "crm_sync", "worker"]
            return subprocess.Popen(command, cwd=self._folder, env=environment, stdout=log, stderr=log)

    def kill(self, place: int) -> None:
        victim = self.processes[place]
        victim.send_signal(signal.SIGKILL)
        victim.wait(timeout=30)
        self.dead[victim.pid] = time.monotonic()

    def start_again(self, place: int) -> None:
        self.processes[place] = self._start(place)

    def unexpected(self) -> list[str]:
        """What no worker may log."""
        texts = [file.read_text() for file in sorted(self._folder.glob("worker-*.log"))]
        return sorted({line for text_ in texts for line in text_.splitlines() if '"level":"error"' in line})


class Watcher:
    """For how long the dead still have something, looked at all the time."""

    def __init__(self, engine: Engine, crew: Crew) -> None:
        self._engine = engine
        self._crew = crew
        self.longest_s = 0.0
        self.shares: set[tuple[str, int]] = set()

    def run(self, stop: threading.Event) -> None:
        while not stop.wait(0.3):
            try:
                with self._engine.connect() as connection:
                    mine = select(runs.c.owner).where(runs.c.status == RunStatus.RUNNING.value)
                    owners = list(connection.execute(mine).scalars())
                    working = connection.execute(select(shares).where(shares.c.number > 0)).all()
            except SQLAlchemyError:
                continue
            self.shares |= {(row.run_id, row.number) for row in working}
            owners += [row.owner for row in working if row.state == "working"]
            for owner in owners:
                died_at = self._crew.dead.get(int(owner.split(":")[1]))
                if died_at is not None:
                    self.longest_s = max(self.longest_s, time.monotonic() - died_at)


def kills(folder: Path, database: Postgres, broker: str, *, count: int, contacts: int, seed: int = 7) -> Told:
    chance = random.Random(seed)
    told = Told()
    with Sandbox(contacts=contacts, tidy=True, unlimited=True, per_minute=None, latency_ms=(100, 500)) as sandbox:
        settings = sandbox.settings() | {
            "CRM_SYNC_DATABASE_URL": database.url,
            "CRM_SYNC_SECRET_KEY": "for-the-crash-harness-only-and-long-enough",
            "CRM_SYNC_BROKER_URL": broker,
        }
        os.environ.update(settings | {"CRM_SYNC_STATE_FILE": str(folder / "harness.instance")})
        app = App()
        _configure(app, contacts)
        engine = create_engine(database.url.replace("postgresql://", "postgresql+psycopg://", 1), pool_pre_ping=True)
        crew = Crew(folder, settings)
        watcher, over = Watcher(engine, crew), threading.Event()
        watching = threading.Thread(target=watcher.run, args=(over,), daemon=True)
        with crew.at_work():
            watching.start()
            time.sleep(3)
            while told.kills.total() < count:
                _keep_busy(app)
                time.sleep(chance.uniform(0.2, 3.0))
                _kill_somebody(chance, crew, database, engine, told)
            deadline = time.monotonic() + _UNTIL_ENDED_S
            while not _is_at_rest(app, sandbox, contacts):
                _keep_busy(app)
                if time.monotonic() > deadline:
                    told.violations.append(f"not at rest after {_UNTIL_ENDED_S:g} s")
                    break
                time.sleep(0.5)
        over.set()
        watching.join()
        told.longest_s, told.shared = watcher.longest_s, len(watcher.shares)
        _judge(app, sandbox, contacts, told)
        told.violations += crew.unexpected()
        app.close()
        engine.dispose()
    if told.longest_s > _TAKEN_OVER_S:
        told.violations.append(f"something of a dead process was taken over after {told.longest_s:.1f} s")
    return told


def _configure(app: App, contacts: int) -> None:
    client = app.crm("salesforce", "salesforce")
    words = starter("salesforce", "salesforce", {each: client.describe(each) for each in client.object_types()})
    words = words.replace("at_most: 1000 ", f"at_most: {contacts} ", 1)
    head = f"  {_SYNC}:\n"
    before, after = words.split(head)
    lines = [line for line in after.split("\n") if not line.startswith("    schedule:")]
    config = load((before + head + "    schedule: {every: 1m}\n" + "\n".join(lines)).encode()).require()
    app.versions.add(config.text, config.files, author="test", note="", now=app.clock.now())


def _keep_busy(app: App) -> None:
    """A run is always under way: the schedule alone would leave pauses."""
    with contextlib.suppress(CrmSyncError, SQLAlchemyError):
        if not app.queue.waiting() and not app.runs.unfinished():
            services = app.services()
            queue_by_hand(services.config.syncs[_SYNC], services, Asked())


def _kill_somebody(chance: random.Random, crew: Crew, database: Postgres, engine: Engine, told: Told) -> None:
    if chance.random() < 0.2:
        database.stop_immediately()
        time.sleep(chance.uniform(0.0, 1.0))
        database.start()
        told.kills["PostgreSQL"] += 1
        return
    place = chance.randrange(_WORKERS)
    before = _scheduler_session(engine)
    crew.kill(place)
    time.sleep(0.1)  # its sessions end
    was_scheduler = before is not None and _scheduler_session(engine) != before
    told.kills["worker that was the scheduler" if was_scheduler else "worker"] += 1
    time.sleep(chance.uniform(0.0, 1.5))
    crew.start_again(place)


def _scheduler_session(engine: Engine) -> int | None:
    """Who has the scheduler's lock, as PostgreSQL's session."""
    held = text(
        "select pid from pg_locks where locktype = 'advisory' and granted and "
        "((classid::bigint << 32) | objid::bigint) = :key"
    )
    with contextlib.suppress(SQLAlchemyError), engine.connect() as connection:
        found: Any = connection.execute(held, {"key": Exclusive.key_of("scheduler")}).scalar()
        return int(found) if found is not None else None
    return None


def _is_at_rest(app: App, sandbox: Sandbox, contacts: int) -> bool:
    try:
        if app.queue.waiting() or app.runs.unfinished():
            return False
        doubtful = {key.key for call in app.journal.doubts() for key in call.keys}
    except (CrmSyncError, SQLAlchemyError):
        return False
    return contacts - len(_filled(sandbox, contacts)) <= len(doubtful)


def _filled(sandbox: Sandbox, contacts: int) -> set[str]:
    from crm_sync.sandbox.salesforce import ids

    simulator = sandbox.apps["salesforce"].extensions["simulator"]
    every = (ids.encode("003", index) for index in range(contacts))
    return {each for each in every if simulator.edit("Contact", each, {}).get("Title")}


def _judge(app: App, sandbox: Sandbox, contacts: int, told: Told) -> None:
    ledger = sandbox.apps["apollo"].extensions["ledger"]
    charged = dict(ledger.charged)
    twice = [each for each, credits_ in charged.items() if credits_ > 1]
    if twice:
        told.violations.append(f"{len(twice)} people were charged twice")
    doubts = app.journal.doubts()
    doubtful = {key.key for call in doubts for key in call.keys}
    told.in_doubt, told.charged = len(doubtful), len(charged)
    filled = _filled(sandbox, contacts)
    told.records = len(filled)
    if contacts - len(filled) > len(doubtful):
        told.violations.append(f"{contacts - len(filled)} records are blank, and {len(doubtful)} are in doubt")
    every = app.runs.latest(limit=100_000)
    told.runs = len(every)
    told.gone_on = sum(bool(run.continues) for run in every)
    for run in every:
        if run.finished_at is None:
            told.violations.append(f"{run.id} has no end: {run.status}")
        if not run.counts.balanced:
            told.violations.append(f"the books of {run.id} do not balance: {run.counts}")
    slots = Counter(run.slot for run in every if run.slot is not None)
    told.violations += [f"slot {slot} had {count} runs" for slot, count in slots.items() if count > 1]
    heirs = Counter(run.continues for run in every if run.continues)
    told.violations += [f"{count} runs go on with {run_id}" for run_id, count in heirs.items() if count > 1]
    settled = sum((app.journal.spent(run.id) for run in every), start=0)
    if not settled <= sum(charged.values()) <= settled + len(doubtful):
        told.violations.append(
            f"{settled} credits are settled, {len(doubtful)} people in doubt, and Apollo charged {sum(charged.values())}"
        )
    with app.store.read() as connection:
        left = [
            connection.execute(text(f"select count(*) from {table}")).scalar_one() for table in ("chunks", "shares")
        ]
    if any(left):
        told.violations.append(f"{left[0]} chunks and {left[1]} shares are left")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.faults.workers", description=__doc__)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--contacts", type=int, default=30_000, help="so many that they last")
    parser.add_argument("--seed", type=int, default=7)
    given = parser.parse_args()
    with (
        tempfile.TemporaryDirectory(prefix="crm-sync-workers-") as name,
        postgres_to_stop() as database,
        redis_in(Path(name)) as redis,
    ):
        told = kills(Path(name), database, redis.url, count=given.kills, contacts=given.contacts, seed=given.seed)
    print(told)
    for violation in told.violations:
        print(f"  {violation}")
    sys.exit(1 if told.violations else 0)


if __name__ == "__main__":
    main()
