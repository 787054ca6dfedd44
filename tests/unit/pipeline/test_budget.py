"""What may still be spent, and on which day it counts."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crm_sync.config.model import Budget
from crm_sync.pipeline.budget import day_of, room
from crm_sync.store.journal import Room, Spent


def spent(*, run: str = "0", day: str = "0", month: str = "0") -> Spent:
    return Spent(run=Decimal(run), day=Decimal(day), month=Decimal(month))


def credits_of(**limits: str) -> Budget:
    return Budget(**{name: Decimal(limit) for name, limit in limits.items()})  # type: ignore[arg-type]


# --- room ---------------------------------------------------------------------------------------------------------


def test_without_limits_there_is_always_room() -> None:
    assert room(Budget(), spent(run="1e9", day="1e9", month="1e9")) == Room(credits=None, limit="")


@pytest.mark.parametrize(
    ("limits", "used", "expected"),
    [
        ({"per_run": "500"}, {"run": "120", "day": "900"}, ("380", "budget.per_run of 500 credits")),
        ({"per_day": "500"}, {"run": "120", "day": "499.5"}, ("0.5", "budget.per_day of 500 credits")),
        ({"per_month": "20000"}, {"month": "1"}, ("19999", "budget.per_month of 20000 credits")),
        ({"per_run": "12.50"}, {"run": "1.01"}, ("11.49", "budget.per_run of 12.50 credits")),
    ],
)
def test_each_limit_is_held_against_what_it_is_about(
    limits: dict[str, str], used: dict[str, str], expected: tuple[str, str]
) -> None:
    found = room(credits_of(**limits), spent(**used))

    assert found == Room(credits=Decimal(expected[0]), limit=expected[1])


def test_the_limit_that_leaves_least_binds() -> None:
    budget = credits_of(per_run="100", per_day="200", per_month="1000")

    assert room(budget, spent(run="10", day="10", month="10")).limit == "budget.per_run of 100 credits"
    assert room(budget, spent(run="10", day="150", month="150")).limit == "budget.per_day of 200 credits"
    assert room(budget, spent(run="10", day="10", month="960")).limit == "budget.per_month of 1000 credits"


def test_max_credits_bounds_a_run_beside_its_budget() -> None:
    found = room(credits_of(per_day="200"), spent(run="4", day="150"), max_credits=Decimal(25))

    assert found == Room(credits=Decimal(21), limit="--max-credits of 25 credits")
    assert room(Budget(), spent(run="30"), max_credits=Decimal(25)).credits == 0


def test_a_limit_that_was_lowered_below_what_is_spent_leaves_nothing_and_owes_nothing() -> None:
    assert room(credits_of(per_month="10"), spent(month="4000")).credits == 0


def test_a_limit_of_nought_leaves_nothing() -> None:
    assert room(credits_of(per_run="0"), spent()) == Room(credits=Decimal(0), limit="budget.per_run of 0 credits")


def test_a_large_limit_is_told_in_digits() -> None:
    assert room(credits_of(per_month="1E+5"), spent()).limit == "budget.per_month of 100000 credits"


amounts = st.decimals(min_value=0, max_value=10**6, places=6)


@given(amounts | st.none(), amounts | st.none(), amounts | st.none(), amounts | st.none(), amounts, amounts, amounts)
def test_spending_the_whole_room_exceeds_no_limit(
    per_run: Decimal | None,
    per_day: Decimal | None,
    per_month: Decimal | None,
    at_most: Decimal | None,
    run: Decimal,
    day: Decimal,
    month: Decimal,
) -> None:
    budget = Budget(per_run=per_run, per_day=per_day, per_month=per_month)

    found = room(budget, Spent(run=run, day=day, month=month), max_credits=at_most)

    limits = [(per_run, run), (at_most, run), (per_day, day), (per_month, month)]
    assert (found.credits is None) == all(limit is None for limit, _ in limits)
    if found.credits is not None:
        assert found.credits >= 0
        for limit, used in limits:
            assert limit is None or used + found.credits <= max(limit, used)


# --- days ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("moment", "timezone", "day"),
    [
        # Midnight in New York is 04:00 UTC in summer and 05:00 UTC in winter.
        ("2026-10-08T03:59:59", "America/New_York", "2026-10-07"),
        ("2026-10-08T04:00:00", "America/New_York", "2026-10-08"),
        ("2026-12-08T04:59:59", "America/New_York", "2026-12-07"),
        ("2026-12-08T05:00:00", "America/New_York", "2026-12-08"),
        ("2026-12-31T22:59:59", "Europe/Berlin", "2026-12-31"),
        ("2026-12-31T23:00:00", "Europe/Berlin", "2027-01-01"),
        ("2026-02-28T10:00:00", "Pacific/Kiritimati", "2026-03-01"),
        ("2026-10-08T00:00:00", "UTC", "2026-10-08"),
        ("2026-10-07T18:29:59", "Asia/Kolkata", "2026-10-07"),
        ("2026-10-07T18:30:00", "Asia/Kolkata", "2026-10-08"),
    ],
)
def test_a_day_begins_at_midnight_of_the_time_zone(moment: str, timezone: str, day: str) -> None:
    assert day_of(datetime.fromisoformat(moment).replace(tzinfo=UTC), timezone) == day


@pytest.mark.parametrize(
    ("timezone", "first_moment", "day", "hours"),
    [
        ("Europe/Berlin", "2026-03-28T23:00:00", "2026-03-29", 23),
        ("Europe/Berlin", "2026-10-24T22:00:00", "2026-10-25", 25),
        ("America/New_York", "2026-03-08T05:00:00", "2026-03-08", 23),
        ("America/New_York", "2026-11-01T04:00:00", "2026-11-01", 25),
        # Its clocks change at midnight itself: 2026-09-06 begins at one o'clock.
        ("America/Santiago", "2026-09-06T04:00:00", "2026-09-06", 23),
    ],
)
def test_a_day_on_which_the_clocks_change_is_an_hour_shorter_or_longer(
    timezone: str, first_moment: str, day: str, hours: int
) -> None:
    first = datetime.fromisoformat(first_moment).replace(tzinfo=UTC)

    minutes = [first + timedelta(minutes=minute) for minute in range(-60, 27 * 60)]

    assert [minute for minute in minutes if day_of(minute, timezone) == day] == minutes[60 : 60 + 60 * hours]


@given(
    st.datetimes(min_value=datetime(2020, 1, 1), max_value=datetime(2035, 1, 1), timezones=st.just(UTC)),
    st.sampled_from(["UTC", "Europe/Berlin", "America/New_York", "Asia/Kolkata", "Pacific/Apia", "America/Santiago"]),
    st.integers(0, 10**6),
)
def test_days_only_go_forward_and_read_as_dates(moment: datetime, timezone: str, later_s: int) -> None:
    day, later = day_of(moment, timezone), day_of(moment + timedelta(seconds=later_s), timezone)

    assert day <= later
    assert datetime.fromisoformat(day).date().isoformat() == day
