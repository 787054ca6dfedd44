"""HubSpot's words and ours: paths, properties, values, batch answers and refusals. Pure; nothing here talks."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal, InvalidOperation
from typing import Any

import orjson

from adapters.http import UnprovenRefusalError, retry_after_s
from crm_sync.domain.records import Choice, FieldKind, FieldSchema, ObjectSchema, Value
from crm_sync.errors import (
    ContractError,
    CredentialsError,
    ProviderError,
    QuotaError,
    RateLimitError,
    RefusedError,
    TransientError,
)

#: The one place of the path version. hubspot-api-client 12.0.0 speaks v3 only, which goes unsupported in September
#: 2027; its successors are dated ("2026-09", contracts/hubspot.md 0.1, 2026-11).
API_VERSION = "v3"

OBJECT_TYPES = ("contacts", "companies")
#: What a record's own page calls the object type (app.hubspot.com/contacts/<portal>/record/<this>/<id>).
TYPE_IDS = {"contacts": "0-1", "companies": "0-2"}
_SINGULAR = {"contacts": "contact", "companies": "company"}
#: HubSpot names the type a property points at in capitals and in the singular.
_REFERENCED = {"CONTACT": "contacts", "COMPANY": "companies"}

ID = "hs_object_id"
#: The forebears of a merged record, joined by semicolons (contracts/hubspot.md 7).
MERGED_IDS = "hs_merged_object_ids"

_LONGEST_TEXT = 65_536
_LIBRARY_PREFIX = "/crm/v3/"


# --- paths --------------------------------------------------------------------------------------------------------


def versioned(path: str, version: str = API_VERSION) -> str:
    """The path of `version` for one that hubspot-api-client built ("/crm/v3/objects/contacts/search")."""
    if version == "v3" or not path.startswith(_LIBRARY_PREFIX):
        return path
    group, _, tail = path.removeprefix(_LIBRARY_PREFIX).partition("/")
    return f"/crm/{group}/{version}/{tail}"


def operation_of(method: str, path: str) -> str:
    """The word under which a request is counted and named in errors."""
    if "/oauth/" in path:
        return "token"
    if "/account-info/" in path:
        return "account"
    if "/properties/" in path:
        return "properties"
    if path.endswith("/search"):
        return "search"
    if path.endswith("/batch/read"):
        return "read"
    if path.endswith("/batch/update"):
        return "write"
    # A list ends with the object type, one record with its number.
    return "read" if path.rsplit("/", 1)[-1].isdigit() else ("list" if method == "GET" else f"{method} {path}")


def record_url(portal: str, ui_domain: str, object_type: str, record_id: str) -> str:
    type_id = TYPE_IDS.get(object_type)
    return f"https://{ui_domain}/contacts/{portal}/record/{type_id}/{record_id}" if portal and type_id else ""


_RECORD_URL = re.compile(r"https://(app[\w-]*\.hubspot\.com)/contacts/(\d+)/record/")


def portal_of(raw: Mapping[str, Any]) -> tuple[str, str] | None:
    """(portal id, host of the web pages) as told by the `url` that newer answers put on a record."""
    url = raw.get("url")
    found = _RECORD_URL.match(url) if isinstance(url, str) else None
    return (found[2], found[1]) if found else None


# --- properties -> ObjectSchema -----------------------------------------------------------------------------------

#: Properties that crm-sync never writes although HubSpot would let it (contracts/hubspot.md 3 and 5, 2026-11).
_HANDS_OFF = {
    ("contacts", "email"): "it is what HubSpot knows a contact by; an address another contact has is refused (409)",
    ("companies", "domain"): "it is what HubSpot knows a company by; a domain another company has is refused (409)",
    ("contacts", "lifecyclestage"): "HubSpot only ever moves it forward, and workflows hang on it",
    ("companies", "lifecyclestage"): "HubSpot only ever moves it forward, and workflows hang on it",
}

_KINDS = {
    "bool": FieldKind.BOOLEAN,
    "date": FieldKind.DATE,
    "datetime": FieldKind.DATETIME,
    "number": FieldKind.DECIMAL,
    "phone_number": FieldKind.PHONE,
}
_TEXT_KINDS = {
    "textarea": FieldKind.LONG_TEXT,
    "html": FieldKind.LONG_TEXT,
    "phonenumber": FieldKind.PHONE,
}
_URL_NAME = re.compile(r"(^|_)(url|website)$|_company_page$")
_EMAIL_NAME = re.compile(r"(^|_)email$")


def object_schema(crm: str, object_type: str, results: Iterable[Any]) -> ObjectSchema:
    """What `GET /properties` lists, as an ObjectSchema. Entries without a name are left out."""
    fields = {}
    for raw in results:
        if isinstance(raw, dict) and isinstance(raw.get("name"), str):
            fields[raw["name"]] = _field(object_type, raw)
    return ObjectSchema(crm=crm, object_type=object_type, label=object_type.capitalize(), fields=fields)


def _field(object_type: str, raw: Mapping[str, Any]) -> FieldSchema:
    name, hubspot_type, field_type = raw["name"], str(raw.get("type", "")), str(raw.get("fieldType", ""))
    kind = _kind(name, hubspot_type, field_type, raw)
    why_not = _why_not(object_type, raw)
    target = _REFERENCED.get(str(raw.get("referencedObjectType") or "").upper())
    is_choice = kind in (FieldKind.PICKLIST, FieldKind.MULTI_PICKLIST)
    return FieldSchema(
        name=name,
        label=str(raw.get("label") or name),
        kind=kind,
        native_type=f"{hubspot_type}/{field_type}" if field_type else hubspot_type,
        writable=not why_not,
        why_not=why_not,
        filterable=not raw.get("archived") and hubspot_type not in ("json", "object_coordinates"),
        length=_LONGEST_TEXT if hubspot_type == "string" else None,
        choices=tuple(_choices(raw.get("options"))) if is_choice else (),
        restricted=is_choice,
        refers_to=(target,) if kind is FieldKind.REFERENCE and target else (),
    )


def _kind(name: str, hubspot_type: str, field_type: str, raw: Mapping[str, Any]) -> FieldKind:
    if name == ID:
        return FieldKind.ID
    if raw.get("externalOptions"):
        # The options of owners, teams and records are not listed; only records of our two types can be followed.
        referenced = str(raw.get("referencedObjectType") or "").upper()
        return FieldKind.REFERENCE if referenced in _REFERENCED else FieldKind.OTHER
    if hubspot_type == "enumeration":
        return FieldKind.MULTI_PICKLIST if field_type == "checkbox" else FieldKind.PICKLIST
    if hubspot_type != "string":
        return _KINDS.get(hubspot_type, FieldKind.OTHER)
    if field_type in _TEXT_KINDS:
        return _TEXT_KINDS[field_type]
    if _EMAIL_NAME.search(name):
        return FieldKind.EMAIL
    return FieldKind.URL if _URL_NAME.search(name) else FieldKind.TEXT


def _why_not(object_type: str, raw: Mapping[str, Any]) -> str:
    if raw.get("archived"):
        return "it is archived in HubSpot; restore it there or map another property"
    if raw.get("calculated"):
        return "HubSpot calculates it"
    metadata = raw.get("modificationMetadata")
    if isinstance(metadata, dict) and metadata.get("readOnlyValue"):
        return "HubSpot keeps its value itself (read-only)"
    return _HANDS_OFF.get((object_type, raw["name"]), "")


def _choices(options: Any) -> Iterator[Choice]:
    for option in options if isinstance(options, list) else ():
        if isinstance(option, dict) and isinstance(option.get("value"), str):
            # A hidden option is no longer offered to people and still valid to write (contracts/hubspot.md 6.4 [U]).
            yield Choice(value=option["value"], label=str(option.get("label") or option["value"]))


# --- HubSpot's text -> our values ---------------------------------------------------------------------------------

_Convert = Callable[[str], Value]


def _number(text: str) -> Value:
    try:
        return int(text) if text.lstrip("-").isdecimal() else _finite(Decimal(text), text)
    except (InvalidOperation, ValueError):
        return text


def _finite(number: Decimal, text: str) -> Value:
    return number if number.is_finite() else text


def _boolean(text: str) -> Value:
    return {"true": True, "false": False}.get(text.lower(), text)


def _multiple(text: str) -> Value:
    return tuple(part for part in text.split(";") if part)


_CONVERTERS: Mapping[FieldKind, _Convert] = {
    FieldKind.DECIMAL: _number,
    FieldKind.INTEGER: _number,
    FieldKind.BOOLEAN: _boolean,
    FieldKind.MULTI_PICKLIST: _multiple,
}


def value_reader(schema: ObjectSchema, fields: Sequence[str]) -> Callable[[Mapping[str, Any]], dict[str, Value]]:
    """Compile once, call per record: a record's `properties` -> a value for each of `fields`, None where absent.

    A number that does not read as one stays text, as do dates.
    """
    typed: list[tuple[str, _Convert]] = []
    for name in fields:
        field = schema.fields.get(name)
        convert = _CONVERTERS.get(field.kind) if field is not None else None
        if convert is not None:
            typed.append((name, convert))

    def read(properties: Mapping[str, Any]) -> dict[str, Value]:
        get = properties.get
        values: dict[str, Value] = {name: get(name) for name in fields}
        for name, convert in typed:
            text = values[name]
            if text:
                values[name] = convert(text if isinstance(text, str) else str(text))
        return values

    return read


def blank_checker(
    missing_any: Sequence[str], placeholders: Sequence[str], schema: ObjectSchema
) -> Callable[[Mapping[str, Any]], bool]:
    """Compile once, call per record: does any of `missing_any` hold nothing, or a placeholder (trimmed, any case)?

    Always True for an empty `missing_any`. Several choices are never a placeholder.
    """
    if not missing_any:
        return lambda _properties: True
    words = frozenset(word.strip().casefold() for word in placeholders)
    several = {name for name in missing_any if (f := schema.fields.get(name)) and f.kind is FieldKind.MULTI_PICKLIST}
    pairs = [(name, frozenset() if name in several else words) for name in missing_any]

    def lacks(properties: Mapping[str, Any]) -> bool:
        get = properties.get
        for name, counts_as_blank in pairs:
            value = get(name)
            if not value:
                return True
            folded = value.strip().casefold() if isinstance(value, str) else "?"
            if not folded or folded in counts_as_blank:
                return True
        return False

    return lacks


# --- our values -> HubSpot's text ---------------------------------------------------------------------------------


def is_blank(value: Value) -> bool:
    if isinstance(value, tuple):
        return not any(value)
    return value is None or (isinstance(value, str) and not value.strip())


def to_text(value: Value) -> str | None:
    """A value as HubSpot takes it; None when there is nothing to write (blank) or no way to say it (NaN).

    Numbers have digits and at most one point, no commas, no exponent (contracts/hubspot.md 3). Several choices are
    joined by semicolons and never begin with one, which would add to what is there instead of replacing it.
    """
    if value is None:
        return None
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float | Decimal):
        return _plain_number(value if isinstance(value, Decimal) else Decimal(repr(value)))
    if isinstance(value, tuple):
        return ";".join(part for part in value if part) or None
    return value if value.strip() else None


def _plain_number(number: Decimal) -> str | None:
    if not number.is_finite():
        return None
    text = format(number, "f")
    return (text.rstrip("0").rstrip(".") or "0") if "." in text else text


def kept(sent: str, returned: Any, kind: FieldKind | None) -> bool:
    """Whether the value an update answered with is the one that was sent, but for HubSpot's own way of writing it."""
    if not sent or not returned:
        return not sent and not returned  # what was erased comes back as null or as ""
    if not isinstance(returned, str) or sent == returned:
        return isinstance(returned, str)
    if kind in (FieldKind.DECIMAL, FieldKind.INTEGER):
        return _number(sent) == _number(returned)
    if kind is FieldKind.MULTI_PICKLIST:
        return set(sent.split(";")) == set(returned.split(";"))
    if kind is FieldKind.PHONE:
        return _digits(sent) == _digits(returned)
    if kind in (FieldKind.DATE, FieldKind.DATETIME):
        return True  # HubSpot answers milliseconds or ISO text as it likes; both name the instant that was sent
    return sent.strip().casefold() == returned.strip().casefold()


