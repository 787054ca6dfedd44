"""A person as the database knows them, and what was found of them. Values only; store/privacy.py finds and erases."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from urllib.parse import quote

from crm_sync.domain.enrichment import Enrichment, MatchKeys, Verdict
from crm_sync.domain.runs import RunKind
from crm_sync.mapping.identities import of_email, of_linkedin, of_record
from crm_sync.store.runs import RunRecord

#: What JSON writes before a word on a new line: `\\nada@…`.
_BEFORE = rb"(?:(?<![\w.+%-])|(?<=\\[nrtbf]))"
_PAGE = "http://www.linkedin.com/"


@dataclass(slots=True)
class Person:
    """By what somebody is known; grows while their answers are found. `pages` are LinkedIn's ("in/ada-lovelace"),
    `ids` Apollo's, `keys` each MatchKeys.key they were asked for by."""

    emails: set[str]
    pages: set[str] = field(default_factory=set)
    ids: set[str] = field(default_factory=set)
    keys: set[str] = field(default_factory=set)

    def names(self) -> Callable[[bytes], bool]:
        """Tells whether folded JSON names them: by whole addresses, pages and ids, not the beginning of another's."""
        slugs = {page.removeprefix("in/") for page in self.pages}
        slugs |= {quote(slug).lower() for slug in slugs}
        words = [each.encode() for each in sorted(self.emails | slugs | {each.casefold() for each in self.ids})]
        ways = [_BEFORE + re.escape(each.encode()) + rb"(?![\w-]|\.\w)" for each in sorted(self.emails)]
        ways += [rb"linkedin\.com/+in/+" + re.escape(each.encode()) + rb"(?![\w%-])" for each in sorted(slugs)]
        ways += [b'"' + re.escape(each.casefold().encode()) + b'"' for each in sorted(self.ids)]
        found = re.compile(b"|".join(ways)).search
        # Looking for plain words first is fifty times as fast, and nearly always the end of it.
        return lambda text: any(word in text for word in words) and found(text) is not None

    def is_asked_by(self, key: MatchKeys) -> bool:
        return bool(key.key) and (
            key.key in self.keys
            or key.email in self.emails
            or _page_of(key.linkedin_url) in self.pages
            or key.apollo_id in self.ids
        )

    def is_told_by(self, enrichment: Enrichment) -> bool:
        """Whether this answer, proved to be about whom was asked for, is theirs."""
        person = enrichment.person
        return (
            enrichment.apollo_id in self.ids
            or _page_of(person.get("linkedin_url")) in self.pages
            or not self.emails.isdisjoint(_addresses(person))
        )

    def learn(self, key: MatchKeys, enrichment: Enrichment | None) -> None:
        """`key` is theirs, and so is what a proved answer to it says."""
        self.keys.add(key.key)
        self.emails.update(filter(None, (key.email,)))
        self.pages.update(filter(None, (_page_of(key.linkedin_url),)))
        self.ids.update(filter(None, (key.apollo_id,)))
        if enrichment is not None and enrichment.verdict is Verdict.MATCHED:
            self.emails.update(_addresses(enrichment.person))
            self.pages.update(filter(None, (_page_of(enrichment.person.get("linkedin_url")),)))
            self.ids.update(filter(None, (enrichment.apollo_id,)))

    def learn_identity(self, identity: str) -> None:
        """An e-mail address, a LinkedIn page or Apollo's id of theirs, as mapping/identities.py spells it."""
        kind, _, text = identity.partition(":")
        {"email": self.emails, "linkedin": self.pages, "apollo": self.ids}[kind].add(text)

    def is_within(self, other: Person) -> bool:
        """Whether `other` is known by all that this one is."""
        return self.emails <= other.emails and self.pages <= other.pages and self.ids <= other.ids

    @property
    def size(self) -> int:
        return len(self.emails) + len(self.pages) + len(self.ids) + len(self.keys)

    def identities(self) -> set[str]:
        """For the suppressions: what the person is known by whoever enriches."""
        return (
            {f"email:{each}" for each in self.emails}
            | {f"linkedin:{each}" for each in self.pages}
            | {f"apollo:{each}" for each in self.ids}
        )

    def all_keys(self) -> set[str]:
        return (
            self.keys
            | {f"email:{each}" for each in self.emails}
            | {f"linkedin:{_PAGE}{each}" for each in self.pages}
            | {f"apollo:{each}" for each in self.ids}
        )


