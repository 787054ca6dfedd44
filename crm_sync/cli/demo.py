"""demo and sandbox: the whole story without an account; its later chapters are in demo_changes.py, demo_phones.py and
demo_kill.py."""

from __future__ import annotations

import os
import signal
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.rule import Rule

from crm_sync.bootstrap import App
from crm_sync.cli import render
from crm_sync.config.check import check
from crm_sync.config.loader import load
from crm_sync.config.problems import Severity
from crm_sync.config.starter import starter
from crm_sync.domain.runs import RunKind, SyncRun
from crm_sync.errors import ConfigError, CrmSyncError
from crm_sync.pipeline.run import run_sync

_CRMS = ("salesforce", "hubspot")


@click.command()
@click.option("--contacts", type=click.IntRange(5, 1_000_000), default=50, show_default=True)
@click.option("--seed", type=int, default=7, show_default=True, help="Another seed is another world.")
@click.option(
    "--keep",
    type=click.Path(path_type=Path),
    help="A new folder that keeps the database of the phones, to look at: cd there, crm-sync phones.",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object: each CRM's chapters, the phones, the kill.")
def demo(contacts: int, seed: int, keep: Path | None, as_json: bool) -> None:
    """The whole story on the built-in sandbox, no account needed: for both CRMs a plan, a run, a second run, an undo,
    and a run during which people edit; then phones, ordered, delivered and written; then a run whose process is killed
    while Apollo works, started again, and Apollo's ledger beside ours.

    Nothing leaves this machine; the database is a temporary one.
    """
    from crm_sync.cli.demo_changes import CHAPTERS, undo_and_run_again
    from crm_sync.cli.demo_kill import kill_and_restart
    from crm_sync.cli.demo_phones import order_and_receive
    from crm_sync.sandbox.run import Sandbox

    out = Console(quiet=True) if as_json else render.console()
    told: dict[str, Any] = {}
    with (
        Sandbox(contacts=contacts, seed=seed) as sandbox,
        tempfile.TemporaryDirectory(prefix="crm-sync-demo-") as folder,
    ):
        out.print(
            f"The sandbox plays Apollo, Salesforce and HubSpot on this machine, with {contacts} contacts as untidy as "
            "real ones.\n"
        )
        for crm in _CRMS:
            out.print(Rule(f"[bold]{crm.capitalize() if crm != 'hubspot' else 'HubSpot'}[/]", align="left"))
            with only_settings(sandbox.settings() | {"CRM_SYNC_DATABASE_URL": f"sqlite:///{folder}/{crm}.db"}):
                app = App(env_file=None)
                try:
                    told[crm], run = _story(app, crm, out)
                    told[crm] |= undo_and_run_again(app, sandbox, run, out)
                finally:
                    app.close()
        told |= {chapter: told[_CRMS[0]][chapter] for chapter in CHAPTERS}
        out.print(Rule("[bold]Phones[/]", align="left"))
        told["phones"] = order_and_receive(contacts, seed, out, keep=keep)
        out.print(Rule("[bold]A process killed in mid-flight[/]", align="left"))
        told["kill"] = kill_and_restart(contacts, seed, out)
        if as_json:
            render.print_json(told)
        else:
            out.print(
                "\nThat was the sandbox. With your own keys: crm-sync init --crm salesforce (or hubspot), then "
                "doctor, config check, config apply, plan; the README tells it step by step."
            )
    click.get_current_context().exit(_exit_code(told))


def _story(app: App, crm: str, out: Console) -> tuple[dict[str, Any], SyncRun]:
    sync_name = configure(app, crm, out)
    services = app.services()
    sync = services.config.syncs[sync_name]
    out.print("\n[bold]1. A plan of ten records[/]: field by field, before anything is written\n")
    labels: dict[str, str] = {}
    plan = run_sync(
        sync,
        services,
        kind=RunKind.PLAN,
        trigger="demo",
        limit=10,
        met=lambda due: labels.update({due.record.ref.id: render.label(due.keys)}),
    )
    records = list(services.runs.records(plan.id))
    render.print_records(out, records, RunKind.PLAN, labels)
    render.print_run(out, plan)
    out.print("\n[bold]2. The run[/]: what the plan has paid for is not paid for again\n")
    run = run_sync(sync, services, kind=RunKind.RUN, trigger="demo")
    render.print_run(out, run)
    render.print_reasons(out, services.runs.reasons(run.id), most=6)
    out.print("\n[bold]3. The same run once more[/]\n")
    second = run_sync(sync, services, kind=RunKind.RUN, trigger="demo")
    render.print_run(out, second)
    nothing = second.counts.updated == 0 and second.credits == 0
    out.print(
        "\nThe second run changed nothing and spent nothing.\n"
        if nothing
        else "\n[red]The second run should have changed and spent nothing.[/]\n"
    )
    told = {
        "plan": {**render.run_json(plan), "records": [render.record_json(r, RunKind.PLAN) for r in records]},
        "run": render.run_json(run),
        "second_run": render.run_json(second),
    }
    return told, run


def configure(app: App, crm: str, out: Console, *, workers: int = 4) -> str:
    """What `init`, `config check` and `config apply` do; returns the sync of people."""
    client = app.crm(crm, crm)
    text = starter(crm, crm, {each: client.describe(each) for each in client.object_types()})
    loaded = load(text.replace("workers: 4 ", f"workers: {workers} ").encode())
    config = loaded.require()
    errors = [p for p in check(config, {crm: client}) if p.severity is Severity.ERROR]
    if errors:
        raise ConfigError("\n".join(map(str, errors)))
    app.versions.add(config.text, config.files, author="demo", note="what init writes", now=app.clock.now())
    out.print(
        f"A configuration is written from the live schema (crm-sync init --crm {crm}), checked and applied: "
        f"{', '.join(config.syncs)}; every field on the rule `fill`."
    )
    return next(iter(config.syncs))


def _exit_code(told: dict[str, Any]) -> int:
    """0 when every run ended as it should, the second ones changed and spent nothing, and the kill cost nothing."""
    kill = told["kill"]
    if kill["charged_twice"] or kill["answers_lost"] or not kill["finished_after_restart"]:
        return 1
    if told["phones"]["waiting"] or (told["phones"]["ordered"] and not told["phones"]["applied"]):
        return 1
    for crm in (told[name] for name in _CRMS):
        if any(crm[step]["status"] == "Failed" for step in ("plan", "run", "second_run")):
            return 1
        if crm["second_run"]["updated"] or crm["second_run"]["credits"]:
            return 1
        if not crm["human_edit"]["kept"] or not crm["undo"]["restored"]:
            return 1
    return 0


@contextmanager
def only_settings(values: dict[str, str]) -> Iterator[None]:
    """The sandbox's settings and no others: an admin's own must not be mixed into a demonstration."""
    kept = {name: value for name, value in os.environ.items() if name.upper().startswith("CRM_SYNC_")}
    for name in kept:
        del os.environ[name]
    os.environ.update(values)
    try:
        yield
    finally:
        for name in values:
            os.environ.pop(name, None)
        os.environ.update(kept)


@click.command()
@click.option("--contacts", type=click.IntRange(5, 1_000_000), default=50, show_default=True)
@click.option("--seed", type=int, default=7, show_default=True, help="Another seed is another world.")
@click.option(
    "--env-file",
    "target",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write the settings that point at the sandbox into this file.",
)
@click.option("--apollo-per-minute", type=click.IntRange(min=0), default=1000, show_default=True, help="0: unlimited.")
@click.option("--apollo-latency-ms", type=click.FloatRange(min=0), default=0, show_default=True)
@click.option(
    "--variant", type=click.Choice(["a", "b"]), default="a", show_default=True, help="Where the contracts are open."
)
@click.option("--tidy", is_flag=True, help="Everybody is known, distinct and matchable.")
@click.option("--unlimited", is_flag=True, help="HubSpot without search and burst limits and without index lag.")
def sandbox(
    contacts: int,
    seed: int,
    target: Path | None,
    apollo_per_minute: int,
    apollo_latency_ms: float,
    variant: str,
    tidy: bool,
    unlimited: bool,
) -> None:
    """Run the built-in Apollo, Salesforce and HubSpot simulators on this machine until Ctrl-C.

    They keep what is written to them while they run, are strict where the services are, and answer
    GET /_sandbox/calls and /_sandbox/state, POST /_sandbox/records/OBJECT/ID, /_sandbox/faults and /_sandbox/edits.
    """
    from crm_sync.sandbox.run import Sandbox

    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    with Sandbox(
        contacts=contacts,
        seed=seed,
        variant=variant,
        tidy=tidy,
        per_minute=apollo_per_minute or None,
        latency_ms=apollo_latency_ms,
        unlimited=unlimited,
    ) as running:
        lines = [f"{name}={value}" for name, value in running.settings().items()]
        if target is not None:
            try:
                target.write_text("\n".join(lines) + "\n", encoding="utf-8")
            except OSError as error:
                raise CrmSyncError(f"{target} cannot be written: {error.strerror}") from error
            click.echo(f"The sandbox runs, with {contacts:,} contacts; its settings are in {target}.")
            click.echo(f"In another shell: crm-sync --env-file {target} doctor. Ctrl-C ends it.")
        else:
            click.echo("\n".join(lines))
            click.echo(f"# The sandbox runs, with {contacts:,} contacts. Ctrl-C ends it.")
        stop.wait()
    click.echo("The sandbox has ended; what was written to it is gone.")
