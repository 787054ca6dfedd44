"""Where a record went that is not where it was: to the survivor of a merge, to the contact a lead became, or away."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

from crm_sync import crash
from crm_sync.domain.changes import WantedValue, WriteRule
from crm_sync.domain.enrichment import MatchKeys
from crm_sync.domain.records import ObjectSchema, Record, RecordRef, Value
from crm_sync.mapping.apply import Mapper
from crm_sync.pipeline.walk import Target, Walk, WriteContext


@dataclass(slots=True, kw_only=True)
class Followed:
    """By the id that was asked for: the record it lives on as, or the sentence with which it is closed."""

    records: dict[str, Record | None] = field(default_factory=dict)
    closed: dict[str, str] = field(default_factory=dict)
    #: By object: records that live on as another one (a lead that became a contact), by the id asked for.
    elsewhere: dict[str, dict[str, RecordRef]] = field(default_factory=dict)


def followed(
    context: WriteContext,
    target: Target,
    keys: Mapping[str, MatchKeys | None],
    current: Mapping[str, Record | None],
    *,
    beside: Collection[str] = (),
) -> Followed:
    """Look after the records of `current` that are missing, or that came back under another id.

    A survivor is written in the place of what was merged into it, if it is about the same person or company. One that
    is in this selection itself, here or `beside` it, is left to itself. `keys`: what Apollo was asked by, None where
    nobody was asked.

    A change that was settled before (an undo, a plan, what a person accepted) follows nobody: it was settled for that
    record, and whether a survivor holds our value or the same one of its own cannot be told.

    Raises:
        CrmSyncError: the CRM cannot be asked.
    """
    found = Followed()
    missing = [record_id for record_id, record in current.items() if record is None]
    survivors: dict[str, RecordRef] = {
        record_id: record.ref
        for record_id, record in current.items()
        if record is not None and record.ref.id != record_id
    }
    if missing:
        places = context.crm.whereabouts(target.object_type, missing)
        for record_id, place in zip(missing, places, strict=True):
            if place.ref is None:
                found.closed[record_id] = place.reason
            elif place.ref.object_type != target.object_type:
                found.elsewhere.setdefault(place.ref.object_type, {})[record_id] = place.ref
            else:
                survivors[record_id] = place.ref
    if missing or survivors:
        crash.point("follow.found")
    if not isinstance(context, Walk):
        for record_id, ref in survivors.items():
            found.closed[record_id] = f"merged into another record since, and left as it is ({ref.id})"
        for object_type, refs in found.elsewhere.items():
            for record_id, ref in refs.items():
                found.closed[record_id] = f"became another record since, and left as it is ({object_type} {ref.id})"
        found.elsewhere.clear()
        return found
    for record_id, ref in list(survivors.items()):
        if ref.id != record_id and (ref.id in current or ref.id in beside):
            found.closed[record_id] = f"merged into {ref.id}, which is looked at itself"
            del survivors[record_id]
    if survivors:
        _read_survivors(context, target, keys, survivors, found)
    return found


def _read_survivors(
    context: Walk,
    target: Target,
    keys: Mapping[str, MatchKeys | None],
    survivors: Mapping[str, RecordRef],
    found: Followed,
) -> None:
    ids = list(dict.fromkeys(ref.id for ref in survivors.values()))
    fields = dict.fromkeys(target.fields_to_read(context.screen.kinds_now()))
    identifies = target.object_type == context.object_type
    fields.update(dict.fromkeys(identifying(context, target)))
    read = dict(zip(ids, context.crm.read(target.object_type, ids, tuple(fields)), strict=True))
    taken: set[str] = set()
    for record_id, ref in survivors.items():
        record = read[ref.id]
        asked = keys.get(record_id)
        if record is None:
            found.closed[record_id] = f"merged into {ref.id}, which is gone too"
        elif ref.id in taken:
            found.closed[record_id] = f"merged into {ref.id}, as another record of this run"
        elif identifies and asked is not None and not is_same(asked, context.keys_of(record.values)):
            found.closed[record_id] = f"merged into {ref.id}, which is not about whom Apollo was asked for"
        else:
            taken.add(ref.id)
            found.records[record_id] = record


def target_elsewhere(context: WriteContext, target: Target, object_type: str, fields: Sequence[str]) -> Target:
    """As another object: those of `fields` that it has too. Told in the audit as the record that was asked for.

    Raises:
        CrmSyncError: the CRM does not show that object.
    """
    schema = context.crm.describe(object_type)
    readable = {name for name, each in schema.fields.items() if each.readable}
    signs = tuple(sign for sign in target.guard.signs if readable.issuperset(sign.fields))
    guard = replace(
        target.guard,
        object_type=object_type,
        signs=signs,
        distant=(),
        links=(),
        emails=tuple(name for name in target.guard.emails if name in readable),
        phones=tuple(name for name in target.guard.phones if name in readable),
        pages=tuple(name for name in target.guard.pages if name in readable),
    )
    return Target(
        object_type=object_type,
        schema=schema,
        mapper=Mapper((), schema),
        read_fields=tuple(name for name in fields if name in readable),
        guard=guard,
        told_as=target.told_as or target.object_type,
        unguarded=target.unguarded,
        tracks=target.tracks,
        ignored=target.ignored,
    )


def identifying(context: WriteContext, target: Target) -> tuple[str, ...]:
    """The fields of a run's own records that say whom they are about."""
    if not isinstance(context, Walk) or target.object_type != context.object_type:
        return ()
    return tuple(dict.fromkeys(name for key in context.match.send for name in key.fields if "." not in name))


