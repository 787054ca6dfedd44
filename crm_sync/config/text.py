"""crm_sync.yaml as text: bytes in, a tree that knows where everything stands out.

The bytes themselves are the configuration (they are stored and shown as written, comments and all); the tree is
only ever read from them. It is YAML 1.2: `no`, `on` and `02:30` are text. Two things of YAML are refused, because
one file of plain keys and values is easier to edit by hand and by program: anchors with their aliases (which also
allow a few lines to stand for billions) and tags.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from enum import StrEnum

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.events import (
    AliasEvent,
    DocumentEndEvent,
    DocumentStartEvent,
    Event,
    MappingEndEvent,
    MappingStartEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
    StreamEndEvent,
)
from ruamel.yaml.reader import ReaderError
from ruamel.yaml.tokens import ScalarToken

from crm_sync.config.problems import Path, Problem, Severity, dotted, shown

MAX_BYTES = 1024 * 1024
#: The deepest key of the schema is at 7. ruamel's scanner needs time quadratic in the depth of brackets
#: (0.19.1: 35 s for 20,000), so it is stopped long before.
MAX_DEPTH = 40
#: A file full of mistakes is not helped by more lines than a person reads.
MAX_PROBLEMS = 200

# YAML 1.2.2, chapter 10.3.2 (core schema), without octal and hexadecimal numbers: nothing here is one.
_NULL = frozenset(("", "~", "null", "Null", "NULL"))
_TRUE = frozenset(("true", "True", "TRUE"))
_FALSE = frozenset(("false", "False", "FALSE"))
_INTEGER = re.compile(r"[-+]?[0-9]{1,18}\Z")
_NUMBER = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]{1,3})?\Z")


class Kind(StrEnum):
    """What a node is, in the words of the messages."""

    MAP = "a group of keys"
    LIST = "a list"
    TEXT = "text"
    INTEGER = "a whole number"
    NUMBER = "a number"
    BOOLEAN = "true or false"
    NULL = "nothing"
    #: It was refused already (an alias); no further message about it.
    REFUSED = "refused"


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """One value of the file. `text` is a scalar as written, without quotes; `value` what it means in YAML 1.2."""

    kind: Kind
    line: int
    column: int
    text: str = ""
    value: str | int | float | bool | None = None
    entries: tuple[tuple[Node, Node], ...] = ()
    items: tuple[Node, ...] = ()

    def get(self, key: str) -> Node | None:
        return next((value for name, value in self.entries if name.text == key), None)

    @property
    def is_empty(self) -> bool:
        return self.kind is Kind.NULL or (self.kind in (Kind.MAP, Kind.LIST) and not (self.entries or self.items))


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """A configuration file as read. `root` is None when it cannot be read as YAML; `problems` then says why."""

    text: bytes
    file: str
    root: Node | None
    problems: tuple[Problem, ...] = ()

    def node(self, path: Path) -> Node | None:
        """What stands at `path`, a path of keys."""
        node = self.root
        for step in path:
            node = node.get(str(step)) if node is not None else None
        return node

    def locate(self, path: Path, *, key: bool = False) -> tuple[int, int]:
        """Line and column of the value at `path` (`key`: of its key), or of the deepest part of it that is there."""
        place, node = (1, 1), self.root
        for depth, step in enumerate(path, start=1):
            found: tuple[Node, Node] | None = None
            if node is not None and isinstance(step, int):
                found = (node.items[step],) * 2 if step < len(node.items) else None
            elif node is not None:
                found = next((entry for entry in node.entries if entry[0].text == step), None)
            if found is None:
                return place
            name, node = found
            # A block that starts on the next line is found by its key; what stands on the key's line, by itself.
            at = name if node.line > name.line or (key and depth == len(path)) or node.kind is Kind.NULL else node
            place = (at.line, at.column)
        return place

    def problem(
        self,
        path: Path,
        message: str,
        suggestion: str = "",
        *,
        key: bool = False,
        severity: Severity = Severity.ERROR,
    ) -> Problem:
        """A problem at `path`, with its line and column."""
        line, column = self.locate(path, key=key)
        return Problem(
            file=self.file,
            line=line,
            column=column,
            path=dotted(path),
            message=message,
            suggestion=suggestion,
            severity=severity,
        )


def parse(text: bytes, *, file: str = "crm_sync.yaml") -> Document:
    """Read `text` as YAML 1.2. Never raises: what is wrong is in `problems`, `root` is None if nothing can be read."""

    def unreadable(line: int, column: int, message: str, suggestion: str = "") -> Document:
        problem = Problem(file=file, line=line, column=column, path="", message=message, suggestion=suggestion)
        return Document(text=text, file=file, root=None, problems=(problem,))

    if len(text) > MAX_BYTES:
        # A file is read no further than that, so how long it is is not known.
        return unreadable(1, 1, f"the file is longer than the {MAX_BYTES:,} bytes that a configuration may have.")
    try:
        decoded = text.decode("utf-8")
    except UnicodeDecodeError as error:
        before = text[: error.start].decode("utf-8", errors="replace")
        line = before.count("\n") + 1
        column = len(before) - (before.rfind("\n") + 1) + 1
        return unreadable(line, column, "this is not UTF-8 text.", "Save the file with the encoding UTF-8.")
    lines = _Lines(decoded)
    try:
        root, problems = _Builder(file, lines).build(YAML(typ="safe", pure=True).parse(decoded))
    except ReaderError as error:
        return unreadable(*lines.place(error.position), "this character is not allowed in YAML.", "Remove it.")
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        index = mark.index if mark is not None else len(decoded)
        return unreadable(*_explain(error, lines, min(index, len(decoded))))
    except _RefusedError as error:
        return unreadable(*lines.place(error.index), error.message, error.suggestion)
    except (YAMLError, ValueError, OverflowError):
        # ruamel lets a few of Python's own errors through, e.g. for "\U00110000" (0.19.1); none of them has a place.
        return unreadable(1, 1, "this is not valid YAML.")
    if root is None:
        return unreadable(1, 1, "the file is empty.", "`crm-sync init` writes a configuration to start from.")
    return Document(text=text, file=file, root=root, problems=tuple(problems))


class _Lines:
    """Index in the text -> line and column, by the line ends an editor counts."""

    def __init__(self, text: str) -> None:
        self.text = text
        self._starts = [0, *(match.end() for match in re.finditer("\n", text))]

    def place(self, index: int) -> tuple[int, int]:
        line = bisect_right(self._starts, index)
        column = index - self._starts[line - 1] + 1
        return line, column - (1 if line == 1 and self.text.startswith("\ufeff") else 0)

    def line_at(self, index: int) -> str:
        line, _ = self.place(index)
        return self.text[self._starts[line - 1] :].split("\n", 1)[0].rstrip("\r")


class _RefusedError(Exception):
    """YAML we do not take, after which reading on makes no sense."""

    def __init__(self, index: int, message: str, suggestion: str = "") -> None:
        super().__init__(message)
        self.index = index
        self.message = message
        self.suggestion = suggestion


@dataclass(slots=True)
class _Open:
    """A group or list whose end has not come yet."""

    is_map: bool
    start: int
    path: Path
    children: list[Node] = field(default_factory=list)


class _Builder:
    """Events -> nodes, without recursion."""

    def __init__(self, file: str, lines: _Lines) -> None:
        self._file = file
        self._lines = lines
        self._problems: list[Problem] = []
        self._open: list[_Open] = []
        self._root: Node | None = None

    def build(self, events: Iterator[Event]) -> tuple[Node | None, list[Problem]]:
        documents = 0
        for event in events:
            index = event.start_mark.index if event.start_mark is not None else 0
            if isinstance(event, DocumentStartEvent):
                documents += 1
                if documents > 1:
                    raise _RefusedError(index, "a second YAML document starts here.", 'Remove the line "---".')
            elif isinstance(event, AliasEvent):
                self._complain(index, "aliases (*name) are not supported.", "Write the value out.")
                self._add(self._node(Kind.REFUSED, index))
            elif isinstance(event, MappingStartEvent | SequenceStartEvent):
                self._check_extras(event, index)
                if len(self._open) >= MAX_DEPTH:
                    raise _RefusedError(index, f"the file is nested more than {MAX_DEPTH} levels deep here.")
                self._open.append(_Open(isinstance(event, MappingStartEvent), index, self._next_path()))
            elif isinstance(event, ScalarEvent):
                self._check_extras(event, index)
                self._add(self._scalar(event, index))
            elif isinstance(event, MappingEndEvent | SequenceEndEvent):
                self._add(self._close(self._open.pop()))
            elif isinstance(event, DocumentEndEvent | StreamEndEvent):
                continue
        return self._root, self._problems

    def _next_path(self) -> Path:
        if not self._open:
            return ()
        parent = self._open[-1]
        if not parent.is_map:
            return (*parent.path, len(parent.children))
        return (*parent.path, parent.children[-1].text) if len(parent.children) % 2 else parent.path

    def _add(self, node: Node) -> None:
        if self._open:
            self._open[-1].children.append(node)
        else:
            self._root = node

    def _node(self, kind: Kind, index: int, **content: object) -> Node:
        line, column = self._lines.place(index)
        return Node(kind=kind, line=line, column=column, **content)  # type: ignore[arg-type]

    def _scalar(self, event: ScalarEvent, index: int) -> Node:
        text: str = event.value
        plain = event.style is None and event.tag is None
        kind, value = _meaning(text) if plain else (Kind.TEXT, text)
        return self._node(kind, index, text=text, value=value)

    def _close(self, done: _Open) -> Node:
        if not done.is_map:
            return self._node(Kind.LIST, done.start, items=tuple(done.children))
        entries: dict[str, tuple[Node, Node]] = {}
        for name, value in zip(done.children[::2], done.children[1::2], strict=True):
            path = (*done.path, name.text)
            if name.kind in (Kind.MAP, Kind.LIST, Kind.REFUSED):
                hint = "A value that starts with a brace or bracket needs quotes." if name.kind is Kind.MAP else ""
                self._complain_at(name, done.path, "a key must be a word, not a group or a list.", hint)
            elif name.text in entries:
                first = entries[name.text][0]
                self._complain_at(name, path, "this key is here twice.", f"The first one is in line {first.line}.")
            else:
                entries[name.text] = (name, value)
        return self._node(Kind.MAP, done.start, entries=tuple(entries.values()))

    def _check_extras(self, event: MappingStartEvent | SequenceStartEvent | ScalarEvent, index: int) -> None:
        if event.anchor is not None:
            self._complain(index, "anchors (&name) are not supported.", "Write the value out where it is needed.")
        if event.tag is not None:
            self._complain(index, f"YAML tags ({shown(str(event.tag))}) are not supported.", "Use quotes for text.")

    def _complain(self, index: int, message: str, suggestion: str) -> None:
        line, column = self._lines.place(index)
        self._append(line, column, self._next_path(), message, suggestion)

    def _complain_at(self, node: Node, path: Path, message: str, suggestion: str) -> None:
        self._append(node.line, node.column, path, message, suggestion)

    def _append(self, line: int, column: int, path: Path, message: str, suggestion: str) -> None:
        if len(self._problems) < MAX_PROBLEMS:
            self._problems.append(
                Problem(
                    file=self._file, line=line, column=column, path=dotted(path), message=message, suggestion=suggestion
                )
            )


def _meaning(text: str) -> tuple[Kind, str | int | float | bool | None]:
    """An unquoted scalar by YAML 1.2's core schema; what it does not know (`no`, 02:30, 2026-01-01) is text."""
    if text in _NULL:
        return Kind.NULL, None
    if text in _TRUE or text in _FALSE:
        return Kind.BOOLEAN, text in _TRUE
    if _INTEGER.match(text):
        return Kind.INTEGER, int(text)
    if _NUMBER.match(text) and len(text) < 40:
        return Kind.NUMBER, float(text)
    return Kind.TEXT, text


