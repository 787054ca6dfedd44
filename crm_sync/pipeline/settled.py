"""One record on its way to the CRM, and its end: what became of it, in the words that every surface shows. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from crm_sync.domain.changes import (
    PUT_BACK,
    Amendment,
    ChangeSet,
    FieldDecision,
    FieldOutcome,
    WantedValue,
    WriteOutcome,
    Written,
)
from crm_sync.domain.enrichment import Enrichment, MatchKeys
from crm_sync.domain.records import Record, Value
from crm_sync.domain.runs import RecordOutcome
from crm_sync.mapping.same import spelling
from crm_sync.store.reviews import FIELD, Proposal


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A record with what is to become of it, and whom it is about: by the keys Apollo was asked by, and by its answer,
    which came at `answered_at`.

    `wanted` is what the mapping wants it to hold; `amendments` are changes that were settled before, and stand in its
    place. `outcome` is set where nothing is written for it: it is here to be stamped; `proposals` wait for a person.
    """

    record_id: str
    wanted: tuple[WantedValue, ...] = ()
    amendments: tuple[Amendment, ...] = ()
    batch_id: int | None = None
    keys: MatchKeys | None = None
    enrichment: Enrichment | None = None
    answered_at: datetime | None = None
    outcome: RecordOutcome | None = None
    reason: str = ""
    proposals: tuple[Proposal, ...] = ()

    @property
    def key(self) -> str:
        return self.keys.key if self.keys is not None else ""

    @property
    def has_wishes(self) -> bool:
        return bool(self.amendments) or any(w.value is not None or w.problem for w in self.wanted)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settled:
    """One candidate's end.

    `key` is the MatchKeys.key that was asked by. `values` is what the record holds now, as far as it was read and
    written; None where it was not read. `intended`:
    the audit holds a row for it from before the write, and `as_intended` that its decisions came out as that row has
    them. `reached` is False when the run ended before its turn, and of
    one that is `left_alone`, by what it or a list says now. `unstamped`: its stamp was not written. `proposals`
    wait for a person; `put_back`: fields in which an edit was restored that our write had gone over.
    """

    record_id: str
    outcome: RecordOutcome
    reason: str = ""
    decisions: tuple[FieldDecision, ...] = ()
    batch_id: int | None = None
    key: str = ""
    values: Mapping[str, Value] | None = None
    intended: bool = False
    as_intended: bool = False
    reached: bool = True
    left_alone: bool = False
    unstamped: bool = False
    proposals: tuple[Proposal, ...] = ()
    put_back: int = 0


def plain(candidate: Candidate, outcome: RecordOutcome, reason: str) -> Settled:
    return Settled(
        record_id=candidate.record_id,
        outcome=outcome,
        reason=reason,
        batch_id=candidate.batch_id,
        key=candidate.key,
    )


def unreached(candidate: Candidate, error: str) -> Settled:
    """Left as it is, for no fault of its own: the next run takes it again."""
    if candidate.outcome is not None:
        return replace(plain(candidate, candidate.outcome, f"{candidate.reason}; not stamped: {error}"), reached=False)
    return replace(plain(candidate, RecordOutcome.SKIPPED, f"not written: {error}"), reached=False)


def kept(candidate: Candidate, change: ChangeSet, record: Record | None) -> Settled:
    outcome, reason = _without_writing(change.decisions)
    return Settled(
        record_id=candidate.record_id,
        outcome=outcome,
        reason=reason,
        decisions=change.decisions,
        batch_id=candidate.batch_id,
        key=candidate.key,
        values=record.values if record is not None else None,
        proposals=_proposals(candidate, change),
    )


def _without_writing(decisions: Sequence[FieldDecision]) -> tuple[RecordOutcome, str]:
    """What a record is called of which nothing is written, worst first."""
    for word, outcome in (
        (FieldOutcome.INVALID, RecordOutcome.INVALID),
        (FieldOutcome.REVIEW, RecordOutcome.NEEDS_REVIEW),
        (FieldOutcome.CONFLICT, RecordOutcome.SKIPPED),
    ):
        first = next((d for d in decisions if d.outcome is word), None)
        if first is not None:
            return outcome, f"{first.field}: {first.reason}"
    return RecordOutcome.UNCHANGED, ""


