"""Searches: the limits on a question, and its answer from an index that is a little late.

Nobody scans all records for every page. What a question asks beyond the id is kept as one byte per record, which
says whether it matches; pages walk over those bytes, and a write only has its own byte looked at again.
"""

from __future__ import annotations

import heapq
import re
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from crm_sync.sandbox.hubspot import filters, moments
from crm_sync.sandbox.hubspot.errors import bad_json, invalid, wrong_type
from crm_sync.sandbox.hubspot.filters import Filter
from crm_sync.sandbox.hubspot.properties import Property
from crm_sync.sandbox.hubspot.records import Row, Table

# The caps of contracts/hubspot.md 2.2 (2026-11).
MOST_GROUPS = 5
MOST_FILTERS_A_GROUP = 6
MOST_FILTERS = 18
LONGEST_BODY = 3_000
MOST_RESULTS = 200
DEFAULT_RESULTS = 10
DEEPEST = 10_000

#: Questions whose matches are kept, per object type.
_KEPT = 8
_BLOCK = 4_096
_KEYS = ("filterGroups", "sorts", "properties", "limit", "after", "query")
_ID = "hs_object_id"

Group = tuple[Filter, ...]
Predicate = Callable[[Row], bool]


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    groups: tuple[Group, ...]
    properties: tuple[str, ...] | None
    limit: int
    after: int
    sort: str
    descending: bool


def parse(body: bytes, properties: dict[str, Property]) -> Question:
    """Read a search's body.

    Raises:
        RequestError: 400.
    """
    try:
        text = body.decode()
        raw = orjson.loads(body)
    except (UnicodeDecodeError, orjson.JSONDecodeError) as error:
        raise bad_json("Unexpected character or end of input") from error
    if len(text) > LONGEST_BODY:
        raise invalid(f"The request body is too long: {len(text)} characters, at most {LONGEST_BODY} are allowed")
    if not isinstance(raw, dict):
        raise wrong_type("the body", "com.hubspot.crm.search.PublicObjectSearchRequest")
    if unknown := [key for key in raw if key not in _KEYS]:
        raise bad_json(f'Unrecognized field "{unknown[0]}"')
    if "query" in raw:
        raise invalid("The crm-sync sandbox does not simulate the field query")
    limit, after = _limit(raw), _after(raw)
    if after + limit > DEEPEST:
        raise invalid(f"A search reaches no further than {DEEPEST} results: after {after} plus limit {limit} is more")
    sort, descending = _sort(raw, properties)
    return Question(
        groups=_groups(raw.get("filterGroups", []), properties),
        properties=_names(raw.get("properties")) if "properties" in raw else None,
        limit=limit,
        after=after,
        sort=sort,
        descending=descending,
    )


def _limit(raw: dict[str, Any]) -> int:
    limit = raw.get("limit", DEFAULT_RESULTS)
    if not isinstance(limit, int) or isinstance(limit, bool):
        raise wrong_type("limit", "int")
    if not 1 <= limit <= MOST_RESULTS:
        raise invalid(f"limit must be between 1 and {MOST_RESULTS}, it is {limit}")
    return limit


def _after(raw: dict[str, Any]) -> int:
    if "after" not in raw:
        return 0
    after = raw["after"]
    if not isinstance(after, str) or not re.fullmatch(r"\d+", after):
        raise wrong_type("after", "int")
    return int(after)


def _names(raw: Any) -> tuple[str, ...]:
    if not isinstance(raw, list) or not all(isinstance(each, str) and each for each in raw):
        raise wrong_type("properties", "java.util.ArrayList<java.lang.String>")
    return tuple(raw)


def _sort(raw: dict[str, Any], properties: dict[str, Property]) -> tuple[str, bool]:
    """(property, descending?); records come in the order they were made unless told otherwise."""
    sorts = raw.get("sorts", [])
    if not isinstance(sorts, list):
        raise wrong_type("sorts", "java.util.ArrayList")
    if len(sorts) > 1:
        raise invalid("Only one sort is allowed")
    if not sorts:
        return _ID, False
    (sort,) = sorts
    if isinstance(sort, str):
        name: Any = sort.removeprefix("-")
        descending = sort.startswith("-")
    elif isinstance(sort, dict) and set(sort) <= {"propertyName", "direction"}:
        name, direction = sort.get("propertyName"), sort.get("direction", "ASCENDING")
        if direction not in ("ASCENDING", "DESCENDING"):
            raise invalid(f"direction {direction} is not one of [ASCENDING, DESCENDING]")
        descending = direction == "DESCENDING"
    else:
        raise wrong_type("a sort", "com.hubspot.crm.search.Sort")
    if not isinstance(name, str) or name not in properties or not properties[name].searchable:
        raise invalid(f"There was a problem with the request. Property {name} cannot be sorted by.")
    return name, descending


