"""The small languages inside the file."""

from __future__ import annotations

from contextlib import suppress
from datetime import timedelta
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crm_sync.config.expressions import (
    Condition,
    Operator,
    TemplatePart,
    UnreadableError,
    amount,
    band,
    duration,
    key_field,
    parse_template,
    parse_when,
    percentage,
    time_of_day,
    written,
)

UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("30m", timedelta(minutes=30)),
        ("4h", timedelta(hours=4)),
        ("120d", timedelta(days=120)),
        ("2w", timedelta(weeks=2)),
        (" 15 s ", timedelta(seconds=15)),
    ],
)
def test_durations(text: str, expected: timedelta) -> None:
    assert duration(text) == expected


@pytest.mark.parametrize("text", ["", "4", "h", "4 months", "1.5h", "-4h", "4H", "9999999d", "4h30m"])
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(UnreadableError, match="not a duration"):
        duration(text)


@given(st.integers(0, 36_500 * 24 * 3600))
def test_a_duration_reads_back_as_it_is_written(seconds: int) -> None:
    span = timedelta(seconds=seconds)

    text = written(span)

    assert timedelta(**{UNITS[text[-1]]: int(text[:-1])}) == span


def test_a_duration_that_leads_out_of_the_calendar_is_refused() -> None:
    assert duration("36500d") == timedelta(days=36500)
    for text in ("36501d", "5215w", "999999w"):
        with pytest.raises(UnreadableError, match="more than a hundred years"):
            duration(text)


def test_percentages_amounts_and_times() -> None:
    assert percentage("5%") == Decimal(5)
    assert percentage("0.5 %") == Decimal("0.5")
    assert amount("12.5") == Decimal("12.5")
    assert time_of_day("02:30") == (2, 30)
    for bad in ("5", "101%", "-1%"):
        with pytest.raises(UnreadableError):
            percentage(bad)
    for bad in ("-1", "NaN", "Infinity", "1e99", "ten"):
        with pytest.raises(UnreadableError):
            amount(bad)
    for bad in ("24:00", "2:30", "0230"):
        with pytest.raises(UnreadableError):
            time_of_day(bad)


@pytest.mark.parametrize(
    ("text", "expected"),
    [("1..50", (1, 50)), ("51..", (51, None)), ("..10", (None, 10)), ("-5 .. 5", (-5, 5)), ("0.5..1.5", (0.5, 1.5))],
)
def test_bands(text: str, expected: tuple[float | None, float | None]) -> None:
    assert band(text) == expected


@pytest.mark.parametrize("text", ["..", "1-50", "1...50", "a..b", ""])
def test_what_is_no_band(text: str) -> None:
    with pytest.raises(UnreadableError):
        band(text)


def test_the_fields_that_are_sent() -> None:
    assert key_field("Email") == ("Email", False)
    assert key_field("Account.Website|domain") == ("Account.Website", True)
    for bad in ("A.B.C", "Email |", "| domain", "Email | lower"):
        with pytest.raises(UnreadableError):
            key_field(bad)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("person.email_status = verified", [("person.email_status", "=", ("verified",))]),
        ("a.b != likely to engage", [("a.b", "!=", ("likely to engage",))]),
        ("a.b in [x, 'y, z', \"and\"]", [("a.b", "in", ("x", "y, z", "and"))]),
        ("a.b is blank", [("a.b", "is blank", ())]),
        ("a.b IS  NOT  BLANK AND c.d=1", [("a.b", "is not blank", ()), ("c.d", "=", ("1",))]),
        ("a.b = sand and c.d is blank", [("a.b", "=", ("sand",)), ("c.d", "is blank", ())]),
        ("a.b = 'x and y' and c.d in [1]", [("a.b", "=", ("x and y",)), ("c.d", "in", ("1",))]),
    ],
)
def test_conditions(text: str, expected: list[tuple[str, str, tuple[str, ...]]]) -> None:
    assert parse_when(text) == tuple(
        Condition(path=path, operator=Operator(operator), values=values) for path, operator, values in expected
    )


@pytest.mark.parametrize(
    "text",
    [
        "",
        "verified",
        "a.b",
        "a.b =",
        "a.b == x",
        "a.b ~ x",
        "a.b in x",
        "a.b in [x",
        "a.b in []",
        "a.b in [x] y",
        "a.b = x or c.d = y",
        "a.b = x and",
        "a.b is blankish",
        "a.b is blank c.d is blank",
        "= x",
        "a.b = 'x",
    ],
)
def test_what_is_no_condition(text: str) -> None:
    with pytest.raises(UnreadableError) as caught:
        parse_when(text)

    assert caught.value.suggestion


def test_templates() -> None:
    assert parse_template("{{ person.city }}, {{person.country}}!") == (
        TemplatePart(path="person.city"),
        TemplatePart(text=", "),
        TemplatePart(path="person.country"),
        TemplatePart(text="!"),
    )


@pytest.mark.parametrize(
    "text", ["", "plain", "{{ }}", "{{ a.b", "a.b }} {{ a.b }}", "{{ a.b | upper }}", "{{{ a.b }}}x{{"]
)
def test_what_is_no_template(text: str) -> None:
    with pytest.raises(UnreadableError):
        parse_template(text)


@given(st.text(alphabet="ab.=!,[]'\" \nandoris{}|\\", max_size=80))
def test_any_text_is_read_or_refused(text: str) -> None:
    for parse in (parse_when, parse_template, key_field, band, duration):
        with suppress(UnreadableError):
            assert parse(text)


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["person.title", "organization.name"]), st.text("abc ,'and]=[", min_size=1, max_size=9)
        ),
        min_size=1,
        max_size=4,
    )
)
def test_quoted_values_come_back_as_they_are(conditions: list[tuple[str, str]]) -> None:
    text = " and ".join(f'{path} = "{value}"' for path, value in conditions)

    assert [(c.path, c.values) for c in parse_when(text)] == [(path, (value.strip(),)) for path, value in conditions]
