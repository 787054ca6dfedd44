"""Large writes through Bulk API 2.0: a job is made, filled, begun, waited for, and its results joined by id.

simple-salesforce aborts a job after one failed poll, reads its results as ISO-8859-1, cuts them at line ends within a
cell and never renews a token (contracts/salesforce.md 1.5, defects 3 to 7, proven 2026-11): so this is ours.

Nothing is done by a job until it is closed, once. The job is noted before anything is in it, and again before it is
closed: so whoever comes after a crash knows whether to wait for it or to give it up.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

from adapters.http import OversizedError, retry
from adapters.salesforce import bulk_csv, wire
from adapters.salesforce.jobs import Job, Jobs, waits
from adapters.salesforce.wire import Fault, RefusedRequestError, SaveResult
from adapters.salesforce.writing import Row, Update
from crm_sync import crash
from crm_sync.domain.changes import WriteOutcome, Written
from crm_sync.domain.records import RecordRef
from crm_sync.errors import CrmSyncError, ProviderError, RateLimitError, TransientError
from crm_sync.ports import Clock, JobBook, WriteRequest

_log = logging.getLogger(__name__)

#: How long a job may be silent, and how long it may work: a batch that takes 5 minutes is tried 20 times (2.2).
_SILENCE_S = 900.0
_PATIENCE_S = 6 * 3600.0
#: Jobs made for the same rows, where one cannot be filled or begun, or fails for a column or for many rows.
_MOST_JOBS = 4
_MOST_CLOSINGS = 3
_GONE = 404
#: Up to so many rows go in collections, where more take a job (contracts/salesforce.md 2.2: the cut-over).
FEW = 2_000


class Ingest(Jobs):
    """Talks to jobs/ingest."""

    kind = "ingest"

    def create(self, object_type: str) -> str:
        """The id of a new job. One that was made and whose answer was lost stays empty and is never begun."""
        wanted = {
            "object": object_type,
            "operation": "update",
            "contentType": "CSV",
            "lineEnding": "CRLF",
            "columnDelimiter": "COMMA",
        }
        return self.make(wanted).id

    def upload(self, job_id: str, content: bytes) -> None:
        """Never repeated once a byte has left: after a second upload the job could not be closed."""
        self.patiently(
            lambda: self.session.request(
                "PUT",
                f"{self.root}/{job_id}/batches",
                data=content,
                headers={"Content-Type": "text/csv; charset=UTF-8"},
            ),
            harmless=False,
        )

    def close(self, job_id: str) -> None:
        self.ask("PATCH", job_id, {"state": "UploadComplete"})

    def results(self, job_id: str, kind: str, *, expected: int) -> Iterator[dict[str, str]]:
        """The rows of successfulResults, failedResults or unprocessedrecords, all pages. An answer without any rows
        may have no content at all; not where the job told of some."""
        for columns, rows in self.pages(job_id, kind, expected=expected):
            for row in rows:
                yield dict(zip(columns, row, strict=True))


# --- one job from its end -----------------------------------------------------------------------------------------


@dataclass(slots=True, kw_only=True)
class Ends:
    """What became of a job's rows; who is in none of the lists is unaccounted for."""

    failed: list[tuple[Row, Fault]]
    unprocessed: list[Row]
    missing: list[Row]


def await_end(ingest: Ingest, job_id: str, clock: Clock, *, begin: bool) -> Job:
    """The job once it is over, or still Open if it cannot be begun. A poll that fails is only asked again.

    Raises:
        TransientError: nothing was heard of it for too long, or it takes too long; it goes on by itself.
        RefusedRequestError: there is no such job.
    """
    closings = 0
    began = heard = clock.now()
    if begin:
        closings = _try_to_close(ingest, job_id, closings)
    for wait in waits():
        clock.sleep(wait)
        try:
            job = ingest.state(job_id)
        except TransientError as error:
            if (clock.now() - heard).total_seconds() > _SILENCE_S:
                raise
            if isinstance(error, RateLimitError) and error.retry_after_s:
                clock.sleep(error.retry_after_s)
            continue
        heard = clock.now()
        crash.point("bulk.polled")
        if job.is_over or (job.state == "Open" and (not begin or closings >= _MOST_CLOSINGS)):
            return job
        if job.state == "Open":
            closings = _try_to_close(ingest, job_id, closings)
        if (heard - began).total_seconds() > _PATIENCE_S:
            raise TransientError(
                f"the bulk job {job_id} is still {job.state} after {_PATIENCE_S / 3600:g} hours",
                provider=ingest.crm,
                operation="poll",
            )
    raise AssertionError("unreachable")


def _try_to_close(ingest: Ingest, job_id: str, closings: int) -> int:
    """Whether it worked, its state will tell: an answer may be lost."""
    with suppress(TransientError, RefusedRequestError):
        ingest.close(job_id)
        crash.point("bulk.closed")
    return closings + 1


