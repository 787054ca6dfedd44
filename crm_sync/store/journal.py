"""The journal of paid calls: what may leave, what left, what came back and what it cost.

A call's life: *planned* (its keys are guarded and its worst cost reserved; certainly nothing left) → *sent* (committed
before the first byte leaves) → *received* (the raw bytes, committed before anything reads them) → *done* (indexed,
settled at what Apollo reported). Apart from that: *refused* and *unsent* (nothing was charged), *in doubt* (it may
have been), and from there *not charged*, *charged* or *accepted* (a person or the policy gave up on knowing).

The guard is the primary key of `answers`: a key that is being asked for, in doubt or freshly answered has its row, and
a second call for it cannot be inserted, whoever tries. Budgets look at `spending`, which changes in the same commits.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

import orjson
from sqlalchemy import (
    Connection,
    Row,
    and_,
    bindparam,
    case,
    delete,
    exists,
    func,
    insert,
    literal,
    literal_column,
    or_,
    select,
    text,
    update,
)
from sqlalchemy.sql.elements import ColumnElement
from sqlalchemy.sql.selectable import ScalarSelect

from crm_sync import crash
from crm_sync.domain.enrichment import MatchKeys, Purpose, RawAnswer, Verdict
from crm_sync.errors import HeldError, StoreError
from crm_sync.store import orders
from crm_sync.store.engine import Store
from crm_sync.store.instance import GONE_BACK
from crm_sync.store.tables import Credits, answers, balances, batches, instance, millis, runs, spending
from crm_sync.store.upsert import run_many, upsert
from crm_sync.store.vault import Vault

#: Verdicts of the index beside those of domain.enrichment.Verdict.
ASKED = "asked"  # a paid call for it is planned or under way
IN_DOUBT = "in doubt"  # a paid call left without a readable answer
ABANDONED = "abandoned"  # a person gave up on a call in doubt
LEFT_OPEN = "left open"  # a bulk answer said nothing about it: asked for in bulk again, its company is paid for again
GUARDING = (ASKED, IN_DOUBT)
#: The `source` of a row that a stamp in the CRM stands for: bought, and the answer is not here.
STAMP = "stamp"

#: States that a call never leaves: its credits are counted for good, and its keys guarded no more.
_ENDED = ("done", "refused", "unsent", "not charged", "accepted")

#: Whose credits a call is paid from: look-ups, and calls that order phone numbers, have limits of their own.
LOOKUPS, PHONES = "lookups", "phones"
_RESEAL_AT_ONCE = 100

#: Planning is one at a time for all processes: two that look at one budget together would both find room.
_PLANNING_LOCK = 0x63726D73


@dataclass(frozen=True, slots=True, kw_only=True)
class Spent:
    """Credits so far, at worst cost where they are not settled: of the look-ups' purse, and of the phones'."""

    run: Decimal
    day: Decimal
    month: Decimal
    phones_run: Decimal = Decimal(0)
    phones_day: Decimal = Decimal(0)
    phones_month: Decimal = Decimal(0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Room:
    """What may be reserved now; `limit` names what binds. `credits` None: no limit."""

    credits: Decimal | None = None
    limit: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Intent:
    """Paid calls about to be planned together: the keys of each, none twice. `most` is the worst cost of one key;
    `day` the budget's day by the clock.

    `fresh_since` and `no_match_since`: older answers may be bought again. `gives_up_at`: each call orders phone numbers
    that are delivered later, and awaited until then; None: it does not.
    """

    run_id: str
    sync: str
    purpose: Purpose
    calls: tuple[tuple[MatchKeys, ...], ...]
    single: bool
    endpoint: str
    most: Decimal
    day: str
    fresh_since: datetime
    no_match_since: datetime
    gives_up_at: datetime | None = None
    share: int = 0

    @property
    def purse(self) -> str:
        return LOOKUPS if self.gives_up_at is None else PHONES


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedCall:
    """One call that may leave: its worst cost is reserved and its keys are guarded. `order_id`: what its phone numbers
    are delivered under, "" where it orders none."""

    id: int
    keys: tuple[MatchKeys, ...]
    single: bool = False
    order_id: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What became of an intent: its `calls` may leave; `held` keys have an answer already, or somebody is asking for
    them; for `left` there is no `room`."""

    calls: tuple[PlannedCall, ...] = ()
    held: tuple[MatchKeys, ...] = ()
    left: tuple[MatchKeys, ...] = ()
    room: Room = Room()


