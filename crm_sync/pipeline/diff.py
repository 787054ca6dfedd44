"""Who wins when the CRM and Apollo disagree: field by field, each with its reason."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal, InvalidOperation

from crm_sync.domain.changes import ChangeSet, FieldDecision, FieldOutcome, WantedValue, WriteRule
from crm_sync.domain.records import FieldKind, ObjectSchema, RecordRef, Value
from crm_sync.mapping.blanks import is_blank, is_placeholder

_NUMBERS = (FieldKind.INTEGER, FieldKind.DECIMAL)


def decide(
    ref: RecordRef,
    current: Mapping[str, Value],
    wanted: Sequence[WantedValue],
    *,
    placeholders: frozenset[str],
    schema: ObjectSchema,
) -> ChangeSet:
    """One decision per wanted value, in order, against the record as it is now.

    `placeholders` are in their mapping/blanks.placeholder_form. WRITTEN means: to be written. A blank never writes.
    """
    return ChangeSet(
        ref=ref,
        decisions=tuple(
            _decide(want, current.get(want.field), schema.fields[want.field].kind, placeholders) for want in wanted
        ),
    )


def _decide(want: WantedValue, old: Value, kind: FieldKind, placeholders: frozenset[str]) -> FieldDecision:
    new = want.value
    if want.problem:
        outcome, reason = FieldOutcome.INVALID, want.problem
    elif is_blank(new):
        outcome, reason = FieldOutcome.NO_VALUE, want.note or "Apollo has no value"
    elif same(old, new, kind):
        outcome, reason = FieldOutcome.SAME, ""
    elif want.rule is WriteRule.NEVER:
        outcome, reason = FieldOutcome.KEPT, "rule: never"
    elif is_blank(old):
        outcome, reason = FieldOutcome.WRITTEN, "filled: was blank"
    elif is_placeholder(old, placeholders):
        outcome, reason = FieldOutcome.WRITTEN, "filled: held a placeholder"
    elif want.rule is WriteRule.REPLACE:
        outcome, reason = FieldOutcome.WRITTEN, "replaced: Apollo's value differs"
    else:
        outcome, reason = FieldOutcome.KEPT, "already filled"
    return FieldDecision(
        field=want.field, source=want.source, rule=want.rule, outcome=outcome, old=old, new=new, reason=reason
    )


def same(old: Value, new: Value, kind: FieldKind) -> bool:
    """Whether writing `new` over `old` would change nothing for a person who looks at it.

    Trailing blanks do not count (Salesforce trims them, so "CTO " would differ for ever), 5 is "5" is 5.0 in a
    number field (HubSpot answers numbers as text), a multi-select is a set.
    """
    if old == new and type(old) is type(new):
        return True
    if old is None or new is None:
        return False
    if isinstance(old, tuple) or isinstance(new, tuple):
        return set(_choices(old)) == set(_choices(new))
    if kind in _NUMBERS:
        one, other = _number(old), _number(new)
        return one is not None and one == other
    if kind is FieldKind.BOOLEAN:
        return str(old).casefold() == str(new).casefold()
    if kind is FieldKind.DATETIME:
        return _instant(str(old)) == _instant(str(new))
    return str(old).strip() == str(new).strip()


def _choices(value: Value) -> tuple[str, ...]:
    if isinstance(value, tuple):
        return value
    return tuple(part.strip() for part in str(value).split(";") if part.strip())


def _number(value: Value) -> Decimal | None:
    try:
        return Decimal(str(value).strip())
    except InvalidOperation:
        return None


def _instant(text: str) -> str:
    """2026-11-01T00:00:00.000+0000 and 2026-11-01T00:00:00Z are one."""
    body = text.strip().removesuffix("Z").removesuffix("+0000").removesuffix("+00:00")
    return body.partition(".")[0]
