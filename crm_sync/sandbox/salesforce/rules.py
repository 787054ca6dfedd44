"""What the service accepts in a written field: JSON type for the whole request, then value by value for the record."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Decimal

from crm_sync.sandbox.salesforce import clock, ids
from crm_sync.sandbox.salesforce.errors import RequestCode, RequestError, RowCode, RowError
from crm_sync.sandbox.salesforce.schema import Field, SObject

_EMAIL = re.compile(r"[A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]+@(?:[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?\.)+[A-Za-z]{2,}\Z")
_WHOLE = re.compile(r"[+-]?\d+\Z")
_INT_32 = 2**31
#: Characters of a bulk job's cell (contracts/salesforce.md 2.2).
MAX_CELL = 32_000
_BOOLEANS = {"true": True, "1": True, "false": False, "0": False}


@dataclass(frozen=True, slots=True, kw_only=True)
class ValidationRule:
    """A rule an admin of the org wrote: a record is refused while `field` would hold `forbidden` (compared without
    case, anywhere in the text). `names_field`: its message stands at the field, not at the top of the page."""

    object_type: str
    field: str
    forbidden: str
    message: str
    names_field: bool = True


def values_of(sobject: SObject, raw: Mapping[str, object], body: str) -> dict[str, object]:
    """Return what a JSON record writes, by API name, of the right Python type but not yet checked; `body` is the
    request's text, for the place in error messages. The keys "attributes" and the id are left out.

    Raises:
        RequestError: 400 for an unknown column or a JSON value of the wrong type. It rejects all records of the
            call (contracts/salesforce.md 2.3).
    """
    values: dict[str, object] = {}
    for name, value in raw.items():
        if name == "attributes" or name.lower() == "id":
            continue
        field = sobject.field(name)
        if field is None:
            raise RequestError(
                400, RequestCode.INVALID_FIELD, f"No such column '{name}' on sobject of type {sobject.name}"
            )
        values[field.name] = _typed(field, value, name, body) if field.updateable else value
    return values


def refuse(sobject: SObject, values: Mapping[str, object]) -> RowError | None:
    """Return why the service would refuse these values for one record, None when it takes them.

    One reason at a time, as a client that mends one field has to expect. Ids of parents are checked for form only.
    """
    read_only = [name for name in values if not sobject.by_name[name].updateable]
    if read_only:
        return RowError(
            RowCode.INVALID_FIELD_FOR_INSERT_UPDATE,
            f"Unable to create/update fields: {', '.join(read_only)}. Please check the security settings of this field"
            " and verify that it is read/write for your profile or permission set.",
            tuple(read_only),
        )
    missing = [name for name, value in values.items() if value is None and not sobject.by_name[name].nillable]
    if missing:
        return RowError(
            RowCode.REQUIRED_FIELD_MISSING, f"Required fields are missing: [{', '.join(missing)}]", tuple(missing)
        )
    for name, value in values.items():
        if value is not None and (error := _refuse_value(sobject.by_name[name], value)):
            return error
    return None


def broken_rule(rules: tuple[ValidationRule, ...], sobject: SObject, values: Mapping[str, object]) -> RowError | None:
    """Return the first of the admin's rules that the record would break with `values`."""
    for rule in rules:
        value = values.get(rule.field)
        if rule.object_type == sobject.name and value is not None and rule.forbidden.lower() in str(value).lower():
            blamed = (rule.field,) if rule.names_field else ()
            return RowError(RowCode.FIELD_CUSTOM_VALIDATION_EXCEPTION, rule.message, blamed)
    return None


def cells(row: Iterable[tuple[Field | None, str]]) -> dict[str, object] | RowError:
    """What a row of a bulk job's CSV writes, or why it is refused; the column of the id has no field here. An empty
    cell leaves its field alone, #N/A makes it blank (contracts/salesforce.md 2.2)."""
    values: dict[str, object] = {}
    for field, cell in row:
        if field is None or cell == "":
            continue
        if len(cell) > MAX_CELL:
            return RowError(RowCode.STRING_TOO_LONG, f"{field.label}: data value too large", (field.name,))
        try:
            values[field.name] = _read_cell(field, cell) if field.updateable else cell
        except ValueError:
            return RowError(
                RowCode.INVALID_TYPE_ON_FIELD_IN_RECORD,
                f"{field.label}: value not of required type: {cell}",
                (field.name,),
            )
    return values


