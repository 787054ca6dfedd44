"""The demo's chapter on phones: ordered, delivered over HTTP to a server of ours, written, and fetched where lost."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape

from crm_sync.bootstrap import App
from crm_sync.cli import render
from crm_sync.cli.demo import configure, only_settings
from crm_sync.cli.render import Column
from crm_sync.config.loader import load
from crm_sync.domain.changes import FieldOutcome
from crm_sync.domain.runs import RunKind
from crm_sync.errors import ConfigError, CrmSyncError
from crm_sync.pipeline.resolve import Resolver
from crm_sync.pipeline.run import run_sync
from crm_sync.store.deliveries import POLL
from crm_sync.store.reveals import APPLIED, LISTED, Wait

if TYPE_CHECKING:
    from crm_sync.sandbox.run import Sandbox

_CRM = "salesforce"
_MOST_CONTACTS = 50
_LONGEST_S = 60.0
_PURSE = "budget: {phones_per_month: 1500}\n\n"
_PHONES = """    phones:
      reveal_when: "Email != null"
      route: {mobile: MobilePhone, work_direct: Phone, work_hq: skip}
      do_not_call: {if_listed: skip, mark: DoNotCall}
"""
#: What becomes of Apollo's callbacks: of the first order it comes twice, of the second not at all.
_SCRIPT = [{"what": "double", "nth": 1}, {"what": "never", "nth": 2}]


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """Records: `ordered` in all; `applied` hold a number; `do_not_call` are marked, their number left out. `duplicates`
    are deliveries that came again; `recovered_by_poll` records whose delivery was lost."""

    ordered: int
    applied: int
    do_not_call: int
    duplicates: int
    recovered_by_poll: int
    waiting: int


def order_and_receive(contacts: int, seed: int, out: Console, *, keep: Path | None = None) -> dict[str, object]:
    """Tell the chapter on a sandbox of its own; returns what `demo --json` shows of it. `keep`: a new folder for its
    database, with the settings that lead there."""
    from crm_sync.sandbox.run import Sandbox

    contacts = min(contacts, _MOST_CONTACTS)
    with (
        Sandbox(contacts=contacts, seed=seed, apollo_options={"callbacks": _SCRIPT}) as sandbox,
        _folder(keep) as folder,
        only_settings(sandbox.settings() | {"CRM_SYNC_DATABASE_URL": f"sqlite:///{folder}/crm_sync.db"}),
    ):
        app = App(env_file=None)
        try:
            sync = configure(app, _CRM, Console(quiet=True))
            _order_phones(app, sync)
        finally:
            app.close()
        with _served(folder) as url, only_settings({**_settings(), "CRM_SYNC_PUBLIC_URL": url}):
            app = App(env_file=None)
            try:
                told = asdict(_story(app, sync, url, sandbox, out))
            finally:
                app.close()
        if keep is not None:
            lines = [f"{name}={value}\n" for name, value in sorted(_settings().items())]
            (folder / ".env").write_text("".join(lines), encoding="utf-8")
            out.print(f"Kept in {escape(str(keep))}: cd there, and crm-sync phones, runs, show, explain look at it.\n")
        return told


@contextmanager
def _folder(keep: Path | None) -> Iterator[Path]:
    if keep is None:
        with tempfile.TemporaryDirectory(prefix="crm-sync-demo-") as folder:
            yield Path(folder)
        return
    try:
        keep.mkdir(parents=True)
    except OSError as error:
        raise ConfigError(f"{keep} cannot be made ({error.strerror}): name a folder that is not there yet") from error
    yield keep.resolve()


def _settings() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name.startswith("CRM_SYNC_")}


def _order_phones(app: App, sync: str) -> None:
    """Put `phones:` into the configuration."""
    newest = app.versions.latest()
    assert newest is not None
    before, sign, after = newest.text.decode().partition("    fields:")
    text = before.replace("syncs:\n", f"{_PURSE}syncs:\n", 1) + _PHONES + sign + after
    config = load(text.encode()).require()
    assert config.budget.phones_per_month is not None
    assert config.syncs[sync].phones is not None
    app.versions.add(config.text, config.files, author="demo", note="phones", now=app.clock.now())


@contextmanager
def _served(folder: Path) -> Iterator[str]:
    """`crm-sync serve` in a process of its own, and the address that it listens on."""
    command = [sys.executable, "-m", "crm_sync", "serve", "--port", "0"]
    with (folder / "serve.log").open("w") as log:
        server = subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=log, text=True)  # noqa: S603
        try:
            assert server.stdout is not None
            line = server.stdout.readline()
            if "http://" not in line:
                raise CrmSyncError(f"crm-sync serve did not start: {(folder / 'serve.log').read_text()[-500:]}")
            yield line.partition("http://")[1] + line.partition("http://")[2].split()[0]
        finally:
            server.terminate()
            server.wait(timeout=30)


def _story(app: App, sync: str, url: str, sandbox: Sandbox, out: Console) -> Told:
    out.print(
        f"The same contacts in a new installation; [bold]crm-sync serve[/] listens on {url}, which stands for the "
        "public address. `phones:` orders a number for everybody with an e-mail address:\n"
    )
    out.print(escape(_PHONES.rstrip()), style="dim")
    services = app.services()
    run = run_sync(services.config.syncs[sync], services, kind=RunKind.RUN, trigger="demo")
    ordered = app.reveals.waiting_in(run.id) + _settled(app, run.id)
    phones = render.counted(ordered, "phone")
    out.print(f"\n[bold]crm-sync run {sync}[/]: {phones} ordered, by Apollo's own ids, ten to a call\n")
    render.print_run(out, run)
    lost = _lost(app, run.id, sandbox)
    out.print(
        "\nApollo calls back; the first delivery comes twice, as deliveries do"
        + (", and one is lost on the way." if lost else ".")
    )
    _until(lambda: app.reveals.waiting_in(run.id) <= lost)
    if left := app.reveals.waiting_in(run.id):
        out.print(
            f"{render.counted(left, 'phone')} still awaited: [bold]crm-sync phones poll --all[/] asks Apollo for what "
            "was delivered to nobody, free of charge."
        )
        Resolver(services).sweep(now_all=True)
        _until(lambda: app.reveals.waiting_in(run.id) == 0)
    told = _told(app, run.id, ordered)
    _print(app, run.id, told, out)
    return told


def _settled(app: App, run_id: str) -> int:
    return sum(count for state, count in app.reveals.counts(run_id=run_id).items() if state not in ("due", "waiting"))


def _lost(app: App, run_id: str, sandbox: Sandbox) -> int:
    """How many of a run's records wait for an order whose delivery is lost; two of them may be one person."""
    orders = sandbox.apps["apollo"].extensions["simulator"].state()["phones"]["by_request"]
    people = {app.reveals.person(each) for order in orders if order["what"] == "never" for each in order["people"]}
    return sum(wait.run_id == run_id and wait.person in people for wait in app.reveals.waiting(limit=10_000))


