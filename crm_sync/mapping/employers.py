"""Whether the employer that Apollo knows is the one a record has, and whose an e-mail address is. Pure."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Mapping
from typing import Any

from crm_sync.domain.enrichment import Enrichment, MatchKeys, Purpose
from crm_sync.mapping.match_keys import company_domain, email

FOREIGN_EMAIL = "Apollo's e-mail belongs to another company"
PLACEHOLDER_EMAIL = "Apollo's e-mail is only a placeholder"

_WORD = re.compile(r"\w+")
#: Words of a company's name that tell nothing about which company it is.
_LEGAL_FORMS = frozenset({
    "inc", "incorporated", "llc", "ltd", "limited", "corp", "corporation", "co", "company", "gmbh", "ag", "se", "sa",
    "sas", "sarl", "srl", "spa", "bv", "nv", "ab", "oy", "as", "plc", "kg", "pty", "lp", "llp", "the",
})  # fmt: skip


def asked_domains(keys: MatchKeys) -> frozenset[str]:
    """The employer as the record knows it: the domain that was sent, and that of the e-mail address unless it is a
    free-mail provider's. Both, because a company's mail often has another domain than its website."""
    found = (keys.domain, company_domain(keys.email, purpose=Purpose.PERSON) if keys.email else "")
    return frozenset(domain for domain in found if domain)


def own_domains(organization: Mapping[str, Any]) -> frozenset[str]:
    """The domains of this company itself, registrable; free-mail providers and hosts of pages are nobody's."""
    return frozenset(_sites(organization, ("primary_domain", "domain", "website_url")))


def group_domains(organization: Mapping[str, Any]) -> frozenset[str]:
    """Those of the company, its owner, the head of its group and its subsidiaries, as far as Apollo tells them
    (contracts/apollo.md 2.3, 2026-10: of owners the website, in single answers; bulk answers are thin)."""
    relatives = [organization.get("owned_by_organization"), organization.get("ultimate_parent_organization")]
    below = organization.get("suborganizations")
    relatives += below if isinstance(below, list) else []
    found = set(own_domains(organization))
    for relative in relatives:
        if isinstance(relative, Mapping):
            found |= own_domains(relative)
    return frozenset(found)


def is_asked_employer(keys: MatchKeys, enrichment: Enrichment) -> bool:
    """Whether the employer that the record has is the person's employer today, as Apollo knows it.

    By a domain of the company or its group; by its name, which is the one that was sent or the asked domain's own word
    (acme.de of "Acme", whose primary domain is acme.com); or by another job that Apollo calls current (several may be,
    contracts/apollo.md 2.1, 2026-10). Former jobs tell nothing, and neither does the e-mail address: Apollo keeps one
    after its owner has left, and repeats the one that was sent.
    """
    asked = asked_domains(keys)
    if asked & group_domains(enrichment.organization):
        return True
    names = [enrichment.organization.get("name"), *_current_employers(enrichment.person)]
    return any(_is_named(name, keys, asked) for name in names if isinstance(name, str))


def foreign_email(value: object, keys: MatchKeys, enrichment: Enrichment) -> str:
    """Why this address of Apollo's must not be written, "" when it may.

    A company address belongs to the employer that Apollo names, to the one that the record has, or to neither: then it
    is left over from a former job, or another person's. Free-mail addresses are nobody's. Where neither employer is
    known by a domain there is nothing to compare, and the address may be written.
    """
    text = value.strip().casefold() if isinstance(value, str) else ""
    if text.startswith("email_not_unlocked"):
        return PLACEHOLDER_EMAIL  # contracts/apollo.md 2.1, 2026-10; the adapter takes it out, a template may not
    if not email(text) or text == keys.email:
        return ""
    domain = company_domain(text, purpose=Purpose.PERSON)
    asked = asked_domains(keys)
    known = asked | group_domains(enrichment.organization)
    if not domain or not known or domain in known:
        return ""
    name = enrichment.organization.get("name")
    if isinstance(name, str) and name and _company_word(name) == _own_word(domain):
        return ""
    return FOREIGN_EMAIL


def _sites(organization: Mapping[str, Any], names: tuple[str, ...]) -> Iterator[str]:
    for name in names:
        text = organization.get(name)
        domain = company_domain(text, purpose=Purpose.PERSON) if isinstance(text, str) and text else ""
        if domain:
            yield domain


def _current_employers(person: Mapping[str, Any]) -> Iterator[object]:
    history = person.get("employment_history")
    for job in history if isinstance(history, list) else ():
        if isinstance(job, Mapping) and job.get("current") is True:
            yield job.get("organization_name")


def _is_named(name: str, keys: MatchKeys, asked: frozenset[str]) -> bool:
    word = _company_word(name)
    if not word:
        return False
    same = keys.organization_name and word == _company_word(keys.organization_name)
    return bool(same) or any(word == _own_word(domain) for domain in asked)


def _own_word(domain: str) -> str:
    """The word of a domain that is its company's own: "orchardgrid" of orchard-grid.co.uk."""
    return domain.partition(".")[0].replace("-", "")


def _company_word(name: str) -> str:
    """A company's name as one word, without accents and legal forms: "orchardgrid" of "Orchard Grid, Inc."."""
    plain = "".join(c for c in unicodedata.normalize("NFKD", name.casefold()) if not unicodedata.combining(c))
    words = _WORD.findall(plain.replace("'", "").replace("’", ""))
    return "".join([word for word in words if word not in _LEGAL_FORMS] or words)
