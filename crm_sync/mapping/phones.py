"""Which of the numbers that Apollo delivered may be written, where each goes and how it is spelled. Pure.

What was delivered may be forged (design/reliability.md 4): only a number that is valid under its country's numbering
plan goes anywhere, and what is written is built from its digits, never from the text it came as.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import lru_cache

import phonenumbers
import pycountry
from phonenumbers import NumberParseException, PhoneNumberFormat, PhoneNumberType

from crm_sync.config.model import Phones
from crm_sync.domain.changes import WantedValue, WriteRule
from crm_sync.domain.records import Value
from crm_sync.domain.reveals import PhoneNumber

#: What a person's number can be, each with the words an admin reads; the keys of `phones.route`.
KINDS: Mapping[str, str] = {
    "mobile": "mobile",
    "work_direct": "direct work",
    "home": "home",
    "work_hq": "switchboard",
    "other": "other",
}

#: Object -> its fields that tell a country, the best first.
COUNTRY_FIELDS: Mapping[str, tuple[str, ...]] = {
    "Contact": ("MailingCountryCode", "MailingCountry", "OtherCountryCode", "OtherCountry"),
    "Lead": ("CountryCode", "Country"),
    "contacts": ("hs_country_region_code", "country"),
}


class NumberVerdict(StrEnum):
    """What becomes of one number; the value completes a table that an admin reads."""

    USED = "used"
    #: Numbers of its kind have no field.
    SKIPPED_KIND = "not routed"
    NOT_A_NUMBER = "not a number"
    LISTED = "on a do-not-call list"
    #: What Apollo says about a do-not-call list is no word that is known; or `mark_only`, and another one is listed.
    HELD = "held back"
    SUPPRESSED = "suppressed"
    #: A better number goes into its field.
    SECOND = "second choice"


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """One number, judged. `kind`: of KINDS. `e164` is "" when it is no number, `field` when its kind has none; `value`
    is what the field would get. `is_written`: it is wanted in the field (a listed one too, where the configuration
    says so). `reason` in words an admin reads, without the number."""

    number: PhoneNumber
    kind: str
    e164: str
    field: str
    value: str
    verdict: NumberVerdict
    reason: str
    is_written: bool = False


def phone_fields(phones: Phones) -> tuple[str, ...]:
    """The CRM fields that numbers may go to, each once; the mark is not among them."""
    return tuple(dict.fromkeys(phones.route.values()))


# --- judging ----------------------------------------------------------------------------------------------------------

# Documented: not_found and null; seen: not_on_dnc (contracts/apollo.md 3, 2026-10). "not_found" means that the number
# is not on the list: the good case. Null means that no check was told.
_CLEAR = frozenset({"", "not_found", "not_on_dnc"})
# Nobody has seen what a listed one is called: found and listed are guesses (vocabularies.json), and so are the rest.
_LISTED = frozenset({
    "found", "listed", "on_dnc", "on_dnc_list", "on_list", "dnc", "dnc_listed", "dnc_found", "found_on_dnc",
    "do_not_call", "on_do_not_call_list",
})  # fmt: skip


def judge(
    numbers: Sequence[PhoneNumber], phones: Phones, *, region: str, suppressed: Collection[str] = ()
) -> tuple[Judged, ...]:
    """One Judged per number, in the order given.

    `region` (ISO 3166 alpha-2, "" unknown) is the record's; it is used for numbers that come without a country code.
    `suppressed`: numbers in E.164 that are to be left alone. An extension is dropped and kept nowhere: no field of a
    CRM is for it, and E.164 has no place. A number that comes twice counts as listed when either says so. Of several
    for one field the best is used: its status is valid_number, then Apollo's confidence is high, then by position.
    """
    read = [_read(number, region) for number in numbers]
    told: dict[str, str] = {}
    for one in read:
        word = _word(one.number.dnc)
        told[one.e164] = max(told.get(one.e164, word), word, key=_severity)
    judged = [_judge(one, told[one.e164], phones, region, suppressed) for one in read]
    if phones.if_listed == "mark_only" and any(one.verdict is NumberVerdict.LISTED for one in judged):
        judged = [
            replace(one, verdict=NumberVerdict.HELD, reason=_MARK_ONLY) if one.verdict is NumberVerdict.USED else one
            for one in judged
        ]
    for field in phone_fields(phones):
        _choose(judged, field, phones)
    return tuple(judged)


_MARK_ONLY = "held back: another number of this person is on a do-not-call list, and do_not_call.if_listed is mark_only"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Read:
    """A number without its extension; `parsed` is None, and `why` says so, when it is none."""

    number: PhoneNumber
    parsed: phonenumbers.PhoneNumber | None
    e164: str = ""
    why: str = ""


def _judge(read: _Read, dnc: str, phones: Phones, region: str, suppressed: Collection[str]) -> Judged:
    """`dnc`: the strictest word about this number, wherever in the delivery it stands."""
    kind = _kind(read.number.type, read.parsed)
    field = phones.route.get(kind, "")
    verdict, reason = NumberVerdict.USED, "used: not on a do-not-call list"
    if read.parsed is None:
        verdict, reason = NumberVerdict.NOT_A_NUMBER, read.why
    elif read.e164 in suppressed:
        verdict, reason = NumberVerdict.SUPPRESSED, "left alone: the number is on the list of whom to leave alone"
    elif kind == "work_hq" and not field:
        # Before the do-not-call list: the employer's listed switchboard says nothing about the person.
        verdict, reason = NumberVerdict.SKIPPED_KIND, _no_field(kind)
    elif dnc in _LISTED:
        verdict, reason = NumberVerdict.LISTED, "not written: it is on a do-not-call list"
    elif dnc not in _CLEAR:
        # Only what looks like a word of a list is shown: it comes from outside, and may be somebody's number.
        shown = f" ({dnc})" if _PLAIN_WORD.match(dnc) else ""
        verdict = NumberVerdict.HELD
        reason = f"held back: what Apollo says about the do-not-call list{shown} is no word that crm-sync knows"
    elif not field:
        verdict, reason = NumberVerdict.SKIPPED_KIND, _no_field(kind)
    elif not dnc:
        reason = "used: Apollo told of no do-not-call check"
    return Judged(
        number=read.number,
        kind=kind,
        e164=read.e164,
        field=field,
        value=_spelled(read.parsed, phones.format, region) if read.parsed is not None else "",
        verdict=verdict,
        reason=reason,
    )


def _severity(dnc: str) -> int:
    return 3 if dnc in _LISTED else 2 if dnc not in _CLEAR else 1 if not dnc else 0


_PLAIN_WORD = re.compile(r"[a-z][a-z_]{0,39}\Z")


def _word(code: str) -> str:
    return re.sub(r"[\s_-]+", "_", code.strip().casefold())


def _no_field(kind: str) -> str:
    return f"not used: phones.route has no field for {KINDS[kind]} numbers"


def _choose(judged: list[Judged], field: str, phones: Phones) -> None:
    """Settle, in place, which number of those for `field` it gets."""
    places = sorted((i for i, one in enumerate(judged) if one.field == field), key=lambda i: _rank(judged[i].number))
    usable = [i for i in places if judged[i].verdict is NumberVerdict.USED]
    listed = [i for i in places if judged[i].verdict is NumberVerdict.LISTED]
    for i in usable[1:]:
        judged[i] = replace(
            judged[i], verdict=NumberVerdict.SECOND, reason=f"not used: a better number goes into {field}"
        )
    if usable:
        judged[usable[0]] = replace(judged[usable[0]], is_written=True)
    elif listed and phones.if_listed == "write":
        reason = "written although it is on a do-not-call list: do_not_call.if_listed is write"
        judged[listed[0]] = replace(judged[listed[0]], is_written=True, reason=reason)


def _rank(number: PhoneNumber) -> tuple[bool, bool, float]:
    """The smaller the better."""
    position = float("inf") if number.position is None else number.position
    return number.status != "valid_number", number.confidence != "high", position


def _kind(code: str, parsed: phonenumbers.PhoneNumber | None) -> str:
    """Documented are other and null, seen mobile and work_direct (contracts/apollo.md 3, 2026-10); the rest is guessed.

    Null is left to the numbering plan, which tells a mobile in most countries and not in North America.
    """
    word = _word(code)
    if not word and parsed is not None and phonenumbers.number_type(parsed) == PhoneNumberType.MOBILE:
        return "mobile"
    return "work_direct" if word.startswith("direct") else _SPELLINGS.get(word, "other")


_SPELLINGS = {
    **dict.fromkeys(("mobile", "mobile_phone", "cell", "cell_phone"), "mobile"),
    **dict.fromkeys(("work_direct", "work_direct_phone", "work", "work_phone"), "work_direct"),
    **dict.fromkeys(("home", "home_phone"), "home"),
    **dict.fromkeys(("work_hq", "hq", "switchboard"), "work_hq"),
}


# --- numbers ----------------------------------------------------------------------------------------------------------

# The library would read letters as the digits of a keypad, so only what one dials gets that far, and an extension.
_DIALLED = re.compile(
    r"(?:tel:)?[\d\s()+./\u2010-\u2015-]{3,80}(?:(?:[,;#x]|;?ext(?:ension)?\.?)[\s=:]*\d{1,7})?\Z", re.IGNORECASE
)


def _read(number: PhoneNumber, region: str) -> _Read:
    if number.status.startswith("invalid"):
        return _Read(number=number, parsed=None, why="not used: Apollo itself calls it invalid")
    texts = [text for text in (number.sanitized, number.raw) if text]
    if texts and texts[0].startswith("+"):
        texts = texts[:1]  # whole: if this is no number, the other one is at best somebody else's
    is_whole = any(text.startswith("+") for text in texts)
    home = region or ("" if is_whole else _country(number.country))
    for text in texts:
        parsed = _dialled(text, home)
        if parsed is None or not (phonenumbers.is_possible_number(parsed) and phonenumbers.is_valid_number(parsed)):
            continue
        if phonenumbers.number_type(parsed) == PhoneNumberType.PREMIUM_RATE:
            return _Read(number=number, parsed=None, why="not used: a premium-rate number is nobody's own")
        e164 = phonenumbers.format_number(parsed, PhoneNumberFormat.E164)
        return _Read(number=number, parsed=parsed, e164=e164)
    why = "not used: it is no valid number"
    if texts and not (home or is_whole):
        why = "not used: it has no country code, and the record tells no country"
    return _Read(number=number, parsed=None, why=why)


def _dialled(text: str, region: str) -> phonenumbers.PhoneNumber | None:
    if not _DIALLED.match(text):
        return None
    try:
        parsed = phonenumbers.parse(text, region or None)
    except NumberParseException:
        return None
    parsed.extension = None
    return parsed


def _spelled(parsed: phonenumbers.PhoneNumber, how: str, region: str) -> str:
    """`national` leaves the country code out, so a number from elsewhere than the record is spelled internationally."""
    if how == "e164":
        return phonenumbers.format_number(parsed, PhoneNumberFormat.E164)
    abroad = bool(region) and phonenumbers.country_code_for_region(region) != parsed.country_code
    national = how == "national" and not abroad
    return phonenumbers.format_number(
        parsed, PhoneNumberFormat.NATIONAL if national else PhoneNumberFormat.INTERNATIONAL
    )


# --- countries --------------------------------------------------------------------------------------------------------


def region_of(values: Mapping[str, Value]) -> str:
    """The ISO 3166 alpha-2 code of a record's country, from the first of its COUNTRY_FIELDS that names one; "" when
    none does. `values` may be of any object. Names are compared whole, never guessed at."""
    for field in _ALL_COUNTRY_FIELDS:
        value = values.get(field)
        if isinstance(value, str):
            found = _country(value)
            if found:
                return found
    return ""


_ALL_COUNTRY_FIELDS = tuple(field for fields in COUNTRY_FIELDS.values() for field in fields)

# What people write and ISO 3166 does not.
_ALIASES = {
    "uk": "GB", "u.k.": "GB", "great britain": "GB", "england": "GB", "scotland": "GB", "wales": "GB",
    "northern ireland": "GB", "u.s.": "US", "u.s.a.": "US", "america": "US", "united states (usa)": "US",
    "russia": "RU", "turkey": "TR", "the netherlands": "NL", "holland": "NL", "ivory coast": "CI", "macau": "MO",
    "swaziland": "SZ", "brunei": "BN", "uae": "AE", "kosovo": "XK", "cape verde": "CV", "burma": "MM",
    "macedonia": "MK", "korea": "KR", "deutschland": "DE", "österreich": "AT", "schweiz": "CH", "suisse": "CH",
    "españa": "ES", "italia": "IT", "brasil": "BR", "méxico": "MX", "danmark": "DK", "sverige": "SE", "norge": "NO",
    "suomi": "FI", "polska": "PL", "nederland": "NL", "belgique": "BE", "belgië": "BE",
}  # fmt: skip


@lru_cache(maxsize=4096)
def _country(text: str) -> str:
    name = " ".join(text.split())[:100].casefold()
    if not name:
        return ""
    if name in _ALIASES:
        return _ALIASES[name]
    try:
        return str(pycountry.countries.lookup(name).alpha_2)
    except LookupError:
        return ""


# --- wanting ----------------------------------------------------------------------------------------------------------


def wanted(judged: Sequence[Judged], phones: Phones) -> tuple[WantedValue, ...]:
    """What each routed field should hold, in the order of the route, and the mark behind them.

    A field without a usable number has no value and a `note` that says why; so has one that gets a listed number, since
    the configuration wants it. Its `source` is "phone." and the number's kind.
    """
    values = [_want(judged, field, phones) for field in phone_fields(phones)]
    if phones.mark and any(one.verdict is NumberVerdict.LISTED for one in judged):
        # A checkbox is never blank, so nothing but `replace` would set it.
        values.append(WantedValue(phones.mark, "phone.do_not_call", WriteRule.REPLACE, True))  # noqa: FBT003
    return tuple(values)


def _want(judged: Sequence[Judged], field: str, phones: Phones) -> WantedValue:
    mine = sorted((one for one in judged if one.field == field), key=lambda one: _rank(one.number))
    written = next((one for one in mine if one.is_written), None)
    if written is not None:
        note = written.reason if written.verdict is NumberVerdict.LISTED else ""
        return WantedValue(field, f"phone.{written.kind}", phones.rule, written.value, note=note)
    if mine:
        return WantedValue(field, f"phone.{mine[0].kind}", phones.rule, None, note=mine[0].reason)
    kinds = list(_kinds_for(field, phones))
    words = " or ".join(KINDS.get(kind, kind) for kind in kinds)
    return WantedValue(field, f"phone.{kinds[0]}", phones.rule, None, note=f"Apollo delivered no {words} number")


def _kinds_for(field: str, phones: Phones) -> Iterator[str]:
    return (kind for kind, routed in phones.route.items() if routed == field)
