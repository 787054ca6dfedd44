"""How everything stands, in few and cheap questions: asked every half minute, and by whoever collects metrics.

None of them reads the audit (one row a record a run), and none needs the secret key.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any

import orjson
from sqlalchemy import Select, func, literal_column, select

from crm_sync.domain.runs import RunKind, RunStatus
from crm_sync.store.engine import Store
from crm_sync.store.tables import (
    Credits,
    alert_notices,
    alert_states,
    batches,
    deliveries,
    pace,
    phone_waits,
    reviews,
    runs,
    spending,
)

# In words, not as parameters: else SQLite does not take the indexes of the few.
_IN_DOUBT = batches.c.state == literal_column("'in doubt'")
_WAITS = phone_waits.c.state.in_([literal_column("'due'"), literal_column("'waiting'")])
_UNTOLD = alert_notices.c.state == literal_column("'waiting'")
_COUNTED = spending.c.reserved + spending.c.settled + spending.c.doubted
_ZERO = Decimal(0)


@dataclass(frozen=True, slots=True, kw_only=True)
class LastRun:
    """A sync's newest ended run: its status, end, length in seconds, and outcome -> records."""

    status: str
    finished_at: datetime
    seconds: float
    outcomes: Mapping[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """What /metrics tells. `runs`: (sync, kind, status) -> how many; `spent`: (purse, settled | reserved | doubted) ->
    credits of all time; `waits`: sync -> (phones awaited, since when the oldest is); `parked`: endpoint -> until when,
    in seconds since 1970."""

    runs: Mapping[tuple[str, str, str], int]
    last_runs: Mapping[str, LastRun]
    last_success: Mapping[str, datetime]
    spent: Mapping[tuple[str, str], Decimal]
    calls: Mapping[str, int]
    in_doubt: tuple[int, Decimal, datetime | None]
    deliveries: Mapping[str, int]
    waits: Mapping[str, tuple[int, datetime]]
    reviews: int
    parked: Mapping[str, float]
    firing: Mapping[str, int]
    untold: int


class Health:
    def __init__(self, store: Store) -> None:
        self._store = store

    def in_doubt(self) -> tuple[int, Decimal, datetime | None]:
        """(calls in doubt, credits at worst, when the oldest left)."""
        with self._store.read() as connection:
            return _doubt(connection.execute(_DOUBT).one())

    def awaited(self) -> dict[str, tuple[int, datetime]]:
        """Sync -> (phones it waits for, since when it does for the oldest)."""
        with self._store.read() as connection:
            return {sync: (int(count), at) for sync, count, at in connection.execute(_AWAITED)}

    def spent(self, since: str, until: str, *, purses: Collection[str]) -> Decimal:
        """All that counts against a budget of these purses in these days: settled, and at worst cost what is open or
        was doubted. Which purses a limit holds for: pipeline/budget.room."""
        query = select(func.sum(_COUNTED, type_=Credits())).where(
            spending.c.day >= since, spending.c.day <= until, spending.c.purse.in_(list(purses))
        )
        with self._store.read() as connection:
            return connection.execute(query).scalar() or _ZERO

    def snapshot(self, syncs: tuple[str, ...]) -> Snapshot:
        """All in one consistent view."""
        with self._store.read() as connection:
            ask = connection.execute
            last_runs, last_success = {}, {}
            for sync in syncs:
                last = ask(_of_sync(sync).limit(1)).first()
                if last is not None:
                    last_runs[sync] = _last_run(last)
                success = ask(_of_sync(sync).where(_SUCCESS).limit(1)).first()
                if success is not None:
                    last_success[sync] = success.finished_at
            spent = {}
            calls = {}
            for row in ask(_SPENT):
                calls[row.purse] = int(row.calls)
                for word in ("settled", "reserved", "doubted"):
                    spent[row.purse, word] = getattr(row, word) or _ZERO
            return Snapshot(
                runs={(row[0], row[1], row[2]): int(row[3]) for row in ask(_RUNS)},
                last_runs=last_runs,
                last_success=last_success,
                spent=spent,
                calls=calls,
                in_doubt=_doubt(ask(_DOUBT).one()),
                deliveries={state: int(count) for state, count in ask(_DELIVERIES)},
                waits={sync: (int(count), at) for sync, count, at in ask(_AWAITED)},
                reviews=int(ask(_REVIEWS).scalar() or 0),
                parked={row.endpoint: row.parked_until for row in ask(select(pace.c.endpoint, pace.c.parked_until))},
                firing={alert: int(count) for alert, count in ask(_FIRING)},
                untold=int(ask(select(func.count()).select_from(alert_notices).where(_UNTOLD)).scalar() or 0),
            )


def _of_sync(sync: str) -> Select[Any]:
    return (
        select(runs.c.id, runs.c.status, runs.c.started_at, runs.c.finished_at, runs.c.counts)
        .where(runs.c.sync == sync, runs.c.kind == RunKind.RUN.value, runs.c.finished_at.is_not(None))
        .order_by(runs.c.started_at.desc(), runs.c.id.desc())
    )


_SUCCESS = runs.c.status.in_(
    [each.value for each in (RunStatus.COMPLETED, RunStatus.COMPLETED_WITH_ERRORS, RunStatus.WAITING_FOR_PHONES)]
)
_RUNS = select(runs.c.sync, runs.c.kind, runs.c.status, func.count()).group_by(runs.c.sync, runs.c.kind, runs.c.status)
_SPENT = select(
    spending.c.purse,
    func.sum(spending.c.calls).label("calls"),
    func.sum(spending.c.settled).label("settled"),
    func.sum(spending.c.reserved).label("reserved"),
    func.sum(spending.c.doubted).label("doubted"),
).group_by(spending.c.purse)
_DOUBT = select(
    func.count(), func.sum(batches.c.most), func.min(func.coalesce(batches.c.sent_at, batches.c.planned_at))
).where(_IN_DOUBT)
_AWAITED = (
    select(phone_waits.c.sync, func.count(), func.min(phone_waits.c.asked_at))
    .where(_WAITS)
    .group_by(phone_waits.c.sync)
)
_DELIVERIES = select(deliveries.c.state, func.count()).group_by(deliveries.c.state)
_REVIEWS = select(func.count()).select_from(reviews).where(reviews.c.state == literal_column("'open'"))
_FIRING = (
    select(alert_states.c.alert, func.count()).where(alert_states.c.state == "firing").group_by(alert_states.c.alert)
)


def _doubt(row: Any) -> tuple[int, Decimal, datetime | None]:
    calls, most, oldest = row
    return int(calls), most if most is not None else _ZERO, oldest


def _last_run(row: Any) -> LastRun:
    counts: dict[str, int] = orjson.loads(row.counts)
    counts.pop("selected", None)
    return LastRun(
        status=row.status,
        finished_at=row.finished_at,
        seconds=(row.finished_at - row.started_at).total_seconds(),
        outcomes=counts,
    )
