"""The house keeps its word: settings, commands and documents say the same; starting costs little."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from crm_sync.cli import VERBS, cli
from crm_sync.settings import setting_names

ROOT = Path(__file__).parents[1]
CRMS = [("salesforce", "salesforce"), ("hubspot", "hubspot")]


def names_in(text: str) -> set[str]:
    return set(re.findall(r"CRM_SYNC_[A-Z_]+[A-Z]", text))


def test_the_example_env_explains_every_setting_and_no_other() -> None:
    text = (ROOT / "settings.example.env").read_text()

    assert set(re.findall(r"^(CRM_SYNC_\w+)=", text, re.MULTILINE)) == setting_names(CRMS)


def test_the_readme_lists_every_setting_and_every_verb() -> None:
    text = (ROOT / "README.md").read_text()

    assert setting_names(CRMS) <= names_in(text)
    for verb in VERBS:
        assert f"| `{verb}` |" in text, verb


def test_every_verb_can_be_loaded_and_helps() -> None:
    from click.testing import CliRunner

    for verb in VERBS:
        result = CliRunner().invoke(cli, [verb, "--help"])

        assert result.exit_code == 0, (verb, result.output)
        assert result.output.startswith("Usage:")


def test_an_unknown_verb_suggests_a_near_one() -> None:
    from click.testing import CliRunner

    result = CliRunner().invoke(cli, ["paln"])

    assert result.exit_code == 2
    assert "Did you mean plan?" in result.output


def test_help_costs_little_and_imports_no_crm_library() -> None:
    code = (
        "import sys, resource\n"
        "from crm_sync.cli import cli\n"
        "try:\n    cli(['--help'])\nexcept SystemExit:\n    pass\n"
        "usage = resource.getrusage(resource.RUSAGE_SELF)\n"
        "print('modules', [m for m in ('simple_salesforce', 'hubspot', 'sqlalchemy', 'flask', 'zeep') if m in sys.modules])\n"
        "print('cpu', usage.ru_utime + usage.ru_stime)\n"
    )

    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True).stdout

    assert "modules []" in out
    assert float(out.split("cpu ")[1]) < 0.8


def test_no_file_of_ours_names_this_machine_or_a_registry() -> None:
    tracked = subprocess.run(["git", "ls-files"], capture_output=True, text=True, cwd=ROOT, check=True).stdout.split()
    home = os.path.expanduser("~")
    found = []
    for name in tracked:
        path = ROOT / name
        if not path.is_file() or path.suffix in (".png",):
            continue
        text = path.read_text(encoding="utf-8", errors="ignore")
        if re.search(r"registry\.npmjs|files\.pythonhosted|pypi\.org/simple", text) and name != "tests/test_house.py":
            found.append(name)
        if f"{home}/" in text and name != "tests/test_house.py":
            found.append(name)

    assert found == []
