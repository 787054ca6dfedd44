"""By what a delivery is believed: a callback is only a doorbell, and Apollo's own copy counts (reliability.md 4)."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from crm_sync import crash
from crm_sync.domain.reveals import PhoneDelivery, PollState
from crm_sync.errors import ProviderError, QuotaError, RateLimitError
from crm_sync.services import Services
from crm_sync.store.deliveries import BY_POLL, BY_TOKEN, POLL, Delivery
from crm_sync.store.reveals import Order

#: A key that may not poll is not tried again for so long.
ASK_AGAIN = timedelta(minutes=30)
#: Apollo may call before its own copy can be fetched: so many tries it may say that it knows of nothing.
_UNKNOWN_TRIES = 3
#: So many tries a poll may fail, some twenty minutes; then the token has to do, for what came is paid for.
_FAILED_TRIES = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Weighed:
    """`belief`: BY_POLL, BY_TOKEN, or "" where it is not believed: for good, for the reason `refused`, or not yet, for
    the reason `later`, at the soonest in `seconds`. `content` is what counts."""

    content: PhoneDelivery
    belief: str = ""
    refused: str = ""
    later: str = ""
    seconds: float | None = None


class Believer:
    def __init__(self, services: Services) -> None:
        self._services = services
        self._may_not_poll_until: datetime | None = None

    def weigh(self, delivery: Delivery, order: Order, content: PhoneDelivery) -> Weighed:
        """What a delivery of this content is worth. Where Apollo's own copy differs, that one is in the inbox now.

        Raises:
            CrmSyncError: Apollo cannot be asked now.
        """
        services, now = self._services, self._services.clock.now()
        if delivery.source == POLL or delivery.belief == BY_POLL:
            return Weighed(content=content, belief=BY_POLL)
        if not order.request_id or (self._may_not_poll_until is not None and now < self._may_not_poll_until):
            return Weighed(content=content, belief=BY_TOKEN)
        try:
            polled = services.enricher().poll(order.request_id)
        except (RateLimitError, QuotaError):
            # Beyond Apollo's limit for polls; the address is known to Apollo and to nobody else.
            return Weighed(content=content, belief=BY_TOKEN)
        except ProviderError:
            if delivery.attempts < _FAILED_TRIES:
                raise
            return Weighed(content=content, belief=BY_TOKEN)
        if polled.state is PollState.NOT_ALLOWED:
            self._may_not_poll_until = now + ASK_AGAIN
        if polled.state in (PollState.NOT_ALLOWED, PollState.EXPIRED):
            return Weighed(content=content, belief=BY_TOKEN)
        if polled.state is PollState.PENDING:
            later = "Apollo itself says that it is not finished"
            return Weighed(content=content, later=later, seconds=polled.retry_after_s)
        if polled.state is PollState.UNKNOWN and delivery.attempts < _UNKNOWN_TRIES:
            return Weighed(content=content, later="Apollo itself does not know of it, so far")
        if polled.state is not PollState.READY:
            return Weighed(content=content, refused=f"Apollo does not confirm it: {polled.reason or polled.state}")
        own = services.enricher().read_delivery(polled.body)
        if own.people == content.people:
            return Weighed(content=own, belief=BY_POLL)
        services.deliveries.take(order.id, polled.body, now=now, source=POLL)
        crash.point("resolve.differs")
        return Weighed(content=own, refused="it differs from what Apollo itself tells, which is used in its place")
