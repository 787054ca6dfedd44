"""Who wins when the CRM and Apollo disagree: field by field, each with its reason."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal, InvalidOperation, Overflow
from typing import Final

from crm_sync.domain.changes import (
    Amendment,
    ChangeSet,
    FieldDecision,
    FieldOutcome,
    LastWrite,
    WantedValue,
    WriteRule,
)
from crm_sync.domain.records import FieldKind, ObjectSchema, RecordRef, Value
from crm_sync.mapping.blanks import is_blank, is_placeholder
from crm_sync.mapping.same import same

_CHOICES = (FieldKind.PICKLIST, FieldKind.MULTI_PICKLIST)
#: What `current` holds for a field that was not read; no CRM value has a line feed alone.
_UNREAD: Final = "\n"

#: CRM field -> what crm-sync wrote into it last; a field that it never wrote has none.
History = Mapping[str, LastWrite]
NO_HISTORY: History = {}


def decide(
    ref: RecordRef,
    current: Mapping[str, Value],
    wanted: Sequence[WantedValue],
    *,
    placeholders: frozenset[str],
    schema: ObjectSchema,
    history: History = NO_HISTORY,
    ignored: Mapping[str, Decimal] | None = None,
) -> ChangeSet:
    """One decision per wanted value, in order, against the record as it is now.

    `placeholders` are in their mapping/blanks.placeholder_form. `history` is what the rule `track` goes by, `ignored`
    the share of a number's change (0.05 for 5 %) below which it stays. WRITTEN means: to be written. A blank never
    writes, and neither does a placeholder that Apollo itself has; a field that `current` has no key for was not read,
    and is left alone.
    """
    fields = schema.fields
    decisions = tuple(
        [
            _decide(
                want,
                current.get(want.field, _UNREAD),
                fields[want.field].kind,
                placeholders,
                history.get(want.field) if history else None,
            )
            for want in wanted
        ]
    )
    if ignored:
        decisions = tuple([_unless_small(each, ignored.get(each.field), placeholders) for each in decisions])
    writes = {decision.field: decision.new for decision in decisions if decision.outcome is FieldOutcome.WRITTEN}
    return ChangeSet(ref=ref, decisions=decisions, writes=writes)


def amend(
    ref: RecordRef, current: Mapping[str, Value], amendments: Sequence[Amendment], *, schema: ObjectSchema
) -> ChangeSet:
    """One decision per amendment, in order: written where the field still holds what the amendment expects, however
    blank the new value is; a conflict where it holds something else by now."""
    decisions = tuple([_amend(each, current.get(each.field, _UNREAD), schema) for each in amendments])
    writes = {each.field: each.new for each in decisions if each.outcome is FieldOutcome.WRITTEN}
    return ChangeSet(ref=ref, decisions=decisions, writes=writes)


def _decide(
    want: WantedValue, old: Value, kind: FieldKind, placeholders: frozenset[str], last: LastWrite | None
) -> FieldDecision:
    new = want.value
    if new is None or is_blank(new):
        if want.problem:
            outcome, reason = FieldOutcome.INVALID, want.problem
        else:
            outcome, reason = FieldOutcome.NO_VALUE, want.note or "Apollo has no value"
    elif old is _UNREAD:
        outcome, reason = FieldOutcome.KEPT, "not read from the CRM, so left alone"
    elif same(old, new, kind):
        outcome, reason = FieldOutcome.SAME, "already has this value"
    elif want.rule is WriteRule.NEVER:
        outcome, reason = FieldOutcome.KEPT, "rule: never"
    else:
        outcome, reason = _differs(want.rule, old, kind, placeholders, last)
        if outcome is not FieldOutcome.KEPT and kind not in _CHOICES and is_placeholder(new, placeholders):
            outcome, reason = FieldOutcome.NO_VALUE, "Apollo itself has only a placeholder"
    return FieldDecision(
        want.field, want.source, want.rule, outcome, old=None if old is _UNREAD else old, new=new, reason=reason
    )


def _differs(
    rule: WriteRule, old: Value, kind: FieldKind, placeholders: frozenset[str], last: LastWrite | None
) -> tuple[FieldOutcome, str]:
    if rule is WriteRule.REVIEW:
        return FieldOutcome.REVIEW, "waits for a person: rule review"
    if rule is WriteRule.TRACK and last is not None and (last.holds(old, kind) or not last.is_bare(old, kind)):
        return _tracked(old, kind, placeholders, last)
    if is_blank(old):
        return FieldOutcome.WRITTEN, "filled: was blank"
    if is_placeholder(old, placeholders):
        return FieldOutcome.WRITTEN, f'filled: was the placeholder "{str(old).strip()}"'
    if rule is WriteRule.REPLACE:
        return FieldOutcome.WRITTEN, "replaced: Apollo's value differs"
    if rule is WriteRule.TRACK:
        return FieldOutcome.KEPT, "kept: already filled, and not by crm-sync"
    return FieldOutcome.KEPT, "already filled"


def _tracked(old: Value, kind: FieldKind, placeholders: frozenset[str], last: LastWrite) -> tuple[FieldOutcome, str]:
    """A field that crm-sync has written before. Emptying it is an edit too: what a person threw away stays away."""
    if last.holds(old, kind):
        if last.released:
            return FieldOutcome.WRITTEN, f"replaced: released to crm-sync on {day(last)}"
        return FieldOutcome.WRITTEN, f"updated: still held our value of {day(last)}"
    if is_blank(old) or is_placeholder(old, placeholders):
        return FieldOutcome.KEPT, f"kept: emptied by a person after our write of {day(last)}"
    return FieldOutcome.KEPT, f"kept: changed by a person after our write of {day(last)}"


def day(last: LastWrite) -> str:
    return f"{last.at.day} {last.at:%B %Y}"


def _unless_small(decision: FieldDecision, share: Decimal | None, placeholders: frozenset[str]) -> FieldDecision:
    """The decision, unless it would change a number by less than `share` of what it is."""
    if share is None or decision.outcome not in (FieldOutcome.WRITTEN, FieldOutcome.REVIEW):
        return decision
    if is_blank(decision.old) or is_placeholder(decision.old, placeholders):
        return decision
    try:
        before, after = Decimal(str(decision.old).strip()), Decimal(str(decision.new).strip())
        small = abs(after - before) < share * abs(before)
    except (InvalidOperation, Overflow):  # no number, not a finite one, or one beyond all sense
        return decision
    if not small:
        return decision
    percent = format((share * 100).normalize(), "f")
    return decision._replace(outcome=FieldOutcome.KEPT, reason=f"kept: differs by less than {percent} %")


def _amend(amendment: Amendment, old: Value, schema: ObjectSchema) -> FieldDecision:
    field = schema.fields.get(amendment.field)
    outcome, reason = FieldOutcome.WRITTEN, amendment.reason
    if field is None:
        outcome, reason = FieldOutcome.CONFLICT, f"{schema.object_type} has no such field any more, or hides it"
    elif not field.writable:
        outcome, reason = FieldOutcome.CONFLICT, field.why_not or "the CRM does not let this user write it"
    elif old is _UNREAD:
        outcome, reason = FieldOutcome.CONFLICT, "not read from the CRM, so left alone"
    elif _equal(old, amendment.value, field.kind):
        outcome, reason = FieldOutcome.SAME, "already has this value"
    elif not _equal(old, amendment.expected, field.kind):
        outcome, reason = FieldOutcome.CONFLICT, "changed since: left as it is"
    return FieldDecision(
        amendment.field,
        amendment.source,
        amendment.rule,
        outcome,
        old=None if old is _UNREAD else old,
        new=amendment.value,
        reason=reason,
    )


def _equal(one: Value, other: Value, kind: FieldKind) -> bool:
    return (is_blank(one) and is_blank(other)) or same(one, other, kind)
