"""Search filters and written values, one at a time."""

from __future__ import annotations

from typing import Any

import pytest

from crm_sync.sandbox.hubspot import filters, moments, values
from crm_sync.sandbox.hubspot.errors import RequestError
from crm_sync.sandbox.hubspot.properties import BY_TYPE
from tests.sandbox.hubspot_account import a_filter

CONTACTS = {each.name: each for each in BY_TYPE["contacts"]}
COMPANIES = {each.name: each for each in BY_TYPE["companies"]}
PROPERTIES = COMPANIES | CONTACTS


def holds(given: dict[str, Any], value: str | None, properties: Any = PROPERTIES) -> bool:
    parsed = filters.parse(given, properties)
    return filters.compile_test(parsed, properties[parsed.property])(value)


# --- text


@pytest.mark.parametrize("value", ["CTO", "cto", "Cto"])
def test_text_equals_without_case(value: str) -> None:
    assert holds(a_filter("jobtitle", "EQ", "cTO"), value)
    assert not holds(a_filter("jobtitle", "NEQ", "cTO"), value)


def test_in_on_text_takes_lower_case_only_and_compares_without_case() -> None:
    assert holds(a_filter("jobtitle", "IN", "n/a", "unknown"), "N/A")
    assert not holds(a_filter("jobtitle", "IN", "N/A"), "N/A")
    assert not holds(a_filter("jobtitle", "IN", "N/A"), "n/a")
    assert not holds(a_filter("jobtitle", "NOT_IN", "n/a"), "N/A")


def test_options_compare_exactly() -> None:
    assert holds(a_filter("hs_seniority", "IN", "vp", "director"), "vp")
    assert not holds(a_filter("hs_seniority", "IN", "VP"), "vp")
    assert not holds(a_filter("hs_seniority", "EQ", "VP"), "vp")


def test_in_on_several_choices_means_any_of_them() -> None:
    assert holds(a_filter("hs_buying_role", "IN", "CHAMPION"), "BLOCKER;CHAMPION")
    assert not holds(a_filter("hs_buying_role", "IN", "END_USER"), "BLOCKER;CHAMPION")


@pytest.mark.parametrize("operator", ["EQ", "NEQ", "LT", "GT", "IN", "NOT_IN", "BETWEEN", "HAS_PROPERTY"])
def test_a_blank_value_answers_to_nothing_but_not_has_property(operator: str) -> None:
    given = a_filter("jobtitle", operator, "a", high="z" if operator == "BETWEEN" else "")

    assert not holds(given, None)
    assert holds(a_filter("jobtitle", "NOT_HAS_PROPERTY"), None)


def test_text_is_ordered_by_its_letters() -> None:
    assert holds(a_filter("lastname", "BETWEEN", "b", high="d"), "Cohen")
    assert not holds(a_filter("lastname", "LT", "c"), "Cohen")


@pytest.mark.parametrize(
    ("pattern", "value", "found"),
    [
        ("engineer", "Senior Software Engineer", True),
        ("engin", "Senior Software Engineer", False),
        ("engin*", "Senior Software Engineer", True),
        ("*@kestrelgrid.example", "marta.raman.1@kestrelgrid.example", True),
        ("*@kestrelgrid.example", "marta.raman.1@other.example", False),
    ],
)
def test_a_token_is_a_whole_word_or_a_pattern(pattern: str, value: str, found: bool) -> None:
    assert holds(a_filter("email", "CONTAINS_TOKEN", pattern), value) is found
    assert holds(a_filter("email", "NOT_CONTAINS_TOKEN", pattern), value) is not found


# --- numbers and moments


def test_numbers_compare_as_numbers() -> None:
    assert holds(a_filter("hs_object_id", "GT", "9999"), "10000")
    assert not holds(a_filter("hs_object_id", "GT", "10000"), "9999")
    assert holds(a_filter("annualrevenue", "EQ", "1900.0"), "1900", COMPANIES)
    assert holds(a_filter("numberofemployees", "BETWEEN", "9", high="100"), "10")
    assert holds(a_filter("numberofemployees", "IN", "5", "10"), "10")


def test_moments_compare_by_milliseconds_and_by_iso_text_alike() -> None:
    noon = "2026-11-02T12:00:00.000Z"

    assert holds(a_filter("createdate", "GTE", noon), noon)
    assert holds(a_filter("createdate", "EQ", str(moments.datetime_ms(noon))), noon)
    assert not holds(a_filter("createdate", "LT", noon), noon)
    assert holds(a_filter("renewal_date", "LT", "2026-11-02"), "2026-11-01")


def test_a_search_from_the_epoch_on_is_an_internal_error() -> None:
    with pytest.raises(RequestError) as refused:
        holds(a_filter("createdate", "GTE", "0"), None)

    assert refused.value.status == 500


# --- what is refused


