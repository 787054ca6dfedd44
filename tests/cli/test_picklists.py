"""`picklists`: what runs could not map, and one command that maps it."""

from __future__ import annotations

from pathlib import Path

import pytest

from crm_sync.bootstrap import App
from crm_sync.store.runs import Runs
from tests.cli.conftest import Desk
from tests.factories import NOON

FIELD = {"salesforce": ("Seniority__c", "contacts"), "hubspot": ("hs_seniority", "contacts")}


def without_a_table(desk: Desk) -> str:
    """A configuration whose seniority has no table, applied, with what runs have met; the name of the field."""
    name, sync = FIELD[desk.crm]
    assert desk.run("init", "--crm", desk.crm).code == 0
    file = desk.folder / "crm_sync.yaml"
    lines = file.read_text().splitlines(keepends=True)
    start = next(number for number, line in enumerate(lines) if line.strip().startswith(f"{name}:"))
    end = start + 1
    while lines[end].startswith("        "):
        end += 1
    lines[start:end] = [f"      {name}: person.seniority   # as Apollo has it\n"]
    file.write_text("".join(lines))
    assert desk.run("config", "apply").code == 0
    app = App()
    Runs(app.store).count_unmapped(sync, {(name, "c_suite"): 12, (name, "owners"): 7, (name, "zzz"): 1}, now=NOON)
    Runs(app.store).count_unmapped(sync, {("Gone__c", "c_suite"): 3}, now=NOON)
    app.close()
    return name


def test_what_runs_met_is_listed_with_what_it_may_mean(desk: Desk) -> None:
    name = without_a_table(desk)
    executive = {"salesforce": "Executive", "hubspot": "executive"}[desk.crm]

    shown = desk.run("picklists")
    told = desk.run("picklists", "contacts", "--field", name, "--json").json

    assert shown.code == 0
    assert [(row["field"], row["value"], row["seen"]) for row in told] == [
        (name, "c_suite", 12),
        (name, "owners", 7),
        (name, "zzz", 1),
    ]
    assert told[0]["suggestions"][0]["value"] == executive
    assert told[0]["suggestions"][0]["why"] == "ready-made table"
    assert told[2]["suggestions"] == []
    assert "of contacts can be mapped at once: crm-sync picklists map contacts --suggested" in shown.flat
    assert "Gone__c" not in shown.text


def test_one_command_maps_all_that_is_sure_and_applies_it(desk: Desk) -> None:
    name = without_a_table(desk)
    file = desk.folder / "crm_sync.yaml"
    before = file.read_text()

    tried = desk.run("picklists", "map", "contacts", "--suggested", "--dry-run")
    assert file.read_text() == before
    done = desk.run("picklists", "map", "contacts", "--suggested", "--yes", "--apply")

    assert tried.code == done.code == 0
    after = file.read_text()
    assert f"      {name}:\n        from: person.seniority   # as Apollo has it\n        picklist:\n" in after
    # Every line that was there is there, in its order.
    rest = iter(after.splitlines())
    assert all(line in rest for line in before.splitlines() if not line.strip().startswith(f"{name}:"))
    for said in (tried, done):
        assert f"-      {name}: person.seniority" in said.out
        assert "1 value without a suggestion of 90 % or more" in said.out or "2 values without" in said.out
    assert "configuration version 2 now" in done.flat
    assert "c_suite" not in [row["value"] for row in desk.run("picklists", "--json").json]
    left = len(desk.run("picklists", "--json").json)
    assert f"{left} Apollo value{'s' if left > 1 else ''} seen so far" in desk.run("config", "check").flat


@pytest.mark.parametrize("crm", ["salesforce"])
def test_values_are_mapped_by_hand_and_asked_about_when_they_are_suggestions(desk: Desk) -> None:
    name = without_a_table(desk)

    by_hand = desk.run("picklists", "map", "contacts", name, "zzz=Manager", "owners = Executive")
    unanswered = desk.run("picklists", "map", "contacts", name, "--suggested")

    assert by_hand.code == 0
    assert "2 values mapped in crm_sync.yaml." in by_hand.out
    assert "Next: crm-sync config apply." in by_hand.out
    text = (desk.folder / "crm_sync.yaml").read_text()
    assert "          Manager: [zzz]\n          Executive: [owners]\n" in text
    assert unanswered.code == 1
    assert "Write 1 value into crm_sync.yaml?" in unanswered.out
    assert (desk.folder / "crm_sync.yaml").read_text() == text


