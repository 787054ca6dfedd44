"""From answers to written records: map, re-read, decide, write, and know for each what became of it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from crm_sync import crash
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
from crm_sync.domain.records import Record, RecordRef, Value
from crm_sync.domain.runs import RecordOutcome, RunKind
from crm_sync.errors import CrmSyncError
from crm_sync.mapping.blanks import is_blank
from crm_sync.mapping.same import same, spelling
from crm_sync.pipeline.audit import Audit
from crm_sync.pipeline.diff import NO_HISTORY, History, amend, decide
from crm_sync.pipeline.follow import Followed, followed, target_elsewhere, wanted_elsewhere
from crm_sync.pipeline.stamped import Sent, Stamped, send, stamps_of
from crm_sync.pipeline.suppress import Subject
from crm_sync.pipeline.walk import Target, WriteContext
from crm_sync.ports import Selection
from crm_sync.store.reviews import FIELD, REFUSED, Proposal, Review

_GONE = "gone from the CRM since it was read"
_NOTHING = "Apollo has no value for any mapped field"
_BUSY = "somebody else changed it each time it was about to be written; the next run takes it again"
#: How often a record is read and decided again because it changed between the read and the write.
_TRIES = 4


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
    them. `reached` is False when the run ended before its turn. `unstamped`: its stamp was not written. `proposals`
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
    unstamped: bool = False
    proposals: tuple[Proposal, ...] = ()
    put_back: int = 0


@dataclass(slots=True, kw_only=True)
class _Round:
    """What is known of the candidates of one call: as they were read, why some are left alone, which are to change,
    and which have their end."""

    current: dict[str, Record | None]
    left_alone: dict[str, str]
    changes: dict[str, ChangeSet]
    settled: dict[str, Settled]


def write_candidates(
    context: WriteContext, target: Target, candidates: Sequence[Candidate], audit: Audit
) -> list[Settled]:
    """Settle each candidate, in order.

    A CRM's failure never raises here: the stop sign goes up, and each record says what is known of it. Who was
    suppressed or opted out since the selection is not written. A record that was merged is followed to its survivor.
    """
    to_read = [c for c in candidates if c.has_wishes or _is_stamped(context, target, c)]
    try:
        current, kinds = _read_for_writing(context, target, to_read)
        where = followed(context, target, {c.record_id: c.keys for c in to_read}, current)
        current.update(where.records)
        left_alone = _left_alone(context, target, to_read, current, kinds)
    except CrmSyncError as error:
        context.stop.raise_(str(error), error)
        return [unreached(c, str(error)) for c in candidates]
    crash.point("write.reread")
    settled, gone = _place(context, target, candidates, current, where, left_alone, kinds, audit)
    if gone:
        all_ids = frozenset(c.record_id for c in candidates)
        settled |= _place_again(context, target, gone, all_ids, kinds, audit)
    return [settled[c.record_id] for c in candidates]


def _place(
    context: WriteContext,
    target: Target,
    candidates: Sequence[Candidate],
    current: dict[str, Record | None],
    where: Followed,
    left_alone: dict[str, str],
    kinds: frozenset[str],
    audit: Audit,
) -> tuple[dict[str, Settled], list[tuple[Candidate, str]]]:
    """Give each its end where it is, or where it went; beside them those that the CRM calls gone, with its words."""
    away = {record_id for refs in where.elsewhere.values() for record_id in refs}
    here = [c for c in candidates if c.record_id not in away]
    state = _Round(current=current, left_alone=left_alone, changes={}, settled={})
    for candidate in here:
        if candidate.record_id in where.closed:
            reason = where.closed[candidate.record_id]
            state.settled[candidate.record_id] = _plain(candidate, RecordOutcome.SKIPPED, reason)
    settled, gone = _carry_out(context, target, here, state, audit)
    for object_type, refs in where.elsewhere.items():
        moved = [c for c in candidates if c.record_id in refs]
        settled |= _write_elsewhere(context, target, object_type, moved, refs, kinds, audit)
    return settled, gone


def _place_again(
    context: WriteContext,
    target: Target,
    gone: Sequence[tuple[Candidate, str]],
    all_ids: frozenset[str],
    kinds: frozenset[str],
    audit: Audit,
) -> dict[str, Settled]:
    """Records that went away between our read and our write: merged, converted (a converted lead is still read, and
    takes no update) or deleted. Their rows are in the audit already."""
    crash.point("write.gone")
    candidates = [candidate for candidate, _ in gone]
    current: dict[str, Record | None] = {candidate.record_id: None for candidate in candidates}
    try:
        where = followed(context, target, {c.record_id: c.keys for c in candidates}, current, beside=all_ids)
        current.update(where.records)
        found = [c for c in candidates if current[c.record_id] is not None]
        left_alone = _left_alone(context, target, found, current, kinds)
    except CrmSyncError as error:
        context.stop.raise_(str(error), error)
        return {c.record_id: replace(unreached(c, str(error)), intended=True) for c in candidates}
    settled, again = _place(context, target, candidates, current, where, left_alone, kinds, audit)
    for candidate, reason in again:  # shown just now, and gone again
        settled[candidate.record_id] = unreached(candidate, reason)
    return {record_id: replace(one, intended=True) for record_id, one in settled.items()}


def _carry_out(
    context: WriteContext, target: Target, candidates: Sequence[Candidate], state: _Round, audit: Audit
) -> tuple[dict[str, Settled], list[tuple[Candidate, str]]]:
    """Decide, write, and decide again what moved meanwhile. Record id -> its end, and those that the CRM calls gone."""
    by_id = {c.record_id: c for c in candidates}
    _decide_all(context, target, candidates, state)
    stamps = stamps_of(context, target, _to_stamp(by_id, state))
    written, sent = _write(context, target, state, state.changes, stamps, by_id, audit)
    written = _again_where_moved(context, target, state, written, sent, by_id, audit)
    gone = [(by_id[record_id], outcome.reason) for record_id, outcome, _ in written if outcome.written is Written.GONE]
    away = {candidate.record_id for candidate, _ in gone}
    for record_id, outcome, change in written:
        if record_id not in away:
            state.settled[record_id] = _written(by_id[record_id], change, state.current[record_id], outcome)
    _stamp_refused(context, target, by_id, state, sent)
    told = {each: _told(state.settled[each], sent) for each in by_id if each not in away}
    return {each: _with_place(one, state.current.get(each)) for each, one in told.items()}, gone


def _write_elsewhere(
    context: WriteContext,
    target: Target,
    object_type: str,
    candidates: Sequence[Candidate],
    refs: Mapping[str, RecordRef],
    kinds: frozenset[str],
    audit: Audit,
) -> dict[str, Settled]:
    """Candidates that live on as another object: what it has a field for is written there."""
    fields = [each.field for c in candidates for each in c.wanted]
    fields += [each.field for c in candidates for each in c.amendments]
    try:
        into = target_elsewhere(context, target, object_type, list(dict.fromkeys(fields)))
        also = () if into.unguarded else into.guard.fields(kinds)
        names = tuple(dict.fromkeys((*into.read_fields, *also)))
        ids = [refs[c.record_id].id for c in candidates]
        read = context.crm.read(object_type, ids, names) if names else [None] * len(ids)
        current = dict(zip((c.record_id for c in candidates), read, strict=True))
        adapted = [_adapted(c, target, into) for c in candidates]
        left_alone = _left_alone(context, into, adapted, current, kinds)
    except CrmSyncError as error:
        context.stop.raise_(str(error), error)
        return {c.record_id: unreached(c, str(error)) for c in candidates}
    state = _Round(current=current, left_alone=left_alone, changes={}, settled={})
    settled, gone = _carry_out(context, into, adapted, state, audit)
    settled |= {c.record_id: replace(unreached(c, why), intended=True) for c, why in gone}
    return settled


def _adapted(candidate: Candidate, target: Target, into: Target) -> Candidate:
    wanted = tuple(
        wanted_elsewhere(each, target.schema, into.schema)
        for each in candidate.wanted
        if each.field in into.schema.fields
    )
    return replace(candidate, wanted=wanted)


def _decide_all(context: WriteContext, target: Target, candidates: Sequence[Candidate], state: _Round) -> None:
    """Give each candidate its change, or its end where there is none."""
    undecided = []
    for candidate in candidates:
        record_id = candidate.record_id
        if record_id in state.settled:
            continue
        if candidate.outcome is not None:
            plain = _plain(candidate, candidate.outcome, candidate.reason)
            state.settled[record_id] = replace(plain, proposals=candidate.proposals)
        elif not candidate.has_wishes:
            state.settled[record_id] = _plain(candidate, RecordOutcome.UNCHANGED, _NOTHING)
        elif state.current.get(record_id) is None:
            state.settled[record_id] = _plain(candidate, RecordOutcome.SKIPPED, _GONE)
        elif record_id in state.left_alone:
            # Not remembered as an attempt: taken off the list, the record is due again.
            left = _plain(candidate, RecordOutcome.SKIPPED, state.left_alone[record_id])
            state.settled[record_id] = replace(left, reached=False)
        else:
            undecided.append(candidate)
    for candidate, change in zip(undecided, _decisions(context, target, undecided, state.current), strict=True):
        if change.writes:
            state.changes[candidate.record_id] = change
        else:
            state.settled[candidate.record_id] = _kept(candidate, change, state.current[candidate.record_id])


def _decisions(
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
        if review.proposal != context.reviews.proposal(_what(decision)):
            return decision
        reason = f"kept: refused by a person{_on(review.resolved_at)}"
        return decision._replace(outcome=FieldOutcome.KEPT, reason=reason)

    return replace(change, decisions=tuple(map(answered, change.decisions)))


def _on(at: datetime | None) -> str:
    return f" on {at.day} {at:%B %Y}" if at is not None else ""


def _what(decision: FieldDecision) -> str:
    return f"{decision.field}={spelling(decision.new)}"


def _record(current: Mapping[str, Record | None], candidate: Candidate) -> Record:
    record = current[candidate.record_id]
    assert record is not None
    return record


def _again_where_moved(
    context: WriteContext,
    target: Target,
    state: _Round,
    written: list[tuple[str, WriteOutcome, ChangeSet]],
    sent: Sent,
    by_id: Mapping[str, Candidate],
    audit: Audit,
) -> list[tuple[str, WriteOutcome, ChangeSet]]:
    """Records that changed between our read and our write are read and decided again, until they are written, need
    nothing any more, or have been tried often enough."""
    ended: list[tuple[str, WriteOutcome, ChangeSet]] = []
    for left in reversed(range(_TRIES)):
        moved = [(record_id, change) for record_id, outcome, change in written if outcome.written is Written.MOVED]
        ended += [each for each in written if each[1].written is not Written.MOVED]
        if not moved:
            return ended
        crash.point("write.moved")
        ids = [record_id for record_id, _ in moved]
        try:
            if left and not context.stop:
                _read_anew(context, target, state, [by_id[each] for each in ids])
        except CrmSyncError as error:
            context.stop.raise_(str(error), error)
        if not left or context.stop:
            reason = context.stop.reason or _BUSY
            return ended + [
                (record_id, WriteOutcome(ref=change.ref, written=Written.NOT_WRITTEN, reason=reason), change)
                for record_id, change in moved
            ]
        for record_id in ids:
            del state.changes[record_id]
        _decide_all(context, target, [by_id[each] for each in ids], state)
        for record_id in ids:
            if record_id in state.settled:  # its intended row is in the audit already
                state.settled[record_id] = replace(state.settled[record_id], intended=True)
        changes = {record_id: state.changes[record_id] for record_id in ids if record_id in state.changes}
        stamps = {record_id: sent.asked[record_id] for record_id in changes if record_id in sent.asked}
        written, again = _write(context, target, state, changes, stamps, by_id, audit)
        sent.add(again)
    raise AssertionError("unreachable")


def _read_anew(context: WriteContext, target: Target, state: _Round, candidates: Sequence[Candidate]) -> None:
    """As the records are now: what a person changed may also be that they are to be left alone."""
    kinds = context.screen.kinds_now()
    also = () if target.unguarded else target.guard.fields(kinds)
    ids = [candidate.record_id for candidate in candidates]
    fields = tuple(dict.fromkeys((*target.read_fields, *also)))
    read = context.crm.read(target.object_type, _asked(state, ids), fields)
    state.current.update(zip(ids, read, strict=True))
    state.left_alone.update(_left_alone(context, target, candidates, state.current, kinds))


def _asked(state: _Round, ids: Sequence[str]) -> list[str]:
    """The ids to read these records by: the survivor's of one that was merged."""
    found = []
    for record_id in ids:
        record = state.current[record_id]
        found.append(record.ref.id if record is not None else record_id)
    return found


