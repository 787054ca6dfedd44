"""What a call that orders phone numbers takes with it, and when it is asked about. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal

from crm_sync.config.model import Phones
from crm_sync.domain.enrichment import MatchKeys, Purpose, Reading, Verdict
from crm_sync.domain.reveals import OrderAnswer, Ordering
from crm_sync.ports import Callbacks, Enricher
from crm_sync.store.orders import Ordered
from crm_sync.store.reveals import NewWait

#: How long after an order Apollo is asked, by and by (design/reliability.md 2.2, M8); those before `phones.wait` are
#: left out. Callbacks were measured to come within ten minutes, and hours late on bad days.
_STEPS = (timedelta(minutes=2), timedelta(minutes=10), timedelta(hours=1), timedelta(hours=6))
_DAILY = timedelta(days=1)
#: For an order of a sync that the configuration does not have any more, or that orders no phones any more.
NO_PHONES = Phones(reveal_when=None, route={})


@dataclass(frozen=True, slots=True, kw_only=True)
class Orders:
    """`person` stands for an Apollo id (store.reveals.Reveals.person); `per_number`: what a delivered number costs at
    worst beside the call itself. `choose` notes who waits, before a call's answer is indexed; of a call by Apollo's
    ids that was done before it was planned."""

    phones: Phones
    callbacks: Callbacks
    person: Callable[[str], bytes]
    per_number: Decimal
    choose: Callable[[Sequence[NewWait]], None]

    def callback(self, order_id: str) -> str:
        return self.callbacks.url_of(order_id)

    def gives_up_at(self, now: datetime) -> datetime:
        return now + self.phones.give_up_after

    def ordered(
        self, answer: OrderAnswer, keys: Sequence[MatchKeys], reading: Reading, answered_at: datetime
    ) -> Ordered:
        return ordered(
            answer,
            keys,
            reading,
            phones=self.phones,
            person=self.person,
            per_number=self.per_number,
            answered_at=answered_at,
        )


def ordered(
    answer: OrderAnswer,
    keys: Sequence[MatchKeys],
    reading: Reading,
    *,
    phones: Phones,
    person: Callable[[str], bytes],
    per_number: Decimal,
    answered_at: datetime,
) -> Ordered:
    """What Apollo's answer to a call means for its order."""
    found = [each is not None and each.verdict is not Verdict.NO_MATCH for each in reading.enrichments]
    is_accepted = answer.ordering is Ordering.ACCEPTED
    is_awaited = is_accepted or answer.ordering is Ordering.SKIPPED
    return Ordered(
        ordering=answer.ordering,
        reason=answer.reason,
        to_come=per_number * sum(found) if is_accepted else Decimal(0),
        first_poll_at=answered_at + phones.wait if is_awaited else None,
        found=tuple(
            person(each.apollo_id)
            for key, each in zip(keys, reading.enrichments, strict=True)
            if is_awaited and not key.apollo_id and each is not None and each.verdict is Verdict.MATCHED
        ),
        unmatched=tuple(
            person(key.apollo_id) for key, is_found in zip(keys, found, strict=True) if key.apollo_id and not is_found
        ),
    )


def per_number(enricher: Enricher) -> Decimal:
    return enricher.most(Purpose.PHONE) - enricher.most(Purpose.PERSON)


def next_poll(ordered_at: datetime, gives_up_at: datetime, now: datetime, *, wait: timedelta) -> datetime | None:
    """When an order that was just asked about is asked about next; None when its time is over before."""
    steps = [wait, *(step for step in _STEPS if step > wait)]
    later = next((step for step in steps if ordered_at + step > now), None)
    if later is not None:
        moment = ordered_at + later
    else:
        days = max((now - ordered_at) // _DAILY, 0) + 1
        moment = ordered_at + days * _DAILY
    # The last one is just before it is given up: an answer that came in the meantime is worth nine credits.
    last = gives_up_at - timedelta(minutes=1)
    if moment > last > now:
        return last
    return moment if moment < gives_up_at else None
