"""The small languages inside crm_sync.yaml: durations, bands, conditions, templates, key fields.

Pure, and independent of the file they stand in; what cannot be read raises UnreadableError with a sentence.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal, InvalidOperation
from enum import StrEnum
from typing import Any

#: Longer ones lead out of the calendar: a moment that long ago has no date.
LONGEST = timedelta(days=36500)

_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_DURATION = re.compile(r"([0-9]{1,6})\s*([smhdw])\Z")
_PERCENTAGE = re.compile(r"([0-9]{1,3}(?:\.[0-9]{1,4})?)\s*%\Z")
_TIME = re.compile(r"([01][0-9]|2[0-3]):([0-5][0-9])\Z")
_BAND = re.compile(r"(-?[0-9]+(?:\.[0-9]+)?)?\s*\.\.\s*(-?[0-9]+(?:\.[0-9]+)?)?\Z")
_FIELD = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
_FIELD_OR_PARENT = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(?:\.[A-Za-z_][A-Za-z0-9_]*)?\Z")


class UnreadableError(ValueError):
    """`text` is not what is expected there; `suggestion` shows the right form."""

    def __init__(self, message: str, suggestion: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.suggestion = suggestion


def duration(text: str) -> timedelta:
    """30m, 4h, 120d, 2w. No months and no years: they have no one length."""
    match = _DURATION.match(text.strip())
    if match is None:
        raise UnreadableError("this is not a duration.", "Write a number and m, h, d or w: 30m, 4h, 120d, 2w.")
    span = timedelta(**{_UNITS[match[2]]: int(match[1])})
    if span > LONGEST:
        raise UnreadableError("this is more than a hundred years.", f"Write at most {written(LONGEST)}.")
    return span


def written(span: timedelta) -> str:
    """How a duration is written in the file, in its largest whole unit up to days: 120d, 36h, 90m."""
    seconds = int(span.total_seconds())
    for unit, length in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds % length == 0:
            return f"{seconds // length}{unit}"
    return f"{seconds}s"


def percentage(text: str) -> Decimal:
    """5% -> 5."""
    match = _PERCENTAGE.match(text.strip())
    if match is None or Decimal(match[1]) > 100:
        raise UnreadableError("this is not a percentage.", "Write a number from 0 to 100 and a percent sign: 5%.")
    return Decimal(match[1])


def amount(text: str) -> Decimal:
    """Credits: decimals, not negative."""
    try:
        value = Decimal(text)
    except InvalidOperation:
        value = Decimal(-1)
    if not value.is_finite() or value < 0 or value > 10**9:
        raise UnreadableError("this is not a number of credits.", "Write a number such as 500 or 12.5.")
    return value


def time_of_day(text: str) -> tuple[int, int]:
    """02:30 -> (2, 30)."""
    match = _TIME.match(text)
    if match is None:
        raise UnreadableError("this is not a time of day.", 'Write hours and minutes with 24 hours: "02:30".')
    return int(match[1]), int(match[2])


def band(text: str) -> tuple[float | None, float | None]:
    """1..50 -> (1, 50); 51.. -> (51, None). Both ends belong to the band."""
    match = _BAND.match(text.strip())
    if match is None or not (match[1] or match[2]):
        raise UnreadableError(
            "this is not a range of numbers.", 'Write it with two dots: "1..50", or "51.." without an end.'
        )
    low, high = (float(end) if end else None for end in match.groups())
    if low is not None and high is not None and low > high:
        raise UnreadableError("the range ends before it begins.", f'Write "{match[2]}..{match[1]}".')
    return low, high


def field_name(text: str, *, parent: bool = False) -> str:
    """A field's API name; with `parent` also one of the parent record ("Account.Website")."""
    if (_FIELD_OR_PARENT if parent else _FIELD).match(text) is None:
        raise UnreadableError(
            "this is not the API name of a field.",
            "API names have letters, digits and underscores; `crm-sync fields` lists them.",
        )
    return text


def key_field(text: str) -> tuple[str, bool]:
    """One entry of `match.send`: "Account.Website | domain" -> ("Account.Website", True)."""
    name, pipe, function = (part.strip() for part in text.partition("|"))
    if pipe and function != "domain":
        raise UnreadableError('only "| domain" can follow the field.', 'Write it as in "Account.Website | domain".')
    return field_name(name, parent=True), bool(pipe)


# --- conditions: `when` ----------------------------------------------------------------------------------------


class Operator(StrEnum):
    """How a condition compares; values are compared trimmed and without case."""

    EQUALS = "="
    DIFFERS = "!="
    IN = "in"
    IS_BLANK = "is blank"
    IS_NOT_BLANK = "is not blank"


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """One comparison of `when`. `values` has one entry for = and !=, none for the blank tests.

    A list attribute equals a value when one of its entries does; != and "is blank" never hold for a missing value
    and always hold for it, respectively: "!= x" asks for a value that is there and is not x.
    """

    path: str
    operator: Operator
    values: tuple[str, ...] = ()


