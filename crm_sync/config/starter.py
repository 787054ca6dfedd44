"""The crm_sync.yaml that `crm-sync init` writes: a suggested mapping of what this CRM has, everything on `fill`."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from crm_sync.config.apollo_attributes import AttributeKind, find
from crm_sync.domain.records import FieldKind, FieldSchema, ObjectSchema
from crm_sync.mapping.picklists import builtin_table, fold

PLACEHOLDERS = ("[[unknown]]", "n/a", "-", "unknown")

#: HubSpot's search takes five OR groups (contracts/hubspot.md 2.2, 2026-11). A text field that may hold a
#: placeholder needs two of them, "has no value" and "is one of", any other field one.
_HUBSPOT_GROUPS = 5

_TEXTS = (FieldKind.TEXT, FieldKind.LONG_TEXT)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Suggestion:
    """An attribute and where it usually goes: API names first, then a pattern for names and labels of own fields."""

    source: str
    names: tuple[str, ...] = ()
    pattern: str = ""
    #: The ready table for a picklist.
    builtin: str = ""


_SENIORITY = r"seniority|job.?level|management.?level"
_LINKEDIN = r"linked.?in(?!.*(?:connection|follower|bio|id\b))"
_SUGGESTIONS: Mapping[str, tuple[_Suggestion, ...]] = {
    "Contact": (
        _Suggestion(source="person.title", names=("Title",)),
        _Suggestion(source="person.seniority", pattern=_SENIORITY, builtin="salesforce_seniority"),
        _Suggestion(source="person.linkedin_url", pattern=_LINKEDIN),
        _Suggestion(source="person.functions", names=("Department",)),
        _Suggestion(source="person.city", names=("MailingCity",)),
        _Suggestion(source="person.state", names=("MailingState",)),
        _Suggestion(source="person.country", names=("MailingCountry",)),
    ),
    "Lead": (
        _Suggestion(source="person.title", names=("Title",)),
        _Suggestion(source="person.seniority", pattern=_SENIORITY, builtin="salesforce_seniority"),
        _Suggestion(source="person.linkedin_url", pattern=_LINKEDIN),
        _Suggestion(source="person.city", names=("City",)),
        _Suggestion(source="person.state", names=("State",)),
        _Suggestion(source="person.country", names=("Country",)),
        _Suggestion(source="organization.industry", names=("Industry",), builtin="salesforce_industry"),
        _Suggestion(source="organization.estimated_num_employees", names=("NumberOfEmployees",)),
    ),
    "Account": (
        _Suggestion(source="organization.industry", names=("Industry",), builtin="salesforce_industry"),
        _Suggestion(source="organization.estimated_num_employees", names=("NumberOfEmployees",)),
        _Suggestion(source="organization.annual_revenue", names=("AnnualRevenue",)),
        _Suggestion(source="organization.linkedin_url", pattern=_LINKEDIN),
        _Suggestion(source="organization.short_description", names=("Description",)),
        _Suggestion(source="organization.city", names=("BillingCity",)),
        _Suggestion(source="organization.state", names=("BillingState",)),
        _Suggestion(source="organization.country", names=("BillingCountry",)),
    ),
    "contacts": (
        _Suggestion(source="person.title", names=("jobtitle",)),
        _Suggestion(source="person.seniority", names=("hs_seniority",), builtin="hubspot_seniority"),
        _Suggestion(source="person.city", names=("city",)),
        _Suggestion(source="person.linkedin_url", names=("hs_linkedin_url",)),
        _Suggestion(source="person.state", names=("state",)),
        _Suggestion(source="person.country", names=("country",)),
    ),
    "companies": (
        _Suggestion(source="organization.industry", names=("industry",), builtin="hubspot_industry"),
        _Suggestion(source="organization.estimated_num_employees", names=("numberofemployees",)),
        _Suggestion(source="organization.city", names=("city",)),
        _Suggestion(source="organization.country", names=("country",)),
        _Suggestion(source="organization.founded_year", names=("founded_year",)),
        _Suggestion(source="organization.linkedin_url", names=("linkedin_company_page",)),
        # Last: Apollo's bulk answers rarely have it, so it should not decide which records are due.
        _Suggestion(source="organization.annual_revenue", names=("annualrevenue",)),
    ),
}

#: Which of an org's own words for a job level an Apollo seniority means, best first.
_LEVELS: Mapping[str, str] = {
    "owner": r"owner|founder|executive|c.?(level|suite|xo)",
    "founder": r"founder|owner|executive|c.?(level|suite|xo)",
    "c_suite": r"c.?(level|suite|xo)|executive|chief",
    "partner": r"partner|owner|executive|c.?(level|suite|xo)",
    "vp": r"vp|vice.?president",
    "head": r"head|vp|vice.?president|director",
    "director": r"director",
    "manager": r"manager",
    "senior": r"senior|individual|employee|staff",
    "entry": r"entry|junior|individual|employee|staff",
    "intern": r"intern\b|internship|entry|junior|individual|employee|staff",
}

# Sync name, object, and what to send: key -> fields, best first.
_SYNCS: Mapping[str, tuple[tuple[str, str, tuple[tuple[str, tuple[str, ...]], ...]], ...]] = {
    "salesforce": (
        (
            "contacts",
            "Contact",
            (
                ("email", ("Email",)),
                ("first_name", ("FirstName",)),
                ("last_name", ("LastName",)),
                ("domain", ("Account.Website | domain", "Email | domain")),
            ),
        ),
        (
            "leads",
            "Lead",
            (
                ("email", ("Email",)),
                ("first_name", ("FirstName",)),
                ("last_name", ("LastName",)),
                ("organization_name", ("Company",)),
                ("domain", ("Website | domain", "Email | domain")),
            ),
        ),
        ("accounts", "Account", (("domain", ("Website | domain",)),)),
    ),
    "hubspot": (
        (
            "contacts",
            "contacts",
            (
                ("email", ("email",)),
                ("first_name", ("firstname",)),
                ("last_name", ("lastname",)),
                ("domain", ("website | domain", "email | domain")),
            ),
        ),
        ("companies", "companies", (("domain", ("domain | domain", "website | domain")),)),
    ),
}

_WHERE = {
    "Contact": '"AccountId != null"',
    "Lead": '"IsConverted = false"',
    "Account": '"Website != null"',
    "contacts": "[{property: lifecyclestage, operator: EQ, value: customer}]",
    "companies": "[{property: domain, operator: HAS_PROPERTY}]",
}

_HEAD = """\
# crm-sync: what to fill in {crm_name}, and how. docs/configuration.md explains every key.
# Written by `crm-sync init` from the fields your user can write. Everything is on `fill`: a field is written only
# while it is blank. Look at `crm-sync plan {first} --limit 10` before you run it.
version: 1
timezone: {timezone}