def _until(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + _LONGEST_S
    while not is_so() and time.monotonic() < deadline:
        time.sleep(0.1)


def _told(app: App, run_id: str, ordered: int) -> Told:
    waits = [wait for wait in app.reveals.settled(limit=10_000) if wait.run_id == run_id]
    polled = {each.id for each in app.deliveries.listed(limit=10_000) if each.source == POLL}
    applied = [wait for wait in waits if wait.state == APPLIED]
    return Told(
        ordered=ordered,
        applied=len(applied),
        do_not_call=sum(wait.state == LISTED for wait in waits),
        duplicates=app.deliveries.doubles() + app.deliveries.counts().get("duplicate", 0),
        recovered_by_poll=sum(wait.delivery_id in polled for wait in applied),
        waiting=app.reveals.waiting_in(run_id),
    )


#: What is shown of whom, one example each.
_EXAMPLES = (
    (APPLIED, "a mobile, written"),
    (LISTED, "on a do-not-call list: left out, and the record marked"),
    ("no number", "nothing that is the person's own"),
)


def _print(app: App, run_id: str, told: Told, out: Console) -> None:
    out.print()
    waits = [wait for wait in app.reveals.settled(limit=10_000) if wait.run_id == run_id]
    rows = []
    for state, what in _EXAMPLES:
        examples = [wait for wait in waits if wait.state == state]
        if state == "no number":
            examples.sort(key=lambda wait: "switchboard" not in wait.reason)
        if examples:
            one = examples[0]
            rows.append([f"{one.object_type} {one.record_id}", what, escape(_written(app, one) or one.reason)])
    if rows:
        render.print_table(out, [Column(title="Record"), Column(title="What"), Column(title="Field or reason")], rows)
        out.print()
    rest = {
        state: count for state, count in app.reveals.counts(run_id=run_id).items() if state not in (APPLIED, LISTED)
    }
    others = "".join(f", {count} {state}" for state, count in sorted(rest.items()))
    out.print(
        f"{told.ordered} ordered: {told.applied} applied ({told.recovered_by_poll} of them fetched, their delivery was "
        f"lost), {told.do_not_call} on a do-not-call list{others}. "
        f"{render.counted(told.duplicates, 'delivery', 'deliveries')} that came again changed nothing."
    )
    bills = app.reveals.bills()
    out.print(
        f"The deliveries cost {render.credit_words(bills['billed'])}, from a purse of their own "
        "(budget.phones_per_month). crm-sync phones shows all of it.\n"
    )


def _written(app: App, wait: Wait) -> str:
    """The field and the number, of the run that wrote it."""
    for record in app.runs.records(wait.settled_run) if wait.settled_run else ():
        if record.record_id == wait.record_id:
            return ", ".join(
                f"{d.field} {render.shown(d.new)}" for d in record.decisions if d.outcome is FieldOutcome.WRITTEN
            )
    return ""
