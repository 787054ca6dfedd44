"""Orders whose delivery has not come: Apollo is asked by and by, and one whose time is over is given up."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from crm_sync import crash
from crm_sync.config.model import Phones
from crm_sync.domain.reveals import PollState
from crm_sync.errors import CredentialsError, ProviderError, QuotaError, RateLimitError
from crm_sync.pipeline.confirm import ASK_AGAIN
from crm_sync.pipeline.ordering import next_poll
from crm_sync.services import Services
from crm_sync.store.deliveries import POLL, Taken
from crm_sync.store.reveals import Order

#: What Apollo says stops the polls (contracts/apollo.md 3, 2026-10).
_OVER = (PollState.UNKNOWN, PollState.EXPIRED, PollState.FAILED)
_AFTER_A_FAILURE = timedelta(minutes=5)
#: How long Apollo keeps what it has (contracts/apollo.md 3, 2026-10).
_KEPT_FOR = timedelta(days=30)
_NO_PHONES_WAIT = timedelta(hours=2)


@dataclass(slots=True, kw_only=True)
class Swept:
    """How many orders were asked about and given up. `stopped`: why others, whose turn it was, were not asked about;
    "" where all were."""

    polled: int = 0
    given_up: int = 0
    stopped: str = ""


class Poller:
    def __init__(self, services: Services) -> None:
        self._services = services
        self._refused_until: datetime | None = None

    def sweep(self, *, limit: int, now_all: bool) -> Swept:
        swept = Swept()
        self._ask(swept, limit=limit, now_all=now_all)
        services, now = self._services, self._services.clock.now()
        for order in services.reveals.to_give_up(now=now, unasked_before=now - _KEPT_FOR, limit=limit):
            phones = self._phones(order)
            waited = _told(phones.give_up_after) if phones is not None else "the time it was given"
            services.reveals.give_up(order.id, f"no number came within {waited}", now=now)
            swept.given_up += 1
        services.reveals.close_stranded(now=now)
        return swept

    def _ask(self, swept: Swept, *, limit: int, now_all: bool) -> None:
        services, now = self._services, self._services.clock.now()
        if not now_all and self._refused_until is not None and now < self._refused_until:
            return
        orders = services.reveals.awaited(limit=limit) if now_all else services.reveals.to_poll(now=now, limit=limit)
        for order in orders:
            try:
                self._poll(order, now)
            except (RateLimitError, QuotaError) as error:
                swept.stopped = str(error)  # the rest later; Apollo's limit for polls is far below that for reveals
                return
            except CredentialsError as error:
                swept.stopped = str(error)
                self._refused_until = now + ASK_AGAIN
                return
            except ProviderError as error:
                services.reveals.polled(order.id, next_poll_at=now + _AFTER_A_FAILURE, reason=str(error))
                continue
            swept.polled += 1

    def _poll(self, order: Order, now: datetime) -> None:
        services = self._services
        polled = services.enricher().poll(order.request_id)
        crash.point("resolve.polled")
        phones = self._phones(order)
        wait = phones.wait if phones is not None else _NO_PHONES_WAIT
        later = next_poll(order.created_at, order.gives_up_at, now, wait=wait)
        reason = ""
        if polled.state is PollState.READY:
            if services.deliveries.take(order.id, polled.body, now=now, source=POLL) is Taken.DUPLICATE:
                services.deliveries.revive(order.id, polled.body)
        elif polled.state is PollState.PENDING:
            reason = "Apollo is still at it"
            soonest = now + timedelta(seconds=polled.retry_after_s or 10.0)
            later = max(later, soonest) if later is not None else None
        else:
            reason = polled.reason or f"Apollo says: {polled.state}"
            later = None if polled.state in _OVER else later
        crash.point("resolve.fetched")
        services.reveals.polled(order.id, next_poll_at=later, reason=reason)

    def _phones(self, order: Order) -> Phones | None:
        sync = self._services.config.syncs.get(order.sync)
        return sync.phones if sync is not None else None


def _told(span: timedelta) -> str:
    hours, days = span / timedelta(hours=1), span / timedelta(days=1)
    if days >= 2 and days.is_integer():
        return f"{days:.0f} days"
    if hours.is_integer():
        return f"{hours:.0f} hour{'' if hours == 1 else 's'}"
    return f"{span / timedelta(minutes=1):.0f} minutes"
