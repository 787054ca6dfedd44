"""A small HubSpot account's properties, as GET /crm/v3/properties lists them."""

from __future__ import annotations

from typing import Any

from adapters.hubspot import wire
from crm_sync.domain.records import ObjectSchema


def a_property(name: str, kind: str = "string", field_type: str = "text", **more: Any) -> dict[str, Any]:
    return {
        "name": name,
        "label": name.replace("_", " ").title(),
        "type": kind,
        "fieldType": field_type,
        "groupName": "contactinformation",
        "options": [],
        "modificationMetadata": {"readOnlyValue": False},
        **more,
    }


def options(*values: str) -> list[dict[str, Any]]:
    return [{"value": value, "label": value.replace("_", " ").title(), "hidden": False} for value in values]


CONTACTS = [
    a_property("hs_object_id", "number", "number", modificationMetadata={"readOnlyValue": True}),
    a_property("email"),
    a_property("firstname"),
    a_property("lastname"),
    a_property("jobtitle"),
    a_property("city"),
    a_property("state"),
    a_property("country"),
    a_property("notes", field_type="textarea"),
    a_property("phone", field_type="phonenumber"),
    a_property("hs_linkedin_url"),
    a_property("website"),
    a_property("hs_seniority", "enumeration", "select", options=options("vp", "director", "unknown")),
    a_property("topics", "enumeration", "checkbox", options=options("a", "b", "c")),
    a_property("score", "number", "number"),
    a_property("optout", "bool", "booleancheckbox"),
    a_property("born", "date", "date"),
    a_property("seen", "datetime", "date"),
    a_property("layout", "json", "text"),
    a_property("lifecyclestage", "enumeration", "radio", options=options("lead", "customer")),
    a_property("hs_calculated_phone_number", calculated=True),
    a_property("hs_additional_emails", "enumeration", "checkbox", modificationMetadata={"readOnlyValue": True}),
    a_property("old_field", archived=True),
    a_property("hubspot_owner_id", "enumeration", "select", externalOptions=True, referencedObjectType="OWNER"),
    a_property("associatedcompanyid", "number", "number", externalOptions=True, referencedObjectType="COMPANY"),
    a_property("hs_merged_object_ids", "enumeration", "checkbox", modificationMetadata={"readOnlyValue": True}),
]


def contacts_schema() -> ObjectSchema:
    return wire.object_schema("hubspot", "contacts", CONTACTS)