def ends_of(ingest: Ingest, job: Job, rows: Sequence[Row]) -> Ends:
    """Fetch as few lists of results as account for every row, and settle those that were saved. Joined by the id that
    each row echoes, since their order is nobody's (contracts/salesforce.md 0.7). A list too large to be read leaves its
    rows missing.

    Raises:
        TransientError: the results cannot be read now.
    """
    left = {row.ref.id: row for row in rows}
    ends = Ends(failed=[], unprocessed=[], missing=[])

    def found(kind: str, expected: int) -> Iterator[tuple[Row, dict[str, str]]]:
        try:
            for result in ingest.results(job.id, kind, expected=expected) if left else ():
                row = left.pop(_id_of(result), None)
                if row is not None:
                    yield row, result
        except OversizedError as error:
            _log.warning("%s: bulk job %s: %s", ingest.crm, job.id, error)

    for row, _ in found("successfulResults", job.processed - job.failed):
        row.saved()
    for row, result in found("failedResults", job.failed):
        ends.failed.append((row, bulk_csv.fault(result.get("sf__Error", ""))))
    for row, _ in found("unprocessedrecords", 0):
        ends.unprocessed.append(row)
    ends.missing = list(left.values())
    return ends


def _id_of(result: Mapping[str, str]) -> str:
    echoed = next((cell for name, cell in result.items() if name.casefold() == "id"), "") or result.get("sf__Id", "")
    return wire.long_id(echoed) or ""


# --- writing by jobs ----------------------------------------------------------------------------------------------


class BulkUpdate:
    """Settles rows through jobs; what they refuse for one field, or cannot take, goes on in collections.

    `update`: decides on refusals and sends collections. After `run` each row has an outcome; `error` ended it early.
    """

    def __init__(
        self, *, ingest: Ingest, update: Update, switched_off: dict[str, str], clock: Clock, jobs: JobBook
    ) -> None:
        self._ingest = ingest
        self._update = update
        self._switched_off = switched_off
        self._clock = clock
        self._jobs = jobs
        self.error: CrmSyncError | None = None
        #: Whether the org was told anything that it may have acted on.
        self.answered = False

    def run(self, object_type: str, requests: Sequence[WriteRequest], rows: Sequence[Row]) -> None:
        """Never raises a CrmSyncError; `requests` and `rows` by position."""
        request_of = dict(zip(rows, requests, strict=True))
        _settle_repeated(rows)
        left = self._update.left(rows)
        others = [row for row in left if not bulk_csv.fits(row)]
        left = [row for row in left if bulk_csv.fits(row)]
        for _ in range(_MOST_JOBS):
            again: list[Row] = []
            for portion, content in bulk_csv.uploads(left):
                if self.error is not None:
                    break
                again += self._job(object_type, [request_of[row] for row in portion], portion, content)
            left = self._update.left(again)
            if self.error is not None or len(left) <= FEW:
                break
        if self.error is None:
            crash.point("bulk.again")
            self._update.run([*left, *others])
            self.answered = self.answered or self._update.answered
            self.error = self._update.error
        if self.error is not None:
            for row in rows:
                row.leave(self.error)

    def _job(
        self, object_type: str, requests: Sequence[WriteRequest], rows: Sequence[Row], content: bytes
    ) -> list[Row]:
        """The rows that are to be sent again, since they were refused for what was dropped since, or never begun."""
        try:
            job_id = self._filled(object_type, requests, content)
        except CrmSyncError as error:
            self.error = error
            return []
        if job_id is None:
            return list(rows)
        self._jobs.uploaded(job_id)
        crash.point("bulk.uploaded")
        self.answered = True
        try:
            job = await_end(self._ingest, job_id, self._clock, begin=True)
            crash.point("bulk.done")
            if job.state == "Open":
                self._ingest.abort(job_id)
                self._jobs.ended(job_id)
                return list(rows)
            ends = ends_of(self._ingest, job, rows)
        except ProviderError as error:
            _lost(rows, job_id, error)
            if isinstance(error, RefusedRequestError):
                if error.status == _GONE:  # somebody deleted it, and its results with it
                    self._jobs.ended(job_id)
            elif not isinstance(error, TransientError):
                self.error = error
            # Not ended otherwise: it goes on by itself, and its results can be fetched for seven days.
            return []
        crash.point("bulk.fetched")
        self._jobs.ended(job_id)
        crash.point("bulk.ended")
        return self._judged(job, ends)

    def _filled(self, object_type: str, requests: Sequence[WriteRequest], content: bytes) -> str | None:
        """A job with all of it, not yet begun; None where its upload may be broken, so that another is to be made.

        Raises:
            CrmSyncError: none can be had now, and nothing was written.
        """
        job_id = self._ingest.create(object_type)
        crash.point("bulk.created")
        self._jobs.opened(job_id, object_type, requests)
        crash.point("bulk.opened")
        try:
            self._ingest.upload(job_id, content)
        except ProviderError as error:
            with suppress(ProviderError):  # an open job does nothing, whether it is aborted or not
                self._ingest.abort(job_id)
            self._jobs.ended(job_id)
            if isinstance(error, TransientError):
                return None
            raise
        crash.point("bulk.sent")
        return job_id

    def _judged(self, job: Job, ends: Ends) -> list[Row]:
        column = self._column(job, ends.unprocessed)
        if column is not None:
            self._switched_off[column] = f"{wire.scrubbed(job.error)}; it is left out from now on"
        again = self._update.judge([row for row, _ in ends.failed], [SaveResult((fault,)) for _, fault in ends.failed])
        unprocessed = ends.unprocessed
        if job.state != "Aborted" and (column is not None or len(unprocessed) <= FEW):
            again += unprocessed
        else:
            for row in unprocessed:
                row.settle(Written.NOT_WRITTEN, reason=_unprocessed(job))
        for row in ends.missing:
            row.settle(Written.UNACCOUNTED, reason=f"the results of the bulk job {job.id} do not have it")
        return again

    @staticmethod
    def _column(job: Job, unprocessed: Sequence[Row]) -> str | None:
        """The field for which the whole job failed, if it is one of ours."""
        named = bulk_csv.missing_column(job.error)
        if named is None:
            return None
        present = {name.casefold(): name for row in unprocessed for name in row.values}
        return present.get(named.casefold())


