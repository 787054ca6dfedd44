"""The portal's properties: what each may hold, who may write it, and how GET /crm/v3/properties tells it.

The types are those of contracts/hubspot.md 6 (2026-11); the traps are meant: `industry` is text on a contact and one of
148 options on a company, `numemployees` is an enumeration here and `numberofemployees` a number there.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from crm_sync.sandbox.hubspot.industries import INDUSTRIES

#: People who own records; their options are external, so no metadata lists them.
OWNERS = ("41629779", "41629780", "41629781", "41629782", "41629783")

#: Steps of the funnel, in the only direction it moves by itself.
LIFECYCLE = (
    "subscriber", "lead", "marketingqualifiedlead", "salesqualifiedlead", "opportunity", "customer", "evangelist",
    "other",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    value: str
    label: str
    hidden: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Property:
    """`type` and `field_type` in HubSpot's words; `whole`: a number without decimals; `custom`: made by an admin."""

    name: str
    label: str
    type: str = "string"
    field_type: str = "text"
    group: str = "contactinformation"
    options: tuple[Option, ...] = ()
    whole: bool = False
    read_only: bool = False
    calculated: bool = False
    hidden: bool = False
    unique: bool = False
    custom: bool = False
    archived: bool = False
    external: str = ""

    @property
    def allowed(self) -> tuple[str, ...]:
        return tuple(option.value for option in self.options)

    @property
    def is_multiple(self) -> bool:
        return self.field_type == "checkbox"

    @property
    def searchable(self) -> bool:
        return self.type not in ("json", "object_coordinates") and not self.archived

    def metadata(self) -> dict[str, Any]:
        """The definition as HubSpot lists it; some parts are only there where they say something."""
        found: dict[str, Any] = {
            "updatedAt": "2026-01-15T09:30:00.000Z",
            "createdAt": "2023-01-01T00:00:00.000Z",
            "name": self.name,
            "label": self.label,
            "type": self.type,
            "fieldType": self.field_type,
            "groupName": self.group,
            "options": [
                {"label": each.label, "value": each.value, "displayOrder": place, "hidden": each.hidden}
                for place, each in enumerate(self.options)
            ],
            "displayOrder": -1,
            "calculated": self.calculated,
            "externalOptions": bool(self.external),
            "archived": self.archived,
            "hasUniqueValue": self.unique,
            "hidden": self.hidden,
            "modificationMetadata": {
                "archivable": self.custom,
                "readOnlyDefinition": not self.custom,
                "readOnlyValue": self.read_only,
            },
            "formField": not (self.read_only or self.hidden),
            "dataSensitivity": "non_sensitive",
        }
        if not self.custom:
            found |= {"hubspotDefined": True, "description": f"{self.label}, as HubSpot defines it."}
        if self.options and not self.custom:
            found["modificationMetadata"]["readOnlyOptions"] = self.read_only
        if self.external:
            found["referencedObjectType"] = self.external
        return found


def _text(name: str, label: str, **more: Any) -> Property:
    return Property(name=name, label=label, **more)


def _area(name: str, label: str, **more: Any) -> Property:
    return Property(name=name, label=label, field_type="textarea", **more)


def _phone(name: str, label: str, **more: Any) -> Property:
    return Property(name=name, label=label, field_type="phonenumber", **more)


def _number(name: str, label: str, **more: Any) -> Property:
    return Property(name=name, label=label, type="number", field_type="number", **more)


def _whole(name: str, label: str, **more: Any) -> Property:
    return _number(name, label, whole=True, **more)


def _moment(name: str, label: str, **more: Any) -> Property:
    return Property(name=name, label=label, type="datetime", field_type="date", **more)


def _day(name: str, label: str, **more: Any) -> Property:
    return Property(name=name, label=label, type="date", field_type="date", **more)


def _flag(name: str, label: str, **more: Any) -> Property:
    both = (Option(value="true", label="Yes"), Option(value="false", label="No"))
    return Property(name=name, label=label, type="bool", field_type="booleancheckbox", options=both, **more)


