"""The first walk: select, batch, enrich, map, diff, write, audit."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from decimal import Decimal

from crm_sync import crash
from crm_sync.config.model import Sync
from crm_sync.domain.enrichment import Purpose
from crm_sync.domain.runs import Asked, Counts, RunKind, RunStatus, SyncRun, new_run_id
from crm_sync.errors import BusyError, ConfigError, CrmSyncError, LostRunError, ProviderError
from crm_sync.log_ids import log_ids
from crm_sync.mapping.match_keys import weakness
from crm_sync.pipeline import doubt, restore
from crm_sync.pipeline.audit import Audit
from crm_sync.pipeline.batch import Desk
from crm_sync.pipeline.enrich import EnrichRoom
from crm_sync.pipeline.heartbeat import alive
from crm_sync.pipeline.recover import broken_off, give_up, owner, recover, settle_calls, successor, with_books
from crm_sync.pipeline.reveal import Ordered, how_many, order_phones, with_match
from crm_sync.pipeline.select import LEFT_OUT_MORE, LEFT_OUT_SEEN_MORE, due_pages
from crm_sync.pipeline.sharing import Shared, share_out
from crm_sync.pipeline.stages import Stages
from crm_sync.pipeline.traced import as_a_span
from crm_sync.pipeline.verdict import verdict
from crm_sync.pipeline.walk import AS_BUDGETED, Due, Spending, Stop, Walk, compiled, prepare
from crm_sync.pipeline.writing_desk import WritingDesk
from crm_sync.services import Services

_log = logging.getLogger(__name__)

#: How often a running run saves its books, and tells who watches.
_SAVE_EVERY = timedelta(seconds=2)
_WATCH_EVERY = timedelta(seconds=0.25)


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """Where a run stands: `expected` is how many records it will take at most, None unknown; `waiting_until` is set
    while Apollo asks to wait."""

    done: int
    expected: int | None
    counts: Counts
    credits: Decimal
    waiting_until: datetime | None = None


def run_sync(
    sync: Sync,
    services: Services,
    *,
    kind: RunKind,
    trigger: str,
    limit: int | None = None,
    spending: Spending = AS_BUDGETED,
    only: tuple[str, ...] = (),
    stop: Stop | None = None,
    watch: Callable[[Progress], None] | None = None,
    met: Callable[[Due], None] | None = None,
) -> SyncRun:
    """Walk one sync to its end and return its books; a plan is the same walk with nothing written. `only`: the records
    with these ids, whatever was tried with them before.

    A neighbour's failure ends the run with a status and a reason, never with an exception. `stop`, raised from
    outside, cancels: what was paid for is still written. `met` is shown each selected record, once.

    Raises:
        ConfigError: the sync does not fit the CRM; nothing has run.
        StoreError: the database failed, so nothing more may be spent.
        BusyError: the sync is running already; two walks would ask for the same people.
    """
    stop = stop if stop is not None else Stop()
    before = services.calls_so_far(sync.crm)
    recover(services, sync.crm)
    refuse_overlap(sync.name, services)
    run = opened(services, sync=sync.name, crm=sync.crm, object_type=sync.object_type, kind=kind, trigger=trigger)
    crash.point("run.opened")

    def to_its_end() -> SyncRun:
        return _to_its_end(
            run, sync, services, limit=limit, spending=spending, only=only, stop=stop, watch=watch, met=met
        )

    with log_ids(run=run.id, sync=sync.name):
        _log.info("%s began", kind.value)
        ended = closed(run, services, to_its_end, before=before, stop=stop)
        _log.info("%s ended as %s%s", kind.value, ended.status.value, f": {ended.reason}" if ended.reason else "")
    crash.point("run.closed")
    return ended


def run_queued(services: Services, *, stop: Stop) -> SyncRun | None:
    """Walk the run that waits longest to its end and return its books; None where none waits that may begin.

    A run that `stop.pause` ends goes on as another one: what is left to do is queued in the commit that ends it.

    Raises:
        StoreError: the database failed, so nothing more may be spent.
        LostRunError: this process was taken for dead, and another one goes on with the run.
    """
    waiting = services.queue.waiting()
    if not waiting:
        return None
    for crm in dict.fromkeys(each.crm for each in waiting):
        if crm in services.config.crms:
            with suppress(ProviderError, ConfigError):  # told by the run itself, which meets it again
                recover(services, crm)
    taken = services.queue.take(owner=owner(), config_version=services.config_version, now=services.clock.now())
    if taken is None:
        return None
    run, asked = taken
    try:
        with log_ids(run=run.id, sync=run.sync):
            return _to_the_end_of_queued(run, asked, services, stop)
    except LostRunError:
        raise
    except BaseException:
        give_up(run.id)  # whatever it was: a run without an end would keep its sync from running
        raise


def _to_the_end_of_queued(run: SyncRun, asked: Asked, services: Services, stop: Stop) -> SyncRun | None:
    sync = services.config.syncs.get(run.sync)
    if sync is None:
        return _ended_unrun(run, services, f"the configuration has no sync {run.sync} any more")
    try:
        services.crm(sync.crm).refresh()  # this process may be up for months
        before = services.calls_so_far(sync.crm)
    except ConfigError as error:
        return _ended_unrun(run, services, str(error))

    def to_its_end() -> SyncRun:
        spending = Spending(max_credits=asked.max_credits, free=asked.free)
        return _to_its_end(run, sync, services, limit=asked.limit, spending=spending, stop=stop, asked=asked)

    try:
        return closed(run, services, to_its_end, before=before, stop=stop)
    except ConfigError:
        return services.runs.get(run.id)  # it has its end, with the reason


def _ended_unrun(run: SyncRun, services: Services, reason: str) -> SyncRun:
    ended = end(run, services, RunStatus.FAILED, reason)
    services.runs.save(ended, now=services.clock.now())
    return ended


def opened(services: Services, *, sync: str, crm: str, object_type: str, kind: RunKind, trigger: str) -> SyncRun:
    """A new run of this process, noted as running."""
    run = SyncRun(
        id=new_run_id(services.clock.now()),
        sync=sync,
        crm=crm,
        object_type=object_type,
        kind=kind,
        status=RunStatus.RUNNING,
        trigger=trigger,
        config_version=services.config_version,
        started_at=services.clock.now(),
    )
    services.runs.open(run, owner=owner())
    return run


@as_a_span
def closed(
    run: SyncRun,
    services: Services,
    to_its_end: Callable[[], SyncRun],
    *,
    before: Mapping[str, int],
    stop: Stop | None = None,
) -> SyncRun:
    """The run's books as `to_its_end` returns them, saved with the calls it took since `before`
    (Services.calls_so_far). Where that raises, the next run of this process closes it. `stop` is raised where another
    process takes the run over."""
    try:
        with alive(lambda: services.runs.beat(run.id, now=services.clock.now()), stop):
            ended = to_its_end()
        calls = Counter(ended.calls)  # those of other processes
        calls.update(services.calls_so_far(run.crm))
        calls.subtract(before)
        ended = replace(ended, calls={name: count for name, count in sorted(calls.items()) if count})
        then = successor(ended, services) if stop is not None and stop.is_pause else None
        if then is not None:
            ended = replace(ended, reason=f"{ended.reason}; {then[0].id} goes on")
        services.queue.end(ended, then=then, now=services.clock.now())
        if ended.status is RunStatus.WAITING_FOR_PHONES:
            services.reveals.finish_runs()  # the last one may have come while the run was ending
    except LostRunError:
        raise  # whoever has it gives it its end
    except BaseException:
        give_up(run.id)
        raise
    return ended


def _to_its_end(
    run: SyncRun,
    sync: Sync,
    services: Services,
    *,
    limit: int | None,
    spending: Spending,
    only: tuple[str, ...] = (),
    stop: Stop | None,
    watch: Callable[[Progress], None] | None = None,
    met: Callable[[Due], None] | None = None,
    asked: Asked | None = None,
) -> SyncRun:
    """`asked`: it was queued, so that other workers may share it."""
    try:
        walk = prepare(
            sync,
            services,
            run_id=run.id,
            kind=run.kind,
            limit=limit,
            spending=spending,
            only=only,
            crm=services.crm(sync.crm),
            enricher=services.enricher(),
        )
        if stop is not None:
            walk.stop = stop
        if not walk.free:
            restore.begin(walk, services)
            doubt.resolve(services)
        if asked is not None and services.hint is not None:
            ended = _end_of_shared(walk, run, services, share_out(walk, run, sync, services, asked))
        else:
            ended = _walk(walk, run, services, watch, met)
    except LostRunError:
        raise
    except ConfigError as error:
        services.runs.save(end(run, services, RunStatus.FAILED, str(error)), now=services.clock.now())
        raise
    except CrmSyncError as error:
        ended = end(broken_off(run, services, str(error)), services, RunStatus.FAILED, str(error))
    crash.point("run.closing")
    settle_calls(run.id, services)
    return replace(ended, credits=services.journal.spent(run.id))


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """What a walk over its first due records would take: `served` have a stored answer, `weak` cannot be asked for.

    At most `most` credits: Apollo charges for those it finds, so it may be none. A run would also order `phones` at
    most, for up to `phones_most` credits; a plan orders none.
    """

    due: int
    served: int
    weak: int
    asked: int
    calls: int
    most: Decimal
    phones: int
    phones_most: Decimal


def estimate(sync: Sync, services: Services, *, limit: int | None) -> Estimate:
    """Read what is due and look at the stored answers; asks Apollo nothing and writes nothing.

    Raises:
        CrmSyncError: the CRM cannot be read.
    """
    walk = compiled(sync, services, limit=limit)
    room = EnrichRoom(walk, Desk(walk.enricher.per_call))
    due = served = weak = 0
    asked: set[int] = set()
    for page in due_pages(walk, Counter()):
        strong = [each for each in page.due if not weakness(each.keys, walk.match)]
        answered, left = room.serve(strong, page.stored)
        due += len(page.due)
        weak += len(page.due) - len(strong)
        served += len(answered)
        asked |= {hash(each.keys.key) for each in left}
    phones = how_many(walk, services)
    return Estimate(
        due=due,
        served=served,
        weak=weak,
        asked=len(asked),
        calls=-(-len(asked) // walk.enricher.per_call),
        most=walk.enricher.most(walk.purpose) * len(asked),
        phones=phones,
        phones_most=walk.enricher.most(Purpose.PHONE) * phones,
    )


def refuse_overlap(sync: str, services: Services) -> None:
    """
    Raises:
        BusyError: a run of this sync is under way.
    """
    for other, owner_, _ in services.runs.unfinished():
        if other.sync == sync and other.kind is not RunKind.PHONES:
            raise BusyError(
                f"{sync} is running already: {other.kind.value} {other.id} since {other.started_at:%H:%M:%S} UTC "
                f"({':'.join(owner_.split(':')[:2])}). Wait for its end; `crm-sync runs` shows it"
            )


def _walk(
    walk: Walk,
    run: SyncRun,
    services: Services,
    watch: Callable[[Progress], None] | None,
    met: Callable[[Due], None] | None,
) -> SyncRun:
    desk = WritingDesk(walk)
    expected: list[int] = []
    stages = Stages(walk, on_expected=expected.append, revealing=with_match(walk, services))
    saved_at = watched_at = services.clock.now()
    for group in stages.answered():
        desk.take(group)
        if met is not None:
            for answered in group:
                met(answered.due)
        now = services.clock.now()
        if watch is not None and now - watched_at > _WATCH_EVERY:
            watched_at = now
            watch(_progress(walk, desk, expected, desk.audit.counts(stages.selected)))
        if now - saved_at > _SAVE_EVERY:
            saved_at = now
            counts = desk.audit.counts(stages.selected)
            spent = walk.journal.spent(run.id)
            services.runs.save(replace(run, counts=counts, left_out=dict(stages.left_out), credits=spent), now=now)
            _advance(walk, services)
            if services.runs.cancel_asked(run.id):
                walk.stop.cancel()
    desk.finish()
    _advance(walk, services)
    if walk.kind is RunKind.RUN:
        services.runs.count_unmapped(walk.sync.name, desk.unmapped, now=services.clock.now())
    counts = desk.audit.counts(stages.selected)
    left_out = _with_more(walk, expected, counts, dict(stages.left_out))
    run = replace(run, counts=counts, parents=desk.audit.parent_counts(), left_out=left_out)
    ended = _with_phones(walk, run, services, desk.audit)
    if watch is not None:
        watch(_progress(walk, desk, expected, counts))
    return ended


def _end_of_shared(walk: Walk, run: SyncRun, services: Services, shared: Shared) -> SyncRun:
    """The books and the second leg of a run that several workers have walked."""
    run = with_books(run, services)
    run = replace(run, left_out=_with_more(walk, shared.expected, run.counts, shared.left_out), calls=shared.calls)
    return _with_phones(walk, run, services, shared.audit, shared.remarks)


def _with_phones(walk: Walk, run: SyncRun, services: Services, audit: Audit, remarks: Sequence[str] = ()) -> SyncRun:
    """The second leg, and the run's end."""
    phones = order_phones(walk, services)
    not_asked = {reason: count for reason, count in phones.left_out.items() if count}
    run = replace(run, left_out=run.left_out | not_asked)
    return end(run, services, *_verdict(walk, run, audit, phones, remarks))


