"""What we ask the enricher and what it knows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum
from typing import Any


class Purpose(StrEnum):
    """Which question a paid call asks."""

    PERSON = "person"
    COMPANY = "company"
    #: A person's phone numbers, by Apollo's own id; they come later (domain/reveals.py).
    PHONE = "phone"


@dataclass(frozen=True, slots=True, kw_only=True)
class MatchKeys:
    """What we send to be recognised by, already normalised (mapping/match_keys.py); "" is "not known".

    email lower-cased; domain registrable and bare; linkedin_url "http://www.linkedin.com/in/slug" or
    ".../company/slug". `apollo_id` is Apollo's own person id, when an earlier answer told it.
    """

    purpose: Purpose
    email: str = ""
    first_name: str = ""
    last_name: str = ""
    name: str = ""
    organization_name: str = ""
    domain: str = ""
    linkedin_url: str = ""
    apollo_id: str = ""

    @property
    def key(self) -> str:
        """The identity that is bought once: e-mail, else LinkedIn, else name and domain; for a company its domain,
        else LinkedIn, else name; for a phone Apollo's id. "" when nothing identifies it."""
        if self.purpose is Purpose.PHONE:
            return f"apollo:{self.apollo_id}" if self.apollo_id else ""
        if self.purpose is Purpose.COMPANY:
            if self.domain:
                return f"domain:{self.domain}"
            if self.linkedin_url:
                return f"linkedin:{self.linkedin_url}"
            return f"name:{self.organization_name.casefold()}" if self.organization_name else ""
        if self.email:
            return f"email:{self.email}"
        if self.linkedin_url:
            return f"linkedin:{self.linkedin_url}"
        full = (self.name or f"{self.first_name} {self.last_name}").strip().casefold()
        if full and self.domain:
            return f"name:{full}@{self.domain}"
        if full and self.organization_name:
            return f"name:{full}@{self.organization_name.casefold()}"
        return ""


class Verdict(StrEnum):
    """What an answer means for one asked-for person or company."""

    MATCHED = "matched"
    NO_MATCH = "no match"
    #: Somebody came back and nothing we sent proves it is the one we asked for.
    UNPROVED = "unproved"


@dataclass(frozen=True, slots=True, kw_only=True)
class Enrichment:
    """The enricher's answer for one MatchKeys.

    `person` and `organization` are Apollo's objects as answered, each {} when absent, with what is no fact removed
    by the adapter: placeholder e-mails, the switchboard in phone_numbers, a revenue of 0.0 that means unknown.
    A company's answer has only `organization`. `reason` explains NO_MATCH and UNPROVED in a sentence.
    """

    verdict: Verdict
    person: Mapping[str, Any]
    organization: Mapping[str, Any]
    apollo_id: str = ""
    reason: str = ""


NO_MATCH = Enrichment(verdict=Verdict.NO_MATCH, person={}, organization={}, reason="Apollo knows nobody by these keys")


@dataclass(frozen=True, slots=True, kw_only=True)
class RawAnswer:
    """One paid call's answer, before anything reads it.

    `body` are the bytes as answered (JSON was checked to parse, nothing more). `credits` is what Apollo says it
    charged, None where it does not say; `request_id` Apollo's top-level id as text ("" where absent).
    """

    body: bytes
    credits: Decimal | None
    request_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """A RawAnswer read: one Enrichment per MatchKeys asked, in the order asked.

    None where the answer left that one open (a company missing from an unordered bulk answer): ask it singly.
    `outputs`: how many companies an unordered answer holds, whoever they belong to; None where each has its place.
    """

    enrichments: tuple[Enrichment | None, ...]
    outputs: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CreditBalance:
    """Credits left in the shared pool, and when the plan's period ends ("" unknown)."""

    left: Decimal
    used: Decimal | None = None
    renews_at: str = ""
