"""credits, doubt and cancel."""

from __future__ import annotations

import csv
import getpass
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from datetime import date, datetime
from decimal import Decimal
from typing import Any

import click
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from crm_sync.bootstrap import App
from crm_sync.cli import Subcommands, render
from crm_sync.cli.history import find_run
from crm_sync.config.model import Budget
from crm_sync.domain.enrichment import CreditBalance
from crm_sync.domain.runs import RunKind, RunStatus
from crm_sync.errors import ConfigError, CrmSyncError
from crm_sync.pipeline import doubt as doubts
from crm_sync.pipeline.budget import day_of
from crm_sync.store.journal import LOOKUPS, PHONES, Call
from crm_sync.store.ledger import BY, Total, purpose_word


@click.command()
@click.option("--by", type=click.Choice(BY), default="sync", show_default=True, help="What to sum by.")
@click.option("--since", metavar="DAY", help="From this day on (2026-11-01). Default: the first of this month.")
@click.option("--until", metavar="DAY", help="Up to this day.")
@click.option("--csv", "as_csv", is_flag=True, help="Every credit with run, sync, call, endpoint and record, as CSV.")
@click.option(
    "--json", "as_json", is_flag=True, help="One JSON object: budgets, totals, what is in doubt, Apollo's own."
)
@click.pass_obj
def credits(app: App, by: str, since: str | None, until: str | None, as_csv: bool, as_json: bool) -> None:  # noqa: A001
    """What was spent: against the budgets, by sync, day or run, and beside Apollo's own meter."""
    config, _ = app.applied()
    today = day_of(app.clock.now(), config.timezone)
    first, last = _day(since) or f"{today[:7]}-01", _day(until) or today
    if as_csv:
        _write_csv(app, first, last)
        return
    totals = app.ledger.totals(by, since=first, until=last)
    calls, most = app.ledger.in_doubt()
    limits = _limits(app, config.budget, today)
    meter = _meter(app)
    if as_json:
        render.print_json(
            {
                "since": first,
                "until": last,
                "budgets": [
                    {"limit": name, "credits": limit, "spent": spent, "left": max(limit - spent, Decimal(0))}
                    for name, limit, spent in limits
                ],
                "by": by,
                "totals": [asdict(total) for total in totals],
                "settled": sum((total.settled for total in totals), Decimal(0)),
                "open": sum((total.open for total in totals), Decimal(0)),
                "doubted": sum((total.doubted for total in totals), Decimal(0)),
                "in_doubt": {"calls": calls, "at_worst": most},
                "apollo": asdict(meter) if meter else None,
            }
        )
        return
    out = render.console()
    _print_limits(out, limits, config.budget)
    _print_totals(out, by, totals, first, last)
    if calls:
        out.print(f"[yellow]In doubt: {_calls(calls)}, at worst {render.credit_words(most)}.[/] crm-sync doubt list")
    if meter is not None:
        used = f", {meter.used:f} used in its period" if meter.used is not None else ""
        out.print(f"Apollo's own meter: {render.credit_words(meter.left)} left{used} (by everybody on the account).")
    else:
        out.print("Apollo's own meter is not told to this key.", style="dim")


def _day(text: str | None) -> str:
    if text is None:
        return ""
    try:
        return date.fromisoformat(text).isoformat()
    except ValueError:
        raise click.UsageError(f"{text} is not a day; write it as 2026-11-01.") from None


def _limits(app: App, budget: Budget, today: str) -> list[tuple[str, Decimal, Decimal]]:
    """(limit's name, its credits, what counts against it) of each limit that is set, as pipeline/budget.room has it:
    phones have a purse of their own where they have a limit of their own."""
    month = f"{today[:7]}-01"
    phones = budget.phones_per_month
    mine = (LOOKUPS, PHONES) if phones is None else (LOOKUPS,)
    spans = (
        (budget.per_day, "today", today, mine),
        (budget.per_month, "this month", month, mine),
        (phones, "phones this month", month, (PHONES,)),
    )
    return [
        (name, limit, app.ledger.spent(since, today, purses=purses))
        for limit, name, since, purses in spans
        if limit is not None
    ]


def _meter(app: App) -> CreditBalance | None:
    try:
        return app.enricher.balance()
    except CrmSyncError:
        return None  # the ledger is ours and stands alone


def _print_limits(out: Console, limits: Sequence[tuple[str, Decimal, Decimal]], budget: Budget) -> None:
    for name, limit, spent in limits:
        share = spent / limit if limit else Decimal(1)
        style = "red" if share >= 1 else "yellow" if share >= Decimal("0.8") else "green"
        out.print(f"Budget {name}: [{style}]{spent.normalize():,f} of {limit.normalize():,f} credits[/]")
    if budget.per_run is not None:
        out.print(f"Budget of a run: {render.credit_words(budget.per_run)}")
    if not limits and budget.per_run is None:
        out.print("No budget is set: `budget:` in crm_sync.yaml limits runs, days and months.", style="dim")


