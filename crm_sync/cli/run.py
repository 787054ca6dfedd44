"""plan and run."""

from __future__ import annotations

import gc
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path
from types import FrameType
from typing import Any

import click
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from crm_sync.bootstrap import App
from crm_sync.cli import no_such_sync, render
from crm_sync.cli.privacy import purge_after_run
from crm_sync.config.expressions import UnreadableError, amount
from crm_sync.config.model import Sync
from crm_sync.config.unmapped import places, waiting
from crm_sync.domain.records import ObjectSchema
from crm_sync.domain.runs import Asked, RunKind, RunStatus, SyncRun
from crm_sync.errors import ConfigError
from crm_sync.pipeline import plan_file
from crm_sync.pipeline import run as walk
from crm_sync.pipeline.scheduling import queue_by_hand
from crm_sync.pipeline.select import LEFT_OUT_MORE, LEFT_OUT_SEEN_MORE
from crm_sync.pipeline.verdict import FIELDS_REFUSED
from crm_sync.pipeline.walk import Due, Spending, Stop
from crm_sync.services import Services

_PLAIN_LINE_EVERY_S = 10.0
_ABOUT_THE_SAME = timedelta(seconds=5)
#: A plan that may spend more asks first.
_ASK_ABOVE = 25


class _Credits(click.ParamType[Decimal]):
    """An amount of credits; Apollo charges decimals."""

    name = "credits"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Decimal:
        try:
            return amount(str(value))
        except UnreadableError as error:
            self.fail(f"{value}: {error.message} {error.suggestion}", param, ctx)


_CREDITS = _Credits()


@click.command()
@click.argument("sync")
@click.option("--limit", type=click.IntRange(min=1), default=10, show_default=True, help="How many records.")
@click.option("--free", is_flag=True, help="Stored answers only: Apollo is asked nothing.")
@click.option("--yes", is_flag=True, help=f"Do not ask before spending more than {_ASK_ABOVE} credits.")
@click.option(
    "--out",
    "file",
    type=click.Path(path_type=Path, dir_okay=False, exists=False),
    help="Keep the plan in a file: `crm-sync apply FILE` writes exactly that.",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object: the cost, the run's books and every record.")
@click.pass_obj
def plan(app: App, sync: str, limit: int, free: bool, yes: bool, file: Path | None, as_json: bool) -> None:
    """Show, field by field, what a run of SYNC would write; nothing is written.

    Answers that are stored and fresh cost nothing; what Apollo is asked for is kept, so that the run after the plan
    does not buy it again.
    """
    services = app.services()
    chosen = _chosen(services, (sync,), every=False)[0]
    if file is not None:
        _check_free(file)
    out = render.console()
    cost = walk.estimate(chosen, services, limit=limit)
    if not as_json:
        out.print(_cost_words(cost, chosen, free=free), soft_wrap=True)
        if cost.phones:
            out.print(
                f"A run would order {render.counted(cost.phones, 'phone')} at most, for up to "
                f"{render.credit_words(cost.phones_most)}; a plan orders none.",
                soft_wrap=True,
            )
        out.print()
    if not free and cost.most > _ASK_ABOVE and not yes:
        _ask_to_spend(cost.most)
    spending = Spending(free=free)
    labels: dict[str, str] = {}
    result = walk_sync(
        chosen,
        services,
        kind=RunKind.PLAN,
        limit=limit,
        spending=spending,
        out=None if as_json else out,
        met=lambda due: labels.update({due.record.ref.id: render.label(due.keys)}),
    )
    records = list(services.runs.records(result.id))
    plans_something = bool(result.counts.updated or result.parents.updated)
    if file is not None and plans_something:
        _keep(file, plan_file.written(result, records, services))
    elif file is not None:
        click.echo(f"The plan changes nothing, so {file} was not written.", err=True)
    if as_json:
        told = {
            "calls": 0 if free else cost.calls,
            "least": 0,
            "most": 0 if free else cost.most,
            "stored": cost.served,
            "phones_of_a_run": cost.phones,
            "phones_most": cost.phones_most,
        }
        render.print_json(
            {
                **render.run_json(result, unsettled=services.runs.unsettled(result.id)),
                "cost": told,
                "records": [render.record_json(record, RunKind.PLAN) for record in records],
            }
        )
    else:
        render.print_records(out, records, RunKind.PLAN, labels)
        render.print_run(
            out,
            result,
            timezone=services.config.timezone,
            unsettled=services.runs.unsettled(result.id),
        )
        if file is not None and plans_something:
            out.print(
                f"\nNext: crm-sync apply {escape(str(file))} writes exactly this, within "
                f"{render.counted(plan_file.EXPIRES_AFTER.days, 'day')}."
            )
        elif result.counts.updated:
            out.print(f"\nNext: crm-sync run {escape(sync)} --limit {limit} writes these.")
    click.get_current_context().exit(render.exit_code([result]))


@click.command()
@click.argument("syncs", nargs=-1)
@click.option("--all", "every", is_flag=True, help="Every sync of the configuration, in its order.")
@click.option("--limit", type=click.IntRange(min=1), help="At most so many records of each sync.")
@click.option("--max-credits", type=_CREDITS, help="Stop before this run may have spent more; beside `budget:`.")
@click.option("--free", is_flag=True, help="Stored answers only: Apollo is asked nothing.")
@click.option("--queue", is_flag=True, help="Not here: the next crm-sync serve or worker that is free runs it.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object, or a list of them for several syncs.")
@click.pass_obj
def run(
    app: App,
    syncs: tuple[str, ...],
    every: bool,
    limit: int | None,
    max_credits: Decimal | None,
    free: bool,
    queue: bool,
    as_json: bool,
) -> None:
    """Run SYNCS now, in the foreground, or --queue them.

    Ctrl-C stops within one batch: calls that are paid for are finished and written.
    """
    services = app.services()
    chosen = _chosen(services, syncs, every=every)
    if queue:
        asked = Asked(limit=limit, max_credits=max_credits, free=free)
        _queue(chosen, services, asked, one=len(chosen) == 1 and not every, as_json=as_json)
        return
    out = render.console()
    results: list[SyncRun] = []
    spending = Spending(max_credits=max_credits, free=free)
    for sync in chosen:
        result = walk_sync(
            sync, services, kind=RunKind.RUN, limit=limit, spending=spending, out=None if as_json else out
        )
        results.append(result)
        if not as_json:
            render.print_run(
                out,
                result,
                timezone=services.config.timezone,
                unsettled=services.runs.unsettled(result.id),
            )
            render.print_reasons(out, services.runs.reasons(result.id))
            for sentence in _next_steps(
                result, sync, limit, unmapped=_unmapped(services, sync), proposals=services.reviews.count(sync.name)
            ):
                out.print(escape(sentence), soft_wrap=True)
            out.print()
        if result.status is RunStatus.CANCELLED:
            break
    if as_json:
        found = [render.run_json(result, unsettled=services.runs.unsettled(result.id)) for result in results]
        render.print_json(found[0] if len(chosen) == 1 and not every else found)
    purge_after_run(app, services.config)
    click.get_current_context().exit(render.exit_code(results))


def _queue(chosen: Sequence[Sync], services: Services, asked: Asked, *, one: bool, as_json: bool) -> None:
    queued = [queue_by_hand(sync, services, asked) for sync in chosen]
    if as_json:
        found = [render.run_json(each) for each in queued]
        render.print_json(found[0] if one else found)
        return
    for each in queued:
        click.echo(f"{each.id} ({each.sync}) is queued. `crm-sync show {each.id}` tells how it goes.")
    seen_at = services.schedules.seen_at()
    if seen_at is None or services.clock.now() - seen_at > timedelta(minutes=2):
        click.echo("Nothing seems to be running that takes it: start crm-sync serve, or worker.", err=True)


def _check_free(file: Path) -> None:
    """Before anything is paid for.

    Raises:
        ConfigError: the file cannot be made.
    """
    if file.exists():
        raise ConfigError(f"{file} is there already; name another file, or remove it")
    folder = file.absolute().parent
    if not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK):
        raise ConfigError(f"{file} cannot be written: {folder} is no folder that this user may write to")


