"""Bulk API 2.0 ingest: jobs that take a CSV of updates, work on it by themselves, and keep three lists of results."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass, field
from typing import Any

from crm_sync.sandbox.salesforce import rules
from crm_sync.sandbox.salesforce.errors import RequestCode, RequestError, RowError, not_found
from crm_sync.sandbox.salesforce.jobs import Habits, Job, KeptJobs, job_refused
from crm_sync.sandbox.salesforce.org import Org
from crm_sync.sandbox.salesforce.schema import SObject
from crm_sync.sandbox.salesforce.writes import Writes

#: Bytes of an upload: 150 MB once it is base64 (contracts/salesforce.md 2.2).
MAX_UPLOAD = 100_000_000
#: Rows that are worked on together; what a failed job leaves is whole batches.
BATCH = 10_000
_ENDINGS = {"LF": "\n", "CRLF": "\r\n"}
_CREATE_KEYS = ("object", "operation", "contentType", "lineEnding", "columnDelimiter", "assignmentRuleId")


@dataclass(slots=True, kw_only=True)
class _Job(Job):
    sobject: SObject
    operation: str = "update"
    state: str = "Open"
    upload: bytes | None = None
    uploads: int = 0
    columns: list[str] = field(default_factory=list)
    succeeded: list[list[str]] = field(default_factory=list)
    failed: list[list[str]] = field(default_factory=list)
    unprocessed: list[list[str]] = field(default_factory=list)


class Jobs(KeptJobs[_Job]):
    """Answers jobs/ingest."""

    def __init__(self, org: Org, writes: Writes, habits: Habits) -> None:
        super().__init__(org, habits)
        self._writes = writes

    def create(self, payload: object, *, version: str) -> dict[str, Any]:
        """Answer POST jobs/ingest.

        Raises:
            RequestError: 400; no job was made.
        """
        if not isinstance(payload, dict):
            raise job_refused("INVALIDJOB", "a job is an object")
        if foreign := [key for key in payload if key not in _CREATE_KEYS]:
            raise RequestError(400, RequestCode.JSON_PARSER_ERROR, f'Unrecognized field "{foreign[0]}"')
        name = self._org.object_name(str(payload.get("object")))
        if name is None:
            raise job_refused("INVALIDJOB", f"InvalidEntity : Unable to find object: {payload.get('object')}")
        if payload.get("operation") != "update":
            raise job_refused("INVALIDJOB", "The crm-sync sandbox simulates the operation update only.")
        if payload.get("contentType", "CSV") != "CSV" or payload.get("columnDelimiter", "COMMA") != "COMMA":
            raise job_refused("INVALIDJOB", "The crm-sync sandbox simulates CSV with commas only.")
        ending = payload.get("lineEnding", "LF")
        if ending not in _ENDINGS:
            raise job_refused("INVALIDJOB", f"Invalid lineEnding: {ending}")
        job = _Job(
            object_name=name,
            sobject=self._org.objects[name],
            line_ending=ending,
            version=version,
            made_at=self._org.now(),
        )
        return self._keep(job)

    def upload(self, job_id: str, content: bytes) -> None:
        """Answer PUT jobs/ingest/<id>/batches. A second upload is taken, and then the job cannot be closed any more.

        Raises:
            RequestError: 400 or 404.
        """
        with self._lock:
            job = self._job(job_id)
            if job.state != "Open":
                raise job_refused("INVALIDJOBSTATE", f"Job state is not Open: {job.state}")
            if len(content) > MAX_UPLOAD:
                raise job_refused("CLIENTINPUTERROR", "The upload is larger than 150 MB of base64 encoded content")
            job.upload = content
            job.uploads += 1

    def change(self, job_id: str, payload: object) -> dict[str, Any]:
        """Answer PATCH jobs/ingest/<id>: UploadComplete or Aborted.

        Raises:
            RequestError: 400 or 404.
        """
        wanted = payload.get("state") if isinstance(payload, dict) else None
        if wanted not in ("UploadComplete", "Aborted"):
            raise job_refused("INVALIDJOBSTATE", f"The state of a job can be UploadComplete or Aborted, not {wanted}")
        with self._lock:
            job = self._job(job_id)
            if wanted == "Aborted":
                self._abort(job)
                job.columns, job.unprocessed = self._rows(job)
                return self._brief(job)
            if job.state != "Open":
                raise job_refused("INVALIDJOBSTATE", f"Closing already {job.state} Job not allowed")
            if job.upload is None:
                raise job_refused("INVALIDJOBSTATE", "Closing a job without content is not allowed")
            if job.uploads > 1:
                raise job_refused(
                    "INVALIDJOB",
                    f"Found multiple contents for job: <{job.id}>, please 'Close' / 'Abort' / 'Delete' the current Job"
                    " then create a new Job and make sure you only do 'PUT' once on a given Job.",
                )
            job.state = "UploadComplete"
            job.polls_left = self.habits.polls
            return self._brief(job)

    def results(self, job_id: str, kind: str, locator: str | None) -> tuple[str, str]:
        """Answer GET jobs/ingest/<id>/<kind>: CSV text, "" for 204, and the locator of the next page ("null").

        Raises:
            RequestError: 404, or 400 while the job works.
        """
        with self._lock:
            job = self._job(job_id)
            if not job.is_over:
                raise job_refused("INVALIDJOBSTATE", f"Results are not ready: the job is {job.state}")
            columns, rows = self._listed(job, kind.lower())
        if not rows and self.habits.empty == "204":
            return "", "null"
        page = self.habits.page or len(rows) or 1
        if locator is not None and (not locator.isdecimal() or int(locator) >= len(rows) or int(locator) % page):
            raise job_refused("INVALID_QUERY_LOCATOR", "invalid locator")
        start = int(locator) if locator is not None else 0
        text = io.StringIO()
        writer = csv.writer(text, quoting=csv.QUOTE_ALL, lineterminator=_ENDINGS[job.line_ending])
        if start == 0 or self.habits.header_each:
            writer.writerow(columns)
        writer.writerows(rows[start : start + page])
        return text.getvalue(), str(start + page) if start + page < len(rows) else "null"

    # --- the work ---

    def _work(self, job: _Job) -> None:
        columns, rows, error = self._read(job)
        job.columns = columns
        if error:
            job.state, job.error, job.unprocessed = "Failed", error, rows
            return
        fields = [None if name.lower() == "id" else job.sobject.field(name) for name in columns]
        place = next(at for at, name in enumerate(columns) if name.lower() == "id")
        end = len(rows) if self.habits.fail_after is None else min(self.habits.fail_after, len(rows))
        seen: set[str] = set()
        for start in range(0, end, BATCH):
            batch = rows[start : min(start + BATCH, end)]
            asked = [(row[place], rules.cells(zip(fields, row, strict=True))) for row in batch]
            verdicts = self._writes.update_rows(job.sobject, asked, seen)
            for row, verdict in zip(batch, verdicts, strict=True):
                if isinstance(verdict, RowError):
                    blamed = f"{','.join(verdict.fields)} --" if verdict.fields else "--"
                    said = f"{verdict.code.value}:{verdict.message}:{blamed}"
                    job.failed.append([row[place], said, *row])
                else:
                    job.succeeded.append([verdict, "false", *row])
        # The service promises no order of results: nobody shall join by position.
        job.succeeded.reverse()
        job.failed.reverse()
        job.unprocessed = rows[end:]
        job.state = "Failed" if job.unprocessed else "JobComplete"
        if job.unprocessed:
            job.error = "InternalServerError : Batch failed after 20 retries"

    def _read(self, job: _Job) -> tuple[list[str], list[list[str]], str]:
        """The upload's columns and rows, and why the job cannot be done."""
        columns, rows = self._rows(job)
        wrong = self._wrong_ending(job)
        if wrong:
            return columns, rows, wrong
        named = [name.lower() for name in columns]
        if "id" not in named:
            return columns, rows, "InvalidBatch : Field name not found : Id"
        for name in columns:
            if name.lower() != "id" and job.sobject.field(name) is None:
                return columns, rows, f"InvalidBatch : Field name not found : {name}"
        if len(set(named)) < len(named):
            return columns, rows, "InvalidBatch : Duplicate field name in the header"
        if any(len(row) != len(columns) for row in rows):
            return columns, rows, "InvalidBatch : The number of fields in the record does not match the header"
        return columns, rows, ""

    def _rows(self, job: _Job) -> tuple[list[str], list[list[str]]]:
        text = (job.upload or b"").decode("utf-8", "replace")
        lines = list(csv.reader(io.StringIO(text, newline=""), strict=False))
        return (lines[0], lines[1:]) if lines else ([], [])

    @staticmethod
    def _wrong_ending(job: _Job) -> str:
        """A header that does not end as the job said it would, and CSV that cannot be read."""
        upload = job.upload or b""
        try:
            text = upload.decode("utf-8")
            list(csv.reader(io.StringIO(text, newline=""), strict=True))
        except (UnicodeDecodeError, csv.Error) as error:
            return f"ClientInputError : Error parsing CSV: {type(error).__name__}"
        first = text.partition("\n")[0] + "\n"
        if first.endswith("\r\n") != (job.line_ending == "CRLF"):
            said = "ClientInputError : LineEnding is invalid on user data. Current LineEnding setting is"
            return f"{said} {job.line_ending}"
        return ""

    # --- answers ---

    def _listed(self, job: _Job, kind: str) -> tuple[list[str], list[list[str]]]:
        lists = {
            "successfulresults": (["sf__Id", "sf__Created", *job.columns], job.succeeded),
            "failedresults": (["sf__Id", "sf__Error", *job.columns], job.failed),
            "unprocessedrecords": (job.columns, job.unprocessed),
        }
        if kind not in lists:
            raise not_found()
        return lists[kind]

    def _brief(self, job: _Job) -> dict[str, Any]:
        return super()._brief(job) | {"contentUrl": f"services/data/v{job.version}/jobs/ingest/{job.id}/batches"}

    def _figures(self, job: _Job) -> dict[str, Any]:
        return {
            "jobType": "V2Ingest",
            "apiActiveProcessingTime": 0,
            "apexProcessingTime": 0,
            "numberRecordsProcessed": len(job.succeeded) + len(job.failed),
            "numberRecordsFailed": len(job.failed),
        }
