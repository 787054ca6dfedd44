"""The CSV of bulk jobs, written and read. Pure.

UTF-8, CRLF, commas; an empty cell leaves its field alone and #N/A erases it (contracts/salesforce.md 2.2, 2026-11).
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Sequence
from decimal import Decimal
from typing import Any

from adapters.http import MIB
from adapters.salesforce.wire import Fault
from adapters.salesforce.writing import Row

#: Records of one job.
MOST_ROWS = 50_000
#: Bytes of one job's results. 100 MB would be taken (2.2); but all of it comes back in one answer, which has to fit
#: into what the session reads.
MOST_BYTES = 28 * MIB
#: What comes back with each row: its id and what was wrong with it.
_TOLD = 300
_QUOTES = 2  # around each cell of an answer
_MOST_CELL = 32_000
_MOST_RECORD = 400_000
_ERASE = "#N/A"
#: What needs no quotes whatever the reader thinks of blanks.
_PLAIN = re.compile(r"[\w.:+@/-]+\Z", re.ASCII)


# --- the upload ---------------------------------------------------------------------------------------------------


def fits(row: Row) -> bool:
    """Whether a job can take it: a text that says #N/A would erase its field, and cells have a length (2.2)."""
    texts = [value for value in row.values.values() if isinstance(value, str)]
    if any(len(text) > _MOST_CELL or text.strip() == _ERASE for text in texts):
        return False
    return sum(map(len, texts)) < _MOST_RECORD


def uploads(
    rows: Sequence[Row], *, most_rows: int = MOST_ROWS, most_bytes: int = MOST_BYTES
) -> Iterator[tuple[list[Row], bytes]]:
    """The rows in as few uploads as may be, each with the rows in it. `most_bytes`: of what will come back."""
    columns = sorted({name for row in rows for name in row.values})
    header = _line(["Id", *columns])
    lines, size = [header], 0
    taken: list[Row] = []
    for row in rows:
        line = _line([row.ref.id, *(_cell(row, name) for name in columns)])
        told = len(line) + _QUOTES * len(columns) + _TOLD
        if taken and (len(taken) == most_rows or size + told > most_bytes):
            yield taken, b"".join(lines)
            lines, taken, size = [header], [], 0
        lines.append(line)
        taken.append(row)
        size += told
    if taken:
        yield taken, b"".join(lines)


def _line(cells: Sequence[str]) -> bytes:
    return (",".join(map(_quoted, cells)) + "\r\n").encode()


def _quoted(cell: str) -> str:
    """As it is where that is safe; an empty cell stays empty, since what a quoted one means nobody says."""
    return cell if not cell or _PLAIN.match(cell) else '"' + cell.replace('"', '""') + '"'


def _cell(row: Row, name: str) -> str:
    if name not in row.values:
        return ""
    value: Any = row.values[name]
    if value is None:
        return _ERASE
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return f"{Decimal(repr(value)):f}"
    return str(value)


# --- the results --------------------------------------------------------------------------------------------------


_IDS = frozenset({"id", "sf__id"})


def page(content: bytes, columns: Sequence[str] | None) -> tuple[list[str], list[list[str]]] | None:
    """The columns and rows of one page of results, whatever its content type says; None when it is none.

    `columns`: of the page before. Whether later pages repeat them is not documented (contracts/salesforce.md 7).
    """
    try:
        lines = list(csv.reader(io.StringIO(content.decode("utf-8"), newline=""), strict=True))
    except (UnicodeDecodeError, csv.Error):
        return None
    lines = [line for line in lines if line]
    if lines and not _IDS.isdisjoint(name.casefold() for name in lines[0]):
        columns, lines = lines[0], lines[1:]
    if columns is None or any(len(line) != len(columns) for line in lines):
        return None
    return list(columns), lines


_CODE = re.compile(r"([A-Z][A-Z0-9_]*):(.*)\Z", re.DOTALL)
_FIELD = re.compile(r"\w+\Z", re.ASCII)


def fault(text: str) -> Fault:
    """sf__Error, which reads CODE:message:Field1,Field2 -- with no field or several (contracts/salesforce.md 2.3)."""
    found = _CODE.match(text.strip())
    if found is None:
        return Fault("UNKNOWN", text.strip() or "no reason given", ())
    said = found[2].rstrip()
    if said.endswith("--"):
        message, colon, names = said[:-2].rstrip().rpartition(":")
        fields = [name.strip() for name in names.split(",") if name.strip()]
        if colon and all(map(_FIELD.match, fields)):
            return Fault(found[1], message, tuple(fields))
        said = said[:-2].rstrip()
    return Fault(found[1], said, ())


_NO_COLUMN = re.compile(r"Field name not found : (\w+)")


def missing_column(message: str) -> str | None:
    """The column for which a whole job failed: InvalidBatch : Field name not found : Title__c."""
    found = _NO_COLUMN.search(message)
    return found[1] if found else None
