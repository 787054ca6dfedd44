from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crm_sync.domain.changes import ChangeSet, FieldDecision, FieldOutcome, WantedValue, WriteRule
from crm_sync.domain.records import FieldKind, FieldSchema, ObjectSchema, RecordRef, Value
from crm_sync.mapping.blanks import is_blank, lacking, placeholder_form
from crm_sync.pipeline.diff import decide

REF = RecordRef(crm="salesforce", object_type="Contact", id="003000000000001AAA")
PLACEHOLDERS = frozenset(placeholder_form(word) for word in ("[[unknown]]", "N/A", "-", "Unknown"))
RULES = (WriteRule.NEVER, WriteRule.FILL, WriteRule.REPLACE)
BLANKS: tuple[Value, ...] = (None, "", "  \t", ())


def a_schema(kinds: Mapping[str, FieldKind]) -> ObjectSchema:
    fields = {
        name: FieldSchema(name=name, label=name, kind=kind, native_type="any", writable=True)
        for name, kind in kinds.items()
    }
    return ObjectSchema(crm="salesforce", object_type="Contact", label="Contact", fields=fields)


def a_want(value: Value, rule: WriteRule = WriteRule.FILL, field: str = "Title", **more: str) -> WantedValue:
    return WantedValue(field=field, source="person.title", rule=rule, value=value, **more)


def decided(
    old: Value, new: Value, rule: WriteRule = WriteRule.FILL, kind: FieldKind = FieldKind.TEXT, **more: str
) -> FieldDecision:
    change = decide(
        REF, {"Title": old}, [a_want(new, rule, **more)], placeholders=PLACEHOLDERS, schema=a_schema({"Title": kind})
    )
    return change.decisions[0]


# --- rule by rule -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("old", BLANKS)
@pytest.mark.parametrize("rule", [WriteRule.FILL, WriteRule.REPLACE])
def test_a_blank_field_is_filled(old: Value, rule: WriteRule) -> None:
    decision = decided(old, "CTO", rule)

    assert (decision.outcome, decision.old, decision.new) == (FieldOutcome.WRITTEN, old, "CTO")
    assert decision.reason == "filled: was blank"


@pytest.mark.parametrize("old", ["n/a", " N/A ", "-", "[[Unknown]]"])
def test_a_placeholder_counts_as_blank_and_is_named(old: str) -> None:
    decision = decided(old, "CTO")

    assert decision.outcome is FieldOutcome.WRITTEN
    assert decision.reason == f'filled: was the placeholder "{old.strip()}"'


@pytest.mark.parametrize("old", ["Na", "Unknown Pleasures", "--", "CEO"])
def test_what_a_person_typed_is_kept_under_fill(old: str) -> None:
    decision = decided(old, "CTO")

    assert (decision.outcome, decision.reason) == (FieldOutcome.KEPT, "already filled")


def test_replace_writes_a_value_that_differs() -> None:
    decision = decided("CEO", "CTO", WriteRule.REPLACE)

    assert (decision.outcome, decision.reason) == (FieldOutcome.WRITTEN, "replaced: Apollo's value differs")


@pytest.mark.parametrize("old", ["CEO", None, "n/a"])
def test_never_writes_nothing_and_still_shows_the_value(old: Value) -> None:
    decision = decided(old, "CTO", WriteRule.NEVER)

    assert (decision.outcome, decision.new, decision.reason) == (FieldOutcome.KEPT, "CTO", "rule: never")


@pytest.mark.parametrize("rule", RULES)
def test_an_equal_value_is_the_same_whatever_the_rule(rule: WriteRule) -> None:
    assert decided("CTO", "CTO", rule).outcome is FieldOutcome.SAME


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("new", BLANKS)
def test_a_blank_answer_never_writes(rule: WriteRule, new: Value) -> None:
    decision = decided("CEO", new, rule)

    assert (decision.outcome, decision.reason) == (FieldOutcome.NO_VALUE, "Apollo has no value")


def test_why_there_is_no_value_is_passed_on() -> None:
    assert decided(None, None, note="the number is in no band").reason == "the number is in no band"


@pytest.mark.parametrize("rule", [WriteRule.FILL, WriteRule.REPLACE])
@pytest.mark.parametrize("old", [None, "-", "CEO"])
def test_a_placeholder_of_apollos_own_is_never_written(old: Value, rule: WriteRule) -> None:
    assert decided(old, "N/A", rule).outcome is not FieldOutcome.WRITTEN


def test_a_picklist_value_that_reads_like_a_placeholder_is_a_value() -> None:
    assert decided(None, "Unknown", kind=FieldKind.PICKLIST).outcome is FieldOutcome.WRITTEN


