"""Which slots of which syncs are due, and how a run is queued for one."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime

from crm_sync.config.model import Config, Sync
from crm_sync.config.slots import latest
from crm_sync.domain.alerts import Late
from crm_sync.domain.runs import Asked, SyncRun, queued_run
from crm_sync.services import Services
from crm_sync.store.schedules import Standing

#: What a run says it was begun by.
BY_SCHEDULE, BY_HAND = "schedule", "queue"


@dataclass(frozen=True, slots=True, kw_only=True)
class Slot:
    """A moment of a sync's schedule whose run is not queued yet."""

    sync: str
    at: datetime


def due_slots(config: Config, standings: Mapping[str, Standing], *, now: datetime) -> Iterator[Slot]:
    """The last slot of each schedule that has passed and has had no run: those before it are run with it."""
    for name, sync in config.syncs.items():
        standing = standings.get(name)
        if standing is not None and (slot := due_slot(sync, standing, config.timezone, now=now)) is not None:
            yield slot


def due_slot(sync: Sync, standing: Standing, timezone: str, *, now: datetime) -> Slot | None:
    if sync.schedule is None or standing.paused_at is not None:
        return None
    at = latest(sync.schedule, timezone, since=standing.since, now=now)
    if at is None or (standing.last_slot is not None and at <= standing.last_slot):
        return None
    return Slot(sync=sync.name, at=at)


def late_syncs(
    config: Config,
    standings: Mapping[str, Standing],
    *,
    waiting: Iterable[SyncRun],
    running: Collection[str],
    now: datetime,
) -> list[Late]:
    """What was due and has not started: slots that nobody has queued, and queued runs that no worker has taken. A sync
    that is running is not late: its next run waits for the end of this one."""
    late = [Late(sync=slot.sync, slot=slot.at, is_queued=False) for slot in due_slots(config, standings, now=now)]
    late += [
        Late(sync=run.sync, slot=run.slot or run.queued_at or run.started_at, is_queued=True)
        for run in waiting
        if run.sync in config.syncs
    ]
    return [each for each in late if each.sync not in running]


def queue_slot(sync_name: str, services: Services) -> SyncRun | None:
    """Queue the run of a sync's last slot, if it has had none; None where there is nothing to queue."""
    sync = services.config.syncs[sync_name]
    standing = services.schedules.all().get(sync_name)
    if standing is None:
        return None
    now = services.clock.now()
    slot = due_slot(sync, standing, services.config.timezone, now=now)
    if slot is None:
        return None
    run = _queued(sync, services, trigger=BY_SCHEDULE, slot=slot.at)
    if not services.queue.add_slot(run, Asked()):
        return None
    services.tell_others()
    return run


def agreed(services: Services) -> dict[str, Standing]:
    """How each schedule of the configuration stands; a new one counts from now."""
    configured = {name: sync.schedule.text for name, sync in services.config.syncs.items() if sync.schedule}
    return services.schedules.agree(configured, now=services.clock.now())


def queue_all_due(services: Services) -> list[SyncRun]:
    """Queue the runs of all slots that are due now."""
    due = due_slots(services.config, agreed(services), now=services.clock.now())
    queued = [queue_slot(slot.sync, services) for slot in due]
    return [run for run in queued if run is not None]


def queue_by_hand(sync: Sync, services: Services, asked: Asked) -> SyncRun:
    """Queue a run that a person asks for."""
    run = _queued(sync, services, trigger=BY_HAND)
    services.queue.add(run, asked)
    services.tell_others()
    return run


def _queued(sync: Sync, services: Services, *, trigger: str, slot: datetime | None = None) -> SyncRun:
    return queued_run(
        sync=sync.name,
        crm=sync.crm,
        object_type=sync.object_type,
        trigger=trigger,
        config_version=services.config_version,
        now=services.clock.now(),
        slot=slot,
    )
