"""From a record's fields to what Apollo recognises it by."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import cache, lru_cache
from importlib.resources import files
from typing import TYPE_CHECKING
from urllib.parse import unquote

from crm_sync.config.model import Match, SendKey
from crm_sync.domain.enrichment import MatchKeys, Purpose
from crm_sync.domain.records import Value
from crm_sync.mapping.blanks import is_placeholder, placeholder_form

if TYPE_CHECKING:
    from publicsuffixlist import PublicSuffixList

_EMAIL = re.compile(r"[^\s@<>(),;:\"\[\]\\]{1,64}@[^\s@<>(),;:\"\[\]\\_]+\.[^\s@<>(),;:\"\[\]\\_.]{2,63}\Z")
_LINKEDIN = re.compile(
    r"(?:https?://)?(?:[a-z0-9-]+\.)*linkedin\.com/(in|pub|company|school)/([^/?#\s]+)", re.IGNORECASE
)
_HOST = re.compile(r"(?=.{1,253}\Z)(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z0-9-]{2,63}\Z")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u200b\u2028\u2029\ufeff]+")


def compile_keys(
    match: Match, purpose: Purpose, *, placeholders: tuple[str, ...]
) -> Callable[[Mapping[str, Value]], MatchKeys]:
    """A function from a record's values to its normalised MatchKeys; compiled once a run.

    A person's `domain` is left empty when it would be a free-mail provider's: that is nobody's employer.
    """
    blank = frozenset(placeholder_form(word) for word in placeholders)
    steps = [(key.key, _reader(key, purpose, blank)) for key in match.send]

    def keys_of(values: Mapping[str, Value]) -> MatchKeys:
        found = {name: value for name, read in steps if (value := read(values))}
        return MatchKeys(purpose=purpose, **found)

    return keys_of


def weakness(keys: MatchKeys, match: Match) -> str:
    """Why these keys are too weak to be sent, "" when they are strong enough."""
    for group in match.need_one_of:
        for name in group:
            if not getattr(keys, name):
                break
        else:
            return "" if keys.key else "nothing in this record identifies it to Apollo"
    ways = " or ".join(" with ".join(group) for group in match.need_one_of)
    return f"too weak to match: needs {ways}"


def _reader(key: SendKey, purpose: Purpose, blank: frozenset[str]) -> Callable[[Mapping[str, Value]], str]:
    normalise: Callable[[str], str] = _name
    if key.key == "email":
        normalise = email
    elif key.key == "linkedin_url":
        normalise = linkedin_url
    elif key.key == "domain" or key.as_domain:
        normalise = company_domain if purpose is Purpose.PERSON else registrable_domain

    def read(values: Mapping[str, Value]) -> str:
        for field in key.fields:
            value = values.get(field)
            if not value:
                continue
            text = str(value)
            found = normalise(text)
            if found and not is_placeholder(text, blank):
                return found
        return ""

    return read


def _name(text: str) -> str:
    return " ".join(_CONTROL.sub(" ", text).split())[:200]


def email(text: str) -> str:
    """The address trimmed and lower-cased, "" when it cannot be one."""
    address = text.strip().lower()
    return address if len(address) <= 254 and _EMAIL.match(address) else ""


def linkedin_url(text: str) -> str:
    """ "http://www.linkedin.com/in/slug", whatever country, spelling or tracking it came with; "" for other pages."""
    found = _LINKEDIN.search(_CONTROL.sub("", text))
    if found is None:
        return ""
    kind = "company" if found[1].lower() in ("company", "school") else "in"
    slug = unquote(found[2]).strip().lower()
    return f"http://www.linkedin.com/{kind}/{slug}" if slug else ""


def company_domain(text: str) -> str:
    """registrable_domain, but "" for a free-mail provider."""
    domain = registrable_domain(text)
    return "" if domain in _free_mail() else domain


@lru_cache(maxsize=65_536)
def registrable_domain(text: str) -> str:
    """The registrable domain of a website, host or e-mail address, "" when there is none.

    "HTTPS://www.sales.acme.co.uk/en?x" -> "acme.co.uk"; international names as punycode.
    """
    host = _CONTROL.sub("", text).strip().lower()
    host = host.rpartition("@")[2] if "@" in host and "/" not in host.partition("@")[0] else host
    host = host.partition("://")[2] if "://" in host else host.removeprefix("//")
    host = re.split(r"[/?#\\]", host, maxsplit=1)[0].rpartition("@")[2].partition(":")[0].strip(".")
    if not host.isascii():
        try:
            host = host.encode("idna").decode()
        except UnicodeError:
            return ""
    if not _HOST.match(host) or host.replace(".", "").isdigit():
        return ""
    return _suffixes().privatesuffix(host) or ""


@cache
def _suffixes() -> PublicSuffixList:
    from publicsuffixlist import PublicSuffixList

    # Unknown endings (.example, .test, a company's own) count as one label, as browsers do.
    return PublicSuffixList(accept_unknown=True, only_icann=True)


@cache
def _free_mail() -> frozenset[str]:
    return frozenset(files("crm_sync").joinpath("data/free_mail_domains.txt").read_text(encoding="utf-8").split())
