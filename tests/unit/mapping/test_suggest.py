"""What an Apollo word may mean: the same word first, then ready tables, then what is spelt alike."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crm_sync.domain.records import Choice
from crm_sync.mapping.picklists import builtin_table
from crm_sync.mapping.suggest import NEAR, Suggester, Suggestion, sure

from .examples import choices

INDUSTRIES = choices(
    "Apparel", "Banking", "Biotechnology", "Finance", "Food & Beverage", "Healthcare", "Hospitality", "Medical Device",
    "Retail", "Technology", inactive=("Textile",),
)  # fmt: skip
TABLE = builtin_table("salesforce_industry")


def best(word: str, *tables: dict[str, str]) -> Suggestion | None:
    found = Suggester(INDUSTRIES, tables).suggest(word)
    return found[0] if found else None


@pytest.mark.parametrize(
    ("word", "value"),
    [
        ("food_and_beverage", "Food & Beverage"),
        ("RETAIL", "Retail"),
        ("health-care", "Healthcare"),
        ("medical devices", "Medical Device"),
    ],
)
def test_another_spelling_of_a_value_is_near(word: str, value: str) -> None:
    found = best(word)

    assert found is not None
    assert found.value == value
    assert found.score >= NEAR


@pytest.mark.parametrize(
    "word", ["hospital & health care", "information technology & services", "medical practice", "retail banking"]
)
def test_a_part_of_a_value_is_shown_and_is_not_near(word: str) -> None:
    found = Suggester(INDUSTRIES).suggest(word)

    assert found
    assert all(one.score < NEAR and one.why == "similar" for one in found)


def test_chance_resemblance_is_not_shown() -> None:
    assert best("mining & metals") is None
    assert best("") is None
    assert best("--") is None


def test_a_value_that_is_not_active_is_never_suggested() -> None:
    assert best("textile") is None
    assert best("textiles", {"textiles": "Textile"}) is None


def test_a_ready_table_goes_before_the_spelling() -> None:
    found = Suggester(INDUSTRIES, [{"investmentbanking": "Finance"}, TABLE]).suggest("investment banking")

    assert found[0] == Suggestion("Finance", "Finance", 100, "ready-made table")
    assert found[1] == Suggestion("Banking", "Banking", 85, "similar")


def test_a_value_is_found_by_its_label_and_named_by_both() -> None:
    found = Suggester((Choice(value="lvl_4", label="Vice President"),)).suggest("vice-president")

    assert found == (Suggestion("lvl_4", "Vice President", 100, "the same word"),)


def test_two_that_are_equally_sure_are_for_a_person_to_choose() -> None:
    found = Suggester(choices("Sales West", "West Sales")).suggest("sales-west-")
    tied = Suggester((Choice(value="a", label="Team A"), Choice(value="b", label="Team B"))).suggest("team c")

    assert sure(found, NEAR) == found[0]
    assert len(tied) == 2
    assert sure(tied, 60) is None


@pytest.mark.parametrize(("at_least", "taken"), [(60, True), (100, False)])
def test_how_sure_is_asked_for(at_least: int, taken: bool) -> None:
    found = Suggester(INDUSTRIES).suggest("medical devices")

    assert (sure(found, at_least) is not None) is taken
    assert sure((), at_least) is None


@given(st.text(max_size=30), st.lists(st.text(min_size=1, max_size=12), max_size=5))
def test_every_suggestion_is_an_active_value_with_a_score_in_bounds(word: str, values: list[str]) -> None:
    found = Suggester(choices(*values), [TABLE]).suggest(word)

    assert len(found) <= 3
    assert all(one.value in values and 65 <= one.score <= 100 for one in found)
    assert [one.score for one in found] == sorted((one.score for one in found), reverse=True)
