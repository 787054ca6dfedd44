"""The second walk: a delivery is read, confirmed, and its numbers are written to every record that waits for them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from crm_sync import crash
from crm_sync.config.model import Phones, Sync
from crm_sync.domain.changes import FieldOutcome
from crm_sync.domain.enrichment import Enrichment, MatchKeys, Verdict
from crm_sync.domain.records import Record
from crm_sync.domain.reveals import PhoneDelivery, PhoneNumber, PollState
from crm_sync.domain.runs import RecordOutcome
from crm_sync.errors import (
    ContractError,
    CredentialsError,
    CrmSyncError,
    ProviderError,
    QuotaError,
    RateLimitError,
)
from crm_sync.mapping.identities import of_phone
from crm_sync.mapping.phones import COUNTRY_FIELDS, Judged, NumberVerdict, judge, phone_fields, region_of, wanted
from crm_sync.pipeline.belief import believed
from crm_sync.pipeline.follow import is_same
from crm_sync.pipeline.ordering import next_poll, per_number
from crm_sync.pipeline.phone_runs import PhoneRuns
from crm_sync.pipeline.settled import Candidate, Settled, plain
from crm_sync.pipeline.walk import Answered, Due, Walk
from crm_sync.pipeline.write import write_candidates
from crm_sync.services import Services
from crm_sync.store.deliveries import POLL, Delivery
from crm_sync.store.reveals import (
    APPLIED,
    HELD,
    KEPT,
    LISTED,
    NO_NUMBER,
    REJECTED,
    SKIPPED,
    Order,
    Settlement,
    Wait,
    WaitEnd,
)  # fmt: skip

#: A delivery that was tried so often without an end is left to a person (design/reliability.md 2.2, M10).
MOST_TRIES = 8
#: The first try is repeated after so long, each further one after three times as long: some six hours in all.
_FIRST_PAUSE, _LONGEST_PAUSE = timedelta(seconds=10), timedelta(hours=3)
#: How soon a delivery is looked at again that came before Apollo's own answer to its order.
_EARLY = timedelta(seconds=1)
#: A key that may not poll is not tried again for so long.
_ASK_AGAIN = timedelta(minutes=30)
#: So many deliveries are settled together: their records go to the CRM in the same calls.
AT_ONCE = 100


@dataclass(slots=True)
class Resolved:
    """What one pass has done: ends of deliveries and of waits, by their word; `polled` orders were asked about."""

    deliveries: Counter[str] = field(default_factory=Counter)
    waits: Counter[str] = field(default_factory=Counter)
    polled: int = 0
    given_up: int = 0

    @property
    def did_something(self) -> bool:
        return bool(self.deliveries or self.polled or self.given_up)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Believed:
    """A delivery that is to be carried out. `erased`: Apollo's ids of people who were erased since they were asked for;
    what is kept of the delivery is without them already."""

    delivery: Delivery
    order: Order
    content: PhoneDelivery
    belief: str
    erased: frozenset[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Awaited:
    """One record with the numbers that came for it."""

    wait: Wait
    numbers: tuple[PhoneNumber, ...]
    believed: _Believed


@dataclass(frozen=True, slots=True, kw_only=True)
class _Asked:
    """Whom a record's person was taken for: the keys asked by and what Apollo answered, as far as it is kept."""

    keys: MatchKeys | None = None
    enrichment: Enrichment | None = None


