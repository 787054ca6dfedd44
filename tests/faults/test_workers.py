"""Workers that share runs, killed at random moments: a little of what `python -m tests.faults.workers` does in full."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.receiver import postgres_to_stop
from tests.faults.workers import kills
from tests.redis import redis_in


@pytest.mark.postgres
def test_workers_that_are_killed_lose_and_repeat_nothing(tmp_path: Path) -> None:
    with postgres_to_stop() as database, redis_in(tmp_path) as redis:
        told = kills(tmp_path, database, redis.url, count=5, contacts=1500, seed=11)

    assert told.violations == [], str(told)
    assert told.kills.total() == 5