_HINTS = (
    (
        re.compile(r"mapping values are not allowed|expected ',' or '[]}]', but got ':'"),
        "a colon followed by a blank is not allowed here.",
        'Put the value in quotes, or in braces as in {use: Other}; inside [ ] or { } check for a missing "]" or "}".',
    ),
    (
        re.compile(r"could not find expected ':'"),
        "a key without a colon.",
        "Each line of a group is `key: value`; a longer text needs quotes.",
    ),
    (
        re.compile(r"expected <block end>|did not find expected <document|expected '<document start>'"),
        "the indentation or a bracket does not fit here.",
        "Keys of one group start in the same column.",
    ),
    (
        re.compile(r"unexpected end of stream|expected the node content, but found '<stream end>'|got '<stream end>'"),
        "the file ends inside a quote or a bracket.",
        "Close it.",
    ),
    (
        re.compile(r"unknown escape character"),
        "an unknown escape.",
        "Use single quotes around a text with backslashes.",
    ),
    (
        re.compile(r"cannot start any token"),
        "a value cannot start with this character.",
        "Put the value in quotes.",
    ),
)


def _explain(error: MarkedYAMLError, lines: _Lines, index: int) -> tuple[int, int, str, str]:
    """A YAML error as line, column, sentence and cure."""
    line = lines.line_at(index)
    indent = line[: len(line) - len(line.lstrip(" \t"))]
    if "\t" in indent or lines.text[index : index + 1] == "\t":
        tab = lines.text.rfind("\t", 0, index + 1) if "\t" not in indent else -1
        number, column = lines.place(max(index, 0)) if tab < 0 else lines.place(tab)
        if "\t" in indent:
            column = indent.index("\t") + 1
        return number, column, "a tab character; YAML allows only blanks here.", "Replace the tab by blanks."
    opened = _open_quote(error, lines.text, index)
    if opened is not None:
        start, end = opened
        until = f"closes only in line {lines.place(end)[0]}" if end is not None else "is not closed"
        return *lines.place(start), f"not valid YAML: a quote opens here and {until}.", "Close it where its text ends."
    place = lines.place(index)
    problem = " ".join(str(error.problem or error.context or "").split())
    for pattern, message, suggestion in _HINTS:
        if pattern.search(problem):
            opened = error.context_mark if error.context and "flow" in error.context else None
            bracket = f" The bracket was opened in line {lines.place(opened.index)[0]}." if opened is not None else ""
            return *place, f"not valid YAML: {message}", suggestion + bracket
    return *place, f"not valid YAML: {problem}.", ""


def _open_quote(error: MarkedYAMLError, text: str, index: int) -> tuple[int, int | None] | None:
    """Where the quote opened that swallowed the lines up to that of the error at `index`, and where it ended (None: it
    did not); None where there is none."""
    if error.context_mark is not None and "unexpected end of stream" in (error.problem or ""):
        return error.context_mark.index, None
    found = None
    try:
        for token in YAML(typ="safe", pure=True).scan(text):
            start, end = token.start_mark, token.end_mark
            if start.index >= index:
                break
            if isinstance(token, ScalarToken) and token.style in ("'", '"') and end.line > start.line:
                found = start.index, end.index
    except (YAMLError, ValueError, OverflowError):
        pass  # what it scanned up to there is what counts
    return found if found is not None and "\n" not in text[found[1] : index] else None


def ordered(problems: Iterable[Problem]) -> tuple[Problem, ...]:
    """Top to bottom, each once, and no more than anybody reads."""
    return tuple(sorted(dict.fromkeys(problems), key=lambda p: (p.line, p.column))[:MAX_PROBLEMS])
