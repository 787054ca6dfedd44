"""From due records to answers: a stored one still fresh, else the employer that came with a person, else Apollo."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from decimal import Decimal

from crm_sync import crash
from crm_sync.domain.enrichment import Enrichment, MatchKeys, Purpose, RawAnswer, Reading, Verdict
from crm_sync.domain.runs import RecordOutcome
from crm_sync.errors import (
    BudgetError,
    ContractError,
    CrmSyncError,
    DoubtError,
    ProviderError,
    RefusedError,
    TransientError,
)
from crm_sync.mapping.match_keys import other_keys, registrable_domain
from crm_sync.pipeline.batch import Batch, Desk
from crm_sync.pipeline.budget import day_of, room
from crm_sync.pipeline.doubt import read_meter
from crm_sync.pipeline.walk import Answered, Due, Walk
from crm_sync.spans import span
from crm_sync.store.answers import StoredAnswer, StoredBatch
from crm_sync.store.journal import (
    ABANDONED,
    ASKED,
    GUARDING,
    IN_DOUBT,
    LEFT_OPEN,
    STAMP,
    Expansion,
    Intent,
    NewAnswer,
    Plan,
    PlannedCall,
)  # fmt: skip
from crm_sync.store.reveals import NewWait

#: After so many lost answers in a row a run stops: each holds up to ten people in doubt.
DOUBTS_IN_A_ROW = 3
#: After so many keys that Apollo refused standing alone, and none that it took, it is not the records' fault.
REFUSED_ALONE = 3
#: Index so many answers in one commit.
_EXPAND_AT = 16
#: How soon it is looked again what other workers of the run have reserved.
_OTHERS_TAKE_S = 1.0
#: A wait that an admin should hear of.
_WORTH_TELLING_S = 3.0

#: Verdicts that answer a record without any value.
_PLAIN = {
    Verdict.NO_MATCH.value: (RecordOutcome.NO_MATCH, "Apollo knows nobody by these keys"),
    ABANDONED: (RecordOutcome.SKIPPED, "its call was in doubt and was given up; it waits like somebody not found"),
}


class _StoppedError(CrmSyncError):
    """The run stops, and this call had not left."""


@dataclass(slots=True, kw_only=True)
class _Bought:
    """What one paid call brought: finished records, and keys to ask for again (by the single endpoint where True)."""

    answered: list[Answered] = field(default_factory=list)
    again: list[tuple[Sequence[MatchKeys], bool]] = field(default_factory=list)


class EnrichRoom:
    """Buys answers for batches and finds stored ones; every paid call is journaled around its departure."""

    def __init__(self, walk: Walk, desk: Desk) -> None:
        self._walk = walk
        self._desk = desk
        self._lock = threading.Lock()
        self._calls = threading.Condition()
        self._out = 0
        self._settlements = 0
        self._metered = False
        self._expansions: list[Expansion] = []
        self._employers: set[int] = set()
        self._doubts_in_a_row = 0
        self._accepted = False
        self._refused_alone = 0

    # --- what is known ------------------------------------------------------------------------------------------

    def serve(self, due: Sequence[Due], stored: dict[str, StoredAnswer]) -> tuple[list[Answered], list[Due]]:
        """(answered from the store, still to be asked)."""
        walk = self._walk
        served: list[Answered] = []
        hits: list[tuple[Due, StoredAnswer]] = []
        open_: list[Due] = []
        for item in due:
            answer = stored.get(item.keys.key)
            if answer is None or not self._fresh(answer):
                open_.append(item)
            elif answer.source == STAMP and answer.verdict != Verdict.NO_MATCH.value:
                reason = _why_held(answer)
                served.append(Answered(due=item, outcome=RecordOutcome.SKIPPED, reason=reason))
            elif answer.verdict in _PLAIN:
                outcome, reason = _PLAIN[answer.verdict]
                answered_at = answer.obtained_at if answer.verdict != ABANDONED else None
                served.append(
                    Answered(
                        due=item,
                        outcome=outcome,
                        reason=reason,
                        batch_id=answer.batch_id,
                        answered_at=answered_at,
                    )
                )
            else:
                hits.append((item, answer))
        batches = walk.answers.load(answer.batch_id for _, answer in hits)
        readings: dict[int, Reading | None] = {}
        for item, answer in hits:
            if answer.batch_id not in readings:
                readings[answer.batch_id] = self._read_again(batches.get(answer.batch_id))
            enrichment = self._pick(item, readings[answer.batch_id], answer)
            if enrichment is None:
                open_.append(item)
            else:
                known = _answered(item, enrichment, answer.batch_id, answer.obtained_at)
                served.append(replace(known, position=answer.position))
        return served, open_

    def _fresh(self, answer: StoredAnswer) -> bool:
        if answer.verdict in (*GUARDING, LEFT_OPEN):
            return False
        since = self._walk.no_match_since if answer.verdict in _PLAIN else self._walk.fresh_since
        return answer.obtained_at >= since

    def was_left_open(self, answer: StoredAnswer | None) -> bool:
        """Whether a bulk answer said nothing about this key and nobody has asked singly since: an earlier run ended
        between the two."""
        return answer is not None and answer.verdict == LEFT_OPEN and answer.obtained_at >= self._walk.fresh_since

    def _read_again(self, batch: StoredBatch | None) -> Reading | None:
        if batch is None:
            return None
        try:
            return self._walk.enricher.read(batch.purpose, batch.keys, batch.body)
        except ContractError:
            return None

    def _pick(self, item: Due, reading: Reading | None, answer: StoredAnswer) -> Enrichment | None:
        """The enrichment a stored row points at; None when it cannot serve this record."""
        if reading is None or answer.position >= len(reading.enrichments):
            return None
        enrichment = reading.enrichments[answer.position]
        if enrichment is None or answer.source != "employer":
            return enrichment
        return employer(enrichment, self._walk.sources_of(item.lacking))

    # --- what is bought -----------------------------------------------------------------------------------------

    def plan(self, batches: Iterable[Batch]) -> Iterator[tuple[tuple[PlannedCall, ...], list[Answered]]]:
        """Reserve and guard batches, several in one commit: (calls that may leave, records that need none).

        Where the budget has no room, it waits for what is under way to be settled, which costs less than was reserved
        for it; then the run stops.

        Raises:
            StoreError: nothing can be journaled, so nothing may be spent.
        """
        walk = self._walk
        formed = tuple(batches)
        if formed and not self._metered and not walk.free:
            self._metered = True
            read_meter(walk.enricher, walk.journal, walk.clock)  # evidence, should a call end in doubt
        for single in (False, True):
            calls = tuple(batch.keys for batch in formed if batch.single is single)
            yield from self._plan_all(calls, single=single)

    def _plan_all(
        self, calls: tuple[tuple[MatchKeys, ...], ...], *, single: bool
    ) -> Iterator[tuple[tuple[PlannedCall, ...], list[Answered]]]:
        walk = self._walk
        while calls:
            keys = [key for call in calls for key in call]
            if walk.free or walk.stop:
                yield (), self.give_up(keys, walk.stop.reason or "only stored answers are used")
                return
            settlements = self._settlements
            plan = self._plan(calls, single=single)
            yield plan.calls, self._held(plan.held)
            if plan.left and not plan.calls and not self._more_room(settlements):
                self._stop_at_budget(plan)
            per_call = 1 if single else walk.enricher.per_call
            calls = tuple(plan.left[at : at + per_call] for at in range(0, len(plan.left), per_call))

    def _plan(self, calls: tuple[tuple[MatchKeys, ...], ...], *, single: bool) -> Plan:
        """From here to the end of its call each one counts as out, see `_more_room`."""
        walk = self._walk
        now = walk.clock.now()
        intent = Intent(
            run_id=walk.run_id,
            sync=walk.sync.name,
            purpose=walk.purpose,
            calls=calls,
            single=single,
            endpoint=walk.enricher.endpoint(walk.purpose, single=single),
            most=walk.enricher.most(walk.purpose, reveals=walk.orders is not None),
            day=day_of(now, walk.timezone),
            fresh_since=walk.fresh_since,
            no_match_since=walk.no_match_since,
            gives_up_at=walk.orders.gives_up_at(now) if walk.orders is not None else None,
            share=walk.share,
        )
        plan = walk.journal.plan(
            intent, lambda spent: room(walk.budget, spent, max_credits=walk.max_credits, purse=intent.purse), now=now
        )
        with self._calls:
            self._out += len(plan.calls)
        return plan

    def _more_room(self, settlements: int) -> bool:
        """Whether to look at the budget again. `settlements`: how many there had been when there was no room."""
        self.flush()
        with self._calls:
            # Looked at every second: a thread whose database failed tells nobody that it is not out any more.
            while not self._calls.wait_for(
                lambda: self._settlements != settlements or self._out == 0 or bool(self._walk.stop), timeout=1.0
            ):
                pass
        self.flush()
        if self._settlements != settlements:
            return True
        walk = self._walk
        if walk.stop or not walk.share or not walk.journal.others_ask(walk.run_id, walk.share):
            return False
        walk.clock.sleep(_OTHERS_TAKE_S)  # what other workers of the run have reserved is settled in their processes
        return True

    def _stop_at_budget(self, plan: Plan) -> None:
        crash.point("budget.stop")
        message = (
            f"{plan.room.limit} is used up; a later run goes on from here. `crm-sync credits` shows what was spent"
        )
        self._walk.stop.raise_(message, BudgetError(message))

    def ask(self, call: PlannedCall) -> list[Answered]:
        """One paid call and its consequences, for everybody who waits for its keys.

        Raises:
            ProviderError: nothing was charged and asking on makes no sense now; the keys are still waiting.
            StoreError: nothing can be journaled, so nothing may be spent.
        """
        try:
            bought = self._buy(call)
        finally:
            self._call_ended()
        answered = bought.answered
        for keys, single in bought.again:
            crash.point("enrich.again", "single" if single else "half")
            answered += self._ask_again(keys, single=single)
        return answered

    def _ask_again(self, keys: Sequence[MatchKeys], *, single: bool) -> list[Answered]:
        """Keys of a call that was refused or left them open. An error here must not lose the parts that were answered,
        and no room does not wait: those it would wait for may be waiting for this thread."""
        if self._walk.stop:
            return self.give_up(keys, self._walk.stop.reason)
        plan = self._plan((tuple(keys),), single=single)
        if plan.left:
            self._stop_at_budget(plan)
        answered = self._held(plan.held) + self.give_up(plan.left, self._walk.stop.reason)
        for call in plan.calls:
            try:
                answered += self.ask(call)
            except ProviderError as error:
                self._walk.stop.raise_(str(error), error)
                answered += self.give_up(call.keys, str(error))
        return answered

    def let_go(self, call: PlannedCall) -> list[Answered]:
        """A planned call that will not leave, because the run stops."""
        self._give_back(call, self._walk.stop.reason)
        return self.give_up(call.keys, self._walk.stop.reason)

    def ask_without(self, call: PlannedCall, refused: Mapping[str, str]) -> list[Answered]:
        """A planned call, but for those who were suppressed since; `refused`: MatchKeys.key -> why. It is given back,
        and the rest is planned anew."""
        self._give_back(call, "somebody in it was suppressed")
        rest = [key for key in call.keys if key.key not in refused]
        answered = self._ask_again(rest, single=call.single) if rest else []
        for key in call.keys:
            if key.key in refused:
                answered += self.give_up([key], refused[key.key])
        return answered

    def _give_back(self, call: PlannedCall, why: str) -> None:
        try:
            self._walk.journal.not_charged(call.id, "unsent", why, now=self._walk.clock.now())
        finally:
            self._call_ended()

    def _call_ended(self) -> None:
        """It is not out any more, see `_more_room`."""
        with self._calls:
            self._out -= 1
            self._calls.notify_all()

    def _held(self, keys: Sequence[MatchKeys]) -> list[Answered]:
        """Keys that have been answered since their page was read, or that somebody else is asking for."""
        if not keys:
            return []
        self.flush()
        walk = self._walk
        stored = walk.answers.look_up(walk.purpose, [key.key for key in keys])
        waiting = [due for key in keys for due in self._desk.answered(key.key)]
        served, open_ = self.serve(waiting, stored)
        return served + [
            Answered(
                due=due,
                outcome=RecordOutcome.SKIPPED,
                reason=_why_held(stored.get(due.keys.key)),
                reached=False,
            )
            for due in open_
        ]

    def _buy(self, call: PlannedCall) -> _Bought:
        walk, keys = self._walk, call.keys
        try:
            raw = self._send(call)
        except _StoppedError:
            walk.journal.not_charged(call.id, "unsent", walk.stop.reason, now=walk.clock.now())
            return _Bought(answered=self.give_up(keys, walk.stop.reason))
        except RefusedError as error:
            walk.journal.not_charged(call.id, "refused", str(error), now=walk.clock.now())
            return self._bisect(call, error)
        except DoubtError as error:
            return self._doubt(call, error.body, str(error))
        except TransientError as error:
            walk.journal.not_charged(call.id, "unsent", str(error), now=walk.clock.now())
            raise
        except ProviderError as error:
            walk.journal.not_charged(call.id, "refused", str(error), now=walk.clock.now())
            raise
        answered_at = walk.clock.now()
        walk.journal.received(call.id, raw, now=answered_at)
        return self._expand(call, raw, answered_at)

    def _send(self, call: PlannedCall) -> RawAnswer:
        walk = self._walk

        def waiting(seconds: float) -> None:
            if walk.stop:
                raise _StoppedError
            walk.waiting_until = walk.clock.now() + timedelta(seconds=seconds) if seconds > _WORTH_TELLING_S else None

        def leaving() -> None:
            walk.waiting_until = None
            if not walk.journal.sent(call.id, now=walk.clock.now(), orders_phones=bool(call.order_id)):
                walk.stop.cancel()
                raise _StoppedError

        with span(
            "apollo call",
            run=walk.run_id,
            sync=walk.sync.name,
            call=call.id,
            purpose=walk.purpose.value,
            keys=len(call.keys),
            orders_phones=bool(call.order_id),
        ):
            if call.single:
                return walk.enricher.ask_one(walk.purpose, call.keys[0], leaving=leaving, waiting=waiting)
            callback = walk.orders.callback(call.order_id) if walk.orders is not None else ""
            return walk.enricher.ask(walk.purpose, call.keys, leaving=leaving, waiting=waiting, callback=callback)

    def _bisect(self, call: PlannedCall, error: RefusedError) -> _Bought:
        """A refused call is halved until the bad record stands alone (contracts/apollo.md 4, 422)."""
        keys, half = call.keys, len(call.keys) // 2
        if not half:
            return _Bought(answered=self._refused(keys, error))
        return _Bought(again=[(keys[:half], call.single), (keys[half:], call.single)])

    def _refused(self, keys: Sequence[MatchKeys], error: RefusedError) -> list[Answered]:
        """One key that Apollo refuses alone: the record's fault where Apollo takes others, else asked again later."""
        with self._lock:
            is_its_own = self._accepted
            self._refused_alone += 1
            too_many = not is_its_own and self._refused_alone >= REFUSED_ALONE
        if too_many:
            self._walk.stop.raise_(f"Apollo refuses every call, whoever is asked for: {error}", error)
        reason = f"Apollo refuses this record's match keys: {error}" if is_its_own else f"not asked: {error}"
        return self._close(keys, None, outcome=RecordOutcome.SKIPPED, reason=reason, reached=is_its_own)

    def _doubt(self, call: PlannedCall, body: bytes, error: str) -> _Bought:
        walk = self._walk
        lost_at = walk.clock.now()
        walk.journal.in_doubt(call.id, body, error, now=lost_at)
        with self._lock:
            self._doubts_in_a_row += 1
            too_many = self._doubts_in_a_row >= DOUBTS_IN_A_ROW
        if too_many:
            message = (
                f"Apollo's answer was lost {DOUBTS_IN_A_ROW} times in a row, so the run stopped asking to keep what is "
                f"in doubt small. The last one: {error}"
            )
            walk.stop.raise_(message, TransientError(message, provider="apollo", operation="ask"))
        answered = self._close(call.keys, call.id, outcome=RecordOutcome.IN_DOUBT, reason=error, answered_at=lost_at)
        return _Bought(answered=answered)

    def _expand(self, call: PlannedCall, raw: RawAnswer, answered_at: datetime) -> _Bought:
        walk, keys = self._walk, call.keys
        try:
            reading = walk.enricher.read(walk.purpose, keys, raw.body)
        except ContractError as error:
            return self._doubt(call, raw.body, str(error))
        with self._lock:
            self._doubts_in_a_row = 0
            self._accepted = True
        crash.point("enrich.read")
        expansion = expansion_of(
            call.id,
            walk.purpose,
            keys,
            reading,
            raw.credits,
            single=call.single,
            answered_at=answered_at,
            with_phones=bool(call.order_id),
        )
        if call.order_id and walk.orders is not None:
            self._choose(call, reading)
            answer = walk.enricher.order_answer(raw.body)
            expansion = replace(expansion, ordered=walk.orders.ordered(answer, keys, reading, answered_at))
        self._keep(expansion)
        if expansion.open or expansion.ordered is not None:
            # What is open is asked for singly once its guard is released; what was ordered may be delivered already.
            self.flush()
        bought = _Bought()
        for key, enrichment in zip(keys, reading.enrichments, strict=True):
            if enrichment is None:
                # A bulk answer left it open (contracts/apollo.md 2.3: companies come unordered, some not at all).
                bought.again.append(([key], True))
            else:
                waiting = self._desk.answered(key.key)
                bought.answered += [_answered(due, enrichment, call.id, answered_at) for due in waiting]
        return bought

    def _choose(self, call: PlannedCall, reading: Reading) -> None:
        """Note who waits for the numbers of a call that matched and ordered in one: before it is indexed, since Apollo
        may have delivered by now."""
        assert self._walk.orders is not None
        self._walk.orders.choose(
            [
                NewWait(
                    record_id=due.record.ref.id,
                    apollo_id=enrichment.apollo_id,
                    key=key.key,
                    batch_id=call.id,
                    position=position,
                )
                for position, (key, enrichment) in enumerate(zip(call.keys, reading.enrichments, strict=True))
                if enrichment is not None and enrichment.verdict is Verdict.MATCHED and enrichment.apollo_id
                if not key.apollo_id
                for due in self._desk.waiting(key.key)
            ]
        )

    def _close(
        self,
        keys: Sequence[MatchKeys],
        batch_id: int | None,
        *,
        outcome: RecordOutcome,
        reason: str,
        reached: bool = True,
        answered_at: datetime | None = None,
    ) -> list[Answered]:
        return [
            Answered(
                due=due, outcome=outcome, reason=reason, batch_id=batch_id, reached=reached, answered_at=answered_at
            )
            for key in keys
            for due in self._desk.answered(key.key)
        ]

    def give_up(self, keys: Iterable[MatchKeys], reason: str) -> list[Answered]:
        """Close keys that will not be asked in this run."""
        return self._close(
            tuple(keys), None, outcome=RecordOutcome.SKIPPED, reason=f"not asked: {reason}", reached=False
        )

    def _keep(self, expansion: Expansion) -> None:
        with self._lock:
            self._expansions.append(replace(expansion, rows=tuple(row for row in expansion.rows if self._news(row))))
            full = len(self._expansions) >= _EXPAND_AT
        if full:
            self.flush()

    def _news(self, row: NewAnswer) -> bool:
        """False for an employer this run has indexed already: colleagues bring the same one again and again."""
        if row.source != "employer":
            return True
        known = hash(row.key) in self._employers
        self._employers.add(hash(row.key))
        return not known

    def flush(self) -> None:
        """Index and settle what was answered. A crash before it costs nothing: the raw bytes are stored, see
        `recover`."""
        with self._lock:
            waiting, self._expansions = self._expansions, []
            if waiting:
                self._walk.journal.expand(waiting, now=self._walk.clock.now())
        if waiting:
            with self._calls:
                self._settlements += 1
                self._calls.notify_all()


