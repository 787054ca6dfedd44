"""suppress, erase, privacy and purge. No argument of theirs is ever printed back: it may be somebody's address."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
from rich import box
from rich.markup import escape
from rich.table import Table

from crm_sync import crash
from crm_sync.bootstrap import App
from crm_sync.cli import EXIT_FAILED, Subcommands, lists, render
from crm_sync.config.model import Config
from crm_sync.config.problems import nearest
from crm_sync.errors import BusyError, ConfigError, CrmSyncError
from crm_sync.mapping.identities import KINDS, NotAnIdentityError, guess, identify, implied, kind_of, of_email
from crm_sync.mapping.suppress_lists import MAX_LIST_BYTES, Listed, UnreadableListError, read_list
from crm_sync.pipeline.purge import cutoffs, purge_daily
from crm_sync.pipeline.recover import is_alive
from crm_sync.store.suppressions import BY_HAND, ERASED, Entry, file_source
from crm_sync.store.traces import Traces

_TABLES = {
    "batches": "paid calls, from which it is cut out",
    "answers": "rows of the index of answers",
    "run_records": "records in runs",
    "record_states": "last attempts",
    "provenance": "records with fields known as written by crm-sync",
    "reviews": "questions put to a person",
    "phone_waits": "phones asked for",
    "deliveries": "deliveries of phone numbers, from which it is cut out",
    "reveal_orders": "orders of phones with it in their reason",
    "unmapped_values": "picklist values",
    "runs": "runs with it in their reason",
}
_PURGED = {
    "batches": "paid answers emptied; their credits stay in the ledger",
    "answers": "rows of the index of answers",
    "run_records": "records in runs",
    "deliveries": "deliveries of phone numbers",
    "reveal_orders": "orders of phones that are over",
    "phone_waits": "phones asked for, long settled",
}


class _Discreet(Subcommands):
    """A group that does not print a word it does not know: it is probably an address that came too early."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and not args[0].startswith("-") and self.get_command(ctx, args[0]) is None:
            near = nearest(args[0], self.commands) if "@" not in args[0] else None
            hint = f"did you mean {near}?" if near else f"there is {', '.join(self.commands)}."
            raise click.UsageError(f"That is no verb of {self.name}; {hint}", ctx)
        return super().resolve_command(ctx, args)


# --- suppress ---------------------------------------------------------------------------------------------------------


@click.group(cls=_Discreet)
def suppress() -> None:
    """Whom to leave alone: no look-up, no write. Kept as keyed digests, from which nobody can be read.

    KIND is email, domain, linkedin, record, phone or apollo (Apollo's own id of a person), and may be left out where
    the value tells. A record is a Salesforce id, or CRM:OBJECT:ID as in hubspot:contacts:12345.
    """


@suppress.command()
@click.argument("words", metavar="[KIND] VALUE...", nargs=-1)
@click.option("--dry-run", is_flag=True, help="Only say what would happen.")
@click.pass_obj
def add(app: App, words: tuple[str, ...], dry_run: bool) -> None:
    """Leave these people, companies or records alone from now on, also in runs under way."""
    found = _identities(app, words)
    if dry_run:
        known = {entry.identity for entry in app.suppressions.entries(found) if entry.source == BY_HAND}
        click.echo(f"{len(found) - len(known):,} would be added, {len(known):,} are there already.")
        return
    new = app.suppressions.add(found, BY_HAND, now=app.clock.now())
    click.echo(f"{new:,} added, {len(found) - new:,} there already. {_in_kinds(found)}")


