"""When two values are one for a person who looks at the field."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from decimal import MAX_EMAX, MIN_EMIN, Context, Decimal, InvalidOperation

from crm_sync.domain.records import FieldKind, Value

_NUMBERS = (FieldKind.INTEGER, FieldKind.DECIMAL)
#: A date alone is an instant too: midnight, where a CRM turns it into a time.
_LIKE_A_DATE = re.compile(r"\d{4}-|\d{8}T")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
#: More digits than any CRM keeps, and any exponent: nothing a person types may raise.
_DIGITS = Context(prec=60, Emax=MAX_EMAX, Emin=MIN_EMIN, traps=[])


def same(old: Value, new: Value, kind: FieldKind) -> bool:
    """Whether writing `new` over `old` would change nothing for a person who looks at it; blanks are None here.

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


def spelling(value: Value) -> str:
    """One spelling for values that are the `same`, whatever the kind of their field; "" for a blank.

    Coarser than `same`: "5.0" and "5", or "b; a" and "a;b", are one here in a text field too.
    """
    text = ";".join(value) if isinstance(value, tuple) else "" if value is None else str(value)
    parts = [text.replace("\r\n", "\n").strip()]
    if ";" in text:
        parts = list(_chosen(parts[0]))
        text = ";".join(parts)
    if "@" in text and " " not in text.strip():
        parts = [part.casefold() for part in parts]
    chosen = sorted(set(parts))
    return _spelling(chosen[0]) if len(chosen) == 1 else ";".join(chosen)


def _spelling(text: str) -> str:
    """Of one value, trimmed."""
    number = _number(text)
    if number is not None:
        return str(_DIGITS.plus(_DIGITS.normalize(Decimal(number))))  # plus: -0 is 0
    if text.casefold() in ("true", "false"):
        return text.casefold()
    if _LIKE_A_DATE.match(text) and (moment := _instant(text)) is not None:
        try:
            return moment.astimezone(UTC).isoformat()
        except OverflowError:  # at the ends of the calendar
            return f"T{(moment - _EPOCH).total_seconds():.0f}"
    return text


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
