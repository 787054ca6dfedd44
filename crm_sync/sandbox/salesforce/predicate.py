"""A WHERE tree compiled to one function of a row, and the range of records it can be true for.

Two-valued logic, as in SOQL: a null is a value like any other, so `!=` and NOT IN hold for it. Text compares without
case, and '' is null.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Any

from crm_sync.sandbox.salesforce import clock, ids, soql
from crm_sync.sandbox.salesforce.errors import RequestCode, RequestError
from crm_sync.sandbox.salesforce.schema import Field

if TYPE_CHECKING:
    from crm_sync.sandbox.salesforce.org import Org, Row

Predicate = Callable[["Row"], bool]
Getter = Callable[["Row"], Any]

_ORDERING: dict[str, Callable[[Any, Any], Any]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_MIRROR = {"=": "!=", "!=": "="}


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Which records to look at, and the test for each. `only` are the indexes to look at, None for all of the range
    [first, last); `holds` is None when every record of the range counts."""

    first: int
    last: int
    only: frozenset[int] | None
    holds: Predicate | None


def plan(query: soql.Query, org: Org, object_name: str, now: float) -> Plan:
    """Compile `query.where` for the records of `object_name`.

    Raises:
        RequestError: a name, operator or literal the service refuses.
    """
    compiler = _Compiler(query.text, org, object_name, datetime.fromtimestamp(now, UTC).date())
    first, last = 0, org.count(object_name)
    only: frozenset[int] | None = None
    rest: list[Predicate] = []
    where = query.where
    conjuncts = () if where is None else where.terms if isinstance(where, soql.And) else (where,)
    for term in conjuncts:
        holds = compiler.condition(term)
        if not (isinstance(term, soql.Comparison) and _is_id(term.path)):
            rest.append(holds)
            continue
        places = [org.place(object_name, str(literal.value)) for literal in term.literals if literal.value]
        match term.operator:
            case "=" | "IN":
                found = frozenset(place for place, exact in places if exact)
                only = found if only is None else only & found
            case ">":
                first = max(first, places[0][0] + places[0][1])
            case ">=":
                first = max(first, places[0][0])
            case "<":
                last = min(last, places[0][0])
            case "<=":
                last = min(last, places[0][0] + places[0][1])
            case _:
                rest.append(holds)
    return Plan(first=first, last=last, only=only, holds=_all(rest) if rest else None)


def _is_id(path: soql.Path) -> bool:
    return len(path.names) == 1 and path.names[0].lower() == "id"


def _all(terms: list[Predicate]) -> Predicate:
    if len(terms) == 1:
        return terms[0]
    if len(terms) == 2:
        one, two = terms
        return lambda row: one(row) and two(row)

    def every(row: Row) -> bool:
        for term in terms:  # noqa: SIM110  a generator costs twice as much, once per row
            if not term(row):
                return False
        return True

    return every


def _any(terms: list[Predicate]) -> Predicate:
    if len(terms) == 2:
        one, two = terms
        return lambda row: one(row) or two(row)

    def some(row: Row) -> bool:
        for term in terms:  # noqa: SIM110  a generator costs twice as much, once per row
            if term(row):
                return True
        return False

    return some


