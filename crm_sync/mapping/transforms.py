"""Small changes to a text on its way to the CRM; each done twice is the same as done once."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from crm_sync.mapping.match_keys import registrable_domain

_SMALL = frozenset({"de", "da", "do", "dos", "del", "della", "der", "den", "di", "du", "la", "le", "of", "the", "van",
                    "von", "zu", "zur", "al", "el", "and", "y", "e", "on", "upon", "sur", "am", "an", "im", "in"})  # fmt: skip
_WORD = re.compile(r"[^\s\-/]+")


def _trim(text: str) -> str:
    return " ".join(text.split())


def _title_case(text: str) -> str:
    """ "SAINT-JEAN de luz" -> "Saint-Jean de Luz". A word of mixed case is left as its writer meant it (McDonald,
    iPhone); small words inside stay small."""

    def word(match: re.Match[str]) -> str:
        found = match[0]
        if not (found.islower() or found.isupper()):
            return found
        lowered = found.lower()
        if match.start() > 0 and lowered in _SMALL:
            return lowered
        head, mark, tail = lowered.partition("'")
        if mark and len(head) == 1 and len(tail) > 1:  # o'brien -> O'Brien, but men's -> Men's
            return f"{head.upper()}'{tail[:1].upper()}{tail[1:]}"
        return lowered[:1].upper() + lowered[1:]

    return _WORD.sub(word, text)


def _https(text: str) -> str:
    """Apollo gives LinkedIn pages as http:// links (contracts/apollo.md 2.1)."""
    return "https://" + text[7:] if text[:7].lower() == "http://" else text


def _domain(text: str) -> str:
    return registrable_domain(text)


def _year(text: str) -> str:
    """The first four digits of a date."""
    return text[:4] if text[:4].isdigit() else ""


def _words(text: str) -> str:
    """ "master_information_technology" -> "information technology": Apollo's department words, readable."""
    return " ".join(text.removeprefix("master_").split("_")).strip()


TRANSFORMS: Mapping[str, Callable[[str], str]] = {
    "trim": _trim,
    "lower": str.lower,
    "upper": str.upper,
    "title_case": _title_case,
    "https": _https,
    "domain": _domain,
    "year": _year,
    "words": _words,
}
