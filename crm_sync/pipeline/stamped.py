"""Writing with stamps: in the same write as the data, alone where there is none, and never at the cost of a field."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

from crm_sync.domain.changes import WriteOutcome, Written
from crm_sync.domain.records import Record, Value
from crm_sync.domain.runs import RunKind
from crm_sync.errors import CrmSyncError
from crm_sync.mapping.blanks import is_blank
from crm_sync.mapping.stamps import WORDS
from crm_sync.pipeline.walk import Target, WriteContext
from crm_sync.ports import WriteRequest
from crm_sync.spans import span

Values = Mapping[str, Value]


@dataclass(frozen=True, slots=True, kw_only=True)
class Stamped:
    """A record to stamp: what it holds, when Apollo answered, and what became of it. `data`: values are written in the
    same request."""

    record_id: str
    values: Values
    answered_at: datetime
    word: str
    data: bool


@dataclass(slots=True, kw_only=True)
class Sent:
    """What became of a sending: an outcome for each record with data; the stamps that were taken, of those `asked`
    for; why a record was not stamped, and which of those a later run tries again."""

    outcomes: dict[str, WriteOutcome] = field(default_factory=dict)
    stamps: dict[str, Values] = field(default_factory=dict)
    asked: dict[str, Values] = field(default_factory=dict)
    unstamped: dict[str, str] = field(default_factory=dict)
    later: set[str] = field(default_factory=set)

    def add(self, later: Sent) -> None:
        """What became of some of its records when they were sent once more."""
        self.outcomes.update(later.outcomes)
        self.stamps.update(later.stamps)
        self.unstamped.update(later.unstamped)
        self.later |= later.later


def stamps_of(context: WriteContext, target: Target, records: Iterable[Stamped]) -> dict[str, dict[str, Value]]:
    """The stamp fields to write, by record; nobody who needs none.

    A parent is stamped only with its data: nobody asked Apollo about it, its values came with a person.
    """
    if context.kind is not RunKind.RUN or not target.stamping.fields:
        return {}
    found = {
        record.record_id: target.stamping.wanted(record.values, record.answered_at, record.word, with_data=record.data)
        for record in records
        if record.word in WORDS and (record.data or target.object_type == context.object_type)
    }
    return {record_id: values for record_id, values in found.items() if values}


def send(
    context: WriteContext,
    target: Target,
    records: Mapping[str, Record],
    data: Mapping[str, Values],
    stamps: Mapping[str, Values],
) -> Sent:
    """Write each record's data and stamp in one request. `records`: as they were re-read, which may be the survivor of
    a merge. A blank in `data` erases.

    A record that is refused with its stamp is sent again without: a rule of the CRM's may be about the stamp.
    """
    sent = Sent(asked=dict(stamps))
    ids = list(dict.fromkeys([*data, *stamps]))
    again: dict[str, WriteOutcome] = {}
    requests = [_request(records[each], data.get(each, {}), stamps.get(each, {})) for each in ids]
    for record_id, outcome in zip(ids, _write(context, target, requests), strict=True):
        stamp = stamps.get(record_id, {})
        refused = [f"{name}: {why}" for name, why in outcome.dropped if name in stamp]
        if record_id not in data:
            _note_alone(sent, record_id, outcome, refused)
            continue
        if refused:
            sent.unstamped[record_id] = "; ".join(refused)
        if outcome.written is Written.WRITTEN:
            sent.stamps[record_id] = {name: stamp[name] for name in stamp if name not in dict(outcome.dropped)}
        elif outcome.written is Written.REJECTED and stamp:
            again[record_id] = outcome
        of_data = tuple(each for each in outcome.dropped if each[0] not in stamp)
        sent.outcomes[record_id] = replace(outcome, dropped=of_data)
    if again and not context.stop:
        requests = [_request(records[each], data[each], {}) for each in again]
        for record_id, outcome in zip(again, _write(context, target, requests), strict=True):
            sent.outcomes[record_id] = outcome
            if outcome.written is Written.WRITTEN:
                sent.unstamped[record_id] = again[record_id].reason
    return sent


def _request(record: Record, data: Values, stamp: Values) -> WriteRequest:
    erased = frozenset(name for name, value in data.items() if is_blank(value))
    return WriteRequest(ref=record.ref, values={**data, **stamp}, seen=record, erase=erased)


def _note_alone(sent: Sent, record_id: str, outcome: WriteOutcome, refused: Sequence[str]) -> None:
    """A stamp without data. One whose answer was lost is looked at again by the next run, and costs nothing then."""
    if outcome.written in (Written.UNACCOUNTED, Written.NOT_WRITTEN):
        sent.unstamped[record_id] = outcome.reason
        sent.later.add(record_id)
    elif outcome.written is Written.REJECTED or refused:
        sent.unstamped[record_id] = "; ".join(refused) or outcome.reason


def _write(context: WriteContext, target: Target, requests: Sequence[WriteRequest]) -> list[WriteOutcome]:
    if not requests:
        return []
    mode = context.mode
    context.changed += len(requests)
    try:
        with span("crm write", object=target.object_type, records=len(requests), mode=mode.value) as told:
            outcomes = context.crm.write(target.object_type, requests, mode=mode, jobs=context.jobs)
            found = Counter(each.written.value.replace(" ", "_") for each in outcomes)
            told.tell(**found)
        return outcomes
    except CrmSyncError as error:
        context.stop.raise_(str(error), error)
        return [WriteOutcome(ref=r.ref, written=Written.NOT_WRITTEN, reason=str(error)) for r in requests]
