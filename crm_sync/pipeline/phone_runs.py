"""The runs in which delivered numbers are written: one for a burst of deliveries to a sync, not one for each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from crm_sync import crash
from crm_sync.config.model import Phones, Sync
from crm_sync.domain.changes import WriteRule
from crm_sync.domain.records import ObjectSchema
from crm_sync.domain.runs import RunKind, SyncRun
from crm_sync.mapping.apply import Mapper
from crm_sync.mapping.opt_outs import Sign
from crm_sync.mapping.phones import phone_fields
from crm_sync.pipeline.audit import Audit
from crm_sync.pipeline.recover import give_up
from crm_sync.pipeline.run import closed, end, opened
from crm_sync.pipeline.settled import Settled
from crm_sync.pipeline.suppress import Guard
from crm_sync.pipeline.verdict import verdict
from crm_sync.pipeline.walk import AS_BUDGETED, Target, Walk, prepare
from crm_sync.services import Services

#: A run is closed when nothing more came for so long, and at the latest after so long.
_QUIET, _LONGEST = timedelta(seconds=20), timedelta(minutes=30)
TRIGGER = "deliveries"


@dataclass(slots=True)
class _Open:
    run: SyncRun
    walk: Walk
    audit: Audit
    before: dict[str, int]
    used_at: datetime
    records: set[str] = field(default_factory=set)


class PhoneRuns:
    """The open runs of this process, by sync. A run has each record once: the second time another one is begun."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._open: dict[str, _Open] = {}

    def walk(self, sync: Sync, record_ids: Sequence[str]) -> Walk:
        """The walk to write these records with; its run is noted as running.

        Raises:
            CrmSyncError: the sync does not fit the CRM, or it cannot be asked.
        """
        services = self._services
        mine = self._open.get(sync.name)
        if mine is not None and (mine.walk.sync is not sync or not mine.records.isdisjoint(record_ids)):
            self._end(sync.name)
            mine = None
        if mine is None:
            before = services.calls_so_far(sync.crm)
            walk = _prepared(sync, services)
            run = opened(
                services,
                sync=sync.name,
                crm=sync.crm,
                object_type=sync.object_type,
                kind=RunKind.PHONES,
                trigger=TRIGGER,
            )
            crash.point("phone_runs.opened")
            walk = replace(walk, run_id=run.id, jobs=services.write_jobs.book(run.id, sync.crm, services.clock))
            mine = _Open(run, walk, Audit(context=walk), before, services.clock.now())
            self._open[sync.name] = mine
        mine.records.update(record_ids)
        return mine.walk

    def audit(self, walk: Walk) -> Audit:
        return self._open[walk.sync_name].audit

    def close(self, walk: Walk, settled: Sequence[Settled]) -> None:
        """Write down what became of these records."""
        self.audit(walk).close(walk.target, settled, {})

    def saw(self, sync_name: str) -> None:
        """Something was done in the sync's run: its books are saved, and it is over where it was stopped."""
        mine = self._open.get(sync_name)
        if mine is None:
            return
        if mine.walk.stop:
            self._end(sync_name)
            return
        now = self._services.clock.now()
        mine.used_at = now
        counts = mine.audit.counts(mine.audit.outcomes.total())
        self._services.runs.save(replace(mine.run, counts=counts), now=now)

    def close_quiet(self, *, all_of_them: bool = False) -> None:
        """End the runs that nothing has come for lately."""
        now = self._services.clock.now()
        for name, mine in tuple(self._open.items()):
            if all_of_them or now - mine.used_at >= _QUIET or now - mine.run.started_at >= _LONGEST:
                self._end(name)

    def abandon(self) -> None:
        """Let go of them without an end, after a failure: whoever recovers next closes them."""
        for mine in self._open.values():
            give_up(mine.run.id)
        self._open.clear()

    def _end(self, sync_name: str) -> None:
        mine = self._open.pop(sync_name)
        services, audit = self._services, mine.audit

        def to_its_end() -> SyncRun:
            run = replace(mine.run, counts=audit.counts(audit.outcomes.total()))
            return end(run, services, *verdict(run, audit, mine.walk.stop))

        closed(mine.run, services, to_its_end, before=mine.before)
        crash.point("phone_runs.closed")


def _prepared(sync: Sync, services: Services) -> Walk:
    """The sync's walk, aimed at the fields that numbers go to."""
    assert sync.phones is not None
    services.crm(sync.crm).refresh()  # this process may be up for months
    walk = prepare(
        sync,
        services,
        run_id="",
        kind=RunKind.PHONES,
        limit=None,
        spending=AS_BUDGETED,
        crm=services.crm(sync.crm),
        enricher=services.enricher(),
    )
    return replace(walk, target=_target(walk.target, sync.phones), parent=None)


def marked(guard: Guard, schema: ObjectSchema, phones: Phones) -> Guard:
    """A guard for numbers: who is marked as do not call is left alone, like whoever opted out; a survivor of a merge
    and a mark that was set just now too."""
    if phones.mark not in schema.fields or phones.if_listed == "write":
        return guard
    sign = Sign(
        fields=(phones.mark,),
        holds=lambda values: values.get(phones.mark) is True,
        words=f"marked as do not call ({phones.mark})",
    )
    return replace(guard, signs=(*guard.signs, sign))


def _target(target: Target, phones: Phones) -> Target:
    schema, guard = target.schema, marked(target.guard, target.schema, phones)
    names = dict.fromkeys((*phone_fields(phones), *([phones.mark] if phones.mark else [])))
    return replace(
        target,
        guard=guard,
        mapper=Mapper((), schema),
        read_fields=tuple(name for name in names if name in schema.fields),
        tracks=phones.rule is WriteRule.TRACK,
        ignored={},
        email_fields=frozenset(),
    )