def _proposals(candidate: Candidate, change: ChangeSet) -> tuple[Proposal, ...]:
    return tuple(
        Proposal(
            object_type=change.ref.object_type,
            record_id=candidate.record_id,
            field=decision.field,
            kind=FIELD,
            what=what_is_proposed(decision),
            reason=decision.reason,
        )
        for decision in change.decisions
        if decision.outcome is FieldOutcome.REVIEW
    )


def what_is_proposed(decision: FieldDecision) -> str:
    return f"{decision.field}={spelling(decision.new)}"


def _unwritten(candidate: Candidate, change: ChangeSet, outcome: WriteOutcome) -> Settled:
    """No fault of the record: the next run takes it again, and the values stand as what it would have got."""
    is_certain = outcome.written is Written.NOT_WRITTEN
    word, reason = (
        (FieldOutcome.PLANNED, "not written") if is_certain else (FieldOutcome.UNCONFIRMED, "not known whether written")
    )
    return Settled(
        record_id=candidate.record_id,
        outcome=RecordOutcome.SKIPPED,
        reason=f"not written: {outcome.reason}" if is_certain else outcome.reason,
        decisions=tuple(
            d._replace(outcome=word, reason=reason) if d.outcome is FieldOutcome.WRITTEN else d
            for d in change.decisions
        ),
        batch_id=candidate.batch_id,
        intended=True,
        reached=False,
    )


def as_written(candidate: Candidate, change: ChangeSet, record: Record | None, outcome: WriteOutcome) -> Settled:
    """The decisions as the CRM took them."""
    if outcome.written in (Written.NOT_WRITTEN, Written.UNACCOUNTED):
        return _unwritten(candidate, change, outcome)
    before = record.values if record is not None else {}
    proposals = _proposals(candidate, change)
    if outcome.written is Written.WRITTEN and not outcome.dropped and not outcome.restored:
        return Settled(
            record_id=candidate.record_id,
            outcome=RecordOutcome.UPDATED,
            reason=outcome.reason,
            decisions=change.decisions,
            batch_id=candidate.batch_id,
            key=candidate.key,
            values={**before, **change.writes},
            intended=True,
            as_intended=True,
            proposals=proposals,
        )
    values = dict(before)
    dropped, restored = dict(outcome.dropped), dict(outcome.restored)
    decisions = []
    for decision in change.decisions:
        if decision.outcome is not FieldOutcome.WRITTEN:
            decisions.append(decision)
        elif outcome.written is Written.PLANNED:
            decisions.append(decision._replace(outcome=FieldOutcome.PLANNED))
        elif outcome.written is Written.REJECTED or decision.field in dropped:
            reason = dropped.get(decision.field) or outcome.reason
            decisions.append(decision._replace(outcome=FieldOutcome.REJECTED, reason=f"refused: {reason}"))
        elif decision.field in restored:
            values[decision.field] = restored[decision.field]
            old = restored[decision.field]
            decisions.append(decision._replace(outcome=FieldOutcome.KEPT, old=old, reason=PUT_BACK))
        else:
            decisions.append(decision)
            values[decision.field] = decision.new
    saved = any(d.outcome in (FieldOutcome.WRITTEN, FieldOutcome.PLANNED) for d in decisions)
    reasons = [outcome.reason or "; ".join(f"{field}: {why}" for field, why in outcome.dropped)]
    if restored:
        reasons.append(f"{', '.join(restored)}: changed by a person while we wrote, and put back")
    if saved:
        word = RecordOutcome.UPDATED
    elif restored and outcome.written is Written.WRITTEN:
        word = RecordOutcome.UNCHANGED
    else:
        word = RecordOutcome.REJECTED
    return Settled(
        record_id=candidate.record_id,
        outcome=word,
        reason="; ".join(filter(None, reasons)),
        decisions=tuple(decisions),
        batch_id=candidate.batch_id,
        key=candidate.key,
        values=values,
        intended=outcome.written is not Written.PLANNED,
        proposals=proposals,
        put_back=len(restored),
    )
