"""HubSpotCrm over hubspot-api-client: what leaves, and what becomes of every answer."""

from __future__ import annotations

import json
import logging
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from adapters.hubspot import search
from adapters.hubspot.client import HubSpotCredentials, HubSpotCrm
from crm_sync.domain.changes import Written
from crm_sync.domain.records import RecordRef, Value
from crm_sync.errors import ConfigError, ContractError, CredentialsError, QuotaError, TransientError
from crm_sync.ports import Page, Selection, WriteRequest
from tests.adapters.hubspot_portal import Portal, Seen, Trick, a_portal, cut, hang_up, status
from tests.clocks import FakeClock

BURST = {
    "x-hubspot-ratelimit-max": "190",
    "x-hubspot-ratelimit-remaining": "180",
    "x-hubspot-ratelimit-interval-milliseconds": "10000",
    "x-hubspot-ratelimit-daily": "625000",
    "x-hubspot-ratelimit-daily-remaining": "600000",
}


@pytest.fixture
def portal() -> Iterator[Portal]:
    with a_portal() as portal:
        yield portal


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def crm(portal: Portal, clock: FakeClock) -> Iterator[HubSpotCrm]:
    crm = HubSpotCrm(name="hubspot", url=portal.url, credentials=HubSpotCredentials(token="pat-test"), clock=clock)
    yield crm
    crm.close()


@pytest.fixture
def oauth_crm(portal: Portal, clock: FakeClock) -> Iterator[HubSpotCrm]:
    credentials = HubSpotCredentials(client_id="id", client_secret="hush", refresh_token="rt")
    crm = HubSpotCrm(name="hubspot", url=portal.url, credentials=credentials, clock=clock)
    yield crm
    crm.close()


def fill(portal: Portal, count: int, **properties: Any) -> None:
    """`count` contacts; a property that is a function is asked with each id."""
    for i in range(1, count + 1):
        held = {name: value(i) if callable(value) else value for name, value in properties.items()}
        portal.records[i] = {"email": f"c{i}@example.test", **held}


def a_selection(**changes: Any) -> Selection:
    return Selection(**{"object_type": "contacts", "fields": ("email", "jobtitle"), **changes})


def ids(pages: list[Page]) -> list[int]:
    return [int(record.ref.id) for page in pages for record in page.records]


def a_request(record_id: int, **values: Value) -> WriteRequest:
    return WriteRequest(ref=RecordRef(crm="hubspot", object_type="contacts", id=str(record_id)), values=values)


def missing_scope(scope: str) -> dict[str, Any]:
    return {"category": "MISSING_SCOPES", "errors": [{"context": {"requiredGranularScopes": [scope]}}]}


SEARCH = "/crm/v3/objects/contacts/search"
LIST = "/crm/v3/objects/contacts"
READ = "/crm/v3/objects/contacts/batch/read"
UPDATE = "/crm/v3/objects/contacts/batch/update"


# --- selecting


def test_a_thousand_due_contacts_with_five_fields_take_five_searches(portal: Portal, crm: HubSpotCrm) -> None:
    fill(portal, 1_000, city="Bonn")
    fields = ("jobtitle", "state", "country", "hs_seniority", "city")

    pages = list(crm.select(a_selection(fields=fields, missing_any=fields)))

    assert ids(pages) == list(range(1, 1_001))
    assert portal.calls()[SEARCH] == 5
    assert crm.calls() == {"properties": 1, "search": 5}
    assert [page.expected for page in pages] == [1_000] * 5


def test_placeholders_cost_no_more_searches_where_nearly_all_are_due(portal: Portal, crm: HubSpotCrm) -> None:
    fill(portal, 1_000, jobtitle=lambda i: "N/A" if i % 10 == 0 else None, city="Bonn", state="x", country=" - ")
    fields = ("jobtitle", "city", "state", "country")

    pages = list(crm.select(a_selection(fields=fields, missing_any=fields, placeholders=("n/a", "-"))))

    assert ids(pages) == list(range(1, 1_001))
    assert portal.calls()[SEARCH] == 5