@pytest.mark.parametrize("crm", ["salesforce"])
def test_a_csv_file_is_kept_as_it_is(desk: Desk) -> None:
    name = without_a_table(desk)
    (desk.folder / "shared").mkdir()
    table = desk.folder / "shared" / "levels.csv"
    table.write_bytes(b"crm;apollo\r\nVP;vp\r\n")
    table.chmod(0o640)
    file = desk.folder / "crm_sync.yaml"
    file.write_text(
        file.read_text().replace(
            "person.seniority   #", "{from: person.seniority, picklist_file: shared/levels.csv}   #"
        )
    )

    said = desk.run("picklists", "map", "contacts", name, "c_suite=Executive")

    assert said.code == 0
    assert "1 value mapped in shared/levels.csv." in said.out
    assert table.read_bytes() == b"crm;apollo\r\nVP;vp\r\nExecutive;c_suite\r\n"
    assert table.stat().st_mode & 0o777 == 0o640
    assert [each.name for each in table.parent.iterdir()] == ["levels.csv"]


@pytest.mark.parametrize("crm", ["salesforce"])
def test_a_link_to_the_configuration_stays_one(desk: Desk) -> None:
    name = without_a_table(desk)
    file = desk.folder / "crm_sync.yaml"
    real = file.rename(desk.folder / "real.yaml")
    file.symlink_to(real)

    assert desk.run("picklists", "map", "contacts", name, "c_suite=Executive").code == 0

    assert file.is_symlink()
    assert "Executive: [c_suite]" in real.read_text()


def test_the_next_run_writes_what_was_mapped_at_no_credit(desk: Desk) -> None:
    name = without_a_table(desk)
    first = desk.run("run", "contacts", "--json").json
    waits = {row["value"] for row in desk.run("picklists", "contacts", "--field", name, "--json").json}

    mapped = desk.run("picklists", "map", "contacts", "--suggested", "--yes", "--apply")
    second = desk.run("run", "contacts", "--json").json

    assert mapped.code == 0
    assert waits & {"c_suite", "senior", "entry"}
    assert first["credits"] > 0
    assert (second["credits"], second["rejected"]) == (0, 0)
    assert second["updated"] > 0


@pytest.mark.parametrize("crm", ["salesforce"])
def test_a_file_that_changed_meanwhile_is_not_written(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    name = without_a_table(desk)
    file = desk.folder / "crm_sync.yaml"
    describe = App.crm

    def edited_meanwhile(app: App, crm: str, kind: str) -> object:
        file.write_text(file.read_text() + "# by somebody else\n")
        return describe(app, crm, kind)

    monkeypatch.setattr(App, "crm", edited_meanwhile)
    said = desk.run("picklists", "map", "contacts", name, "zzz=Manager")

    assert said.code == 2
    assert "crm_sync.yaml was changed meanwhile; nothing was written. Try again." in said.err
    assert "Manager: [zzz]" not in file.read_text()
    assert sorted(Path.cwd().glob(".crm_sync.yaml-*")) == []


@pytest.mark.parametrize("crm", ["salesforce"])
@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("nope",), "crm_sync.yaml has no sync nope."),
        (("contact",), "Did you mean contacts?"),
        (("--field", "Titel"), "There is no picklist Titel; those that are filled: "),
        (("map", "contacts"), 'FIELD with one or more "Apollo value=CRM value", or --suggested.'),
        (("map", "contacts", "Seniority__c"), 'FIELD with one or more "Apollo value=CRM value", or --suggested.'),
        (("map", "contacts", "Seniority__c", "a=b", "--suggested"), 'or --suggested.'),
        (("map", "contacts", "Seniority__c", "zzz=Chef"), '"Chef" is not a value of Seniority__c.'),
        (("map", "contacts", "Seniority__c", "zzz", "="), '"zzz" is no pair'),
        (("map", "contacts", "Title", "zzz=Chef"), "contacts fills Title, which is no picklist"),
        (("map", "contacts", "--suggested", "--at-least", "20"), "60<=x<=100"),
    ],
)  # fmt: skip
def test_a_mistake_is_answered_and_nothing_is_written(desk: Desk, words: tuple[str, ...], expected: str) -> None:
    without_a_table(desk)
    before = (desk.folder / "crm_sync.yaml").read_bytes()

    said = desk.run("picklists", *words)

    assert said.code == 2
    assert expected in said.flat
    assert (desk.folder / "crm_sync.yaml").read_bytes() == before


@pytest.mark.parametrize("crm", ["salesforce"])
def test_a_file_with_mistakes_is_not_added_to(desk: Desk) -> None:
    without_a_table(desk)
    file = desk.folder / "crm_sync.yaml"
    file.write_text(file.read_text().replace("version: 1", "version: 2"))

    said = desk.run("picklists", "map", "contacts", "--suggested", "--yes")

    assert said.code == 2
    assert "this program reads configurations of version 1" in said.flat


@pytest.mark.parametrize("crm", ["hubspot"])
def test_where_nothing_waits_it_says_so(desk: Desk) -> None:
    desk.configure()

    assert desk.run("picklists").out == "No value of Apollo's waits for a CRM value.\n"
    assert desk.run("picklists", "--json").json == []
    assert desk.run("picklists", "map", "contacts", "--suggested").code == 0
