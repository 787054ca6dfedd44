"""Which answers are believed: what was sent, compared with who came back. Pure; compiled once a run.

Apollo may answer with another human than the one asked for (design: an answer counts when the e-mail is equal, or the
last name and the company agree, or the LinkedIn page is). That much the adapter asks of every answer (Verdict); what is
here is what an admin asks on top of it.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from enum import StrEnum
from functools import lru_cache
from typing import Any, NamedTuple

from crm_sync.config.model import Match
from crm_sync.domain.enrichment import Enrichment, MatchKeys, Verdict
from crm_sync.mapping.employers import asked_domains, own_domains
from crm_sync.mapping.match_keys import company_domain, email, linkedin_url

#: "" when the answer is trusted, else why it is not.
Trust = Callable[[MatchKeys, Enrichment], str]


class Agreement(StrEnum):
    """How a proof came out; the value completes the sentence that an admin reads."""

    AGREES = "agrees"
    DIFFERS = "differs"
    NOT_SENT = "was not sent"
    NOT_ANSWERED = "is not in Apollo's answer"


def compile_trust(match: Match) -> Trust:
    """The rules of `match.trust_when` as one function.

    An answer that is not MATCHED is never trusted, whatever the rules say: they ask for more, never for less. The
    reason names the proofs that failed and no value of anybody's.
    """
    needed = tuple((_SAID[name], _PROOFS[name]) for name in match.trust_all)
    choice = tuple((_SAID[name], _PROOFS[name]) for name in match.trust_any)

    def trust(keys: MatchKeys, enrichment: Enrichment) -> str:
        if enrichment.verdict is not Verdict.MATCHED:
            return enrichment.reason or "nothing that was sent proves that this is the one"
        all_of = [(said, proof(keys, enrichment)) for said, proof in needed]
        one_of = [(said, proof(keys, enrichment)) for said, proof in choice]
        failed = [one for one in all_of if one[1] is not Agreement.AGREES]
        if not any(found is Agreement.AGREES for _, found in one_of):
            failed += one_of
        return f"not trusted: {_joined(dict.fromkeys(f'{said} {found}' for said, found in failed))}" if failed else ""

    return trust


def _joined(phrases: Mapping[str, object]) -> str:
    *first, last = phrases
    return f"{', '.join(first)} and {last}" if first else last


# --- proofs -----------------------------------------------------------------------------------------------------------


def last_name_agrees(keys: MatchKeys, enrichment: Enrichment) -> Agreement:
    """The same last name, or one that holds the other whole: "García" is in "García López", "Smith" in "Smith-Jones".

    Without regard to case, accents, apostrophes, hyphens, titles and small words ("van der Berg" is "Berg"), "Mueller"
    being "Müller"; first and last name may be swapped. A name changed by marriage differs: whether this is the same
    person is for somebody to say who knows.
    """
    ours, theirs = _names(keys.first_name, keys.last_name, keys.name), _answered(enrichment)
    return _compared([name for name in ours if name.last], [name for name in theirs if name.last], _same_last)


def first_name_agrees(keys: MatchKeys, enrichment: Enrichment) -> Agreement:
    """The same first name, one of several ("Ana" of "Ana María"), or initials ("J." of "Jane").

    A short form differs: "Bob" is Robert in one office and a colleague's own name in the next, and lists of them know
    one language.
    """
    ours, theirs = _names(keys.first_name, keys.last_name, keys.name), _answered(enrichment)
    return _compared([name for name in ours if name.first], [name for name in theirs if name.first], _same_first)


def domain_agrees(keys: MatchKeys, enrichment: Enrichment) -> Agreement:
    """A registrable domain of the person's employer today, or of their address at work, is one that was sent.

    An address that repeats what was sent tells nothing about the employer, and free-mail providers employ nobody here.
    """
    asked = asked_domains(keys)
    if not asked:
        return Agreement.NOT_SENT
    theirs = set(own_domains(enrichment.organization))
    address = email(_text(enrichment.person.get("email")))
    if address and address != keys.email and (domain := company_domain(address, purpose=keys.purpose)):
        theirs.add(domain)
    return _verdict(theirs, lambda domain: domain in asked)


def email_agrees(keys: MatchKeys, enrichment: Enrichment) -> Agreement:
    """The address that was sent is among theirs, without regard to case."""
    if not keys.email:
        return Agreement.NOT_SENT
    personal = enrichment.person.get("personal_emails")
    addresses = [enrichment.person.get("email"), *(personal if isinstance(personal, list) else ())]
    theirs = {found for address in addresses if (found := email(_text(address)))}
    return _verdict(theirs, lambda address: address == keys.email)


def linkedin_agrees(keys: MatchKeys, enrichment: Enrichment) -> Agreement:
    if not keys.linkedin_url:
        return Agreement.NOT_SENT
    page = linkedin_url(_text(enrichment.person.get("linkedin_url")), purpose=keys.purpose)
    return _verdict({page} - {""}, lambda found: found == keys.linkedin_url)


def _verdict(theirs: set[str], agrees: Callable[[str], bool]) -> Agreement:
    if not theirs:
        return Agreement.NOT_ANSWERED
    return Agreement.AGREES if any(map(agrees, theirs)) else Agreement.DIFFERS


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


# --- names ------------------------------------------------------------------------------------------------------------

Words = tuple[str, ...]


class _Name(NamedTuple):
    """One way to read a person's name, folded. `sure`: it came in two fields, so this is no guess."""

    first: Words
    last: Words
    sure: bool