def _digits(text: str) -> str:
    return "".join(c for c in text if c.isdigit())


# --- refusals -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """What HubSpot found wrong with one property's value. `property` and `code` may be ""."""

    property: str
    code: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """An error body, or one entry of a 207, as far as it could be understood; every part may be empty."""

    category: str = ""
    message: str = ""
    policy: str = ""
    ids: tuple[str, ...] = ()
    trace_ids: tuple[str, ...] = ()
    scopes: tuple[str, ...] = ()
    faults: tuple[Fault, ...] = ()

    @property
    def code(self) -> str:
        """The most telling code: the first fault's, else the category."""
        return next((fault.code for fault in self.faults if fault.code), self.category)

    def properties(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(fault.property for fault in self.faults if fault.property))

    def sentence(self) -> str:
        """What HubSpot said, fit to be shown: no addresses, no numbers to ring, no list of 148 options."""
        if self.faults:
            return "; ".join(scrubbed(f.message or f.code) for f in self.faults[:3])
        return scrubbed(self.message or self.category or "no reason given")


def parse_problem(raw: Any) -> Problem:
    """Read an error body; HubSpot says to treat every field as optional (contracts/hubspot.md 5)."""
    if not isinstance(raw, dict):
        return Problem()
    message = _text(raw.get("message"))
    context = _mapping(raw.get("context"))
    details = [each for each in _list(raw.get("errors")) if isinstance(each, dict)]
    contexts = [context, *(_mapping(detail.get("context")) for detail in details)]
    faults = {(f.property, f.code): f for f in (*_faults_of_details(details, context, message), *_faults_of(message))}
    return Problem(
        category=_text(raw.get("category")) or _text(raw.get("errorType")) or _text(raw.get("error")),
        message=message,
        policy=_text(raw.get("policyName")),
        ids=_gathered(contexts, "ids", "id"),
        trace_ids=_gathered(contexts, "objectWriteTraceId"),
        scopes=_gathered(contexts, "requiredGranularScopes", "requiredScopes"),
        faults=tuple(faults.values()),
    )


