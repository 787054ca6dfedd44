"""What must hold of phones after a kill and its restarts: our books against Apollo's ledger, and the CRM against a story
without a kill."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from functools import cached_property
from typing import TYPE_CHECKING, Any

import orjson
from sqlalchemy import Row, select

from crm_sync.domain.runs import RunStatus
from crm_sync.store.reveals import APPLIED
from crm_sync.store.tables import batches, deliveries, phone_waits, reveal_orders, run_records, spending
from tests.faults.judge import Books, balanced, stuck
from tests.faults.scenes import _ASKING, _LOSING, _UNSENT, SECRET, Cell
from tests.faults.stories import OBJECT, _opened
from tests.faults.witness import Report

if TYPE_CHECKING:
    from tests.faults.phone_stories import PhoneStory

_OPEN = ("due", "waiting")
_UNREAD = ("new", "waiting")
_LIVE = ("planned", "sent", "received", "in doubt")
_ZERO = Decimal(0)
#: A call has so many keys at most, and each may stand for two records (tests/faults/scenes.scale).
_PER_CALL = 7


@dataclass(frozen=True, kw_only=True)
class PhoneBooks:
    """What our database says about phones, row by row."""

    calls: tuple[Row[Any], ...]
    orders: tuple[Row[Any], ...]
    deliveries: tuple[Row[Any], ...]
    waits: tuple[Row[Any], ...]
    spending: tuple[Row[Any], ...]
    #: Whom each record was taken for (MatchKeys.key), as far as a run has noted it.
    key_of: Mapping[str, str]
    #: All keys of calls whose answer never came.
    lost_keys: frozenset[str]

    @classmethod
    def read(cls, settings: Mapping[str, str]) -> PhoneBooks:
        whole = Books.read(settings["CRM_SYNC_DATABASE_URL"], SECRET)
        names = {digest: key for key, digest in whole.digests.items()}
        with _opened(settings) as store, store.read() as connection:

            def all_of(table: Any, *without: str) -> tuple[Row[Any], ...]:
                return tuple(connection.execute(select(*[each for each in table.c if each.name not in without])))

            calls = all_of(batches, "request", "body")
            told = connection.execute(
                select(run_records.c.record_id, run_records.c.identity).where(run_records.c.identity.is_not(None))
            ).all()
            lost = {call.id for call in calls if _is_lost(call)}
            orders = tuple(row for row in all_of(reveal_orders) if row.batch_id is not None)  # else it was a probe
            ours = {order.id for order in orders}
            return cls(
                calls=calls,
                orders=orders,
                deliveries=tuple(row for row in all_of(deliveries, "body") if row.order_id in ours),
                waits=all_of(phone_waits),
                spending=all_of(spending),
                key_of={each.record_id: names[bytes(each.identity)] for each in told if bytes(each.identity) in names},
                lost_keys=frozenset(key.key for call in whole.calls if call.id in lost for key in call.keys),
            )

    @cached_property
    def call_of(self) -> dict[str, Row[Any]]:
        """Order -> its call."""
        by_id = {call.id: call for call in self.calls}
        return {order.id: by_id[order.batch_id] for order in self.orders}

    @cached_property
    def lost(self) -> list[Row[Any]]:
        """Calls whose answer never came: in doubt, given up, or proved by what was delivered for them."""
        return [call for call in self.calls if _is_lost(call)]

    @property
    def open_waits(self) -> list[Row[Any]]:
        return [wait for wait in self.waits if wait.state in _OPEN]

    def ends(self) -> dict[str, str]:
        """Record -> what its wait is called."""
        return {wait.record_id: wait.state for wait in self.waits}


def _is_lost(call: Row[Any]) -> bool:
    return call.state in ("in doubt", "accepted", "charged") or call.resolved_by == "its delivery"


def is_at_rest(settings: Mapping[str, str]) -> bool:
    """Whether nobody waits and nothing is to be read."""
    with _opened(settings) as store, store.read() as connection:
        waits = select(phone_waits.c.id).where(phone_waits.c.state.in_(_OPEN))
        unread = select(deliveries.c.id).where(deliveries.c.state.in_(_UNREAD))
        return not any(connection.execute(each.limit(1)).all() for each in (waits, unread))


@dataclass(frozen=True, kw_only=True)
class PhonesTold:
    """How a story ends without a kill."""

    report: Report
    books: PhoneBooks


@dataclass(kw_only=True)
class PhoneJudgement:
    violations: list[str] = field(default_factory=list)
    charged_twice: int = 0
    answers_lost: int = 0
    deliveries_lost: int = 0
    applied_twice: int = 0
    in_doubt: int = 0


def judge_phones(
    story: PhoneStory, settings: Mapping[str, str], report: Report, clean: PhonesTold | None, cell: Cell | None
) -> PhoneJudgement:
    """Of the state in which a story has come to rest; without `clean` only what must always hold."""
    made = PhoneJudgement()
    books = PhoneBooks.read(settings)
    made.in_doubt = sum(call.state == "in doubt" for call in books.calls)

    def count(lines: Iterable[str], name: str = "") -> None:
        found = list(lines)
        made.violations += found
        if name:
            setattr(made, name, getattr(made, name) + len(found))

    whole = Books.read(settings["CRM_SYNC_DATABASE_URL"], SECRET)
    count(stuck(whole))
    count(balanced(whole))
    count(_charged_twice(report, clean), "charged_twice")
    count(_answers_lost(story, books, report, cell), "answers_lost")
    count(_deliveries_lost(story, books, report), "deliveries_lost")
    count(_costs(story, books, report))
    count(_spending(books))
    count(_hanging(books, whole))
    if clean is not None:
        excused = _excused(books, clean.books)
        if len(excused) > _PER_CALL * len(books.lost):
            count([f"{len(excused)} records have no phone as without a kill, and {len(books.lost)} answers were lost"])
        count(_applied_twice(report, clean), "applied_twice")
        count(_ends(books, clean.books, excused))
        count(_crm(cell.crm if cell else "", report, clean.report, excused))
    return made


def judge_end(settings: Mapping[str, str], before: Report, after: Report) -> Iterator[str]:
    """When the time of everything is over."""
    books = PhoneBooks.read(settings)
    for wait in books.open_waits:
        yield f"{wait.record_id} is {wait.state} after give_up_after: {wait.reason}"
    for call in books.calls:
        if call.purse == "phones" and call.state in _LIVE:
            yield f"call {call.id} is {call.state} after give_up_after"
    for order in books.orders:
        if order.state in ("planned", "sent", "open", "skipped", "in doubt"):
            yield f"order {order.id} is {order.state} after give_up_after"
    if after.phones["ordered"] != before.phones["ordered"]:
        yield "what was given up was ordered again"
    yield from _spending(books)
    whole = Books.read(settings["CRM_SYNC_DATABASE_URL"], SECRET)
    yield from stuck(whole)
    yield from _hanging(books, whole)


# --- money ------------------------------------------------------------------------------------------------------------


def _charged_twice(report: Report, clean: PhonesTold | None) -> Iterator[str]:
    for what in ("ordered_more_than_once", "more_than_once"):
        for apollo_id, count in report.phones[what].items():
            yield f"{apollo_id} is {what.replace('_', ' ')}: {count} times"
    for apollo_id, count in sorted(report.charged.items()):
        if clean is not None and count > max(1, clean.report.charged.get(apollo_id, 0)):
            yield f"{apollo_id} was charged {count} times"


def _answers_lost(story: PhoneStory, books: PhoneBooks, report: Report, cell: Cell | None) -> Iterator[str]:
    held = {call.request_id for call in books.calls if call.request_id}
    lost = [each for each in report.answers if each.status == 200 and _request_id(each.body) not in held]
    uncovered = len(lost) - len(books.lost)
    for _ in range(uncovered):
        yield "an answer of Apollo's is neither stored nor in doubt"
    of_a_run = cell is not None and story.victim == "command" and not cell.point.startswith(("inbox.", "resolve."))
    point = cell.point if cell is not None and of_a_run else ""
    elsewhere = of_a_run and not point.startswith(_ASKING)
    for count, most, what in (
        (len(lost), story.lost + elsewhere + (point in _LOSING), "answers of Apollo's were lost"),
        (-uncovered, elsewhere + (point in _UNSENT), "calls are in doubt that Apollo never answered"),
    ):
        if count > most:
            yield f"{count} {what}; {most} may be"


def _request_id(body: bytes) -> str:
    return str(orjson.loads(body)["request_id"])


def _costs(story: PhoneStory, books: PhoneBooks, report: Report) -> Iterator[str]:
    """Each order cost what Apollo charged for it, or counts at more where Apollo's answer is lost."""
    orders = {order.id: order for order in books.orders}
    for sold in report.orders:
        order, cost = orders.get(sold.order_id), sold.called + sold.credits
        if order is None:
            yield f"Apollo has an order {sold.order_id} that we do not know"
            continue
        call = books.call_of[order.id]
        if sold.taken and order.billed is None and not story.unknowns:
            yield f"what was delivered for order {order.id} ({order.state}) was never carried out"
        if order.billed is not None and order.billed != sold.credits:
            yield f"order {order.id} was billed {order.billed:f} credits, and Apollo charged {sold.credits}"
        if call.state == "done" and call.resolved_by != "its delivery":
            wanted = sold.called + (sold.credits if order.billed is not None else 0)
            if call.credits != wanted:
                yield f"call {call.id} was settled at {call.credits:f} credits, and Apollo charged {wanted}"
        elif not cost <= (call.credits if call.state == "done" else call.most) <= call.most:
            yield f"call {call.id} ({call.state}) counts {call.credits} of {call.most:f}, and Apollo charged {cost}"