@pytest.mark.parametrize("rule", RULES)
def test_a_value_that_does_not_fit_is_invalid_for_that_field_alone(rule: WriteRule) -> None:
    schema = a_schema({"Title": FieldKind.TEXT, "City": FieldKind.TEXT})
    wanted = [a_want(None, rule, problem="too long"), a_want("Leeds", field="City")]

    change = decide(REF, {"Title": None, "City": None}, wanted, placeholders=PLACEHOLDERS, schema=schema)

    assert [(d.outcome, d.reason) for d in change.decisions] == [
        (FieldOutcome.INVALID, "too long"),
        (FieldOutcome.WRITTEN, "filled: was blank"),
    ]
    assert change.writes == {"City": "Leeds"}


def test_a_field_that_was_not_read_is_left_alone() -> None:
    change = decide(
        REF,
        {},
        [a_want("CTO", WriteRule.REPLACE)],
        placeholders=PLACEHOLDERS,
        schema=a_schema({"Title": FieldKind.TEXT}),
    )

    assert change.writes == {}
    assert change.decisions[0].old is None
    assert change.decisions[0].reason == "not read from the CRM, so left alone"


def test_a_checkbox_is_never_blank() -> None:
    unticked, ticked = False, True

    assert decided(unticked, ticked, kind=FieldKind.BOOLEAN).outcome is FieldOutcome.KEPT
    assert decided(unticked, ticked, WriteRule.REPLACE, FieldKind.BOOLEAN).outcome is FieldOutcome.WRITTEN


def test_nought_is_a_number_and_not_a_blank() -> None:
    assert decided(0, 640, kind=FieldKind.INTEGER).outcome is FieldOutcome.KEPT
    assert decided(None, 0, kind=FieldKind.INTEGER).outcome is FieldOutcome.WRITTEN


# --- the same value in another form -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "old", "new"),
    [
        (FieldKind.TEXT, "CTO ", "CTO"),
        (FieldKind.TEXT, "CTO", "CTO "),
        (FieldKind.TEXT, "2013", 2013),
        (FieldKind.EMAIL, "marta@acme.example", "Marta@Acme.example"),
        (FieldKind.TEXT, "marta@acme.example", "Marta@Acme.example"),
        (FieldKind.LONG_TEXT, "one\r\ntwo", "one\ntwo"),
        (FieldKind.INTEGER, "640", 640),
        (FieldKind.INTEGER, 640.0, 640),
        (FieldKind.INTEGER, "640.0", 640),
        (FieldKind.DECIMAL, "84000000", 84000000),
        (FieldKind.DECIMAL, "1.50", 1.5),
        (FieldKind.DECIMAL, Decimal("1.50"), 1.5),
        (FieldKind.BOOLEAN, "true", True),
        (FieldKind.MULTI_PICKLIST, ("b", "a"), ("a", "b")),
        (FieldKind.MULTI_PICKLIST, "b; a", ("a", "b")),
        (FieldKind.DATE, "2024-05-01", "2024-05-01"),
        (FieldKind.DATETIME, "2024-05-01T00:30:00.000+0000", "2024-05-01T00:30:00Z"),
        (FieldKind.DATETIME, "2024-05-01T00:30:00.250Z", "2024-05-01T00:30:00Z"),
        (FieldKind.DATETIME, "2024-05-01T02:30:00+02:00", "2024-05-01T00:30:00Z"),
    ],
)
def test_another_form_of_one_value_is_the_same(kind: FieldKind, old: Value, new: Value) -> None:
    assert decided(old, new, WriteRule.REPLACE, kind).outcome is FieldOutcome.SAME


@pytest.mark.parametrize(
    ("kind", "old", "new"),
    [
        (FieldKind.TEXT, "cto", "CTO"),
        (FieldKind.TEXT, "one\r\ntwo", "one\ntwo"),
        (FieldKind.PICKLIST, "vp", "VP"),
        (FieldKind.INTEGER, "640", 641),
        (FieldKind.INTEGER, "about 640", 640),
        (FieldKind.DECIMAL, "nan", 640),
        (FieldKind.BOOLEAN, False, True),
        (FieldKind.MULTI_PICKLIST, ("a",), ("a", "b")),
        (FieldKind.DATE, "2024-05-01", "2024-05-02"),
        (FieldKind.DATETIME, "2024-05-01T00:30:00Z", "2024-05-01T00:31:00Z"),
        (FieldKind.DATETIME, "yesterday", "2024-05-01T00:31:00Z"),
    ],
)
def test_a_different_value_is_not_the_same(kind: FieldKind, old: Value, new: Value) -> None:
    assert decided(old, new, WriteRule.REPLACE, kind).outcome is FieldOutcome.WRITTEN


