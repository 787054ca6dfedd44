"""What is wrong, and who is told of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """How an alert stands with one subject (a sync, a budget, a provider) at this moment.

    `alert` is the configuration's rule in words, "rejected_share above 5%"; `since`: when it began, as far as it can be
    told. `title` is one line, `what` says what happened with the figure and its limit, or why it is over, `advice` what
    to do next. None of them holds a secret or anything about a person. `lasts`: told only once it has lasted so long.
    """

    alert: str
    subject: str
    is_firing: bool
    since: datetime
    title: str
    what: str
    advice: str = ""
    lasts: timedelta = timedelta(0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Firing:
    """What is wrong and known. `is_pending`: it has not lasted long enough to be told."""

    alert: str
    subject: str
    is_pending: bool
    since: datetime
    title: str
    what: str
    advice: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """Whom to tell. `digest` stands for the address, `shown` is what a person may see of it."""

    digest: bytes
    shown: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Notice:
    """One message to one address. `kind`: began | recovered; `state`: waiting | told | superseded | given up."""

    id: int
    alert: str
    subject: str
    kind: str
    address: bytes
    shown: str
    title: str
    body: str
    state: str
    attempts: int
    error: str
    made_at: datetime
    try_at: datetime
    ended_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Late:
    """A sync that was due at `slot` and has not started; `is_queued`: it waits for a worker, else nobody queued it."""

    sync: str
    slot: datetime
    is_queued: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """What one address is told; `address` as the configuration has it: it may hold a password."""

    address: str = field(repr=False)
    title: str
    body: str
    is_good_news: bool = False
