"""Where a record went that is no longer read: merged into another, converted to a contact, deleted. Pure decisions.

Merged records are deleted ones that name their survivor, visible through queryAll only (contracts/salesforce.md 2.6,
2026-11). A survivor may have been merged again, a lead's contact too: so the trail is followed to its end.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from adapters.salesforce import wire
from crm_sync.domain.records import ObjectSchema, RecordRef
from crm_sync.ports import Whereabouts

#: Ids of one query; one of 18 characters takes 27 of the 16,384 bytes that an address may have (1.3, 2026-11).
IDS = 200
#: Merges and conversions in a row that are followed.
_MOST_STEPS = 10

#: What tells where a record went; not every object has them, and field-level security may hide some.
_COLUMNS = ("IsDeleted", "MasterRecordId", "IsConverted", "ConvertedContactId", "ConvertedAccountId")
_WORDS = {"merged": "was merged into", "converted": "was converted to"}


def query(schema: ObjectSchema, ids: Sequence[str]) -> str:
    """SOQL for queryAll; `ids` are 18 letters and digits each."""
    columns = ["Id", *(name for name in _COLUMNS if name in schema.fields)]
    listed = ",".join(f"'{each}'" for each in ids)
    return f"SELECT {','.join(columns)} FROM {schema.object_type} WHERE Id IN ({listed})"  # noqa: S608  ids are checked


@dataclass(slots=True)
class _Trail:
    """One record's way so far: `at` is where it leads now, `steps` what happened on it."""

    at: RecordRef
    steps: list[tuple[str, RecordRef]] = field(default_factory=list)
    end: Whereabouts | None = None


def follow(
    refs: Sequence[RecordRef], rows_of: Callable[[str, Sequence[str]], Mapping[str, Mapping[str, Any]]]
) -> list[Whereabouts]:
    """The end of each record's trail, by position.

    `rows_of(object_type, ids)` gives the rows of `query` by id, deleted ones too, and none for whom this user does not
    see. It is asked once for each step and object, whatever the number of records.
    """
    trails = [_Trail(ref) for ref in refs]
    for trail in trails:
        full = wire.long_id(trail.at.id)
        if full is None:
            trail.end = Whereabouts(ref=None, how="unknown", reason="this is no Salesforce record id")
        else:
            trail.at = RecordRef(crm=trail.at.crm, object_type=trail.at.object_type, id=full)
    while open_ := [trail for trail in trails if trail.end is None]:
        for object_type in dict.fromkeys(trail.at.object_type for trail in open_):
            here = [trail for trail in open_ if trail.at.object_type == object_type]
            rows = rows_of(object_type, list(dict.fromkeys(trail.at.id for trail in here)))
            for trail in here:
                _step(trail, rows.get(trail.at.id))
    return [trail.end for trail in trails if trail.end is not None]


def _step(trail: _Trail, row: Mapping[str, Any] | None) -> None:
    """Take one step, or say that this is the end."""
    if row is None:
        _end(trail, None, "unknown", "this user sees no such record: it may be hidden, or deleted for good")
    elif row.get("IsDeleted") is True:
        survivor = _id(row.get("MasterRecordId"))
        if survivor is None:
            _end(trail, None, "deleted", "it was deleted")
        else:
            _go(trail, "merged", trail.at.object_type, survivor)
    elif row.get("IsConverted") is True:
        contact = _id(row.get("ConvertedContactId"))
        if contact is None:
            _end(trail, None, "converted", "the lead was converted, and this user does not see to which contact")
        else:
            _go(trail, "converted", "Contact", contact)
    else:
        _end(trail, trail.at, "unknown", "it is there")


def _go(trail: _Trail, how: str, object_type: str, record_id: str) -> None:
    ref = RecordRef(crm=trail.at.crm, object_type=object_type, id=record_id)
    trail.steps.append((how, ref))
    trail.at = ref
    if len(trail.steps) >= _MOST_STEPS:
        _end(trail, None, "unknown", "its trail has no end")


def _end(trail: _Trail, ref: RecordRef | None, how: str, reason: str) -> None:
    """`how` is told of the first step, where there was one; of the last only that it ends nowhere."""
    told = [f"it {_WORDS[step]} {at.object_type} {at.id}" for step, at in trail.steps]
    if trail.steps and ref is None and how != "unknown":
        told.append("which was deleted" if how == "deleted" else reason)
    elif trail.steps and ref is not None:
        how = trail.steps[0][0]
    elif trail.steps:
        told.append(reason)
    trail.end = Whereabouts(ref=ref, how=how, reason=", ".join(told) or reason)


def _id(value: Any) -> str | None:
    return wire.long_id(value) if isinstance(value, str) else None
