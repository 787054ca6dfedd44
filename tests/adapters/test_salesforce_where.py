"""The admin's SOQL condition, parsed, checked and written again."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.salesforce.selection import Names
from adapters.salesforce.where import Comparison, Condition, Junction, Negation, WhereError, compose, literal, parse
from crm_sync.sandbox.salesforce import soql
from tests.adapters.salesforce_schema import schema

NAMES = Names(schema(), schema)


def written_again(text: str) -> str:
    return compose(parse(text, NAMES.filtered))


def as_read_by_the_org(condition: str) -> soql.Condition | None:
    """The tree that another parser, written on its own for the sandbox, makes of it."""
    return soql.parse(f"SELECT Id FROM Contact WHERE {condition}").where


# --- what passes --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("written", "composed"),
    [
        ("AccountId != null", "AccountId != null"),
        ("accountid<>NULL", "AccountId != null"),
        ("account.WEBSITE = 'acme.com'", "Account.Website = 'acme.com'"),
        ("Account.Parent.Name LIKE 'A%'", "Account.Parent.Name LIKE 'A%'"),
        ("Title='CTO' and Phone!=''", "(Title = 'CTO' AND Phone != '')"),
        ("Title = 'a' OR (Title = 'b' AND NOT Email = null)", "(Title = 'a' OR (Title = 'b' AND (NOT Email = null)))"),
        ("Title IN ('a','b',null)", "Title IN ('a', 'b', null)"),
        ("Title not in ('a')", "Title NOT IN ('a')"),
        ("Topics__c INCLUDES ('Sales;Ops','HR')", "Topics__c INCLUDES ('Sales;Ops', 'HR')"),
        ("DoNotCall = FALSE", "DoNotCall = false"),
        ("Account.NumberOfEmployees >= +50", "Account.NumberOfEmployees >= +50"),
        ("Score__c < -1.5", "Score__c < -1.5"),
        ("Birthdate > 1980-01-31", "Birthdate > 1980-01-31"),
        ("LastModifiedDate < 2026-10-08T00:00:00Z", "LastModifiedDate < 2026-10-08T00:00:00Z"),
        (
            "LastModifiedDate >= 2026-10-08T00:00:00.000+02:00",
            "LastModifiedDate >= 2026-10-08T00:00:00.000+02:00",
        ),
        ("LastModifiedDate = last_n_days:30", "LastModifiedDate = LAST_N_DAYS:30"),
        ("Birthdate = THIS_FISCAL_QUARTER", "Birthdate = THIS_FISCAL_QUARTER"),
    ],
)
def test_a_condition_is_written_again_in_describes_spelling(written: str, composed: str) -> None:
    assert written_again(written) == composed


def test_what_was_composed_composes_the_same_again() -> None:
    once = written_again("Title LIKE 'a\\_b%' AND (NOT (Phone = 'it\\'s' OR Email IN ('x', null)))")

    assert written_again(once) == once


@pytest.mark.parametrize(
    ("written", "composed"),
    [
        (r"Title LIKE '100\% of%'", r"Title LIKE '100\% of%'"),
        (r"Title LIKE 'a\_b'", r"Title LIKE 'a\_b'"),
        (r"Title LIKE 'back\\\\slash'", r"Title LIKE 'back\\\\slash'"),
        (r"Title LIKE 'it\'s%'", r"Title LIKE 'it\'s%'"),
        (r"Title LIKE 'caf\u00e9'", "Title LIKE 'café'"),
    ],
)
def test_an_escaped_wildcard_stays_escaped_in_like(written: str, composed: str) -> None:
    assert written_again(written) == composed


# --- the escaper --------------------------------------------------------------------------------------------------

sayable = st.text(st.characters(exclude_categories=["Cs", "Cc"]) | st.sampled_from("\n\r\t\b\f'\\\"%_"), max_size=60)


@given(sayable)
def test_any_text_survives_the_escaper_and_the_orgs_own_reading(text: str) -> None:
    composed = written_again(f"Title = {literal(text)}")

    tree = as_read_by_the_org(composed)
    assert isinstance(tree, soql.Comparison)
    assert tree.literals[0].value == text


@given(sayable)
def test_no_text_can_end_its_literal(text: str) -> None:
    tree = as_read_by_the_org(f"Title = {literal(text)} AND Phone = 'x'")

    assert isinstance(tree, soql.And)
    assert [term.path.text for term in tree.terms if isinstance(term, soql.Comparison)] == ["Title", "Phone"]


@given(sayable)
def test_a_pattern_means_the_same_before_and_after(text: str) -> None:
    pattern = text.translate(str.maketrans("", "", "\\'\n\r\t\x08\x0c\""))
    before = f"Title LIKE '{pattern}'"

    assert as_read_by_the_org(written_again(before)) == as_read_by_the_org(before)


@pytest.mark.parametrize("text", ["\x00", "a\x1bb", "\x7f", "\ud800"])
def test_a_control_character_is_refused_and_not_sent(text: str) -> None:
    with pytest.raises(WhereError, match="control character"):
        literal(text)


def test_a_text_longer_than_salesforce_takes_is_refused() -> None:
    assert len(literal("x" * 4_000)) == 4_002
    with pytest.raises(WhereError, match=r"longer than 4,000"):
        literal("x" * 4_001)


comparisons = st.builds(
    Comparison,
    st.sampled_from(["Title", "Account.Website", "Phone"]),
    st.sampled_from(["=", "!=", "<", ">="]),
    sayable.map(lambda text: (literal(text),)),
)
conditions = st.recursive(
    comparisons,
    lambda inner: (
        st.builds(Junction, st.sampled_from(["AND", "OR"]), st.lists(inner, min_size=2, max_size=3).map(tuple))
        | st.builds(Negation, inner)
    ),
    max_leaves=8,
)


@given(conditions)
def test_every_tree_is_read_back_as_it_was(condition: Condition) -> None:
    text = compose(condition)

    assert parse(text, NAMES.filtered) == condition
    assert as_read_by_the_org(text) is not None


# --- what is refused ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("", "a field name is missing at the end"),
        ("Titel = 'x'", "has no field Titel, or this user may not see it; did you mean Title?"),
        ("Acount.Website = 'x'", "has no parent Acount, or this user may not see it; did you mean Account?"),
        ("Account.Webseit = 'x'", "Account has no field Webseit"),
        ("Owner.Name = 'x'", "Owner may be a Group or a User"),
        ("Bio__c = 'x'", "cannot filter by Bio__c"),
        ("MailingAddress = 'x'", "cannot filter by MailingAddress"),
        ("Account.Description = null", "cannot filter by Description"),
        ("Title", "an operator is missing at the end"),
        ("Title =", "a value is missing at the end"),
        ("Title == 'x'", "== is no operator; use = !="),
        ("Title !== null", "!== is no operator; use = !="),
        ("Title =< 'x'", "=< is no operator; use = !="),
        ("Title = CTO", "Title is compared with CTO .* needs a text in single quotes"),
        ("Title = 5", "needs a text in single quotes"),
        ("Title = 'x", "a quote that is not closed"),
        ('Title = "x"', "cannot be read from"),
        (r"Title = 'a\qb'", r"\\q is no escape"),
        ("Title = 'x' Phone = 'y'", "goes on with Phone"),
        ("Title = 'x')", "goes on with \\)"),
        ("(Title = 'x'", "a \\) is missing at the end"),
        ("Title IN 'x'", "a \\( is missing before 'x'"),
        ("Title IN ()", "a value is missing before \\)"),
        ("Title = 'a' AND Title = 'b' OR Title = 'c'", "AND and OR stand side by side"),
        ("Title INCLUDES ('x')", "Title is a text field and cannot be compared with INCLUDES"),
        ("Topics__c LIKE 'x'", "cannot be compared with LIKE"),
        ("DoNotCall > TRUE", "checkbox field and cannot be compared with >"),
        ("AccountId LIKE '001%'", "cannot be compared with LIKE"),
        ("DoNotCall = 'true'", "needs TRUE or FALSE without quotes"),
        ("Reports__c = '5'", "needs a whole number without quotes"),
        ("Reports__c = 5.5", "needs a whole number"),
        ("Score__c = TODAY", "needs a number without quotes"),
        ("Birthdate = '2026-01-01'", "needs a date without quotes"),
        ("Birthdate = 2026-01-01T00:00:00Z", "needs a date without quotes"),
        ("Birthdate = 2026-02-30", "there is no such day or time as 2026-02-30"),
        ("LastModifiedDate > 2026-01-01", "needs a date and time"),
        ("LastModifiedDate > 2026-01-01T25:00:00Z", "there is no such day"),
        ("Title > null", "needs a text"),
        ("Id IN (SELECT ContactId FROM Case)", "a SELECT inside the condition"),
        ("CALENDAR_YEAR(Birthdate) = 1980", "the function CALENDAR_YEAR"),
        ("Title = 'x'; DELETE", "cannot be read from"),
        ("Title = 'x' LIMIT 1", "goes on with LIMIT"),
        ("Title = 'x' ORDER BY Id", "goes on with ORDER"),
        ("Title = :name", "cannot be read from"),
        ("LAST_N_DAYS:3 = 'x'", "a field name is missing before LAST_N_DAYS:3"),
        ("NOT " * 40 + "Title = 'x'", "nested too deeply"),
        ("(" * 40 + "Title = 'x'" + ")" * 40, "nested too deeply"),
        ("NOT " * 2_900 + "Title = 'x'", "nested too deeply"),
        ("Title = '" + "x" * 12_000 + "'", "more than the 12,000"),
    ],
)
def test_what_cannot_be_used_is_refused_with_its_place_or_a_cure(written: str, said: str) -> None:
    with pytest.raises(WhereError, match=said):
        written_again(written)


@given(st.text(max_size=80) | st.text("Title=' ()ANDORNOTLIKE\\%_0123456789.:-<>!,", max_size=80))
def test_any_text_is_either_a_condition_the_org_can_read_or_refused_in_words(text: str) -> None:
    try:
        composed = written_again(text)
    except WhereError:
        return
    assert written_again(composed) == composed
