"""The portal's properties: names, types, options and what may be written (contracts/hubspot.md 6, 2026-11)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

_NUMBER = re.compile(r"-?\d+(?:\.\d+)?\Z")
_DATE = re.compile(r"\d{4}-\d{2}-\d{2}\Z")
_DATETIME = re.compile(r"\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}(?:\.\d{1,3})?Z\Z")
_MILLISECONDS = re.compile(r"-?\d{1,15}\Z")
_LONGEST_TEXT = 65_536

#: MOBILE_GAMES has no Apollo word; the other 147 stand in the shipped table.
_MORE_INDUSTRIES = ("MOBILE_GAMES",)
_SENIORITY = ("vp", "director", "entry", "executive", "manager", "owner", "partner", "senior", "employee")
_COMPANY_TYPES = ("PROSPECT", "PARTNER", "RESELLER", "VENDOR", "OTHER")
_NUM_EMPLOYEES = ("1-5", "5-25", "25-50", "50-100", "100-500", "500-1000", "1000+")


@dataclass(frozen=True, slots=True)
class Property:
    """One property definition. `options` are internal values; labels are made of them."""

    name: str
    label: str
    type: str = "string"
    field_type: str = "text"
    options: tuple[str, ...] = ()
    read_only: bool = False
    calculated: bool = False
    hidden: bool = False
    external: str = ""
    group: str = "information"

    def problem(self, value: str) -> tuple[str, str] | None:
        """(code, message) of a value the portal refuses, None for one it takes; "" erases and always passes."""
        if self.read_only or self.calculated:
            return "READ_ONLY_VALUE", f'"{self.name}" is a read only property; its value cannot be set.'
        if value == "":
            return None
        if self.type == "enumeration" and not self.external:
            return self._option_problem(value)
        if self.type == "number" and not _NUMBER.match(value):
            return "INVALID_FLOAT", f'{value!r} was not a valid number for property "{self.name}".'
        if self.type == "bool" and value not in ("true", "false"):
            return "INVALID_OPTION", f'{value!r} was not one of the allowed options: [true, false] for "{self.name}"'
        if self.type == "date" and not (_DATE.match(value) or _MILLISECONDS.match(value)):
            return "INVALID_DATE", f'{value!r} was not a valid date for property "{self.name}".'
        if self.type == "datetime" and not (_DATETIME.match(value) or _MILLISECONDS.match(value)):
            return "INVALID_DATE", f'{value!r} was not a valid datetime for property "{self.name}".'
        if len(value) > _LONGEST_TEXT:
            return "INVALID_STRING", f'the value of "{self.name}" is longer than {_LONGEST_TEXT} characters.'
        return None

    def _option_problem(self, value: str) -> tuple[str, str] | None:
        several = self.field_type == "checkbox"
        given = value.removeprefix(";").split(";") if several else [value]
        wrong = [part for part in given if part not in self.options]
        if not wrong:
            return None
        # The message lists every option, so it is long (contracts/hubspot.md 5).
        return "INVALID_OPTION", f"{wrong[0]} was not one of the allowed options: [{', '.join(self.options)}]"

    def definition(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "label": self.label,
            "type": self.type,
            "fieldType": self.field_type,
            "description": "",
            "groupName": self.group,
            "options": [
                {"label": label_of(each), "value": each, "displayOrder": place, "hidden": False}
                for place, each in enumerate(self.options)
            ],
            "displayOrder": -1,
            "calculated": self.calculated,
            "externalOptions": bool(self.external),
            **({"referencedObjectType": self.external} if self.external else {}),
            "archived": False,
            "hasUniqueValue": self.name == "hs_object_id",
            "hidden": self.hidden,
            "hubspotDefined": True,
            "formField": not self.read_only,
            "modificationMetadata": {
                "archivable": False,
                "readOnlyDefinition": True,
                "readOnlyOptions": False,
                "readOnlyValue": self.read_only or self.calculated,
            },
        }


def label_of(option: str) -> str:
    words = option.replace("_", " ")
    return words.title() if words.isupper() else words[:1].upper() + words[1:]


@cache
def industries() -> dict[str, str]:
    """Apollo's word -> the portal's option."""
    rows = files("crm_sync").joinpath("data/hubspot_industry.csv").read_text(encoding="utf-8").splitlines()[1:]
    return {apollo.strip('"'): option for apollo, _, option in (row.rpartition(",") for row in rows)}


def _text(name: str, label: str, **more: Any) -> Property:
    return Property(name, label, **more)


def _system(name: str, label: str, kind: str, field_type: str, **more: Any) -> Property:
    return Property(name, label, kind, field_type, read_only=True, **more)


@cache
def of(object_type: str) -> dict[str, Property]:
    return {each.name: each for each in (_contacts() if object_type == "contacts" else _companies())}


def _shared() -> list[Property]:
    return [
        _system("hs_object_id", "Record ID", "number", "number"),
        _system("createdate", "Create Date", "datetime", "date"),
        _system("hs_merged_object_ids", "Merged object IDs", "enumeration", "checkbox", external="CONTACT"),
        _system("hs_is_enriched", "Is enriched", "bool", "booleancheckbox"),
        Property("hubspot_owner_id", "Owner", "enumeration", "select", external="OWNER"),
        *(_text(name, name.capitalize()) for name in ("city", "state", "country", "zip", "address")),
        Property("phone", "Phone Number", field_type="phonenumber"),
        Property("lifecyclestage", "Lifecycle Stage", "enumeration", "radio", ("subscriber", "lead", "customer")),
    ]


def _contacts() -> list[Property]:
    return [
        *_shared(),
        _system("lastmodifieddate", "Last Modified Date", "datetime", "date"),
        _text("email", "Email"),
        _text("work_email", "Work email"),
        Property("hs_additional_emails", "Additional emails", "enumeration", "checkbox", calculated=True),
        _text("firstname", "First Name"),
        _text("lastname", "Last Name"),
        _text("jobtitle", "Job Title"),
        Property("hs_seniority", "Employment Seniority", "enumeration", "select", _SENIORITY),
        _text("seniority", "Seniority"),  # the Facebook lead-ads field: another one
        Property(
            "hs_role", "Employment Role", "enumeration", "select", ("accounting", "engineering", "sales", "other")
        ),
        _text("job_function", "Job function"),
        _text("hs_linkedin_url", "LinkedIn URL"),
        Property("hs_linkedinid", "LinkedIn ID", hidden=True),
        _text("linkedinbio", "LinkedIn Bio"),
        Property("mobilephone", "Mobile Phone Number", field_type="phonenumber"),
        Property("hs_whatsapp_phone_number", "WhatsApp Phone Number", field_type="phonenumber"),
        Property("hs_calculated_phone_number", "Calculated phone number", calculated=True),
        Property("hs_searchable_calculated_phone_number", "Searchable phone number", calculated=True),
        _text("hs_country_region_code", "Country/Region Code"),
        _text("hs_state_code", "State/Region Code"),
        Property(
            "hs_timezone", "Time Zone", "enumeration", "select", ("america_slash_new_york", "europe_slash_berlin")
        ),
        _text("company", "Company Name"),
        _text("website", "Website URL"),
        _text("industry", "Industry"),
        _text("annualrevenue", "Annual Revenue"),
        _text("company_size", "Company size"),
        Property("numemployees", "Number of Employees", "enumeration", "select", _NUM_EMPLOYEES),
        Property("associatedcompanyid", "Primary Associated Company ID", "number", "number", external="COMPANY"),
        _system("hs_last_metered_enrichment_timestamp", "Last enrichment", "datetime", "date"),
        Property("hs_contact_enrichment_opt_out", "Enrichment opt out", "bool", "booleancheckbox"),
        Property("hs_job_change_detected_date", "Job change detected", "date", "date"),
        Property("hs_email_optout", "Unsubscribed from all email", "bool", "booleancheckbox", read_only=True),
    ]


def _companies() -> list[Property]:
    options = tuple(sorted({*industries().values(), *_MORE_INDUSTRIES}))
    return [
        *_shared(),
        _system("hs_lastmodifieddate", "Last Modified Date", "datetime", "date"),
        _text("name", "Company name"),
        _text("domain", "Company Domain Name"),
        _text("website", "Website URL"),
        Property("hs_additional_domains", "Additional Domains", "enumeration", "checkbox", calculated=True),
        Property("industry", "Industry", "enumeration", "select", options),
        _text("hs_industry_group", "Industry group"),
        Property("numberofemployees", "Number of Employees", "number", "number"),
        Property("annualrevenue", "Annual Revenue", "number", "number"),
        _text("hs_employee_range", "Employee range"),
        _text("hs_revenue_range", "Revenue range"),
        _text("founded_year", "Year Founded"),
        Property("description", "Description", field_type="textarea"),
        Property("about_us", "About Us", field_type="textarea"),
        _text("total_money_raised", "Total Money Raised"),
        Property("is_public", "Is Public", "bool", "booleancheckbox"),
        Property(
            "web_technologies", "Web Technologies", "enumeration", "checkbox", ("hubspot", "salesforce", "cloudflare")
        ),
        _text("linkedin_company_page", "LinkedIn Company Page"),
        Property("hs_linkedin_handle", "LinkedIn handle"),
        _text("linkedinbio", "LinkedIn Bio"),
        _text("facebook_company_page", "Facebook Company Page"),
        _text("twitterhandle", "Twitter Handle"),
        _text("timezone", "Time Zone"),
        _text("hs_country_code", "Country Code"),
        _text("hs_state_code", "State Code"),
        Property("type", "Type", "enumeration", "radio", _COMPANY_TYPES),
        Property("hs_parent_company_id", "Parent Company", "number", "number", read_only=True),
    ]
