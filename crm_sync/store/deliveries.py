"""The inbox: what was delivered, kept as it came before anybody reads it."""

from __future__ import annotations

import hashlib
from datetime import datetime
from enum import Enum

from sqlalchemy import Connection, insert, select, update

from crm_sync.store.engine import Store
from crm_sync.store.tables import deliveries, reveal_orders
from crm_sync.store.vault import Vault

#: More distinct bodies, or bytes, for one order are a leaked token (design/reliability.md 4).
MOST_BODIES, MOST_BYTES = 20, 1 << 20


class Taken(Enum):
    """What became of a delivery. All but UNKNOWN and FLOOD are in the database, for good."""

    STORED = "stored"
    DUPLICATE = "duplicate"
    #: No call was ever sent under this order.
    UNKNOWN = "unknown"
    #: Too many bodies for one order.
    FLOOD = "flood"


class Deliveries:
    """Safe to use from several threads; those that come at once share a commit."""

    def __init__(self, store: Store, vault: Vault) -> None:
        self._store = store
        self._vault = vault

    def open_order(self, order_id: str, *, now: datetime) -> None:
        """Note an order before anything leaves: Apollo may deliver before its own answer comes."""
        with self._store.write() as connection:
            connection.execute(
                insert(reveal_orders).values(
                    id=order_id, state="planned", created_at=now, deliveries=0, received_bytes=0, poll_needed=0
                )
            )

    def sent(self, order_id: str) -> None:
        with self._store.write() as connection:
            connection.execute(update(reveal_orders).where(reveal_orders.c.id == order_id).values(state="sent"))

    def take(self, order_id: str, raw: bytes, *, now: datetime) -> Taken:
        """Commit a delivery; what this returns may be acknowledged.

        Raises:
            StoreError: it was not committed, and must not be acknowledged.
        """
        digest = hashlib.sha256(raw).digest()
        body = self._vault.seal(raw, _place(order_id, digest))
        return self._store.together(lambda connection: _take(connection, order_id, digest, body, len(raw), now))

    def need_poll(self, order_id: str) -> bool:
        """One was too large to be taken: its numbers are to be fetched. False for an order that nobody sent."""
        with self._store.write() as connection:
            return (
                connection.execute(
                    update(reveal_orders)
                    .where(reveal_orders.c.id == order_id, reveal_orders.c.state != "planned")
                    .values(poll_needed=1)
                ).rowcount
                == 1
            )

    def body(self, delivery_id: int) -> bytes:
        """The bytes of a delivery, as they came.

        Raises:
            LookupError: there is none.
        """
        with self._store.read() as connection:
            row = connection.execute(
                select(deliveries.c.order_id, deliveries.c.digest, deliveries.c.body).where(
                    deliveries.c.id == delivery_id
                )
            ).one_or_none()
        if row is None:
            raise LookupError(f"There is no delivery {delivery_id}")
        return self._vault.unseal(row.body, _place(row.order_id, bytes(row.digest)))


def _take(connection: Connection, order_id: str, digest: bytes, body: bytes, size: int, now: datetime) -> Taken:
    order = connection.execute(
        select(reveal_orders.c.state, reveal_orders.c.deliveries, reveal_orders.c.received_bytes)
        .where(reveal_orders.c.id == order_id)
        .with_for_update()
    ).one_or_none()
    if order is None or order.state == "planned":
        return Taken.UNKNOWN
    again = connection.execute(
        update(deliveries)
        .where(deliveries.c.order_id == order_id, deliveries.c.digest == digest)
        .values(times=deliveries.c.times + 1)
    )
    if again.rowcount:
        return Taken.DUPLICATE
    if order.deliveries >= MOST_BODIES or order.received_bytes + size > MOST_BYTES:
        return Taken.FLOOD
    connection.execute(
        insert(deliveries).values(
            order_id=order_id,
            digest=digest,
            body=body,
            size=size,
            state="new",
            attempts=0,
            reason="",
            received_at=now,
            times=1,
        )
    )
    connection.execute(
        update(reveal_orders)
        .where(reveal_orders.c.id == order_id)
        .values(
            deliveries=reveal_orders.c.deliveries + 1,
            received_bytes=reveal_orders.c.received_bytes + size,
        )
    )
    return Taken.STORED


def _place(order_id: str, digest: bytes) -> bytes:
    return f"deliveries.body:{order_id}:{digest.hex()}".encode()
