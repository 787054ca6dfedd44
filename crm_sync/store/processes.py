"""Which long-lived processes work on this database."""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime, timedelta
from typing import Any

import orjson
from sqlalchemy import Row, delete, select

from crm_sync.domain.processes import Process
from crm_sync.store.engine import Store
from crm_sync.store.tables import processes
from crm_sync.store.upsert import upsert

#: Without a sign for so long it is not counted any more: four signs that did not come. Clocks may differ by as much.
ALIVE_FOR = timedelta(minutes=2)
_FORGET_AFTER = timedelta(minutes=10)


class Processes:
    """Every method commits before it returns."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def seen(self, process: Process) -> None:
        """It is at work at `seen_at`; those that gave no sign for ten minutes are forgotten."""
        row = asdict(process) | {"agree": orjson.dumps(dict(process.agree)).decode()}
        with self._store.write() as connection:
            connection.execute(upsert(connection, processes, ("version", "agree", "seen_at")), row)
            connection.execute(delete(processes).where(processes.c.seen_at < process.seen_at - _FORGET_AFTER))

    def gone(self, process_id: str) -> None:
        with self._store.write() as connection:
            connection.execute(delete(processes).where(processes.c.id == process_id))

    def alive(self, *, now: datetime) -> list[Process]:
        """Those that gave a sign lately, the longest at work first."""
        with self._store.read() as connection:
            rows = connection.execute(
                select(processes)
                .where(processes.c.seen_at.between(now - ALIVE_FOR, now + ALIVE_FOR))
                .order_by(processes.c.began_at, processes.c.id)
            )
            return [_process(row) for row in rows]


def _process(row: Row[Any]) -> Process:
    return Process(
        id=row.id,
        role=row.role,
        host=row.host,
        pid=row.pid,
        version=row.version,
        agree=orjson.loads(row.agree),
        began_at=row.began_at,
        seen_at=row.seen_at,
    )
