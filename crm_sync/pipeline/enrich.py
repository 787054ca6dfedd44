"""From due records to answers: a stored one still fresh, else the employer that came with a person, else Apollo."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from dataclasses import replace
from decimal import Decimal

from crm_sync.domain.enrichment import Enrichment, MatchKeys, Purpose, RawAnswer, Reading, Verdict
from crm_sync.domain.runs import RecordOutcome
from crm_sync.errors import ContractError, DoubtError, ProviderError, RefusedError, TransientError
from crm_sync.mapping.match_keys import registrable_domain
from crm_sync.pipeline.batch import Desk
from crm_sync.pipeline.walk import Answered, Due, Walk
from crm_sync.store.answers import IN_DOUBT, Expansion, NewAnswer, StoredAnswer, StoredBatch

#: After so many lost answers in a row a run stops: each holds up to ten people in doubt.
DOUBTS_IN_A_ROW = 3
#: After so many keys that Apollo refused standing alone, and none that it took, it is not the records' fault.
REFUSED_ALONE = 3
#: Index so many answers in one commit.
_EXPAND_AT = 16


class EnrichRoom:
    """Buys answers for batches and finds stored ones; every paid call is journaled around its departure."""

    def __init__(self, walk: Walk, desk: Desk) -> None:
        self._walk = walk
        self._desk = desk
        self._lock = threading.Lock()
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
            elif answer.verdict == Verdict.NO_MATCH.value:
                served.append(self._no_match(item, answer.batch_id))
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
                served.append(_answered(item, enrichment, answer.batch_id))
        return served, open_

    def known_since(self, key: str) -> dict[str, StoredAnswer]:
        """What this run itself has bought for a key meanwhile."""
        self.flush()
        return self._walk.answers.look_up(self._walk.purpose, [key])

    def _fresh(self, answer: StoredAnswer) -> bool:
        if answer.verdict == IN_DOUBT:
            return False
        since = self._walk.no_match_since if answer.verdict == Verdict.NO_MATCH.value else self._walk.fresh_since
        return answer.obtained_at >= since

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

    def ask(self, keys: Sequence[MatchKeys], *, single: bool = False) -> list[Answered]:
        """One paid call and its consequences, for everybody who waits for these keys.

        Raises:
            ProviderError: nothing was charged and asking on makes no sense now; the keys are still waiting.
        """
        walk = self._walk
        batch_id = walk.answers.sent(
            walk.run_id, walk.sync.name, walk.purpose, keys, single=single, now=walk.clock.now()
        )
        try:
            raw = self._call(keys, single=single)
        except RefusedError as error:
            walk.answers.not_charged(batch_id, "refused", str(error), now=walk.clock.now())
            return self._bisect(keys, error, single=single)
        except DoubtError as error:
            return self._doubt(batch_id, keys, error.body, str(error))
        except TransientError as error:
            walk.answers.not_charged(batch_id, "unsent", str(error), now=walk.clock.now())
            raise
        except ProviderError as error:
            walk.answers.not_charged(batch_id, "refused", str(error), now=walk.clock.now())
            raise
        walk.answers.received(batch_id, raw, now=walk.clock.now())
        return self._expand(batch_id, keys, raw, single=single)

    def _call(self, keys: Sequence[MatchKeys], *, single: bool) -> RawAnswer:
        if single:
            return self._walk.enricher.ask_one(self._walk.purpose, keys[0])
        return self._walk.enricher.ask(self._walk.purpose, keys)

    def _bisect(self, keys: Sequence[MatchKeys], error: RefusedError, *, single: bool) -> list[Answered]:
        """A refused call is halved until the bad record stands alone (contracts/apollo.md 4, 422)."""
        if len(keys) == 1:
            return self._refused(keys, error)
        half = len(keys) // 2
        return [*self._ask_or_give_up(keys[:half], single=single), *self._ask_or_give_up(keys[half:], single=single)]

    def _refused(self, keys: Sequence[MatchKeys], error: RefusedError) -> list[Answered]:
        """One key that Apollo refuses alone: the record's fault where Apollo takes others, else asked again later."""
        with self._lock:
            is_its_own = self._accepted
            self._refused_alone += 1
            too_many = not is_its_own and self._refused_alone >= REFUSED_ALONE
        if too_many:
            self._walk.stop.raise_(f"Apollo refuses every call, whoever is asked for: {error}", error)
        reason = f"Apollo refuses this record's match keys: {error}"
        return self._close(keys, None, outcome=RecordOutcome.SKIPPED, reason=reason, reached=is_its_own)

    def _ask_or_give_up(self, keys: Sequence[MatchKeys], *, single: bool) -> list[Answered]:
        """A part of a call: its error must not lose the parts that were answered."""
        if self._walk.stop:
            return self.give_up(keys, self._walk.stop.reason)
        try:
            return self.ask(keys, single=single)
        except ProviderError as error:
            self._walk.stop.raise_(str(error), error)
            return self.give_up(keys, str(error))

    def _doubt(self, batch_id: int, keys: Sequence[MatchKeys], body: bytes, error: str) -> list[Answered]:
        walk = self._walk
        walk.answers.in_doubt(batch_id, walk.purpose, keys, body, error, now=walk.clock.now())
        with self._lock:
            self._doubts_in_a_row += 1
            too_many = self._doubts_in_a_row >= DOUBTS_IN_A_ROW
        if too_many:
            message = (
                f"Apollo's answer was lost {DOUBTS_IN_A_ROW} times in a row, so the run stopped asking to keep what is "
                f"in doubt small. The last one: {error}"
            )
            walk.stop.raise_(message, TransientError(message, provider="apollo", operation="ask"))
        return self._close(keys, batch_id, outcome=RecordOutcome.IN_DOUBT, reason=error)

    def _expand(self, batch_id: int, keys: Sequence[MatchKeys], raw: RawAnswer, *, single: bool) -> list[Answered]:
        walk = self._walk
        try:
            reading = walk.enricher.read(walk.purpose, keys, raw.body)
        except ContractError as error:
            return self._doubt(batch_id, keys, raw.body, str(error))
        with self._lock:
            self._doubts_in_a_row = 0
            self._accepted = True
        self._keep(expansion_of(batch_id, walk.purpose, keys, reading, raw.credits, single=single))
        answered: list[Answered] = []
        for key, enrichment in zip(keys, reading.enrichments, strict=True):
            if enrichment is None:
                # A bulk answer left it open (contracts/apollo.md 2.3: companies come unordered, some not at all).
                answered += self._ask_or_give_up([key], single=True)
            else:
                answered += [_answered(due, enrichment, batch_id) for due in self._desk.answered(key.key)]
        return answered

    def _close(
        self,
        keys: Sequence[MatchKeys],
        batch_id: int | None,
        *,
        outcome: RecordOutcome,
        reason: str,
        reached: bool = True,
    ) -> list[Answered]:
        return [
            Answered(due=due, outcome=outcome, reason=reason, batch_id=batch_id, reached=reached)
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
        """Index what was answered. A crash before it costs nothing: the raw bytes are stored, see `recover`."""
        with self._lock:
            waiting, self._expansions = self._expansions, []
            if waiting:
                self._walk.answers.expand(waiting, now=self._walk.clock.now())

    def _no_match(self, due: Due, batch_id: int | None) -> Answered:
        return Answered(
            due=due, outcome=RecordOutcome.NO_MATCH, reason="Apollo knows nobody by these keys", batch_id=batch_id
        )


def _answered(due: Due, enrichment: Enrichment, batch_id: int) -> Answered:
    if enrichment.verdict is Verdict.MATCHED:
        return Answered(due=due, enrichment=enrichment, batch_id=batch_id)
    outcome = RecordOutcome.NO_MATCH if enrichment.verdict is Verdict.NO_MATCH else RecordOutcome.NEEDS_REVIEW
    return Answered(due=due, outcome=outcome, reason=enrichment.reason, batch_id=batch_id)


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
) -> Expansion:
    """The index rows of one answer; a person's employer becomes known as a company too."""
    source = "single" if single else "bulk"
    rows: list[NewAnswer] = []
    found = 0
    for position, (key, enrichment) in enumerate(zip(keys, reading.enrichments, strict=True)):
        if enrichment is None:
            continue
        rows.append(
            NewAnswer(purpose=purpose, key=key.key, verdict=enrichment.verdict, source=source, position=position)
        )
        if enrichment.verdict is not Verdict.NO_MATCH:
            found += 1
        if enrichment.verdict is Verdict.MATCHED:
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
    # Companies' answers tell no cost: one credit each that was found (contracts/apollo.md 5).
    charged = None if credits_told is not None else Decimal(found)
    return Expansion(batch_id=batch_id, rows=tuple(rows), credits_charged=charged)
