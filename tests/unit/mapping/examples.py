"""Small schemas, mappings and answers, spelt out where a test cares and defaulted where it does not."""

from __future__ import annotations

from typing import Any

from crm_sync.config.model import FieldMapping
from crm_sync.domain.enrichment import Enrichment, Verdict
from crm_sync.domain.records import Choice, FieldKind, FieldSchema, ObjectSchema


def a_field(kind: FieldKind = FieldKind.TEXT, name: str = "Field__c", **more: Any) -> FieldSchema:
    return FieldSchema(**{"name": name, "label": name, "kind": kind, "native_type": "any", "writable": True, **more})


def an_object(*fields: FieldSchema) -> ObjectSchema:
    return ObjectSchema(
        crm="salesforce", object_type="Contact", label="Contact", fields={field.name: field for field in fields}
    )


def choices(*values: str, inactive: tuple[str, ...] = ()) -> tuple[Choice, ...]:
    active = [Choice(value=value, label=value) for value in values]
    return (*active, *(Choice(value=value, label=value, active=False) for value in inactive))


def a_mapping(source: str = "person.title", **more: Any) -> FieldMapping:
    return FieldMapping(**{"field": "Field__c", "source": "" if "template" in more else source, **more})


def an_answer(person: dict[str, Any] | None = None, organization: dict[str, Any] | None = None) -> Enrichment:
    return Enrichment(verdict=Verdict.MATCHED, person=person or {}, organization=organization or {})
