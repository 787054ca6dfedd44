"""Salesforce's JSON and our values, translated. Pure."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal, InvalidOperation
from typing import Any

import orjson

from adapters.http import UnprovenRefusalError, retry_after_s
from crm_sync.domain.records import Choice, FieldKind, FieldSchema, ObjectSchema, Record, RecordRef, Value
from crm_sync.errors import (
    ContractError,
    CredentialsError,
    ProviderError,
    QuotaError,
    RateLimitError,
    RefusedError,
    TransientError,
)

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
_CHOSEN = (FieldKind.PICKLIST, FieldKind.MULTI_PICKLIST)
_UNMEASURED = (FieldKind.INTEGER, FieldKind.DECIMAL, FieldKind.BOOLEAN, FieldKind.DATE, FieldKind.DATETIME)
#: Their value is an object of its parts.
COMPOUND = frozenset({"address", "location"})

# --- ids ----------------------------------------------------------------------------------------------------------

_SUFFIX = "ABCDEFGHIJKLMNOPQRSTUVWXYZ012345"
_ID = re.compile(r"[A-Za-z0-9]{15}(?:[A-Za-z0-5]{3})?\Z", re.ASCII)


def long_id(record_id: str) -> str | None:
    """The 18 characters of an id, None when it is none. One of 15 characters, which is case-sensitive, names the same
    row as the 18 (contracts/salesforce.md 2.6)."""
    if not _ID.match(record_id):
        return None
    if len(record_id) == 18:
        return record_id
    suffix = ""
    for start in (0, 5, 10):
        bits = sum(1 << place for place, c in enumerate(record_id[start : start + 5]) if "A" <= c <= "Z")
        suffix += _SUFFIX[bits]
    return record_id + suffix


# --- describe -----------------------------------------------------------------------------------------------------


def object_schema(crm: str, described: Any) -> ObjectSchema:
    """
    Raises:
        ContractError: it is no describe.
    """
    try:
        raw = described["fields"]
        parts: dict[str, list[str]] = {}
        for each in raw:
            whole = each.get("compoundFieldName")
            if whole and whole != each["name"]:
                parts.setdefault(whole, []).append(each["name"])
        fields = {each["name"]: _field(each, parts.get(each["name"], ())) for each in raw}
        name = str(described["name"])
        return ObjectSchema(crm=crm, object_type=name, label=str(described.get("label") or name), fields=fields)
    except (KeyError, TypeError, AttributeError) as error:
        raise ContractError(
            f"{crm} described an object in a form that is not Salesforce's ({type(error).__name__}); check its address",
            provider=crm,
            operation="describe",
        ) from None


def _field(described: Mapping[str, Any], parts: Sequence[str]) -> FieldSchema:
    native = str(described["type"])
    kind = _KINDS.get(native, FieldKind.OTHER)
    why_not = _why_not(described, kind, parts)
    digits, scale = None, None
    if kind is FieldKind.INTEGER:
        digits = described.get("digits") or None
    elif kind is FieldKind.DECIMAL and described.get("precision"):
        scale = described.get("scale") or 0
        digits = described["precision"] - scale
    return FieldSchema(
        name=str(described["name"]),
        label=str(described.get("label") or described["name"]),
        kind=kind,
        native_type=native,
        writable=not why_not,
        why_not=why_not,
        filterable=described.get("filterable") is not False and native not in COMPOUND,
        readable=native not in COMPOUND,
        length=None if kind in _UNMEASURED else described.get("length") or None,
        digits=digits,
        scale=scale,
        choices=_choices(described) if kind in _CHOSEN else (),
        restricted=described.get("restrictedPicklist") is True,
        refers_to=tuple(described.get("referenceTo") or ()),
        relationship=(described.get("relationshipName") or "") if kind is FieldKind.REFERENCE else "",
    )


def _choices(described: Mapping[str, Any]) -> tuple[Choice, ...]:
    return tuple(
        Choice(value=each["value"], label=each.get("label") or each["value"], active=each.get("active") is not False)
        for each in described.get("picklistValues") or ()
        if each.get("value")
    )


def _why_not(described: Mapping[str, Any], kind: FieldKind, parts: Sequence[str]) -> str:
    if described.get("calculated"):
        return "Salesforce calculates it (a formula or a roll-up)"
    if described.get("autoNumber"):
        return "Salesforce numbers it by itself"
    if described["type"] in COMPOUND or (parts and not described.get("updateable")):
        return f"it is a compound field; write its parts: {', '.join(parts)}" if parts else "it is a compound field"
    if described.get("deprecatedAndHidden"):
        return "Salesforce has retired it"
    if kind is FieldKind.ID:
        return "Salesforce gives it and never changes it"
    if described.get("updateable"):
        return f"fields of type {described['type']} cannot be filled" if kind is FieldKind.OTHER else ""
    if described.get("createable"):
        return "it is set when the record is created and not changed afterwards"
    return "the user that crm-sync logs in as may not edit it (field-level security), or Salesforce keeps it itself"


# --- records ------------------------------------------------------------------------------------------------------

Row = Mapping[str, Any]


#: When a record last changed, to the second: what a guarded write names (contracts/salesforce.md 2.5, 2026-11).
VERSION = "LastModifiedDate"


def record_reader(
    crm: str, schema: ObjectSchema, paths: Mapping[str, str], *, versioned: bool = False
) -> Callable[[Row], Record]:
    """A function from a JSON row to a Record, made once per query.

    `paths` maps each name asked for to its path in describe's spelling, "Account.Website" for a parent's field.
    `versioned`: the rows have VERSION.
    """
    object_type = schema.object_type
    many = {path for path in paths.values() if "." not in path and _kind(schema, path) is FieldKind.MULTI_PICKLIST}
    plain = [(name, path) for name, path in paths.items() if "." not in path and path not in many]
    others = [(name, _reader(path)) for name, path in paths.items() if "." in path or path in many]

    def read(row: Row) -> Record:
        get = row.get
        values: dict[str, Value] = {name: get(path) for name, path in plain}
        for name, reader in others:
            values[name] = reader(row)
        version = get(VERSION) if versioned else None
        return Record(
            ref=RecordRef(crm=crm, object_type=object_type, id=row["Id"]),
            values=values,
            version=version if isinstance(version, str) else "",
        )

    return read


def _kind(schema: ObjectSchema, name: str) -> FieldKind | None:
    found = schema.fields.get(name)
    return found.kind if found is not None else None


def _reader(path: str) -> Callable[[Row], Value]:
    if "." not in path:
        return lambda row: tuple(text.split(";")) if (text := row.get(path)) else None
    *parents, last = path.split(".")

    def of_parent(row: Row) -> Value:
        node: Any = row
        for step in parents:
            node = node.get(step)
            if node is None:
                return None
        value: Value = node.get(last)
        return value

    return of_parent


def rows_of(answer: Any) -> list[dict[str, Any]] | None:
    """A query answer's records, None when it is no query answer."""
    rows = answer.get("records") if isinstance(answer, dict) else None
    return rows if isinstance(rows, list) and all(type(r) is dict and type(r.get("Id")) is str for r in rows) else None


