"""The org's objects and fields: Contact, Lead and Account as a real org has them, plus this org's own fields.

Types, lengths and flags of the standard fields follow recorded describes of a real org; tests/sandbox compares them
attribute by attribute (contracts/salesforce.md 2.6 and 3.3, 2026-11).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

#: SOAP type by field type; whatever is missing is a string.
_SOAP_TYPES = {
    "id": "tns:ID",
    "reference": "tns:ID",
    "boolean": "xsd:boolean",
    "int": "xsd:int",
    "double": "xsd:double",
    "currency": "xsd:double",
    "date": "xsd:date",
    "datetime": "xsd:dateTime",
    "address": "urn:address",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """One picklist value."""

    value: str
    label: str
    active: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """One field. The attributes bear the describe's own names in our spelling."""

    name: str
    label: str
    type: str
    length: int = 0
    digits: int = 0
    precision: int = 0
    scale: int = 0
    nillable: bool = True
    createable: bool = True
    updateable: bool = True
    filterable: bool = True
    sortable: bool = True
    groupable: bool = True
    permissionable: bool = True
    defaulted: bool = False
    default: str | bool | None = None
    compound: str | None = None
    extra: str | None = None
    choices: tuple[Choice, ...] = ()
    restricted: bool = False
    refers_to: tuple[str, ...] = ()
    relationship: str | None = None
    #: What the parent calls its list of children through this field, None where it has no such name.
    children: str | None = None
    prefilterable: bool = False
    name_field: bool = False

    @property
    def custom(self) -> bool:
        return self.name.endswith("__c")

    @property
    def soap_type(self) -> str:
        return _SOAP_TYPES.get(self.type, "xsd:string")

    @property
    def is_text(self) -> bool:
        return self.type in ("string", "textarea", "picklist", "email", "phone", "url")


@dataclass(frozen=True, slots=True, kw_only=True)
class SObject:
    """One object with its fields in describe order."""

    name: str
    label: str
    plural: str
    prefix: str
    fields: tuple[Field, ...]
    by_name: Mapping[str, Field]
    #: By lower-case name: the service ignores case in field names.
    by_lower: Mapping[str, Field]
    #: By lower-case relationship name, only where the parent is one of our objects.
    parents: Mapping[str, Field]

    def field(self, name: str) -> Field | None:
        return self.by_name.get(name) or self.by_lower.get(name.lower())


def _text(name: str, label: str, length: int, **more: object) -> Field:
    return _field(name, label, "string", length=length, **more)


def _field(name: str, label: str, type_: str, **more: object) -> Field:
    return replace(Field(name=name, label=label, type=type_), **more)  # type: ignore[arg-type]


def _system(name: str, label: str, type_: str, **more: object) -> Field:
    """A field the service fills by itself."""
    read_only: dict[str, object] = {"createable": False, "updateable": False, "permissionable": False}
    return _field(name, label, type_, **(read_only | more))


def _choices(*values: str) -> tuple[Choice, ...]:
    return tuple(Choice(value=value, label=value) for value in values)


def _address(prefix: str, label: str) -> list[Field]:
    compound = f"{prefix}Address"
    of = f"{label} " if label else ""
    place: dict[str, object] = {"compound": compound, "precision": 18, "scale": 15, "groupable": False}
    return [
        _field(f"{prefix}Street", f"{of}Street", "textarea", length=255, compound=compound, extra="plaintextarea"),
        _text(f"{prefix}City", f"{of}City", 40, compound=compound),
        _text(f"{prefix}State", f"{of}State/Province", 80, compound=compound),
        _text(f"{prefix}PostalCode", f"{of}Zip/Postal Code", 20, compound=compound),
        _text(f"{prefix}Country", f"{of}Country", 80, compound=compound),
        _field(f"{prefix}Latitude", f"{of}Latitude", "double", **place),
        _field(f"{prefix}Longitude", f"{of}Longitude", "double", **place),
        _field(
            f"{prefix}GeocodeAccuracy",
            f"{of}Geocode Accuracy",
            "picklist",
            length=40,
            compound=compound,
            restricted=True,
            choices=_GEOCODE,
        ),
        _field(
            compound,
            f"{of}Address",
            "address",
            createable=False,
            updateable=False,
            sortable=False,
            groupable=False,
        ),
    ]


def _head(name: str, label: str) -> list[Field]:
    return [
        _system("Id", f"{label} ID", "id", length=18, nillable=False, defaulted=True),
        _system("IsDeleted", "Deleted", "boolean", nillable=False, defaulted=True, default=False),
        _system(
            "MasterRecordId",
            "Master Record ID",
            "reference",
            length=18,
            refers_to=(name,),
            relationship="MasterRecord",
        ),
    ]


