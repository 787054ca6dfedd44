"""The crm-sync command: parses, asks, renders. A verb's module is imported only when the verb is used."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import click

from crm_sync import __version__
from crm_sync.errors import ConfigError, CrmSyncError

#: Verb -> (module, help line). The help line stands here so that `--help` imports nothing.
VERBS = {
    "demo": ("demo", "The whole story on the built-in sandbox; no account needed."),
    "sandbox": ("demo", "Run the built-in Apollo, Salesforce and HubSpot simulators."),
    "init": ("setup", "Write a starting crm_sync.yaml and .env from a CRM's live schema."),
    "doctor": ("setup", "Check settings, database, every provider's access, credits and the clock."),
    "migrate": ("setup", "Bring the database to the schema this version needs."),
    "fields": ("fields", "What can be mapped: a CRM object's fields, or Apollo's attributes."),
    "config": ("config", "Check and apply crm_sync.yaml; its versions."),
    "picklists": ("picklists", "Apollo's values that have no CRM value yet: list them, map them."),
    "plan": ("run", "Show, field by field, what a run would write."),
    "run": ("run", "Run syncs now, in the foreground."),
    "runs": ("history", "The runs so far."),
    "show": ("history", "One run: its funnel, its reasons, its records."),
    "explain": ("explain", "Everything ever done to one record, and why."),
    "undo": ("changes", "Take back what a run wrote."),
    "retry": ("changes", "Write again what a run could not, at no credit."),
    "apply": ("changes", "Write exactly the plan in a file."),
    "review": ("review", "What waits for a person: accept or refuse."),
    "release": ("changes", "Let crm-sync go on in fields that a person changed."),
    "cancel": ("money", "Stop a run that is under way."),
    "credits": ("money", "What was spent, against the budgets and beside Apollo's own meter."),
    "doubt": ("money", "Calls that may have been charged without an answer."),
    "phones": ("phones", "Phone numbers: what is awaited, what was delivered; replay, poll."),
    "alerts": ("alerts", "What is wrong now, who was told, and whether telling works."),
    "syncs": ("unattended", "The syncs: schedules, how they stand, when each runs next."),
    "pause": ("unattended", "Let a sync's schedule rest."),
    "resume": ("unattended", "Let a sync's schedule go on."),
    "serve": ("unattended", "Run syncs on their schedules, and receive what Apollo delivers."),
    "worker": ("unattended", "Run what is scheduled, queued and delivered, without receiving it."),
    "secrets": ("secrets", "The keys that paid answers are sealed with."),
    "suppress": ("privacy", "Whom to leave alone: add, remove, import, list, check."),
    "erase": ("privacy", "Forget a person everywhere, and leave them alone from now on."),
    "privacy": ("privacy", "Export all that is kept about a person."),
    "purge": ("privacy", "Remove what has been kept for long enough."),
    "backup": ("restore", "Copy the database into a file, while it is in use."),
    "restore": ("restore", "Put a backup back; what a database that was restored, moved or copied may buy twice."),
}

EXIT_FAILED, EXIT_USAGE, EXIT_WITH_ERRORS, EXIT_AT_BUDGET = 1, 2, 3, 4


class Verbs(click.Group):
    """A group that imports a verb's module when it is called, not when help is asked."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        return list(VERBS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:  # noqa: ARG002
        if name not in VERBS:
            return None
        module = importlib.import_module(f"crm_sync.cli.{VERBS[name][0]}")
        command: click.Command = getattr(module, name if name != "config" else "config_group")
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in VERBS.items()])

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0] if args else ""
        if name and name not in VERBS:
            from difflib import get_close_matches

            near = get_close_matches(name, VERBS, n=1)
            hint = f" Did you mean {near[0]}?" if near else ""
            raise click.UsageError(f"There is no verb {name}.{hint} `crm-sync --help` lists them.", ctx)
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except CrmSyncError as error:
            click.echo(f"crm-sync: {error}", err=True)
            ctx.exit(EXIT_USAGE if isinstance(error, ConfigError) else EXIT_FAILED)


def no_such_sync(name: str, syncs: Iterable[str], version: int | None) -> ConfigError:
    return ConfigError(f"No sync is called {name}; configuration version {version} has: {', '.join(syncs)}")


class Subcommands(click.Group):
    """A group of verbs whose help shows the sentence of each whole, wrapped instead of cut."""

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        commands = {name: self.get_command(ctx, name) for name in self.list_commands(ctx)}
        with formatter.section("Commands"):
            formatter.write_dl([(name, each.get_short_help_str(limit=999)) for name, each in commands.items() if each])


@click.command(cls=Verbs, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="crm-sync")
@click.option(
    "--config",
    "config_file",
    type=click.Path(path_type=Path, dir_okay=False),
    default=Path("crm_sync.yaml"),
    show_default=True,
    help="The configuration file that `config check` and `config apply` read.",
)
@click.option(
    "--env-file",
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    help="A file of CRM_SYNC_ settings; the environment wins. Default: .env, where there is one.",
)
@click.pass_context
def cli(ctx: click.Context, config_file: Path, env_file: Path | None) -> None:
    """Keep Salesforce and HubSpot filled from Apollo.io, without buying an answer twice or overwriting what a
    person typed.

    Exit codes: 0 clean, 1 failed, 2 usage or configuration, 3 completed with errors, 4 stopped at budget.
    """
    from crm_sync.bootstrap import App

    if env_file is None and Path(".env").exists():
        env_file = Path(".env")
    app = App(env_file=env_file, config_file=config_file)
    ctx.obj = app
    ctx.call_on_close(app.close)


def main() -> None:
    """The console script: no traceback ever reaches a terminal; what is unexpected names where its trace went."""
    try:
        cli()
    except (KeyboardInterrupt, BrokenPipeError):
        sys.exit(EXIT_FAILED)
    except Exception:  # noqa: BLE001 - the door: everything below has had its chance
        sys.exit(_unexpected())


def _unexpected() -> int:
    import tempfile
    import traceback

    with tempfile.NamedTemporaryFile("w", prefix="crm-sync-", suffix=".log", delete=False) as file:
        traceback.print_exc(file=file)
    kind = sys.exc_info()[0]
    click.echo(
        f"crm-sync: an unexpected {kind.__name__ if kind else 'error'} ended the command. This is a fault of ours: "
        f"please report it with {file.name}",
        err=True,
    )
    return EXIT_FAILED
