"""serve and worker, which run what is queued and scheduled; syncs, pause and resume, which look at it and steer it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

import click
from rich.markup import escape

from crm_sync.bootstrap import App
from crm_sync.cli import EXIT_FAILED, no_such_sync, render
from crm_sync.cli.config import author
from crm_sync.config.model import Config, Sync
from crm_sync.config.slots import upcoming
from crm_sync.domain.runs import RunKind, RunStatus, SyncRun
from crm_sync.errors import ConfigError
from crm_sync.pipeline.scheduling import due_slot
from crm_sync.store.schedules import Standing

#: A slot that nobody has queued for so long is late; the scheduler takes seconds.
_LATE_AFTER = timedelta(minutes=2)
_TROUBLED = (RunStatus.FAILED, RunStatus.COMPLETED_WITH_ERRORS)
_STYLE = {"Active": "green", "Paused": "dim", "Needs attention": "yellow", "Late": "red"}


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen on.")
@click.option("--port", type=click.IntRange(0, 65535), default=8080, show_default=True, help="0: a free one.")
@click.pass_obj
def serve(app: App, host: str, port: int) -> None:
    """Run syncs on their schedules, receive what Apollo delivers and carry it out, until stopped (Ctrl-C, SIGTERM).

    Everything in one process: receiver, scheduler and worker. Behind a web server that ends TLS; see docs/phones.md.
    """
    from crm_sync.bootstrap import serve as run_server

    app.check_fit_for_work()
    try:
        run_server(app, host=host, port=port, started=lambda url: click.echo(f"crm-sync serves {url} (Ctrl-C ends it)"))
    except OSError as error:
        raise ConfigError(
            f"{host}:{port} cannot be listened on: {error.strerror}. Name another --host or --port"
        ) from error


@click.command()
@click.option(
    "--once",
    is_flag=True,
    help="Do what is due, queued and delivered now, purge and tell alerts, and end: for a system's own cron.",
)
@click.pass_obj
def worker(app: App, once: bool) -> None:
    """Run what is scheduled and queued and carry out what is delivered, without receiving it: beside web processes
    (gunicorn wsgi:app). Any number of workers share a PostgreSQL database; one of them is the scheduler."""
    from crm_sync.bootstrap import work, work_once

    app.check_fit_for_work()
    if once:
        done = work_once(app)
        for run in done.runs:
            click.echo(f"{run.id} ({run.sync}): {run.status.value}{f', {run.reason}' if run.reason else ''}")
        if not done.runs:
            click.echo("No run was due or queued.")
        if done.purged:
            click.echo(f"Purged: {render.counted(done.purged, 'row')} that had been kept for long enough.")
        if done.told:
            click.echo(f"{render.counted(done.told, 'notice')} told.")
        if done.untold:
            click.echo(f"{render.counted(done.untold, 'notice')} not taken: crm-sync alerts says why.", err=True)
        for problem in done.problems:
            click.echo(problem, err=True)
        ended = render.exit_code(done.runs)
        click.get_current_context().exit(ended or (EXIT_FAILED if done.untold or done.problems else 0))
    click.echo("crm-sync works on what is scheduled, queued and delivered (Ctrl-C ends it)")
    work(app)


# --- syncs --------------------------------------------------------------------------------------------------------


@click.command()
@click.option("--json", "as_json", is_flag=True, help="A JSON list, one object a sync.")
@click.pass_obj
def syncs(app: App, as_json: bool) -> None:
    """The syncs: their schedules, how they stand, when each ran last and runs next."""
    config, _ = app.applied()
    now, standings = app.clock.now(), app.schedules.all()
    told = [_told(sync, config, standings.get(name), _latest(app, name), now) for name, sync in config.syncs.items()]
    seen_at = app.schedules.seen_at()
    if as_json:
        render.print_json(told)
        return
    out = render.console()
    render.print_table(out, _COLUMNS, [_row(each, config.timezone, now) for each in told])
    is_away = seen_at is None or now - seen_at > _LATE_AFTER
    if is_away and any(sync.schedule is not None for sync in config.syncs.values()):
        since = f" since {render.local(seen_at, config.timezone)}" if seen_at is not None else ""
        out.print(f"\nNothing has been scheduling{since}: crm-sync serve, or worker, runs what is due.", soft_wrap=True)


_COLUMNS = (
    render.Column(title="Sync"),
    render.Column(title="Object", keep=1),
    render.Column(title="State"),
    render.Column(title="Schedule"),
    render.Column(title="Next run"),
    render.Column(title="Last run", keep=2),
)


def _told(
    sync: Sync, config: Config, standing: Standing | None, latest: SyncRun | None, now: datetime
) -> dict[str, Any]:
    state, why = _state(sync, config, standing, latest, now)
    is_paused = standing is not None and standing.paused_at is not None
    following = None
    if sync.schedule is not None and not is_paused:
        since = standing.since if standing is not None else now
        following = next(upcoming(sync.schedule, config.timezone, since=since, now=now))
    return {
        "sync": sync.name,
        "crm": sync.crm,
        "object": sync.object_type,
        "state": state,
        "reason": why,
        "schedule": sync.schedule.text if sync.schedule is not None else None,
        "next_run_at": following,
        "last_run": latest.id if latest is not None else None,
        "last_status": latest.status.value if latest is not None else None,
        "last_run_at": latest.started_at if latest is not None else None,
    }


def _state(
    sync: Sync, config: Config, standing: Standing | None, latest: SyncRun | None, now: datetime
) -> tuple[str, str]:
    """How a sync stands, worst first, and why."""
    if standing is not None and standing.paused_at is not None:
        return "Paused", f"by {standing.paused_by} since {render.local(standing.paused_at, config.timezone)}"
    slot = due_slot(sync, standing, config.timezone, now=now) if standing is not None else None
    if slot is not None and sync.schedule is not None and now - slot.at > _LATE_AFTER + sync.schedule.jitter:
        return "Late", f"the run of {render.local(slot.at, config.timezone)} has not been queued"
    if latest is not None and latest.status in _TROUBLED:
        return "Needs attention", latest.reason
    return "Active", ""


def _latest(app: App, name: str) -> SyncRun | None:
    """The newest run that has begun."""
    found = app.runs.latest(limit=50, sync=name)
    return next((run for run in found if run.kind is RunKind.RUN and run.status is not RunStatus.QUEUED), None)


def _row(told: dict[str, Any], timezone: str, now: datetime) -> Sequence[str]:
    state = told["state"]
    last = ""
    if told["last_run"]:
        ago = render.duration((now - told["last_run_at"]).total_seconds())
        last = f"{told['last_status']}, {ago} ago"
    return (
        escape(told["sync"]),
        f"{told['object']} in {escape(told['crm'])}",
        f"[{_STYLE[state]}]{state}[/]",
        escape(told["schedule"] or "by hand"),
        render.local(told["next_run_at"], timezone) if told["next_run_at"] else "",
        last,
    )


# --- pause and resume ---------------------------------------------------------------------------------------------


@click.command()
@click.argument("sync")
@click.option("--dry-run", is_flag=True, help="Say what it would do, and do nothing.")
@click.pass_obj
def pause(app: App, sync: str, dry_run: bool) -> None:
    """Let SYNC's schedule rest until it is resumed. A run that is under way goes on: crm-sync cancel stops it."""
    _known(app, sync)
    if dry_run:
        click.echo(f"{sync} would be paused; nothing was done (--dry-run).")
        return
    if not app.schedules.pause(sync, by=author(), now=app.clock.now()):
        click.echo(f"{sync} is paused already.")
        return
    click.echo(f"{sync} is paused: nothing of it is queued by its schedule. To go on: crm-sync resume {sync}")


@click.command()
@click.argument("sync")
@click.option("--dry-run", is_flag=True, help="Say what it would do, and do nothing.")
@click.pass_obj
def resume(app: App, sync: str, dry_run: bool) -> None:
    """Let SYNC's schedule go on, with its next slot: those that came while it rested are not made up for."""
    schedule, timezone = _known(app, sync).schedule, app.applied()[0].timezone
    now = app.clock.now()
    following = ""
    if schedule is not None:
        moment = next(upcoming(schedule, timezone, since=now, now=now))
        following = f"; it runs next at {render.local(moment, timezone)}"
    if dry_run:
        click.echo(f"{sync} would be resumed{following}; nothing was done (--dry-run).")
    elif app.schedules.resume(sync, now=now):
        click.echo(f"{sync} is resumed{following}.")
    else:
        click.echo(f"{sync} is not paused.")


def _known(app: App, name: str) -> Sync:
    """
    Raises:
        ConfigError: there is no such sync.
    """
    config, number = app.applied()
    if name not in config.syncs:
        raise no_such_sync(name, config.syncs, number)
    return config.syncs[name]
