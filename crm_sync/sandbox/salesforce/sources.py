"""Where a field's first value comes from: the world's neutral words, worded as this org's admin words them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from crm_sync.sandbox.salesforce import auth, clock, ids
from crm_sync.sandbox.world import Company, CrmContact, CrmLead, World

#: A function of a row (org.Row), on paths that run once per record and field.
Source = Callable[[Any], Any]

#: This org's people who own records.
OWNERS = tuple(ids.encode(ids.USER_PREFIX, 10 + place) for place in range(7))

#: Apollo's seniority words in this org's picklist. Some records keep a value that was retired since.
_SENIORITY = {
    "owner": "Executive",
    "founder": "Executive",
    "c_suite": "Executive",
    "partner": "Executive",
    "vp": "VP",
    "head": "VP",
    "director": "Director",
    "manager": "Manager",
    "senior": "Individual Contributor",
    "entry": "Individual Contributor",
    "intern": "Individual Contributor",
}
_RETIRED_EVERY = 19

#: One lead in 23 was converted, into a contact that stands for the same human.
_CONVERTED_EVERY, _CONVERTED_AT = 23, 5
_CONTACT_STRIDE = 13

#: 2023-01-01 UTC, and how far records' dates spread behind it.
_EPOCH = 1_672_531_200
_CREATED_SPREAD = 60_000_000
_MODIFIED_SPREAD = 20_000_000


def of(name: str, field: str) -> Source | None:
    """Return where a field of an object gets its first value, None for one that starts blank (false, a checkbox)."""
    return _SOURCES[name].get(field)


def parent(name: str, field: str) -> Callable[[Any], int | None] | None:
    """Return the index behind a reference's first value, sparing the way through its id; None where there is none."""
    return (lambda row: row.base.company) if (name, field) == ("Contact", "AccountId") else None


def leads(world: World) -> Callable[[int], CrmLead | ConvertedLead]:
    """Return what the org knows of lead j: a converted one is about the human its contact is about."""

    def lead(index: int) -> CrmLead | ConvertedLead:
        mine = world.lead(index)
        if world.tidy or index % _CONVERTED_EVERY != _CONVERTED_AT:
            return mine
        contact = world.contact(index * _CONTACT_STRIDE % world.contacts)
        return ConvertedLead(mine, contact, world.company(world.person(contact.person).company))

    return lead


class ConvertedLead:
    """A lead that became `contact`: it is about that person and their employer, as complete as the lead was."""

    def __init__(self, lead: CrmLead, contact: CrmContact, company: Company) -> None:
        self.company = company.name
        self.website = company.website if lead.website else ""
        self.industry = lead.industry
        self.employees = lead.employees
        self.contact = contact

    def __getattr__(self, name: str) -> Any:
        return getattr(self.contact, name)


def _is_converted(row: Any) -> bool:
    return isinstance(row.base, ConvertedLead)


def _seniority(row: Any) -> str | None:
    word = row.base.seniority
    if word == "c_suite" and row.index % _RETIRED_EVERY == 0:
        return "Chief"
    return _SENIORITY.get(word, word) or None


def _created(row: Any) -> int:
    return _EPOCH + int(row.index) * 7919 % _CREATED_SPREAD


def _modified(row: Any) -> str:
    return clock.stamp(_created(row) + row.index * 104_729 % _MODIFIED_SPREAD)


def _text(attribute: str) -> Source:
    """A neutral text, "" meaning blank."""

    def read(row: Any) -> Any:
        return getattr(row.base, attribute) or None

    return read


def _revenue(row: Any) -> float | None:
    revenue = row.base.revenue
    return None if revenue is None else float(revenue)


def _became(attribute: str, prefix: str) -> Source:
    """The id of the contact or account a converted lead became."""

    def read(row: Any) -> str | None:
        index = getattr(row.base.contact, attribute) if _is_converted(row) else None
        return None if index is None else ids.encode(prefix, index)

    return read


def _system(prefix: str) -> dict[str, Source]:
    return {
        "Id": lambda row: ids.encode(prefix, row.index),
        "OwnerId": lambda row: OWNERS[row.index % len(OWNERS)],
        "CreatedDate": lambda row: clock.stamp(_created(row)),
        "CreatedById": lambda row: OWNERS[row.index % len(OWNERS)],
        "LastModifiedDate": _modified,
        "LastModifiedById": lambda _row: auth.HUMAN_USER,
        "SystemModstamp": _modified,
    }


_PERSON: Mapping[str, Source] = {
    "FirstName": _text("first_name"),
    "LastName": _text("last_name"),
    "Title": _text("title"),
    "Email": _text("email"),
    "Phone": _text("phone"),
    "MobilePhone": _text("mobile"),
    "LinkedIn__c": _text("linkedin_url"),
    "Seniority__c": _seniority,
    "Department__c": _text("department"),
    "HasOptedOutOfEmail": lambda row: row.base.opted_out,
}

_SOURCES: Mapping[str, Mapping[str, Source]] = {
    "Contact": {
        **_system("003"),
        **_PERSON,
        "AccountId": lambda row: None if row.base.company is None else ids.encode("001", row.base.company),
        "Department": _text("department"),
        "MailingCity": _text("city"),
        "MailingState": _text("state"),
        "MailingCountry": _text("country"),
        "Status__c": _text("status"),
    },
    "Lead": {
        **_system("00Q"),
        **_PERSON,
        "Company": _text("company"),
        "Website": _text("website"),
        "Industry": _text("industry"),
        "NumberOfEmployees": lambda row: row.base.employees,
        "City": _text("city"),
        "State": _text("state"),
        "Country": _text("country"),
        "Status": lambda row: "Closed - Converted" if _is_converted(row) else "Open - Not Contacted",
        "Status__c": _text("status"),
        "IsConverted": _is_converted,
        "ConvertedDate": lambda row: _modified(row)[:10] if _is_converted(row) else None,
        "ConvertedContactId": _became("index", "003"),
        "ConvertedAccountId": _became("company", "001"),
        "IsUnreadByOwner": lambda row: row.index % 3 == 0,
    },
    "Individual": {
        **_system("0PK"),
        "FirstName": _text("first_name"),
        "LastName": _text("last_name"),
    },
    "Account": {
        **_system("001"),
        "Name": _text("name"),
        "Website": _text("website"),
        "Industry": _text("industry"),
        "NumberOfEmployees": lambda row: row.base.employees,
        "AnnualRevenue": _revenue,
        "Phone": _text("phone"),
        "BillingCity": _text("city"),
        "BillingState": _text("state"),
        "BillingCountry": _text("country"),
    },
}