@suppress.command()
@click.argument("words", metavar="[KIND] VALUE...", nargs=-1)
@click.option("--erased", is_flag=True, help="Also those who were erased: they may be looked up again then.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--dry-run", is_flag=True, help="Only say what would happen.")
@click.pass_obj
def remove(app: App, words: tuple[str, ...], erased: bool, yes: bool, dry_run: bool) -> None:
    """Take them off what was added by hand or imported. Entries of a list are taken off in its file."""
    found = _identities(app, words)
    entries = app.suppressions.entries(found)
    going = [entry for entry in entries if _is_removable(entry, erased=erased)]
    staying = sorted({entry.source for entry in entries} - {entry.source for entry in going})
    if going and not dry_run:
        if erased and any(entry.source == ERASED for entry in going):
            _confirm(yes, "Somebody among them asked to be forgotten. Look them up again?")
        if erased:
            app.erasures.forget(app.suppressions.digests(found), now=app.clock.now())
        app.suppressions.remove(found, sorted({entry.source for entry in going}), now=app.clock.now())
    verb = "would be taken off" if dry_run else "taken off"
    what = "entry" if len(going) == 1 else "entries"
    click.echo(f"{len(going):,} {what} {verb}." if entries else "None of them is suppressed.")
    for source in staying:
        cure = "say --erased to take it off" if source == ERASED else "take it out of the file and apply again"
        click.echo(f"Still left alone: {_source_words(source)}; {cure}.")


@suppress.command("import")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--dry-run", is_flag=True, help="Only say what would happen.")
@click.pass_obj
def import_(app: App, file: Path, dry_run: bool) -> None:
    """Add everybody in FILE, a CSV file or one value to a line; nobody is taken off.

    Every column counts whose name tells what it holds: email, domain, linkedin, record id, phone.
    """
    listed = _read(app, file)
    for problem in lists.unknown_lines(str(file), listed):
        click.echo(str(problem), err=True)
    if not listed.identities:
        raise ConfigError(f"{file}: nobody is recognised in its {listed.lines:,} lines; nothing was imported")
    if dry_run:
        click.echo(f"{file}: {lists.counted(listed)}.")
        return
    new = app.suppressions.add(listed.identities, file_source(file.name), now=app.clock.now())
    click.echo(f"{file}: {lists.counted(listed)}; {new:,} new.")


@suppress.command("list")
@click.option("--json", "as_json", is_flag=True, help="A JSON list.")
@click.pass_obj
def list_(app: App, as_json: bool) -> None:
    """How many are left alone, by kind and by where that comes from. Who they are cannot be told."""
    counts = app.suppressions.counts()
    if as_json:
        names = ("kind", "source", "entries", "newest_at")
        render.print_json([dict(zip(names, row, strict=True)) for row in counts])
        return
    if not counts:
        click.echo("Nobody is suppressed. `crm-sync suppress add VALUE` adds somebody.")
        return
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("Kind", "From", "Entries", "Newest"):
        table.add_column(name, justify="right" if name == "Entries" else "left")
    for kind, source, count, newest in counts:
        table.add_row(kind, escape(_source_words(source)), f"{count:,}", render.local(newest, "UTC"))
    render.console().print(table)


@suppress.command()
@click.argument("words", metavar="[KIND] VALUE...", nargs=-1)
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@click.pass_obj
def check(app: App, words: tuple[str, ...], as_json: bool) -> None:
    """Say whether a value is suppressed and where that comes from; an address also by its domain.

    What a record says about itself (opt-outs, suppress.when) is seen in a plan.
    """
    found = _identities(app, words)
    entries = app.suppressions.entries({part for each in found for part in implied(each)})
    domains = _email_domains(app, found)
    if as_json:
        by = [{"kind": kind_of(e.identity), "source": e.source, "since": e.added_at} for e in entries]
        by += [{"kind": "email", "source": "suppress.email_domains", "since": None} for _ in domains]
        render.print_json({"suppressed": bool(by), "by": by})
        return
    for entry in entries:
        since = render.local(entry.added_at, "UTC")
        click.echo(f"Left alone by its {kind_of(entry.identity)}: {_source_words(entry.source)}, since {since}.")
    for domain in domains:
        click.echo(f"Left alone as an address at {domain}: suppress.email_domains.")
    if not entries and not domains:
        click.echo("Not suppressed.")


