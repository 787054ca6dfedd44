"""Salesforce's JSON and our values, translated. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from crm_sync.domain.records import Choice, FieldKind, FieldSchema, ObjectSchema, Record, RecordRef, Value

#: describe's type -> ours; what is not here is OTHER.
_KINDS = {
    "string": FieldKind.TEXT,
    "textarea": FieldKind.LONG_TEXT,
    "int": FieldKind.INTEGER,
    "long": FieldKind.INTEGER,
    "double": FieldKind.DECIMAL,
    "currency": FieldKind.DECIMAL,
    "percent": FieldKind.DECIMAL,
    "boolean": FieldKind.BOOLEAN,
    "date": FieldKind.DATE,
    "datetime": FieldKind.DATETIME,
    "picklist": FieldKind.PICKLIST,
    "combobox": FieldKind.TEXT,  # a text field with suggestions: any text may be written
    "multipicklist": FieldKind.MULTI_PICKLIST,
    "email": FieldKind.EMAIL,
    "phone": FieldKind.PHONE,
    "url": FieldKind.URL,
    "reference": FieldKind.REFERENCE,
    "id": FieldKind.ID,
}
_SUFFIX = "ABCDEFGHIJKLMNOPQRSTUVWXYZ012345"
_ID = re.compile(r"[A-Za-z0-9]{15}(?:[A-Za-z0-9]{3})?\Z")

# Refusals that a single field's value causes and whose `fields` name it (contracts/salesforce.md 2.4).
FIELD_FAULTS = frozenset(
    {
        "INVALID_OR_NULL_FOR_RESTRICTED_PICKLIST",
        "STRING_TOO_LONG",
        "NUMBER_OUTSIDE_VALID_RANGE",
        "INVALID_EMAIL_ADDRESS",
        "INVALID_FIELD_FOR_INSERT_UPDATE",
        "INVALID_TYPE_ON_FIELD_IN_RECORD",
        "FIELD_INTEGRITY_EXCEPTION",
    }
)
_LOCKED = "UNABLE_TO_LOCK_ROW"


def long_id(record_id: str) -> str:
    """The 18 characters of an id; a 15-character one is case-sensitive and names the same row.

    Raises:
        ValueError: it is no Salesforce id.
    """
    if not _ID.match(record_id):
        raise ValueError("not a Salesforce record id: 15 or 18 letters and digits")
    if len(record_id) == 18:
        return record_id
    suffix = ""
    for start in (0, 5, 10):
        bits = sum(1 << place for place, c in enumerate(record_id[start : start + 5]) if "A" <= c <= "Z")
        suffix += _SUFFIX[bits]
    return record_id + suffix


# --- describe -------------------------------------------------------------------------------------------------


def object_schema(crm: str, described: Mapping[str, Any]) -> ObjectSchema:
    fields = {field["name"]: _field(field) for field in described["fields"]}
    return ObjectSchema(
        crm=crm, object_type=described["name"], label=described.get("label") or described["name"], fields=fields
    )


def _field(described: Mapping[str, Any]) -> FieldSchema:
    native = described["type"]
    kind = _KINDS.get(native, FieldKind.OTHER)
    why_not = _why_not(described, kind)
    length = described.get("length") or None
    digits, scale = None, None
    if kind is FieldKind.INTEGER:
        digits = described.get("digits") or None
    elif kind is FieldKind.DECIMAL and described.get("precision"):
        scale = described.get("scale") or 0
        digits = described["precision"] - scale
    values = described.get("picklistValues") or ()
    refers_to = tuple(described.get("referenceTo") or ())
    return FieldSchema(
        name=described["name"],
        label=described.get("label") or described["name"],
        kind=kind,
        native_type=native,
        writable=not why_not,
        why_not=why_not,
        filterable=bool(described.get("filterable", True)),
        length=length if kind not in (FieldKind.INTEGER, FieldKind.DECIMAL, FieldKind.BOOLEAN) else None,
        digits=digits,
        scale=scale,
        choices=tuple(
            Choice(value=v["value"], label=v.get("label") or v["value"], active=bool(v.get("active", True)))
            for v in values
            if v.get("value")
        )
        if kind in (FieldKind.PICKLIST, FieldKind.MULTI_PICKLIST)
        else (),
        restricted=bool(described.get("restrictedPicklist")),
        refers_to=refers_to,
        relationship=(described.get("relationshipName") or "") if kind is FieldKind.REFERENCE else "",
    )


def _why_not(described: Mapping[str, Any], kind: FieldKind) -> str:
    if described.get("calculated"):
        return "it is calculated by Salesforce (a formula or roll-up)"
    if described["type"] in ("address", "location"):
        return "it is a compound field; write its parts"
    if described.get("deprecatedAndHidden"):
        return "Salesforce has retired it"
    if kind is FieldKind.OTHER:
        return f"fields of type {described['type']} cannot be filled"
    if not described.get("updateable"):
        return "it is read-only, for everybody or for the user that crm-sync logs in as"
    return ""


# --- records --------------------------------------------------------------------------------------------------


def record_reader(crm: str, schema: ObjectSchema, fields: Sequence[str]) -> Callable[[Mapping[str, Any]], Record]:
    """A function from a JSON row to a Record, made once per query. `fields` may name parents: "Account.Website"."""
    readers = [(name, _reader(name, schema)) for name in fields]
    object_type = schema.object_type

    def read(row: Mapping[str, Any]) -> Record:
        return Record(
            ref=RecordRef(crm=crm, object_type=object_type, id=row["Id"]),
            values={name: reader(row) for name, reader in readers},
        )

    return read


def _reader(name: str, schema: ObjectSchema) -> Callable[[Mapping[str, Any]], Value]:
    if "." in name:
        path = name.split(".")

        def parent(row: Mapping[str, Any]) -> Value:
            value: Any = row
            for step in path:
                if not isinstance(value, Mapping):
                    return None
                value = value.get(step)
            return value if not isinstance(value, Mapping) else None

        return parent
    if schema.fields[name].kind is FieldKind.MULTI_PICKLIST:
        return lambda row: tuple(text.split(";")) if (text := row.get(name)) else None
    return lambda row: row.get(name)


def to_json(value: Value) -> Any:
    """A value as the REST API takes it.

    Raises:
        ValueError: a blank: this product never erases a field through this door.
    """
    if value is None or value == "" or value == ():
        raise ValueError("a blank is never written")
    if isinstance(value, tuple):
        return ";".join(value)
    if isinstance(value, Decimal):
        return int(value) if value == value.to_integral_value() else float(value)
    return value


# --- results --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class SaveResult:
    """One row's result: `fields` are the API names the first error blames."""

    success: bool
    code: str = ""
    message: str = ""
    fields: tuple[str, ...] = ()

    @property
    def is_locked(self) -> bool:
        """Also where a trigger met the lock and words it its own way (contracts/salesforce.md 2.4)."""
        return self.code == _LOCKED or (self.code == "CANNOT_INSERT_UPDATE_ACTIVATE_ENTITY" and _LOCKED in self.message)

    @property
    def is_field_fault(self) -> bool:
        return self.code in FIELD_FAULTS and bool(self.fields)