def _is_stamped(context: WriteContext, target: Target, candidate: Candidate) -> bool:
    has_stamps = context.kind is RunKind.RUN and bool(target.stamping.fields)
    return has_stamps and candidate.answered_at is not None and target.object_type == context.object_type


def _to_stamp(candidates: Mapping[str, Candidate], state: _Round) -> list[Stamped]:
    found = []
    for record_id, candidate in candidates.items():
        record = state.current.get(record_id)
        if record is not None and candidate.answered_at is not None and record_id not in state.left_alone:
            is_written = record_id in state.changes
            word = RecordOutcome.UPDATED if is_written else state.settled[record_id].outcome
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
    context: WriteContext, target: Target, candidates: Mapping[str, Candidate], state: _Round, sent: Sent
) -> None:
    """Records whose data the CRM refused: their answer is paid for all the same, so they get its stamp alone, and the
    word says Rejected where it said Updated."""
    refused = [
        record_id
        for record_id in state.changes
        if record_id in state.settled
        and state.settled[record_id].outcome is RecordOutcome.REJECTED
        and record_id not in sent.unstamped
    ]
    if not refused or context.stop or target.object_type != context.object_type:
        return
    records = []
    for record_id in refused:
        record, answered_at = state.current[record_id], candidates[record_id].answered_at
        if record is not None and answered_at is not None:
            shown = {**record.values, **sent.stamps.get(record_id, {})}
            word = RecordOutcome.REJECTED.value
            records.append(Stamped(record_id=record_id, values=shown, answered_at=answered_at, word=word, data=True))
    late = send(context, target, _known(state), {}, stamps_of(context, target, records))
    sent.unstamped.update(late.unstamped)


