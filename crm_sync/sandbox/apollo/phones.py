"""Reveals of phone numbers: who is looked up for which order, what is found, what it costs, and what a poll says."""

from __future__ import annotations

import heapq
import itertools
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import orjson

from crm_sync.sandbox.apollo import payloads
from crm_sync.sandbox.apollo.callbacks import Callbacks
from crm_sync.sandbox.apollo.courier import Courier, Order, utc
from crm_sync.sandbox.apollo.errors import Refusal
from crm_sync.sandbox.apollo.ledger import PHONE_CREDITS, Ledger, Revealed
from crm_sync.sandbox.apollo.people import Catalogue, person_id
from crm_sync.sandbox.numbers import Phone

DAY_S = 86_400.0
KEPT_S = 30 * DAY_S

_PENDING = (
    "Phone enrichment is processing asynchronously. Retrieve the result by polling GET /api/v1/webhook_result/"
    "{{request_id}} with the top-level `request_id` field from this response. Retry after ~{wait} seconds."
)
_SKIPPED = (
    "Phone enrichment already in progress for the matched people from an earlier request. No webhook will be sent for "
    "this request."
)
# A letter is always in it: it is no integer, and a poll refuses it (contracts/apollo.md 3).
_OTHER_ID = "64a8aa"
_INTEGER = re.compile(r"-?[1-9][0-9]{0,18}\Z|0\Z")


