"""When a schedule's slots are, across changes of the clock too."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import islice, pairwise
from zoneinfo import ZoneInfo

import pytest

from crm_sync.config.model import Schedule
from crm_sync.config.slots import latest, upcoming

NEW_YORK = "America/New_York"
SINCE = datetime(2026, 1, 1, tzinfo=UTC)


def cron(text: str) -> Schedule:
    return Schedule(text=text, cron=text)


def local(*when: int, zone: str = NEW_YORK, fold: int = 0) -> datetime:
    return datetime(*when, tzinfo=ZoneInfo(zone), fold=fold).astimezone(UTC)  # type: ignore[arg-type,misc]


def between(schedule: Schedule, begin: datetime, end: datetime, zone: str = NEW_YORK) -> list[datetime]:
    """The slots that whoever looks each minute sees come."""
    found, now = [begin], begin
    while now < end:
        now += timedelta(minutes=1)
        slot = latest(schedule, zone, since=found[-1], now=now)
        if slot is not None:
            assert now - slot < timedelta(minutes=1), "it was seen when it came"
            found.append(slot)
    return found[1:]


@pytest.mark.parametrize(
    ("expression", "now", "expected"),
    [
        ("0 4 * * 0", (2026, 11, 28, 12, 0), (2026, 11, 22, 4, 0)),  # 0 is Sunday
        ("0 4 * * 7", (2026, 11, 28, 12, 0), (2026, 11, 22, 4, 0)),
        ("0 4 13 * 5", (2026, 11, 28, 12, 0), (2026, 11, 27, 4, 0)),  # the 13th, and every Friday
        ("0 4 13 * 5", (2026, 12, 14, 0, 0), (2026, 12, 13, 4, 0)),
        ("30 2 * * 1-5", (2026, 11, 29, 12, 0), (2026, 11, 27, 2, 30)),
        ("*/15 * * * *", (2026, 11, 28, 12, 15), (2026, 11, 28, 12, 15)),  # the minute that begins now
    ],
)
def test_the_latest_slot_of_a_cron_expression(expression: str, now: tuple[int, ...], expected: tuple[int, ...]) -> None:
    assert latest(cron(expression), NEW_YORK, since=SINCE, now=local(*now)) == local(*expected)


def test_a_slot_that_was_taken_does_not_come_again() -> None:
    slot = local(2026, 11, 28, 2, 30)

    assert latest(cron("30 2 * * *"), NEW_YORK, since=slot, now=local(2026, 11, 29, 2, 29)) is None


def test_a_time_that_the_clock_leaves_out_is_run_right_after() -> None:
    slots = between(cron("30 2 * * *"), local(2026, 3, 7, 12), local(2026, 3, 9, 12))

    assert slots == [local(2026, 3, 8, 3, 0), local(2026, 3, 9, 2, 30)]


def test_a_time_that_comes_twice_is_run_once() -> None:
    slots = between(cron("30 1 * * *"), local(2026, 10, 31, 12), local(2026, 11, 2, 12))

    assert slots == [local(2026, 11, 1, 1, 30), local(2026, 11, 2, 1, 30)]


@pytest.mark.parametrize("begin", [(2026, 3, 7, 23), (2026, 10, 31, 23)])
def test_what_runs_every_hour_runs_in_every_hour(begin: tuple[int, ...]) -> None:
    slots = between(cron("0 * * * *"), local(*begin), local(*begin) + timedelta(hours=8))

    assert [b - a for a, b in pairwise(slots)] == [timedelta(hours=1)] * 7


@pytest.mark.parametrize("schedule", [cron("30 2 * * *"), cron("0 */6 * * 1"), cron("5 1 1 * *")])
@pytest.mark.parametrize("zone", [NEW_YORK, "Europe/Berlin", "Australia/Lord_Howe", "Asia/Kathmandu", "UTC"])
def test_what_was_foretold_comes(schedule: Schedule, zone: str) -> None:
    now = SINCE
    for foretold in islice(upcoming(schedule, zone, since=SINCE, now=SINCE), 40):
        assert latest(schedule, zone, since=now, now=foretold - timedelta(milliseconds=1)) is None
        assert latest(schedule, zone, since=now, now=foretold) == foretold
        now = foretold


def test_an_interval_counts_from_its_beginning_whatever_the_clock_does() -> None:
    schedule = Schedule(text="every 7h", every=timedelta(hours=7))
    since = local(2026, 3, 7, 20)

    assert latest(schedule, NEW_YORK, since=since, now=since + timedelta(hours=6, minutes=59)) is None
    assert latest(schedule, NEW_YORK, since=since, now=since + timedelta(hours=22)) == since + timedelta(hours=21)
    coming = upcoming(schedule, NEW_YORK, since=since, now=since + timedelta(hours=8))
    assert list(islice(coming, 2)) == [since + timedelta(hours=14), since + timedelta(hours=21)]