def _why_held(answer: StoredAnswer | None) -> str:
    if answer is not None and answer.verdict == IN_DOUBT:
        return "in doubt: an earlier call may have been charged; `crm-sync doubt list` shows it"
    if answer is not None and answer.verdict == ASKED:
        return "another run is asking Apollo for the same; the next run uses its answer"
    if answer is not None and answer.source == STAMP:
        return (
            f"bought on {answer.obtained_at:%Y-%m-%d}, as its stamp in the CRM says, and the answer is not in this "
            "database any more; not asked again while it would be fresh"
        )
    return "its stored answer cannot be used here, and is too fresh to be bought again"


def _answered(due: Due, enrichment: Enrichment, batch_id: int, answered_at: datetime) -> Answered:
    if enrichment.verdict is Verdict.NO_MATCH:
        reason = enrichment.reason
        return Answered(
            due=due, outcome=RecordOutcome.NO_MATCH, reason=reason, batch_id=batch_id, answered_at=answered_at
        )
    unproved = enrichment.reason if enrichment.verdict is Verdict.UNPROVED else ""
    return Answered(due=due, enrichment=enrichment, unproved=unproved, batch_id=batch_id, answered_at=answered_at)


def employer(person: Enrichment, wanted: frozenset[str]) -> Enrichment | None:
    """The company that came with a person as a company's answer; None when it does not carry one of the `wanted`
    attributes at all (bulk people answers hold a thin organization without revenue, contracts/apollo.md 2.1)."""
    organization = person.organization
    for path in wanted:
        if path.split(".")[1] not in organization:
            return None
    return Enrichment(
        verdict=Verdict.MATCHED, person={}, organization=organization, apollo_id=organization.get("id") or ""
    )