class Resolver:
    """Resolves for one process; two at the same time would do the same work twice (store/exclusive.py)."""

    def __init__(self, services: Services) -> None:
        self.services = services
        self.runs = PhoneRuns(services)
        self._may_not_poll_until: datetime | None = None

    def drain(self, *, limit: int = AT_ONCE) -> Resolved:
        """Read and carry out what is there, at most `limit` deliveries."""
        done = Resolved()
        now = self.services.clock.now()
        believed: list[_Believed] = []
        for delivery in self.services.deliveries.to_read(now=now, limit=limit):
            try:
                one = self._read(delivery, done)
            except CrmSyncError as error:
                self._put_off(delivery, str(error), done)
            except Exception as error:  # noqa: BLE001 - one hostile body must not stop the others (reliability.md 0.7)
                self._end(delivery, "dead", f"it cannot be read: {type(error).__name__}", done)
            else:
                if one is not None:
                    believed.append(one)
        by_sync: dict[str, list[_Believed]] = {}
        for one in believed:
            by_sync.setdefault(one.order.sync, []).append(one)
        for name, group in by_sync.items():
            self._carry_out(name, group, done)
        return done

    # --- reading and believing ----------------------------------------------------------------------------------

    def _read(self, delivery: Delivery, done: Resolved) -> _Believed | None:
        """The delivery, if it is to be carried out now; else it has its end, or is put off."""
        services = self.services
        order = services.reveals.order(delivery.order_id)
        if order is None:
            self._end(delivery, "dead", "its order is gone", done)
            return None
        if order.state == "sent":
            # Whom it is about is known once Apollo's own answer is stored (contracts/apollo.md 3: it may come later).
            services.deliveries.put_off(
                delivery.id, "Apollo's answer to its order is not here yet", until=services.clock.now() + _EARLY
            )
            return None
        if delivery.attempts >= MOST_TRIES:
            self._end(delivery, "dead", delivery.reason or f"tried {MOST_TRIES} times without an end", done)
            return None
        services.deliveries.attempted([delivery.id])
        body = services.deliveries.body(delivery.id)
        erased = services.privacy.cut_erased(delivery.id)
        try:
            content = services.enricher().read_delivery(body)
        except ContractError as error:
            services.deliveries.need_poll(order.id)  # a retry of the sender's would not heal it
            self._end(delivery, "dead", str(error), done)
            return None
        crash.point("resolve.read")
        if not content.finished:
            self._end(delivery, "done", "it says that nothing is there yet", done)
            return None
        belief = "poll" if delivery.source == POLL else self._belief(delivery, order, content, erased, done)
        if not belief:
            return None
        return _Believed(delivery=delivery, order=order, content=content, belief=belief, erased=erased)

    def _belief(
        self, delivery: Delivery, order: Order, content: PhoneDelivery, erased: frozenset[str], done: Resolved
    ) -> str:
        """By what a callback is believed: it is only a doorbell, and Apollo's own copy counts (reliability.md 4).
        "" where it is not, or not yet."""
        services, now = self.services, self.services.clock.now()
        may_poll = self._may_not_poll_until is None or now >= self._may_not_poll_until
        if not order.request_id or not may_poll:
            return "token"
        try:
            polled = services.enricher().poll(order.request_id)
        except (RateLimitError, QuotaError):
            return "token"  # beyond Apollo's limit for polls; the address is known to Apollo and to nobody else
        if polled.state is PollState.NOT_ALLOWED:
            self._may_not_poll_until = now + _ASK_AGAIN
            return "token"
        if polled.state is PollState.PENDING:
            self._put_off(delivery, "Apollo itself says that it is not finished", done, polled.retry_after_s)
            return ""
        if polled.state is not PollState.READY:
            self._end(delivery, "quarantined", f"Apollo does not confirm it: {polled.reason or polled.state}", done)
            return ""
        own = services.enricher().read_delivery(polled.body)
        if [each for each in own.people if each.apollo_id not in erased] == [
            each for each in content.people if each.apollo_id not in erased
        ]:
            return "poll"
        services.deliveries.take(order.id, polled.body, now=now, source=POLL)
        self._end(delivery, "quarantined", "it differs from what Apollo itself tells, which is used in its place", done)
        return ""

    def _put_off(self, delivery: Delivery, why: str, done: Resolved, seconds: float | None = None) -> None:
        pause = min(_FIRST_PAUSE * 3 ** min(delivery.attempts, 9), _LONGEST_PAUSE)
        if seconds is not None:
            pause = max(timedelta(seconds=min(seconds, 3600)), _EARLY)
        self.services.deliveries.put_off(delivery.id, why, until=self.services.clock.now() + pause)
        done.deliveries["put off"] += 1

    def _end(self, delivery: Delivery, state: str, why: str, done: Resolved, *, belief: str = "") -> None:
        self.services.deliveries.end(delivery.id, state, why, belief=belief, now=self.services.clock.now())
        done.deliveries[state] += 1

    # --- carrying out -------------------------------------------------------------------------------------------

    def _carry_out(self, sync_name: str, group: Sequence[_Believed], done: Resolved) -> None:
        """Write what came for one sync, and settle each delivery with everything that it has changed."""
        services = self.services
        sync = services.config.syncs.get(sync_name)
        if sync is None or sync.phones is None:
            for one in group:
                why = f"the configuration has no sync {sync_name} with `phones` any more; replay it when it has"
                self._end(one.delivery, "dead", why, done, belief=one.belief)
            return
        awaited, missing = self._awaited(group)
        ends: dict[int, WaitEnd] = {}
        failure = ""
        if awaited:
            try:
                ends, failure = self._write(sync, sync.phones, awaited)
            except CrmSyncError as error:
                failure = str(error)
        for one in group:
            mine = [each for each in awaited if each.believed is one]
            if any(each.wait.id not in ends for each in mine):
                self._put_off(one.delivery, failure or "its records could not be written", done)
                continue
            self._settle(one, [(each, ends[each.wait.id]) for each in mine], missing[one.delivery.id], done)

    def _awaited(self, group: Sequence[_Believed]) -> tuple[list[_Awaited], dict[int, int]]:
        """Whose numbers came, each record once; and for each delivery how many of its people nobody waits for."""
        reveals = self.services.reveals
        found: list[_Awaited] = []
        missing: dict[int, int] = {}
        taken: set[int] = set()
        for one in group:
            people = {reveals.person(person.apollo_id): person for person in one.content.people}
            waits = reveals.waits_for(one.order.id, people)
            known = {wait.person for wait in waits}
            missing[one.delivery.id] = len(people) - len(known)
            for wait in waits:
                if wait.id not in taken:
                    taken.add(wait.id)
                    found.append(_Awaited(wait=wait, numbers=people[wait.person].numbers, believed=one))
        return found, missing

    def _settle(self, one: _Believed, ended: Sequence[tuple[_Awaited, WaitEnd]], missing: int, done: Resolved) -> None:
        services = self.services
        state, reason = self._word(one, [end for _, end in ended], missing)
        charged = one.content.credits
        if charged is None:
            charged = per_number(services.enricher()) * sum(bool(person.numbers) for person in one.content.people)
        found = frozenset(each.wait.person for each, _ in ended if each.numbers)
        services.reveals.settle(
            Settlement(
                delivery_id=one.delivery.id,
                order_id=one.order.id,
                state=state,
                reason=reason,
                belief=one.belief,
                ends=tuple(end for _, end in ended),
                credits=charged,
                found=found,
                empty=frozenset(each.wait.person for each, _ in ended) - found,
            ),
            now=services.clock.now(),
        )
        done.deliveries[state] += 1
        done.waits.update(end.state for _, end in ended)

    def _word(self, one: _Believed, ends: Sequence[WaitEnd], missing: int) -> tuple[str, str]:
        """What the delivery is called, and a sentence about it."""
        if ends:
            tally = Counter(end.state for end in ends)
            said = [f"{count} {state}" for state, count in sorted(tally.items())]
        else:
            reveals = self.services.reveals
            people = {reveals.person(person.apollo_id) for person in one.content.people}
            if any(wait.person in people for wait in reveals.late_for(one.order.id)):
                return "late", "nobody waited any more: it was given up; `crm-sync phones replay` writes it"
            if any(wait.person in people for wait in reveals.under(one.order.id)):
                return "duplicate", "all of its numbers were here already"
            return "unknown", "nobody asked for whom it is about"
        if missing:
            said.append(f"{missing} whom nobody waits for")
        if one.belief == "token":
            said.append("believed by its address alone")
        return "done", ", ".join(said)

    # --- writing ------------------------------------------------------------------------------------------------

    def _write(self, sync: Sync, phones: Phones, awaited: Sequence[_Awaited]) -> tuple[dict[int, WaitEnd], str]:
        """Each wait's end; those missing were not reached, for the reason beside them."""
        walk = self.runs.walk(sync, [each.wait.record_id for each in awaited])
        size = walk.crm.read_size
        ends: dict[int, WaitEnd] = {}
        try:
            for start in range(0, len(awaited), size):
                self._write_some(walk, phones, awaited[start : start + size], ends)
                if walk.stop:
                    break
        finally:
            self.runs.saw(sync.name)
        return ends, walk.stop.reason

    def _write_some(self, walk: Walk, phones: Phones, awaited: Sequence[_Awaited], ends: dict[int, WaitEnd]) -> None:
        services = self.services
        ids = [each.wait.record_id for each in awaited]
        read = walk.crm.read(walk.object_type, ids, self._fields(walk, phones))
        current = dict(zip(ids, read, strict=True))
        asked = self._asked(awaited)
        barred = services.suppressions.among(
            {of_phone(one.e164) for each in awaited for one in self._judged(each, phones, current) if one.e164}
        )
        suppressed = frozenset(identity.partition(":")[2] for identity in barred)
        candidates: list[Candidate] = []
        judged: dict[str, tuple[Judged, ...]] = {}
        waits = {each.wait.record_id: each.wait for each in awaited}
        settled: list[Settled] = []
        for each in awaited:
            record, whom = current[each.wait.record_id], asked[each.wait.id]
            judged[each.wait.record_id] = self._judged(each, phones, current, suppressed)
            candidate = self._candidate(each, phones, judged[each.wait.record_id], record, whom, walk)
            refusal = self._refusal(walk, phones, each, record, whom)
            if refusal is not None:
                ends[each.wait.id] = WaitEnd(
                    wait_id=each.wait.id, state=refusal[0], reason=refusal[1], run_id=walk.run_id
                )
                settled.append(plain(candidate, RecordOutcome.SKIPPED, refusal[1]))
            elif not candidate.has_wishes:
                state, reason = _without_number(judged[each.wait.record_id])
                ends[each.wait.id] = WaitEnd(wait_id=each.wait.id, state=state, reason=reason, run_id=walk.run_id)
                settled.append(plain(candidate, RecordOutcome.SKIPPED, reason))
            else:
                candidates.append(candidate)
        crash.point("resolve.judged")
        if settled:
            self.runs.close(walk, settled)
        if not candidates:
            return
        written = write_candidates(walk, walk.target, candidates, self.runs.audit(walk))
        self.runs.close(walk, written)
        for one in written:
            if one.reached or not (walk.stop or one.intended):  # else it is written by a later try
                wait = waits[one.record_id]
                state, reason = _end_of(one, phones, judged[one.record_id])
                ends[wait.id] = WaitEnd(wait_id=wait.id, state=state, reason=reason, run_id=walk.run_id)

    def _fields(self, walk: Walk, phones: Phones) -> tuple[str, ...]:
        # The CRMs read a record again by its own fields alone, so its company's site is not among them.
        names = dict.fromkeys(name for key in walk.match.send for name in key.fields if "." not in name)
        names.update(dict.fromkeys((*phone_fields(phones), *([phones.mark] if phones.mark else []))))
        countries = COUNTRY_FIELDS.get(walk.object_type, ())
        schema = walk.target.schema.fields
        names.update(dict.fromkeys(name for name in countries if name in schema and schema[name].readable))
        return tuple(names)

    @staticmethod
    def _judged(
        each: _Awaited,
        phones: Phones,
        current: Mapping[str, Record | None],
        suppressed: frozenset[str] = frozenset(),
    ) -> tuple[Judged, ...]:
        record = current[each.wait.record_id]
        region = region_of(record.values) if record is not None else ""
        return judge(each.numbers, phones, region=region, suppressed=suppressed)

    def _asked(self, awaited: Sequence[_Awaited]) -> dict[int, _Asked]:
        """Wait -> whom its record was taken for when the phone was ordered."""
        services = self.services
        stored = services.answers.load(each.wait.batch_id for each in awaited)
        found: dict[int, _Asked] = {}
        for each in awaited:
            batch, position = stored.get(each.wait.batch_id), each.wait.position
            if batch is None or position >= len(batch.keys):
                found[each.wait.id] = _Asked()
                continue
            try:
                reading = services.enricher().read(batch.purpose, batch.keys, batch.body)
            except ContractError:
                found[each.wait.id] = _Asked()
                continue
            found[each.wait.id] = _Asked(keys=batch.keys[position], enrichment=reading.enrichments[position])
        return found

    def _candidate(
        self,
        each: _Awaited,
        phones: Phones,
        judged: Sequence[Judged],
        record: Record | None,
        whom: _Asked,
        walk: Walk,
    ) -> Candidate:
        keys = walk.keys_of(record.values) if record is not None else whom.keys
        wishes = wanted(judged, phones)
        if any(one.value is not None for one in wishes):
            schema = walk.target.schema.fields
            wishes = tuple(one for one in wishes if one.field in schema)
        else:
            wishes = ()
        return Candidate(
            record_id=each.wait.record_id,
            wanted=wishes,
            batch_id=each.believed.order.batch_id,
            keys=keys,
            enrichment=whom.enrichment,
        )

    def _refusal(
        self, walk: Walk, phones: Phones, each: _Awaited, record: Record | None, whom: _Asked
    ) -> tuple[str, str] | None:
        """Why a record gets no number whatever came, and what its wait is called then."""
        wait = each.wait
        if record is None:
            return None  # it may live on elsewhere: writing follows it
        if wait.batch_id == each.believed.order.batch_id and (doubt := _doubt(walk, record, whom)):
            return HELD, doubt  # matched and ordered in one call, before anybody could look at the match
        if phones.mark and record.values.get(phones.mark) is True and phones.if_listed != "write":
            return SKIPPED, "the record was marked as do not call since"
        keys = walk.keys_of(record.values)
        if self.services.answers.identity(keys.key) == wait.identity:
            return None
        if whom.keys is not None and is_same(whom.keys, keys):
            return None
        if whom.enrichment is not None and not walk.distrust(keys, whom.enrichment):
            return None
        return HELD, "the record is not about whom the phone was asked for any more"

    # --- polling ------------------------------------------------------------------------------------------------

    def sweep(self, *, limit: int = 50, now_all: bool = False) -> Resolved:
        """Ask Apollo about orders whose time has come, and give up those whose time is over. `now_all`: ask about all
        that are awaited."""
        done = Resolved()
        services = self.services
        now = services.clock.now()
        orders = services.reveals.awaited(limit=limit) if now_all else services.reveals.to_poll(now=now, limit=limit)
        for order in orders:
            try:
                self._poll(order, now)
            except (RateLimitError, QuotaError):
                break  # the rest later; Apollo's limit for polls is far below that for reveals
            except CredentialsError as error:
                services.reveals.polled(order.id, next_poll_at=now + _ASK_AGAIN, reason=str(error))
                break
            except ProviderError as error:
                services.reveals.polled(order.id, next_poll_at=now + timedelta(minutes=5), reason=str(error))
                continue
            done.polled += 1
        for order in services.reveals.to_give_up(now=now, limit=limit):
            phones = self._phones(order)
            waited = _told(phones.give_up_after) if phones is not None else "the time it was given"
            services.reveals.give_up(order.id, f"no number came within {waited}", now=now)
            done.given_up += 1
        return done

    def _poll(self, order: Order, now: datetime) -> None:
        services = self.services
        polled = services.enricher().poll(order.request_id)
        crash.point("resolve.polled")
        later = next_poll(order.created_at, order.gives_up_at, now, wait=self._wait(order))
        if polled.state is PollState.READY:
            services.deliveries.take(order.id, polled.body, now=now, source=POLL)
            services.reveals.polled(order.id, next_poll_at=later)
        elif polled.state is PollState.PENDING:
            soonest = now + timedelta(seconds=polled.retry_after_s or 10.0)
            services.reveals.polled(
                order.id,
                next_poll_at=max(later, soonest) if later is not None else None,
                reason="Apollo is still at it",
            )
        else:
            reason = polled.reason or f"Apollo says: {polled.state}"
            services.reveals.polled(order.id, next_poll_at=None, reason=reason)

    def _phones(self, order: Order) -> Phones | None:
        sync = self.services.config.syncs.get(order.sync)
        return sync.phones if sync is not None else None

    def _wait(self, order: Order) -> timedelta:
        phones = self._phones(order)
        return phones.wait if phones is not None else timedelta(hours=2)


