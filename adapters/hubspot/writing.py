"""One batch update after another until every record is written, refused or unaccounted; decides, does not talk.

HubSpot refuses a whole batch for one bad value and often does not say whose it is (contracts/hubspot.md 0.5 and 5).
With trace ids it may answer per record instead; where it does not, the batch is halved until the record stands alone.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from adapters.http import InDoubtError
from adapters.hubspot.wire import BatchAnswer, Problem, kept, pair_merged, to_text
from crm_sync.domain.changes import WriteOutcome, Written
from crm_sync.domain.records import ObjectSchema, RecordRef
from crm_sync.errors import CrmSyncError, ProviderError, RefusedError
from crm_sync.ports import WriteRequest

BATCH = 100
#: Calls spent on one batch of 100 to find out whose value is bad: one bad record takes about 14, three about 40.
_MOST_CALLS = 40
#: HubSpot does not always name all bad properties of a record at once (one capture: 3 of 4, contracts/hubspot.md 5).
_MOST_RESENDS = 2

#: Faults of the mapping, not of a value: the field is of no use for any record.
_MAPPING_FAULTS = frozenset({"PROPERTY_DOESNT_EXIST", "READ_ONLY_VALUE"})
_GONE = "OBJECT_NOT_FOUND"

NOT_BLANK = "crm-sync does not erase values, and this one is blank"


class RefusedCallError(RefusedError):
    """A call was refused for its content, as `problem` tells; of a batch nothing was written. `is_proof` is False where
    the answer is not HubSpot's but a page of something in between."""

    def __init__(self, message: str, *, problem: Problem, provider: str, operation: str, status: int | None) -> None:
        super().__init__(message, provider=provider, operation=operation, status=status)
        self.problem = problem

    @property
    def is_proof(self) -> bool:
        return self.problem != Problem()


@dataclass(slots=True, eq=False)
class Input:
    """One record's part of a batch; `properties` shrinks as HubSpot refuses them, into `dropped` with the reason."""

    ref: RecordRef
    trace_id: str
    properties: dict[str, str]
    dropped: dict[str, str] = field(default_factory=dict)
    resends: int = 0

    def as_json(self) -> dict[str, Any]:
        return {"id": self.ref.id, "objectWriteTraceId": self.trace_id, "properties": self.properties}

    def drop(self, name: str, reason: str) -> None:
        if self.properties.pop(name, None) is not None:
            self.dropped[name] = reason


def inputs_of(requests: Sequence[WriteRequest]) -> list[Input]:
    """An input per request, with its position as trace id; what cannot be written as text is dropped, not erased."""
    found = []
    for position, request in enumerate(requests):
        one = Input(ref=request.ref, trace_id=str(position), properties={})
        for name, value in request.values.items():
            text = to_text(value)
            if text is None:
                one.dropped[name] = NOT_BLANK
            else:
                one.properties[name] = text
        found.append(one)
    return found


