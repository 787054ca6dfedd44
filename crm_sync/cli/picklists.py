"""picklists: Apollo's values that nobody has mapped, and one command that maps them."""

from __future__ import annotations

import difflib
import os
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

import click
from rich.markup import escape

from crm_sync.bootstrap import App
from crm_sync.cli import Subcommands, render
from crm_sync.config.loader import Loaded
from crm_sync.config.model import Config, Sync
from crm_sync.config.problems import did_you_mean
from crm_sync.config.unmapped import Edited, Place, Waiting, Wish, edited, named, pair, places, waiting
from crm_sync.domain.records import ObjectSchema
from crm_sync.errors import ConfigError
from crm_sync.mapping.suggest import NEAR, sure


class _Listed(Subcommands):
    """What is no verb of its own belongs to `list`: `picklists`, `picklists contacts`, `picklists --json`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if not args or (args[0] not in self.commands and args[0] not in ctx.help_option_names):
            args = ["list", *args]
        return super().parse_args(ctx, args)


@click.group(cls=_Listed)
def picklists() -> None:
    """Apollo's values that runs have met and that have no CRM value yet.

    `crm-sync picklists [SYNC]` lists them with what they may mean; `map` writes them into the configuration file.
    """


@picklists.command("list")
@click.argument("sync_name", metavar="[SYNC]", required=False)
@click.option("--field", "name", default="", help="Only this CRM field; account.FIELD is the company's.")
@click.option("--json", "as_json", is_flag=True, help="A JSON list.")
@click.pass_obj
def list_(app: App, sync_name: str | None, name: str, as_json: bool) -> None:
    """List them, the most frequent first, each with the CRM values it may mean. Costs no credit."""
    config = app.load_file().require()
    syncs = [_sync(app, config, sync_name)] if sync_name else list(config.syncs.values())
    found = _places(app, config, syncs)
    if name:
        wanted = [place for place in found if name in (place.name, place.mapping.field)]
        if not wanted:
            raise ConfigError(f"There is no picklist {name}; those that are filled: {_names(found)}")
        found = tuple(wanted)
    rows = waiting(found, app.runs.unmapped(sync_name))
    if as_json:
        render.print_json([_row(row) for row in rows])
        return
    _print(rows)


@picklists.command("map")
@click.argument("sync_name", metavar="SYNC")
@click.argument("name", metavar="[FIELD]", required=False)
@click.argument("pairs", metavar="[APOLLO=CRM]...", nargs=-1)
@click.option("--suggested", is_flag=True, help="Take the suggestions that are sure enough.")
@click.option(
    "--at-least",
    type=click.IntRange(60, 100),
    default=NEAR,
    show_default=True,
    help="How sure a suggestion must be, in percent.",
)
@click.option("--apply", "then_apply", is_flag=True, help="Make the file the next configuration version afterwards.")
@click.option("--dry-run", is_flag=True, help="Only show what would be written.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.pass_context
def map_(
    ctx: click.Context,
    sync_name: str,
    name: str | None,
    pairs: tuple[str, ...],
    suggested: bool,
    at_least: int,
    then_apply: bool,
    dry_run: bool,
    yes: bool,
) -> None:
    """Write CRM values for Apollo's into the configuration file, or into the field's CSV file.

    By hand, `map contacts Level__c "c_suite=Executive" "vp=VP"`; or all that are sure, `map contacts --suggested`.
    Comments and layout stay as they are. Where a field has a ready table (builtin:), the values are written beside it.
    """
    if bool(pairs) is suggested:
        raise click.UsageError('Say which: FIELD with one or more "Apollo value=CRM value", or --suggested.')
    app: App = ctx.obj
    loaded = app.load_file()
    config = loaded.require()
    sync = _sync(app, config, sync_name)
    found = _places(app, config, [sync])
    if name is not None:
        found = (named(found, name, sync),)
    if suggested:
        wishes = _sure(waiting(found, app.runs.unmapped(sync_name)), at_least)
    else:
        wishes = _typed(pairs, found[0])
    result = edited(loaded, wishes)
    _report(app, loaded, result)
    if result.files and not dry_run:
        count = render.counted(len(result.mapped), "value")
        if suggested and not yes and not click.confirm(f"Write {count} into {_files(app, result)}?"):
            return
        _write(app, loaded, result)
        click.echo(f"{count} mapped in {_files(app, result)}.")
    if dry_run:
        return
    if then_apply:
        from crm_sync.cli.config import apply

        ctx.invoke(apply, note=f"picklist values of {sync_name}", offline=False, dry_run=False)
    elif result.files:
        click.echo("Next: crm-sync config apply. The next run writes them from stored answers, at no credit.")


# --- what there is ----------------------------------------------------------------------------------------------------


def _sync(app: App, config: Config, name: str) -> Sync:
    sync = config.syncs.get(name)
    if sync is None:
        raise ConfigError(f"{app.config_file} has no sync {name}. {did_you_mean(name, config.syncs)}".strip())
    return sync


def _places(app: App, config: Config, syncs: Sequence[Sync]) -> tuple[Place, ...]:
    crms = {sync.crm: config.crms[sync.crm].type for sync in syncs}
    app.require_settings(list(crms.items()), apollo=False)

    def describe(crm: str, object_type: str) -> ObjectSchema:
        return app.crm(crm, crms[crm]).describe(object_type)

    return places(syncs, config, describe)


def _names(found: Iterable[Place]) -> str:
    return ", ".join(dict.fromkeys(place.name for place in found)) or "none"


def _row(row: Waiting) -> dict[str, object]:
    place = row.place
    return {
        "sync": place.sync,
        "object": place.object_type,
        "field": place.name,
        "value": row.value,
        "seen": row.seen,
        "suggestions": [suggestion._asdict() for suggestion in place.suggest(row.value)],
    }


def _print(rows: Sequence[Waiting]) -> None:
    out = render.console()
    if not rows:
        out.print("No value of Apollo's waits for a CRM value.")
        return
    columns = (
        render.Column(title="Sync", keep=1),
        render.Column(title="Field"),
        render.Column(title="Apollo value"),
        render.Column(title="Seen", right=True),
        render.Column(title="May mean"),
    )
    cells = []
    ready: dict[str, int] = {}
    for row in rows:
        suggestions = row.place.suggest(row.value)
        if sure(suggestions, NEAR) is not None:
            ready[row.place.sync] = ready.get(row.place.sync, 0) + 1
        said = ", ".join(f"{escape(render.shown(one.label))} ({one.score} %)" for one in suggestions)
        cells.append((row.place.sync, row.place.name, escape(render.shown(row.value)), f"{row.seen:,}", said or "—"))
    render.print_table(out, columns, cells)
    out.print()
    for sync, count in ready.items():
        many = render.counted(count, "value")
        out.print(f"{many} of {sync} can be mapped at once: crm-sync picklists map {sync} --suggested", soft_wrap=True)
    place, value = rows[0].place, escape(render.shown(rows[0].value))
    out.print(f'By hand: crm-sync picklists map {place.sync} {place.name} "{value}=CRM value"', soft_wrap=True)


# --- mapping ----------------------------------------------------------------------------------------------------------


def _typed(pairs: Iterable[str], place: Place) -> list[Wish]:
    wishes, problems = [], []
    for text in pairs:
        try:
            wishes.append(pair(text, place))
        except ConfigError as error:
            problems.append(str(error))
    if problems:
        raise ConfigError("\n".join(problems))
    return wishes


def _sure(rows: Sequence[Waiting], at_least: int) -> list[Wish]:
    """The wishes; how many values stay without is said, since nobody sees them otherwise."""
    wishes = []
    for row in rows:
        suggestion = sure(row.place.suggest(row.value), at_least)
        if suggestion is not None:
            wishes.append(Wish(place=row.place, apollo=row.value, crm_value=suggestion.value))
    left = len(rows) - len(wishes)
    if not rows:
        click.echo("No value of Apollo's waits for a CRM value.")
    elif left:
        values = render.counted(left, "value")
        click.echo(f"{values} without a suggestion of {at_least} % or more: crm-sync picklists lists them.")
    return wishes


def _report(app: App, before: Loaded, result: Edited) -> None:
    out = render.console()
    for wish in result.already:
        out.print(escape(f"{wish.apollo} = {wish.crm_value} stands there already."))
    for name, content in result.files.items():
        path = _path(app, name)
        lines = difflib.unified_diff(
            _lines(before.require().files[name] if name else before.document.text),
            _lines(content),
            str(path),
            f"{path} with {render.counted(len(result.mapped), 'new value')}",
            lineterm="",
        )
        for line in lines:
            style = "green" if line.startswith("+") else "red" if line.startswith("-") else None
            out.print(escape(line), style=style, soft_wrap=True)
    known = {problem.message for problem in before.problems}
    for problem in result.loaded.problems:
        if problem.message not in known:
            out.print(escape(str(problem)), style="yellow", soft_wrap=True)


def _lines(content: bytes) -> list[str]:
    return content.decode(errors="replace").splitlines()


def _path(app: App, name: str) -> Path:
    return app.config_file.parent / name if name else app.config_file


def _files(app: App, result: Edited) -> str:
    return " and ".join(str(_path(app, name)) for name in result.files)


def _write(app: App, before: Loaded, result: Edited) -> None:
    """Each file whole or not at all, and none when one of them is no longer what was read.

    Raises:
        ConfigError: a file has changed meanwhile, or cannot be written.
    """
    was = {name: before.require().files[name] if name else before.document.text for name in result.files}
    try:
        for name, content in was.items():
            if _path(app, name).read_bytes() != content:
                raise ConfigError(f"{_path(app, name)} was changed meanwhile; nothing was written. Try again.")
        # The tables first: the configuration that names one must not be there without it.
        for name in sorted(result.files, reverse=True):
            _replace(_path(app, name), result.files[name])
    except OSError as error:
        raise ConfigError(f"{error.filename or app.config_file} cannot be written: {error.strerror}") from error


def _replace(path: Path, content: bytes) -> None:
    target = path.resolve()  # a link stays one
    descriptor, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}-")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
            os.fchmod(file.fileno(), target.stat().st_mode & 0o7777)
        Path(name).replace(target)
    except OSError:
        Path(name).unlink(missing_ok=True)
        raise
