"""init, doctor and migrate."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

import click
from rich.markup import escape

from crm_sync.bootstrap import App
from crm_sync.cli import EXIT_FAILED, render
from crm_sync.config.model import Suppress
from crm_sync.errors import ConfigError, CrmSyncError, ProviderError
from crm_sync.ports import AccessCheck, Crm, Enricher
from crm_sync.settings import crm_prefix, is_any_set, setting_names, unknown_settings
from crm_sync.store.vault import SETTING, key_path

TYPES = ("salesforce", "hubspot")


@click.command()
@click.option("--crm", "name", required=True, help="salesforce or hubspot; or a name of your own with --type.")
@click.option("--type", "crm_type", type=click.Choice(TYPES), help="What the CRM is, when its name does not say.")
@click.option("--production", is_flag=True, help="This is the production org or portal, not a sandbox.")
@click.option("--force", is_flag=True, help="Replace files that are there.")
@click.option("--dry-run", is_flag=True, help="Print the configuration instead of writing it.")
@click.pass_obj
def init(app: App, name: str, crm_type: str | None, production: bool, force: bool, dry_run: bool) -> None:
    """Write a starting crm_sync.yaml and .env from a CRM's live schema: a suggested mapping, everything on `fill`.

    The CRM's settings must be there already (environment or .env); without them, .env is written for you to fill in.
    """
    from crm_sync.config.expressions import UnreadableError
    from crm_sync.config.loader import load
    from crm_sync.config.schema import crm_name
    from crm_sync.config.starter import starter

    try:
        crm_name(name)
    except UnreadableError as error:
        raise click.UsageError(f"{name}: {error.message} {error.suggestion}") from None
    kind = crm_type or (name if name in TYPES else None)
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
    schemas = {each: crm.describe(each) for each in crm.object_types()}
    try:
        text = starter(name, kind, schemas, environment="production" if production else "sandbox")
    except ValueError as error:
        raise ConfigError(f"{error}; give the user that crm-sync logs in as the right to edit some") from None
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
    first = next(iter(load(text.encode()).require().syncs))
    click.echo(f"Next: crm-sync doctor, crm-sync config check, crm-sync config apply, crm-sync plan {first}")


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

    FAIL has to be mended, a note can wait. Costs no credit.
    """
    checks = []
    out = render.console()
    for check in _checks(app):
        checks.append(check)
        if not as_json:
            mark = "[red]FAIL[/]" if not check.ok else "[yellow]note[/]" if check.cure else "[green]ok[/]  "
            out.print(f"{mark} {escape(check.name)}: {escape(check.detail)}", soft_wrap=True)
            if check.cure:
                out.print(f"     → {escape(check.cure)}", style="yellow" if not check.ok else "dim", soft_wrap=True)
    if as_json:
        render.print_json([asdict(check) for check in checks])
    click.get_current_context().exit(0 if all(check.ok for check in checks) else EXIT_FAILED)


def _checks(app: App) -> Iterator[AccessCheck]:
    """Each check stands alone: what fails takes away only what cannot be known without it."""
    crms = list(crm_types(app).items())
    yield from _settings(app, crms)
    database = _database(app)
    yield database
    if database.ok:
        yield _speed(app)
        yield _instance(app)
        yield _secret_key(app)
        yield from _processes(app)
        yield _configuration(app)
        yield from _broker(app)
        yield from _doubt(app)
        yield from _phones(app)
        yield from _alerts(app)
    else:
        yield AccessCheck(name="configuration", ok=False, detail="not known while the database cannot be used")
        app.go_unpaced()
    yield _clock()
    for name, kind in crms:
        if not app.missing_settings([(name, kind)], apollo=False):
            access = list(_access(name, lambda name=name, kind=kind: app.crm(name, kind)))  # type: ignore[misc]
            yield from access
            if all(check.ok for check in access):
                yield from _opt_outs(app, name, kind)
    if not app.missing_settings([]):
        yield from _access("Apollo", lambda: app.enricher)


def _broker(app: App) -> Iterator[AccessCheck]:
    """Whether workers can tell each other of work, where they are to."""
    if not app.settings.broker_url.get_secret_value():
        return
    try:
        assert app.hints is not None
        app.hints.check()
    except ConfigError as error:
        yield AccessCheck(name="broker", ok=False, detail=str(error), cure="mend the setting")
    except ProviderError as error:
        yield AccessCheck(name="broker", ok=False, detail=str(error), cure="start it, or correct CRM_SYNC_BROKER_URL")
    else:
        yield AccessCheck(name="broker", ok=True, detail="it answers; workers share the runs of one sync")


