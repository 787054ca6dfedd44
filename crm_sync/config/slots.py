"""When a schedule's slots are. Pure; the one module that knows cron expressions.

A cron expression means what it means to Debian's cron, with its days of the week and its changes of the clock: a slot
in the hour that is left out comes right after it, one in the hour that comes twice comes once, and what runs every hour
runs in every hour (cronsim 2.8 follows that cron).
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

from crm_sync.config.expressions import UnreadableError, written
from crm_sync.config.model import Schedule

#: What `days` stands for, as cron's fifth field says it.
_DAYS = {"daily": "*", "weekdays": "1-5", "weekends": "0,6"}
_DAY = {"mon": "1", "tue": "2", "wed": "3", "thu": "4", "fri": "5", "sat": "6", "sun": "0"}


def schedule_of(
    *,
    days: tuple[str, ...] | None,
    at: tuple[int, int] | None,
    cron: str | None,
    every: timedelta | None,
    jitter: timedelta | None,
) -> Schedule | None:
    """A schedule as the configuration's keys say it; None where they say no time."""
    shift = jitter or timedelta(0)
    if cron is not None:
        return Schedule(text=f"cron {cron}", cron=cron, jitter=shift)
    if every is not None:
        return Schedule(text=f"every {written(every)}", every=every, jitter=shift)
    if not days or at is None:
        return None
    named = ",".join(dict.fromkeys(_DAYS.get(day) or _DAY[day] for day in days))
    text = f"{' and '.join(dict.fromkeys(days))} at {at[0]:02d}:{at[1]:02d}"
    return Schedule(text=text, cron=f"{at[1]} {at[0]} * * {'*' if '*' in named else named}", jitter=shift)


def check_cron(text: str) -> None:
    """
    Raises:
        UnreadableError: it is no cron expression of five fields, or no moment ever fits it.
    """
    if len(text.split()) != 5:
        raise UnreadableError(
            "this is not a cron expression of five fields.", 'Minute, hour, day, month, weekday: "0 4 * * 0".'
        )
    try:
        next(CronSim(text, datetime(2024, 1, 1, tzinfo=UTC)))
    except CronSimError as error:
        raise UnreadableError(
            f"this is not a cron expression: {str(error).lower()}.", 'For example "0 4 * * 0".'
        ) from None
    except StopIteration:
        raise UnreadableError(
            "no day ever fits this cron expression.", "Look at its day and its month: a 31 February never comes."
        ) from None


def latest(schedule: Schedule, timezone: str, *, since: datetime, now: datetime) -> datetime | None:
    """The last slot after `since` and not after `now`; None where there was none. `since` is also what `every` counts
    from."""
    if schedule.every is not None:
        count = (now - since) // schedule.every
        return since + count * schedule.every if count >= 1 else None
    # Cron looks at whole minutes, and one that begins now counts.
    upto = (now + timedelta(microseconds=1)).astimezone(ZoneInfo(timezone))
    slot = next(CronSim(schedule.cron, upto, reverse=True), None)
    found = slot.astimezone(UTC) if slot is not None else None
    return found if found is not None and found > since else None


def upcoming(schedule: Schedule, timezone: str, *, since: datetime, now: datetime) -> Iterator[datetime]:
    """The slots after `now`, without end."""
    if schedule.every is not None:
        count = max((now - since) // schedule.every, 0)
        while True:
            count += 1
            yield since + count * schedule.every
    for slot in CronSim(schedule.cron, now.astimezone(ZoneInfo(timezone))):
        yield slot.astimezone(UTC)