def retrieved(answer: Any, ids: Sequence[str]) -> list[dict[str, Any] | None] | None:
    """A collections retrieve by position, None in the place of a record that is gone.

    None for the whole when the answer is not one to these ids: a record in the wrong place would be written over.
    """
    if not isinstance(answer, list) or len(answer) != len(ids):
        return None
    for row, asked in zip(answer, ids, strict=True):
        if row is not None and (type(row) is not dict or row.get("Id") != asked):
            return None
    return answer


# --- values -------------------------------------------------------------------------------------------------------

_BLANK = "crm-sync does not erase values unasked, and this one is blank"
_LARGEST = 2**53  # beyond it a JSON number is not exact


def is_blank(value: Value) -> bool:
    return value is None or value == () or (isinstance(value, str) and not value.strip())  # Salesforce trims it


def check_erasable(field: FieldSchema) -> None:
    """
    Raises:
        ValueError: the field always holds something; null in it would cost the whole call (sandbox and 2.3).
    """
    if field.kind is FieldKind.BOOLEAN:
        raise ValueError("a checkbox is yes or no and cannot be erased")


def to_json(field: FieldSchema, value: Value) -> Any:
    """A value as the REST API takes it for this field; a wrong JSON type would cost all 200 records of the call
    (contracts/salesforce.md 2.3).

    Raises:
        ValueError: the field cannot take it; the text says why and does not show it.
    """
    if is_blank(value):
        raise ValueError(_BLANK)
    kind = field.kind
    if kind is FieldKind.BOOLEAN:
        if not isinstance(value, bool):
            raise ValueError("a checkbox takes true or false")
        return value
    if kind in (FieldKind.INTEGER, FieldKind.DECIMAL):
        return _number(kind, value)
    if isinstance(value, tuple):
        if kind is not FieldKind.MULTI_PICKLIST:
            raise ValueError("the field takes one value, not several")
        if any(";" in each for each in value):
            raise ValueError("a value with a semicolon cannot be told from two")
        return ";".join(value)
    if isinstance(value, str):
        if not value.isascii() and any("\ud800" <= character <= "\udfff" for character in value):
            raise ValueError("it holds half a character")
        return value
    if isinstance(value, bool):
        raise ValueError("the field takes text, not true or false")
    return str(value)


