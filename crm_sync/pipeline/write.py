"""From answers to written records: map, re-read, decide, write, and know for each what became of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from crm_sync.domain.changes import ChangeSet, FieldDecision, FieldOutcome, WantedValue, WriteOutcome, Written
from crm_sync.domain.records import Record, RecordRef, Value
from crm_sync.domain.runs import RecordOutcome, RunKind
from crm_sync.errors import CrmSyncError
from crm_sync.pipeline.audit import Audit
from crm_sync.pipeline.diff import decide
from crm_sync.pipeline.stamped import Sent, Stamped, send, stamps_of
from crm_sync.pipeline.walk import Target, Walk

_GONE = "gone from the CRM since it was read"
_NOTHING = "Apollo has no value for any mapped field"


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A record with what the mapping wants it to hold, and when Apollo told it. `outcome` is set where Apollo had
    nothing for it: it is here to be stamped."""

    record_id: str
    wanted: tuple[WantedValue, ...]
    batch_id: int | None
    answered_at: datetime | None = None
    outcome: RecordOutcome | None = None
    reason: str = ""

    @property
    def has_wishes(self) -> bool:
        return any(w.value is not None or w.problem for w in self.wanted)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settled:
    """One candidate's end.

    `values` is what the record holds now, as far as it was read and written; None where it was not read. `intended`:
    the audit holds a row for it from before the write, and `as_intended` that its decisions came out as that row has
    them. `reached` is False when the run ended before its turn. `unstamped`: its stamp was not written.
    """

    record_id: str
    outcome: RecordOutcome
    reason: str = ""
    decisions: tuple[FieldDecision, ...] = ()
    batch_id: int | None = None
    values: Mapping[str, Value] | None = None
    intended: bool = False
    as_intended: bool = False
    reached: bool = True
    unstamped: bool = False


def write_candidates(walk: Walk, target: Target, candidates: Sequence[Candidate], audit: Audit) -> list[Settled]:
    """Settle each candidate, in order.

    A CRM's failure never raises here: the stop sign goes up, and each record says what is known of it.
    """
    to_read = [c for c in candidates if c.has_wishes or _is_stamped(walk, target, c)]
    try:
        current = _read(walk, target, to_read)
    except CrmSyncError as error:
        walk.stop.raise_(str(error), error)
        return [_unreached(c, str(error)) for c in candidates]
    changes: dict[str, ChangeSet] = {}
    settled: dict[str, Settled] = {}
    for candidate in candidates:
        record = current.get(candidate.record_id)
        if candidate.outcome is not None:
            settled[candidate.record_id] = _plain(candidate, candidate.outcome, candidate.reason)
            continue
        if not candidate.has_wishes:
            settled[candidate.record_id] = _plain(candidate, RecordOutcome.UNCHANGED, _NOTHING)
            continue
        if record is None:
            settled[candidate.record_id] = _plain(candidate, RecordOutcome.SKIPPED, _GONE)
            continue
        change = _decide(walk, target, candidate, record)
        if change.writes:
            changes[candidate.record_id] = change
        else:
            settled[candidate.record_id] = _kept(candidate, change, record)
    by_id = {c.record_id: c for c in candidates}
    stamps = stamps_of(walk, target, _to_stamp(by_id, current, settled, changes))
    refs = {record_id: record.ref for record_id, record in current.items() if record is not None}
    written, sent = _write(walk, target, refs, changes, stamps, by_id, audit)
    for record_id, outcome, change in written:
        settled[record_id] = _written(by_id[record_id], change, current[record_id], outcome)
    _stamp_refused(walk, target, by_id, current, settled, changes, sent)
    return [_told(settled[c.record_id], sent) for c in candidates]


def _is_stamped(walk: Walk, target: Target, candidate: Candidate) -> bool:
    has_stamps = walk.kind is RunKind.RUN and bool(target.stamping.fields)
    return has_stamps and candidate.answered_at is not None and target is walk.target