def is_stranger(context: WriteContext, asked: MatchKeys | None, values: Mapping[str, Value]) -> bool:
    """Whether a lead became a contact that says whom it is about, and it is nobody whom was `asked` for: a rep took the
    wrong one. Where it has none of the fields that say so, the CRM's own word has to do."""
    if not isinstance(context, Walk) or asked is None:
        return False
    now = context.keys_of(values)
    return any((now.email, now.linkedin_url, _full_name(now))) and not is_same(asked, now)


def wanted_elsewhere(wanted: WantedValue, here: ObjectSchema, there: ObjectSchema) -> WantedValue:
    """A value that was made for a field `here`, for the field of that name `there`; none where it would not fit."""
    if wanted.value is None:
        return wanted
    if wanted.rule is WriteRule.REVIEW:
        note = f"rule review: of what is a {there.object_type} by now nobody is asked"
        return wanted._replace(value=None, note=note)
    one, other = here.fields[wanted.field], there.fields[wanted.field]
    if not other.writable and wanted.rule is not WriteRule.NEVER:
        return wanted._replace(value=None, problem=other.why_not or f"{there.object_type} does not let it be written")
    if other.kind is not one.kind:
        problem = f"a {one.kind.value} here, and a {other.kind.value} on {there.object_type}"
        return wanted._replace(value=None, problem=problem)
    if other.length is not None and len(str(wanted.value)) > other.length:
        return wanted._replace(value=None, problem=f"longer than {there.object_type} takes it ({other.length})")
    return wanted


def is_same(asked: MatchKeys, now: MatchKeys) -> bool:
    """Whether a record with the keys `now` may be about whom was `asked` for: one of what identifies them agrees."""
    if asked.email and asked.email == now.email:
        return True
    if asked.linkedin_url and asked.linkedin_url == now.linkedin_url:
        return True
    names = _full_name(asked), _full_name(now)
    if names[0] or names[1]:
        return names[0] == names[1]
    return bool(asked.domain) and asked.domain == now.domain


def _full_name(keys: MatchKeys) -> str:
    return (keys.name or f"{keys.first_name} {keys.last_name}").strip().casefold()