#: How the reason of a record ends that was written elsewhere: to the survivor of a merge, to what a lead became.
ELSEWHERE = re.compile(r"(?:\A|; )now (?P<object>\S+) (?P<id>\S+)\Z")


def _with_place(settled: Settled, record: Record | None) -> Settled:
    if record is None or record.ref.id == settled.record_id or not settled.decisions:
        return settled
    place = f"now {record.ref.object_type} {record.ref.id}"
    return replace(settled, reason="; ".join(filter(None, (settled.reason, place))))


def _known(state: _Round) -> dict[str, Record]:
    return {record_id: record for record_id, record in state.current.items() if record is not None}


def _told(settled: Settled, sent: Sent) -> Settled:
    why = sent.unstamped.get(settled.record_id)
    if why is None:
        return settled
    reason = "; ".join(part for part in (settled.reason, f"not stamped: {why}") if part)
    is_reached = settled.reached and settled.record_id not in sent.later
    return replace(settled, reason=reason, reached=is_reached, unstamped=True)


def _read(
    context: WriteContext, target: Target, candidates: Sequence[Candidate], *, also: tuple[str, ...] = ()
) -> dict[str, Record | None]:
    if not candidates:
        return {}
    ids = [c.record_id for c in candidates]
    fields = tuple(dict.fromkeys((*target.read_fields, *also))) if also else target.read_fields
    return dict(zip(ids, context.crm.read(target.object_type, ids, fields), strict=True))


