from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from crm_sync.mapping.transforms import TRANSFORMS

CASES = [
    ("trim", "  VP \t of  Sales ", "VP of Sales"),
    ("trim", "First line. \n  Second line.", "First line.\nSecond line."),
    ("lower", "Marta@Orchard.example", "marta@orchard.example"),
    ("upper", "gb", "GB"),
    ("title_case", "leeds", "Leeds"),
    ("title_case", "SAINT-JEAN DE LUZ", "Saint-Jean de Luz"),
    ("title_case", "stratford-upon-avon", "Stratford-upon-Avon"),
    ("title_case", "o'brien", "O'Brien"),
    ("title_case", "D’ANGELO", "D’Angelo"),
    ("title_case", "men's wear", "Men's Wear"),
    ("title_case", "McDonald", "McDonald"),
    ("title_case", "de la Cruz", "de la Cruz"),
    ("title_case", "van der Berg", "van der Berg"),
    ("title_case", "IBM Deutschland GmbH", "IBM Deutschland GmbH"),
    ("title_case", "new York", "New York"),
    ("title_case", "BOISE, ID", "Boise, ID"),
    ("title_case", "BOLIVIA, LA PAZ", "Bolivia, LA Paz"),
    ("title_case", "bolivia, la paz", "Bolivia, La Paz"),
    ("title_case", "USA", "USA"),
    ("title_case", "ÉVRY", "Évry"),
    ("title_case", "", ""),
    ("https", "http://www.linkedin.com/in/marta", "https://www.linkedin.com/in/marta"),
    ("https", "HTTP://acme.example", "https://acme.example"),
    ("https", "https://acme.example", "https://acme.example"),
    ("https", "acme.example", "acme.example"),
    ("domain", "https://www.Acme.co.uk:8443/en?x=1", "acme.co.uk"),
    ("domain", "not a site", ""),
    ("year", "2024-05-01T00:00:00.000+00:00", "2024"),
    ("year", "1999", "1999"),
    ("year", "20240501", ""),
    ("year", "in 2024", ""),
    ("words", "master_information_technology", "information technology"),
    ("words", "c_suite", "c suite"),
    ("words", "consulting", "consulting"),
]


@pytest.mark.parametrize(("name", "before", "after"), CASES)
def test_a_transform_does_what_its_name_says(name: str, before: str, after: str) -> None:
    assert TRANSFORMS[name](before) == after


def test_every_transform_stands_in_the_table_of_cases() -> None:
    assert {name for name, _, _ in CASES} == set(TRANSFORMS)


@pytest.mark.parametrize("name", sorted(TRANSFORMS))
@given(text=st.one_of(st.text(max_size=40), st.text(alphabet="abAB'’ -,/.:_01\n", max_size=20)))
@example("l'ß")
@example("ß00")
@example("ŉ00")
@example("a\u0345b")
@example("http://http://x")
def test_done_twice_is_done_once(name: str, text: str) -> None:
    once = TRANSFORMS[name](text)

    assert TRANSFORMS[name](once) == once


@given(st.text(max_size=60))
def test_title_case_changes_nothing_but_case(text: str) -> None:
    assert TRANSFORMS["title_case"](text).casefold() == text.casefold() or not text.isascii()