def test_where_few_of_many_are_due_the_searches_ask_for_these_alone(portal: Portal, crm: HubSpotCrm) -> None:
    filled = {"state": "NW", "country": "DE", "phone": "1"}
    fill(
        portal,
        4_000,
        **filled,
        jobtitle=lambda i: None if i % 50 == 0 else "CTO",
        city=lambda i: "-" if i % 75 == 0 else "Bonn",
    )
    fields = ("jobtitle", "city", "state", "country", "phone")

    pages = list(crm.select(a_selection(fields=fields, missing_any=fields, placeholders=("n/a", "-"))))

    assert ids(pages) == [i for i in range(1, 4_001) if i % 50 == 0 or i % 75 == 0]
    assert portal.calls()[SEARCH] <= 4


def test_a_walk_goes_on_behind_any_page(portal: Portal, crm: HubSpotCrm) -> None:
    fill(portal, 450, city=lambda i: "-" if i % 2 else None, state="x", country="y", jobtitle="CTO")
    fields = ("city", "state", "country", "jobtitle")
    selection = a_selection(fields=fields, missing_any=fields, placeholders=("-",))

    first = next(iter(crm.select(selection, page_size=100)))
    rest = list(crm.select(a_selection(fields=fields, missing_any=fields, placeholders=("-",), after=first.cursor)))

    assert ids([first, *rest]) == list(range(1, 451))


def test_an_and_list_too_long_for_one_filter_more_is_sifted_here(portal: Portal, crm: HubSpotCrm) -> None:
    fill(portal, 300, city="Bonn", jobtitle=lambda i: None if i % 3 == 0 else "CTO")
    where = [{"property": "city", "operator": "EQ", "value": "bonn"}] * 5

    pages = list(crm.select(a_selection(missing_any=("jobtitle",), where=where)))

    assert ids(pages) == list(range(3, 301, 3))


def test_or_lists_of_the_admin_and_several_fields_find_each_record_once(portal: Portal, crm: HubSpotCrm) -> None:
    fill(portal, 300, city=lambda i: "Bonn" if i % 2 else "Ulm", state=lambda i: "NW" if i % 3 else None)
    where = [[{"property": "city", "operator": "EQ", "value": town}] for town in ("Bonn", "Ulm", "Jena")]

    fields = ("jobtitle", "state", "country")
    pages = list(crm.select(a_selection(fields=fields, missing_any=fields, placeholders=("-",), where=where)))

    assert ids(pages) == list(range(1, 301))


def test_fields_that_find_no_room_in_a_search_come_by_batch_read(portal: Portal, crm: HubSpotCrm) -> None:
    fill(portal, 150, jobtitle=None, city="Bonn")
    many = tuple(f"a_rather_long_property_name_{n}" for n in range(120))

    pages = list(crm.select(a_selection(fields=("city", *many), missing_any=("jobtitle",))))

    assert ids(pages) == list(range(1, 151))
    assert pages[0].records[0].values["city"] == "Bonn"
    assert crm.calls()["read"] == 2


def test_the_list_is_walked_where_most_of_many_records_are_due(
    portal: Portal, crm: HubSpotCrm, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search, "WORTH_COUNTING", 400)
    portal.headers = BURST
    fill(portal, 1_000, jobtitle=lambda i: None if i % 10 else "CTO")

    pages = list(crm.select(a_selection(missing_any=("jobtitle",))))

    assert ids(pages) == [i for i in range(1, 1_001) if i % 10]
    assert portal.calls()[SEARCH] == 2  # the first page, and the count of all
    assert crm.calls()["list"] == 8
    assert portal.last(LIST).query["properties"] == ["email", "jobtitle", "hs_object_id"]


def test_the_list_is_left_alone_where_few_are_due(
    portal: Portal, crm: HubSpotCrm, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search, "WORTH_COUNTING", 400)
    portal.headers = BURST
    fill(portal, 3_000, jobtitle=lambda i: None if i % 3 == 0 else "CTO")

    pages = list(crm.select(a_selection(missing_any=("jobtitle",))))

    assert len(ids(pages)) == 1_000
    assert "list" not in crm.calls()


