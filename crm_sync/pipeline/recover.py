"""What a run that died left behind: paid answers are read, lost ones are in doubt, the run gets its end."""

from __future__ import annotations

import os
import secrets
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta

from crm_sync import crash
from crm_sync.domain.changes import PUT_BACK, FieldDecision, FieldOutcome, WriteOutcome, Written
from crm_sync.domain.enrichment import Reading
from crm_sync.domain.records import Record, RecordRef
from crm_sync.domain.runs import Asked, Counts, RecordOutcome, RunKind, RunStatus, SyncRun, queued_run
from crm_sync.errors import ConfigError, ContractError, ProviderError
from crm_sync.mapping.blanks import is_blank
from crm_sync.pipeline.enrich import expansion_of
from crm_sync.pipeline.ordering import NO_PHONES, ordered, per_number
from crm_sync.ports import WriteRequest
from crm_sync.services import Services
from crm_sync.store.journal import PHONES, Call, Expansion
from crm_sync.store.runs import WRITING, RunRecord
from crm_sync.store.shares import Giving, Share, Standing
from crm_sync.store.write_jobs import OpenJob

#: A run that gave no sign of life for so long is dead; it gives one every BEAT_S seconds (pipeline/heartbeat.py).
_SILENT_FOR = timedelta(seconds=45)
#: One that writes deliveries gives them between its calls only: longer than any call of ours may take.
_PHONES_SILENT_FOR = timedelta(minutes=10)
#: Tells this process from an earlier one with its number: in a container that is started again it is the same one.
_LIFE = secrets.token_hex(4)
#: Runs of this process that have no end and that nothing works at any more: those that failed so badly that it could
#: not be written down (no disk, no database), and dead ones that were taken over and cannot be closed yet.
_given_up: set[str] = set()
#: Shares of runs, likewise: (run id, number).
_given_up_shares: set[tuple[str, int]] = set()
#: Ends the owner of a dead run that is only being given its end.
_CLOSING = ":closing"
_LONGEST_CLOSING_S = 20.0
#: Two threads of this process take their turns.
_turn = threading.Lock()
#: Said of records that a run which broke off leaves to the next one.
PAUSED = "crm-sync was stopped"
_NOT_CONFIRMED = "not confirmed: the process ended; the next run reads it again"
#: A run whose process dies is gone on with; one that dies so often takes its process with it.
_MOST_ATTEMPTS = 3


def give_up(run_id: str) -> None:
    """A run of this process ended without its end being written: the next one closes it."""
    _given_up.add(run_id)


def give_up_share(share: Share) -> None:
    """As give_up, of a share."""
    _given_up_shares.add((share.run_id, share.number))


def recover(services: Services, crm: str) -> list[SyncRun]:
    """Before a run on `crm`: close every run whose process is gone; returns them. Costs no credit, and calls only where
    a CRM was given a bulk job whose end nobody has seen, or writes whose end nobody has noted. Another CRM that cannot
    be asked keeps its runs open until its own next run.

    Raises:
        CrmSyncError: `crm` cannot be asked what became of such a job, which may still be changing records, or of such a
            write, which may have gone over somebody's edit.
    """
    with _turn:
        try:
            closed = _recover(services, crm)
        finally:
            for run_id in _given_up:
                services.runs.keep(run_id, owner())  # nobody waits for us, who could not close it
        until = time.monotonic() + _LONGEST_CLOSING_S
        while _others_close(services) and time.monotonic() < until:
            time.sleep(0.05)
        return closed


def _others_close(services: Services) -> bool:
    """Whether another process is closing a dead run at this moment: it does not work at it, and has done in no time."""
    now = services.clock.now()
    return any(
        its_owner.endswith(_CLOSING) and is_alive(its_owner, alive_at, now, silent_for=silent_for(run))
        for run, its_owner, alive_at in services.runs.unfinished()
    )


