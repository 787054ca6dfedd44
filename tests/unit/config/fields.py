"""Hand-made object schemas and a CRM that answers from them."""

from __future__ import annotations

from collections.abc import Mapping

from crm_sync.domain.records import Choice, FieldKind, FieldSchema, ObjectSchema
from crm_sync.errors import ConfigError
from crm_sync.mapping.picklists import builtin_table
from crm_sync.ports import Selection


def a_field(name: str, kind: FieldKind = FieldKind.TEXT, **more: object) -> FieldSchema:
    values: dict[str, object] = {"label": name, "native_type": "string", "writable": True, **more}
    return FieldSchema(name=name, kind=kind, **values)  # type: ignore[arg-type]


def choices(*values: str, inactive: tuple[str, ...] = ()) -> tuple[Choice, ...]:
    return tuple(Choice(value=v, label=v) for v in values) + tuple(
        Choice(value=v, label=v, active=False) for v in inactive
    )


def an_object(object_type: str, *fields: FieldSchema, crm: str = "salesforce") -> ObjectSchema:
    return ObjectSchema(
        crm=crm, object_type=object_type, label=object_type, fields={field.name: field for field in fields}
    )


SALESFORCE_INDUSTRIES = (
    "Agriculture", "Apparel", "Banking", "Biotechnology", "Chemicals", "Communications", "Construction", "Consulting",
    "Education", "Electronics", "Energy", "Engineering", "Entertainment", "Environmental", "Finance", "Food & Beverage",
    "Government", "Healthcare", "Hospitality", "Insurance", "Machinery", "Manufacturing", "Media", "Not For Profit",
    "Recreation", "Retail", "Shipping", "Technology", "Telecommunications", "Transportation", "Utilities", "Other",
)  # fmt: skip

