"""Calls that may have been charged: what evidence says, and what the policy does when it says nothing.

The evidence (design/reliability.md 2.4): E1, the request never left, and E2, Apollo's own refusal, end a call before it
comes here. E4 is judged here: Apollo's meter has not moved by more than the calls we know of, read long enough after
the call. It proves one thing only, that nothing was charged; a meter that moved proves nothing, as others use it too.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal

from crm_sync import crash
from crm_sync.config.model import Budget
from crm_sync.errors import ProviderError
from crm_sync.pipeline.budget import day_of
from crm_sync.ports import Clock, Enricher
from crm_sync.services import Services
from crm_sync.store.journal import PHONES, Call, Journal, MeterReading

#: Apollo may still be working, and charge, after we stopped listening: the read time-out and five minutes
#: (design/reliability.md 2.4; a meter read at once proved nothing and charged five people twice).
SETTLE = timedelta(minutes=10)


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What the meter says about the calls in doubt since its reading `before`.

    `unexplained`: credits that left the pool and that no settled call of ours accounts for; None where it cannot be
    told, with `why`.
    """

    unexplained: Decimal | None
    why: str
    before: MeterReading | None = None

    @property
    def nothing_was_charged(self) -> bool:
        return self.unexplained == 0


def weigh(
    doubts: Sequence[Call], before: MeterReading | None, after: MeterReading | None, settled: Decimal, *, open_: int
) -> Evidence:
    """Judge all of `doubts`, which are the only calls between the readings that are neither settled nor clear.

    `settled`: what our other calls between the readings cost at least; `open_`: how many calls have no end yet.
    """
    if before is None:
        return Evidence(unexplained=None, why="Apollo's meter was not read before the call")
    if after is None:
        return Evidence(unexplained=None, why="this key may not read Apollo's meter, or it does not answer")
    settled_at = max(left_at(call) for call in doubts) + SETTLE
    if after.at < settled_at:
        return Evidence(
            unexplained=None, why=f"it is too early: Apollo may charge until {settled_at:%H:%M} UTC", before=before
        )
    if open_:
        return Evidence(unexplained=None, why="other calls are under way, and may move the meter", before=before)
    if before.used is not None and after.used is not None:
        moved = after.used - before.used
    else:
        moved = before.left - after.left
    unexplained = moved - settled
    if unexplained < 0:
        return Evidence(unexplained=None, why="the meter was reset or filled up since", before=before)
    if unexplained == 0:
        why = f"Apollo's meter has not moved by more than our settled calls since {before.at:%Y-%m-%d %H:%M} UTC"
        return Evidence(unexplained=unexplained, why=why, before=before)
    least_and_most = f"0 to {sum((call.most for call in doubts), Decimal(0)):f}"
    why = (
        f"the meter moved by {unexplained:f} credits that no settled call of ours explains; these calls may have cost "
        f"{least_and_most}, and others may use the same credits"
    )
    return Evidence(unexplained=unexplained, why=why, before=before)


def read_meter(enricher: Enricher, journal: Journal, clock: Clock) -> MeterReading | None:
    """Read Apollo's meter and keep what it said; None where it is not told. Costs no credit."""
    try:
        balance = enricher.balance()
    except ProviderError:
        return None
    if balance is None:
        return None
    reading = MeterReading(at=clock.now(), used=balance.used, left=balance.left)
    journal.note_meter(reading)
    return reading


def groups(journal: Journal) -> list[tuple[MeterReading | None, list[Call]]]:
    """The calls in doubt, by the last usable meter reading before each."""
    found: dict[datetime | None, tuple[MeterReading | None, list[Call]]] = {}
    for call in journal.doubts():
        before = journal.meter_before(left_at(call), settle=SETTLE)
        found.setdefault(before.at if before else None, (before, []))[1].append(call)
    return list(found.values())


def explain(call: Call, meter: MeterReading | None, journal: Journal) -> Evidence:
    """What the evidence says about one call in doubt, by a reading of just now."""
    return evidence_of([call], journal.meter_before(left_at(call), settle=SETTLE), meter, journal)


def evidence_of(
    calls: Sequence[Call], before: MeterReading | None, after: MeterReading | None, journal: Journal
) -> Evidence:
    settled, open_ = Decimal(0), 0
    if before is not None and after is not None:
        settled = journal.told_between(before.at, after.at)
        open_ = journal.open_calls(before.at)
        # Calls in doubt after a later reading lie between these two readings as well: they weigh on the same scale.
        calls = [call for call in journal.doubts() if left_at(call) > before.at] or calls
    return weigh(calls, before, after, settled, open_=open_)


def resolve(services: Services) -> list[Call]:
    """Before a run: clear what evidence clears, then do as `budget.in_doubt` says; returns what was resolved."""
    journal = services.journal
    resolved: list[Call] = []
    if not any(services.clock.now() - left_at(call) >= SETTLE for call in journal.doubts()):
        return resolved
    meter = read_meter(services.enricher(), journal, services.clock)
    for before, calls in groups(journal):
        evidence = evidence_of(calls, before, meter, journal)
        if evidence.nothing_was_charged:
            crash.point("doubt.weighed")
            for call in _lookups(calls):
                journal.clear(call.id, evidence.why, by="evidence", now=services.clock.now())
                crash.point("doubt.cleared")
            resolved += _lookups(calls)
    left = [call for call in journal.doubts() if services.clock.now() - left_at(call) >= SETTLE]
    budget = services.config.budget
    for call in _by_policy(_lookups(left), budget, _retried_today(services)):
        journal.accept(
            call.id,
            ask_again=budget.in_doubt == "retry",
            by=f"budget.in_doubt: {'retry_up_to' if budget.in_doubt == 'retry' else 'abandon'}",
            now=services.clock.now(),
        )
        crash.point("doubt.accepted")
        resolved.append(call)
    return resolved


def _lookups(calls: Iterable[Call]) -> list[Call]:
    """Those that ordered no phones: of the others a charge may still come, with what is delivered, so that neither the
    meter nor a policy ends them. Their delivery does, a person, or `give_up_after` (design/reliability.md 2.4, E4)."""
    return [call for call in calls if call.purse != PHONES]


def _by_policy(calls: Iterable[Call], budget: Budget, retried: Decimal) -> list[Call]:
    if budget.in_doubt == "abandon":
        return list(calls)
    chosen: list[Call] = []
    if budget.in_doubt == "retry":
        for call in calls:
            if retried + call.most > budget.retry_up_to:
                break
            retried += call.most
            chosen.append(call)
    return chosen


def _retried_today(services: Services) -> Decimal:
    today = day_of(services.clock.now(), services.config.timezone)
    return sum(
        (
            call.most
            for call in services.journal.accepted(by="budget.in_doubt: retry_up_to")
            if call.resolved_at is not None and day_of(call.resolved_at, services.config.timezone) == today
        ),
        Decimal(0),
    )


def left_at(call: Call) -> datetime:
    """When it was sent, as far as is known: from then on Apollo may have charged for it."""
    return call.sent_at or call.planned_at