def _recover(services: Services, crm: str) -> list[SyncRun]:
    dead_shares, shared = _shares(services)
    alive: list[SyncRun] = []
    dead: list[SyncRun] = []
    for run, its_owner, alive_at in services.runs.unfinished():
        # One that others still work at has its end after theirs: they see that its own process is gone, and stop.
        is_dead = run.id not in shared and _is_ours_to_close(run, its_owner, alive_at, services)
        (dead if is_dead else alive).append(run)
    for run in dead:
        services.shares.stand(run.id, Standing.STOPPING)
    ours = {(share.run_id, share.number) for share in dead_shares}
    # Somebody may have joined one until it was this process's: it is closed after them as well.
    joined = {each.run_id for each in services.shares.working() if (each.run_id, each.number) not in ours}
    alive += [run for run in dead if run.id in joined]
    dead = [run for run in dead if run.id not in joined]
    for share in dead_shares:
        settle_calls(share.run_id, services, share=share.number)
    for run in dead:
        crash.point("recover.found")
        settle_calls(run.id, services)
    under_way = {(run.id, 0) for run in alive} | {(each.run_id, each.number) for each in services.shares.working()}
    under_way -= ours
    for job in services.write_jobs.open():
        # Also of a run that ended while its CRM could not be asked what became of the job.
        if (job.run_id, job.share) not in under_way and job.crm in services.config.crms:
            _unless_elsewhere(crm, job.crm, lambda job=job: _end_job(job, services))  # type: ignore[misc]
    left = {share.run_id for share in dead_shares if not _close_share(share, crm, services)}
    closed = []
    for run in dead:
        if run.id in left:
            continue
        is_known = run.crm in services.config.crms
        if not is_known or _unless_elsewhere(crm, run.crm, lambda run=run: _look_after(run, services)):  # type: ignore[misc]
            closed.append(_close(run, services))
    return closed


def _shares(services: Services) -> tuple[list[Share], set[str]]:
    """(the shares of dead processes, this process's now; the runs whose shares others are still working at)."""
    dead: list[Share] = []
    shared: set[str] = set()
    now = services.clock.now()
    for share in services.shares.working():
        mine: Share | None = share
        is_ours = share.owner.removesuffix(_CLOSING) == owner()
        if not is_ours or (share.run_id, share.number) not in _given_up_shares:
            is_dead = not is_alive(share.owner, share.alive_at, now)
            mine = services.shares.take_over(share, owner=owner() + _CLOSING, now=now) if is_dead else None
        if mine is None:
            shared.add(share.run_id)
        else:
            give_up_share(mine)
            dead.append(mine)
            crash.point("recover.share")
    return dead, shared


def _close_share(share: Share, crm: str, services: Services) -> bool:
    """What a dead worker did is kept, and what it did not do is open again: others go on with it at once. False where
    the CRM of its run cannot be asked."""
    run = services.runs.get(share.run_id)
    assert run is not None
    is_known = run.crm in services.config.crms
    if is_known and not _unless_elsewhere(crm, run.crm, lambda: _look_after(run, services, share=share.number)):
        return False
    now = services.clock.now()
    services.runs.close_intended(run.id, _NOT_CONFIRMED, now=now, share=share.number)
    crash.point("recover.share.closing")
    services.shares.end(share, run, tally=None, giving=Giving.UNFINISHED, now=now)
    _given_up_shares.discard((share.run_id, share.number))
    return True


def _is_ours_to_close(run: SyncRun, its_owner: str, alive_at: datetime, services: Services) -> bool:
    """Whether it is dead, and no other process is closing it."""
    if run.id in _given_up:
        return True
    now = services.clock.now()
    if is_alive(its_owner, alive_at, now, silent_for=silent_for(run)):
        return False
    if not services.runs.take_over(run.id, was=its_owner, alive_at=alive_at, owner=owner() + _CLOSING, now=now):
        return False
    crash.point("recover.taken")
    _given_up.add(run.id)
    return True


def silent_for(run: SyncRun) -> timedelta:
    """After how long without a sign of life a run is dead, whatever its process does."""
    return _PHONES_SILENT_FOR if run.kind is RunKind.PHONES else _SILENT_FOR


