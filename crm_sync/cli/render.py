"""How runs, plans and problems look on a terminal and as JSON."""

from __future__ import annotations

import json
import os
import re
import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

import click
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from crm_sync.cli import EXIT_AT_BUDGET, EXIT_FAILED, EXIT_WITH_ERRORS
from crm_sync.domain.changes import FieldDecision, FieldOutcome
from crm_sync.domain.enrichment import MatchKeys
from crm_sync.domain.records import Value
from crm_sync.domain.runs import RecordOutcome, RunKind, RunStatus, SyncRun, Unsettled
from crm_sync.store.runs import RunRecord

STATUS_STYLE = {
    RunStatus.COMPLETED: "green",
    RunStatus.WAITING_FOR_PHONES: "green",
    RunStatus.COMPLETED_WITH_ERRORS: "yellow",
    RunStatus.STOPPED_AT_BUDGET: "yellow",
    RunStatus.CANCELLED: "yellow",
    RunStatus.FAILED: "red",
}
_OUTCOME_STYLE = {
    FieldOutcome.WRITTEN: "green",
    FieldOutcome.PLANNED: "green",
    FieldOutcome.INVALID: "red",
    FieldOutcome.REJECTED: "red",
}
_EXIT = {
    RunStatus.FAILED: EXIT_FAILED,
    RunStatus.CANCELLED: EXIT_FAILED,
    RunStatus.COMPLETED_WITH_ERRORS: EXIT_WITH_ERRORS,
    RunStatus.STOPPED_AT_BUDGET: EXIT_AT_BUDGET,
}
WOULD_UPDATE = "Would update"
#: Of a run that has nothing open.
SETTLED = Unsettled()
#: Blanks between two columns of a table.
_GAP = 2
_FUNNEL = (
    "updated", "unchanged", "no_match", "skipped", "needs_review", "invalid", "rejected", "in_doubt",
)  # fmt: skip


def console() -> Console:
    """Plain and as wide as COLUMNS says, else 130, where nobody looks, so that a log or a pipe stays readable."""
    if sys.stdout.isatty():
        return Console(highlight=False)
    columns = os.environ.get("COLUMNS", "")
    return Console(highlight=False, width=int(columns) if columns.isdecimal() else 130, no_color=True)


def exit_code(runs: Iterable[SyncRun]) -> int:
    """The worst of several runs: failed, then with errors, then stopped at budget."""
    codes = [_EXIT.get(run.status, 0) for run in runs]
    for code in (EXIT_FAILED, EXIT_WITH_ERRORS, EXIT_AT_BUDGET):
        if code in codes:
            return code
    return 0


def print_json(value: Any) -> None:
    click.echo(json.dumps(value, indent=2, default=_plain, ensure_ascii=False))


def _plain(value: Any) -> Any:
    if isinstance(value, Decimal):
        return int(value) if value == value.to_integral_value() else float(value)
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, tuple | set | frozenset):
        return list(value)
    raise TypeError(type(value).__name__)


def run_json(run: SyncRun, unsettled: Unsettled = SETTLED) -> dict[str, Any]:
    """One run, flat: the counts beside the rest. `calls` are all provider calls together, `calls_by` each kind;
    `credits_in_doubt` and `credits_to_come` are at worst, beside `credits`."""
    return {
        "id": run.id,
        "sync": run.sync,
        "crm": run.crm,
        "object": run.object_type,
        "kind": run.kind.value,
        "status": run.status.value,
        "reason": run.reason,
        "trigger": run.trigger,
        "config_version": run.config_version,
        "started_at": run.started_at,
        "finished_at": run.finished_at,
        **asdict(run.counts),
        "credits": run.credits,
        "credits_in_doubt": unsettled.in_doubt,
        "credits_to_come": unsettled.to_come,
        "calls": sum(run.calls.values()),
        "calls_by": run.calls,
        "left_out": run.left_out,
        "parents": asdict(run.parents) if run.parents.selected else {},
    }


def outcome_word(outcome: str, kind: RunKind) -> str:
    """An outcome as it is told; a plan updates nothing."""
    return WOULD_UPDATE if kind is RunKind.PLAN and outcome == RecordOutcome.UPDATED else outcome


