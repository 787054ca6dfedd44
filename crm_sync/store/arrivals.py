"""Deliveries that come at once, written by one of them for all in a handful of statements and one commit.

Apart from `Store.together`, which runs each one's statements: four for a delivery were 0.35 ms under a lock that all
threads and processes wait for, and eight tenths of what the receiver cost (2 cores, SQLite, 2026-11).
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from typing import Any

from sqlalchemy import Connection, bindparam, insert, select, update

from crm_sync import crash
from crm_sync.errors import StoreError
from crm_sync.store.engine import Store
from crm_sync.store.tables import deliveries, reveal_orders

#: More distinct bodies, or bytes, for one order are a leaked token (design/reliability.md 4).
MOST_BODIES, MOST_BYTES = 20, 1 << 20

CALLBACK, POLL = "callback", "poll"


class Taken(Enum):
    """What became of a delivery. All but UNKNOWN and FLOOD are in the database, for good."""

    STORED = "stored"
    DUPLICATE = "duplicate"
    #: No call was ever sent under this order.
    UNKNOWN = "unknown"
    #: Too many bodies for one order.
    FLOOD = "flood"


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrival:
    """One body as it came; `sealed` is what is kept of it."""

    order_id: str
    digest: bytes
    sealed: bytes
    size: int
    at: datetime
    source: str


class _Seat:
    """Where one thread waits: its turn comes when its arrival is committed, or when it is to commit for the others."""

    __slots__ = ("arrival", "error", "is_done", "taken", "turn")

    def __init__(self, arrival: Arrival) -> None:
        self.arrival = arrival
        self.taken = Taken.UNKNOWN
        #: Until the commit, what its thread is told should the one that commits for it be interrupted.
        self.error: Exception | None = StoreError("The program was interrupted before the database took the request")
        self.is_done = False
        self.turn = threading.Lock()
        self.turn.acquire()


class Arrivals:
    """Safe to use from several threads. Who comes while nobody writes leads: it writes for all that came meanwhile."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._lock = threading.Lock()
        self._seats: list[_Seat] = []
        self._is_led = False

    def take(self, arrival: Arrival) -> Taken:
        """Returns after the commit.

        Raises:
            StoreError: it was not committed.
        """
        seat = _Seat(arrival)
        with self._lock:
            self._seats.append(seat)
            leads, self._is_led = not self._is_led, True
        if not leads:
            seat.turn.acquire()
        if not seat.is_done:
            self._lead()
        if seat.error is not None:
            raise seat.error
        return seat.taken

    def _lead(self) -> None:
        seats: list[_Seat] = []
        try:
            with self._store.write() as connection:
                # Only now: while another process had its turn, more have come.
                seats = self._waiting()
                results = _take(connection, [seat.arrival for seat in seats])
            for seat, taken in zip(seats, results, strict=True):
                seat.taken, seat.error = taken, None
        except StoreError as error:  # the database's fault, which the next transaction would meet again
            seats = seats or self._waiting()
            for seat in seats:
                seat.error = error
        except Exception:  # noqa: BLE001 - one of them is at fault, and is told alone
            seats = seats or self._waiting()
            for seat in seats:
                self._alone(seat)
        finally:
            self._hand_over(seats or self._waiting())

    def _waiting(self) -> list[_Seat]:
        with self._lock:
            seats, self._seats = self._seats, []
        return seats

    def _alone(self, seat: _Seat) -> None:
        """So that one which the database does not take costs no other its place."""
        try:
            with self._store.write() as connection:
                [seat.taken] = _take(connection, [seat.arrival])
            seat.error = None
        except Exception as error:  # noqa: BLE001 - it is told to its own thread
            seat.error = error

    def _hand_over(self, seats: Sequence[_Seat]) -> None:
        with self._lock:
            following = self._seats[0] if self._seats else None
            self._is_led = following is not None
        if following is not None:
            following.turn.release()  # first: it waits for the disk while the others answer
        for seat in seats:
            seat.is_done = True
            seat.turn.release()


_ORDERS = (
    select(reveal_orders.c.id, reveal_orders.c.state, reveal_orders.c.deliveries, reveal_orders.c.received_bytes)
    .where(reveal_orders.c.id.in_(bindparam("orders", expanding=True)))
    .order_by(reveal_orders.c.id)  # two processes lock the same ones in the same order
    .with_for_update()
)
_KNOWN = select(deliveries.c.order_id, deliveries.c.digest).where(
    deliveries.c.order_id.in_(bindparam("orders", expanding=True)),
    deliveries.c.digest.in_(bindparam("digests", expanding=True)),
)
_AGAIN = (
    update(deliveries)
    .where(deliveries.c.order_id == bindparam("of_order"), deliveries.c.digest == bindparam("of_digest"))
    .values(times=deliveries.c.times + 1)
)
_COUNTED = (
    update(reveal_orders)
    .where(reveal_orders.c.id == bindparam("of_order"))
    .values(deliveries=bindparam("bodies"), received_bytes=bindparam("bytes"))
)


@dataclass(slots=True)
class _Order:
    bodies: int
    bytes: int
    has_changed: bool = False


def _take(connection: Connection, arrivals: Sequence[Arrival]) -> list[Taken]:
    """One result for each, in the order given."""
    ids = list({each.order_id for each in arrivals})
    orders = {
        row.id: _Order(row.deliveries, row.received_bytes)
        for row in connection.execute(_ORDERS, {"orders": ids}).all()
        if row.state != "planned"
    }
    digests = [each.digest for each in arrivals]
    known = {
        (row.order_id, bytes(row.digest)) for row in connection.execute(_KNOWN, {"orders": ids, "digests": digests})
    }
    results: list[Taken] = []
    rows: list[dict[str, Any]] = []
    again: list[dict[str, Any]] = []
    for each in arrivals:
        order = orders.get(each.order_id)
        if order is None:
            results.append(Taken.UNKNOWN)
        elif (each.order_id, each.digest) in known:
            again.append({"of_order": each.order_id, "of_digest": each.digest})
            results.append(Taken.DUPLICATE)
        # What we fetched ourselves is Apollo's: a flood under a leaked token must not keep it out.
        elif each.source == CALLBACK and (order.bodies >= MOST_BODIES or order.bytes + each.size > MOST_BYTES):
            results.append(Taken.FLOOD)
        else:
            known.add((each.order_id, each.digest))
            order.bodies, order.bytes, order.has_changed = order.bodies + 1, order.bytes + each.size, True
            rows.append(_row(each))
            results.append(Taken.STORED)
    if rows:
        connection.execute(insert(deliveries), rows)
        counted = [(name, order) for name, order in orders.items() if order.has_changed]
        connection.execute(
            _COUNTED, [{"of_order": name, "bodies": order.bodies, "bytes": order.bytes} for name, order in counted]
        )
    if again:
        connection.execute(_AGAIN, again)
    crash.point("inbox.take.inside")
    return results


def _row(arrival: Arrival) -> dict[str, Any]:
    return {
        "order_id": arrival.order_id,
        "digest": arrival.digest,
        "body": arrival.sealed,
        "size": arrival.size,
        "state": "new",
        "attempts": 0,
        "reason": "",
        "received_at": arrival.at,
        "times": 1,
        "source": arrival.source,
        "belief": "",
    }
