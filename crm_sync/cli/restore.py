"""backup, and restore: a backup put back, and a database that may have forgotten what was bought."""

from __future__ import annotations

import getpass
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.markup import escape

from crm_sync.bootstrap import App
from crm_sync.cli import EXIT_FAILED, Subcommands, render
from crm_sync.errors import BusyError, CrmSyncError
from crm_sync.pipeline import reconcile as act
from crm_sync.pipeline.restore import Status, in_words, look
from crm_sync.store.engine import SCHEMA_VERSION
from crm_sync.store.instance import Instance, StateFile
from crm_sync.store.runs import Runs
from crm_sync.store.vault import SETTING, key_path

_ACCEPTED = "buy again"
_FILE = click.Path(path_type=Path, dir_okay=False)
#: What one process at a time does for all (store/exclusive.py): whoever has one of these locks uses the database.
_WORK = ("phones", "scheduler")


@click.command()
@click.argument("file", type=_FILE)
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@click.pass_obj
def backup(app: App, file: Path, as_json: bool) -> None:
    """Copy the database into FILE, a new one, as it is at one moment. Runs may go on meanwhile.

    In it are people's data: FILE is readable by you alone. Not in it: CRM_SYNC_SECRET_KEY, without which the paid
    answers cannot be opened (keep it somewhere else), and the state file, which must never be restored with the
    database. PostgreSQL needs its pg_dump and pg_restore here.
    """
    from crm_sync.store import backups

    made = backups.back_up(app.unchecked_store, file, _erasures_path(app))
    beside = backups.erasures_beside(file)
    if as_json:
        render.print_json(
            {
                "file": str(file),
                "bytes": made.size,
                "schema": made.schema,
                "erasures_file": str(beside) if beside.exists() else None,
            }
        )
        return
    out = render.console()
    _print(out, f"{app.unchecked_store.shown_url} is in {file}: {made.size:,} bytes, schema {made.schema}, read back.")
    if beside.exists():
        _print(out, f"Who was erased is noted in {beside}: keep the two together.")
    _print(
        out,
        f"The key is not in it ({_where_the_key_is(app)}): keep that somewhere else. "
        f"Never restore the state file {app.state_path} with it.",
    )


def _erasures_path(app: App) -> Path:
    """Whatever the database is: one with an older schema is backed up, one that is damaged gets a backup put back."""
    return Instance(app.unchecked_store, StateFile(app.state_path)).erasures_path


def _where_the_key_is(app: App) -> str:
    return SETTING if app.settings.secret_key.get_secret_value() else str(key_path(app.unchecked_store))


@click.group(cls=Subcommands)
def restore() -> None:
    """Put a backup back (`from`); and what a database that was restored, moved or copied forgot.

    Such a database buys nothing: it would buy again what it has forgotten. `reconcile` reads the stamps on the CRM's
    records (`stamps` in crm_sync.yaml); `accept` goes on without knowing.
    """


@restore.command("from")
@click.argument("file", type=_FILE)
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.pass_obj
def put_back(app: App, file: Path, yes: bool) -> None:
    """Make the database what the backup in FILE holds. Stop everything that uses it first.

    The state file stays as it is: it tells that what was bought since the backup is forgotten, and spending is held
    until `restore reconcile` or `restore accept`. The SQLite file that is replaced is kept beside it.
    """
    from crm_sync.store import backups
    from crm_sync.store.exclusive import Exclusive

    store, out = app.unchecked_store, render.console()
    found = backups.read(file)
    backups.check(store, found)
    with ExitStack() as locks:
        for name in _WORK:
            if not locks.enter_context(Exclusive(store, name)).take():
                raise BusyError("crm-sync serve or worker uses the database: stop them first, and try again")
        under_way = _runs_under_way(app)
        if under_way:
            raise BusyError(f"Run {', '.join(under_way)} is under way: wait for it, or `crm-sync cancel` it first")
        _print(out, f"{file}: schema {found.schema}, {found.size:,} bytes.")
        _print(out, f"It takes the place of {store.shown_url}.")
        if not (yes or click.confirm("Put it back?")):
            click.get_current_context().exit(EXIT_FAILED)
        aside = backups.put_back(store, found, _erasures_path(app), now=app.clock.now())
    _print(
        out, "It is back." + (f" What was there is kept in {aside}; delete it in time." if aside is not None else "")
    )
    restored = App(env_file=app.env_file, config_file=app.config_file)
    try:
        if found.schema != SCHEMA_VERSION:
            _print(out, "Next: crm-sync migrate, then crm-sync restore status")
            return
        _say(out, look(restored.instance, now=app.clock.now()))
        _say_erasures(out, restored)
    finally:
        restored.close()


