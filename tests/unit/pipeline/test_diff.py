from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crm_sync.domain.changes import (
    Amendment,
    ChangeSet,
    FieldDecision,
    FieldOutcome,
    LastWrite,
    WantedValue,
    WriteRule,
)
from crm_sync.domain.records import FieldKind, FieldSchema, ObjectSchema, RecordRef, Value
from crm_sync.mapping.blanks import is_blank, lacking, placeholder_form
from crm_sync.mapping.same import same
from crm_sync.pipeline.diff import amend, decide

REF = RecordRef(crm="salesforce", object_type="Contact", id="003000000000001AAA")
PLACEHOLDERS = frozenset(placeholder_form(word) for word in ("[[unknown]]", "N/A", "-", "Unknown"))
RULES = (WriteRule.NEVER, WriteRule.FILL, WriteRule.REPLACE)
BLANKS: tuple[Value, ...] = (None, "", "  \t", ())


def a_schema(kinds: Mapping[str, FieldKind], *, read_only: Collection[str] = ()) -> ObjectSchema:
    fields = {
        name: FieldSchema(
            name=name,
            label=name,
            kind=kind,
            native_type="any",
            writable=name not in read_only,
            why_not="it is a formula" if name in read_only else "",
        )
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


# --- track: what crm-sync wrote it keeps up to date, what a person typed it leaves -----------------------------------

MAY = datetime(2026, 5, 3, 12, 0, tzinfo=UTC)


def our_write(value: Value, *, released: bool = False) -> LastWrite:
    return LastWrite(at=MAY, holds=lambda held, kind: same(held, value, kind), released=released)


def tracked(old: Value, new: Value, last: LastWrite | None, kind: FieldKind = FieldKind.TEXT) -> FieldDecision:
    change = decide(
        REF,
        {"Title": old},
        [a_want(new, WriteRule.TRACK)],
        placeholders=PLACEHOLDERS,
        schema=a_schema({"Title": kind}),
        history={"Title": last} if last is not None else {},
    )
    return change.decisions[0]


def test_a_field_that_still_holds_our_value_is_updated() -> None:
    decision = tracked("CTO", "CEO", our_write("CTO"))

    assert (decision.outcome, decision.old, decision.new) == (FieldOutcome.WRITTEN, "CTO", "CEO")
    assert decision.reason == "updated: still held our value of 3 May 2026"


def test_an_edit_after_our_write_locks_the_field() -> None:
    decision = tracked("Boss", "CEO", our_write("CTO"))

    assert decision.outcome is FieldOutcome.KEPT
    assert decision.reason == "kept: changed by a person after our write of 3 May 2026"


@pytest.mark.parametrize("old", [*BLANKS, "n/a", "-"])
def test_what_a_person_emptied_stays_empty(old: Value) -> None:
    decision = tracked(old, "CEO", our_write("CTO"))

    assert decision.outcome is FieldOutcome.KEPT
    assert decision.reason == "kept: emptied by a person after our write of 3 May 2026"


@pytest.mark.parametrize(("old", "outcome"), [(None, FieldOutcome.WRITTEN), ("Boss", FieldOutcome.KEPT)])
def test_a_write_that_was_never_confirmed_does_not_keep_a_field_empty(old: Value, outcome: FieldOutcome) -> None:
    """Its answer was lost: nobody knows that the field was ever filled, so nobody emptied it."""
    lost = LastWrite(at=MAY, holds=lambda value, kind: value == "CTO", is_bare=lambda value, kind: not value)

    decision = tracked(old, "CEO", lost)

    assert decision.outcome is outcome
    if old is None:
        assert decision.reason == "filled: was blank"


@pytest.mark.parametrize("old", [None, "Boss"])
def test_a_released_field_is_ours_from_what_it_holds_now(old: Value) -> None:
    held = LastWrite(at=MAY, holds=lambda value, kind: value == old, released=True)

    decision = tracked(old, "CEO", held)

    assert decision.outcome is FieldOutcome.WRITTEN
    assert decision.reason == "replaced: released to crm-sync on 3 May 2026"


def test_a_released_field_that_was_edited_since_is_a_persons_again() -> None:
    assert tracked("Chief", "CEO", our_write("Boss", released=True)).outcome is FieldOutcome.KEPT


@pytest.mark.parametrize("old", [None, "", "n/a"])
def test_a_field_that_was_never_ours_is_filled_where_it_is_empty(old: Value) -> None:
    assert tracked(old, "CEO", None).reason.startswith("filled: was")


def test_a_field_that_was_never_ours_and_has_a_value_is_kept() -> None:
    decision = tracked("Boss", "CEO", None)

    assert (decision.outcome, decision.reason) == (FieldOutcome.KEPT, "kept: already filled, and not by crm-sync")


@pytest.mark.parametrize(("old", "outcome"), [(False, FieldOutcome.KEPT), (True, FieldOutcome.WRITTEN)])
def test_a_checkbox_is_tracked_by_our_last_write_alone(old: Value, outcome: FieldOutcome) -> None:
    """It is never blank, so nothing but our own write makes it ours."""
    ticked, unticked = True, False

    assert tracked(old, not old, our_write(ticked), FieldKind.BOOLEAN).outcome is outcome
    assert tracked(unticked, ticked, None, FieldKind.BOOLEAN).outcome is FieldOutcome.KEPT


@pytest.mark.parametrize("rule", [WriteRule.NEVER, WriteRule.FILL, WriteRule.REPLACE, WriteRule.REVIEW])
def test_only_track_goes_by_what_was_written_before(rule: WriteRule) -> None:
    def decision(history: Mapping[str, LastWrite]) -> FieldDecision:
        schema = a_schema({"Title": FieldKind.TEXT})
        want = [a_want("CEO", rule)]
        return decide(REF, {"Title": "CTO"}, want, placeholders=PLACEHOLDERS, schema=schema, history=history).decisions[
            0
        ]

    assert decision({"Title": our_write("CTO")}) == decision({})


def test_apollos_placeholder_does_not_follow_our_own_value() -> None:
    assert tracked("CTO", "N/A", our_write("CTO")).outcome is FieldOutcome.NO_VALUE


# --- review -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("old", ["Boss", None, "n/a"])
def test_a_reviewed_field_waits_for_a_person_also_where_it_is_blank(old: Value) -> None:
    decision = decided(old, "CEO", WriteRule.REVIEW)

    assert (decision.outcome, decision.reason) == (FieldOutcome.REVIEW, "waits for a person: rule review")


@pytest.mark.parametrize(("old", "new"), [("CEO", "CEO"), ("Boss", None), ("Boss", "N/A"), (None, "")])
def test_there_is_nothing_to_review_where_nothing_would_change(old: Value, new: Value) -> None:
    assert decided(old, new, WriteRule.REVIEW).outcome in (FieldOutcome.SAME, FieldOutcome.NO_VALUE)


# --- ignore_change_below ------------------------------------------------------------------------------------------


def with_ignored(old: Value, new: Value, share: str = "0.05", rule: WriteRule = WriteRule.REPLACE) -> FieldDecision:
    return decide(
        REF,
        {"Title": old},
        [a_want(new, rule)],
        placeholders=PLACEHOLDERS,
        schema=a_schema({"Title": FieldKind.INTEGER}),
        ignored={"Title": Decimal(share)},
    ).decisions[0]


@pytest.mark.parametrize(
    ("old", "new", "is_kept"),
    [
        (1000, 1049, True),
        (1000, 951, True),
        (1000, 1050, False),
        (1000, 950, False),
        ("1000", 1049.0, True),
        (-1000, -1049, True),
        (0, 1, False),
        (1000, 0, False),
        (None, 1, False),
        ("n/a", 1, False),
        ("about 1000", 1001, False),
        ("nan", 1001, False),
        ("1e9999999", 1001, False),
    ],
)
def test_a_number_that_hardly_changes_stays(old: Value, new: Value, is_kept: bool) -> None:
    decision = with_ignored(old, new)

    assert (decision.outcome is FieldOutcome.KEPT) is is_kept
    assert (decision.reason == "kept: differs by less than 5 %") is is_kept


def test_a_small_change_does_not_bother_a_reviewer_either() -> None:
    assert with_ignored(1000, 1001, rule=WriteRule.REVIEW).outcome is FieldOutcome.KEPT
    assert with_ignored(1000, 2000, rule=WriteRule.REVIEW).outcome is FieldOutcome.REVIEW


@pytest.mark.parametrize(("share", "said"), [("0.05", "5 %"), ("0.1", "10 %"), ("0.005", "0.5 %"), ("1", "100 %")])
def test_the_share_is_told_in_percent(share: str, said: str) -> None:
    assert with_ignored(10_000, 10_001, share).reason == f"kept: differs by less than {said}"


def test_a_decision_that_stands_already_keeps_its_reason() -> None:
    assert with_ignored(1000, 1001, rule=WriteRule.FILL).reason == "already filled"


# --- amend: changes that were settled before --------------------------------------------------------------------------


def amended(
    old: Value, expected: Value, value: Value, kind: FieldKind = FieldKind.TEXT
) -> tuple[FieldDecision, Mapping[str, Value]]:
    amendment = Amendment(
        field="Title", source="run", rule=WriteRule.FILL, expected=expected, value=value, reason="restored"
    )
    change = amend(REF, {"Title": old}, [amendment], schema=a_schema({"Title": kind}))
    return change.decisions[0], change.writes


@pytest.mark.parametrize(
    ("old", "expected", "value", "kind"),
    [
        ("CEO", "CEO", "CTO", FieldKind.TEXT),
        ("CEO ", "CEO", "CTO", FieldKind.TEXT),
        ("", None, "CTO", FieldKind.TEXT),
        ("CEO", "CEO", None, FieldKind.TEXT),
        ("CEO", "CEO", "", FieldKind.TEXT),
        ("5.0", 5, 4, FieldKind.INTEGER),
        ("b;a", ("a", "b"), (), FieldKind.MULTI_PICKLIST),
        ("true", True, False, FieldKind.BOOLEAN),
    ],
)
def test_a_field_that_holds_what_was_expected_is_amended_be_it_to_a_blank(
    old: Value, expected: Value, value: Value, kind: FieldKind
) -> None:
    decision, writes = amended(old, expected, value, kind)

    assert (decision.outcome, decision.old, decision.new) == (FieldOutcome.WRITTEN, old, value)
    assert decision.reason == "restored"
    assert writes == {"Title": value}


@pytest.mark.parametrize(
    ("old", "expected", "value"),
    [("Boss", "CEO", "CTO"), (None, "CEO", "CTO"), ("Boss", None, "CTO"), ("Boss", "CEO", None)],
)
def test_a_field_that_was_changed_since_is_a_conflict_and_left(old: Value, expected: Value, value: Value) -> None:
    decision, writes = amended(old, expected, value)

    assert (decision.outcome, decision.reason) == (FieldOutcome.CONFLICT, "changed since: left as it is")
    assert (decision.old, writes) == (old, {})


@pytest.mark.parametrize(("old", "value"), [("CTO", "CTO"), ("", None), (None, ()), ("CTO ", "CTO")])
def test_a_field_that_has_the_value_already_needs_nothing_whatever_was_expected(old: Value, value: Value) -> None:
    decision, writes = amended(old, "something else", value)

    assert (decision.outcome, decision.reason, writes) == (FieldOutcome.SAME, "already has this value", {})


def test_a_checkbox_is_emptied_where_it_was_blank() -> None:
    """HubSpot has blank checkboxes; Salesforce has none, and its adapter never erases one."""
    ticked = True

    decision, writes = amended(ticked, ticked, None, FieldKind.BOOLEAN)

    assert (decision.outcome, writes) == (FieldOutcome.WRITTEN, {"Title": None})


def test_a_field_the_crm_no_longer_has_or_lets_write_is_a_conflict_of_that_field_alone() -> None:
    schema = a_schema({"Title": FieldKind.TEXT, "City": FieldKind.TEXT}, read_only={"City"})
    amendments = [
        Amendment(field=name, source="run", rule=WriteRule.FILL, expected="new", value="old", reason="restored")
        for name in ("Gone", "City", "Title", "Unread")
    ]
    current = {"Gone": "new", "City": "new", "Title": "new"}
    schema = replace(schema, fields={**schema.fields, "Unread": schema.fields["Title"]})

    change = amend(REF, current, amendments, schema=schema)

    assert [(d.field, d.outcome, d.reason) for d in change.decisions] == [
        ("Gone", FieldOutcome.CONFLICT, "Contact has no such field any more, or hides it"),
        ("City", FieldOutcome.CONFLICT, "it is a formula"),
        ("Title", FieldOutcome.WRITTEN, "restored"),
        ("Unread", FieldOutcome.CONFLICT, "not read from the CRM, so left alone"),
    ]
    assert change.writes == {"Title": "old"}


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


@given(records(), st.data())
def test_an_amendment_back_to_what_was_there_undoes_every_write(
    record: tuple[Any, Any, Any], data: st.DataObject
) -> None:
    """Undo after run is the identity on untouched records, and leaves every edit made since."""
    kinds, current, wanted = record
    change = changes_of(kinds, current, wanted)
    edited = {
        name: value
        for name in change.writes
        if (value := data.draw(st.one_of(st.none(), TEXTS), label=name)) is not None
    }
    after = {**current, **change.writes, **edited}
    amendments = [
        Amendment(field=d.field, source="run", rule=d.rule, expected=d.new, value=d.old, reason="restored")
        for d in change.decisions
        if d.outcome is FieldOutcome.WRITTEN
    ]

    undone = amend(REF, after, amendments, schema=a_schema(kinds))
    restored = {**after, **undone.writes}

    for decision in undone.decisions:
        name, kind = decision.field, kinds[decision.field]
        is_ours = same(after[name], change.writes[name], kind)
        if is_ours and decision.outcome is FieldOutcome.WRITTEN:
            assert restored[name] == current[name]
        elif not is_ours:
            assert restored[name] == edited[name]
    assert amend(REF, restored, amendments, schema=a_schema(kinds)).writes == {}
