"""Whose phone was asked for, under which order, and what came of it."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Row,
    Select,
    and_,
    case,
    func,
    literal,
    literal_column,
    or_,
    select,
    union_all,
    update,
)

from crm_sync import crash
from crm_sync.domain.enrichment import MatchKeys, Purpose, Verdict
from crm_sync.domain.runs import RunStatus
from crm_sync.store.deliveries import end_delivery
from crm_sync.store.engine import Store
from crm_sync.store.journal import Journal
from crm_sync.store.orders import AWAITED, DUE, WAITING
from crm_sync.store.tables import answers, deliveries, phone_waits, reveal_orders, runs
from crm_sync.store.upsert import upsert
from crm_sync.store.vault import Vault

#: Ways in which a wait ends.
APPLIED, KEPT, NO_NUMBER, LISTED, HELD = "applied", "kept", "no number", "listed", "held"
SKIPPED, REJECTED, EXPIRED, NOT_ORDERED = "skipped", "rejected", "expired", "not ordered"
_AT_ONCE = 500
#: An order that somebody waits for once more is not given up before.
_AGAIN_FOR = timedelta(days=1)
#: Those whose numbers come under another order. In words, not as a parameter: else SQLite does not take their index.
_OTHER = reveal_orders.alias()
_SKIPPED = select(_OTHER.c.id).where(_OTHER.c.state == literal_column("'skipped'"))
#: Orders that Apollo may be asked about.
_POLLED = ("open", "skipped", "in doubt")


@dataclass(frozen=True, slots=True, kw_only=True)
class NewWait:
    """A record whose phone is about to be ordered. `key`: the MatchKeys.key it was recognised by; `batch_id` and
    `position`: the answer that told Apollo's id."""

    record_id: str
    apollo_id: str
    key: str
    batch_id: int
    position: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Wait:
    """One record's newest reveal. `person` stands for Apollo's id (Reveals.person)."""

    id: int
    crm: str
    object_type: str
    record_id: str
    sync: str
    run_id: str
    person: bytes
    identity: bytes
    batch_id: int
    position: int
    order_id: str | None
    state: str
    reason: str
    asked_at: datetime
    settled_at: datetime | None
    settled_run: str
    delivery_id: int | None

    @property
    def is_open(self) -> bool:
        return self.state in (DUE, WAITING)


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """One call that ordered phones, see store/orders.py."""

    id: str
    state: str
    created_at: datetime
    deliveries: int
    poll_needed: bool
    batch_id: int
    sync: str
    run_id: str
    request_id: str
    reason: str
    to_come: Decimal
    billed: Decimal | None
    polls: int
    next_poll_at: datetime | None
    gives_up_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class WaitEnd:
    """What became of a wait. `run_id`: the run that wrote it, "" where none did."""

    wait_id: int
    state: str
    reason: str
    run_id: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settlement:
    """A delivery that was read to its end, with everything it changed: all of it in one transaction, or nothing.

    `credits`: what it cost, None where it tells no bill; `found` and `empty` are people (Reveals.person) whose numbers
    came, and of whom there are none. `unplaced`: people whose numbers are here, and of whom nobody knows which record
    they are, since the order's own answer is lost: whoever is matched with one of them joins the order. `made_for`:
    whom the order was made for (Reveals.identity), then.
    """

    delivery_id: int
    order_id: str
    state: str
    reason: str
    belief: str
    ends: tuple[WaitEnd, ...] = ()
    credits: Decimal | None = None
    found: frozenset[bytes] = field(default_factory=frozenset)
    empty: frozenset[bytes] = field(default_factory=frozenset)
    unplaced: frozenset[bytes] = field(default_factory=frozenset)
    made_for: frozenset[bytes] = field(default_factory=frozenset)


