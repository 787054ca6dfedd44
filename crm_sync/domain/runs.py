"""One run of a sync and its books."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from enum import StrEnum


class RunStatus(StrEnum):
    """The words every surface uses for a run."""

    QUEUED = "Queued"
    RUNNING = "Running"
    WAITING_FOR_PHONES = "Waiting for phones"
    COMPLETED = "Completed"
    COMPLETED_WITH_ERRORS = "Completed with errors"
    STOPPED_AT_BUDGET = "Stopped at budget"
    CANCELLED = "Cancelled"
    FAILED = "Failed"


class RunKind(StrEnum):
    """A plan is the same walk with a writer that only answers "planned". Three change what was settled before: an undo
    restores, an apply writes exactly a plan, a review writes what a person accepted. `phones` writes numbers that runs
    have ordered, as they are delivered."""

    RUN = "run"
    PLAN = "plan"
    UNDO = "undo"
    APPLY = "apply"
    REVIEW = "review"
    PHONES = "phones"


class RecordOutcome(StrEnum):
    """What became of one record in a run. The value is the word every surface shows."""

    UPDATED = "Updated"
    UNCHANGED = "Unchanged"
    NO_MATCH = "No match"
    SKIPPED = "Skipped"
    NEEDS_REVIEW = "Needs review"
    INVALID = "Invalid"
    REJECTED = "Rejected"
    IN_DOUBT = "In doubt"


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """The books: selected = the sum of all the others, or the run is Failed with that as its reason."""

    selected: int = 0
    updated: int = 0
    unchanged: int = 0
    no_match: int = 0
    skipped: int = 0
    needs_review: int = 0
    invalid: int = 0
    rejected: int = 0
    in_doubt: int = 0

    @property
    def balanced(self) -> bool:
        return self.selected == (
            self.updated + self.unchanged + self.no_match + self.skipped
            + self.needs_review + self.invalid + self.rejected + self.in_doubt
        )  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Unsettled:
    """Credits at worst beside those of a run: of calls without an end or in doubt, and of phones that are to come."""

    in_doubt: Decimal = Decimal(0)
    to_come: Decimal = Decimal(0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What a queued run is to do, as `crm-sync run` says it. `attempt`: the how manieth it is of those that go on with
    one that broke off."""

    limit: int | None = None
    max_credits: Decimal | None = None
    free: bool = False
    attempt: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class SyncRun:
    """One run of a configured sync.

    `calls` counts provider calls, "apollo bulk_match" -> 3. `left_out` counts records that were due by their fields
    and not selected, by reason. `parents` are the books of the `account:` section; its `selected` counts parents.
    """

    id: str
    sync: str
    crm: str
    object_type: str
    kind: RunKind
    status: RunStatus
    trigger: str
    config_version: int | None
    started_at: datetime
    finished_at: datetime | None = None
    reason: str = ""
    counts: Counts = field(default_factory=Counts)
    credits: Decimal = Decimal(0)
    calls: dict[str, int] = field(default_factory=dict)
    left_out: dict[str, int] = field(default_factory=dict)
    parents: Counts = field(default_factory=Counts)
    #: When it was queued for a worker; None: it was begun by hand.
    queued_at: datetime | None = None
    #: The moment of its schedule that it was queued for.
    slot: datetime | None = None
    #: The id of the run that broke off and that it goes on with.
    continues: str = ""


def new_run_id(now: datetime) -> str:
    """Sorts by time, reads aloud, and does not collide: 20261123-021500-7f3a."""
    return f"{now.astimezone(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"


def queued_run(
    *,
    sync: str,
    crm: str,
    object_type: str,
    trigger: str,
    config_version: int | None,
    now: datetime,
    slot: datetime | None = None,
    continues: str = "",
) -> SyncRun:
    """A run that waits for a worker."""
    return SyncRun(
        id=new_run_id(now),
        sync=sync,
        crm=crm,
        object_type=object_type,
        kind=RunKind.RUN,
        status=RunStatus.QUEUED,
        trigger=trigger,
        config_version=config_version,
        started_at=now,
        queued_at=now,
        slot=slot,
        continues=continues,
    )
