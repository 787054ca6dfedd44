"""From a record's fields to what Apollo recognises it by."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache, lru_cache, partial
from importlib.resources import files
from typing import TYPE_CHECKING
from urllib.parse import unquote

from crm_sync.config.model import Match, SendKey
from crm_sync.domain.enrichment import Enrichment, MatchKeys, Purpose
from crm_sync.domain.records import Value
from crm_sync.mapping.blanks import is_placeholder, placeholder_form

if TYPE_CHECKING:
    from publicsuffixlist import PublicSuffixList

_EMAIL = re.compile(r"[^\s@<>(),;:\"\[\]\\]{1,64}@(?:[^\W_](?:[\w-]{0,61}[^\W_])?\.)+[^\W\d_](?:[\w-]{0,61}[^\W_])\Z")
# Possessive: a text of nothing but slashes must not be tried in every partition.
_SITE = re.compile(
    r"(?:(?:https?|ftp)?[:;]?/+)*+(?P<user>[^/?#@\s]*@)?(?P<host>[^/?#\\\s,;|:@]+)(?::\d*)?(?P<path>[^\s,;|]*)",
    re.IGNORECASE,
)
_HOST = re.compile(r"(?:[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?\.)+(?!\d+\Z)[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])\Z")
_LINKEDIN = re.compile(
    r"(?<![\w.-])(?:[a-z0-9-]{1,63}\.){0,3}linkedin\.com/+(?:mwlite/)?(in|company|school)/+([^/?#\s]+)", re.IGNORECASE
)
_SLUG = re.compile(r"[\w.&'’–+~!*-]+\Z")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+")
#: Marks without width that copying from web pages leaves behind. Joiners inside a word are spelling and stay.
_MARKS = re.compile(r"[\u200b\u200e\u200f\u202a-\u202e\u2060\ufeff]+")
#: No field in either CRM that holds a key is longer; the rest of a longer text identifies nobody.
_LONGEST = 500


def compile_keys(
    match: Match, purpose: Purpose, *, placeholders: tuple[str, ...]
) -> Callable[[Mapping[str, Value]], MatchKeys]:
    """A function from a record's values to its normalised MatchKeys; compiled once a run.

    Of the fields a key may come from, the first one counts that holds something sound. A `domain` is left empty when
    it is a free-mail provider's (nobody's employer) or a host where the record only has a page (facebook.com/acme).
    """
    blank = frozenset(placeholder_form(word) for word in placeholders)
    steps = [(key.key, key.fields, _normaliser(key, purpose)) for key in match.send]

    def keys_of(values: Mapping[str, Value]) -> MatchKeys:
        found: dict[str, str] = {}
        for name, fields, normalise in steps:
            for field in fields:
                value = values.get(field)
                if value is None or value == "":
                    continue
                text = value if isinstance(value, str) else str(value)
                if not is_placeholder(text, blank) and (key := normalise(text[:_LONGEST])):
                    found[name] = key
                    break
        return MatchKeys(purpose=purpose, **found)

    return keys_of


def weakness(keys: MatchKeys, match: Match) -> str:
    """Why these keys are too weak to be sent, "" when they are strong enough."""
    for group in match.need_one_of:
        if all(getattr(keys, name) for name in group):
            return "" if keys.key else "nothing in this record identifies it to Apollo"
    ways = ", or ".join(" with ".join(group) for group in match.need_one_of)
    return f"too weak to match: needs {ways}"


def other_keys(asked: MatchKeys, answer: Enrichment) -> tuple[str, ...]:
    """By which other MatchKeys.key this answer is known: those that only this person or company has.

    A person found by name and employer gets a LinkedIn page or an address from us and is then known by that, and a
    lead may hold the page of whom a contact holds the address: without these the same answer would be bought again.
    """
    organization = answer.organization
    if asked.purpose is Purpose.COMPANY:
        page = linkedin_url(str(organization.get("linkedin_url") or ""), purpose=asked.purpose)
        ways = [
            MatchKeys(purpose=asked.purpose, domain=registrable_domain(organization.get("primary_domain"))),
            MatchKeys(purpose=asked.purpose, linkedin_url=page),
        ]
    else:
        page = linkedin_url(str(answer.person.get("linkedin_url") or ""), purpose=asked.purpose)
        ways = [
            MatchKeys(purpose=asked.purpose, email=email(str(answer.person.get("email") or ""))),
            MatchKeys(purpose=asked.purpose, linkedin_url=page),
        ]
        if not asked.email and not asked.linkedin_url:
            # The same name at the same employer, once its domain is filled in.
            ways.append(replace(asked, domain=registrable_domain(organization.get("primary_domain"))))
    found = dict.fromkeys(way.key for way in ways)
    return tuple(key for key in found if key and key != asked.key)


def _normaliser(key: SendKey, purpose: Purpose) -> Callable[[str], str]:
    if key.key == "email":
        return email
    if key.key == "linkedin_url":
        return partial(linkedin_url, purpose=purpose)
    if key.key == "domain" or key.as_domain:
        return partial(company_domain, purpose=purpose)
    return _name


def _visible(text: str, *, control: str = "") -> str:
    return text if text.isprintable() else _CONTROL.sub(control, _MARKS.sub("", text))


def _name(text: str) -> str:
    return " ".join(_visible(text, control=" ").split())[:200]


def email(text: str) -> str:
    """The address trimmed and lower-cased, "" when it cannot be one, or is Apollo's locked placeholder written back
    by somebody ("email_not_unlocked@domain.com", contracts/apollo.md 2.1, 2026-10)."""
    address = _visible(text).strip().lower()
    if len(address) > 254 or not _EMAIL.match(address) or ".." in address or address.startswith("email_not_unlocked"):
        return ""
    return address


def linkedin_url(text: str, *, purpose: Purpose) -> str:
    """ "http://www.linkedin.com/in/slug", whatever country, spelling or tracking it came with; "" for other pages.

    A company asks with /company/ and /school/ pages (one and the same at LinkedIn), a person with /in/ pages. The
    old /pub/name/1/2/3 form is no slug: its name alone belongs to somebody else.
    """
    found = _LINKEDIN.search(_visible(text, control=" "))
    if found is None or (found[1].lower() == "in") != (purpose is Purpose.PERSON):
        return ""
    slug = (unquote(found[2]) if "%" in found[2] else found[2]).rstrip(".,;:)>'\"").lower()
    if not _SLUG.match(slug):
        return ""
    return f"http://www.linkedin.com/{'in' if purpose is Purpose.PERSON else 'company'}/{slug}"


def company_domain(text: str, *, purpose: Purpose) -> str:
    """registrable_domain where it stands for an employer, else "".

    A person's domain is never a free-mail provider's; a company's only when it is its website, not its e-mail.
    """
    found = _site(text)
    if found is None:
        return ""
    host, is_mail = found["host"].lower(), found["user"] is not None
    domain = _registrable(host)
    if (is_mail or purpose is Purpose.PERSON) and domain in _listed("free_mail_domains"):
        return ""
    if is_mail:
        return "" if found["user"].lower().startswith("email_not_unlocked") else domain
    if domain in _listed("page_hosts") and (found["path"].strip("/") or host.removeprefix("www.") != domain):
        return ""
    return domain


def registrable_domain(text: object) -> str:
    """The registrable domain of a website, host or e-mail address, "" when there is none or it is no text at all.

    "HTTPS://www.sales.acme.co.uk:8443/en?x" -> "acme.co.uk"; international names as punycode. Of several sites in one
    field the first counts.
    """
    found = _site(text) if isinstance(text, str) else None
    return _registrable(found["host"].lower()) if found is not None else ""


def _site(text: str) -> re.Match[str] | None:
    return _SITE.match(_visible(text, control=" ").strip())


@lru_cache(maxsize=16_384)
def _registrable(host: str) -> str:
    host = host.strip(".")
    if not host.isascii():
        try:
            host = host.encode("idna").decode()
        except UnicodeError:
            return ""
    if len(host) > 253 or not _HOST.match(host):
        return ""
    # The list's private part makes acme.uk.com and acme.github.io domains of their own. A host that is itself such
    # an ending (github.io) is its owner's.
    return _suffixes().privatesuffix(host) or _icann_suffixes().privatesuffix(host) or ""


@cache
def _suffixes() -> PublicSuffixList:
    from publicsuffixlist import PublicSuffixList

    # Unknown endings (.example, .test, a company's own) count as one label, as browsers do.
    return PublicSuffixList(accept_unknown=True)


@cache
def _icann_suffixes() -> PublicSuffixList:
    from publicsuffixlist import PublicSuffixList

    return PublicSuffixList(accept_unknown=True, only_icann=True)


@cache
def _listed(name: str) -> frozenset[str]:
    return frozenset(files("crm_sync").joinpath(f"data/{name}.txt").read_text(encoding="utf-8").split())