def _identities(app: App, words: Sequence[str]) -> set[str]:
    """What the words name; the first may be their kind.

    Raises:
        UsageError: one of them names nobody; it is told by its place, never by what it says.
    """
    if not words:
        raise click.UsageError("Name somebody: an e-mail address, a domain, a LinkedIn page, a record id or a phone.")
    kind, values = (words[0], words[1:]) if words[0] in KINDS else ("", words)
    if kind and not values:
        raise click.UsageError(f"Which {kind}? Write it behind the kind.")
    crms = _crms(app)
    found: set[str] = set()
    for place, value in enumerate(values, start=1):
        try:
            some = identify(kind, value, crms) if kind else guess(value, crms)
        except NotAnIdentityError as error:
            raise click.UsageError(f"Value {place} is not understood as {kind}: {error}.") from None
        if not some:
            raise click.UsageError(_not_guessed(place, value))
        found.update(some)
    return found


def _not_guessed(place: int, value: str) -> str:
    near = nearest(value, KINDS) if value.isalpha() and len(value) < 12 else None
    if near:
        return f"Value {place} is none of the kinds; did you mean {near}?"
    return f"Value {place} looks like none of the kinds; say which before it: {', '.join(KINDS)}."


def _crms(app: App) -> dict[str, str]:
    try:
        return lists.crms_of(app.applied()[0])
    except ConfigError:
        return {}


def _email_domains(app: App, found: set[str]) -> list[str]:
    try:
        domains = app.applied()[0].suppress.email_domains
    except ConfigError:
        return []
    hosts = [each.rpartition("@")[2] for each in found if kind_of(each) == "email"]
    return sorted({domain for domain in domains for host in hosts if host == domain or host.endswith(f".{domain}")})


def _is_removable(entry: Entry, *, erased: bool) -> bool:
    return entry.source == BY_HAND or entry.source.startswith("file:") or (erased and entry.source == ERASED)


def _source_words(source: str) -> str:
    if source == ERASED:
        return "erased on request"
    where, colon, name = source.partition(":")
    return {"list": f"the list {name}", "file": f"imported from {name}"}.get(where, source) if colon else source


def _in_kinds(found: set[str]) -> str:
    counts = {kind: sum(kind_of(each) == kind for each in found) for kind in KINDS}
    told = ", ".join(f"{count:,} {kind}" for kind, count in counts.items() if count)
    domains = sorted(each.partition(":")[2] for each in found if kind_of(each) == "domain")
    return f"({told})" + (f" All of {', '.join(domains)} is left alone." if domains else "")


def _read(app: App, file: Path) -> Listed:
    try:
        with file.open("rb") as opened:
            content = opened.read(MAX_LIST_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"{file} cannot be read: {error.strerror or 'unknown reason'}") from error
    if len(content) > MAX_LIST_BYTES:
        raise ConfigError(f"{file} has more than {MAX_LIST_BYTES >> 20} MiB; split it in several")
    try:
        return read_list(content, _crms(app))
    except UnreadableListError as error:
        raise ConfigError(f"{file}:{error.line}: {error}; nothing was imported") from None


# --- erase and export -------------------------------------------------------------------------------------------------