def _faults_of_details(
    details: Iterable[Mapping[str, Any]], context: Mapping[str, Any], message: str
) -> Iterator[Fault]:
    for detail in details:
        inner = _mapping(detail.get("context"))
        code = _text(detail.get("code")) or _text(detail.get("subCategory"))
        names = _gathered([inner], "propertyName", "name") or ((_text(detail.get("in")),) if code else ())
        for name in names:
            if name or code:
                yield Fault(property=name, code=code, message=_text(detail.get("message")))
    for name in _gathered([context], "propertyName"):
        yield Fault(property=name, code="", message=message)


def _faults_of(message: str) -> Iterator[Fault]:
    """The findings that HubSpot puts as JSON text inside the message."""
    start, end = message.find("[{"), message.rfind("}]")
    if start < 0 or end < start:
        return
    try:
        findings = orjson.loads(message[start : end + 2])
    except orjson.JSONDecodeError:
        return
    for finding in findings if isinstance(findings, list) else ():
        if isinstance(finding, dict) and finding.get("isValid") is not True:
            yield Fault(
                property=_text(finding.get("name")),
                code=_text(finding.get("error")),
                message=_text(finding.get("message")),
            )


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _gathered(contexts: Iterable[Mapping[str, Any]], *keys: str) -> tuple[str, ...]:
    found: dict[str, None] = {}
    for context in contexts:
        for key in keys:
            value = context.get(key)
            for each in value if isinstance(value, list) else [value]:
                if isinstance(each, str | int) and not isinstance(each, bool):
                    found[str(each)] = None
    return tuple(found)


