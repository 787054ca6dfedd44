"""The admin's SOQL condition: read into a tree, its names and values checked, and written again with one escaper.

Nothing of the admin's text reaches a query as it is: names are spelled as describe spells them, texts are unescaped
and escaped anew, and whatever else there is was recognised whole.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from crm_sync.domain.records import FieldKind, FieldSchema

#: Characters of one text in a WHERE (contracts/salesforce.md 2.1), and of a whole condition: what fits a URI (1.3).
_MOST_LITERAL = 4_000
_MOST_TEXT = 12_000
_MOST_DEPTH = 30

_TOKEN = re.compile(
    r"""
      (?P<text>'(?:[^'\\]|\\.)*')
    | (?P<moment>\d{4}-\d{2}-\d{2}(?:T\d{2}:\d{2}:\d{2}(?:\.\d{1,3})?(?:Z|[+-]\d{2}:\d{2}))?(?![\w:.+-]))
    | (?P<number>[+-]?(?:\d+(?:\.\d*)?|\.\d+)(?![\w:.-]))
    | (?P<word>[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*(?::\d{1,5})?(?![\w:.]))
    | (?P<mark><=|>=|!=|<>|[=<>(),])
    """,
    re.VERBOSE | re.DOTALL | re.ASCII,
)
_BLANKS = re.compile(r"\s*")
_RANGE = re.compile(
    r"(?:TODAY|YESTERDAY|TOMORROW|(?:LAST|NEXT)_90_DAYS"
    r"|(?:LAST|THIS|NEXT)_(?:WEEK|MONTH|QUARTER|YEAR|FISCAL_QUARTER|FISCAL_YEAR)"
    r"|(?:LAST|NEXT)_N_(?:DAYS|WEEKS|MONTHS|QUARTERS|YEARS|FISCAL_QUARTERS|FISCAL_YEARS):\d+"
    r"|N_(?:DAYS|WEEKS|MONTHS|QUARTERS|YEARS|FISCAL_QUARTERS|FISCAL_YEARS)_AGO:\d+)\Z"
)
_ESCAPE = re.compile(r"\\(u[0-9A-Fa-f]{4}|.)", re.DOTALL)
_ESCAPED = {"n": "\n", "r": "\r", "t": "\t", "b": "\b", "f": "\f", "'": "'", '"': '"', "\\": "\\"}
_OUT = str.maketrans(
    {"\\": "\\\\", "'": "\\'", "\n": "\\n", "\r": "\\r", "\t": "\\t", "\b": "\\b", "\f": "\\f"}
)  # fmt: skip
_UNSPEAKABLE = re.compile("[\x00-\x1f\x7f\ud800-\udfff]")

_EQUAL = frozenset({"=", "!="})
_ORDER = frozenset({"<", "<=", ">", ">="})
_LISTS = frozenset({"IN", "NOT IN", "INCLUDES", "EXCLUDES"})
_ALL_OPERATORS = "= != < <= > >= LIKE IN NOT IN INCLUDES EXCLUDES"
_TEXT_OPERATORS = _EQUAL | _ORDER | {"LIKE", "IN", "NOT IN"}
_OPERATORS = {
    FieldKind.BOOLEAN: _EQUAL,
    FieldKind.MULTI_PICKLIST: _EQUAL | {"INCLUDES", "EXCLUDES", "IN", "NOT IN"},
    FieldKind.ID: _EQUAL | _ORDER | {"IN", "NOT IN"},
    FieldKind.REFERENCE: _EQUAL | _ORDER | {"IN", "NOT IN"},
    **dict.fromkeys(
        (FieldKind.INTEGER, FieldKind.DECIMAL, FieldKind.DATE, FieldKind.DATETIME), _EQUAL | _ORDER | {"IN", "NOT IN"}
    ),
}
#: What a value must look like, in words for the admin.
_WANTED = {
    FieldKind.INTEGER: ("whole", "a whole number without quotes, such as 50"),
    FieldKind.DECIMAL: ("number", "a number without quotes, such as 1000.5"),
    FieldKind.BOOLEAN: ("flag", "TRUE or FALSE without quotes"),
    FieldKind.DATE: ("date", "a date without quotes, such as 2026-10-08 or LAST_N_DAYS:30"),
    FieldKind.DATETIME: ("datetime", "a date and time without quotes, such as 2026-10-08T00:00:00Z or LAST_N_DAYS:30"),
}
_QUOTED = ("text", "a text in single quotes, such as 'Target'")


class WhereError(ValueError):
    """A condition, or a field in it, that cannot be used; one sentence with a cure."""


@dataclass(frozen=True, slots=True)
class Column:
    """A field as a query names it: `path` in describe's spelling, parents before the dot."""

    path: str
    schema: FieldSchema


#: The column for a name as written.
#: Raises: WhereError, where it cannot be filtered by.
Resolve = Callable[[str], Column]


@dataclass(frozen=True, slots=True)
class Comparison:
    """`values` are SOQL literals, ready for the query; only the list operators have more than one."""

    path: str
    operator: str
    values: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Junction:
    """`word` is AND or OR."""

    word: str
    parts: tuple[Condition, ...]


@dataclass(frozen=True, slots=True)
class Negation:
    part: Condition


Condition = Comparison | Junction | Negation


def literal(text: str) -> str:
    """A SOQL string. The only place where text becomes part of a query (patterns of LIKE: `_pattern`).

    Raises:
        WhereError: it holds what no query may hold, or is too long.
    """
    return _quoted(text.translate(_OUT))


def parse(text: str, resolve: Resolve) -> Condition:
    """
    Raises:
        WhereError: it is no condition, names a field that cannot be filtered by, or compares it with what it cannot
            hold.
    """
    if len(text) > _MOST_TEXT:
        raise WhereError(
            f"the condition has {len(text):,} characters, more than the {_MOST_TEXT:,} a query has room for"
        )
    return _Parser(text, resolve).whole()


def compose(condition: Condition) -> str:
    """The condition as SOQL, every junction in parentheses."""
    match condition:
        case Comparison(path, operator, values):
            return (
                f"{path} {operator} ({', '.join(values)})" if operator in _LISTS else f"{path} {operator} {values[0]}"
            )
        case Junction(word, parts):
            return "(" + f" {word} ".join(compose(part) for part in parts) + ")"
        case Negation(part):
            return f"(NOT {compose(part)})"


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str
    text: str
    position: int

    @property
    def word(self) -> str:
        return self.text.upper() if self.kind == "word" else ""


class _Parser:
    def __init__(self, text: str, resolve: Resolve) -> None:
        self._tokens = _tokens(text)
        self._at = 0
        self._depth = 0
        self._resolve = resolve

    def whole(self) -> Condition:
        condition = self._junction()
        if self._peek.kind:
            raise WhereError(f"the condition goes on with {_place(self._peek)} where it should end")
        return condition

    def _junction(self) -> Condition:
        parts = [self._term()]
        joiner = ""
        while (found := self._peek.word) in ("AND", "OR"):
            if joiner and found != joiner:
                raise WhereError("AND and OR stand side by side; put parentheses around one of them")
            joiner = found
            self._at += 1
            parts.append(self._term())
        return Junction(joiner, tuple(parts)) if joiner else parts[0]

    def _term(self) -> Condition:
        if self._peek.word != "NOT" and self._peek.text != "(":
            return self._comparison()
        self._depth += 1
        if self._depth > _MOST_DEPTH:
            raise WhereError("the condition is nested too deeply; write it flatter")
        try:
            if self._next().text != "(":
                return Negation(self._term())
            inside = self._junction()
            self._expect(")")
            return inside
        finally:
            self._depth -= 1

    def _comparison(self) -> Comparison:
        token = self._next()
        if token.kind != "word" or ":" in token.text:
            raise WhereError(f"a field name is missing {_before(token)}")
        if self._peek.text == "(":
            raise WhereError(f"the function {token.text}() cannot be used here; compare a field with a value")
        column = self._resolve(token.text)
        operator = self._operator(column)
        if operator not in _LISTS:
            return Comparison(column.path, operator, (self._value(column, operator),))
        self._expect("(")
        values = [self._value(column, operator)]
        while self._peek.text == ",":
            self._at += 1
            values.append(self._value(column, operator))
        self._expect(")")
        return Comparison(column.path, operator, tuple(values))

    def _operator(self, column: Column) -> str:
        token = self._next()
        if token.kind == self._peek.kind == "mark" and self._peek.text not in "(),":
            raise WhereError(f"{token.text}{self._peek.text} is no operator; use {_ALL_OPERATORS}")
        operator = token.word or ("!=" if token.text == "<>" else token.text if token.kind == "mark" else "")
        if operator == "NOT" and self._peek.word == "IN":
            self._at += 1
            operator = "NOT IN"
        allowed = _OPERATORS.get(column.schema.kind, _TEXT_OPERATORS)
        if operator in allowed:
            return operator
        if operator in _LISTS | _TEXT_OPERATORS:
            raise WhereError(
                f"{column.path} is a {column.schema.kind.value} field and cannot be compared with {operator}; "
                f"use {' '.join(sorted(allowed))}"
            )
        raise WhereError(f"an operator is missing {_before(token)}; use {_ALL_OPERATORS}")

    def _value(self, column: Column, operator: str) -> str:
        token = self._next()
        wanted, example = _WANTED.get(column.schema.kind, _QUOTED)
        if token.word == "NULL" and operator not in _ORDER and operator != "LIKE":
            return "null"
        if token.word == "SELECT":
            raise WhereError("a SELECT inside the condition cannot be used; write the values themselves")
        if token.text == "(" or not token.kind or token.text == ")":
            raise WhereError(f"a value is missing {_before(token)}")
        if wanted not in _readings(token):
            raise WhereError(f"{column.path} is compared with {_place(token)}, but needs {example}")
        if token.kind == "moment":
            _check_moment(token)
        if token.kind == "text":
            return _pattern(token.text[1:-1]) if operator == "LIKE" else literal(_unescaped(token.text[1:-1]))
        return token.word.lower() if wanted == "flag" else token.word or token.text

    @property
    def _peek(self) -> _Token:
        return self._tokens[self._at]

    def _next(self) -> _Token:
        token = self._peek
        if token.kind:
            self._at += 1
        return token

    def _expect(self, mark: str) -> None:
        token = self._next()
        if token.text != mark or token.kind != "mark":
            raise WhereError(f"a {mark} is missing {_before(token)}")


def _tokens(text: str) -> list[_Token]:
    """Ends with a token of no kind."""
    found = []
    at = 0
    while (at := _end(_BLANKS.match(text, at))) < len(text):
        match = _TOKEN.match(text, at)
        if match is None:
            what = "a quote that is not closed" if text[at] == "'" else f"{text[at : at + 20]!r}"
            raise WhereError(f"the condition cannot be read from {what} on (character {at + 1})")
        found.append(_Token(str(match.lastgroup), match.group(), at))
        at = match.end()
    return [*found, _Token("", "", len(text))]


def _end(match: re.Match[str] | None) -> int:
    return match.end() if match is not None else 0


def _readings(token: _Token) -> tuple[str, ...]:
    """The sorts of value a token can stand for."""
    if token.kind == "number":
        return ("number",) if "." in token.text else ("number", "whole")
    if token.kind == "moment":
        return ("datetime",) if "T" in token.text else ("date",)
    if token.word in ("TRUE", "FALSE"):
        return ("flag",)
    if _RANGE.match(token.word):
        return ("date", "datetime")
    return (token.kind,) if token.kind == "text" else ()


def _check_moment(token: _Token) -> None:
    try:
        datetime.fromisoformat(token.text)
    except ValueError:
        raise WhereError(f"there is no such day or time as {_place(token)}") from None


def _place(token: _Token) -> str:
    return f"{token.text} (character {token.position + 1})"


def _before(token: _Token) -> str:
    return f"before {_place(token)}" if token.kind else "at the end of the condition"


def _unescaped(text: str) -> str:
    return _ESCAPE.sub(_plain, text)


def _plain(match: re.Match[str]) -> str:
    code = match[1]
    if len(code) == 5:
        return chr(int(code[1:], 16))
    if code.lower() not in _ESCAPED:
        raise WhereError(f"\\{code} is no escape in a SOQL text; write \\\\ for a backslash")
    return _ESCAPED[code.lower()]


def _pattern(text: str) -> str:
    """What LIKE compares with: \\% and \\_ stay escaped, since unescaped they stand for any text and any character."""
    pieces = re.split(r"(?s)(\\[%_]|\\u[0-9A-Fa-f]{4}|\\.)", text)
    return _quoted("".join(p if p in ("\\%", "\\_") else _unescaped(p).translate(_OUT) for p in pieces))


def _quoted(escaped: str) -> str:
    if _UNSPEAKABLE.search(escaped):
        raise WhereError("a text in the condition holds a control character or half of a character; remove it")
    if len(escaped) > _MOST_LITERAL:
        raise WhereError(f"a text in the condition is longer than {_MOST_LITERAL:,} characters; shorten it")
    return f"'{escaped}'"