def _page_of(url: object) -> str:
    found = of_linkedin(url).removeprefix("linkedin:") if isinstance(url, str) else ""
    return found if found.startswith("in/") else ""


def _addresses(person: Any) -> set[str]:
    more = person.get("personal_emails")
    found = [person.get("email"), *(more if isinstance(more, list) else ())]
    return {of_email(each)[6:] for each in found if isinstance(each, str)} - {""}


@dataclass(frozen=True, slots=True, kw_only=True)
class CallTrace:
    """A paid call that asked for them at `positions` of its `keys`, or whose answer names them: `entries`, as Apollo
    told them."""

    id: int
    run_id: str
    sync: str
    endpoint: str
    state: str
    planned_at: datetime
    answered_at: datetime | None
    keys: tuple[MatchKeys, ...]
    positions: frozenset[int]
    entries: tuple[Any, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerTrace:
    """A row of the index that stands for them, or points at an answer of theirs."""

    purpose: str
    key: bytes
    verdict: str
    source: str
    batch_id: int
    position: int
    obtained_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordTrace:
    """A record of theirs in a run, or one whose decisions name them."""

    run_id: str
    kind: RunKind
    crm: str
    at: datetime
    record: RunRecord


@dataclass(frozen=True, slots=True, kw_only=True)
class WaitTrace:
    """A phone that was asked for as theirs, or for a record of theirs."""

    id: int
    crm: str
    object_type: str
    record_id: str
    sync: str
    run_id: str
    order_id: str | None
    state: str
    reason: str
    asked_at: datetime
    settled_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryTrace:
    """What was delivered about them: `entries`, with their numbers, as Apollo told them; none where the delivery cannot
    be read, or only its `reason` names them."""

    id: int
    order_id: str
    state: str
    reason: str
    received_at: datetime
    source: str
    entries: tuple[Any, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class StateTrace:
    """The last attempt at a record of theirs by a sync."""

    sync: str
    object_type: str
    record_id: str
    outcome: str
    attempted_at: datetime


@dataclass(slots=True, kw_only=True)
class Traces:
    """All of it. `versions` are configuration versions whose text names them: those are told and not changed.

    `own_records`: (crm, object, id) of the records that were looked up as theirs.
    """

    person: Person
    calls: list[CallTrace] = field(default_factory=list)
    index: list[AnswerTrace] = field(default_factory=list)
    records: list[RecordTrace] = field(default_factory=list)
    states: list[StateTrace] = field(default_factory=list)
    waits: list[WaitTrace] = field(default_factory=list)
    deliveries: list[DeliveryTrace] = field(default_factory=list)
    unmapped: list[tuple[str, str, str]] = field(default_factory=list)
    errors: list[int] = field(default_factory=list)
    reasons: list[str] = field(default_factory=list)
    orders: list[str] = field(default_factory=list)
    versions: list[int] = field(default_factory=list)
    own_records: set[tuple[str, str, str]] = field(default_factory=set)
    #: Table -> rows about their records that hold digests and reasons, no values; as they are told.
    kept: dict[str, list[dict[str, Any]]] = field(default_factory=dict)

    def counts(self) -> dict[str, int]:
        """By table, those that hold something."""
        found = {
            "batches": len({call.id for call in self.calls} | set(self.errors)),
            "answers": len(self.index),
            "run_records": len(self.records),
            "record_states": len(self.states),
            "phone_waits": len(self.waits),
            "deliveries": len(self.deliveries),
            **{table: len(rows) for table, rows in self.kept.items()},
            "unmapped_values": len(self.unmapped),
            "runs": len(self.reasons),
            "reveal_orders": len(self.orders),
        }
        return {table: count for table, count in found.items() if count}

    def identities(self) -> set[str]:
        return self.person.identities() | {of_record(*each) for each in self.own_records}
