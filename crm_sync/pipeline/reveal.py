"""Ordering phone numbers: after the match, by Apollo's own id, for those whom `reveal_when` names.

It is the walk's second leg: chosen by a filter of their own, asked for by the same rooms (a page is planned, guarded,
sent, received and indexed as any other paid call is), and not written: the numbers come later (pipeline/resolve.py).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace

from crm_sync import crash
from crm_sync.config.model import Match, Phones
from crm_sync.domain.enrichment import MatchKeys, Purpose, Verdict
from crm_sync.domain.records import Record
from crm_sync.domain.runs import RunKind
from crm_sync.errors import CrmSyncError
from crm_sync.mapping.blanks import lacking
from crm_sync.mapping.match_keys import weakness
from crm_sync.mapping.phones import phone_fields
from crm_sync.pipeline.batch import Desk
from crm_sync.pipeline.belief import believed
from crm_sync.pipeline.enrich import EnrichRoom
from crm_sync.pipeline.ordering import Orders, per_number
from crm_sync.pipeline.select import DuePage, is_marked, to_be_revealed, without_suppressed
from crm_sync.pipeline.stages import Stages
from crm_sync.pipeline.walk import Answered, Due, Walk
from crm_sync.services import Services
from crm_sync.store.journal import ABANDONED, GUARDING
from crm_sync.store.reveals import NOT_ORDERED, NewWait

#: Why somebody whom the filter names is not asked for.
LEFT_OUT_WAITING = "phone: asked for already"
LEFT_OUT_KNOWN = "phone: asked for before, and the answer is fresh"
LEFT_OUT_UNKNOWN = "phone: Apollo does not know this person, or nobody is sure of it"
LEFT_OUT_MARKED = "phone: the record is marked as do not call"
LEFT_OUT_BEYOND = "phone: beyond the limit, as far as it looked"
#: The numbers come for the record that asks next as well, see Reveals.join.
JOINED = "phone: asked for by another record"
#: Answers that hold no number; they have a time of their own, as the journal's guard does.
_NONE = (Verdict.NO_MATCH.value, ABANDONED)


@dataclass(slots=True, kw_only=True)
class Ordered:
    """`asked` records wait for a number now; `problem` is why none could be ordered, "" when there was none."""

    asked: int = 0
    problem: str = ""
    left_out: Counter[str] = field(default_factory=Counter)


def order_phones(walk: Walk, services: Services) -> Ordered:
    """Order the phones of a run's sync, and note who waits for them. Never raises for a neighbour's failure: it stops
    the walk, and says so."""
    found = Ordered()
    phones = walk.sync.phones
    if phones is None or walk.kind is not RunKind.RUN or walk.free or walk.stop:
        return found
    found.problem = services.callbacks.problem()
    if found.problem:
        return found
    leg = _leg(walk, phones, services)
    stages = Stages(leg, on_expected=lambda _: None, pages=_pages(walk, leg, services, found))
    try:
        with closing(stages.answered()) as groups, walk.stop.told_first():
            for _group in groups:
                if services.runs.cancel_asked(walk.run_id):
                    walk.stop.cancel()
        crash.point("reveals.ordered")
        services.reveals.join(walk.run_id, now=services.clock.now())
    except CrmSyncError as error:
        walk.stop.raise_(str(error), error)
    found.asked = services.reveals.waiting_in(walk.run_id)
    return found


def _leg(walk: Walk, phones: Phones, services: Services) -> Walk:
    """The walk as its second leg has it: it asks for phones, by ids that nothing has to be proved for."""
    return replace(
        walk, purpose=Purpose.PHONE, orders=orders_of(walk, phones, services), match=Match(send=(), need_one_of=((),))
    )


def orders_of(walk: Walk, phones: Phones, services: Services) -> Orders:
    """How this walk's calls order phones."""

    def choose(waits: Sequence[NewWait]) -> None:
        services.reveals.choose(
            waits,
            crm=walk.crm.name,
            object_type=walk.object_type,
            sync=walk.sync_name,
            run_id=walk.run_id,
            now=services.clock.now(),
        )

    return Orders(
        phones=phones,
        callbacks=services.callbacks,
        person=services.reveals.person,
        per_number=per_number(walk.enricher),
        choose=choose,
    )


def how_many(walk: Walk, services: Services) -> int:
    """For how many records a run of this walk would order a phone at most: some of them Apollo may not know."""
    phones = walk.sync.phones
    if phones is None:
        return 0
    count = 0
    for page in walk.crm.select(to_be_revealed(walk, phones)):
        ids = [record.ref.id for record in page.records if not is_marked(record, phones)]
        asked = services.reveals.of_records(walk.crm.name, walk.object_type, walk.sync_name, ids)
        count += sum(each not in asked or asked[each].state == NOT_ORDERED for each in ids)
        if walk.at_most is not None and count >= walk.at_most:
            return walk.at_most
    return count


