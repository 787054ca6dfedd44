"""runs and show."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from datetime import datetime

import click
from rich.markup import escape

from crm_sync.bootstrap import App
from crm_sync.cli import render
from crm_sync.domain.runs import Counts, RecordOutcome, RunStatus, SyncRun
from crm_sync.errors import ConfigError


@click.command()
@click.option("--sync", help="Only the runs of this sync.")
@click.option("--limit", type=click.IntRange(min=1), default=20, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="A JSON list.")
@click.pass_obj
def runs(app: App, sync: str | None, limit: int, as_json: bool) -> None:
    """The runs so far, newest first."""
    found = [_as_it_stands(app, run) for run in app.runs.latest(limit=limit, sync=sync)]
    if as_json:
        render.print_json([render.run_json(run) for run in found])
        return
    out = render.console()
    if not found:
        of = f" of the sync {escape(sync)}" if sync else ""
        out.print(f"Nothing has run yet{of}. `crm-sync plan SYNC` shows what a run would do.")
        return
    render.print_table(out, _COLUMNS, [_row(run, now=app.clock.now()) for run in found])


_MOST_NAMED = 4
_COLUMNS = (
    render.Column(title="Run"),
    render.Column(title="Sync"),
    render.Column(title=""),
    render.Column(title="Status"),
    render.Column(title="Took", right=True, keep=2),
    render.Column(title="Selected", right=True, keep=3),
    render.Column(title="Updated", right=True),
    render.Column(title="No match", right=True, keep=1),
    render.Column(title="Rejected", right=True, keep=4),
    render.Column(title="Credits", right=True),
)


def _row(run: SyncRun, *, now: datetime) -> tuple[str, ...]:
    status = render.status_words(run, now=now)
    style = render.STATUS_STYLE.get(run.status)
    return (
        run.id,
        escape(run.sync),
        run.kind.value,
        f"[{style}]{status}[/]" if style else status,
        render.duration((run.finished_at - run.started_at).total_seconds()) if run.finished_at else "",
        f"{run.counts.selected:,}",
        f"{run.counts.updated:,}",
        f"{run.counts.no_match:,}",
        f"{run.counts.rejected:,}",
        f"{run.credits.normalize():,f}",
    )


def _as_it_stands(app: App, run: SyncRun) -> SyncRun:
    """A run that is under way saves its books now and then; its records are counted as they are."""
    if run.status is not RunStatus.RUNNING:
        return run
    own: Counter[str] = Counter()
    parents: Counter[str] = Counter()
    for object_type, outcome, _, count in app.runs.reasons(run.id):
        (own if object_type == run.object_type else parents)[outcome] += count
    return replace(
        run, counts=_counts(own, least=run.counts.selected), parents=_counts(parents, least=run.parents.selected)
    )


def _counts(tally: Counter[str], *, least: int) -> Counts:
    named = {outcome.name.lower(): tally[outcome.value] for outcome in RecordOutcome}
    return Counts(selected=max(least, tally.total()), **named)


@click.command()
@click.argument("run_id", metavar="[RUN]", required=False)
@click.option(
    "--outcome",
    type=click.Choice([outcome.value for outcome in RecordOutcome], case_sensitive=False),
    help="The records with this outcome.",
)
@click.option("--limit", type=click.IntRange(min=1), default=20, show_default=True, help="How many records to show.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object: the run's books, reasons and records.")
@click.pass_obj
def show(app: App, run_id: str | None, outcome: str | None, limit: int, as_json: bool) -> None:
    """One run: its funnel, its reasons, its records. RUN may be shortened; without it, the newest."""
    if run_id is None:
        newest = app.runs.latest(limit=1)
        if not newest:
            raise ConfigError("Nothing has run yet: start with `crm-sync plan SYNC`")
        run = newest[0]
    else:
        run = find_run(app, run_id)
    run = _as_it_stands(app, run)
    reasons = app.runs.reasons(run.id)
    attention = ("Rejected", "Invalid", "In doubt", "Needs review")
    wanted = outcome or next((word for word in attention if any(row[1] == word for row in reasons)), "Updated")
    # Where nothing else needs attention: those of which the CRM refused a field, or a person edited one meanwhile.
    some = outcome is None and wanted == RecordOutcome.UPDATED.value
    records = list(app.runs.records(run.id, outcome=wanted, limit=limit, with_reason=True)) if some else []
    records = records or list(app.runs.records(run.id, outcome=wanted, limit=limit))
    phones = app.reveals.counts(run_id=run.id)
    if as_json:
        render.print_json(
            {
                **render.run_json(run, app.runs.unsettled(run.id)),
                "reasons": [
                    {
                        "object": name,
                        "outcome": render.outcome_word(word, run.kind),
                        "reason": reason,
                        "records": count,
                    }
                    for name, word, reason, count in reasons
                ],
                "phones": phones,
                "records": [render.record_json(record, run.kind) for record in records],
            }
        )
        return
    out = render.console()
    render.print_run(out, run, now=app.clock.now(), unsettled=app.runs.unsettled(run.id))
    render.print_reasons(out, reasons, kind=run.kind)
    if phones:
        said = ", ".join(f"{count:,} {state}" for state, count in sorted(phones.items()))
        out.print(f"\nPhones: {sum(phones.values()):,} asked for: {said}")
    word = render.outcome_word(wanted, run.kind)
    if records:
        more = "" if len(records) < limit else f" (the first {limit}; --limit shows more, --outcome others)"
        out.print(f"\n[bold]{word}[/]{more}\n")
        render.print_records(out, records, run.kind)
    elif outcome is not None:
        out.print(f"\nNo record of this run is {word}.")


def find_run(app: App, beginning: str) -> SyncRun:
    """The run with this id, or the only one whose id begins so.

    Raises:
        ConfigError: there is none, or there are several.
    """
    found = app.runs.beginning_with(beginning, limit=_MOST_NAMED + 1)
    exact = [run for run in found if run.id == beginning]
    if len(exact or found) == 1:
        return (exact or found)[0]
    if not found:
        raise ConfigError(f"No run begins with {beginning}; `crm-sync runs` lists them")
    several = "More" if len(found) > _MOST_NAMED else str(len(found))
    than = f" than {_MOST_NAMED}" if len(found) > _MOST_NAMED else ""
    named = ", ".join(run.id for run in found[:_MOST_NAMED])
    raise ConfigError(f"{several}{than} runs begin with {beginning}, the newest first: {named}. Write more of one")
