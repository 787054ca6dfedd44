"""config check, apply, show, history, diff, rollback."""

from __future__ import annotations

import difflib
import getpass
import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import click
from rich import box
from rich.markup import escape
from rich.table import Table

from crm_sync.bootstrap import App
from crm_sync.cli import EXIT_USAGE, Subcommands, lists, render
from crm_sync.config.loader import Loaded, kept, load
from crm_sync.config.model import Config
from crm_sync.config.problems import Problem, Severity
from crm_sync.errors import ConfigError
from crm_sync.ports import Crm
from crm_sync.store.config_versions import ConfigVersion

if TYPE_CHECKING:
    from crm_sync.config.unmapped import Place

_STYLE = {Severity.ERROR: "red", Severity.WARNING: "yellow", Severity.NOTE: "dim"}


@click.group("config", cls=Subcommands)
def config_group() -> None:
    """Check and apply crm_sync.yaml; its versions.

    What is applied becomes a numbered version in the database; plans and runs use the newest one.
    """


@config_group.command()
@click.option("--offline", is_flag=True, help="Without the CRMs' live schemas.")
@click.option("--json", "as_json", is_flag=True, help="A JSON list of findings.")
@click.pass_obj
def check(app: App, offline: bool, as_json: bool) -> None:
    """Check the file against itself and against the live schema of every CRM it names. Costs no credit."""
    loaded = app.load_file()
    findings = [*loaded.problems, *_lists(app, loaded)[1], *_against_crms(app, loaded, offline=offline)]
    _report(findings, as_json=as_json)
    if not as_json and not _errors(findings):
        said = "" if offline else f" against {', '.join(loaded.require().crms)}"
        click.echo(f"{app.config_file}: no errors{said}. `crm-sync config apply` makes it the configuration.")
    click.get_current_context().exit(EXIT_USAGE if _errors(findings) else 0)


@config_group.command()
@click.option("--note", default="", help="A word on why, kept with the version.")
@click.option("--offline", is_flag=True, help="Do not check against the CRMs' live schemas.")
@click.option("--dry-run", is_flag=True, help="Only say what would happen.")
@click.pass_obj
def apply(app: App, note: str, offline: bool, dry_run: bool) -> None:
    """Check the file and make it the next configuration version."""
    loaded = app.load_file()
    listed, problems = _lists(app, loaded)
    findings = [*loaded.problems, *problems, *_against_crms(app, loaded, offline=offline)]
    _report(findings, as_json=False)
    if _errors(findings):
        raise ConfigError(f"{app.config_file} was not applied: mend the errors above first")
    config = loaded.require()
    newest = app.versions.latest()
    is_new = newest is None or newest.text != config.text or newest.files != config.files
    if dry_run:
        for name, each in listed.items():
            click.echo(f"{name}: {lists.counted(each)}.")
        number = (newest.number if newest else 0) + is_new
        click.echo(f"{app.config_file} {'would become' if is_new else 'is'} configuration version {number}.")
        return
    # Lists first: between the two commits nobody who is to be left alone may be looked up.
    _echo(lists.import_lists(app, listed))
    if is_new:
        version = app.versions.add(config.text, config.files, author=author(), note=note, now=app.clock.now())
        click.echo(f"{app.config_file} is configuration version {version.number} now: {', '.join(config.syncs)}.")
    elif newest is not None:
        click.echo(f"{app.config_file} is configuration version {newest.number} already.")
    _echo(lists.forget_others(app, config))
    click.echo(f"Next: crm-sync plan {next(iter(config.syncs))}")


@config_group.command()
@click.argument("number", type=int, required=False)
@click.pass_obj
def show(app: App, number: int | None) -> None:
    """Print a version byte for byte; without NUMBER the newest."""
    sys.stdout.buffer.write(_version(app, number).text)


@config_group.command()
@click.option("--json", "as_json", is_flag=True, help="A JSON list.")
@click.pass_obj
def history(app: App, as_json: bool) -> None:
    """All versions, newest first."""
    versions = app.versions.history()
    if as_json:
        names = ("number", "created_at", "author", "note", "digest")
        render.print_json([{name: getattr(version, name) for name in names} for version in versions])
        return
    if not versions:
        click.echo("No configuration has been applied yet: crm-sync config apply")
        return
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("Version", "Applied", "By", "Note"):
        table.add_column(name)
    for version in versions:
        applied = render.local(version.created_at, "UTC")
        table.add_row(str(version.number), applied, escape(version.author), escape(version.note))
    render.console().print(table)


