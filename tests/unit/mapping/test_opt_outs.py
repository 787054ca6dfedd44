"""What a record says about itself: opt-outs of the CRM that are seen, conditions of the admin, and what is not known."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from crm_sync.config.expressions import parse_when
from crm_sync.config.model import Suppress
from crm_sync.domain.records import FieldKind, ObjectSchema, Value
from crm_sync.mapping.opt_outs import honoured, missing, readable, shown, signs, unseen
from crm_sync.ports import Selection
from tests.unit.config.fields import a_field, an_object

LINK = a_field("IndividualId", FieldKind.REFERENCE, refers_to=("Individual",), relationship="Individual")
CONTACT = an_object("Contact", a_field("HasOptedOutOfEmail", FieldKind.BOOLEAN), a_field("Status__c"), LINK)
BARE = an_object("Contact", a_field("Status__c"))


def said(
    values: Mapping[str, Value], suppress: Suppress | None = None, schema: ObjectSchema = CONTACT, hidden: bool = False
) -> list[str]:
    can_read = readable(schema, lambda _: ["hidden"] if hidden else [])
    found = signs(schema.object_type, schema, suppress or Suppress(), can_read)
    return [sign.words for sign in found if sign.holds(values)]


@pytest.mark.parametrize("yes", [True, "true", " TRUE "])
def test_an_opt_out_counts_in_the_forms_crms_answer(yes: Value) -> None:
    assert said({"HasOptedOutOfEmail": yes}) == ["Email Opt Out (HasOptedOutOfEmail)"]


@pytest.mark.parametrize("no", [False, "false", None, ""])
def test_a_no_and_nothing_are_no_opt_out(no: Value) -> None:
    assert said({"HasOptedOutOfEmail": no}) == []


def test_the_individual_behind_a_contact_counts_where_it_can_be_read() -> None:
    values: dict[str, Value] = {"Individual.HasOptedOutProcessing": True, "Individual.ShouldForget": True}

    assert said(values) == [
        "Don't Process (Individual.HasOptedOutProcessing)",
        "Forget this Individual (Individual.ShouldForget)",
    ]
    assert said(values, hidden=True) == []
    assert said(values, schema=BARE) == []


def test_an_opt_out_of_mail_alone_can_be_told_not_to_count() -> None:
    values: dict[str, Value] = {"HasOptedOutOfEmail": True, "Individual.ShouldForget": True}

    assert said(values, Suppress(email_opt_out="enrich")) == ["Forget this Individual (Individual.ShouldForget)"]


def test_what_is_hidden_is_told_and_never_taken_for_a_no() -> None:
    can_read = readable(BARE, lambda _: [])

    assert [each.field for each in unseen("Contact", Suppress(), can_read)] == [
        "HasOptedOutOfEmail",
        "Individual.HasOptedOutProcessing",
        "Individual.ShouldForget",
    ]
    assert honoured("Contact", Suppress(), can_read) == ()
    assert unseen("Account", Suppress(), can_read) == ()  # only where person accounts are on


def test_a_parent_is_only_asked_about_through_a_field_that_is_there() -> None:
    asked: list[Selection] = []

    def check(selection: Selection) -> list[str]:
        asked.append(selection)
        return []

    assert not readable(BARE, check)("Individual.ShouldForget")
    assert readable(CONTACT, check)("Individual.ShouldForget")
    assert [selection.fields for selection in asked] == [("Individual.ShouldForget",)]


@pytest.mark.parametrize(
    ("when", "value", "holds"),
    [
        ("Status__c = Archived", " archived", True),
        ("Status__c = Archived", "Active", False),
        ("Status__c = Archived", ("Active", "Archived"), True),
        ("Status__c != Active", "Archived", True),
        ("Status__c != Active", None, False),
        ("Status__c in [a, b]", "B", True),
        ("Status__c in [a, b]", "c", False),
        ("Status__c is blank", "  ", True),
        ("Status__c is blank", (), True),
        ("Status__c is blank", 0, False),
        ("Status__c is not blank", "x", True),
        ("Status__c = 5", 5.0, True),
        ("Status__c = 5", 5, True),
    ],
)
def test_conditions_compare_as_those_of_mappings_do(when: str, value: Value, holds: bool) -> None:
    suppress = Suppress(when=(parse_when(when),))

    assert bool(said({"Status__c": value}, suppress)) is holds


def test_all_of_an_entry_must_hold_and_any_entry_is_enough() -> None:
    suppress = Suppress(
        when=(parse_when("Status__c = a and HasOptedOutOfEmail = false"), parse_when("Status__c = b")),
        email_opt_out="enrich",
    )

    assert said({"Status__c": "a", "HasOptedOutOfEmail": True}, suppress) == []
    assert said({"Status__c": "a", "HasOptedOutOfEmail": False}, suppress) == [
        "Status__c = a and HasOptedOutOfEmail = false"
    ]
    assert said({"Status__c": "b"}, suppress) == ["Status__c = b"]


def test_a_condition_does_not_apply_to_an_object_without_its_field() -> None:
    entry = parse_when("Nowhere__c is blank and Status__c = a")

    assert said({"Status__c": "a"}, Suppress(when=(entry,))) == []
    assert missing(entry, CONTACT) == ("Nowhere__c",)


@pytest.mark.parametrize("text", ["A = b c", "A != b", "A in [b, c]", "A is blank", "A is not blank and B = c"])
def test_a_condition_is_told_as_it_is_written(text: str) -> None:
    assert shown(parse_when(text)) == text