def _read_for_writing(
    context: WriteContext, target: Target, candidates: Sequence[Candidate]
) -> tuple[dict[str, Record | None], frozenset[str]]:
    """The records with all that may say they are to be left alone, and the kinds of suppressions that there are."""
    if target.unguarded:
        return _read(context, target, candidates), frozenset()
    kinds = context.screen.kinds_now()
    current = _read(context, target, candidates, also=target.guard.fields(kinds))
    since = context.screen.kinds_now()
    if candidates and since - kinds:  # the first of its kind came while we were reading
        current = _read(context, target, candidates, also=target.guard.fields(since))
    return current, since


def _left_alone(
    context: WriteContext,
    target: Target,
    candidates: Sequence[Candidate],
    current: Mapping[str, Record | None],
    kinds: frozenset[str],
) -> dict[str, str]:
    """Record id -> why it must not be written, by what it and the suppressions say now."""
    if target.unguarded:
        return {}
    guard = target.guard
    subjects = [
        Subject(record_id=c.record_id, values=record.values, keys=c.keys, enrichment=c.enrichment)
        for c in candidates
        if (record := current[c.record_id]) is not None
    ]
    refused = context.screen.refusals(guard, subjects, kinds)
    linked = [
        subject.record_id
        for subject in subjects
        if subject.record_id not in refused and any(subject.values.get(link) for link in guard.links)
    ]
    if linked:
        selection = Selection(object_type=target.object_type, fields=guard.distant_fields, ids=tuple(linked))
        for page in context.crm.select(selection):
            for record in page.records:
                if reason := guard.distant_refusal(record.values):
                    refused[record.ref.id] = reason
    return refused


