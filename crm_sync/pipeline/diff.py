"""Who wins when the CRM and Apollo disagree: field by field, each with its reason."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from typing import Final

from crm_sync.domain.changes import ChangeSet, FieldDecision, FieldOutcome, WantedValue, WriteRule
from crm_sync.domain.records import FieldKind, ObjectSchema, RecordRef, Value
from crm_sync.mapping.blanks import is_blank, is_placeholder

_NUMBERS = (FieldKind.INTEGER, FieldKind.DECIMAL)
_CHOICES = (FieldKind.PICKLIST, FieldKind.MULTI_PICKLIST)
#: What `current` holds for a field that was not read; no CRM value has a line feed alone.
_UNREAD: Final = "\n"


def decide(
    ref: RecordRef,
    current: Mapping[str, Value],
    wanted: Sequence[WantedValue],
    *,
    placeholders: frozenset[str],
    schema: ObjectSchema,
) -> ChangeSet:
    """One decision per wanted value, in order, against the record as it is now.

    `placeholders` are in their mapping/blanks.placeholder_form. WRITTEN means: to be written. A blank never writes,
    and neither does a placeholder that Apollo itself has; a field that `current` has no key for was not read, and is
    left alone.
    """
    fields = schema.fields
    decisions = tuple(
        [_decide(want, current.get(want.field, _UNREAD), fields[want.field].kind, placeholders) for want in wanted]
    )
    writes = {decision.field: decision.new for decision in decisions if decision.outcome is FieldOutcome.WRITTEN}
    return ChangeSet(ref=ref, decisions=decisions, writes=writes)


def _decide(want: WantedValue, old: Value, kind: FieldKind, placeholders: frozenset[str]) -> FieldDecision:
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
        outcome, reason = _differs(want.rule, old, placeholders)
        if outcome is FieldOutcome.WRITTEN and kind not in _CHOICES and is_placeholder(new, placeholders):
            outcome, reason = FieldOutcome.NO_VALUE, "Apollo itself has only a placeholder"
    return FieldDecision(
        want.field, want.source, want.rule, outcome, old=None if old is _UNREAD else old, new=new, reason=reason
    )


def _differs(rule: WriteRule, old: Value, placeholders: frozenset[str]) -> tuple[FieldOutcome, str]:
    if is_blank(old):
        return FieldOutcome.WRITTEN, "filled: was blank"
    if is_placeholder(old, placeholders):
        return FieldOutcome.WRITTEN, f'filled: was the placeholder "{str(old).strip()}"'
    if rule is WriteRule.REPLACE:
        return FieldOutcome.WRITTEN, "replaced: Apollo's value differs"
    return FieldOutcome.KEPT, "already filled"


def same(old: Value, new: Value, kind: FieldKind) -> bool:
    """Whether writing `new` over `old` would change nothing for a person who looks at it.

    Blanks at the ends do not count (Salesforce trims them, so "CTO " would differ for ever), nor do the line ends of
    a long text (a CRM may answer CR LF) or the case of an e-mail, also in a text field (HubSpot answers it lowered,
    contracts/hubspot.md 2.3, 2026-11). 5 is "5" is 5.0 in a number field, as HubSpot answers numbers as text; a
    multi-select is a set; a time is an instant.
    """
    if isinstance(old, str) and isinstance(new, str):
        if old == new:
            return True
        one, other = old.strip(), new.strip()
        if one == other:
            return True
        if kind is FieldKind.EMAIL or ("@" in one and " " not in one):
            return one.casefold() == other.casefold()
        if kind is FieldKind.LONG_TEXT:
            return one.replace("\r\n", "\n") == other.replace("\r\n", "\n")
    if old is None or new is None:
        return False
    if kind in _NUMBERS:
        return old == new if type(old) is type(new) is int else _number(old) == _number(new) is not None
    if kind is FieldKind.MULTI_PICKLIST:
        return set(_chosen(old)) == set(_chosen(new))
    if kind is FieldKind.BOOLEAN:
        return str(old).strip().casefold() == str(new).strip().casefold()
    if kind is FieldKind.DATETIME:
        return _instant(old) == _instant(new) is not None
    return str(old).strip() == str(new).strip()


def _chosen(value: Value) -> tuple[str, ...]:
    if isinstance(value, tuple):
        return value
    return tuple(part.strip() for part in str(value).split(";") if part.strip())


def _number(value: Value) -> int | Decimal | None:
    if type(value) is int:
        return value
    try:
        number = Decimal(str(value).strip())
    except InvalidOperation:
        return None
    return number if number.is_finite() else None


def _instant(value: Value) -> datetime | None:
    """To the second: Salesforce and HubSpot answer milliseconds, with Z or +0000, where we wrote none."""
    try:
        moment = datetime.fromisoformat(str(value).strip())
    except ValueError:
        return None
    moment = moment.replace(microsecond=0)
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment
