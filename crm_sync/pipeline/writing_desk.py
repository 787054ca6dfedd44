"""The writing stage of a walk: which answers are believed, what they ask for, and their way to the CRM."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from crm_sync import crash
from crm_sync.domain.changes import WantedValue, WriteMode
from crm_sync.domain.enrichment import Enrichment, MatchKeys, Purpose
from crm_sync.domain.records import Value
from crm_sync.domain.runs import RunKind
from crm_sync.mapping.blanks import lacking
from crm_sync.mapping.employers import foreign_email
from crm_sync.mapping.job_change import changed_employer
from crm_sync.mapping.match_keys import registrable_domain
from crm_sync.pipeline.audit import Attempt, Audit
from crm_sync.pipeline.belief import believed
from crm_sync.pipeline.settled import Candidate, Settled, unreached
from crm_sync.pipeline.walk import Answered, Walk, seen
from crm_sync.pipeline.write import write_candidates
from crm_sync.store.reviews import Proposal

#: So many records go into one bulk write; more would take more memory than a job more saves calls.
_BULK_CHUNK = 20_000


class WritingDesk:
    """Gathers answers until one re-read takes them all, then settles them together."""

    def __init__(self, walk: Walk) -> None:
        self._walk = walk
        self.audit = Audit(context=walk)
        self.taken = 0
        self.unmapped: Counter[tuple[str, str]] = Counter()
        self._waiting: list[tuple[Answered, Candidate]] = []
        self._parents: dict[str, Candidate] = {}
        self._parents_done: set[str] = set()
        self._parents_unreached: set[Value] = set()

    def take(self, group: list[Answered]) -> None:
        self.taken += len(group)
        self._sort(believed(self._walk, group))
        while len(self._waiting) >= (size := self._chunk()):
            chunk, self._waiting = self._waiting[:size], self._waiting[size:]
            self._settle(chunk)

    def finish(self) -> None:
        if self._waiting:
            chunk, self._waiting = self._waiting, []
            self._settle(chunk)
        self._settle_parents()

    def _chunk(self) -> int:
        crm = self._walk.crm
        if self._walk.kind is RunKind.RUN and self._walk.mode is WriteMode.BULK and crm.bulk_size:
            return min(crm.bulk_size, _BULK_CHUNK)
        return crm.read_size

    def _sort(self, group: Sequence[tuple[Answered, tuple[Proposal, ...]]]) -> None:
        """To be written, to be stamped alone, or to be closed at once."""
        plain = []
        for answered, proposals in group:
            if answered.enrichment is not None and answered.outcome is None:
                self._waiting.append((answered, self._candidate(answered)))
            elif self._is_to_stamp(answered):
                self._waiting.append((answered, _to_stamp(answered, proposals)))
            else:
                plain.append((answered, proposals))
        if plain:
            self._close_plain(plain)

    # --- what they ask for ----------------------------------------------------------------------------------------

    def _is_to_stamp(self, answered: Answered) -> bool:
        """Whether Apollo was asked about it and no value of its is written: its record goes the way of the others, to
        be stamped."""
        has_stamps = self._walk.kind is RunKind.RUN and bool(self._walk.target.stamping.fields)
        return has_stamps and answered.answered_at is not None

    def _candidate(self, answered: Answered) -> Candidate:
        walk, keys = self._walk, answered.due.keys
        assert answered.enrichment is not None
        mapped = walk.target.mapper.want(answered.enrichment)
        self.unmapped.update(mapped.unmapped)
        if walk.parent is not None:
            self._map_parent(answered)
        return Candidate(
            record_id=answered.due.record.ref.id,
            wanted=self._without_what_stays(mapped.wanted, keys, answered.enrichment),
            batch_id=answered.batch_id,
            keys=keys,
            enrichment=answered.enrichment,
            answered_at=answered.answered_at,
        )

    def _without_what_stays(
        self, wanted: tuple[WantedValue, ...], keys: MatchKeys, enrichment: Enrichment
    ) -> tuple[WantedValue, ...]:
        """No e-mail of another company; of somebody with a new employer, none of the fields that the record keeps."""
        walk = self._walk
        emails, change = walk.target.email_fields, walk.sync.job_change
        if emails:
            wanted = tuple(
                want._replace(value=None, note=reason)
                if want.field in emails and want.value and (reason := foreign_email(str(want.value), keys, enrichment))
                else want
                for want in wanted
            )
        if change is not None and change.keep and changed_employer(keys, enrichment):
            note = "kept as it is: Apollo knows a new employer"
            wanted = tuple(
                want._replace(value=None, problem="", note=note) if want.field in change.keep else want
                for want in wanted
            )
        return wanted

    def _map_parent(self, answered: Answered) -> None:
        """The employer that came with a person serves the account it belongs to, and no other."""
        walk = self._walk
        assert walk.parent is not None
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

    # --- their way to the CRM -------------------------------------------------------------------------------------

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
            one.record_id: self._attempt(answered, self._lacking(answered, one))
            for (answered, _), one in zip(chunk, settled, strict=True)
            if one.reached
        }
        self.audit.close(walk.target, settled, attempts)

    def _attempt(self, answered: Answered, lacks: tuple[str, ...]) -> Attempt:
        return Attempt(seen=seen(self._walk, answered.due.keys, lacks))

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

    def _close_plain(self, group: Sequence[tuple[Answered, tuple[Proposal, ...]]]) -> None:
        settled, attempts = [], {}
        for answered, proposals in group:
            record_id = answered.due.record.ref.id
            assert answered.outcome is not None
            settled.append(
                Settled(
                    record_id=record_id,
                    outcome=answered.outcome,
                    reason=answered.reason,
                    batch_id=answered.batch_id,
                    key=answered.due.keys.key,
                    proposals=proposals,
                )
            )
            if answered.reached:
                attempts[record_id] = self._attempt(answered, answered.due.lacking)
        self.audit.close(self._walk.target, settled, attempts)


def _to_stamp(answered: Answered, proposals: tuple[Proposal, ...]) -> Candidate:
    return Candidate(
        record_id=answered.due.record.ref.id,
        batch_id=answered.batch_id,
        keys=answered.due.keys,
        answered_at=answered.answered_at,
        outcome=answered.outcome,
        reason=answered.reason,
        proposals=proposals,
    )