_PRIVATE = re.compile(
    r"[\w.+'%-]+@[\w-]+(?:\.[\w-]+)+"  # an e-mail address
    r"|\bpat-[\w-]+|\bBearer\s+\S+"  # a token
    r"|\+?\d[\d ().-]{5,}\d",  # anything that could be rung
    re.IGNORECASE,
)
_OPTIONS = re.compile(r"\s*(?:allowed )?options?:?\s*\[.*", re.IGNORECASE | re.DOTALL)
_LONGEST_SENTENCE = 300


def scrubbed(text: str) -> str:
    """A provider's sentence without personal data, without its list of all options, and not endless."""
    text = _PRIVATE.sub("…", _OPTIONS.sub(" options", text)).strip()
    text = " ".join(text.split())
    return text if len(text) <= _LONGEST_SENTENCE else text[: _LONGEST_SENTENCE - 1] + "…"


#: 429s: how long to wait when HubSpot does not say (contracts/hubspot.md 4, 2026-11).
_POLICY_WAITS_S = {"SECONDLY": 1.0, "TEN_SECONDLY_ROLLING": 10.0}
_LOCK_S = 2.0
_BUSY_S = 2.0
_DEFAULT_WAIT_S = 3.0
#: The longest a 429 that is not for the day is believed: some HubSpot services state it in milliseconds.
_LONGEST_WAIT_S = 30.0
#: Cloudflare could not talk to HubSpot at all; HubSpot says to call support.
_BROKEN_FRONT = frozenset({522, 525, 526})
_LATER = "run again later (status.hubspot.com tells of outages)"


