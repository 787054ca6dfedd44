"""The phone numbers of the world's people, in the words Apollo reveals them with (contracts/apollo.md 3)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple


@dataclass(frozen=True, slots=True)
class Phone:
    """One number that a reveal can find; None is null. `dnc_status_cd` "not_found" is the good case: not found on the
    do-not-call list. `dnc_country` None: that list was not asked."""

    raw: str
    sanitized: str | None
    type_cd: str | None
    status_cd: str
    confidence_cd: str | None
    dnc_status_cd: str | None
    dnc_country: str | None


class _Plan(NamedTuple):
    """How a country numbers its lines; the last four digits are ours. `trunk`: what is dialled in front at home."""

    code: str
    mobile: tuple[str, ...]
    fixed: tuple[str, ...]
    trunk: str


def _fiction(*areas: int) -> tuple[str, ...]:
    """555-01XX is kept for fiction in every area code of North America, so there only the last two digits are ours."""
    return tuple(f"{area}55501" for area in areas)


_PLANS = {
    "United States": _Plan(
        "1", _fiction(212, 312, 415, 512, 617, 303, 206, 404, 602, 702, 713, 813), _fiction(737, 857, 720, 646), ""
    ),
    "Canada": _Plan("1", _fiction(416, 514, 604, 403, 613, 902), _fiction(437, 438, 778), ""),
    "United Kingdom": _Plan("44", ("740012",), ("207946",), "0"),
    "Germany": _Plan("49", ("171123",), ("302312",), "0"),
    "France": _Plan("33", ("61234",), ("19900",), "0"),
    "Brazil": _Plan("55", ("1198765",), ("112345",), ""),
    "India": _Plan("91", ("987654",), ("804123",), "0"),
    "Australia": _Plan("61", ("49157",), ("25550",), "0"),
    "Ireland": _Plan("353", ("87123",), ("1555",), "0"),
    "Spain": _Plan("34", ("61234",), ("91000",), ""),
    "Sweden": _Plan("46", ("70174",), ("8465",), "0"),
    "Poland": _Plan("48", ("51234",), ("12345",), ""),
    "Kenya": _Plan("254", ("71212",), ("20201",), "0"),
    "Singapore": _Plan("65", ("8123",), ("6123",), ""),
    "Japan": _Plan("81", ("901234",), ("61234",), "0"),
    "Netherlands": _Plan("31", ("61234",), ("30123",), "0"),
    "Switzerland": _Plan("41", ("78123",), ("44668",), "0"),
    "Mexico": _Plan("52", ("551234",), ("555678",), ""),
}

#: What a reveal finds, and how many in a thousand are so; the rest have a mobile that may be called.
FINDS = (
    ("nothing", 95),
    ("switchboard", 95),
    ("mobile_on_dnc", 80),
    ("mobile_dnc_null", 50),
    ("mobile_not_on_dnc", 30),
    ("mobile_dnc_unheard_of", 15),
    ("other", 25),
    ("no_number", 20),
)
_DNC = {
    "mobile_on_dnc": "found",
    "mobile_dnc_null": None,
    "mobile_not_on_dnc": "not_on_dnc",
    # A word that no source names: the list of dnc_status_cd is not closed (contracts/apollo.md 7).
    "mobile_dnc_unheard_of": "pending_review",
}


def find(permille: int) -> str:
    """Which of FINDS, or "mobile"."""
    for word, share in FINDS:
        if permille < share:
            return word
        permille -= share
    return "mobile"


def phones_of(index: int, h: int, country: str, company: int, company_country: str, *, tidy: bool) -> tuple[Phone, ...]:
    """What is found for person `index`, in the order of `position`; `h` decides, of which each bit is as good as any.

    A mobile comes with the person's country, a switchboard with the employer's. In a tidy world everybody has just one
    mobile that may be called.
    """
    found = "mobile" if tidy else find(h % 1000)
    spelling = h >> 10
    if found == "nothing":
        return ()
    # From the other end of the range, where nobody's direct line is.
    house = 9_999 - company % 10_000
    if found == "switchboard":
        return (_line("fixed", company_country, house, spelling, "work_hq", "no_status", None, None),)
    if found == "other":
        kind = "other" if h >> 20 & 1 else None
        dnc = "not_found" if h >> 21 & 1 else None
        return (_line("fixed", country, index, spelling, kind, "no_status", None, dnc),)
    if found == "no_number":
        kind = "mobile" if h >> 20 & 1 else "other"
        sanitized = ("+1555", None, "n/a")[(h >> 21) % 3]
        return (Phone("n/a", sanitized, kind, "no_status", None, "not_found", None),)
    mobile = _line("mobile", country, index, spelling, "mobile", "valid_number", "high", _DNC.get(found, "not_found"))
    extra = "" if tidy else ("direct", "direct", "direct", "hq", "null", "", "", "", "", "")[(h >> 20) % 10]
    spelling >>= 1
    if extra == "direct":  # comes first, so that position says nothing about which is the mobile
        direct = _line("fixed", country, index, spelling, "work_direct", "valid_number", "high", "not_found")
        return direct, mobile
    if extra == "hq":
        return mobile, _line("fixed", company_country, house, spelling, "work_hq", "no_status", None, None)
    if extra == "null":
        return mobile, _line("fixed", country, index, spelling, None, "no_status", None, None)
    return (mobile,)


def other_number(text: str) -> str:
    """`text` with its last digit moved on: the number next door, as valid as this one."""
    last = max((place for place, each in enumerate(text) if each.isdigit()), default=None)
    if last is None:
        return text
    return f"{text[:last]}{(int(text[last]) + 1) % 10}{text[last + 1 :]}"


def _line(
    line: str,
    country: str,
    number: int,
    spelling: int,
    type_cd: str | None,
    status_cd: str,
    confidence_cd: str | None,
    dnc_status_cd: str | None,
) -> Phone:
    plan = _PLANS[country]
    starts = plan.mobile if line == "mobile" else plan.fixed
    fiction = plan.code == "1"
    ours = 100 if fiction else 10_000
    start = starts[number // ours % len(starts)]
    last = number % ours
    digits = f"{last:02d}" if fiction else f"{last:04d}"
    return Phone(
        _raw(plan, start, digits, spelling),
        f"+{plan.code}{start}{digits}",
        type_cd,
        status_cd,
        confidence_cd,
        dnc_status_cd,
        country,
    )


def _raw(plan: _Plan, start: str, digits: str, spelling: int) -> str:
    """As somebody typed it: with the country's code, or as one dials at home."""
    if plan.code == "1":
        area, rest = start[:3], f"{start[3:6]}-{start[6:]}{digits}"
        return f"({area}) {rest}" if spelling & 1 else f"+1 {area}-{rest}"
    return f"{plan.trunk}{start} {digits}" if spelling & 1 else f"+{plan.code} {start} {digits}"
