"""Who is meant: each way of naming a person, a company or a record, as one text that is always spelled the same.

email:ada@lovelace.example    domain:lovelace.example    linkedin:in/ada-lovelace
record:salesforce:Contact:003000000000001AAA             phone:+442071234567
apollo:66f1f9a2c3d4e5f6a7b8c9d0                          (Apollo's own id of a person)
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from itertools import compress

from crm_sync.domain.enrichment import Purpose
from crm_sync.domain.records import Value
from crm_sync.mapping.match_keys import email, linkedin_url, registrable_domain

KINDS = ("email", "domain", "linkedin", "record", "phone", "apollo")

#: CRM name -> type, as in the configuration.
Crms = Mapping[str, str]

#: A Salesforce id begins with its object's key prefix, the same in every org.
_PREFIXES = {"001": "Account", "003": "Contact", "00Q": "Lead"}
_OBJECTS = {"salesforce": tuple(_PREFIXES.values()), "hubspot": ("contacts", "companies")}
_ID = re.compile(r"[A-Za-z0-9]{15}(?:[A-Za-z0-5]{3})?\Z", re.ASCII)
_SUFFIX = "ABCDEFGHIJKLMNOPQRSTUVWXYZ012345"
_IN_BRACKETS = re.compile(r"[^<>]*<\s*([^<>\s]+@[^<>\s]+)\s*>\s*\Z")
#: International call prefixes people dial: 00 nearly everywhere, 011 in North America.
_ABROAD = re.compile(r"(?:\+|00|011)(?=[1-9])")
_NOT_DIALLED = re.compile(r"\(0\)|[\s().\-–/\u00a0]")  # (0) is not dialled from abroad
_EXTENSION = re.compile(r"\s*(?:,|;|#|x|ext\.?|extension)\s*\d{1,6}\s*\Z", re.IGNORECASE)


class NotAnIdentityError(ValueError):
    """The value is not of that kind. The text says what is, and never holds the value: it may be somebody's address."""


def kind_of(identity: str) -> str:
    return identity.partition(":")[0]


# --- one function for each kind; "" where the text is none ------------------------------------------------------------


def of_email(text: str) -> str:
    """Also from "Ada Lovelace <ada@lovelace.example>" and "mailto:…"."""
    found = _IN_BRACKETS.match(text[:500])
    address = email((found[1] if found else text).strip().removeprefix("mailto:"))
    return f"email:{address}" if address else ""


def of_domain(text: str) -> str:
    """A domain stands for its registrable domain: mail.acme.co.uk and https://www.acme.co.uk/en are acme.co.uk."""
    domain = registrable_domain(text)
    return f"domain:{domain}" if domain else ""


def of_linkedin(text: str) -> str:
    """A person's page (in/…) or a company's (company/…)."""
    for purpose in Purpose:
        url = linkedin_url(text, purpose=purpose)
        if url:
            return f"linkedin:{url.removeprefix('http://www.linkedin.com/')}"
    return ""


def of_phone(text: str) -> str:
    """A number with its country code; without one nobody can tell whose it is."""
    number = _dialled(text)
    abroad = _ABROAD.match(number)
    if abroad is None:
        return ""
    digits = number[abroad.end() :]
    return f"phone:+{digits}" if digits.isascii() and digits.isdigit() and 7 <= len(digits) <= 15 else ""


def _dialled(text: str) -> str:
    return _NOT_DIALLED.sub("", _EXTENSION.sub("", text.strip()))


def of_apollo(apollo_id: str) -> str:
    """Spelled as MatchKeys.key spells a person whose phone is asked for: one digest stands for both."""
    found = apollo_id.strip()
    return f"apollo:{found}" if 0 < len(found) <= 64 and found.isprintable() and " " not in found else ""


def of_record(crm: str, object_type: str, record_id: str) -> str:
    return f"record:{crm}:{object_type}:{long_id(record_id) or record_id}"


# --- what a person types, or a list holds -----------------------------------------------------------------------------


def identify(kind: str, text: str, crms: Crms, *, of_object: str = "") -> tuple[str, ...]:
    """The identities that `text` of that kind names: several only for a record id that several CRMs may have.

    `of_object`: the HubSpot object a bare record id belongs to, where it is known (a column "contact id").

    Raises:
        NotAnIdentityError: it names none.
    """
    if kind == "record":
        return _records(text.strip(), crms, of_object)
    found = ""
    if kind == "email":
        found = of_email(text)
    elif kind == "domain" and "@" not in text and " " not in text.strip():
        found = of_domain(text)
    elif kind == "linkedin":
        found = of_linkedin(text)
    elif kind == "phone":
        found = of_phone(text)
    elif kind == "apollo":
        found = of_apollo(text)
    if not found:
        raise NotAnIdentityError(_WANTED[kind])
    return (found,)