def _doubt(walk: Walk, record: Record, whom: _Asked) -> str:
    """Why the answer that the phone was ordered with is not believed to be about the record; "" when it is."""
    if whom.keys is None or whom.enrichment is None:
        return ""
    unproved = whom.enrichment.reason if whom.enrichment.verdict is Verdict.UNPROVED else ""
    due = Due(record=record, keys=whom.keys, lacking=())
    ((answered, _),) = believed(walk, [Answered(due=due, enrichment=whom.enrichment, unproved=unproved)])
    return answered.reason if answered.outcome is not None else ""


def _end_of(settled: Settled, phones: Phones, judged: Sequence[Judged]) -> tuple[str, str]:
    """What a record's wait is called after the write, and why."""
    fields = phone_fields(phones)
    mine = [decision for decision in settled.decisions if decision.field in fields]
    outcomes = {decision.outcome for decision in mine}
    is_refused = settled.outcome in (RecordOutcome.REJECTED, RecordOutcome.INVALID)
    if FieldOutcome.WRITTEN in outcomes or (FieldOutcome.SAME in outcomes and not is_refused):
        return APPLIED, "; ".join(f"{d.field}: {d.reason}" for d in mine if d.new)
    if is_refused:
        return REJECTED, settled.reason
    if FieldOutcome.REVIEW in outcomes:
        return HELD, "waits for a person: rule review"
    if FieldOutcome.KEPT in outcomes:
        return KEPT, "; ".join(f"{d.field}: {d.reason}" for d in mine if d.outcome is FieldOutcome.KEPT)
    if settled.outcome is RecordOutcome.UPDATED:
        return LISTED, "on a do-not-call list; the record was marked"
    if not settled.decisions:
        return SKIPPED, settled.reason
    return _without_number(judged)


_WITHOUT = (
    (NumberVerdict.LISTED, LISTED),
    (NumberVerdict.HELD, HELD),
    (NumberVerdict.SUPPRESSED, SKIPPED),
    (NumberVerdict.SKIPPED_KIND, NO_NUMBER),
    (NumberVerdict.NOT_A_NUMBER, NO_NUMBER),
)


def _without_number(judged: Sequence[Judged]) -> tuple[str, str]:
    """Why none of a person's numbers is written, the weightiest reason first."""
    for verdict, state in _WITHOUT:
        for one in judged:
            if one.verdict is verdict:
                return state, one.reason
    return NO_NUMBER, "Apollo found no number"


def _told(span: timedelta) -> str:
    hours = int(span.total_seconds() // 3600)
    return f"{hours // 24} days" if hours >= 48 and hours % 24 == 0 else f"{hours} hours" if hours else str(span)