def _stamp(name: str, label: str) -> Field:
    return _system(name, label, "datetime", groupable=False, nillable=False, defaulted=True)


def _user(name: str, label: str) -> Field:
    return _system(
        f"{name}Id",
        f"{label} ID",
        "reference",
        length=18,
        refers_to=("User",),
        relationship=name,
        nillable=False,
        defaulted=True,
    )


def _owner(*owners: str) -> Field:
    return _field(
        "OwnerId",
        "Owner ID",
        "reference",
        length=18,
        refers_to=owners,
        relationship="Owner",
        nillable=False,
        permissionable=False,
        defaulted=True,
    )


def _tail() -> list[Field]:
    return [
        _stamp("CreatedDate", "Created Date"),
        _user("CreatedBy", "Created By"),
        _stamp("LastModifiedDate", "Last Modified Date"),
        _user("LastModifiedBy", "Last Modified By"),
        _stamp("SystemModstamp", "System Modstamp"),
        _system("LastActivityDate", "Last Activity", "date"),
        _system("LastViewedDate", "Last Viewed Date", "datetime", groupable=False),
        _system("LastReferencedDate", "Last Referenced Date", "datetime", groupable=False),
    ]


def _reference(name: str, label: str, target: str, relationship: str, **more: object) -> Field:
    return _field(
        name,
        label,
        "reference",
        length=18,
        refers_to=(target,),
        relationship=relationship,
        prefilterable=True,
        **more,
    )


def _person_name(salutations: tuple[str, ...]) -> list[Field]:
    part: dict[str, object] = {"compound": "Name", "extra": "personname", "permissionable": False}
    return [
        _text("LastName", "Last Name", 80, nillable=False, **part),
        _text("FirstName", "First Name", 40, **part),
        _field("Salutation", "Salutation", "picklist", length=40, choices=_choices(*salutations), **part),
        _system("Name", "Full Name", "string", length=121, nillable=False, extra="personname", name_field=True),
    ]


def _apollo_fields() -> list[Field]:
    """What an admin of this org added by hand for enrichment."""
    return [
        _field(
            "Seniority__c",
            "Seniority",
            "picklist",
            length=255,
            restricted=True,
            choices=(
                *_choices("Executive", "VP", "Director", "Manager", "Individual Contributor"),
                Choice(value="Chief", label="Chief", active=False),
            ),
        ),
        _field("LinkedIn__c", "LinkedIn", "url", length=255),
        _text("Department__c", "Department (Apollo)", 80),
        _text("Region_Note__c", "Region Note", 255),
        *_stamps(),
        _field(
            "Status__c", "Enrichment Status", "picklist", length=255, choices=_choices("Target", "Customer", "Archived")
        ),
    ]


def _stamps() -> list[Field]:
    return [
        _field("Apollo_Enriched_At__c", "Apollo Enriched At", "datetime", groupable=False),
        _text("Apollo_Status__c", "Apollo Status", 40),
    ]


def _checkbox(name: str, label: str, **more: object) -> Field:
    return _field(name, label, "boolean", nillable=False, defaulted=True, default=False, **more)


def _photo() -> Field:
    return _system("PhotoUrl", "Photo URL", "url", length=255, extra="imageurl")


def _description(label: str) -> Field:
    return _field(
        "Description",
        label,
        "textarea",
        length=32000,
        extra="plaintextarea",
        filterable=False,
        sortable=False,
        groupable=False,
    )


def _revenue() -> Field:
    return _field("AnnualRevenue", "Annual Revenue", "currency", precision=18, groupable=False)


def _employees() -> Field:
    return _field("NumberOfEmployees", "Employees", "int", digits=8)


def _phones(*names_and_labels: tuple[str, str]) -> list[Field]:
    return [_field(name, label, "phone", length=40) for name, label in names_and_labels]


_GEOCODE = _choices(
    "Address",
    "NearAddress",
    "Block",
    "Street",
    "ExtendedZip",
    "Zip",
    "Neighborhood",
    "City",
    "County",
    "State",
    "Unknown",
)
_SOURCES = _choices("Web", "Phone Inquiry", "Partner Referral", "Purchased List", "Other")
_RATINGS = _choices("Hot", "Warm", "Cold")
#: The default list of a new org (contracts/salesforce.md 2.6). Not restricted: the API accepts any other word too.
INDUSTRIES = (
    "Agriculture",
    "Apparel",
    "Banking",
    "Biotechnology",
    "Chemicals",
    "Communications",
    "Construction",
    "Consulting",
    "Education",
    "Electronics",
    "Energy",
    "Engineering",
    "Entertainment",
    "Environmental",
    "Finance",
    "Food & Beverage",
    "Government",
    "Healthcare",
    "Hospitality",
    "Insurance",
    "Machinery",
    "Manufacturing",
    "Media",
    "Not For Profit",
    "Recreation",
    "Retail",
    "Shipping",
    "Technology",
    "Telecommunications",
    "Transportation",
    "Utilities",
    "Other",
)