def _spending(books: PhoneBooks) -> Iterator[str]:
    """`spending` is what the journal and the orders say, recomputed from their rows."""
    wanted: dict[tuple[str, str, str], list[Decimal]] = defaultdict(lambda: [_ZERO, _ZERO, _ZERO])
    orders = {order.batch_id: order for order in books.orders}
    for call in books.calls:
        sums, order = wanted[call.day, call.run_id, call.purse], orders.get(call.id)
        if call.state in _LIVE:
            sums[0] += call.most
        elif call.state in ("done", "charged"):
            sums[1] += call.credits or _ZERO
            if order is not None and order.billed is None:
                sums[2 if order.state == "expired" else 0] += order.to_come
        elif call.state == "accepted":
            sums[2] += call.most
    have = {(row.day, row.run_id, row.purse): [row.reserved, row.settled, row.doubted] for row in books.spending}
    for key in sorted(wanted.keys() | have.keys()):
        want, found = wanted.get(key, [_ZERO] * 3), have.get(key, [_ZERO] * 3)
        if want != found:
            yield f"spending of {key} says {_shown(found)}, the journal {_shown(want)} (reserved, settled, doubted)"


def _shown(sums: Iterable[Decimal]) -> str:
    return ", ".join(f"{each:f}" for each in sums)


