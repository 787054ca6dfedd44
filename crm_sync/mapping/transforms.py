"""Small changes to a text on its way to the CRM; each done twice is the same as done once."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from crm_sync.mapping.match_keys import registrable_domain

#: Words that stay small inside a name or a title, in the languages Apollo's places and people come in.
_SMALL = frozenset({
    "al", "am", "an", "and", "da", "das", "de", "dei", "del", "della", "den", "der", "des", "di", "do", "dos", "du",
    "e", "el", "en", "et", "for", "im", "in", "la", "las", "le", "les", "los", "of", "on", "sur", "ten", "ter", "the",
    "to", "und", "upon", "van", "vom", "von", "y", "zu", "zum", "zur",
})  # fmt: skip
_WORD = re.compile(r"[^\s\-/]+")
_BLANKS = re.compile(r"[^\S\n]+")
_AROUND_BREAK = re.compile(r" ?\n ?")
_YEAR = re.compile(r"\s*([0-9]{4})(?![0-9])")
#: As long as "USA": a whole text or a word after a comma in capitals no longer than this is an abbreviation.
_ABBREVIATION = 3


def _trim(text: str) -> str:
    """No blanks at either end, one between words; the line breaks of a long text stay."""
    if text.isascii() and text.isalnum():
        return text
    return _AROUND_BREAK.sub("\n", _BLANKS.sub(" ", text)).strip()


def _title_case(text: str) -> str:
    """ "SAINT-JEAN DE LUZ" -> "Saint-Jean de Luz", "o'brien" -> "O'Brien".

    Where a text mixes cases its writer meant them: "McDonald", "IBM Deutschland" and "de la Cruz" stay, and only an
    ordinary word in small letters gets its capital. Abbreviations stay: "USA", "BOISE, ID".
    """
    shouted = text.isupper()
    if shouted and len(text.strip()) <= _ABBREVIATION:
        return text
    mixed = not shouted and not text.islower()

    def word(match: re.Match[str]) -> str:
        found = match[0]
        if mixed:
            # A single letter could make the whole text look like capitals.
            capital = _capital(found) if found.islower() and found not in _SMALL else found
            return found if capital.isupper() else capital
        lowered = found.lower()
        before = text[: match.start()].rstrip()
        after_comma = before.endswith(",")
        if shouted and after_comma and len(found) <= _ABBREVIATION:
            return found
        return lowered if before and not after_comma and lowered in _SMALL else _capital(lowered)

    return _WORD.sub(word, text)


def _capital(word: str) -> str:
    """A name's article gets its own capital (o'brien -> O'Brien, d’angelo -> D’Angelo), a genitive none (men's)."""
    if len(word) > 3 and word[1] in "'’":
        return _upper(word[0]) + word[1] + _upper(word[2]) + word[3:]
    return _upper(word[0]) + word[1:]


def _upper(letter: str) -> str:
    """A letter without a capital of its own stays: "ß" would become "SS", and the word one in capitals."""
    capital = letter.title()
    return capital if len(capital) == 1 else letter


def _https(text: str) -> str:
    """Apollo gives LinkedIn pages as http:// links (contracts/apollo.md 2.1, 2026-10)."""
    return "https://" + text[7:] if text[:7].lower() == "http://" else text


def _year(text: str) -> str:
    """The year a date begins with, "" for any other text."""
    found = _YEAR.match(text)
    return found[1] if found else ""


def _words(text: str) -> str:
    """ "master_information_technology" -> "information technology": Apollo's department words, readable."""
    return text.removeprefix("master_").replace("_", " ").strip()


TRANSFORMS: Mapping[str, Callable[[str], str]] = {
    "trim": _trim,
    "lower": str.lower,
    "upper": str.upper,
    "title_case": _title_case,
    "https": _https,
    "domain": registrable_domain,
    "year": _year,
    "words": _words,
}
