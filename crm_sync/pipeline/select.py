"""Which records are due: lacking something mapped, or past their refresh window."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from crm_sync import crash
from crm_sync.config.expressions import both
from crm_sync.config.model import Phones
from crm_sync.domain.changes import WriteRule
from crm_sync.domain.enrichment import Purpose
from crm_sync.domain.records import Record
from crm_sync.domain.runs import RecordOutcome
from crm_sync.mapping.blanks import lacking
from crm_sync.mapping.phones import phone_fields
from crm_sync.pipeline.suppress import Subject
from crm_sync.pipeline.walk import Due, Walk, seen
from crm_sync.ports import Selection
from crm_sync.store.answers import StoredAnswer
from crm_sync.store.journal import IN_DOUBT
from crm_sync.store.runs import SETTLED, RecordState

#: Refreshed records are looked up by id this many at a time (one HubSpot search takes 100 values).
_REFRESH_PAGE = 100

#: Rules that write, where they never wrote before, into what is blank alone.
_NEED_BLANK = (WriteRule.FILL, WriteRule.TRACK)

LEFT_OUT_SEEN = "nothing new since the last attempt"
LEFT_OUT_DOUBT = "in doubt"
#: Due, and more than this run takes, by the CRM's count, or where it does not count what is due, as many as were seen.
LEFT_OUT_MORE = "beyond the limit"
LEFT_OUT_SEEN_MORE = "beyond the limit, as far as it looked"


@dataclass(frozen=True, slots=True, kw_only=True)
class DuePage:
    """Selected records with what the store already knows of each; `expected` is the CRM's own count, None unknown."""

    due: tuple[Due, ...]
    stored: dict[str, StoredAnswer]
    expected: int | None


class _Read(NamedTuple):
    """Records as a leg of the selection read them. `refresh`: whatever was tried with them before; `untold`: those that
    were attempted before are not worth a word."""

    records: Sequence[Record]
    expected: int | None = None
    refresh: bool = False
    untold: bool = False


def due_pages(walk: Walk, left_out: Counter[str]) -> Iterator[DuePage]:
    """Pages of due records, at most `walk.at_most` in all; counts into `left_out` what is not selected and why."""
    room = walk.at_most
    for read in _pages(walk):
        crash.point("select.page")
        page = _sift(walk, read, left_out)
        if room is not None:
            if len(page.due) > room:
                left_out[LEFT_OUT_SEEN_MORE] += len(page.due) - room
            page = DuePage(due=page.due[:room], stored=page.stored, expected=page.expected)
            room -= len(page.due)
        crash.point("select.sifted")
        if page.due:
            yield page
        if walk.stop or room == 0:
            return


def _pages(walk: Walk) -> Iterator[_Read]:
    """First what lacks something, then what is past the window, then whose phone alone is wanted. The second cannot
    overlap the first (see `_refresh`)."""
    choose = walk.sync.choose
    if walk.only:
        yield from _named(walk, walk.only)
        return
    selection = Selection(
        object_type=walk.sync.object_type,
        fields=selected_fields(walk),
        where=choose.where,
        missing_any=choose.missing_any,
        placeholders=walk.placeholders,
    )
    phones = walk.sync.phones if choose.missing_any else None
    taken: set[str] = set()
    for page in walk.crm.select(selection):
        if phones is not None:
            taken.update(record.ref.id for record in page.records)
        yield _Read(page.records, page.expected)
    if choose.or_older_than is not None and choose.missing_any:
        for read in _refresh(walk, selection):
            if phones is not None:
                taken.update(record.ref.id for record in read.records)
            yield read
    if phones is not None:
        # Whose phone is wanted and who lacks nothing else has to be matched once, or nobody knows whom to ask for.
        for page in walk.crm.select(to_be_revealed(walk, phones)):
            others = [each for each in page.records if each.ref.id not in taken and not _lacking(walk, each)]
            if others:
                yield _Read(others, untold=True)


def named_pages(walk: Walk, record_ids: Sequence[str], left_out: Counter[str]) -> Iterator[DuePage]:
    """As due_pages, of records that were selected before: those that are gone since, are to be left alone or are in
    doubt by now are not among them."""
    for read in _named(walk, record_ids):
        page = _sift(walk, read, left_out)
        if page.due:
            yield page


def _named(walk: Walk, record_ids: Sequence[str]) -> Iterator[_Read]:
    """The records that were named, whatever they lack and whatever was tried with them; the sync's filter holds."""
    for start in range(0, len(record_ids), _REFRESH_PAGE):
        ids = tuple(record_ids[start : start + _REFRESH_PAGE])
        selection = Selection(
            object_type=walk.sync.object_type, fields=selected_fields(walk), where=walk.sync.choose.where, ids=ids
        )
        for page in walk.crm.select(selection):
            if page.records:
                yield _Read(page.records, refresh=True)


def _refresh(walk: Walk, selection: Selection) -> Iterator[_Read]:
    """Records that lack nothing and were last attempted before the window began."""
    after = ""
    while True:
        ids = walk.runs.attempted_before(
            walk.sync.name, walk.sync.object_type, walk.fresh_since, SETTLED, after=after, limit=_REFRESH_PAGE
        )
        if not ids:
            return
        after = ids[-1]
        again = Selection(
            object_type=selection.object_type, fields=selection.fields, where=selection.where, ids=tuple(ids)
        )
        for page in walk.crm.select(again):
            complete = [r for r in page.records if not _lacking(walk, r)]
            if complete:
                yield _Read(complete, refresh=True)


