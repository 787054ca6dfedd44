"""What the search index knows: answers and totals that stay right without looking at everybody again."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from crm_sync.sandbox.hubspot import filters, search
from crm_sync.sandbox.hubspot.portal import FIRST_ID, Portal
from crm_sync.sandbox.hubspot.records import Row
from crm_sync.sandbox.overlay import Overlay
from crm_sync.sandbox.world import World
from tests.sandbox.hubspot_account import CONTACTS, Account, Clock, a_filter, company_id, contact_id

NO_TITLE = a_filter("jobtitle", "NOT_HAS_PROPERTY")


def a_portal(contacts: int = 300, *, lag_s: float = 0.0, clock: Clock | None = None) -> Portal:
    return Portal(World(7, contacts), overlay=Overlay(), lag_s=lag_s, now=clock or Clock())


def a_question(*groups: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
    return {"filterGroups": [{"filters": group} for group in groups], "limit": 200, **more}


def ask(portal: Portal, body: dict[str, Any]) -> search.Found:
    table = portal.contacts
    return portal.searches["contacts"].answer(search.parse(orjson.dumps(body), table.properties))


def by_hand(portal: Portal, body: dict[str, Any]) -> list[int]:
    """Every living contact that answers, found by testing all of them anew."""
    table = portal.contacts
    groups = [
        [
            (table.getter(each["propertyName"]), filters.compile_test(parsed, table.properties[parsed.property]))
            for each in group["filters"]
            for parsed in [filters.parse(each, table.properties)]
        ]
        for group in body["filterGroups"]
    ]

    def answers(row: Row) -> bool:
        return not groups or any(all(test(get(row)) for get, test in group) for group in groups)

    return [row.index for row in table.rows(0, table.count) if row.is_living and answers(row)]


_CONDITIONS = st.sampled_from(
    [
        NO_TITLE,
        a_filter("city", "NOT_HAS_PROPERTY"),
        a_filter("country", "EQ", "germany"),
        a_filter("jobtitle", "IN", "n/a", "-", "[[unknown]]"),
        a_filter("hs_object_id", "NEQ", contact_id(3)),
    ]
)
_IDS = st.sampled_from(
    [
        a_filter("hs_object_id", "GT", contact_id(40)),
        a_filter("hs_object_id", "GTE", contact_id(18)),
        a_filter("hs_object_id", "LT", contact_id(100)),
        a_filter("hs_object_id", "LTE", "5"),
        a_filter("hs_object_id", "BETWEEN", contact_id(10), high=contact_id(90)),
        a_filter("hs_object_id", "IN", contact_id(19), contact_id(20), "77"),
    ]
)
_EDITS = st.lists(
    st.tuples(st.integers(0, 119), st.sampled_from([{"jobtitle": "CTO"}, {"jobtitle": None}, {"country": "Germany"}])),
    max_size=8,
)


@given(
    rest=st.lists(st.lists(_CONDITIONS, min_size=1, max_size=2), min_size=1, max_size=3),
    same=st.booleans(),
    ids=st.lists(_IDS, max_size=2),
    edits=_EDITS,
)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_a_search_finds_and_counts_what_testing_everybody_finds(
    rest: list[list[dict[str, Any]]], same: bool, ids: list[dict[str, Any]], edits: list[tuple[int, Any]]
) -> None:
    portal = a_portal(120)
    body = a_question(*([*group, *(ids if same or place == 0 else [])] for place, group in enumerate(rest)))

    for index, changes in [*edits, (0, {})]:
        found = ask(portal, body)
        expected = by_hand(portal, body)
        assert [row.index for row in found.rows] == expected[:200]
        assert found.total == len(expected)
        if changes:
            portal.contacts.write([(index, changes)], source="CRM_UI", source_id="test")
    portal.close()


def test_a_page_looks_at_no_more_records_than_were_written_since_the_last() -> None:
    portal = a_portal(9_000)
    body = a_question([NO_TITLE, a_filter("hs_object_id", "GT", contact_id(0))])
    ask(portal, body)
    searches = portal.searches["contacts"]
    before = searches.tested

    for after in range(200, 8_000, 200):
        body["filterGroups"][0]["filters"][1]["value"] = contact_id(after)
        ask(portal, body)
    paged = searches.tested - before
    portal.contacts.write([(8_500, {"jobtitle": "CTO"})], source="CRM_UI", source_id="test")
    total = ask(portal, body).total

    assert before == 9_000
    assert paged == 0
    assert searches.tested - before == 1
    assert total == sum(index > 7_800 for index in by_hand(portal, a_question([NO_TITLE])))


def test_a_company_that_is_archived_leaves_its_contacts() -> None:
    account = Account(60)
    of_company = a_filter("associatedcompanyid", "EQ", company_id(3))
    before = account.found(of_company)

    account.simulator.edit("companies", company_id(3), {"archived": True})

    assert before
    assert account.found(of_company) == []
    assert account.value(before[0], "associatedcompanyid") is None


def test_ids_grow_by_a_digit_so_that_comparing_them_as_text_fails() -> None:
    account = Account(60)

    ids = account.found(a_filter("hs_object_id", "GT", contact_id(10)))

    assert ids == [contact_id(index) for index in range(11, 60)]
    assert ids != sorted(ids)


def test_the_next_page_of_a_search_is_an_offset_and_of_a_list_an_id() -> None:
    account = Account(60)

    searched = account.search(limit=20).json["paging"]["next"]["after"]
    listed = account.get(CONTACTS, limit=20).json["paging"]["next"]["after"]
    crossed = account.search(limit=20, after=listed)

    assert searched == "20"
    assert listed == contact_id(20)
    assert account.found(limit=20, after=searched) == [contact_id(index) for index in range(20, 40)]
    assert crossed.status_code == 400


def test_a_search_reaches_ten_thousand_results_and_no_further() -> None:
    account = Account(10_050)

    last = account.search(limit=200, after="9800")
    beyond = account.search(limit=200, after="9801")

    assert last.status_code == 200
    assert last.json["total"] == 10_050
    assert last.json["results"][-1]["id"] == contact_id(9_999)
    assert beyond.status_code == 400
    assert beyond.json["category"] == "VALIDATION_ERROR"


def test_more_records_share_a_moment_of_change_than_a_search_can_page_through() -> None:
    account = Account(16_000)
    moment = account.value(contact_id(1), "lastmodifieddate")

    assert moment is not None
    assert account.search(a_filter("lastmodifieddate", "EQ", moment), limit=1).json["total"] > 10_000


@pytest.mark.parametrize("name", ["contacts", "companies"])
def test_an_id_leads_to_its_record_and_a_strangers_id_nowhere(name: str) -> None:
    table = a_portal(300).tables[name]

    assert [table.index_of(table.id_of(index)) for index in range(table.count)] == list(range(table.count))
    assert table.id_of(0) == str(FIRST_ID[name])
    assert [table.index_of(each) for each in ("0", "", "12x", "-1", table.id_of(table.count))] == [None] * 5
