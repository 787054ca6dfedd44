"""A small Salesforce org's objects, as GET sobjects/<name>/describe tells them."""

from __future__ import annotations

from typing import Any

from adapters.salesforce import wire
from crm_sync.domain.records import ObjectSchema
from crm_sync.errors import ConfigError


def a_field(name: str, kind: str = "string", **more: Any) -> dict[str, Any]:
    return {
        "name": name,
        "label": name.removesuffix("__c").replace("_", " "),
        "type": kind,
        "length": 0,
        "digits": 0,
        "precision": 0,
        "scale": 0,
        "updateable": True,
        "createable": True,
        "calculated": False,
        "autoNumber": False,
        "deprecatedAndHidden": False,
        "filterable": True,
        "nillable": True,
        "compoundFieldName": None,
        "restrictedPicklist": False,
        "picklistValues": [],
        "referenceTo": [],
        "relationshipName": None,
        **more,
    }


def a_reference(name: str, relationship: str, *targets: str) -> dict[str, Any]:
    return a_field(name, "reference", length=18, relationshipName=relationship, referenceTo=list(targets))


def values(*words: str, active: bool = True) -> list[dict[str, Any]]:
    return [{"value": word, "label": word.upper(), "active": active} for word in words]


ID = a_field("Id", "id", length=18, updateable=False, createable=False)

CONTACT = [
    ID,
    a_reference("AccountId", "Account", "Account"),
    a_reference("OwnerId", "Owner", "Group", "User"),
    a_field("Name", length=121, updateable=False, createable=False),
    a_field("FirstName", length=40, compoundFieldName="Name"),
    a_field("LastName", length=80, compoundFieldName="Name"),
    a_field("Title", length=128),
    a_field("Email", "email", length=80),
    a_field("Phone", "phone", length=40),
    a_field("LinkedIn__c", "url", length=255),
    a_field("Bio__c", "textarea", length=32000, filterable=False),
    a_field("Level__c", "picklist", length=255, restrictedPicklist=True, picklistValues=values("VP", "Manager")),
    a_field("Topics__c", "multipicklist", length=4099, picklistValues=values("Sales", "Ops", "HR")),
    a_field("DoNotCall", "boolean"),
    a_field("Score__c", "double", precision=6, scale=2),
    a_field("Reports__c", "int", digits=8),
    a_field("Birthdate", "date"),
    a_field("LastModifiedDate", "datetime", updateable=False, createable=False),
    a_field("MailingAddress", "address", updateable=False, createable=False),
    a_field("MailingCity", length=40, compoundFieldName="MailingAddress"),
]
ACCOUNT = [
    ID,
    a_reference("ParentId", "Parent", "Account"),
    a_field("Name", length=255),
    a_field("Website", "url", length=255),
    a_field("NumberOfEmployees", "int", digits=8),
    a_field("Description", "textarea", length=32000, filterable=False),
]
LEAD = [ID, a_field("Title", length=128), a_field("IsConverted", "boolean", updateable=False)]

_OBJECTS = {"Contact": CONTACT, "Account": ACCOUNT, "Lead": LEAD}


def schema(object_type: str = "Contact") -> ObjectSchema:
    """
    Raises:
        ConfigError: the org does not show that object.
    """
    if object_type not in _OBJECTS:
        raise ConfigError(f"salesforce does not show {object_type} to this user")
    described = {"name": object_type, "label": object_type, "fields": _OBJECTS[object_type]}
    return wire.object_schema("salesforce", described)


#: Record ids of this org.
def contact(number: int) -> str:
    full = wire.long_id(f"003xx{number:010d}")
    assert full is not None
    return full