def _print_totals(out: Console, by: str, totals: Sequence[Total], first: str, last: str) -> None:
    if not totals:
        out.print(f"\nNothing was spent from {first} to {last}.")
        return
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, title=f"{first} to {last}", title_justify="left")
    table.add_column(by.capitalize(), no_wrap=True)
    for name in ("Calls", "Credits", "Open, at worst", "Doubted, at worst"):
        table.add_column(name, justify="right")
    for total in totals:
        amounts = (total.settled, total.open, total.doubted)
        table.add_row(escape(total.name), f"{total.calls:,}", *(f"{amount.normalize():,f}" for amount in amounts))
    out.print(table)


def _write_csv(app: App, first: str, last: str) -> None:
    """To standard output; record ids begin with no sign that a spreadsheet would take for a formula."""
    writer = csv.writer(sys.stdout)
    writer.writerow(("at", "day", "run", "sync", "call", "endpoint", "state", "object", "record", "verdict", "credits"))
    for entry in app.ledger.entries(since=first, until=last):
        writer.writerow(
            (
                entry.at.isoformat(timespec="seconds"),
                entry.day,
                entry.run,
                entry.sync,
                entry.call,
                entry.endpoint,
                entry.state,
                entry.object_type,
                entry.record,
                entry.verdict,
                f"{entry.credits:f}",
            )
        )


# --- in doubt -----------------------------------------------------------------------------------------------------


@click.group(cls=Subcommands)
def doubt() -> None:
    """Calls that may have been charged without an answer: list, explain, resend or abandon them."""


@doubt.command("list")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@click.pass_obj
def doubt_list(app: App, as_json: bool) -> None:
    """What is in doubt, and what it may have cost at worst."""
    found = app.journal.doubts()
    most = sum((call.most for call in found), Decimal(0))
    if as_json:
        render.print_json({"calls": [_call_json(app, call) for call in found], "at_worst": most})
        return
    out = render.console()
    if not found:
        out.print("Nothing is in doubt.")
        return
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("Call", "Left", "Sync", "Asked for"):
        table.add_column(name, no_wrap=True)
    table.add_column("At worst", justify="right")
    table.add_column("Why", overflow="fold")
    for call in found:
        table.add_row(
            str(call.id),
            f"{doubts.left_at(call):%Y-%m-%d %H:%M} UTC",
            escape(call.sync),
            purpose_word(call.purpose, len(call.keys)),
            f"{call.most:f}",
            escape(call.error),
        )
    out.print(table)
    out.print(f"At worst {render.credit_words(most)}; they count against the budget until they are resolved.")
    out.print("crm-sync doubt explain CALL · resend CALL (ask again, may pay twice) · abandon CALL (let them go)")


@doubt.command("explain")
@click.argument("call_id", metavar="CALL", type=int)
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@click.pass_obj
def doubt_explain(app: App, call_id: int, as_json: bool) -> None:
    """What is known about one call, and what the evidence says; reads Apollo's meter, which costs nothing."""
    call = app.journal.call(call_id)
    if call is None:
        raise ConfigError(f"There is no call {call_id}; `crm-sync doubt list` shows those in doubt")
    services = app.services()
    evidence = None
    if call.state == "in doubt":
        meter = doubts.read_meter(services.enricher(), app.journal, app.clock)
        evidence = doubts.explain(call, meter, app.journal)
    if as_json:
        told = {"evidence": evidence.why, "unexplained_credits": evidence.unexplained} if evidence else {}
        render.print_json({**_call_json(app, call), **told})
        return
    out = render.console()
    out.print(f"[bold]Call {call.id}[/] · {call.endpoint} · {escape(call.sync)} · run {call.run_id}")
    out.print(f"State: {call.state}" + (f", by {escape(call.resolved_by)}" if call.resolved_by else ""))
    out.print(f"Asked for {purpose_word(call.purpose, len(call.keys))}; at worst {render.credit_words(call.most)}.")
    out.print(f"Planned {_moment(call.planned_at)}, left {_moment(call.sent_at)}, ended {_moment(call.answered_at)}.")
    if call.error:
        out.print(f"What happened: {escape(call.error)}")
    records = _records_of(app, call)
    if records:
        out.print(f"Records: {', '.join(f'{kind} {record}' for kind, record in records)}")
    if evidence is None:
        return
    out.print(f"Evidence: {escape(evidence.why)}.")
    if call.purse == PHONES:
        out.print(
            "It has ordered phones, so what is delivered for it proves that it was charged. Until then, or until "
            "`give_up_after`, nobody orders them again; you can resend or abandon it."
        )
    elif evidence.nothing_was_charged:
        out.print("So nothing was charged: the next run clears it by itself and asks for these records again.")
    else:
        policy = services.config.budget.in_doubt
        out.print(f"Until it is resolved nobody asks for these records again (budget.in_doubt: {policy}).")


def _moment(moment: datetime | None) -> str:
    return f"{moment:%Y-%m-%d %H:%M:%S} UTC" if moment else "never"