def _number(kind: FieldKind, value: Value) -> int | float:
    if isinstance(value, bool | tuple):
        raise ValueError("the field takes a number")
    try:
        number = Decimal(str(value).strip())
    except InvalidOperation:
        raise ValueError("it is not a number") from None
    # JSON has no NaN; orjson would send null, which erases the field.
    if not number.is_finite():
        raise ValueError("it is not a number")
    if number == number.to_integral_value() and abs(number) <= _LARGEST:
        return int(number)
    if kind is FieldKind.INTEGER:
        raise ValueError("the field takes a whole number")
    result = float(number)
    if not math.isfinite(result):
        raise ValueError("the number is too large")
    return result


# --- results of a write -------------------------------------------------------------------------------------------

# Refusals that one field's value causes and whose `fields` name it (contracts/salesforce.md 2.4).
FIELD_FAULTS = frozenset(
    {
        "INVALID_OR_NULL_FOR_RESTRICTED_PICKLIST",
        "STRING_TOO_LONG",
        "NUMBER_OUTSIDE_VALID_RANGE",
        "INVALID_EMAIL_ADDRESS",
        "FIELD_INTEGRITY_EXCEPTION",
        "INVALID_FIELD",
        "INVALID_FIELD_FOR_INSERT_UPDATE",
        "INVALID_TYPE_ON_FIELD_IN_RECORD",
        "REQUIRED_FIELD_MISSING",  # where it is one that we were to erase; else dropping it cannot help
    }
)
#: Of these, the ones that no other value cures: the field is of no use for any record.
MAPPING_FAULTS = frozenset({"INVALID_FIELD", "INVALID_FIELD_FOR_INSERT_UPDATE"})
#: Refusals that tell that the record is not there any more, or is no lead any more (contracts/salesforce.md 2.4).
GONE = frozenset({"ENTITY_IS_DELETED", "INVALID_CROSS_REFERENCE_KEY", "NOT_FOUND", "CANNOT_UPDATE_CONVERTED_LEAD"})
#: Refusals by a rule of the org's own. A field they name is the one where the message stands; they may name none.
RULE_FAULTS = frozenset(
    {
        "FIELD_CUSTOM_VALIDATION_EXCEPTION",
        "FIELD_FILTER_VALIDATION_EXCEPTION",
        "DUPLICATES_DETECTED",
        "DUPLICATE_VALUE",
    }
)
_LOCKED = "UNABLE_TO_LOCK_ROW"
# A trigger's errors hide what happened inside it (contracts/salesforce.md 2.4).
_FROM_TRIGGERS = frozenset({"CANNOT_INSERT_UPDATE_ACTIVATE_ENTITY", "CANNOT_EXECUTE_FLOW_TRIGGER", "APEX_ERROR"})
_OVERLOADED = (
    "Too many SOQL queries",
    "Too many DML",
    "CPU time limit",
    "Too many query rows",
    "Too many future calls",
)
_GONE = {
    "ENTITY_IS_DELETED": "it was deleted, or merged into another record, since it was read",
    "INVALID_CROSS_REFERENCE_KEY": "the record, or one it points at, is not there (any more) for this user",
    "NOT_FOUND": "it is not there (any more) for this user",
    "CANNOT_UPDATE_CONVERTED_LEAD": "the lead was converted",
}


