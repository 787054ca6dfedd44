"""Where a property gets its first value: the world's neutral words, as this portal holds them. All values are text;
None is blank."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from crm_sync.sandbox.hubspot.properties import OWNERS
from crm_sync.sandbox.world import World

#: A function of (index, CrmContact or CrmAccount), on paths that run once per record and property.
Source = Callable[[int, Any], str | None]

# Apollo's levels in HubSpot's words; c_suite and founder have no equal there (contracts/hubspot.md 6.3, 2026-11).
_SENIORITY = {
    "owner": "owner",
    "founder": "owner",
    "c_suite": "executive",
    "partner": "partner",
    "vp": "vp",
    "head": "director",
    "director": "director",
    "manager": "manager",
    "senior": "senior",
    "entry": "entry",
    "intern": "entry",
}
_STAGES = {"Target": "lead", "Customer": "customer", "Archived": "other"}
#: The world's human words for an industry as the nearest of the 148.
_INDUSTRIES = {"Technology": "COMPUTER_SOFTWARE", "Manufacturing": "MACHINERY", "Other": "CONSUMER_SERVICES"}
_COUNTRY_CODES = {
    "Australia": "AU", "Brazil": "BR", "Canada": "CA", "France": "FR", "Germany": "DE", "India": "IN", "Ireland": "IE",
    "Japan": "JP", "Kenya": "KE", "Mexico": "MX", "Netherlands": "NL", "Poland": "PL", "Singapore": "SG", "Spain": "ES",
    "Sweden": "SE", "Switzerland": "CH", "United Kingdom": "GB", "United States": "US",
}  # fmt: skip
_COMPANY_TYPES = ("PROSPECT", "PARTNER", "RESELLER", "VENDOR", "OTHER")

#: 2023-01-01 UTC. Records are made one a minute, in the order of their ids.
_EPOCH_MS = 1_672_531_200_000
_MINUTE_MS = 60_000
#: 2026-03-01 02:00 UTC: an import touched two records in three at the same millisecond, more than the 10,000 a search
#: can page through (contracts/hubspot.md 2.2, 2026-11).
_IMPORT_MS = 1_772_330_400_000


def created_ms(index: int) -> int:
    return _EPOCH_MS + index * _MINUTE_MS


def modified_ms(index: int) -> int:
    return _IMPORT_MS if index % 3 else max(_IMPORT_MS - 86_400_000, created_ms(index))


def external_key(prefix: str, index: int) -> str:
    return f"{prefix}-{index:07d}"


def key_index(prefix: str, text: str) -> int | None:
    """The index behind a key of the old system."""
    start, _, number = text.partition("-")
    return int(number) if start == prefix and number.isdecimal() and external_key(prefix, int(number)) == text else None


def _plain(attribute: str) -> Source:
    def read(_index: int, base: Any) -> str | None:
        return getattr(base, attribute) or None

    return read


def _whole(attribute: str) -> Source:
    def read(_index: int, base: Any) -> str | None:
        value = getattr(base, attribute)
        return None if value is None else str(value)

    return read


def _is_second(index: int, contact: Any) -> bool:
    """Whether this is a human the portal has twice. HubSpot lets no two contacts have one address, so the second has
    it among its other properties."""
    return bool(contact.person != index)


def contacts(world: World, company_id: Callable[[int], str | None]) -> Mapping[str, Source]:
    """`company_id`: the id of the company at an index, None when it is gone."""

    def website(_index: int, contact: Any) -> str | None:
        if contact.company is None:
            return None
        company = world.company(contact.company)
        return f"http://www.{company.alias_domain or company.domain}"

    def company_name(_index: int, contact: Any) -> str | None:
        return None if contact.company is None else world.company(contact.company).name

    def associated(_index: int, contact: Any) -> str | None:
        return None if contact.company is None else company_id(contact.company)

    def enriched(index: int, contact: Any) -> str | None:
        return "true" if not world.tidy and index % 7 == 0 and contact.title else None

    return {
        "email": lambda index, base: None if _is_second(index, base) else base.email.lower() or None,
        "work_email": lambda index, base: (base.email.lower() or None) if _is_second(index, base) else None,
        "hs_email_optout": lambda _index, base: "true" if base.opted_out else None,
        "firstname": _plain("first_name"),
        "lastname": _plain("last_name"),
        "jobtitle": _plain("title"),
        "hs_seniority": lambda _index, base: _SENIORITY.get(base.seniority),
        "hs_linkedin_url": _plain("linkedin_url"),
        "department": _plain("department"),
        "phone": _plain("phone"),
        "mobilephone": _plain("mobile"),
        "city": _plain("city"),
        "state": _plain("state"),
        "country": _plain("country"),
        "hs_country_region_code": lambda _index, base: _COUNTRY_CODES.get(base.country),
        "company": company_name,
        "website": website,
        "associatedcompanyid": associated,
        "lifecyclestage": lambda _index, base: _STAGES.get(base.status, "subscriber"),
        "outreach_status": _plain("status"),
        "hubspot_owner_id": lambda index, _base: OWNERS[index % 5] if index % 5 else None,
        "hs_is_enriched": enriched,
        "hs_contact_enrichment_opt_out": lambda _index, base: "true" if base.opted_out else None,
        "external_key": lambda index, _base: external_key("C", index),
    }


def companies(world: World) -> Mapping[str, Source]:
    def if_full(read: Callable[[Any], str]) -> Source:
        """What only the companies have whose size is known."""
        return lambda index, account: read(world.company(index)) if account.employees is not None else None

    return {
        "name": _plain("name"),
        "domain": lambda _index, base: base.domain if base.website else None,
        "website": _plain("website"),
        "industry": lambda _index, base: _INDUSTRIES.get(base.industry),
        "numberofemployees": _whole("employees"),
        "annualrevenue": _whole("revenue"),
        "founded_year": if_full(lambda company: str(company.founded_year)),
        "linkedin_company_page": if_full(lambda company: f"https://www.linkedin.com/company/{company.linkedin_slug}"),
        "phone": _plain("phone"),
        "city": _plain("city"),
        "state": _plain("state"),
        "country": _plain("country"),
        "hs_country_code": lambda _index, base: _COUNTRY_CODES.get(base.country),
        "type": lambda index, _base: _COMPANY_TYPES[index % 5] if index % 2 else None,
        "lifecyclestage": lambda index, _base: "customer" if index % 4 == 0 else "lead",
        "hubspot_owner_id": lambda index, _base: OWNERS[index % 5] if index % 5 else None,
        "hs_is_enriched": if_full(lambda _company: "true") if not world.tidy else lambda _index, _base: None,
        "external_key": lambda index, _base: external_key("A", index),
    }
