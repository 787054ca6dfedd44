"""What jobs of Bulk API 2.0 have in common, whether they write or read: made, asked about, kept, deleted."""

from __future__ import annotations

import secrets
import threading
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Any, Generic, Literal, TypeVar

from crm_sync.sandbox.salesforce import auth, clock
from crm_sync.sandbox.salesforce.errors import RequestCode, RequestError, not_found
from crm_sync.sandbox.salesforce.org import Org

_DAY_S = 86_400
_KEPT_S = 7 * _DAY_S
_OVER = ("JobComplete", "Failed", "Aborted")


@dataclass(slots=True, kw_only=True)
class Habits:
    """What the contract page leaves open of bulk jobs (contracts/salesforce.md 2.2 and 7, 2026-11), and how long things
    take.

    `polls`: how often a closed job's state is asked before it is done. `page`: rows of one answer of results, None for
    all. `header_each`: every page of results begins with the names of the columns. `empty`: how a list without rows
    is answered, as the "header" alone or with "204" and nothing. `fail_after`: a job ends as Failed once so many rows
    were worked on. `sorts`: a query job with ORDER BY or LIMIT ends; it is not split, and may time out (2.1).
    """

    polls: int = 2
    page: int | None = None
    header_each: bool = True
    empty: Literal["header", "204"] = "header"
    fail_after: int | None = None
    sorts: bool = True


@dataclass(slots=True, kw_only=True)
class Job:
    """`polls_left`: how often its state is asked before it is done."""

    id: str = field(default_factory=lambda: "750" + secrets.token_hex(8)[:12].upper() + "AAA")
    object_name: str
    operation: str
    line_ending: str
    version: str
    made_at: float
    state: str
    polls_left: int = 0
    error: str = ""

    @property
    def is_over(self) -> bool:
        return self.state in _OVER


J = TypeVar("J", bound=Job)


class KeptJobs(ABC, Generic[J]):
    """Jobs of one kind, kept for seven days. Thread-safe under `_lock`."""

    def __init__(self, org: Org, habits: Habits) -> None:
        self._org = org
        self.habits = habits
        self._jobs: dict[str, J] = {}
        self._lock = threading.RLock()

    @abstractmethod
    def create(self, payload: object, *, version: str) -> dict[str, Any]:
        """Answer POST.

        Raises:
            RequestError: 400; no job was made.
        """

    @abstractmethod
    def change(self, job_id: str, payload: object) -> dict[str, Any]:
        """Answer PATCH.

        Raises:
            RequestError: 400 or 404.
        """

    def info(self, job_id: str) -> dict[str, Any]:
        """Answer GET. A closed job goes on as it is asked about.

        Raises:
            RequestError: 404.
        """
        with self._lock:
            job = self._job(job_id)
            if job.state in ("UploadComplete", "InProgress"):
                if job.polls_left > 0:
                    job.polls_left -= 1
                    job.state = "InProgress"
                else:
                    self._work(job)
            shown = self._brief(job) | {"retries": 0, "totalProcessingTime": 0, **self._figures(job)}
            return shown | {"errorMessage": job.error} if job.error else shown

    def delete(self, job_id: str) -> None:
        """Answer DELETE.

        Raises:
            RequestError: 404, or 400 for a job that is not over.
        """
        with self._lock:
            job = self._job(job_id)
            if not job.is_over:
                raise job_refused("INVALIDJOBSTATE", f"A job that is {job.state} cannot be deleted")
            del self._jobs[job_id]

    def listed(self) -> dict[str, str]:
        """Every job that is kept, with its state."""
        with self._lock:
            return {job.id: job.state for job in self._jobs.values()}

    @abstractmethod
    def _work(self, job: J) -> None:
        """Bring a closed job to its end."""

    @abstractmethod
    def _figures(self, job: J) -> dict[str, Any]:
        """What its state tells beside the brief."""

    def _keep(self, job: J) -> dict[str, Any]:
        with self._lock:
            self._jobs[job.id] = job
        return self._brief(job)

    def _abort(self, job: J) -> None:
        if job.is_over:
            raise job_refused("INVALIDJOBSTATE", f"Aborting already {job.state} Job not allowed")
        job.state = "Aborted"

    def _job(self, job_id: str) -> J:
        job = self._jobs.get(job_id)
        if job is None or job.made_at + _KEPT_S < self._org.now():
            raise not_found()
        return job

    def _brief(self, job: J) -> dict[str, Any]:
        made = clock.stamp(job.made_at)
        return {
            "id": job.id,
            "operation": job.operation,
            "object": job.object_name,
            "createdById": auth.INTEGRATION_USER,
            "createdDate": made,
            "systemModstamp": made,
            "state": job.state,
            "concurrencyMode": "Parallel",
            "contentType": "CSV",
            "apiVersion": float(job.version),
            "lineEnding": job.line_ending,
            "columnDelimiter": "COMMA",
        }


def job_refused(code: str, message: str, *, status: int = 400) -> RequestError:
    return RequestError(status, RequestCode(code), message)
