"""Who changed which field from what to what and why: intended before, confirmed after; and the run's books."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from crm_sync.domain.changes import ChangeSet, FieldOutcome
from crm_sync.domain.runs import Counts, RecordOutcome, RunKind
from crm_sync.pipeline.walk import Target, WriteContext
from crm_sync.store.runs import WRITING, RecordState, RunRecord

if TYPE_CHECKING:
    from crm_sync.pipeline.settled import Candidate, Settled


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """What the next selection needs to know about a record: a digest of what the attempt was based on (walk.seen)."""

    seen: bytes


@dataclass(slots=True, kw_only=True)
class Audit:
    """The audit and the running books of one walk; used by the writing stage only."""

    context: WriteContext
    outcomes: Counter[RecordOutcome] = field(default_factory=Counter)
    parent_outcomes: Counter[RecordOutcome] = field(default_factory=Counter)
    refused_fields: int = 0
    unstamped: int = 0
    #: Edits that our writes went over and that were restored; fields that no longer held what was expected.
    put_back: int = 0
    conflicts: int = 0
    #: Records that a write should have changed and did not, for no fault of theirs, by reason.
    unwritten: Counter[str] = field(default_factory=Counter)

    def intend(self, target: Target, changes: Mapping[str, ChangeSet], candidates: Mapping[str, Candidate]) -> None:
        """Commit what is about to be written."""
        context = self.context
        context.runs.intend(
            context.run_id,
            [
                RunRecord(
                    object_type=target.told_as or target.object_type,
                    record_id=record_id,
                    outcome=WRITING,
                    reason="",
                    decisions=change.decisions,
                    batch_id=candidates[record_id].batch_id,
                    identity=context.answers.digest(candidates[record_id].key),
                )
                for record_id, change in changes.items()
            ],
            now=context.clock.now(),
            share=context.share,
        )

    def close(self, target: Target, settled: Sequence[Settled], attempts: Mapping[str, Attempt]) -> None:
        """Commit what became of each record, and remember the attempt; a plan remembers none.

        A record that was not reached is not remembered: the next run takes it again.
        """
        context, now = self.context, self.context.clock.now()
        tally = self.outcomes if (target.told_as or target.object_type) == context.object_type else self.parent_outcomes
        states = []
        for one in settled:
            tally[one.outcome] += 1
            self.unstamped += one.unstamped
            self.put_back += one.put_back
            self.conflicts += sum(d.outcome is FieldOutcome.CONFLICT for d in one.decisions)
            if one.intended and not one.reached:
                self.unwritten[one.reason] += 1
            if not one.as_intended:
                self.refused_fields += sum(d.outcome is FieldOutcome.REJECTED for d in one.decisions)
            attempt = attempts.get(one.record_id)
            if attempt is not None and context.kind is not RunKind.PLAN:
                states.append(
                    RecordState(
                        object_type=target.told_as or target.object_type,
                        record_id=one.record_id,
                        outcome=one.outcome.value,
                        seen=attempt.seen,
                        attempted_at=now,
                    )
                )
        proposals = (
            [each for one in settled for each in one.proposals] if context.kind in (RunKind.RUN, RunKind.PHONES) else []
        )
        context.runs.settle(
            context.run_id,
            sync=context.sync_name,
            confirmed=[_run_record(target, one) for one in settled if one.as_intended],
            amended=[_run_record(target, one) for one in settled if one.intended and not one.as_intended],
            others=[
                _run_record(target, one, identity=context.answers.digest(one.key))
                for one in settled
                if not one.intended
            ],
            states=states,
            now=now,
            beside=context.reviews.proposing(
                proposals, run_id=context.run_id, sync=context.sync_name, crm=context.crm.name, now=now
            ),
            share=context.share,
        )

    def counts(self, selected: int) -> Counts:
        return _counts(self.outcomes, selected)

    def parent_counts(self) -> Counts:
        return _counts(self.parent_outcomes, self.parent_outcomes.total())


def _run_record(target: Target, settled: Settled, *, identity: bytes | None = None) -> RunRecord:
    return RunRecord(
        object_type=target.told_as or target.object_type,
        record_id=settled.record_id,
        outcome=settled.outcome.value,
        reason=settled.reason,
        decisions=settled.decisions,
        batch_id=settled.batch_id,
        identity=identity,
    )


def _counts(outcomes: Counter[RecordOutcome], selected: int) -> Counts:
    return Counts(
        selected=selected,
        updated=outcomes[RecordOutcome.UPDATED],
        unchanged=outcomes[RecordOutcome.UNCHANGED],
        no_match=outcomes[RecordOutcome.NO_MATCH],
        skipped=outcomes[RecordOutcome.SKIPPED],
        needs_review=outcomes[RecordOutcome.NEEDS_REVIEW],
        invalid=outcomes[RecordOutcome.INVALID],
        rejected=outcomes[RecordOutcome.REJECTED],
        in_doubt=outcomes[RecordOutcome.IN_DOUBT],
    )
