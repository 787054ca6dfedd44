"""hubspot-api-client 12.0.0, unchanged, against the simulator over loopback, each call held against the contract."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from hubspot import HubSpot
from hubspot.crm import companies as companies_api
from hubspot.crm import contacts as contacts_api
from hubspot.crm.contacts.exceptions import ApiException
from hubspot.oauth.exceptions import ApiException as TokenError
from openapi_core.exceptions import OpenAPIError
from urllib3.util.retry import Retry

from crm_sync.sandbox import hubspot
from crm_sync.sandbox.server import Server
from crm_sync.sandbox.world import World
from tests.sandbox.hubspot_account import Clock, a_filter, an_input, company_id, contact_id
from tests.sandbox.hubspot_contract import Watched, watching

CONTACTS = 1_300


class Service:
    """A simulator on loopback for one module; `client()` is the official client pointed at it."""

    def __init__(self, **options: Any) -> None:
        free = {"burst": None, "daily": None, "searches_per_s": None, "lag_s": 0.0}
        app = hubspot.create(World(7, CONTACTS), **{**free, **options})
        self.simulator = app.extensions["simulator"]
        self.server = Server(app).start()
        self.url = self.server.url

    def client(self, token: str = hubspot.TOKEN) -> HubSpot:
        # One keyword points every group at loopback; Retry(0), for None would leave urllib3's three in force.
        return HubSpot(access_token=token, host=self.url, retry=Retry(total=0))


@pytest.fixture
def service() -> Iterator[Service]:
    service = Service()
    yield service
    service.server.stop()


@pytest.fixture
def watched(service: Service, monkeypatch: pytest.MonkeyPatch) -> Iterator[Watched]:
    with watching(service.url, monkeypatch) as watched:
        yield watched


def test_listing_walks_every_contact_once_in_rising_order(service: Service, watched: Watched) -> None:
    api = service.client().crm.contacts.basic_api
    ids: list[int] = []
    after = None

    while True:
        page = api.get_page(
            limit=100, archived=False, properties=["email", "jobtitle"], **({"after": after} if after else {})
        )
        ids += [int(record.id) for record in page.results]
        if page.paging is None:
            break
        after = page.paging.next.after

    assert ids == [int(contact_id(n)) for n in range(CONTACTS)]
    assert len(watched.calls) == 13


def test_keyset_search_finds_exactly_the_contacts_without_a_title(service: Service, watched: Watched) -> None:
    everybody = _titles(service)
    api = service.client().crm.contacts.search_api
    found: list[str] = []
    totals: list[int] = []
    last = "0"

    while True:
        page = api.do_search(
            public_object_search_request=contacts_api.PublicObjectSearchRequest(
                filter_groups=[
                    contacts_api.FilterGroup(
                        filters=[
                            contacts_api.Filter(property_name="hs_object_id", operator="GT", value=last),
                            contacts_api.Filter(property_name="jobtitle", operator="NOT_HAS_PROPERTY"),
                        ]
                    )
                ],
                sorts=["hs_object_id"],
                properties=["jobtitle"],
                limit=200,
            )
        )
        if not page.results:
            break
        totals.append(page.total)
        found += [record.id for record in page.results]
        last = found[-1]

    assert found == [record_id for record_id, title in everybody.items() if title is None]
    assert totals == [len(found) - 200 * page for page in range(len(totals))]
    assert len(found) > 400
    assert {status for _, status in watched.calls} == {200}


def test_a_batch_read_tells_the_ids_it_does_not_have(service: Service, watched: Watched) -> None:
    api = service.client().crm.contacts.batch_api

    answer = api.read(
        batch_read_input_simple_public_object_id={
            "inputs": [{"id": contact_id(3)}, {"id": "77"}, {"id": contact_id(9)}],
            "properties": ["email"],
            "propertiesWithHistory": ["jobtitle"],
        }
    )

    assert {record.id for record in answer.results} == {contact_id(3), contact_id(9)}
    assert answer.num_errors == 1
    assert answer.errors[0].category == "OBJECT_NOT_FOUND"
    assert answer.errors[0].context["ids"] == ["77"]
    assert watched.calls[-1][1] == 207


def test_a_batch_update_writes_and_answers_with_what_was_written(service: Service, watched: Watched) -> None:
    api = service.client().crm.companies.batch_api

    answer = api.update(
        batch_input_simple_public_object_batch_input={
            "inputs": [
                an_input(company_id(n), trace=str(n), industry="COMPUTER_SOFTWARE", numberofemployees="1900")
                for n in range(100)
            ]
        }
    )

    assert type(answer) is companies_api.BatchResponseSimplePublicObject
    assert {record.id for record in answer.results} == {company_id(n) for n in range(100)}
    assert {record.properties["numberofemployees"] for record in answer.results} == {"1900"}
    read = service.client().crm.companies.basic_api.get_by_id(company_id(99), properties=["industry"])
    assert read.properties["industry"] == "COMPUTER_SOFTWARE"
    assert [status for _, status in watched.calls] == [200, 200]


def test_trace_ids_turn_a_refusal_into_one_records_own(service: Service, watched: Watched) -> None:
    inputs = [an_input(company_id(n), trace=f"t{n}", industry="Softwares" if n == 1 else "RETAIL") for n in range(3)]

    answer = service.client().crm.companies.batch_api.update(
        batch_input_simple_public_object_batch_input={"inputs": inputs}
    )

    assert type(answer) is companies_api.BatchResponseSimplePublicObjectWithErrors
    assert {record.id for record in answer.results} == {company_id(0), company_id(2)}
    assert [error.context["objectWriteTraceId"] for error in answer.errors] == [["t1"]]
    assert "Softwares was not one of the allowed options" in answer.errors[0].message


def test_one_record_is_read_and_patched_and_a_missing_one_is_a_404(service: Service, watched: Watched) -> None:
    api = service.client().crm.contacts.basic_api

    patched = api.update(contact_id(5), simple_public_object_input={"properties": {"jobtitle": "CTO"}})
    read = api.get_by_id(contact_id(5), properties=["jobtitle", "no_such_property"], archived=False)
    with pytest.raises(ApiException) as refused:
        api.get_by_id("77")

    assert patched.properties["jobtitle"] == read.properties["jobtitle"] == "CTO"
    assert "no_such_property" not in read.properties
    assert refused.value.status == 404
    assert json.loads(refused.value.body)["category"] == "OBJECT_NOT_FOUND"


@pytest.mark.parametrize("object_type", ["contacts", "companies"])
def test_the_properties_are_described(service: Service, watched: Watched, object_type: str) -> None:
    found = service.client().crm.properties.core_api.get_all(object_type).results

    assert 40 <= len(found) <= 100
    by_name = {each.name: each for each in found}
    assert by_name["industry"].type == ("enumeration" if object_type == "companies" else "string")
    assert len(by_name["industry"].options) == (148 if object_type == "companies" else 0)
    assert by_name["hs_object_id"].modification_metadata.read_only_value
    assert by_name["hubspot_owner_id"].external_options


def test_an_oauth_app_gets_a_token_that_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    service = Service(now=clock, token_seconds=1800)
    client_id, secret, refresh_token = hubspot.CLIENT
    given = {"grant_type": "refresh_token", "client_id": client_id, "client_secret": secret}

    with watching(service.url, monkeypatch) as watched:
        token = service.client().oauth.tokens_api.create(**given, refresh_token=refresh_token)
        fresh = service.client(token.access_token).crm.contacts.basic_api
        first = fresh.get_page(limit=1, archived=False)
        clock.forward(1807)
        with pytest.raises(ApiException) as late:
            fresh.get_page(limit=1, archived=False)
        with pytest.raises(TokenError) as wrong:
            service.client().oauth.tokens_api.create(**given, refresh_token="other")

    service.server.stop()
    assert token.expires_in == 1800
    assert [record.id for record in first.results] == [contact_id(0)]
    assert json.loads(late.value.body)["category"] == "EXPIRED_AUTHENTICATION"
    assert "expired 7 second(s) ago" in late.value.body
    assert wrong.value.status == 400
    assert "BAD_REFRESH_TOKEN" in wrong.value.body
    assert [status for _, status in watched.calls] == [200, 200, 401, 400]


def test_a_search_over_the_limit_is_refused_in_the_limits_own_shape(monkeypatch: pytest.MonkeyPatch) -> None:
    service = Service(searches_per_s=5, now=Clock())
    api = service.client().crm.contacts.search_api
    ask = {"filterGroups": [], "limit": 1}

    with watching(service.url, monkeypatch) as watched:
        for _ in range(5):
            api.do_search(public_object_search_request=ask)
        with pytest.raises(ApiException) as refused:
            api.do_search(public_object_search_request=ask)

    service.server.stop()
    body = json.loads(refused.value.body)
    assert (refused.value.status, body["errorType"], body["policyName"]) == (429, "RATE_LIMIT", "SECONDLY")
    assert "category" not in body
    assert not [name for name in refused.value.headers if "ratelimit" in name.lower()]
    assert len(watched.calls) == 6


@pytest.mark.parametrize(
    "inputs",
    [
        [an_input(contact_id(n), jobtitle="CTO") for n in range(101)],
        [{"id": contact_id(0), "properties": {"numemployees": 5}}],
        [{"id": contact_id(0), "properties": {}}],
    ],
)
def test_what_the_contract_forbids_is_refused_by_the_service_too(
    service: Service, monkeypatch: pytest.MonkeyPatch, inputs: list[dict[str, Any]]
) -> None:
    api = service.client().crm.contacts.batch_api
    body = {"inputs": inputs}

    with watching(service.url, monkeypatch) as watched, pytest.raises(OpenAPIError):
        api.update(batch_input_simple_public_object_batch_input=body)
    with pytest.raises(ApiException) as refused:
        api.update(batch_input_simple_public_object_batch_input=body)

    assert watched.calls == []
    assert refused.value.status == 400
    assert service.simulator.state()["written"]["contacts"] == 0


def _titles(service: Service) -> dict[str, str | None]:
    """Every contact's title by id, as the simulator itself tells it."""
    edit = service.simulator.edit
    shown = ((contact_id(n), edit("contacts", contact_id(n), {})) for n in range(CONTACTS))
    return {record_id: record["properties"]["jobtitle"] for record_id, record in shown}


def test_filters_reach_the_service_as_plain_dicts_too(service: Service, watched: Watched) -> None:
    body = {
        "filterGroups": [{"filters": [a_filter("hs_object_id", "IN", contact_id(1), contact_id(2))]}],
        "sorts": [{"propertyName": "hs_object_id", "direction": "DESCENDING"}],
        "properties": ["email"],
    }

    page = service.client().crm.contacts.search_api.do_search(public_object_search_request=body)

    assert [record.id for record in page.results] == [contact_id(2), contact_id(1)]
    assert page.total == 2
