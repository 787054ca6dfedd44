"""How fast the database answers."""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import datetime
from statistics import median

from sqlalchemy import text

from crm_sync.store.engine import Store
from crm_sync.store.tables import marks
from crm_sync.store.upsert import upsert

_QUESTIONS, _WRITES = 7, 3
_MARK = "measured"


@dataclass(frozen=True, slots=True, kw_only=True)
class Speed:
    """In seconds: the smallest question and its answer, and a small write with its commit."""

    round_trip_s: float
    write_s: float

    @property
    def shown(self) -> str:
        return f"{_ms(self.round_trip_s)} for a round trip, {_ms(self.write_s)} for a small write"


#: A run does 0.57 of the records it does beside the database (docs/deployment.md, 2026-11).
SLOW = Speed(round_trip_s=0.02, write_s=0.2)


def is_slow(speed: Speed, limit: Speed = SLOW) -> bool:
    return speed.round_trip_s > limit.round_trip_s or speed.write_s > limit.write_s


def is_well(speed: Speed) -> bool:
    """Clearly, so that a database near the limit is not told as slow and well by turns."""
    return not is_slow(speed, Speed(round_trip_s=SLOW.round_trip_s * 0.7, write_s=SLOW.write_s * 0.7))


def measured(store: Store, *, now: datetime) -> Speed:
    """The middle one of a few, so that a single hiccup is none.

    Raises:
        StoreError: the database cannot be asked.
    """
    asked, written = [], []
    with store.read() as connection:
        for _ in range(_QUESTIONS):
            begun = time.perf_counter()
            connection.execute(text("select 1")).scalar()
            asked.append(time.perf_counter() - begun)
    for _ in range(_WRITES):
        begun = time.perf_counter()
        with store.write() as connection:
            row = {"name": _MARK, "number": 1, "at": now}
            connection.execute(upsert(connection, marks, ("at",), add=("number",)), row)
        written.append(time.perf_counter() - begun)
    return Speed(round_trip_s=median(asked), write_s=median(written))


def _ms(seconds: float) -> str:
    if seconds < 0.0001:
        return "less than 0.1 ms"
    return f"{seconds * 1000:.{0 if seconds >= 0.01 else 1}f} ms"
