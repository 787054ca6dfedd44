"""The demo tells the whole story, also to a machine."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import orjson
import pytest

ROOT = Path(__file__).parents[2]


def demo(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "crm_sync", "demo", *words]
    return subprocess.run(command, capture_output=True, text=True, cwd=folder, check=False, timeout=200)


@pytest.fixture(autouse=True)
def _this_crm_sync(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))


def test_a_run_killed_in_mid_flight_costs_nothing_twice(tmp_path: Path) -> None:
    ended = demo(tmp_path, "--json")

    assert ended.returncode == 0, ended.stderr
    told = orjson.loads(ended.stdout)
    assert set(told) == {"salesforce", "hubspot", "human_edit", "salvage", "undo", "phones", "kill"}
    for story in (told, told["salesforce"], told["hubspot"]):
        assert story["human_edit"]["kept"] is True
        assert story["salvage"]["fields_reported"] > 0
        assert story["salvage"]["records_saved"] > 20
        assert story["undo"]["restored"] > 20
        assert story["undo"]["conflicts"] == 1
    assert told["kill"] == {"charged_twice": 0, "answers_lost": 0, "in_doubt": 10, "finished_after_restart": True}
    phones = told["phones"]
    assert phones["ordered"] > 30
    assert phones["applied"] > 15
    assert phones["waiting"] == 0
    for what in ("do_not_call", "duplicates", "recovered_by_poll"):
        assert phones[what] > 0, what
    assert list(tmp_path.iterdir()) == []


def test_with_few_contacts_it_says_that_there_was_nothing_to_kill(tmp_path: Path) -> None:
    ended = demo(tmp_path, "--contacts", "8")

    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "It had finished before there was a second call" in ended.stdout
    assert "Charged twice: nobody. Answers lost: none." in ended.stdout
    assert "a mobile, written" in ended.stdout