@click.command()
@click.argument("email", nargs=-1)
@click.option("--again", is_flag=True, help="Everybody who was erased before: after a backup was restored.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--dry-run", is_flag=True, help="Only say what would be removed.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object: rows by table. Needs --yes or --dry-run.")
@click.pass_obj
def erase(app: App, email: tuple[str, ...], again: bool, yes: bool, dry_run: bool, as_json: bool) -> None:
    """Remove the person with this EMAIL from every table, and leave them alone from now on.

    Paid answers stay for the others in them, and the credits in the ledger; of the person a keyed digest stays that
    keeps them from being looked up again. The CRM's own records are not touched.
    """
    if as_json and not (yes or dry_run):
        raise click.UsageError("--json cannot ask: say --yes or --dry-run with it.")
    if again and email:
        raise click.UsageError("Name one person, or say --again for all who were erased before.")
    found = app.privacy.find_again(app.erasures.read()) if again else [app.privacy.find(_address(email))]
    counts = _together(found)
    if not as_json:
        _tell(found, again=again)
    if dry_run or (again and not counts):
        if as_json:
            render.print_json({"removed": {}, "found": counts, **_further(found)})
        return
    if not as_json:
        _confirm(yes, "Remove all of it?" if counts else "Leave this address alone from now on?")
    new = _leave_alone(app, found)
    crash.point("erase.suppressed")
    _refuse_while_running(app)
    for traces in found:
        app.privacy.erase(traces, now=app.clock.now())
    left = _together([app.privacy.find("", traces.person) for traces in found])
    kept = app.store.compact() if counts else ""
    if as_json:
        told = {"removed": counts, "suppressed": new, "left": left, "compacted": not kept}
        render.print_json({**told, **_further(found)})
    else:
        click.echo(f"Removed: {sum(counts.values()):,} rows." if counts else "Nothing was kept.")
        click.echo(f"{new:,} digests are new on the list of those to leave alone.")
    if left:
        raise BusyError("Something was added meanwhile and is still there: run erase once more")
    if kept:
        raise CrmSyncError(
            f"The rows are gone, but the database file could not be compacted ({kept}), so that copies may remain in "
            "its free pages: stop what uses it and run erase once more"
        )


def _leave_alone(app: App, found: Sequence[Traces]) -> int:
    """From now on, and after a restore; before anything is removed, or a crash between the two would be forgotten."""
    everybody = {identity for traces in found for identity in traces.identities()}
    digests = app.suppressions.digests(everybody)
    if not digests <= app.erasures.read():
        app.erasures.note(digests, now=app.clock.now())
    crash.point("erase.noted")
    return app.suppressions.add(everybody, ERASED, now=app.clock.now())


def _together(found: Sequence[Traces]) -> dict[str, int]:
    counts: Counter[str] = Counter()
    for traces in found:
        counts.update(traces.counts())
    return dict(counts)


@click.group(cls=_Discreet)
def privacy() -> None:
    """What is kept about a person."""


@privacy.command()
@click.argument("email", nargs=-1)
@click.pass_obj
def export(app: App, email: tuple[str, ...]) -> None:
    """Print as JSON all that is kept about the person with this EMAIL, and where."""
    address = _address(email)
    traces = app.privacy.find(address)
    entries = app.suppressions.entries(traces.identities())
    render.print_json(_exported(traces, entries))


def _address(words: tuple[str, ...]) -> str:
    """
    Raises:
        UsageError: not one address; what it is instead is not printed.
    """
    if len(words) != 1:
        raise click.UsageError("Name one person by an e-mail address.")
    text = sys.stdin.readline() if words[0] == "-" else words[0]
    address = of_email(text).partition(":")[2]
    if not address:
        raise click.UsageError("That is no e-mail address.")
    return address


def _refuse_while_running(app: App) -> None:
    """A run under way may hold the person in its hands, and would put them back."""
    now = app.clock.now()
    shared = {share.run_id for share in app.shares.working() if is_alive(share.owner, share.alive_at, now)}
    for run, owner, alive_at in app.runs.unfinished():
        if run.id in shared or is_alive(owner, alive_at, now):
            raise BusyError(
                f"The person is left alone from now on, but {run.kind.value} {run.id} is under way and may still hold "
                "an answer about them: run erase again when it has ended"
            )


