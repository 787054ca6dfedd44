"""plan and run."""

from __future__ import annotations

import gc
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from crm_sync.bootstrap import App
from crm_sync.cli import render
from crm_sync.cli.privacy import purge_after_run
from crm_sync.config.model import Sync
from crm_sync.domain.runs import RunKind, SyncRun
from crm_sync.errors import ConfigError
from crm_sync.pipeline import run as walk
from crm_sync.pipeline.walk import Stop
from crm_sync.services import Services

_PLAIN_LINE_EVERY_S = 10.0


@click.command()
@click.argument("sync")
@click.option("--limit", type=click.IntRange(min=1), default=10, show_default=True, help="How many records.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object: the run's books and every record.")
@click.pass_obj
def plan(app: App, sync: str, limit: int, as_json: bool) -> None:
    """Show, field by field, what a run of SYNC would write; nothing is written.

    Answers that are stored and fresh cost nothing; what Apollo is asked for is kept, so that the run after the plan
    does not buy it again.
    """
    services = app.services()
    chosen = _chosen(services, (sync,), every=False)[0]
    out = render.console()
    if not as_json:
        per = "company" if chosen.is_company else "person"
        out.print(f"Planning at most {limit} records: at most {limit} credits, 1 a {per} that Apollo finds.\n")
    result = _walk(chosen, services, kind=RunKind.PLAN, limit=limit, out=None if as_json else out)
    records = list(services.runs.records(result.id))
    if as_json:
        render.print_json({**render.run_json(result), "records": [render.record_json(record) for record in records]})
    else:
        render.print_records(out, records)
        render.print_run(out, result, timezone=services.config.timezone)
    click.get_current_context().exit(render.exit_code([result]))


@click.command()
@click.argument("syncs", nargs=-1)
@click.option("--all", "every", is_flag=True, help="Every sync of the configuration, in its order.")
@click.option("--limit", type=click.IntRange(min=1), help="At most so many records of each sync.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object, or a list of them for several syncs.")
@click.pass_obj
def run(app: App, syncs: tuple[str, ...], every: bool, limit: int | None, as_json: bool) -> None:
    """Run SYNCS now, in the foreground.

    Ctrl-C stops within one batch: calls that are paid for are finished and written.
    """
    services = app.services()
    chosen = _chosen(services, syncs, every=every)
    out = render.console()
    results: list[SyncRun] = []
    for sync in chosen:
        result = _walk(sync, services, kind=RunKind.RUN, limit=limit, out=None if as_json else out)
        results.append(result)
        if not as_json:
            render.print_run(out, result, timezone=services.config.timezone)
            render.print_reasons(out, services.runs.reasons(result.id))
            out.print()
    if as_json:
        found = [render.run_json(result) for result in results]
        render.print_json(found[0] if len(syncs) == 1 and not every else found)
    purge_after_run(app, services.config)
    click.get_current_context().exit(render.exit_code(results))


def _chosen(services: Services, names: tuple[str, ...], *, every: bool) -> list[Sync]:
    syncs = services.config.syncs
    if every and names:
        raise click.UsageError("Name syncs or say --all, not both.")
    if not every and not names:
        raise click.UsageError(f"Name a sync ({', '.join(syncs)}) or say --all.")
    unknown = [name for name in names if name not in syncs]
    if unknown:
        raise ConfigError(
            f"No sync is called {unknown[0]}; configuration version {services.config_version} has: {', '.join(syncs)}"
        )
    return list(syncs.values()) if every else [syncs[name] for name in names]


def _walk(sync: Sync, services: Services, *, kind: RunKind, limit: int | None, out: Console | None) -> SyncRun:
    stop = Stop()
    with _cancel_on_signal(stop), _rare_collections(), _watching(out, sync.name) as watch:
        return walk.run_sync(sync, services, kind=kind, trigger="cli", limit=limit, stop=stop, watch=watch)


@contextmanager
def _rare_collections() -> Iterator[None]:
    """A walk makes a hundred small objects per record and no cycles: at Python's own thresholds the search for cycles
    took 15 % of all CPU (bench/, 2026-11)."""
    before = gc.get_threshold()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)
    try:
        yield
    finally:
        gc.set_threshold(*before)
        gc.unfreeze()


@contextmanager
def _cancel_on_signal(stop: Stop) -> Iterator[None]:
    """The first Ctrl-C or SIGTERM stops gently; a second Ctrl-C is Python's own."""

    def cancel(number: int, _frame: FrameType | None) -> None:
        stop.raise_("cancelled by " + signal.Signals(number).name)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        click.echo("Stopping: finishing what is paid for …", err=True)

    before = {number: signal.signal(number, cancel) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _watching(out: Console | None, name: str) -> Iterator[Callable[[walk.Progress], None] | None]:
    """A bar with rate and time left on a terminal, a plain line every ten seconds elsewhere."""
    if out is None:
        yield None
    elif out.is_terminal:
        with Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[credits]}"),
            console=out,
            transient=True,
        ) as progress:
            task = progress.add_task(name, total=None, rate="", credits="")
            yield _bar(progress, task)
    else:
        yield _lines(out, name)


def _bar(progress: Progress, task: TaskID) -> Callable[[walk.Progress], None]:
    started = time.monotonic()

    def watch(now: walk.Progress) -> None:
        rate = now.done / max(time.monotonic() - started, 0.001)
        progress.update(
            task,
            completed=now.done,
            total=max(now.expected, now.done) if now.expected is not None else None,
            rate=f"{rate:,.0f}/s",
            credits=render.credit_words(now.credits),
        )

    return watch


def _lines(out: Console, name: str) -> Callable[[walk.Progress], None]:
    started = last = time.monotonic()

    def watch(now: walk.Progress) -> None:
        nonlocal last
        moment = time.monotonic()
        if moment - last < _PLAIN_LINE_EVERY_S:
            return
        last = moment
        rate = now.done / max(moment - started, 0.001)
        of = f" of {now.expected:,}" if now.expected is not None else ""
        left = ""
        if now.expected is not None and rate > 0:
            left = f", about {render.duration(max(now.expected - now.done, 0) / rate)} left"
        out.print(f"{name}: {now.done:,}{of} records, {rate:,.0f}/s{left}, {render.credit_words(now.credits)}")

    return watch
