"""Apollo's client at the wire: what is sent, and what each way of failing means for the money."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import orjson
import pytest
import requests
import requests_mock

from adapters.apollo.client import ApolloEnricher
from adapters.http import BoundedSession
from crm_sync.domain.enrichment import MatchKeys, Purpose, Verdict
from crm_sync.errors import (
    ConfigError,
    ContractError,
    CredentialsError,
    DoubtError,
    ProviderError,
    QuotaError,
    RateLimitError,
    RefusedError,
    TransientError,
)
from crm_sync.ports import Window
from tests.adapters.scripted_server import Reply, answer, hang_up, scripted_server
from tests.clocks import FakeClock
from tests.factories import unjournaled

PAYLOADS = Path(__file__).parents[1] / "payloads" / "apollo"
BASE = "https://api.apollo.io/api/v1"
KEY = "key-that-must-not-show"
PERSON, COMPANY = Purpose.PERSON, Purpose.COMPANY
MARTA = MatchKeys(purpose=PERSON, email="marta.oyelaran@orchardgrid.example", last_name="Oyelaran")
ORCHARD = MatchKeys(purpose=COMPANY, domain="orchardgrid.example")
NONE_MATCHED = (PAYLOADS / "bulk_match_response_none_matched.json").read_bytes()
MATCHED = (PAYLOADS / "bulk_match_response_matched_but_uncharged.json").read_bytes()


class FakePace:
    """ports.Pace that lets everything pass and keeps books; parking moves the clock when the next call comes."""

    def __init__(self, clock: FakeClock) -> None:
        self.clock = clock
        self.events: list[str] = []
        self.windows: list[Sequence[Window]] = []
        self.parked: list[float] = []

    def acquire(self, endpoint: str, *, waiting: Callable[[float], None] | None = None) -> FakePace:
        self.events.append(f"acquire {endpoint}")
        for seconds in self.parked:
            if waiting is not None:
                waiting(seconds)
            self.clock.sleep(seconds)
        return self

    def answered(self) -> None:
        self.events.append("answered")

    def learn(self, endpoint: str, windows: Sequence[Window]) -> None:
        self.windows.append(windows)

    def park(self, endpoint: str, seconds: float) -> None:
        self.events.append(f"park {endpoint}")
        self.parked.append(seconds)

    def parked_for(self, endpoint: str) -> float:
        return sum(self.parked)


class Bench:
    """An enricher with its fakes."""

    def __init__(self, url: str = BASE, **settings: Any) -> None:
        self.clock = FakeClock()
        self.pace = FakePace(self.clock)
        self.apollo = ApolloEnricher(url=url, api_key=KEY, pace=self.pace, clock=self.clock, **settings)


@pytest.fixture
def bench() -> Bench:
    return Bench()


class Wire(requests_mock.Adapter):
    """requests-mock below our own `send`: its Mocker would replace that too, and with it what these tests are about."""

    def get(self, url: str, *replies: Any, **reply: Any) -> Any:
        return self.register_uri("GET", url, *replies, **reply)

    def post(self, url: str, *replies: Any, **reply: Any) -> Any:
        return self.register_uri("POST", url, *replies, **reply)


@pytest.fixture
def wire(monkeypatch: pytest.MonkeyPatch) -> Wire:
    adapter = Wire()
    monkeypatch.setattr(BoundedSession, "get_adapter", lambda _session, _url: adapter)
    return adapter


# --- exactly this request


def test_a_bulk_question_sends_key_in_the_header_and_flags_in_the_query(bench: Bench, wire: Any) -> None:
    wire.post(f"{BASE}/people/bulk_match", content=NONE_MATCHED)

    bench.apollo.ask(PERSON, [MARTA, MARTA], leaving=unjournaled)

    sent = wire.last_request
    assert sent.headers["x-api-key"] == KEY
    assert sent.headers["Content-Type"] == "application/json"
    assert sent.qs == {"reveal_personal_emails": ["false"]}
    assert set(sent.json()) == {"details"}
    assert KEY not in sent.url
    assert "webhook_url" not in sent.url
    assert "phone" not in sent.url
    assert not sent.allow_redirects or sent.headers.get("Authorization") is None
    assert sent.timeout == (5.0, 60.0)


def test_the_older_contract_sends_the_key_in_the_body_and_no_header(wire: Any) -> None:
    bench = Bench(auth="body")
    wire.post(f"{BASE}/people/bulk_match", content=NONE_MATCHED)
    wire.get(f"{BASE}/organizations/enrich", content=b"{}")

    bench.apollo.ask(PERSON, [MARTA, MARTA], leaving=unjournaled)
    bench.apollo.ask_one(COMPANY, ORCHARD, leaving=unjournaled)

    bulk, single = wire.request_history
    assert bulk.json()["api_key"] == KEY
    assert "x-api-key" not in bulk.headers
    assert single.qs == {"api_key": [KEY], "domain": ["orchardgrid.example"]}


def test_the_single_endpoints_take_their_keys_in_the_query(bench: Bench, wire: Any) -> None:
    wire.post(f"{BASE}/people/match", content=(PAYLOADS / "people_match_response.json").read_bytes())
    wire.get(f"{BASE}/organizations/enrich", content=b"{}")

    person = bench.apollo.ask_one(PERSON, MARTA, leaving=unjournaled)
    bench.apollo.ask_one(COMPANY, ORCHARD, leaving=unjournaled)

    first, second = wire.request_history
    assert first.qs["email"] == ["marta.oyelaran@orchardgrid.example"]
    assert first.qs["reveal_personal_emails"] == ["false"]
    assert not first.body
    assert second.qs == {"domain": ["orchardgrid.example"]}
    assert person.request_id == "4718829930115583747"
    assert person.credits is None


def test_an_answer_carries_bytes_credits_and_the_exact_request_id(bench: Bench, wire: Any) -> None:
    body = (PAYLOADS / "bulk_match_response_mixed.json").read_bytes()
    wire.post(f"{BASE}/people/bulk_match", content=body)

    given = bench.apollo.ask(PERSON, [MARTA] * 4, leaving=unjournaled)

    assert given.body == body
    assert given.credits == Decimal("2.01")
    assert given.request_id == "-6120457783914420518"


def test_a_batch_is_one_to_ten(bench: Bench) -> None:
    for keys in ([], [MARTA] * 11):
        with pytest.raises(ValueError, match="1 to 10"):
            bench.apollo.ask(PERSON, keys, leaving=unjournaled)


def test_an_address_without_tls_is_refused_by_the_settings_name() -> None:
    with pytest.raises(ConfigError, match="CRM_SYNC_APOLLO_URL"):
        Bench(url="http://api.apollo.io/api/v1")


def test_reading_the_bytes_again_gives_the_same(bench: Bench, wire: Any) -> None:
    wire.post(f"{BASE}/people/bulk_match", content=(PAYLOADS / "bulk_match_response_mixed.json").read_bytes())
    keys = [MARTA] * 4
    given = bench.apollo.ask(PERSON, keys, leaving=unjournaled)

    first = bench.apollo.read(PERSON, keys, given.body)
    again = bench.apollo.read(PERSON, keys, given.body)
    stored = Bench().apollo.read(PERSON, keys, bytes(bytearray(given.body)))

    assert first == again == stored
    assert first.enrichments[0] is not None
    assert first.enrichments[0].verdict is Verdict.MATCHED


def test_bytes_that_are_no_answer_are_a_broken_contract(bench: Bench) -> None:
    for body in (b"<html>", b"[]", b'{"matches": 1}'):
        with pytest.raises(ContractError):
            bench.apollo.read(PERSON, [MARTA, MARTA], body)


# --- what is told before money can move


def test_a_departure_is_told_after_the_last_wait_and_before_the_first_byte(bench: Bench, wire: Any) -> None:
    wire.post(f"{BASE}/people/bulk_match", content=NONE_MATCHED)
    wire.get(f"{BASE}/organizations/enrich", content=b"{}")
    seen: list[tuple[int, str]] = []

    def leaving() -> None:
        seen.append((len(wire.request_history), bench.pace.events[-1]))

    bench.apollo.ask(PERSON, [MARTA, MARTA], leaving=leaving)
    bench.apollo.ask_one(COMPANY, ORCHARD, leaving=leaving)

    assert seen == [(0, "acquire people/bulk_match"), (1, "acquire organizations/enrich")]
    assert len(wire.request_history) == 2


def test_a_call_that_is_sent_again_tells_each_departure(bench: Bench, wire: Any) -> None:
    wire.post(
        f"{BASE}/people/bulk_match",
        [{"exc": requests.ConnectTimeout}, {"status_code": 429, "headers": {"retry-after": "2"}}, {"content": MATCHED}],
    )
    departures: list[int] = []

    bench.apollo.ask(PERSON, [MARTA], leaving=lambda: departures.append(len(wire.request_history)))

    assert departures == [0, 1, 2]


def test_a_wait_is_told_before_it_is_waited_and_may_be_broken_off(bench: Bench, wire: Any) -> None:
    wire.post(f"{BASE}/people/bulk_match", status_code=429, headers={"retry-after": "37"})
    told: list[float] = []

    def waiting(seconds: float) -> None:
        told.append(seconds)
        raise InterruptedError

    with pytest.raises(InterruptedError):
        bench.apollo.ask(PERSON, [MARTA], leaving=unjournaled, waiting=waiting)

    assert told == [37.0]
    assert bench.clock.slept == []
    assert len(wire.request_history) == 1


class NotJournaledError(Exception):
    """What a journal that cannot be written to raises."""


def test_a_departure_that_cannot_be_told_does_not_happen(bench: Bench, wire: Any) -> None:
    wire.post(f"{BASE}/people/bulk_match", content=NONE_MATCHED)
    wire.post(f"{BASE}/people/match", content=b"{}")

    def leaving() -> None:
        raise NotJournaledError

    with pytest.raises(NotJournaledError):
        bench.apollo.ask(PERSON, [MARTA], leaving=leaving)
    with pytest.raises(NotJournaledError):
        bench.apollo.ask_one(PERSON, MARTA, leaving=leaving)

    assert wire.request_history == []
    assert bench.apollo.calls() == {}
    # Others may have their places.
    assert bench.pace.events == [
        "acquire people/bulk_match", "answered", "acquire people/match", "answered",
    ]  # fmt: skip


def test_a_call_is_named_by_the_endpoint_it_goes_to(bench: Bench, wire: Any) -> None:
    wire.post(f"{BASE}/people/bulk_match", content=NONE_MATCHED)
    wire.post(f"{BASE}/people/match", content=b"{}")
    wire.post(f"{BASE}/organizations/bulk_enrich", content=b'{"organizations": []}')
    wire.get(f"{BASE}/organizations/enrich", content=b"{}")
    named: list[str] = []
    for purpose, key in ((PERSON, MARTA), (COMPANY, ORCHARD)):
        named += [bench.apollo.endpoint(purpose, single=single) for single in (False, True)]
        bench.apollo.ask(purpose, [key], leaving=unjournaled)
        bench.apollo.ask_one(purpose, key, leaving=unjournaled)

    assert [request.path.removeprefix("/api/v1/") for request in wire.request_history] == named


# --- what each answer means


def ask(bench: Bench, wire: Any, **reply: Any) -> ProviderError:
    wire.post(f"{BASE}/people/bulk_match", **reply)
    with pytest.raises(ProviderError) as failed:
        bench.apollo.ask(PERSON, [MARTA, MARTA], leaving=unjournaled)
    assert KEY not in str(failed.value)
    assert "@" not in str(failed.value)
    assert bench.pace.events.count("answered") == len([e for e in bench.pace.events if e.startswith("acquire")])
    return failed.value


ERRORS = {
    (row["http_status"], row["body"].get("error_code") if "body" in row else row["body_text"][:15]): row
    for row in orjson.loads((PAYLOADS / "http_errors.json").read_bytes())
    if isinstance(row["http_status"], int)
}


@pytest.mark.parametrize(
    ("case", "kind", "words"),
    [
        ((400, "INVALID_REQUEST"), RefusedError, "missing details"),
        ((400, "RECORD_LIMIT_EXCEEDED"), RefusedError, "cannot be more than 10"),
        ((400, '{\n  "status": "'), RefusedError, "missing domains"),
        ((422, "UNKNOWN_ERROR"), RefusedError, "undefined method"),
        ((422, None), RefusedError, "missing"),
        ((422, "INVALID_API_KEY_LOCATION"), CredentialsError, "CRM_SYNC_APOLLO_AUTH=header"),
        ((401, "Invalid API key"), CredentialsError, "CRM_SYNC_APOLLO_API_KEY"),
        ((401, None), CredentialsError, "CRM_SYNC_APOLLO_API_KEY"),
        ((401, "INVALID_ACCESS_TOKEN"), CredentialsError, "CRM_SYNC_APOLLO_API_KEY"),
        ((403, "API_INACCESSIBLE"), CredentialsError, "scope"),
    ],
)
def test_each_documented_refusal_gets_its_remedy(
    bench: Bench, wire: Any, case: tuple[int, str], kind: type[ProviderError], words: str
) -> None:
    row = ERRORS[case]
    content = orjson.dumps(row["body"]) if "body" in row else row["body_text"].encode()

    error = ask(bench, wire, status_code=row["http_status"], content=content, headers={
        "content-type": row["content_type"]
    })  # fmt: skip

    assert type(error) is kind
    assert words in str(error)
    assert error.status == row["http_status"]


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (402, b""),
        (403, b'{"error": "Insufficient credits"}'),
        (422, b'{"error_code": "INSUFFICIENT_CREDITS"}'),
        (200, b'{"status": "failed", "error_message": "You have run out of credits"}'),
        (500, b'{"message": "not enough credits"}'),
    ],
)
def test_credit_in_an_errors_words_means_they_are_used_up(bench: Bench, wire: Any, status: int, body: bytes) -> None:
    assert type(ask(bench, wire, status_code=status, content=body)) is QuotaError


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (500, b""),
        (502, b"<html>Bad gateway marta.oyelaran@orchardgrid.example</html>"),
        (503, b'{"error": "try again"}'),
        (200, b"<html>Sign in to the guest network</html>"),
        (200, b""),
        (200, b'{"matches": [{"id": '),
        (200, b"[]"),
        (200, b'{"status": "success"}'),
        (400, b"<html>nginx</html>"),
        (422, b"garbage"),
        (404, b'{"error": "Not found"}'),
        (418, b"{}"),
    ],
)
def test_what_proves_nothing_is_doubt_with_the_bytes_that_came(
    bench: Bench, wire: Any, status: int, body: bytes
) -> None:
    error = ask(bench, wire, status_code=status, content=body)

    assert isinstance(error, DoubtError)
    assert error.body == body
    assert error.status == status
    assert len(wire.request_history) == 1


def test_a_redirect_of_a_paid_call_is_doubt_and_not_followed(bench: Bench, wire: Any) -> None:
    error = ask(bench, wire, status_code=307, headers={"location": "https://elsewhere.example/"})

    assert isinstance(error, DoubtError)
    assert len(wire.request_history) == 1


def test_a_read_time_out_is_doubt_and_is_not_sent_again(bench: Bench, wire: Any) -> None:
    error = ask(bench, wire, exc=requests.ReadTimeout)

    assert isinstance(error, DoubtError)
    assert len(wire.request_history) == 1


def test_a_connection_that_cannot_be_made_is_transient_and_tried_again(bench: Bench, wire: Any) -> None:
    error = ask(bench, wire, exc=requests.ConnectTimeout)

    assert isinstance(error, TransientError)
    assert not isinstance(error, DoubtError)
    assert len(wire.request_history) == 3
    assert bench.apollo.calls() == {}


@pytest.mark.parametrize("body", [b"", b"{}", b"Not Found", b'{"error": "person not found"}'])
def test_a_single_404_is_a_miss_that_reads_as_one(bench: Bench, wire: Any, body: bytes) -> None:
    wire.post(f"{BASE}/people/match", status_code=404, content=body)

    given = bench.apollo.ask_one(PERSON, MARTA, leaving=unjournaled)

    read = bench.apollo.read(PERSON, [MARTA], given.body).enrichments
    assert read[0] is not None
    assert read[0].verdict is Verdict.NO_MATCH


def test_a_single_404_page_is_doubt(bench: Bench, wire: Any) -> None:
    wire.post(f"{BASE}/people/match", status_code=404, content=b"<!doctype html>")

    with pytest.raises(DoubtError):
        bench.apollo.ask_one(PERSON, MARTA, leaving=unjournaled)


# --- 429


def test_a_429_parks_the_endpoint_for_everybody_and_is_sent_again(bench: Bench, wire: Any) -> None:
    wire.post(
        f"{BASE}/people/bulk_match",
        [{"status_code": 429, "headers": {"retry-after": "37"}}, {"content": NONE_MATCHED}],
    )

    bench.apollo.ask(PERSON, [MARTA, MARTA], leaving=unjournaled)

    assert bench.pace.parked == [37.0]
    assert bench.pace.events == [
        "acquire people/bulk_match", "answered", "park people/bulk_match", "acquire people/bulk_match", "answered",
    ]  # fmt: skip
    assert bench.apollo.calls() == {"people/bulk_match": 2}


def test_a_429_without_a_time_backs_off_further_each_time(bench: Bench, wire: Any) -> None:
    wire.post(f"{BASE}/people/bulk_match", [{"status_code": 429}, {"status_code": 429}, {"content": NONE_MATCHED}])

    bench.apollo.ask(PERSON, [MARTA, MARTA], leaving=unjournaled)

    first, second = bench.pace.parked
    assert 7.5 <= first <= 15.0 <= second <= 30.0


def test_a_long_429_is_a_used_up_quota_that_says_until_when(bench: Bench, wire: Any) -> None:
    headers = {"retry-after": "1740", "x-rate-limit-hourly": "600", "x-hourly-usage": "600",
               "x-hourly-requests-left": "0"}  # fmt: skip

    error = ask(bench, wire, status_code=429, headers=headers)

    assert type(error) is QuotaError
    assert "2026-10-08 12:29 UTC" in str(error)
    assert bench.pace.parked == [1740.0]
    assert bench.pace.windows == [(Window(seconds=3600, limit=600, left=0),)]


def test_endless_429s_end(bench: Bench, wire: Any) -> None:
    error = ask(bench, wire, status_code=429, headers={"retry-after": "5"})

    assert type(error) is RateLimitError
    assert error.retry_after_s == 5.0
    assert len(wire.request_history) == 7


def test_every_answers_headers_are_learned(bench: Bench, wire: Any) -> None:
    headers = {"x-rate-limit-minute": "50", "x-minute-requests-left": "49"}
    wire.post(f"{BASE}/people/bulk_match", content=NONE_MATCHED, headers=headers)

    bench.apollo.ask(PERSON, [MARTA, MARTA], leaving=unjournaled)

    assert bench.pace.windows == [(Window(seconds=60, limit=50, left=49),)]


# --- on real sockets


def ask_at(*replies: Reply, **settings: Any) -> tuple[ProviderError | None, int]:
    """The error of the last of as many questions as replies, and how many requests were seen."""
    error: ProviderError | None = None
    with scripted_server(*replies) as server:
        bench = Bench(url=server.url, **{"read_timeout_s": 0.5, **settings})
        for _ in replies:
            error = None
            try:
                bench.apollo.ask(PERSON, [MARTA], leaving=unjournaled)
            except ProviderError as failed:
                error = failed
        return error, len(server.requests)


def silent(peer: socket.socket, _request: bytes) -> bool:
    time.sleep(1.0)
    return False


@pytest.mark.parametrize(
    ("reply", "body"),
    [
        (silent, b""),
        (hang_up, b""),
        (answer(MATCHED[:700], length=len(MATCHED)), MATCHED[:700]),
        (answer(MATCHED, headers="content-encoding: gzip\r\n"), b""),
        (answer(b"x" * (5 << 20)), b"x" * (1 << 20)),
    ],
    ids=["silence", "reset", "cut", "broken compression", "endless"],
)
def test_after_the_first_byte_every_failure_is_doubt_and_nothing_is_repeated(reply: Reply, body: bytes) -> None:
    error, seen = ask_at(reply)

    assert isinstance(error, DoubtError)
    assert error.body == body
    assert seen == 1


def test_a_reset_on_a_kept_connection_is_doubt_too() -> None:
    error, seen = ask_at(answer(MATCHED), hang_up)

    assert isinstance(error, DoubtError)
    assert seen == 2


def test_nobody_listening_is_transient() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"

    with pytest.raises(TransientError, match="Nothing was charged"):
        Bench(url=url).apollo.ask(PERSON, [MARTA], leaving=unjournaled)


def test_a_thousand_records_share_their_connections() -> None:
    with scripted_server(answer(MATCHED)) as server:
        bench = Bench(url=server.url)
        threads = [
            threading.Thread(
                target=lambda: [bench.apollo.ask(PERSON, [MARTA], leaving=unjournaled) for _ in range(25)], daemon=True
            )
            for _ in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    assert len(server.requests) == 100
    assert server.connections <= 4
    assert bench.apollo.calls() == {"people/bulk_match": 100}


# --- credits that ran out without a word


def test_after_a_flood_of_locked_addresses_the_balance_is_looked_at_before_paying_again(
    bench: Bench, wire: Any
) -> None:
    locked = [{"id": str(n), "title": "x", "email": "email_not_unlocked@domain.com"} for n in range(4)]
    wire.post(f"{BASE}/people/bulk_match", json={"matches": locked, "credits_consumed": 0})
    wire.post(f"{BASE}/usage_stats/credit_usage_stats", json={"credit_usage_stats": {"lead_credit": {"left_over": 0}}})
    bench.apollo.ask(PERSON, [MARTA] * 4, leaving=unjournaled)

    with pytest.raises(QuotaError, match="credits are used up"):
        bench.apollo.ask(PERSON, [MARTA] * 4, leaving=unjournaled)

    assert bench.apollo.calls() == {"people/bulk_match": 1, "usage_stats/credit_usage_stats": 1}


def test_a_flood_with_credits_left_goes_on(bench: Bench, wire: Any) -> None:
    locked = [{"id": str(n), "title": "x", "email": "email_not_unlocked@domain.com"} for n in range(4)]
    wire.post(f"{BASE}/people/bulk_match", json={"matches": locked})
    wire.post(
        f"{BASE}/usage_stats/credit_usage_stats",
        content=(PAYLOADS / "credit_usage_stats_response.json").read_bytes(),
    )

    for _ in range(3):
        bench.apollo.ask(PERSON, [MARTA] * 4, leaving=unjournaled)

    assert bench.apollo.calls() == {"people/bulk_match": 3, "usage_stats/credit_usage_stats": 1}


# --- free of charge


def test_the_balance_is_none_where_the_key_may_not_ask(bench: Bench, wire: Any) -> None:
    for status in (403, 404):
        wire.post(f"{BASE}/usage_stats/credit_usage_stats", status_code=status, json={"error": "no"})
        assert bench.apollo.balance() is None


def test_the_balance_is_asked_again_after_a_hiccup(bench: Bench, wire: Any) -> None:
    body = (PAYLOADS / "credit_usage_stats_response.json").read_bytes()
    wire.post(f"{BASE}/usage_stats/credit_usage_stats", [{"status_code": 503}, {"content": body}])

    balance = bench.apollo.balance()

    assert balance is not None
    assert balance.left == Decimal(7500)


def a_whole_apollo(wire: Any) -> None:
    wire.get(f"{BASE}/auth/health", json={"healthy": True, "is_logged_in": True})
    wire.post(f"{BASE}/people/bulk_match", status_code=400, json=ERRORS[400, "INVALID_REQUEST"]["body"])
    wire.post(f"{BASE}/organizations/bulk_enrich", status_code=400, text=ERRORS[400, '{\n  "status": "']["body_text"])
    wire.get(f"{BASE}/organizations/enrich", status_code=422, json=ERRORS[422, None]["body"])
    wire.get(f"{BASE}/webhook_result/0", status_code=404, json={"error_code": "request_id_unknown"})
    usage = (PAYLOADS / "usage_stats_response.json").read_bytes()
    wire.post(f"{BASE}/usage_stats/api_usage_stats", content=usage)
    balance = (PAYLOADS / "credit_usage_stats_response.json").read_bytes()
    wire.post(f"{BASE}/usage_stats/credit_usage_stats", content=balance)


def test_access_is_checked_path_by_path_without_asking_for_anybody(bench: Bench, wire: Any) -> None:
    a_whole_apollo(wire)

    checks = {check.name: check for check in bench.apollo.check_access()}

    assert all(check.ok for check in checks.values())
    assert "not tried" in checks["Apollo people/match"].detail
    assert "7,500 left, renewed 2026-11-01" in checks["Apollo credits"].detail
    assert "20 a minute" in checks["Apollo limits"].detail
    assert (Window(seconds=60, limit=20, left=0) in windows for windows in bench.pace.windows)
    assert all(b"email" not in (r.body or b"") for r in wire.request_history)


def test_a_parked_endpoint_is_not_tried_and_says_how_long(bench: Bench, wire: Any) -> None:
    a_whole_apollo(wire)
    bench.pace.park("people/bulk_match", 90.0)

    checks = {check.name: check for check in bench.apollo.check_access()}

    assert checks["Apollo people/bulk_match"].detail.startswith("not tried: ")
    assert not any(request.path.endswith("/people/bulk_match") for request in wire.request_history)


def test_a_path_the_key_lacks_is_named_with_its_cure(bench: Bench, wire: Any) -> None:
    a_whole_apollo(wire)
    wire.post(f"{BASE}/organizations/bulk_enrich", status_code=403, json=ERRORS[403, "API_INACCESSIBLE"]["body"])

    failed = [check for check in bench.apollo.check_access() if not check.ok]

    assert [check.name for check in failed] == ["Apollo organizations/bulk_enrich"]
    assert "api/v1/organizations/bulk_enrich" in failed[0].cure


@pytest.mark.parametrize(
    "reply",
    [
        {"json": {"healthy": True, "is_logged_in": False}},
        {"status_code": 401, "text": "Invalid API key."},
        {"exc": requests.ConnectTimeout},
        {"text": "<html>"},
    ],
)
def test_a_key_that_is_not_accepted_ends_the_check(bench: Bench, wire: Any, reply: dict[str, Any]) -> None:
    wire.get(f"{BASE}/auth/health", **reply)

    checks = bench.apollo.check_access()

    assert [check.ok for check in checks] == [False]
    assert "CRM_SYNC_APOLLO" in checks[0].cure
    assert KEY not in checks[0].detail
