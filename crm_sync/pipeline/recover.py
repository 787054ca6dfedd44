"""What a run that died left behind: paid answers are read, lost ones are in doubt, the run gets its end."""

from __future__ import annotations

import os
import secrets
import socket
from collections import Counter
from dataclasses import replace
from datetime import datetime, timedelta

from crm_sync import crash
from crm_sync.domain.changes import FieldOutcome, WriteOutcome, Written
from crm_sync.domain.records import RecordRef
from crm_sync.domain.runs import Counts, RecordOutcome, RunStatus, SyncRun
from crm_sync.errors import ContractError
from crm_sync.pipeline.enrich import expansion_of
from crm_sync.services import Services
from crm_sync.store.journal import Expansion
from crm_sync.store.runs import WRITING, RunRecord

#: A run on another machine is dead after so long without a sign of life; longer than any call of ours may take.
_SILENT_FOR = timedelta(minutes=10)
#: Tells this process from an earlier one with its number: in a container that is started again it is the same one.
_LIFE = secrets.token_hex(4)
#: Runs of this process that failed so badly that even their end could not be written down (no disk, no database).
_given_up: set[str] = set()


def give_up(run_id: str) -> None:
    """A run of this process ended without its end being written: the next one closes it."""
    _given_up.add(run_id)


def recover(services: Services) -> list[SyncRun]:
    """Close every run whose process is gone; returns them. Costs no credit, and calls only where a CRM was given a bulk
    job whose end nobody has seen.

    Raises:
        CrmSyncError: the CRM cannot be asked what became of such a job; it may still be changing records.
    """
    closed = []
    for run, owner, alive_at in services.runs.unfinished():
        if run.id in _given_up or not is_alive(owner, alive_at, services.clock.now()):
            crash.point("recover.found")
            settle_calls(run, services)
            _end_jobs(run, services)
            closed.append(_close(run, services))
    return closed


def _end_jobs(run: SyncRun, services: Services) -> None:
    """See each bulk job of a dead run to its end, and write down what became of its records."""
    for job in services.write_jobs.of(run.id):
        refs = [RecordRef(crm=job.crm, object_type=job.object_type, id=each) for each in job.record_ids]
        outcomes = services.crm(job.crm).resume(job.object_type, job.job_id, refs, uploaded=job.uploaded)
        crash.point("recover.job")
        confirmed, amended = [], []
        intended = services.runs.intended(run.id, job.object_type)
        for record_id, outcome in zip(job.record_ids, outcomes, strict=True):
            record = intended.get(record_id)
            if record is None or outcome.written not in (Written.WRITTEN, Written.REJECTED):
                continue  # closed with the run: the next one reads it again
            if outcome.written is Written.WRITTEN and not outcome.dropped:
                confirmed.append(replace(record, outcome=RecordOutcome.UPDATED.value))
            else:
                amended.append(_as_taken(record, outcome))
        services.runs.settle(
            run.id,
            sync=run.sync,
            confirmed=confirmed,
            amended=amended,
            others=(),
            states=(),
            now=services.clock.now(),
        )
        services.write_jobs.end(job.crm, job.job_id)


def _as_taken(record: RunRecord, outcome: WriteOutcome) -> RunRecord:
    dropped = dict(outcome.dropped)
    is_rejected = outcome.written is Written.REJECTED
    decisions = tuple(
        d._replace(outcome=FieldOutcome.REJECTED, reason=f"refused: {dropped.get(d.field) or outcome.reason}")
        if d.outcome is FieldOutcome.WRITTEN and (is_rejected or d.field in dropped)
        else d
        for d in record.decisions
    )
    word = RecordOutcome.REJECTED if is_rejected else RecordOutcome.UPDATED
    reason = outcome.reason or "; ".join(f"{field}: {why}" for field, why in outcome.dropped)
    return replace(record, outcome=word.value, reason=reason, decisions=decisions)


def owner() -> str:
    """This process, as the store names it: enough to tell whether it still lives, on this machine."""
    return f"{socket.gethostname()}:{os.getpid()}:{_LIFE}"


def is_alive(owner: str, alive_at: datetime, now: datetime) -> bool:
    """Whether the process that began a run may still be at it."""
    host, _, rest = owner.partition(":")
    process, _, life = rest.partition(":")
    if host == socket.gethostname():
        if int(process) == os.getpid():
            return life == _LIFE
        try:
            os.kill(int(process), 0)
        except ProcessLookupError:
            return False
        except PermissionError:
            pass  # somebody else's process has the number
    return now - alive_at < _SILENT_FOR  # the number may have been given to another process since


def settle_calls(run: SyncRun, services: Services) -> None:
    """Give every open call of an ended run its end. Planned: certainly nothing left. Sent: nobody knows. Received: the
    answer is there, and is read."""
    now = services.clock.now()
    journal = services.journal
    expansions: list[Expansion] = []
    for call in journal.unfinished(run.id):
        if call.state == "planned":
            journal.not_charged(call.id, "unsent", "the process ended before it was sent", now=now)
            crash.point("recover.released")
            continue
        if call.state == "sent":
            journal.in_doubt(call.id, b"", "the process ended while Apollo was being asked", now=now)
            crash.point("recover.doubted")
            continue
        try:
            reading = services.enricher().read(call.purpose, call.keys, call.body)
        except ContractError as error:
            journal.in_doubt(call.id, call.body, str(error), now=now)
            continue
        expansions.append(
            expansion_of(
                call.id,
                call.purpose,
                call.keys,
                reading,
                call.credits,
                single=call.single,
                answered_at=call.answered_at,
            )
        )
    if expansions:
        crash.point("recover.expanding")
        journal.expand(expansions, now=now)
        crash.point("recover.expanded")


def _close(run: SyncRun, services: Services) -> SyncRun:
    """Its books from the audit; a write that was intended and not confirmed is looked at by the next run."""
    now = services.clock.now()
    own: Counter[str] = Counter()
    parents: Counter[str] = Counter()
    for object_type, outcome, _, count in services.runs.reasons(run.id):
        tally = own if object_type == run.object_type else parents
        tally[RecordOutcome.SKIPPED.value if outcome == WRITING else outcome] += count
    services.runs.close_intended(run.id, "not confirmed: the process ended; the next run reads it again", now=now)
    crash.point("recover.closing")
    closed = replace(
        run,
        status=RunStatus.FAILED,
        reason="its process ended before the run did; what was paid for is kept and the next run goes on",
        finished_at=now,
        counts=_counts(own),
        parents=_counts(parents),
        credits=services.journal.spent(run.id),
    )
    services.runs.save(closed, now=now)
    crash.point("recover.closed")
    return closed


def _counts(tally: Counter[str]) -> Counts:
    return Counts(selected=tally.total(), **{outcome.name.lower(): tally[outcome.value] for outcome in RecordOutcome})
