"""undo, apply, retry, release: changing what was written before, or letting it be changed."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import click
from rich.markup import escape

from crm_sync import crash
from crm_sync.bootstrap import App
from crm_sync.cli import render
from crm_sync.cli.history import find_run
from crm_sync.cli.run import cancel_on_signal, write_stored
from crm_sync.config.model import FieldMapping
from crm_sync.domain.changes import FieldOutcome, WriteRule
from crm_sync.domain.records import Value
from crm_sync.domain.runs import RecordOutcome, RunKind, RunStatus, SyncRun
from crm_sync.errors import ConfigError
from crm_sync.pipeline import plan_file
from crm_sync.pipeline.amend import Amending, amend
from crm_sync.pipeline.undo import UNDO_OF, is_record, undoing
from crm_sync.pipeline.walk import Stop
from crm_sync.services import Services
from crm_sync.store.runs import RunRecord

_MOST_SHOWN = 20


@click.command()
@click.argument("run_id", metavar="RUN")
@click.option(
    "--record", "records", multiple=True, metavar="ID", help="Only this record (ID or OBJECT/ID); may be said again."
)
@click.option("--field", "fields", multiple=True, metavar="FIELD", help="Only this field; may be said again.")
@click.option("--dry-run", is_flag=True, help="Show what would be restored and what conflicts; write nothing.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object: the run's books and every record.")
@click.pass_obj
def undo(
    app: App,
    run_id: str,
    records: tuple[str, ...],
    fields: tuple[str, ...],
    dry_run: bool,
    yes: bool,
    as_json: bool,
) -> None:
    """Take back what RUN wrote. RUN may be shortened.

    A field is restored only if it still holds what the run wrote, and is emptied where it was empty; what somebody
    changed since is a conflict, listed and left alone. An undo is itself a run, and can be undone.
    """
    services = app.services()
    run = find_run(app, run_id)
    amending = undoing(run, services, records=records, fields=fields)
    if not dry_run and not yes:
        ask(f"Take back what run {run.id} wrote: {_amount(amending)}?", dry_run=True)
    _carry_out(services, amending, dry_run=dry_run, as_json=as_json)


@click.command()
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False, exists=True))
@click.option("--dry-run", is_flag=True, help="Show what would be written and what moved since; write nothing.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object: the run's books and every record.")
@click.pass_obj
def apply(app: App, file: Path, dry_run: bool, yes: bool, as_json: bool) -> None:
    """Write exactly the plan in FILE (crm-sync plan SYNC --out FILE).

    A field whose value in the CRM moved since the plan is a conflict: listed, and left alone. A plan that was edited,
    has expired or is for another CRM is refused as a whole.
    """
    services = app.services()
    try:
        content = file.read_bytes()
    except OSError as error:
        raise ConfigError(f"{file} cannot be read: {error.strerror}") from None
    plan = plan_file.read(content, services, name=file.name)
    if not plan.records:
        raise ConfigError(f"{file.name} plans no change, so there is nothing to apply")
    amending = plan_file.applying(plan, services)
    if not amending.candidates:
        click.echo(f"All of plan {plan.plan_id} was written before, and was not taken back: nothing is left to write.")
        return
    if not as_json and plan.config_version != services.config_version:
        click.echo(
            f"The plan was made with configuration version {plan.config_version}; version {services.config_version} "
            "is applied now. It is written as it was planned.",
            err=True,
        )
    if not dry_run and not yes:
        ask(f"Write {_amount(amending)}, as planned on {plan.made_at:%Y-%m-%d %H:%M} UTC?", dry_run=True)
    _carry_out(services, amending, dry_run=dry_run, as_json=as_json)


@click.command()
@click.argument("run_id", metavar="RUN")
@click.option("--json", "as_json", is_flag=True, help="One JSON object: the run's books.")
@click.pass_obj
def retry(app: App, run_id: str, as_json: bool) -> None:
    """Write again what RUN could not: the records and fields that the CRM refused, and those of which it is not known.

    By the stored answers, at no credit: after a field, a permission or a validation rule was mended.
    """
    services = app.services()
    run = find_run(app, run_id)
    if run.kind is not RunKind.RUN:
        raise ConfigError(f"{run.id} is no run of a sync ({run.kind.value}): do the same again instead of retrying it")
    sync = services.config.syncs.get(run.sync)
    if sync is None or sync.object_type != run.object_type:
        raise ConfigError(f"The configuration has no sync {run.sync} for {run.object_type} any more")
    ids = _to_retry(run, services)
    if not ids:
        raise ConfigError(
            f"Run {run.id} left nothing to retry: the CRM refused none of it, or its records are not kept any more"
        )
    if not as_json:
        render.console().print(f"{render.counted(len(ids), 'record')} of run {run.id}, by stored answers at no credit.")
    result = write_stored(sync, services, ids, trigger=f"retry of {run.id}", as_json=as_json)
    if as_json:
        render.print_json(render.run_json(result))
    click.get_current_context().exit(render.exit_code([result]))


def _to_retry(run: SyncRun, services: Services) -> tuple[str, ...]:
    """The run's own records that were refused in whole or in part or are not accounted for, and those whose company
    was."""
    found: dict[str, None] = {}
    for record in services.runs.records(run.id):
        if not _is_unfinished(record):
            continue
        if record.object_type == run.object_type:
            found[record.record_id] = None
        elif record.batch_id is not None:
            calls = services.runs.of_call(run.id, record.batch_id)
            found.update((each, None) for object_type, each in calls if object_type == run.object_type)
    return tuple(found)


def _is_unfinished(record: RunRecord) -> bool:
    if record.outcome == RecordOutcome.REJECTED.value:
        return True
    outcomes = {decision.outcome for decision in record.decisions}
    if outcomes & {FieldOutcome.REJECTED, FieldOutcome.UNCONFIRMED}:
        return True
    # Sent, and not written or not confirmed for no fault of its own.
    return record.outcome == RecordOutcome.SKIPPED.value and bool(
        outcomes & {FieldOutcome.PLANNED, FieldOutcome.WRITTEN}
    )


@click.command()
@click.argument("record_id", metavar="RECORD")
@click.option("--field", "fields", multiple=True, metavar="FIELD", help="Only this field; may be said again.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.pass_obj
def release(app: App, record_id: str, fields: tuple[str, ...], yes: bool) -> None:
    """Let crm-sync go on in fields that a person changed after it.

    The rule `track` leaves such a field alone for good. Released, what it holds now counts as ours: the next run may
    replace it. RECORD is the CRM's id, or OBJECT/ID where several objects have it.
    """
    services = app.services()
    crm_name, object_type, found_id = _place_of(record_id, services)
    crm = services.crm(crm_name)
    schema = crm.describe(object_type)
    last = services.provenance.last_writes(crm_name, object_type, [found_id]).get(found_id, {})
    unknown = [name for name in fields if name not in last]
    if unknown:
        raise ConfigError(
            f"crm-sync never wrote {unknown[0]} of {record_id}; it wrote {', '.join(sorted(last)) or 'nothing'}"
        )
    tracked = _tracked(services, crm_name, object_type)
    wanted = [name for name in (fields or sorted(set(last) & tracked)) if name in schema.fields]
    if last and not wanted:
        click.echo("Nothing is locked: no field that crm-sync wrote there has the rule `track`.")
        return
    [now] = crm.read(object_type, [found_id], wanted)
    if now is None or now.ref.id != found_id:
        raise ConfigError(f"{object_type} {found_id} is gone from {crm_name}, or was merged into another")
    locked: dict[str, Value] = {
        name: now.values[name] for name in wanted if not last[name].holds(now.values[name], schema.fields[name].kind)
    }
    if not locked:
        holds = "each of these fields still holds what crm-sync wrote" if last else "what crm-sync wrote was taken back"
        click.echo(f"Nothing is locked: {holds}.")
        return
    if not yes:
        ask(f"Let crm-sync replace {', '.join(locked)} of {object_type} {found_id}?")
    # First the attempts: what is released already cannot be released again, and nobody would look at it.
    services.runs.forget_attempts(object_type, found_id)
    crash.point("release.forgotten")
    services.provenance.release(crm_name, object_type, found_id, locked, now=services.clock.now())
    click.echo(f"Released: {', '.join(locked)}. The next run that looks at the record may write there again.")


def _tracked(services: Services, crm: str, object_type: str) -> set[str]:
    """The fields of an object that some sync fills by the rule `track`; no other rule locks one."""
    mappings: list[FieldMapping] = []
    for sync in services.config.syncs.values():
        if sync.crm == crm and sync.object_type == object_type:
            mappings += sync.fields
        if sync.crm == crm and sync.parent is not None and sync.parent.object_type == object_type:
            mappings += sync.parent.fields
    return {mapping.field for mapping in mappings if mapping.rule is WriteRule.TRACK}


def _place_of(what: str, services: Services) -> tuple[str, str, str]:
    """(CRM, object, id) of the one record that is meant. HubSpot counts each object by itself, so that a contact and a
    company may have the same id.

    Raises:
        ConfigError: nothing was written to it, or several are meant.
    """
    where, _, record_id = what.rpartition("/")
    ids = {record_id, *(services.runs.ids_beginning(record_id) if len(record_id) == 15 else ())}
    told = services.runs.of_record(sorted(ids))
    places = {(run.crm, each.object_type, each.record_id) for run, each, _ in told if run.kind is not RunKind.PLAN}
    places |= set(services.provenance.places(record_id))
    found = sorted(
        (crm, object_type, each)
        for crm, object_type, each in places
        if is_record(record_id, each) and where in ("", object_type, f"{crm}/{object_type}")
    )
    if not found:
        raise ConfigError(f"Nothing was ever written to {what}, so nothing is locked; give the CRM's id")
    if len(found) > 1:
        named = ", ".join(f"{each[1]}/{each[2]} in {each[0]}" for each in found)
        raise ConfigError(f"Several records have this id: {named}. Say which, as OBJECT/ID or CRM/OBJECT/ID")
    return found[0]


# --- one run of settled changes ---------------------------------------------------------------------------------------


def _carry_out(services: Services, amending: Amending, *, dry_run: bool, as_json: bool) -> None:
    stop = Stop()
    with cancel_on_signal(stop):
        result = amend(amending, services, dry_run=dry_run, stop=stop)
    print_amended(services, result, as_json=as_json, dry_run=dry_run)
    click.get_current_context().exit(0 if dry_run and not stop.error else render.exit_code([result]))


def print_amended(services: Services, result: SyncRun, *, as_json: bool, dry_run: bool = False) -> None:
    """Its books and what could not be done; of a dry run everything."""
    records = list(services.runs.records(result.id))
    figures = tally(records)
    if as_json:
        render.print_json(
            {
                **render.run_json(result),
                **figures,
                "records": [render.record_json(record, result.kind) for record in records],
            }
        )
        return
    out = render.console()
    render.print_run(out, result, timezone=services.config.timezone)
    render.print_reasons(out, services.runs.reasons(result.id), kind=result.kind)
    shown = records if dry_run else [kept for record in records if (kept := _conflicts(record)).decisions]
    if shown:
        title = "What it would do" if dry_run else "Conflicts: changed since, and left as they are"
        out.print(f"\n[bold]{title}[/]\n")
        render.print_records(out, shown[:_MOST_SHOWN], result.kind)
        if len(shown) > _MOST_SHOWN:
            out.print(
                f"… and {len(shown) - _MOST_SHOWN:,} more; crm-sync show {result.id} --json lists all", style="dim"
            )
    done = "restored" if result.trigger.startswith(UNDO_OF) else "written"
    held = f", {figures['already']:,} held it already" if figures["already"] else ""
    fields, records_, conflicts = (
        render.counted(figures[name], word)
        for name, word in (("fields_written", "field"), ("records_written", "record"), ("conflicts", "conflict"))
    )
    out.print(f"\n{fields} {'would be ' if dry_run else ''}{done} on {records_}, {conflicts}{held}.")
    if result.status is RunStatus.CANCELLED:
        out.print("To go on, say the same again: what is done already is left as it is.")
    if dry_run and figures["fields_written"]:
        out.print("To do it, say the same without --dry-run.")
    elif figures["fields_written"]:
        out.print(f"To take it back: crm-sync undo {result.id}")


def _conflicts(record: RunRecord) -> RunRecord:
    """The record with those of its fields alone."""
    return replace(record, decisions=tuple(d for d in record.decisions if d.outcome is FieldOutcome.CONFLICT))


def tally(records: list[RunRecord]) -> dict[str, int]:
    """Figures of a run of settled changes, by field."""
    outcomes = [d.outcome for record in records for d in record.decisions]
    done = (FieldOutcome.WRITTEN, FieldOutcome.PLANNED)
    return {
        "fields_written": sum(outcome in done for outcome in outcomes),
        "records_written": sum(any(d.outcome in done for d in record.decisions) for record in records),
        "conflicts": sum(outcome is FieldOutcome.CONFLICT for outcome in outcomes),
        "already": sum(outcome is FieldOutcome.SAME for outcome in outcomes),
    }


def _amount(amending: Amending) -> str:
    records = sum(len(each) for each in amending.candidates.values())
    fields = sum(len(one.amendments) for each in amending.candidates.values() for one in each)
    return f"{render.counted(fields, 'field')} on {render.counted(records, 'record')} in {escape(amending.crm)}"


def ask(question: str, *, dry_run: bool = False) -> None:
    """Go on only with a yes. `dry_run`: the command can also show it first.

    Raises:
        UsageError: nobody is there to say it.
    """
    if not sys.stdin.isatty():
        first = "; --dry-run shows it first" if dry_run else ""
        raise click.UsageError(f"{question} Nobody can be asked here: say --yes{first}.")
    click.confirm(question, abort=True)
