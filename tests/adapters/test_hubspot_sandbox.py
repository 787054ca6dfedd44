"""HubSpotCrm against the strict simulator: whole walks, refusals of every kind, and each fault of the script."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import astuple, replace
from datetime import UTC, datetime
from typing import Any, Literal

import pytest
import requests

from adapters.hubspot.client import HubSpotCredentials, HubSpotCrm
from crm_sync.domain.changes import Written
from crm_sync.domain.records import Record, RecordRef
from crm_sync.errors import CredentialsError, ProviderError
from crm_sync.mapping.blanks import lacking  # the walk's own idea of blank
from crm_sync.ports import Selection, WriteRequest
from crm_sync.sandbox import hubspot as sandbox
from tests.adapters.hubspot_simulated import Simulated, a_request, connected, serving, simulated
from tests.clocks import FakeClock

FIELDS = ("jobtitle", "hs_seniority", "hs_linkedin_url", "city", "state")
PLACEHOLDERS = ("[[unknown]]", "n/a", "-", "unknown")


def a_selection(**changes: Any) -> Selection:
    return Selection(**{"object_type": "contacts", "fields": ("email", *FIELDS), **changes})


def found(crm: HubSpotCrm, selection: Selection) -> list[Record]:
    return [record for page in crm.select(selection) for record in page.records]


# --- whole walks


@pytest.mark.parametrize("placeholders", [(), PLACEHOLDERS])
@pytest.mark.parametrize(
    "fields", [FIELDS[:1], FIELDS[:2], FIELDS, (*FIELDS, "country", "phone", "company", "website")]
)
def test_exactly_the_due_contacts_come_once_in_rising_order(
    fields: tuple[str, ...], placeholders: tuple[str, ...]
) -> None:
    with simulated(contacts=1_500) as it:
        everybody = it.crm.read("contacts", it.ids(), fields)
        words = frozenset(placeholders)
        due = [record.ref.id for record in everybody if record and lacking(record.values, fields, words)]

        records = found(it.crm, a_selection(missing_any=fields, placeholders=placeholders))

        assert [record.ref.id for record in records] == sorted(due, key=int)
        assert 0 < len(due) <= 1_500


def test_a_filter_of_the_admins_and_blank_fields_go_together() -> None:
    where = [
        [{"property": "country", "operator": "EQ", "value": "germany"}],
        [{"property": "country", "operator": "IN", "values": ["United States", "France"]}],
    ]
    with simulated(contacts=1_000) as it:
        assert it.crm.check_selection(a_selection(missing_any=FIELDS, where=where, placeholders=PLACEHOLDERS)) == []
        everybody = it.crm.read("contacts", it.ids(), (*FIELDS, "country"))
        countries, words = {"germany", "united states", "france"}, frozenset(PLACEHOLDERS)
        due = [
            record.ref.id
            for record in everybody
            if record and str(record.values["country"]).lower() in countries and lacking(record.values, FIELDS, words)
        ]

        records = found(it.crm, a_selection(missing_any=FIELDS, where=where, placeholders=PLACEHOLDERS))

        assert [record.ref.id for record in records] == due
        assert due


def test_the_real_clock_keeps_five_searches_a_second() -> None:
    class RealClock:
        def now(self) -> datetime:
            return datetime.now(UTC)

        def sleep(self, seconds: float) -> None:
            time.sleep(seconds)

    with simulated(contacts=2_000, searches_per_s=5) as it:
        crm = HubSpotCrm(name="h", url=it.url, credentials=HubSpotCredentials(token=sandbox.TOKEN), clock=RealClock())
        walks = [threading.Thread(target=lambda: list(crm.select(a_selection(), page_size=200))) for _ in range(2)]
        for walk in walks:
            walk.start()
        for walk in walks:
            walk.join()
        crm.close()

        assert crm.calls()["search"] == 20
        assert requests.get(f"{it.url}/_sandbox/state", timeout=10).json()["refused_by_limit"] == 0


def test_search_may_lag_behind_a_write_and_the_read_before_writing_does_not() -> None:
    with simulated(contacts=50, lag_s=600.0) as it:
        due = found(it.crm, a_selection(missing_any=("jobtitle",)))[0].ref.id
        it.crm.write("contacts", [a_request(due, jobtitle="CTO")])

        again = [record.ref.id for record in found(it.crm, a_selection(missing_any=("jobtitle",)))]
        fresh = found(it.crm, a_selection(missing_any=("jobtitle",), ids=(due,)))
        now = it.crm.read("contacts", [due], ["jobtitle"])[0]

        assert due in again
        assert fresh == []
        assert now is not None
        assert now.values == {"jobtitle": "CTO"}


def test_companies_are_described_read_and_written() -> None:
    with simulated(contacts=400) as it:
        fields = it.crm.describe("companies").fields
        first = it.ids("companies")[0]
        values = {"industry": "COMPUTER_SOFTWARE", "numberofemployees": 120, "is_public": True}
        ref = RecordRef(crm="hubspot", object_type="companies", id=first)

        outcome = it.crm.write("companies", [WriteRequest(ref=ref, values=values)])[0]
        record = it.crm.read("companies", [first], list(values))[0]

        assert len(fields["industry"].choices) == 148
        assert outcome.written is Written.WRITTEN
        assert outcome.dropped == ()
        assert record is not None
        assert record.values == values


def test_a_walk_of_a_thousand_opens_one_connection() -> None:
    with simulated(contacts=1_000) as it:
        records = found(it.crm, a_selection(missing_any=FIELDS))
        ids = [record.ref.id for record in records]
        it.crm.read("contacts", ids, FIELDS)
        it.crm.write("contacts", [a_request(each, jobtitle="CTO") for each in ids])

        assert it.connections() <= 2 + 2  # ours, and those of the test's own questions


# --- refusals


@pytest.mark.parametrize("trace_ids", [True, False])
def test_one_bad_value_costs_that_field_of_that_record_only(trace_ids: bool) -> None:
    with simulated(contacts=150, habits=sandbox.Habits(trace_ids=trace_ids)) as it:
        ids = it.ids()
        requests_ = [
            a_request(each, jobtitle="CTO", hs_seniority="boss" if n in (7, 120) else "vp")
            for n, each in enumerate(ids)
        ]

        outcomes = it.crm.write("contacts", requests_)
        records = it.crm.read("contacts", ids, ["jobtitle", "hs_seniority"])

        assert [outcome.ref.id for outcome in outcomes] == ids
        assert {outcome.written for outcome in outcomes} == {Written.WRITTEN}
        assert [n for n, outcome in enumerate(outcomes) if outcome.dropped] == [7, 120]
        assert [r.values["jobtitle"] for r in records if r] == ["CTO"] * 150
        assert sum(r.values["hs_seniority"] == "vp" for r in records if r) >= 148
        assert it.crm.calls()["write"] <= (4 if trace_ids else 2 + 2 * 16)


@pytest.mark.parametrize("trace_ids", [True, False])
@pytest.mark.parametrize("name", ["no_such_property", "createdate"])
def test_an_unwritable_field_is_left_out_after_one_refusal(name: str, trace_ids: bool) -> None:
    with simulated(contacts=150, habits=sandbox.Habits(trace_ids=trace_ids)) as it:
        outcomes = it.crm.write("contacts", [a_request(each, jobtitle="CTO", **{name: "x"}) for each in it.ids()])

        assert {outcome.written for outcome in outcomes} == {Written.WRITTEN}
        assert all(name in dict(outcome.dropped) for outcome in outcomes)
        assert it.crm.calls()["write"] == 3


@pytest.mark.parametrize(("vanished", "written"), [("missing", Written.UNACCOUNTED), ("error", Written.REJECTED)])
@pytest.mark.parametrize("trace_ids", [True, False])
def test_a_record_archived_between_read_and_write_costs_no_other(
    vanished: Literal["missing", "error"], written: Written, trace_ids: bool
) -> None:
    with simulated(contacts=20, habits=sandbox.Habits(vanished=vanished, trace_ids=trace_ids)) as it:
        ids = it.ids()
        it.edit(ids[5], archived=True)

        outcomes = it.crm.write("contacts", [a_request(each, jobtitle="CTO") for each in ids])

        assert outcomes[5].written is written
        assert [o.written for n, o in enumerate(outcomes) if n != 5] == [Written.WRITTEN] * 19
        assert it.crm.read("contacts", [ids[5]], ["jobtitle"]) == [None]


def test_a_merged_contact_is_read_and_written_under_its_new_id() -> None:
    with simulated(contacts=20) as it:
        ids = it.ids()
        new_id = it.edit(ids[3], merge_into=ids[8])["id"]

        read = it.crm.read("contacts", [ids[2], ids[3], ids[8]], ["email"])
        outcomes = it.crm.write("contacts", [a_request(each, jobtitle="CTO") for each in (ids[2], ids[3])])
        both = it.crm.write("contacts", [a_request(each, jobtitle="CEO") for each in (ids[3], ids[8])])

        assert [record.ref.id for record in read if record] == [ids[2], new_id, new_id]
        assert [(o.ref.id, o.written) for o in outcomes] == [(ids[2], Written.WRITTEN), (new_id, Written.WRITTEN)]
        assert [(o.ref.id, o.written) for o in both] == [(new_id, Written.WRITTEN)] * 2


def test_a_merged_contact_is_selected_once_under_its_new_id() -> None:
    with simulated(contacts=300) as it:
        ids = it.ids()
        it.edit(ids[8], jobtitle="")
        new_id = it.edit(ids[3], merge_into=ids[8])["id"]

        chosen = [record.ref.id for record in found(it.crm, a_selection(missing_any=("jobtitle",)))]

        assert chosen.count(new_id) == 1
        assert not {ids[3], ids[8]} & set(chosen)


def test_a_merged_contact_that_the_update_does_not_follow_is_unaccounted_for_the_walk_to_read_again() -> None:
    with simulated(contacts=20, habits=sandbox.Habits(merged="vanish")) as it:
        ids = it.ids()
        new_id = it.edit(ids[3], merge_into=ids[8])["id"]

        outcomes = it.crm.write("contacts", [a_request(each, jobtitle="CTO") for each in (ids[2], ids[3])])
        now = it.crm.read("contacts", [ids[3]], ["jobtitle"])[0]

        assert [outcome.written for outcome in outcomes] == [Written.WRITTEN, Written.UNACCOUNTED]
        assert now is not None
        assert now.ref.id == new_id


def test_a_locked_record_is_waited_for() -> None:
    with simulated(contacts=5) as it:
        it.edit(it.ids()[2], **{"$lock": 1})

        outcomes = it.crm.write("contacts", [a_request(each, jobtitle="CTO") for each in it.ids()])

        assert {outcome.written for outcome in outcomes} == {Written.WRITTEN}
        assert it.crm.calls()["write"] == 2
        assert sum(it.clock.slept) >= 2.0


def test_searches_that_come_out_of_order_now_and_then_lose_nobody() -> None:
    with simulated(contacts=1_500, misorder_every=3) as it:
        assert [record.ref.id for record in found(it.crm, a_selection())] == it.ids()
        assert it.crm.calls()["search"] > 8


# --- access


def oauth() -> HubSpotCredentials:
    app = sandbox.OAuthApp()
    return HubSpotCredentials(client_id=app.client_id, client_secret=app.client_secret, refresh_token=app.refresh_token)


def test_an_oauth_token_that_ends_during_a_walk_is_renewed_by_the_clock() -> None:
    moments = [1_000.0]
    with simulated(credentials=oauth(), token_seconds=1_800, now=lambda: moments[0]) as it:
        it.crm.describe("contacts")
        for _ in range(4):
            moments[0] += 1_000.0
            it.clock.forward(1_000.0)
            assert all(it.crm.read("contacts", it.ids()[:1], ["email"]))

        assert it.crm.calls()["token"] == 3
        assert it.calls()["POST /oauth/v1/token"] == 3


def test_an_oauth_token_that_ended_unseen_is_renewed_once() -> None:
    moments = [1_000.0]
    with simulated(credentials=oauth(), now=lambda: moments[0]) as it:
        it.crm.describe("contacts")
        moments[0] += 5_000.0  # the provider's clock alone

        assert all(it.crm.read("contacts", it.ids()[:1], ["email"]))
        assert it.crm.calls()["token"] == 2


def test_a_wrong_refresh_token_and_a_wrong_key_name_the_cure() -> None:
    wrong = replace(oauth(), refresh_token="other")
    for credentials, cure in ((wrong, "install the app again"), (HubSpotCredentials(token="other"), "service key")):
        with simulated(credentials=credentials) as it, pytest.raises(CredentialsError, match=cure):
            it.crm.describe("contacts")


def test_a_missing_write_scope_is_named_before_anything_is_written() -> None:
    scopes = tuple(scope for scope in sandbox.SCOPES if not scope.endswith("contacts.write"))
    with simulated(scopes=scopes) as it:
        assert all(check.ok for check in it.crm.check_access())
        with pytest.raises(CredentialsError, match=r"crm\.objects\.contacts\.write"):
            it.crm.write("contacts", [a_request(it.ids()[0], jobtitle="CTO")])


def test_the_burst_window_is_never_overrun() -> None:
    moments = FakeClock()

    def now() -> float:
        return moments.moment.timestamp()

    with simulated(contacts=100, burst=20, now=now) as it:
        it.crm._clock = it.crm._pace._clock = it.crm._search_pace._clock = moments
        for each in it.ids():
            assert all(it.crm.read("contacts", [each], ["email"]))

        assert requests.get(f"{it.url}/_sandbox/state", timeout=10).json()["refused_by_limit"] == 0
        assert sum(moments.slept) < 100


# --- the script of faults

PASSING = (
    "429", "429_without_retry_after", "500", "503", "504", "502_html", "cut", "garbage", "wrong_type", "empty",
    "silence", "slow", "reset", "not_utf8", "408", "423", "521",
)  # fmt: skip
LASTING = ("401", "403", "redirect", "huge")
CALLS = {
    "properties": "GET /crm/v3/properties/*",
    "search": "POST /crm/v3/objects/*/search",
    "read": "POST /crm/v3/objects/*/batch/read",
    "write": "POST /crm/v3/objects/*/batch/update",
    "token": "POST /oauth/v1/token",
}


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with serving(contacts=8) as url:
        yield url


@pytest.fixture
def it(server: str) -> Iterator[Simulated]:
    """A client that has not logged in yet, against contacts that all lack a title."""
    with connected(server, 8, oauth()) as it:
        it.forgive()
        for each in it.ids():
            it.edit(each, jobtitle="")
        yield it
        it.forgive()


def _whole_job(it: Simulated) -> list[Written]:
    ids = [record.ref.id for record in found(it.crm, a_selection(missing_any=("jobtitle",)))]
    assert all(it.crm.read("contacts", ids, ["jobtitle"]))
    return [o.written for o in it.crm.write("contacts", [a_request(each, jobtitle="CTO") for each in ids])]


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("what", PASSING)
@pytest.mark.parametrize("call", CALLS)
def test_a_passing_fault_at_any_call_is_not_noticed(it: Simulated, call: str, what: str, when: str) -> None:
    it.post("faults", [{"call": CALLS[call], "what": what, "when": when, "seconds": 0.05}])

    outcomes = _whole_job(it)

    assert outcomes
    assert set(outcomes) == {Written.WRITTEN}
    assert found(it.crm, a_selection(missing_any=("jobtitle",))) == []
    assert it.crm.calls()[call] >= 2 or what == "slow"


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("what", ["413", "414"])
def test_a_page_that_refuses_a_write_does_not_prove_that_nothing_was_written(
    it: Simulated, what: str, when: str
) -> None:
    it.post("faults", [{"call": CALLS["write"], "what": what, "when": when, "times": 99}])

    outcomes = it.crm.write("contacts", [a_request(each, jobtitle="CTO") for each in it.ids()[:3]])

    assert [o.written for o in outcomes] == [Written.UNACCOUNTED] * 3
    assert what in outcomes[0].reason


def _ending(it: Simulated) -> tuple[set[Written], str]:
    """How the job ended: its outcomes, or the text of the error, which must be one of ours."""
    try:
        return set(_whole_job(it)), ""
    except ProviderError as error:
        return set(), str(error)


@pytest.mark.parametrize("what", [*LASTING, "500", "cut", "garbage", "reset", "502_html"])
@pytest.mark.parametrize("call", CALLS)
def test_a_lasting_fault_ends_in_our_own_error_and_a_later_run_finishes(it: Simulated, call: str, what: str) -> None:
    it.post("faults", [{"call": CALLS[call], "what": what, "when": "after", "times": 99}])

    outcomes, said = _ending(it)
    assert outcomes <= {Written.UNACCOUNTED}
    assert (call == "write" and what not in ("401", "403")) == bool(outcomes)
    assert not any(secret and secret in said for secret in astuple(oauth()))
    it.forgive()

    _whole_job(it)
    assert found(it.crm, a_selection(missing_any=("jobtitle",))) == []
