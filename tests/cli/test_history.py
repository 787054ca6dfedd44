"""`runs` and `show`: the history, as it is read on a terminal, and a run that is under way."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from crm_sync.bootstrap import App
from crm_sync.domain.runs import Counts, RunKind, RunStatus
from crm_sync.sandbox.run import Sandbox
from tests.cli.conftest import ROOT, Desk, a_desk
from tests.factories import NOON, a_run

pytestmark = pytest.mark.parametrize("crm", ["hubspot"])


def some_runs(desk: Desk) -> None:
    """One of every status and of both kinds, with counts of five digits."""
    app = App()
    for number, status in enumerate(RunStatus):
        is_running = status is RunStatus.RUNNING
        started = app.clock.now() - timedelta(seconds=12) if is_running else NOON + timedelta(hours=number)
        run = a_run(
            crm=desk.crm,
            id=f"20261008-{12 + number}0000-abcd",
            started_at=started,
            status=status,
            kind=RunKind.PLAN if number % 2 else RunKind.RUN,
            finished_at=None if is_running else started + timedelta(minutes=95),
            counts=Counts(selected=12345, updated=12345),
        )
        app.runs.open(run, owner="elsewhere:1")
    app.close()


def rows(shown: str) -> list[str]:
    return [line for line in shown.splitlines() if line.startswith("20261008-")]


@pytest.mark.parametrize("columns", [80, 100, 130])
def test_the_history_reads_well_on_a_terminal_of_any_width(desk: Desk, columns: int) -> None:
    some_runs(desk)

    shown = desk.on_terminal(columns, "runs")

    lines = shown.splitlines()
    assert max(map(len, lines)) <= columns
    assert "…" not in shown
    assert len(rows(shown)) == len(RunStatus)
    assert [line for line in lines if line.strip() and not line.startswith(("20261008-", "Run ", "─"))] == []
    for word in ("Completed with errors", "Stopped at budget", "12,345", "plan"):
        assert word in shown
    heads = {80: 6, 100: 6, 130: 10}[columns]
    assert len(re.split(r"\s{2,}", lines[0].strip())) >= heads - 1, lines[0]


def test_a_pipe_is_as_wide_as_columns_says(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    some_runs(desk)

    wide = desk.run("runs").out
    monkeypatch.setenv("COLUMNS", "80")
    narrow = desk.run("runs").out

    assert "No match" in wide
    assert "No match" not in narrow
    assert max(map(len, narrow.splitlines())) <= 80


def test_a_beginning_that_several_runs_share_and_one_that_none_has_are_told_apart(desk: Desk) -> None:
    some_runs(desk)

    several = desk.run("show", "20261008")
    none = desk.run("show", "2027")
    one = desk.run("show", "20261008-12")

    assert several.code == none.code == 2
    assert several.err.startswith("crm-sync: More than 4 runs begin with 20261008, the newest first: 20261008-130000")
    assert none.err == "crm-sync: No run begins with 2027; `crm-sync runs` lists them\n"
    assert one.code == 0


def test_an_outcome_that_no_record_has_is_answered(desk: Desk) -> None:
    desk.configure()
    desk.run("run", "contacts", "--limit", "3")

    assert "No record of this run is Rejected." in desk.run("show", "--outcome", "rejected").out


@pytest.fixture
def slow(crm: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Desk]:
    """A desk whose Apollo takes its time."""
    with Sandbox(contacts=200, tidy=True, unlimited=True, per_minute=None, latency_ms=400) as sandbox:
        desk = a_desk(sandbox, crm, tmp_path, monkeypatch)
        desk.configure({"workers: 4": "workers: 1"})
        yield desk


def test_a_run_under_way_shows_how_far_it_is(slow: Desk) -> None:
    command = [sys.executable, "-m", "crm_sync", "run", "contacts"]
    running = subprocess.Popen(command, stdout=subprocess.DEVNULL, env=os.environ | {"PYTHONPATH": str(ROOT)})
    try:
        deadline = time.monotonic() + 30
        shown = slow.run("show", "--json")
        while (shown.code or not shown.json["updated"]) and time.monotonic() < deadline:
            time.sleep(0.1)
            shown = slow.run("show", "--json")
        text, history = slow.run("show").out, slow.run("runs").out
    finally:
        running.terminate()
        running.wait(timeout=30)

    assert shown.json["status"] == "Running"
    recorded = sum(row["records"] for row in shown.json["reasons"])
    assert shown.json["selected"] >= recorded > 0
    assert re.search(r"Running, \d+\.\d s so far", text)
    assert "Selected    0" not in text
    assert re.search(r"credits? so far", text)
    assert "0 calls" not in text
    assert re.search(r"Running, \d+\.\d s so far", history)
    assert slow.run("show").out.splitlines()[1] == "Cancelled: by SIGTERM"