def _choice(name: str, label: str, values: Iterable[str | tuple[str, str] | Option], **more: Any) -> Property:
    """One of `values`, or with field_type "checkbox" several; a bare word gets a label of its own."""
    return Property(
        name=name,
        label=label,
        type="enumeration",
        options=tuple(_option(each) for each in values),
        **{"field_type": "select", **more},
    )


def _option(given: str | tuple[str, str] | Option) -> Option:
    if isinstance(given, Option):
        return given
    if isinstance(given, tuple):
        return Option(value=given[0], label=given[1])
    return Option(value=given, label=given.replace("_", " ").title())


def _kept(**more: Any) -> dict[str, Any]:
    """HubSpot keeps the value itself."""
    return {"read_only": True, **more}


_SENIORITY = (
    ("vp", "VP"), "director", "entry", "executive", "manager", "owner", "partner", "senior", "employee",
)  # fmt: skip
_ROLES = (
    "accounting", "administrative", "business_development", "communications", "consulting", "customer_service",
    "design", "education", "engineering", "entrepreneurship", "finance", "health_professional", "human_resources",
    "information_technology", "legal", "marketing", "operations", "product", "project_management", "public_relations",
    "quality_assurance", "real_estate", "recruiting", "research", "retired", "sales", "support",
)  # fmt: skip
_SUB_ROLES = (
    "account_executive", "account_manager", "accountant", "brand_marketing", "data_scientist", "demand_generation",
    "devops_engineer", "field_marketing", "general_counsel", "investor_relations", "logistics", "paralegal",
    "product_manager", "recruiter", "revenue_operations", "software_engineer",
)  # fmt: skip
_ZONES = (
    "america_slash_chicago", "america_slash_los_angeles", "america_slash_new_york", "asia_slash_tokyo",
    "europe_slash_berlin", "europe_slash_london", "europe_slash_paris", "utc",
)  # fmt: skip
_LEAD_STATUS = (
    ("NEW", "New"), ("OPEN", "Open"), ("IN_PROGRESS", "In progress"), ("OPEN_DEAL", "Open deal"),
    ("UNQUALIFIED", "Unqualified"), ("ATTEMPTED_TO_CONTACT", "Attempted to contact"), ("CONNECTED", "Connected"),
    ("BAD_TIMING", "Bad timing"),
)  # fmt: skip
_BUYING_ROLES = (
    ("BLOCKER", "Blocker"), ("BUDGET_HOLDER", "Budget holder"), ("CHAMPION", "Champion"),
    ("DECISION_MAKER", "Decision maker"), ("END_USER", "End user"), ("EXECUTIVE_SPONSOR", "Executive sponsor"),
    ("INFLUENCER", "Influencer"), ("LEGAL_AND_COMPLIANCE", "Legal and compliance"), ("OTHER", "Other"),
)  # fmt: skip
_KEYWORDS = (
    "analytics", "artificial_intelligence", "automation", "cloud_computing", "construction_materials", "consulting",
    "e_commerce", "energy_storage", "freight", "health_care", "insurance", "logistics", "machine_learning", "payments",
    "real_estate", "retail", "robotics", "saas", "security", "telecommunications",
)  # fmt: skip
_TECHNOLOGIES = (
    "amazon_web_services", "apache", "cloudflare", "facebook_advertiser", "google_analytics", "google_cloud",
    "google_tag_manager", "hubspot", "jquery", "marketo", "microsoft_office_365", "nginx", "pardot", "react_js",
    "salesforce", "shopify", "stripe", "wordpress", "zendesk",
)  # fmt: skip

_COMPANY = "companyinformation"
_ENRICHMENT = "data_enrichment"
_LINKS = "contact_activity"

