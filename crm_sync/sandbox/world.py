"""A world of people and companies as untidy as a real one: pure functions of (seed, index), so that a million of them
need no memory, and everything can be found again without a table."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, lru_cache
from importlib.resources import files

import orjson

from crm_sync.sandbox.names import (
    COMPANY_FIRST,
    COMPANY_SECOND,
    FIRST,
    FREE_MAIL,
    HUMAN_INDUSTRIES,
    HUMAN_TITLES,
    JOBS,
    LAST,
    PLACEHOLDERS,
    PLACES,
)
from crm_sync.sandbox.numbers import Phone, phones_of

_MASK = (1 << 64) - 1
_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"
# An odd factor has an inverse modulo 2^32: a slug's tail leads back to the index.
_SLUG_FACTOR = 0x9E3779B1
_SLUG_INVERSE = pow(_SLUG_FACTOR, -1, 1 << 32)
# Company names run through all combinations before one comes back with a number.
_COMBINATIONS = len(COMPANY_FIRST) * len(COMPANY_SECOND)
_NAME_FACTOR = 1_597
_NAME_INVERSE = pow(_NAME_FACTOR, -1, _COMBINATIONS)

#: What Apollo does when asked for a person, and how many in a thousand are so.
KNOWLEDGE = (
    ("unknown", 50),
    ("echo", 20),
    ("namesake", 20),
    ("locked_mail", 20),
    ("low_confidence", 10),
    ("former_employer", 20),
    ("sparse", 60),
)


@dataclass(frozen=True, slots=True)
class Person:
    """The true human. `apollo` says how Apollo answers for them; `linkedin_slug` and `email` lead back to `index`."""

    index: int
    first_name: str
    last_name: str
    email: str
    linkedin_slug: str
    title: str
    seniority: str
    departments: tuple[str, ...]
    functions: tuple[str, ...]
    city: str
    state: str
    country: str
    company: int
    mobile: str
    apollo: str


@dataclass(frozen=True, slots=True)
class Company:
    """The true company. `alias_domain`: the other domain the CRM knows it under, "" for none; `known`: to Apollo."""

    index: int
    name: str
    domain: str
    website: str
    industry: str
    employees: int
    revenue: int | None
    founded_year: int
    linkedin_slug: str
    city: str
    state: str
    country: str
    phone: str
    alias_domain: str
    known: bool


@dataclass(frozen=True, slots=True)
class CrmContact:
    """What the CRM holds for contact `index` before anybody edits; "" is blank. `person` is the human behind it."""

    index: int
    person: int
    company: int | None
    first_name: str
    last_name: str
    email: str
    linkedin_url: str
    title: str
    seniority: str
    department: str
    city: str
    state: str
    country: str
    phone: str
    mobile: str
    opted_out: bool
    status: str


@dataclass(frozen=True, slots=True)
class CrmLead:
    """What the CRM holds for a lead: as a contact, with its company in its own words."""

    index: int
    person: int
    company: str
    website: str
    industry: str
    employees: int | None
    first_name: str
    last_name: str
    email: str
    linkedin_url: str
    title: str
    seniority: str
    department: str
    city: str
    state: str
    country: str
    phone: str
    mobile: str
    opted_out: bool
    status: str


@dataclass(frozen=True, slots=True)
class CrmAccount:
    """What the CRM holds for company `index`. `website` comes in the spellings people type."""

    index: int
    name: str
    website: str
    domain: str
    industry: str
    employees: int | None
    revenue: int | None
    city: str
    state: str
    country: str
    phone: str


class World:
    """All of it. `tidy` makes every person known, distinct and matchable: for counting calls."""

    def __init__(self, seed: int = 7, contacts: int = 50, *, tidy: bool = False) -> None:
        self.seed = seed
        self.tidy = tidy
        self.contacts = contacts
        self.accounts = max(5, contacts // 8)
        self.leads = max(5, contacts // 4)
        self.people = contacts + self.leads
        self._salt = _mix(seed)
        self.company = lru_cache(maxsize=8192)(self._company)

    # --- who there is -------------------------------------------------------------------------------------------

    def person(self, index: int) -> Person:
        h = _mix(self._salt ^ (index << 1))
        first, last = FIRST[h & 63], LAST[h >> 6 & 63]
        company = self.company(index % self.accounts)
        title, seniority, department, function = JOBS[h >> 12 & 31]
        city, state, country = PLACES[(h >> 20 & 255) % len(PLACES)]
        low_first, low_last = first.lower(), last.lower()
        return Person(
            index,
            first,
            last,
            f"{low_first}.{low_last}.{_base36(index)}@{company.domain}",
            f"{low_first}-{low_last}-{index * _SLUG_FACTOR & 0xFFFFFFFF:08x}",
            title,
            seniority,
            (department,),
            (function,),
            city,
            state,
            country,
            company.index,
            f"+1555{index % 10_000_000:07d}",
            "plain" if self.tidy else _knowledge((h >> 30) % 1000),
        )

    def phones(self, index: int) -> tuple[Phone, ...]:
        """What a reveal of this person's phone finds, () for nothing."""
        person = self.person(index)
        h = _mix(self._salt ^ 0xF0E ^ (index << 12))
        employer = self.company(person.company)
        return phones_of(index, h, person.country, employer.index, employer.country, tidy=self.tidy)

    def _company(self, index: int) -> Company:
        h = _mix(self._salt ^ (index << 1 | 1))
        turn, combination = divmod(index, _COMBINATIONS)
        combination = combination * _NAME_FACTOR % _COMBINATIONS
        one, two = COMPANY_FIRST[combination // 64], COMPANY_SECOND[combination % 64]
        number = str(turn + 1) if turn else ""
        name = f"{one} {two}{' ' + number if number else ''}"
        slug = f"{one}{two}{number}".lower()
        city, state, country = PLACES[(h >> 8 & 255) % len(PLACES)]
        industries = _industries()
        # Most companies are in a dozen common industries, the rest anywhere in Apollo's list.
        common = (h >> 40) % 10 < 7
        industry = industries[(h >> 16) % len(industries)] if not common else _COMMON[(h >> 16) % len(_COMMON)]
        employees = (1, 8, 35, 120, 480, 1_900, 7_500, 42_000)[h >> 24 & 7] + (h >> 27) % 40
        return Company(
            index,
            name,
            f"{slug}.example",
            f"http://www.{slug}.example",
            industry,
            employees,
            None if (h >> 33) % 10 < 4 else employees * (60 + (h >> 36) % 240) * 1000,
            1950 + (h >> 44) % 74,
            f"{one}-{two}{'-' + number if number else ''}".lower(),
            city,
            state,
            country,
            f"+1 555 {100 + index % 900:03d} {index % 10_000:04d}",
            "" if self.tidy or (h >> 48) % 100 >= 5 else f"{slug}-global.test",
            self.tidy or (h >> 52) % 100 >= 6,
        )

    # --- what the CRM holds -------------------------------------------------------------------------------------

    def contact(self, index: int) -> CrmContact:
        h = _mix(self._salt ^ 0xC0 ^ (index << 8))
        trait = 999 if self.tidy else h % 1000
        # 2 % are the contact before them once more, typed in by somebody else.
        duplicate = trait < 20 and index > 0
        person = self.person(index - 1 if duplicate else index)
        email = person.email
        if duplicate:
            email = email.upper()
        elif trait < 50:  # 3 % gave a free-mail address
            email = f"{email.partition('@')[0]}@{FREE_MAIL[trait & 3]}"
        held = _held(person, h, tidy=self.tidy)
        company: int | None = person.company
        if 50 <= trait < 70:  # 2 % cannot be recognised by anything
            email, held["linkedin_url"], company = "", "", None
        elif 70 <= trait < 110:  # 4 % have no address but are known by name and company
            email = ""
        return CrmContact(
            index, person.index, company, person.first_name, person.last_name, email, **held,
            phone="" if (h >> 50) % 10 < 6 else f"+1 555 {200 + index % 700:03d} {index % 9_973:04d}",
            mobile="",
            opted_out=not self.tidy and (h >> 54) % 100 < 2,
            status=("Target", "Customer", "Archived", "")[h >> 58 & 3],
        )  # fmt: skip

    def lead(self, index: int) -> CrmLead:
        person = self.person(self.contacts + index)
        h = _mix(self._salt ^ 0x1EAD ^ (index << 8))
        company = self.company(person.company)
        held = _held(person, h, tidy=self.tidy)
        return CrmLead(
            index, person.index, company.name,
            company.website if h & 3 else "",
            company.industry.title() if (h >> 2) % 20 == 0 else "",
            company.employees if (h >> 6) % 10 == 0 else None,
            person.first_name, person.last_name,
            "" if not self.tidy and (h >> 10) % 100 < 4 else person.email,
            **held,
            phone="", mobile="",
            opted_out=not self.tidy and (h >> 54) % 100 < 2,
            status=("Target", "Customer", "Archived", "")[h >> 58 & 3],
        )  # fmt: skip

    def account(self, index: int) -> CrmAccount:
        company = self.company(index)
        h = _mix(self._salt ^ 0xACC ^ (index << 8))
        domain = company.alias_domain or company.domain
        spellings = ("https://www.{}/", "{}", "HTTP://{}/en", "http://www.{}", "www.{}", "")
        website = spellings[min((h & 255) // 48, 5)].format(domain)
        if self.tidy and not website:
            website = domain
        full = not self.tidy and (h >> 8) % 10 < 2
        industry = ""
        if full or (not self.tidy and (h >> 12) % 10 == 0):
            industry = HUMAN_INDUSTRIES[(h >> 16) % 3]
        return CrmAccount(
            index, company.name, website, domain, industry,
            company.employees if full else None,
            company.revenue if full else None,
            company.city if (h >> 20) % 10 < 4 else "",
            company.state if (h >> 20) % 10 < 4 else "",
            company.country if (h >> 20) % 10 < 5 else "",
            company.phone if (h >> 24) & 1 else "",
        )  # fmt: skip

    # --- finding again ------------------------------------------------------------------------------------------

    def by_email(self, email: str) -> list[int]:
        """The people with this address, at work or at a free-mail provider."""
        local, _, domain = email.strip().lower().partition("@")
        index = _from_base36(local.rpartition(".")[2])
        if index is None or index >= self.people:
            return []
        person = self.person(index)
        own_local, _, own_domain = person.email.partition("@")
        return [index] if local == own_local and (domain == own_domain or domain in FREE_MAIL) else []

    def by_linkedin(self, slug: str) -> int | None:
        tail = slug.rpartition("-")[2]
        if len(tail) != 8 or any(c not in "0123456789abcdef" for c in tail):
            return None
        index = int(tail, 16) * _SLUG_INVERSE & 0xFFFFFFFF
        return index if index < self.people and self.person(index).linkedin_slug == slug else None

    def by_domain(self, domain: str) -> int | None:
        """The company by its own domain or the one the CRM knows it under."""
        name, _, ending = domain.lower().removeprefix("www.").partition(".")
        slug = name.removesuffix("-global") if ending == "test" else name
        stem = slug.rstrip("0123456789")
        combination = _stems().get(stem)
        if combination is None:
            return None
        number = slug[len(stem) :]
        turn = int(number) - 1 if number else 0
        index = turn * _COMBINATIONS + combination * _NAME_INVERSE % _COMBINATIONS
        if not 0 <= index < self.accounts:
            return None
        company = self.company(index)
        return index if domain.lower().removeprefix("www.") in (company.domain, company.alias_domain) else None

    def people_named(self, first: str, last: str, company: int) -> list[int]:
        """The people of that name at that company."""
        first, last = first.strip().casefold(), last.strip().casefold()
        return [
            person.index
            for person in map(self.person, self.staff(company))
            if person.first_name.casefold() == first and person.last_name.casefold() == last
        ]

    def staff(self, company: int) -> range:
        return range(company, self.people, self.accounts)

    def __iter__(self) -> Iterator[Person]:
        return (self.person(index) for index in range(self.people))


def _held(person: Person, h: int, *, tidy: bool) -> dict[str, str]:
    """The enrichable fields as the CRM holds them: complete in 30 %, otherwise full of holes and people's own words."""
    linkedin = f"https://www.linkedin.com/in/{person.linkedin_slug}"
    if not tidy and (h >> 10) % 100 < 30:
        title = HUMAN_TITLES[(h >> 30) % 5] if (h >> 17) % 100 < 12 else person.title
        return {
            "linkedin_url": linkedin, "title": title, "seniority": person.seniority,
            "department": person.departments[0].removeprefix("master_"),
            "city": person.city, "state": person.state, "country": person.country,
        }  # fmt: skip
    titled, place = (h >> 17) % 100, (h >> 24) % 100
    title = ""
    if tidy or titled < 79:
        title = ""
    elif titled < 85:
        title = PLACEHOLDERS[titled % 3]
    elif titled < 96:
        title = HUMAN_TITLES[titled % 5]
    else:
        title = person.title.upper()
    city = ""
    if not tidy and place < 4:
        city = PLACEHOLDERS[place % 3]
    elif not tidy and place < 30:
        city = person.city
    return {
        "linkedin_url": linkedin if not tidy and (h >> 32) % 100 < 30 else "",
        "title": title,
        "seniority": person.seniority if not tidy and (h >> 39) % 100 < 15 else "",
        "department": "",
        "city": city,
        "state": "",
        "country": person.country if not tidy and (h >> 44) % 100 < 35 else "",
    }


_COMMON = (
    "information technology & services", "computer software", "financial services", "hospital & health care",
    "logistics & supply chain", "retail", "construction", "marketing & advertising", "higher education", "real estate",
    "food & beverages", "oil & energy",
)  # fmt: skip
_LEVELS = []
_bound = 0
for _word, _share in KNOWLEDGE:
    _bound += _share
    _LEVELS.append((_bound, _word))


def _knowledge(permille: int) -> str:
    for bound, word in _LEVELS:
        if permille < bound:
            return word
    return "plain"


@cache
def _industries() -> tuple[str, ...]:
    vocabularies = orjson.loads(files("crm_sync").joinpath("data/apollo_vocabularies.json").read_bytes())
    return tuple(vocabularies["industry"])


@cache
def _stems() -> dict[str, int]:
    return {
        f"{one}{two}".lower(): place_one * 64 + place_two
        for place_one, one in enumerate(COMPANY_FIRST)
        for place_two, two in enumerate(COMPANY_SECOND)
    }


def _mix(x: int) -> int:
    """splitmix64's finaliser: every bit of the answer depends on every bit of `x`."""
    x = (x + 0x9E3779B97F4A7C15) & _MASK
    x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9 & _MASK
    x = (x ^ x >> 27) * 0x94D049BB133111EB & _MASK
    return x ^ x >> 31


def _base36(number: int) -> str:
    text = ""
    while True:
        number, digit = divmod(number, 36)
        text = _DIGITS[digit] + text
        if not number:
            return text


def _from_base36(text: str) -> int | None:
    try:
        return int(text, 36) if text and len(text) <= 8 and text.isalnum() and text.isascii() else None
    except ValueError:
        return None
