"""The demo's middle chapters: a run taken back, and a run during which people edit and an admin retires a value."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from rich.console import Console

from crm_sync.bootstrap import App
from crm_sync.cli import render
from crm_sync.cli.changes import tally
from crm_sync.config.loader import load
from crm_sync.domain.changes import FieldOutcome
from crm_sync.domain.runs import RunKind, SyncRun
from crm_sync.pipeline.amend import amend
from crm_sync.pipeline.run import run_sync
from crm_sync.pipeline.undo import undoing
from crm_sync.store.runs import RunRecord

if TYPE_CHECKING:
    from crm_sync.sandbox.run import Sandbox

#: What `demo --json` tells of them, for each CRM; and of the first CRM at the top.
CHAPTERS = ("undo", "human_edit", "salvage")
_TITLE = {"salesforce": "Title", "hubspot": "jobtitle"}
_LEVEL = {"salesforce": "Seniority__c", "hubspot": "hs_seniority"}
_WRITE = {"salesforce": "POST */composite", "hubspot": "POST */batch/update"}
_SINCE, _MEANWHILE = "Typed by Kim after the run", "Typed by Lou while it ran"


def undo_and_run_again(app: App, sandbox: Sandbox, run: SyncRun, out: Console) -> dict[str, Any]:
    """Tell both chapters about the run of chapter 2; returns what `demo --json` shows of them."""
    crm = run.crm
    simulator = sandbox.apps[crm].extensions["simulator"]
    titled = [each for each in app.runs.records(run.id) if _wrote(each, _TITLE[crm])]
    if len(titled) < 2:
        out.print("\nToo few records were filled to take anything back; the demo with more contacts tells more.\n")
        nothing = {"restored": 0, "conflicts": 0}
        return {"undo": nothing, "human_edit": {"kept": True}, "salvage": {"fields_reported": 0, "records_saved": 0}}
    kim, lou = titled[0].record_id, titled[1].record_id

    out.print("\n[bold]4. The run is taken back[/], after Kim has changed one of its titles: that one is hers\n")
    simulator.edit(run.object_type, kim, {_TITLE[crm]: _SINCE})
    services = app.services()
    undone = amend(undoing(run, services), services)
    told = tally(list(services.runs.records(undone.id)))
    render.print_run(out, undone)
    _print(out, services.runs.records(undone.id), undone.kind, FieldOutcome.CONFLICT)
    restored, conflicts = told["fields_written"], told["conflicts"]
    out.print(f"{render.counted(restored, 'field')} restored, {render.counted(conflicts, 'conflict')}.\n")

    out.print(
        "[bold]5. It runs again[/], with the title on the rule `track`. While it writes, Lou types a title into\n"
        "another record, and an admin has just retired a value of the picklist for seniority. It costs no credit\n"
    )
    _track_titles(app, crm)
    retired = _retire_a_value(simulator, run, app)
    sandbox.edits[crm].add(
        [{"call": _WRITE[crm], "object": run.object_type, "id": lou, "fields": {_TITLE[crm]: _MEANWHILE}}]
    )
    services = app.services()
    again = run_sync(services.config.syncs[run.sync], services, kind=RunKind.RUN, trigger="demo")
    records = list(services.runs.records(again.id))
    render.print_run(out, again)
    _print(out, (each for each in records if each.record_id in (kim, lou)), again.kind)
    _print(out, records, again.kind, FieldOutcome.REJECTED, most=1)
    held = {who: _value(simulator, run.object_type, who, _TITLE[crm]) for who in (kim, lou)}
    refused = [each for each in records if any(d.outcome is FieldOutcome.REJECTED for d in each.decisions)]
    saved = sum(any(d.outcome is FieldOutcome.WRITTEN for d in each.decisions) for each in records)
    kept = held == {kim: _SINCE, lou: _MEANWHILE}
    out.print(
        f"Both titles that people typed {'stand' if kept else '[red]are gone[/]'}. "
        f"{render.counted(len(refused), 'field')} {'was' if len(refused) == 1 else 'were'} refused"
        + (f' (the retired "{retired}")' if retired else "")
        + f" and reported; the rest of {render.counted(saved, 'record')} was saved.\n"
    )
    return {
        "undo": {"restored": told["fields_written"], "conflicts": told["conflicts"], "run": render.run_json(undone)},
        "human_edit": {"kept": kept, "run": render.run_json(again)},
        "salvage": {"fields_reported": len(refused), "records_saved": saved},
    }


def _wrote(record: RunRecord, field: str) -> bool:
    return any(d.field == field and d.outcome is FieldOutcome.WRITTEN for d in record.decisions)


def _value(simulator: Any, object_type: str, record_id: str, field: str) -> Any:
    record = simulator.edit(object_type, record_id, {})
    return record.get("properties", record).get(field)


def _track_titles(app: App, crm: str) -> None:
    version = app.versions.latest()
    assert version is not None
    title = _TITLE[crm]
    text = version.text.decode().replace(
        f"      {title}: person.title", f"      {title}: {{from: person.title, write: track}}"
    )
    config = load(text.encode()).require()
    app.versions.add(config.text, config.files, author="demo", note="titles on track", now=app.clock.now())


def _retire_a_value(simulator: Any, run: SyncRun, app: App) -> str:
    """Of the values that the run had written, the one that the fewest records got."""
    level = _LEVEL[run.crm]
    counts = Counter(
        str(d.new)
        for record in app.runs.records(run.id)
        for d in record.decisions
        if d.field == level and d.outcome is FieldOutcome.WRITTEN
    )
    if not counts:
        return ""
    value = min(counts, key=lambda each: (counts[each], each))
    simulator.retire_choice(run.object_type, level, value)
    return value


def _print(
    out: Console,
    records: Iterable[RunRecord],
    kind: RunKind,
    outcome: FieldOutcome | None = None,
    *,
    most: int = 3,
) -> None:
    """Those with such a field, or all."""
    chosen = [each for each in records if outcome is None or any(d.outcome is outcome for d in each.decisions)]
    if chosen:
        out.print()
        render.print_records(out, chosen[:most], kind)
