"""explain: the story of one record."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from typing import Any

import click
from rich.console import Console
from rich.markup import escape

from crm_sync.bootstrap import App
from crm_sync.cli import render
from crm_sync.domain.changes import FieldOutcome, WriteRule
from crm_sync.domain.enrichment import MatchKeys
from crm_sync.domain.records import RecordRef
from crm_sync.domain.runs import RunKind, SyncRun
from crm_sync.errors import ConfigError
from crm_sync.pipeline.explain import Chapter, Field, story
from crm_sync.pipeline.plan_file import APPLY_OF
from crm_sync.pipeline.reviewing import ACCEPTED_BY
from crm_sync.pipeline.undo import UNDO_OF
from crm_sync.services import Services
from crm_sync.store.reveals import Wait

_RULES = {
    WriteRule.NEVER: "never writes",
    WriteRule.FILL: "writes into a blank field",
    WriteRule.TRACK: "writes into a blank field, or over crm-sync's own value",
    WriteRule.REVIEW: "asks a person",
    WriteRule.REPLACE: "writes whatever differs",
}
_RESULTS = {
    FieldOutcome.WRITTEN: "written",
    FieldOutcome.PLANNED: "would be written",
    FieldOutcome.SAME: "nothing to do",
    FieldOutcome.KEPT: "left alone",
    FieldOutcome.REVIEW: "waits for a person",
    FieldOutcome.CONFLICT: "conflict, left alone",
    FieldOutcome.NO_VALUE: "nothing to write",
    FieldOutcome.UNCONFIRMED: "not known whether written",
    FieldOutcome.INVALID: "does not fit the field",
    FieldOutcome.REJECTED: "refused by the CRM",
}


@click.command()
@click.argument("record")
@click.option("--field", "only", default="", metavar="FIELD", help="Only this CRM field.")
@click.option("--json", "as_json", is_flag=True, help="A JSON list, a run to an entry.")
@click.pass_obj
def explain(app: App, record: str, only: str, as_json: bool) -> None:
    """Everything ever done to RECORD, and why: what Apollo was sent, what it answered, what was made of it, which rule
    decided, and what became of it, run by run with the values of that moment.

    RECORD is the CRM's id, the address of its page, or an e-mail address that Apollo was asked by.
    """
    services = app.services()
    chapters = story(record, services)
    if not chapters:
        what = "this address" if "@" in record else record
        raise ConfigError(
            f"No run has looked at {what}, or what it did is not kept any more (keep.run_details). "
            "Give the CRM's id, the address of the record's page, or the e-mail address that the record had"
        )
    if only and not any(field.decision.field == only for chapter in chapters for field in chapter.fields):
        raise ConfigError(f"No run has decided about a field {only} of it; fields are named as in the CRM's API")
    if as_json:
        render.print_json([_json(chapter, only) for chapter in chapters])
        return
    out = render.console()
    heading = ""
    for chapter in chapters:
        name = f"{chapter.record.object_type} {chapter.record.record_id} in {chapter.run.crm}"
        if name != heading:
            heading = name
            _print_heading(out, services, chapter)
            _print_phones(out, services, [c for c in chapters if _is_of(c, chapter)])
        _print_chapter(out, services, chapter, only)


def _print_heading(out: Console, services: Services, chapter: Chapter) -> None:
    record = chapter.record
    out.print(f"[bold]{record.object_type} {record.record_id}[/] in {escape(chapter.run.crm)}")
    if chapter.run.crm in services.config.crms:
        ref = RecordRef(crm=chapter.run.crm, object_type=record.object_type, id=record.record_id)
        if url := services.crm(chapter.run.crm).record_url(ref):
            out.print(escape(url), style="dim")
    out.print()


def _is_of(one: Chapter, other: Chapter) -> bool:
    return (one.run.crm, one.record.object_type, one.record.record_id) == (
        other.run.crm,
        other.record.object_type,
        other.record.record_id,
    )


def _print_phones(out: Console, services: Services, chapters: Sequence[Chapter]) -> None:
    """What came of the record's phone, by sync."""
    phones = {chapter.phone.sync: chapter.phone for chapter in chapters if chapter.phone is not None}
    for sync, wait in sorted(phones.items()):
        asked = f"asked for {render.local(wait.asked_at, services.config.timezone)} by run {wait.run_id}"
        if wait.is_open:
            said = f"{'to be ordered' if wait.order_id is None else 'awaited'}, {asked}"
        else:
            ended = f", {render.local(wait.settled_at, services.config.timezone)}" if wait.settled_at else ""
            by = f" in run {wait.settled_run}" if wait.settled_run else ""
            said = f"{wait.state}{ended}{by}: {wait.reason}; {asked}"
        out.print(f"[bold]Phone[/] of {escape(sync)}: {escape(said)}")
    if phones:
        out.print()