@pytest.mark.parametrize(
    "given",
    [
        {"propertyName": "no_such_property", "operator": "HAS_PROPERTY"},
        {"propertyName": "legacy_code", "operator": "HAS_PROPERTY"},  # archived
        {"propertyName": "hs_sa_first_engagement_descr", "operator": "HAS_PROPERTY"},  # json
        {"propertyName": "email", "operator": "LIKE", "value": "a"},
        {"propertyName": "email", "operator": "eq", "value": "a"},
        {"propertyName": "email", "operator": "EQ"},
        {"propertyName": "email", "operator": "EQ", "value": ""},
        {"propertyName": "email", "operator": "EQ", "value": 5},
        {"propertyName": "email", "operator": "IN", "value": "a"},
        {"propertyName": "email", "operator": "IN", "values": []},
        {"propertyName": "email", "operator": "IN", "values": "a"},
        {"propertyName": "email", "operator": "IN", "values": [f"{n}" for n in range(101)]},
        {"propertyName": "annualrevenue", "operator": "BETWEEN", "value": "1"},
        {"propertyName": "email", "operator": "EQ", "value": "a", "highvalue": "b"},
        {"operator": "EQ", "value": "a"},
        ["email", "EQ", "a"],
        {"propertyName": "hs_object_id", "operator": "GT", "value": "abc"},
        {"propertyName": "numberofemployees", "operator": "EQ", "value": "1,900"},
        {"propertyName": "createdate", "operator": "GT", "value": "yesterday"},
        {"propertyName": "hs_seniority", "operator": "GT", "value": "vp"},
        {"propertyName": "hs_is_enriched", "operator": "LT", "value": "true"},
    ],
)
def test_a_filter_the_service_would_not_take_is_a_400(given: Any) -> None:
    with pytest.raises(RequestError) as refused:
        holds(given, None, COMPANIES | CONTACTS)

    assert refused.value.status == 400
    assert refused.value.body()["category"] == "VALIDATION_ERROR"


# --- values


def written(name: str, text: str, current: str | None = None, properties: Any = None) -> str | None:
    kept, finding = values.judge(properties or PROPERTIES, name, text, current)
    assert finding is None, finding
    return kept


def refused(name: str, text: str, properties: Any = None) -> str:
    """The code of the finding."""
    kept, finding = values.judge(properties or PROPERTIES, name, text, None)
    assert kept is None
    assert finding is not None
    assert finding.property == name
    return finding.code


@pytest.mark.parametrize(
    ("name", "text", "code"),
    [
        ("no_such_property", "x", "PROPERTY_DOESNT_EXIST"),
        ("legacy_code", "x", "PROPERTY_DOESNT_EXIST"),
        ("hs_object_id", "5", "READ_ONLY_VALUE"),
        ("createdate", "2026-11-02", "READ_ONLY_VALUE"),
        ("hs_is_enriched", "true", "READ_ONLY_VALUE"),
        ("hs_is_enriched", "", "READ_ONLY_VALUE"),
        ("hs_seniority", "VP", "INVALID_OPTION"),
        ("hs_seniority", " vp", "INVALID_OPTION"),
        ("product_interest", "automation", "INVALID_OPTION"),
        ("hs_buying_role", "CHAMPION;boss", "INVALID_OPTION"),
        ("hubspot_owner_id", "1", "INVALID_OPTION"),
        ("hs_contact_enrichment_opt_out", "yes", "INVALID_OPTION"),
        ("numberofemployees", "1,900", "INVALID_INTEGER"),
        ("numberofemployees", "19.5", "INVALID_INTEGER"),
        ("annualrevenue", "1,900.50", "INVALID_FLOAT"),
        ("annualrevenue", "1e6", "INVALID_FLOAT"),
        ("annualrevenue", "$5", "INVALID_FLOAT"),
        ("associatedcompanyid", "acme", "INVALID_LONG"),
        ("renewal_date", "2026-02-30", "INVALID_DATE"),
        ("renewal_date", "1793620800001", "INVALID_DATE"),
        ("apollo_enriched_at", "2026-11-02 12:00", "INVALID_DATE"),
        ("email", "nobody", "INVALID_EMAIL"),
        ("jobtitle", "x" * 65_537, "INVALID_LENGTH"),
    ],
)
def test_a_bad_value_is_refused_by_its_code(name: str, text: str, code: str) -> None:
    properties = COMPANIES if name in ("numberofemployees", "annualrevenue") else CONTACTS

    assert refused(name, text, properties) == code


@pytest.mark.parametrize(
    ("name", "text", "kept"),
    [
        ("jobtitle", "  CTO ", "  CTO "),
        ("jobtitle", "x" * 65_536, "x" * 65_536),
        ("jobtitle", "", None),
        ("numberofemployees", "1900", "1900"),
        ("annualrevenue", "1900.50", "1900.50"),
        ("renewal_date", "1793577600000", "2026-11-02"),
        ("apollo_enriched_at", "1793620800000", "2026-11-02T12:00:00.000Z"),
        ("apollo_enriched_at", "2026-11-02T12:00:00Z", "2026-11-02T12:00:00.000Z"),
        ("email", "A@Example.Test", "a@example.test"),
        ("product_interest", "automation ", "automation "),
        ("product_interest", "fax_gateway", "fax_gateway"),
        ("hs_contact_enrichment_opt_out", "true", "true"),
    ],
)
def test_a_good_value_is_kept(name: str, text: str, kept: str | None) -> None:
    properties = COMPANIES if name in ("numberofemployees", "annualrevenue") else CONTACTS

    assert written(name, text, properties=properties) == kept


def test_a_leading_semicolon_adds_a_choice_and_none_replaces_them() -> None:
    assert written("hs_buying_role", ";CHAMPION", "BLOCKER") == "BLOCKER;CHAMPION"
    assert written("hs_buying_role", ";BLOCKER", "BLOCKER") == "BLOCKER"
    assert written("hs_buying_role", "CHAMPION", "BLOCKER") == "CHAMPION"


def test_a_refused_option_lists_all_148_that_are_allowed() -> None:
    _, finding = values.judge(COMPANIES, "industry", "Technology", None)

    assert finding is not None
    assert finding.message.startswith("Technology was not one of the allowed options: [")
    assert all(option.value in finding.message for option in COMPANIES["industry"].options)
    assert len(COMPANIES["industry"].options) == 148
