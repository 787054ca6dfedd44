"""Picklist entries added to crm_sync.yaml and to picklist files, byte for byte: nothing else of the text moves.

A round trip through a YAML library keeps comments and still sets indentation, quotes and line breaks its own way, in a
file that people look after by hand and see differences of. So the places are found in the event stream, and the text is
cut open there. Pure: text in, text out.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from ruamel.yaml import YAML
from ruamel.yaml.events import (
    Event,
    MappingEndEvent,
    MappingStartEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
)

from crm_sync.config.problems import Path, dotted
from crm_sync.errors import ConfigError
from crm_sync.mapping.picklists import fold

#: CRM value -> Apollo's words for it, in the order in which they are to stand.
Entries = Mapping[str, Sequence[str]]

#: What needs no quotes in any place of a YAML text: no indicator of its own, no blank at an end, no comment, no colon.
_PLAIN = re.compile(r"[A-Za-z][A-Za-z0-9_+/.&()'-]*(?: [A-Za-z0-9_+/.&()'-]+)*\Z")
_NOT_TEXT = frozenset(("null", "true", "false", "yes", "no", "on", "off", "y", "n"))
#: Where a list of one line goes on in the next.
_WIDEST = 118


@dataclass(slots=True)
class _Span:
    """One node of the text, from `start` to `end` (characters); a block's `end` is that of its last line's content."""

    start: int
    end: int
    is_map: bool = False
    is_list: bool = False
    #: In brackets or braces.
    is_flow: bool = False
    #: Of a scalar: "", "'" or '"'.
    quote: str = ""
    text: str = ""
    children: list[_Span] = field(default_factory=list)

    @property
    def entries(self) -> list[tuple[_Span, _Span]]:
        return list(zip(self.children[::2], self.children[1::2], strict=True))

    def get(self, name: str) -> _Span | None:
        return next((value for key, value in self.entries if key.text == name), None)


def add_entries(text: bytes, at: Path, entries: Entries) -> bytes:
    """`text` with these entries in the picklist of the field at `at`, which has one from then on.

    `text` is a configuration that loads. The words go where the CRM value stands already, in the form that is there
    (one word, a list in brackets, a list of lines); a new value becomes the last of the table, a new table the last of
    the field's keys.

    Raises:
        ConfigError: the file has no such field.
    """
    for crm_value, words in entries.items():
        text = _add(text.decode(), at, crm_value, list(words)).encode()
    return text


def _add(text: str, at: Path, crm_value: str, words: Sequence[str]) -> str:
    chain = _find(_read(text), at)
    if chain is None:
        raise ConfigError(f"the configuration has no {dotted(at)}")
    key, mapping = chain[-1]
    step = _column(text, key.start) - _column(text, chain[-2][0].start)
    entry = f"{scalar(crm_value)}: [{', '.join(map(scalar, words))}]"
    if not mapping.is_map:
        return _lengthened(text, key, mapping, entry, step, in_flow=any(parent.is_flow for _, parent in chain[:-1]))
    table = mapping.get("picklist")
    if table is None and mapping.is_flow:
        return _add_to_flow(text, mapping, f"picklist: {{{entry}}}")
    if table is None:
        indent = " " * _column(text, mapping.children[0].start)
        return _put_line(text, mapping.end, f"{indent}picklist:{_newline(text)}{indent}{' ' * step}{entry}")
    value = table.get(crm_value)
    if value is not None:
        return _add_to_list(text, value, words)
    if table.is_flow:
        return _add_to_flow(text, table, entry)
    return _put_line(text, table.end, " " * _column(text, table.children[0].start) + entry)


def _lengthened(text: str, key: _Span, mapping: _Span, entry: str, step: int, *, in_flow: bool) -> str:
    """The short form, which is the attribute alone, with a table: in brackets what stands in brackets."""
    if in_flow:
        return _put(text, mapping.start, mapping.end, f"{{from: {_flowing(text, mapping)}, picklist: {{{entry}}}}}")
    indent = " " * (_column(text, key.start) + step)
    # The later place first, or it would move.
    text = _put_line(text, mapping.end, f"{indent}picklist:{_newline(text)}{indent}{' ' * step}{entry}")
    colon = text.index(":", key.end)
    return _put(text, colon + 1, mapping.start, f"{_newline(text)}{indent}from: ")


def _add_to_flow(text: str, span: _Span, piece: str) -> str:
    """`piece` behind what is in these brackets, on a line of its own where this one would be too long."""
    if not span.children:
        return _put(text, span.start + 1, span.start + 1, piece)
    at = span.children[-1].end
    if _column(text, at) + len(piece) + 2 <= _WIDEST:
        return _put(text, at, at, f", {piece}")
    return _put(text, at, at, f",{_newline(text)}{_continued(text, span)}{piece}")


def _continued(text: str, span: _Span) -> str:
    """The indentation of a further line in brackets: that of the first entry where it begins a line, else deeper than
    the line in which the bracket opens."""
    first = _line_before(text, span.children[0].start)
    if not first.strip():
        return first
    opening = _line_before(text, span.start)
    return " " * (len(opening) - len(opening.lstrip(" ")) + 4)


def _line_before(text: str, index: int) -> str:
    return text[text.rfind("\n", 0, index) + 1 : index]


def _add_to_list(text: str, span: _Span, words: Sequence[str]) -> str:
    if not span.is_list:
        more = ", ".join(map(scalar, words))
        return _put(text, span.start, span.end, f"[{_flowing(text, span)}, {more}]")
    if not span.is_flow:
        last = span.children[-1].start
        dash = text.rindex("-", 0, last) if text[last] != "-" else last
        indent = " " * _column(text, dash)
        return _put_line(text, span.end, _newline(text).join(f"{indent}- {scalar(word)}" for word in words))
    for word in words:
        longer = _add_to_flow(text, span, scalar(word))
        at = span.children[-1].end if span.children else span.start + 1
        end = at + len(longer) - len(text)
        text = longer
        span.children.append(_Span(end - len(scalar(word)), end))
    return text


def _put(text: str, start: int, end: int, piece: str) -> str:
    return text[:start] + piece + text[end:]


def _put_line(text: str, after: int, line: str) -> str:
    """`line` below the one in which what ends at `after` stands, comment and all."""
    newline = _newline(text)
    end = text.find("\n", after)
    if end < 0:
        return f"{text}{newline}{line}"
    return f"{text[: end + 1]}{line}{newline}{text[end + 1 :]}"


def _newline(text: str) -> str:
    return "\r\n" if "\r\n" in text else "\n"


def _column(text: str, index: int) -> int:
    """From 0; a byte order mark has no width."""
    return index - (text.rfind("\n", 0, index) + 1) - (1 if text[:1] == "\ufeff" and "\n" not in text[:index] else 0)


def scalar(text: str) -> str:
    """`text` as YAML that reads as this text in a block and in brackets alike."""
    if _PLAIN.match(text) and text.casefold() not in _NOT_TEXT:
        return text
    return '"' + "".join(map(_escaped, text)) + '"'


def _escaped(character: str) -> str:
    if character in '"\\':
        return f"\\{character}"
    return character if character.isprintable() else f"\\U{ord(character):08x}"


def _flowing(text: str, span: _Span) -> str:
    """A scalar as it stands, if it may stand so in brackets: a comma, a bracket or a line break would part it there."""
    written = text[span.start : span.end]
    if span.quote in ("'", '"') and "\n" not in written:
        return written
    return scalar(span.text) if re.search(r"[,\[\]{}\n]", written) or span.quote else written


# --- where things stand -----------------------------------------------------------------------------------------------


def _find(root: _Span, at: Path) -> list[tuple[_Span, _Span]] | None:
    """The key and the value of each step."""
    chain: list[tuple[_Span, _Span]] = []
    node = root
    for step in at:
        found = next((entry for entry in node.entries if entry[0].text == step), None) if node.is_map else None
        if found is None:
            return None
        chain.append(found)
        node = found[1]
    return chain


def _read(text: str) -> _Span:
    """The tree of a text that has been read without problems before (config/text.py)."""
    top = _Span(0, 0, is_list=True)
    opened = [top]
    for event in YAML(typ="safe", pure=True).parse(text):
        if isinstance(event, ScalarEvent):
            opened[-1].children.append(_scalar_span(text, event))
        elif isinstance(event, MappingStartEvent | SequenceStartEvent):
            start, _ = _marks(event)
            is_map = isinstance(event, MappingStartEvent)
            span = _Span(start, start, is_map=is_map, is_list=not is_map, is_flow=bool(event.flow_style))
            opened[-1].children.append(span)
            opened.append(span)
        elif isinstance(event, MappingEndEvent | SequenceEndEvent):
            span = opened.pop()
            # A block ends where the next thing begins, as YAML sees it; as people see it, with its last word.
            span.end = _marks(event)[1] if span.is_flow else max(child.end for child in span.children)
    return top.children[0]


def _scalar_span(text: str, event: ScalarEvent) -> _Span:
    start, end = _marks(event)
    style = event.style or ""
    if style not in ("'", '"'):
        end = start + len(text[start:end].rstrip())
    return _Span(start, end, quote=style, text=event.value)


def _marks(event: Event) -> tuple[int, int]:
    return event.start_mark.index, event.end_mark.index


# --- picklist files ---------------------------------------------------------------------------------------------------


def add_rows(content: bytes, entries: Entries) -> bytes:
    """A picklist file (columns `apollo` and `crm`) with these entries.

    A row that holds the Apollo value and no CRM value is filled in where it stands, as in a list that was exported to
    be filled; the others are added below, in the file's own dialect.
    """
    mark = b"\xef\xbb\xbf" if content.startswith(b"\xef\xbb\xbf") else b""
    text = content.decode("utf-8-sig")
    newline = _newline(text)
    head = text.split("\n", 1)[0]
    # As the loader reads it.
    delimiter = ";" if ";" in head and "," not in head else ","
    columns = [cell.strip().casefold() for cell in next(csv.reader([head], delimiter=delimiter))]
    apollo, crm = columns.index("apollo"), columns.index("crm")
    wanted = {fold(word): (word, crm_value) for crm_value, words in entries.items() for word in words}

    lines = text.splitlines(keepends=True)
    for number, line in enumerate(lines[1:], start=1):
        bare = line.rstrip("\r\n")
        cells = next(csv.reader([bare], delimiter=delimiter), [])
        # A quote left open runs over several lines; such a row stays as it is.
        if bare.count('"') % 2 or len(cells) <= max(apollo, crm) or cells[crm].strip():
            continue
        found = wanted.pop(fold(cells[apollo]), None) if cells[apollo].strip() else None
        if found is not None:
            cells[crm] = found[1]
            lines[number] = _row(cells, delimiter) + line[len(bare) :]
    if lines and not lines[-1].endswith("\n"):
        lines[-1] += newline
    for word, crm_value in wanted.values():
        cells = [""] * len(columns)
        cells[apollo], cells[crm] = word, crm_value
        lines.append(_row(cells, delimiter) + newline)
    return mark + "".join(lines).encode()


def _row(cells: Iterable[str], delimiter: str) -> str:
    out = io.StringIO()
    csv.writer(out, delimiter=delimiter, lineterminator="").writerow(cells)
    return out.getvalue()