def _print_chapter(out: Console, services: Services, chapter: Chapter, only: str) -> None:
    run, record = chapter.run, chapter.record
    when = render.local(chapter.at, services.config.timezone)
    version = f", configuration version {run.config_version}" if run.config_version else ""
    by = f" ({escape(run.trigger)})" if run.kind not in (RunKind.RUN, RunKind.PLAN) else ""
    out.print(f"[bold]{when}[/] · {run.kind.value} {run.id}{by} of {escape(run.sync)}{version}")
    if chapter.sent is not None:
        out.print(f"  Apollo was sent {escape(_sent(chapter.sent))}")
        out.print(f"  and answered: {escape(_answer(chapter))}")
    elif chapter.call is not None:
        out.print(f"  by the answer of call {chapter.call}")
    for field in chapter.fields:
        if not only or field.decision.field == only:
            _print_field(out, field, settled=_is_settled(run))
    reason = f": {escape(record.reason)}" if record.reason else ""
    out.print(f"\n  [bold]{render.outcome_word(record.outcome, run.kind)}[/]{reason}\n")


def _is_settled(run: SyncRun) -> bool:
    """Whether its changes were settled before, so that no rule of the configuration decided; also one that was only
    looked at."""
    if run.kind is RunKind.PLAN:
        return run.trigger.startswith((UNDO_OF, APPLY_OF, ACCEPTED_BY))
    return run.kind in (RunKind.UNDO, RunKind.APPLY, RunKind.REVIEW)


def _print_field(out: Console, field: Field, *, settled: bool) -> None:
    d = field.decision
    style = "green" if d.outcome in (FieldOutcome.WRITTEN, FieldOutcome.PLANNED) else ""
    if d.outcome in (FieldOutcome.INVALID, FieldOutcome.REJECTED, FieldOutcome.CONFLICT):
        style = "red"
    result = _RESULTS[d.outcome]
    out.print(
        f"\n  [bold]{escape(d.field)}[/]  [{style}]{result}[/]"
        if style
        else f"\n  [bold]{escape(d.field)}[/]  {result}"
    )
    for path, value in field.received:
        out.print(f"    received     {escape(path)} = {escape(_received(value))}")
    made = escape(render.shown(d.new))
    if settled:
        out.print(f"    was to hold  {made or '(blank)'}")
    elif made:
        out.print(f"    made of it   {made}")
    out.print(f"    the CRM had  {escape(render.shown(d.old)) or '(blank)'}")
    if not settled:
        out.print(f"    rule         {d.rule.value}: {_RULES[d.rule]}")
    out.print(f"    decision     {escape(d.reason) or result}")


def _sent(keys: MatchKeys) -> str:
    given = [
        f"{each.name.replace('_', ' ')} {value}"
        for each in fields(keys)
        if each.name != "purpose" and (value := getattr(keys, each.name))
    ]
    return ", ".join(given) or "nothing"


def _answer(chapter: Chapter) -> str:
    found = chapter.enrichment
    word = found.verdict.value if found is not None else "what is not kept any more"
    who = f", {found.apollo_id}" if found is not None and found.apollo_id else ""
    return f"{word}{who} (call {chapter.call})"


def _received(value: Any) -> str:
    if value is None or value == "":
        return "nothing"
    if isinstance(value, list):
        return "; ".join(_received(each) for each in value)
    if isinstance(value, dict):
        return f"a group of {len(value)} values"
    return render.shown(value)


def _phone_json(wait: Wait | None) -> dict[str, Any] | None:
    if wait is None:
        return None
    return {
        "state": wait.state,
        "reason": wait.reason,
        "asked_at": wait.asked_at,
        "asked_by": wait.run_id,
        "order": wait.order_id,
        "settled_at": wait.settled_at,
        "settled_in": wait.settled_run,
        "delivery": wait.delivery_id,
    }


def _json(chapter: Chapter, only: str) -> dict[str, Any]:
    sent = chapter.sent
    return {
        "run": chapter.run.id,
        "kind": chapter.run.kind.value,
        "sync": chapter.run.sync,
        "crm": chapter.run.crm,
        "trigger": chapter.run.trigger,
        "config_version": chapter.run.config_version,
        "at": chapter.at,
        "object": chapter.record.object_type,
        "id": chapter.record.record_id,
        "outcome": render.outcome_word(chapter.record.outcome, chapter.run.kind),
        "reason": chapter.record.reason,
        "call": chapter.call,
        "sent": None
        if sent is None
        else {each.name: str(getattr(sent, each.name)) for each in fields(sent) if getattr(sent, each.name)},
        "phones": _phone_json(chapter.phone),
        "answer": chapter.enrichment.verdict.value if chapter.enrichment is not None else "",
        "fields": [
            {
                "field": field.decision.field,
                "received": dict(field.received),
                "source": field.decision.source,
                "made": field.decision.new,
                "had": field.decision.old,
                "rule": field.decision.rule.value,
                "outcome": field.decision.outcome.value,
                "reason": field.decision.reason,
            }
            for field in chapter.fields
            if not only or field.decision.field == only
        ],
    }
