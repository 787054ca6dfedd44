"""The first walk: select, batch, enrich, map, diff, write, audit."""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal

from crm_sync import crash
from crm_sync.config.model import Sync
from crm_sync.domain.enrichment import MatchKeys, Purpose
from crm_sync.domain.records import Value
from crm_sync.domain.runs import Counts, RunKind, RunStatus, SyncRun
from crm_sync.errors import (
    BudgetError,
    BusyError,
    ConfigError,
    ContractError,
    CredentialsError,
    CrmSyncError,
    HeldError,
)
from crm_sync.mapping.blanks import lacking
from crm_sync.mapping.match_keys import registrable_domain, weakness
from crm_sync.pipeline import doubt, restore
from crm_sync.pipeline.audit import Attempt, Audit
from crm_sync.pipeline.batch import Desk
from crm_sync.pipeline.enrich import EnrichRoom
from crm_sync.pipeline.recover import give_up, owner, recover, settle_calls
from crm_sync.pipeline.select import LEFT_OUT_MORE, LEFT_OUT_SEEN_MORE, due_pages
from crm_sync.pipeline.stages import Stages
from crm_sync.pipeline.walk import AS_BUDGETED, Answered, Due, Spending, Stop, Walk, prepare
from crm_sync.pipeline.write import Candidate, Settled, unreached, write_candidates
from crm_sync.services import Services

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
    stop: Stop | None = None,
    watch: Callable[[Progress], None] | None = None,
    met: Callable[[Due], None] | None = None,
) -> SyncRun:
    """Walk one sync to its end and return its books; a plan is the same walk with nothing written.

    A neighbour's failure ends the run with a status and a reason, never with an exception. `stop`, raised from
    outside, cancels: what was paid for is still written. `met` is shown each selected record, once.

    Raises:
        ConfigError: the sync does not fit the CRM; nothing has run.
        StoreError: the database failed, so nothing more may be spent.
        BusyError: the sync is running already; two walks would ask for the same people.
    """
    before = _calls(sync, services)
    recover(services)
    _refuse_overlap(sync, services)
    run = SyncRun(
        id=_new_id(services.clock.now()),
        sync=sync.name,
        crm=sync.crm,
        object_type=sync.object_type,
        kind=kind,
        status=RunStatus.RUNNING,
        trigger=trigger,
        config_version=services.config_version,
        started_at=services.clock.now(),
    )
    services.runs.open(run, owner=owner())
    crash.point("run.opened")
    try:
        ended = _to_its_end(run, sync, services, limit=limit, spending=spending, stop=stop, watch=watch, met=met)
        calls = Counter(_calls(sync, services))
        calls.subtract(before)
        ended = replace(ended, calls={name: count for name, count in sorted(calls.items()) if count})
        services.runs.save(ended, now=services.clock.now())
    except BaseException:
        give_up(run.id)
        raise
    crash.point("run.closed")
    return ended


def _to_its_end(
    run: SyncRun,
    sync: Sync,
    services: Services,
    *,
    limit: int | None,
    spending: Spending,
    stop: Stop | None,
    watch: Callable[[Progress], None] | None,
    met: Callable[[Due], None] | None,
) -> SyncRun:
    try:
        walk = prepare(
            sync,
            services,
            run_id=run.id,
            kind=run.kind,
            limit=limit,
            spending=spending,
            crm=services.crm(sync.crm),
            enricher=services.enricher(),
        )
        if stop is not None:
            walk.stop = stop
        if not walk.free:
            restore.begin(walk, services)
            doubt.resolve(services)
        ended = _walk(walk, run, services, watch, met)
    except ConfigError as error:
        services.runs.save(_end(run, services, RunStatus.FAILED, str(error)), now=services.clock.now())
        raise
    except CrmSyncError as error:
        ended = _end(run, services, RunStatus.FAILED, str(error))
    crash.point("run.closing")
    settle_calls(run, services)
    return replace(ended, credits=services.journal.spent(run.id))


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """What a walk over its first due records would take: `served` have a stored answer, `weak` cannot be asked for.

    At most `most` credits: Apollo charges for those it finds, so it may be none.
    """

    due: int
    served: int
    weak: int
    asked: int
    calls: int
    most: Decimal


