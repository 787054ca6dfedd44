"""Phone numbers that were ordered and come later: what the order was told, what is delivered, what a poll says."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum


class Ordering(StrEnum):
    """What Apollo's own answer to a reveal says about what will come (contracts/apollo.md 3, 2026-10)."""

    #: The numbers will be delivered under this order's token.
    ACCEPTED = "accepted"
    #: A reveal of these people is under way from an earlier order: nothing comes under this one's token.
    SKIPPED = "skipped"
    #: Nothing will come at all: Apollo did not accept it, or its answer does not speak of it.
    NOTHING = "nothing ordered"
    #: Nothing will come: none of the people was found.
    NOBODY = "nobody matched"


@dataclass(frozen=True, slots=True, kw_only=True)
class OrderAnswer:
    """`reason` in a sentence, "" where it was accepted."""

    ordering: Ordering
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class PhoneNumber:
    """One number as it was delivered.

    `raw` as somebody typed it, `sanitized` in E.164 where Apollo has it; "" for none. The codes are trimmed and
    case-folded, "" where null or absent: `type` (type_cd), `status` (status_cd), `confidence` (confidence_cd), `dnc`
    (dnc_status_cd: "not_found" means that it is not on the do-not-call list). `country`: of its do-not-call check.
    """

    raw: str
    sanitized: str
    type: str = ""
    status: str = ""
    confidence: str = ""
    dnc: str = ""
    country: str = ""
    position: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PersonPhones:
    """One person of a delivery; no `numbers` is an answer too: there are none."""

    apollo_id: str
    numbers: tuple[PhoneNumber, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class PhoneDelivery:
    """A delivery, or a poll's answer, read.

    `credits` as Apollo reports them for the delivery, None where it does not; `request_id` as text, "" where the body
    has none (the documented native one); `shape`: native | waterfall | envelope. `finished` is False for an envelope
    without its result.
    """

    people: tuple[PersonPhones, ...]
    credits: Decimal | None
    request_id: str
    shape: str
    finished: bool = True


class PollState(StrEnum):
    """What a poll for an order's result says (contracts/apollo.md 3, 2026-10)."""

    READY = "ready"
    PENDING = "pending"
    #: Apollo never heard of the request, or cannot read its id.
    UNKNOWN = "unknown"
    #: Apollo keeps results for 30 days.
    EXPIRED = "expired"
    #: The key lacks the scope.
    NOT_ALLOWED = "not allowed"
    #: Apollo gave up, and its answer holds no result.
    FAILED = "failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Polled:
    """`body` is the answer as it came, where READY; `retry_after_s` where PENDING, None where it is not told."""

    state: PollState
    body: bytes = b""
    retry_after_s: float | None = None
    reason: str = ""
