"""A guarded write: records in one composite call, each refused by Salesforce if it changed since it was read. Pure.

The guard is If-Unmodified-Since with the record's LastModifiedDate. It has a resolution of one second, so an edit that
follows another within the same second would not be seen (contracts/salesforce.md 2.5, 2026-11). A record that was read
in the very second of its last change is therefore read once more when that second is over: see `fresh`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

from adapters.salesforce import wire
from adapters.salesforce.wire import SAVED, Fault, SaveResult
from adapters.salesforce.writing import Row
from crm_sync.domain.changes import Written

#: Subrequests of one composite call, which counts as one API call (contracts/salesforce.md 2.2, 2026-11).
SUBREQUESTS = 25

_MOVED = 412
#: A second of the change, one of the org's Date header, and one that the answer was on its way.
_FRESH = timedelta(seconds=3)
#: After so long the second of a change is over.
OUTLAST_S = 1.05
#: Refusals of everybody at once: nothing was done.
_CROWDED = "REQUEST_LIMIT_EXCEEDED"


def http_date(version: str) -> str | None:
    """A LastModifiedDate as a header has it, cut to the second; None when it is no moment."""
    try:
        moment = datetime.fromisoformat(version)
    except ValueError:
        return None
    return None if moment.tzinfo is None else format_datetime(moment.astimezone(UTC), usegmt=True)


def check_guards(rows: Sequence[Row]) -> None:
    """Settle the rows that cannot be guarded although they were read: they are never sent without a guard."""
    for row in rows:
        if row.version is not None and http_date(row.version) is None and row.outcome is None:
            row.settle(
                Written.NOT_WRITTEN,
                reason="Salesforce did not say when the record last changed, and without that a strict write cannot "
                "be guarded",
            )


def fresh(rows: Sequence[Row], now: datetime) -> list[Row]:
    """The rows whose last change is so recent that another one may bear the same second. `now` is the org's time, which
    its answers tell to the second."""
    found = []
    for row in rows:
        if row.outcome is None and row.version:
            try:
                changed = datetime.fromisoformat(row.version)
            except ValueError:
                continue
            if changed.tzinfo is not None and changed >= now - _FRESH:
                found.append(row)
    return found


def body(rows: Sequence[Row], *, version: str, headers: Mapping[str, str]) -> dict[str, Any]:
    """The body of POST composite. Subrequests with headers of their own are not collated anyway (2.2): so each is a
    transaction of its own, and says so."""
    return {
        "allOrNone": False,
        "collateSubrequests": False,
        "compositeRequest": [_subrequest(at, row, version, headers) for at, row in enumerate(rows)],
    }


def _subrequest(at: int, row: Row, version: str, headers: Mapping[str, str]) -> dict[str, Any]:
    since = None if row.version is None else http_date(row.version)
    return {
        "method": "PATCH",
        "url": f"/services/data/v{version}/sobjects/{row.ref.object_type}/{row.ref.id}",
        "referenceId": f"r{at}",
        "httpHeaders": {**headers, "If-Unmodified-Since": since} if since else dict(headers),
        "body": row.values,
    }


def results(answer: Any, count: int) -> list[SaveResult] | None:
    """A result per subrequest; None when the answer does not account for every one in its place."""
    entries = answer.get("compositeResponse") if isinstance(answer, dict) else None
    if not isinstance(entries, list) or len(entries) != count:
        return None
    found = []
    for at, entry in enumerate(entries):
        if type(entry) is not dict or entry.get("referenceId") != f"r{at}":
            return None
        status = entry.get("httpStatusCode")
        if type(status) is not int:
            return None
        found.append(_result(status, entry.get("body")))
    return found


def _result(status: int, said: Any) -> SaveResult:
    if 200 <= status < 300:
        return SAVED
    if status == _MOVED:
        return SaveResult(moved=True)
    faults = tuple(map(_with_column, wire.faults_of(said))) or (Fault(f"HTTP {status}", "no reason given", ()),)
    codes = {fault.code for fault in faults}
    if status in wire.BUSY or _CROWDED in codes:
        return SaveResult(faults, passing=True)
    if status >= 500 or status == wire.TIMED_OUT or "SERVER_UNAVAILABLE" in codes:
        return SaveResult(faults, passing=True, in_doubt=True)
    return SaveResult(faults)


def _with_column(fault: Fault) -> Fault:
    """An unknown column is told in the message alone."""
    return Fault(fault.code, fault.message, wire.columns_of(fault) or fault.fields)
