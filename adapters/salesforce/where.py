"""The admin's SOQL condition: read into a tree, its names checked, and written again with one escaper.

Nothing of the admin's text reaches the query as it is: field names are those of describe, literals are rebuilt.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

_TOKEN = re.compile(
    r"""\s*(?:
      (?P<text>'(?:[^'\\]|\\.)*')
    | (?P<number>[+-]?\d+(?:\.\d+)?(?![\w:.-]))
    | (?P<moment>\d{4}-\d{2}-\d{2}(?:T\d{2}:\d{2}:\d{2}(?:\.\d+)?(?:Z|[+-]\d{2}:\d{2}))?)
    | (?P<word>[A-Za-z_][A-Za-z0-9_]*(?:\.[A-Za-z_][A-Za-z0-9_]*)*(?::\d+)?)
    | (?P<mark><=|>=|!=|<>|[=<>(),])
    )""",
    re.VERBOSE,
)
_DATE_WORD = re.compile(
    r"(?:TODAY|YESTERDAY|TOMORROW|(?:LAST|THIS|NEXT)_(?:WEEK|MONTH|QUARTER|YEAR|FISCAL_QUARTER|FISCAL_YEAR)"
    r"|LAST_90_DAYS|NEXT_90_DAYS|(?:LAST|NEXT)_N_(?:DAYS|WEEKS|MONTHS|QUARTERS|YEARS):\d{1,4}"
    r"|N_(?:DAYS|WEEKS|MONTHS)_AGO:\d{1,4})\Z"
)
_UNESCAPED = {"n": "\n", "r": "\r", "t": "\t", "b": "\b", "f": "\f", "'": "'", '"': '"', "\\": "\\", "_": "_", "%": "%"}
_MOST_DEPTH = 30

#: A field's name as describe spells it, or a sentence in a WhereError why it cannot be used.
Resolve = Callable[[str], str]


class WhereError(ValueError):
    """A condition that cannot be used; one sentence with a cure."""


@dataclass(frozen=True, slots=True)
class Comparison:
    field: str
    operator: str
    values: tuple[str, ...]  # SOQL literals, already escaped


@dataclass(frozen=True, slots=True)
class Junction:
    word: str  # AND | OR
    parts: tuple[Condition, ...]


@dataclass(frozen=True, slots=True)
class Negation:
    part: Condition


Condition = Comparison | Junction | Negation


def literal(text: str) -> str:
    """A SOQL string. The only place where text becomes part of a query."""
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    for letter, mark in (("\n", "\\n"), ("\r", "\\r"), ("\t", "\\t"), ("\b", "\\b"), ("\f", "\\f")):
        escaped = escaped.replace(letter, mark)
    if any(ord(c) < 32 or ord(c) == 127 for c in escaped):
        raise WhereError("a text in the condition holds a control character; remove it")
    return f"'{escaped}'"


def parse(text: str, resolve: Resolve) -> Condition:
    """
    Raises:
        WhereError: it is no condition, or names a field that cannot be filtered by.
    """
    return _Parser(text, resolve).whole()


def compose(condition: Condition) -> str:
    """The condition as SOQL, every junction in parentheses."""
    match condition:
        case Comparison(field, operator, values):
            if operator in ("IN", "NOT IN"):
                return f"{field} {operator} ({', '.join(values)})"
            if operator in ("INCLUDES", "EXCLUDES"):
                return f"{field} {operator} ({', '.join(values)})"
            return f"{field} {operator} {values[0]}"
        case Junction(word, parts):
            return "(" + f" {word} ".join(compose(part) for part in parts) + ")"
        case Negation(part):
            return f"(NOT {compose(part)})"


class _Parser:
    def __init__(self, text: str, resolve: Resolve) -> None:
        self._tokens = list(_tokens(text))
        self._at = 0
        self._resolve = resolve

    def whole(self) -> Condition:
        condition = self._junction(0)
        if self._at < len(self._tokens):
            raise WhereError(f"the condition goes on with {self._tokens[self._at][1]} where it should end")
        return condition

    def _junction(self, depth: int) -> Condition:
        if depth > _MOST_DEPTH:
            raise WhereError("the condition is nested too deeply; write it flatter")
        parts = [self._negation(depth)]
        word = ""
        while (found := self._peek_word()) in ("AND", "OR"):
            if word and found != word:
                raise WhereError("AND and OR stand side by side; put parentheses around one of them")
            word = found
            self._at += 1
            parts.append(self._negation(depth))
        return Junction(word, tuple(parts)) if word else parts[0]

    def _negation(self, depth: int) -> Condition:
        if self._peek_word() == "NOT":
            self._at += 1
            return Negation(self._negation(depth + 1))
        if self._peek() == ("mark", "("):
            self._at += 1
            inside = self._junction(depth + 1)
            self._expect(")")
            return inside
        return self._comparison()

    def _comparison(self) -> Comparison:
        kind, word = self._next("a field")
        if kind != "word":
            raise WhereError(f"{word} stands where a field name should be")
        field = self._resolve(word)
        operator = self._operator()
        if operator in ("IN", "NOT IN", "INCLUDES", "EXCLUDES"):
            self._expect("(")
            values = [self._value()]
            while self._peek() == ("mark", ","):
                self._at += 1
                values.append(self._value())
            self._expect(")")
            return Comparison(field, operator, tuple(values))
        return Comparison(field, operator, (self._value(),))

    def _operator(self) -> str:
        kind, text = self._next("an operator")
        word = text.upper()
        if kind == "mark" and text in ("=", "!=", "<>", "<", "<=", ">", ">="):
            return "!=" if text == "<>" else text
        if word in ("LIKE", "IN", "INCLUDES", "EXCLUDES"):
            return word
        if word == "NOT" and self._peek_word() == "IN":
            self._at += 1
            return "NOT IN"
        raise WhereError(f"{text} is no operator; use = != < <= > >= LIKE IN NOT IN INCLUDES EXCLUDES")

    def _value(self) -> str:
        kind, text = self._next("a value")
        if kind == "text":
            return literal(_unescape(text[1:-1]))
        if kind in ("number", "moment"):
            return text
        word = text.upper()
        if kind == "word" and word in ("TRUE", "FALSE", "NULL"):
            return word.lower()
        if kind == "word" and _DATE_WORD.match(word):
            return word
        raise WhereError(f"{text} is no value; texts stand in single quotes, such as 'Target'")

    def _peek(self) -> tuple[str, str] | None:
        return self._tokens[self._at] if self._at < len(self._tokens) else None

    def _peek_word(self) -> str:
        token = self._peek()
        return token[1].upper() if token is not None and token[0] == "word" else ""

    def _next(self, wanted: str) -> tuple[str, str]:
        token = self._peek()
        if token is None:
            raise WhereError(f"the condition ends where {wanted} should be")
        self._at += 1
        return token

    def _expect(self, mark: str) -> None:
        token = self._peek()
        if token != ("mark", mark):
            raise WhereError(f"a {mark} is missing in the condition")
        self._at += 1


def _tokens(text: str) -> list[tuple[str, str]]:
    found = []
    at = 0
    while at < len(text) and text[at:].strip():
        match = _TOKEN.match(text, at)
        if match is None:
            near = text[at:].strip()[:20]
            raise WhereError(f"the condition cannot be read from {near} on")
        found.append((str(match.lastgroup), match[str(match.lastgroup)]))
        at = match.end()
    return found


def _unescape(text: str) -> str:
    def plain(match: re.Match[str]) -> str:
        if match[1] not in _UNESCAPED:
            raise WhereError(f"\\{match[1]} is no escape in a SOQL text")
        return match[0] if match[1] in "_%" else _UNESCAPED[match[1]]

    return re.sub(r"\\(.)", plain, text)