def _phones(app: App) -> Iterator[AccessCheck]:
    """Whether Apollo could deliver here, by a delivery of our own; and what is awaited."""
    try:
        orders = any(sync.phones is not None for sync in app.applied()[0].syncs.values())
    except CrmSyncError:
        orders = False
    try:
        address = app.settings.public_url
        if address or orders:
            problem = app.callbacks.problem()
            yield AccessCheck(
                name="public address",
                ok=not problem or not orders,
                detail=problem or f"a delivery of our own to {address} has arrived",
                cure="phones are not ordered before that; docs/phones.md" if problem else "",
            )
        waiting = app.reveals.waiting(limit=1)
        if waiting:
            count = sum(app.reveals.counts().get(state, 0) for state in ("due", "waiting"))
            age = render.duration((app.clock.now() - waiting[0].asked_at).total_seconds())
            detail = f"{render.counted(count, 'number')} awaited, the oldest for {age}"
            yield AccessCheck(name="phones", ok=True, detail=detail)
    except CrmSyncError as error:
        yield AccessCheck(name="public address", ok=not orders, detail=str(error), cure="mend the settings above")


def _alerts(app: App) -> Iterator[AccessCheck]:
    """Whether everybody who is to be told can be, as far as it shows without sending."""
    from crm_sync.alerts import shown

    try:
        configured = app.applied()[0].alerts
        addresses = list(dict.fromkeys(address for alert in configured for address in alert.tell))
        problems = {shown(address): app.notifiers.problem(address) for address in addresses}
        undelivered, firing = app.alerts.undelivered(now=app.clock.now()), app.alerts.firing()
    except CrmSyncError:
        return  # said by the checks before
    for name, problem in problems.items():
        if problem:
            yield AccessCheck(
                name="alerts", ok=False, detail=f"{name}: {problem}", cure="nobody is told there; docs/alerts.md"
            )
    if undelivered:
        detail = f"{render.counted(len(undelivered), 'notice')} could not be told, the last: {undelivered[-1].error}"
        yield AccessCheck(name="alerts", ok=True, detail=detail, cure="crm-sync alerts; crm-sync alerts test --all")
    wrong = [each.title for each in firing if not each.is_pending]
    if wrong:
        yield AccessCheck(name="alerts", ok=True, detail=f"wrong now: {'; '.join(wrong)}", cure="crm-sync alerts")
    if configured and not undelivered and not wrong and not any(problems.values()):
        detail = (
            f"{render.counted(len(configured), 'alert')} to {render.counted(len(addresses), 'address', 'addresses')}"
        )
        yield AccessCheck(name="alerts", ok=True, detail=f"{detail}, nothing is wrong")


def _settings(app: App, crms: Sequence[tuple[str, str]]) -> Iterator[AccessCheck]:
    problems, unknown = app.missing_settings(crms), []
    try:
        unknown = unknown_settings(crms, app.env_file)
        if not crms:
            problems.append("no CRM has settings yet; crm-sync init --crm salesforce (or hubspot) says what is needed")
    except ConfigError:
        pass  # the file cannot be read, which is among the problems
    for problem in problems:
        yield AccessCheck(name="settings", ok=False, detail=problem, cure="settings.example.env explains each setting")
    for sentence in unknown:
        yield AccessCheck(name="settings", ok=True, detail=sentence, cure="correct or remove it")
    if not problems:
        yield AccessCheck(name="settings", ok=True, detail="all that are needed are set")


def _access(name: str, client: Callable[[], Crm | Enricher]) -> Iterator[AccessCheck]:
    try:
        checks = client().check_access()
    except CrmSyncError as error:
        checks = [AccessCheck(name=name, ok=False, detail=str(error))]
    yield from checks


def _opt_outs(app: App, name: str, kind: str) -> Iterator[AccessCheck]:
    """Which opt-outs of the CRM's own are honoured, and which nobody can see: absent is not "no"."""
    from crm_sync.mapping.opt_outs import honoured, readable, unseen

    suppress = _suppress(app)
    crm = app.crm(name, kind)
    for object_type in crm.object_types():
        can_read = readable(crm.describe(object_type), crm.check_selection)
        seen = ", ".join(each.field for each in honoured(object_type, suppress, can_read))
        hidden = ", ".join(each.field for each in unseen(object_type, suppress, can_read))
        if seen or hidden:
            yield AccessCheck(
                name=f"{name} {object_type} opt-outs",
                ok=True,
                detail="; ".join(
                    [f"honoured: {seen}"] * bool(seen) + [f"not seen, so not known: {hidden}"] * bool(hidden)
                ),
                cure="let the user read them, or name another field in suppress.when" if hidden else "",
            )


def _suppress(app: App) -> Suppress:
    try:
        return app.applied()[0].suppress
    except CrmSyncError:
        return Suppress()


def _database(app: App) -> AccessCheck:
    from crm_sync.store.exclusive import KEEP_SESSIONS, why_not_exclusive

    try:
        version = app.store.schema_version()
        why_not_durable = app.store.why_not_durable()
        why_not_ours = why_not_exclusive(app.store)
    except CrmSyncError as error:
        return AccessCheck(name="database", ok=False, detail=str(error))
    if why_not_durable:
        return AccessCheck(name="database", ok=False, detail=why_not_durable, cure="switch it on, then try again")
    if why_not_ours:
        return AccessCheck(name="database", ok=False, detail=why_not_ours, cure=KEEP_SESSIONS)
    return AccessCheck(name="database", ok=True, detail=f"{app.store.shown_url}, schema {version}")