def _runs_under_way(app: App) -> list[str]:
    """None, as far as can be told, where the database that is to be replaced cannot be read."""
    from crm_sync.pipeline.recover import is_alive

    try:
        if app.unchecked_store.schema_version() != SCHEMA_VERSION:
            return []
        unfinished = Runs(app.unchecked_store).unfinished()
    except CrmSyncError:
        return []
    return [run.id for run, owner, alive_at in unfinished if is_alive(owner, alive_at, app.clock.now())]


@restore.command()
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@click.pass_obj
def status(app: App, as_json: bool) -> None:
    """Whether spending is held, why, and what could be bought twice. Costs no credit; exit code 1 when it is held."""
    found = look(app.instance, now=app.clock.now())
    worst = _worst(app) if found.hold is not None else None
    erasures = act.erasures_file(app.instance)
    if as_json:
        render.print_json(
            {
                "held": found.hold.sentence if found.hold is not None else "",
                "why": found.hold.why if found.hold is not None else "",
                "instance": found.database.id if found.database is not None else None,
                "epoch": found.database.epoch if found.database is not None else None,
                "known_until": found.known_until,
                "state_file": str(found.file_path),
                "state_file_epoch": found.file.epoch if found.file is not None else None,
                "credits_forgotten": worst.forgotten if worst is not None else None,
                "released_at": found.database.released_at if found.database is not None else None,
                "released_by": found.database.released_by if found.database is not None else "",
                "erasures_file": str(erasures) if erasures is not None else None,
            }
        )
    else:
        out = render.console()
        _say(out, found)
        if worst is not None:
            _print(out, worst.sentence)
        _say_erasures(out, app)
    click.get_current_context().exit(EXIT_FAILED if found.hold is not None else 0)


