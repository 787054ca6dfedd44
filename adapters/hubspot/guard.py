"""After a strict write: which edits made at the same time it went over, and putting them back, once.

HubSpot has no conditional write (contracts/hubspot.md 3), so the property history is read after the write
(contracts/hubspot.md 8). Decides, does not talk.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

from adapters.hubspot.history import MOST_WITH_HISTORY, Version, judge, moment_of, versions_of
from adapters.hubspot.wire import value_reader
from adapters.hubspot.writing import Input
from crm_sync.domain.changes import WriteOutcome, Written
from crm_sync.domain.records import FieldKind, ObjectSchema, Record, RecordRef
from crm_sync.errors import ProviderError

#: (ids, properties) -> records by the id asked for, with "propertiesWithHistory"; raises ProviderError.
Histories = Callable[[Sequence[str], Sequence[str]], Mapping[str, Mapping[str, Any]]]
#: Sends inputs and returns an outcome per trace id; never raises a ProviderError.
PutBack = Callable[[Sequence[Input]], Mapping[str, WriteOutcome]]


@dataclass(slots=True, eq=False, kw_only=True)
class _Watched:
    """One record whose write may have gone over something.

    `sent`: what we wrote, `seen`: the record as it was when that was decided. `edits`: per property what was gone over,
    with the version that is to give way. `said`: what there is to report, in sentences without values.
    """

    trace_id: str
    ref: RecordRef
    sent: Mapping[str, str]
    seen: Record
    is_proven: bool
    edits: dict[str, tuple[Version, Version]] = field(default_factory=dict)
    restored: dict[str, str] = field(default_factory=dict)
    said: list[str] = field(default_factory=list)


class Guard:
    def __init__(self, *, histories: Histories, put_back: PutBack, schema: ObjectSchema) -> None:
        self._histories = histories
        self._put_back = put_back
        self._schema = schema

    def check(
        self, inputs: Sequence[Input], seen: Mapping[str, Record | None], outcomes: Mapping[str, WriteOutcome]
    ) -> dict[str, WriteOutcome]:
        """The outcomes with what was restored, by trace id, as `seen` is: the records as the changes were decided on.

        Of a record that is unaccounted our write may have arrived all the same, so it is watched too. Never raises a
        ProviderError: what could not be checked or put back is said in the outcome, which stays as it is.
        """
        watched = [
            one for each in inputs if (one := self._watch(each, seen.get(each.trace_id), outcomes[each.trace_id]))
        ]
        for start in range(0, len(watched), MOST_WITH_HISTORY):
            chunk = watched[start : start + MOST_WITH_HISTORY]
            self._find(chunk)
            gone_over = [one for one in chunk if one.edits]
            if gone_over:
                self._restore(gone_over)  # at once: until then our value stands where theirs did
        changed = {one.trace_id: self._told(one, outcomes[one.trace_id]) for one in watched}
        return {**outcomes, **changed}

    @staticmethod
    def _watch(one: Input, seen: Record | None, outcome: WriteOutcome) -> _Watched | None:
        if seen is None or outcome.written not in (Written.WRITTEN, Written.UNACCOUNTED):
            return None
        sent = {name: text for name, text in one.properties.items() if name in seen.values}
        if not sent:
            return None
        return _Watched(
            trace_id=one.trace_id,
            ref=outcome.ref,
            sent=sent,
            seen=seen,
            is_proven=outcome.written is Written.WRITTEN,
        )

    def _find(self, watched: Sequence[_Watched]) -> None:
        """Note each edit that our write went over."""
        try:
            found = self._read(watched, lambda one: one.sent)
        except ProviderError as error:
            for one in watched:
                one.said.append(f"not checked for edits made at the same time: {error}")
            return
        for one in watched:
            raw = found.get(one.ref.id, {})
            unknown = []
            for name, text in one.sent.items():
                versions = versions_of(raw, name)
                if versions is None:
                    unknown.append(name)
                    continue
                # The survivor of a merge may hold what the other record held for years: that too is not what was seen.
                since = moment_of(one.seen.version) if raw["id"] == one.seen.ref.id else None
                kind = self._kind(name)
                judged = judge(versions, sent=text, seen=one.seen.values[name], kind=kind, since=since)
                if judged.edit is not None and judged.newest is not None:
                    one.edits[name] = (judged.edit, judged.newest)
                elif not judged.is_known:
                    unknown.append(name)
            if unknown and one.is_proven:
                one.said.append(f"HubSpot's history does not tell whether {_list(unknown)} was edited at the same time")

    def _restore(self, watched: Sequence[_Watched]) -> None:
        """Put each edit back, once: a person who edits again is not fought."""
        inputs = [
            Input(
                ref=one.ref,
                trace_id=one.trace_id,
                properties={name: edit.text for name, (edit, _) in one.edits.items()},
            )
            for one in watched
        ]
        outcomes = self._put_back(inputs)
        found: Mapping[str, Mapping[str, Any]] = {}
        with suppress(ProviderError):  # what became of it is then what the answer to the putting back says
            found = self._read(watched, lambda one: one.edits)
        for one in watched:
            for name, (edit, ours) in one.edits.items():
                versions = versions_of(found.get(one.ref.id, {}), name)
                self._settle(one, name, edit, ours, versions, outcomes[one.trace_id])

    def _settle(
        self,
        one: _Watched,
        name: str,
        edit: Version,
        ours: Version,
        versions: Sequence[Version] | None,
        outcome: WriteOutcome,
    ) -> None:
        if not versions:
            is_back = outcome.written is Written.WRITTEN and name not in dict(outcome.dropped)
            newest = edit if is_back else ours
        else:
            kind = self._kind(name)
            judged = judge(versions, sent=edit.text, seen=ours.text, kind=kind, since=ours.at)
            newest = versions[0]
            if judged.edit is not None:
                one.said.append(
                    f"{name} was edited again while the edit before was put back, and that last value was gone over; "
                    "HubSpot's history of the property has it"
                )
        if newest == ours:
            why = dict(outcome.dropped).get(name) or outcome.reason or "HubSpot does not show it"
            one.said.append(f"the write went over an edit of {name} that could not be put back: {why}")
        else:
            one.restored[name] = newest.text

    def _read(
        self, watched: Sequence[_Watched], of: Callable[[_Watched], Iterable[str]]
    ) -> Mapping[str, Mapping[str, Any]]:
        names = list(dict.fromkeys(name for one in watched for name in of(one)))
        return self._histories([one.ref.id for one in watched], names)

    def _told(self, one: _Watched, outcome: WriteOutcome) -> WriteOutcome:
        if not one.restored and not one.said:
            return outcome
        values = value_reader(self._schema, tuple(one.restored))(one.restored)
        reason = "; ".join(part for part in (outcome.reason, *one.said) if part)
        restored = tuple((name, None if value == "" else value) for name, value in values.items())
        return replace(outcome, reason=reason, restored=restored)

    def _kind(self, name: str) -> FieldKind | None:
        known = self._schema.fields.get(name)
        return known.kind if known is not None else None


def _list(names: Iterable[str]) -> str:
    return ", ".join(names)
