"""Numbers that came, on their way to the records that wait for them: judged, written, and told what became of each."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from crm_sync import crash
from crm_sync.config.model import Phones, Sync
from crm_sync.domain.changes import FieldOutcome, WantedValue
from crm_sync.domain.enrichment import Enrichment, MatchKeys, Verdict
from crm_sync.domain.records import Record
from crm_sync.domain.reveals import PhoneNumber
from crm_sync.domain.runs import RecordOutcome
from crm_sync.errors import ContractError
from crm_sync.mapping.identities import of_phone
from crm_sync.mapping.phones import COUNTRY_FIELDS, Judged, NumberVerdict, judge, phone_fields, region_of, wanted
from crm_sync.pipeline.belief import believed
from crm_sync.pipeline.follow import is_same
from crm_sync.pipeline.phone_runs import PhoneRuns
from crm_sync.pipeline.settled import Candidate, Settled, plain
from crm_sync.pipeline.suppress import DO_NOT_ENRICH
from crm_sync.pipeline.walk import Answered, Due, Walk
from crm_sync.pipeline.write import ELSEWHERE, write_candidates
from crm_sync.services import Services
from crm_sync.store.reveals import (
    APPLIED,
    HELD,
    KEPT,
    LISTED,
    NO_NUMBER,
    REJECTED,
    SKIPPED,
    Wait,
    WaitEnd,
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Awaited:
    """One record with the numbers that came for it, by the delivery and the call that ordered them. `is_erased`: they
    are of somebody who was erased, whatever record waits for them."""

    wait: Wait
    numbers: tuple[PhoneNumber, ...]
    delivery_id: int
    ordered_by: int
    is_erased: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class _Asked:
    """Whom a record's person was taken for: the keys asked by and what Apollo answered, as far as it is kept."""

    keys: MatchKeys | None = None
    enrichment: Enrichment | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Ready:
    """A record as it is now, with its numbers judged; `field_gone` says which field they would go to and cannot."""

    awaited: Awaited
    record: Record | None
    whom: _Asked
    judged: tuple[Judged, ...]
    candidate: Candidate
    field_gone: str


