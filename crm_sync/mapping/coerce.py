"""Whether a value fits the live field, and in which form. What does not fit is that field's problem alone."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, date, datetime
from decimal import ROUND_HALF_UP, Context, Decimal, InvalidOperation
from typing import Any

from crm_sync.domain.records import FieldKind, FieldSchema, Value

Coerce = Callable[[Any], Value]

_PLAIN_NUMBER = re.compile(r"[+-]?[0-9]{1,40}(?:\.[0-9]{1,40})?\Z")
_ISO_DATE = re.compile(r"([0-9]{4}-[0-9]{2}-[0-9]{2})(?:[T ][0-9:.]+(?:Z|[+-][0-9:]{4,6})?)?\Z")
#: No line break, tab or control character; a joiner inside a Persian or Hindi word is no control character.
_NOT_IN_A_LINE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+")
_NOT_IN_A_TEXT = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]+")
_EXACT_IN_A_FLOAT = 2**53
# Wide enough for any float: the default context gives up at 28 digits.
_EXACT = Context(prec=400, rounding=ROUND_HALF_UP)


class NotFitting(ValueError):  # noqa: N818 - reads as what it says
    """A value that the field cannot take. The text names the limit and never the value itself."""


def coercer(field: FieldSchema, *, cut_to: int | None = None) -> Coerce:
    """The coercion for one field, chosen once; texts are cut to `cut_to` characters.

    Picklist values come here already chosen (mapping/picklists.py); a multi-select takes a list of them.
    """
    match field.kind:
        case FieldKind.INTEGER:
            return _whole(field)
        case FieldKind.DECIMAL:
            return _decimal(field)
        case FieldKind.BOOLEAN:
            return _checkbox
        case FieldKind.DATE:
            return _date
        case FieldKind.DATETIME:
            return _datetime
        case _:
            return _text(field, cut_to)


def plain(value: Any) -> str:
    """A scalar as a person would type it: 84000000.0 -> "84000000", True -> "true".

    Raises:
        NotFitting: it is a list, a group of values or no number.
    """
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float | Decimal):
        exact = Decimal(str(value))
        if not exact.is_finite():
            raise NotFitting("Apollo's value is not a number")
        return str(int(exact)) if exact == exact.to_integral_value(context=_EXACT) else format(exact, "f")
    raise NotFitting(f"Apollo's value is {_kind(value)}, not a text")


def cut(text: str, length: int) -> str:
    """At most `length` characters, cut after a whole word where one ends in the second half."""
    if len(text) <= length:
        return text
    head = text[:length]
    if not text[length].isspace():
        at = max(head.rfind(" "), head.rfind("\n"))
        head = head[:at] if at >= length // 2 else head
    return head.rstrip(" \n,;")


def rounded(value: float | Decimal, step: int) -> int:
    """The nearest multiple of `step`, halves away from nought: 1249.5 by 1 is 1250, by 1000 it is 1000."""
    return int((Decimal(str(value)) / step).to_integral_value(context=_EXACT)) * step


def _text(field: FieldSchema, cut_to: int | None) -> Coerce:
    length = field.length
    one_line = field.kind is not FieldKind.LONG_TEXT

    def coerce(value: Any) -> Value:
        text = value if type(value) is str else plain(value)
        if not text.isprintable():
            text = _NOT_IN_A_LINE.sub(" ", text) if one_line else _NOT_IN_A_TEXT.sub("", text)
        text = text.strip()
        if cut_to is not None:
            text = cut(text, cut_to)
        if length is not None and len(text) > length:
            raise NotFitting(
                f"Apollo's text has {len(text)} characters and the field takes {length}; `max: {length}` would cut it"
            )
        return text

    return coerce


def _number(value: Any) -> Decimal:
    if isinstance(value, str):
        value = value.strip()
        if not _PLAIN_NUMBER.match(value):
            raise NotFitting(f"Apollo's text of {len(value)} characters is not a number")
    elif isinstance(value, bool) or not isinstance(value, int | float | Decimal):
        raise NotFitting(f"Apollo's value is {_kind(value)}, not a number")
    try:
        number = Decimal(str(value))
    except InvalidOperation:
        raise NotFitting("Apollo's value is not a number") from None
    if not number.is_finite():
        raise NotFitting("Apollo's value is not a number")
    return number


def _whole(field: FieldSchema) -> Coerce:
    too_big = None if field.digits is None else 10**field.digits

    def coerce(value: Any) -> Value:
        if type(value) is int:
            number = value
        elif type(value) is float and value.is_integer() and abs(value) < _EXACT_IN_A_FLOAT:
            number = int(value)
        else:
            exact = _number(value)
            if exact != exact.to_integral_value(context=_EXACT):
                raise NotFitting(
                    "Apollo's number has decimals and the field takes whole numbers; `round: 1` would round it"
                )
            number = int(exact)
        if too_big is not None and abs(number) >= too_big:
            raise NotFitting(f"Apollo's number has {len(str(abs(number)))} digits and the field takes {field.digits}")
        return number

    return coerce


def _decimal(field: FieldSchema) -> Coerce:
    """Rounded to the field's decimals: a currency without any takes 345600000.5 as 345600001."""
    too_big = None if field.digits is None else 10**field.digits
    last_place = None if field.scale is None else Decimal(1).scaleb(-field.scale)

    def coerce(value: Any) -> Value:
        if type(value) is int:
            number: int | Decimal = value
        elif type(value) is float and value.is_integer() and abs(value) < _EXACT_IN_A_FLOAT:
            number = int(value)
        else:
            number = _number(value)
            if last_place is not None:
                number = number.quantize(last_place, context=_EXACT)
            if number == number.to_integral_value(context=_EXACT):
                number = int(number)
        if too_big is not None and abs(number) >= too_big:
            raise NotFitting(
                f"Apollo's number has {len(str(abs(int(number))))} digits and the field takes {field.digits}"
            )
        return number if isinstance(number, int) else float(number)

    return coerce


def _checkbox(value: Any) -> Value:
    if isinstance(value, bool):
        return value
    word = str(value).strip().casefold() if isinstance(value, str | int) else ""
    if word in ("true", "yes", "1"):
        return True
    if word in ("false", "no", "0"):
        return False
    raise NotFitting(f"Apollo's value is {_kind(value)}, not yes or no")


def _date(value: Any) -> Value:
    """An ISO date, or the day of an ISO date and time as Apollo wrote it."""
    found = _ISO_DATE.match(value.strip()) if isinstance(value, str) else None
    try:
        return date.fromisoformat(found[1]).isoformat() if found else _not_a_date()
    except ValueError:
        return _not_a_date()


def _datetime(value: Any) -> Value:
    """In UTC, to the second; a date is its midnight, a time without zone is UTC."""
    text = value.strip() if isinstance(value, str) else ""
    if not _ISO_DATE.match(text):
        return _not_a_date()
    try:
        moment = datetime.fromisoformat(text)
        moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (ValueError, OverflowError):
        return _not_a_date()
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ") if moment.year >= 1000 else _not_a_date()


def _not_a_date() -> Value:
    raise NotFitting("Apollo's value is not a date")


def _kind(value: Any) -> str:
    if isinstance(value, bool):
        return "yes or no"
    if isinstance(value, int | float | Decimal):
        return "a number"
    if isinstance(value, str):
        return "a text"
    return "a list" if isinstance(value, list | tuple) else "a group of values"
