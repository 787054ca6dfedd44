"""secrets: the keys that paid answers are sealed with."""

from __future__ import annotations

import secrets as random_secrets
from itertools import chain

import click
from rich.progress import Progress

from crm_sync.bootstrap import App
from crm_sync.cli import Subcommands, render
from crm_sync.store.orders import DUE, WAITING
from crm_sync.store.vault import SETTING, key_path, masters_in_use, rewrap


@click.group(cls=Subcommands)
def secrets() -> None:
    """The keys that paid answers are sealed with: make one, see which are in use, rotate."""


@secrets.command("new")
def new() -> None:
    """Print a new random key for CRM_SYNC_SECRET_KEY; nothing is stored."""
    click.echo(random_secrets.token_urlsafe(32))


@secrets.command("status")
@click.pass_obj
def status(app: App) -> None:
    """Which keys this database needs, by fingerprint; no key is shown."""
    ring, used = app.key_ring, masters_in_use(app.store)
    path = key_path(app.store)
    where = SETTING if app.settings.secret_key.get_secret_value() else str(path)
    awaited = _awaited(app)
    for position, master in enumerate(ring):
        role = "newest, " if position == 0 else ""
        state = "in use" if master.fingerprint in used else "not in use: it can be removed"
        if position and master.fingerprint not in used and awaited:
            state = f"not in use, but to be kept while {awaited} are awaited"
        click.echo(f"{master.fingerprint}  {role}{state}  ({where})")
    for fingerprint in used - {master.fingerprint for master in ring}:
        click.echo(f"{fingerprint}  in use, and missing from {where}: put it back")


@secrets.command("rotate")
@click.option("--dry-run", is_flag=True, help="Say what it would do, and do nothing.")
@click.pass_obj
def rotate(app: App, dry_run: bool) -> None:
    """Seal everything anew under the newest key of CRM_SYNC_SECRET_KEY. Afterwards the older ones can be removed.

    Put the new key first: CRM_SYNC_SECRET_KEY=NEW,OLD. It can be broken off and run again; runs may go on meanwhile.
    """
    ring = app.key_ring
    calls, deliveries = app.journal.sealed_count(), app.deliveries.sealed_count()
    what = f"{calls:,} stored calls" + (
        f" and {render.counted(deliveries, 'delivery', 'deliveries')}" * bool(deliveries)
    )
    click.echo(f"Seal {what} anew; the newest key has the fingerprint {ring[0].fingerprint}.")
    if dry_run:
        click.echo("Nothing was done (--dry-run).")
        return
    vault = rewrap(app.store, ring, now=app.clock.now())
    with Progress(console=render.console(), transient=True) as progress:
        task = progress.add_task("sealing", total=calls + deliveries)
        for done in chain(app.journal.reseal(vault), app.deliveries.reseal(vault)):
            progress.update(task, advance=done)
    if awaited := _awaited(app):
        click.echo(
            f"Done. Keep the keys after the first one in CRM_SYNC_SECRET_KEY while {awaited} are awaited "
            "(crm-sync phones): Apollo has addresses that were made with them. Without them its deliveries are "
            "refused, and the numbers have to be fetched."
        )
        return
    click.echo("Done. Keys after the first one in CRM_SYNC_SECRET_KEY are not needed any more, except by old backups.")


def _awaited(app: App) -> str:
    """How many phones are to come, in words; "" when none are."""
    counts = app.reveals.counts()
    count = counts.get(DUE, 0) + counts.get(WAITING, 0)
    return render.counted(count, "phone") if count else ""