#: Letters that are no letter with an accent, as far as Unicode goes.
_LETTERS = str.maketrans({
    "ø": "o", "ł": "l", "đ": "d", "ð": "d", "ħ": "h", "ŧ": "t", "ı": "i", "æ": "ae", "œ": "oe", "þ": "th", "ß": "ss",
})  # fmt: skip
#: How these are written where a keyboard has none: "Müller" is "Mueller" as well as "Muller".
_SPELT = str.maketrans({"ä": "ae", "ö": "oe", "ü": "ue", "å": "aa", "ø": "oe"})
_APOSTROPHES = str.maketrans("", "", "'’‘ʼ`´")
_ACCENTS = re.compile(r"[\u0300-\u036f]")
_WORD = re.compile(r"[^\W_]+")
_TITLES = frozenset((
    "dr", "prof", "mr", "mrs", "ms", "miss", "herr", "frau", "ing", "dipl", "mag", "jr", "sr", "ii", "iii", "iv", "phd",
    "md", "mba", "cpa", "esq", "nee",
))  # fmt: skip
_SMALL = frozenset((
    "de", "del", "della", "di", "da", "do", "dos", "das", "du", "des", "la", "le", "las", "los", "van", "von", "vom",
    "der", "den", "ten", "ter", "zu", "zur", "af", "av", "al", "el", "bin", "ibn", "ben", "abu", "y", "e", "i", "of",
))  # fmt: skip
#: They begin a last name and are written with and without a blank.
_PREFIXES = frozenset(("o", "mc", "mac", "d", "l"))


def _compared(ours: Sequence[_Name], theirs: Sequence[_Name], agree: Callable[[_Name, _Name], bool]) -> Agreement:
    if not ours:
        return Agreement.NOT_SENT
    if not theirs:
        return Agreement.NOT_ANSWERED
    return Agreement.AGREES if any(agree(a, b) for a in ours for b in theirs) else Agreement.DIFFERS


def _answered(enrichment: Enrichment) -> tuple[_Name, ...]:
    person = enrichment.person
    return _names(*(_text(person.get(name)) for name in ("first_name", "last_name", "name")))


@lru_cache(maxsize=4096)
def _names(first: str, last: str, full: str) -> tuple[_Name, ...]:
    """Every way to read this name: in both foldings, and of a full name at each place where it may part."""
    found: dict[_Name, None] = {}
    for spelt in (False, True):
        if last.strip() or not full.strip():
            found[_Name(_words(first, spelt=spelt), _words(last, spelt=spelt), sure=True)] = None
        else:
            found.update(dict.fromkeys(_parted(full, spelt=spelt)))
    return tuple(name for name in found if name.first or name.last)


