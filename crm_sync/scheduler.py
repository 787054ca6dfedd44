"""When syncs run: the only module that knows APScheduler. It queues runs, and does none.

One process at a time is the scheduler, whichever has the lock; with it goes the lock (store/exclusive.py). Jobs are
kept in memory and made anew from the newest configuration: APScheduler's shared job stores run jobs twice
(design/performance.md 6: 8 seconds of 9 with a doubled tick). Each slot is queued once, whoever queues it.
"""

from __future__ import annotations

import logging
import random
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from apscheduler.executors.pool import ThreadPoolExecutor
from apscheduler.schedulers.background import BackgroundScheduler
from apscheduler.triggers.base import BaseTrigger

from crm_sync.complaints import Complaints
from crm_sync.config.model import Config, Schedule
from crm_sync.config.slots import upcoming
from crm_sync.errors import CrmSyncError
from crm_sync.pipeline.recover import recover_everywhere
from crm_sync.pipeline.scheduling import agreed, due_slots, queue_slot
from crm_sync.services import Services
from crm_sync.store.exclusive import Exclusive
from crm_sync.store.schedules import Standing

_log = logging.getLogger(__name__)

#: How often the scheduler looks for a new configuration, a pause and its lock, and the others whether it is gone.
_LOOK_EVERY_S = 3.0
#: How often it notes that it is at work, and does its chores.
_SEEN_EVERY = timedelta(seconds=15)
#: So long after its time nobody queues a slot but the next look.
_OVERDUE = timedelta(seconds=5)


@dataclass(frozen=True, slots=True)
class _Plan:
    """What the jobs were made from: another plan, and they are made anew."""

    config_version: int | None
    standings: tuple[Standing, ...]


class SlotTrigger(BaseTrigger):  # type: ignore[misc]  # apscheduler has no types
    """APScheduler's trigger for the slots of one schedule, each with a delay of its own where there is `jitter`."""

    def __init__(self, schedule: Schedule, timezone: str, since: datetime) -> None:
        self._schedule = schedule
        self._timezone = timezone
        self._since = since

    def get_next_fire_time(self, previous_fire_time: datetime | None, now: datetime) -> datetime:  # noqa: ARG002
        slot = next(upcoming(self._schedule, self._timezone, since=self._since, now=now.astimezone(UTC)))
        return slot + self._schedule.jitter * random.random()  # noqa: S311 - spreads load, keeps no secret


class Scheduler:
    """Queues the runs of all syncs while this process has the lock. Whatever goes wrong is told, and ends nothing."""

    def __init__(
        self, services: Callable[[], Services], lock: Exclusive, chores: Sequence[Callable[[Services], object]] = ()
    ) -> None:
        """`services` makes them for the newest applied configuration. `chores` are done every quarter of a minute, in
        no other process."""
        self._make_services = services
        self._lock = lock
        self._chores = chores
        self._services: Services | None = None
        self._engine: Any = None
        self._plan: _Plan | None = None
        self._seen_at: datetime | None = None
        self._complaints = Complaints(_log, "syncs are not queued")

    def run(self, stop: threading.Event) -> None:
        while not stop.is_set():
            try:
                if self._lock.take():
                    self.look()
                else:
                    self.stand_down()
            except Exception as error:  # noqa: BLE001 - the next look begins anew; what was due then is queued then
                self._complaints.about(error)
                self.stand_down()
            stop.wait(_LOOK_EVERY_S)
        self.stand_down()
        self._lock.release()

    def look(self) -> None:
        """Make the jobs agree with the newest configuration and with what is paused; queue what was missed.

        Raises:
            CrmSyncError: the database, or the configuration.
        """
        services = self._current()
        now = services.clock.now()
        if self._seen_at is None or not timedelta(0) <= now - self._seen_at < _SEEN_EVERY:
            services.schedules.seen(now=now)
            self._seen_at = now
            self._do_chores(services)
        standings = agreed(services)
        # A slot that was noted changes nothing about when the next one is.
        steady = tuple(Standing(sync=s.sync, since=s.since, paused_at=s.paused_at) for s in standings.values())
        plan = _Plan(services.config_version, steady)
        is_new = plan != self._plan or self._engine is None
        for slot in due_slots(services.config, standings, now=now):
            # Its job queues it; but a machine that slept, say, wakes its threads late.
            if is_new or now > slot.at + _jitter(services.config, slot.sync) + _OVERDUE:
                self._queue(slot.sync, services)
        if is_new:
            self._begin(services.config, standings)
            self._plan = plan

    def _do_chores(self, services: Services) -> None:
        """What has to be done by somebody, now and then. None of it keeps the others, or the slots, from their turn."""
        for problem in recover_everywhere(services):
            self._complaints.tell(problem)
        for chore in self._chores:
            try:
                chore(services)
            except CrmSyncError as error:
                self._complaints.tell(str(error))

    def _begin(self, config: Config, standings: dict[str, Standing]) -> None:
        """Jobs for the slots to come."""
        self._end_jobs()
        engine = BackgroundScheduler(timezone=UTC, executors={"default": ThreadPoolExecutor(1)})
        for name, sync in config.syncs.items():
            standing = standings.get(name)
            if sync.schedule is None or standing is None or standing.paused_at is not None:
                continue
            engine.add_job(
                self._fire,
                SlotTrigger(sync.schedule, config.timezone, standing.since),
                args=(name,),
                id=name,
                coalesce=True,
                max_instances=1,
                misfire_grace_time=None,
            )
        engine.start()
        self._engine = engine

    def _fire(self, sync: str) -> None:
        services = self._services
        if services is None:
            return
        try:
            self._queue(sync, services)
        except CrmSyncError as error:
            self._complaints.about(error)
            self._plan = None  # the next look queues it

    def _queue(self, sync: str, services: Services) -> None:
        queued = queue_slot(sync, services)
        if queued is not None:
            slot = queued.slot.isoformat(timespec="seconds") if queued.slot is not None else ""
            _log.info("queued %s for %s, slot %s", queued.id, sync, slot)

    def _current(self) -> Services:
        if self._services is None or self._services.newest_version() != self._services.config_version:
            self._services = self._make_services()
        return self._services

    def stand_down(self) -> None:
        self._end_jobs()
        self._services = self._plan = self._seen_at = None

    def _end_jobs(self) -> None:
        engine, self._engine = self._engine, None
        if engine is not None:
            engine.shutdown(wait=True)


def _jitter(config: Config, sync: str) -> timedelta:
    schedule = config.syncs[sync].schedule
    return schedule.jitter if schedule is not None else timedelta(0)
