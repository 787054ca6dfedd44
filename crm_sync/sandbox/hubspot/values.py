"""What may be written into a property: text in, the text that is kept out, or a finding. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from crm_sync.sandbox.hubspot import moments
from crm_sync.sandbox.hubspot.errors import Finding
from crm_sync.sandbox.hubspot.properties import LIFECYCLE, OWNERS, Property

LONGEST_TEXT = 65_536

# Digits with at most one point, no thousands commas, no exponent (contracts/hubspot.md 3, 2026-11).
_NUMBER = re.compile(r"-?\d+(?:\.\d+)?\Z")
_WHOLE = re.compile(r"-?\d+\Z")
_EMAIL = re.compile(r"[^@\s,;<>()]+@[^@\s,;<>().]+(?:\.[^@\s,;<>().]+)+\Z")
_ADDRESSES = ("email", "work_email")


class _BadValueError(Exception):
    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


def judge(
    properties: Mapping[str, Property],
    name: str,
    text: str,
    current: str | None,
    *,
    hidden_options: bool = True,
) -> tuple[str | None, Finding | None]:
    """The value to keep ("" erases: None), or what is wrong with it. `current` is what a leading semicolon adds to."""
    property_ = properties.get(name)
    try:
        if property_ is None or property_.archived:
            raise _BadValueError("PROPERTY_DOESNT_EXIST", f'Property "{name}" does not exist')
        if property_.read_only:
            raise _BadValueError("READ_ONLY_VALUE", f'"{name}" is a read only property; its value cannot be set.')
        if text == "":
            return None, None
        return _READERS.get(property_.type, _text)(property_, text, current, hidden_options), None
    except _BadValueError as bad:
        return None, Finding(property=name, code=bad.code, message=bad.message)


def _text(property_: Property, text: str, _current: str | None, _hidden: bool) -> str:
    if len(text) > LONGEST_TEXT:
        raise _BadValueError(
            "INVALID_LENGTH", f"{property_.name} was {len(text)} characters long; at most {LONGEST_TEXT} are allowed."
        )
    if property_.name in _ADDRESSES:
        if not _EMAIL.match(text):
            raise _BadValueError("INVALID_EMAIL", f"Email address {text} is invalid")
        return text.lower()
    return text


def _number(property_: Property, text: str, _current: str | None, _hidden: bool) -> str:
    if property_.whole:
        if not _WHOLE.match(text):
            code = "INVALID_LONG" if property_.external else "INVALID_INTEGER"
            raise _BadValueError(code, f"{text} was not a valid {code.removeprefix('INVALID_').lower()}.")
    elif not _NUMBER.match(text):
        raise _BadValueError("INVALID_FLOAT", f"{text} was not a valid float.")
    return text


def _date(property_: Property, text: str, _current: str | None, _hidden: bool) -> str:
    ms = moments.date_ms(text)
    if ms is None:
        raise _BadValueError(
            "INVALID_DATE", f"{text} is not a valid date: {property_.name} takes YYYY-MM-DD or midnight UTC in ms."
        )
    return moments.iso(ms)[:10]


def _datetime(_property: Property, text: str, _current: str | None, _hidden: bool) -> str:
    ms = moments.datetime_ms(text)
    if ms is None:
        raise _BadValueError("INVALID_DATE", f"{text} is not a valid datetime: send ISO 8601 with Z, or ms.")
    return moments.iso(ms)


def _choice(property_: Property, text: str, current: str | None, hidden_options: bool) -> str:
    if property_.external:
        allowed: tuple[str, ...] = OWNERS if property_.external == "OWNER" else ()
    else:
        allowed = tuple(each.value for each in property_.options if hidden_options or not each.hidden)
    if not property_.is_multiple:
        _check_option(text, allowed)
        return text
    parts = [part for part in text.split(";") if part]
    for part in parts:
        _check_option(part, allowed)
    # A leading semicolon adds instead of replacing (contracts/hubspot.md 3, 2026-11).
    before = (current or "").split(";") if text.startswith(";") else []
    return ";".join(dict.fromkeys(part for part in (*before, *parts) if part))


def _check_option(text: str, allowed: tuple[str, ...]) -> None:
    if text not in allowed:
        raise _BadValueError("INVALID_OPTION", f"{text} was not one of the allowed options: [{', '.join(allowed)}]")


def _refuse(property_: Property, _text: str, _current: str | None, _hidden: bool) -> str:
    raise _BadValueError(
        "READ_ONLY_VALUE", f"{property_.name} holds {property_.type}, which cannot be written as text."
    )


_READERS: Mapping[str, Callable[[Property, str, str | None, bool], str]] = {
    "string": _text,
    "number": _number,
    "date": _date,
    "datetime": _datetime,
    "enumeration": _choice,
    "bool": _choice,
    "json": _refuse,
    "object_coordinates": _refuse,
}


def goes_back(name: str, value: str | None, current: str | None) -> bool:
    """Whether a write would move the lifecycle stage backwards, which HubSpot ignores unless it was cleared first."""
    if name != "lifecyclestage" or value is None or current is None:
        return False
    return LIFECYCLE.index(value) < LIFECYCLE.index(current)
