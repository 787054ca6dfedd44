"""Acknowledged means stored: a few rounds of what `python -m tests.faults.receiver` does in full."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.faults.receiver import full_disk, kills, postgres_to_stop, small_disk, stops
from tests.webhooks.servers import SERVERS


@pytest.mark.parametrize("server", SERVERS)
def test_what_was_acknowledged_survives_the_death_of_the_server(server: str, database_url: str, tmp_path: Path) -> None:
    tally = kills(server, tmp_path, database_url, rounds=3)

    assert tally.is_kept, str(tally)


@pytest.mark.postgres
def test_what_was_acknowledged_survives_the_death_of_the_database(tmp_path: Path) -> None:
    with postgres_to_stop() as database:
        tally = stops("waitress", tmp_path, database, rounds=1)

    assert tally.is_kept, str(tally)
    assert set(tally.refused) <= {0, 503}


def test_a_full_disk_refuses_and_loses_nothing(tmp_path: Path) -> None:
    with small_disk(tmp_path) as disk:
        if disk is None:
            pytest.skip("A SMALL DISK CANNOT BE MOUNTED by this user: the limit on a file's size stands in for it")
        tally = full_disk("waitress", disk, limits_files=False)

    assert tally.is_kept, str(tally)
    assert set(tally.refused) <= {503}


@pytest.mark.skipif(not hasattr(os, "posix_spawn"), reason="limits of another process are Linux's")
def test_a_file_that_may_not_grow_refuses_and_loses_nothing(tmp_path: Path) -> None:
    tally = full_disk("waitress", tmp_path, limits_files=True)

    assert tally.is_kept, str(tally)
    assert set(tally.refused) <= {503}