class PhoneWriting:
    def __init__(self, services: Services, runs: PhoneRuns) -> None:
        self._services = services
        self._runs = runs

    def write(self, sync: Sync, awaited: Sequence[Awaited]) -> tuple[dict[int, WaitEnd], str]:
        """Wait -> its end; those that are missing were not reached, for the reason beside them. All are of `sync`.

        Raises:
            CrmSyncError: the CRM cannot be read; nothing was written.
        """
        assert sync.phones is not None
        walk = self._runs.walk(sync, [each.wait.record_id for each in awaited])
        size = walk.crm.read_size
        ends: dict[int, WaitEnd] = {}
        try:
            for start in range(0, len(awaited), size):
                self._write_some(walk, sync.phones, awaited[start : start + size], ends)
                if walk.stop:
                    break
        finally:
            self._runs.saw(sync.name)
        return ends, walk.stop.reason

    def _write_some(self, walk: Walk, phones: Phones, awaited: Sequence[Awaited], ends: dict[int, WaitEnd]) -> None:
        def ended(wait: Wait, state: str, reason: str) -> None:
            ends[wait.id] = WaitEnd(wait_id=wait.id, state=state, reason=reason, run_id=walk.run_id)

        ready = {each.awaited.wait.record_id: each for each in self._ready(walk, phones, awaited)}
        settled: list[Settled] = []
        candidates: list[Candidate] = []
        for each in ready.values():
            refusal = _refusal(walk, each, self._services)
            if refusal is None and each.candidate.has_wishes:
                candidates.append(each.candidate)
                continue
            state, reason = refusal or _without_number(each.judged, each.field_gone)
            ended(each.awaited.wait, state, reason)
            settled.append(plain(each.candidate, RecordOutcome.SKIPPED, reason))
        crash.point("resolve.judged")
        if settled:
            self._runs.close(walk, settled)
        if not candidates:
            return
        written = write_candidates(walk, walk.target, candidates, self._runs.audit(walk))
        self._runs.close(walk, written)
        for one in written:
            # Else it is written by a later try.
            if one.reached or one.left_alone or not (walk.stop or one.intended):
                mine = ready[one.record_id]
                ended(mine.awaited.wait, *_end_of(one, phones, mine))

    # --- reading and judging --------------------------------------------------------------------------------------

    def _ready(self, walk: Walk, phones: Phones, awaited: Sequence[Awaited]) -> list[_Ready]:
        ids = [each.wait.record_id for each in awaited]
        read = walk.crm.read(walk.object_type, ids, _fields(walk, phones))
        current = dict(zip(ids, read, strict=True))
        asked = self._asked(awaited)
        suppressed = self._suppressed(awaited, phones, current)
        found = []
        for each in awaited:
            record, whom = current[each.wait.record_id], asked[each.wait.id]
            judged = judge(each.numbers, phones, region=_region(record), suppressed=suppressed)
            wishes, field_gone = _wishes(wanted(judged, phones), walk)
            candidate = Candidate(
                record_id=each.wait.record_id,
                wanted=wishes,
                batch_id=each.ordered_by,
                keys=walk.keys_of(record.values) if record is not None else whom.keys,
                enrichment=whom.enrichment,
            )
            found.append(
                _Ready(
                    awaited=each,
                    record=record,
                    whom=whom,
                    judged=judged,
                    candidate=candidate,
                    field_gone=field_gone,
                )
            )
        return found

    def _suppressed(
        self, awaited: Sequence[Awaited], phones: Phones, current: Mapping[str, Record | None]
    ) -> frozenset[str]:
        """The numbers among these, in E.164, that are to be left alone."""
        numbers: Iterable[Judged] = (
            one for each in awaited for one in judge(each.numbers, phones, region=_region(current[each.wait.record_id]))
        )
        barred = self._services.suppressions.among({of_phone(one.e164) for one in numbers if one.e164})
        return frozenset(identity.partition(":")[2] for identity in barred)

    def _asked(self, awaited: Sequence[Awaited]) -> dict[int, _Asked]:
        """Wait -> whom its record was taken for when the phone was ordered."""
        services = self._services
        stored = services.answers.load(each.wait.batch_id for each in awaited)
        found: dict[int, _Asked] = {}
        for each in awaited:
            batch, position = stored.get(each.wait.batch_id), each.wait.position
            found[each.wait.id] = _Asked()
            if batch is None or position >= len(batch.keys):
                continue
            try:
                reading = services.enricher().read(batch.purpose, batch.keys, batch.body)
            except ContractError:
                continue
            found[each.wait.id] = _Asked(keys=batch.keys[position], enrichment=reading.enrichments[position])
        return found


def _fields(walk: Walk, phones: Phones) -> tuple[str, ...]:
    """What is read of a record: what tells whom it is about, its country, and what its numbers go to."""
    # The CRMs read a record again by its own fields alone, so its company's site is not among them.
    names = [name for key in walk.match.send for name in key.fields if "." not in name]
    names += [*phone_fields(phones), *COUNTRY_FIELDS.get(walk.object_type, ())]
    schema = walk.target.schema.fields
    return tuple(dict.fromkeys(name for name in names if name in schema and schema[name].readable))


def _region(record: Record | None) -> str:
    return region_of(record.values) if record is not None else ""


def _wishes(wanted: Sequence[WantedValue], walk: Walk) -> tuple[tuple[WantedValue, ...], str]:
    """What is wished of the record, nothing where no field gets a value; and a field that should have got one and is
    not in the CRM any more."""
    schema = walk.target.schema.fields
    gone = next((one.field for one in wanted if one.value is not None and one.field not in schema), "")
    there = tuple(one for one in wanted if one.field in schema)
    return (there if any(one.value is not None for one in there) else ()), gone


# --- what becomes of a wait -------------------------------------------------------------------------------------------


