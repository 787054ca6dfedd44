"""One call after another until every record is written, refused, moved or unaccounted; decides, does not talk.

A bad field costs that field, a bad record that record; locked rows and rows that were too much at once are sent again,
alone or in smaller portions (contracts/salesforce.md 2.3 and 2.4). The same decisions whether the rows went in a
collection, in a composite call or in a bulk job.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from adapters.http import InDoubtError
from adapters.salesforce import wire
from adapters.salesforce.wire import Fault, RefusedRequestError, SaveResult
from crm_sync.domain.changes import WriteOutcome, Written
from crm_sync.domain.records import ObjectSchema, RecordRef, Value
from crm_sync.errors import CredentialsError, CrmSyncError, QuotaError
from crm_sync.ports import Clock, WriteRequest

#: Records of one collections update (contracts/salesforce.md 2.2).
PORTION = 200
_LOCK_WAITS_S = (1.0, 2.0, 4.0, 8.0)
#: Calls spent on halving one portion: one bad record among 200 takes 16.
_MOST_SPLITS = 40
#: Fields left out of a record one at a time, where the org does not say which of them it refuses.
_MOST_GUESSES = 8


@dataclass(slots=True, eq=False)
class _Guess:
    """Which field a record is refused for, tried by leaving out one at a time. Nothing is written until a try fits, so
    the version that guards a strict write holds throughout.

    `faults`: the refusal; `left`: names still to be tried; `tries`: how many more there may be; `out`: the field left
    out now.
    """

    faults: Sequence[Fault]
    left: deque[str]
    tries: int = _MOST_GUESSES
    out: tuple[str, Any] | None = None

    def is_cured(self, faults: Sequence[Fault]) -> bool:
        """Whether a try was refused for less, or for something else: then the field left out was to blame."""
        return self.out is not None and not {(f.code, f.message) for f in self.faults} <= {
            (f.code, f.message) for f in faults
        }


@dataclass(slots=True, eq=False)
class Row:
    """One record on its way; `values` (JSON) shrinks as fields are refused, into `dropped` with the reason.

    `version`: when it last changed as it was read, in the org's form; "" where the org did not say, None where nobody
    read it. `in_doubt`: the last try failed in a way that may have written it all the same.
    """

    ref: RecordRef
    values: dict[str, Any]
    version: str | None = None
    dropped: dict[str, str] = field(default_factory=dict)
    in_doubt: bool = False
    guess: _Guess | None = None
    outcome: WriteOutcome | None = None

    def as_json(self) -> dict[str, Any]:
        return {"attributes": {"type": self.ref.object_type}, "id": self.ref.id, **self.values}

    def drop(self, name: str, reason: str) -> None:
        if name in self.values:
            del self.values[name]
            self.dropped[name] = reason

    def leave_out_next(self) -> bool:
        """Put back what is left out and leave out the next; False when every field had its turn."""
        guess = self.guess
        assert guess is not None
        if guess.out is not None:
            name, value = guess.out
            self.values[name] = value
            guess.out = None
        while guess.left and guess.tries:
            name = guess.left.popleft()
            if name in self.values and len(self.values) > 1:
                guess.tries -= 1
                guess.out = (name, self.values.pop(name))
                return True
        return False

    def blame(self) -> None:
        """The field left out, if there is one, was what the record was refused for."""
        if self.guess is not None and self.guess.out is not None:
            said = _telling(self.guess.faults).sentence()
            self.dropped[self.guess.out[0]] = f"{said} (without it that was no longer said)"
            self.guess.out = None

    def saved(self) -> None:
        self.blame()
        self.settle(Written.WRITTEN)

    def settle(self, written: Written, *, reason: str = "", code: str = "") -> None:
        self.outcome = WriteOutcome(
            ref=self.ref, written=written, reason=reason, code=code, dropped=tuple(self.dropped.items())
        )

    def reject(self, fault: Fault) -> None:
        self.settle(Written.REJECTED, reason=fault.sentence(), code=fault.code)

    def leave(self, error: CrmSyncError) -> None:
        """It was not sent, or refused in each try before, unless one of those was in doubt."""
        if self.outcome is None:
            self.settle(Written.UNACCOUNTED if self.in_doubt else Written.NOT_WRITTEN, reason=str(error))

    def settled(self) -> WriteOutcome:
        assert self.outcome is not None
        return self.outcome


def rows_of(requests: Sequence[WriteRequest], schema: ObjectSchema) -> list[Row]:
    """A row per request; what the field cannot take is dropped here, before it could spoil a whole call. None stands
    in `values` where a field is to be erased, and nowhere else."""
    rows = []
    for request in requests:
        row = Row(ref=request.ref, values={}, version=None if request.seen is None else request.seen.version)
        for name, value in request.values.items():
            try:
                row.values[name] = _json_of(schema, name, value, erase=name in request.erase)
            except ValueError as error:
                row.dropped[name] = str(error)
        full = wire.long_id(request.ref.id)
        if full is None:
            row.settle(Written.REJECTED, reason="MALFORMED_ID: this is no Salesforce record id", code="MALFORMED_ID")
        elif full != request.ref.id:
            row.ref = RecordRef(crm=request.ref.crm, object_type=request.ref.object_type, id=full)
        rows.append(row)
    return rows


def _json_of(schema: ObjectSchema, name: str, value: Value, *, erase: bool) -> Any:
    """
    Raises:
        ValueError: the field cannot take it; the text says why.
    """
    found = schema.fields.get(name)
    if found is None:
        raise ValueError(f"{schema.object_type} has no such field, or this user may not see it")
    if not found.writable:
        raise ValueError(found.why_not or "it cannot be written")
    if erase and wire.is_blank(value):
        wire.check_erasable(found)
        return None
    return wire.to_json(found, value)


class Update:
    """Settles rows; each has an outcome after `run`.

    `send` sends up to `size` rows in one call and gives a SaveResult each, or raises InDoubtError where that may have
    been done all the same. `together`: the rows of a call share what the org's automation may use up, so that fewer at
    once may pass. `switched_off` maps fields that no record can have written to the reason; it is added to here and
    lives as long as the client.
    """

    def __init__(
        self,
        *,
        send: Callable[[Sequence[Row]], list[SaveResult]],
        switched_off: dict[str, str],
        clock: Clock,
        size: int = PORTION,
        together: bool = True,
    ) -> None:
        self._send = send
        self._switched_off = switched_off
        self._clock = clock
        self._size = size
        self._together = together
        self._splits_left = _MOST_SPLITS
        self._waits = deque(_LOCK_WAITS_S)
        self._groups: deque[list[Row]] = deque()
        self._salvaged: list[Row] = []
        self._waiting: list[Row] = []
        #: What ended it early, when not only these rows are concerned (credentials, quota, nobody there).
        self.error: CrmSyncError | None = None
        #: Whether any call was answered, be it by a refusal, or may have done its work unanswered.
        self.answered = False

    def left(self, rows: Iterable[Row]) -> list[Row]:
        """Those of which there is something to send; the others have an outcome."""
        return [row for row in rows if self._is_left(row)]

    def judge(self, rows: Sequence[Row], results: Sequence[SaveResult]) -> list[Row]:
        """Account for rows that went another way, and return those that are to be sent again."""
        self.answered = True
        self._account(list(rows), results)
        again = [*(row for group in self._groups for row in group), *self._salvaged, *self._waiting]
        self._groups.clear()
        self._salvaged, self._waiting = [], []
        return again

    def run(self, rows: Sequence[Row]) -> None:
        """Never raises a CrmSyncError: one that concerns more than these rows is kept in `error`."""
        self._groups.append(list(rows))
        while self.error is None and (group := self._next_group()) is not None:
            group = self.left(group)
            if not group:
                continue
            try:
                results = self._send(group)
            except RefusedRequestError as refused:
                self.answered = True
                self._after_refusal(group, refused)
            except InDoubtError as doubt:
                self.answered = True
                _settle(group, Written.UNACCOUNTED, reason=str(doubt))
                if isinstance(doubt.cause, CredentialsError | QuotaError):
                    self.error = doubt.cause
            except CrmSyncError as error:
                self.error = error  # certainly nothing was written, of these and of those that wait
            else:
                self.answered = True
                self._account(group, results)
        if self.error is not None:
            for row in rows:
                row.leave(self.error)

    def _next_group(self) -> list[Row] | None:
        if not self._groups:
            group, self._salvaged = self._salvaged, []
            if not group and self._waiting:
                group, self._waiting = self._waiting, []
                self._clock.sleep(self._waits.popleft())
            if not group:
                return None
            self._groups.append(group)
        group = self._groups.popleft()
        if len(group) > self._size:
            self._groups.appendleft(group[self._size :])
        return group[: self._size]

    def _is_left(self, row: Row) -> bool:
        """Whether there is something of it to send, once the fields switched off are left out."""
        if row.outcome is not None:
            return False
        for name in [name for name in row.values if name in self._switched_off]:
            row.drop(name, self._switched_off[name])
        if not row.values and row.guess is not None:
            row.leave_out_next()
        if not row.values:
            reason = "; ".join(f"{name}: {why}" for name, why in row.dropped.items()) or "nothing to write"
            row.settle(Written.REJECTED, reason=reason, code="NOTHING_LEFT")
        return row.outcome is None

    # --- a whole call refused ---

    def _after_refusal(self, group: list[Row], refused: RefusedRequestError) -> None:
        """Nothing of `group` was written, if it was Salesforce that refused."""
        fault = refused.fault
        present = {name.casefold(): name for row in group for name in row.values}
        unknown = [present[each.casefold()] for each in refused.columns if each.casefold() in present]
        if unknown:
            for name in unknown:
                self._switch_off(name, fault)
            self._groups.appendleft(group)
        elif len(group) > 1 and refused.status in (400, 413) and self._may_split():
            self._split(group)
        elif not refused.is_proof:
            _settle(group, Written.UNACCOUNTED, reason=str(refused))
        elif len(group) == 1:
            if not self._salvage(group[0], (fault,)):
                group[0].reject(fault)
        else:
            reason = f"refused with {len(group) - 1} others, of which it may be the fault: {fault.sentence()}"
            _settle(group, Written.REJECTED, reason=reason, code=fault.code)

    def _switch_off(self, name: str, fault: Fault) -> None:
        self._switched_off[name] = f"{fault.sentence()}; it is left out from now on"

    def _may_split(self) -> bool:
        self._splits_left -= 2
        return self._splits_left >= 0

    def _split(self, group: list[Row]) -> None:
        half = (len(group) + 1) // 2
        self._groups += [group[:half], group[half:]]

    # --- an answer per record ---

    def _account(self, group: list[Row], results: Sequence[SaveResult]) -> None:
        overloaded = []
        for row, result in zip(group, results, strict=True):
            faults = result.faults
            if result.moved:
                self._moved(row)
                continue
            if result.passing:
                self._not_now(row, result)
                continue
            row.in_doubt = False
            if not faults:
                row.saved()
            elif any(fault.is_lock for fault in faults) and self._waits:
                self._waiting.append(row)
            elif any(fault.is_overload for fault in faults) and self._together and len(group) > 1:
                overloaded.append((row, faults))
            elif not self._salvage(row, faults) and not self._guess(row, faults):
                row.reject(_telling(faults))
        if overloaded and self._may_split():
            self._split([row for row, _ in overloaded])
        else:
            for row, faults in overloaded:
                row.reject(_telling(faults))

    def _moved(self, row: Row) -> None:
        if row.in_doubt:
            row.settle(Written.UNACCOUNTED, reason="it changed since it was read, maybe by a try of ours that failed")
        else:
            row.settle(Written.MOVED, reason="it changed since it was read")

    def _not_now(self, row: Row, result: SaveResult) -> None:
        row.in_doubt = row.in_doubt or result.in_doubt
        if self._waits:
            self._waiting.append(row)
        else:
            written = Written.UNACCOUNTED if row.in_doubt else Written.NOT_WRITTEN
            row.settle(written, reason=_telling(result.faults).sentence())

    def _salvage(self, row: Row, faults: Sequence[Fault]) -> bool:
        """Drop exactly the fields that are blamed and keep the rest; False when that cannot help.

        Salesforce tells one bad field of a record at a time, so the next may be told after this. Each time leaves a
        field less: that is the bound.
        """
        if not all(fault.is_of_fields for fault in faults):
            return False
        present = {name.casefold(): name for name in row.values}
        blamed = {present[n.casefold()]: f for f in faults for n in f.fields if n.casefold() in present}
        if not blamed:
            return False
        for name, fault in blamed.items():
            if fault.code in wire.MAPPING_FAULTS:
                self._switch_off(name, fault)
            row.drop(name, self._switched_off.get(name) or fault.sentence())
        self._salvaged.append(row)
        return True

    def _guess(self, row: Row, faults: Sequence[Fault]) -> bool:
        """Leave out one field and send the rest, where a rule of the org refuses the record and at most hints at the
        field; False when that cannot help. A refused try writes nothing."""
        if not all(fault.is_of_rule for fault in faults):
            return False
        if row.guess is None:
            row.guess = _Guess(faults, _suspects(row.values, faults))
        elif row.guess.is_cured(faults):
            row.blame()
            row.guess = _Guess(faults, _suspects(row.values, faults), row.guess.tries)
        if not row.leave_out_next():
            return False
        self._salvaged.append(row)
        return True


def _suspects(names: Iterable[str], faults: Sequence[Fault]) -> deque[str]:
    """The fields of a refused record, likeliest first: at which the message stands, which it names, the others."""
    at = {name.casefold() for fault in faults for name in fault.fields}
    said = " ".join(fault.message for fault in faults).casefold()

    def rank(name: str) -> int:
        words = name.removesuffix("__c").replace("_", " ").casefold()
        return 0 if name.casefold() in at else 1 if name.casefold() in said or words in said else 2

    return deque(sorted(names, key=rank))


def _settle(group: Iterable[Row], written: Written, *, reason: str, code: str = "") -> None:
    for row in group:
        row.settle(written, reason=reason, code=code)


def _telling(faults: Sequence[Fault]) -> Fault:
    """All faults as one, under the code that no dropping of fields cures, if there is one."""
    first = next((fault for fault in faults if not fault.is_of_fields), faults[0])
    others = [fault.message for fault in faults if fault is not first]
    return Fault(first.code, "; ".join([first.message, *others]), first.fields)
