"""What the sandbox reads as SOQL, and what it refuses by name."""

import contextlib
from datetime import UTC, date, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crm_sync.sandbox.salesforce import clock, soql
from crm_sync.sandbox.salesforce.errors import RequestCode, RequestError


def refusal(text: str) -> RequestError:
    with pytest.raises(RequestError) as caught:
        soql.parse(text)
    return caught.value


def where(condition: str) -> soql.Condition:
    tree = soql.parse(f"SELECT Id FROM Contact WHERE {condition}").where
    assert tree is not None
    return tree


def test_a_whole_query_is_read_with_parents_order_and_limit() -> None:
    query = soql.parse(
        "select Id, Account.Website from Contact where Title = null order by Id desc nulls last limit 20"
    )

    assert [path.names for path in query.select] == [("Id",), ("Account", "Website")]
    assert query.object_name == "Contact"
    assert isinstance(query.where, soql.Comparison)
    assert query.where.literals[0].kind == "null"
    assert (query.order_by[0].path.names, query.order_by[0].descending, query.order_by[0].nulls_last) == (
        ("Id",),
        True,
        True,
    )
    assert query.limit == 20


def test_count_selects_nothing() -> None:
    assert soql.parse("SELECT COUNT() FROM Lead").select == ()


def test_brackets_decide_how_and_and_or_group() -> None:
    tree = where("A = 1 AND (B = 2 OR NOT (C = 3 AND D = 4)) AND E = 5")

    assert isinstance(tree, soql.And)
    assert [type(term).__name__ for term in tree.terms] == ["Comparison", "Or", "Comparison"]
    inner = tree.terms[1]
    assert isinstance(inner, soql.Or)
    assert isinstance(inner.terms[1], soql.Not)


@pytest.mark.parametrize("condition", ["A = 1 AND B = 2 OR C = 3", "A = 1 OR B = 2 AND C = 3"])
def test_and_next_to_or_without_brackets_is_refused_as_on_the_platform(condition: str) -> None:
    error = refusal(f"SELECT Id FROM Contact WHERE {condition}")

    assert error.code is RequestCode.MALFORMED_QUERY
    assert "unexpected token: '" in error.message


@pytest.mark.parametrize(
    ("written", "value"),
    [
        (r"'O\'Brien'", "O'Brien"),
        (r"'a\\b'", "a\\b"),
        (r"'tab\tline\nend'", "tab\tline\nend"),
        (r"'\u00e9'", "é"),
        ("'where or and ( limit'", "where or and ( limit"),
    ],
)
def test_string_escapes_mean_what_the_service_says(written: str, value: str) -> None:
    tree = where(f"Name = {written}")

    assert isinstance(tree, soql.Comparison)
    assert tree.literals[0].value == value


def test_an_unknown_escape_is_refused() -> None:
    assert "Illegal character sequence '\\z'" in refusal(r"SELECT Id FROM Contact WHERE Name = 'a\z'").message


def test_a_string_of_more_than_4000_characters_is_refused() -> None:
    assert "4000" in refusal(f"SELECT Id FROM Contact WHERE Name = '{'x' * 4001}'").message


def test_a_text_of_more_than_100000_characters_is_refused() -> None:
    assert "100000" in refusal("SELECT Id FROM Contact WHERE Name = 'x'" + " " * 100_000).message


