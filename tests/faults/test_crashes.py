"""A sample of `make faults` small enough for every day, and that its table of points is true."""

from __future__ import annotations

import ast
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import orjson
import pytest

from crm_sync import crash
from crm_sync.domain.runs import Counts, RunStatus
from crm_sync.errors import ConfigError
from crm_sync.settings import unknown_settings
from crm_sync.store.runs import WRITING, RunRecord
from tests.factories import a_run
from tests.faults.crashes import SAMPLE, hits_of
from tests.journeys.conftest import Open, crm, open_office  # noqa: F401  (fixtures)

ROOT = Path(__file__).parents[2]


def faults(*words: str) -> subprocess.CompletedProcess[str]:
    """The harness in a process of its own: one that forks must have no threads, and pytest-xdist's has some."""
    command = [sys.executable, "-m", "tests.faults", *words]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False, timeout=280)


def hits(file: Path) -> list[tuple[str, int]]:
    """The names that a file hits, each with its line."""
    return [
        (ast.literal_eval(node.args[0]), node.lineno)
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "crash.point"
    ]


# --- the sample ---------------------------------------------------------------------------------------------------


def test_a_process_killed_at_a_point_of_each_kind_loses_and_repeats_nothing(tmp_path: Path) -> None:
    ended = faults("--sample", "--json", str(tmp_path / "sample.json"))

    assert ended.returncode == 0, ended.stdout[-4000:] + ended.stderr[-2000:]
    told: dict[str, Any] = orjson.loads((tmp_path / "sample.json").read_bytes())
    assert told["kills"] == len(SAMPLE)
    assert (told["violations"], told["charged_twice"], told["answers_lost"]) == (0, 0, 0)
    assert (told["deliveries_lost"], told["applied_twice"]) == (0, 0)
    assert told["in_doubt"] > 0


def test_every_point_is_met_in_some_scene() -> None:
    ended = faults("--census", "--only", "salesforce")

    met = {point.partition("@")[0] for scene in orjson.loads(ended.stdout).values() for point in scene}
    assert met == set(crash.POINTS)


# --- the table ----------------------------------------------------------------------------------------------------


def test_the_table_names_the_points_of_the_code_and_no_others() -> None:
    files = [file for room in ("crm_sync", "adapters") for file in (ROOT / room).rglob("*.py")]
    named = [(name, f"{file.name}:{line}") for file in files for name, line in hits(file)]

    assert {name for name, _ in named} == set(crash.POINTS)
    assert len(named) == len(crash.POINTS), "a point has one place"


@pytest.mark.parametrize("text", ["", "journal.sent", "journal.sent.after", "journal.sent.after:0", "nowhere:1", "a:b"])
def test_what_names_no_point_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="is for tests and reads"):
        crash.arm(text)


def test_a_command_with_a_wrong_point_says_so_and_does_nothing() -> None:
    command = [sys.executable, "-m", "crm_sync", "runs"]

    ended = subprocess.run(
        command, capture_output=True, text=True, env=os.environ | {crash.SETTING: "nowhere:1"}, check=False
    )

    assert ended.returncode == 2
    assert ended.stderr.startswith(f"crm-sync: {crash.SETTING} is for tests")
    assert "Traceback" not in ended.stderr


def test_a_point_ends_the_process_at_its_nth_hit_and_with_its_detail_only() -> None:
    code = (
        "from crm_sync import crash\n"
        "for detail in ('read', 'write', 'read', 'write'):\n"
        "    crash.point('wire.asked', detail)\n"
        "    print(detail, flush=True)\n"
    )

    ended = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env=os.environ | {crash.SETTING: "wire.asked@write:2"},
        cwd=ROOT,
        check=False,
    )

    assert ended.returncode == -9
    assert ended.stdout.split() == ["read", "write", "read"]


def test_nothing_happens_where_nothing_is_armed() -> None:
    crash.point("journal.sent.after")

    assert crash.point is crash._nothing


def test_it_is_no_setting_and_nobody_warns_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(crash.SETTING, "journal.sent.after:1")

    assert unknown_settings([], None) == []
    assert crash.SETTING not in (ROOT / "settings.example.env").read_text()


@pytest.mark.parametrize(
    ("count", "wanted"), [(0, []), (1, [1]), (4, [1, 2, 3, 4]), (5, [1, 2, 3, 5]), (9, [1, 2, 5, 9])]
)
def test_hits_are_all_where_they_are_few_and_else_the_ends_and_the_middle(count: int, wanted: list[int]) -> None:
    assert hits_of(count, 4) == wanted


# --- what the kills have shown ------------------------------------------------------------------------------------


def test_a_run_of_an_earlier_process_with_our_number_is_dead(open_office: Open, crm: str) -> None:  # noqa: F811
    """A container that is started again gives its first process the same number."""
    office = open_office(tidy=True)
    left_behind = a_run(status=RunStatus.RUNNING, crm=crm, id="20261008-120000-aaaa", started_at=office.app.clock.now())
    office.app.runs.open(left_behind, owner=f"{socket.gethostname()}:{os.getpid()}:an-earlier-life")

    run = office.walk()

    assert run.status is RunStatus.COMPLETED
    closed = office.app.runs.get(left_behind.id)
    assert closed is not None
    assert closed.status is RunStatus.FAILED


def test_the_books_of_a_dead_run_count_its_companies(open_office: Open, crm: str) -> None:  # noqa: F811
    office = open_office(tidy=True)
    dead = a_run(
        status=RunStatus.RUNNING,
        crm=crm,
        id="20261008-120000-aaaa",
        object_type=office.people,
        started_at=office.app.clock.now(),
    )
    office.app.runs.open(dead, owner="another-host:1:another-life")
    for kind, outcome in ((office.people, "Updated"), ("Company", "Unchanged"), ("Company", WRITING)):
        record = RunRecord(object_type=kind, record_id=f"{kind}-{outcome}", outcome=outcome, reason="")
        office.app.runs.intend(dead.id, [record], now=dead.started_at)
    office.app.runs.save(dead, now=dead.started_at.replace(year=2020))

    office.walk()

    closed = office.app.runs.get(dead.id)
    assert closed is not None
    assert closed.counts == Counts(selected=1, updated=1)
    assert closed.parents == Counts(selected=2, unchanged=1, skipped=1)
