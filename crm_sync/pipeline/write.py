"""From answers to written records: map, re-read, decide, write, and know for each what became of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from crm_sync import crash
from crm_sync.domain.changes import ChangeSet, FieldDecision, FieldOutcome, WantedValue, WriteOutcome, Written
from crm_sync.domain.enrichment import Enrichment, MatchKeys
from crm_sync.domain.records import Record, RecordRef, Value
from crm_sync.domain.runs import RecordOutcome, RunKind
from crm_sync.errors import CrmSyncError
from crm_sync.pipeline.audit import Audit
from crm_sync.pipeline.diff import decide
from crm_sync.pipeline.stamped import Sent, Stamped, send, stamps_of
from crm_sync.pipeline.suppress import Subject
from crm_sync.pipeline.walk import Target, Walk
from crm_sync.ports import Selection

_GONE = "gone from the CRM since it was read"
_NOTHING = "Apollo has no value for any mapped field"


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A record with what the mapping wants it to hold, and whom it is about: by the keys Apollo was asked by, and by
    its answer, which came at `answered_at`. `outcome` is set where Apollo had nothing for it: it is here to be
    stamped."""

    record_id: str
    wanted: tuple[WantedValue, ...]
    batch_id: int | None
    keys: MatchKeys | None = None
    enrichment: Enrichment | None = None
    answered_at: datetime | None = None
    outcome: RecordOutcome | None = None
    reason: str = ""

    @property
    def key(self) -> str:
        return self.keys.key if self.keys is not None else ""

    @property
    def has_wishes(self) -> bool:
        return any(w.value is not None or w.problem for w in self.wanted)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settled:
    """One candidate's end.

    `key` is the MatchKeys.key that was asked by. `values` is what the record holds now, as far as it was read and
    written; None where it was not read. `intended`:
    the audit holds a row for it from before the write, and `as_intended` that its decisions came out as that row has
    them. `reached` is False when the run ended before its turn. `unstamped`: its stamp was not written.
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
    unstamped: bool = False


def write_candidates(walk: Walk, target: Target, candidates: Sequence[Candidate], audit: Audit) -> list[Settled]:
    """Settle each candidate, in order.

    A CRM's failure never raises here: the stop sign goes up, and each record says what is known of it. Who was
    suppressed or opted out since the selection is not written.
    """
    to_read = [c for c in candidates if c.has_wishes or _is_stamped(walk, target, c)]
    try:
        current, kinds = _read_for_writing(walk, target, to_read)
        left_alone = _left_alone(walk, target, to_read, current, kinds)
    except CrmSyncError as error:
        walk.stop.raise_(str(error), error)
        return [unreached(c, str(error)) for c in candidates]
    crash.point("write.reread")
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
        if candidate.record_id in left_alone:
            # Not remembered as an attempt: taken off the list, the record is due again.
            left = _plain(candidate, RecordOutcome.SKIPPED, left_alone[candidate.record_id])
            settled[candidate.record_id] = replace(left, reached=False)
            continue
        change = _decide(walk, target, candidate, record)
        if change.writes:
            changes[candidate.record_id] = change
        else:
            settled[candidate.record_id] = _kept(candidate, change, record)
    by_id = {c.record_id: c for c in candidates}
    stamps = stamps_of(walk, target, _to_stamp(by_id, current, settled, changes, left_alone))
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
    left_alone: Mapping[str, str],
) -> list[Stamped]:
    found = []
    for record_id, candidate in candidates.items():
        record = current.get(record_id)
        if record is not None and candidate.answered_at is not None and record_id not in left_alone:
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


def _read(
    walk: Walk, target: Target, candidates: Sequence[Candidate], *, also: tuple[str, ...] = ()
) -> dict[str, Record | None]:
    if not candidates:
        return {}
    ids = [c.record_id for c in candidates]
    fields = tuple(dict.fromkeys((*target.read_fields, *also))) if also else target.read_fields
    return dict(zip(ids, walk.crm.read(target.object_type, ids, fields), strict=True))


def _read_for_writing(
    walk: Walk, target: Target, candidates: Sequence[Candidate]
) -> tuple[dict[str, Record | None], frozenset[str]]:
    """The records with all that may say they are to be left alone, and the kinds of suppressions that there are."""
    kinds = walk.screen.kinds_now()
    current = _read(walk, target, candidates, also=target.guard.fields(kinds))
    since = walk.screen.kinds_now()
    if candidates and since - kinds:  # the first of its kind came while we were reading
        current = _read(walk, target, candidates, also=target.guard.fields(since))
    return current, since


def _left_alone(
    walk: Walk,
    target: Target,
    candidates: Sequence[Candidate],
    current: Mapping[str, Record | None],
    kinds: frozenset[str],
) -> dict[str, str]:
    """Record id -> why it must not be written, by what it and the suppressions say now."""
    subjects = [
        Subject(record_id=c.record_id, values=record.values, keys=c.keys, enrichment=c.enrichment)
        for c in candidates
        if (record := current[c.record_id]) is not None
    ]
    refused = walk.screen.refusals(target.guard, subjects, kinds)
    linked = [
        subject.record_id
        for subject in subjects
        if subject.record_id not in refused and any(subject.values.get(link) for link in target.guard.links)
    ]
    if linked:
        selection = Selection(object_type=target.object_type, fields=target.guard.distant_fields, ids=tuple(linked))
        for page in walk.crm.select(selection):
            for record in page.records:
                if reason := target.guard.distant_refusal(record.values):
                    refused[record.ref.id] = reason
    return refused


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
        audit.intend(target, changes, candidates)
    data = {record_id: change.writes for record_id, change in changes.items()}
    sent = send(walk, target, refs, data, stamps)
    if changes:
        crash.point("write.answered")
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
    crash.point("write.unaccounted")
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
        return replace(outcome, reason=reason)
    record = found[candidate.record_id]
    if record is None:
        return replace(outcome, written=Written.REJECTED, reason=_GONE)
    left = _decide(walk, target, candidate, record).writes
    if not left:
        return replace(outcome, written=Written.WRITTEN, reason="")
    reason = f"{outcome.reason}; read again, the record does not hold the value"
    return replace(outcome, written=Written.NOT_WRITTEN, reason=reason)


def _plain(candidate: Candidate, outcome: RecordOutcome, reason: str) -> Settled:
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
        key=candidate.key,
        values=record.values,
    )


def _unwritten(candidate: Candidate, change: ChangeSet, outcome: WriteOutcome) -> Settled:
    """No fault of the record: the next run takes it again, and the values stand as what it would have got."""
    is_certain = outcome.written is Written.NOT_WRITTEN
    return Settled(
        record_id=candidate.record_id,
        outcome=RecordOutcome.SKIPPED,
        reason=f"not written: {outcome.reason}" if is_certain else outcome.reason,
        decisions=tuple(
            d._replace(outcome=FieldOutcome.PLANNED, reason="not written") if d.outcome is FieldOutcome.WRITTEN else d
            for d in change.decisions
        ),
        batch_id=candidate.batch_id,
        intended=True,
        reached=False,
    )


def _written(candidate: Candidate, change: ChangeSet, record: Record | None, outcome: WriteOutcome) -> Settled:
    """The decisions as the CRM took them."""
    if outcome.written in (Written.NOT_WRITTEN, Written.UNACCOUNTED):
        return _unwritten(candidate, change, outcome)
    before = record.values if record is not None else {}
    if outcome.written is Written.WRITTEN and not outcome.dropped:
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
        key=candidate.key,
        values=values,
        intended=outcome.written is not Written.PLANNED,
    )
