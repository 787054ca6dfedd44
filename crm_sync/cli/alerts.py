"""alerts: what is wrong now, who was told, and whether telling works."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click
from rich.console import Console
from rich.markup import escape

from crm_sync.alerts import shown
from crm_sync.bootstrap import App
from crm_sync.cli import EXIT_FAILED, Subcommands, render
from crm_sync.cli.render import Column
from crm_sync.config.model import Alert, Config
from crm_sync.domain.alerts import Firing, Message, Notice
from crm_sync.pipeline.watching import lasted, name_of
from crm_sync.store.alerts import BEGAN, GIVEN_UP, TOLD


@click.group(cls=Subcommands, invoke_without_command=True)
@click.option("--limit", type=click.IntRange(min=0), default=10, show_default=True, help="So many of the last notices.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@click.pass_context
def alerts(ctx: click.Context, limit: int, as_json: bool) -> None:
    """What is wrong now and since when, who was told of it, and what could not be told."""
    if ctx.invoked_subcommand is not None:
        return
    app: App = ctx.obj
    config, _ = app.applied()
    firing, undelivered, history = (
        app.alerts.firing(),
        app.alerts.undelivered(now=app.clock.now()),
        app.alerts.history(limit=limit),
    )
    if as_json:
        render.print_json(_standing(app, config, firing, undelivered, history))
        return
    out = render.console()
    if not config.alerts:
        out.print("no alerts are configured: nobody is told of anything. docs/alerts.md tells how")
        return
    _print_firing(out, app, config, firing)
    _print_undelivered(out, config, undelivered)
    _print_history(out, config, history)


def _standing(
    app: App, config: Config, firing: Sequence[Firing], undelivered: Sequence[Notice], history: Sequence[Notice]
) -> dict[str, Any]:
    told = app.alerts.last_told()
    return {
        "configured": [
            {"alert": name_of(alert), "event": alert.when, "tell": [shown(each) for each in alert.tell]}
            for alert in config.alerts
        ],
        "firing": [
            {
                "alert": each.alert,
                "subject": each.subject,
                "pending": each.is_pending,
                "since": each.since,
                "last_told": told.get((each.alert, each.subject)),
                "title": each.title,
                "what": each.what,
                "next": each.advice,
            }
            for each in firing
        ],
        "undelivered": [_notice_json(each) for each in undelivered],
        "notices": [_notice_json(each) for each in history],
    }


def _notice_json(notice: Notice) -> dict[str, Any]:
    return {
        "id": notice.id,
        "alert": notice.alert,
        "subject": notice.subject,
        "kind": notice.kind,
        "to": notice.shown,
        "title": notice.title,
        "state": notice.state,
        "attempts": notice.attempts,
        "error": notice.error,
        "made_at": notice.made_at,
        "next_attempt_at": notice.try_at if notice.state == "waiting" else None,
        "ended_at": notice.ended_at,
    }


def _print_firing(out: Console, app: App, config: Config, firing: Sequence[Firing]) -> None:
    if not firing:
        out.print(f"[bold]nothing is wrong[/] · {render.counted(len(config.alerts), 'alert')} configured")
        return
    now, told = app.clock.now(), app.alerts.last_told()
    out.print(f"[bold]{render.counted(len(firing), 'thing')} wrong[/]")
    for each in firing:
        at = told.get((each.alert, each.subject))
        said = f"last told {render.local(at, config.timezone)}" if at is not None else "nobody was told yet"
        if each.is_pending:
            said = "not told before it has lasted for a while"
        out.print(f"\n[red]{escape(each.title)}[/], for {lasted(now - each.since)} · {said}")
        out.print(f"  {escape(each.what)}", soft_wrap=True)
        if each.advice:
            out.print(f"  → {escape(each.advice)}", soft_wrap=True)
        out.print(f"  {escape(each.alert)}", style="dim")


def _print_undelivered(out: Console, config: Config, undelivered: Sequence[Notice]) -> None:
    if not undelivered:
        return
    out.print("\n[bold]Could not be told[/]")
    columns = [
        Column(title="Notice", keep=1),
        Column(title="To"),
        Column(title="Tried", right=True, keep=2),
        Column(title="Next attempt", keep=0),
        Column(title="Why"),
    ]
    rows = [
        [
            escape(each.title),
            escape(each.shown),
            str(each.attempts),
            "none" if each.state == GIVEN_UP else render.local(each.try_at, config.timezone),
            escape(each.error),
        ]
        for each in undelivered
    ]
    render.print_table(out, columns, rows)
    out.print("crm-sync alerts test --all tries every address now")


def _print_history(out: Console, config: Config, history: Sequence[Notice]) -> None:
    if not history:
        return
    out.print("\n[bold]Notices[/], newest first")
    columns = [Column(title="Made"), Column(title="Notice"), Column(title="To", keep=1), Column(title="State")]
    rows = [
        [
            render.local(each.made_at, config.timezone),
            escape(each.title),
            escape(each.shown),
            each.state if each.state != TOLD else ("told" if each.kind == BEGAN else "told, over"),
        ]
        for each in history
    ]
    render.print_table(out, columns, rows)


@alerts.command("test")
@click.argument("name", metavar="[NAME]", required=False)
@click.option("--all", "all_of_them", is_flag=True, help="Every address of the configuration.")
@click.option("--json", "as_json", is_flag=True, help="A JSON list.")
@click.pass_obj
def try_out(app: App, name: str | None, all_of_them: bool, as_json: bool) -> None:
    """Send a test message to the addresses of NAME: an event such as run_failed, or an address as `crm-sync alerts
    --json` shows it."""
    if (name is None) is not all_of_them:
        raise click.UsageError("Whom? Name an event or an address of the configuration, or say --all.")
    config, _ = app.applied()
    addresses = _addresses(config.alerts, name)
    if not addresses:
        known = sorted({word for alert in config.alerts for word in (alert.when, *map(shown, alert.tell))})
        raise click.UsageError(
            f"No alert goes there. Known here: {', '.join(known)}." if known else "No alerts are configured."
        )
    messages = [
        Message(
            address=address,
            title="crm-sync: a test",
            body="This is a test of crm-sync's alerts: nothing is wrong. What goes wrong will be told here.",
            is_good_news=True,
        )
        for address in addresses
    ]
    outcomes = app.notifiers.tell(messages)
    results = [{"to": shown(address), "error": outcome} for address, outcome in zip(addresses, outcomes, strict=True)]
    if as_json:
        render.print_json(results)
    else:
        out = render.console()
        for result in results:
            ending = f"[red]not taken[/]: {escape(result['error'])}" if result["error"] else "[green]taken[/]"
            out.print(f"{escape(result['to'])}: {ending}", soft_wrap=True)
    click.get_current_context().exit(EXIT_FAILED if any(outcomes) else 0)


def _addresses(configured: Sequence[Alert], name: str | None) -> list[str]:
    """Each once, in the order of the configuration."""
    return list(
        dict.fromkeys(
            address
            for alert in configured
            for address in alert.tell
            if name is None or name in (alert.when, name_of(alert), address, shown(address))
        )
    )
