"""ApolloEnricher and the shared pace against the strict simulator: whole worlds, and each fault of the script."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest
import requests

from adapters.apollo.client import ApolloEnricher
from crm_sync.domain.enrichment import Enrichment, MatchKeys, Purpose, Verdict
from crm_sync.errors import CredentialsError, DoubtError, QuotaError, RefusedError
from crm_sync.sandbox import apollo as sandbox
from crm_sync.sandbox import wordings
from crm_sync.sandbox.faults import Faults
from crm_sync.sandbox.server import Server, control
from crm_sync.sandbox.world import World
from crm_sync.store.engine import Store
from crm_sync.store.pace import StorePace
from tests.clocks import FakeClock
from tests.factories import unjournaled

PERSON, COMPANY = Purpose.PERSON, Purpose.COMPANY


@dataclass
class Simulated:
    url: str
    world: World
    clock: FakeClock
    apollo: ApolloEnricher

    def fault(self, what: str, *, call: str = "POST /api/v1/people/bulk_match", **more: Any) -> None:
        requests.delete(f"{self.url}/_sandbox/faults", timeout=10)
        script = [{"call": call, "what": what, **more}]
        assert requests.post(f"{self.url}/_sandbox/faults", json=script, timeout=10).status_code == 200

    def state(self) -> dict[str, Any]:
        return requests.get(f"{self.url}/_sandbox/state", timeout=10).json()  # type: ignore[no-any-return]

    def ask_all(self, purpose: Purpose, keys: list[MatchKeys]) -> list[Enrichment]:
        """As the walk does: tens, and singly what they left open."""
        found: list[Enrichment] = []
        for first in range(0, len(keys), 10):
            ten = keys[first : first + 10]
            body = self.apollo.ask(purpose, ten, leaving=unjournaled).body
            for key, read in zip(ten, self.apollo.read(purpose, ten, body).enrichments, strict=True):
                found.append(read if read is not None else self.ask_singly(purpose, key))
        return found

    def ask_singly(self, purpose: Purpose, key: MatchKeys) -> Enrichment:
        body = self.apollo.ask_one(purpose, key, leaving=unjournaled).body
        [read] = self.apollo.read(purpose, [key], body).enrichments
        assert read is not None
        return read


@contextmanager
def simulated(store: Store, *, contacts: int = 200, auth: Any = "header", **options: Any) -> Iterator[Simulated]:
    clock = FakeClock()
    world = World(7, contacts)
    app = sandbox.create(
        world, key_in_body=auth == "body", now=lambda: clock.now().timestamp(), **{"per_minute": None, **options}
    )
    control(app, app.extensions["simulator"], Faults(wordings.apollo))
    server = Server(app).start()
    pace = StorePace(store, clock=clock)
    apollo = ApolloEnricher(
        url=f"{server.url}/api/v1", api_key=sandbox.API_KEY, auth=auth, pace=pace, clock=clock, read_timeout_s=0.5
    )
    try:
        yield Simulated(server.url, world, clock, apollo)
    finally:
        apollo.close()
        pace.close()
        server.stop()


def keys_of(world: World, index: int) -> MatchKeys:
    person = world.person(index)
    company = world.company(person.company)
    return MatchKeys(
        purpose=PERSON,
        email=person.email,
        first_name=person.first_name,
        last_name=person.last_name,
        domain=company.domain,
    )


def by_name(world: World, index: int) -> MatchKeys:
    person = world.person(index)
    domain = world.company(person.company).domain
    return MatchKeys(purpose=PERSON, first_name=person.first_name, last_name=person.last_name, domain=domain)


@pytest.mark.parametrize("auth", ["header", "body"])
@pytest.mark.parametrize("variant", ["a", "b"])
def test_a_whole_world_of_people_is_told_apart(sqlite_store: Store, variant: str, auth: str) -> None:
    with simulated(sqlite_store, variant=variant, auth=auth) as it:
        people = [it.world.person(i) for i in range(it.world.contacts)]

        found = it.ask_all(PERSON, [keys_of(it.world, p.index) for p in people])

        for person, answer in zip(people, found, strict=True):
            if person.apollo in ("unknown", "echo"):
                assert answer.verdict is Verdict.NO_MATCH, person.apollo
                assert answer.organization == {}
            elif person.apollo == "low_confidence":
                assert answer.verdict is not Verdict.MATCHED
            elif person.apollo != "former_employer":
                assert answer.verdict is Verdict.MATCHED, (person.apollo, answer.reason)
            assert "not_unlocked" not in str(answer.person)
            assert not {"account", "contact", "phone_numbers"} & set(answer.person)
        assert it.apollo.calls() == {"people/bulk_match": 20}
        assert it.state()["credits"]["more_than_once"] == {}


def test_a_namesake_is_never_taken_for_the_person(sqlite_store: Store) -> None:
    with simulated(sqlite_store, contacts=2000) as it:
        namesakes = [i for i in range(it.world.contacts) if it.world.person(i).apollo == "namesake"][:20]

        found = it.ask_all(PERSON, [by_name(it.world, i) for i in namesakes])

    assert namesakes
    assert {answer.verdict for answer in found} <= {Verdict.UNPROVED, Verdict.NO_MATCH}
    assert any("another employer" in answer.reason for answer in found)


@pytest.mark.parametrize("variant", ["a", "b"])
def test_a_whole_world_of_companies_is_paired(sqlite_store: Store, variant: str) -> None:
    with simulated(sqlite_store, contacts=400, variant=variant) as it:
        companies = [it.world.company(c) for c in range(it.world.accounts)]
        keys = [MatchKeys(purpose=COMPANY, domain=c.alias_domain or c.domain) for c in companies]

        found = it.ask_all(COMPANY, keys)

    for company, answer in zip(companies, found, strict=True):
        if not company.known:
            assert answer.verdict is Verdict.NO_MATCH
        elif company.alias_domain:
            assert answer.verdict is Verdict.UNPROVED  # known to Apollo under another domain: a question
            assert company.domain in answer.reason
        else:
            assert answer.verdict is Verdict.MATCHED
            assert answer.organization["name"] == company.name


def test_what_a_bulk_answer_left_open_is_asked_singly(sqlite_store: Store) -> None:
    with simulated(sqlite_store) as it:
        person = next(i for i in range(200) if it.world.person(i).apollo == "plain")
        unknown = next(i for i in range(200) if it.world.person(i).apollo == "unknown")

        answers = [
            it.apollo.read(PERSON, [key], it.apollo.ask_one(PERSON, key, leaving=unjournaled).body).enrichments[0]
            for key in (keys_of(it.world, person), keys_of(it.world, unknown))
        ]

    assert [answer.verdict for answer in answers if answer] == [Verdict.MATCHED, Verdict.NO_MATCH]


# --- faults


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize(
    "what",
    ["500", "503", "504", "502_html", "cut", "garbage", "wrong_type", "empty", "silence", "reset", "redirect",
     "huge", "not_utf8"],
)  # fmt: skip
def test_each_broken_answer_is_doubt_and_is_never_sent_again(sqlite_store: Store, what: str, when: str) -> None:
    with simulated(sqlite_store) as it:
        it.fault(what, when=when, seconds=1.0)

        with pytest.raises(DoubtError) as doubt:
            it.apollo.ask(PERSON, [keys_of(it.world, i) for i in range(10)], leaving=unjournaled)

        assert it.apollo.calls() == {"people/bulk_match": 1}
        assert "@" not in str(doubt.value)
        assert it.ask_all(PERSON, [keys_of(it.world, 1)])  # and the next call works


@pytest.mark.parametrize("what", ["429", "429_without_retry_after"])
def test_a_429_is_waited_out_and_nobody_pays_twice(sqlite_store: Store, what: str) -> None:
    with simulated(sqlite_store) as it:
        it.fault(what, times=2, retry_after=7.0)
        began = it.clock.now()

        it.ask_all(PERSON, [keys_of(it.world, i) for i in range(10)])

        assert (it.clock.now() - began).total_seconds() >= 14.0
        assert it.apollo.calls() == {"people/bulk_match": 3}
        assert it.state()["credits"]["more_than_once"] == {}


@pytest.mark.parametrize("what", ["401", "403"])
def test_a_refused_key_fails_the_run(sqlite_store: Store, what: str) -> None:
    with simulated(sqlite_store) as it:
        it.fault(what)

        with pytest.raises(CredentialsError):
            it.apollo.ask(PERSON, [keys_of(it.world, 1)], leaving=unjournaled)


def test_a_slow_answer_within_the_time_out_is_an_answer(sqlite_store: Store) -> None:
    with simulated(sqlite_store) as it:
        it.fault("slow", seconds=0.2, when="after")

        assert it.ask_all(PERSON, [keys_of(it.world, 1)])


def test_one_poisoned_record_is_found_by_splitting(sqlite_store: Store) -> None:
    with simulated(sqlite_store) as it:
        good = [keys_of(it.world, i) for i in range(9)]
        poison = MatchKeys(purpose=PERSON, first_name="A\x01", last_name="B", domain="x.example")

        with pytest.raises(RefusedError):
            it.apollo.ask(PERSON, [*good, poison], leaving=unjournaled)
        with pytest.raises(RefusedError):
            it.apollo.ask(PERSON, [poison], leaving=unjournaled)

        assert len(it.ask_all(PERSON, good)) == 9


# --- money and limits


@pytest.mark.parametrize("variant", ["a", "b"])
def test_credits_that_run_out_end_the_run(sqlite_store: Store, variant: str) -> None:
    """By a refusal, or by nothing but locked addresses and a balance of nought."""
    with simulated(sqlite_store, variant=variant, credits_left=12) as it:
        with pytest.raises(QuotaError, match="credits are used up"):
            it.ask_all(PERSON, [keys_of(it.world, i) for i in range(100)])

        assert it.state()["credits"]["balance"] == 0


def test_companies_that_no_credit_buys_are_not_remembered_as_unknown(sqlite_store: Store) -> None:
    with simulated(sqlite_store, credits_left=0) as it:
        keys = [MatchKeys(purpose=COMPANY, domain=it.world.company(c).domain) for c in range(10)]

        with pytest.raises(QuotaError):
            it.apollo.ask(COMPANY, keys, leaving=unjournaled)


def test_the_limits_told_in_headers_are_kept_without_one_429(sqlite_store: Store) -> None:
    with simulated(sqlite_store, contacts=800, per_minute=20, per_hour=50) as it:
        began = it.clock.now()

        for index in range(50):
            it.apollo.ask(PERSON, [keys_of(it.world, index)], leaving=unjournaled)
        minutes = (it.clock.now() - began).total_seconds() / 60
        assert it.state()["refused_by_limit"] == 0
        assert 2.0 <= minutes <= 2.2
        with pytest.raises(QuotaError, match="UTC"):
            it.apollo.ask(PERSON, [keys_of(it.world, 1)], leaving=unjournaled)


def test_somebody_else_using_the_key_is_noticed(sqlite_store: Store) -> None:
    with simulated(sqlite_store, per_minute=20) as it:
        it.apollo.ask(PERSON, [keys_of(it.world, 1)], leaving=unjournaled)
        for _ in range(10):
            requests.post(
                f"{it.url}/api/v1/people/bulk_match",
                json={"details": [{"email": it.world.person(1).email}]},
                headers={"x-api-key": sandbox.API_KEY},
                timeout=10,
            )

        for _ in range(15):
            it.apollo.ask(PERSON, [keys_of(it.world, 2)], leaving=unjournaled)

        assert it.state()["refused_by_limit"] == 0


# --- access


def test_access_is_checked_without_spending(sqlite_store: Store) -> None:
    with simulated(sqlite_store) as it:
        checks = it.apollo.check_access()

        assert [check for check in checks if not check.ok] == []
        assert it.state()["credits"]["charged"] == 0


def test_each_missing_scope_is_named(sqlite_store: Store) -> None:
    with simulated(sqlite_store, scopes=["people/bulk_match"]) as it:
        failed = [check.name for check in it.apollo.check_access() if not check.ok]

        assert failed == ["Apollo organizations/bulk_enrich", "Apollo organizations/enrich"]
        assert it.apollo.balance() is None


def test_a_key_in_the_wrong_place_says_which_setting_to_change(sqlite_store: Store) -> None:
    with simulated(sqlite_store, variant="a") as it:
        pace = StorePace(sqlite_store, clock=it.clock)
        wrong = ApolloEnricher(url=f"{it.url}/api/v1", api_key=sandbox.API_KEY, auth="body", pace=pace, clock=it.clock)

        with pytest.raises(CredentialsError, match="CRM_SYNC_APOLLO_AUTH=header"):
            wrong.ask(PERSON, [keys_of(it.world, 1)], leaving=unjournaled)
        checks = wrong.check_access()
        wrong.close()

    assert not checks[0].ok
    assert sandbox.API_KEY not in str(checks)