def with_match(walk: Walk, services: Services) -> Walk | None:
    """The walk that matches and orders in one call, for those of its records who are to get a phone; None where the
    sync does not order so, or nothing can be ordered now."""
    phones = walk.sync.phones
    if phones is None or phones.order != "with_match" or walk.kind is not RunKind.RUN or walk.free:
        return None
    if services.callbacks.problem():
        return None  # told by the second leg
    return replace(walk, orders=orders_of(walk, phones, services))


def _pages(walk: Walk, leg: Walk, services: Services, found: Ordered) -> Iterator[DuePage]:
    assert leg.orders is not None
    orders, phones, room = leg.orders, leg.orders.phones, walk.at_most
    served = EnrichRoom(walk, Desk(walk.enricher.per_call))
    for page in walk.crm.select(to_be_revealed(walk, phones)):
        records = [record for record in page.records if not is_marked(record, phones)]
        found.left_out[LEFT_OUT_MARKED] += len(page.records) - len(records)
        if walk.only:
            records = [each for each in records if lacking(each.values, phone_fields(phones), walk.folded_placeholders)]
        due = _to_ask(walk, orders, services, served, records, found.left_out, room=room)
        if room is not None:
            room -= len(due)
        if due:
            yield DuePage(due=tuple(due), stored={}, expected=None)
        if walk.stop or room == 0:
            return


def _to_ask(
    walk: Walk,
    orders: Orders,
    services: Services,
    served: EnrichRoom,
    records: Sequence[Record],
    left_out: Counter[str],
    *,
    room: int | None,
) -> list[Due]:
    """Those of a page whose phone is to be asked for, `room` at most: known to Apollo, believed, and not asked for yet.
    They are noted as waiting before anything is planned."""
    people = _known(walk, served, records, left_out)
    ids = [answered.due.record.ref.id for answered in people]
    waits = services.reveals.of_records(walk.crm.name, walk.object_type, walk.sync_name, ids)
    keys = {answered.due.record.ref.id: _phone_keys(answered) for answered in people}
    # By Apollo's id: of somebody who was erased, say, another record may have another address.
    refused = walk.screen.suppressed(list(keys.values()))
    stored = walk.answers.look_up(Purpose.PHONE, [key.key for key in keys.values()])
    asked: list[Due] = []
    joined: list[Due] = []
    chosen: list[NewWait] = []
    for answered in people:
        record_id = answered.due.record.ref.id
        key = keys[record_id]
        if key.key in refused:
            left_out[refused[key.key]] += 1
            continue
        wait = waits.get(record_id)
        answer = stored.get(key.key)
        if wait is not None and wait.is_open:
            left_out[LEFT_OUT_WAITING] += 1
            continue
        is_known = answer is not None and (
            answer.verdict in GUARDING
            or answer.obtained_at >= (walk.no_match_since if answer.verdict in _NONE else walk.fresh_since)
        )
        is_own = wait is not None and wait.person == services.reveals.person(key.apollo_id)
        if is_known and is_own and wait is not None and wait.state != NOT_ORDERED:
            left_out[LEFT_OUT_KNOWN] += 1
            continue
        if not is_known and room is not None and len(asked) >= room:
            left_out[LEFT_OUT_BEYOND] += 1
            continue
        chosen.append(_wait_of(answered))
        (joined if is_known else asked).append(Due(record=answered.due.record, keys=key, lacking=()))
    orders.choose(chosen)
    left_out[JOINED] += len(joined)
    return asked


def _known(walk: Walk, served: EnrichRoom, records: Sequence[Record], left_out: Counter[str]) -> list[Answered]:
    """The records whose person Apollo has told us, and who is believed to be the one."""
    due = [Due(record=record, keys=walk.keys_of(record.values), lacking=()) for record in records]
    due = without_suppressed(walk, due, left_out)
    strong = [each for each in due if not weakness(each.keys, walk.match)]
    stored = walk.answers.look_up(Purpose.PERSON, [each.keys.key for each in strong])
    answered, _ = served.serve(strong, stored)
    found = [
        each
        for each, _ in believed(walk, answered)
        if each.outcome is None and each.enrichment is not None and each.enrichment.apollo_id and each.batch_id
    ]
    left_out[LEFT_OUT_UNKNOWN] += len(due) - len(found)
    return found


def _phone_keys(answered: Answered) -> MatchKeys:
    assert answered.enrichment is not None
    return replace(answered.due.keys, purpose=Purpose.PHONE, apollo_id=answered.enrichment.apollo_id)


def _wait_of(answered: Answered) -> NewWait:
    assert answered.enrichment is not None
    assert answered.batch_id is not None
    return NewWait(
        record_id=answered.due.record.ref.id,
        apollo_id=answered.enrichment.apollo_id,
        key=answered.due.keys.key,
        batch_id=answered.batch_id,
        position=answered.position,
    )