def to_be_revealed(walk: Walk, phones: Phones) -> Selection:
    """Who is to get a phone: both filters hold, and one of the fields that it may go to is blank, if a blank is what
    the rule writes to."""
    fields = phone_fields(phones)
    needs_blank = phones.rule in _NEED_BLANK
    names = dict.fromkeys((*selected_fields(walk), *fields))
    if phones.mark:
        names[phones.mark] = None
    return Selection(
        object_type=walk.object_type,
        fields=tuple(names),
        where=both(walk.sync.choose.where, phones.reveal_when),
        missing_any=fields if needs_blank and not walk.only else (),
        placeholders=walk.placeholders,
        ids=walk.only,
    )


def is_marked(record: Record, phones: Phones) -> bool:
    """Whether the record itself says that nobody is to be called."""
    return bool(phones.mark) and record.values.get(phones.mark) is True


def to_reveal(walk: Walk, due: Sequence[Due]) -> frozenset[str]:
    """The ids of those among these records whose phone is to be ordered with their match: not of those whose numbers
    are here already, by an order whose answer was lost."""
    phones = walk.sync.phones
    if phones is None or not due:
        return frozenset()
    here = walk.answers.look_up(Purpose.PHONE, (each.keys.key for each in due))
    due = [each for each in due if each.keys.key not in here]
    chosen: set[str] = set()
    selection = to_be_revealed(walk, phones)
    blank = phone_fields(phones) if phones.rule in _NEED_BLANK else ()
    for start in range(0, len(due), _REFRESH_PAGE):
        ids = tuple(each.record.ref.id for each in due[start : start + _REFRESH_PAGE])
        for page in walk.crm.select(replace(selection, ids=ids, missing_any=())):
            for record in page.records:
                if not is_marked(record, phones) and (
                    not blank or lacking(record.values, blank, walk.folded_placeholders)
                ):
                    chosen.add(record.ref.id)
    return frozenset(chosen)


def selected_fields(walk: Walk) -> tuple[str, ...]:
    """What a selection reads: the match keys, the fields that may lack, the way to the parent, and what may say that
    somebody is to be left alone."""
    names = dict.fromkeys(name for key in walk.sync.match.send for name in key.fields)
    names.update(dict.fromkeys(walk.sync.choose.missing_any))
    if walk.sync.parent is not None:
        names[walk.sync.parent.via] = None
    names.update(dict.fromkeys(walk.target.guard.fields(walk.screen.kinds)))
    names.update(dict.fromkeys(walk.target.guard.distant_fields))
    return tuple(names)


def _lacking(walk: Walk, record: Record) -> tuple[str, ...]:
    return lacking(record.values, walk.sync.choose.missing_any, walk.folded_placeholders)


def _sift(walk: Walk, read: _Read, left_out: Counter[str]) -> DuePage:
    """Leave out what was attempted with the same result ahead, who is to be left alone, and what is in doubt."""
    ids = [record.ref.id for record in read.records]
    states = walk.runs.states(walk.sync.name, walk.sync.object_type, ids)
    candidates = []
    for record in read.records:
        due = Due(record=record, keys=walk.keys_of(record.values), lacking=_lacking(walk, record))
        state = states.get(record.ref.id)
        if (
            state is not None
            and not read.refresh
            and _settled(walk, state)
            and state.seen == seen(walk, due.keys, due.lacking)
        ):
            left_out[LEFT_OUT_SEEN] += not read.untold
        else:
            candidates.append(due)
    candidates = without_suppressed(walk, candidates, left_out)
    stored = walk.answers.look_up(walk.purpose, (due.keys.key for due in candidates))
    doubtful = {key for key, answer in stored.items() if answer.verdict == IN_DOUBT}
    if doubtful:
        kept = [due for due in candidates if due.keys.key not in doubtful]
        left_out[LEFT_OUT_DOUBT] += len(candidates) - len(kept)
        candidates = kept
    return DuePage(due=tuple(candidates), stored=stored, expected=read.expected)


def without_suppressed(walk: Walk, candidates: list[Due], left_out: Counter[str]) -> list[Due]:
    """They are not selected at all: no row, no attempt to remember, so that they are due at once when taken off the
    list, and nothing is kept of somebody who was erased."""
    guard = walk.target.guard
    subjects = [Subject(record_id=d.record.ref.id, values=d.record.values, keys=d.keys) for d in candidates]
    refused = walk.screen.refusals(guard, subjects, walk.screen.kinds_now())
    if guard.distant:
        for subject in subjects:
            if subject.record_id not in refused and (reason := guard.distant_refusal(subject.values)):
                refused[subject.record_id] = reason
    left_out.update(refused.values())
    return [due for due in candidates if due.record.ref.id not in refused] if refused else candidates


def _settled(walk: Walk, state: RecordState) -> bool:
    if state.outcome not in SETTLED:
        return False
    since = walk.no_match_since if state.outcome == RecordOutcome.NO_MATCH.value else walk.fresh_since
    return state.attempted_at >= since
