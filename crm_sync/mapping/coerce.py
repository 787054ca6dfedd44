"""Whether a value fits the live field, and in which form. What does not fit is that field's problem alone."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import date, datetime
from decimal import Decimal, InvalidOperation
from typing import Any

from crm_sync.domain.records import FieldKind, FieldSchema, Value
from crm_sync.mapping.picklists import choice_index, fold

Coerce = Callable[[Any], Value]

_PLAIN_NUMBER = re.compile(r"[+-]?\d{1,40}(?:\.\d{1,40})?\Z")


class NotFitting(ValueError):  # noqa: N818 - reads as what it says
    """A value that the field cannot take. The text names the limit and never the value itself."""


def coercer(field: FieldSchema) -> Coerce:
    """The coercion for one field, chosen once."""
    match field.kind:
        case FieldKind.INTEGER:
            return lambda value: _whole(value, field)
        case FieldKind.DECIMAL:
            return lambda value: _decimal(value, field)
        case FieldKind.BOOLEAN:
            return _checkbox
        case FieldKind.DATE:
            return _date
        case FieldKind.DATETIME:
            return _datetime
        case FieldKind.PICKLIST | FieldKind.MULTI_PICKLIST if field.choices:
            return _choice(field)
        case _:
            return _text(field)


def _text(field: FieldSchema) -> Coerce:
    length = field.length
    one_line = field.kind is not FieldKind.LONG_TEXT

    def coerce(value: Any) -> Value:
        if isinstance(value, str):
            text = value.strip()
        elif isinstance(value, bool):
            text = "true" if value else "false"
        elif isinstance(value, int | float | Decimal):
            text = _plain(value)
        else:
            raise NotFitting(f"Apollo's value is a {_kind(value)}, not a text")
        if one_line and not text.isprintable():
            text = " ".join("".join(c if c.isprintable() else " " for c in text).split())
        if length is not None and len(text) > length:
            raise NotFitting(
                f"Apollo's text has {len(text)} characters and the field takes {length}; `max: {length}` would cut it"
            )
        return text

    return coerce


def _number(value: Any) -> Decimal:
    if isinstance(value, bool):
        raise NotFitting("Apollo's value is yes or no, not a number")
    text = value.strip() if isinstance(value, str) else str(value) if isinstance(value, int | float | Decimal) else ""
    if isinstance(value, str) and not _PLAIN_NUMBER.match(text):
        raise NotFitting(f"Apollo's text of {len(value)} characters is not a number")
    try:
        number = Decimal(text)
    except InvalidOperation:
        raise NotFitting(f"Apollo's value is a {_kind(value)}, not a number") from None
    if not number.is_finite():
        raise NotFitting("Apollo's value is not a number")
    return number


def _whole(value: Any, field: FieldSchema) -> Value:
    if type(value) is int:
        number = value
    else:
        exact = _number(value)
        if exact != exact.to_integral_value():
            raise NotFitting(
                "Apollo's number has decimals and the field takes whole numbers; `round: 1` would round it"
            )
        number = int(exact)
    if field.digits is not None and abs(number) >= 10**field.digits:
        raise NotFitting(f"Apollo's number has {len(str(abs(number)))} digits and the field takes {field.digits}")
    return number


def _decimal(value: Any, field: FieldSchema) -> Value:
    """Rounded to the field's decimals: a currency without any takes 345600000.0 as 345600000."""
    number = _number(value)
    if field.scale is not None:
        number = round(number, field.scale)
    if field.digits is not None and abs(number) >= Decimal(10) ** field.digits:
        raise NotFitting(f"Apollo's number has more than the {field.digits} digits that the field takes")
    if number == number.to_integral_value():
        return int(number)
    return float(number)


def _checkbox(value: Any) -> Value:
    if isinstance(value, bool):
        return value
    word = str(value).strip().casefold()
    if word in ("true", "yes", "1"):
        return True
    if word in ("false", "no", "0"):
        return False
    raise NotFitting(f"Apollo's value is a {_kind(value)}, not yes or no")


def _date(value: Any) -> Value:
    """An ISO date, a datetime's date, or a year as its first day."""
    text = str(value).strip()
    if len(text) == 4 and text.isdigit():
        text += "-01-01"
    try:
        return date.fromisoformat(text[:10]).isoformat()
    except ValueError:
        raise NotFitting("Apollo's value is not a date") from None


def _datetime(value: Any) -> Value:
    text = str(value).strip()
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise NotFitting("Apollo's value is not a date and time") from None
    if moment.tzinfo is None:
        return moment.isoformat(timespec="seconds") + "Z"
    return moment.isoformat(timespec="seconds").replace("+00:00", "Z")


def _choice(field: FieldSchema) -> Coerce:
    """The last guard: only active values leave, however they were arrived at."""
    live = choice_index(field.choices)
    several = field.kind is FieldKind.MULTI_PICKLIST

    def one(word: Any) -> str:
        found = live.get(fold(str(word)))
        if found is None:
            raise NotFitting("the value is not an active value of this picklist")
        return found

    def coerce(value: Any) -> Value:
        if not several:
            return one(value)
        return tuple(one(word) for word in (value if isinstance(value, tuple | list) else (value,)))

    return coerce


def _plain(number: float | Decimal) -> str:
    exact = Decimal(str(number))
    return str(int(exact)) if exact == exact.to_integral_value() else format(exact, "f")


def _kind(value: Any) -> str:
    return {dict: "group of values", list: "list", tuple: "list", bool: "yes or no", str: "text"}.get(
        type(value), "number" if isinstance(value, int | float) else "value of another type"
    )
