"""What the jobs of Bulk API 2.0 have in common, whether they write or read: making, asking, giving up, fetching."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

import orjson

from adapters.http import retry
from adapters.salesforce import bulk_csv
from adapters.salesforce.session import SalesforceSession
from adapters.salesforce.wire import RefusedRequestError
from crm_sync.errors import TransientError
from crm_sync.ports import Clock

T = TypeVar("T")

_OVER = frozenset({"JobComplete", "Failed", "Aborted"})
_FIRST_WAIT_S, _LONGEST_WAIT_S, _GROWTH = 1.0, 10.0, 1.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What the org tells of a job; `error` is its sentence where it failed as a whole."""

    id: str
    state: str
    error: str = ""
    processed: int = 0
    failed: int = 0

    @property
    def is_over(self) -> bool:
        return self.state in _OVER


class Jobs:
    """Talks to one kind of jobs; each call raises what SalesforceSession does, and TransientError for an odd answer."""

    kind: ClassVar[str]

    def __init__(self, session: SalesforceSession, *, version: str, clock: Clock) -> None:
        self.crm = session.provider
        self.session = session
        self.clock = clock
        self.root = f"/services/data/v{version}/jobs/{self.kind}"

    def make(self, wanted: Mapping[str, str]) -> Job:
        """A new job. One that was made and whose answer was lost is left alone: nobody knows of it."""
        return self.patiently(lambda: self.ask("POST", "", wanted))

    def state(self, job_id: str) -> Job:
        """Asked once: whoever waits for a job asks again anyway."""
        return self.ask("GET", job_id, None)

    def abort(self, job_id: str) -> None:
        """Done too where it was aborted before, be it by a try of ours whose answer was lost."""
        try:
            self.patiently(lambda: self.ask("PATCH", job_id, {"state": "Aborted"}))
        except RefusedRequestError:
            if self.patiently(lambda: self.state(job_id)).state != "Aborted":
                raise

    def ask(self, method: str, job_id: str, body: Mapping[str, str] | None) -> Job:
        path = f"{self.root}/{job_id}" if job_id else self.root
        data = None if body is None else orjson.dumps(body)
        answer: Any = self.session.request(method, path, data=data, headers={"Content-Type": "application/json"}).json()
        if not isinstance(answer, dict) or not all(isinstance(answer.get(key), str) for key in ("id", "state")):
            raise self.odd("a bulk job")
        return Job(
            id=answer["id"],
            state=answer["state"],
            error=str(answer.get("errorMessage") or ""),
            processed=_count(answer.get("numberRecordsProcessed")),
            failed=_count(answer.get("numberRecordsFailed")),
        )

    def pages(
        self, job_id: str, kind: str, *, expected: int, most: int = 0
    ) -> Iterator[tuple[list[str], list[list[str]]]]:
        """Columns and rows of each page of results. `expected`: 0 where there may be no content at all; `most`: rows of
        a page, 0 for what the org likes."""
        columns: list[str] | None = None
        locator, known = "", set[str]()
        while True:
            columns, rows, locator = self.patiently(
                lambda at=locator, before=columns: self._page(job_id, kind, at, before, expected, most)  # type: ignore[misc]
            )
            if columns is not None:
                yield columns, rows
            if not locator:
                return
            if locator in known:
                raise self.odd("the results of a bulk job")
            known.add(locator)

    def _page(
        self, job_id: str, kind: str, locator: str, columns: list[str] | None, expected: int, most: int
    ) -> tuple[list[str] | None, list[list[str]], str]:
        """Columns, rows, and the locator of the next page, "" for none. `columns`: of the page before."""
        params = {"locator": locator} if locator else {}
        if most:
            params["maxRecords"] = str(most)
        response = self.session.request(
            "GET", f"{self.root}/{job_id}/{kind}", headers={"Accept": "text/csv"}, params=params
        )
        following = response.headers.get("Sforce-Locator", "")
        if not response.content.strip() and columns is None and not expected:
            return None, [], ""
        found = bulk_csv.page(response.content, columns)
        if found is None:
            raise self.odd("the results of a bulk job")
        return *found, "" if following == "null" else following

    def patiently(self, call: Callable[[], T], *, harmless: bool = True) -> T:
        return retry(call, harmless=harmless, clock=self.clock)

    def odd(self, what: str) -> TransientError:
        return TransientError(
            f"{self.crm} answered {what} in a form that is not Salesforce's", provider=self.crm, operation="bulk"
        )


def waits() -> Iterator[float]:
    """Seconds before each question of whether a job is over, without end."""
    wait = _FIRST_WAIT_S
    while True:
        yield wait
        wait = min(wait * _GROWTH, _LONGEST_WAIT_S)


def _count(value: Any) -> int:
    return value if isinstance(value, int) else 0