_WHEN_HELP = 'Write a condition such as "person.email_status = verified", "… in [a, b]" or "… is not blank".'
_PATH = re.compile(r"\s*([A-Za-z_][A-Za-z0-9_.]*)\s*")
_OPERATOR = re.compile(r"(!=|==|=|in\b|is\s+not\s+blank\b|is\s+blank\b)\s*", re.IGNORECASE)
_VALUE = re.compile(r"\"([^\"]*)\"|'([^']*)'|([^\"',\[\]=]+?)(?=\s*(?:,|\]|\s+and\s|\Z))", re.IGNORECASE)
_DANGLING = re.compile(r"\sor\s|\s(?:and|or)\Z", re.IGNORECASE)
_AND = re.compile(r"\s+and\s+", re.IGNORECASE)


def parse_when(text: str) -> tuple[Condition, ...]:
    """The conditions of a `when`, all of which must hold."""
    conditions: list[Condition] = []
    at = 0
    while True:
        path = _PATH.match(text, at)
        operator = _OPERATOR.match(text, path.end()) if path else None
        if path is None or operator is None:
            raise UnreadableError("this condition cannot be read.", _WHEN_HELP)
        word = " ".join(operator[1].lower().split())
        if word == "==":
            raise UnreadableError('"==" is not an operator here.', "Write a single =.")
        at = operator.end()
        values: tuple[str, ...] = ()
        if word == "in":
            values, at = _list_of_values(text, at)
        elif word in ("=", "!="):
            value, at = _one_value(text, at)
            values = (value,)
        conditions.append(Condition(path=path[1], operator=Operator(word), values=values))
        if not text[at:].strip():
            return tuple(conditions)
        joint = _AND.match(text, at) or _AND.match(text, max(at - 1, 0))
        if joint is None:
            raise UnreadableError("conditions can only be joined by `and`.", "For several values use `in [a, b]`.")
        at = joint.end()


def _one_value(text: str, at: int) -> tuple[str, int]:
    match = _VALUE.match(text, at)
    if match is None:
        raise UnreadableError("a value is missing in this condition.", _WHEN_HELP)
    value = next(group for group in match.groups() if group is not None).strip()
    if match[3] is not None and _DANGLING.search(value):
        raise UnreadableError("conditions can only be joined by `and`.", "For several values use `in [a, b]`.")
    return value, match.end()


def _list_of_values(text: str, at: int) -> tuple[tuple[str, ...], int]:
    if text[at : at + 1] != "[":
        raise UnreadableError("`in` needs a list in brackets.", _WHEN_HELP)
    values: list[str] = []
    at += 1
    while True:
        while text[at : at + 1].isspace():
            at += 1
        value, at = _one_value(text, at)
        values.append(value)
        while text[at : at + 1].isspace():
            at += 1
        mark = text[at : at + 1]
        at += 1
        if mark == "]":
            return tuple(values), at
        if mark != ",":
            raise UnreadableError('the list of `in` has no closing "]".', _WHEN_HELP)


# --- templates ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class TemplatePart:
    """A piece of a template: either `text` as it is, or the attribute at `path`."""

    text: str = ""
    path: str = ""


_PLACEHOLDER = re.compile(r"\{\{\s*([A-Za-z_][A-Za-z0-9_.]*)\s*\}\}")


def parse_template(text: str) -> tuple[TemplatePart, ...]:
    """ "{{ person.city }}, {{ person.country }}" as its pieces, in order."""
    parts: list[TemplatePart] = []
    at = 0
    for match in _PLACEHOLDER.finditer(text):
        if match.start() > at:
            parts.append(TemplatePart(text=text[at : match.start()]))
        parts.append(TemplatePart(path=match[1]))
        at = match.end()
    if at < len(text):
        parts.append(TemplatePart(text=text[at:]))
    if any("{{" in part.text or "}}" in part.text for part in parts):
        raise UnreadableError("a placeholder in this template cannot be read.", "Write it as {{ person.city }}.")
    if not any(part.path for part in parts):
        raise UnreadableError("this template names no Apollo attribute.", "Write one as {{ person.city }}.")
    return tuple(parts)


def both(where: Any, also: Any) -> Any:
    """Two filters of one CRM, both of which must hold: SOQL conditions, or HubSpot's OR-lists of AND-lists."""
    if where is None or also is None:
        return also if where is None else where
    if isinstance(where, str):
        return f"({where}) AND ({also})"
    return [[*one, *other] for one in where for other in also]