def test_chosen_ids_are_read_fresh_and_sifted(portal: Portal, crm: HubSpotCrm) -> None:
    fill(portal, 250, jobtitle=lambda i: None if i % 2 else "CTO")

    chosen = tuple(str(i) for i in (1, 2, 3, 199, 999))
    pages = list(crm.select(a_selection(missing_any=("jobtitle",), ids=chosen)))

    assert ids(pages) == [1, 3, 199]
    assert crm.calls() == {"properties": 1, "read": 1}


def test_chosen_ids_under_a_filter_are_searched(portal: Portal, crm: HubSpotCrm) -> None:
    fill(portal, 250, city=lambda i: "Bonn" if i % 2 else "Ulm")
    where = [{"property": "city", "operator": "EQ", "value": "Bonn"}]

    pages = list(crm.select(a_selection(where=where, ids=tuple(str(i) for i in range(1, 251)))))

    assert ids(pages) == list(range(1, 251, 2))


def _shuffled(portal: Portal) -> Any:
    def trick(_seen: Seen) -> tuple[int, dict[str, str], bytes] | None:
        results = [portal.raw(i, ["email", "jobtitle"]) for i in (3, 2, 1)]
        return 200, {}, json.dumps({"total": 300, "results": results}).encode()

    return trick


def test_a_page_out_of_order_is_asked_for_again(portal: Portal, crm: HubSpotCrm) -> None:
    fill(portal, 300)
    portal.play("/search", _shuffled(portal))

    assert ids(list(crm.select(a_selection(missing_any=("jobtitle",))))) == list(range(1, 301))


def test_pages_that_stay_out_of_order_end_the_walk_instead_of_skipping_records(portal: Portal, crm: HubSpotCrm) -> None:
    fill(portal, 300)
    portal.play("/search", *[_shuffled(portal)] * 3)

    with pytest.raises(TransientError, match="out of order"):
        list(crm.select(a_selection(missing_any=("jobtitle",))))


def test_new_work_is_refused_when_the_days_calls_are_nearly_used_up(portal: Portal, crm: HubSpotCrm) -> None:
    fill(portal, 3)
    portal.headers = BURST | {"x-hubspot-ratelimit-daily-remaining": "6000"}
    crm.describe("contacts")

    with pytest.raises(QuotaError, match="6,000"):
        list(crm.select(a_selection()))
    assert crm.write("contacts", [a_request(1, city="Bonn")])[0].written is Written.WRITTEN


def test_an_unknown_object_and_a_hidden_one_are_said(portal: Portal, crm: HubSpotCrm) -> None:
    with pytest.raises(ConfigError, match="contacts and companies"):
        crm.describe("Contact")

    portal.play("/properties/companies", status(404, {"status": "error", "message": "no such type"}))
    with pytest.raises(ConfigError, match="companies"):
        crm.describe("companies")


# --- reading


def test_records_come_back_by_position_whatever_the_answers_order(portal: Portal, crm: HubSpotCrm) -> None:
    fill(portal, 250, score="7")

    found = crm.read("contacts", ["250", "1", "999", "junk", "1"], ["score"])

    assert [record.ref.id if record else None for record in found] == ["250", "1", None, None, "1"]
    assert found[0] is not None
    assert found[0].values == {"score": 7}
    assert crm.calls()["read"] == 1


def test_reading_is_cut_into_hundreds(portal: Portal, crm: HubSpotCrm) -> None:
    fill(portal, 250)

    found = crm.read("contacts", [str(i) for i in range(1, 251)], ["email"])

    assert all(found)
    assert portal.calls()[READ] == 3


def test_a_merged_record_comes_back_under_its_survivors_id(portal: Portal, crm: HubSpotCrm) -> None:
    fill(portal, 4)
    portal.records[305] = {"email": "both@example.test", "hs_merged_object_ids": "1;2"}
    del portal.records[1], portal.records[2]
    portal.merged = {1: 305, 2: 305}

    found = crm.read("contacts", ["1", "2", "3", "305"], ["email"])

    assert [record.ref.id for record in found if record] == ["305", "305", "3", "305"]