def _write(
    context: WriteContext,
    target: Target,
    state: _Round,
    changes: Mapping[str, ChangeSet],
    stamps: Mapping[str, Mapping[str, Value]],
    candidates: Mapping[str, Candidate],
    audit: Audit,
) -> tuple[list[tuple[str, WriteOutcome, ChangeSet]], Sent]:
    if context.kind is RunKind.PLAN:
        planned = [
            (record_id, WriteOutcome(ref=change.ref, written=Written.PLANNED), change)
            for record_id, change in changes.items()
        ]
        return planned, Sent()
    if changes:
        audit.intend(target, changes, candidates)
    data = {record_id: change.writes for record_id, change in changes.items()}
    sent = send(context, target, _known(state), data, stamps)
    if changes:
        crash.point("write.answered")
    results = [(record_id, sent.outcomes[record_id], change) for record_id, change in changes.items()]
    return _account(context, target, state, results, candidates), sent


def _account(
    context: WriteContext,
    target: Target,
    state: _Round,
    results: list[tuple[str, WriteOutcome, ChangeSet]],
    candidates: Mapping[str, Candidate],
) -> list[tuple[str, WriteOutcome, ChangeSet]]:
    """What the CRM's answer left open is read again and judged by what the record holds; nothing is assumed."""
    open_ = [record_id for record_id, outcome, _ in results if outcome.written is Written.UNACCOUNTED]
    if not open_:
        return results
    crash.point("write.unaccounted")
    found: dict[str, Record | None] = {}
    try:
        read = context.crm.read(target.object_type, _asked(state, open_), target.read_fields)
        found = dict(zip(open_, read, strict=True))
        left = _left_to_write(context, target, [candidates[each] for each in open_], found)
    except CrmSyncError as error:
        context.stop.raise_(str(error), error)
        left = {}
    return [
        (record_id, _judge(target, change, outcome, record_id, found, left), change)
        if outcome.written is Written.UNACCOUNTED
        else (record_id, outcome, change)
        for record_id, outcome, change in results
    ]


def _left_to_write(
    context: WriteContext, target: Target, candidates: Sequence[Candidate], found: Mapping[str, Record | None]
) -> dict[str, bool]:
    """Record id -> whether there would still be something to write, for those that are there."""
    there = [candidate for candidate in candidates if found[candidate.record_id] is not None]
    changes = _decisions(context, target, there, found)
    return {candidate.record_id: bool(change.writes) for candidate, change in zip(there, changes, strict=True)}


def _judge(
    target: Target,
    change: ChangeSet,
    outcome: WriteOutcome,
    record_id: str,
    found: Mapping[str, Record | None],
    left: Mapping[str, bool],
) -> WriteOutcome:
    if record_id not in found:
        reason = f"not known whether it was written ({outcome.reason}); the next run reads it again"
        return replace(outcome, reason=reason)
    if record_id not in left:
        return replace(outcome, written=Written.GONE, reason=_GONE)
    if not left[record_id]:
        record = found[record_id]
        if outcome.restored or (record is not None and _has_arrived(target, change, record)):
            return replace(outcome, written=Written.WRITTEN, reason="")
        return replace(outcome, reason=f"not known whether it was written ({outcome.reason}), and changed since")
    reason = f"{outcome.reason}; read again, the record does not hold the value"
    return replace(outcome, written=Written.NOT_WRITTEN, reason=reason)


def _has_arrived(target: Target, change: ChangeSet, record: Record) -> bool:
    """Whether the record holds one of the values: a write of it comes whole or not at all. Where it holds none, a
    person may have filled what we never wrote."""
    fields = target.schema.fields
    return any(
        (is_blank(new) and is_blank(record.values[name])) or same(record.values[name], new, fields[name].kind)
        for name, new in change.writes.items()
        if name in record.values
    )


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


def _kept(candidate: Candidate, change: ChangeSet, record: Record | None) -> Settled:
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
            what=_what(decision),
            reason=decision.reason,
        )
        for decision in change.decisions
        if decision.outcome is FieldOutcome.REVIEW
    )


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


def _written(candidate: Candidate, change: ChangeSet, record: Record | None, outcome: WriteOutcome) -> Settled:
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