class Reveals:
    """Every method commits before it returns."""

    def __init__(self, store: Store, vault: Vault, journal: Journal) -> None:
        self._store = store
        self._vault = vault
        self._journal = journal

    def person(self, apollo_id: str) -> bytes:
        """What stands for a person in the tables."""
        return self._vault.digest(MatchKeys(purpose=Purpose.PHONE, apollo_id=apollo_id).key)

    def identity(self, keys: MatchKeys) -> bytes:
        """What stands for whom a record is about, see Wait.identity."""
        return self._vault.digest(keys.key)

    # --- ordering -----------------------------------------------------------------------------------------------

    def choose(
        self, waits: Sequence[NewWait], *, crm: str, object_type: str, sync: str, run_id: str, now: datetime
    ) -> None:
        """Note whose phone is to be ordered, before anything is planned: a row that waits already stays."""
        rows = [
            {
                "crm": crm,
                "object_type": object_type,
                "record_id": each.record_id,
                "sync": sync,
                "run_id": run_id,
                "person": self.person(each.apollo_id),
                "identity": self._vault.digest(each.key),
                "batch_id": each.batch_id,
                "position": each.position,
                "order_id": None,
                "state": DUE,
                "reason": "",
                "asked_at": now,
                "settled_at": None,
                "settled_run": "",
                "delivery_id": None,
            }
            for each in sorted(waits, key=lambda each: each.record_id)
        ]
        if not rows:
            return
        with self._store.write() as connection:
            statement = upsert(
                connection,
                phone_waits,
                _RENEWED,
                on=("record_id", "object_type", "crm", "sync"),
                where=phone_waits.c.state != WAITING,
            )
            for row in rows:
                connection.execute(statement, row)
        crash.point("reveals.chosen")

    def of_records(self, crm: str, object_type: str, sync: str, record_ids: Iterable[str]) -> dict[str, Wait]:
        """The newest reveal of each of these records by this sync."""
        ids = list(record_ids)
        found: dict[str, Wait] = {}
        for start in range(0, len(ids), _AT_ONCE):
            which = and_(
                phone_waits.c.record_id.in_(ids[start : start + _AT_ONCE]),
                phone_waits.c.object_type == object_type,
                phone_waits.c.crm == crm,
                phone_waits.c.sync == sync,
            )
            found |= {wait.record_id: wait for wait in self._waits(which)}
        return found

    def join(self, run_id: str, *, now: datetime) -> None:
        """Give each of a run's chosen records that is still without an order the one that asks for its person: another
        record's, or another run's. Where its numbers are there already they are read once more, for this record too;
        where nothing of the order is kept any more (store/retention.py) its wait is over."""
        with self._store.write() as connection:
            rows = connection.execute(
                select(phone_waits.c.id, phone_waits.c.person).where(
                    phone_waits.c.run_id == run_id, phone_waits.c.state == DUE
                )
            ).all()
            for start in range(0, len(rows), _AT_ONCE):
                self._join(connection, rows[start : start + _AT_ONCE], now)
                crash.point("reveals.join.inside")

    def _join(self, connection: Connection, rows: Sequence[Row[Any, Any]], now: datetime) -> None:
        people = list({bytes(row.person) for row in rows})
        orders = {
            bytes(row.key): row
            for row in connection.execute(
                select(answers.c.key, reveal_orders.c.id, reveal_orders.c.state, reveal_orders.c.reason)
                .outerjoin(reveal_orders, reveal_orders.c.batch_id == answers.c.batch_id)
                .where(answers.c.purpose == Purpose.PHONE.value, answers.c.key.in_(people))
            )
        }
        for row in rows:
            order = orders.get(bytes(row.person))
            joining = update(phone_waits).where(phone_waits.c.id == row.id)
            if order is not None and order.id is None:
                # Said once: while the answer is fresh it is not asked for again (pipeline/reveal.py), and then anew.
                reason = "its phone was asked for before, and what came of it is not kept any more (keep.deliveries)"
                connection.execute(joining.values(state=SKIPPED, reason=reason, settled_at=now))
            elif order is not None and (
                order.state not in ("expired", "not sent", "nothing") or _is_there(connection, order.id)
            ):
                connection.execute(joining.values(state=WAITING, order_id=order.id))
                _read_again(connection, order.id, now)
            else:
                reason = "nobody is asking for this phone" if order is None else order.reason
                connection.execute(joining.values(state=NOT_ORDERED, reason=reason, settled_at=now))

    # --- what waits ---------------------------------------------------------------------------------------------

    def order(self, order_id: str) -> Order | None:
        found = self.orders([order_id])
        return found.get(order_id)

    def orders(self, order_ids: Iterable[str]) -> dict[str, Order]:
        ids = sorted(set(order_ids))
        found: dict[str, Order] = {}
        with self._store.read() as connection:
            for start in range(0, len(ids), _AT_ONCE):
                rows = connection.execute(_ORDERS.where(reveal_orders.c.id.in_(ids[start : start + _AT_ONCE])))
                found |= {row.id: _order(row) for row in rows}
        return found

    def waits_for(self, order_id: str, people: Iterable[bytes], *, free: Collection[bytes] = ()) -> list[Wait]:
        """Who waits for these people's numbers and may get them by this order: those who wait for it, those whose own
        order was skipped in its favour, and whoever waits for one of `free`, under any order."""
        wanted = list(people)
        found: list[Wait] = []
        for start in range(0, len(wanted), _AT_ONCE):
            some = wanted[start : start + _AT_ONCE]
            elsewhere = select(reveal_orders.c.id).where(
                reveal_orders.c.id == phone_waits.c.order_id, reveal_orders.c.state == "skipped"
            )
            may = [
                phone_waits.c.order_id == order_id,
                phone_waits.c.person.in_([each for each in some if each in free]),
                elsewhere.exists(),
            ]
            found += self._waits(
                and_(phone_waits.c.person.in_(some), phone_waits.c.state.in_((DUE, WAITING)), or_(*may))
            )
        return found

    def late_for(self, order_id: str) -> list[Wait]:
        """Who waited under this order and was given up on."""
        return self._waits(and_(phone_waits.c.order_id == order_id, phone_waits.c.state == EXPIRED))

    def under(self, order_id: str) -> list[Wait]:
        """Whoever waited under this order, whatever came of it."""
        return self._waits(phone_waits.c.order_id == order_id)

    def settled_by(self, delivery_id: int) -> list[Wait]:
        """Whose wait a delivery has ended."""
        return self._waits(phone_waits.c.delivery_id == delivery_id)

    def applied_by(self, delivery_ids: Sequence[int]) -> list[Wait]:
        """Whose number was written by one of these deliveries."""
        found: list[Wait] = []
        for start in range(0, len(delivery_ids), _AT_ONCE):
            some = delivery_ids[start : start + _AT_ONCE]
            found += self._waits(and_(phone_waits.c.delivery_id.in_(some), phone_waits.c.state == APPLIED))
        return found

    def replay(self, delivery_ids: Sequence[int], *, also: Sequence[int] = ()) -> int:
        """Read these deliveries once more, whatever became of them, and let those wait again whose wait they have ended
        without a number written, or came too late for, and the waits `also`; returns how many."""
        ends = (KEPT, NO_NUMBER, LISTED, HELD, SKIPPED, REJECTED, EXPIRED)
        count = 0
        for start in range(0, len(delivery_ids), _AT_ONCE):
            some = delivery_ids[start : start + _AT_ONCE]
            orders = select(deliveries.c.order_id).where(deliveries.c.id.in_(some))
            with self._store.write() as connection:
                # First, as `settle` does: one that is being carried out at this moment is carried out once more.
                connection.execute(
                    update(deliveries)
                    .where(deliveries.c.id.in_(some))
                    .values(state="new", attempts=0, reason="", try_at=None, ended_at=None)
                )
                crash.point("reveals.replay.inside")
                count += connection.execute(
                    update(phone_waits)
                    .where(
                        or_(
                            phone_waits.c.delivery_id.in_(some),
                            and_(phone_waits.c.order_id.in_(orders), phone_waits.c.state == EXPIRED),
                        ),
                        phone_waits.c.state.in_(ends),
                    )
                    .values(state=WAITING, reason="", settled_at=None, settled_run="", delivery_id=None)
                ).rowcount
        for start in range(0, len(also), _AT_ONCE):
            with self._store.write() as connection:
                count += connection.execute(
                    update(phone_waits)
                    .where(phone_waits.c.id.in_(also[start : start + _AT_ONCE]), phone_waits.c.state == APPLIED)
                    .values(state=WAITING, reason="", settled_at=None, settled_run="", delivery_id=None)
                ).rowcount
        return count

    def _waits(self, which: ColumnElement[bool], *, limit: int | None = None, newest: bool = False) -> list[Wait]:
        query = select(phone_waits).where(which).order_by(phone_waits.c.id.desc() if newest else phone_waits.c.id)
        with self._store.read() as connection:
            return [_wait(row) for row in connection.execute(query.limit(limit) if limit is not None else query)]

    # --- settling -----------------------------------------------------------------------------------------------

    def settle(self, settlement: Settlement, *, now: datetime) -> None:
        """The delivery's end, whose wait is over, and its bill, in one transaction. Where it was to be read again since
        it was read, that is still to be done, and over is only what was written."""
        crash.point("reveals.settle.before")
        with self._store.write() as connection:
            again = _is_to_be_read_again(connection, settlement.delivery_id)
            if settlement.credits is not None:
                self._journal.bill(connection, settlement.order_id, settlement.credits)
            for end in settlement.ends:
                if again and end.state != APPLIED:
                    continue
                connection.execute(
                    update(phone_waits)
                    .where(phone_waits.c.id == end.wait_id)
                    .values(
                        state=end.state,
                        reason=end.reason,
                        settled_at=now,
                        settled_run=end.run_id,
                        delivery_id=settlement.delivery_id,
                    )
                )
            for people, verdict in ((settlement.found, Verdict.MATCHED), (settlement.empty, Verdict.NO_MATCH)):
                if people:
                    # What is known of a phone is as old as its delivery; nobody buys it again while that is fresh.
                    connection.execute(
                        update(answers)
                        .where(answers.c.purpose == Purpose.PHONE.value, answers.c.key.in_(sorted(people)))
                        .values(verdict=verdict.value, obtained_at=now)
                    )
            if settlement.unplaced:
                self._note_unplaced(connection, settlement, now)
            if not again:
                end_delivery(
                    connection,
                    settlement.delivery_id,
                    settlement.state,
                    settlement.reason,
                    belief=settlement.belief,
                    now=now,
                )
            crash.point("reveals.settle.inside")
            self._close_orders(connection, settlement.order_id)
        crash.point("reveals.settle.after")

    def _note_unplaced(self, connection: Connection, settlement: Settlement, now: datetime) -> None:
        """Nobody buys these numbers again: not with the next match; after it, `join` finds the order that has them."""
        batch_id = select(reveal_orders.c.batch_id).where(reveal_orders.c.id == settlement.order_id)
        connection.execute(
            upsert(connection, answers, ()),
            [
                {
                    "purpose": Purpose.PHONE.value,
                    "key": key,
                    "verdict": Verdict.MATCHED.value,
                    "source": "delivery",
                    "batch_id": connection.execute(batch_id).scalar_one(),
                    "position": 0,
                    "obtained_at": now,
                }
                for key in sorted(settlement.unplaced | settlement.made_for)
            ],
        )

    def _close_orders(self, connection: Connection, order_id: str) -> None:
        """Orders that nobody waits for any more, and runs all of whose phones are there."""
        open_waits = select(phone_waits.c.id).where(
            phone_waits.c.order_id == reveal_orders.c.id, phone_waits.c.state.in_((DUE, WAITING))
        )
        connection.execute(
            update(reveal_orders)
            .where(
                reveal_orders.c.id.in_(union_all(select(literal(order_id)), _SKIPPED)),
                or_(
                    reveal_orders.c.state.in_(("open", "skipped")),
                    # A delivery has proved that the call was carried out.
                    and_(reveal_orders.c.state == "in doubt", reveal_orders.c.billed.is_not(None)),
                ),
                ~open_waits.exists(),
            )
            .values(state="closed", next_poll_at=None)
        )
        finish_runs(connection)

    def finish_runs(self) -> None:
        """Runs all of whose phones are there are completed."""
        with self._store.write() as connection:
            finish_runs(connection)

    def give_up(self, order_id: str, why: str, *, now: datetime) -> None:
        """An order's time is over."""
        with self._store.write() as connection:
            self._journal.nothing_came(connection, order_id, why, now=now)
            finish_runs(connection)
            crash.point("reveals.give_up.inside")
        crash.point("reveals.given_up")

    def close_stranded(self, *, now: datetime) -> int:
        """Close waits for which nothing can come any more; returns how many. Their order has ended and no delivery of
        it is to be read, as after a replay that failed; or their run has ended before it could order."""
        closed = select(reveal_orders.c.id).where(
            reveal_orders.c.id == phone_waits.c.order_id,
            reveal_orders.c.state.in_(("closed", "expired", "not sent", "nothing")),
            ~_unread().exists(),
        )
        ended = select(runs.c.id).where(runs.c.id == phone_waits.c.run_id, runs.c.finished_at.is_not(None))
        stranded = (
            (and_(phone_waits.c.state == WAITING, closed.exists()), EXPIRED, "what came could not be carried out"),
            (and_(phone_waits.c.state == DUE, ended.exists()), NOT_ORDERED, "its run ended before it was ordered"),
        )
        with self._store.read() as connection:
            looks = [select(phone_waits.c.id).where(which).limit(1) for which, *_ in stranded]
            if not any(connection.execute(look).all() for look in looks):
                return 0
        with self._store.write() as connection:
            count = 0
            for which, state, reason in stranded:
                closing = update(phone_waits).where(which).values(state=state, reason=reason, settled_at=now)
                count += connection.execute(closing).rowcount
            finish_runs(connection)
        return count

    # --- polling ------------------------------------------------------------------------------------------------

    def to_poll(self, *, now: datetime, limit: int) -> list[Order]:
        """Orders whose time to be asked for has come, or of which a delivery could not be taken; oldest first."""
        due = or_(reveal_orders.c.next_poll_at <= now, reveal_orders.c.poll_needed == 1)
        return self._orders(
            and_(due, reveal_orders.c.request_id != "", reveal_orders.c.state.in_(_POLLED)), limit=limit
        )

    def awaited(self, *, limit: int) -> list[Order]:
        """All orders that Apollo can be asked about, oldest first."""
        states = reveal_orders.c.state.in_(_POLLED)
        return self._orders(and_(reveal_orders.c.request_id != "", states), limit=limit)

    def unanswered(self, *, before: datetime) -> bool:
        """Whether an order has been without Apollo's answer since before that moment."""
        query = (
            select(func.count())
            .select_from(reveal_orders)
            .where(
                reveal_orders.c.state == "sent",
                reveal_orders.c.created_at < before,
                reveal_orders.c.batch_id.is_not(None),
            )
        )
        with self._store.read() as connection:
            return bool(connection.execute(query).scalar())

    def to_give_up(self, *, now: datetime, unasked_before: datetime, limit: int) -> list[Order]:
        """Orders whose time is over, but for those of which something has come that is still to be carried out, and
        those made since `unasked_before` that are still to be asked about: nobody could, for days maybe."""
        states = reveal_orders.c.state.in_((*AWAITED, "skipped"))
        is_to_be_asked = and_(
            reveal_orders.c.request_id != "",
            reveal_orders.c.state.in_(_POLLED),
            reveal_orders.c.created_at > unasked_before,
            or_(reveal_orders.c.next_poll_at.is_not(None), reveal_orders.c.poll_needed == 1),
        )
        over = and_(
            reveal_orders.c.gives_up_at <= now,
            states,
            reveal_orders.c.batch_id.is_not(None),
            ~_unread().exists(),
            ~is_to_be_asked,
        )
        return self._orders(over, limit=limit)

    def polled(self, order_id: str, *, next_poll_at: datetime | None, reason: str = "") -> None:
        """It was asked for once more; `reason`: what Apollo said, where nothing came."""
        with self._store.write() as connection:
            connection.execute(
                update(reveal_orders)
                .where(reveal_orders.c.id == order_id)
                .values(polls=reveal_orders.c.polls + 1, next_poll_at=next_poll_at, poll_needed=0, reason=reason)
            )

    def next_moment(self) -> datetime | None:
        """When the next order is to be asked for or given up; None when nothing is awaited."""
        with self._store.read() as connection:
            moments = [
                connection.execute(select(func.min(column)).where(reveal_orders.c.state.in_(states))).scalar()
                for column, states in (
                    (reveal_orders.c.next_poll_at, _POLLED),
                    (reveal_orders.c.gives_up_at, (*AWAITED, "skipped")),
                )
            ]
        return min((each for each in moments if each is not None), default=None)

    def _orders(self, which: ColumnElement[bool], *, limit: int) -> list[Order]:
        query = _ORDERS.where(which).order_by(reveal_orders.c.created_at, reveal_orders.c.id).limit(limit)
        with self._store.read() as connection:
            return [_order(row) for row in connection.execute(query)]

    # --- questions ----------------------------------------------------------------------------------------------

    def counts(self, *, run_id: str = "", sync: str = "") -> dict[str, int]:
        """State of the waits -> how many; of one run, of one sync, or of all."""
        query = select(phone_waits.c.state, func.count()).group_by(phone_waits.c.state)
        if run_id:
            query = query.where(phone_waits.c.run_id == run_id)
        if sync:
            query = query.where(phone_waits.c.sync == sync)
        with self._store.read() as connection:
            return {state: int(count) for state, count in connection.execute(query)}

    def waiting_in(self, run_id: str) -> int:
        """How many of a run's records still wait."""
        counts = self.counts(run_id=run_id)
        return counts.get(DUE, 0) + counts.get(WAITING, 0)

    def waiting(self, *, limit: int = 200, sync: str = "") -> list[Wait]:
        """Oldest first."""
        which = phone_waits.c.state.in_((DUE, WAITING))
        return self._waits(and_(which, phone_waits.c.sync == sync) if sync else which, limit=limit)

    def settled(self, *, states: Sequence[str] = (), limit: int = 200, sync: str = "") -> list[Wait]:
        """Newest first."""
        which: list[ColumnElement[bool]] = [phone_waits.c.state.not_in((DUE, WAITING))]
        if states:
            which.append(phone_waits.c.state.in_(list(states)))
        if sync:
            which.append(phone_waits.c.sync == sync)
        return self._waits(and_(*which), limit=limit, newest=True)

    def of_record(self, object_type: str, record_id: str) -> list[Wait]:
        return self._waits(and_(phone_waits.c.record_id == record_id, phone_waits.c.object_type == object_type))

    def bills(self) -> Mapping[str, Decimal]:
        """What is still to be billed at worst, and what deliveries have cost so far."""
        with self._store.read() as connection:
            to_come, billed = connection.execute(
                select(func.sum(reveal_orders.c.to_come), func.sum(reveal_orders.c.billed))
            ).one()
        return {"to_come": to_come or Decimal(0), "billed": billed or Decimal(0)}


