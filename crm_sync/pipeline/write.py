"""From changes to written records: re-read, follow, decide, write, and know for each what became of it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from crm_sync import crash
from crm_sync.domain.changes import ChangeSet, WriteOutcome, Written
from crm_sync.domain.records import Record, RecordRef, Value
from crm_sync.domain.runs import RecordOutcome, RunKind
from crm_sync.errors import CrmSyncError
from crm_sync.mapping.blanks import is_blank
from crm_sync.mapping.same import same
from crm_sync.pipeline.audit import Audit
from crm_sync.pipeline.deciding import decisions_for
from crm_sync.pipeline.follow import (
    Followed,
    followed,
    identifying,
    is_stranger,
    target_elsewhere,
    wanted_elsewhere,
)
from crm_sync.pipeline.settled import Candidate, Settled, as_written, kept, plain, unreached
from crm_sync.pipeline.stamped import Sent, Stamped, send, stamps_of
from crm_sync.pipeline.suppress import Subject
from crm_sync.pipeline.walk import Target, WriteContext
from crm_sync.ports import Selection

_GONE = "gone from the CRM since it was read"
_NOTHING = "Apollo has no value for any mapped field"
_BUSY = "somebody else changed it each time it was about to be written; the next run takes it again"
#: How often a record is read and decided again because it changed between the read and the write.
_TRIES = 4


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
            state.settled[candidate.record_id] = plain(candidate, RecordOutcome.SKIPPED, reason)
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
            state.settled[record_id] = as_written(by_id[record_id], change, state.current[record_id], outcome)
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
    fields += identifying(context, target)
    try:
        into = target_elsewhere(context, target, object_type, list(dict.fromkeys(fields)))
        names = into.fields_to_read(kinds)
        ids = [refs[c.record_id].id for c in candidates]
        read = context.crm.read(object_type, ids, names) if names else [None] * len(ids)
        current = dict(zip((c.record_id for c in candidates), read, strict=True))
        adapted = [_adapted(c, target, into) for c in candidates]
        left_alone = _left_alone(context, into, adapted, current, kinds)
    except CrmSyncError as error:
        context.stop.raise_(str(error), error)
        return {c.record_id: unreached(c, str(error)) for c in candidates}
    state = _Round(current=current, left_alone=left_alone, changes={}, settled={})
    for candidate, there in zip(candidates, adapted, strict=True):
        ref, record = refs[candidate.record_id], current[candidate.record_id]
        why = ""
        if record is not None and is_stranger(context, candidate.keys, record.values):
            why = f"became {object_type} {ref.id}, which is not about whom Apollo was asked for"
        elif candidate.has_wishes and not there.has_wishes:
            why = f"became {object_type} {ref.id}, which has none of the fields that would be written"
        if why:
            state.settled[candidate.record_id] = plain(candidate, RecordOutcome.SKIPPED, why)
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
            ended = plain(candidate, candidate.outcome, candidate.reason)
            state.settled[record_id] = replace(ended, proposals=candidate.proposals)
        elif not candidate.has_wishes:
            state.settled[record_id] = plain(candidate, RecordOutcome.UNCHANGED, _NOTHING)
        elif state.current.get(record_id) is None:
            state.settled[record_id] = plain(candidate, RecordOutcome.SKIPPED, _GONE)
        elif record_id in state.left_alone:
            # Not remembered as an attempt: taken off the list, the record is due again.
            left = plain(candidate, RecordOutcome.SKIPPED, state.left_alone[record_id])
            state.settled[record_id] = replace(left, reached=False, left_alone=True)
        else:
            undecided.append(candidate)
    for candidate, change in zip(undecided, decisions_for(context, target, undecided, state.current), strict=True):
        if change.writes:
            state.changes[candidate.record_id] = change
        else:
            state.settled[candidate.record_id] = kept(candidate, change, state.current[candidate.record_id])


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
    ids = [candidate.record_id for candidate in candidates]
    read = context.crm.read(target.object_type, _asked(state, ids), target.fields_to_read(kinds))
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
    context: WriteContext, target: Target, candidates: Sequence[Candidate], kinds: frozenset[str]
) -> dict[str, Record | None]:
    if not candidates:
        return {}
    ids = [c.record_id for c in candidates]
    fields = target.fields_to_read(kinds)
    return dict(zip(ids, context.crm.read(target.object_type, ids, fields), strict=True))


def _read_for_writing(
    context: WriteContext, target: Target, candidates: Sequence[Candidate]
) -> tuple[dict[str, Record | None], frozenset[str]]:
    """The records with all that may say they are to be left alone, and the kinds of suppressions that there are."""
    if target.unguarded:
        return _read(context, target, candidates, frozenset()), frozenset()
    kinds = context.screen.kinds_now()
    current = _read(context, target, candidates, kinds)
    since = context.screen.kinds_now()
    if candidates and since - kinds:  # the first of its kind came while we were reading
        current = _read(context, target, candidates, since)
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
    changes = decisions_for(context, target, there, found)
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
