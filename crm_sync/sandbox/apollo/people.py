"""Apollo's objects for the world's people and companies, at their usual size and as patchy."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from typing import Any

from crm_sync.sandbox.numbers import Phone
from crm_sync.sandbox.world import Company, Person, World

LOCKED_MAIL = "email_not_unlocked@domain.com"
#: A namesake is another human: a person of the world beyond all who can be asked for.
_BEYOND = 1 << 30
_PERSON_ID, _COMPANY_ID, _JOB_ID = "64a7f1000000", "5e10a1000000", "66d801000000"
_NAMESAKE_ID = "64a7f1000001"


def person_id(index: int) -> str:
    return f"{_PERSON_ID}{index:012x}"


def person_index(apollo_id: str) -> int | None:
    return _index(apollo_id, _PERSON_ID)


def namesake_index(apollo_id: str) -> int | None:
    """Whose namesake has this id."""
    return _index(apollo_id, _NAMESAKE_ID)


def _index(apollo_id: str, start: str) -> int | None:
    if len(apollo_id) != 24 or not apollo_id.startswith(start):
        return None
    try:
        return int(apollo_id[12:], 16)
    except ValueError:
        return None


def company_id(index: int) -> str:
    return f"{_COMPANY_ID}{index:012x}"


class Catalogue:
    """Builds answers; the same person or company always reads the same."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.thin = lru_cache(maxsize=4096)(self._thin)

    def person(self, person: Person) -> dict[str, Any]:
        """A match, with the knowledge of `person.apollo`; unknown, echo and namesake are the caller's business."""
        sparse = person.apollo == "sparse"
        employer = self._world.company(person.company)
        if person.apollo == "former_employer":
            # They have moved; the employer that was asked for is in their history.
            employer = self._world.company((person.company + 1) % self._world.accounts)
        organization = self.thin(employer.index)
        locked = person.apollo == "locked_mail"
        return {
            "id": person_id(person.index),
            "first_name": person.first_name,
            "last_name": person.last_name,
            "name": f"{person.first_name} {person.last_name}",
            "linkedin_url": f"http://www.linkedin.com/in/{person.linkedin_slug}",
            "title": person.title,
            "email_status": "unavailable" if locked else "verified",
            "photo_url": None,
            "twitter_url": None,
            "github_url": None,
            "facebook_url": None,
            "extrapolated_email_confidence": None,
            "headline": f"{person.title} at {employer.name}",
            "email": LOCKED_MAIL if locked else person.email,
            "organization_id": organization["id"],
            "employment_history": self._history(person, employer),
            "state": None if sparse else person.state or None,
            "city": None if sparse else person.city,
            "country": None if sparse else person.country,
            "organization": organization,
            "is_likely_to_engage": person.index % 3 == 0,
            "departments": [] if sparse else list(person.departments),
            "subdepartments": [],
            "seniority": None if sparse else person.seniority,
            "functions": list(person.functions),
            "show_intent": False,
            "revealed_for_current_team": True,
            **({"match_confidence": "low"} if person.apollo == "low_confidence" else {}),
            **({"phone_numbers": [_switchboard(employer)]} if person.index % 2 else {}),
        }

    def echo(self, first_name: str, last_name: str, salt: str) -> dict[str, Any]:
        """Your own words with a fresh id and nothing else (contracts/apollo.md 2.2)."""
        fresh = hashlib.sha256(salt.encode()).hexdigest()[:24]
        return {
            "id": fresh,
            "first_name": first_name or None,
            "last_name": last_name or None,
            "name": f"{first_name} {last_name}".strip(),
            "linkedin_url": None,
            "title": None,
            "email": None,
            "email_status": None,
            "organization_id": None,
            "organization": None,
            "employment_history": [],
            "city": None,
            "state": None,
            "country": None,
            "departments": [],
            "seniority": None,
            "functions": [],
        }

    def namesake(self, person: Person) -> dict[str, Any]:
        """Somebody else of the same name at another employer."""
        other = self._world.company((person.company + 3) % self._world.accounts)
        built = self.person(person)
        tail = f"{person.index ^ 0xABCDEF:08x}"
        return {
            **built,
            "id": f"{_NAMESAKE_ID}{person.index:012x}",
            "linkedin_url": f"http://www.linkedin.com/in/{person.first_name}-{person.last_name}-{tail}".lower(),
            "email": f"{person.first_name}.{person.last_name}.x@{other.domain}".lower(),
            "headline": f"{person.title} at {other.name}",
            "organization_id": company_id(other.index),
            "organization": self.thin(other.index),
            "employment_history": [_job(person.index, 0, other, person.title, "2019-04-01", None)],
        }

    def phones(self, apollo_id: str) -> tuple[Phone, ...]:
        """What a reveal finds for whom Apollo knows by this id; nothing for an echo."""
        index = person_index(apollo_id)
        if index is None:
            other = namesake_index(apollo_id)
            if other is None:
                return ()
            index = other + _BEYOND
        return self._world.phones(index)

    def _thin(self, index: int) -> dict[str, Any]:
        """The organization inside a bulk people answer: no revenue, funding or technologies."""
        return organization(self._world.company(index))

    def full(self, company: Company) -> dict[str, Any]:
        """What organizations/bulk_enrich gives."""
        revenue = company.revenue
        return {
            **organization(company),
            "num_languages": 0,
            "owned_by_organization_id": None,
            "num_suborganizations": 0,
            "subsidiary_rollups": {"total_estimated_employee_count": 0, "countries": [], "industries": []},
            "seo_description": "",
            "short_description": f"{company.name} works in {company.industry}.",
            "sic_codes": ["7375"],
            "naics_codes": ["54151"],
            # 0.0 with a null printed value means unknown (contracts/apollo.md 2.3).
            "organization_revenue_printed": f"{revenue / 1e6:.1f}M" if revenue else None,
            "organization_revenue": float(revenue or 0),
            "departmental_head_count": {"engineering": company.employees // 3, "media_and_commmunication": 2},
            "show_intent": False,
            "has_intent_signal_account": False,
            "intent_signal_account": None,
            "organization_headcount_six_month_growth": None,
            "organization_headcount_twelve_month_growth": None,
            "organization_headcount_twenty_four_month_growth": None,
        }

    def rich(self, company: Company) -> dict[str, Any]:
        """What the single organizations/enrich gives."""
        built = self.full(company)
        del built["organization_revenue"], built["organization_revenue_printed"]
        return {
            **built,
            "annual_revenue": float(company.revenue) if company.revenue else None,
            "annual_revenue_printed": f"{company.revenue / 1e6:.1f}M" if company.revenue else None,
            "total_funding": None,
            "total_funding_printed": None,
            "latest_funding_stage": None,
            "funding_events": [],
            "technology_names": ["Cloudflare DNS", "Hubspot"],
            "current_technologies": [{"uid": "hubspot", "name": "Hubspot", "category": "Marketing Automation"}],
        }

    def _history(self, person: Person, employer: Company) -> list[dict[str, Any]]:
        world = self._world
        jobs = [_job(person.index, 0, employer, person.title, "2022-03-01", None)]
        if employer.index != person.company:
            jobs.append(_job(person.index, 1, world.company(person.company), person.title, "2018-05-01", "2022-02-01"))
        for turn in (2, 3, 4, 5):
            past = world.company((person.company + turn * 7) % world.accounts)
            jobs.append(_job(person.index, turn, past, "Associate", f"{2016 - turn}-05-01", f"{2017 - turn}-02-01"))
        return jobs


def organization(company: Company) -> dict[str, Any]:
    return {
        "id": company_id(company.index),
        "name": company.name,
        "website_url": company.website,
        "blog_url": None,
        "angellist_url": None,
        "linkedin_url": f"http://www.linkedin.com/company/{company.linkedin_slug}",
        "twitter_url": None,
        "facebook_url": None,
        "primary_phone": {
            "number": company.phone,
            "source": "Owler",
            "sanitized_number": company.phone.replace(" ", ""),
        }
        if company.index % 3
        else {},
        "languages": [],
        "alexa_ranking": None,
        "phone": company.phone if company.index % 3 else None,
        "linkedin_uid": str(16_000_000 + company.index),
        "founded_year": company.founded_year,
        "publicly_traded_symbol": None,
        "publicly_traded_exchange": None,
        "logo_url": f"https://img.example/pictures/{company_id(company.index)}/picture",
        "crunchbase_url": None,
        "primary_domain": company.domain,
        "industry": company.industry,
        "keywords": ["grid analytics", "energy forecasting", "supply planning", "customer service", "b2b"],
        "estimated_num_employees": company.employees,
        "industries": [company.industry],
        "secondary_industries": [],
        "snippets_loaded": True,
        "industry_tag_id": "5567cd4773696439b10b0000",
        "industry_tag_hash": {company.industry: "5567cd4773696439b10b0000"},
        "retail_location_count": 0,
        "raw_address": f"88 Foundry Row, {company.city}, {company.state}, {company.country}",
        "street_address": "88 Foundry Row",
        "city": company.city,
        "state": company.state or None,
        "postal_code": "LS1 0AB",
        "country": company.country,
    }


def _job(index: int, turn: int, company: Company, title: str, start: str, end: str | None) -> dict[str, Any]:
    job_id = f"{_JOB_ID}{index * 8 + turn:012x}"
    return {
        "_id": job_id,
        "created_at": None,
        "current": end is None,
        "degree": None,
        "description": None,
        "emails": None,
        "end_date": end,
        "grade_level": None,
        "kind": None,
        "major": None,
        "organization_id": company_id(company.index),
        "organization_name": company.name,
        "raw_address": None,
        "start_date": start,
        "title": title,
        "updated_at": None,
        "id": job_id,
        "key": job_id,
    }


def _switchboard(company: Company) -> dict[str, Any]:
    """What a synchronous answer's phone_numbers really hold: the employer's number (contracts/apollo.md 2.1)."""
    return {
        "raw_number": company.phone,
        "sanitized_number": company.phone.replace(" ", ""),
        "type": "work_hq",
        "position": 0,
        "status": "no_status",
        "dnc_status": None,
        "dnc_other_info": None,
    }