def test_a_record_the_answer_leaves_out_is_asked_for_alone(portal: Portal, crm: HubSpotCrm) -> None:
    fill(portal, 3)

    def without(_seen: Seen) -> Any:
        return status(200, {"results": [portal.raw(3, ["email"])]})(_seen)

    portal.play("/batch/read", without)
    found = crm.read("contacts", ["1", "3", "999"], ["email"])

    assert [record.ref.id if record else None for record in found] == ["1", "3", None]
    assert portal.calls()["/crm/v3/objects/contacts/1"] == 1
    assert portal.calls()["/crm/v3/objects/contacts/999"] == 1


# --- writing


def test_each_input_carries_its_trace_id_and_only_what_is_to_be_written(portal: Portal, crm: HubSpotCrm) -> None:
    fill(portal, 2)

    outcomes = crm.write("contacts", [a_request(2, jobtitle="CTO", score=1_000), a_request(1, optout=True)])

    assert [outcome.written for outcome in outcomes] == [Written.WRITTEN] * 2
    assert portal.last("/batch/update").body == {
        "inputs": [
            {"id": "2", "objectWriteTraceId": "0", "properties": {"jobtitle": "CTO", "score": "1000"}},
            {"id": "1", "objectWriteTraceId": "1", "properties": {"optout": "true"}},
        ]
    }


def test_writing_is_cut_into_hundreds_and_never_names_a_record_twice_in_one(portal: Portal, crm: HubSpotCrm) -> None:
    fill(portal, 250)

    requests = [a_request(1, city="Ulm"), *(a_request(i, city="Bonn") for i in range(1, 251))]
    outcomes = crm.write("contacts", requests)

    assert {outcome.written for outcome in outcomes} == {Written.WRITTEN}
    batches = [[one["id"] for one in seen.body["inputs"]] for seen in portal.seen if seen.path == UPDATE]
    assert [len(batch) for batch in batches] == [100, 100, 51]
    assert all(len(batch) == len(set(batch)) for batch in batches)
    assert portal.records[1]["city"] == "Bonn"


def test_a_lost_answer_is_sent_again_and_then_is_unaccounted(portal: Portal, crm: HubSpotCrm) -> None:
    fill(portal, 150)

    portal.play("/batch/update", hang_up)
    once = crm.write("contacts", [a_request(1, city="Bonn")])
    portal.play("/batch/update", *[hang_up] * 5)
    often = crm.write("contacts", [a_request(i, city="Ulm") for i in range(1, 151)])

    assert once[0].written is Written.WRITTEN
    assert [outcome.written for outcome in often] == [Written.UNACCOUNTED] * 100 + [Written.NOT_WRITTEN] * 50
    assert portal.calls()[UPDATE] == 2 + 5


def test_a_refused_key_writes_nothing_and_says_so(portal: Portal, crm: HubSpotCrm) -> None:
    fill(portal, 1)
    crm.describe("contacts")
    body = {
        "category": "MISSING_SCOPES",
        "errors": [{"context": {"requiredGranularScopes": ["crm.objects.contacts.write"]}}],
    }
    portal.play("/batch/update", status(403, body))

    with pytest.raises(CredentialsError, match=r"crm\.objects\.contacts\.write"):
        crm.write("contacts", [a_request(1, city="Bonn")])


def test_what_was_written_before_the_key_failed_stays_known(portal: Portal, crm: HubSpotCrm) -> None:
    fill(portal, 150)
    portal.play("/batch/update", lambda _seen: None, status(401, {"category": "INVALID_AUTHENTICATION"}))

    outcomes = crm.write("contacts", [a_request(i, city="Bonn") for i in range(1, 151)])

    assert [outcome.written for outcome in outcomes] == [Written.WRITTEN] * 100 + [Written.NOT_WRITTEN] * 50
    assert "INVALID_AUTHENTICATION" in outcomes[-1].reason


@pytest.mark.parametrize("answer", [status(423), status(429)])
def test_a_write_that_is_never_taken_says_that_nothing_was_written(
    portal: Portal, crm: HubSpotCrm, answer: Trick
) -> None:
    fill(portal, 2)
    crm.describe("contacts")
    portal.play("/batch/update", *[answer] * 9)

    with pytest.raises(TransientError):
        crm.write("contacts", [a_request(1, city="Bonn"), a_request(2, city="Bonn")])


