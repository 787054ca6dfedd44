"""The demo's last chapter: a run killed in mid-flight, started again, and Apollo's ledger beside ours."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING

from rich import box
from rich.console import Console
from rich.table import Table

from crm_sync import crash
from crm_sync.bootstrap import App
from crm_sync.cli import render
from crm_sync.cli.demo import configure, only_settings
from crm_sync.domain.runs import RunStatus, SyncRun
from crm_sync.errors import CrmSyncError

if TYPE_CHECKING:
    from crm_sync.sandbox.apollo import Answered
    from crm_sync.sandbox.run import Sandbox

_CRM = "salesforce"
#: The chapter tells itself as well with fewer.
_MOST_CONTACTS = 50
_LATENCY_MS = 100
_LONGEST_S = 60.0
_FINISHED = (RunStatus.COMPLETED, RunStatus.COMPLETED_WITH_ERRORS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Apollo's ledger against ours. `charged_twice`: people whom Apollo charged more than once; `answers_lost`: answers
    that Apollo charged for and that are neither stored here nor in doubt; `in_doubt`: people."""

    charged_twice: int
    answers_lost: int
    in_doubt: int
    finished_after_restart: bool


def kill_and_restart(contacts: int, seed: int, out: Console) -> dict[str, object]:
    """Tell the chapter on a sandbox of its own; returns what `demo --json` shows of it."""
    from crm_sync.sandbox.run import Sandbox

    contacts = min(contacts, _MOST_CONTACTS)
    with (
        Sandbox(contacts=contacts, seed=seed, latency_ms=_LATENCY_MS) as sandbox,
        tempfile.TemporaryDirectory(prefix="crm-sync-demo-") as folder,
        only_settings(sandbox.settings() | {"CRM_SYNC_DATABASE_URL": f"sqlite:///{folder}/crm_sync.db"}),
    ):
        app = App(env_file=None)
        try:
            sync = configure(app, _CRM, Console(quiet=True), workers=1)  # one call after the other: easily told
        finally:
            app.close()
        out.print(
            f"The same {contacts} contacts in a new installation. Apollo is asked for ten at a time; while it works at "
            "the second call, the process is killed, as a power cut would end it.\n"
        )
        killed = _run(sync, Path(folder), crash_at="wire.asked@people/bulk_match:2")
        _let_apollo_finish(sandbox)
        answered = list(sandbox.apps["apollo"].extensions["ledger"].answered)
        out.print(
            f"[bold]crm-sync run {sync}[/] … killed. Apollo has answered {_calls(len(answered))} and charged "
            f"{render.credit_words(_sum(answered))}, whether anybody was left to listen or not.\n"
            if killed
            else "It had finished before there was a second call: ask for more contacts.\n"
        )
        out.print(f"[bold]crm-sync run {sync}[/], started again:\n")
        _run(sync, Path(folder))
        app = App(env_file=None)
        try:
            return asdict(_compare(app, sandbox, out))
        finally:
            app.close()


def _run(sync: str, folder: Path, *, crash_at: str = "") -> bool:
    """`crm-sync run` in a process of its own; returns whether it was killed."""
    environment = dict(os.environ) | ({crash.SETTING: crash_at} if crash_at else {})
    command = [sys.executable, "-m", "crm_sync", "run", sync]
    ended = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)  # noqa: S603
    if ended.returncode not in (0, 3, -signal.SIGKILL):
        raise CrmSyncError(f"crm-sync run {sync} ended with {ended.returncode}: {ended.stderr.strip()[-500:]}")
    return ended.returncode == -signal.SIGKILL


def _let_apollo_finish(sandbox: Sandbox) -> None:
    """What has reached Apollo is worked off, also when nobody listens any more."""
    asked, answered = sandbox.traffic["apollo"], sandbox.apps["apollo"].extensions["ledger"].answered
    deadline = time.monotonic() + _LONGEST_S
    before = -1
    while time.monotonic() < deadline:
        paid = sum(count for call, count in asked.calls().items() if call.endswith("match"))
        if paid == len(answered) == before:
            return
        before = len(answered)
        time.sleep(2 * _LATENCY_MS / 1000)


def _compare(app: App, sandbox: Sandbox, out: Console) -> Comparison:
    ledger = sandbox.apps["apollo"].extensions["ledger"]
    answered: Sequence[Answered] = ledger.answered
    stored = app.ledger.request_ids()
    doubts = app.journal.doubts()
    unknown = [answer for answer in answered if answer.request_id not in stored]
    run = app.runs.latest()[0]
    comparison = Comparison(
        charged_twice=sum(count > 1 for count in ledger.charged.values()),
        answers_lost=max(sum(answer.credits > 0 for answer in unknown) - len(doubts), 0),
        in_doubt=sum(len(call.keys) for call in doubts),
        finished_after_restart=run.status in _FINISHED and not app.runs.unfinished(),
    )
    _print(comparison, run, answered, stored, out)
    return comparison


def _print(
    comparison: Comparison, run: SyncRun, answered: Sequence[Answered], stored: dict[str, int], out: Console
) -> None:
    render.print_run(out, run)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    table.add_column("Apollo's ledger")
    table.add_column("Credits", justify="right")
    table.add_column("Ours")
    for number, answer in enumerate(answered, start=1):
        known = stored.get(answer.request_id)
        ours = f"answer stored, call {known}" if known else "[yellow]in doubt: it left, and no answer came[/]"
        table.add_row(f"answer {number}", str(answer.credits), ours)
    out.print()
    out.print(table)
    out.print()
    out.print(
        f"Charged twice: {comparison.charged_twice or 'nobody'}. Answers lost: {comparison.answers_lost or 'none'}."
    )
    if comparison.in_doubt:
        out.print(
            f"In doubt: {comparison.in_doubt} people. Nobody here can know whether Apollo charged for them, so they "
            "are not bought again unasked: Apollo's meter may clear them after ten minutes, and crm-sync doubt list "
            "shows them. A kill costs no more than the calls that were on their way."
        )
    out.print(
        "Everybody else was finished by the second run.\n"
        if comparison.finished_after_restart
        else "[red]The second run should have finished.[/]\n"
    )


def _calls(count: int) -> str:
    return f"{count} call{'' if count == 1 else 's'}"


def _sum(answered: Sequence[Answered]) -> Decimal:
    return Decimal(sum(answer.credits for answer in answered))
