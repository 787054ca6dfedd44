"""Every seeded bug is seen by something (tests/faults/mutants.py)."""

from __future__ import annotations

from pathlib import Path

import orjson

from tests.faults.mutants import MUTANTS
from tests.faults.test_crashes import ROOT, faults


def test_every_bug_that_is_put_in_on_purpose_is_seen(tmp_path: Path) -> None:
    ended = faults("--mutants", "--sample", "--json", str(tmp_path / "mutants.json"))

    told = orjson.loads((tmp_path / "mutants.json").read_bytes())
    unseen = [each["mutant"] for each in told["seeded_bugs"] if not each["by"]]
    assert unseen == []
    assert len(told["seeded_bugs"]) == len(MUTANTS) >= 8
    assert ended.returncode == 0, ended.stdout[-4000:] + ended.stderr[-2000:]


def test_each_of_them_is_in_the_documents_with_who_sees_it() -> None:
    rows = [line.split(" | ") for line in (ROOT / "docs" / "seeded-bugs.md").read_text().splitlines()]
    told = {row[0].removeprefix("| "): row[1] for row in rows if len(row) == 2}

    assert told.keys() - {"bug"} == {mutant.name for mutant in MUTANTS}
    for mutant in MUTANTS:
        seen_by = [*mutant.cells, *(test.rpartition("::")[2] for test in mutant.tests)]
        assert any(f"`{each}`" in told[mutant.name] for each in seen_by), mutant.name
