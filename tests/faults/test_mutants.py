"""Every seeded bug is seen by something (tests/faults/mutants.py)."""

from __future__ import annotations

from pathlib import Path

import orjson

from tests.faults.mutants import MUTANTS
from tests.faults.test_crashes import faults


def test_every_bug_that_is_put_in_on_purpose_is_seen(tmp_path: Path) -> None:
    ended = faults("--mutants", "--sample", "--json", str(tmp_path / "mutants.json"))

    told = orjson.loads((tmp_path / "mutants.json").read_bytes())
    unseen = [each["mutant"] for each in told["seeded_bugs"] if not each["by"]]
    assert unseen == []
    assert len(told["seeded_bugs"]) == len(MUTANTS) >= 8
    assert ended.returncode == 0, ended.stdout[-4000:] + ended.stderr[-2000:]