@dataclass(frozen=True, slots=True)
class Fault:
    """One entry of a SaveResult's `errors`; `fields` are API names, `message` uses labels (2.3)."""

    code: str
    message: str
    fields: tuple[str, ...]

    @property
    def is_lock(self) -> bool:
        return self.code == _LOCKED or (self.code in _FROM_TRIGGERS and _LOCKED in self.message)

    @property
    def is_overload(self) -> bool:
        """The batch was too much for the org's own automation; fewer records at once may pass."""
        return self.code in _FROM_TRIGGERS and any(sign in self.message for sign in _OVERLOADED)

    @property
    def is_of_fields(self) -> bool:
        return self.code in FIELD_FAULTS and bool(self.fields)

    @property
    def is_of_rule(self) -> bool:
        return self.code in RULE_FAULTS and "Id" not in self.fields  # a record named twice is no fault of its fields

    def sentence(self) -> str:
        said = scrubbed(self.message)
        words = f"{self.code}: {said}" if said else self.code
        return f"{_GONE[self.code]} ({words})" if self.code in _GONE else words


@dataclass(frozen=True, slots=True)
class SaveResult:
    """One row's result; no faults = saved.

    `moved`: it changed after it was read, nothing was written. `passing`: the service could not do this row now, for
    the reason in `faults`; `in_doubt`: … and may have done it all the same.
    """

    faults: tuple[Fault, ...] = ()
    moved: bool = False
    passing: bool = False
    in_doubt: bool = False


SAVED = SaveResult()


def save_results(answer: Any, ids: Sequence[str]) -> list[SaveResult] | None:
    """The results of a collections update, by position (a failed entry carries no id, 2.3); None when the answer does
    not account for every record in its place."""
    if not isinstance(answer, list) or len(answer) != len(ids):
        return None
    results = []
    for row, sent in zip(answer, ids, strict=True):
        if type(row) is not dict:
            return None
        success = row.get("success")
        if success is True and row.get("id", sent) == sent:
            results.append(SAVED)
        elif success is False:
            results.append(SaveResult(faults_of(row.get("errors")) or (Fault("UNKNOWN", "no reason given", ()),)))
        else:
            return None
    return results


def faults_of(errors: Any) -> tuple[Fault, ...]:
    return tuple(
        Fault(
            code=str(each.get("statusCode") or each.get("errorCode") or "UNKNOWN"),
            message=str(each.get("message") or ""),
            fields=_names(each.get("fields")),
        )
        for each in (errors if isinstance(errors, list) else ())
        if isinstance(each, dict)
    )


def _names(fields: Any) -> tuple[str, ...]:
    return tuple(name for name in fields if isinstance(name, str)) if isinstance(fields, list) else ()


# --- a whole request refused --------------------------------------------------------------------------------------


class RefusedRequestError(RefusedError):
    """A request was refused as a whole. `columns` are the fields it names as unknown.

    `is_proof`: Salesforce itself says so, and did nothing of it; a page of something in between proves nothing.
    """

    def __init__(self, message: str, *, fault: Fault, provider: str, operation: str, status: int) -> None:
        super().__init__(message, provider=provider, operation=operation, status=status)
        self.fault = fault

    @property
    def is_proof(self) -> bool:
        return not self.fault.code.startswith(_NO_FAULT)

    @property
    def columns(self) -> tuple[str, ...]:
        return columns_of(self.fault)


def columns_of(fault: Fault) -> tuple[str, ...]:
    """The fields that a refusal calls unknown or not writable."""
    if fault.code not in MAPPING_FAULTS:
        return ()
    # The reply has no other place for the name where `fields` is absent (2.3 and 7: no recording found).
    found = _NO_COLUMN.search(fault.message)
    return (found[1],) if found else fault.fields


#: Stands for the code where no Salesforce error came with the status.
_NO_FAULT = "HTTP "
_NO_COLUMN = re.compile(r"No such column '([^']+)'")
#: The edge's own ways of saying "too much at once" (contracts/salesforce.md 2.4, 2026-11).
BUSY = frozenset({406, 420, 429})
LATER = "run again later (status.salesforce.com tells of outages)"
#: Something in between gave up waiting; what became of the request is not known.
TIMED_OUT = 408
#: What crowds an org are calls of 20 s and more (2.2); it does not say when they end.
_CROWDED_S = 2.0
# 401s that no new token cures; jsforce lists them as endless-loop traps (contracts/salesforce.md 1.5).
_INCURABLE = re.compile(r"not valid for .*REST API|not (?:attached|associated) (?:to|with) an? ", re.IGNORECASE)