def _speed(app: App) -> AccessCheck:
    from crm_sync.presence import NEAR_AND_IDLE
    from crm_sync.store.speed import SLOW, is_slow, measured

    try:
        speed = measured(app.store, now=app.clock.now())
    except CrmSyncError as error:
        return AccessCheck(name="database speed", ok=False, detail=str(error))
    if is_slow(speed):
        detail = f"{speed.shown}; that is slow (limits: {SLOW.shown})"
        return AccessCheck(name="database speed", ok=True, detail=detail, cure=NEAR_AND_IDLE)
    return AccessCheck(name="database speed", ok=True, detail=speed.shown)


def _processes(app: App) -> Iterator[AccessCheck]:
    """Who is at work on the database, and who of them is of another version or has other settings than this command."""
    from crm_sync.domain.processes import said_of
    from crm_sync.presence import ONE_OF_A_KIND

    try:
        me = app.process("command")
        alive = app.processes.alive(now=me.seen_at)
    except CrmSyncError:
        return  # said by the other checks
    different = [said for other in alive if (said := said_of(me, other))]
    for said in different:
        yield AccessCheck(name="processes", ok=False, detail=said, cure=ONE_OF_A_KIND)
    if alive and not different:
        detail = f"at work with this version and these settings: {', '.join(other.shown for other in alive)}"
        yield AccessCheck(name="processes", ok=True, detail=detail)


def _instance(app: App) -> AccessCheck:
    """Whether the database may spend, as far as it can be told without asking a CRM."""
    from crm_sync.pipeline.restore import look

    try:
        found = look(app.instance, now=app.clock.now())
    except CrmSyncError as error:
        return AccessCheck(name="restore", ok=False, detail=str(error))
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


def _secret_key(app: App) -> AccessCheck:
    try:
        app.vault  # noqa: B018 - opening it is the check
        ring = app.key_ring
    except CrmSyncError as error:
        return AccessCheck(name="secret key", ok=False, detail=str(error), cure="crm-sync secrets status")
    if app.settings.secret_key.get_secret_value():
        return AccessCheck(name="secret key", ok=True, detail=f"{SETTING} opens the stored answers ({len(ring)} in it)")
    return AccessCheck(
        name="secret key",
        ok=True,
        detail=f"made beside the database: {key_path(app.store)}",
        cure=f"back it up apart from the database, or move it into {SETTING}: without it paid answers are lost",
    )


def _doubt(app: App) -> Iterator[AccessCheck]:
    try:
        calls, most = app.ledger.in_doubt()
    except CrmSyncError:
        return  # said by the checks before
    if calls:
        yield AccessCheck(
            name="in doubt",
            ok=True,
            detail=f"{render.counted(calls, 'paid call')} without an answer, at worst {render.credit_words(most)}",
            cure="crm-sync doubt list",
        )


def _configuration(app: App) -> AccessCheck:
    if app.versions.latest() is None:
        detail = "none has been applied yet"
        return AccessCheck(name="configuration", ok=True, detail=detail, cure=app.how_to_configure())
    try:
        config, number = app.applied()
    except ConfigError as error:
        cure = f"mend {app.config_file} and run crm-sync config apply, or go back: crm-sync config rollback NUMBER"
        return AccessCheck(name="configuration", ok=False, detail=str(error), cure=cure)
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
    """CRM name -> type: the applied configuration's, else the file's, else those of which some setting is there."""
    try:
        config, _ = app.applied()
    except CrmSyncError:
        try:
            config = app.load_file().require()
        except ConfigError:
            return _types_with_settings(app)
    return {crm.name: crm.type for crm in config.crms.values()}


def _types_with_settings(app: App) -> dict[str, str]:
    try:
        return {kind: kind for kind in TYPES if is_any_set(kind, app.env_file)}
    except ConfigError:
        return {}  # the settings cannot be read, which whoever needs them says


@click.command()
@click.pass_obj
def migrate(app: App) -> None:
    """Bring the database to the schema this version needs: whole, or not at all.

    Stop whatever uses it and back it up first (`crm-sync backup`). Of a SQLite file a copy as it was stays beside it.
    """
    store = app.unchecked_store
    before, after = store.migrate()
    if before == after:
        click.echo(f"{store.shown_url} has schema {after} already.")
        return
    click.echo(f"{store.shown_url}: schema {before or 'empty'} → {after}.")
    if store.path is not None and before:
        click.echo(
            f"As it was, it is kept in {store.copy_of(before)}: delete that once you do not want to go back. What "
            "`erase` and `purge` remove from now on stays in it."
        )