def recover_everywhere(services: Services) -> list[str]:
    """As `recover`, on every CRM; sentences about those that cannot be asked: they keep their runs open, and nobody
    else from going on."""
    problems = []
    for name in services.config.crms:
        try:
            recover(services, name)
        except (ProviderError, ConfigError) as error:
            problems.append(f"runs that broke off on {name} are not closed yet: {error}")
    return problems


def _unless_elsewhere(crm: str, asked: str, act: Callable[[], None]) -> bool:
    """Whether it could be done; that another CRM than `crm` cannot be asked stops nobody here."""
    try:
        act()
    except (ProviderError, ConfigError):
        if asked == crm:
            raise
        return False
    return True


def _look_after(run: SyncRun, services: Services, *, share: int = 0) -> None:
    """Put back the edits that the last writes of a dead run, or of a share of it, went over, where the CRM shows them
    afterwards only."""
    kept = list(services.runs.records(run.id, outcome=WRITING, share=share))
    for object_type in dict.fromkeys(record.object_type for record in kept):
        records = [record for record in kept if record.object_type == object_type]
        try:
            outcomes = services.crm(run.crm).look_after(object_type, [_request(run, record) for record in records])
        except ConfigError:
            continue  # the CRM has no such object any more
        crash.point("recover.looked")
        restored = [
            _with_what_was_restored(record, outcome)
            for record, outcome in zip(records, outcomes, strict=True)
            if outcome.restored
        ]
        if restored:
            now = services.clock.now()
            services.runs.settle(
                run.id, sync="", confirmed=(), amended=restored, others=(), states=(), now=now, share=share
            )


def _request(run: SyncRun, record: RunRecord) -> WriteRequest:
    written = [decision for decision in record.decisions if decision.outcome is FieldOutcome.WRITTEN]
    ref = RecordRef(crm=run.crm, object_type=record.object_type, id=record.record_id)
    return WriteRequest(
        ref=ref,
        values={decision.field: decision.new for decision in written},
        seen=Record(ref=ref, values={decision.field: decision.old for decision in written}),
        erase=frozenset(decision.field for decision in written if is_blank(decision.new)),
    )


def _with_what_was_restored(record: RunRecord, outcome: WriteOutcome) -> RunRecord:
    restored = dict(outcome.restored)
    decisions = tuple(
        d._replace(outcome=FieldOutcome.KEPT, old=restored[d.field], reason=PUT_BACK) if d.field in restored else d
        for d in record.decisions
    )
    said = f"not confirmed: the process ended; {', '.join(restored)}: changed by a person while it wrote, and put back"
    return replace(record, outcome=RecordOutcome.SKIPPED.value, reason=said, decisions=decisions)


def _end_job(job: OpenJob, services: Services) -> None:
    """See a bulk job to its end, and write down what became of its records."""
    refs = [RecordRef(crm=job.crm, object_type=job.object_type, id=each) for each in job.record_ids]
    outcomes = services.crm(job.crm).resume(job.object_type, job.job_id, refs, uploaded=job.uploaded)
    crash.point("recover.job")
    by_id = dict(zip(job.record_ids, outcomes, strict=True))
    amended = [
        _as_taken(record, by_id[record.record_id])
        for record in services.runs.records(job.run_id, object_type=job.object_type, share=job.share)
        # What the job did not write is closed with its run, and read again by the next one.
        if record.record_id in by_id
        and by_id[record.record_id].written in (Written.WRITTEN, Written.REJECTED)
        and _is_open(record)
    ]
    now = services.clock.now()
    if amended:
        services.runs.settle(
            job.run_id, sync="", confirmed=(), amended=amended, others=(), states=(), now=now, share=job.share
        )
    _recount(job, services)
    services.write_jobs.end(job.crm, job.job_id)


def _recount(job: OpenJob, services: Services) -> None:
    """The books of a run that had its end before its job had, however often this is cut short; a dead one gets them
    when it is closed."""
    run = services.runs.get(job.run_id)
    if run is None or run.finished_at is None:
        return
    since = f"the end of bulk job {job.job_id} was seen later"
    reason = run.reason if since in run.reason else "; ".join(filter(None, (run.reason, since)))
    services.runs.save(replace(with_books(run, services), reason=reason), now=services.clock.now())


