"""init, doctor and migrate."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import click
from rich.markup import escape

from crm_sync.bootstrap import App
from crm_sync.cli import EXIT_FAILED, render
from crm_sync.errors import ConfigError, CrmSyncError
from crm_sync.ports import AccessCheck
from crm_sync.settings import crm_prefix, setting_names, unknown_settings

_TYPES = ("salesforce", "hubspot")


@click.command()
@click.option("--crm", "name", required=True, help="salesforce or hubspot; or a name of your own with --type.")
@click.option("--type", "crm_type", type=click.Choice(_TYPES), help="What the CRM is, when its name does not say.")
@click.option("--production", is_flag=True, help="This is the production org or portal, not a sandbox.")
@click.option("--force", is_flag=True, help="Replace files that are there.")
@click.option("--dry-run", is_flag=True, help="Print the configuration instead of writing it.")
@click.pass_obj
def init(app: App, name: str, crm_type: str | None, production: bool, force: bool, dry_run: bool) -> None:
    """Write a starting crm_sync.yaml and .env from a CRM's live schema: a suggested mapping, everything on `fill`.

    The CRM's settings must be there already (environment or .env); without them, .env is written for you to fill in.
    """
    from crm_sync.config.starter import starter

    kind = crm_type or (name if name in _TYPES else None)
    if kind is None:
        raise click.UsageError(f"What is {name}? Say --type salesforce or --type hubspot.")
    env = Path(".env")
    missing = app.missing_settings([(name, kind)], apollo=False)
    if missing:
        if not dry_run and not env.exists():
            _write(env, _env_text(name, kind), private=True)
            raise ConfigError("\n".join([*missing, f"{env} was written with every setting: fill it in and try again"]))
        app.require_settings([(name, kind)], apollo=False)
    crm = app.crm(name, kind)
    text = starter(
        name,
        kind,
        {each: crm.describe(each) for each in crm.object_types()},
        environment="production" if production else "sandbox",
    )
    if dry_run:
        click.echo(text, nl=False)
        return
    if app.config_file.exists() and not force:
        raise ConfigError(f"{app.config_file} is there already; move it away, or say --force to replace it")
    _write(app.config_file, text)
    click.echo(f"{app.config_file} is written: a suggested mapping for {name}, everything on `fill`.")
    if not env.exists() and app.env_file is None:
        _write(env, _env_text(name, kind), private=True)
        click.echo(f"{env} is written: the settings, for those that are not in the environment.")
    click.echo("Next: crm-sync doctor, crm-sync config check, crm-sync config apply, crm-sync plan …")


def _write(path: Path, text: str, *, private: bool = False) -> None:
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600 if private else 0o644)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error.strerror}") from error


def _env_text(name: str, kind: str) -> str:
    """Every setting of one CRM, commented out but for the names an admin must fill in."""
    prefix = crm_prefix(name)
    names = sorted(setting_names([(name, kind)]))
    needed = {"CRM_SYNC_APOLLO_API_KEY"} | (
        {f"{prefix}URL", f"{prefix}CONSUMER_KEY", f"{prefix}CONSUMER_SECRET"}
        if kind == "salesforce"
        else {f"{prefix}TOKEN"}
    )
    lines = ["# What crm-sync needs to know; settings.example.env explains each. Keep this file to yourself.", ""]
    lines += [f"{each}=" for each in names if each in needed]
    lines += ["", *(f"# {each}=" for each in names if each not in needed), ""]
    return "\n".join(lines)


@click.command()
@click.option("--json", "as_json", is_flag=True, help="A JSON list of checks.")
@click.pass_obj
def doctor(app: App, as_json: bool) -> None:
    """Check settings, database, configuration, every provider's access, credits and the clock; with the cure.

    Costs no credit.
    """
    checks = []
    out = render.console()
    for check in _checks(app):
        checks.append(check)
        if not as_json:
            mark = "[green]ok[/]  " if check.ok else "[red]FAIL[/]"
            out.print(f"{mark} {escape(check.name)}: {escape(check.detail)}", soft_wrap=True)
            if check.cure:
                out.print(f"     → {escape(check.cure)}", style="yellow" if not check.ok else "dim", soft_wrap=True)
    if as_json:
        render.print_json([asdict(check) for check in checks])
    click.get_current_context().exit(0 if all(check.ok for check in checks) else EXIT_FAILED)


def _checks(app: App) -> Iterator[AccessCheck]:
    crms = list(crm_types(app).items())
    problems = app.missing_settings(crms)
    for problem in problems:
        yield AccessCheck(name="settings", ok=False, detail=problem, cure="settings.example.env explains each setting")
    for sentence in unknown_settings(crms, app.env_file):
        yield AccessCheck(name="settings", ok=True, detail=sentence, cure="correct or remove it")
    if not problems:
        yield AccessCheck(name="settings", ok=True, detail="all that are needed are set")
    database = _database(app)
    yield database
    if database.ok:
        yield _instance(app)
    yield _configuration(app)
    yield _clock()
    for name, kind in crms:
        if not app.missing_settings([(name, kind)], apollo=False):
            yield from app.crm(name, kind).check_access()
    if not app.missing_settings([]):
        yield from app.enricher.check_access()


def _database(app: App) -> AccessCheck:
    try:
        version = app.store.schema_version()
        why_not_durable = app.store.why_not_durable()
    except CrmSyncError as error:
        return AccessCheck(name="database", ok=False, detail=str(error), cure="CRM_SYNC_DATABASE_URL says where it is")
    if why_not_durable:
        return AccessCheck(name="database", ok=False, detail=why_not_durable, cure="switch it on, then try again")
    return AccessCheck(name="database", ok=True, detail=f"{app.store.shown_url}, schema {version}")


def _instance(app: App) -> AccessCheck:
    """Whether the database may spend, as far as it can be told without asking a CRM."""
    from crm_sync.pipeline.restore import look

    found = look(app.instance, now=app.clock.now())
    if found.hold is not None:
        return AccessCheck(
            name="restore", ok=False, detail=found.hold.sentence, cure="`crm-sync restore status` tells what to do"
        )
    if found.database is None:
        return AccessCheck(name="restore", ok=True, detail="this database has not spent yet")
    return AccessCheck(
        name="restore",
        ok=True,
        detail=f"database {found.database.id}, epoch {found.database.epoch}, noted in {found.file_path}",
        cure="keep that file out of the database's backups: a restored database is told by it",
    )


def _configuration(app: App) -> AccessCheck:
    try:
        config, number = app.applied()
    except CrmSyncError as error:
        return AccessCheck(name="configuration", ok=True, detail=str(error))
    return AccessCheck(name="configuration", ok=True, detail=f"version {number}: {', '.join(config.syncs)}")


def _clock() -> AccessCheck:
    """The wall clock must not run apart from the monotonic one while we look, and the year must be sane."""
    wall, steady = time.time(), time.monotonic()
    time.sleep(0.05)
    drift = abs((time.time() - wall) - (time.monotonic() - steady))
    ok = drift < 0.02 and time.gmtime().tm_year >= 2026
    return AccessCheck(
        name="clock",
        ok=ok,
        detail=time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime()),
        cure="" if ok else "let the system keep the time by NTP: budgets and waits count on it",
    )


def crm_types(app: App) -> dict[str, str]:
    """CRM name -> type: the applied configuration's, else the file's, else those whose settings are there."""
    try:
        config, _ = app.applied()
    except CrmSyncError:
        loaded = app.load_file() if app.config_file.exists() else None
        if loaded is None or loaded.config is None:
            return {kind: kind for kind in _TYPES if not app.missing_settings([(kind, kind)], apollo=False)}
        config = loaded.config
    return {crm.name: crm.type for crm in config.crms.values()}


@click.command()
@click.pass_obj
def migrate(app: App) -> None:
    """Bring the database to the schema this version needs. Make a copy of it first."""
    before, after = app.unchecked_store.migrate()
    if before == after:
        click.echo(f"{app.unchecked_store.shown_url} has schema {after} already.")
    else:
        click.echo(f"{app.unchecked_store.shown_url}: schema {before or 'empty'} → {after}.")