def record_json(record: RunRecord, kind: RunKind) -> dict[str, Any]:
    return {
        "object": record.object_type,
        "id": record.record_id,
        "outcome": outcome_word(record.outcome, kind),
        "reason": record.reason,
        "fields": [
            {
                "field": d.field,
                "source": d.source,
                "rule": d.rule.value,
                "outcome": d.outcome.value,
                "old": d.old,
                "new": d.new,
                "reason": d.reason,
            }
            for d in record.decisions
        ],
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """`keep`: the lower, the sooner it is left out where the table would be too wide; None: never."""

    title: str
    right: bool = False
    keep: int | None = None


def print_table(out: Console, columns: Sequence[Column], rows: Sequence[Sequence[str]]) -> None:
    """A table that fits: columns are left out, in their order, before a word is cut. Cells may hold markup."""
    widths = [
        max(len(column.title), *(Text.from_markup(row[at]).cell_len for row in rows))
        for at, column in enumerate(columns)
    ]
    kept = set(range(len(columns)))
    spare = sorted((c.keep, at) for at, c in enumerate(columns) if c.keep is not None)
    while spare and sum(widths[at] + _GAP for at in kept) - _GAP > out.width:
        kept.discard(spare.pop(0)[1])
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, padding=(0, _GAP - 1, 0, 0))
    for at in sorted(kept):
        column = columns[at]
        table.add_column(
            column.title,
            justify="right" if column.right else "left",
            no_wrap=column.right or column.keep is not None,
            overflow="fold",
        )
    for row in rows:
        table.add_row(*(row[at] for at in sorted(kept)))
    out.print(table)


def status_words(run: SyncRun, *, now: datetime | None = None) -> str:
    """The status; of a run under way with how long it has been so."""
    if run.status is not RunStatus.RUNNING or now is None:
        return run.status.value
    return f"{run.status.value}, {duration((now - run.started_at).total_seconds())} so far"


def print_run(
    out: Console,
    run: SyncRun,
    *,
    timezone: str = "UTC",
    now: datetime | None = None,
    unsettled: Unsettled = SETTLED,
) -> None:
    """The run's books as a funnel, then its calls. `now`: for a run that may be under way."""
    style = STATUS_STYLE.get(run.status, "")
    word = "Plan" if run.kind is RunKind.PLAN else "Run"
    sync = "" if run.sync == run.object_type else f"{escape(run.sync)} · "
    out.print(f"[bold]{word} {run.id}[/] · {sync}{run.object_type} in {escape(run.crm)}")
    reason = run.reason.removeprefix("cancelled ") if run.status is RunStatus.CANCELLED else run.reason
    out.print(f"[bold {style}]{status_words(run, now=now)}[/]" + (f": {escape(reason)}" if reason else ""))
    out.print(
        f"started {local(run.started_at, timezone)}"
        + (f", took {duration((run.finished_at - run.started_at).total_seconds())}" if run.finished_at else "")
        + (f", configuration version {run.config_version}" if run.config_version else "")
    )
    out.print()
    widest = max(run.counts.selected, 1)
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="bold")
    table.add_column(justify="right")
    table.add_column()
    table.add_row("Selected", f"{run.counts.selected:,}", _bar(run.counts.selected, widest))
    for name in _FUNNEL:
        count = getattr(run.counts, name)
        label = name.replace("_", " ").capitalize()
        if name == "updated" and run.kind is RunKind.PLAN:
            label = WOULD_UPDATE
        if count or name in ("updated", "unchanged", "no_match", "rejected"):
            table.add_row(f"  {label}", f"{count:,}", _bar(count, widest))
    out.print(table)
    for reason, count in run.left_out.items():
        out.print(f"left out: {count:,} ({escape(reason)})", style="dim")
    if run.parents.selected:
        p = run.parents
        out.print(
            f"their accounts: {p.selected:,} looked at, {p.updated:,} updated, {p.unchanged:,} unchanged, "
            f"{p.rejected:,} rejected"
        )
    calls = ", ".join(f"{escape(name)} {count:,}" for name, count in run.calls.items())
    if run.status is RunStatus.RUNNING:
        out.print(f"{credit_words(run.credits)} so far; what is selected and not yet listed is under way")
    else:
        doubtful = ""
        if unsettled.in_doubt:
            doubtful = f", and at worst {credit_words(unsettled.in_doubt)} in doubt (crm-sync doubt list)"
        if unsettled.to_come:
            doubtful += f", and up to {credit_words(unsettled.to_come)} for phones that are awaited"
        out.print(
            f"{credit_words(run.credits)}{doubtful} · {counted(sum(run.calls.values()), 'call')}"
            + (f" ({calls})" if calls else "")
        )


def label(keys: MatchKeys) -> str:
    """What people know a record by, of what was read to ask Apollo."""
    return keys.name or f"{keys.first_name} {keys.last_name}".strip() or keys.organization_name or keys.domain


