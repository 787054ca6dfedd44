"""What became of each schedule: its last slot, and whether somebody paused it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Row, delete, select, update

from crm_sync.store.engine import Store
from crm_sync.store.tables import marks, schedules
from crm_sync.store.upsert import upsert

_MARK = "scheduler"


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """A sync's schedule. Slots up to `since`, and up to `last_slot`, need no run any more; `since` is also what an
    interval counts from."""

    sync: str
    since: datetime
    last_slot: datetime | None = None
    paused_at: datetime | None = None
    paused_by: str = ""


class Schedules:
    """Every method commits before it returns."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def agree(self, configured: Mapping[str, str], *, now: datetime) -> dict[str, Standing]:
        """Make what is kept agree with the configuration, `configured`: sync -> its schedule's text. One that is new,
        or another than before, counts from now."""
        with self._store.read() as connection:
            kept = {row.sync: row for row in connection.execute(select(schedules))}
        gone = [name for name in kept if name not in configured and kept[name].paused_at is None]
        changed = [name for name, text in configured.items() if name not in kept or kept[name].seen != text]
        if gone or changed:
            with self._store.write() as connection:
                connection.execute(delete(schedules).where(schedules.c.sync.in_(gone)))
                statement = upsert(connection, schedules, ("seen", "since", "last_slot"))
                for name in changed:
                    row = {"sync": name, "seen": configured[name], "since": now, "last_slot": None, "paused_by": ""}
                    connection.execute(statement, row)
        return self.all()

    def all(self) -> dict[str, Standing]:
        with self._store.read() as connection:
            return {row.sync: _standing(row) for row in connection.execute(select(schedules))}

    def pause(self, sync: str, *, by: str, now: datetime) -> bool:
        """Nothing of it is queued until it is resumed; False where it is paused already."""
        with self._store.write() as connection:
            row = {"sync": sync, "seen": "", "since": now, "paused_by": ""}
            connection.execute(upsert(connection, schedules, ()), row)
            pausing = update(schedules).where(schedules.c.sync == sync, schedules.c.paused_at.is_(None))
            return connection.execute(pausing.values(paused_at=now, paused_by=by)).rowcount == 1

    def resume(self, sync: str, *, now: datetime) -> bool:
        """It goes on with its next slot: those that came while it was paused are not made up for. False where it is not
        paused."""
        with self._store.write() as connection:
            paused = update(schedules).where(schedules.c.sync == sync, schedules.c.paused_at.is_not(None))
            return connection.execute(paused.values(paused_at=None, paused_by="", since=now)).rowcount == 1

    def seen(self, *, now: datetime) -> None:
        """The scheduler is at work."""
        with self._store.write() as connection:
            statement = upsert(connection, marks, ("at",), add=("number",))
            connection.execute(statement, {"name": _MARK, "number": 1, "at": now})

    def seen_at(self) -> datetime | None:
        """When a scheduler was last at work."""
        with self._store.read() as connection:
            return connection.execute(select(marks.c.at).where(marks.c.name == _MARK)).scalar()


def _standing(row: Row[Any]) -> Standing:
    return Standing(
        sync=row.sync,
        since=row.since,
        last_slot=row.last_slot,
        paused_at=row.paused_at,
        paused_by=row.paused_by,
    )