CONTACTS: tuple[Property, ...] = (
    _whole("hs_object_id", "Record ID", **_kept()),
    _moment("createdate", "Create Date", **_kept()),
    _moment("lastmodifieddate", "Last Modified Date", **_kept()),
    _choice("hs_merged_object_ids", "Merged record IDs", (), field_type="checkbox", **_kept()),
    _text("hs_calculated_merged_vids", "Merged vids with timestamps", **_kept(calculated=True, hidden=True)),
    _text("email", "Email"),
    _text("work_email", "Work email"),
    _choice(
        "hs_additional_emails", "Additional email addresses", (), field_type="checkbox", **_kept(calculated=True)
    ),
    _text("hs_email_domain", "Email Domain", **_kept(calculated=True)),
    _flag("hs_email_optout", "Unsubscribed from all email", **_kept()),
    _text("salutation", "Salutation"),
    _text("firstname", "First Name"),
    _text("lastname", "Last Name"),
    _text("jobtitle", "Job Title"),
    _choice("hs_seniority", "Employment Seniority", _SENIORITY),
    _choice("hs_role", "Employment Role", _ROLES),
    _choice("hs_sub_role", "Employment Sub Role", _SUB_ROLES),
    _text("seniority", "Seniority", group="facebook_ads_properties"),
    _text("job_function", "Job function", group="facebook_ads_properties"),
    _text("hs_linkedin_url", "LinkedIn URL"),
    _text("hs_linkedinid", "Linkedin ID", hidden=True),
    _text("linkedinbio", "LinkedIn Bio", group="socialmediainformation"),
    _whole("linkedinconnections", "LinkedIn Connections", group="socialmediainformation"),
    _text("twitterhandle", "Twitter Username", group="socialmediainformation"),
    _phone("phone", "Phone Number"),
    _phone("mobilephone", "Mobile Phone Number"),
    _phone("hs_whatsapp_phone_number", "WhatsApp Phone Number"),
    _text("hs_calculated_phone_number", "Calculated Phone Number", **_kept(calculated=True, hidden=True)),
    _text(
        "hs_searchable_calculated_phone_number", "Calculated searchable number", **_kept(calculated=True, hidden=True)
    ),
    _text("fax", "Fax Number"),
    _text("address", "Street Address"),
    _text("city", "City"),
    _text("state", "State/Region"),
    _text("zip", "Postal Code"),
    _text("country", "Country/Region"),
    _text("hs_country_region_code", "Country/Region Code"),
    _text("hs_state_code", "State/Region Code"),
    _choice("hs_timezone", "Time Zone", _ZONES),
    _text("company", "Company Name"),
    _text("website", "Website URL"),
    _text("industry", "Industry"),
    _text("annualrevenue", "Annual Revenue"),
    _text("company_size", "Company size"),
    _choice(
        "numemployees", "Number of Employees",
        ("1-5", "5-25", "25-50", "50-100", "100-500", "500-1000", "1000+"),
    ),
    _whole("associatedcompanyid", "Primary Associated Company ID", external="COMPANY"),
    _choice("hubspot_owner_id", "Contact owner", (), external="OWNER"),
    _choice("lifecyclestage", "Lifecycle Stage", LIFECYCLE, field_type="radio"),
    _choice("hs_lead_status", "Lead Status", _LEAD_STATUS, field_type="radio", group="sales_properties"),
    _choice("hs_buying_role", "Buying Role", _BUYING_ROLES, field_type="checkbox", group="sales_properties"),
    _area("message", "Message"),
    _moment("notes_last_updated", "Last Activity Date", **_kept(group=_LINKS)),
    _whole("num_associated_deals", "Number of Associated Deals", **_kept(calculated=True, group=_LINKS)),
    _flag("hs_is_enriched", "Is enriched", **_kept(group=_ENRICHMENT)),
    _moment("hs_last_metered_enrichment_timestamp", "Last enriched", **_kept(group=_ENRICHMENT)),
    _moment("hs_live_enrichment_deadline", "Live enrichment deadline", **_kept(group=_ENRICHMENT, hidden=True)),
    _flag("hs_contact_enrichment_opt_out", "Contact enrichment opt out", group=_ENRICHMENT),
    _flag("hs_enriched_email_bounce_detected", "Enriched email bounce detected", **_kept(group=_ENRICHMENT)),
    _day("hs_job_change_detected_date", "Job change detected", **_kept(group=_ENRICHMENT)),
    _day("hs_employment_change_detected_date", "Employment change detected", **_kept(group=_ENRICHMENT)),
    Property(
        name="hs_sa_first_engagement_descr",
        label="First engagement, as the assistant saw it",
        type="json",
        **_kept(hidden=True),
    ),
    # What this portal's admin added.
    _text("external_key", "Key in the old system", unique=True, custom=True),
    _text("department", "Department", custom=True),
    _choice("outreach_status", "Outreach status", (("Target",) * 2, ("Customer",) * 2, ("Archived",) * 2), custom=True),
    _choice(
        "product_interest", "Product interest",
        # The stray blank is an admin's: options are compared exactly (contracts/hubspot.md 3, 2026-11).
        ("analytics", Option(value="automation ", label="Automation"), "payments",
         Option(value="fax_gateway", label="Fax gateway", hidden=True)),
        field_type="checkbox", custom=True,
    ),
    _day("renewal_date", "Renewal date", custom=True),
    _number("lead_score", "Lead score", custom=True),
    _moment("apollo_enriched_at", "Apollo enriched at", custom=True),
    _text("apollo_status", "Apollo status", custom=True),
    _text("region_note", "Region note", custom=True),
    _text("legacy_code", "Legacy code", custom=True, archived=True),
)  # fmt: skip