def request_fault(body: bytes) -> Fault | None:
    """What a request-level error says: [{message, errorCode, fields?}] or {error, error_description}; None for a web
    page or other text."""
    try:
        answer = orjson.loads(body)
    except orjson.JSONDecodeError:
        return None
    first = answer[0] if isinstance(answer, list) and answer else answer
    if not isinstance(first, dict):
        return None
    code = first.get("errorCode") or first.get("error")
    if not isinstance(code, str):
        return None
    message = first.get("message") or first.get("error_description") or ""
    return Fault(code=code[:100], message=str(message), fields=_names(first.get("fields")))


def is_expired(status: int, body: bytes) -> bool:
    """Whether the token has ended, in a way that a new one cures."""
    fault = request_fault(body) if status == 401 else None
    if fault is None or fault.code != "INVALID_SESSION_ID":
        return False
    return not _INCURABLE.search(fault.message)


def refusal(
    *, status: int, headers: Mapping[str, str], body: bytes, provider: str, operation: str, now: datetime
) -> ProviderError:
    """The error, sorted by remedy, for an answer outside 200 to 299 (contracts/salesforce.md 2.4)."""
    facts: dict[str, Any] = {"provider": provider, "operation": operation, "status": status}
    fault = request_fault(body)
    code = fault.code if fault is not None else ""
    said = scrubbed(fault.message) if fault is not None else ""
    words = f"{code}: {said}" if said else code or f"HTTP {status} and no Salesforce error"
    if code == "REQUEST_LIMIT_EXCEEDED":
        if fault is not None and "TotalRequests" in fault.message:
            return QuotaError(
                f"{provider}'s API calls of these 24 hours are used up; a later run goes on. Salesforce Setup > "
                "Company Information shows how many there are",
                **facts,
            )
        wait = retry_after_s(headers, now) or _CROWDED_S
        return RateLimitError(f"{provider} is serving too many calls at once", retry_after_s=wait, **facts)
    if code == "EXCEEDEDQUOTA":
        return QuotaError(f"{provider}'s bulk jobs of these 24 hours are used up; a later run goes on", **facts)
    if code == "FEATURENOTENABLED":
        return CredentialsError(
            f"{provider} lets the user that crm-sync logs in as make no bulk jobs ({words}); give it the permission",
            **facts,
        )
    if status in BUSY:
        return RateLimitError(
            f"{provider} wants fewer calls ({words})", retry_after_s=retry_after_s(headers, now), **facts
        )
    if status >= 500 or status == TIMED_OUT or code == "SERVER_UNAVAILABLE":
        return TransientError(f"{provider} failed at {operation} with HTTP {status} ({words}); {LATER}", **facts)
    if status == 401 and fault is None:
        return UnprovenRefusalError(
            f"{provider} answered {operation} with HTTP 401 and no Salesforce error; a proxy may want "
            "a log-in of its own",
            **facts,
        )
    if status == 401:
        return CredentialsError(f"{provider} refuses the session for {operation} ({words})", **facts)
    if status == 403:
        return (CredentialsError if fault is not None else UnprovenRefusalError)(
            f"{provider} forbids {operation} to the user that crm-sync logs in as ({words}); give it the permission",
            **facts,
        )
    return RefusedRequestError(
        f"{provider} refused {operation} ({words})", fault=fault or Fault(f"{_NO_FAULT}{status}", "", ()), **facts
    )


_PRIVATE = re.compile(
    r"[\w.+'%-]+@[\w-]+(?:\.[\w-]+)+"  # an e-mail address
    r"|\b00D\w{12}(?:\w{3})?![\w.]+|\bBearer\s+\S+"  # a session id, a token
    r"|\+?\d[\d ().-]{5,}\d",  # anything that could be rung
    re.IGNORECASE,
)
_LONGEST_SENTENCE = 300


def scrubbed(text: str) -> str:
    """Salesforce's sentence without personal data, the echo of our query, and not endless."""
    text = text.rpartition(":Column:")[2].partition("\n")[2] if "ERROR at Row:" in text else text
    text = " ".join(_PRIVATE.sub("…", text).split())
    return text if len(text) <= _LONGEST_SENTENCE else text[: _LONGEST_SENTENCE - 1] + "…"