@pytest.mark.parametrize(
    ("literal", "kind", "value"),
    [
        ("42", "number", 42),
        ("-1.5", "number", -1.5),
        ("TRUE", "boolean", True),
        ("2026-11-01", "date", "2026-11-01"),
        ("2026-11-01T10:00:00Z", "datetime", datetime(2026, 11, 1, 10, tzinfo=UTC)),
        ("2026-11-01T10:00:00.500+02:00", "datetime", datetime(2026, 11, 1, 8, 0, 0, 500_000, tzinfo=UTC)),
        ("last_n_days:30", "range", ("LAST_N_DAYS", 30)),
        ("today", "range", ("TODAY", 0)),
    ],
)
def test_literals_are_told_apart(literal: str, kind: str, value: object) -> None:
    tree = where(f"X >= {literal}")

    assert isinstance(tree, soql.Comparison)
    assert (tree.literals[0].kind, tree.literals[0].value) == (kind, value)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("SELECT Id FROM Contact OFFSET 10", "OFFSET"),
        ("SELECT Id FROM Contact GROUP BY Title", "GROUP BY"),
        ("SELECT COUNT(Id) FROM Contact", "COUNT(field)"),
        ("SELECT MAX(Id) FROM Contact", "MAX()"),
        ("SELECT FIELDS(ALL) FROM Contact", "FIELDS()"),
        ("SELECT Id, (SELECT Id FROM Contacts) FROM Account", "subquery"),
        ("SELECT Id FROM Contact WHERE AccountId IN (SELECT Id FROM Account)", "semi-join"),
        ("SELECT Id FROM Contact c WHERE c.Title = null", "alias"),
        ("SELECT TYPEOF Owner WHEN User THEN Id END FROM Contact", "TYPEOF"),
        ("SELECT Id FROM Contact WHERE CALENDAR_YEAR(CreatedDate) = 2026", "CALENDAR_YEAR()"),
        ("SELECT Id FROM Contact WHERE X INCLUDES ('a')", "INCLUDES"),
        ("SELECT Id FROM Contact WHERE CreatedDate = LAST_FISCAL_QUARTER", "LAST_FISCAL_QUARTER"),
        ("SELECT Id FROM Contact WHERE Name = :name", "bind variable"),
        ("SELECT Id FROM Account WHERE AnnualRevenue > USD500", "currency"),
        ("SELECT Id FROM Contact FOR UPDATE", "FOR VIEW"),
        ("SELECT Id FROM Contact WITH SECURITY_ENFORCED", "WITH"),
        ("SELECT Id FROM Contact ALL ROWS", "ALL ROWS"),
        ("SELECT Id FROM Contact WHERE " + "(" * 60 + "Id = null" + ")" * 60, "levels"),
    ],
)
def test_what_the_sandbox_does_not_simulate_is_refused_by_name(text: str, named: str) -> None:
    error = refusal(text)

    assert (error.status, error.code) == (400, RequestCode.MALFORMED_QUERY)
    assert "does not simulate" in error.message
    assert named in error.message


@pytest.mark.parametrize(
    "text",
    [
        "",
        "SELECT",
        "SELECT FROM Contact",
        "SELECT Id",
        "SELECT Id FROM",
        "SELECT Id, FROM Contact",
        "SELECT Id FROM Contact WHERE",
        "SELECT Id FROM Contact WHERE Title",
        "SELECT Id FROM Contact WHERE Title = ",
        "SELECT Id FROM Contact WHERE Title == 'x'",
        "SELECT Id FROM Contact WHERE (Title = 'x'",
        "SELECT Id FROM Contact WHERE Title IN ()",
        "SELECT Id FROM Contact WHERE Title = 'x' LIMIT x",
        "SELECT Id FROM Contact LIMIT -1",
        "SELECT Id FROM Contact WHERE Title = 'unterminated",
        'SELECT Id FROM Contact WHERE Title = "x"',
        "SELECT Id FROM Contact WHERE Title = x",
        "SELECT Id FROM Contact;",
        "DELETE FROM Contact",
    ],
)
def test_nonsense_is_malformed(text: str) -> None:
    assert refusal(text).code is RequestCode.MALFORMED_QUERY


def test_an_error_points_at_the_place_as_the_service_does() -> None:
    # The layout of cumulusci's recorded TestCountSObjects.test_count_sobjects__errors.
    error = soql.error_at("select count() from XYZZY", 20, "sObject type 'XYZZY' is not supported.")

    assert error.message == (
        "\nselect count() from XYZZY\n                    ^\nERROR at Row:1:Column:21\n"
        "sObject type 'XYZZY' is not supported."
    )


@given(st.text(max_size=200))
def test_any_text_is_read_or_refused_and_never_crashes(text: str) -> None:
    query = f"SELECT Id FROM Contact WHERE {text}"

    with contextlib.suppress(RequestError):
        assert soql.parse(query).text == query


@given(st.text(max_size=100))
def test_an_escaped_text_comes_back_as_it_was(text: str) -> None:
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")

    tree = where(f"Name = '{escaped}'")

    assert isinstance(tree, soql.Comparison)
    assert tree.literals[0].value == text


@pytest.mark.parametrize(
    ("keyword", "count", "first", "behind"),
    [
        ("TODAY", 0, "2026-11-04", "2026-11-05"),
        ("THIS_WEEK", 0, "2026-11-01", "2026-11-08"),
        ("LAST_MONTH", 0, "2026-10-01", "2026-11-01"),
        ("THIS_YEAR", 0, "2026-01-01", "2027-01-01"),
        ("LAST_N_DAYS", 30, "2026-10-05", "2026-11-05"),
        ("NEXT_N_DAYS", 2, "2026-11-05", "2026-11-07"),
        ("N_DAYS_AGO", 4, "2026-10-31", "2026-11-01"),
    ],
)
def test_date_literals_are_ranges_of_days(keyword: str, count: int, first: str, behind: str) -> None:
    found = clock.date_range(keyword, count, date(2026, 11, 4))

    assert [day.isoformat() for day in found] == [first, behind]
