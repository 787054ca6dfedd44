"""plan --out, apply, undo, retry, release: what they ask, say and answer."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.cli.conftest import PEOPLE, Desk

TITLE = {"salesforce": "Title", "hubspot": "jobtitle"}
WRITE = {"salesforce": "POST */composite", "hubspot": "POST */batch/update"}


def configure(desk: Desk, rule: str = "track") -> None:
    title = TITLE[desk.crm]
    desk.configure({f"      {title}: person.title": f"      {title}: {{from: person.title, write: {rule}}}"})


def edit(desk: Desk, record_id: str, value: str) -> None:
    simulator = desk.sandbox.apps[desk.crm].extensions["simulator"]
    simulator.edit(PEOPLE[desk.crm], record_id, {TITLE[desk.crm]: value})


def held(desk: Desk, record_id: str) -> str:
    found = desk.sandbox.apps[desk.crm].extensions["simulator"].edit(PEOPLE[desk.crm], record_id, {})
    return str(found.get("properties", found).get(TITLE[desk.crm]) or "")


def titled(desk: Desk, run_id: str, outcome: str = "Written") -> list[str]:
    """The records of a run whose title came out so."""
    records = desk.run("show", run_id, "--json").json["records"]
    return [
        r["id"] for r in records if any(f["field"] == TITLE[desk.crm] and f["outcome"] == outcome for f in r["fields"])
    ]


def ran(desk: Desk, limit: int = 20) -> str:
    told = desk.run("run", "contacts", "--limit", str(limit), "--json")
    assert told.code == 0, told.text
    return str(told.json["id"])


# --- plan --out and apply ---------------------------------------------------------------------------------------------


def planned(desk: Desk, name: str = "plan.json") -> dict[str, Any]:
    said = desk.run("plan", "contacts", "--limit", "20", "--out", name)
    assert said.code == 0, said.text
    assert f"Next: crm-sync apply {name} writes exactly this, within 7 days." in said.flat
    found: dict[str, Any] = json.loads((desk.folder / name).read_text())
    return found


def test_a_plan_file_is_applied_as_it_is_and_its_file_is_for_its_owner_alone(desk: Desk) -> None:
    configure(desk)
    plan = planned(desk)

    dry = desk.run("apply", "plan.json", "--dry-run")
    before = held(desk, titled(desk, plan["plan"], "Planned")[0])
    done = desk.run("apply", "plan.json", "--yes", "--json")
    again = desk.run("apply", "plan.json", "--yes")

    assert (desk.folder / "plan.json").stat().st_mode & 0o077 == 0
    fields = sum(len(record["fields"]) for record in plan["records"])
    assert dry.code == 0
    assert f"{fields} fields would be written on {len(plan['records'])} records, 0 conflicts." in dry.flat
    assert before in ("", "-", "n/a", "Unknown", "[[unknown]]")
    assert done.code == 0, done.text
    assert (done.json["kind"], done.json["credits"]) == ("apply", 0)
    assert (done.json["fields_written"], done.json["conflicts"], done.json["already"]) == (fields, 0, 0)
    assert again.code == 0
    assert "nothing is left to write" in again.flat
    assert "To take it back" not in again.flat


def test_what_moved_since_the_plan_is_a_conflict_and_nothing_else_of_it_is_shown(desk: Desk) -> None:
    configure(desk)
    plan = planned(desk)
    moved = titled(desk, plan["plan"], "Planned")[0]
    edit(desk, moved, "Typed since")

    said = desk.run("apply", "plan.json", "--yes")

    assert said.code == 3
    assert held(desk, moved) == "Typed since"
    assert "1 field changed since and left as before" in said.flat
    assert "Conflict: changed since: left as it is" in said.flat
    conflicts = said.out.partition("Conflicts: changed since, and left as they are")[2]
    assert conflicts.count("Typed since") == 1
    assert "filled: was blank" not in conflicts
    assert "To take it back: crm-sync undo" in said.flat


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (lambda text: text.replace('"new": "', '"new": "X', 1), "its signature does not fit"),
        (lambda text: text[: len(text) // 2], "is not a plan; crm-sync plan SYNC --out FILE writes one"),
        (lambda text: "", "is not a plan"),
        (lambda text: "[]", "is not a plan"),
        (lambda text: text.replace('"crm-sync plan": 1', '"crm-sync plan": 2'), "was written by another version"),
    ],
)
def test_a_plan_that_is_not_as_it_was_written_is_refused_whole(desk: Desk, spoil: Any, why: str) -> None:
    configure(desk)
    planned(desk)
    file = desk.folder / "plan.json"
    file.write_text(spoil(file.read_text()))

    said = desk.run("apply", "plan.json", "--yes")

    assert said.code == 2
    assert why in said.flat
    assert desk.run("runs", "--json").json[0]["kind"] == "plan"


def test_an_expired_plan_is_refused(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    from datetime import timedelta

    from crm_sync.clock import SystemClock

    configure(desk)
    planned(desk)
    now = SystemClock.now
    monkeypatch.setattr(SystemClock, "now", lambda self: now(self) + timedelta(days=8))

    said = desk.run("apply", "plan.json", "--yes")

    assert said.code == 2
    assert "plan.json expired on" in said.flat


@pytest.mark.parametrize("verb", ["apply", "undo", "review accept"])
def test_nothing_is_changed_where_nobody_can_say_yes(desk: Desk, verb: str) -> None:
    configure(desk, "review" if verb.startswith("review") else "track")
    planned(desk)
    run = ran(desk)
    words = {"apply": ["plan.json"], "undo": [run], "review accept": ["--all"]}[verb]

    said = desk.run(*verb.split(), *words)

    assert said.code == 2
    assert "Nobody can be asked here: say --yes; --dry-run shows it first." in said.flat
    assert desk.run("runs", "--json").json[0]["id"] == run


# --- undo -------------------------------------------------------------------------------------------------------------


def test_an_undo_shows_itself_first_then_restores_and_can_be_undone(desk: Desk) -> None:
    configure(desk)
    run = ran(desk)
    edited, other = titled(desk, run)[:2]
    ours = held(desk, other)
    edit(desk, edited, "Typed after the run")

    dry = desk.run("undo", run, "--dry-run")
    assert held(desk, other) == ours
    done = desk.run("undo", run, "--yes", "--json")
    back = desk.run("undo", done.json["id"], "--yes", "--json")

    assert dry.code == 0
    assert "fields would be restored on" in dry.flat
    assert "To do it, say the same without --dry-run." in dry.flat
    assert done.code == 3
    assert done.json["kind"] == "undo"
    assert (done.json["conflicts"], done.json["credits"]) == (1, 0)
    [conflict] = [r["id"] for r in done.json["records"] for f in r["fields"] if f["outcome"] == "Conflict"]
    assert conflict == edited
    assert held(desk, edited) == "Typed after the run"
    assert back.json["fields_written"] == done.json["fields_written"]
    assert held(desk, other) == ours


def test_an_undo_of_one_record_and_field_leaves_the_rest(desk: Desk) -> None:
    configure(desk)
    run = ran(desk)
    one, other = titled(desk, run)[:2]

    said = desk.run("undo", run[:-2], "--record", one[:15], "--field", TITLE[desk.crm], "--yes")

    assert said.code == 0, said.text
    assert "1 field restored on 1 record, 0 conflicts." in said.flat
    assert held(desk, one) in ("", "-", "n/a", "Unknown", "[[unknown]]")
    assert held(desk, other)


def test_an_undo_of_nothing_says_why(desk: Desk) -> None:
    configure(desk)
    plan = planned(desk)["plan"]
    run = ran(desk)

    for words, why in (
        (["2099"], "No run begins with 2099"),
        ([plan], "was a plan: it wrote nothing, so there is nothing to undo"),
        ([run, "--record", "999"], f"Run {run} wrote nothing to 999"),
        ([run, "--field", "Nonsense"], f"Run {run} wrote nothing in Nonsense"),
    ):
        said = desk.run("undo", *words, "--yes")
        assert (said.code, why in said.flat) == (2, True), said.text
    assert desk.run("runs", "--json").json[0]["id"] == run


# --- retry ------------------------------------------------------------------------------------------------------------


def test_what_was_not_written_is_retried_at_no_credit(desk: Desk) -> None:
    configure(desk)
    refusal = "403_daily" if desk.crm == "salesforce" else "429_daily"
    desk.sandbox.faults[desk.crm].add([{"call": WRITE[desk.crm], "what": refusal, "times": 9999}])
    failed = desk.run("run", "contacts", "--limit", "20", "--json").json
    desk.sandbox.faults[desk.crm].clear()

    said = desk.run("retry", failed["id"], "--json")
    nothing = desk.run("retry", said.json["id"])

    assert failed["updated"] == 0
    assert said.code == 0, said.text
    assert said.json["credits"] == 0
    assert said.json["trigger"] == f"retry of {failed['id']}"
    assert said.json["updated"] == failed["skipped"] > 10
    assert nothing.code == 2
    assert "left nothing to retry" in nothing.flat


def test_what_is_no_run_of_a_sync_is_not_retried(desk: Desk) -> None:
    configure(desk)
    plan = planned(desk)["plan"]

    said = desk.run("retry", plan)

    assert said.code == 2
    assert f"{plan} is no run of a sync (plan)" in said.flat


# --- release ----------------------------------------------------------------------------------------------------------


def test_a_released_field_is_written_by_the_next_run(desk: Desk) -> None:
    configure(desk)
    run = ran(desk)
    edited, untouched = titled(desk, run)[:2]
    ours = held(desk, edited)
    edit(desk, edited, "Typed after the run")

    asked = desk.run("release", edited)
    nothing = desk.run("release", untouched, "--yes")
    said = desk.run("release", edited[:15], "--field", TITLE[desk.crm], "--yes")
    told = desk.run("explain", edited, "--field", TITLE[desk.crm])

    assert asked.code == 2
    assert f"Let crm-sync replace {TITLE[desk.crm]} of {PEOPLE[desk.crm]} {edited}?" in asked.flat
    assert "--dry-run" not in asked.flat.partition("Let crm-sync")[2]
    assert (nothing.code, "Nothing is locked" in nothing.flat) == (0, True)
    assert said.code == 0, said.text
    assert said.flat.startswith(f"Released: {TITLE[desk.crm]}.")
    assert ours in told.text


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["003000000000099AAA"], "Nothing was ever written to 003000000000099AAA"),
        (["{one}", "--field", "Nonsense"], "crm-sync never wrote Nonsense of"),
    ],
)
def test_what_was_never_written_is_not_released(desk: Desk, words: list[str], why: str) -> None:
    configure(desk)
    one = titled(desk, ran(desk))[0]

    said = desk.run("release", *(word.format(one=one) for word in words), "--yes")

    assert (said.code, why in said.flat) == (2, True), said.text
