"""Which answers are believed: the right human, at the right employer, or as a person has said."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from crm_sync.domain.enrichment import Enrichment
from crm_sync.domain.runs import RecordOutcome
from crm_sync.mapping.job_change import changed_employer
from crm_sync.pipeline.walk import Answered, Walk
from crm_sync.store.reviews import ACCEPTED, JOB_CHANGE, MATCH, REFUSED, Proposal, Review


@dataclass(frozen=True, slots=True, kw_only=True)
class _Doubt:
    """Why an answer is not simply written. `what` is what a person would accept; kept as a digest."""

    kind: str
    reason: str
    what: str


def believed(walk: Walk, group: Sequence[Answered]) -> list[tuple[Answered, tuple[Proposal, ...]]]:
    """The group with an end for each whose answer is not written as it is, and what waits for a person then."""
    doubts = {
        answered.due.record.ref.id: some
        for answered in group
        if answered.enrichment is not None and (some := _doubts(walk, answered, answered.enrichment))
    }
    if not doubts:
        return [(answered, ()) for answered in group]
    said = walk.reviews.said(walk.sync_name, walk.object_type, list(doubts))
    found = []
    for answered in group:
        record_id = answered.due.record.ref.id
        own = doubts.get(record_id)
        found.append((answered, ()) if own is None else _held(walk, answered, own, said.get((record_id, ""))))
    return found


def _doubts(walk: Walk, answered: Answered, enrichment: Enrichment) -> tuple[_Doubt, ...]:
    """Whether it is the right human, then whether at the right employer: who says yes to the second has said it to
    the first."""
    keys = answered.due.keys
    who, doubts = enrichment.apollo_id, []
    reason = answered.unproved or walk.distrust(keys, enrichment)
    if reason:
        doubts.append(_Doubt(kind=MATCH, reason=reason, what=f"is {who}"))
    change = walk.sync.job_change
    if change is not None and change.then != "update" and (reason := changed_employer(keys, enrichment)):
        employer = enrichment.organization.get("id") or enrichment.organization.get("primary_domain") or ""
        doubts.append(_Doubt(kind=JOB_CHANGE, reason=reason, what=f"{who} works at {employer}"))
    return tuple(doubts)


def _held(
    walk: Walk, answered: Answered, doubts: Sequence[_Doubt], said: Review | None
) -> tuple[Answered, tuple[Proposal, ...]]:
    left = list(doubts)
    for place, each in enumerate(doubts):
        if said is not None and said.proposal == walk.reviews.proposal(each.what):
            if said.state == REFUSED:
                return _ended(answered, RecordOutcome.SKIPPED, f"{each.reason}; a person has refused it"), ()
            if said.state == ACCEPTED:
                left = list(doubts[place + 1 :])
    if not left:
        return answered, ()
    doubt = left[0]
    if not _waits(walk, answered, doubt):
        return _ended(answered, RecordOutcome.SKIPPED, doubt.reason), ()
    proposal = Proposal(
        object_type=walk.object_type,
        record_id=answered.due.record.ref.id,
        field="",
        kind=doubt.kind,
        what=doubt.what,
        reason=doubt.reason,
    )
    return _ended(answered, RecordOutcome.NEEDS_REVIEW, doubt.reason), (proposal,)


def _waits(walk: Walk, answered: Answered, doubt: _Doubt) -> bool:
    """Whether a person is asked; else it is left aside."""
    if doubt.kind == JOB_CHANGE:
        change = walk.sync.job_change
        return change is not None and change.then == "review"
    return bool(answered.unproved) or walk.match.otherwise == "review"


def _ended(answered: Answered, outcome: RecordOutcome, reason: str) -> Answered:
    return replace(answered, outcome=outcome, reason=reason)
