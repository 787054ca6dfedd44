"""Our own HubSpot client, through whole walks and refusals: every request and every answer keeps to the contract."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import pytest

from adapters.hubspot.client import HubSpotCredentials, HubSpotCrm
from crm_sync.domain.changes import WriteMode, Written
from crm_sync.domain.records import RecordRef, Value
from crm_sync.ports import Selection, Within, WriteRequest
from crm_sync.sandbox import hubspot
from crm_sync.sandbox.server import Server
from crm_sync.sandbox.world import World
from tests.clocks import FakeClock
from tests.sandbox.hubspot_account import contact_id
from tests.sandbox.hubspot_contract import Watched, watching

FIELDS = ("jobtitle", "hs_seniority", "city", "hs_linkedin_url", "country")


@contextmanager
def connected(
    monkeypatch: pytest.MonkeyPatch, credentials: HubSpotCredentials | None = None, **options: Any
) -> Iterator[tuple[HubSpotCrm, Watched]]:
    free = {"burst": None, "daily": None, "searches_per_s": None, "lag_s": 0.0}
    app = hubspot.create(World(7, 700), **{**free, **options})
    server = Server(app).start()
    crm = HubSpotCrm(
        name="hubspot",
        url=server.url,
        credentials=credentials or HubSpotCredentials(token=hubspot.TOKEN),
        clock=FakeClock(),
    )
    try:
        with watching(server.url, monkeypatch) as watched:
            yield crm, watched
    finally:
        crm.close()
        server.stop()


def a_request(index: int, **values: Value) -> WriteRequest:
    return WriteRequest(ref=RecordRef(crm="hubspot", object_type="contacts", id=contact_id(index)), values=values)


def statuses(watched: Watched) -> dict[str, Counter[int]]:
    """Status by the last word of the path."""
    found: dict[str, Counter[int]] = {}
    for call, status in watched.calls:
        found.setdefault(call.rpartition("/")[2], Counter())[status] += 1
    return found


@pytest.mark.parametrize("missing", [FIELDS[:1], FIELDS])
def test_a_walk_reads_and_writes_within_the_contract(monkeypatch: pytest.MonkeyPatch, missing: tuple[str, ...]) -> None:
    selection = Selection(
        object_type="contacts",
        fields=("email", *FIELDS),
        missing_any=missing,
        placeholders=("[[unknown]]", "n/a", "-"),
        where=[{"property": "hs_object_id", "operator": "GT", "value": contact_id(99)}],
    )
    with connected(monkeypatch) as (crm, watched):
        ids = [record.ref.id for page in crm.select(selection) for record in page.records]
        read = crm.read("contacts", [*ids, "77"], FIELDS)
        outcomes = crm.write("contacts", [a_request(n, jobtitle="CTO") for n in range(150)])

        seen = statuses(watched)

    assert len(ids) > 200
    assert min(map(int, ids)) == int(contact_id(100))
    assert read.count(None) == 1
    assert {outcome.written for outcome in outcomes} == {Written.WRITTEN}
    assert seen["search"][200] >= 2
    assert seen["read"][207] == 1
    assert seen["update"] == {200: 2}


@pytest.mark.parametrize("trace_ids", [True, False])
def test_refusals_are_worked_off_within_the_contract(monkeypatch: pytest.MonkeyPatch, trace_ids: bool) -> None:
    with connected(monkeypatch, variant="b", trace_ids=trace_ids) as (crm, watched):
        outcomes = crm.write(
            "contacts", [a_request(n, jobtitle="CTO", hs_seniority="boss" if n == 5 else "vp") for n in range(20)]
        )

        seen = statuses(watched)

    assert [n for n, outcome in enumerate(outcomes) if outcome.dropped] == [5]
    assert seen["update"][207 if trace_ids else 400] >= 1


@pytest.mark.parametrize("variant", ["a", "b"])
def test_a_strict_write_and_a_look_for_what_vanished_keep_to_the_contract(
    monkeypatch: pytest.MonkeyPatch, variant: str
) -> None:
    with connected(monkeypatch, variant=variant) as (crm, watched):
        seen = crm.read("contacts", [contact_id(n) for n in range(60)], FIELDS)
        requests = [
            WriteRequest(ref=each.ref, values={"jobtitle": "CTO", "city": None}, seen=each, erase=frozenset({"city"}))
            for each in seen
            if each is not None
        ]

        outcomes = crm.write("contacts", requests, mode=WriteMode.STRICT)
        [where] = crm.whereabouts("contacts", ["77"])

    assert {outcome.written for outcome in outcomes} == {Written.WRITTEN}
    assert where.how == "deleted"
    assert statuses(watched)["read"] == {200: 3, 207: 2}
    assert statuses(watched)["update"] == {200: 1}


def test_a_token_is_fetched_within_the_contract(monkeypatch: pytest.MonkeyPatch) -> None:
    client_id, secret, refresh_token = hubspot.CLIENT
    credentials = HubSpotCredentials(client_id=client_id, client_secret=secret, refresh_token=refresh_token)

    with connected(monkeypatch, credentials) as (crm, watched):
        crm.describe("companies")

    assert watched.calls == [("POST /oauth/v1/token", 200), ("GET /crm/v3/properties/companies", 200)]


def test_records_of_a_time_are_found_and_never_by_the_list(monkeypatch: pytest.MonkeyPatch) -> None:
    """The list knows no filter; a large result must not tempt the client to walk it."""
    monkeypatch.setattr("adapters.hubspot.search.WORTH_COUNTING", 1)
    noon = datetime(2026, 10, 8, 12, 0, tzinfo=UTC)
    with connected(monkeypatch, burst=1000) as (crm, _):
        crm.write("contacts", [a_request(index, apollo_enriched_at="2026-10-08T12:00:00Z") for index in range(300)])
        crm.write(
            "contacts", [a_request(index, apollo_enriched_at="2026-10-08T12:00:01Z") for index in range(400, 410)]
        )
        within = Within(field="apollo_enriched_at", first=noon, last=noon)

        pages = list(crm.select(Selection(object_type="contacts", fields=("apollo_enriched_at",), within=within)))
        calls = crm.calls()

    found = [record.ref.id for page in pages for record in page.records]
    assert found == [contact_id(index) for index in range(300)]
    assert pages[0].expected == 300
    assert "list" not in calls


def test_records_of_a_time_among_given_ids_are_searched_for(monkeypatch: pytest.MonkeyPatch) -> None:
    noon = datetime(2026, 10, 8, 12, 0, tzinfo=UTC)
    with connected(monkeypatch) as (crm, _):
        crm.write("contacts", [a_request(index, apollo_enriched_at="2026-10-08T12:00:00Z") for index in (3, 5)])
        within = Within(field="apollo_enriched_at", first=noon, last=noon)
        ids = tuple(contact_id(index) for index in range(5))

        pages = crm.select(Selection(object_type="contacts", fields=(), within=within, ids=ids))

        assert [record.ref.id for page in pages for record in page.records] == [contact_id(3)]