def _parted(full: str, *, spelt: bool) -> Iterator[_Name]:
    last, comma, first = full.partition(",")
    if comma and (given := _words(first, spelt=spelt)) and (family := _words(last, spelt=spelt)):
        yield _Name(given, family, sure=True)
        return
    words = _words(full, spelt=spelt)
    for at in range(1, len(words)):
        yield _Name(words[:at], words[at:], sure=False)


def _words(text: str, *, spelt: bool) -> Words:
    folded = unicodedata.normalize("NFKC", text).casefold()
    if spelt:
        folded = folded.translate(_SPELT)
    folded = _ACCENTS.sub("", unicodedata.normalize("NFKD", folded.translate(_LETTERS)))
    words = _WORD.findall(folded.translate(_APOSTROPHES))
    return tuple([word for word in words if word not in _TITLES] or words)


def _same_last(ours: _Name, theirs: _Name) -> bool:
    if _lasts_agree(ours.last, theirs.last):
        # A guess at where a full name parts needs the first name beside it, unless the last names are one and the same.
        if (ours.sure and theirs.sure) or _joined_up(ours.last) == _joined_up(theirs.last):
            return True
        if _firsts_agree(ours.first, theirs.first):
            return True
    return _are_swapped(ours, theirs)


def _same_first(ours: _Name, theirs: _Name) -> bool:
    return _firsts_agree(ours.first, theirs.first) or _are_swapped(ours, theirs)


def _are_swapped(ours: _Name, theirs: _Name) -> bool:
    """Both in the other's place, whole: "Zhang Wei" and "Wei Zhang"."""
    return (
        bool(ours.first and theirs.first)
        and _joined_up(ours.first) == _joined_up(theirs.last)
        and _joined_up(ours.last) == _joined_up(theirs.first)
    )


def _joined_up(words: Words) -> str:
    return "".join(words)


def _lasts_agree(ours: Words, theirs: Words) -> bool:
    if not ours or not theirs:
        return False
    if _joined_up(ours) == _joined_up(theirs):
        return True
    a, b = _weighty(ours), _weighty(theirs)
    return bool(a) and bool(b) and (a <= b or b <= a)


def _weighty(last: Words) -> frozenset[str]:
    """The words of a last name that tell people apart: no small words, no single letters; "o" and "brien" are one."""
    whole: list[str] = []
    prefix = ""
    for word in last:
        if word in _PREFIXES:
            prefix += word
            continue
        whole.append(prefix + word)
        prefix = ""
    kept = frozenset(word for word in whole if word not in _SMALL and len(word) > 1)
    return kept or frozenset(word for word in whole if len(word) > 1)


def _firsts_agree(ours: Words, theirs: Words) -> bool:
    if not ours or not theirs:
        return False
    if _joined_up(ours) == _joined_up(theirs):
        return True
    short, long = sorted((ours, theirs), key=len)
    # Middle initials aside, all names of the one are among those of the other.
    names = {word for word in short if len(word) > 1}
    if names and names <= set(long):
        return True
    if any(all(len(word) == 1 for word in words) for words in (ours, theirs)):
        return all(one[0] == other[0] for one, other in zip(ours, theirs, strict=False))
    return False


Proof = Callable[[MatchKeys, Enrichment], Agreement]
_PROOFS: Mapping[str, Proof] = {
    "last_name_agrees": last_name_agrees,
    "first_name_agrees": first_name_agrees,
    "domain_agrees": domain_agrees,
    "email_agrees": email_agrees,
    "linkedin_agrees": linkedin_agrees,
}
_SAID: Mapping[str, str] = {
    "last_name_agrees": "the last name",
    "first_name_agrees": "the first name",
    "domain_agrees": "the employer's domain",
    "email_agrees": "the e-mail address",
    "linkedin_agrees": "the LinkedIn page",
}