# --- properties ---------------------------------------------------------------------------------------------------

TEXTS = st.one_of(st.text(max_size=12), st.sampled_from(["", " ", "n/a", "-", "CTO", "cto", "CTO ", "5", "5.0", "a;b"]))
VALUES: dict[FieldKind, st.SearchStrategy[Any]] = {
    FieldKind.TEXT: TEXTS,
    FieldKind.LONG_TEXT: st.one_of(TEXTS, st.sampled_from(["a\r\nb", "a\nb"])),
    FieldKind.EMAIL: st.sampled_from(["a@x.example", "A@x.example", ""]),
    FieldKind.INTEGER: st.integers(-5, 5),
    FieldKind.DECIMAL: st.one_of(st.integers(-5, 5), st.floats(allow_nan=False, allow_infinity=False)),
    FieldKind.BOOLEAN: st.booleans(),
    FieldKind.PICKLIST: st.sampled_from(["VP", "vp", "Unknown", ""]),
    FieldKind.MULTI_PICKLIST: st.lists(st.sampled_from(["a", "b", "c"]), unique=True).map(tuple),
    FieldKind.DATETIME: st.sampled_from(["2024-05-01T00:30:00Z", "2024-05-01T00:30:00.000+0000", ""]),
}


@st.composite
def records(draw: st.DrawFn) -> tuple[dict[str, FieldKind], dict[str, Value], list[WantedValue]]:
    kinds = draw(st.lists(st.sampled_from(sorted(VALUES)), min_size=1, max_size=5))
    names = {f"F{index}": kind for index, kind in enumerate(kinds)}
    # A CRM may hold text anywhere: HubSpot answers every value as text.
    current = {name: draw(st.one_of(st.none(), VALUES[kind], TEXTS)) for name, kind in names.items()}
    wanted = []
    for name, kind in names.items():
        problem = draw(st.sampled_from(["", "", "", "does not fit"]))
        value = None if problem else draw(st.one_of(st.none(), VALUES[kind]))
        wanted.append(a_want(value, draw(st.sampled_from(RULES)), name, problem=problem))
    return names, current, wanted


def changes_of(kinds: dict[str, FieldKind], current: dict[str, Value], wanted: list[WantedValue]) -> ChangeSet:
    return decide(REF, current, wanted, placeholders=PLACEHOLDERS, schema=a_schema(kinds))


@given(records())
def test_decisions_keep_order_and_length(record: tuple[Any, Any, Any]) -> None:
    kinds, current, wanted = record

    decisions = changes_of(kinds, current, wanted).decisions

    assert [(d.field, d.rule, d.new) for d in decisions] == [(w.field, w.rule, w.value) for w in wanted]
    assert all(d.reason for d in decisions)
    assert [d.old for d in decisions] == [current[w.field] for w in wanted]


@given(records())
def test_deciding_again_after_the_writes_gives_no_writes(record: tuple[Any, Any, Any]) -> None:
    kinds, current, wanted = record
    after = current | changes_of(kinds, current, wanted).writes

    assert changes_of(kinds, after, wanted).writes == {}


@given(records())
def test_a_blank_never_replaces_a_value_and_fill_never_replaces_what_a_person_typed(
    record: tuple[Any, Any, Any],
) -> None:
    kinds, current, wanted = record
    rules = {w.field: w.rule for w in wanted}

    for field, new in changes_of(kinds, current, wanted).writes.items():
        assert not is_blank(new)
        assert rules[field] is not WriteRule.NEVER
        if rules[field] is WriteRule.FILL:
            assert lacking(current, [field], PLACEHOLDERS) == (field,)


@given(records())
def test_what_was_filled_is_no_longer_lacking(record: tuple[Any, Any, Any]) -> None:
    kinds, current, wanted = record
    texts = {name for name, kind in kinds.items() if kind is not FieldKind.PICKLIST}
    writes = changes_of(kinds, current, wanted).writes

    assert lacking(writes, [name for name in writes if name in texts], PLACEHOLDERS) == ()


def test_lacking_names_blank_and_placeholder_fields_in_the_order_asked() -> None:
    values: dict[str, Value] = {"A": " - ", "B": "CTO", "C": None, "D": 0, "E": False, "F": ()}

    assert lacking(values, ["F", "E", "D", "C", "B", "A", "G"], PLACEHOLDERS) == ("F", "C", "A", "G")
