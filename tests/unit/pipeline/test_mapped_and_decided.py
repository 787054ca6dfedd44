"""From any answer of Apollo's to any record: what is written once is not written again, and no blank replaces anything."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from crm_sync.config.model import Band, FieldMapping
from crm_sync.domain.changes import ChangeSet, FieldOutcome, LastWrite, WriteRule
from crm_sync.domain.enrichment import Enrichment, Verdict
from crm_sync.domain.records import Choice, FieldKind, FieldSchema, ObjectSchema, RecordRef, Value
from crm_sync.mapping.apply import Mapped, Mapper
from crm_sync.mapping.blanks import is_blank, placeholder_form
from crm_sync.mapping.picklists import fold
from crm_sync.mapping.same import same, spelling
from crm_sync.pipeline.diff import History, decide

REF = RecordRef(crm="crm", object_type="Contact", id="003000000000001AAA")
PLACEHOLDERS = frozenset(map(placeholder_form, ("n/a", "-", "unknown")))
NOON = datetime(2026, 10, 8, 12, 0, tzinfo=UTC)
CHOICES = tuple(Choice(value=v, label=label) for v, label in (("vp", "VP"), ("exec", "Executive"), ("1-50", "Small")))


def a_schema(kind: FieldKind, **limits: int | None) -> dict[str, Any]:
    choices = CHOICES if kind in (FieldKind.PICKLIST, FieldKind.MULTI_PICKLIST) else ()
    return {"kind": kind, "choices": choices, **limits}


TITLE = {"source": "person.title"}
SENIORITY = {"source": "person.seniority", "picklist": {fold("c_suite"): "Executive", fold("head"): "vp"}}
HEADCOUNT = {"source": "organization.estimated_num_employees"}
#: What may be mapped into what: options of a mapping, and of the field it goes into.
WAYS: tuple[tuple[dict[str, Any], dict[str, Any]], ...] = (
    (TITLE, a_schema(FieldKind.TEXT)),
    (TITLE | {"transform": ("trim", "title_case")}, a_schema(FieldKind.TEXT, length=12)),
    (TITLE | {"max": 8}, a_schema(FieldKind.LONG_TEXT)),
    (TITLE | {"when": "person.seniority = vp"}, a_schema(FieldKind.TEXT)),
    ({"source": "organization.short_description"}, a_schema(FieldKind.LONG_TEXT)),
    ({"source": "person.email"}, a_schema(FieldKind.EMAIL)),
    ({"source": "person.linkedin_url", "transform": ("https",)}, a_schema(FieldKind.URL, length=40)),
    ({"template": "{{ person.city }}, {{ person.country }}"}, a_schema(FieldKind.TEXT)),
    (SENIORITY, a_schema(FieldKind.PICKLIST)),
    (SENIORITY | {"unmapped": "use", "unmapped_use": "1-50"}, a_schema(FieldKind.PICKLIST)),
    ({"source": "person.departments", "picklist": {fold("sales"): "vp"}}, a_schema(FieldKind.MULTI_PICKLIST)),
    ({"source": "person.departments", "join": "; "}, a_schema(FieldKind.TEXT)),
    (HEADCOUNT, a_schema(FieldKind.INTEGER, digits=6)),
    (HEADCOUNT | {"round": 10}, a_schema(FieldKind.DECIMAL, digits=8, scale=2)),
    (HEADCOUNT | {"bands": (Band(value="1-50", low=1, high=50),)}, a_schema(FieldKind.PICKLIST)),
    (HEADCOUNT, a_schema(FieldKind.TEXT)),
    ({"source": "organization.annual_revenue"}, a_schema(FieldKind.DECIMAL, digits=12, scale=0)),
    ({"source": "person.is_likely_to_engage"}, a_schema(FieldKind.BOOLEAN)),
    ({"source": "organization.latest_funding_round_date"}, a_schema(FieldKind.DATE)),
    ({"source": "organization.latest_funding_round_date"}, a_schema(FieldKind.DATETIME)),
)

WORDS = st.one_of(
    st.sampled_from(["", " ", "n/a", "-", "CTO", "cto ", "two\nlines", "5.0", "a;b", "x@Y.example", "vp"]),
    st.text(max_size=14),
)
#: What Apollo is known to send for an attribute, and now and then what it is not.
ATTRIBUTES: Mapping[str, st.SearchStrategy[Any]] = {
    "person.title": WORDS,
    "person.seniority": st.sampled_from(["vp", "VP", "c_suite", "head", "entry", "Executive"]),
    "person.email": st.sampled_from(["Jane@Acme.com", "jane@acme.com", ""]),
    "person.linkedin_url": st.sampled_from(
        ["http://www.linkedin.com/in/jane", "http://www.linkedin.com/in/" + "j" * 40]
    ),
    "person.city": WORDS,
    "person.country": WORDS,
    "person.departments": st.lists(st.sampled_from(["sales", "VP", "exec", "unheard of"]), max_size=3),
    "person.is_likely_to_engage": st.booleans(),
    "organization.short_description": st.sampled_from(["Grid software.", "Grids.\nAnd more.\n"]),
    "organization.estimated_num_employees": st.one_of(st.integers(-2, 10**7), st.floats(0, 100)),
    "organization.annual_revenue": st.one_of(st.integers(0, 10**13), st.floats(0, 1e9, allow_nan=False)),
    "organization.latest_funding_round_date": st.sampled_from(["2024-05-01", "2024-05-01T00:30:00.000+02:00", "soon"]),
}
ODD = st.one_of(
    st.none(), st.integers(), st.booleans(), st.lists(st.none(), max_size=1), st.just({"a": 1}), st.just("\x00\n ")
)


@st.composite
def answers(draw: st.DrawFn) -> Enrichment:
    sides: dict[str, dict[str, Any]] = {"person": {}, "organization": {}}
    for path, values in ATTRIBUTES.items():
        side, name = path.split(".")
        how = draw(st.sampled_from(["known", "known", "known", "odd", "absent"]))
        if how != "absent":
            sides[side][name] = draw(values if how == "known" else ODD)
    return Enrichment(verdict=Verdict.MATCHED, **sides)


RULES = st.sampled_from(list(WriteRule))
MOSTLY = st.sampled_from([True, True, True, True, False])
OLD = st.one_of(
    st.none(),
    st.none(),
    st.none(),
    WORDS,
    st.integers(-5, 5),
    st.booleans(),
    st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from([("vp",), ("exec", "vp"), (), "vp;exec", "2024-05-01", "2024-05-01T00:30:00.000+0000"]),
)


@st.composite
def cases(draw: st.DrawFn) -> tuple[tuple[FieldMapping, ...], ObjectSchema, dict[str, Value]]:
    """All ways at once, each under any rule; the object they go into, and a record of it, half of it blank."""
    mappings, fields, record = [], {}, {}
    for number, (options, limits) in enumerate(WAYS):
        name = f"F{number}"
        mappings.append(FieldMapping(field=name, rule=draw(RULES), **options))
        fields[name] = FieldSchema(name=name, label=name, native_type="any", writable=draw(MOSTLY), **limits)
        if draw(MOSTLY):
            record[name] = draw(OLD)
    return tuple(mappings), ObjectSchema(crm="crm", object_type="Contact", label="Contact", fields=fields), record


def changes(mapped: Mapped, schema: ObjectSchema, record: Mapping[str, Value], history: History) -> ChangeSet:
    return decide(REF, record, mapped.wanted, placeholders=PLACEHOLDERS, schema=schema, history=history)


# --- how a CRM gives back what was written ----------------------------------------------------------------------------


def as_written(value: Value, kind: FieldKind) -> Value:
    return value


def as_salesforce(value: Value, kind: FieldKind) -> Value:
    """Trimmed, with its own line ends, milliseconds and order of choices (contracts/salesforce.md 2.3, 2026-11)."""
    if isinstance(value, tuple):
        return tuple(sorted(value))
    if kind is FieldKind.DATETIME:
        return str(value).replace("Z", ".000+0000")
    if kind in (FieldKind.INTEGER, FieldKind.DECIMAL):
        return float(str(value))
    return str(value).strip().replace("\n", "\r\n") if isinstance(value, str) else value


def as_hubspot(value: Value, kind: FieldKind) -> Value:
    """As text, addresses lowered (contracts/hubspot.md 2.3, 2026-11)."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, tuple):
        return ";".join(reversed(value))
    return str(value).lower() if kind is FieldKind.EMAIL else str(value)