def _advance(walk: Walk, services: Services) -> None:
    """Note outside the database how far it has come: a backup made in mid-run must not look like the end of it."""
    if walk.free:
        return
    try:
        restore.advance(services)
    except CrmSyncError as error:
        walk.stop.raise_(str(error), error)


def _with_more(walk: Walk, expected: list[int], counts: Counts, left_out: dict[str, int]) -> dict[str, int]:
    """How many are due beyond what this run takes: by the CRM's count, else as many as were seen."""
    if not expected or walk.at_most is None or counts.selected < walk.at_most:
        return left_out
    seen = left_out.pop(LEFT_OUT_SEEN_MORE, 0)
    more = max(seen, expected[0] - counts.selected - sum(left_out.values()))
    return {**left_out, LEFT_OUT_MORE: more} if more else left_out


def _progress(walk: Walk, desk: WritingDesk, expected: list[int], counts: Counts) -> Progress:
    total = expected[0] if expected else None
    if walk.at_most is not None:
        total = walk.at_most if total is None else min(total, walk.at_most)
    return Progress(
        done=desk.taken,
        expected=total,
        counts=counts,
        credits=walk.journal.spent(walk.run_id),
        waiting_until=walk.waiting_until,
    )


def _verdict(walk: Walk, run: SyncRun, audit: Audit, phones: Ordered, also: Sequence[str]) -> tuple[RunStatus, str]:
    remarks = [
        *also,
        *(
            f"nothing was stamped on {target.object_type}: {target.stamping.problem}"
            for target in (walk.target, walk.parent)
            if target is not None and target.stamping.problem and run.counts.selected
        ),
    ]
    if phones.problem:
        remarks.append(f"no phone was ordered: {phones.problem}")
    return verdict(
        run,
        audit,
        walk.stop,
        fails_at_limit=walk.budget.at_limit == "fail",
        parent=walk.parent.object_type if walk.parent is not None else "",
        remarks=remarks,
        phones=phones.asked,
    )


def end(run: SyncRun, services: Services, status: RunStatus, reason: str) -> SyncRun:
    return replace(
        run,
        status=status,
        reason=reason,
        finished_at=services.clock.now(),
        credits=services.journal.spent(run.id),
    )