@dataclass(frozen=True, slots=True, kw_only=True)
class NewAnswer:
    """One row to index: `key` is MatchKeys.key."""

    purpose: Purpose
    key: str
    verdict: Verdict
    source: str
    position: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Expansion:
    """What one paid call's answer says, to be indexed. `credits_charged` None: as Apollo said; `open`: keys that the
    answer says nothing about, to be asked for singly; `answered_at`: when it came, None for the time of indexing.
    Records are stamped with it, so it must be the same whenever, and by whomever, the answer is read. `ordered`: what
    the answer says about the phone numbers that its call has ordered, None where it ordered none."""

    batch_id: int
    rows: tuple[NewAnswer, ...]
    open: tuple[MatchKeys, ...] = ()
    credits_charged: Decimal | None = None
    answered_at: datetime | None = None
    ordered: orders.Ordered | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class StampedAnswer:
    """What a stamp on a CRM record says was bought: not before one moment, and at the other at the latest (a date
    leaves a day open). The answer itself is not here."""

    purpose: Purpose
    key: str
    verdict: Verdict
    not_before: datetime
    obtained_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One row of the journal with what was asked; no keys once the purge has been there."""

    id: int
    run_id: str
    sync: str
    purpose: Purpose
    keys: tuple[MatchKeys, ...]
    single: bool
    endpoint: str
    state: str
    day: str
    most: Decimal
    credits: Decimal | None
    planned_at: datetime
    sent_at: datetime | None
    answered_at: datetime | None
    error: str
    resolved_at: datetime | None = None
    resolved_by: str = ""
    body: bytes = b""
    purse: str = LOOKUPS
    request_id: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class MeterReading:
    """What Apollo's own meter said: credits `used` in the period (None: not told) and `left`."""

    at: datetime
    used: Decimal | None
    left: Decimal


# Built once: composing a statement costs more than running it.
_TOTAL = spending.c.reserved + spending.c.settled + spending.c.doubted


def _sum(purse: str, *which: ColumnElement[bool]) -> ScalarSelect[Any]:
    return select(func.sum(_TOTAL, type_=Credits())).where(*which, spending.c.purse == purse).scalar_subquery()


_OF_RUN = (spending.c.run_id == bindparam("b_run"),)
_OF_DAY = (spending.c.day == bindparam("b_day"),)
_OF_MONTH = (spending.c.day >= bindparam("b_month"), spending.c.day <= bindparam("b_day"))
_LOOK = select(
    select(func.max(spending.c.day)).scalar_subquery(),
    *[_sum(purse, *which) for purse in (LOOKUPS, PHONES) for which in (_OF_RUN, _OF_DAY, _OF_MONTH)],
)
_PLANNED = insert(batches).returning(batches.c.id, sort_by_parameter_order=True)
_GUARD = insert(answers)
_SENT = (
    update(batches)
    .where(
        batches.c.id == bindparam("b_id"),
        batches.c.state.in_(("planned", "sent")),
        ~exists().where(runs.c.id == batches.c.run_id, runs.c.cancel_asked_at.is_not(None)),
        ~exists().where(or_(instance.c.held != "", instance.c.epoch < bindparam("b_epoch"))),
    )
    .values(state="sent", sent_at=bindparam("b_at"))
)
_HOLD = select(instance.c.held, instance.c.epoch).limit(1)
_RECEIVED = (
    update(batches)
    .where(batches.c.id == bindparam("b_id"))
    .values(
        state=case((batches.c.state.in_(_ENDED), batches.c.state), else_="received"),
        answered_at=bindparam("b_at"),
        credits=bindparam("b_credits"),
        told=bindparam("b_credits"),
        request_id=bindparam("b_request_id"),
        body=bindparam("b_body"),
    )
)
_DONE = (
    update(batches)
    .where(batches.c.id == bindparam("b_id"))
    .values(state="done", credits=func.coalesce(bindparam("b_credits", type_=Credits()), batches.c.credits))
)
_SPEND = (
    update(spending)
    .where(
        spending.c.day == bindparam("b_day"),
        spending.c.run_id == bindparam("b_run"),
        spending.c.purse == bindparam("b_purse"),
    )
    .values(
        reserved=spending.c.reserved + bindparam("b_reserved", type_=Credits()),
        settled=spending.c.settled + bindparam("b_settled", type_=Credits()),
        doubted=spending.c.doubted + bindparam("b_doubted", type_=Credits()),
    )
)
_SUMS = tuple(field.name for field in fields(Spent))
_KEY_NAMES = tuple(field.name for field in fields(MatchKeys))
_ZERO = Decimal(0)
#: The columns of an answers row. Rows of one commit go in the order of their key: neighbours share pages, and two
#: writers cannot deadlock.
_ANSWER = ("purpose", "key", "verdict", "source", "batch_id", "position", "obtained_at")
_ANSWER_CHANGES = _ANSWER[2:]
_AnswerRow = tuple[str, bytes, str, str, int, int, int]