def _is_open(record: RunRecord) -> bool:
    """Whether its write is not known to have happened or not: intended, closed as not confirmed, or as not written
    because it was read again while the job was still to come to it."""
    if record.outcome == WRITING:
        return True
    unknown = (FieldOutcome.UNCONFIRMED, FieldOutcome.WRITTEN, FieldOutcome.PLANNED)
    return record.outcome == RecordOutcome.SKIPPED.value and any(d.outcome in unknown for d in record.decisions)


def _as_taken(record: RunRecord, outcome: WriteOutcome) -> RunRecord:
    dropped = dict(outcome.dropped)
    is_rejected = outcome.written is Written.REJECTED

    def taken(decision: FieldDecision) -> FieldDecision:
        if decision.outcome not in (FieldOutcome.WRITTEN, FieldOutcome.UNCONFIRMED, FieldOutcome.PLANNED):
            return decision
        if is_rejected or decision.field in dropped:
            reason = f"refused: {dropped.get(decision.field) or outcome.reason}"
            return decision._replace(outcome=FieldOutcome.REJECTED, reason=reason)
        if decision.outcome is FieldOutcome.WRITTEN:
            return decision
        return decision._replace(outcome=FieldOutcome.WRITTEN, reason="written by a bulk job whose end was seen later")

    decisions = tuple(map(taken, record.decisions))
    word = RecordOutcome.REJECTED if is_rejected else RecordOutcome.UPDATED
    reason = outcome.reason or "; ".join(f"{field}: {why}" for field, why in outcome.dropped)
    return replace(record, outcome=word.value, reason=reason, decisions=decisions)


def owner() -> str:
    """This process, as the store names it: enough to tell whether it still lives, on this machine."""
    return f"{socket.gethostname()}:{os.getpid()}:{_LIFE}"


def is_alive(owner: str, alive_at: datetime, now: datetime, *, silent_for: timedelta = _SILENT_FOR) -> bool:
    """Whether the process that began a run may still be at it."""
    host, _, rest = owner.partition(":")
    process, _, life = rest.partition(":")
    if host == socket.gethostname():
        if int(process) == os.getpid():
            return life.removesuffix(_CLOSING) == _LIFE
        try:
            os.kill(int(process), 0)
        except ProcessLookupError:
            return False
        except PermissionError:
            pass  # somebody else's process has the number
    return now - alive_at < silent_for  # the number may have been given to another process since


def settle_calls(run_id: str, services: Services, *, share: int | None = None) -> None:
    """Give every open call of an ended run, or of an ended `share` of it, its end. Planned: certainly nothing left.
    Sent: nobody knows. Received: the answer is there, and is read."""
    now = services.clock.now()
    journal = services.journal
    expansions: list[Expansion] = []
    for call in journal.unfinished(run_id, share=share):
        is_planned = call.state == "planned"
        if is_planned and journal.let_go(call.id, "the process ended before it was sent", now=now):
            crash.point("recover.released")
            continue
        if call.state == "sent" or is_planned:
            journal.in_doubt(call.id, b"", "the process ended while Apollo was being asked", now=now)
            crash.point("recover.doubted")
            continue
        try:
            reading = services.enricher().read(call.purpose, call.keys, call.body)
        except ContractError as error:
            journal.in_doubt(call.id, call.body, str(error), now=now)
            continue
        expansion = expansion_of(
            call.id,
            call.purpose,
            call.keys,
            reading,
            call.credits,
            single=call.single,
            answered_at=call.answered_at,
            with_phones=call.purse == PHONES,
        )
        expansions.append(_with_order(expansion, call, reading, services) if call.purse == PHONES else expansion)
    if expansions:
        crash.point("recover.expanding")
        journal.expand(expansions, now=now)
        crash.point("recover.expanded")


def _with_order(expansion: Expansion, call: Call, reading: Reading, services: Services) -> Expansion:
    """What the answer said about the phone numbers that the call has ordered."""
    sync = services.config.syncs.get(call.sync)
    made = ordered(
        services.enricher().order_answer(call.body),
        call.keys,
        reading,
        phones=(sync.phones if sync is not None else None) or NO_PHONES,
        person=services.reveals.person,
        per_number=per_number(services.enricher()),
        answered_at=call.answered_at or services.clock.now(),
    )
    return replace(expansion, ordered=made)


