"""HubSpot searches: what a Selection asks, cut into queries that keep within the search's caps. Pure."""

from __future__ import annotations

import difflib
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any

from adapters.hubspot.wire import ID, to_text
from crm_sync.domain.records import FieldKind, FieldSchema, ObjectSchema
from crm_sync.ports import Selection, Within

# The search's caps (contracts/hubspot.md 2.2, 2026-11). Its specification names 6 groups and a changelog of 2024 names
# 25 filters; these are the ones the guide states.
PAGE = 200
MOST_GROUPS = 5
MOST_FILTERS_A_GROUP = 6
MOST_FILTERS = 18
LONGEST_BODY = 3_000
MOST_VALUES = 100

OPERATORS = (
    "EQ", "NEQ", "LT", "LTE", "GT", "GTE", "BETWEEN", "IN", "NOT_IN", "HAS_PROPERTY", "NOT_HAS_PROPERTY",
    "CONTAINS_TOKEN", "NOT_CONTAINS_TOKEN",
)  # fmt: skip
_NEEDS = {
    "IN": ("values",),
    "NOT_IN": ("values",),
    "BETWEEN": ("value", "highValue"),
    "HAS_PROPERTY": (),
    "NOT_HAS_PROPERTY": (),
}
_KEYS = ("property", "operator", "value", "values", "highValue")
_EXACT = ("EQ", "NEQ", "IN", "NOT_IN")
_CHOICES = (FieldKind.PICKLIST, FieldKind.MULTI_PICKLIST)
#: Kinds that HubSpot keeps as free text, so that somebody may have typed "n/a" there.
_FREE_TEXT = (FieldKind.TEXT, FieldKind.LONG_TEXT, FieldKind.EMAIL, FieldKind.PHONE, FieldKind.URL)

Filter = dict[str, Any]
Group = tuple[Filter, ...]
#: The OR-groups of one query, without the id filter that each of them gets.
Query = tuple[Group, ...]

