"""A database that is far away, busy, or behind a pooler: seen for what it is."""

from __future__ import annotations

from pathlib import Path

import pytest

from crm_sync.store.engine import Store
from crm_sync.store.exclusive import Exclusive, why_not_exclusive
from crm_sync.store.speed import SLOW, Speed, is_slow, is_well, measured
from tests.conftest import database_of
from tests.factories import NOON
from tests.lines import a_line, a_pooler, through


def test_a_database_at_hand_is_not_slow(store: Store) -> None:
    speed = measured(store, now=NOON)

    assert 0 < speed.round_trip_s < speed.write_s
    assert is_well(speed), speed.shown


@pytest.mark.postgres
def test_a_database_that_answers_late_is_slow_by_as_much(request: pytest.FixtureRequest, tmp_path: Path) -> None:
    with database_of("postgresql", request, tmp_path) as url, a_line(url) as line:
        store = Store(through(url, line.port))
        store.ready()
        line.delay_s = 0.02
        far = measured(store, now=NOON)
        line.delay_s = 0.0
        near = measured(store, now=NOON)
        store.close()

    assert far.round_trip_s >= 0.04
    assert is_slow(far)
    assert is_well(near), near.shown


@pytest.mark.parametrize(
    ("speed", "slow", "well"),
    [
        (Speed(round_trip_s=0.001, write_s=0.003), False, True),
        (Speed(round_trip_s=0.021, write_s=0.003), True, False),
        (Speed(round_trip_s=0.001, write_s=0.201), True, False),
        (Speed(round_trip_s=0.018, write_s=0.003), False, False),  # neither news nor over
    ],
)
def test_near_the_limit_it_is_neither_told_as_slow_nor_as_well(speed: Speed, slow: bool, well: bool) -> None:
    assert (is_slow(speed), is_well(speed)) == (slow, well)


def test_speeds_are_told_in_milliseconds() -> None:
    assert SLOW.shown == "20 ms for a round trip, 200 ms for a small write"
    assert (
        Speed(round_trip_s=0.00003, write_s=1.2).shown == "less than 0.1 ms for a round trip, 1200 ms for a small write"
    )
    assert Speed(round_trip_s=0.00034, write_s=0.00412).shown == "0.3 ms for a round trip, 4.1 ms for a small write"


def test_a_database_of_our_own_keeps_its_locks(store: Store) -> None:
    assert why_not_exclusive(store) == ""


@pytest.mark.postgres
def test_a_pooler_that_lends_out_sessions_is_seen(request: pytest.FixtureRequest, tmp_path: Path) -> None:
    with database_of("postgresql", request, tmp_path) as url, a_pooler(url) as pooler:
        direct, lent, other = Store(url), Store(through(url, pooler.port)), Store(through(url, pooler.port))
        direct.ready()
        told = why_not_exclusive(lent)
        with Exclusive(lent, "x") as mine, Exclusive(other, "x") as theirs:
            both_have_it = mine.take() and theirs.take()
        stores = (direct, lent, other)
        for store in stores:
            store.close()

    assert "lends out sessions by the transaction" in told
    assert both_have_it, "the reason for all this: else this pooler is none"
