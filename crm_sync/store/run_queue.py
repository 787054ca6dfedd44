"""Runs that wait for a worker. Each is queued once, and taken by one worker."""

from __future__ import annotations

from dataclasses import asdict, replace
from datetime import datetime
from decimal import Decimal
from typing import Any

import orjson
from sqlalchemy import Connection, insert, select, update
from sqlalchemy.exc import IntegrityError

from crm_sync import crash
from crm_sync.domain.runs import Asked, RunStatus, SyncRun
from crm_sync.store.engine import Store
from crm_sync.store.runs import Runs, run_of, run_values
from crm_sync.store.tables import runs, schedules

_QUEUED = runs.c.status == RunStatus.QUEUED.value


class RunQueue:
    """Every method commits before it returns."""

    def __init__(self, store: Store, of_runs: Runs) -> None:
        self._store = store
        self._runs = of_runs

    def add(self, run: SyncRun, asked: Asked) -> None:
        """Queue a run that somebody asked for."""
        with self._store.write() as connection:
            _add(connection, run, asked)

    def add_slot(self, run: SyncRun, asked: Asked) -> bool:
        """Queue the run of a schedule's slot, and note that the slot has had its run; False where it had, or the sync
        was paused meanwhile.

        Where a run of the sync is queued already that one will do: it has not looked at the CRM yet.
        """
        taken = (
            update(schedules)
            .where(
                schedules.c.sync == run.sync,
                schedules.c.paused_at.is_(None),
                schedules.c.last_slot.is_(None) | (schedules.c.last_slot < run.slot),
            )
            .values(last_slot=run.slot)
        )
        with self._store.write() as connection:
            if connection.execute(taken).rowcount != 1:
                return False
            crash.point("queue.slot.inside")
            if not _is_queued(connection, run.sync):
                _add(connection, run, asked)
        crash.point("queue.slot.after")
        return True

    def take(self, *, owner: str, config_version: int | None, now: datetime) -> tuple[SyncRun, Asked] | None:
        """The run that waits longest and whose sync is not running, begun by this process; None where there is none."""
        running = runs.alias()
        beside_itself = select(running.c.id).where(
            running.c.sync == runs.c.sync, running.c.status == RunStatus.RUNNING.value, running.c.kind != "phones"
        )
        longest = select(runs).where(_QUEUED, ~beside_itself.exists()).order_by(runs.c.queued_at, runs.c.id).limit(1)
        with self._store.read() as connection:
            if connection.execute(longest).first() is None:
                return None  # what is looked at all the time must not write
        begun = {"status": RunStatus.RUNNING.value, "owner": owner, "started_at": now, "alive_at": now}
        try:
            with self._store.write() as connection:
                row = connection.execute(longest.with_for_update(skip_locked=True, of=runs)).one_or_none()
                if row is None:
                    return None
                taking = update(runs).where(runs.c.id == row.id)
                connection.execute(taking.values(**begun, config_version=config_version))
                crash.point("queue.take.inside")
        except IntegrityError:
            return None  # somebody began this sync by hand at the same moment; it is looked at again
        self._runs.own(row.id, owner)
        crash.point("queue.take.after")
        run = replace(run_of(row), status=RunStatus.RUNNING, started_at=now, config_version=config_version)
        return run, _asked(row)

    def end(self, run: SyncRun, *, then: tuple[SyncRun, Asked] | None, now: datetime) -> None:
        """A run's end, in one commit with the run that goes on with it, unless one of its sync is queued already.

        Raises:
            LostRunError: as Runs.save.
        """

        def go_on(connection: Connection) -> None:
            if then is not None and not _is_queued(connection, run.sync):
                _add(connection, *then)
                crash.point("queue.end.inside")

        self._runs.save(run, now=now, beside=go_on)

    def waiting(self) -> list[SyncRun]:
        """Longest first."""
        with self._store.read() as connection:
            rows = connection.execute(select(runs).where(_QUEUED).order_by(runs.c.queued_at, runs.c.id))
            return [run_of(row) for row in rows]

    def asked(self, run_id: str) -> Asked | None:
        """What a run was queued with; None where it was begun by hand."""
        with self._store.read() as connection:
            row = connection.execute(select(runs.c.asked).where(runs.c.id == run_id)).one_or_none()
        return _asked(row) if row is not None and row.asked is not None else None


def _add(connection: Connection, run: SyncRun, asked: Asked) -> None:
    values = run_values(run) | {"owner": "", "alive_at": run.started_at, "asked": _text(asked)}
    connection.execute(insert(runs).values(values))


def _is_queued(connection: Connection, sync: str) -> bool:
    return connection.execute(select(runs.c.id).where(_QUEUED, runs.c.sync == sync).limit(1)).first() is not None


def _text(asked: Asked) -> str:
    return orjson.dumps(asdict(asked), default=str).decode()


def _asked(row: Any) -> Asked:
    told = orjson.loads(row.asked or "{}")
    most = told.get("max_credits")
    return Asked(**{**told, "max_credits": Decimal(most) if most is not None else None})