def _contact() -> list[Field]:
    return [
        *_head("Contact", "Contact"),
        _reference("AccountId", "Account ID", "Account", "Account", children="Contacts"),
        *_person_name(("Mr.", "Ms.", "Mrs.", "Dr.", "Prof.")),
        *_address("Other", "Other"),
        *_address("Mailing", "Mailing"),
        *_phones(
            ("Phone", "Business Phone"),
            ("Fax", "Business Fax"),
            ("MobilePhone", "Mobile Phone"),
            ("HomePhone", "Home Phone"),
            ("OtherPhone", "Other Phone"),
            ("AssistantPhone", "Asst. Phone"),
        ),
        _reference("ReportsToId", "Reports To ID", "Contact", "ReportsTo"),
        _field("Email", "Email", "email", length=80),
        _text("Title", "Title", 128),
        _text("Department", "Department", 80),
        _text("AssistantName", "Assistant's Name", 40),
        _field("LeadSource", "Lead Source", "picklist", length=255, choices=_SOURCES),
        _field("Birthdate", "Birthdate", "date"),
        _description("Contact Description"),
        _owner("User"),
        _checkbox("HasOptedOutOfEmail", "Email Opt Out"),
        _checkbox("DoNotCall", "Do Not Call"),
        *_tail(),
        _text("EmailBouncedReason", "Email Bounced Reason", 255, permissionable=False),
        _field("EmailBouncedDate", "Email Bounced Date", "datetime", groupable=False, permissionable=False),
        _system("IsEmailBounced", "Is Email Bounced", "boolean", nillable=False, defaulted=True, default=False),
        _photo(),
        *_apollo_fields(),
    ]


def _lead() -> list[Field]:
    converted: dict[str, object] = {"prefilterable": True}
    return [
        *_head("Lead", "Lead"),
        *_person_name(("Mr.", "Ms.", "Mrs.", "Dr.", "Prof.", "Mx.")),
        _text("Title", "Title", 128),
        _text("Company", "Company", 255, nillable=False, permissionable=False),
        *_address("", ""),
        *_phones(("Phone", "Phone"), ("MobilePhone", "Mobile Phone"), ("Fax", "Fax")),
        _field("Email", "Email", "email", length=80),
        _field("Website", "Website", "url", length=255),
        _photo(),
        _description("Description"),
        _field("LeadSource", "Lead Source", "picklist", length=255, choices=_SOURCES),
        _field(
            "Status",
            "Status",
            "picklist",
            length=255,
            nillable=False,
            permissionable=False,
            defaulted=True,
            default="Open - Not Contacted",
            choices=_choices(
                "Open - Not Contacted", "Working - Contacted", "Closed - Converted", "Closed - Not Converted"
            ),
        ),
        _field("Industry", "Industry", "picklist", length=255, choices=_choices(*INDUSTRIES)),
        _field("Rating", "Rating", "picklist", length=255, choices=_RATINGS),
        _revenue(),
        _employees(),
        _owner("Group", "User"),
        _checkbox("HasOptedOutOfEmail", "Email Opt Out"),
        _checkbox("DoNotCall", "Do Not Call"),
        _checkbox("IsConverted", "Converted", updateable=False, permissionable=False),
        _system("ConvertedDate", "Converted Date", "date"),
        *(
            _system(
                f"Converted{parent}Id",
                f"Converted {parent} ID",
                "reference",
                length=18,
                refers_to=(parent,),
                relationship=f"Converted{parent}",
                **converted,
            )
            for parent in ("Account", "Contact", "Opportunity")
        ),
        _checkbox("IsUnreadByOwner", "Unread By Owner", permissionable=False),
        *_tail(),
        _text("EmailBouncedReason", "Email Bounced Reason", 255, createable=False, permissionable=False),
        _field(
            "EmailBouncedDate",
            "Email Bounced Date",
            "datetime",
            groupable=False,
            createable=False,
            permissionable=False,
        ),
        *_apollo_fields(),
    ]