@restore.command()
@click.option("--dry-run", is_flag=True, help="Only count the stamped records.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@click.pass_obj
def reconcile(app: App, dry_run: bool, yes: bool, as_json: bool) -> None:
    """Read the stamps that are newer than this database, guard whom they name, and let it spend again.

    Whoever was bought is not asked for again while the answer would be fresh. Costs no credit.
    """
    services, out = app.services(), render.console()
    found = look(app.instance, now=app.clock.now())
    if found.hold is None or found.hold.here_only:
        _nothing_to_do(found, out, as_json=as_json)
        return
    counted = act.survey(services)
    if not as_json:
        _say(out, found)
        _table(out, counted)
    if dry_run or any(each.problem for each in counted):
        _end(app, counted, out, released=False, as_json=as_json, dry_run=dry_run)
        return
    if not (yes or click.confirm("Guard these, and let the database spend again?", err=as_json)):
        click.get_current_context().exit(EXIT_FAILED)
    seconds = act.search_lag(services)
    if seconds > 1 and not as_json:
        _print(out, f"Waiting {seconds:.0f} s: a CRM's search is that far behind what was written.")
    read = act.reconcile(services, by=_who())
    released = not any(each.problem for each in read)
    _end(app, read, out, released=released, as_json=as_json, dry_run=False)


@restore.command()
@click.option("--dry-run", is_flag=True, help="Only say what would happen.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.pass_obj
def accept(app: App, dry_run: bool, yes: bool) -> None:
    """Let the database spend again without knowing what was bought: it may be bought once more.

    Noted with your name and the time.
    """
    out = render.console()
    found = look(app.instance, now=app.clock.now())
    if found.hold is None:
        _nothing_to_do(found, out, as_json=False)
        return
    _say(out, found)
    if not found.hold.here_only:
        _print(out, _worst(app).sentence)
    if dry_run:
        return
    if not yes and click.prompt(f'Type "{_ACCEPTED}" to go on', default="", show_default=False) != _ACCEPTED:
        _print(out, "Nothing was changed.")
        click.get_current_context().exit(EXIT_FAILED)
    act.accept(app.instance, by=_who(), now=app.clock.now())
    _print(out, f"Released by {_who()}. The next run may spend.")
    _say_erasures(out, app)


def _nothing_to_do(found: Status, out: Console, *, as_json: bool) -> None:
    if as_json:
        render.print_json({"released": False, "held": found.hold.sentence if found.hold else "", "syncs": []})
    elif found.hold is None:
        _print(out, "Nothing is held: this database may spend.")
    else:
        _say(out, found)
    if found.hold is not None:
        click.get_current_context().exit(EXIT_FAILED)


def _end(
    app: App,
    read: Sequence[act.StampsRead],
    out: Console,
    *,
    released: bool,
    as_json: bool,
    dry_run: bool,
) -> None:
    problems = any(each.problem for each in read)
    worst = _worst(app) if problems else None
    if as_json:
        found: dict[str, Any] = {"released": released, "syncs": [asdict(each) for each in read]}
        if worst is not None:
            found["credits_forgotten"] = worst.forgotten
        render.print_json(found)
    else:
        if not dry_run and not problems:
            _table(out, read)
        if released:
            _print(out, f"Released by {_who()}. The next run may spend; nobody above is bought again.")
        if worst is not None:
            _print(out, "Not all stamps could be read, so spending stays held. " + worst.sentence)
            _print(
                out,
                "Correct what stands above and try again (`crm-sync config apply` works while it is held); or "
                "`crm-sync restore accept` goes on without knowing.",
            )
        _say_erasures(out, app)
    click.get_current_context().exit(EXIT_FAILED if problems else 0)


def _say(out: Console, found: Status) -> None:
    if found.hold is not None:
        _print(out, found.hold.sentence)
    elif found.database is None:
        _print(out, "Nothing is held: this database has not spent yet.")
    else:
        _print(out, f"Nothing is held. Database {found.database.id}, epoch {found.database.epoch}.")
    if found.known_until is not None:
        _print(out, f"It knows what was bought until {in_words(found.known_until)}.")
    if found.file is not None:
        _print(out, f"{found.file_path}: {found.file.id}, epoch {found.file.epoch}, {in_words(found.file.at)}.")
    if found.database is not None and found.database.released_at is not None:
        by, at = found.database.released_by, in_words(found.database.released_at)
        _print(out, f"Last released by {by} at {at}.")


def _table(out: Console, read: Sequence[act.StampsRead]) -> None:
    for each in read:
        if each.problem:
            _print(out, f"  {each.sync} ({each.object_type}): {each.problem}")
            continue
        count = f"{each.records:,}" + (" or more" if each.is_least else "")
        guarded = f", {each.guarded:,} names guarded" if each.guarded else ""
        _print(out, f"  {each.sync} ({each.object_type}): {count} stamped since{guarded}")


def _say_erasures(out: Console, app: App) -> None:
    path = act.erasures_file(app.instance)
    if path is not None:
        _print(
            out,
            f"People were erased, and {path} remembers it: a database restored from an older backup holds them again. "
            "Repeat those erasures: `crm-sync erase --again`. They are left alone in any case.",
        )


def _worst(app: App) -> act.Worst:
    return act.worst(app.journal, lambda: app.enricher, now=app.clock.now())


def _print(out: Console, sentence: str) -> None:
    out.print(escape(sentence), soft_wrap=True)


def _who() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "unknown"