_WANTED = {
    "email": "it is no e-mail address",
    "domain": "it is no domain; write it bare: acme.com",
    "linkedin": "it is no LinkedIn profile or company page; write linkedin.com/in/… or linkedin.com/company/…",
    "phone": "it is no phone number with a country code; write it as in +44 20 7123 4567",
    "apollo": "it is no id of Apollo's, as in 66f1f9a2c3d4e5f6a7b8c9d0",
}


def guess(text: str, crms: Crms) -> tuple[str, ...]:
    """The identities that `text` names, told by its looks; () when it looks like none, or like several kinds."""
    kind = _looks_like(text.strip())
    try:
        return identify(kind, text, crms) if kind else ()
    except NotAnIdentityError:
        return ()


def _looks_like(text: str) -> str:
    if "@" in text:
        return "email"
    if "linkedin.com/" in text.casefold():
        return "linkedin"
    if (_ID.match(text) and text[:3] in _PREFIXES) or (text.count(":") in (1, 2) and "/" not in text):
        return "record"
    if text[:1] in ("+", "0") and _ABROAD.match(_dialled(text)):
        return "phone"
    return "domain" if "." in text else ""


def implied(identity: str) -> tuple[str, ...]:
    """The identity, and what it belongs to: an address belongs to its domain."""
    return (identity, of_domain(identity.partition(":")[2])) if kind_of(identity) == "email" else (identity,)


def _records(text: str, crms: Crms, of_object: str) -> tuple[str, ...]:
    """`crm:object:id`, `object:id`, or a Salesforce id alone."""
    if not crms:
        raise NotAnIdentityError("there is no CRM yet whose record it could be; apply a configuration first")
    *where, record_id = (part.strip() for part in text.split(":"))
    if len(where) == 2 and where[0] not in crms:
        raise NotAnIdentityError(f"there is no such CRM; there is {', '.join(crms)}")
    names = [where[0]] if len(where) == 2 else list(crms)
    object_type = where[-1] if where else ""
    found = [
        of_record(name, known, record_id)
        for name in names
        for known in (_object_of(crms[name], object_type or of_object, record_id),)
        if known
    ]
    if not found or len(where) > 2:
        raise NotAnIdentityError(
            "it is no record id; write a Salesforce id, or CRM:OBJECT:ID as in hubspot:contacts:12345"
        )
    return tuple(found)


def _object_of(crm_type: str, object_type: str, record_id: str) -> str:
    """The object that a record with this id is of, "" when it cannot be."""
    if crm_type == "salesforce":
        full = long_id(record_id)
        known = _PREFIXES.get(full[:3], "") if full else ""
        return known if object_type in ("", known) or object_type not in _OBJECTS[crm_type] else ""
    is_id = record_id.isascii() and record_id.isdigit() and len(record_id) <= 20
    return object_type if is_id and object_type in _OBJECTS.get(crm_type, ()) else ""


def long_id(record_id: str) -> str | None:
    """The 18 characters of a Salesforce id in their right case, None when it is none.

    One of 15 is case-sensitive and names the same row (contracts/salesforce.md 2.6, 2026-11). The last three of 18 say
    which of the others are capitals, so that an id whose case was lost on the way through a spreadsheet can be mended.
    """
    if not _ID.match(record_id):
        return None
    if len(record_id) == 15:
        return record_id + "".join(_SUFFIX[_capitals(record_id[at : at + 5])] for at in (0, 5, 10))
    suffix = record_id[15:].upper()
    capital = [_SUFFIX.index(letter) >> place & 1 for letter in suffix for place in range(5)]
    if any(c.isdigit() for c in compress(record_id, capital)):
        return None
    body = "".join(c.upper() if up else c.lower() for c, up in zip(record_id, capital, strict=False))
    return body + suffix


def _capitals(five: str) -> int:
    return sum(1 << place for place, c in enumerate(five) if "A" <= c <= "Z")


# --- what a record holds ----------------------------------------------------------------------------------------------


def emails_in(value: Value) -> Iterator[str]:
    """Every address in a field: HubSpot keeps further ones in a list (hs_additional_emails)."""
    for text in value if isinstance(value, tuple) else str(value or "").split(";"):
        if "@" in text:
            identity = of_email(text)
            if identity:
                yield identity


def phones_in(value: Value) -> Iterator[str]:
    """A number as it stands, and as it would be with a country code that somebody left out.

    Without + it may be a whole number all the same, or one of North America: better one look-up too many.
    """
    text = str(value or "")
    if not any(c.isdigit() for c in text):
        return
    known = of_phone(text)
    if known:
        yield known
        return
    for prefix in ("+", "+1"):
        identity = of_phone(prefix + text.strip())
        if identity:
            yield identity