# --- what came --------------------------------------------------------------------------------------------------------


def _deliveries_lost(story: PhoneStory, books: PhoneBooks, report: Report) -> Iterator[str]:
    kept = {(each.order_id, bytes(each.digest)) for each in books.deliveries}
    for sold in report.orders:
        for digest in sold.taken:
            if (sold.order_id, digest) not in kept:
                yield f"a delivery of order {sold.order_id} was acknowledged, and is not in the database"
        if sold.refused or (sold.is_sent and not sold.taken and story.victim == "command"):
            yield f"what was delivered for order {sold.order_id} was refused"
    for each in books.deliveries:
        if each.state in _UNREAD:
            yield f"delivery {each.id} is {each.state} for ever: {each.reason}"
        if each.state == "dead":
            yield f"delivery {each.id} could not be carried out: {each.reason}"
        if each.state == "unknown" and not story.unknowns:
            yield f"delivery {each.id} is {each.state}: {each.reason}"


def _hanging(books: PhoneBooks, whole: Books) -> Iterator[str]:
    """Who waits has a reason and a next action: an order that is in doubt, which delivers or is given up."""
    orders = {order.id: order for order in books.orders}
    for wait in books.open_waits:
        order = orders.get(wait.order_id or "")
        if order is None:
            yield f"{wait.record_id} is {wait.state} without an order"
        elif order.state != "in doubt":
            yield f"{wait.record_id} is {wait.state}, and its order is {order.state}: {order.reason}"
    waiting = {wait.run_id for wait in books.open_waits}
    for run in whole.runs:
        if run.status is RunStatus.WAITING_FOR_PHONES and run.id not in waiting:
            yield f"run {run.id} is {run.status.value}, and nobody waits"


def _excused(books: PhoneBooks, clean: PhoneBooks) -> set[str]:
    """Records of which an answer was lost, and those whose wait has another end than without a kill for that."""
    if not books.lost:
        return set()
    have, want = books.ends(), clean.ends()
    ended = {each for each in have.keys() | want.keys() if have.get(each) != want.get(each)}
    return ended | {each for each, key in clean.key_of.items() if key in books.lost_keys}


def _ends(books: PhoneBooks, clean: PhoneBooks, excused: set[str]) -> Iterator[str]:
    have, want = books.ends(), clean.ends()
    for each in sorted((have.keys() | want.keys()) - excused):
        if have.get(each) != want.get(each):
            yield f"the phone of {each} is {have.get(each)}, and {want.get(each)} without a kill"
    delivered = {order.id for order in books.orders if order.billed is not None}
    for wait in books.waits:
        # What was delivered under a token needs no answer of Apollo's to be written.
        if wait.order_id in delivered and want.get(wait.record_id) == APPLIED != wait.state:
            yield f"the phone of {wait.record_id} was delivered and is {wait.state}: {wait.reason}"
    for each in sorted(excused):
        if have.get(each) == APPLIED and want.get(each) != APPLIED:
            yield f"the phone of {each} is {APPLIED}, and {want.get(each)} without a kill"


def _applied_twice(report: Report, clean: PhonesTold) -> Iterator[str]:
    for key in sorted(report.story):
        have, want = report.story[key], clean.report.story.get(key, ())
        if len(have) > max(len(want), 1):
            yield f"{key} got {have}, one after the other, and {want} without a kill"


def _crm(crm: str, report: Report, clean: Report, excused: set[str]) -> Iterator[str]:
    for kind in sorted(clean.touched.keys() | report.touched.keys()):
        wanted, found = clean.touched.get(kind, {}), report.touched.get(kind, {})
        for record_id in sorted(wanted.keys() | found.keys()):
            want, have = wanted.get(record_id, {}), found.get(record_id, {})
            is_excused = kind == OBJECT.get(crm) and record_id in excused
            if have != want and not (is_excused and have.items() <= want.items()):
                yield f"{kind} {record_id} holds {have}, and {want} without a kill"
