from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crm_sync.domain.records import Choice
from crm_sync.mapping.picklists import Choices, builtin_table, choice_index, fold
from tests.unit.mapping.examples import choices


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("hospital & health care", "HOSPITAL_HEALTH_CARE"),
        ("marketing & advertising", "MARKETING_AND_ADVERTISING"),
        ("information technology & services", "Information Technology and Services"),
        ("airlines/aviation", "AIRLINES_AVIATION"),
        ("glass, ceramics & concrete", "GLASS_CERAMICS_CONCRETE"),
        ("e-learning", "E_LEARNING"),
        ("food\u00a0& beverages", "Food & Beverages"),
        ("C-Suite", "c_suite"),
    ],
)
def test_spellings_of_one_word_fold_alike(one: str, other: str) -> None:
    assert fold(one) == fold(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [("brand design", "br design"), ("food production", "food products"), ("land & sea", "l sea"), ("C++", "C#")],
)
def test_different_words_stay_different(one: str, other: str) -> None:
    assert fold(one) != fold(other)


@given(st.text(max_size=40))
def test_folding_is_idempotent_but_for_a_word_and_that_punctuation_hid(word: str) -> None:
    once = fold(word)

    assert fold(once) in (once, "")


def test_a_ready_table_is_asked_with_the_folded_word() -> None:
    assert builtin_table("salesforce_seniority")[fold("C-Suite")] == "Executive"
    assert builtin_table("hubspot_industry")[fold("oil & energy")] == "OIL_ENERGY"


def test_a_choice_is_found_by_value_and_by_label_in_any_spelling() -> None:
    found = Choices((Choice(value="HOSPITAL_HEALTH_CARE", label="Hospital & Health Care"), *choices("VP")))

    assert found.find("HOSPITAL_HEALTH_CARE") == "HOSPITAL_HEALTH_CARE"
    assert found.find("hospital and health care") == "HOSPITAL_HEALTH_CARE"
    assert found.find("vp") == "VP"


def test_an_inactive_choice_is_not_found() -> None:
    found = Choices(choices("Open", inactive=("Closed",)))

    assert found.find("Closed") is None
    assert fold("Closed") not in choice_index(choices("Open", inactive=("Closed",)))


def test_choices_that_differ_by_punctuation_are_found_only_as_written() -> None:
    ratings = Choices(choices("A", "A-", "B"))

    assert (ratings.find("A"), ratings.find("A-")) == ("A", "A-")
    assert ratings.find("a") is None
    assert ratings.find("b") == "B"


def test_a_value_wins_over_another_choices_label() -> None:
    found = Choices((Choice(value="1", label="2"), Choice(value="2", label="3")))

    assert (found.find("2"), found.find("3")) == ("2", "2")


def test_a_label_that_two_choices_share_finds_neither() -> None:
    found = Choices((Choice(value="a", label="Same"), Choice(value="b", label="Same")))

    assert found.find("Same") is None


def test_punctuation_alone_finds_nothing() -> None:
    assert Choices(choices("-", "Open")).find("&") is None