def test_a_lock_after_a_lost_answer_leaves_the_write_open(portal: Portal, crm: HubSpotCrm) -> None:
    fill(portal, 1)
    portal.play("/batch/update", hang_up, *[status(423)] * 5)

    (outcome,) = crm.write("contacts", [a_request(1, city="Bonn")])

    assert outcome.written is Written.UNACCOUNTED


def test_a_refusal_after_a_lost_answer_leaves_the_write_open(portal: Portal, crm: HubSpotCrm) -> None:
    fill(portal, 1)
    portal.play("/batch/update", hang_up, status(403, {"category": "MISSING_SCOPES"}))

    (outcome,) = crm.write("contacts", [a_request(1, city="Bonn")])

    assert outcome.written is Written.UNACCOUNTED
    assert "MISSING_SCOPES" in outcome.reason


@pytest.mark.parametrize("number", [401, 403])
def test_a_page_of_something_in_between_does_not_prove_that_nothing_was_written(
    portal: Portal, crm: HubSpotCrm, number: int
) -> None:
    fill(portal, 1)
    portal.play("/batch/update", status(number, b"<h1>Forbidden</h1>"))

    (outcome,) = crm.write("contacts", [a_request(1, city="Bonn")])

    assert outcome.written is Written.UNACCOUNTED


def test_a_batch_refused_for_a_property_goes_out_without_it_and_the_schema_is_looked_at_again(
    portal: Portal, crm: HubSpotCrm
) -> None:
    fill(portal, 2)
    finding = '{"isValid":false,"error":"PROPERTY_DOESNT_EXIST","name":"city","message":"x"}'
    message = f"Property values were not valid: [{finding}]"
    portal.play("/batch/update", status(400, {"category": "VALIDATION_ERROR", "message": message}))

    outcomes = crm.write("contacts", [a_request(i, jobtitle="CTO", city="Bonn") for i in (1, 2)])
    crm.describe("contacts")

    assert [dict(outcome.dropped).keys() for outcome in outcomes] == [{"city"}, {"city"}]
    assert crm.calls() == {"properties": 2, "write": 2}


# --- trouble on the way


@pytest.mark.parametrize(
    "trick",
    [
        hang_up,
        cut,
        status(200, b'{"results": [nonsense'),
        status(200, b"<html>a proxy's page</html>"),
        status(200, b""),
        status(200, b'["a list"]'),
        status(500),
        status(502, b"<h1>Bad Gateway</h1>", content_type="text/html"),
        status(503, "<p>D\xe9faillance</p>".encode("latin-1"), content_type="text/html"),
        status(423, {"message": "Locked"}),
        status(429, {"policyName": "SECONDLY"}),
        status(429, {"message": "x"}, retry_after="2"),
        status(524),
    ],
)
@pytest.mark.parametrize("operation", ["/search", "/batch/read", "/batch/update", "/properties/contacts"])
def test_passing_trouble_is_waited_out_at_every_call(
    portal: Portal, crm: HubSpotCrm, operation: str, trick: Any
) -> None:
    fill(portal, 3)
    portal.play(operation, trick)

    assert len(ids(list(crm.select(a_selection(missing_any=("jobtitle",)))))) == 3
    assert all(crm.read("contacts", ["1"], ["email"]))
    assert crm.write("contacts", [a_request(1, city="Bonn")])[0].written is Written.WRITTEN
    assert sum(crm.calls().values()) == 5


@pytest.mark.parametrize(
    ("trick", "error"),
    [
        (hang_up, TransientError),
        (cut, TransientError),
        (status(500), TransientError),
        (status(200, b"<html>"), TransientError),
        (status(429, {"policyName": "SECONDLY"}), TransientError),
        (status(429, {"policyName": "DAILY"}), QuotaError),
        (status(477, retry_after="3600"), QuotaError),
        (status(401, {"category": "INVALID_AUTHENTICATION"}), CredentialsError),
        (status(302, b"", location="https://elsewhere.example/"), ContractError),
        (status(522), ContractError),
    ],
)
def test_lasting_trouble_becomes_the_error_that_names_the_remedy(
    portal: Portal, crm: HubSpotCrm, trick: Any, error: type[Exception]
) -> None:
    fill(portal, 3)
    crm.describe("contacts")
    portal.play("/batch/read", *[trick] * 9)

    with pytest.raises(error) as raised:
        crm.read("contacts", ["1"], ["email"])

    assert type(raised.value) is error or issubclass(type(raised.value), error)
    assert "pat-test" not in str(raised.value)
    assert "elsewhere" not in str(raised.value)
    assert portal.calls()[READ] <= 5