def save_results(answer: Any, asked: int) -> list[SaveResult] | None:
    """The results of a collections call, by position; None when the answer does not account for every row."""
    if not isinstance(answer, list) or len(answer) != asked:
        return None
    results = []
    for row in answer:
        if not isinstance(row, Mapping) or not isinstance(row.get("success"), bool):
            return None
        if row["success"]:
            results.append(SaveResult(success=True))
            continue
        errors = [error for error in row.get("errors") or () if isinstance(error, Mapping)]
        fields: dict[str, None] = {}
        for error in errors:
            fields.update(dict.fromkeys(map(str, error.get("fields") or ())))
        first: Mapping[str, Any] = errors[0] if errors else {}
        # All errors must be faults of fields before dropping the fields can help.
        codes = {str(error.get("statusCode")) for error in errors}
        code = str(first.get("statusCode") or "UNKNOWN")
        if codes - FIELD_FAULTS and codes & FIELD_FAULTS:
            code = next(iter(sorted(codes - FIELD_FAULTS)))
        message = "; ".join(str(error.get("message") or "") for error in errors)
        results.append(SaveResult(success=False, code=code, message=message, fields=tuple(fields)))
    return results


_NO_COLUMN = re.compile(r"No such column '([^']+)'")


def unknown_column(message: str) -> str:
    """The column that a request-level INVALID_FIELD names, "" when it names none."""
    found = _NO_COLUMN.search(message)
    return found[1] if found else ""