def _read_cell(field: Field, cell: str) -> object:
    """
    Raises:
        ValueError: it cannot be read as this field's type.
    """
    if cell == "#N/A":
        if field.type == "boolean":
            raise ValueError
        return None
    value: object = cell
    if field.type == "boolean":
        value = _BOOLEANS.get(cell.lower(), cell)
    elif field.type in ("double", "currency"):
        value = float(cell)
    try:
        return _typed(field, value, field.name, "")
    except RequestError as error:
        raise ValueError from error


def _typed(field: Field, value: object, name: str, body: str) -> object:
    if value is None:
        if field.type == "boolean":
            raise _mistyped("boolean", value, name, body)
        return None
    if field.is_text:
        if not isinstance(value, str):
            raise _mistyped("string", value, name, body)
        # The service trims behind, and keeps no empty text.
        return value.rstrip() or None
    if field.type in ("id", "reference"):
        if not isinstance(value, str):
            raise _mistyped("reference", value, name, body)
        return ids.normalise(value) or value or None
    if field.type == "boolean":
        if not isinstance(value, bool):
            raise _mistyped("boolean", value, name, body)
        return value
    if field.type == "int":
        # Whole numbers as text are taken, as recorded (cumulusci, TestUpdatesIntegrationTests); "51-200" is not.
        if isinstance(value, str) and _WHOLE.match(value):
            value = int(value)
        if not isinstance(value, int) or isinstance(value, bool) or not -_INT_32 <= value < _INT_32:
            raise _mistyped("int", value, name, body)
        return value
    if field.type in ("double", "currency"):
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise _mistyped(field.type, value, name, body)
        return _rounded(field, value)
    text = clock.read_date(str(value)) if field.type == "date" else clock.read_datetime(str(value))
    if not isinstance(value, str) or text is None:
        raise _mistyped(field.type, value, name, body)
    return text


def _rounded(field: Field, value: float) -> float:
    """Decimals beyond the field's scale are rounded without a word, half away from zero."""
    if abs(value) >= 10.0 ** (field.precision - field.scale + 1):
        return value
    return float(Decimal(repr(value)).quantize(Decimal(1).scaleb(-field.scale), ROUND_HALF_UP))


def _mistyped(kind: str, value: object, name: str, body: str) -> RequestError:
    token = {
        bool: "VALUE_TRUE" if value is True else "VALUE_FALSE",
        int: "VALUE_NUMBER_INT",
        float: "VALUE_NUMBER_FLOAT",
        str: "VALUE_STRING",
        dict: "START_OBJECT",
        list: "START_ARRAY",
        type(None): "VALUE_NULL",
    }[type(value)]
    shown = "" if isinstance(value, dict | list) or value is None else f" value {str(value)[:255]}"
    at = max(0, body.find(f'"{name}"'))
    line, column = body.count("\n", 0, at) + 1, at - body.rfind("\n", 0, at)
    return RequestError(
        400,
        RequestCode.JSON_PARSER_ERROR,
        f"Cannot deserialize instance of {kind} from {token}{shown} or request may be missing a required field at"
        f" [line:{line}, column:{column}]",
    )


def _refuse_value(field: Field, value: object) -> RowError | None:
    if field.is_text:
        return _refuse_text(field, str(value))
    if field.type == "reference" and ids.normalise(str(value)) is None:
        return RowError(RowCode.MALFORMED_ID, f"{field.label}: id value of incorrect type: {value}", (field.name,))
    if field.type in ("int", "double", "currency") and abs(float(str(value))) >= _first_too_big(field):
        return RowError(
            RowCode.NUMBER_OUTSIDE_VALID_RANGE,
            f"{field.label}: value outside of valid range on numeric field: {value}",
            (field.name,),
        )
    return None


def _first_too_big(field: Field) -> float:
    if field.name.endswith("Latitude"):
        return math.nextafter(90.0, math.inf)
    if field.name.endswith("Longitude"):
        return math.nextafter(180.0, math.inf)
    return 10.0 ** (field.digits or field.precision - field.scale)


def _refuse_text(field: Field, value: str) -> RowError | None:
    # Restricted first: a foreign word is a bad value however long it is.
    if field.restricted and value not in {choice.value for choice in field.choices if choice.active}:
        return RowError(
            RowCode.INVALID_OR_NULL_FOR_RESTRICTED_PICKLIST,
            f"{field.label}: bad value for restricted picklist field: {value}",
            (field.name,),
        )
    if len(value) > field.length:
        return RowError(
            RowCode.STRING_TOO_LONG,
            f"{field.label}: data value too large: {value} (max length={field.length})",
            (field.name,),
        )
    if field.type == "email" and not _EMAIL.match(value):
        return RowError(RowCode.INVALID_EMAIL_ADDRESS, f"{field.label}: invalid email address: {value}", (field.name,))
    return None
