"""Long selections through Bulk API 2.0: a window of records at a time, in the order of their ids.

A selection goes on by REST pages of 2,000 until it is known to be long, and then by windows, each a query job of its
own that takes a third of the calls. A job with ORDER BY or LIMIT is not split by the org and may time out
(contracts/salesforce.md 2.1, 2026-11): so it is given a bounded time, and where it does not end in that, or is refused,
the selection goes on by pages. What was read long ago is not worth a paid call: a window that is used up slowly is left
for fresh pages.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

from adapters.salesforce.jobs import Job, Jobs, waits
from crm_sync.domain.records import FieldKind
from crm_sync.errors import ProviderError, TransientError

_log = logging.getLogger(__name__)

#: Records read by pages before a window is tried, and records of a window.
MANY = 100_000
WINDOW = 100_000
#: Records of one answer: a megabyte for each two hundred bytes of theirs, and the session reads 32.
_PAGE = 20_000
_PATIENCE_S = 600.0
_FRESH_S = 900.0


class Windows(Jobs):
    """Talks to jobs/query."""

    kind = "query"

    def rows(self, query: str, kinds: Mapping[str, FieldKind], *, size: int) -> Iterator[tuple[list[Any], bool]]:
        """The rows of `query`, which is sorted and has WINDOW as its limit, as a REST query has them: up to `size` at a
        time, each time with whether they are the last that the query would have without its limit.

        Ends early, maybe before the first, where the job cannot be had, takes too long or grows old; then the rest is
        to be asked for another way. `kinds`: of each column, by its path.
        """
        try:
            job = self._done(query)
        except ProviderError as error:
            _log.info("%s: a long selection goes on by pages (%s)", self.crm, error)
            return
        if job is None:
            return
        ended = self.clock.now()
        try:
            yield from self._sliced(job, kinds, size, lambda: (self.clock.now() - ended).total_seconds() < _FRESH_S)
        except ProviderError as error:
            _log.info("%s: a long selection goes on by pages (%s)", self.crm, error)
        finally:
            with suppress(ProviderError):
                self.session.request("DELETE", f"{self.root}/{job.id}")

    def _sliced(
        self, job: Job, kinds: Mapping[str, FieldKind], size: int, is_fresh: Callable[[], bool]
    ) -> Iterator[tuple[list[Any], bool]]:
        left, seen = [], 0  # type: list[Any], int
        for columns, lines in self.pages(job.id, "results", expected=job.processed, most=_PAGE):
            if sorted(columns) != sorted(kinds):
                raise self.odd("the rows of a bulk query")
            read = row_reader(columns, kinds)
            try:
                left += map(read, lines)
            except ValueError:
                raise self.odd("the rows of a bulk query") from None
            seen += len(lines)
            # One slice is kept until it is known whether it is the last.
            while len(left) > size:
                if not is_fresh():
                    return
                yield left[:size], False
                left = left[size:]
        if seen == job.processed and (left or not seen):
            yield left, seen < WINDOW

    def _done(self, query: str) -> Job | None:
        """A job that has all its rows; None, and the job given up, where it failed or took too long.

        Raises:
            ProviderError: it could not be asked.
        """
        job = self.make(
            {"operation": "query", "query": query, "contentType": "CSV", "lineEnding": "LF", "columnDelimiter": "COMMA"}
        )
        began = self.clock.now()
        for wait in waits():
            self.clock.sleep(wait)
            with suppress(TransientError):
                job = self.state(job.id)
            if job.state == "JobComplete":
                return job
            if job.is_over or (self.clock.now() - began).total_seconds() > _PATIENCE_S:
                _log.info("%s: query job %s is %s; its records are read by pages", self.crm, job.id, job.state)
                break
        if not job.is_over:
            with suppress(ProviderError):
                self.abort(job.id)
        return None


def row_reader(columns: Sequence[str], kinds: Mapping[str, FieldKind]) -> Callable[[Sequence[str]], dict[str, Any]]:
    """A function from a line of CSV to the row that a REST query gives: values typed, parents nested, blanks None."""
    places = [(name.split("."), _READERS.get(kinds[name], str)) for name in columns]

    def read(line: Sequence[str]) -> dict[str, Any]:
        row: dict[str, Any] = {}
        for (path, typed), cell in zip(places, line, strict=True):
            node = row
            for parent in path[:-1]:
                node = node.setdefault(parent, {})
            node[path[-1]] = typed(cell) if cell else None
        return row

    return read


def _moment(cell: str) -> str:
    """As JSON has it: with an offset where CSV has Z."""
    return cell[:-1] + "+0000" if cell.endswith("Z") else cell


_READERS: Mapping[FieldKind, Callable[[str], Any]] = {
    FieldKind.BOOLEAN: lambda cell: cell == "true",
    FieldKind.INTEGER: int,
    FieldKind.DECIMAL: float,
    FieldKind.DATETIME: _moment,
}