class Reveals:
    """The orders and their reveals. Thread-safe.

    A reveal takes `delay_s`; then it is charged, and a poll has it whether or not its callback was taken. `now` counts
    the days that a result is kept. `retry_after_s` is what a poll that comes too early is told.
    """

    def __init__(
        self,
        *,
        catalogue: Catalogue,
        ledger: Ledger,
        callbacks: Callbacks,
        delay_s: float,
        retry_after_s: int,
        tries: int,
        spacing_s: Sequence[float],
        timeout_s: float,
        variant: str,
        now: Callable[[], float],
    ) -> None:
        self.delay_s = delay_s
        self._catalogue, self._ledger, self._callbacks = catalogue, ledger, callbacks
        self._retry_after_s, self._variant, self._now = retry_after_s, variant, now
        self._courier = Courier(
            body=self._body, finish=self._finish, tries=tries, spacing_s=spacing_s, timeout_s=timeout_s
        )
        self._lock = threading.RLock()
        self._numbers = itertools.count(1)
        self._orders: dict[int, Order] = {}
        self._under_way: list[tuple[float, int, Order]] = []
        self._running: dict[str, Order] = {}
        self._ordered: Counter[str] = Counter()
        self._skipped = 0
        self._polls: Counter[str] = Counter()

    # --- ordering -----------------------------------------------------------------------------------------------

    def start(self, people: Sequence[str], request_id: int, url: str) -> dict[str, Any]:
        """The answer's phone_enrichment. Whose reveal is still running from an earlier order is left to that order."""
        with self._lock:
            self._settle()
            fresh = tuple(apollo_id for apollo_id in dict.fromkeys(people) if apollo_id not in self._running)
            if not fresh:
                self._skipped += 1
                return {"status": "skipped", "message": _SKIPPED}
            order = self._note(fresh, request_id, url)
        if order.what == "early":
            self._courier.deliver_now(order)
        else:
            self._courier.expect(order)
        return {
            "request_id": f"{_OTHER_ID}{order.number:018x}",
            "status": "pending",
            "message": _PENDING.format(wait=self._retry_after_s),
        }

    def _note(self, people: tuple[str, ...], request_id: int, url: str) -> Order:
        script = self._callbacks.take()
        number = next(self._numbers)
        order = self._orders[request_id] = Order(
            number=number,
            request_id=request_id,
            url=url,
            people=people,
            what=script.what if script else "",
            seconds=script.seconds if script else 0.0,
            ordered=utc(),
            ordered_at=self._now(),
            due=time.monotonic() + self.delay_s,
        )
        heapq.heappush(self._under_way, (order.due, number, order))
        self._running.update(dict.fromkeys(people, order))
        self._ordered.update(people)
        return order

    # --- finding ------------------------------------------------------------------------------------------------

    def _settle(self) -> None:
        """Whoever looks after a reveal's time finds it finished, whatever the courier is busy with."""
        while self._under_way and self._under_way[0][0] <= time.monotonic():
            self._finish(heapq.heappop(self._under_way)[2])

    def _finish(self, order: Order) -> None:
        with self._lock:
            if order.is_finished:
                return
            unpaid = set()
            for apollo_id in order.people:
                del self._running[apollo_id]
                cost = 0
                # The mobile is what costs; a switchboard or a direct line comes with it (contracts/apollo.md 5).
                if any(phone.type_cd == "mobile" for phone in self._phones(order, apollo_id)):
                    if self._ledger.charge_phone(apollo_id):
                        cost = PHONE_CREDITS
                    else:
                        unpaid.add(apollo_id)
                order.credits += cost
                self._ledger.revealed.append(Revealed(str(order.request_id), apollo_id, cost))
            order.unpaid = frozenset(unpaid)
            order.finished = utc()
            order.is_finished = True

    def _phones(self, order: Order, apollo_id: str) -> tuple[Phone, ...]:
        if order.what == "nothing" or apollo_id in order.unpaid:
            return ()
        return self._catalogue.phones(apollo_id)

    def _payload(self, order: Order) -> dict[str, Any]:
        """What is delivered, or would be: built again each time, for a million orders would not fit."""
        found = [(apollo_id, self._phones(order, apollo_id)) for apollo_id in order.people]
        if order.what == "waterfall":
            return payloads.waterfall(found, order.credits, order.request_id, order.ordered, order.finished)
        if order.edition:
            found = payloads.changed(found)
        payload = payloads.native(found, order.credits)
        if order.what == "foreign":
            payload = payloads.with_foreigner(payload, *self._foreigner(order))
        return payload

    def _body(self, order: Order) -> bytes:
        payload = self._payload(order)
        if order.what == "latin1":
            return payloads.latin1(payload)
        if order.what == "huge":
            return payloads.huge(payload)
        if order.what == "enveloped":
            payload = {"request_id": str(order.request_id), "webhook_status": "success", "webhook_result": payload}
        return orjson.dumps(payload)

    def _foreigner(self, order: Order) -> payloads.Found:
        """Somebody with a number whom the order does not name."""
        others: Iterator[payloads.Found] = (
            (apollo_id, phones)
            for apollo_id in map(person_id, itertools.count())
            if apollo_id not in order.people and (phones := self._catalogue.phones(apollo_id))
        )
        return next(others)

    # --- polling ------------------------------------------------------------------------------------------------

    def poll(self, text: str) -> dict[str, Any]:
        """The answer to GET webhook_result/<text>.

        Raises:
            Refusal: 404 that means wait, or 404, 410 and 400 that mean stop (poll_errors.json).
        """
        with self._lock:
            try:
                answer = self._poll(text)
            except Refusal as refusal:
                self._polls[refusal.body["error_code"]] += 1
                raise
            self._polls[answer["webhook_status"]] += 1
            return answer

    def _poll(self, text: str) -> dict[str, Any]:
        request_id = int(text) if _INTEGER.match(text) else 1 << 63
        if not -(1 << 63) <= request_id < 1 << 63:
            raise Refusal(400, {"error_code": "invalid_request_id"})
        self._settle()
        order = self._orders.get(request_id)
        if order is None:
            raise Refusal(404, {"error_code": "request_id_unknown"})
        if self._now() - order.ordered_at >= KEPT_S:
            raise Refusal(410, {"error_code": "request_id_expired"})
        if not order.is_finished and self._variant == "a":
            raise Refusal(404, {"error_code": "result_pending", "retry_after_seconds": self._retry_after_s})
        last = order.attempts[-1] if order.attempts else None
        failure = last.failure if last else None
        status = "in_progress" if not order.is_finished else "success" if failure is None else "failed"
        return {
            # As text: it exceeds 2^53.
            "request_id": str(order.request_id),
            "webhook_status": status,
            "request_type": "waterfall" if order.what == "waterfall" else "phone",
            "last_dispatched_at": last.at if last else None,
            "failure_reason": failure,
            "webhook_result": self._payload(order) if order.is_finished else None,
        }

    # --- the sandbox's own --------------------------------------------------------------------------------------

    def age(self, days: float) -> None:
        """All orders so far were made so much earlier."""
        with self._lock:
            for order in self._orders.values():
                order.ordered_at -= days * DAY_S

    def close(self) -> None:
        """Nothing is sent any more."""
        self._courier.close()

    def state(self) -> dict[str, Any]:
        """`ordered`: people whose reveal was started, each time; `delivered`: orders whose callback was taken."""
        with self._lock:
            self._settle()
            charged = self._ledger.phones
            return {
                "orders": len(self._orders),
                "ordered": sum(self._ordered.values()),
                "ordered_more_than_once": {key: count for key, count in self._ordered.items() if count > 1},
                "skipped": self._skipped,
                "running": len(self._running),
                "held": self._courier.held(),
                "delivered": sum(order.is_delivered for order in self._orders.values()),
                "charged": sum(charged.values()) * PHONE_CREDITS,
                "charged_with_reveal": sum(self._ledger.charged_with_reveal.values()),
                "more_than_once": {key: count for key, count in charged.items() if count > 1},
                "by_id": dict(charged.most_common(1000)),
                "by_request": [_told(order) for order in list(self._orders.values())[-1000:]],
                "polls": dict(self._polls),
            }


def _told(order: Order) -> dict[str, Any]:
    return {
        "request_id": str(order.request_id),
        "people": list(order.people),
        "what": order.what,
        "finished": order.is_finished,
        "credits": order.credits,
        "delivered": order.is_delivered,
        "attempts": [{"at": attempt.at, "failure": attempt.failure} for attempt in order.attempts],
    }