crms:
  {crm_name}:
    type: {crm_type}
    environment: {environment}         # sandbox | production: say which one this is

apollo:
  workers: 4                   # calls at the same time; the pace follows Apollo's own limits

placeholders: [{placeholders}]     # count as blank

syncs:
"""

_TAIL = """
# What else this file can say:
#   budget: {per_run: 500, per_day: 2000}          # credits
#   suppress: {lists: [do_not_enrich.csv]}         # people and domains to leave alone
#   keep: {answers: 180d}                          # how long Apollo's answers are kept
# and of a field:
#   Title: {from: person.title, write: track}      # update what nobody has touched since we wrote it
# Available in a later version; until then these keys are refused by name:
#   alerts: [{when: run_failed, tell: ["mailto://ops@example.com"]}]
#   phones: {reveal_when: "…", route: {mobile: MobilePhone}}      # of a sync
"""


def starter(
    crm_name: str,
    crm_type: str,
    schemas: Mapping[str, ObjectSchema],
    *,
    environment: str = "sandbox",
    timezone: str = "UTC",
) -> str:
    """The text of a first crm_sync.yaml for the objects in `schemas`; names only what exists and can be written.

    Raises:
        ValueError: none of the objects has anything to fill.
    """
    blocks: list[tuple[str, str]] = []
    for sync, object_type, send in _SYNCS[crm_type]:
        schema = schemas.get(object_type)
        lines = None if schema is None else _sync(sync, crm_name, crm_type, schema, schemas, send)
        if lines:
            blocks.append((sync, "".join(f"{line}\n" for line in lines)))
    if not blocks:
        raise ValueError(f"{crm_name} has no object with a field that Apollo can fill and this user can write")
    head = _HEAD.format(
        crm_name=crm_name,
        crm_type=crm_type,
        environment=environment,
        timezone=timezone,
        first=blocks[0][0],
        placeholders=", ".join(json.dumps(word) for word in PLACEHOLDERS),
    )
    return head + "\n".join(block for _, block in blocks) + _TAIL


def _sync(
    name: str,
    crm_name: str,
    crm_type: str,
    schema: ObjectSchema,
    schemas: Mapping[str, ObjectSchema],
    send: tuple[tuple[str, tuple[str, ...]], ...],
) -> list[str]:
    sent = [(key, usable) for key, entries in send if (usable := [e for e in entries if _readable(e, schema, schemas)])]
    profile = _linkedin(schema)
    if profile is not None:
        sent.append(("linkedin_url", [profile.name]))
    keys = {key for key, _ in sent}
    if not (keys & {"email", "linkedin_url"} or {"first_name", "last_name", "domain"} <= keys) and (
        "domain" not in keys or "last_name" in keys
    ):
        return []
    mapped = list(_mapped(schema))
    if not mapped:
        return []
    return [
        f"  {name}:",
        f"    crm: {crm_name}",
        f"    object: {schema.object_type}",
        "    choose:",
        f"      # where: {_WHERE[schema.object_type]}     # only these records",
        *_missing_any(crm_type, [field for field, _ in mapped]),
        "      or_older_than: 120d        # look again after that time",
        "      at_most: 1000              # records in one run, so at most as many credits",
        "    match:",
        "      send:                      # what Apollo is asked by",
        *(f"        {key}: {fields[0] if len(fields) == 1 else _flow(fields)}" for key, fields in sent),
        "    fields:                      # CRM field <- Apollo",
        *(line for _, lines in mapped for line in lines),
    ]


def _readable(entry: str, schema: ObjectSchema, schemas: Mapping[str, ObjectSchema]) -> bool:
    relationship, dot, name = entry.partition(" | ")[0].partition(".")
    if not dot:
        return relationship in schema.fields
    via = next((f for f in schema.fields.values() if f.relationship == relationship and f.refers_to), None)
    parent = schemas.get(via.refers_to[0]) if via is not None else None
    return parent is not None and name in parent.fields


def _linkedin(schema: ObjectSchema) -> FieldSchema | None:
    return next(
        (f for s in _SUGGESTIONS[schema.object_type] if "linkedin" in s.source and (f := _target(s, schema))), None
    )


def _missing_any(crm_type: str, fields: list[FieldSchema]) -> list[str]:
    """The line `missing_any`, unless its default (every field below) is right."""
    chosen = [field for field in fields if field.filterable]
    if crm_type == "hubspot":
        left, fitting = _HUBSPOT_GROUPS, []
        for field in chosen:
            cost = 1 if field.kind in _NO_PLACEHOLDERS else 2
            if cost <= left:
                fitting.append(field)
                left -= cost
        chosen = fitting
    if len(chosen) == len(fields) or not chosen:
        return []
    why = "HubSpot's search takes no more" if crm_type == "hubspot" else "the others cannot be filtered by"
    return [
        f"      # A record is due when one of these is blank. Default: every field below; {why}.",
        f"      missing_any: {_flow([f.name for f in chosen])}",
    ]


_NO_PLACEHOLDERS = frozenset(
    (
        FieldKind.INTEGER,
        FieldKind.DECIMAL,
        FieldKind.BOOLEAN,
        FieldKind.DATE,
        FieldKind.DATETIME,
        FieldKind.PICKLIST,
        FieldKind.MULTI_PICKLIST,
    )
)


# --- the mapping ------------------------------------------------------------------------------------------------


def _mapped(schema: ObjectSchema) -> Iterator[tuple[FieldSchema, list[str]]]:
    taken: set[str] = set()
    for suggestion in _SUGGESTIONS[schema.object_type]:
        field = _target(suggestion, schema)
        if field is None or field.name in taken:
            continue
        lines = _lines(suggestion, field)
        if lines:
            taken.add(field.name)
            yield field, lines


def _target(suggestion: _Suggestion, schema: ObjectSchema) -> FieldSchema | None:
    for name in suggestion.names:
        field = schema.fields.get(name)
        if field is not None and field.writable and not _is_governed(field, schema):
            return field
    if not suggestion.pattern:
        return None
    pattern = re.compile(suggestion.pattern, re.IGNORECASE)
    return next(
        (f for f in schema.fields.values() if f.writable and (pattern.search(f.name) or pattern.search(f.label))), None
    )


def _is_governed(field: FieldSchema, schema: ObjectSchema) -> bool:
    """A state or country that a State & Country picklist governs refuses free text (contracts/salesforce.md 2.6)."""
    return field.name.endswith(("State", "Country")) and f"{field.name}Code" in schema.fields


def _lines(suggestion: _Suggestion, field: FieldSchema) -> list[str]:
    attribute = find(suggestion.source)
    assert attribute is not None, suggestion.source
    source = suggestion.source
    if field.kind is FieldKind.PICKLIST:
        return (
            _seniority_lines(suggestion, field) if source == "person.seniority" else _builtin_lines(suggestion, field)
        )
    if attribute.kind.is_number and field.kind in (FieldKind.INTEGER, FieldKind.DECIMAL):
        whole = attribute.kind is AttributeKind.NUMBER
        return [f"      {field.name}: {{from: {source}, round: 1}}" if whole else f"      {field.name}: {source}"]
    if attribute.kind is AttributeKind.LIST:
        # Apollo's words for a list are its own: product_management.
        mapped = f'      {field.name}: {{from: {source}, transform: [words, title_case], join: ", "}}'
        return [mapped] if field.kind in _TEXTS else []
    fits = field.kind in _TEXTS or (attribute.kind is AttributeKind.URL and field.kind is FieldKind.URL)
    if not fits or (attribute.kind is AttributeKind.NUMBER):
        return []
    return [f"      {field.name}: {source}"]


def _builtin_lines(suggestion: _Suggestion, field: FieldSchema) -> list[str]:
    """The ready table where the org still uses the CRM's own list, else a hint to write one."""
    values = set(builtin_table(suggestion.builtin).values())
    active = {choice.value for choice in field.choices if choice.active}
    if len(values & active) * 2 < len(values):
        return []
    return [f'      {field.name}: {{from: {suggestion.source}, picklist_file: "builtin:{suggestion.builtin}"}}']