def print_records(
    out: Console, records: Iterable[RunRecord], kind: RunKind, labels: Mapping[str, str] | None = None
) -> None:
    """Field by field: before, after, and why. `labels`: record id -> what people know it by."""
    for record in records:
        name = f" {escape(shown(labels[record.record_id]))}" if labels and labels.get(record.record_id) else ""
        reason = f": {escape(record.reason)}" if record.reason else ""
        outcome = outcome_word(record.outcome, kind)
        out.print(f"[bold]{record.object_type} {record.record_id}[/]{name} · {outcome}{reason}")
        if not record.decisions:
            continue
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
        for name, ratio in (("Field", 3), ("Before", 4), ("After", 4), ("Why", 5)):
            table.add_column(name, overflow="fold", ratio=ratio)
        for d in record.decisions:
            table.add_row(*_cells(d), style="" if d.outcome in _OUTCOME_STYLE else "dim")
        out.print(table)
        out.print()


def _cells(d: FieldDecision) -> tuple[str, str, str, str]:
    style = _OUTCOME_STYLE.get(d.outcome)
    after = escape(shown(d.new))
    if d.outcome in (FieldOutcome.SAME, FieldOutcome.NO_VALUE):
        after = ""
    elif d.outcome in (FieldOutcome.KEPT, FieldOutcome.CONFLICT):
        after = f"({after})" if after else ""
    elif d.outcome in (FieldOutcome.WRITTEN, FieldOutcome.PLANNED):
        after = after or "—"
    return (
        escape(d.field),
        escape(shown(d.old)) or "—",
        f"[{style}]{after}[/]" if style and after else after,
        _why(d),
    )


def _why(d: FieldDecision) -> str:
    if d.outcome in (FieldOutcome.WRITTEN, FieldOutcome.PLANNED):
        return escape(d.reason)
    if d.outcome is FieldOutcome.SAME:
        return "same"
    return f"{d.outcome.value}: {escape(d.reason.removeprefix('kept: '))}" if d.reason else d.outcome.value


def shown(value: Value) -> str:
    """A value as an admin reads it; control characters never reach the terminal."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, tuple):
        return "; ".join(map(shown, value))
    if isinstance(value, int) or (isinstance(value, float | Decimal) and value == int(value)):
        return f"{int(value)}"
    return "".join(c if c.isprintable() else " " for c in str(value))


def print_reasons(
    out: Console, reasons: Sequence[tuple[str, str, str, int]], *, kind: RunKind = RunKind.RUN, most: int = 12
) -> None:
    """What needs attention first: rejected, invalid, in doubt, to review; then the rest."""
    order = ["Rejected", "Invalid", "In doubt", "Needs review", "Skipped", "No match", "Unchanged", "Updated"]
    told = _merged((outcome, reason, count) for _, outcome, reason, count in reasons if reason)
    rows = sorted(told, key=lambda row: (order.index(row[0]) if row[0] in order else len(order), -row[2]))
    if not rows:
        return
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    table.add_column("Outcome")
    table.add_column("Records", justify="right")
    table.add_column("Reason", overflow="fold")
    for outcome, reason, count in rows[:most]:
        table.add_row(outcome_word(outcome, kind), f"{count:,}", escape(reason))
    out.print(table)
    if len(rows) > most:
        out.print(f"… and {counted(len(rows) - most, 'more reason')}", style="dim")


#: What is in parentheses at a reason's end is of one record: the name or the domain it is about.
_DETAIL = re.compile(r"(?P<stem>.+) \((?P<detail>[^()]+)\)\Z", re.DOTALL)


def _merged(rows: Iterable[tuple[str, str, int]]) -> list[tuple[str, str, int]]:
    """(outcome, reason, how many), where reasons that differ in their detail alone are one, with the first detail."""
    totals: Counter[tuple[str, str]] = Counter()
    details: dict[tuple[str, str], list[str]] = {}
    for outcome, reason, count in rows:
        found = _DETAIL.match(reason)
        key = (outcome, found["stem"] if found else reason)
        totals[key] += count
        details.setdefault(key, []).append(found["detail"] if found else "")
    merged = []
    for (outcome, stem), total in totals.items():
        first, *others = sorted(filter(None, details[outcome, stem])) or [""]
        more = f" and {counted(len(others), 'other')}" if others else ""
        merged.append((outcome, f"{stem} ({first}{more})" if first else stem, total))
    return merged


def counted(count: int, word: str, words: str = "") -> str:
    """1 call, 2 calls."""
    return f"{count:,} {word if count == 1 else words or word + 's'}"


def credit_words(credits_: Decimal) -> str:
    return f"{credits_.normalize():,f} credit{'' if credits_ == 1 else 's'}"


def local(moment: datetime, timezone: str) -> str:
    return moment.astimezone(ZoneInfo(timezone)).strftime("%Y-%m-%d %H:%M:%S %Z")


def duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


def _bar(count: int, widest: int) -> str:
    return "█" * max(round(30 * count / widest), 1 if count else 0)