def expansion_of(
    batch_id: int,
    purpose: Purpose,
    keys: Sequence[MatchKeys],
    reading: Reading,
    credits_told: Decimal | None,
    *,
    single: bool,
    answered_at: datetime | None,
    with_phones: bool = False,
) -> Expansion:
    """The index rows of one answer; a person's employer becomes known as a company too. `with_phones`: the call has
    ordered the phones of those that it matched."""
    source = "single" if single else "bulk"
    rows: list[NewAnswer] = []
    found: set[str] = set()
    left_open: list[MatchKeys] = []
    for position, (key, enrichment) in enumerate(zip(keys, reading.enrichments, strict=True)):
        if enrichment is None:
            left_open.append(key)
            continue
        if not key.key:
            continue  # erased (store/privacy.py)
        rows.append(
            NewAnswer(purpose=purpose, key=key.key, verdict=enrichment.verdict, source=source, position=position)
        )
        if enrichment.verdict is not Verdict.NO_MATCH:
            found.add(enrichment.apollo_id or f"at {position}")
        if enrichment.verdict is Verdict.MATCHED:
            rows += [
                NewAnswer(purpose=purpose, key=other, verdict=Verdict.MATCHED, source="alias", position=position)
                for other in other_keys(key, enrichment)
            ]
            if with_phones and purpose is Purpose.PERSON and enrichment.apollo_id:
                # Nobody orders it by Apollo's id as well.
                phone = MatchKeys(purpose=Purpose.PHONE, apollo_id=enrichment.apollo_id).key
                rows.append(
                    NewAnswer(
                        purpose=Purpose.PHONE,
                        key=phone,
                        verdict=Verdict.MATCHED,
                        source="bulk",
                        position=position,
                    )
                )
            domain = registrable_domain(enrichment.organization.get("primary_domain") or "")
            if purpose is Purpose.PERSON and domain:
                rows.append(
                    NewAnswer(
                        purpose=Purpose.COMPANY,
                        key=MatchKeys(purpose=Purpose.COMPANY, domain=domain).key,
                        verdict=Verdict.MATCHED,
                        source="employer",
                        position=position,
                    )
                )
    # Companies' answers tell no cost: one credit for each one in it, asked for twice or not (contracts/apollo.md 5).
    charged = None if credits_told is not None else Decimal(len(found) if reading.outputs is None else reading.outputs)
    return Expansion(
        batch_id=batch_id,
        rows=tuple(rows),
        open=tuple(left_open),
        credits_charged=charged,
        answered_at=answered_at,
    )
