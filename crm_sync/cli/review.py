"""review: what waits for a person."""

from __future__ import annotations

import getpass
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any

import click
from rich.markup import escape

from crm_sync import crash
from crm_sync.bootstrap import App
from crm_sync.cli import Subcommands, render
from crm_sync.cli.changes import ask, print_amended
from crm_sync.cli.run import cancel_on_signal, write_stored
from crm_sync.domain.records import Value
from crm_sync.domain.runs import RunStatus, SyncRun
from crm_sync.errors import ConfigError
from crm_sync.pipeline import reviewing
from crm_sync.pipeline.amend import amend
from crm_sync.pipeline.walk import Stop
from crm_sync.services import Services
from crm_sync.store.reviews import ACCEPTED, FIELD, JOB_CHANGE, MATCH, OPEN, REFUSED, Review

_KINDS = {FIELD: "field", MATCH: "right person?", JOB_CHANGE: "new employer"}
_NUMBERS = "Numbers from `crm-sync review`, or --all with --sync, --kind or --field."


@click.group(cls=Subcommands, invoke_without_command=True)
@click.pass_context
def review(ctx: click.Context) -> None:
    """What waits for a person: fields with the rule `review`, doubtful answers, new employers."""
    if ctx.invoked_subcommand is None:
        ctx.invoke(listed)


def _filters(command: Callable[..., None]) -> Callable[..., None]:
    command = click.option("--sync", default="", help="Only of this sync.")(command)
    command = click.option("--kind", type=click.Choice(list(_KINDS)), help="Only of this kind.")(command)
    return click.option("--field", default="", help="Only this CRM field.")(command)


@review.command("list")
@_filters
@click.option("--state", type=click.Choice([OPEN, ACCEPTED, REFUSED]), default=OPEN, show_default=True)
@click.option("--limit", type=click.IntRange(min=1), default=50, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="A JSON list.")
@click.pass_obj
def listed(
    app: App, sync: str = "", kind: str = "", field: str = "", state: str = OPEN, limit: int = 50, as_json: bool = False
) -> None:
    """The list, oldest first."""
    services = app.services()
    found = services.reviews.listed(state=state, sync=sync, kind=kind or "", field=field, limit=limit)
    shown = {
        number: (decision.old, decision.new) for number, decision in reviewing.proposed(found, services).items()
    } | reviewing.whom((each for each in found if each.kind != FIELD), services)
    if as_json:
        render.print_json([_json(each, *shown.get(each.id, (None, None))) for each in found])
        return
    out = render.console()
    if not found:
        out.print("Nothing waits for a person." if state == OPEN else f"Nothing was {state}.")
        return
    render.print_table(out, _COLUMNS, [_row(each, *shown.get(each.id, (None, None))) for each in found])
    total = services.reviews.count() if state == OPEN else len(found)
    if total > len(found):
        out.print(f"{total:,} in all; --limit shows more", style="dim")
    if state == OPEN:
        out.print(
            "\nNext: crm-sync review accept NUMBER … or crm-sync review refuse NUMBER …; crm-sync explain RECORD "
            "tells more."
        )


_COLUMNS = (
    render.Column(title="No.", right=True),
    render.Column(title="Record"),
    render.Column(title="What"),
    render.Column(title="Now"),
    render.Column(title="Proposed"),
    render.Column(title="Why", keep=2),
    render.Column(title="Sync", keep=1),
    render.Column(title="Since", keep=3),
)


def _row(each: Review, now: Value, proposed: Value) -> tuple[str, ...]:
    return (
        str(each.id),
        f"{each.object_type} {each.record_id}",
        escape(each.field) or _KINDS[each.kind],
        escape(render.shown(now)) or "—",
        escape(render.shown(proposed)),
        escape(each.reason),
        escape(each.sync),
        f"{each.created_at:%Y-%m-%d}",
    )


def _json(each: Review, now: Value, proposed: Value) -> dict[str, Any]:
    return {
        "number": each.id,
        "sync": each.sync,
        "crm": each.crm,
        "object": each.object_type,
        "id": each.record_id,
        "kind": each.kind,
        "field": each.field,
        "now": now,
        "proposed": proposed,
        "reason": each.reason,
        "run": each.run_id,
        "state": each.state,
        "since": each.created_at,
    }