def _refusal(walk: Walk, each: _Ready, services: Services) -> tuple[str, str] | None:
    """Why a record gets no number whatever came, and what its wait is called then."""
    wait, record, whom = each.awaited.wait, each.record, each.whom
    if each.awaited.is_erased:
        return SKIPPED, f"{DO_NOT_ENRICH}: the person was erased"
    if record is None:
        return None  # it may live on elsewhere: writing follows it
    if wait.batch_id == each.awaited.ordered_by and (doubt := _doubt(walk, record, whom)):
        return HELD, doubt  # matched and ordered in one call, before anybody could look at the match
    keys = walk.keys_of(record.values)
    if services.answers.identity(keys.key) == wait.identity:
        return None
    if whom.keys is None or not _is_renamed(whom.keys, keys):
        if whom.keys is not None and is_same(whom.keys, keys):
            return None
        if whom.enrichment is not None and not walk.distrust(keys, whom.enrichment):
            return None
    return HELD, "the record is not about whom the phone was asked for any more"


def _is_renamed(asked: MatchKeys, now: MatchKeys) -> bool:
    """Whether a record has got another name and another address since: a LinkedIn page that stayed proves nothing then,
    as it may be the one that crm-sync wrote itself."""
    names = [(each.name or f"{each.first_name} {each.last_name}").strip().casefold() for each in (asked, now)]
    return all((*names, asked.email, now.email)) and names[0] != names[1] and asked.email != now.email


def _doubt(walk: Walk, record: Record, whom: _Asked) -> str:
    """Why the answer that the phone was ordered with is not believed to be about the record; "" when it is."""
    if whom.keys is None or whom.enrichment is None:
        return ""
    unproved = whom.enrichment.reason if whom.enrichment.verdict is Verdict.UNPROVED else ""
    due = Due(record=record, keys=whom.keys, lacking=())
    ((answered, _),) = believed(walk, [Answered(due=due, enrichment=whom.enrichment, unproved=unproved)])
    return answered.reason if answered.outcome is not None else ""


def _end_of(settled: Settled, phones: Phones, ready: _Ready) -> tuple[str, str]:
    """What a record's wait is called after the write, and why."""
    fields = phone_fields(phones)
    mine = [decision for decision in settled.decisions if decision.field in fields]

    def those(*words: FieldOutcome) -> str:
        return "; ".join(f"{each.field}: {each.reason}" for each in mine if each.outcome in words)

    is_refused = settled.outcome in (RecordOutcome.REJECTED, RecordOutcome.INVALID)
    place = ELSEWHERE.search(settled.reason)
    now = f"; now {place['object']} {place['id']}" if place is not None else ""
    applied = those(FieldOutcome.WRITTEN, *(() if is_refused else (FieldOutcome.SAME,)))
    if applied:
        return APPLIED, applied + now
    refused = those(FieldOutcome.REJECTED, FieldOutcome.INVALID)
    if is_refused or refused:
        return REJECTED, refused + now if refused else settled.reason
    if those(FieldOutcome.REVIEW):
        return HELD, "waits for a person: rule review"
    if kept := those(FieldOutcome.KEPT):
        return KEPT, kept + now
    if settled.outcome is RecordOutcome.UPDATED:
        return LISTED, "on a do-not-call list; the record was marked"
    if not settled.decisions:
        return SKIPPED, settled.reason
    return _without_number(ready.judged, ready.field_gone)


_WITHOUT = (
    (NumberVerdict.LISTED, LISTED),
    (NumberVerdict.HELD, HELD),
    (NumberVerdict.SUPPRESSED, SKIPPED),
    (NumberVerdict.SKIPPED_KIND, NO_NUMBER),
    (NumberVerdict.NOT_A_NUMBER, NO_NUMBER),
)


def _without_number(judged: Sequence[Judged], field_gone: str) -> tuple[str, str]:
    """Why none of a person's numbers is written, the weightiest reason first."""
    if field_gone:
        return REJECTED, f"{field_gone} is not in the CRM any more, or not to be seen; mend phones.route and replay it"
    for verdict, state in _WITHOUT:
        for one in judged:
            if one.verdict is verdict:
                return state, one.reason
    return NO_NUMBER, "Apollo found no number"