CONTACT = an_object(
    "Contact",
    a_field("Id", FieldKind.ID, writable=False, why_not="Salesforce numbers its records itself."),
    a_field("Email", FieldKind.EMAIL, length=80),
    a_field("FirstName", length=40),
    a_field("LastName", length=80),
    a_field("Name", writable=False, why_not="it is put together from first and last name."),
    a_field("Title", label="Job Title", length=128),
    a_field("Department", length=80),
    a_field("Departments__c", FieldKind.MULTI_PICKLIST, choices=choices("sales", "operations")),
    a_field(
        "Level__c",
        FieldKind.PICKLIST,
        label="Seniority",
        choices=choices("Executive", "VP", "Director", "Staff", inactive=("Boss",)),
    ),
    a_field("LinkedIn_Profile__c", FieldKind.URL, label="LinkedIn", length=255),
    a_field("Headcount__c", FieldKind.INTEGER, digits=8),
    a_field("Size__c", FieldKind.PICKLIST, choices=choices("1-50", "51+")),
    a_field("Engaged__c", FieldKind.BOOLEAN),
    a_field("Notes__c", FieldKind.LONG_TEXT, length=32000, filterable=False),
    a_field("Phone", FieldKind.PHONE, length=40),
    a_field("MailingCity", length=40),
    a_field("MailingState", length=80),
    a_field("MailingCountry", length=80),
    a_field("HasOptedOutOfEmail", FieldKind.BOOLEAN),
    a_field("IndividualId", FieldKind.REFERENCE, refers_to=("Individual",), relationship="Individual"),
    a_field("AccountId", FieldKind.REFERENCE, refers_to=("Account",), relationship="Account"),
    a_field("ReportsToId", FieldKind.REFERENCE, refers_to=("Contact",), relationship="ReportsTo"),
)
ACCOUNT = an_object(
    "Account",
    a_field("Name", length=255),
    a_field("Website", FieldKind.URL, length=255),
    a_field("Industry", FieldKind.PICKLIST, choices=choices(*SALESFORCE_INDUSTRIES)),
    a_field("NumberOfEmployees", FieldKind.INTEGER, digits=8),
    a_field("AnnualRevenue", FieldKind.DECIMAL, digits=18, scale=0),
    a_field("Description", FieldKind.LONG_TEXT, length=32000, filterable=False),
    a_field("BillingCity", length=40),
    a_field("BillingState", length=80),
    a_field("BillingCountry", length=80),
)
LEAD = an_object(
    "Lead",
    a_field("HasOptedOutOfEmail", FieldKind.BOOLEAN),
    a_field("IndividualId", FieldKind.REFERENCE, refers_to=("Individual",), relationship="Individual"),
    a_field("Email", FieldKind.EMAIL, length=80),
    a_field("FirstName", length=40),
    a_field("LastName", length=80),
    a_field("Company", length=255),
    a_field("Website", FieldKind.URL, length=255),
    a_field("Title", length=128),
    a_field("City", length=40),
    a_field("State", length=80),
    a_field("StateCode", FieldKind.PICKLIST, choices=choices("CA", "NY")),
    a_field("Country", length=80),
    a_field("CountryCode", FieldKind.PICKLIST, choices=choices("US", "GB")),
    a_field("Industry", FieldKind.PICKLIST, choices=choices(*SALESFORCE_INDUSTRIES)),
    a_field("NumberOfEmployees", FieldKind.INTEGER, digits=8),
)
CONTACTS = an_object(
    "contacts",
    a_field("email"),
    a_field("firstname"),
    a_field("lastname"),
    a_field("website"),
    a_field("hs_contact_enrichment_opt_out", FieldKind.BOOLEAN),
    a_field("jobtitle", label="Job Title"),
    a_field(
        "hs_seniority",
        FieldKind.PICKLIST,
        label="Employment Seniority",
        choices=choices("vp", "director", "entry", "executive", "manager", "owner", "partner", "senior", "employee"),
    ),
    a_field("hs_linkedin_url", label="LinkedIn URL"),
    a_field("city"),
    a_field("state"),
    a_field("country"),
    a_field("associatedcompanyid", FieldKind.REFERENCE, refers_to=("companies",)),
    crm="hubspot",
)
HUBSPOT_INDUSTRIES = tuple(sorted(set(builtin_table("hubspot_industry").values())))
COMPANIES = an_object(
    "companies",
    a_field("domain"),
    a_field("website"),
    a_field("industry", FieldKind.PICKLIST, choices=choices(*HUBSPOT_INDUSTRIES)),
    a_field("numberofemployees", FieldKind.DECIMAL),
    a_field("annualrevenue", FieldKind.DECIMAL),
    a_field("founded_year"),
    a_field("linkedin_company_page"),
    a_field("city"),
    a_field("country"),
    crm="hubspot",
)


class MemoryCrm:
    """A CRM that knows its objects and refuses to filter by fields that cannot be filtered."""

    def __init__(self, *objects: ObjectSchema, most_groups: int | None = None) -> None:
        self.objects: Mapping[str, ObjectSchema] = {each.object_type: each for each in objects}
        self.most_groups = most_groups

    def object_types(self) -> tuple[str, ...]:
        return tuple(self.objects)

    def describe(self, object_type: str) -> ObjectSchema:
        try:
            return self.objects[object_type]
        except KeyError:
            raise ConfigError(f"this user may not see {object_type}.") from None

    def check_selection(self, selection: Selection) -> list[str]:
        fields = self.objects[selection.object_type].fields
        found = [
            f"{name} cannot be filtered by."
            for name in selection.missing_any
            if name in fields and not fields[name].filterable
        ]
        if self.most_groups is not None:
            texts = (FieldKind.TEXT, FieldKind.LONG_TEXT)
            groups = sum(
                2 if fields[name].kind in texts and selection.placeholders else 1 for name in selection.missing_any
            )
            if groups > self.most_groups:
                found.append(f"this filter needs {groups} groups.")
        if selection.where == "Nonsense":
            found.append("the filter cannot be read.")
        return found