def _to_stamp(
    candidates: Mapping[str, Candidate],
    current: Mapping[str, Record | None],
    settled: Mapping[str, Settled],
    changes: Mapping[str, ChangeSet],
) -> list[Stamped]:
    found = []
    for record_id, candidate in candidates.items():
        record = current.get(record_id)
        if record is not None and candidate.answered_at is not None:
            is_written = record_id in changes
            word = RecordOutcome.UPDATED if is_written else settled[record_id].outcome
            found.append(
                Stamped(
                    record_id=record_id,
                    values=record.values,
                    answered_at=candidate.answered_at,
                    word=word.value,
                    data=is_written,
                )
            )
    return found


def _stamp_refused(
    walk: Walk,
    target: Target,
    candidates: Mapping[str, Candidate],
    current: Mapping[str, Record | None],
    settled: dict[str, Settled],
    changes: Mapping[str, ChangeSet],
    sent: Sent,
) -> None:
    """Records whose data the CRM refused: their answer is paid for all the same, so they get its stamp alone, and the
    word says Rejected where it said Updated."""
    refused = [
        record_id
        for record_id in changes
        if settled[record_id].outcome is RecordOutcome.REJECTED and record_id not in sent.unstamped
    ]
    if not refused or walk.stop or target is not walk.target:
        return
    records = []
    for record_id in refused:
        record, answered_at = current[record_id], candidates[record_id].answered_at
        if record is not None and answered_at is not None:
            shown = {**record.values, **sent.stamps.get(record_id, {})}
            word = RecordOutcome.REJECTED.value
            records.append(Stamped(record_id=record_id, values=shown, answered_at=answered_at, word=word, data=True))
    refs = {record_id: record.ref for record_id, record in current.items() if record is not None}
    late = send(walk, target, refs, {}, stamps_of(walk, target, records))
    sent.unstamped.update(late.unstamped)


def _told(settled: Settled, sent: Sent) -> Settled:
    why = sent.unstamped.get(settled.record_id)
    if why is None:
        return settled
    reason = "; ".join(part for part in (settled.reason, f"not stamped: {why}") if part)
    is_reached = settled.reached and settled.record_id not in sent.later
    return replace(settled, reason=reason, reached=is_reached, unstamped=True)


def _read(walk: Walk, target: Target, candidates: Sequence[Candidate]) -> dict[str, Record | None]:
    if not candidates:
        return {}
    ids = [c.record_id for c in candidates]
    return dict(zip(ids, walk.crm.read(target.object_type, ids, target.read_fields), strict=True))


def _decide(walk: Walk, target: Target, candidate: Candidate, record: Record) -> ChangeSet:
    return decide(
        record.ref,
        record.values,
        candidate.wanted,
        placeholders=walk.folded_placeholders,
        schema=target.schema,
    )


def _write(
    walk: Walk,
    target: Target,
    refs: Mapping[str, RecordRef],
    changes: Mapping[str, ChangeSet],
    stamps: Mapping[str, Mapping[str, Value]],
    candidates: Mapping[str, Candidate],
    audit: Audit,
) -> tuple[list[tuple[str, WriteOutcome, ChangeSet]], Sent]:
    if walk.kind is RunKind.PLAN:
        planned = [
            (record_id, WriteOutcome(ref=change.ref, written=Written.PLANNED), change)
            for record_id, change in changes.items()
        ]
        return planned, Sent()
    if changes:
        audit.intend(target, changes, {record_id: c.batch_id for record_id, c in candidates.items()})
    data = {record_id: change.writes for record_id, change in changes.items()}
    sent = send(walk, target, refs, data, stamps)
    results = [(record_id, sent.outcomes[record_id], change) for record_id, change in changes.items()]
    return _account(walk, target, results, candidates), sent


