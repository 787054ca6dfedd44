"""Search filters, from JSON to a test of one property's value. Pure: nothing here knows records."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Any

from crm_sync.sandbox.hubspot import moments
from crm_sync.sandbox.hubspot.errors import RequestError, invalid, wrong_type
from crm_sync.sandbox.hubspot.properties import Property

#: A test of a value as it is kept; None is blank.
Test = Callable[[str | None], bool]

OPERATORS = (
    "EQ", "NEQ", "LT", "LTE", "GT", "GTE", "BETWEEN", "IN", "NOT_IN", "HAS_PROPERTY", "NOT_HAS_PROPERTY",
    "CONTAINS_TOKEN", "NOT_CONTAINS_TOKEN",
)  # fmt: skip
MOST_VALUES = 100

_ORDERED = ("LT", "LTE", "GT", "GTE", "BETWEEN")
_TOKENS = ("CONTAINS_TOKEN", "NOT_CONTAINS_TOKEN")
_LISTS = ("IN", "NOT_IN")
_PRESENCE = ("HAS_PROPERTY", "NOT_HAS_PROPERTY")
_KEYS = ("propertyName", "operator", "value", "highValue", "values")

_COMPARE: Mapping[str, Callable[[Any, Any], bool]] = {
    "LT": lambda a, b: bool(a < b),
    "LTE": lambda a, b: bool(a <= b),
    "GT": lambda a, b: bool(a > b),
    "GTE": lambda a, b: bool(a >= b),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """One condition, its parts as sent."""

    property: str
    operator: str
    value: str = ""
    high: str = ""
    values: tuple[str, ...] = ()


def parse(raw: Any, properties: Mapping[str, Property]) -> Filter:
    """Read one filter.

    Raises:
        RequestError: 400, for what the search would refuse.
    """
    if not isinstance(raw, dict):
        raise wrong_type("a filter", "com.hubspot.crm.search.Filter")
    if unknown := [key for key in raw if key not in _KEYS]:
        raise invalid(f'Unrecognized field "{unknown[0]}" in a filter')
    name, operator = raw.get("propertyName"), raw.get("operator")
    if not isinstance(name, str) or not name:
        raise invalid("Some required fields were not set: [propertyName]")
    if operator not in OPERATORS:
        raise invalid(f"operator {operator} is not one of [{', '.join(OPERATORS)}]")
    _property(name, properties)
    needed = _needed(operator)
    found: dict[str, Any] = {}
    for key in ("value", "highValue"):
        text = raw.get(key)
        if text is not None and not isinstance(text, str):
            raise wrong_type(key, "java.lang.String")
        if key in needed and not text:
            raise invalid(f"operator {operator} on {name} requires the field {key}")
        found[key] = text or ""
    values = raw.get("values")
    if values is not None and (not isinstance(values, list) or not all(isinstance(each, str) for each in values)):
        raise wrong_type("values", "java.util.ArrayList<java.lang.String>")
    if "values" in needed and not values:
        raise invalid(f"operator {operator} on {name} requires the field values")
    if len(values or ()) > MOST_VALUES:
        raise invalid(f"operator {operator} on {name}: too many values, at most {MOST_VALUES} are allowed")
    return Filter(
        property=name, operator=operator, value=found["value"], high=found["highValue"], values=tuple(values or ())
    )


def _needed(operator: str) -> tuple[str, ...]:
    if operator in _PRESENCE:
        return ()
    if operator in _LISTS:
        return ("values",)
    return ("value", "highValue") if operator == "BETWEEN" else ("value",)


def _property(name: str, properties: Mapping[str, Property]) -> Property:
    found = properties.get(name)
    if found is None or not found.searchable:
        what = "does not exist" if found is None else f"of type {found.type} cannot be searched by"
        message = f"There was a problem with the request. Property {name} {what}."
        error = {"message": message, "code": "PROPERTY_DOESNT_EXIST", "context": {"propertyName": [name]}}
        raise invalid(message, errors=[error])
    return found


def compile_test(given: Filter, property_: Property) -> Test:
    """The test a filter makes of its property's value. A blank value only passes NOT_HAS_PROPERTY and
    NOT_CONTAINS_TOKEN: whoever wants blank ones beside NEQ or NOT_IN says so in a group of its own.

    Raises:
        RequestError: 400 for an operator or value that the property's type does not take.
    """
    operator = given.operator
    if operator == "HAS_PROPERTY":
        return lambda value: value is not None
    if operator == "NOT_HAS_PROPERTY":
        return lambda value: value is None
    if operator in _TOKENS:
        return _tokens(given, property_)
    if property_.type in ("number", "date", "datetime"):
        return _measured(given, property_)
    if property_.type in ("enumeration", "bool"):
        return _chosen(given, property_)
    return _written(given)


def _measured(given: Filter, property_: Property) -> Test:
    read = _reader(property_)

    def operand(text: str) -> Any:
        found = read(text)
        if found is None:
            raise invalid(f"{text} is not a valid {property_.type} for {property_.name}")
        return found

    operator = given.operator
    if operator in _LISTS:
        listed, wanted = frozenset(map(operand, given.values)), operator == "IN"
        return lambda value: value is not None and (read(value) in listed) is wanted
    bound = operand(given.value)
    if property_.type == "datetime" and bound == 0:
        # Seen live by others: a search from the epoch on is an internal error (contracts/hubspot.md 2.2, 2026-11).
        raise RequestError(500, "internal error")
    if operator in ("EQ", "NEQ"):
        wanted = operator == "EQ"
        return lambda value: value is not None and (read(value) == bound) is wanted
    if operator == "BETWEEN":
        top = operand(given.high)
        return lambda value: value is not None and bound <= read(value) <= top
    compare = _COMPARE[operator]
    return lambda value: value is not None and compare(read(value), bound)


def _reader(property_: Property) -> Callable[[str], Any]:
    if property_.type == "number":
        return _number
    return moments.date_ms if property_.type == "date" else moments.datetime_ms


def _number(text: str) -> int | Decimal | None:
    try:
        return int(text)
    except ValueError:
        pass
    try:
        found = Decimal(text)
    except InvalidOperation:
        return None
    return found if found.is_finite() else None


def _chosen(given: Filter, property_: Property) -> Test:
    """Enumerations compare exactly, upper and lower case too; of several choices IN means any of them."""
    operator = given.operator
    if operator in _ORDERED:
        raise invalid(f"operator {operator} is not supported for the {property_.type} property {property_.name}")
    wanted = operator in ("EQ", "IN")
    if operator in _LISTS:
        listed = frozenset(given.values)
        if property_.is_multiple:
            return lambda value: value is not None and (not listed.isdisjoint(value.split(";"))) is wanted
        return lambda value: value is not None and (value in listed) is wanted
    exact = given.value
    if property_.is_multiple:
        several = frozenset(exact.split(";"))
        return lambda value: value is not None and (frozenset(value.split(";")) == several) is wanted
    return lambda value: value is not None and (value == exact) is wanted


def _written(given: Filter) -> Test:
    """Text compares without case; but IN and NOT_IN take lower case only (contracts/hubspot.md 2.2, 2026-11): a capital
    in their values equals nothing."""
    operator = given.operator
    if operator in _LISTS:
        listed, is_in = frozenset(given.values), operator == "IN"
        return lambda value: value is not None and (value.lower() in listed) is is_in
    low = given.value.lower()
    if operator in ("EQ", "NEQ"):
        wanted = operator == "EQ"
        return lambda value: value is not None and (value.lower() == low) is wanted
    if operator == "BETWEEN":
        high = given.high.lower()
        return lambda value: value is not None and low <= value.lower() <= high
    compare = _COMPARE[operator]
    return lambda value: value is not None and compare(value.lower(), low)


_WORD = re.compile(r"\w+")


def _tokens(given: Filter, property_: Property) -> Test:
    """Whole words, * standing for any letters; a pattern with other signs is looked for among the words between blanks,
    so that *@example.com finds addresses."""
    if property_.type not in ("string", "enumeration", "phone_number"):
        raise invalid(f"operator {given.operator} is not supported for the {property_.type} property {property_.name}")
    patterns = [
        re.compile(r"\w*".join(map(re.escape, part.split("*"))) + r"\Z")
        if _WORD.fullmatch(part.replace("*", "")) or not part.strip("*")
        else re.compile(r"\S*".join(map(re.escape, part.split("*"))) + r"\Z")
        for part in given.value.lower().split()
    ]
    wanted = given.operator == "CONTAINS_TOKEN"

    def test(value: str | None) -> bool:
        if value is None:
            return not wanted
        low = value.lower()
        words = set(_WORD.findall(low)) | set(low.split())
        return all(any(pattern.match(word) for word in words) for pattern in patterns) is wanted

    return test