def _seniority_lines(suggestion: _Suggestion, field: FieldSchema) -> list[str]:
    """The table itself, so that an admin sees it: by the ready one where its value is there, else by the words."""
    ready = builtin_table(suggestion.builtin)
    active = {choice.value for choice in field.choices if choice.active}
    table: dict[str, list[str]] = {}
    without: list[str] = []
    for word, pattern in _LEVELS.items():
        usual = ready.get(fold(word), "")
        choice = usual if usual in active else _best_choice(field, pattern)
        if choice is None:
            without.append(word)
        else:
            table.setdefault(choice, []).append(word)
    if not table:
        return []
    return [
        f"      {field.name}:",
        "        from: person.seniority",
        "        picklist:                # CRM value <- Apollo values",
        *(f"          {_scalar(value)}: {_flow(words)}" for value, words in table.items()),
        *([f"        # without an equal here, so left blank: {', '.join(without)}"] if without else []),
        "        unmapped: leave",
    ]


def _best_choice(field: FieldSchema, pattern: str) -> str | None:
    for alternative in _alternatives(pattern):
        word = re.compile(rf"(?<![a-z])(?:{alternative})", re.IGNORECASE)
        for choice in field.choices:
            if choice.active and (word.search(choice.value) or word.search(choice.label)):
                return choice.value
    return None


def _alternatives(pattern: str) -> list[str]:
    """The top-level alternatives of a pattern, so that the first word wins over a later choice."""
    return re.split(r"\|(?![^(]*\))", pattern)


_PLAIN = re.compile(r"[A-Za-z][A-Za-z0-9_./&()+-]*(?: [A-Za-z0-9_./&()+-]+)*\Z")


def _scalar(text: str) -> str:
    """`text` as a YAML scalar, in quotes where it needs them."""
    if _PLAIN.match(text) and text.casefold() not in ("null", "true", "false", "yes", "no", "on", "off", "y", "n"):
        return text
    return json.dumps(text, ensure_ascii=False)


def _flow(texts: list[str]) -> str:
    return "[" + ", ".join(t if "|" in t else _scalar(t) for t in texts) + "]"
