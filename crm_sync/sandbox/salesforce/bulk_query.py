"""Bulk API 2.0 query: jobs that run one SOQL query by themselves and hand out its rows as pages of CSV."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from typing import Any

from crm_sync.sandbox.salesforce.jobs import Habits, Job, KeptJobs, job_refused
from crm_sync.sandbox.salesforce.org import Org
from crm_sync.sandbox.salesforce.query import Queries

#: Rows of a page where the client does not say (contracts/salesforce.md 1.4).
_PAGE = 50_000
_CREATE_KEYS = ("operation", "query", "contentType", "lineEnding", "columnDelimiter")


@dataclass(slots=True, kw_only=True)
class _Job(Job):
    query: str
    operation: str = "query"
    line_ending: str = "LF"
    state: str = "UploadComplete"
    header: str = ""
    rows: list[str] | None = None


class QueryJobs(KeptJobs[_Job]):
    """Answers jobs/query."""

    def __init__(self, org: Org, queries: Queries, habits: Habits) -> None:
        super().__init__(org, habits)
        self._queries = queries

    def create(self, payload: object, *, version: str) -> dict[str, Any]:
        """Answer POST jobs/query.

        Raises:
            RequestError: 400; no job was made.
        """
        if not isinstance(payload, dict) or not isinstance(payload.get("query"), str):
            raise job_refused("INVALIDJOB", "a query job has a query")
        if foreign := [key for key in payload if key not in _CREATE_KEYS]:
            raise job_refused("INVALIDJOB", f"Unrecognized field {foreign[0]}")
        if payload.get("operation") != "query":
            raise job_refused("INVALIDJOB", "The crm-sync sandbox simulates the operation query only.")
        if (
            payload.get("contentType", "CSV") != "CSV"
            or payload.get("columnDelimiter", "COMMA") != "COMMA"
            or payload.get("lineEnding", "LF") != "LF"
        ):
            raise job_refused("INVALIDJOB", "The crm-sync sandbox simulates CSV with commas and LF only.")
        table = self._queries.table(payload["query"])
        if not table.columns:
            raise job_refused("INVALIDJOB", "Aggregate queries are not supported")
        if any(field.type == "address" for field in table.fields):
            raise job_refused("INVALIDJOB", "Selecting compound data not supported in Bulk Query")
        job = _Job(
            query=payload["query"],
            object_name=table.object_name,
            version=version,
            made_at=self._org.now(),
            polls_left=self.habits.polls,
        )
        return self._keep(job)

    def change(self, job_id: str, payload: object) -> dict[str, Any]:
        """Answer PATCH jobs/query/<id>: Aborted.

        Raises:
            RequestError: 400 or 404.
        """
        if not isinstance(payload, dict) or payload.get("state") != "Aborted":
            raise job_refused("INVALIDJOBSTATE", "The state of a query job can be Aborted")
        with self._lock:
            job = self._job(job_id)
            self._abort(job)
            return self._brief(job)

    def results(self, job_id: str, locator: str | None, most: str | None, *, version: str) -> tuple[str, str, int]:
        """Answer GET jobs/query/<id>/results: CSV text, the locator of the next page ("null"), the number of rows.

        Raises:
            RequestError: 404, 409 for another API version than the job's, 400 otherwise.
        """
        with self._lock:
            job = self._job(job_id)
            if version != job.version:
                raise job_refused("API_ERROR", "The results have another API version than the job", status=409)
            if job.state != "JobComplete" or job.rows is None:
                raise job_refused("INVALIDJOBSTATE", f"Results are not ready: the job is {job.state}")
            size = int(most) if most is not None and most.isdecimal() and int(most) else _PAGE
            start = int(locator) if locator is not None and locator.isdecimal() else 0
            if locator is not None and (not locator.isdecimal() or start >= len(job.rows)):
                raise job_refused("INVALID_QUERY_LOCATOR", "invalid locator")
            rows = job.rows[start : start + size]
            following = str(start + size) if start + size < len(job.rows) else "null"
            return job.header + "".join(rows), following, len(rows)

    def _work(self, job: _Job) -> None:
        table = self._queries.table(job.query)
        if table.is_sorted and not self.habits.sorts:
            job.state, job.error = "Failed", "InternalServerError : Retried more than fifteen times"
            return
        kinds = [field.type for field in table.fields]
        job.header = _line(table.columns)
        job.rows = [_line([_cell(kind, value) for kind, value in zip(kinds, row, strict=True)]) for row in table.rows]
        job.state = "JobComplete"

    def _figures(self, job: _Job) -> dict[str, Any]:
        return {"jobType": "V2Query", "numberRecordsProcessed": len(job.rows or ())}


def _line(cells: list[str]) -> str:
    text = io.StringIO()
    csv.writer(text, quoting=csv.QUOTE_ALL, lineterminator="\n").writerow(cells)
    return text.getvalue()


def _cell(kind: str, value: object) -> str:
    """CSV writes moments with Z, where JSON has +0000."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    text = str(value)
    return text.replace("+0000", "Z") if kind == "datetime" else text