def _groups(raw: Any, properties: dict[str, Property]) -> tuple[Group, ...]:
    if not isinstance(raw, list):
        raise wrong_type("filterGroups", "java.util.ArrayList<com.hubspot.crm.search.FilterGroup>")
    if len(raw) > MOST_GROUPS:
        raise invalid(f"Too many filterGroups: {len(raw)}, at most {MOST_GROUPS} are allowed")
    groups: list[Group] = []
    for group in raw:
        listed = group.get("filters") if isinstance(group, dict) and set(group) == {"filters"} else None
        if not isinstance(listed, list) or not listed:
            raise invalid("Each filter group needs a list of filters")
        if len(listed) > MOST_FILTERS_A_GROUP:
            raise invalid(f"Too many filters in a group: {len(listed)}, at most {MOST_FILTERS_A_GROUP} are allowed")
        groups.append(tuple(filters.parse(each, properties) for each in listed))
    total = sum(map(len, groups))
    if total > MOST_FILTERS:
        raise invalid(f"Too many filters: {total}, at most {MOST_FILTERS} are allowed in all")
    return tuple(groups)


# --- answering ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A page of rows as the index sees them, and how many match in all."""

    rows: list[Row]
    total: int


class Searches:
    """Answers questions about one table. Every method is called with the portal's lock held."""

    def __init__(self, table: Table) -> None:
        self._table = table
        self._kept: OrderedDict[bytes, _Matches] = OrderedDict()
        #: Rows tested so far, for those who care what a search costs.
        self.tested = 0
        table.seen_anew.append(self._look_again)

    def forget(self) -> None:
        """Something changed that moves many records at once."""
        self._kept.clear()

    def answer(self, question: Question) -> Found:
        """
        Raises:
            RequestError: a filter's value does not fit its property.
        """
        self._table.catch_up()
        span, only, groups = self._split(question.groups)
        if only is not None:
            return self._among(question, sorted(i for i in only if span.start <= i < span.stop), groups)
        matches = self._matches(groups)
        first, last = span.start, max(span.stop, span.start)
        total = matches.count(first, last)
        if question.sort == _ID:
            walk = matches.backward(first, last) if question.descending else matches.forward(first, last)
            picked = _slice(walk, question.after, question.limit)
            return Found(rows=[self._table.indexed(index) for index in picked], total=total)
        rows = (self._table.indexed(index) for index in matches.forward(first, last))
        return Found(rows=self._sorted(rows, question), total=total)

    def _among(self, question: Question, candidates: Sequence[int], groups: tuple[Group, ...]) -> Found:
        """The answer to a question that names its records."""
        predicate = self._predicate(groups)
        rows = [row for row in map(self._table.indexed, candidates) if row.is_living and predicate(row)]
        end = question.after + question.limit
        if question.sort == _ID:
            ordered = rows[::-1] if question.descending else rows
            return Found(rows=ordered[question.after : end], total=len(rows))
        return Found(rows=self._sorted(rows, question), total=len(rows))

    def _sorted(self, rows: Iterable[Row], question: Question) -> list[Row]:
        get, property_ = self._table.getter(question.sort), self._table.properties[question.sort]
        read = _SORT_KEYS.get(property_.type, str.lower)
        end = question.after + question.limit
        blank: list[Row] = []

        def filled() -> Iterator[tuple[Any, int, Row]]:
            for row in rows:
                value = get(row)
                if value is not None:
                    yield read(value), row.index, row
                elif len(blank) < end:
                    blank.append(row)

        if question.descending:
            best = heapq.nlargest(end, filled(), key=lambda each: (each[0], -each[1]))
        else:
            best = heapq.nsmallest(end, filled(), key=lambda each: each[:2])
        return [*(row for _, _, row in best), *blank][question.after : end]

    # --- the id apart from the rest ---

    def _split(self, groups: tuple[Group, ...]) -> tuple[range, set[int] | None, tuple[Group, ...]]:
        """What all groups say alike of the id, as a span of indexes and a set of them, and what else they ask. Groups
        that differ about the id keep their id filters."""
        whole = range(self._table.count)
        if not groups:
            return whole, None, ()
        of_id = [tuple(each for each in group if each.property == _ID and each.operator in _BOUNDS) for group in groups]
        if any(part != of_id[0] for part in of_id):
            return whole, None, groups
        first, last = whole.start, whole.stop
        only: set[int] | None = None
        for each in of_id[0]:
            low, high, listed = self._bounds(each)
            first, last = max(first, low), min(last, high)
            if listed is not None:
                only = listed if only is None else only & listed
        rest = tuple(tuple(each for each in group if each not in of_id[0]) for group in groups)
        return range(first, max(first, last)), only, () if () in rest else rest

    def _bounds(self, each: Filter) -> tuple[int, int, set[int] | None]:
        """The indexes a filter on the id leaves: from, before, and if it names them, which."""
        table = self._table
        if each.operator in ("IN", "EQ"):
            ids = each.values if each.operator == "IN" else (each.value,)
            for text in ids:
                _whole(text)
            return 0, table.count, {index for text in ids if (index := table.index_of(text)) is not None}
        value = _whole(each.value)
        if each.operator == "BETWEEN":
            return table.first_from(value), table.first_from(_whole(each.high) + 1), None
        if each.operator in ("GT", "GTE"):
            return table.first_from(value + (each.operator == "GT")), table.count, None
        return 0, table.first_from(value + (each.operator == "LTE")), None

    # --- what matches ---

    def _predicate(self, groups: tuple[Group, ...]) -> Predicate:
        """Whether a living row answers to any of the groups; no groups: every row does."""
        table = self._table
        compiled = [
            [
                (table.getter(each.property), filters.compile_test(each, table.properties[each.property]))
                for each in group
            ]
            for group in groups
        ]
        if not compiled:
            return lambda _row: True

        def answers(row: Row) -> bool:
            for tests in compiled:
                for get, test in tests:
                    if not test(get(row)):
                        break
                else:
                    return True
            return False

        return answers

    def _matches(self, groups: tuple[Group, ...]) -> _Matches:
        key = orjson.dumps([[[f.property, f.operator, f.value, f.high, f.values] for f in group] for group in groups])
        matches = self._kept.get(key)
        if matches is None:
            matches = self._kept[key] = self._scan(self._predicate(groups))
            while len(self._kept) > _KEPT:
                self._kept.popitem(last=False)
        self._kept.move_to_end(key)
        for index in matches.stale:
            row = self._table.indexed(index)
            matches.put(index, row.is_living and matches.predicate(row))
        self.tested += len(matches.stale)
        matches.stale.clear()
        return matches

    def _scan(self, predicate: Predicate) -> _Matches:
        table = self._table
        bits = bytearray(table.count)
        for row in table.rows(0, table.count, as_indexed=True):
            if row.is_living and predicate(row):
                bits[row.index] = 1
        self.tested += table.count
        return _Matches(bits, predicate)

    def _look_again(self, indexes: Iterable[int]) -> None:
        listed = list(indexes)
        for matches in self._kept.values():
            matches.stale.update(listed)