@config_group.command()
@click.argument("old", type=int, required=False)
@click.argument("new", type=int, required=False)
@click.pass_obj
def diff(app: App, old: int | None, new: int | None) -> None:
    """What changed from version OLD to NEW; without NEW the file, without both the newest version and the file."""
    before = _version(app, old)
    if new is not None:
        after_text, after_name = _version(app, new).text, f"version {new}"
    else:
        after_text, after_name = app.load_file().document.text, str(app.config_file)
    lines = difflib.unified_diff(
        before.text.decode(errors="replace").splitlines(),
        after_text.decode(errors="replace").splitlines(),
        f"version {before.number}",
        after_name,
        lineterm="",
    )
    out = render.console()
    empty = True
    for line in lines:
        empty = False
        style = "green" if line.startswith("+") else "red" if line.startswith("-") else None
        out.print(escape(line), style=style, soft_wrap=True)
    if empty:
        out.print("No difference.")


@config_group.command()
@click.argument("number", type=int)
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--dry-run", is_flag=True, help="Only say what would happen.")
@click.pass_obj
def rollback(app: App, number: int, yes: bool, dry_run: bool) -> None:
    """Make version NUMBER the newest again, as a new version; nothing is erased."""
    version = _version(app, number)
    loaded = load(version.text, file=f"version {number}", read_file=kept(version.files))
    config = loaded.require()
    newest = _version(app, None)
    if newest.digest == version.digest:
        click.echo(f"Version {newest.number} already has that text.")
        return
    click.echo(f"Version {number} becomes version {newest.number + 1}; its syncs: {', '.join(config.syncs)}.")
    if dry_run or not (yes or click.confirm("Go on?")):
        return
    _echo(lists.keep_or_import(app, config))
    made = app.versions.add(
        version.text, version.files, author=author(), note=f"back to version {number}", now=app.clock.now()
    )
    click.echo(f"Configuration version {made.number} is in force.")
    _echo(lists.forget_others(app, config))


def _version(app: App, number: int | None) -> ConfigVersion:
    version = app.versions.latest() if number is None else app.versions.get(number)
    if version is None:
        raise ConfigError(
            f"There is no configuration version {number}: crm-sync config history lists them"
            if number is not None
            else "No configuration has been applied yet: crm-sync config apply"
        )
    return version


def _lists(app: App, loaded: Loaded) -> tuple[lists.Lists, list[Problem]]:
    return lists.read_lists(app, loaded.config, loaded.document) if loaded.config is not None else ({}, [])


def _echo(sentences: Iterable[str]) -> None:
    for sentence in sentences:
        click.echo(sentence)


def _against_crms(app: App, loaded: Loaded, *, offline: bool) -> Sequence[Problem]:
    if offline or loaded.config is None:
        return ()
    from crm_sync.config.check import check as check_live

    config = loaded.config
    crms = [(crm.name, crm.type) for crm in config.crms.values()]
    app.require_settings(crms, apollo=False)
    clients = {name: app.crm(name, kind) for name, kind in crms}
    return check_live(
        config,
        clients,
        unmapped=_still_unmapped(app, config, clients),
        urls={name: app.crm_settings(name, kind).url for name, kind in crms},
        no_callbacks=_no_callbacks(app, config),
        file=str(app.config_file),
    )


def _no_callbacks(app: App, config: Config) -> tuple[str, Severity] | None:
    """Where phones are to be ordered: why Apollo could not deliver them. An address that nobody answers at yet is no
    fault of the file: runs look again before they order."""
    if all(sync.phones is None for sync in config.syncs.values()):
        return None
    problem = app.callbacks.problem()
    if not problem:
        return None
    return problem, Severity.WARNING if app.settings.public_url else Severity.ERROR


def _still_unmapped(app: App, config: Config, crms: Mapping[str, Crm]) -> Counter[tuple[str, str]]:
    """How many of the values that runs have met would have no CRM value with this configuration either."""
    from crm_sync.config.unmapped import places, waiting

    met = app.runs.unmapped()
    syncs = {name: config.syncs[name] for name, *_ in met if name in config.syncs}
    found: list[Place] = []
    for sync in syncs.values():
        try:
            found += places([sync], config, lambda crm, object_type: crms[crm].describe(object_type))
        except ConfigError:
            continue  # an object that this user may not see is told by the check itself
    return Counter((each.place.sync, each.place.mapping.field) for each in waiting(found, met))


def _report(findings: Sequence[Problem], *, as_json: bool) -> None:
    if as_json:
        names = ("file", "line", "column", "path", "severity", "message", "suggestion")
        render.print_json([{name: getattr(finding, name) for name in names} for finding in findings])
        return
    out = render.console()
    for finding in findings:
        out.print(escape(str(finding)), style=_STYLE[finding.severity], soft_wrap=True)


def _errors(findings: Sequence[Problem]) -> list[Problem]:
    return [finding for finding in findings if finding.severity is Severity.ERROR]


def author() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "unknown"
