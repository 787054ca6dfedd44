"""Selections become searches that keep within HubSpot's caps, or sentences about why they cannot."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from adapters.hubspot import search
from crm_sync.ports import Selection, Within
from tests.adapters.hubspot_schema import contacts_schema

SCHEMA = contacts_schema()
PLACEHOLDERS = ("[[unknown]]", "N/A", "-")


def a_selection(**changes: Any) -> Selection:
    return Selection(**{"object_type": "contacts", "fields": ("email", "jobtitle"), **changes})


def bodies(plan: search.Plan) -> list[dict[str, Any]]:
    assert plan.due is not None
    return [
        search.body(query, plan.properties, id_filter=search.after_filter("9" * 19), limit=200) for query in plan.due
    ]


def assert_within_caps(body: dict[str, Any]) -> None:
    groups = body["filterGroups"]
    assert len(groups) <= 5
    assert max(len(group["filters"]) for group in groups) <= 6
    assert sum(len(group["filters"]) for group in groups) <= 18
    assert len(json.dumps(body)) <= 3_000


# --- queries


def test_each_field_that_may_be_blank_is_one_or_group_behind_the_last_id() -> None:
    plan = search.plan(a_selection(missing_any=("jobtitle", "city")), SCHEMA)

    body = bodies(plan)[0]

    assert [[f["operator"] for f in group["filters"]] for group in body["filterGroups"]] == [
        ["GT", "NOT_HAS_PROPERTY"],
        ["GT", "NOT_HAS_PROPERTY"],
    ]
    assert body["sorts"] == [{"propertyName": "hs_object_id", "direction": "ASCENDING"}]
    assert body["properties"] == ["email", "jobtitle", "city"]
    assert "after" not in body


def test_five_fields_are_one_search() -> None:
    plan = search.plan(a_selection(missing_any=("jobtitle", "city", "state", "country", "hs_seniority")), SCHEMA)

    assert len(bodies(plan)) == 1


def test_placeholders_are_asked_for_in_lower_case_where_somebody_can_have_typed_them() -> None:
    plan = search.plan(a_selection(missing_any=("jobtitle", "score"), placeholders=PLACEHOLDERS), SCHEMA)

    groups = bodies(plan)[0]["filterGroups"]

    assert [group["filters"][1] for group in groups] == [
        {"propertyName": "jobtitle", "operator": "NOT_HAS_PROPERTY"},
        {"propertyName": "score", "operator": "NOT_HAS_PROPERTY"},
        {"propertyName": "jobtitle", "operator": "IN", "values": ["[[unknown]]", "n/a", "-"]},
    ]


def test_an_options_own_spelling_is_kept_where_an_option_is_a_placeholder() -> None:
    found = search.conditions(["hs_seniority"], ["UNKNOWN"], SCHEMA)

    assert found[1].filter == {"propertyName": "hs_seniority", "operator": "IN", "values": ["unknown"]}
    assert len(search.conditions(["hs_seniority"], ["n/a"], SCHEMA)) == 1


def test_what_does_not_fit_one_search_is_spread_over_several_within_the_caps() -> None:
    where = [
        [{"property": "lifecyclestage", "operator": "EQ", "value": "lead"}],
        [{"property": "score", "operator": "GT", "value": 3}],
    ]
    plan = search.plan(
        a_selection(missing_any=("jobtitle", "city", "state", "country"), placeholders=PLACEHOLDERS, where=where),
        SCHEMA,
    )

    found = bodies(plan)

    assert len(found) > 1
    for body in found:
        assert_within_caps(body)
    asked = [tuple(json.dumps(f) for f in g["filters"][1:]) for body in found for g in body["filterGroups"]]
    assert len(asked) == len(set(asked)) == 2 * 8  # every field blank or placeholder, under both AND-lists


def test_an_and_list_without_room_for_one_more_filter_is_sifted_in_hand() -> None:
    where = [{"property": "score", "operator": "GT", "value": n} for n in range(5)]

    plan = search.plan(a_selection(missing_any=("jobtitle",), where=where), SCHEMA)

    assert plan.due is None
    assert [len(group) for group in plan.all[0]] == [5]


def test_too_many_fields_for_the_body_are_left_to_a_batch_read() -> None:
    fields = tuple(f"a_very_long_property_name_number_{n}" for n in range(100))

    plan = search.plan(a_selection(fields=fields, missing_any=("jobtitle",)), SCHEMA)

    assert plan.thin
    assert plan.properties == ()
    assert plan.needed == (*fields, "jobtitle")
    assert_within_caps(bodies(plan)[0])


def test_without_anything_missing_every_record_of_the_filter_is_wanted() -> None:
    plan = search.plan(a_selection(where=[{"property": "city", "operator": "EQ", "value": "Bonn"}]), SCHEMA)

    assert plan.due == plan.all
    assert plan.all == (((({"propertyName": "city", "operator": "EQ", "value": "Bonn"}),),),)


@pytest.mark.parametrize(
    ("written", "sent"),
    [
        ({"operator": "EQ", "property": "score", "value": 7}, {"value": "7"}),
        ({"operator": "EQ", "property": "optout", "value": True}, {"value": "true"}),
        ({"operator": "IN", "property": "city", "values": ["Bonn", "KÖLN"]}, {"values": ["bonn", "köln"]}),
        ({"operator": "IN", "property": "hs_seniority", "values": ["vp"]}, {"values": ["vp"]}),
        (
            {"operator": "BETWEEN", "property": "score", "value": 1, "highValue": 2.5},
            {"value": "1", "highValue": "2.5"},
        ),
        ({"operator": "HAS_PROPERTY", "property": "city", "value": "ignored"}, {}),
    ],
)
def test_a_filter_goes_out_as_text(written: dict[str, Any], sent: dict[str, Any]) -> None:
    found = search.filter_of(written, SCHEMA)

    assert found == {"propertyName": written["property"], "operator": written["operator"], **sent}


def test_ids_are_cut_so_that_each_search_fits() -> None:
    where = [[{"property": "city", "operator": "EQ", "value": f"Town {n}"}] for n in range(4)]
    plan = search.plan(a_selection(where=where), SCHEMA)
    ids = [str(10**12 + n) for n in range(100)]

    chunks = list(search.id_chunks(ids, plan.all[0], plan.properties))

    assert [each for chunk in chunks for each in chunk] == ids
    assert len(chunks) > 1
    for chunk in chunks:
        assert_within_caps(search.body(plan.all[0], plan.properties, id_filter=search.ids_filter(chunk), limit=200))


def test_calls_are_judged_from_the_share_of_a_page_that_is_due() -> None:
    conditions_of = [search.conditions(["jobtitle"], [], SCHEMA), search.conditions(["city"], [], SCHEMA)]
    sample = [{"jobtitle": None, "city": "Bonn"}] * 5 + [{"jobtitle": "CTO", "city": "Bonn"}] * 5

    assert search.due_calls(sample, conditions_of, left=4_000) == 10 + 1


def test_listing_wins_where_more_than_half_of_many_records_are_due() -> None:
    def quicker(due: int) -> bool:
        return search.list_is_quicker(searches=due // 200, records=1_000_000, search_per_s=5, list_per_s=19)

    assert quicker(600_000)
    assert not quicker(500_000)
    assert not search.list_is_quicker(searches=25, records=5_000, search_per_s=5, list_per_s=19)


# --- check


def _said(**changes: Any) -> str:
    return " ".join(search.check(a_selection(**changes), SCHEMA))


def test_a_sound_selection_is_not_complained_about() -> None:
    where = [
        [{"property": "lifecyclestage", "operator": "IN", "values": ["lead", "customer"]}],
        [{"property": "city", "operator": "HAS_PROPERTY"}, {"property": "score", "operator": "GTE", "value": 10}],
    ]

    assert _said(where=where, missing_any=("jobtitle", "city"), placeholders=PLACEHOLDERS) == ""
    assert _said(where=where[1]) == ""


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"fields": ("job_title",)}, "did you mean jobtitle?"),
        ({"fields": ("Account.Website",)}, "no parent properties"),
        ({"missing_any": ("layout",)}, "cannot search by layout"),
        ({"where": [{"property": "jobtitel", "operator": "EQ", "value": "x"}]}, "did you mean jobtitle?"),
        ({"where": [{"property": "city", "operator": "EQUALS", "value": "x"}]}, "did you mean EQ?"),
        ({"where": [{"property": "city", "operator": "EQ"}]}, "needs `value`"),
        ({"where": [{"property": "city", "operator": "IN", "value": "x"}]}, "needs `values`"),
        ({"where": [{"property": "score", "operator": "BETWEEN", "value": 1}]}, "needs `highValue`"),
        ({"where": [{"property": "city", "operator": "EQ", "vaule": "x"}]}, "unknown key vaule"),
        ({"where": [{"property": "lifecyclestage", "operator": "EQ", "value": "Lead"}]}, "did you mean lead?"),
        ({"where": [{"property": "score", "operator": "GT", "value": n} for n in range(6)]}, "at most 5"),
        ({"where": [{"property": "city", "operator": "EQ", "value": "x" * 3_000}]}, "3,000"),
        ({"where": "city = 'Bonn'"}, "is written {property"),
        ({"where": [["city", "EQ"]]}, "is written {property"),
    ],
)
def test_what_the_search_would_refuse_is_said_with_the_cure(changes: dict[str, Any], words: str) -> None:
    assert words in _said(**changes)


def test_records_of_a_time_are_one_filter_in_each_group() -> None:
    moment = datetime(2026, 11, 27, 12, 0, 0, 500_000, tzinfo=UTC)
    within = Within(field="seen", first=moment, last=moment + timedelta(hours=1))
    where = [
        [{"property": "city", "operator": "EQ", "value": "Berlin"}],
        [{"property": "city", "operator": "EQ", "value": "Bonn"}],
    ]

    body = bodies(search.plan(a_selection(where=where, within=within), SCHEMA))[0]

    between = {
        "propertyName": "seen",
        "operator": "BETWEEN",
        "value": "1795780800000",
        "highValue": "1795784400000",
    }
    assert [group["filters"][1] for group in body["filterGroups"]] == [between, between]
    assert [len(group["filters"]) for group in body["filterGroups"]] == [3, 3]


def test_a_date_is_its_midnight_and_never_the_epoch() -> None:
    moment = datetime(2026, 11, 27, 12, 0, tzinfo=UTC)
    within = Within(field="born", first=datetime(1970, 1, 1, tzinfo=UTC), last=moment)

    body = bodies(search.plan(a_selection(within=within), SCHEMA))[0]

    found = body["filterGroups"][0]["filters"][1]
    assert (found["value"], found["highValue"]) == ("86400000", "1795737600000")


@pytest.mark.parametrize(
    ("field", "said"), [("jobtitle", "cannot search jobtitle"), ("no_such", "no property no_such")]
)
def test_what_is_no_time_cannot_be_searched_by_time(field: str, said: str) -> None:
    moment = datetime(2026, 11, 27, tzinfo=UTC)

    problems = search.check(a_selection(within=Within(field=field, first=moment, last=moment)), SCHEMA)

    assert len(problems) == 1
    assert said in problems[0]