KEPT_BY = st.sampled_from([as_written, as_salesforce, as_hubspot])


def noted(writes: Mapping[str, Value]) -> History:
    def last(written: Value) -> LastWrite:
        return LastWrite(at=NOON, holds=lambda value, kind: spelling(value) == spelling(written))

    return {name: last(value) for name, value in writes.items()}


# --- properties -------------------------------------------------------------------------------------------------------


@given(cases(), answers())
def test_every_mapping_has_its_value_and_its_decision_in_its_place(
    case: tuple[tuple[FieldMapping, ...], ObjectSchema, dict[str, Value]], answer: Enrichment
) -> None:
    mappings, schema, record = case
    mapper = Mapper(mappings, schema)

    mapped = mapper.want(answer)
    decisions = changes(mapped, schema, record, {}).decisions

    assert [(want.field, want.rule) for want in mapped.wanted] == [(m.field, m.rule) for m in mappings]
    assert [(d.field, d.rule, d.new) for d in decisions] == [(w.field, w.rule, w.value) for w in mapped.wanted]
    assert all(decision.reason for decision in decisions)
    assert mapper.want(answer) == mapped


@given(cases(), answers())
def test_a_blank_never_replaces_a_value_and_what_cannot_be_written_is_not(
    case: tuple[tuple[FieldMapping, ...], ObjectSchema, dict[str, Value]], answer: Enrichment
) -> None:
    mappings, schema, record = case
    rules = {mapping.field: mapping.rule for mapping in mappings}

    writes = changes(Mapper(mappings, schema).want(answer), schema, record, {}).writes

    for name, new in writes.items():
        field = schema.fields[name]
        assert not is_blank(new)
        assert field.writable
        assert rules[name] not in (WriteRule.NEVER, WriteRule.REVIEW)
        assert name in record
        assert field.choices or placeholder_form(str(new)) not in PLACEHOLDERS
        if field.choices:
            assert set(new if isinstance(new, tuple) else (new,)) <= {choice.value for choice in CHOICES}
        if field.length is not None:
            assert len(str(new)) <= field.length


