"""HubSpot's search filters: checked as strictly as the service checks them, then compiled into one predicate."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from crm_sync.sandbox.hubspot.properties import Property

Values = Mapping[str, "str | None"]
Test = Callable[[Values], bool]

_ONE_VALUE = ("EQ", "NEQ", "LT", "LTE", "GT", "GTE", "CONTAINS_TOKEN", "NOT_CONTAINS_TOKEN")
_OPERATORS = (*_ONE_VALUE, "BETWEEN", "IN", "NOT_IN", "HAS_PROPERTY", "NOT_HAS_PROPERTY")
MOST_GROUPS, MOST_FILTERS, MOST_IN_ALL = 5, 6, 18


class BadSearchError(ValueError):
    """A search the service answers with 400; the text is its message."""


def groups_of(body: Mapping[str, Any], known: Mapping[str, Property]) -> list[list[dict[str, Any]]]:
    """The checked filter groups; one empty group for no filter at all."""
    groups = body.get("filterGroups")
    if groups is None:
        groups = [{"filters": body["filters"]}] if body.get("filters") else []
    if not isinstance(groups, list) or not all(isinstance(group, dict) for group in groups):
        raise BadSearchError("Invalid input JSON: filterGroups must be a list of objects")
    if len(groups) > MOST_GROUPS:
        raise BadSearchError(f"A maximum of {MOST_GROUPS} filterGroups can be provided")
    checked = [[_filter(one, known) for one in group.get("filters") or ()] for group in groups]
    if any(len(group) > MOST_FILTERS for group in checked):
        raise BadSearchError(f"A maximum of {MOST_FILTERS} filters can be provided in one group")
    if sum(map(len, checked)) > MOST_IN_ALL:
        raise BadSearchError(f"A maximum of {MOST_IN_ALL} filters can be provided")
    return checked or [[]]


def _filter(one: Any, known: Mapping[str, Property]) -> dict[str, Any]:
    if not isinstance(one, dict):
        raise BadSearchError("Invalid input JSON: a filter is an object")
    unknown = set(one) - {"propertyName", "operator", "value", "values", "highValue"}
    if unknown:
        raise BadSearchError(f"Invalid input JSON: a filter has no {', '.join(sorted(unknown))}")
    name, operator = one.get("propertyName"), one.get("operator")
    if not isinstance(name, str) or name not in known:
        raise BadSearchError(f"There was a problem with the request. Property {name} does not exist")
    if operator not in _OPERATORS:
        raise BadSearchError(f"Invalid input JSON: {operator} is not an operator")
    if operator in ("IN", "NOT_IN"):
        values = one.get("values")
        if not isinstance(values, list) or not values:
            raise BadSearchError(f"operator {operator} requires values")
        if known[name].type == "string" and any(str(value) != str(value).lower() for value in values):
            # The service would silently find nothing; a simulator must not hide that.
            raise BadSearchError(f"sandbox: values of {operator} on the text property {name} must be lower-case")
    elif operator == "BETWEEN":
        if one.get("value") is None or one.get("highValue") is None:
            raise BadSearchError("operator BETWEEN requires value and highValue")
    elif operator in _ONE_VALUE and one.get("value") is None:
        raise BadSearchError(f"operator {operator} requires a value")
    return one


def compile_groups(groups: list[list[dict[str, Any]]], known: Mapping[str, Property]) -> Test:
    tests = [[_test(one, known[one["propertyName"]]) for one in group] for group in groups]
    return lambda values: any(all(test(values) for test in group) for group in tests)


def _test(one: Mapping[str, Any], known: Property) -> Test:
    name, operator = one["propertyName"], one["operator"]
    if operator == "HAS_PROPERTY":
        return lambda values: bool(values.get(name))
    if operator == "NOT_HAS_PROPERTY":
        return lambda values: not values.get(name)
    key = _key(known)
    if operator in ("IN", "NOT_IN"):
        wanted = frozenset(key(str(value)) for value in one["values"])
        if operator == "IN":
            return lambda values: bool(values.get(name)) and key(str(values[name])) in wanted
        return lambda values: bool(values.get(name)) and key(str(values[name])) not in wanted
    first = key(str(one["value"]))
    if operator == "BETWEEN":
        high = key(str(one["highValue"]))
        return lambda values: bool(values.get(name)) and first <= key(str(values[name])) <= high
    if operator in ("CONTAINS_TOKEN", "NOT_CONTAINS_TOKEN"):
        word = str(one["value"]).lower().strip("*")
        positive = operator == "CONTAINS_TOKEN"
        return lambda values: bool(values.get(name)) and (word in str(values[name]).lower()) is positive
    compare: Callable[[Any, Any], bool] = {
        "EQ": lambda a, b: a == b,
        "NEQ": lambda a, b: a != b,
        "LT": lambda a, b: a < b,
        "LTE": lambda a, b: a <= b,
        "GT": lambda a, b: a > b,
        "GTE": lambda a, b: a >= b,
    }[operator]
    return lambda values: bool(values.get(name)) and compare(key(str(values[name])), first)


def _key(known: Property) -> Callable[[str], Any]:
    """How values of this property compare: numbers as numbers, options exactly, texts without case."""
    if known.type == "number":
        return _number
    if known.type == "enumeration":
        return str
    return str.lower


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise BadSearchError(f"{text} is not a number") from None
