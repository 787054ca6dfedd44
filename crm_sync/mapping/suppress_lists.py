"""A file of people and companies to leave alone, as CSV or one to a line: bytes -> identities. Pure."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from crm_sync.mapping.identities import KINDS, Crms, NotAnIdentityError, guess, identify, kind_of

#: A list may have some two million addresses.
MAX_LIST_BYTES = 64 << 20
#: So many lines without anything recognised are named; the rest are counted.
NAMED_LINES = 20

#: What a column's name says about its cells: the first that fits.
_COLUMNS = (
    (re.compile(r"linked.?in", re.IGNORECASE), "linkedin"),
    (re.compile(r"e.?mail|^mail\b|\bmail$", re.IGNORECASE), "email"),
    (re.compile(r"phone|mobile|\btel\b|telephone|handy", re.IGNORECASE), "phone"),
    (re.compile(r"domain|website|^url$|web.?site", re.IGNORECASE), "domain"),
    (re.compile(r"(?:^|[\s_.-])(?:id|ids)$|[a-z]Id$|^hs_object_id$", re.IGNORECASE), "record"),
)
_HUBSPOT_COLUMN = ((re.compile(r"compan", re.IGNORECASE), "companies"), (re.compile(r"contact", re.I), "contacts"))
_APART = re.compile(r"[;\s]+")


class UnreadableListError(ValueError):
    """The file cannot be read as text or CSV: (line, sentence). Nothing of it counts, or somebody on it would be
    overlooked."""

    def __init__(self, line: int, message: str) -> None:
        super().__init__(message)
        self.line = line
        self.message = message


@dataclass(slots=True)
class Listed:
    """What a file names. `unknown` are the first lines in which nothing is recognised, of `unknown_count` in all."""

    identities: set[str] = field(default_factory=set)
    lines: int = 0
    unknown: list[int] = field(default_factory=list)
    unknown_count: int = 0

    def by_kind(self) -> dict[str, int]:
        counts = dict.fromkeys(KINDS, 0)
        for identity in self.identities:
            counts[kind_of(identity)] += 1
        return {kind: count for kind, count in counts.items() if count}


@dataclass(frozen=True, slots=True)
class _Column:
    kind: str
    of_object: str = ""


def read_list(content: bytes, crms: Crms) -> Listed:
    """
    Raises:
        UnreadableListError: it is no UTF-8 text, or its quotation marks do not match.
    """
    text = _text(content)
    listed = Listed()
    columns: Sequence[_Column | None] | None = None
    for line, row in _rows(text):
        cells = [cell.strip() for cell in row]
        if not any(cells) or cells[0].startswith("#"):
            continue
        if columns is None:
            columns = _columns(cells, crms)
            if columns:
                continue
        listed.lines += 1
        found = _of_row(cells, columns, crms)
        if found:
            listed.identities.update(found)
        else:
            listed.unknown_count += 1
            if len(listed.unknown) < NAMED_LINES:
                listed.unknown.append(line)
    return listed


def _text(content: bytes) -> str:
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):  # how a spreadsheet saves "Unicode text"
        encoding = "utf-16"
    else:
        encoding = "utf-8-sig"
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        # Guessing another encoding would misread the one address with an umlaut, and look it up.
        raise UnreadableListError(line, "this is not UTF-8 text; save the file as CSV UTF-8") from None
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise UnreadableListError(line, "this is not a text file; save the list as CSV UTF-8")
    return text


def _rows(text: str) -> Iterator[tuple[int, list[str]]]:
    head = text[:10_000].split("\n", 1)[0]
    separator = max(",;\t", key=head.count)
    # Strict: a quotation mark that is never closed would swallow the rest of the list.
    rows = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    line = 1
    try:
        for row in rows:
            yield line, row
            line = rows.line_num + 1
    except csv.Error:
        raise UnreadableListError(line, "this line's quotation marks do not match, or a cell is endless") from None


def _columns(cells: list[str], crms: Crms) -> tuple[_Column | None, ...]:
    """What a first line that names columns says; () when it names none, or somebody already."""
    if any(guess(cell, crms) for cell in cells):
        return ()
    columns = tuple(_column(cell) for cell in cells)
    return columns if any(columns) else ()


def _column(name: str) -> _Column | None:
    kind = next((kind for pattern, kind in _COLUMNS if pattern.search(name)), None)
    if kind is None:
        return None
    of_object = next((each for pattern, each in _HUBSPOT_COLUMN if kind == "record" and pattern.search(name)), "")
    return _Column(kind, of_object)


def _of_row(cells: list[str], columns: Sequence[_Column | None] | None, crms: Crms) -> list[str]:
    """Every cell counts, but for the domain beside a person: who lists a person does not mean all their colleagues."""
    found: list[str] = []
    for position, cell in enumerate(cells):
        if not cell:
            continue
        if columns:
            column = columns[position] if position < len(columns) else None
            if column is not None:
                found += _of_cell(cell, column, crms)
        else:
            found += [identity for part in _parts(cell) for identity in guess(part, crms)]
    if any(_is_person(identity) for identity in found):
        return [identity for identity in found if kind_of(identity) != "domain"]
    return found


def _of_cell(cell: str, column: _Column, crms: Crms) -> list[str]:
    found: list[str] = []
    for part in _parts(cell) if column.kind == "email" else (cell,):
        try:
            found += identify(column.kind, part, crms, of_object=column.of_object)
        except NotAnIdentityError:
            continue
    return found


def _parts(cell: str) -> list[str]:
    """Several addresses in one cell."""
    return [part for part in _APART.split(cell) if part] if cell.count("@") > 1 else [cell]


def _is_person(identity: str) -> bool:
    kind = kind_of(identity)
    return (
        kind in ("email", "phone")
        or identity.startswith("linkedin:in/")
        or (kind == "record" and identity.split(":")[2] not in ("Account", "companies"))
    )