def _account(
    walk: Walk,
    target: Target,
    results: list[tuple[str, WriteOutcome, ChangeSet]],
    candidates: Mapping[str, Candidate],
) -> list[tuple[str, WriteOutcome, ChangeSet]]:
    """What the CRM's answer left open is read again and judged by what the record holds; nothing is assumed."""
    open_ = [record_id for record_id, outcome, _ in results if outcome.written is Written.UNACCOUNTED]
    if not open_:
        return results
    try:
        found = _read(walk, target, [candidates[record_id] for record_id in open_])
    except CrmSyncError as error:
        walk.stop.raise_(str(error), error)
        found = {}
    return [
        (record_id, _judge(walk, target, candidates[record_id], outcome, found), change)
        if outcome.written is Written.UNACCOUNTED
        else (record_id, outcome, change)
        for record_id, outcome, change in results
    ]


def _judge(
    walk: Walk, target: Target, candidate: Candidate, outcome: WriteOutcome, found: Mapping[str, Record | None]
) -> WriteOutcome:
    if candidate.record_id not in found:
        reason = f"not known whether it was written ({outcome.reason}); the next run reads it again"
        return replace(outcome, written=Written.REJECTED, reason=reason)
    record = found[candidate.record_id]
    if record is None:
        return replace(outcome, written=Written.REJECTED, reason=_GONE)
    left = _decide(walk, target, candidate, record).writes
    if not left:
        return replace(outcome, written=Written.WRITTEN, reason="")
    reason = f"the CRM's answer was lost and the record does not hold the value ({outcome.reason})"
    return replace(outcome, written=Written.REJECTED, reason=reason)


def _plain(candidate: Candidate, outcome: RecordOutcome, reason: str) -> Settled:
    return Settled(record_id=candidate.record_id, outcome=outcome, reason=reason, batch_id=candidate.batch_id)


def _unreached(candidate: Candidate, error: str) -> Settled:
    if candidate.outcome is not None:
        return replace(_plain(candidate, candidate.outcome, f"{candidate.reason}; not stamped: {error}"), reached=False)
    return replace(_plain(candidate, RecordOutcome.SKIPPED, f"not written: {error}"), reached=False)


def _kept(candidate: Candidate, change: ChangeSet, record: Record) -> Settled:
    invalid = [d for d in change.decisions if d.outcome is FieldOutcome.INVALID]
    return Settled(
        record_id=candidate.record_id,
        outcome=RecordOutcome.INVALID if invalid else RecordOutcome.UNCHANGED,
        reason=f"{invalid[0].field}: {invalid[0].reason}" if invalid else "",
        decisions=change.decisions,
        batch_id=candidate.batch_id,
        values=record.values,
    )


def _written(candidate: Candidate, change: ChangeSet, record: Record | None, outcome: WriteOutcome) -> Settled:
    """The decisions as the CRM took them."""
    before = record.values if record is not None else {}
    if outcome.written is Written.WRITTEN and not outcome.dropped:
        return Settled(
            record_id=candidate.record_id,
            outcome=RecordOutcome.UPDATED,
            reason=outcome.reason,
            decisions=change.decisions,
            batch_id=candidate.batch_id,
            values={**before, **change.writes},
            intended=True,
            as_intended=True,
        )
    values = dict(before)
    dropped = dict(outcome.dropped)
    decisions = []
    for decision in change.decisions:
        if decision.outcome is not FieldOutcome.WRITTEN:
            decisions.append(decision)
        elif outcome.written is Written.PLANNED:
            decisions.append(decision._replace(outcome=FieldOutcome.PLANNED))
        elif outcome.written is Written.REJECTED or decision.field in dropped:
            reason = dropped.get(decision.field) or outcome.reason
            decisions.append(decision._replace(outcome=FieldOutcome.REJECTED, reason=f"refused: {reason}"))
        else:
            decisions.append(decision)
            values[decision.field] = decision.new
    saved = any(d.outcome in (FieldOutcome.WRITTEN, FieldOutcome.PLANNED) for d in decisions)
    reason = outcome.reason or "; ".join(f"{field}: {why}" for field, why in outcome.dropped)
    return Settled(
        record_id=candidate.record_id,
        outcome=RecordOutcome.UPDATED if saved else RecordOutcome.REJECTED,
        reason=reason,
        decisions=tuple(decisions),
        batch_id=candidate.batch_id,
        values=values,
        intended=outcome.written is not Written.PLANNED,
    )