def _unread() -> Select[Any]:
    """The deliveries of an order that are to be read."""
    return select(deliveries.c.id).where(
        deliveries.c.order_id == reveal_orders.c.id, deliveries.c.state.in_(("new", "waiting"))
    )


_KEPT_NUMBERS = ("done", "duplicate", "unknown", "late")


def _is_there(connection: Connection, order_id: str) -> bool:
    """Whether something was delivered for an order, whatever became of the order itself."""
    states = (*_KEPT_NUMBERS, "new", "waiting")
    kept = select(deliveries.c.id).where(deliveries.c.order_id == order_id, deliveries.c.state.in_(states))
    return connection.execute(kept.limit(1)).first() is not None


def _read_again(connection: Connection, order_id: str, now: datetime) -> None:
    """Somebody waits for an order whose numbers may be here already: they are read once more, and fetched where they
    are not kept any more."""
    there = connection.execute(
        update(deliveries)
        # A new one too: it may be carried out at this moment, for those who waited before.
        .where(deliveries.c.order_id == order_id, deliveries.c.state.in_((*_KEPT_NUMBERS, "new", "waiting")))
        .values(state="new", attempts=0)
    ).rowcount
    again = update(reveal_orders).where(reveal_orders.c.id == order_id, reveal_orders.c.state == "closed")
    at_least = literal(now + _AGAIN_FOR, reveal_orders.c.gives_up_at.type)
    gives_up_at = case((reveal_orders.c.gives_up_at < at_least, at_least), else_=reveal_orders.c.gives_up_at)
    connection.execute(again.values(state="open", gives_up_at=gives_up_at, next_poll_at=None if there else now))


