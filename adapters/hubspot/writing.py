"""One batch update after another until every record is written, refused or unaccounted; decides, does not talk.

HubSpot refuses a whole batch for one bad value and often does not say whose it is (contracts/hubspot.md 0.5 and 5).
With trace ids it may answer per record instead; where it does not, the batch is halved until the record stands alone.
A half that is taken proves the other one bad without a call, and what is free of proof waits and goes in one call.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from adapters.http import InDoubtError
from adapters.hubspot.wire import BatchAnswer, Problem, is_blank, kept, pair_merged, to_text
from crm_sync.domain.changes import WriteOutcome, Written
from crm_sync.domain.records import ObjectSchema, RecordRef
from crm_sync.errors import CrmSyncError, ProviderError, RateLimitError, RefusedError
from crm_sync.ports import WriteRequest

BATCH = 100
#: Calls that one batch may take while a whole refusal is worked off, and those it may take in any case: the client
#: allows what lies between. One bad value among 100 takes about 9, seven about 54.
MOST_CALLS = 60
LEAST_CALLS = 10
#: Calls that one batch spends on records that somebody else holds; to find one among 100 takes 8, each of two tries.
_MOST_LOCKED = 16
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


class LockedCallError(ProviderError):
    """423, more than once: somebody holds a record of the call, and nothing of the call was written. `cause` is what a
    caller is told where everything is locked."""

    def __init__(self, cause: RateLimitError) -> None:
        super().__init__(str(cause), provider=cause.provider, operation=cause.operation, status=cause.status)
        self.cause = cause


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
    """An input per request, with its position as trace id. A blank erases where the request says so (as "", null would
    leave alone: contracts/hubspot.md 0.6); what else cannot be written as text is dropped."""
    found = []
    for position, request in enumerate(requests):
        one = Input(ref=request.ref, trace_id=str(position), properties={})
        for name, value in request.values.items():
            text = "" if name in request.erase and is_blank(value) else to_text(value)
            if text is None:
                one.dropped[name] = NOT_BLANK
            else:
                one.properties[name] = text
        found.append(one)
    return found


@dataclass(slots=True, eq=False)
class _Bad:
    """Inputs of which at least one holds what `problem` tells of."""

    inputs: list[Input]
    problem: Problem


class BatchUpdate:
    """Settles up to BATCH inputs. `outcomes` maps each trace id to its end; complete after `run`.

    `send` sends inputs in one call; what it raises certainly wrote nothing, unless it is an InDoubtError.
    `switched_off` maps fields that HubSpot does not have or does not let be written to the reason; it is added to here
    and lives as long as the client. `most_calls`: after so many, fields that are in doubt are left out of all records
    that still wait. `calls` counts them.
    """

    def __init__(
        self,
        *,
        send: Callable[[Sequence[Input]], BatchAnswer],
        schema: ObjectSchema,
        switched_off: dict[str, str],
        most_calls: int = MOST_CALLS,
    ) -> None:
        self._send = send
        self._schema = schema
        self._switched_off = switched_off
        self._most_calls = most_calls
        self._locked = 0
        #: To be sent in one call, once nothing else is left: nobody has anything against them, or no longer.
        self._waiting: list[Input] = []
        #: To be sent as they are, first of all.
        self._apart: list[list[Input]] = []
        self._bad: list[_Bad] = []
        self.calls = 0
        self.outcomes: dict[str, WriteOutcome] = {}
        self.error: CrmSyncError | None = None

    def run(self, inputs: Sequence[Input]) -> None:
        """Never raises a ProviderError: the one that ended it early is kept in `error`. Records of a call that may have
        done its work all the same are UNACCOUNTED, the others NOT_WRITTEN."""
        self._waiting = list(inputs)
        while self._apart or self._bad or self._waiting:
            group, other = self._next()
            group = [one for one in group if self._is_left(one)]
            if not group:
                self._give_back(other)
                continue
            self.calls += 1
            try:
                answer = self._send(group)
            except RefusedCallError as refused:
                self._give_back(other)
                self._after_refused(group, refused)
            except LockedCallError as locked:
                self._give_back(other)
                self._after_locked(group, locked)
            except InDoubtError as doubt:
                for one in group:
                    self._settle(one, Written.UNACCOUNTED, reason=str(doubt))
                self._leave(other, doubt.cause)
                return
            except ProviderError as error:
                self._leave([*group, *(other.inputs if other else ())], error)
                return
            else:
                if self._account(group, answer) and other is not None:
                    self._bad.append(other)  # as this half was taken whole, it is the other one
                else:
                    self._give_back(other)

    @property
    def _is_spent(self) -> bool:
        return self.calls >= self._most_calls

    def _next(self) -> tuple[list[Input], _Bad | None]:
        """What to send next, and where that is a half of something bad, the other half."""
        if self._apart:
            return self._apart.pop(), None
        if self._bad:
            bad = self._bad.pop()
            half = (len(bad.inputs) + 1) // 2
            rest = bad.inputs[half:]
            return bad.inputs[:half], _Bad(rest, bad.problem) if rest else None
        group, self._waiting = self._waiting, []
        return group, None

    def _give_back(self, other: _Bad | None) -> None:
        """Nothing is known of a half whose other one was not taken."""
        if other is not None:
            self._waiting += other.inputs

    def _leave(self, others: Iterable[Input] | _Bad | None, error: CrmSyncError) -> None:
        """Certainly not written: not sent, or refused in each try."""
        self.error = error
        if isinstance(others, _Bad):
            others = others.inputs
        for one in [*(others or ()), *self._all_waiting()]:
            self._settle(one, Written.NOT_WRITTEN, reason=str(error))

    def _all_waiting(self) -> list[Input]:
        """Everything that was not sent yet, no longer waiting."""
        found = [
            *(one for group in self._apart for one in group),
            *(one for bad in self._bad for one in bad.inputs),
            *self._waiting,
        ]
        self._apart, self._bad, self._waiting = [], [], []
        return found

    # --- a whole batch refused ---

    def _after_refused(self, group: list[Input], refused: RefusedCallError) -> None:
        if not refused.is_proof and (refused.status != 413 or len(group) == 1 or self._is_spent):
            for one in group:
                self._settle(one, Written.UNACCOUNTED, reason=str(refused))
            return
        if self._is_spent and refused.problem.properties():
            # The same fields are in doubt in every part that is known to be bad: settle them together.
            group = [*group, *(one for bad in self._bad for one in bad.inputs)]
            self._bad = []
        self._judge(group, refused.problem)

    def _judge(self, group: list[Input], problem: Problem) -> None:
        """Nothing of `group` was written: sort its inputs by what is known now. Each refusal makes less of what is
        left."""
        if self._switch_off(group, problem):
            self._waiting += group
            return
        named = [one for one in group if one.ref.id in problem.ids or one.trace_id in problem.trace_ids]
        blamed = [name for name in problem.properties() if any(name in one.properties for one in group)]
        carriers = [one for one in group if any(name in one.properties for name in blamed)] if blamed else group
        if len(group) == 1:
            named = group
        elif not named and blamed and len(carriers) == 1:
            named = carriers
        if named and (len(named) < len(group) or len(group) == 1):
            rest = [one for one in group if one not in named]
            if rest and not problem.faults and problem.category != _GONE and not self._is_spent:
                # Not bad by themselves, perhaps: two old ids of one merged record are refused as duplicates.
                self._apart += [*([one] for one in named), rest]
                return
            self._waiting += [*rest, *(one for one in named if self._salvage(one, problem))]
        elif self._is_spent:
            self._give_up(group, blamed, problem)
        else:
            # Who carries none of the blamed properties is free of guilt.
            self._waiting += [one for one in group if one not in carriers]
            self._bad.append(_Bad(carriers, problem))

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

    def _give_up(self, group: list[Input], blamed: Sequence[str], problem: Problem) -> None:
        """Enough calls: leave the blamed fields out of all of these records, or refuse them where none is blamed."""
        reason = f"HubSpot refused it for one of {len(group)} records and does not say which: {problem.sentence()}"
        if not blamed:
            for one in group:
                self._settle(one, Written.REJECTED, reason=reason, code=problem.code)
            return
        for one in group:
            for name in blamed:
                one.drop(name, reason)
        self._waiting += group

    # --- a record that somebody else holds ---

    def _after_locked(self, group: list[Input], locked: LockedCallError) -> None:
        """Nothing of `group` was written, for the sake of one record perhaps: the others must not wait for it."""
        self._locked += 1
        if len(group) > 1 and self._locked < _MOST_LOCKED:
            half = (len(group) + 1) // 2
            self._apart += [group[half:], group[:half]]
            return
        for one in group:
            self._settle(one, Written.NOT_WRITTEN, reason=str(locked))
        is_everything = all(outcome.written is Written.NOT_WRITTEN for outcome in self.outcomes.values())
        is_all_tried = not self._apart and not self._bad and not self._waiting
        if is_everything and self._locked > 1 and (is_all_tried or self._locked >= _MOST_LOCKED):
            self._leave(None, locked.cause)  # not one record's lock: HubSpot takes nothing at all

    # --- an answer per record ---

    def _account(self, group: list[Input], answer: BatchAnswer) -> bool:
        """Written, refused with a reason, or unaccounted; what is worth sending again waits. Whether HubSpot found
        nothing wrong with any."""
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
                    self._waiting.append(one)
        open_ = {one.ref.id: one for one in left.values()}
        for old, raw in pair_merged(open_, answer.records, by_id.keys(), certain=not unnamed).items():
            self._written(open_.pop(old), raw)
        for one in open_.values():
            self._settle(one, Written.UNACCOUNTED, reason="HubSpot's answer does not mention the record")
        return not answer.problems

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
            is_gone = problem.code == _GONE
            reason = "it is gone from HubSpot" if is_gone else problem.sentence()
            self._settle(one, Written.GONE if is_gone else Written.REJECTED, reason=reason, code=problem.code)
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
