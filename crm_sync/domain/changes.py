"""What we would write, why, and what became of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import NamedTuple

from crm_sync.domain.records import FieldKind, RecordRef, Value


class WriteRule(StrEnum):
    """Who wins when the CRM and Apollo disagree; from safest to boldest."""

    NEVER = "never"
    FILL = "fill"
    TRACK = "track"
    REVIEW = "review"
    REPLACE = "replace"


class WriteMode(StrEnum):
    """How a write is guarded against people who edit the record between our read and our write."""

    #: Salesforce refuses the write of a record that changed since it was read; on HubSpot the property history is read
    #: after the write, and an edit that we went over is put back.
    STRICT = "strict"
    #: Decided on values re-read just before; nothing is checked after.
    FAST = "fast"
    #: As fast, through Salesforce's Bulk API: the window is as long as the job takes.
    BULK = "bulk"


class FieldOutcome(StrEnum):
    """What happened to one field of one record."""

    WRITTEN = "Written"
    PLANNED = "Planned"
    SAME = "Same"
    KEPT = "Kept"
    #: Waits for a person: the rule is `review`.
    REVIEW = "To review"
    #: It no longer holds what the change was decided on (an undo, a plan that is applied): left alone.
    CONFLICT = "Conflict"
    NO_VALUE = "No value"
    #: It may have been written: the CRM's answer was lost.
    UNCONFIRMED = "Unconfirmed"
    INVALID = "Invalid"
    REJECTED = "Rejected"


# The two that are made once per field of every record are named tuples: a frozen dataclass takes three times as long.


class WantedValue(NamedTuple):
    """What the mapping wants one field to hold.

    `value` is in the CRM's terms. `problem` is set, and `value` None, when Apollo's value does not fit the field;
    `note` says why there is no value although Apollo has one (no picklist entry for it, a condition that is not met).
    """

    field: str
    source: str
    rule: WriteRule
    value: Value
    problem: str = ""
    note: str = ""


class FieldDecision(NamedTuple):
    """One field, decided: before, after, and the reason in words an admin reads."""

    field: str
    source: str
    rule: WriteRule
    outcome: FieldOutcome
    old: Value
    new: Value
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Amendment:
    """A change that was settled before, by a person or by an earlier run: `field` gets `value`, if it still holds what
    is `expected`. Either may be blank. `source` says where it comes from: Apollo's attribute, or the run to undo."""

    field: str
    source: str
    rule: WriteRule
    expected: Value
    value: Value
    reason: str


def never(value: Value, kind: FieldKind) -> bool:  # noqa: ARG001  the plainest of LastWrite's questions
    return False


@dataclass(frozen=True, slots=True, kw_only=True)
class LastWrite:
    """What crm-sync last wrote into one field, and when. `holds` tells whether a value is that one; `released`: it was
    a person's, and they let crm-sync go on from it.

    Of some writes and undos nobody knows whether they arrived. `is_bare` tells whether a value is the one that stands
    there if the write never came, or the undo did: then nothing in the field is ours, and nobody has edited it since.
    """

    at: datetime
    holds: Callable[[Value, FieldKind], bool]
    released: bool = False
    is_bare: Callable[[Value, FieldKind], bool] = never


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangeSet:
    """The decisions for one record. `writes`: CRM field -> new value, of what is to be written; a blank one erases."""

    ref: RecordRef
    decisions: tuple[FieldDecision, ...]
    writes: Mapping[str, Value]


#: Why a field is kept that a write of ours had gone over.
PUT_BACK = "kept: a person changed it while we wrote; their value was put back"


class Written(StrEnum):
    """How a CRM took one record."""

    WRITTEN = "written"
    PLANNED = "planned"
    REJECTED = "rejected"
    #: Certainly not, and for no fault of the record: everybody was refused, or it was never sent.
    NOT_WRITTEN = "not written"
    #: The CRM's answer does not say. The walk reads the record again; nothing is assumed.
    UNACCOUNTED = "unaccounted"
    #: It changed after it was read, so nothing of it was written: to be read and decided again.
    MOVED = "moved"
    #: It is not there any more, or not what it was; `Crm.whereabouts` tells where it went.
    GONE = "gone"


@dataclass(frozen=True, slots=True, kw_only=True)
class WriteOutcome:
    """One record's result, in the CRM's own words where it refused.

    `dropped` maps each field the CRM refused while the rest was saved to the reason. `ref` may name another id
    than the one asked for, when the CRM merged the record. `restored`: fields in which our write went over an edit that
    somebody made after our read, with that edit's value, which stands there again.
    """

    ref: RecordRef
    written: Written
    reason: str = ""
    code: str = ""
    dropped: tuple[tuple[str, str], ...] = ()
    restored: tuple[tuple[str, Value], ...] = ()
