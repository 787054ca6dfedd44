from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crm_sync.domain.records import FieldKind
from crm_sync.mapping.coerce import NotFitting, coercer, cut, rounded
from tests.unit.mapping.examples import a_field

INTEGER, DECIMAL = FieldKind.INTEGER, FieldKind.DECIMAL
EMPLOYEES = a_field(INTEGER, digits=8)
REVENUE = a_field(DECIMAL, digits=18, scale=0)


@pytest.mark.parametrize(
    ("field", "value", "coerced"),
    [
        (a_field(length=5), " Leeds ", "Leeds"),
        (a_field(), "one\ntwo\x00 three", "one two  three"),
        (a_field(), "می\u200cخواهم 👩\u200d🚀", "می\u200cخواهم 👩\u200d🚀"),
        (a_field(FieldKind.LONG_TEXT), " one\ntwo\x00\tthree ", "one\ntwo\tthree"),
        (a_field(), 640, "640"),
        (a_field(), 84000000.0, "84000000"),
        (a_field(), 0.5, "0.5"),
        (a_field(), True, "true"),
        (a_field(FieldKind.URL, length=255), "http://acme.example", "http://acme.example"),
        (a_field(FieldKind.PHONE, length=40), "+44 113 496 0000", "+44 113 496 0000"),
        (EMPLOYEES, 640, 640),
        (EMPLOYEES, 640.0, 640),
        (EMPLOYEES, " 640 ", 640),
        (EMPLOYEES, 99_999_999, 99_999_999),
        (EMPLOYEES, 0, 0),
        (REVENUE, 345600000.0, 345600000),
        (REVENUE, 345600000.5, 345600001),
        (REVENUE, "12.49", 12),
        (a_field(DECIMAL, scale=2), 0.125, 0.13),
        (a_field(DECIMAL), 1e30, 10**30),
        (a_field(DECIMAL), Decimal("1.10"), 1.1),
        (a_field(FieldKind.BOOLEAN), True, True),
        (a_field(FieldKind.BOOLEAN), "No", False),
        (a_field(FieldKind.DATE), "2024-05-01T00:00:00.000+00:00", "2024-05-01"),
        (a_field(FieldKind.DATE), "2024-05-01", "2024-05-01"),
        (a_field(FieldKind.DATETIME), "2024-05-01", "2024-05-01T00:00:00Z"),
        (a_field(FieldKind.DATETIME), "2024-05-01T02:30:00.250+02:00", "2024-05-01T00:30:00Z"),
        (a_field(FieldKind.DATETIME), "2024-05-01 02:30", "2024-05-01T02:30:00Z"),
    ],
)
def test_a_value_takes_the_form_of_its_field(field: Any, value: Any, coerced: object) -> None:
    result = coercer(field)(value)

    assert (result, type(result)) == (coerced, type(coerced))


@pytest.mark.parametrize(
    ("field", "value", "problem"),
    [
        (a_field(length=5), "Leicester", "has 9 characters and the field takes 5; `max: 5` would cut it"),
        (a_field(), {"city": "Leeds"}, "is a group of values, not a text"),
        (EMPLOYEES, 123_456_789, "has 9 digits and the field takes 8"),
        (EMPLOYEES, 640.5, "`round: 1` would round it"),
        (EMPLOYEES, "51-200", "text of 6 characters is not a number"),
        (EMPLOYEES, "1e3", "text of 3 characters is not a number"),
        (EMPLOYEES, True, "is yes or no, not a number"),
        (EMPLOYEES, [1], "is a list, not a number"),
        (EMPLOYEES, float("nan"), "is not a number"),
        (REVENUE, 1e300, "has 301 digits and the field takes 18"),
        (REVENUE, float("inf"), "is not a number"),
        (a_field(FieldKind.BOOLEAN), "maybe", "is a text, not yes or no"),
        (a_field(FieldKind.DATE), "1 May 2024", "is not a date"),
        (a_field(FieldKind.DATE), "2024-02-30", "is not a date"),
        (a_field(FieldKind.DATE), 2024, "is not a date"),
        (a_field(FieldKind.DATETIME), "2024-05-01T25:00:00Z", "is not a date"),
        (a_field(FieldKind.DATETIME), "0001-01-01T00:00:00+09:00", "is not a date"),
    ],
)
def test_what_does_not_fit_is_said_with_the_limit(field: Any, value: Any, problem: str) -> None:
    with pytest.raises(NotFitting) as refused:
        coercer(field)(value)

    assert str(refused.value).endswith(problem)


