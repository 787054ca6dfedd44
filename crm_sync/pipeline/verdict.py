"""What a run is called when it has ended, and why."""

from __future__ import annotations

from collections.abc import Sequence

from crm_sync.domain.runs import RunStatus, SyncRun
from crm_sync.errors import BudgetError, ContractError, CredentialsError, CrmSyncError, HeldError
from crm_sync.pipeline.audit import Audit
from crm_sync.pipeline.walk import Stop

#: Whatever was done before: these need a person.
_ENDINGS = (CredentialsError, ContractError, HeldError)

#: Said of fields that the CRM did not take, while the rest of their records was saved.
FIELDS_REFUSED = "field value"


def verdict(
    run: SyncRun,
    audit: Audit,
    stop: Stop,
    *,
    fails_at_limit: bool = False,
    parent: str = "",
    remarks: Sequence[str] = (),
    phones: int = 0,
) -> tuple[RunStatus, str]:
    """The run's status and reason, worst first.

    A run that an error stopped, or kept from writing, has failed where nothing at all came of it in the CRM: people
    whom Apollo does not know do not make it a success. `parent` is the object of its `account:` section; `remarks` are
    further sentences about what went wrong; `phones` are numbers that are still to come.
    """
    counts = run.counts
    is_barren = not (counts.updated or counts.unchanged or run.parents.updated)
    if not counts.balanced or not run.parents.balanced:
        return RunStatus.FAILED, f"the books do not balance: {counts}"
    if stop:
        if stop.error is None:
            return RunStatus.CANCELLED, stop.reason
        if isinstance(stop.error, BudgetError):
            return (RunStatus.FAILED if fails_at_limit else RunStatus.STOPPED_AT_BUDGET), stop.reason
        if is_barren or isinstance(stop.error, _ENDINGS) or not isinstance(stop.error, CrmSyncError):
            return RunStatus.FAILED, stop.reason
        return RunStatus.COMPLETED_WITH_ERRORS, stop.reason
    if audit.unwritten and is_barren:
        return RunStatus.FAILED, audit.unwritten.most_common(1)[0][0]
    troubles = [
        (audit.unwritten.total(), "not written"),
        (counts.rejected, "rejected by the CRM"),
        (counts.invalid, "invalid"),
        (counts.in_doubt, "in doubt"),
        (run.parents.rejected, f"rejected on {parent}" if parent else ""),
        (audit.refused_fields, f"{FIELDS_REFUSED}{_s(audit.refused_fields)} refused"),
        (audit.conflicts, f"field{_s(audit.conflicts)} changed since and left as before"),
        (audit.put_back, f"edit{_s(audit.put_back)} made by people at the same time put back"),
        (audit.unstamped, "not stamped"),
    ]
    said = [f"{count} {word}" for count, word in troubles if count] + list(remarks)
    if said:
        return RunStatus.COMPLETED_WITH_ERRORS, ", ".join(said)
    return (RunStatus.WAITING_FOR_PHONES if phones else RunStatus.COMPLETED), ""


def _s(count: int) -> str:
    return "" if count == 1 else "s"
