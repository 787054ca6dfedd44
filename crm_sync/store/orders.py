"""Orders for phone numbers, as they change together with the journal of paid calls: in its transactions.

An order's life: *planned* with its call → *sent* → by Apollo's answer *open* (the numbers are delivered under its
token), *skipped* (they come under an earlier order's), *nothing* → *closed* or *expired*. Apart from that *not sent*,
and *in doubt* while the answer is lost, which does not keep Apollo from delivering.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from sqlalchemy import ColumnElement, Connection, Update, and_, insert, or_, select, update

from crm_sync import crash
from crm_sync.domain.reveals import Ordering
from crm_sync.store.hook_tokens import new_order_id
from crm_sync.store.tables import phone_waits, reveal_orders

#: Orders under which something may still be delivered; one that was skipped is answered under an earlier one.
AWAITED = ("sent", "open", "in doubt")
#: Whose phone is still to come.
DUE, WAITING = "due", "waiting"
_NOT_ORDERED = "not ordered"

_STATE_OF = {Ordering.ACCEPTED: "open", Ordering.SKIPPED: "skipped"}
_ZERO = Decimal(0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ordered:
    """What Apollo's answer says about an order. `to_come`: worst cost of what it still delivers; `first_poll_at`: when
    Apollo is asked, should nothing have come; `found` and `unmatched`: keyed digests of people."""

    ordering: Ordering
    reason: str
    to_come: Decimal
    first_poll_at: datetime | None
    found: tuple[bytes, ...] = ()
    unmatched: tuple[bytes, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenBill:
    """What an order had reserved for its delivery."""

    batch_id: int
    to_come: Decimal
    was_given_up: bool


def planned(
    connection: Connection,
    batch_id: int,
    people: Sequence[bytes],
    *,
    sync: str,
    run_id: str,
    gives_up_at: datetime,
    now: datetime,
) -> str:
    """The id of a new order for a planned call; whoever waits for one of its `people` waits for it."""
    order_id = new_order_id()
    connection.execute(
        insert(reveal_orders).values(
            **blank_order(order_id, now=now, gives_up_at=gives_up_at),
            batch_id=batch_id,
            sync=sync,
            run_id=run_id,
        )
    )
    if people:
        # The run has let go of them where a call of its own did not leave: it was refused and halved, or made anew
        # without somebody who was suppressed.
        again = and_(phone_waits.c.state == _NOT_ORDERED, phone_waits.c.run_id == run_id)
        _join(connection, order_id, people, or_(phone_waits.c.state == DUE, again), now=now)
    crash.point("orders.planned")
    return order_id


def _join(
    connection: Connection, order_id: str, people: Sequence[bytes], who: ColumnElement[bool], *, now: datetime
) -> None:
    """Whoever waits for one of these people without an order, as `who` says, waits for this one."""
    connection.execute(
        update(phone_waits)
        .where(phone_waits.c.person.in_(people), who)
        .values(order_id=order_id, state=WAITING, reason="", settled_at=None, asked_at=now)
    )


def blank_order(order_id: str, *, now: datetime, gives_up_at: datetime) -> dict[str, object]:
    """The columns that every new order begins with."""
    return {
        "id": order_id,
        "state": "planned",
        "created_at": now,
        "deliveries": 0,
        "received_bytes": 0,
        "poll_needed": 0,
        "request_id": "",
        "reason": "",
        "to_come": _ZERO,
        "polls": 0,
        "gives_up_at": gives_up_at,
    }


def sent(connection: Connection, batch_id: int) -> None:
    connection.execute(_of(batch_id).where(reveal_orders.c.state == "planned").values(state="sent"))


def answered(connection: Connection, batch_id: int, ordered: Ordered, *, request_id: str, now: datetime) -> None:
    """Its numbers are awaited, or nobody waits for them any more."""
    connection.execute(
        _of(batch_id).values(
            state=_STATE_OF.get(ordered.ordering, "nothing"),
            reason=ordered.reason,
            request_id=request_id,
            to_come=ordered.to_come,
            next_poll_at=ordered.first_poll_at if request_id else None,
        )
    )
    order_id = _id_of(connection, batch_id)
    if ordered.found:
        # Of a call that matched and ordered in one, whose people nobody knew before.
        _join(connection, order_id, ordered.found, phone_waits.c.state == DUE, now=now)
    if ordered.ordering in (Ordering.NOTHING, Ordering.NOBODY):
        _close_waits(connection, order_id, _NOT_ORDERED, ordered.reason, now=now)
    elif ordered.unmatched:
        _close_waits(connection, order_id, "no number", "Apollo does not find this person", ordered.unmatched, now=now)
    crash.point("orders.answered")


def not_sent(connection: Connection, batch_id: int, why: str, *, now: datetime) -> None:
    connection.execute(_of(batch_id).values(state="not sent", reason=why, next_poll_at=None))
    _close_waits(connection, _id_of(connection, batch_id), _NOT_ORDERED, why, now=now)


def in_doubt(connection: Connection, batch_id: int, error: str) -> None:
    """Whoever waits goes on waiting: Apollo may deliver although its answer is lost."""
    connection.execute(_of(batch_id).values(state="in doubt", reason=error))


def given_up(connection: Connection, batch_id: int, why: str, *, now: datetime) -> None:
    """Somebody gave up on a call in doubt; what is delivered for it later is kept, and shown as late."""
    connection.execute(_of(batch_id).values(state="expired", reason=why, next_poll_at=None))
    _close_waits(connection, _id_of(connection, batch_id), "expired", why, now=now)


def bill(connection: Connection, order_id: str, charged: Decimal) -> OpenBill | None:
    """Book an order's bill; None when it was booked before, or there is no such order."""
    row = connection.execute(_BILL.where(reveal_orders.c.id == order_id).with_for_update()).one_or_none()
    if row is None or row.billed is not None or row.batch_id is None:
        return None
    connection.execute(
        update(reveal_orders).where(reveal_orders.c.id == order_id).values(billed=charged, to_come=_ZERO)
    )
    return OpenBill(batch_id=row.batch_id, to_come=row.to_come, was_given_up=row.state == "expired")