def _records_of(app: App, call: Call) -> list[tuple[str, str]]:
    """Whom it was about; those whose phone it has ordered have no row for it in the run."""
    return list(dict.fromkeys([*app.runs.of_call(call.run_id, call.id), *app.ledger.records_of(call.id)]))


def _call_json(app: App, call: Call) -> dict[str, Any]:
    return {
        "call": call.id,
        "run": call.run_id,
        "sync": call.sync,
        "endpoint": call.endpoint,
        "state": call.state,
        "asked": len(call.keys),
        "at_worst": call.most,
        "planned_at": call.planned_at,
        "sent_at": call.sent_at,
        "ended_at": call.answered_at,
        "reason": call.error,
        "records": [{"object": kind, "id": record} for kind, record in _records_of(app, call)],
    }


_CALLS = click.argument("call_ids", metavar="CALL…", type=int, nargs=-1)
_ALL = click.option("--all", "every", is_flag=True, help="All that are in doubt.")
_YES = click.option("--yes", is_flag=True, help="Do not ask.")
_DRY = click.option("--dry-run", is_flag=True, help="Say what it would do, and do nothing.")


@doubt.command("resend")
@_CALLS
@_ALL
@_YES
@_DRY
@click.pass_obj
def doubt_resend(app: App, call_ids: tuple[int, ...], every: bool, yes: bool, dry_run: bool) -> None:
    """Let the next run ask for these records again. If the lost call was charged, they are paid for twice."""
    chosen = _chosen(app, call_ids, every=every)
    early = [call for call in chosen if app.clock.now() - doubts.left_at(call) < doubts.SETTLE]
    warning = f" Apollo may still be working on {len(early)} of them." if early else ""
    _resolve(app, chosen, "Ask again for", warning, ask_again=True, yes=yes, dry_run=dry_run)


@doubt.command("abandon")
@_CALLS
@_ALL
@_YES
@_DRY
@click.pass_obj
def doubt_abandon(app: App, call_ids: tuple[int, ...], every: bool, yes: bool, dry_run: bool) -> None:
    """Give these records up: they wait like somebody whom Apollo does not know (after_no_match_wait)."""
    _resolve(app, _chosen(app, call_ids, every=every), "Give up", "", ask_again=False, yes=yes, dry_run=dry_run)


def _chosen(app: App, call_ids: Iterable[int], *, every: bool) -> list[Call]:
    wanted = list(dict.fromkeys(call_ids))
    if every == bool(wanted):
        raise click.UsageError("Name calls, or say --all. `crm-sync doubt list` shows them.")
    known = {call.id: call for call in app.journal.doubts()}
    unknown = [call_id for call_id in wanted if call_id not in known]
    if unknown:
        raise ConfigError(f"Call {unknown[0]} is not in doubt; `crm-sync doubt list` shows those that are")
    return list(known.values()) if every else [known[call_id] for call_id in wanted]


def _resolve(
    app: App, calls: Sequence[Call], what: str, warning: str, *, ask_again: bool, yes: bool, dry_run: bool
) -> None:
    if not calls:
        click.echo("Nothing is in doubt.")
        return
    records = sum(len(call.keys) for call in calls)
    most = sum((call.most for call in calls), Decimal(0))
    sentence = f"{what} {_calls(len(calls))} with {records:,} keys; they may have cost {render.credit_words(most)}."
    click.echo(sentence + warning)
    if dry_run:
        click.echo("Nothing was done (--dry-run).")
        return
    if not yes:
        click.confirm("Go on?", abort=True)
    for call in calls:
        app.journal.accept(call.id, ask_again=ask_again, by=getpass.getuser(), now=app.clock.now())
    after = "The next run asks for them again." if ask_again else "They are asked for again after after_no_match_wait."
    click.echo(f"Done. {after}")


def _calls(count: int) -> str:
    return f"{count:,} call{'' if count == 1 else 's'}"


# --- cancel -------------------------------------------------------------------------------------------------------


@click.command()
@click.argument("run_id", metavar="RUN")
@_DRY
@click.pass_obj
def cancel(app: App, run_id: str, dry_run: bool) -> None:
    """Stop a run that is under way, wherever it runs: no further paid call leaves; what is paid for is written."""
    run = find_run(app, run_id)
    if dry_run:
        click.echo(f"{run.id} ({run.sync}) is {run.status.value}; nothing was done (--dry-run).")
        return
    if run.kind is RunKind.PHONES and run.status is RunStatus.RUNNING:
        raise ConfigError(
            f"Run {run.id} writes phones that are here and asks Apollo for nothing; it ends by itself. To have no more "
            "written for now, end crm-sync serve (or worker): what comes meanwhile is delivered again or fetched"
        )
    if not app.runs.ask_to_cancel(run.id, now=app.clock.now()):
        raise ConfigError(f"Run {run.id} is not running: it is {run.status.value}")
    if run.status is RunStatus.QUEUED:
        click.echo(f"{run.id} ({run.sync}) is cancelled before it began.")
        return
    click.echo(f"{run.id} ({run.sync}) stops within one batch. `crm-sync show {run.id}` tells when it has.")