def _keep(file: Path, content: bytes) -> None:
    """Readable by its owner alone: it holds people's data."""
    try:
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as kept:
            kept.write(content)
    except OSError as error:
        raise ConfigError(f"{file} cannot be written: {error.strerror}") from None


def _chosen(services: Services, names: tuple[str, ...], *, every: bool) -> list[Sync]:
    syncs = services.config.syncs
    if every and names:
        raise click.UsageError("Name syncs or say --all, not both.")
    if not every and not names:
        raise click.UsageError(f"Name a sync ({', '.join(syncs)}) or say --all.")
    unknown = [name for name in names if name not in syncs]
    if unknown:
        raise no_such_sync(unknown[0], syncs, services.config_version)
    return list(syncs.values()) if every else [syncs[name] for name in dict.fromkeys(names)]


def _unmapped(services: Services, sync: Sync) -> int:
    """How many of Apollo's values have no CRM value yet, in the sync's picklists as they are now."""
    seen = services.runs.unmapped(sync.name)
    if not seen:
        return 0

    def describe(crm: str, object_type: str) -> ObjectSchema:
        return services.crm(crm).describe(object_type)

    return len(waiting(places([sync], services.config, describe), seen))


def _next_steps(run: SyncRun, sync: Sync, limit: int | None, *, unmapped: int, proposals: int) -> Iterator[str]:
    seen = run.left_out.get(LEFT_OUT_SEEN_MORE)
    more = run.left_out.get(LEFT_OUT_MORE) or seen
    if more and run.status in (RunStatus.COMPLETED, RunStatus.COMPLETED_WITH_ERRORS):
        most = sync.choose.at_most
        bound = f"--limit {limit}" if most is None or (limit is not None and limit <= most) else f"at_most: {most}"
        number = f"{'At least ' if seen else ''}{render.counted(more, 'more record')}"
        yield f"{number} {'is' if more == 1 else 'are'} due, beyond {bound}; to go on: crm-sync run {sync.name}"
    if run.counts.in_doubt:
        yield "What is in doubt may have been charged: crm-sync doubt list"
    is_refused = run.counts.rejected > 0 or FIELDS_REFUSED in run.reason
    if is_refused or run.counts.invalid:
        yield f"The records that need a look: crm-sync show {run.id}"
    if is_refused:
        yield f"Once what the CRM refused is mended: crm-sync retry {run.id}"
    if unmapped:
        yield f"{render.counted(unmapped, 'value')} of Apollo's without a CRM value yet: crm-sync picklists {sync.name}"
    if run.status is RunStatus.WAITING_FOR_PHONES:
        yield "Apollo delivers the numbers later, to crm-sync serve: crm-sync phones shows what is awaited"
    if proposals:
        verb = "waits" if proposals == 1 else "wait"
        yield f"{render.counted(proposals, 'proposal')} {verb} for a person: crm-sync review"


