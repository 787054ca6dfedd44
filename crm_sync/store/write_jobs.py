"""Bulk jobs whose end is not known yet: noted before anything is uploaded, taken up by the next process."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import orjson
from sqlalchemy import delete, insert, select, update

from crm_sync.ports import Clock, WriteRequest
from crm_sync.store.engine import Store
from crm_sync.store.tables import write_jobs


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenJob:
    """`uploaded`: the CRM may have begun; False: it certainly has not."""

    job_id: str
    run_id: str
    share: int
    crm: str
    object_type: str
    record_ids: tuple[str, ...]
    uploaded: bool


class WriteJobs:
    def __init__(self, store: Store) -> None:
        self._store = store

    def open(self) -> list[OpenJob]:
        """The jobs that were never ended, oldest first."""
        with self._store.read() as connection:
            return [
                OpenJob(
                    job_id=row.job_id,
                    run_id=row.run_id,
                    share=row.share,
                    crm=row.crm,
                    object_type=row.object_type,
                    record_ids=tuple(orjson.loads(row.records)),
                    uploaded=bool(row.uploaded),
                )
                for row in connection.execute(select(write_jobs).order_by(write_jobs.c.opened_at))
            ]

    def end(self, crm: str, job_id: str) -> None:
        with self._store.write() as connection:
            connection.execute(delete(write_jobs).where(write_jobs.c.crm == crm, write_jobs.c.job_id == job_id))

    def book(self, run_id: str, crm: str, clock: Clock, *, share: int = 0) -> RunJobs:
        return RunJobs(self._store, self, run_id, share, crm, clock)


class RunJobs:
    """ports.JobBook of one run, or of one share of it."""

    def __init__(self, store: Store, jobs: WriteJobs, run_id: str, share: int, crm: str, clock: Clock) -> None:
        self._store = store
        self._jobs = jobs
        self._run_id = run_id
        self._share = share
        self._crm = crm
        self._clock = clock

    def opened(self, job_id: str, object_type: str, requests: Sequence[WriteRequest]) -> None:
        with self._store.write() as connection:
            connection.execute(
                insert(write_jobs).values(
                    crm=self._crm,
                    job_id=job_id,
                    run_id=self._run_id,
                    share=self._share,
                    object_type=object_type,
                    records=orjson.dumps([request.ref.id for request in requests]),
                    uploaded=0,
                    opened_at=self._clock.now(),
                )
            )

    def uploaded(self, job_id: str) -> None:
        with self._store.write() as connection:
            connection.execute(
                update(write_jobs)
                .where(write_jobs.c.crm == self._crm, write_jobs.c.job_id == job_id)
                .values(uploaded=1)
            )

    def ended(self, job_id: str) -> None:
        self._jobs.end(self._crm, job_id)