VALUES = st.one_of(
    st.text(),
    st.integers(),
    st.floats(),
    st.booleans(),
    st.decimals(),
    st.lists(st.text(), max_size=3),
    st.dictionaries(st.text(), st.text(), max_size=2),
    st.datetimes().map(str),
    st.sampled_from(["secret@person.example", "+44 113 496 0000", "9" * 50, "-0.0"]),
)


@given(
    kind=st.sampled_from(FieldKind),
    value=VALUES,
    length=st.one_of(st.none(), st.integers(0, 300)),
    digits=st.one_of(st.none(), st.integers(1, 20)),
    scale=st.one_of(st.none(), st.integers(0, 6)),
)
def test_any_value_either_fits_within_the_limits_or_is_refused(
    kind: FieldKind, value: Any, length: int | None, digits: int | None, scale: int | None
) -> None:
    field = a_field(kind, length=length, digits=digits, scale=scale)
    try:
        result = coercer(field)(value)
    except NotFitting:
        return

    assert isinstance(result, str | int | float | bool)
    if isinstance(result, str) and length is not None and kind in (FieldKind.TEXT, FieldKind.EMAIL, FieldKind.URL):
        assert len(result) <= length
    if isinstance(result, int) and digits is not None and kind in (INTEGER, DECIMAL):
        assert abs(result) < 10**digits
    assert coercer(field)(result) == result


@pytest.mark.parametrize("value", ["marta@secret.example", "+44 113 496 0000", 442071838750.25])
@pytest.mark.parametrize("kind", [FieldKind.TEXT, INTEGER, DECIMAL, FieldKind.BOOLEAN, FieldKind.DATE])
def test_a_refusal_never_shows_the_value(kind: FieldKind, value: object) -> None:
    with pytest.raises(NotFitting) as refused:
        coercer(a_field(kind, length=3, digits=3, scale=2))(value)

    assert str(value) not in str(refused.value)


@pytest.mark.parametrize(
    ("text", "length", "kept"),
    [
        ("Head of Sales Operations", 24, "Head of Sales Operations"),
        ("Head of Sales Operations", 20, "Head of Sales"),
        ("Head of Sales Operations", 13, "Head of Sales"),
        ("Sales, Marketing, Operations", 18, "Sales, Marketing"),
        ("Donaudampfschifffahrtsgesellschaft", 10, "Donaudampf"),
        ("A Donaudampfschifffahrtsgesellschaft", 10, "A Donaudam"),
    ],
)
def test_a_long_text_is_cut_after_a_word_where_one_ends_in_the_second_half(text: str, length: int, kept: str) -> None:
    assert cut(text, length) == kept


@given(text=st.text(max_size=60), length=st.integers(1, 50))
def test_a_cut_text_is_a_beginning_and_short_enough(text: str, length: int) -> None:
    kept = cut(text, length)

    assert len(kept) <= length
    assert text.startswith(kept)


@pytest.mark.parametrize(
    ("value", "step", "result"),
    [
        (1249.5, 1, 1250),
        (1249.4, 1, 1249),
        (2.5, 1, 3),
        (-2.5, 1, -3),
        (1_499_999, 1_000_000, 1_000_000),
        (1_500_000, 1_000_000, 2_000_000),
        (84_000_000.0, 1, 84_000_000),
        (2**60 + 1, 1, 2**60 + 1),
        (1e300, 10, int(Decimal("1e300"))),
    ],
)
def test_a_number_is_rounded_to_a_multiple(value: float, step: int, result: int) -> None:
    assert rounded(value, step) == result