def refusal(
    *,
    status: int,
    headers: Mapping[str, str],
    problem: Problem,
    provider: str,
    operation: str,
    now: datetime,
    prefix: str = "",
) -> ProviderError:
    """The error, sorted by remedy, for an answer outside 200 to 299. `prefix`: what the CRM's settings begin with."""
    kw: dict[str, Any] = {"provider": provider, "operation": operation, "status": status}
    told = retry_after_s(headers, now)
    said = f"{provider} answered {operation} with HTTP {status}"
    if operation == "token" and status in (400, 401, 403):
        return CredentialsError(
            f"{provider} refused to renew the OAuth token ({problem.code or status}); install the app again in HubSpot "
            f"and put what it gives into {prefix}REFRESH_TOKEN, {prefix}CLIENT_ID and {prefix}CLIENT_SECRET",
            **kw,
        )
    refusing = CredentialsError if problem != Problem() else UnprovenRefusalError
    if status == 401:
        return refusing(
            f"{provider} does not accept the token ({problem.category or status}); make a new service key in HubSpot "
            f"(a private app's token or OAuth do as well) and put it into {prefix}TOKEN",
            **kw,
        )
    if status == 403:
        return refusing(_forbidden(problem, provider, operation), **kw)
    if status == 423:
        return RateLimitError(f"{said}: the record is locked for a moment", retry_after_s=_LOCK_S, **kw)
    if status == 429:
        return _too_many(problem, told, provider, operation, kw)
    if status == 477:
        return QuotaError(
            f"{provider}: HubSpot is moving this account to another data centre; run again {_when(told)}", **kw
        )
    if status in _BROKEN_FRONT:
        return ContractError(f"{said}: HubSpot itself cannot be reached; ask HubSpot's support if it lasts", **kw)
    if status in (502, 504):  # "asking too much for too long", not only an accident
        return RateLimitError(
            f"{said}: HubSpot is overloaded; {_LATER}", retry_after_s=min(told or _BUSY_S, 30.0), **kw
        )
    if status == 408:  # something in between gave up waiting; what became of the call is not known
        return TransientError(f"{said}; {_LATER}", **kw)
    if status >= 500:
        if told is not None:
            return RateLimitError(f"{said}: HubSpot is away; {_LATER}", retry_after_s=min(told, _LONGEST_WAIT_S), **kw)
        return TransientError(f"{said}; {_LATER}", **kw)
    return RefusedError(f"{said}: {problem.sentence()}", **kw)


def _forbidden(problem: Problem, provider: str, operation: str) -> str:
    if problem.scopes:
        scopes = " or ".join(problem.scopes)
        return f"{provider}: the token lacks the scope {scopes}, which {operation} needs; grant it in HubSpot"
    return f"{provider} forbids {operation} ({problem.category or 403}); check the token's scopes in HubSpot"


def _too_many(problem: Problem, told: float | None, provider: str, operation: str, kw: dict[str, Any]) -> ProviderError:
    policy = problem.policy or _policy_in(problem.message) or ("SECONDLY" if operation == "search" else "")
    if policy == "DAILY":
        return QuotaError(
            f"{provider}: the account's API calls of this day are used up (all its apps share them); they come back at "
            "midnight of the account's time zone",
            **kw,
        )
    wait = _POLICY_WAITS_S.get(policy, _DEFAULT_WAIT_S) if told is None else min(told, _LONGEST_WAIT_S)
    return RateLimitError(
        f"{provider} asked to slow down ({policy or 'no limit named'}) at {operation}", retry_after_s=wait, **kw
    )