COMPANIES: tuple[Property, ...] = (
    _whole("hs_object_id", "Record ID", **_kept(group=_COMPANY)),
    _moment("createdate", "Create Date", **_kept(group=_COMPANY)),
    _moment("hs_lastmodifieddate", "Last Modified Date", **_kept(group=_COMPANY)),
    _choice("hs_merged_object_ids", "Merged record IDs", (), field_type="checkbox", **_kept(group=_COMPANY)),
    _text("name", "Company name", group=_COMPANY),
    _text("domain", "Company Domain Name", group=_COMPANY),
    _choice("hs_additional_domains", "Additional Domains", (), field_type="checkbox", **_kept(group=_COMPANY)),
    _text("website", "Website URL", group=_COMPANY),
    _choice("industry", "Industry", INDUSTRIES, group=_COMPANY),
    _text("hs_industry_group", "Industry group", group=_ENRICHMENT),
    _choice("hs_keywords", "Company Keywords", _KEYWORDS, field_type="checkbox", group=_ENRICHMENT),
    _whole("numberofemployees", "Number of Employees", group=_COMPANY),
    _text("hs_employee_range", "Employee range", group=_ENRICHMENT),
    _number("annualrevenue", "Annual Revenue", group=_COMPANY),
    _text("hs_revenue_range", "Revenue range", group=_ENRICHMENT),
    _text("founded_year", "Year Founded", group=_COMPANY),
    _area("description", "Description", group=_COMPANY),
    _area("about_us", "About Us", group=_COMPANY),
    _text("total_money_raised", "Total Money Raised", group=_COMPANY),
    _flag("is_public", "Is Public", group=_COMPANY),
    _choice("web_technologies", "Web Technologies", _TECHNOLOGIES, field_type="checkbox", group=_COMPANY),
    _text("linkedin_company_page", "LinkedIn Company Page", group="socialmediainformation"),
    _text("hs_linkedin_handle", "LinkedIn handle", group="socialmediainformation"),
    _area("linkedinbio", "LinkedIn Bio", group="socialmediainformation"),
    _text("facebook_company_page", "Facebook Company Page", group="socialmediainformation"),
    _text("twitterhandle", "Twitter Handle", group="socialmediainformation"),
    _text("hs_logo_url", "Logo URL", group=_ENRICHMENT),
    _phone("phone", "Phone Number", group=_COMPANY),
    _text("address", "Street Address", group=_COMPANY),
    _text("address2", "Street Address 2", group=_COMPANY),
    _text("city", "City", group=_COMPANY),
    _text("state", "State/Region", group=_COMPANY),
    _text("zip", "Postal Code", group=_COMPANY),
    _text("country", "Country/Region", group=_COMPANY),
    _text("hs_country_code", "Country/Region Code", group=_COMPANY),
    _text("hs_state_code", "State/Region Code", group=_COMPANY),
    _text("timezone", "Time Zone", group=_COMPANY),
    _choice(
        "type", "Type",
        (("PROSPECT", "Prospect"), ("PARTNER", "Partner"), ("RESELLER", "Reseller"), ("VENDOR", "Vendor"),
         ("OTHER", "Other")),
        field_type="radio", group=_COMPANY,
    ),
    _whole("hs_parent_company_id", "Parent Company", group=_COMPANY, external="COMPANY"),
    _whole("hs_num_child_companies", "Number of child companies", **_kept(calculated=True, group=_COMPANY)),
    _choice("hubspot_owner_id", "Company owner", (), external="OWNER", group=_COMPANY),
    _choice("lifecyclestage", "Lifecycle Stage", LIFECYCLE, field_type="radio", group=_COMPANY),
    _choice("hs_lead_status", "Lead Status", _LEAD_STATUS, field_type="radio", group=_COMPANY),
    _choice(
        "hs_ideal_customer_profile", "Ideal Customer Profile Tier",
        (("tier_1", "Tier 1"), ("tier_2", "Tier 2"), ("tier_3", "Tier 3")), group=_COMPANY,
    ),
    _flag("hs_target_account", "Target Account", group=_COMPANY),
    _moment("closedate", "Close Date", group=_COMPANY),
    _whole("days_to_close", "Days to Close", **_kept(calculated=True, group=_COMPANY)),
    _moment("notes_last_updated", "Last Activity Date", **_kept(group=_COMPANY)),
    _flag("hs_is_enriched", "Is enriched", **_kept(group=_ENRICHMENT)),
    _text("external_key", "Key in the old system", unique=True, custom=True, group=_COMPANY),
    _choice(
        "size_band", "Size band",
        (("1-50", "1-50"), ("51-200", "51-200"), ("201-1000", "201-1,000"), ("1000+", "More than 1,000"),
         Option(value="unknown", label="Unknown", hidden=True)),
        custom=True, group=_COMPANY,
    ),
    _moment("apollo_enriched_at", "Apollo enriched at", custom=True, group=_COMPANY),
    _text("apollo_status", "Apollo status", custom=True, group=_COMPANY),
    _text("region_note", "Region note", custom=True, group=_COMPANY),
)  # fmt: skip

#: Contacts and companies by name, and the number each type has in paths and record addresses.
BY_TYPE: Mapping[str, tuple[Property, ...]] = {"contacts": CONTACTS, "companies": COMPANIES}
TYPE_IDS: Mapping[str, str] = {"contacts": "0-1", "companies": "0-2"}
#: How error texts name one of them.
SINGULAR: Mapping[str, str] = {"contacts": "CONTACT", "companies": "COMPANY"}
#: The two types do not agree on this name (contracts/hubspot.md 2.2, 2026-11).
MODIFIED: Mapping[str, str] = {"contacts": "lastmodifieddate", "companies": "hs_lastmodifieddate"}
#: What comes without being asked for; the first three or so in any answer.
ALWAYS: Mapping[str, tuple[str, ...]] = {
    "contacts": ("createdate", "hs_object_id", "lastmodifieddate"),
    "companies": ("createdate", "hs_lastmodifieddate", "hs_object_id"),
}
BY_DEFAULT: Mapping[str, tuple[str, ...]] = {
    "contacts": ("createdate", "email", "firstname", "hs_object_id", "lastmodifieddate", "lastname"),
    "companies": ("createdate", "domain", "hs_lastmodifieddate", "hs_object_id", "name"),
}