@settings(max_examples=500, deadline=None)
@given(cases(), answers(), KEPT_BY)
def test_what_was_written_is_not_written_again(
    case: tuple[tuple[FieldMapping, ...], ObjectSchema, dict[str, Value]],
    answer: Enrichment,
    kept_by: Callable[[Value, FieldKind], Value],
) -> None:
    mappings, schema, record = case
    mapped = Mapper(mappings, schema).want(answer)
    writes = changes(mapped, schema, record, {}).writes

    after = record | {name: kept_by(value, schema.fields[name].kind) for name, value in writes.items()}
    again = changes(mapped, schema, after, noted(writes))

    assert again.writes == {}
    same_now = {d.field for d in again.decisions if d.outcome is FieldOutcome.SAME}
    assert set(writes) <= same_now


@settings(max_examples=500, deadline=None)
@given(cases(), answers(), answers(), KEPT_BY, OLD)
def test_a_later_answer_changes_only_what_nobody_touched(
    case: tuple[tuple[FieldMapping, ...], ObjectSchema, dict[str, Value]],
    first: Enrichment,
    later: Enrichment,
    kept_by: Callable[[Value, FieldKind], Value],
    typed: Value,
) -> None:
    mappings, schema, record = case
    mapper = Mapper(mappings, schema)
    writes = changes(mapper.want(first), schema, record, {}).writes
    after = record | {name: kept_by(value, schema.fields[name].kind) for name, value in writes.items()}
    edited = after | {name: typed for number, name in enumerate(writes) if number % 2}

    second = changes(mapper.want(later), schema, edited, noted(writes)).writes

    for mapping in mappings:
        name, old = mapping.field, edited.get(mapping.field)
        if name not in second or mapping.rule is WriteRule.REPLACE:
            continue
        if mapping.rule is WriteRule.TRACK and name in writes:
            assert spelling(old) == spelling(writes[name]), "a person's edit was written over"
        else:
            assert is_blank(old) or placeholder_form(str(old)) in PLACEHOLDERS
        assert not same(old, second[name], schema.fields[name].kind)
