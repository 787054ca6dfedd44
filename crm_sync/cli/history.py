"""runs and show."""

from __future__ import annotations

import click
from rich import box
from rich.markup import escape
from rich.table import Table

from crm_sync.bootstrap import App
from crm_sync.cli import render
from crm_sync.domain.runs import RecordOutcome
from crm_sync.errors import ConfigError


@click.command()
@click.option("--sync", help="Only the runs of this sync.")
@click.option("--limit", type=click.IntRange(min=1), default=20, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="A JSON list.")
@click.pass_obj
def runs(app: App, sync: str | None, limit: int, as_json: bool) -> None:
    """The runs so far, newest first."""
    found = app.runs.latest(limit=limit, sync=sync)
    if as_json:
        render.print_json([render.run_json(run) for run in found])
        return
    out = render.console()
    if not found:
        out.print("Nothing has run yet. `crm-sync plan SYNC` shows what a run would do.")
        return
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("Run", "Sync", "", "Status"):
        table.add_column(name, no_wrap=True)
    for name in ("Took", "Selected", "Updated", "No match", "Rejected", "Credits"):
        table.add_column(name, justify="right")
    for run in found:
        seconds = (run.finished_at - run.started_at).total_seconds() if run.finished_at else None
        table.add_row(
            run.id,
            escape(run.sync),
            run.kind.value,
            f"[{render.STATUS_STYLE.get(run.status, '')}]{run.status.value}[/]"
            if run.status in render.STATUS_STYLE
            else run.status.value,
            render.duration(seconds) if seconds is not None else "",
            f"{run.counts.selected:,}",
            f"{run.counts.updated:,}",
            f"{run.counts.no_match:,}",
            f"{run.counts.rejected:,}",
            f"{run.credits.normalize():,f}",
        )
    out.print(table)


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
        found = app.runs.get(run_id)
        if found is None:
            raise ConfigError(f"No run, or more than one, begins with {run_id}; `crm-sync runs` lists them")
        run = found
    reasons = app.runs.reasons(run.id)
    attention = ("Rejected", "Invalid", "In doubt", "Needs review")
    wanted = outcome or next((word for word in attention if any(row[1] == word for row in reasons)), "Updated")
    records = list(app.runs.records(run.id, outcome=wanted, limit=limit))
    if as_json:
        render.print_json(
            {
                **render.run_json(run, at_worst=app.runs.at_worst(run.id)),
                "reasons": [
                    {"object": kind, "outcome": word, "reason": reason, "records": count}
                    for kind, word, reason, count in reasons
                ],
                "records": [render.record_json(record) for record in records],
            }
        )
        return
    out = render.console()
    render.print_run(out, run, at_worst=app.runs.at_worst(run.id))
    render.print_reasons(out, reasons)
    if records:
        more = "" if len(records) < limit else f" (the first {limit}; --limit shows more, --outcome others)"
        out.print(f"\n[bold]{wanted}[/]{more}\n")
        render.print_records(out, records)