def test_an_endless_answer_is_not_read(portal: Portal, crm: HubSpotCrm, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(portal, 1)
    crm.describe("contacts")
    monkeypatch.setattr(crm._session, "_max_body", 10_000)
    portal.play("/batch/read", status(200, b'{"results": "' + b"x" * 50_000 + b'"}'))

    with pytest.raises(ContractError, match="larger"):
        crm.read("contacts", ["1"], ["email"])


def test_a_silent_server_does_not_block_for_ever(
    portal: Portal, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("adapters.hubspot.client.TIMEOUT_S", (0.2, 0.2))
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        url = f"http://127.0.0.1:{deaf.getsockname()[1]}"
        crm = HubSpotCrm(name="hubspot", url=url, credentials=HubSpotCredentials(token="t"), clock=clock)

        with pytest.raises(TransientError):
            crm.describe("contacts")
        crm.close()


# --- tokens


def test_an_oauth_token_is_fetched_once_and_renewed_five_minutes_early(
    portal: Portal, oauth_crm: HubSpotCrm, clock: FakeClock
) -> None:
    fill(portal, 1)

    oauth_crm.read("contacts", ["1"], ["email"])
    clock.forward(1_499)
    oauth_crm.read("contacts", ["1"], ["email"])
    assert portal.tokens_given == 1

    clock.forward(2)
    oauth_crm.read("contacts", ["1"], ["email"])
    assert portal.tokens_given == 2
    assert portal.last("/token").text == "grant_type=refresh_token&client_id=id&client_secret=hush&refresh_token=rt"


def test_a_token_that_expired_early_is_renewed_once(portal: Portal, oauth_crm: HubSpotCrm) -> None:
    fill(portal, 1)
    oauth_crm.describe("contacts")
    portal.token = "another"

    assert all(oauth_crm.read("contacts", ["1"], ["email"]))
    assert portal.tokens_given == 2


def test_a_token_that_is_refused_even_when_new_ends_it(portal: Portal, oauth_crm: HubSpotCrm) -> None:
    expired = status(401, {"category": "EXPIRED_AUTHENTICATION"})
    portal.play("/properties/contacts", *[expired] * 9)

    with pytest.raises(CredentialsError):
        oauth_crm.describe("contacts")
    assert portal.tokens_given == 2


def test_many_threads_renew_one_token(portal: Portal, oauth_crm: HubSpotCrm) -> None:
    fill(portal, 1)
    threads = [threading.Thread(target=lambda: oauth_crm.read("contacts", ["1"], ["email"])) for _ in range(8)]

    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert portal.tokens_given == 1
    assert oauth_crm.calls()["read"] == 8


def test_a_revoked_grant_asks_for_a_new_one(portal: Portal, oauth_crm: HubSpotCrm) -> None:
    portal.play(
        "/token", status(400, {"status": "BAD_REFRESH_TOKEN", "message": "missing or invalid refresh token rt"})
    )

    with pytest.raises(CredentialsError, match="install the app again") as raised:
        oauth_crm.describe("contacts")
    assert "hush" not in str(raised.value)


def test_a_fixed_token_is_not_renewed(portal: Portal, crm: HubSpotCrm) -> None:
    portal.token = "another"

    with pytest.raises(CredentialsError, match="service key"):
        crm.describe("contacts")
    assert portal.tokens_given == 0


@pytest.mark.parametrize(
    "credentials",
    [
        HubSpotCredentials(),
        HubSpotCredentials(token="a", client_id="b"),
        HubSpotCredentials(client_id="a", client_secret="b"),
        HubSpotCredentials(token="two words"),
        HubSpotCredentials(token="line\nbreak"),
    ],
)
def test_incomplete_credentials_are_refused_before_any_call(credentials: HubSpotCredentials, clock: FakeClock) -> None:
    with pytest.raises(ConfigError) as raised:
        HubSpotCrm(name="hubspot", credentials=credentials, clock=clock)
    assert "two words" not in str(raised.value)


def test_credentials_do_not_show_their_secrets() -> None:
    shown = repr(HubSpotCredentials(client_id="i-1", client_secret="hush", refresh_token="rt-1"))

    assert not any(secret in shown for secret in ("i-1", "hush", "rt-1"))


def test_plain_http_to_elsewhere_is_refused(clock: FakeClock) -> None:
    with pytest.raises(ConfigError, match="https"):
        HubSpotCrm(name="h", url="http://api.hubapi.com", credentials=HubSpotCredentials(token="t"), clock=clock)


# --- about the account


def test_access_is_checked_path_by_path(portal: Portal, crm: HubSpotCrm) -> None:
    fill(portal, 3)
    portal.headers = BURST

    checks = crm.check_access()

    assert all(check.ok for check in checks)
    details = {check.name.removeprefix("hubspot "): check.detail for check in checks}
    assert details["log-in"] == "account 4711"
    assert details["search contacts"] == "3 records"
    assert details["limits"] == "190 calls in 10 s, 600,000 of 625,000 calls left today"
    ref = RecordRef(crm="hubspot", object_type="contacts", id="9")
    assert crm.record_url(ref) == "https://app-eu1.hubspot.com/contacts/4711/record/0-1/9"


def test_a_failed_check_names_the_cure_and_never_raises(portal: Portal, crm: HubSpotCrm) -> None:
    portal.play("/details", status(401, {"category": "INVALID_AUTHENTICATION"}))

    checks = crm.check_access()

    assert [check.ok for check in checks] == [False]
    assert "Renew the key" in checks[0].cure


def test_a_missing_scope_is_one_red_line(portal: Portal, crm: HubSpotCrm) -> None:
    body = {
        "category": "MISSING_SCOPES",
        "errors": [{"context": {"requiredGranularScopes": ["crm.objects.companies.read"]}}],
    }
    portal.play("/properties/companies", status(403, body))

    failed = [check for check in crm.check_access() if not check.ok]

    assert [check.name for check in failed] == ["hubspot properties of companies"]
    assert "crm.objects.companies.read" in failed[0].detail


def test_a_record_has_no_url_before_the_account_is_known(crm: HubSpotCrm) -> None:
    assert crm.record_url(RecordRef(crm="hubspot", object_type="contacts", id="9")) == ""


# --- the library


def test_one_connection_serves_every_group_of_the_library(portal: Portal, crm: HubSpotCrm) -> None:
    fill(portal, 300)

    list(crm.select(a_selection(missing_any=("jobtitle",))))
    crm.read("contacts", [str(i) for i in range(1, 301)], ["email"])
    crm.write("contacts", [a_request(i, city="Bonn") for i in range(1, 301)])

    connections = {seen.headers["user-agent"] for seen in portal.seen}
    assert connections == {"crm-sync/0.1 (hubspot-api-client)"}
    assert len(crm._session.get_adapter(portal.url).poolmanager.pools) == 1


def test_the_library_is_not_imported_before_it_is_needed() -> None:
    code = (
        "import sys; from adapters.hubspot.client import *; from datetime import *\n"
        "HubSpotCrm(name='h', credentials=HubSpotCredentials(token='t'), clock=None)\n"
        "print('hubspot' in sys.modules)"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)

    assert shown.stdout.strip() == "False"


def test_the_library_leaves_the_log_levels_alone(portal: Portal, crm: HubSpotCrm) -> None:
    before = logging.getLogger("urllib3").level
    logging.getLogger("urllib3").setLevel(logging.DEBUG)
    try:
        crm.describe("contacts")
        assert logging.getLogger("urllib3").level == logging.DEBUG
    finally:
        logging.getLogger("urllib3").setLevel(before)