def estimate(sync: Sync, services: Services, *, limit: int | None) -> Estimate:
    """Read what is due and look at the stored answers; asks Apollo nothing and writes nothing.

    Raises:
        CrmSyncError: the CRM cannot be read.
    """
    crm, enricher = services.crm(sync.crm), services.enricher()
    walk = prepare(
        sync, services, run_id="", kind=RunKind.PLAN, limit=limit, spending=AS_BUDGETED, crm=crm, enricher=enricher
    )
    room = EnrichRoom(walk, Desk(enricher.per_call))
    due = served = weak = 0
    asked: set[int] = set()
    for page in due_pages(walk, Counter()):
        strong = [each for each in page.due if not weakness(each.keys, walk.match)]
        answered, left = room.serve(strong, page.stored)
        due += len(page.due)
        weak += len(page.due) - len(strong)
        served += len(answered)
        asked |= {hash(each.keys.key) for each in left}
    return Estimate(
        due=due,
        served=served,
        weak=weak,
        asked=len(asked),
        calls=-(-len(asked) // enricher.per_call),
        most=enricher.most(walk.purpose) * len(asked),
    )


def _refuse_overlap(sync: Sync, services: Services) -> None:
    for other, owner_, _ in services.runs.unfinished():
        if other.sync == sync.name:
            raise BusyError(
                f"{sync.name} is running already: {other.kind.value} {other.id} since {other.started_at:%H:%M:%S} UTC "
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
    stages = Stages(walk, on_expected=expected.append)
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
                walk.stop.raise_("cancelled by crm-sync cancel")
    desk.finish()
    _advance(walk, services)
    if walk.kind is RunKind.RUN:
        services.runs.count_unmapped(walk.sync.name, desk.unmapped, now=services.clock.now())
    counts = desk.audit.counts(stages.selected)
    left_out = _with_more(walk, expected, counts, dict(stages.left_out))
    run = replace(run, counts=counts, parents=desk.audit.parent_counts(), left_out=left_out)
    if watch is not None:
        watch(_progress(walk, desk, expected, counts))
    return _end(run, services, *_verdict(walk, run, desk.audit))


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


def _verdict(walk: Walk, run: SyncRun, audit: Audit) -> tuple[RunStatus, str]:
    """The run's status and reason, worst first.

    A run that an error stopped, or kept from writing, has failed where nothing at all came of it in the CRM: people
    whom Apollo does not know do not make it a success.
    """
    counts, stop = run.counts, walk.stop
    is_barren = not (counts.updated or counts.unchanged or run.parents.updated)
    if not counts.balanced or not run.parents.balanced:
        return RunStatus.FAILED, f"the books do not balance: {counts}"
    if stop:
        if stop.error is None:
            return RunStatus.CANCELLED, stop.reason
        if isinstance(stop.error, BudgetError):
            status = RunStatus.FAILED if walk.budget.at_limit == "fail" else RunStatus.STOPPED_AT_BUDGET
            return status, stop.reason
        if is_barren or isinstance(stop.error, _ENDINGS) or not _expected(stop.error):
            return RunStatus.FAILED, stop.reason
        return RunStatus.COMPLETED_WITH_ERRORS, stop.reason
    troubles = [
        (audit.unwritten.total(), "not written"),
        (counts.rejected, "rejected by the CRM"),
        (counts.invalid, "invalid"),
        (counts.in_doubt, "in doubt"),
        (run.parents.rejected, f"rejected on {walk.parent.object_type}" if walk.parent else ""),
        (audit.refused_fields, "field values refused"),
        (audit.unstamped, "not stamped"),
    ]
    if audit.unwritten and is_barren:
        return RunStatus.FAILED, audit.unwritten.most_common(1)[0][0]
    said = [f"{count} {word}" for count, word in troubles if count]
    said += [
        f"nothing was stamped on {target.object_type}: {target.stamping.problem}"
        for target in (walk.target, walk.parent)
        if target is not None and target.stamping.problem and counts.selected
    ]
    return (RunStatus.COMPLETED_WITH_ERRORS, ", ".join(said)) if said else (RunStatus.COMPLETED, "")


#: Whatever was done before: these need a person.
_ENDINGS = (CredentialsError, ContractError, HeldError)


def _expected(error: Exception) -> bool:
    return isinstance(error, CrmSyncError)


def _end(run: SyncRun, services: Services, status: RunStatus, reason: str) -> SyncRun:
    return replace(
        run,
        status=status,
        reason=reason,
        finished_at=services.clock.now(),
        credits=services.journal.spent(run.id),
    )


class WritingDesk:
    """The writing stage: gathers answers until one re-read takes them all, then settles them together."""

    def __init__(self, walk: Walk) -> None:
        self._walk = walk
        self.audit = Audit(walk=walk)
        self.taken = 0
        self.unmapped: Counter[tuple[str, str]] = Counter()
        self._waiting: list[tuple[Answered, Candidate]] = []
        self._parents: dict[str, Candidate] = {}
        self._parents_done: set[str] = set()
        self._parents_unreached: set[Value] = set()

    def take(self, group: list[Answered]) -> None:
        plain = [answered for answered in group if answered.enrichment is None and not self._is_to_stamp(answered)]
        if plain:
            self._close_plain(plain)
        for answered in group:
            if answered.enrichment is not None:
                self._waiting.append(self._map(answered))
            elif self._is_to_stamp(answered):
                self._waiting.append((answered, _to_stamp(answered)))
        self.taken += len(group)
        size = self._walk.crm.read_size
        while len(self._waiting) >= size:
            chunk, self._waiting = self._waiting[:size], self._waiting[size:]
            self._settle(chunk)

    def _is_to_stamp(self, answered: Answered) -> bool:
        """Whether Apollo was asked about it and had no value: its record goes the way of the others, to be stamped."""
        has_stamps = self._walk.kind is RunKind.RUN and bool(self._walk.target.stamping.fields)
        return has_stamps and answered.answered_at is not None

    def finish(self) -> None:
        if self._waiting:
            chunk, self._waiting = self._waiting, []
            self._settle(chunk)
        self._settle_parents()

    def _map(self, answered: Answered) -> tuple[Answered, Candidate]:
        walk = self._walk
        assert answered.enrichment is not None
        mapped = walk.target.mapper.want(answered.enrichment)
        self.unmapped.update(mapped.unmapped)
        record_id = answered.due.record.ref.id
        candidate = Candidate(
            record_id=record_id,
            wanted=mapped.wanted,
            batch_id=answered.batch_id,
            keys=answered.due.keys,
            enrichment=answered.enrichment,
            answered_at=answered.answered_at,
        )
        if walk.parent is not None:
            self._map_parent(answered)
        return answered, candidate

    def _map_parent(self, answered: Answered) -> None:
        """The employer that came with a person serves the account it belongs to, and no other."""
        walk = self._walk
        assert walk.parent is not None
        assert walk.sync.parent is not None
        assert answered.enrichment is not None
        parent_id = self._parent_id(answered)
        organization = answered.enrichment.organization
        if not isinstance(parent_id, str) or not parent_id or parent_id in self._parents_done:
            return
        domain = registrable_domain(organization.get("primary_domain") or "")
        if not domain or domain != answered.due.keys.domain:
            return
        self._parents_done.add(parent_id)
        mapped = walk.parent.mapper.want(answered.enrichment)
        self.unmapped.update(mapped.unmapped)
        self._parents[parent_id] = Candidate(
            record_id=parent_id,
            wanted=mapped.wanted,
            batch_id=answered.batch_id,
            keys=MatchKeys(purpose=Purpose.COMPANY, domain=domain),
            answered_at=answered.answered_at,
        )
        if len(self._parents) >= walk.crm.read_size:
            self._settle_parents()

    def _settle(self, chunk: list[tuple[Answered, Candidate]]) -> None:
        walk = self._walk
        # Their companies first: once people lack nothing they are not selected again, and nobody else may bring them.
        self._settle_parents()
        stuck = [candidate for answered, candidate in chunk if self._parent_id(answered) in self._parents_unreached]
        if stuck:
            reason = "its company could not be written, and nobody else may bring it"
            self.audit.close(walk.target, [unreached(candidate, reason) for candidate in stuck], {})
            chunk = [each for each in chunk if self._parent_id(each[0]) not in self._parents_unreached]
        settled = write_candidates(walk, walk.target, [candidate for _, candidate in chunk], self.audit)
        attempts = {
            one.record_id: Attempt(keys=answered.due.keys, lacking=self._lacking(answered, one))
            for (answered, _), one in zip(chunk, settled, strict=True)
            if one.reached
        }
        self.audit.close(walk.target, settled, attempts)

    def _lacking(self, answered: Answered, settled: Settled) -> tuple[str, ...]:
        if settled.values is None:
            return answered.due.lacking
        return lacking(settled.values, self._walk.sync.choose.missing_any, self._walk.folded_placeholders)

    def _settle_parents(self) -> None:
        walk = self._walk
        if walk.parent is None or not self._parents:
            return
        crash.point("write.parents")
        candidates, self._parents = list(self._parents.values()), {}
        settled = write_candidates(walk, walk.parent, candidates, self.audit)
        if walk.stop:  # else a company that was not reached is to be left alone, and its people are not
            self._parents_unreached |= {one.record_id for one in settled if not one.reached}
        self.audit.close(walk.parent, settled, {})

    def _parent_id(self, answered: Answered) -> Value:
        parent = self._walk.sync.parent
        return answered.due.record.values.get(parent.via) if parent is not None else None

    def _close_plain(self, group: list[Answered]) -> None:
        settled, attempts = [], {}
        for answered in group:
            record_id = answered.due.record.ref.id
            assert answered.outcome is not None
            settled.append(
                Settled(
                    record_id=record_id,
                    outcome=answered.outcome,
                    reason=answered.reason,
                    batch_id=answered.batch_id,
                    key=answered.due.keys.key,
                )
            )
            if answered.reached:
                attempts[record_id] = Attempt(keys=answered.due.keys, lacking=answered.due.lacking)
        self.audit.close(self._walk.target, settled, attempts)


def _to_stamp(answered: Answered) -> Candidate:
    return Candidate(
        record_id=answered.due.record.ref.id,
        wanted=(),
        batch_id=answered.batch_id,
        keys=answered.due.keys,
        answered_at=answered.answered_at,
        outcome=answered.outcome,
        reason=answered.reason,
    )


def _calls(sync: Sync, services: Services) -> dict[str, int]:
    crm = {f"{sync.crm} {name}": count for name, count in services.crm(sync.crm).calls().items()}
    return crm | {f"apollo {name}": count for name, count in services.enricher().calls().items()}


def _new_id(now: datetime) -> str:
    """Sorts by time, reads aloud, and does not collide: 20261123-021500-7f3a."""
    return f"{now.astimezone(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"
