"""The second walk: a delivery is read, believed, and its numbers are written to every record that waits for them.

How it is believed: pipeline/confirm.py. How numbers are written: pipeline/phone_writing.py. What is done where none
comes: pipeline/polling.py.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from decimal import Decimal

from crm_sync import crash
from crm_sync.domain.enrichment import Purpose
from crm_sync.domain.reveals import PhoneDelivery
from crm_sync.errors import ContractError, CrmSyncError
from crm_sync.log_ids import log_ids
from crm_sync.pipeline.confirm import Believer
from crm_sync.pipeline.ordering import per_number
from crm_sync.pipeline.phone_runs import PhoneRuns
from crm_sync.pipeline.phone_writing import Awaited, PhoneWriting
from crm_sync.pipeline.polling import Poller
from crm_sync.services import Services
from crm_sync.spans import note
from crm_sync.store.deliveries import BY_POLL, BY_TOKEN, Delivery
from crm_sync.store.journal import IN_DOUBT
from crm_sync.store.reveals import Order, Settlement, Wait, WaitEnd

_log = logging.getLogger(__name__)

#: A delivery that was tried so often without an end is left to a person (design/reliability.md 2.2, M10).
MOST_TRIES = 8
#: The first try is repeated after so long, each further one after three times as long: some six hours in all.
_FIRST_PAUSE, _LONGEST_PAUSE = timedelta(seconds=10), timedelta(hours=3)
#: How soon a delivery is looked at again that came before Apollo's own answer to its order.
_EARLY = timedelta(seconds=1)
#: States of a call whose answer never came.
_WITHOUT_ANSWER = (IN_DOUBT, "accepted", "not charged")
#: So many deliveries are settled together: their records go to the CRM in the same calls.
AT_ONCE = 100


@dataclass(slots=True)
class Resolved:
    """What one pass has done: ends of deliveries and of waits, by their word; `polled` orders were asked about.
    `stopped`: why others were not, whose turn it was."""

    deliveries: Counter[str] = field(default_factory=Counter)
    waits: Counter[str] = field(default_factory=Counter)
    polled: int = 0
    given_up: int = 0
    stopped: str = ""

    @property
    def did_something(self) -> bool:
        return bool(self.deliveries or self.polled or self.given_up)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Believed:
    """A delivery that is to be carried out. `erased`: people in it who were erased since they were asked for;
    `is_cut`: what is kept of it is without somebody."""

    delivery: Delivery
    order: Order
    content: PhoneDelivery
    belief: str
    erased: frozenset[bytes]
    is_cut: bool


class Resolver:
    """Resolves for one process; two at the same time would do the same work twice (store/exclusive.py)."""

    def __init__(self, services: Services) -> None:
        self.services = services
        self.runs = PhoneRuns(services)
        self._believer = Believer(services)
        self._writing = PhoneWriting(services, self.runs)
        self._poller = Poller(services)

    def sweep(self, *, limit: int = 50, now_all: bool = False) -> Resolved:
        """Ask Apollo about orders whose time has come, and give up those whose time is over. `now_all`: ask about all
        that are awaited."""
        swept = self._poller.sweep(limit=limit, now_all=now_all)
        return Resolved(polled=swept.polled, given_up=swept.given_up, stopped=swept.stopped)

    def drain(self, *, limit: int = AT_ONCE) -> Resolved:
        """Read and carry out what is there, at most `limit` deliveries."""
        done = Resolved()
        believed: list[_Believed] = []
        for delivery in self.services.deliveries.to_read(now=self.services.clock.now(), limit=limit):
            crash.point("resolve.due")
            try:
                one = self._read(delivery, done)
            except CrmSyncError as error:
                self._put_off(delivery, str(error), done)
            except Exception as error:  # noqa: BLE001 - one hostile body must not stop the others (reliability.md 0.7)
                self._unreadable(delivery, f"it cannot be read: {type(error).__name__}", done)
            else:
                if one is not None:
                    believed.append(one)
        self._carry_out_all(believed, done)
        return done

    # --- reading and believing ----------------------------------------------------------------------------------

    def _read(self, delivery: Delivery, done: Resolved) -> _Believed | None:
        """The delivery, if it is to be carried out now; else it has its end, or is put off."""
        services = self.services
        order = services.reveals.order(delivery.order_id)
        if order is None:
            self._end(delivery, "dead", "its order is gone", done)
            return None
        if order.state == "sent":
            # Whom it is about is known once Apollo's own answer is stored (contracts/apollo.md 3: it may come later).
            early = "Apollo's answer to its order is not here yet"
            services.deliveries.put_off(delivery.id, early, until=services.clock.now() + _EARLY)
            return None
        if delivery.attempts >= MOST_TRIES:
            self._end(delivery, "dead", delivery.reason or f"tried {MOST_TRIES} times without an end", done)
            return None
        services.deliveries.attempted([delivery.id])
        body = services.deliveries.body(delivery.id)
        erased = services.privacy.cut_erased(delivery.id)
        try:
            content = services.enricher().read_delivery(body)
        except ContractError as error:
            self._unreadable(delivery, str(error), done)
            return None
        crash.point("resolve.read")
        if not content.finished:
            self._end(delivery, "done", "it says that nothing is there yet", done)
            return None
        weighed = self._believer.weigh(delivery, order, content)
        if weighed.belief:
            return _Believed(
                delivery=delivery,
                order=order,
                content=weighed.content,
                belief=weighed.belief,
                erased=frozenset(services.reveals.person(each) for each in erased),
                is_cut=bool(erased) or len(body) != delivery.size,
            )
        if weighed.refused:
            self._end(delivery, "quarantined", weighed.refused, done)
        else:
            self._put_off(delivery, weighed.later, done, seconds=weighed.seconds)
        return None

    def _unreadable(self, delivery: Delivery, why: str, done: Resolved) -> None:
        """A retry of the sender's would not heal it; its numbers are fetched."""
        self.services.deliveries.need_poll(delivery.order_id)
        self._end(delivery, "dead", why, done)

    def _put_off(
        self, delivery: Delivery, why: str, done: Resolved, *, seconds: float | None = None, belief: str = ""
    ) -> None:
        pause = min(_FIRST_PAUSE * 3 ** min(delivery.attempts, 9), _LONGEST_PAUSE)
        if seconds is not None:
            pause = max(timedelta(seconds=min(seconds, 3600)), pause)
        until = self.services.clock.now() + pause
        self.services.deliveries.put_off(delivery.id, why, until=until, belief=belief)
        done.deliveries["put off"] += 1
        with log_ids(delivery=delivery.id, order=delivery.order_id):
            _log.info("a delivery is put off: %s", why)

    def _end(self, delivery: Delivery, state: str, why: str, done: Resolved) -> None:
        self.services.deliveries.end(delivery.id, state, why, now=self.services.clock.now())
        done.deliveries[state] += 1
        with log_ids(delivery=delivery.id, order=delivery.order_id):
            _log.info("a delivery is %s: %s", state, why)
        note("delivery", delivery.received_at, delivery=delivery.id, order=delivery.order_id, state=state)

    # --- carrying out -------------------------------------------------------------------------------------------

    def _carry_out_all(self, believed: Sequence[_Believed], done: Resolved) -> None:
        """All of them together; where something unforeseen happens each one alone, so that it stops no other."""
        left = list(believed)
        try:
            self._carry_out(left, done)
        except CrmSyncError:
            raise
        except Exception:  # noqa: BLE001 - which one it is shows alone
            self.runs.abandon()
            for one in tuple(left):
                try:
                    self._carry_out([one], done)
                except CrmSyncError:
                    raise
                except Exception as error:  # noqa: BLE001 - it is told with the delivery
                    self.runs.abandon()
                    self._put_off(one.delivery, f"unexpected {type(error).__name__}", done, belief=one.belief)

    def _carry_out(self, left: list[_Believed], done: Resolved) -> None:
        """Write what came, and settle each delivery with everything that it has changed: then it is not `left`."""
        awaited = self._awaited(left)
        ends: dict[int, WaitEnd] = {}
        failures: dict[_Place, str] = {}
        for place, some in _by_place(awaited).items():
            sync = self.services.config.syncs.get(place[0])
            if sync is None or sync.phones is None or place != (sync.name, sync.crm, sync.object_type):
                continue
            try:
                written, failures[place] = self._writing.write(sync, some)
                ends.update(written)
            except CrmSyncError as error:
                failures[place] = str(error)
        for one in tuple(left):
            mine = [each for each in awaited if each.delivery_id == one.delivery.id]
            unwritten = [each for each in mine if _place(each) in failures and each.wait.id not in ends]
            if unwritten:
                why = failures[_place(unwritten[0])] or "its records could not be written"
                self._put_off(one.delivery, why, done, belief=one.belief)
            else:
                self._settle(one, mine, ends, done)
            left.remove(one)

    def _awaited(self, group: Sequence[_Believed]) -> list[Awaited]:
        """Whose numbers came, each record once."""
        reveals = self.services.reveals
        found: dict[int, Awaited] = {}
        for one in group:
            numbers = {reveals.person(person.apollo_id): person.numbers for person in one.content.people}
            # By its token alone it brings numbers of those whom it was ordered for, or who wait for nothing else.
            free = frozenset(numbers) if one.belief == BY_POLL else self._ordered(one.order) & set(numbers)
            waits = self._asked(one, reveals.waits_for(one.order.id, numbers, free=free))
            if not numbers and one.belief == BY_POLL and not one.is_cut:
                waits = [wait for wait in reveals.under(one.order.id) if wait.is_open]  # nobody was found at all
            for wait in waits:
                awaited = Awaited(
                    wait=wait,
                    numbers=numbers.get(wait.person, ()),
                    delivery_id=one.delivery.id,
                    ordered_by=one.order.batch_id,
                    is_erased=wait.person in one.erased,
                )
                found.setdefault(wait.id, awaited)
        return list(found.values())

    def _asked(self, one: _Believed, waits: Sequence[Wait]) -> list[Wait]:
        """Without those who joined an order whose own answer is lost, and for whom it was not made: its token alone
        must not bring numbers to anybody else (design/reliability.md 4, d)."""
        if one.belief == BY_POLL or not self._is_blind(one.order):
            return list(waits)
        made_for = self._made_for(one.order)
        return [wait for wait in waits if wait.order_id != one.order.id or wait.identity in made_for]

    def _made_for(self, order: Order) -> frozenset[bytes]:
        call = self.services.journal.call(order.batch_id)
        return (
            frozenset(self.services.reveals.identity(keys) for keys in call.keys) if call is not None else frozenset()
        )

    def _is_blind(self, order: Order) -> bool:
        """Whether nobody knows whom an order is about: it matched them in the same call, and the answer is lost."""
        call = self.services.journal.call(order.batch_id)
        return call is not None and call.purpose is not Purpose.PHONE and call.state in _WITHOUT_ANSWER

    def _ordered(self, order: Order) -> frozenset[bytes]:
        """The people whom an order has named by Apollo's id."""
        call = self.services.journal.call(order.batch_id)
        ids = (key.apollo_id for key in call.keys) if call is not None else ()
        return frozenset(self.services.reveals.person(each) for each in ids if each)

    def _settle(self, one: _Believed, awaited: Sequence[Awaited], ends: Mapping[int, WaitEnd], done: Resolved) -> None:
        services = self.services
        ended = [each for each in awaited if each.wait.id in ends]
        orphans = sorted({each.wait.sync for each in awaited if each.wait.id not in ends})
        mine = tuple(ends[each.wait.id] for each in ended)
        state, reason = self._word(one, awaited, mine, orphans)
        found = frozenset(each.wait.person for each in ended if each.numbers)
        is_unplaced = state == "unknown" and self._is_blind(one.order)
        unplaced = {services.reveals.person(each.apollo_id) for each in one.content.people if each.numbers}
        unplaced -= one.erased
        services.reveals.settle(
            Settlement(
                delivery_id=one.delivery.id,
                order_id=one.order.id,
                state=state,
                reason=reason,
                belief=one.belief,
                ends=mine,
                # Nobody of the order's is in it: what it tells of a bill is not the order's either.
                credits=None if state == "unknown" and one.belief == BY_TOKEN else self._bill(one),
                found=found,
                empty=frozenset(each.wait.person for each in ended) - found,
                unplaced=frozenset(unplaced) if is_unplaced else frozenset(),
                made_for=self._made_for(one.order) if is_unplaced and unplaced else frozenset(),
            ),
            now=services.clock.now(),
        )
        done.deliveries[state] += 1
        done.waits.update(end.state for end in mine)
        with log_ids(delivery=one.delivery.id, order=one.order.id, sync=one.order.sync, run=one.order.run_id):
            _log.info("a delivery is %s: %s", state, reason)
        note(
            "delivery",
            one.delivery.received_at,
            delivery=one.delivery.id,
            order=one.order.id,
            sync=one.order.sync,
            run=one.order.run_id,
            state=state,
            people_with_numbers=len(found),
        )

    def _bill(self, one: _Believed) -> Decimal:
        """What the delivery has cost; never more than the order can have where its token alone speaks for it."""
        each = per_number(self.services.enricher())
        if one.content.credits is None:
            return each * sum(bool(person.numbers) for person in one.content.people)
        if one.belief == BY_POLL:
            return one.content.credits
        call = self.services.journal.call(one.order.batch_id)
        if call is None:
            return one.content.credits
        # Whom it asked for may be forgotten by now (keep.answers).
        return min(one.content.credits, each * len(call.keys) if call.keys else call.most)

    def _word(
        self, one: _Believed, awaited: Sequence[Awaited], ends: Sequence[WaitEnd], orphans: Sequence[str]
    ) -> tuple[str, str]:
        """What the delivery is called, and a sentence about it."""
        reveals = self.services.reveals
        people = {reveals.person(person.apollo_id) for person in one.content.people} - one.erased
        if not awaited and not people and one.is_cut:
            return "done", "whoever it is about was erased"
        if not awaited:
            if any(wait.person in people for wait in reveals.late_for(one.order.id)):
                return "late", "nobody waited any more: it was given up; `crm-sync phones replay` writes it"
            if any(wait.person in people for wait in reveals.under(one.order.id)):
                return "duplicate", "whoever it is about had got an answer already"
            if self._is_blind(one.order):
                return "unknown", "the answer that says whom it is about is lost; who is matched with them gets it"
            return "unknown", "nobody asked for whom it is about"
        said = [f"{count} {state}" for state, count in sorted(Counter(end.state for end in ends).items())]
        if orphans:
            names = " and ".join(orphans)
            said.append(f"the configuration has no sync {names} with `phones` any more; replay it when it has")
        others = people - {each.wait.person for each in awaited}
        if others:
            before = others & {wait.person for wait in reveals.under(one.order.id)}
            said += [f"{len(before)} had got an answer already"] if before else []
            said += [f"{len(others - before)} whom nobody asked for"] if others - before else []
        if one.belief == BY_TOKEN:
            said.append("believed by its address alone")
        return ("done" if ends else "dead"), ", ".join(said)


#: The sync that a record waits for, and the CRM and object that it had then.
_Place = tuple[str, str, str]


def _place(awaited: Awaited) -> _Place:
    return awaited.wait.sync, awaited.wait.crm, awaited.wait.object_type


def _by_place(awaited: Iterable[Awaited]) -> dict[_Place, list[Awaited]]:
    """The numbers of one person may go to several, in several CRMs."""
    found: dict[_Place, list[Awaited]] = {}
    for each in awaited:
        found.setdefault(_place(each), []).append(each)
    return found