@review.command()
@click.argument("numbers", type=int, nargs=-1)
@click.option("--all", "every", is_flag=True, help="All that are open, as far as the filters say.")
@_filters
@click.option("--dry-run", is_flag=True, help="Show what would be written; write nothing.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--json", "as_json", is_flag=True, help="A JSON list of the runs that wrote them.")
@click.pass_obj
def accept(
    app: App,
    numbers: tuple[int, ...],
    every: bool,
    sync: str,
    kind: str | None,
    field: str,
    dry_run: bool,
    yes: bool,
    as_json: bool,
) -> None:
    """Write what is proposed, at no credit.

    A field is written only if it still holds what was shown; else it stays open. Of a whole record (right person?, new
    employer) the stored answer is written by the rules of its fields.
    """
    services = app.services()
    chosen = _chosen(services, numbers, every=every, sync=sync, kind=kind, field=field)
    if not yes and not dry_run:
        ask(f"Accept {render.counted(len(chosen), 'proposal')}?", dry_run=True)
    results: list[SyncRun] = []
    fields = [each for each in chosen if each.kind == FIELD]
    phones = {each.id for each in fields if reviewing.is_phone(each, services)}
    # Numbers apart: who is marked as do not call gets none, and everything else.
    for of_sync in (
        *_by_sync(each for each in fields if each.id not in phones),
        *_by_sync(each for each in fields if each.id in phones),
    ):
        amending = reviewing.accepting(of_sync, services, by=getpass.getuser())
        kept = sum(len(one.amendments) for each in amending.candidates.values() for one in each)
        if kept < len(of_sync) and amending.candidates:
            click.echo(
                f"Of {len(of_sync) - kept} it is not kept any more what was proposed: left open; the next run proposes "
                "it again if it still differs.",
                err=True,
            )
        if not amending.candidates:
            raise ConfigError(
                "What was proposed is not kept any more; the next run proposes it again if it still differs"
            )
        stop = Stop()
        with cancel_on_signal(stop):
            result = amend(amending, services, dry_run=dry_run, stop=stop)
        if not dry_run:
            crash.point("review.written")
            done = reviewing.written(result, of_sync, services)
            services.reviews.resolve(done, ACCEPTED, by=getpass.getuser(), now=services.clock.now())
            accepted = [each for each in of_sync if each.id in done]
            reviewing.tell_waits(accepted, ACCEPTED, services, by=getpass.getuser(), run_id=result.id)
        if not as_json:
            print_amended(services, result, as_json=False, dry_run=dry_run)
        results.append(result)
        if result.status is RunStatus.CANCELLED:
            break
    for of_sync in _by_sync(each for each in chosen if each.kind != FIELD):
        if any(result.status is RunStatus.CANCELLED for result in results):
            break
        if not dry_run:
            results.append(_write_records(services, of_sync, as_json=as_json))
        elif not as_json:
            numbered = ", ".join(str(each.id) for each in of_sync)
            click.echo(
                f"{numbered}: of a whole record the answer is written by the rules of its fields; "
                f"crm-sync explain {of_sync[0].record_id} shows whom Apollo found."
            )
    if as_json:
        render.print_json([render.run_json(result) for result in results])
    click.get_current_context().exit(0 if dry_run else render.exit_code(results))


def _write_records(services: Services, of_sync: Sequence[Review], *, as_json: bool) -> SyncRun:
    sync = services.config.syncs.get(of_sync[0].sync)
    if sync is None:
        raise ConfigError(
            f"The configuration has no sync {of_sync[0].sync} any more: refuse its reviews, or bring it back"
        )
    reviewing.believe(of_sync, services, by=getpass.getuser())
    crash.point("review.accepted")
    ids = tuple(each.record_id for each in of_sync)
    return write_stored(sync, services, ids, trigger=f"{reviewing.ACCEPTED_BY}{getpass.getuser()}", as_json=as_json)


@review.command()
@click.argument("numbers", type=int, nargs=-1)
@click.option("--all", "every", is_flag=True, help="All that are open, as far as the filters say.")
@_filters
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.pass_obj
def refuse(app: App, numbers: tuple[int, ...], every: bool, sync: str, kind: str | None, field: str, yes: bool) -> None:
    """Leave it as it is. The same value, or the same person, is not proposed again."""
    services = app.services()
    chosen = _chosen(services, numbers, every=every, sync=sync, kind=kind, field=field)
    if not yes:
        ask(f"Refuse {render.counted(len(chosen), 'proposal')}?")
    count = services.reviews.resolve(
        [each.id for each in chosen], REFUSED, by=getpass.getuser(), now=services.clock.now()
    )
    reviewing.tell_waits(chosen, REFUSED, services, by=getpass.getuser())
    click.echo(f"Refused {render.counted(count, 'proposal')}.")


def _chosen(
    services: Services, numbers: Collection[int], *, every: bool, sync: str, kind: str | None, field: str
) -> list[Review]:
    """
    Raises:
        ConfigError: a number is unknown or has its end, or nothing is open.
    """
    if every == bool(numbers):
        raise click.UsageError(f"Give numbers or --all, not both. {_NUMBERS}")
    if every:
        found = services.reviews.listed(sync=sync, kind=kind or "", field=field)
        if not found:
            raise ConfigError("Nothing of that waits for a person")
        return found
    known = services.reviews.get(numbers)
    for number in numbers:
        if number not in known:
            raise ConfigError(f"There is no proposal {number}; crm-sync review lists them")
        if known[number].state != OPEN:
            raise ConfigError(f"Proposal {number} was {known[number].state} by {known[number].resolved_by} already")
    return [known[number] for number in dict.fromkeys(numbers)]


def _by_sync(reviews: Iterable[Review]) -> list[list[Review]]:
    found: dict[str, list[Review]] = {}
    for each in reviews:
        found.setdefault(each.sync, []).append(each)
    return list(found.values())