def _account() -> list[Field]:
    return [
        *_head("Account", "Account"),
        _text(
            "Name",
            "Account Name",
            255,
            nillable=False,
            permissionable=False,
            compound="Name",
            extra="switchablepersonname",
            name_field=True,
        ),
        _field(
            "Type",
            "Account Type",
            "picklist",
            length=40,
            choices=_choices(
                "Prospect",
                "Customer - Direct",
                "Customer - Channel",
                "Channel Partner / Reseller",
                "Installation Partner",
                "Technology Partner",
                "Other",
            ),
        ),
        _reference("ParentId", "Parent Account ID", "Account", "Parent", children="ChildAccounts"),
        *_address("Billing", "Billing"),
        *_address("Shipping", "Shipping"),
        *_phones(("Phone", "Account Phone"), ("Fax", "Account Fax")),
        _text("AccountNumber", "Account Number", 40),
        _field("Website", "Website", "url", length=255),
        _photo(),
        _text("Sic", "SIC Code", 20),
        # 40 characters on the Account, 255 on the Lead (contracts/salesforce.md 2.6, recorded at v48).
        _field("Industry", "Industry", "picklist", length=40, choices=_choices(*INDUSTRIES)),
        _revenue(),
        _employees(),
        _field(
            "Ownership",
            "Ownership",
            "picklist",
            length=40,
            choices=_choices("Public", "Private", "Subsidiary", "Other"),
        ),
        _text("TickerSymbol", "Ticker Symbol", 20),
        _description("Account Description"),
        _field("Rating", "Account Rating", "picklist", length=40, choices=_RATINGS),
        _text("Site", "Account Site", 80),
        _owner("User"),
        *_tail(),
        _field("AccountSource", "Account Source", "picklist", length=40, choices=_SOURCES),
        _text("YearStarted", "Year Started", 4),
        _text("SicDesc", "SIC Description", 80),
        _field("Size_Band__c", "Size Band", "picklist", length=255, restricted=True, choices=_choices("1-50", "51+")),
        _field("LinkedIn__c", "LinkedIn", "url", length=255),
        *_stamps(),
    ]


def _individual() -> list[Field]:
    """Data privacy preferences (Salesforce object reference, Individual, seen 2026-11)."""
    return [
        *_head("Individual", "Individual"),
        *_person_name(("Mr.", "Ms.", "Mrs.", "Dr.", "Prof.")),
        _owner("User"),
        _checkbox("HasOptedOutTracking", "Don't Track"),
        _checkbox("HasOptedOutProfiling", "Don't Profile"),
        _checkbox("HasOptedOutProcessing", "Don't Process"),
        _checkbox("HasOptedOutSolicit", "Don't Market"),
        _checkbox("ShouldForget", "Forget this Individual"),
        _checkbox("SendIndividualData", "Export Individual's Data"),
        _checkbox("CanStorePiiElsewhere", "OK to Store PII Data Elsewhere"),
        _checkbox("HasOptedOutGeoTracking", "Block Geolocation Tracking"),
        *_tail(),
    ]


def _with_individual(make: Callable[[], list[Field]]) -> Callable[[], list[Field]]:
    return lambda: [*make(), _reference("IndividualId", "Individual ID", "Individual", "Individual")]


_OBJECTS = (
    ("Account", "Accounts", "001", _account),
    ("Contact", "Contacts", "003", _contact),
    ("Lead", "Leads", "00Q", _lead),
)


def build(hidden: Mapping[str, Iterable[str]], *, individuals: bool = False) -> dict[str, SObject]:
    """Return the org's objects without the fields that field-level security hides: `hidden` is object -> API names.

    A hidden field is absent everywhere: in the describe, and unknown in queries and writes
    (contracts/salesforce.md 2.6: DoNotCall and HasOptedOutOfEmail were hidden in the recorded org).

    Raises:
        ValueError: `hidden` names an object or field that does not exist.
    """
    objects: dict[str, SObject] = {}
    made = _OBJECTS
    if individuals:
        persons = tuple((*head, _with_individual(make) if make is not _account else make) for *head, make in _OBJECTS)
        made = (*persons, ("Individual", "Individuals", "0PK", _individual))  # type: ignore[assignment]
    ours = {name for name, *_ in made}
    if unknown := set(hidden) - ours:
        raise ValueError(f"No object {sorted(unknown)[0]} in the sandbox org; it has {', '.join(sorted(ours))}.")
    for name, plural, prefix, make in made:
        everything = make()
        gone = set(hidden.get(name, ()))
        if missing := gone - {field.name for field in everything}:
            raise ValueError(f"{name} has no field {sorted(missing)[0]} to hide.")
        fields = tuple(field for field in everything if field.name not in gone)
        objects[name] = SObject(
            name=name,
            label=name,
            plural=plural,
            prefix=prefix,
            fields=fields,
            by_name={field.name: field for field in fields},
            by_lower={field.name.lower(): field for field in fields},
            parents={
                field.relationship.lower(): field
                for field in fields
                if field.relationship is not None and len(field.refers_to) == 1 and field.refers_to[0] in ours
            },
        )
    return objects