def _settle_repeated(rows: Sequence[Row]) -> None:
    """Of two rows of one record the second is refused, as in collections: results could not tell them apart."""
    seen: set[str] = set()
    for row in rows:
        if row.outcome is None and row.ref.id in seen:
            row.reject(Fault("DUPLICATE_VALUE", "the record is named twice in one write", ("Id",)))
        seen.add(row.ref.id)


def _lost(rows: Sequence[Row], job_id: str, error: ProviderError) -> None:
    for row in rows:
        if row.outcome is None:
            row.settle(Written.UNACCOUNTED, reason=f"what became of the bulk job {job_id} could not be asked ({error})")


def _unprocessed(job: Job) -> str:
    said = wire.scrubbed(job.error)
    return f"the bulk job {job.id} ended as {job.state} before it came to this record{f' ({said})' if said else ''}"


# --- taking a job up again ----------------------------------------------------------------------------------------


def resume(
    ingest: Ingest, job_id: str, refs: Sequence[RecordRef], clock: Clock, *, uploaded: bool
) -> list[WriteOutcome]:
    """As ports.Crm.resume. A job that was not begun is given up even where all is in it: what it would write was
    decided on values that may have changed since.

    Raises:
        ProviderError: the org cannot be asked now.
    """
    row_of = {ref: Row(ref=ref, values={}) for ref in map(_long, refs)}
    rows = [row_of[_long(ref)] for ref in refs]
    try:
        job = retry(lambda: ingest.state(job_id), harmless=True, clock=clock)
        if job.state == "Open":
            ingest.abort(job_id)
        if job.state == "Open" or (job.state == "Aborted" and not uploaded):
            return _all(rows, Written.NOT_WRITTEN, f"the bulk job {job_id} was given up before it began")
        if not job.is_over:
            job = await_end(ingest, job_id, clock, begin=False)
        ends = ends_of(ingest, job, list(row_of.values()))
    except RefusedRequestError as error:
        if error.status != _GONE:
            raise
        if not uploaded:
            return _all(rows, Written.NOT_WRITTEN, f"the bulk job {job_id} is gone, and was never begun")
        return _all(rows, Written.UNACCOUNTED, f"the bulk job {job_id} is gone, and its results with it")
    for row, fault in ends.failed:
        if fault.is_lock or fault.is_overload:
            row.settle(Written.NOT_WRITTEN, reason=fault.sentence(), code=fault.code)
        else:
            row.reject(fault)
    for row in ends.unprocessed:
        row.settle(Written.NOT_WRITTEN, reason=_unprocessed(job))
    return _all(rows, Written.UNACCOUNTED, f"the results of the bulk job {job_id} do not have it")


def _long(ref: RecordRef) -> RecordRef:
    return RecordRef(crm=ref.crm, object_type=ref.object_type, id=wire.long_id(ref.id) or ref.id)


def _all(rows: Sequence[Row], written: Written, reason: str) -> list[WriteOutcome]:
    """The outcomes, of those that have none yet this one."""
    for row in rows:
        if row.outcome is None:
            row.settle(written, reason=reason)
    return [row.settled() for row in rows]
