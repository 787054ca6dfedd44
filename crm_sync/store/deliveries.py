"""The inbox: what was delivered, kept as it came before anybody reads it, and what became of it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, and_, func, insert, or_, select, update

from crm_sync import crash
from crm_sync.store.arrivals import CALLBACK, MOST_BODIES, MOST_BYTES, POLL, Arrival, Arrivals, Taken
from crm_sync.store.engine import Store
from crm_sync.store.orders import blank_order
from crm_sync.store.tables import deliveries, reveal_orders
from crm_sync.store.vault import Vault

#: By what a delivery is believed: Apollo's own copy, fetched with our key, or its address, which only Apollo has.
BY_POLL, BY_TOKEN = "poll", "token"
_RESEAL_AT_ONCE = 100
__all__ = ["CALLBACK", "MOST_BODIES", "MOST_BYTES", "POLL", "Deliveries", "Delivery", "Taken", "end_delivery"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """One distinct body of one order. `state`: new, waiting (to be looked at again from `try_at`), done, late (nobody
    waited any more), quarantined (not believed) or dead (it cannot be read); `belief`: "" not read yet, poll (Apollo's
    own copy, fetched with our key), token (whoever had the address)."""

    id: int
    order_id: str
    state: str
    attempts: int
    reason: str
    received_at: datetime
    times: int
    size: int
    source: str
    belief: str
    try_at: datetime | None
    ended_at: datetime | None


class Deliveries:
    """Safe to use from several threads; those that come at once share a commit."""

    def __init__(self, store: Store, vault: Vault) -> None:
        self._store = store
        self._vault = vault
        self._arrivals = Arrivals(store)

    # --- what comes in ------------------------------------------------------------------------------------------

    def open_order(self, order_id: str, *, now: datetime) -> None:
        """An order without a call behind it: what is delivered under it proves that the address leads here."""
        with self._store.write() as connection:
            connection.execute(
                insert(reveal_orders).values(
                    **blank_order(order_id, now=now, gives_up_at=now), sync="", run_id="", batch_id=None
                )
            )

    def sent(self, order_id: str) -> None:
        with self._store.write() as connection:
            connection.execute(update(reveal_orders).where(reveal_orders.c.id == order_id).values(state="sent"))

    def take(self, order_id: str, raw: bytes, *, now: datetime, source: str = CALLBACK) -> Taken:
        """Commit a delivery; what this returns may be acknowledged.

        Raises:
            StoreError: it was not committed, and must not be acknowledged.
        """
        crash.point("inbox.take.before")
        digest = hashlib.sha256(raw).digest()
        body = self._vault.seal(raw, delivery_name(order_id, digest))
        taken = self._arrivals.take(
            Arrival(order_id=order_id, digest=digest, sealed=body, size=len(raw), at=now, source=source)
        )
        crash.point("inbox.take.after")
        return taken

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

    def probed(self, order_id: str, raw: bytes) -> bool:
        """Whether exactly these bytes came in under an order of `open_order`; both are forgotten."""
        digest = hashlib.sha256(raw).digest()
        mine = and_(deliveries.c.order_id == order_id, deliveries.c.digest == digest)
        with self._store.write() as connection:
            found = connection.execute(select(func.count()).select_from(deliveries).where(mine)).scalar()
            connection.execute(deliveries.delete().where(deliveries.c.order_id == order_id))
            connection.execute(
                reveal_orders.delete().where(reveal_orders.c.id == order_id, reveal_orders.c.batch_id.is_(None))
            )
        return bool(found)

    # --- what is to be read -------------------------------------------------------------------------------------

    def to_read(self, *, now: datetime, limit: int) -> list[Delivery]:
        """New ones, and those whose time to be looked at again has come, oldest first; a probe's are not read."""
        ripe = or_(
            deliveries.c.state == "new",
            and_(deliveries.c.state == "waiting", or_(deliveries.c.try_at.is_(None), deliveries.c.try_at <= now)),
        )
        return self._select(and_(ripe, reveal_orders.c.batch_id.is_not(None)), limit=limit)

    def of_order(self, order_id: str) -> list[Delivery]:
        return self._select(deliveries.c.order_id == order_id, limit=MOST_BODIES + 20)

    def get(self, delivery_id: int) -> Delivery | None:
        found = self._select(deliveries.c.id == delivery_id, limit=1)
        return found[0] if found else None

    def listed(
        self,
        *,
        states: Sequence[str] = (),
        since: datetime | None = None,
        until: datetime | None = None,
        sync: str = "",
        limit: int = 200,
    ) -> list[Delivery]:
        """Newest first."""
        which: list[ColumnElement[bool]] = [reveal_orders.c.batch_id.is_not(None)]
        if states:
            which.append(deliveries.c.state.in_(list(states)))
        if since is not None:
            which.append(deliveries.c.received_at >= since)
        if until is not None:
            which.append(deliveries.c.received_at <= until)
        if sync:
            which.append(reveal_orders.c.sync == sync)
        return self._select(and_(*which), limit=limit, newest=True)

    def to_look_at(self, *, sync: str = "", limit: int = 200) -> list[Delivery]:
        """Newest first: those that nobody got, and those that are put off. One that could not be read and whose numbers
        were fetched is none of them."""
        state = deliveries.c.state
        which = [
            reveal_orders.c.batch_id.is_not(None),
            or_(
                state.in_(("late", "unknown", "quarantined")),
                and_(state == "dead", reveal_orders.c.state != "closed"),
                and_(state == "waiting", deliveries.c.attempts > 0),
            ),
        ]
        if sync:
            which.append(reveal_orders.c.sync == sync)
        return self._select(and_(*which), limit=limit, newest=True)

    def counts(self, *, sync: str = "") -> dict[str, int]:
        """State -> how many; of one sync's orders, or of all."""
        query = (
            select(deliveries.c.state, func.count())
            .join(reveal_orders, reveal_orders.c.id == deliveries.c.order_id)
            .where(reveal_orders.c.batch_id.is_not(None))
            .group_by(deliveries.c.state)
        )
        if sync:
            query = query.where(reveal_orders.c.sync == sync)
        with self._store.read() as connection:
            return {state: int(count) for state, count in connection.execute(query)}

    def doubles(self) -> int:
        """How many deliveries came that were here already, byte for byte."""
        with self._store.read() as connection:
            return int(connection.execute(select(func.sum(deliveries.c.times - 1))).scalar() or 0)

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
        return self._vault.unseal(row.body, delivery_name(row.order_id, bytes(row.digest)))

    # --- keys ---------------------------------------------------------------------------------------------------

    def sealed_count(self) -> int:
        with self._store.read() as connection:
            return int(connection.execute(select(func.count()).select_from(deliveries)).scalar() or 0)

    def reseal(self, newest: Vault) -> Iterator[int]:
        """As Journal.reseal, for every body."""
        after = 0
        while True:
            with self._store.write() as connection:
                rows = connection.execute(
                    select(deliveries.c.id, deliveries.c.order_id, deliveries.c.digest, deliveries.c.body)
                    .where(deliveries.c.id > after)
                    .order_by(deliveries.c.id)
                    .limit(_RESEAL_AT_ONCE)
                    .with_for_update()  # somebody may be cut out of one at this moment
                ).all()
                for row in rows:
                    if not newest.is_newest(row.body):
                        place = delivery_name(row.order_id, bytes(row.digest))
                        body = newest.seal(newest.unseal(row.body, place), place)
                        connection.execute(update(deliveries).where(deliveries.c.id == row.id).values(body=body))
            yield len(rows)
            if len(rows) < _RESEAL_AT_ONCE:
                return
            after = rows[-1].id

    # --- what became of it --------------------------------------------------------------------------------------

    def put_off(self, delivery_id: int, why: str, *, until: datetime, belief: str = "") -> None:
        """Look at it again later; `belief`: by what it is believed, where that is known by now."""
        with self._store.write() as connection:
            connection.execute(
                update(deliveries)
                .where(deliveries.c.id == delivery_id)
                .values(state="waiting", reason=why, try_at=until, belief=belief)
            )

    def attempted(self, delivery_ids: Sequence[int]) -> None:
        """Counted before they are read: one that kills its reader is not read for ever."""
        if delivery_ids:
            with self._store.write() as connection:
                connection.execute(
                    update(deliveries)
                    .where(deliveries.c.id.in_(delivery_ids))
                    .values(attempts=deliveries.c.attempts + 1)
                )

    def end(self, delivery_id: int, state: str, why: str, *, now: datetime, belief: str = "") -> None:
        with self._store.write() as connection:
            end_delivery(connection, delivery_id, state, why, belief=belief, now=now)

    def revive(self, order_id: str, raw: bytes) -> None:
        """Try one anew that could not be carried out: its order was asked about once more, and it is what came."""
        mine = and_(deliveries.c.order_id == order_id, deliveries.c.digest == hashlib.sha256(raw).digest())
        with self._store.write() as connection:
            connection.execute(
                update(deliveries).where(mine, deliveries.c.state == "dead").values(state="new", attempts=0)
            )

    def _select(self, which: ColumnElement[bool], *, limit: int, newest: bool = False) -> list[Delivery]:
        query = (
            select(*_COLUMNS)
            .join(reveal_orders, reveal_orders.c.id == deliveries.c.order_id)
            .where(which)
            .order_by(deliveries.c.id.desc() if newest else deliveries.c.id)
            .limit(limit)
        )
        with self._store.read() as connection:
            return [_made(row) for row in connection.execute(query)]


def end_delivery(connection: Connection, delivery_id: int, state: str, why: str, *, belief: str, now: datetime) -> None:
    connection.execute(
        update(deliveries)
        .where(deliveries.c.id == delivery_id)
        .values(state=state, reason=why, belief=belief, try_at=None, ended_at=now)
    )


_COLUMNS = [deliveries.c[field] for field in Delivery.__dataclass_fields__]


def _made(row: Row[Any]) -> Delivery:
    return Delivery(**row._mapping)  # noqa: SLF001


def delivery_name(order_id: str, digest: bytes) -> bytes:
    """What a body is sealed for; `digest` is of the bytes as they came, also after somebody was cut out of them."""
    return f"deliveries.body:{order_id}:{digest.hex()}".encode()