# An id has 12 or more digits today; reserve room for the longest 64-bit one.
_LONGEST_ID = "9" * 19


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """One way for a record to be due: a filter, and the same test for a record in hand."""

    filter: Filter
    field: str
    placeholders: tuple[str, ...] = ()

    def holds(self, properties: Mapping[str, Any]) -> bool:
        value = properties.get(self.field)
        if not self.placeholders:
            return not value
        return isinstance(value, str) and value.strip().casefold() in self.placeholders


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How a Selection can be searched.

    `due` are the queries that together find exactly the due records, None when no query can say it (an AND-list of the
    admin's that leaves no room for one filter more). `all` find every record of `where`, to be sifted in hand.
    `conditions_of` holds for each query of `due` what makes a record answer to it. `properties` go into each search;
    `thin`: they found no room there, and `needed` must be fetched by batch read.
    """

    due: tuple[Query, ...] | None
    all: tuple[Query, ...]
    conditions_of: tuple[tuple[Condition, ...], ...]
    properties: tuple[str, ...]
    needed: tuple[str, ...]
    thin: bool


# --- where --------------------------------------------------------------------------------------------------------


def or_groups(where: Any) -> list[list[Any]]:
    """The admin's filter as OR-list of AND-lists; a flat list of filters is one AND-list, None is no filter."""
    if not where:
        return []
    if not isinstance(where, list | tuple):
        return [[where]]
    if not any(isinstance(each, list | tuple) for each in where):
        return [list(where)]
    return [list(each) if isinstance(each, list | tuple) else [each] for each in where]


def filter_of(each: Mapping[str, Any], schema: ObjectSchema) -> Filter:
    """{property, operator, value, values, highValue} as the search takes it; values as text, IN of text lower-case."""
    found: Filter = {"propertyName": each["property"], "operator": each["operator"]}
    for key in _NEEDS.get(each["operator"], ("value",)):
        value = each.get(key)
        if key == "values":
            listed = value if isinstance(value, list | tuple) else [value]
            found[key] = _listed((_filter_text(one) for one in listed), schema.fields.get(each["property"]))
        else:
            found[key] = _filter_text(value)
    return found


def _within(within: Within, schema: ObjectSchema) -> Filter:
    """Milliseconds for both kinds: a date is its midnight in UTC (contracts/hubspot.md 3, 2026-11)."""
    field = schema.fields.get(within.field)
    is_date = field is not None and field.kind is FieldKind.DATE
    bounds = [_milliseconds(moment, whole_day=is_date) for moment in (within.first, within.last)]
    return {"propertyName": within.field, "operator": "BETWEEN", "value": bounds[0], "highValue": bounds[1]}


def _milliseconds(moment: datetime, *, whole_day: bool) -> str:
    seconds = int(moment.timestamp())
    # Never 0: a search from the epoch on is an internal error (contracts/hubspot.md 2.2, 2026-11).
    return str(max(seconds - seconds % 86_400 if whole_day else seconds, 86_400) * 1000)


def _filter_text(value: Any) -> str:
    if isinstance(value, bool | int | float | Decimal | str):
        return to_text(value) or ""
    return str(value)


def _listed(values: Iterable[str], field: FieldSchema | None) -> list[str]:
    # IN and NOT_IN on text need lower case; an enumeration's values are compared as they stand (hubspot.md 2.2).
    if field is not None and field.kind in _CHOICES:
        return list(values)
    return [value.lower() for value in values]


# --- what makes a record due --------------------------------------------------------------------------------------


def conditions(missing_any: Sequence[str], placeholders: Sequence[str], schema: ObjectSchema) -> list[Condition]:
    """For each field one for "has no value" and, where its kind can hold one, one for "is a placeholder"."""
    words = tuple(dict.fromkeys(word.strip().casefold() for word in placeholders if word.strip()))
    blanks = [
        Condition(filter={"propertyName": name, "operator": "NOT_HAS_PROPERTY"}, field=name) for name in missing_any
    ]
    return blanks + [found for name in missing_any if (found := _placeholder(name, words, schema)) is not None]


def _placeholder(name: str, words: tuple[str, ...], schema: ObjectSchema) -> Condition | None:
    field = schema.fields.get(name)
    if field is None or not words:
        return None
    if field.kind in _FREE_TEXT:
        values = tuple(word.lower() for word in words)
    elif field.kind is FieldKind.PICKLIST:
        values = tuple(c.value for c in field.choices if c.value.strip().casefold() in words)
    else:
        values = ()
    if not values:
        return None
    return Condition(
        filter={"propertyName": name, "operator": "IN", "values": list(values)}, field=name, placeholders=words
    )


# --- the queries --------------------------------------------------------------------------------------------------


def plan(selection: Selection, schema: ObjectSchema) -> Plan:
    """Raises nothing: what cannot be searched was named by `check`, and is left out of `due` here."""
    where = [tuple(filter_of(each, schema) for each in group) for group in or_groups(selection.where)] or [()]
    if selection.within is not None:
        where = [(_within(selection.within, schema), *group) for group in where]
    everything = [(group, None) for group in where]
    wanted = conditions(selection.missing_any, selection.placeholders, schema)
    lacking = [((*group, condition.filter), condition) for condition in wanted for group in where] or everything
    needed = tuple(dict.fromkeys((*selection.fields, *selection.missing_any)))
    due, every = _packed(lacking, needed), _packed(everything, needed)
    # The property list shares the 3,000 characters with the filters; what finds no room is fetched by batch read.
    thin = every is None or (due is None and _packed(lacking, ()) is not None)
    if thin:
        due, every = _packed(lacking, ()), _packed(everything, ())
    return Plan(
        due=tuple(query for query, _ in due) if due is not None else None,
        all=tuple(query for query, _ in every or [(tuple(where), ())]),
        conditions_of=tuple(found for _, found in due or ()),
        properties=() if thin else needed,
        needed=needed,
        thin=thin,
    )


def _packed(
    groups: Sequence[tuple[Group, Condition | None]], properties: Sequence[str]
) -> list[tuple[Query, tuple[Condition, ...]]] | None:
    """`groups` in as few queries as the caps allow, in order; None when one of them fits in none."""
    packed: list[tuple[list[Group], list[Condition]]] = []
    for group, condition in groups:
        if not _fits([group], properties):
            return None
        if not packed or not _fits([*packed[-1][0], group], properties):
            packed.append(([], []))
        packed[-1][0].append(group)
        if condition is not None:
            packed[-1][1].append(condition)
    return [(tuple(query), tuple(found)) for query, found in packed]


def _fits(groups: Sequence[Group], properties: Sequence[str]) -> bool:
    return (
        len(groups) <= MOST_GROUPS
        and all(len(group) < MOST_FILTERS_A_GROUP for group in groups)
        and sum(len(group) + 1 for group in groups) <= MOST_FILTERS
        and size(body(groups, properties, id_filter=after_filter(_LONGEST_ID), limit=PAGE)) <= LONGEST_BODY
    )


def body(groups: Sequence[Group], properties: Sequence[str], *, id_filter: Filter, limit: int) -> dict[str, Any]:
    """A search in rising id order. `id_filter` is put before each group's own filters."""
    return {
        "filterGroups": [{"filters": [id_filter, *group]} for group in groups],
        "sorts": [{"propertyName": ID, "direction": "ASCENDING"}],
        # Without the key HubSpot sends a default set; the id's property is the cheapest to ask for.
        "properties": list(properties) or [ID],
        "limit": limit,
    }


def after_filter(after: str) -> Filter:
    return {"propertyName": ID, "operator": "GT", "value": after or "0"}


def ids_filter(ids: Sequence[str]) -> Filter:
    return {"propertyName": ID, "operator": "IN", "values": list(ids)}


def size(query: Mapping[str, Any]) -> int:
    """Characters of the body as hubspot-api-client sends it (json.dumps, ASCII)."""
    return len(json.dumps(query))


def id_chunks(ids: Sequence[str], query: Query, properties: Sequence[str]) -> Iterator[Sequence[str]]:
    """`ids` in pieces that one search of `query` can take; at least one id a piece."""
    start = 0
    while start < len(ids):
        end = min(start + MOST_VALUES, len(ids))
        while end > start + 1:
            over = size(body(query, properties, id_filter=ids_filter(ids[start:end]), limit=PAGE)) - LONGEST_BODY
            if over <= 0:
                break
            # An id costs its digits, two quotes, a comma and a blank, once for each group.
            end = max(start + 1, end - max(1, over // ((len(ids[start]) + 4) * max(1, len(query)))))
        yield ids[start:end]
        start = end


# --- which walk costs least ---------------------------------------------------------------------------------------

#: Below this many records left, the one more search that counts all records costs more than a list walk saves.
WORTH_COUNTING = 5_000


def due_calls(sample: Sequence[Mapping[str, Any]], conditions_of: Sequence[Sequence[Condition]], left: int) -> int:
    """Calls that the queries of Plan.due would take for `left` records, judged by a page of all records."""
    calls = 0
    for found in conditions_of:
        share = sum(any(c.holds(properties) for c in found) for properties in sample) / len(sample) if sample else 0.0
        calls += max(1, math.ceil(share * left / PAGE))
    return calls


def list_is_quicker(*, searches: int, records: int, search_per_s: float, list_per_s: float) -> bool:
    """Whether listing all `records` (100 a call) ends sooner than so many searches (contracts/hubspot.md 2.1)."""
    return records > WORTH_COUNTING and records / 100 / list_per_s < searches / search_per_s


# --- checking -----------------------------------------------------------------------------------------------------


def check(selection: Selection, schema: ObjectSchema) -> list[str]:
    """Sentences about what HubSpot's search would not take; empty when sound."""
    problems = [*_check_names(selection, schema)]
    groups = or_groups(selection.where)
    for group in groups:
        for each in group:
            problems += _check_filter(each, schema)
        if len(group) > MOST_FILTERS_A_GROUP - 1:
            problems.append(
                f"An AND-list of {len(group)} filters is too long: HubSpot takes {MOST_FILTERS_A_GROUP}, and crm-sync "
                f"adds one to page by id; use at most {MOST_FILTERS_A_GROUP - 1}."
            )
    if problems:
        return list(dict.fromkeys(problems))
    for group in groups:
        filters = tuple(filter_of(each, schema) for each in group)
        longest = size(body([filters], (), id_filter=after_filter(_LONGEST_ID), limit=PAGE))
        if longest > LONGEST_BODY:
            problems.append(
                f"An AND-list makes a search of {longest:,} characters; HubSpot takes {LONGEST_BODY:,}: "
                "use fewer or shorter values."
            )
    return problems


def _check_names(selection: Selection, schema: ObjectSchema) -> Iterator[str]:
    for name in dict.fromkeys((*selection.fields, *selection.missing_any)):
        if "." in name:
            yield (
                f"{name}: HubSpot's {schema.object_type} have no parent properties; "
                f"use a property of the record itself, such as {name.rpartition('.')[2].lower()}."
            )
        elif name not in schema.fields and name != ID:
            yield _unknown(name, schema)
    if selection.within is not None:
        field = schema.fields.get(selection.within.field)
        if field is None:
            yield _unknown(selection.within.field, schema)
        elif field.kind not in (FieldKind.DATE, FieldKind.DATETIME) or not field.filterable:
            yield f"HubSpot cannot search {field.name} ({field.native_type}) by time; name a date, or a date and time."
    for name in selection.missing_any:
        field = schema.fields.get(name)
        if field is not None and not field.filterable:
            yield f"HubSpot cannot search by {name} ({field.native_type}); take it out of missing_any."


def _check_filter(each: Any, schema: ObjectSchema) -> Iterator[str]:
    if not isinstance(each, Mapping) or not isinstance(each.get("property"), str):
        yield "A filter is written {property: lifecyclestage, operator: EQ, value: customer}."
        return
    name, operator = each["property"], each.get("operator")
    for key in each:
        if key not in _KEYS:
            yield f"The filter on {name} has an unknown key {key}; it takes {', '.join(_KEYS)}."
    field = schema.fields.get(name)
    if field is None and name != ID:
        yield _unknown(name, schema)
    elif field is not None and not field.filterable:
        yield f"HubSpot cannot search by {name} ({field.native_type}); filter by another property."
    if not isinstance(operator, str) or operator not in OPERATORS:
        near = difflib.get_close_matches(str(operator).upper(), OPERATORS, 1, 0.3)
        hint = f"did you mean {near[0]}?" if near else f"it knows {', '.join(OPERATORS)}."
        yield f"HubSpot has no operator {operator} (filter on {name}); {hint}"
        return
    yield from _check_values(each, name, operator, field)


def _check_values(each: Mapping[str, Any], name: str, operator: str, field: FieldSchema | None) -> Iterator[str]:
    for key in _NEEDS.get(operator, ("value",)):
        value = each.get(key)
        if value is None or value == "" or value == []:
            yield f"The filter on {name} with {operator} needs `{key}`."
            continue
        if key == "values" and (not isinstance(value, list | tuple) or len(value) > MOST_VALUES):
            yield f"The filter on {name}: `values` is a list of at most {MOST_VALUES}."
            continue
        if field is not None and field.kind in _CHOICES and field.choices and operator in _EXACT:
            listed = value if isinstance(value, list | tuple) else [value]
            yield from (_no_choice(_filter_text(one), field) for one in listed if not _is_choice(one, field))


def _is_choice(value: Any, field: FieldSchema) -> bool:
    text = _filter_text(value)
    return any(choice.value == text for choice in field.choices)


def _no_choice(text: str, field: FieldSchema) -> str:
    by_label = [choice.value for choice in field.choices if choice.label.casefold() == text.casefold()]
    near = by_label or difflib.get_close_matches(text, [choice.value for choice in field.choices], 1, 0.5)
    hint = f"did you mean {near[0]}?" if near else "use an option's internal name."
    return f"{text} is not an option of {field.name}; {hint}"


def _unknown(name: str, schema: ObjectSchema) -> str:
    by_label = [field.name for field in schema.fields.values() if field.label.casefold() == name.casefold()]
    near = by_label or difflib.get_close_matches(name.lower(), schema.fields, 1, 0.6)
    hint = f"did you mean {near[0]}?" if near else f"`crm-sync fields {schema.crm} {schema.object_type}` lists them."
    return f"HubSpot's {schema.object_type} have no property {name}; {hint}"