def _is_to_be_read_again(connection: Connection, delivery_id: int) -> bool:
    """Whether a delivery is to be read once more since it was last begun (Deliveries.attempted); so it stays until the
    transaction ends."""
    attempts = select(deliveries.c.attempts).where(deliveries.c.id == delivery_id).with_for_update()
    return connection.execute(attempts).scalar() == 0


_RENEWED = (
    "run_id", "person", "identity", "batch_id", "position", "order_id", "state", "reason", "asked_at", "settled_at",
    "settled_run", "delivery_id",
)  # fmt: skip
_ORDERS = select(*[reveal_orders.c[name] for name in Order.__dataclass_fields__])


def finish_runs(connection: Connection) -> None:
    """Complete the runs all of whose phones are there."""
    still = select(phone_waits.c.id).where(phone_waits.c.run_id == runs.c.id, phone_waits.c.state.in_((DUE, WAITING)))
    connection.execute(
        update(runs)
        .where(runs.c.status == RunStatus.WAITING_FOR_PHONES.value, ~still.exists())
        .values(status=RunStatus.COMPLETED.value)
    )


def _order(row: Row[Any]) -> Order:
    return Order(**{**row._mapping, "poll_needed": bool(row.poll_needed)})  # noqa: SLF001


def _wait(row: Row[Any]) -> Wait:
    found = dict(row._mapping)  # noqa: SLF001
    return Wait(**{**found, "person": bytes(row.person), "identity": bytes(row.identity)})