class BatchUpdate:
    """Settles up to BATCH inputs. `outcomes` maps each trace id to its end; complete after `run`.

    `send` sends inputs in one call; what it raises certainly wrote nothing, unless it is an InDoubtError.
    `switched_off` maps fields that HubSpot does not have or does not let be written to the reason; it is added to here
    and lives as long as the client.
    """

    def __init__(
        self,
        *,
        send: Callable[[Sequence[Input]], BatchAnswer],
        schema: ObjectSchema,
        switched_off: dict[str, str],
    ) -> None:
        self._send = send
        self._schema = schema
        self._switched_off = switched_off
        self._calls_left = _MOST_CALLS
        #: Rid of what HubSpot blamed; sent again together once nothing else waits.
        self._salvaged: list[Input] = []
        self.outcomes: dict[str, WriteOutcome] = {}
        self.error: CrmSyncError | None = None

    def run(self, inputs: Sequence[Input]) -> None:
        """Never raises a ProviderError: the one that ended it early is kept in `error`. Records of a call that may have
        done its work all the same are UNACCOUNTED, the others NOT_WRITTEN."""
        groups = deque([list(inputs)])
        while groups or self._salvaged:
            if not groups:
                groups.append(self._salvaged)
                self._salvaged = []
            group = [one for one in groups.popleft() if self._is_left(one)]
            if not group:
                continue
            self._calls_left -= 1
            try:
                answer = self._send(group)
            except RefusedCallError as refused:
                if not refused.is_proof and (refused.status != 413 or len(group) == 1 or self._calls_left <= 0):
                    for one in group:
                        self._settle(one, Written.UNACCOUNTED, reason=str(refused))
                    continue
                if self._calls_left <= 0 and refused.problem.properties():
                    # The same fields are in doubt in every part that still waits: settle them together.
                    group += [one for rest in groups for one in rest]
                    groups.clear()
                groups.extend(self._after_refusal(group, refused.problem))
            except InDoubtError as doubt:
                for one in group:
                    self._settle(one, Written.UNACCOUNTED, reason=str(doubt))
                self._leave([*(each for rest in groups for each in rest), *self._salvaged], doubt.cause)
                return
            except ProviderError as error:
                self._leave([*group, *(each for rest in groups for each in rest), *self._salvaged], error)
                return
            else:
                self._account(group, answer)

    def _leave(self, inputs: Sequence[Input], error: CrmSyncError) -> None:
        """Certainly not written: not sent, or refused in each try."""
        self.error = error
        for one in inputs:
            self._settle(one, Written.NOT_WRITTEN, reason=str(error))

    # --- a whole batch refused ---

    def _after_refusal(self, group: list[Input], problem: Problem) -> list[list[Input]]:
        """Nothing of `group` was written; the groups to send instead. Each refusal makes what is left smaller."""
        if self._switch_off(group, problem):
            return [group]
        named = [one for one in group if one.ref.id in problem.ids or one.trace_id in problem.trace_ids]
        blamed = [name for name in problem.properties() if any(name in one.properties for one in group)]
        if len(group) == 1:
            named = group
        elif not named and blamed:
            carriers = [one for one in group if any(name in one.properties for name in blamed)]
            if len(carriers) == 1:
                named = carriers
        if named and (len(named) < len(group) or len(group) == 1):
            rest = [one for one in group if one not in named]
            if rest and not problem.faults and problem.category != _GONE and self._calls_left > 0:
                # Not bad by themselves, perhaps: two old ids of one merged record are refused as duplicates.
                return [rest, *([one] for one in named)]
            saved = [one for one in named if self._salvage(one, problem)]
            if rest:
                return [rest + saved]
            self._salvaged += saved
            return []
        if self._calls_left <= 0:
            return self._give_up(group, blamed, problem)
        return self._split(group, blamed)

    def _switch_off(self, group: Iterable[Input], problem: Problem) -> bool:
        """Stop a field that HubSpot does not have, or keeps to itself, for every record from now on."""
        names = {
            fault.property: fault.code
            for fault in problem.faults
            if fault.code in _MAPPING_FAULTS and any(fault.property in one.properties for one in group)
        }
        for name, code in names.items():
            what = "has no such property" if code == "PROPERTY_DOESNT_EXIST" else "does not let it be written"
            self._switched_off[name] = f"HubSpot {what} ({code}); map another, it is left out from now on"
        return bool(names)

    def _split(self, group: list[Input], blamed: Sequence[str]) -> list[list[Input]]:
        """Those that carry none of the blamed properties are free of guilt; the others are halved."""
        suspects = [one for one in group if not blamed or any(name in one.properties for name in blamed)]
        innocent = [one for one in group if one not in suspects]
        half = (len(suspects) + 1) // 2
        return [part for part in (innocent, suspects[:half], suspects[half:]) if part]

    def _give_up(self, group: list[Input], blamed: Sequence[str], problem: Problem) -> list[list[Input]]:
        """Enough calls: leave the blamed fields out of all of these records, or refuse them where none is blamed."""
        reason = f"HubSpot refused it for one of {len(group)} records and does not say which: {problem.sentence()}"
        if not blamed:
            for one in group:
                self._settle(one, Written.REJECTED, reason=reason, code=problem.code)
            return []
        for one in group:
            for name in blamed:
                one.drop(name, reason)
        return [group]

    # --- an answer per record ---

    def _account(self, group: list[Input], answer: BatchAnswer) -> None:
        """Written, refused with a reason, or unaccounted; what is worth sending again goes to `_salvaged`."""
        left = {one.trace_id: one for one in group}
        by_id = {one.ref.id: one for one in group}
        for raw in answer.records:
            found = by_id.get(raw["id"]) or left.get(str(raw.get("objectWriteTraceId")))
            if found is not None and left.pop(found.trace_id, None) is not None:
                self._written(found, raw)
        unnamed = False
        for problem in answer.problems:
            hit = [one for one in left.values() if one.trace_id in problem.trace_ids or one.ref.id in problem.ids]
            unnamed = unnamed or not hit
            self._switch_off(hit, problem)
            for one in hit:
                del left[one.trace_id]
                if self._salvage(one, problem):
                    self._salvaged.append(one)
        open_ = {one.ref.id: one for one in left.values()}
        for old, raw in pair_merged(open_, answer.records, by_id.keys(), certain=not unnamed).items():
            self._written(open_.pop(old), raw)
        for one in open_.values():
            self._settle(one, Written.UNACCOUNTED, reason="HubSpot's answer does not mention the record")

    def _written(self, one: Input, raw: Mapping[str, Any]) -> None:
        returned = raw["properties"]
        for name, sent in one.properties.items():
            field_schema = self._schema.fields.get(name)
            if name in returned and not kept(sent, returned[name], field_schema.kind if field_schema else None):
                reason = f"HubSpot answered with another value for {name} than was sent"
                self._settle(one, Written.UNACCOUNTED, reason=reason, record_id=raw["id"])
                return
        self._settle(one, Written.WRITTEN, record_id=raw["id"])

    # --- one record ---

    def _is_left(self, one: Input) -> bool:
        """Whether there is still something of it to send, once the fields switched off are left out."""
        for name in [name for name in one.properties if name in self._switched_off]:
            one.drop(name, self._switched_off[name])
        if not one.properties and one.trace_id not in self.outcomes:
            reason = "; ".join(f"{name}: {why}" for name, why in one.dropped.items()) or "nothing to write"
            self._settle(one, Written.REJECTED, reason=reason, code="NOTHING_LEFT")
        return bool(one.properties)

    def _salvage(self, one: Input, problem: Problem) -> bool:
        """Drop what HubSpot blames and keep the rest; False when the record is settled as refused."""
        blamed = {f.property: f for f in problem.faults if f.property in one.properties}
        if problem.category == _GONE or _GONE in {f.code for f in problem.faults} or not blamed:
            reason = "it is gone from HubSpot" if problem.code == _GONE else problem.sentence()
            self._settle(one, Written.REJECTED, reason=reason, code=problem.code)
            return False
        if one.resends >= _MOST_RESENDS:
            self._settle(one, Written.REJECTED, reason=problem.sentence(), code=problem.code)
            return False
        one.resends += 1
        for name, fault in blamed.items():
            words = Problem(message=fault.message).sentence() if fault.message else problem.sentence()
            one.drop(name, self._switched_off.get(name) or (f"{words} ({fault.code})" if fault.code else words))
        if one.properties:
            return True
        self._settle(one, Written.REJECTED, reason=problem.sentence(), code=problem.code)
        return False

    def _settle(self, one: Input, written: Written, *, reason: str = "", code: str = "", record_id: str = "") -> None:
        ref = one.ref
        if record_id and record_id != ref.id:
            ref = RecordRef(crm=ref.crm, object_type=ref.object_type, id=record_id)
        self.outcomes[one.trace_id] = WriteOutcome(
            ref=ref, written=written, reason=reason, code=code, dropped=tuple(one.dropped.items())
        )