class _Compiler:
    def __init__(self, text: str, org: Org, object_name: str, today: date) -> None:
        self._text = text
        self._org = org
        self._object = object_name
        self._today = today

    def condition(self, term: soql.Condition) -> Predicate:
        match term:
            case soql.And(terms):
                return _all([self.condition(part) for part in terms])
            case soql.Or(terms):
                return _any([self.condition(part) for part in terms])
            case soql.Not(inner):
                holds = self.condition(inner)
                return lambda row: not holds(row)
            case soql.Comparison():
                return self._comparison(term)

    def _comparison(self, term: soql.Comparison) -> Predicate:
        field, get = self._org.resolve(self._object, term.path, self._text)
        if not field.filterable:
            raise soql.error_at(
                self._text,
                term.path.position,
                f"field '{term.path.text}' can not be filtered in a query call",
                RequestCode.INVALID_FIELD,
            )
        if field.type in ("id", "reference"):
            return self._ids(term, get)
        if field.is_text:
            return self._words(term, get)
        if field.type == "boolean":
            return self._flag(term, get)
        if field.type in ("int", "double", "currency"):
            return self._numbers(term, field, get)
        if field.type in ("date", "datetime"):
            return self._moments(term, field, get)
        raise self._unsimulated(term, f"a condition on the {field.type} field {field.name}")

    def _words(self, term: soql.Comparison, get: Getter) -> Predicate:
        words: set[str | None] = set()
        for literal in term.literals:
            if literal.kind not in ("string", "null"):
                raise self._mistyped(term, literal, "string", "should be enclosed in quotes")
            words.add(str(literal.value).lower() if literal.value else None)
        if term.operator == "LIKE":
            if words == {None}:
                raise self._unsimulated(term, "LIKE with null")
            return _like(term.literals[0].like, get)
        if term.operator in _ORDERING:
            return self._ordered(term, get, words.pop(), lower=True)
        return _among(words, get, negate=term.operator in ("!=", "NOT IN"), lower=True)

    def _ids(self, term: soql.Comparison, get: Getter) -> Predicate:
        found: set[str | None] = set()
        if term.operator == "LIKE":
            raise soql.error_at(
                self._text,
                term.path.position,
                "invalid operator on id field",
                RequestCode.INVALID_QUERY_FILTER_OPERATOR,
            )
        for literal in term.literals:
            if literal.kind == "null":
                found.add(None)
                continue
            if literal.kind != "string":
                raise self._mistyped(term, literal, "string", "should be enclosed in quotes")
            full = ids.normalise(str(literal.value))
            if full is None:
                raise soql.error_at(
                    self._text,
                    literal.position,
                    f"invalid ID field: {literal.value}",
                    RequestCode.INVALID_QUERY_FILTER_OPERATOR,
                )
            found.add(full)
        if term.operator in _ORDERING:
            return self._ordered(term, get, found.pop())
        return _among(found, get, negate=term.operator in ("!=", "NOT IN"))

    def _flag(self, term: soql.Comparison, get: Getter) -> Predicate:
        literal = term.literals[0]
        if term.operator not in _MIRROR:
            raise soql.error_at(
                self._text,
                term.path.position,
                "invalid operator on boolean field",
                RequestCode.INVALID_QUERY_FILTER_OPERATOR,
            )
        if literal.kind not in ("boolean", "null"):
            raise self._mistyped(term, literal, "boolean", "should not be enclosed in quotes")
        return _among({literal.value}, get, negate=term.operator == "!=")

    def _numbers(self, term: soql.Comparison, field: Field, get: Getter) -> Predicate:
        numbers: set[object] = set()
        kind = "int" if field.type == "int" else "double"
        for literal in term.literals:
            if literal.kind not in ("number", "null") or (kind == "int" and isinstance(literal.value, float)):
                raise self._mistyped(term, literal, kind, "should not be enclosed in quotes")
            numbers.add(literal.value)
        if term.operator == "LIKE":
            raise self._unsimulated(term, "LIKE on a number")
        if term.operator in _ORDERING:
            return self._ordered(term, get, numbers.pop())
        return _among(numbers, get, negate=term.operator in ("!=", "NOT IN"))

    def _moments(self, term: soql.Comparison, field: Field, get: Getter) -> Predicate:
        spans: set[tuple[str, str] | None] = set()
        for literal in term.literals:
            spans.add(self._span(term, literal, field))
        if term.operator == "LIKE":
            raise self._unsimulated(term, "LIKE on a date or time")
        if term.operator in _ORDERING:
            span = spans.pop()
            if span is None:
                raise self._unsimulated(term, f"the operator {term.operator} with null")
            start, end = span
            # Before a range is before its first moment, after it behind its last.
            bound, compare = {
                "<": (start, operator.lt),
                ">=": (start, operator.ge),
                ">": (end, operator.ge),
                "<=": (end, operator.lt),
            }[term.operator]
            return lambda row: (value := get(row)) is not None and bool(compare(value, bound))
        wanted = term.operator in ("=", "IN")
        null = None in spans
        ranges = [span for span in spans if span is not None]

        def holds(row: Row) -> bool:
            value = get(row)
            if value is None:
                return null is wanted
            return any(start <= str(value) < end for start, end in ranges) is wanted

        return holds

    def _span(self, term: soql.Comparison, literal: soql.Literal, field: Field) -> tuple[str, str] | None:
        """First moment, and first moment after, as the stored text sorts."""
        if literal.kind == "null":
            return None
        if literal.kind == "range" and isinstance(literal.value, tuple):
            keyword, count = literal.value
            try:
                first, behind = clock.date_range(keyword, count, self._today)
            except (OverflowError, ValueError):
                raise self._unsimulated(term, f"{keyword}:{count}, which leaves the calendar,") from None
            if field.type == "date":
                return first.isoformat(), behind.isoformat()
            midnight = "T00:00:00.000+0000"
            return first.isoformat() + midnight, behind.isoformat() + midnight
        if field.type == "date" and literal.kind == "date":
            return str(literal.value), f"{literal.value}~"
        if field.type == "datetime" and literal.kind == "datetime" and isinstance(literal.value, datetime):
            text = clock.render(literal.value)
            return text, f"{text}~"
        name = "dateTime" if field.type == "datetime" else "date"
        raise self._mistyped(term, literal, name, "should not be enclosed in quotes")

    def _ordered(self, term: soql.Comparison, get: Getter, bound: object, *, lower: bool = False) -> Predicate:
        compare = _ORDERING[term.operator]
        if bound is None:
            raise self._unsimulated(term, f"the operator {term.operator} with null")
        if lower:
            return lambda row: (value := get(row)) is not None and bool(compare(str(value).lower(), bound))
        return lambda row: (value := get(row)) is not None and bool(compare(value, bound))

    def _mistyped(self, term: soql.Comparison, literal: soql.Literal, kind: str, quotes: str) -> RequestError:
        return soql.error_at(
            self._text,
            literal.position,
            f"value of filter criterion for field '{term.path.text}' must be of type {kind} and {quotes}",
            RequestCode.INVALID_FIELD,
        )

    def _unsimulated(self, term: soql.Comparison, what: str) -> RequestError:
        return soql.error_at(self._text, term.path.position, f"The crm-sync sandbox does not simulate {what}.")


def _among(values: set[object] | set[str | None], get: Getter, *, negate: bool, lower: bool = False) -> Predicate:
    """Membership. A text value compares in lower case; None stands for null."""
    if values == {None}:
        return (lambda row: get(row) is not None) if negate else (lambda row: get(row) is None)
    if not lower:
        return (lambda row: get(row) not in values) if negate else (lambda row: get(row) in values)
    null = None in values

    def among(row: Row) -> bool:
        value = get(row)
        return null if value is None else value.lower() in values

    return (lambda row: not among(row)) if negate else among


def _like(pattern: str, get: Getter) -> Predicate:
    parts: list[str] = []
    for piece in re.findall(r"\\.|.", pattern, re.DOTALL):
        if piece == "%":
            parts.append(".*")
        elif piece == "_":
            parts.append(".")
        else:
            parts.append(re.escape(piece[1] if len(piece) == 2 else piece))
    # Adjacent ".*" would make a near miss take exponential time.
    text = re.sub(r"(?:\.\*)+", ".*", "".join(parts))
    matches = re.compile(text, re.IGNORECASE | re.DOTALL).fullmatch
    return lambda row: (value := get(row)) is not None and matches(str(value)) is not None
