"""What is to be written to each record, by what it holds, what was written before, and what a person said."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime

from crm_sync.domain.changes import ChangeSet, FieldDecision, FieldOutcome
from crm_sync.domain.records import Record
from crm_sync.pipeline.diff import NO_HISTORY, History, amend, decide
from crm_sync.pipeline.settled import Candidate, what_is_proposed
from crm_sync.pipeline.walk import Target, WriteContext
from crm_sync.store.reviews import REFUSED, Review


def decisions_for(
    context: WriteContext,
    target: Target,
    candidates: Sequence[Candidate],
    current: Mapping[str, Record | None],
) -> list[ChangeSet]:
    """What is to be written to each of these records, by what they hold."""
    histories: Mapping[str, History] = {}
    if target.tracks and candidates:
        # By the id the record has now: it was written under the survivor's since a merge.
        ids = list(dict.fromkeys(_record(current, c).ref.id for c in candidates))
        histories = context.provenance.last_writes(context.crm.name, target.object_type, ids)
    changes = [_decide(context, target, c, _record(current, c), histories) for c in candidates]
    waiting = [
        c.record_id
        for c, change in zip(candidates, changes, strict=True)
        if any(d.outcome is FieldOutcome.REVIEW for d in change.decisions)
    ]
    if not waiting:
        return changes
    said = context.reviews.said(context.sync_name, target.object_type, waiting)
    return [_with_what_was_said(context, c, change, said) for c, change in zip(candidates, changes, strict=True)]


def _decide(
    context: WriteContext, target: Target, candidate: Candidate, record: Record, histories: Mapping[str, History]
) -> ChangeSet:
    if candidate.amendments:
        return amend(record.ref, record.values, candidate.amendments, schema=target.schema)
    return decide(
        record.ref,
        record.values,
        candidate.wanted,
        placeholders=context.folded_placeholders,
        schema=target.schema,
        history=histories.get(record.ref.id, NO_HISTORY),
        ignored=target.ignored,
    )


def _with_what_was_said(
    context: WriteContext, candidate: Candidate, change: ChangeSet, said: Mapping[tuple[str, str], Review]
) -> ChangeSet:
    """A proposal that a person has refused is not made again."""

    def answered(decision: FieldDecision) -> FieldDecision:
        review = said.get((candidate.record_id, decision.field)) if decision.outcome is FieldOutcome.REVIEW else None
        if review is None or review.state != REFUSED:
            return decision
        if review.proposal != context.reviews.proposal(what_is_proposed(decision)):
            return decision
        reason = f"kept: refused by a person{_on(review.resolved_at)}"
        return decision._replace(outcome=FieldOutcome.KEPT, reason=reason)

    return replace(change, decisions=tuple(map(answered, change.decisions)))


def _on(at: datetime | None) -> str:
    return f" on {at.day} {at:%B %Y}" if at is not None else ""


def _record(current: Mapping[str, Record | None], candidate: Candidate) -> Record:
    record = current[candidate.record_id]
    assert record is not None
    return record