def _close(run: SyncRun, services: Services) -> SyncRun:
    """Its books from the audit; a write that was intended and not confirmed is looked at by the next run."""
    now = services.clock.now()
    services.shares.close(run.id)
    told = with_books(run, services)
    services.runs.close_intended(run.id, _NOT_CONFIRMED, now=now)
    services.reveals.join(run.id, now=now)
    crash.point("recover.closing")
    closed = replace(
        told,
        status=RunStatus.FAILED,
        finished_at=now,
        credits=services.journal.spent(run.id),
    )
    next_one = successor(closed, services)
    who = f"{next_one[0].id} goes on" if next_one is not None else "the next run goes on"
    if next_one is None and _gave_out(run, services):
        who = f"it did so {_MOST_ATTEMPTS} times in a row, so that nothing goes on with it by itself"
    closed = replace(closed, reason=f"its process ended before the run did; what was paid for is kept and {who}")
    services.queue.end(closed, then=next_one, now=now)
    _given_up.discard(run.id)
    crash.point("recover.closed")
    return closed


def successor(run: SyncRun, services: Services) -> tuple[SyncRun, Asked] | None:
    """The run that goes on with one that broke off, with what is left of what was asked for; None where it was begun by
    hand, was to be cancelled, or breaks off again and again."""
    asked = services.queue.asked(run.id)
    if asked is None or run.sync not in services.config.syncs or services.runs.cancel_asked(run.id):
        return None
    left = asked
    if asked.limit is not None:
        left = replace(left, limit=asked.limit - _reached(run, services))
    if asked.max_credits is not None:
        left = replace(left, max_credits=asked.max_credits - run.credits)
    is_done = (left.limit is not None and left.limit <= 0) or (left.max_credits is not None and left.max_credits <= 0)
    if is_done or _gave_out(run, services):
        return None
    queued = queued_run(
        sync=run.sync,
        crm=run.crm,
        object_type=run.object_type,
        trigger=run.trigger,
        config_version=services.config_version,
        now=services.clock.now(),
        continues=run.id,
    )
    return queued, replace(left, attempt=1 if _reached(run, services) else asked.attempt + 1)


def _reached(run: SyncRun, services: Services) -> int:
    """How many of its records have come to an end in it."""
    return sum(
        count
        for object_type, outcome, reason, count in services.runs.reasons(run.id)
        if object_type == run.object_type
        and not (outcome == RecordOutcome.SKIPPED.value and (reason.endswith(PAUSED) or reason == _NOT_CONFIRMED))
    )


def _gave_out(run: SyncRun, services: Services) -> bool:
    """Whether its processes die each time before anything comes of it."""
    asked = services.queue.asked(run.id)
    return asked is not None and asked.attempt >= _MOST_ATTEMPTS and not _reached(run, services)


def broken_off(run: SyncRun, services: Services, why: str) -> SyncRun:
    """A run of this process that an error ended in the middle, with its books from the audit. Writes that were intended
    and not confirmed are closed; the next run reads their records again.

    Raises:
        StoreError: the database failed; the next run closes it.
        BusyError: other workers are still at it; so does it then.
    """
    services.shares.close(run.id)
    told = with_books(run, services)
    services.runs.close_intended(run.id, f"not confirmed: {why}", now=services.clock.now())
    return told


def with_books(run: SyncRun, services: Services) -> SyncRun:
    """The run with its books as the audit has them."""
    own: Counter[str] = Counter()
    parents: Counter[str] = Counter()
    for object_type, outcome, _, count in services.runs.reasons(run.id):
        tally = own if object_type == run.object_type else parents
        tally[RecordOutcome.SKIPPED.value if outcome == WRITING else outcome] += count
    return replace(run, counts=_counts(own), parents=_counts(parents))


def _counts(tally: Counter[str]) -> Counts:
    return Counts(selected=tally.total(), **{outcome.name.lower(): tally[outcome.value] for outcome in RecordOutcome})