class Journal:
    """Every method commits before it returns."""

    def __init__(self, store: Store, vault: Vault) -> None:
        self._store = store
        self._vault = vault
        #: The epoch that this process raised the database to before it spends: a database that shows a lower one was
        #: replaced by a backup under our hands.
        self.at_epoch = 0

    # --- a call's life ------------------------------------------------------------------------------------------

    def plan(self, intent: Intent, room_of: Callable[[Spent], Room], *, now: datetime) -> Plan:
        """Guard the keys, reserve the worst cost, and write down what is meant to be asked; nothing has left.

        `room_of` decides what may be spent, from what has been.

        Raises:
            HeldError: nothing may be spent (store/instance.py).
        """
        crash.point("journal.plan.before")
        plan = self._store.together(lambda connection: self._plan(connection, intent, room_of, now))
        crash.point("journal.plan.after")
        return plan

    def sent(self, batch_id: int, *, now: datetime, orders_phones: bool = False) -> bool:
        """From here on the call may have been charged. False, and nothing is noted, when somebody cancelled the run.
        From here on, too, Apollo may deliver what a call that `orders_phones` has ordered.

        Raises:
            HeldError: nothing may be spent since the call was planned.
            StoreError: another process took this one for dead and closed the call: its keys are not guarded any more.
        """

        def work(connection: Connection) -> bool:
            values = {"b_id": batch_id, "b_at": now, "b_epoch": self.at_epoch}
            if connection.execute(_SENT, values).rowcount == 1:
                if orders_phones:
                    orders.sent(connection, batch_id)
                crash.point("journal.sent.inside")
                return True
            self._refuse_hold(connection)
            state = connection.execute(select(batches.c.state).where(batches.c.id == batch_id)).scalar()
            if state not in ("planned", "sent"):
                raise StoreError(
                    f"Call {batch_id} is closed already ({state}): another process took this one for dead. It was not "
                    "sent; run the sync again"
                )
            return False

        crash.point("journal.sent.before")
        noted = self._store.together(work)
        crash.point("journal.sent.after")
        return noted

    def _refuse_hold(self, connection: Connection) -> None:
        held, epoch = connection.execute(_HOLD).one_or_none() or ("", 0)
        if held or epoch < self.at_epoch:
            raise HeldError(held or GONE_BACK)

    def received(self, batch_id: int, raw: RawAnswer, *, now: datetime) -> None:
        """The raw bytes, before anything reads them. They are paid for: a database that does not take them now is asked
        again for some minutes."""
        crash.point("journal.received.before")
        values = {
            "b_id": batch_id,
            "b_at": now,
            "b_credits": raw.credits,
            "b_request_id": raw.request_id,
            "b_body": self._vault.seal(raw.body, body_name(batch_id)),
        }
        self._store.patiently(lambda connection: self._received(connection, values))
        crash.point("journal.received.after")

    def _received(self, connection: Connection, values: dict[str, object]) -> None:
        connection.execute(_RECEIVED, values)
        crash.point("journal.received.inside")

    def expand(self, expansions: Sequence[Expansion], *, now: datetime) -> None:
        """Index several answers and settle what they cost, in one commit; what another process has settled stays.

        An employer's row, and one by another name of the same person, never replaces an answer that was asked for.
        """
        crash.point("journal.expand.before")
        with self._store.write() as connection:
            _lock_planning(connection)
            open_ = _not_ended(connection, [e.batch_id for e in expansions])
            expansions = [e for e in expansions if e.batch_id in open_]
            self._index(connection, expansions, now)
            for expansion in expansions:
                for purpose in {key.purpose for key in expansion.open}:
                    digests = self._digests(expansion.open)
                    connection.execute(
                        update(answers)
                        .where(_guarding(digests, purpose, expansion.batch_id))
                        .values(verdict=LEFT_OPEN, obtained_at=now)
                    )
            crash.point("journal.expand.indexed")
            if expansions:
                connection.execute(_DONE, [{"b_id": e.batch_id, "b_credits": e.credits_charged} for e in expansions])
                _settle(connection, [e.batch_id for e in expansions])
            for expansion in expansions:
                if expansion.ordered is not None:
                    self._ordered(connection, expansion, now)
            crash.point("journal.expand.settled")
        crash.point("journal.expand.after")

    def _index(self, connection: Connection, expansions: Sequence[Expansion], now: datetime) -> None:
        rows: dict[str, dict[tuple[Purpose, str], _AnswerRow]] = defaultdict(dict)
        for expansion in expansions:
            for row in expansion.rows:
                kind = row.source if row.source in _BESIDE else "own"
                rows[kind][row.purpose, row.key] = self._row(
                    row, expansion.batch_id, millis(expansion.answered_at or now)
                )
        for kind, statement in (
            ("own", upsert(connection, answers, _ANSWER_CHANGES)),
            # Another name is as fresh as the newest answer that came with it, and better than a stamp without one.
            ("alias", upsert(connection, answers, _ANSWER_CHANGES, where=_REPLACED_BY_ALIAS)),
            ("employer", upsert(connection, answers, ())),
        ):
            if rows[kind]:
                run_many(connection, statement, _ANSWER, sorted(rows[kind].values()))

    def _ordered(self, connection: Connection, expansion: Expansion, now: datetime) -> None:
        """What is still to be charged for a call that orders phones stays reserved until its delivery is billed."""
        assert expansion.ordered is not None
        call = self._call(connection, expansion.batch_id)
        orders.answered(connection, call.id, expansion.ordered, request_id=call.request_id, now=now)
        if expansion.ordered.to_come:
            _spend(connection, call, reserved=expansion.ordered.to_come)

    def guard_stamped(self, stamped: Sequence[StampedAnswer]) -> int:
        """After a restore: these were bought, and the answers are not here. Rows that know something newer stay;
        returns how many were put."""
        rows = [
            {
                "purpose": each.purpose.value,
                "key": self._vault.digest(each.key),
                "verdict": each.verdict.value,
                "source": STAMP,
                "batch_id": 0,
                "position": 0,
                "obtained_at": each.obtained_at,
                "b_not_before": each.not_before,
            }
            for each in stamped
        ]
        rows.sort(key=lambda row: (row["purpose"], row["key"]))
        with self._store.write() as connection:
            _lock_planning(connection)
            statement = upsert(connection, answers, _ANSWER_CHANGES, where=_OLDER_THAN_STAMP)
            counted = {"preserve_rowcount": True}  # PostgreSQL's dialect forgets it after an INSERT
            return sum(connection.execute(statement, row, execution_options=counted).rowcount for row in rows)

    def not_charged(self, batch_id: int, state: str, why: str, *, now: datetime) -> None:
        """`state` is "refused" (Apollo said no) or "unsent" (it never left)."""
        crash.point("journal.release.before")
        with self._store.write() as connection:
            _lock_planning(connection)
            call = self._call(connection, batch_id)
            if call.state not in _ENDED:  # else another process was first
                self._release(connection, call, state, why, now)
        crash.point("journal.release.after")

    def let_go(self, batch_id: int, why: str, *, now: datetime) -> bool:
        """A planned call of a process that was taken for dead was never sent; False where it is sent by now: it is
        alive after all."""
        crash.point("journal.let_go.before")
        unsent = update(batches).where(batches.c.id == batch_id, batches.c.state == "planned")
        with self._store.write() as connection:
            _lock_planning(connection)
            if connection.execute(unsent.values(state="unsent")).rowcount != 1:
                return False
            self._release(connection, self._call(connection, batch_id), "unsent", why, now)
        return True

    def clear(self, batch_id: int, evidence: str, *, by: str, now: datetime) -> None:
        """A call in doubt was not charged, by evidence: its keys may be asked for again."""
        with self._store.write() as connection:
            _lock_planning(connection)
            call = self._call(connection, batch_id)
            _still_in_doubt(call)
            self._release(connection, call, "not charged", evidence, now)
            connection.execute(update(batches).where(batches.c.id == batch_id).values(resolved_at=now, resolved_by=by))

    def _release(self, connection: Connection, call: Call, state: str, why: str, now: datetime) -> None:
        connection.execute(
            update(batches)
            .where(batches.c.id == call.id)
            .values(state=state, answered_at=now, credits=_ZERO, error=why)
        )
        crash.point("journal.release.inside")
        self._reopen(connection, call, now)
        _spend(connection, call, reserved=-call.most)
        if call.purse == PHONES:
            orders.not_sent(connection, call.id, why, now=now)

    def in_doubt(self, batch_id: int, body: bytes, error: str, *, now: datetime) -> None:
        """It may have been charged: nobody asks for these keys again until evidence or a person settles it."""
        crash.point("journal.doubt.before")
        kept = {"body": self._vault.seal(body, body_name(batch_id))} if body else {}
        with self._store.write() as connection:
            _lock_planning(connection)
            call = self._call(connection, batch_id)
            if call.state in _ENDED or (call.state == "received" and not body):
                return  # its answer came meanwhile, to a process that was taken for dead
            connection.execute(
                update(batches)
                .where(batches.c.id == batch_id)
                .values(state="in doubt", answered_at=now, error=error, **kept)
            )
            crash.point("journal.doubt.inside")
            connection.execute(
                update(answers)
                .where(_guarding(self._digests(call.keys), call.purpose, batch_id))
                .values(verdict=IN_DOUBT, obtained_at=now)
            )
            if call.purse == PHONES:
                orders.in_doubt(connection, batch_id, error)
        crash.point("journal.doubt.after")

    def accept(self, batch_id: int, *, ask_again: bool, by: str, now: datetime) -> None:
        """Give up on knowing: it counts as charged at worst cost. `ask_again` lets its keys be bought anew; else they
        cool down like people Apollo does not know."""
        with self._store.write() as connection:
            _lock_planning(connection)
            call = self._call(connection, batch_id)
            _still_in_doubt(call)
            connection.execute(
                update(batches)
                .where(batches.c.id == batch_id)
                .values(state="accepted", credits=call.most, resolved_at=now, resolved_by=by)
            )
            if ask_again:
                self._reopen(connection, call, now)
            else:
                rows = _guarding(self._digests(call.keys), call.purpose, batch_id)
                connection.execute(update(answers).where(rows).values(verdict=ABANDONED, obtained_at=now))
            _spend(connection, call, reserved=-call.most, doubted=call.most)
            if call.purse == PHONES:
                orders.given_up(connection, batch_id, f"given up by {by}", now=now)

    # --- what is charged later ------------------------------------------------------------------------------------

    def bill(self, connection: Connection, order_id: str, charged: Decimal) -> bool:
        """Book what a delivery cost, in the transaction that settles it; False when the order was billed before, or at
        worst cost with its call.

        A call that was in doubt was charged, then: its delivery is the proof (design/reliability.md 2.4, E3).
        """
        _lock_planning(connection)
        bill = orders.bill(connection, order_id, charged)
        if bill is None:
            return False
        call = self._call(connection, bill.batch_id)
        if call.state in (IN_DOUBT, "accepted") and call.purpose is not Purpose.PHONE:
            # It matched people too, and who they are is lost: a person settles it, and until then the worst cost of the
            # call, which holds this bill, is what counts.
            return False
        if call.state in (IN_DOUBT, "accepted"):
            # Apollo's own answer is lost: one credit a person for it (contracts/apollo.md 5), at worst.
            known = Decimal(len(call.keys))
            connection.execute(
                update(batches)
                .where(batches.c.id == call.id)
                .values(state="done", credits=known + charged, error="", resolved_by="its delivery")
            )
            rows = and_(answers.c.batch_id == call.id, answers.c.verdict.in_((*GUARDING, ABANDONED)))
            connection.execute(update(answers).where(rows).values(verdict=Verdict.MATCHED.value))
            # One that was given up on counts at its worst cost already.
            worst = {"reserved" if call.state == IN_DOUBT else "doubted": -call.most}
            _spend(connection, call, settled=known + charged, **worst)
            return True
        connection.execute(
            update(batches)
            .where(batches.c.id == call.id)
            .values(credits=func.coalesce(batches.c.credits, literal(_ZERO, Credits())) + literal(charged, Credits()))
        )
        if bill.was_given_up:
            _spend(connection, call, doubted=-bill.to_come, settled=charged)
        else:
            _spend(connection, call, reserved=-bill.to_come, settled=charged)
        return True

    def nothing_came(self, connection: Connection, order_id: str, why: str, *, now: datetime) -> None:
        """An order's time is over: what it may still have cost counts as spent, at worst; nobody buys it again while
        it would be fresh."""
        _lock_planning(connection)
        given_up = orders.expire(connection, order_id, why, now=now)
        if given_up is None:
            return
        call = self._call(connection, given_up.batch_id)
        if call.state == IN_DOUBT:
            connection.execute(
                update(batches)
                .where(batches.c.id == call.id)
                .values(state="accepted", credits=call.most, resolved_at=now, resolved_by="give_up_after")
            )
            rows = _guarding(self._digests(call.keys), call.purpose, call.id)
            connection.execute(update(answers).where(rows).values(verdict=ABANDONED, obtained_at=now))
            _spend(connection, call, reserved=-call.most, doubted=call.most)
        elif given_up.to_come:
            _spend(connection, call, reserved=-given_up.to_come, doubted=given_up.to_come)

    # --- keys ---------------------------------------------------------------------------------------------------

    def sealed_count(self) -> int:
        """How many calls hold something sealed."""
        with self._store.read() as connection:
            return int(connection.execute(select(func.count()).select_from(batches)).scalar() or 0)

    def reseal(self, newest: Vault) -> Iterator[int]:
        """Seal every call's request and answer anew by the newest key of `newest`; yields how many were looked at.

        What is sealed so already is left alone, so it may be broken off and begun again.
        """
        after = 0
        while True:
            with self._store.write() as connection:
                rows = connection.execute(
                    select(batches.c.id, batches.c.fingerprint, batches.c.request, batches.c.body)
                    .where(batches.c.id > after)
                    .order_by(batches.c.id)
                    .limit(_RESEAL_AT_ONCE)
                    .with_for_update()  # somebody may be cut out of one at this moment
                ).all()
                for row in rows:
                    changed = {
                        name: newest.seal(newest.unseal(sealed, place), place)
                        for name, sealed, place in (
                            ("request", row.request, request_name(row.fingerprint)),
                            ("body", row.body, body_name(row.id)),
                        )
                        if sealed and not newest.is_newest(sealed)
                    }
                    if changed:
                        connection.execute(update(batches).where(batches.c.id == row.id).values(changed))
            yield len(rows)
            if len(rows) < _RESEAL_AT_ONCE:
                return
            after = rows[-1].id

    def _reopen(self, connection: Connection, call: Call, now: datetime) -> None:
        """The call's keys may be asked for again: in the way it asked for them."""
        rows = _guarding(self._digests(call.keys), call.purpose, call.id)
        if call.single:
            connection.execute(update(answers).where(rows).values(verdict=LEFT_OPEN, obtained_at=now))
        else:
            connection.execute(delete(answers).where(rows))

    # --- questions ----------------------------------------------------------------------------------------------

    def call(self, batch_id: int) -> Call | None:
        with self._store.read() as connection:
            try:
                return self._call(connection, batch_id)
            except LookupError:
                return None

    def unfinished(self, run_id: str, *, share: int | None = None) -> list[Call]:
        """The calls of a run, or of a `share` of it, that are planned, sent, or received and not indexed; their bodies
        with them."""
        which = [batches.c.run_id == run_id, batches.c.state.in_(("planned", "sent", "received"))]
        if share is not None:
            which.append(batches.c.share == share)
        return self._calls(and_(*which), bodies=True)

    def doubts(self) -> list[Call]:
        """All calls in doubt, oldest first."""
        return self._calls(batches.c.state == IN_DOUBT)

    def accepted(self, *, by: str) -> list[Call]:
        """Calls in doubt that were given up on by this person or policy."""
        return self._calls(and_(batches.c.state == "accepted", batches.c.resolved_by == by))

    def newest_meter(self) -> MeterReading | None:
        """What Apollo's meter said the last time it was read."""
        with self._store.read() as connection:
            row = connection.execute(select(balances).order_by(balances.c.at.desc()).limit(1)).one_or_none()
        return MeterReading(at=row.at, used=row.used, left=row.left_over) if row is not None else None

    def note_meter(self, reading: MeterReading) -> None:
        with self._store.write() as connection:
            connection.execute(insert(balances).values(at=reading.at, used=reading.used, left_over=reading.left))

    def meter_before(self, moment: datetime, *, settle: timedelta) -> MeterReading | None:
        """The last meter reading before a call left by which its charge can be told: no other call was under way or
        freshly in doubt at the time of the reading."""
        with self._store.read() as connection:
            rows = connection.execute(
                select(balances).where(balances.c.at <= moment).order_by(balances.c.at.desc()).limit(20)
            ).all()
            for row in rows:
                uncertain = (
                    select(func.count())
                    .select_from(batches)
                    .where(
                        batches.c.sent_at <= row.at,
                        batches.c.sent_at > row.at - timedelta(days=1),
                        or_(
                            batches.c.answered_at.is_(None),
                            and_(batches.c.state.in_(("done", "received")), batches.c.answered_at > row.at),
                            and_(batches.c.state.in_((IN_DOUBT, "accepted")), batches.c.sent_at > row.at - settle),
                        ),
                    )
                )
                if not connection.execute(uncertain).scalar():
                    return MeterReading(at=row.at, used=row.used, left=row.left_over)
        return None

    def open_calls(self, since: datetime) -> int:
        """How many paid calls since then have no end yet."""
        query = (
            select(func.count())
            .select_from(batches)
            .where(batches.c.planned_at >= since, batches.c.state.in_(("planned", "sent", "received")))
        )
        with self._store.read() as connection:
            return int(connection.execute(query).scalar() or 0)

    def others_ask(self, run_id: str, share: int) -> bool:
        """Whether other workers of a run are asking: what that costs less than was reserved is free afterwards."""
        with self._store.read() as connection:
            return others_ask(connection, run_id, share)

    def told_between(self, since: datetime, until: datetime) -> Decimal:
        """What the calls that were answered in that time cost at least: only what Apollo itself reported."""
        query = select(func.sum(batches.c.told)).where(
            batches.c.answered_at > since, batches.c.answered_at <= until, batches.c.state == "done"
        )
        with self._store.read() as connection:
            total = connection.execute(query).scalar()
        return total if total is not None else _ZERO

    def spent(self, run_id: str) -> Decimal:
        """Settled credits of one run; what is open or in doubt is not in it."""
        query = select(func.sum(spending.c.settled)).where(spending.c.run_id == run_id)
        with self._store.read() as connection:
            total = connection.execute(query).scalar()
        return total if total is not None else _ZERO

    # --- inside -------------------------------------------------------------------------------------------------

    def _plan(self, connection: Connection, intent: Intent, room_of: Callable[[Spent], Room], now: datetime) -> Plan:
        _lock_planning(connection)
        self._refuse_hold(connection)
        day, spent = _look(connection, intent.run_id, intent.day)
        room = room_of(spent)
        digests = {key: self._vault.digest(key.key) for keys in intent.calls for key in keys}
        known, past = _known(connection, intent, list(digests.values()))
        wanted = [tuple(key for key in keys if digests[key] not in known) for keys in intent.calls]
        calls, left = _fitting(wanted, None if room.credits is None else int(room.credits // intent.most))
        held = tuple(key for key, digest in digests.items() if digest in known)
        if not calls:
            return Plan(held=held, left=left, room=room)
        _make_room(connection, intent, past & {digests[key] for keys in calls for key in keys})
        ids = connection.execute(_PLANNED, [self._planned(intent, keys, day, now) for keys in calls]).scalars().all()
        planned = tuple(
            PlannedCall(
                id=batch_id,
                keys=keys,
                single=intent.single,
                order_id=self._order(connection, intent, batch_id, keys, now),
            )
            for batch_id, keys in zip(ids, calls, strict=True)
        )
        crash.point("journal.plan.row")
        purpose, source, at = intent.purpose.value, "single" if intent.single else "bulk", millis(now)
        guards = sorted(
            (purpose, digests[key], ASKED, source, call.id, position, at)
            for call in planned
            for position, key in enumerate(call.keys)
        )
        run_many(connection, _GUARD, _ANSWER, guards)
        crash.point("journal.plan.guarded")
        connection.execute(
            upsert(connection, spending, (), add=("calls", "reserved")),
            {
                "day": day,
                "run_id": intent.run_id,
                "purse": intent.purse,
                "sync": intent.sync,
                "calls": len(planned),
                "reserved": intent.most * len(guards),
                "settled": _ZERO,
                "doubted": _ZERO,
            },
        )
        return Plan(calls=planned, held=held, left=left, room=room)

    def _order(
        self, connection: Connection, intent: Intent, batch_id: int, keys: tuple[MatchKeys, ...], now: datetime
    ) -> str:
        """What the call's phone numbers will be delivered under, noted with the call itself: Apollo may deliver before
        its own answer comes (contracts/apollo.md 3, 2026-10)."""
        if intent.gives_up_at is None:
            return ""
        people = self._digests(key for key in keys if key.purpose is Purpose.PHONE)
        return orders.planned(
            connection,
            batch_id,
            people,
            sync=intent.sync,
            run_id=intent.run_id,
            gives_up_at=intent.gives_up_at,
            now=now,
        )

    def _planned(self, intent: Intent, keys: tuple[MatchKeys, ...], day: str, now: datetime) -> dict[str, object]:
        request = request_of(keys)
        fingerprint = hashlib.sha256(request).hexdigest()
        return {
            "run_id": intent.run_id,
            "share": intent.share,
            "sync": intent.sync,
            "purpose": intent.purpose.value,
            "single": int(intent.single),
            "endpoint": intent.endpoint,
            "fingerprint": fingerprint,
            "request": self._vault.seal(request, request_name(fingerprint)),
            "asked": len(keys),
            "state": "planned",
            "day": day,
            "purse": intent.purse,
            "most": intent.most * len(keys),
            "planned_at": now,
            "request_id": "",
            "error": "",
            "resolved_by": "",
        }

    def _call(self, connection: Connection, batch_id: int) -> Call:
        row = connection.execute(_JOURNAL.where(batches.c.id == batch_id)).one_or_none()
        if row is None:
            raise LookupError(batch_id)
        return self._made(row)

    def _calls(self, which: ColumnElement[bool], *, bodies: bool = False) -> list[Call]:
        with self._store.read() as connection:
            rows = connection.execute(_JOURNAL.where(which).order_by(batches.c.id)).all()
            return [self._made(row, bodies=bodies) for row in rows]

    def _made(self, row: Row[Any], *, bodies: bool = False) -> Call:
        return Call(
            id=row.id,
            run_id=row.run_id,
            sync=row.sync,
            purpose=Purpose(row.purpose),
            keys=keys_of(self._vault.unseal(row.request, request_name(row.fingerprint))) if row.request else (),
            single=bool(row.single),
            endpoint=row.endpoint,
            state=row.state,
            day=row.day,
            most=row.most,
            credits=row.credits,
            planned_at=row.planned_at,
            sent_at=row.sent_at,
            answered_at=row.answered_at,
            error=row.error,
            resolved_at=row.resolved_at,
            resolved_by=row.resolved_by,
            body=self._vault.unseal(row.body, body_name(row.id)) if bodies and row.body is not None else b"",
            purse=row.purse,
            request_id=row.request_id,
        )

    def _digests(self, keys: Iterable[MatchKeys]) -> list[bytes]:
        return [self._vault.digest(key.key) for key in keys]

    def _row(self, row: NewAnswer, batch_id: int, at: int) -> _AnswerRow:
        digest = self._vault.digest(row.key)
        return row.purpose.value, digest, row.verdict.value, row.source, batch_id, row.position, at


_REPLACED_BY_ALIAS = answers.c.source.in_([literal_column("'alias'"), literal_column(f"'{STAMP}'")])
_OLDER_THAN_STAMP = and_(
    answers.c.obtained_at < bindparam("b_not_before", type_=answers.c.obtained_at.type),
    answers.c.verdict.not_in(GUARDING),
)
#: What came with somebody else's answer, or is known by another name than the one asked by.
_BESIDE = ("employer", "alias")
_JOURNAL = select(batches)


def others_ask(connection: Connection, run_id: str, share: int) -> bool:
    """Whether calls of other workers of a run than `share` have no end yet."""
    open_ = exists().where(
        batches.c.run_id == run_id,
        batches.c.share != share,
        batches.c.state.in_(("planned", "sent", "received")),
    )
    return bool(connection.execute(select(open_)).scalar())


def _lock_planning(connection: Connection) -> None:
    """SQLite's writers take turns anyway."""
    if connection.dialect.name == "postgresql":
        connection.execute(text("select pg_advisory_xact_lock(:key)"), {"key": _PLANNING_LOCK})


def _look(connection: Connection, run_id: str, day: str) -> tuple[str, Spent]:
    """(the budget's day, what has been spent).

    The day never goes back: a clock that was set back must not open an earlier day's budget again.
    """
    while True:
        newest, *sums = connection.execute(_LOOK, {"b_run": run_id, "b_day": day, "b_month": f"{day[:7]}-01"}).one()
        if newest is None or newest <= day:
            return day, Spent(**dict(zip(_SUMS, (each or _ZERO for each in sums), strict=True)))
        day = newest


def _fitting(
    calls: Iterable[tuple[MatchKeys, ...]], room: int | None
) -> tuple[list[tuple[MatchKeys, ...]], tuple[MatchKeys, ...]]:
    """The first `room` keys, still call by call, and the rest."""
    fitting: list[tuple[MatchKeys, ...]] = []
    left: list[MatchKeys] = []
    for keys in calls:
        count = len(keys) if room is None else max(min(room, len(keys)), 0)
        if room is not None:
            room -= count
        if count:
            fitting.append(keys[:count])
        left += keys[count:]
    return fitting, tuple(left)


def _known(connection: Connection, intent: Intent, digests: list[bytes]) -> tuple[set[bytes], set[bytes]]:
    """(which keys must not be bought now, which have a row that is past its time)."""
    rows = connection.execute(
        select(answers.c.key, answers.c.verdict, answers.c.source, answers.c.obtained_at).where(
            answers.c.purpose == intent.purpose.value, answers.c.key.in_(digests)
        )
    ).all()
    past = {bytes(row.key) for row in rows if _may_be_bought_again(row, intent)}
    return {bytes(row.key) for row in rows} - past, past


def _make_room(connection: Connection, intent: Intent, past: set[bytes]) -> None:
    """Rows that are past their time make room for the new guard."""
    if past:
        connection.execute(
            delete(answers).where(
                answers.c.purpose == intent.purpose.value,
                answers.c.key.in_(sorted(past)),
                answers.c.verdict.not_in(GUARDING),
            )
        )


def _may_be_bought_again(row: Row[Any, Any, Any, Any], intent: Intent) -> bool:
    if row.verdict in GUARDING:
        return False
    if row.verdict == LEFT_OPEN and intent.single:
        return True
    if row.source == "employer":
        return True  # too thin for whoever asks, or it would have been used (pipeline/enrich.py)
    since = intent.no_match_since if row.verdict in (Verdict.NO_MATCH.value, ABANDONED) else intent.fresh_since
    return bool(row.obtained_at < since)


def _guarding(digests: list[bytes], purpose: Purpose, batch_id: int) -> ColumnElement[bool]:
    return and_(
        answers.c.purpose == purpose.value,
        answers.c.key.in_(digests),
        answers.c.batch_id == batch_id,
        answers.c.verdict.in_(GUARDING),
    )


def _not_ended(connection: Connection, batch_ids: Sequence[int]) -> set[int]:
    return set(
        connection.execute(
            select(batches.c.id).where(batches.c.id.in_(batch_ids), batches.c.state.not_in(_ENDED))
        ).scalars()
    )


def _settle(connection: Connection, batch_ids: Sequence[int]) -> None:
    """Replace the reservations by what the calls cost."""
    rows = connection.execute(
        select(batches.c.day, batches.c.run_id, batches.c.purse, batches.c.most, batches.c.credits).where(
            batches.c.id.in_(batch_ids)
        )
    )
    reserved: dict[tuple[str, str, str], Decimal] = defaultdict(Decimal)
    settled: dict[tuple[str, str, str], Decimal] = defaultdict(Decimal)
    for day, run_id, purse, most, charged in rows:
        reserved[day, run_id, purse] -= most
        settled[day, run_id, purse] += charged or _ZERO
    for place, amount in reserved.items():
        _book(connection, place, reserved=amount, settled=settled[place])


def _spend(
    connection: Connection,
    call: Call,
    *,
    reserved: Decimal = _ZERO,
    settled: Decimal = _ZERO,
    doubted: Decimal = _ZERO,
) -> None:
    place = (call.day, call.run_id, call.purse)
    _book(connection, place, reserved=reserved, settled=settled, doubted=doubted)


def _book(
    connection: Connection,
    place: tuple[str, str, str],
    *,
    reserved: Decimal = _ZERO,
    settled: Decimal = _ZERO,
    doubted: Decimal = _ZERO,
) -> None:
    """`place`: day, run and purse."""
    day, run_id, purse = place
    connection.execute(
        _SPEND,
        {
            "b_day": day,
            "b_run": run_id,
            "b_purse": purse,
            "b_reserved": reserved,
            "b_settled": settled,
            "b_doubted": doubted,
        },
    )


def _still_in_doubt(call: Call) -> None:
    if call.state != IN_DOUBT:
        raise StoreError(f"Call {call.id} is not in doubt any more: {call.state}. `crm-sync doubt list` shows what is")


def request_of(keys: Iterable[MatchKeys]) -> bytes:
    """What a call asks for, to be sealed."""
    return orjson.dumps([{name: value for name in _KEY_NAMES if (value := getattr(key, name))} for key in keys])


def keys_of(request: bytes) -> tuple[MatchKeys, ...]:
    """What a call asked for, from its unsealed request. Somebody who was erased has keys that name nobody."""
    return tuple(MatchKeys(**{**item, "purpose": Purpose(item["purpose"])}) for item in orjson.loads(request))


def body_name(batch_id: int) -> bytes:
    return b"batches.body:%d" % batch_id


def request_name(fingerprint: str) -> bytes:
    return b"batches.request:" + fingerprint.encode()