def _tell(found: Sequence[Traces], *, again: bool) -> None:
    counts = _together(found)
    if not counts:
        click.echo("Nothing is kept about anybody erased before." if again else "Nothing is kept about this person.")
    for table, count in counts.items():
        click.echo(f"{count:>8,}  {_TABLES[table]} ({table})")
    for number in _further(found)["config_versions"]:
        click.echo(f"Configuration version {number} has an address in its text, which is never changed.", err=True)


def _further(found: Sequence[Traces]) -> dict[str, Any]:
    return {"config_versions": sorted({number for traces in found for number in traces.versions})}


def _exported(traces: Traces, entries: Sequence[Entry]) -> dict[str, Any]:
    person = traces.person
    return {
        "known_by": {
            "emails": sorted(person.emails),
            "linkedin": sorted(person.pages),
            "apollo_ids": sorted(person.ids),
        },
        "suppressions": [{"kind": kind_of(e.identity), "source": e.source, "since": e.added_at} for e in entries],
        "batches": [
            {
                "id": call.id,
                "run": call.run_id,
                "sync": call.sync,
                "endpoint": call.endpoint,
                "state": call.state,
                "planned_at": call.planned_at,
                "answered_at": call.answered_at,
                "asked": [_filled(call.keys[at]) for at in sorted(call.positions)],
                "answered": list(call.entries),
            }
            for call in traces.calls
        ],
        "answers": [
            {
                "purpose": row.purpose,
                "verdict": row.verdict,
                "source": row.source,
                "batch": row.batch_id,
                "position": row.position,
                "obtained_at": row.obtained_at,
            }
            for row in traces.index
        ],
        "run_records": [
            {"run": found.run_id, "crm": found.crm, "at": found.at, **render.record_json(found.record, found.kind)}
            for found in traces.records
        ],
        "record_states": [asdict(state) for state in traces.states],
        **traces.kept,
        "phone_waits": [asdict(wait) for wait in traces.waits],
        "deliveries": [asdict(delivery) for delivery in traces.deliveries],
        "unmapped_values": [dict(zip(("sync", "field", "value"), row, strict=True)) for row in traces.unmapped],
        "batches_with_it_in_an_error": traces.errors,
        "runs_with_it_in_the_reason": traces.reasons,
        "orders_with_it_in_the_reason": traces.orders,
        "config_versions": traces.versions,
    }


def _filled(key: Any) -> dict[str, str]:
    return {name: str(value) for name, value in asdict(key).items() if value}


# --- purge ------------------------------------------------------------------------------------------------------------


@click.command()
@click.option("--dry-run", is_flag=True, help="Only say what would be removed.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object: rows by table.")
@click.pass_obj
def purge(app: App, dry_run: bool, as_json: bool) -> None:
    """Remove what `keep:` has let go: paid answers, deliveries, details of runs. A run does it by itself, once a day.

    What was paid stays in the ledger, and no answer is forgotten so that it would be bought again.
    """
    config, _ = app.applied()
    limits = cutoffs(config, app.clock.now())
    counts = app.retention.count(limits) if dry_run else app.retention.purge(limits, now=app.clock.now())
    if as_json:
        render.print_json({"dry_run": dry_run, "purged": counts})
        return
    for table, count in counts.items():
        click.echo(f"{count:>8,}  {_PURGED[table]} ({table})")
    if dry_run:
        click.echo("Nothing was removed.")


def purge_after_run(app: App, config: Config) -> None:
    """Once a day; what it removed is told on the side, and its failure does not fail the run."""
    try:
        counts = purge_daily(config, app.retention, app.clock.now())
    except CrmSyncError as error:
        click.echo(f"crm-sync: the daily purge did not come to its end: {error}", err=True)
        return
    told = [f"{count:,} {_PURGED[table]}" for table, count in (counts or {}).items() if count]
    if told:
        click.echo(f"Purged: {'; '.join(told)}.", err=True)


def _confirm(yes: bool, question: str) -> None:
    if not yes and not click.confirm(question):
        click.echo("Nothing was changed.")
        click.get_current_context().exit(EXIT_FAILED)