def _cost_words(cost: walk.Estimate, sync: Sync, *, free: bool) -> str:
    """What a plan takes, before it is taken."""
    kind = "company" if sync.is_company else "person"
    parts = [f"{cost.due:,} due {'record' if cost.due == 1 else 'records'} looked at"]
    if cost.served:
        parts.append(f"{cost.served:,} with a stored answer, free of charge")
    if cost.weak:
        parts.append(f"{cost.weak:,} that nothing identifies")
    if not cost.asked:
        return f"{', '.join(parts)}. Apollo is asked nothing, so it costs nothing."
    if free:
        return f"{', '.join(parts)}. {cost.asked:,} are not asked for (--free)."
    calls = f"{cost.calls:,} call{'' if cost.calls == 1 else 's'}"
    return (
        f"{', '.join(parts)}. The plan asks Apollo for {cost.asked:,} in {calls}: from 0 to "
        f"{render.credit_words(cost.most)}, one a {kind} that it finds. The run after it does not pay for them again."
    )


def _ask_to_spend(most: Decimal) -> None:
    if not sys.stdin.isatty():
        raise click.UsageError(
            f"This plan may spend {render.credit_words(most)}, more than {_ASK_ABOVE}: say --yes, or --free for what "
            "stored answers tell, or a smaller --limit."
        )
    click.confirm(f"Spend up to {render.credit_words(most)}?", abort=True)


def walk_sync(
    sync: Sync,
    services: Services,
    *,
    kind: RunKind,
    limit: int | None,
    spending: Spending,
    out: Console | None,
    met: Callable[[Due], None] | None = None,
    only: tuple[str, ...] = (),
    trigger: str = "cli",
) -> SyncRun:
    """The sync's walk in the foreground, watched on `out`; Ctrl-C stops it gently."""
    stop = Stop()
    with cancel_on_signal(stop), _rare_collections(), _watching(out, sync.name) as watch:
        return walk.run_sync(
            sync,
            services,
            kind=kind,
            trigger=trigger,
            limit=limit,
            spending=spending,
            only=only,
            stop=stop,
            watch=watch,
            met=met,
        )


def write_stored(sync: Sync, services: Services, ids: tuple[str, ...], *, trigger: str, as_json: bool) -> SyncRun:
    """Walk these records of a sync by their stored answers, at no credit; tells of it unless `as_json`."""
    out = render.console()
    result = walk_sync(
        sync,
        services,
        kind=RunKind.RUN,
        limit=None,
        spending=Spending(free=True),
        out=None if as_json else out,
        only=ids,
        trigger=trigger,
    )
    if not as_json:
        render.print_run(out, result, timezone=services.config.timezone)
        render.print_reasons(out, services.runs.reasons(result.id))
    return result


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
def cancel_on_signal(stop: Stop) -> Iterator[None]:
    """The first Ctrl-C or SIGTERM stops gently; a second Ctrl-C is Python's own."""

    def cancel(number: int, _frame: FrameType | None) -> None:
        stop.raise_("cancelled by " + ("Ctrl-C" if number == signal.SIGINT else signal.Signals(number).name))
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
            yield _bar(progress, task, name)
    else:
        yield _lines(out, name)


def _bar(progress: Progress, task: TaskID, name: str) -> Callable[[walk.Progress], None]:
    started = time.monotonic()

    def watch(now: walk.Progress) -> None:
        rate = now.done / max(time.monotonic() - started, 0.001)
        progress.update(
            task,
            description=f"{name}: {_waits(now.waiting_until)}" if now.waiting_until else name,
            completed=now.done,
            total=max(now.expected, now.done) if now.expected is not None else None,
            rate=f"{rate:,.0f}/s",
            credits=render.credit_words(now.credits),
        )

    return watch


def _waits(until: datetime) -> str:
    return f"waiting until {until:%H:%M:%S} UTC, as Apollo asks (too many calls)"


def _lines(out: Console, name: str) -> Callable[[walk.Progress], None]:
    started = last = time.monotonic()
    told: datetime | None = None

    def watch(now: walk.Progress) -> None:
        nonlocal last, told
        moment = time.monotonic()
        if now.waiting_until is not None and (told is None or now.waiting_until > told + _ABOUT_THE_SAME):
            told = now.waiting_until
            out.print(f"{name}: {_waits(told)}")
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