def _policy_in(message: str) -> str:
    """Captures without policyName carry the limit's name in the message (contracts/hubspot.md 4)."""
    words = message.lower()
    for policy in ("TEN_SECONDLY_ROLLING", "SECONDLY", "DAILY"):
        if policy.lower() in words:
            return policy
    return ""


def _when(seconds: float | None) -> str:
    if seconds is None:
        return "tomorrow"
    span = timedelta(seconds=round(seconds))
    return f"in {span} h" if seconds >= 3600 else f"in {max(1, round(seconds / 60))} min"


# --- batch answers ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchAnswer:
    """The parts of a batch/read or batch/update answer: records with an id, and one Problem per entry of `errors`."""

    records: tuple[dict[str, Any], ...]
    problems: tuple[Problem, ...]


def batch_answer(body: Mapping[str, Any]) -> BatchAnswer:
    return BatchAnswer(
        records=tuple(records_of(body)),
        problems=tuple(parse_problem(each) for each in _list(body.get("errors"))),
    )


def records_of(body: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The records of any answer that has `results`: those with an id in digits and their properties."""
    found = []
    for raw in _list(body.get("results")):
        if isinstance(raw, dict) and isinstance(raw.get("properties"), dict):
            record_id = raw.get("id")
            if isinstance(record_id, str) and record_id.isdecimal():
                found.append(raw)
    return found


def is_rising(raws: Sequence[Mapping[str, Any]], after: str) -> bool:
    """Whether the ids rise strictly from `after` on; as numbers, since "99" is before "100"."""
    last = int(after or 0)
    for raw in raws:
        number = int(raw["id"])
        if number <= last:
            return False
        last = number
    return True


def total_of(body: Mapping[str, Any], default: int) -> int:
    """A search's count of matches; `default` where it is missing."""
    total = body.get("total")
    return total if isinstance(total, int) and not isinstance(total, bool) else default


def next_after(body: Mapping[str, Any]) -> str:
    """A list's cursor to the next page, "" at its end."""
    return _text(_mapping(_mapping(body.get("paging")).get("next")).get("after"))


def version_of(raw: Mapping[str, Any]) -> str:
    """When the record last changed, as HubSpot answers it."""
    return _text(raw.get("updatedAt"))


def end_of(record_id: str, archived: Mapping[str, Any] | None) -> dict[str, str]:
    """How a record ended that does not live, and the sentence for it. `archived`: as the recycle bin has it, under its
    survivor's id where it was merged; None where it is not there (contracts/hubspot.md 5 and 7, 2026-11)."""
    if archived is not None:
        merged = f"merged in HubSpot into {archived['id']}, which was" if archived["id"] != record_id else "it was"
        return {"how": "deleted", "reason": f"{merged} deleted; HubSpot keeps it in the recycle bin for 90 days"}
    if not record_id.isdecimal():
        return {"how": "unknown", "reason": "it is no id of HubSpot's"}
    return {
        "how": "deleted",
        "reason": "HubSpot does not know it: it was deleted more than 90 days ago, erased for good, or never there",
    }


def forebears(raw: Mapping[str, Any]) -> tuple[str, ...]:
    text = raw["properties"].get(MERGED_IDS)
    return tuple(part.strip() for part in text.split(";") if part.strip()) if isinstance(text, str) else ()


def pair_merged(
    left: Iterable[str], records: Sequence[dict[str, Any]], asked: Set[str], *, certain: bool
) -> dict[str, dict[str, Any]]:
    """Which of `records` stands for which of the ids that came back under none of their own.

    By the forebears a record names; else, where `certain` that no error entry speaks of it, the one id and the one
    unasked-for record that are left over belong together. What stays open is not in the answer.
    """
    by_forebear = {old: raw for raw in records for old in forebears(raw)}
    paired, open_ = {}, []
    for old in left:
        if old in by_forebear:
            paired[old] = by_forebear[old]
        else:
            open_.append(old)
    used = {raw["id"] for raw in paired.values()}
    strangers = [raw for raw in records if raw["id"] not in used and raw["id"] not in asked]
    if certain and len(open_) == 1 and len(strangers) == 1:
        paired[open_[0]] = strangers[0]
    return paired