class _Matches:
    """One byte per record, 1 where it matches, and the sums of blocks of them. `stale`: to be tested again."""

    def __init__(self, bits: bytearray, predicate: Predicate) -> None:
        self.predicate = predicate
        self.stale: set[int] = set()
        self._bits = bits
        self._sums = [bits.count(1, start, start + _BLOCK) for start in range(0, len(bits), _BLOCK)]

    def put(self, index: int, matches: bool) -> None:
        while index >= len(self._bits):  # records that a merge made
            if len(self._bits) % _BLOCK == 0:
                self._sums.append(0)
            self._bits.append(0)
        self._sums[index // _BLOCK] += matches - self._bits[index]
        self._bits[index] = matches

    def count(self, first: int, last: int) -> int:
        block, end = -(-first // _BLOCK), last // _BLOCK
        if block >= end:
            return self._bits.count(1, first, last)
        edges = self._bits.count(1, first, block * _BLOCK) + self._bits.count(1, end * _BLOCK, last)
        return sum(self._sums[block:end]) + edges

    def forward(self, first: int, last: int) -> Iterator[int]:
        find = self._bits.find
        index = find(1, first, last)
        while index >= 0:
            yield index
            index = find(1, index + 1, last)

    def backward(self, first: int, last: int) -> Iterator[int]:
        find = self._bits.rfind
        index = find(1, first, last)
        while index >= 0:
            yield index
            index = find(1, first, index)


#: Operators on the id that leave a span or a set of records.
_BOUNDS = ("EQ", "IN", "GT", "GTE", "LT", "LTE", "BETWEEN")
_SORT_KEYS: dict[str, Callable[[str], Any]] = {
    "number": float,
    "date": lambda text: moments.date_ms(text) or 0,
    "datetime": lambda text: moments.datetime_ms(text) or 0,
}


def _whole(text: str) -> int:
    if not re.fullmatch(r"-?\d+", text):
        raise invalid(f"{text} is not a valid number for {_ID}")
    return int(text)


def _slice(walk: Iterator[int], after: int, limit: int) -> list[int]:
    picked: list[int] = []
    for place, index in enumerate(walk):
        if place >= after:
            picked.append(index)
            if len(picked) == limit:
                break
    return picked