def expire(connection: Connection, order_id: str, why: str, *, now: datetime) -> OpenBill | None:
    """Close an order that nothing more is expected of, and whoever waits for it; None when it is closed already.

    What it had reserved stays on the order, so that a late bill finds it.
    """
    row = connection.execute(_BILL.where(reveal_orders.c.id == order_id).with_for_update()).one_or_none()
    if row is None or row.batch_id is None or row.state not in (*AWAITED, "skipped"):
        return None
    connection.execute(
        update(reveal_orders)
        .where(reveal_orders.c.id == order_id)
        .values(state="expired", reason=why, next_poll_at=None)
    )
    _close_waits(connection, order_id, "expired", why, now=now)
    return OpenBill(batch_id=row.batch_id, to_come=row.to_come if row.billed is None else _ZERO, was_given_up=False)


_BILL = select(reveal_orders.c.batch_id, reveal_orders.c.to_come, reveal_orders.c.billed, reveal_orders.c.state)


def _of(batch_id: int) -> Update:
    return update(reveal_orders).where(reveal_orders.c.batch_id == batch_id)


def _id_of(connection: Connection, batch_id: int) -> str:
    found = connection.execute(select(reveal_orders.c.id).where(reveal_orders.c.batch_id == batch_id)).scalar()
    return found or ""


def _close_waits(
    connection: Connection, order_id: str, state: str, reason: str, people: Sequence[bytes] = (), *, now: datetime
) -> None:
    """Of the order's open waits, those for `people`; all of them where none is named."""
    closing = (
        update(phone_waits)
        .where(phone_waits.c.order_id == order_id, phone_waits.c.state.in_((DUE, WAITING)))
        .values(state=state, reason=reason, settled_at=now)
    )
    if people:
        closing = closing.where(phone_waits.c.person.in_(people))
    connection.execute(closing)
