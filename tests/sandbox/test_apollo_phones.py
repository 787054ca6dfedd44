"""Phone reveals of the sandbox's Apollo, over HTTP, with a receiver that takes what is delivered."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from typing import Any
from urllib.parse import quote

import orjson
import phonenumbers
import pytest
import requests

from crm_sync.sandbox import apollo, wordings
from crm_sync.sandbox.apollo.callbacks import WHAT
from crm_sync.sandbox.faults import Faults
from crm_sync.sandbox.numbers import FINDS, Phone
from crm_sync.sandbox.server import Server, control
from crm_sync.sandbox.world import World

WAIT_S = 5.0
#: webhook_phone_native.json
NUMBER_KEYS = {
    "_id", "confidence_cd", "created_at", "direct_dial_source_cd", "dnc_other_info", "dnc_status_cd",
    "dnc_status_updated_at", "position", "raw_number", "sanitized_number", "status_cd", "type_cd", "updated_at", "id",
    "key",
}  # fmt: skip
NATIVE_KEYS = {
    "status", "total_requested_enrichments", "unique_enriched_records", "missing_records", "credits_consumed", "people",
}  # fmt: skip
#: webhook_waterfall.json
WATERFALL_KEYS = {
    "status", "total_requested_enrichments", "target_fields", "records_enriched", "email_records_enriched",
    "mobile_records_enriched", "enrichment_not_found", "email_records_not_found", "mobile_records_not_found",
    "credits_consumed", "request_id", "request_initiated", "request_completed", "people",
}  # fmt: skip
#: poll_success_phone.json
POLL_KEYS = {
    "request_id", "webhook_status", "request_type", "last_dispatched_at", "failure_reason", "webhook_result",
}  # fmt: skip


@dataclass
class Arrived:
    at: float
    path: str
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return orjson.loads(self.body)


@dataclass
class Receiver:
    """A server on loopback. `statuses`: what it answers first, 200 after that."""

    url: str
    arrived: list[Arrived] = field(default_factory=list)
    statuses: list[int] = field(default_factory=list)
    on_arrival: Callable[[str], Any] = lambda _path: None

    def await_(self, count: int) -> list[Arrived]:
        until(lambda: len(self.arrived) >= count)
        return self.arrived


@pytest.fixture(scope="module")
def _server() -> Iterator[tuple[ThreadingHTTPServer, dict[str, Receiver]]]:
    now: dict[str, Receiver] = {}

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = b""
            if self.headers.get("Transfer-Encoding") == "chunked":
                while size := int(self.rfile.readline(), 16):
                    body += self.rfile.read(size)
                    self.rfile.readline()
                self.rfile.readline()
            else:
                body = self.rfile.read(int(self.headers["Content-Length"]))
            receiver = now["receiver"]
            receiver.on_arrival(self.path)
            receiver.arrived.append(Arrived(time.monotonic(), self.path, dict(self.headers), body))
            status = receiver.statuses.pop(0) if receiver.statuses else 200
            self.send_response(status)
            if status == 302:
                self.send_header("Location", receiver.url)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            """Nothing on stderr."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=lambda: server.serve_forever(poll_interval=0.05), daemon=True)
    thread.start()
    yield server, now
    server.shutdown()
    server.server_close()
    thread.join(timeout=5)


@pytest.fixture
def receiver(_server: tuple[ThreadingHTTPServer, dict[str, Receiver]]) -> Receiver:
    server, now = _server
    now["receiver"] = Receiver(f"http://127.0.0.1:{server.server_port}/webhooks/apollo/token")
    return now["receiver"]


class Clock:
    now = 1_000.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Apollo:
    """The simulator behind its port, and a caller with the key."""

    url: str
    app: Any
    world: World
    clock: Clock
    key_in_body: bool

    def ask(
        self,
        indexes: list[int],
        *,
        endpoint: str = "people/bulk_match",
        query: dict[str, Any] | str | None = None,
        **body: Any,
    ) -> requests.Response:
        details = [{"id": apollo.person_id(index)} for index in indexes]
        content = {**(details[0] if endpoint == "people/match" else {"details": details}), **body}
        if self.key_in_body:
            content["api_key"] = apollo.API_KEY
        headers = {} if self.key_in_body else {"x-api-key": apollo.API_KEY}
        return requests.post(
            f"{self.url}/api/v1/{endpoint}", params=query or {}, json=content, headers=headers, timeout=9
        )

    def order(self, indexes: list[int], url: str, **more: Any) -> dict[str, Any]:
        answer = self.ask(indexes, query={"reveal_phone_number": "true", "webhook_url": url}, **more)
        assert answer.status_code == 200, answer.text
        return answer.json()  # type: ignore[no-any-return]

    def poll(self, request_id: object) -> requests.Response:
        return requests.get(
            f"{self.url}/api/v1/webhook_result/{request_id}", headers={"x-api-key": apollo.API_KEY}, timeout=9
        )

    def polled(self, request_id: object) -> dict[str, Any]:
        answer = self.poll(request_id)
        assert answer.status_code == 200, answer.text
        assert set(answer.json()) == POLL_KEYS
        return answer.json()  # type: ignore[no-any-return]

    def control(self, path: str, asked: Any, status: int = 200) -> Any:
        answer = requests.post(f"{self.url}/_sandbox/{path}", json=asked, timeout=9)
        assert answer.status_code == status, answer.text
        return answer.json()

    def state(self) -> dict[str, Any]:
        return requests.get(f"{self.url}/_sandbox/state", timeout=9).json()  # type: ignore[no-any-return]

    @property
    def phones(self) -> dict[str, Any]:
        return self.state()["phones"]  # type: ignore[no-any-return]

    @property
    def ledger(self) -> apollo.Ledger:
        return self.app.extensions["ledger"]  # type: ignore[no-any-return]

    def people(self, find: Callable[[tuple[Phone, ...]], bool], count: int = 1) -> list[int]:
        """The first people whom Apollo knows well and of whom that is found."""
        fit = (
            index
            for index in range(self.world.people)
            if self.world.person(index).apollo == "plain" and find(self.world.phones(index))
        )
        return [next(fit) for _ in range(count)]


@pytest.fixture(scope="module")
def _port() -> Iterator[Server]:
    server = Server(apollo.create(World(7, 5))).start()
    yield server
    server.stop()


@pytest.fixture
def make(_port: Server) -> Iterator[Callable[..., Apollo]]:
    """A new simulator on the one port: a server takes half a second to stop."""
    made: list[Any] = []

    def make(*, tidy: bool = False, **options: Any) -> Apollo:
        world, clock = World(7, 200, tidy=tidy), Clock()
        spacing = {"callback_spacing_s": (0.05, 0.05)}
        app = apollo.create(world, now=clock, **{"reveal_delay_s": 0.05, **spacing, **options})
        control(app, app.extensions["simulator"], Faults(wordings.apollo))
        made.append(app)
        _port.serve(app)
        return Apollo(_port.url, app, world, clock, options.get("key_in_body", False))

    yield make
    for app in made:
        app.extensions["simulator"].close()


def until(fact: Callable[[], Any]) -> None:
    end = time.monotonic() + WAIT_S
    while not fact():
        assert time.monotonic() < end, "it did not come about"
        time.sleep(0.01)


def quiet(receiver: Receiver, count: int, for_s: float = 0.15) -> None:
    time.sleep(for_s)
    assert len(receiver.arrived) == count


def has_mobile(phones: tuple[Phone, ...]) -> bool:
    return any(phone.type_cd == "mobile" and phone.status_cd == "valid_number" for phone in phones)


def only(kind: str) -> Callable[[tuple[Phone, ...]], bool]:
    return lambda phones: [phone.type_cd for phone in phones] == [kind]


def mobile_only(phones: tuple[Phone, ...]) -> bool:
    return has_mobile(phones) and len(phones) == 1


# --- what the world knows


def _is_valid(phone: Phone) -> bool:
    try:
        return phonenumbers.is_valid_number(phonenumbers.parse(phone.sanitized or ""))
    except phonenumbers.NumberParseException:
        return False


def test_the_numbers_of_the_world_are_valid_ones_of_the_persons_country() -> None:
    regions = {"United States": "US", "United Kingdom": "GB", "Germany": "DE", "Kenya": "KE", "Japan": "JP"}
    world = World(7, 4000)
    for person in world:
        for phone in world.phones(person.index):
            if phone.raw == "n/a":
                assert not _is_valid(phone)
                continue
            number = phonenumbers.parse(phone.sanitized or "")
            assert phonenumbers.is_valid_number(number), (person.country, phone)
            kind = phonenumbers.number_type(number)
            if phone.type_cd == "mobile":
                assert kind in (
                    phonenumbers.PhoneNumberType.MOBILE,
                    phonenumbers.PhoneNumberType.FIXED_LINE_OR_MOBILE,
                ), (person.country, phone)
                if person.country in regions:
                    assert phonenumbers.region_code_for_number(number) == regions[person.country]
            region = phonenumbers.region_code_for_number(number)
            assert phonenumbers.parse(phone.raw, region) == number, "as typed and as sanitized it is one number"


def test_every_kind_of_find_is_there_as_often_as_told() -> None:
    world = World(7, 4000)
    found = [world.phones(index) for index in range(4000)]
    kinds: Counter[str] = Counter()
    for phones in found:
        mobiles = [phone for phone in phones if phone.type_cd == "mobile" and phone.raw != "n/a"]
        if not phones:
            kinds["nothing"] += 1
        elif mobiles:
            kinds[f"mobile {mobiles[0].dnc_status_cd}"] += 1
        elif phones[0].raw == "n/a":
            kinds["no_number"] += 1
        else:
            kinds["switchboard" if phones[0].type_cd == "work_hq" else "other"] += 1

    shares = {kind: count / 4000 for kind, count in kinds.items()}
    assert shares["mobile not_found"] == pytest.approx(0.59, abs=0.03)
    told = dict(FINDS)
    for kind, word in {
        "nothing": "nothing",
        "switchboard": "switchboard",
        "other": "other",
        "no_number": "no_number",
        "mobile found": "mobile_on_dnc",
        "mobile None": "mobile_dnc_null",
        "mobile not_on_dnc": "mobile_not_on_dnc",
        "mobile pending_review": "mobile_dnc_unheard_of",
    }.items():
        assert shares[kind] == pytest.approx(told[word] / 1000, abs=0.02), kind
    assert any([phone.type_cd for phone in phones] == ["work_direct", "mobile"] for phones in found)


def test_the_same_world_knows_the_same_numbers_and_another_one_others() -> None:
    numbers = [[World(seed, 50).phones(index) for index in range(50)] for seed in (7, 7, 8)]

    assert numbers[0] == numbers[1] != numbers[2]


def test_in_a_tidy_world_everybody_has_one_mobile_that_may_be_called() -> None:
    world = World(3, 500, tidy=True)
    for index in range(world.people):
        [phone] = world.phones(index)
        assert (phone.type_cd, phone.dnc_status_cd, phone.status_cd) == ("mobile", "not_found", "valid_number")


# --- an ordinary order


def test_an_order_is_answered_at_once_and_delivered_later(make: Callable[..., Apollo], receiver: Receiver) -> None:
    it = make()
    [mobile] = it.people(has_mobile)
    [nothing] = it.people(lambda phones: not phones)

    answer = it.order([mobile, nothing], receiver.url)
    [arrived] = receiver.await_(1)

    assert answer["credits_consumed"] == 2.0
    enrichment = answer["phone_enrichment"]
    assert set(enrichment) == {"request_id", "status", "message"}
    assert enrichment["status"] == "pending"
    assert "{request_id} with the top-level `request_id`" in enrichment["message"]
    assert isinstance(answer["request_id"], int)
    assert -(2**63) <= answer["request_id"] < 2**63
    assert arrived.path == "/webhooks/apollo/token"
    assert arrived.headers["Content-Type"] == "application/json"
    assert arrived.headers["Content-Length"] == str(len(arrived.body))
    body = arrived.json()
    assert set(body) == NATIVE_KEYS
    assert {key: value for key, value in body.items() if key != "people"} == {
        "status": "success",
        "total_requested_enrichments": 2,
        "unique_enriched_records": 1,
        "missing_records": 1,
        "credits_consumed": 8,
    }
    found, missed = body["people"]
    assert missed == {"id": apollo.person_id(nothing), "status": "failed", "phone_numbers": []}
    assert (found["id"], found["status"]) == (apollo.person_id(mobile), "success")
    for position, (number, phone) in enumerate(zip(found["phone_numbers"], it.world.phones(mobile), strict=True)):
        assert set(number) == NUMBER_KEYS
        assert number["position"] == position
        assert (number["raw_number"], number["sanitized_number"]) == (phone.raw, phone.sanitized)
        assert number["_id"] == number["id"] == number["key"]
        assert len(number["id"]) == 24
    quiet(receiver, 1)
    assert it.ledger.phones == {apollo.person_id(mobile): 1}
    assert [(each.apollo_id, each.credits) for each in it.ledger.revealed] == [
        (apollo.person_id(mobile), 8),
        (apollo.person_id(nothing), 0),
    ]
    assert {each.request_id for each in it.ledger.revealed} == {str(answer["request_id"])}
    state = it.state()
    assert state["credits"]["charged"] == state["phones"]["charged_with_reveal"] == 2
    assert state["credits"]["balance"] == 1_000_000 - 2 - 8
    phones = state["phones"]
    assert (phones["orders"], phones["ordered"], phones["delivered"], phones["charged"]) == (1, 2, 1, 8)
    [told] = phones["by_request"]
    assert (told["request_id"], told["credits"], told["delivered"]) == (str(answer["request_id"]), 8, True)
    assert [attempt["failure"] for attempt in told["attempts"]] == [None]


def test_a_single_person_is_ordered_in_the_same_way(make: Callable[..., Apollo], receiver: Receiver) -> None:
    it = make(tidy=True)

    answer = it.order([3], receiver.url, endpoint="people/match")
    [arrived] = receiver.await_(1)

    assert set(answer) == {"person", "phone_enrichment", "request_id"}
    assert answer["phone_enrichment"]["status"] == "pending"
    assert [person["id"] for person in arrived.json()["people"]] == [apollo.person_id(3)]
    assert it.polled(answer["request_id"])["webhook_result"] == arrived.json()


@pytest.mark.parametrize("endpoint", ["people/bulk_match", "people/match"])
def test_nobody_matched_is_no_order(make: Callable[..., Apollo], receiver: Receiver, endpoint: str) -> None:
    it = make()
    unknown = next(person.index for person in it.world if person.apollo == "unknown")

    answer = it.order([unknown], receiver.url, endpoint=endpoint)

    assert "phone_enrichment" not in answer
    assert it.poll(answer["request_id"]).json() == {"error_code": "request_id_unknown"}
    quiet(receiver, 0, 0.1)


def test_an_answer_without_a_reveal_cannot_be_polled(make: Callable[..., Apollo]) -> None:
    it = make()
    answer = it.ask([1]).json()

    assert "phone_enrichment" not in answer
    assert it.poll(answer["request_id"]).json() == {"error_code": "request_id_unknown"}


def test_an_echo_is_looked_up_and_nothing_is_found(make: Callable[..., Apollo], receiver: Receiver) -> None:
    it = make()
    echo = next(person.index for person in it.world if person.apollo == "echo")

    answer = it.order([echo], receiver.url)
    [arrived] = receiver.await_(1)

    assert arrived.json()["people"] == [{"id": answer["matches"][0]["id"], "status": "failed", "phone_numbers": []}]
    assert it.phones["charged"] == 0


def test_a_namesakes_mobile_is_another_humans_and_costs_as_much(
    make: Callable[..., Apollo], receiver: Receiver
) -> None:
    it = make()
    person = next(person for person in it.world if person.apollo == "namesake")
    detail = {
        "first_name": person.first_name,
        "last_name": person.last_name,
        "domain": it.world.company(person.company).domain,
    }
    query = {"reveal_phone_number": "true", "webhook_url": receiver.url}

    found = it.ask([], query=query, details=[detail]).json()["matches"][0]["id"]
    receiver.await_(1)
    again = it.ask([], query=query, details=[{"id": found}]).json()["matches"][0]["id"]
    first, second = (arrived.json()["people"] for arrived in receiver.await_(2))

    assert found == again != apollo.person_id(person.index)
    assert first == second
    assert [number["raw_number"] for number in first[0]["phone_numbers"]] != [
        phone.raw for phone in it.world.phones(person.index)
    ]


def test_somebody_asked_for_twice_in_one_call_is_revealed_once(make: Callable[..., Apollo], receiver: Receiver) -> None:
    it = make(tidy=True)

    answer = it.order([4, 4], receiver.url)
    [arrived] = receiver.await_(1)

    assert [match["id"] for match in answer["matches"]] == [apollo.person_id(4)] * 2
    assert [person["id"] for person in arrived.json()["people"]] == [apollo.person_id(4)]
    assert it.phones["charged"] == 8


# --- money


def test_only_a_mobile_costs(make: Callable[..., Apollo], receiver: Receiver) -> None:
    it = make()
    [switchboard] = it.people(only("work_hq"))

    it.order([switchboard], receiver.url)
    [arrived] = receiver.await_(1)

    assert arrived.json()["credits_consumed"] == 0
    [person] = arrived.json()["people"]
    assert person["status"] == "success"
    assert [number["type_cd"] for number in person["phone_numbers"]] == ["work_hq"]
    assert it.phones["charged"] == 0


def test_who_was_revealed_and_is_ordered_again_is_charged_again(
    make: Callable[..., Apollo], receiver: Receiver
) -> None:
    it = make(tidy=True)
    for count in (1, 2):
        it.order([4, 4 + count], receiver.url)
        receiver.await_(count)

    phones = it.phones
    assert phones["charged"] == 32
    assert phones["more_than_once"] == phones["ordered_more_than_once"] == {apollo.person_id(4): 2}
    assert it.ledger.phones[apollo.person_id(4)] == 2


def test_credits_that_do_not_do_for_a_mobile_fail_that_person(make: Callable[..., Apollo], receiver: Receiver) -> None:
    it = make(tidy=True, credits_left=2 + 8 + 7)

    answer = it.order([1, 2], receiver.url)
    [arrived] = receiver.await_(1)

    assert answer["phone_enrichment"]["status"] == "pending"
    assert [person["status"] for person in arrived.json()["people"]] == ["success", "failed"]
    assert arrived.json()["people"][1]["phone_numbers"] == []
    assert arrived.json()["credits_consumed"] == 8
    assert it.state()["credits"]["balance"] == 7
    assert it.polled(answer["request_id"])["webhook_result"] == arrived.json()


def test_a_charge_falls_due_when_the_reveal_has_finished(make: Callable[..., Apollo], receiver: Receiver) -> None:
    it = make(tidy=True, reveal_delay_s=0.5)

    it.order([1], receiver.url)

    assert it.state()["credits"]["balance"] == 1_000_000 - 1
    assert it.phones["running"] == 1
    receiver.await_(1)
    assert it.state()["credits"]["balance"] == 1_000_000 - 9
    assert it.phones["running"] == 0


# --- a reveal that is still running


def test_whose_reveal_is_running_is_left_to_the_earlier_order(make: Callable[..., Apollo], receiver: Receiver) -> None:
    it = make(tidy=True, reveal_delay_s=0.5)
    first = it.order([1, 2], receiver.url + "/first")

    skipped = it.order([2, 1], receiver.url + "/skipped")
    mixed = it.order([2, 3], receiver.url + "/mixed")
    arrived = receiver.await_(2)

    assert set(skipped["phone_enrichment"]) == {"status", "message"}
    assert skipped["phone_enrichment"]["status"] == "skipped"
    assert skipped["credits_consumed"] == 2.0
    assert it.poll(skipped["request_id"]).json() == {"error_code": "request_id_unknown"}
    assert mixed["phone_enrichment"]["status"] == "pending"
    by_path = {each.path.rpartition("/")[2]: [p["id"] for p in each.json()["people"]] for each in arrived}
    assert by_path == {
        "first": [apollo.person_id(1), apollo.person_id(2)],
        "mixed": [apollo.person_id(3)],
    }
    assert it.polled(first["request_id"])["webhook_status"] == "success"
    assert it.phones["charged"] == 24
    assert it.phones["skipped"] == 1
    assert it.phones["more_than_once"] == {}


# --- strictness


@pytest.mark.parametrize("endpoint", ["people/bulk_match", "people/match"])
def test_a_reveal_in_the_body_is_ignored_without_a_word(
    make: Callable[..., Apollo], receiver: Receiver, endpoint: str
) -> None:
    it = make(tidy=True)

    answer = it.ask([1], endpoint=endpoint, reveal_phone_number=True, webhook_url=receiver.url)

    assert answer.status_code == 200
    assert apollo.person_id(1) in answer.text
    assert "phone_enrichment" not in answer.json()
    assert it.phones["orders"] == 0


@pytest.mark.parametrize("endpoint", ["people/bulk_match", "people/match"])
def test_in_the_older_contract_a_reveal_may_stand_in_the_body(
    make: Callable[..., Apollo], receiver: Receiver, endpoint: str
) -> None:
    it = make(tidy=True, key_in_body=True)

    answer = it.ask([1], endpoint=endpoint, reveal_phone_number=True, webhook_url=receiver.url)

    assert answer.json()["phone_enrichment"]["status"] == "pending"
    receiver.await_(1)


@pytest.mark.parametrize(
    ("query", "error"),
    [
        ("reveal_phone_number=true", "Please add a valid 'webhook_url' parameter"),
        ("reveal_phone_number=true&webhook_url=", "Please add a valid 'webhook_url' parameter"),
        ("reveal_phone_number=true&webhook_url=nonsense", "Please add a valid 'webhook_url' parameter"),
        ("reveal_phone_number=true&webhook_url=ftp://127.0.0.1/x", "Please add a valid 'webhook_url' parameter"),
        ("reveal_phone_number=true&webhook_url=http://127.0.0.1:99999/x", "Please add a valid"),
        ("reveal_phone_number=true&webhook_url=http://127.0.0.1@example.com/x", "Please add a valid"),
        ("reveal_phone_number=true&webhook_url=http://127.0.0.1%0a.example/x", "Please add a valid"),
        ("reveal_phone_number=true&webhook_url=http://127.0.0.1%5c@example.com/x", "Please add a valid"),
        ("reveal_phone_number=true&webhook_url=https://127.0.0.1/x", "sandbox: webhook_url is http on"),
        ("reveal_phone_number=true&webhook_url=http://example.com/x", "sandbox: webhook_url is http on"),
        ("reveal_phone_number=true&webhook_url=http://127.0.0.1.example.com/x", "sandbox: webhook_url is http on"),
        ("reveal_phone_number=true&webhook_url=http://10.0.0.1/x", "sandbox: webhook_url is http on"),
        ("reveal_phone_number=yes&webhook_url=http://127.0.0.1/x", "sandbox: reveal_phone_number is true or false"),
        ("reveal_phone_number=True&webhook_url=http://127.0.0.1/x", "sandbox: reveal_phone_number is true or false"),
        ("reveal_phone_number=true&webhook_url=http://[::1]/&webhook_url=x", "sandbox: webhook_url is given more"),
        ("webhook_url=http://127.0.0.1/x", "webhook_url is only allowed with reveal_phone_number"),
        ("reveal_phone_number=false&webhook_url=http://127.0.0.1/x", "webhook_url is only allowed with"),
        ("run_waterfall_phone=true&webhook_url=http://127.0.0.1/x", "sandbox: run_waterfall_phone is not simulated"),
    ],
)
@pytest.mark.parametrize("endpoint", ["people/bulk_match", "people/match"])
def test_a_wrong_order_is_refused_before_anything_is_charged(
    make: Callable[..., Apollo], endpoint: str, query: str, error: str
) -> None:
    it = make(tidy=True)

    answer = it.ask([1], endpoint=endpoint, query=query)

    assert answer.status_code == 422
    assert answer.json()["error"].startswith(error)
    assert it.ledger.charged == {}
    assert it.phones["orders"] == 0


def test_a_webhook_url_in_the_body_does_not_do_for_a_reveal_in_the_query(
    make: Callable[..., Apollo], receiver: Receiver
) -> None:
    answer = make().ask([1], query="reveal_phone_number=true", webhook_url=receiver.url)

    assert answer.status_code == 422


def test_a_webhook_url_encoded_twice_works_or_is_refused(make: Callable[..., Apollo], receiver: Receiver) -> None:
    twice = {"reveal_phone_number": "true", "webhook_url": quote(receiver.url, safe="")}
    thrice = {**twice, "webhook_url": quote(twice["webhook_url"], safe="")}

    refused = make(tidy=True, variant="b").ask([1], query=twice)
    it = make(tidy=True)
    taken = it.ask([1], query=twice)
    nonsense = it.ask([2], query=thrice)
    [arrived] = receiver.await_(1)

    assert (taken.status_code, refused.status_code, nonsense.status_code) == (200, 422, 422)
    assert refused.json() == {"error": "Please add a valid 'webhook_url' parameter"}
    assert arrived.path == "/webhooks/apollo/token"


# --- polls


@pytest.mark.parametrize("variant", ["a", "b"])
def test_a_poll_says_wait_and_then_has_it(make: Callable[..., Apollo], receiver: Receiver, variant: str) -> None:
    it = make(tidy=True, variant=variant, reveal_delay_s=0.3)
    request_id = it.order([1], receiver.url)["request_id"]

    early = it.poll(request_id)
    [arrived] = receiver.await_(1)
    until(lambda: it.polled(request_id)["last_dispatched_at"])
    late = it.polled(request_id)

    if variant == "a":
        assert early.status_code == 404
        assert early.json() == {"error_code": "result_pending", "retry_after_seconds": 10}
    else:
        assert early.status_code == 200
        assert early.json() == {
            "request_id": str(request_id),
            "webhook_status": "in_progress",
            "request_type": "phone",
            "last_dispatched_at": None,
            "failure_reason": None,
            "webhook_result": None,
        }
    assert late["request_id"] == str(request_id)
    assert (late["webhook_status"], late["request_type"], late["failure_reason"]) == ("success", "phone", None)
    assert late["webhook_result"] == arrived.json()
    time.strptime(late["last_dispatched_at"], "%Y-%m-%dT%H:%M:%SZ")
    assert it.state()["credits"]["charged"] == 1, "polls are free"


@pytest.mark.parametrize("variant", ["a", "b"])
def test_polls_that_should_stop_are_told_so(make: Callable[..., Apollo], receiver: Receiver, variant: str) -> None:
    it = make(tidy=True, variant=variant)
    answer = it.order([1], receiver.url)
    receiver.await_(1)

    for wrong in (answer["phone_enrichment"]["request_id"], "1.5", "abc", "1e3", str(2**63), "+5", "007", "9" * 40):
        refused = it.poll(wrong)
        assert (refused.status_code, refused.json()) == (400, {"error_code": "invalid_request_id"}), wrong
    # Through a float, as in JavaScript or a spreadsheet, the tail changes.
    for other in (0, -1, int(float(answer["request_id"]))):
        assert it.poll(other).json() == {"error_code": "request_id_unknown"}
        assert it.poll(other).status_code == 404


def test_a_result_is_kept_for_thirty_days(make: Callable[..., Apollo], receiver: Receiver) -> None:
    it = make(tidy=True)
    first = it.order([1], receiver.url)["request_id"]
    receiver.await_(1)
    it.clock.now += 29.9 * 86_400
    second = it.order([2], receiver.url)["request_id"]
    receiver.await_(2)

    assert it.poll(first).status_code == 200
    it.clock.now += 0.1 * 86_400
    expired = it.poll(first)
    assert (expired.status_code, expired.json()) == (410, {"error_code": "request_id_expired"})
    assert it.poll(second).status_code == 200
    it.control("phones", {"age_days": 30})
    assert it.poll(second).status_code == 410


def test_polling_has_a_scope_of_its_own(make: Callable[..., Apollo], receiver: Receiver) -> None:
    it = make(tidy=True, scopes=["people/bulk_match"])
    request_id = it.order([1], receiver.url)["request_id"]
    receiver.await_(1)

    refused = it.poll(request_id)

    assert refused.status_code == 403
    assert refused.json()["error_code"] == "API_INACCESSIBLE"
    assert "api/v1/webhook_result" in refused.json()["error"]
    assert not [name for name in refused.headers if name.lower().startswith("x-rate-limit")]
    assert make(scopes=["webhook_result"]).poll(1).status_code == 404


def test_polling_wants_the_key(make: Callable[..., Apollo]) -> None:
    it = make()

    assert requests.get(f"{it.url}/api/v1/webhook_result/1", timeout=9).status_code == 401
    wrong_place = requests.get(f"{it.url}/api/v1/webhook_result/1?api_key={apollo.API_KEY}", timeout=9)
    assert wrong_place.json()["error_code"] == "INVALID_API_KEY_LOCATION"
    older = make(key_in_body=True)
    assert requests.get(f"{older.url}/api/v1/webhook_result/1?api_key={apollo.API_KEY}", timeout=9).status_code == 404


def test_polling_has_limits_of_its_own(make: Callable[..., Apollo]) -> None:
    it = make(poll_per_minute=3, per_minute=2)

    polls = [it.poll(1) for _ in range(4)]

    assert [poll.status_code for poll in polls] == [404, 404, 404, 429]
    headers = {name.lower(): value for name, value in polls[0].headers.items()}
    assert (headers["x-rate-limit-minute"], headers["x-minute-requests-left"]) == ("3", "2")
    assert (headers["x-rate-limit-hourly"], headers["x-rate-limit-24-hour"]) == ("400", "2000")
    assert 0 < int(polls[3].headers["retry-after"]) <= 61
    assert "api/v1/webhook_result is 3 times per minute" in polls[3].json()["message"]
    assert it.ask([1]).headers["x-minute-requests-left"] == "1", "paid calls are counted apart"
    usage = requests.post(
        f"{it.url}/api/v1/usage_stats/api_usage_stats", headers={"x-api-key": apollo.API_KEY}, timeout=9
    ).json()
    assert usage['["api/v1/webhook_result", "show"]']["minute"] == {"limit": 3, "consumed": 3, "left_over": 0}
    assert usage['["api/v1/people", "bulk_match"]']["minute"]["consumed"] == 1
    state = it.state()
    assert (state["refused_by_limit"], state["phones"]["polls_refused_by_limit"]) == (0, 1)


def test_the_script_of_faults_reaches_polls_in_their_own_words(make: Callable[..., Apollo]) -> None:
    it = make()
    call = "GET /api/v1/webhook_result/<request_id>"
    whats = ["410", "404", "400", "429", "503", "403"]
    it.control("faults", [{"call": call, "what": what, "nth": n} for n, what in enumerate(whats, 1)])

    spoiled = [it.poll(1) for _ in whats]

    assert [answer.status_code for answer in spoiled] == [int(what) for what in whats]
    assert [answer.json() for answer in spoiled[:3]] == [
        {"error_code": "request_id_expired"},
        {"error_code": "request_id_unknown"},
        {"error_code": "invalid_request_id"},
    ]
    it.control("faults", [{"call": "POST /api/v1/people/bulk_match", "what": "410"}], status=400)
    it.control("faults", [{"call": "*", "what": "410"}], status=400)


# --- deliveries that are not taken


@pytest.mark.parametrize("status", [500, 404, 302, 413])
def test_what_is_not_taken_comes_again(make: Callable[..., Apollo], receiver: Receiver, status: int) -> None:
    it = make(tidy=True)
    receiver.statuses += [status, status]

    request_id = it.order([1], receiver.url)["request_id"]
    arrived = receiver.await_(3)
    until(lambda: it.phones["delivered"])

    assert len({each.body for each in arrived}) == 1
    assert all(later.at - earlier.at >= 0.04 for earlier, later in pairwise(arrived))
    [told] = it.phones["by_request"]
    failure = f"the webhook answered {status}"
    assert [attempt["failure"] for attempt in told["attempts"]] == [failure, failure, None]
    assert it.polled(request_id)["webhook_status"] == "success"
    assert it.phones["charged"] == 8


def test_what_is_never_taken_is_given_up_and_kept_for_polls(make: Callable[..., Apollo], receiver: Receiver) -> None:
    it = make(tidy=True)
    receiver.statuses += [503] * 9

    request_id = it.order([1], receiver.url)["request_id"]
    receiver.await_(3)
    quiet(receiver, 3)
    polled = it.polled(request_id)

    assert (polled["webhook_status"], polled["failure_reason"]) == ("failed", "the webhook answered 503")
    assert polled["last_dispatched_at"]
    assert polled["webhook_result"] == receiver.arrived[0].json()
    assert it.phones["delivered"] == 0


def test_a_receiver_that_is_not_there_is_a_failure_too(make: Callable[..., Apollo]) -> None:
    it = make(tidy=True, callback_tries=1)
    request_id = it.order([1], "http://127.0.0.1:9/nobody")["request_id"]

    until(lambda: it.phones["by_request"][0]["attempts"])

    assert it.polled(request_id)["failure_reason"] == "the request failed: ConnectionError"


def test_after_the_server_has_stopped_nothing_is_sent(receiver: Receiver) -> None:
    app = apollo.create(World(7, 20, tidy=True), reveal_delay_s=0.7)
    control(app, app.extensions["simulator"], Faults(wordings.apollo))
    server = Server(app).start()
    it = Apollo(server.url, app, World(7, 20, tidy=True), Clock(), key_in_body=False)
    it.order([1], receiver.url)

    server.stop()

    quiet(receiver, 0, 0.3)
    until(lambda: app.extensions["simulator"].state()["phones"]["running"] == 0)
    assert receiver.arrived == []
    assert app.extensions["simulator"].state()["phones"]["charged"] == 8
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("sandbox-callbacks")]


def test_a_slow_receiver_does_not_hold_up_the_others(make: Callable[..., Apollo], receiver: Receiver) -> None:
    it = make(tidy=True, callback_timeout_s=0.5, callback_tries=1, reveal_delay_s=0)
    let_go = threading.Event()
    receiver.on_arrival = lambda path: let_go.wait(WAIT_S) if path.endswith("/slow") else None

    slow, quick = (it.order([index], f"{receiver.url}/{way}")["request_id"] for index, way in ((1, "slow"), (2, "x")))
    until(lambda: it.phones["delivered"] == 1)
    until(lambda: it.polled(slow)["failure_reason"])
    let_go.set()

    assert it.polled(slow)["failure_reason"] == "no answer within 0.5 s"
    assert it.polled(quick)["failure_reason"] is None
    receiver.await_(2)


def test_a_reveal_has_finished_in_time_however_busy_the_deliveries_are(
    make: Callable[..., Apollo], receiver: Receiver
) -> None:
    it = make(tidy=True, reveal_delay_s=0)
    let_go = threading.Event()
    receiver.on_arrival = lambda _path: let_go.wait(WAIT_S)

    request_ids = [it.order([index], receiver.url)["request_id"] for index in range(6)]
    polled = [it.poll(request_id).status_code for request_id in request_ids]
    let_go.set()

    assert polled == [200] * 6
    receiver.await_(6)


def test_a_proxy_of_this_machine_gets_no_callback(
    make: Callable[..., Apollo], receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    it = make(tidy=True, reveal_delay_s=0.3)
    it.order([1], receiver.url)

    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)

    receiver.await_(1)


# --- the script of callbacks


def scripted(make: Callable[..., Apollo], what: str, **more: Any) -> Apollo:
    it = make(callbacks=[{"what": what, **more}])
    assert what in WHAT
    return it


def test_early_comes_before_the_orders_own_answer(make: Callable[..., Apollo], receiver: Receiver) -> None:
    it = scripted(make, "early")

    answer = it.order(it.people(has_mobile), receiver.url)

    assert len(receiver.arrived) == 1
    assert answer["phone_enrichment"]["status"] == "pending"
    assert it.polled(answer["request_id"])["webhook_result"] == receiver.arrived[0].json()
    quiet(receiver, 1)


def test_early_that_is_not_taken_comes_again_later(make: Callable[..., Apollo], receiver: Receiver) -> None:
    it = scripted(make, "early")
    receiver.statuses += [404]

    it.order(it.people(has_mobile), receiver.url)

    receiver.await_(2)
    until(lambda: it.phones["delivered"])


def test_late_comes_after_a_poll_has_had_it(make: Callable[..., Apollo], receiver: Receiver) -> None:
    it = scripted(make, "late", seconds=0.4)
    request_id = it.order(it.people(has_mobile), receiver.url)["request_id"]

    until(lambda: it.poll(request_id).status_code == 200)
    polled = it.polled(request_id)
    assert not receiver.arrived
    assert polled["last_dispatched_at"] is None
    [arrived] = receiver.await_(1)

    assert arrived.json() == polled["webhook_result"]
    assert it.phones["charged"] == 8


def test_double_is_the_same_bytes_twice_charged_once(make: Callable[..., Apollo], receiver: Receiver) -> None:
    it = scripted(make, "double")

    it.order(it.people(has_mobile), receiver.url)
    first, second = receiver.await_(2)
    quiet(receiver, 2)

    assert first.body == second.body
    assert it.phones["charged"] == 8


def test_reversed_waits_for_the_callback_of_a_later_order(make: Callable[..., Apollo], receiver: Receiver) -> None:
    it = scripted(make, "reversed")
    one, two = it.people(has_mobile, 2)

    it.order([one], receiver.url)
    until(lambda: it.phones["held"])
    quiet(receiver, 0, 0.1)
    it.order([two], receiver.url)
    arrived = receiver.await_(2)

    assert [each.json()["people"][0]["id"] for each in arrived] == [apollo.person_id(two), apollo.person_id(one)]
    assert it.phones["held"] == 0


def test_reversed_does_not_go_after_an_earlier_order(make: Callable[..., Apollo], receiver: Receiver) -> None:
    it = make(tidy=True, callbacks=[{"what": "reversed", "nth": 2}], callback_spacing_s=(0.4,))
    receiver.statuses += [500]

    it.order([1], receiver.url)
    receiver.await_(1)
    it.order([2], receiver.url)
    receiver.await_(2)
    quiet(receiver, 2)
    it.order([3], receiver.url)

    arrived = [each.json()["people"][0]["id"] for each in receiver.await_(4)]
    assert arrived == [apollo.person_id(index) for index in (1, 1, 3, 2)]


def test_never_is_only_had_by_polling(make: Callable[..., Apollo], receiver: Receiver) -> None:
    it = scripted(make, "never")
    request_id = it.order(it.people(has_mobile), receiver.url)["request_id"]

    quiet(receiver, 0)

    polled = it.polled(request_id)
    assert (polled["webhook_status"], polled["last_dispatched_at"]) == ("success", None)
    assert polled["webhook_result"]["people"][0]["phone_numbers"]
    assert it.phones["charged"] == 8


def test_changed_comes_again_with_other_numbers(make: Callable[..., Apollo], receiver: Receiver) -> None:
    it = scripted(make, "changed")
    [mobile] = it.people(has_mobile)
    [nothing] = it.people(lambda phones: not phones)
    request_id = it.order([mobile, nothing], receiver.url)["request_id"]
    first, second = (arrived.json()["people"] for arrived in receiver.await_(2))

    until(lambda: len(it.phones["by_request"][0]["attempts"]) == 2)

    assert [person["id"] for person in first] == [person["id"] for person in second]
    for before, after in zip(first, second, strict=True):
        numbers = [{number["sanitized_number"] for number in each["phone_numbers"]} for each in (before, after)]
        assert numbers[1]
        assert not numbers[0] & numbers[1]
        assert all(phonenumbers.is_valid_number(phonenumbers.parse(number)) for number in numbers[1])
    assert it.polled(request_id)["webhook_result"]["people"] == second
    assert it.phones["charged"] == 8


def test_enveloped_is_a_polls_answer(make: Callable[..., Apollo], receiver: Receiver) -> None:
    it = scripted(make, "enveloped")
    request_id = it.order(it.people(has_mobile), receiver.url)["request_id"]
    body = receiver.await_(1)[0].json()

    assert set(body) == {"request_id", "webhook_status", "webhook_result"}
    assert (body["request_id"], body["webhook_status"]) == (str(request_id), "success")
    assert body["webhook_result"] == it.polled(request_id)["webhook_result"]


def test_waterfall_has_another_shape(make: Callable[..., Apollo], receiver: Receiver) -> None:
    it = scripted(make, "waterfall")
    [mobile] = it.people(has_mobile)
    [nothing] = it.people(lambda phones: not phones)
    request_id = it.order([mobile, nothing], receiver.url)["request_id"]
    body = receiver.await_(1)[0].json()

    assert set(body) == WATERFALL_KEYS
    assert body["request_id"] == str(request_id)
    assert (body["mobile_records_enriched"], body["mobile_records_not_found"]) == (1, 1)
    found, missed = body["people"]
    assert set(found) == set(missed) == {"id", "waterfall", "phone_numbers", "emails"}
    absent = {"position", "created_at", "updated_at", "direct_dial_source_cd"}
    assert set(found["phone_numbers"][0]) == NUMBER_KEYS - absent
    assert missed["phone_numbers"] == []
    polled = it.polled(request_id)
    assert (polled["request_type"], polled["webhook_result"]) == ("waterfall", body)


@pytest.mark.parametrize("find", [has_mobile, lambda phones: not phones])
def test_latin1_is_no_utf_8(
    make: Callable[..., Apollo], receiver: Receiver, find: Callable[[tuple[Phone, ...]], bool]
) -> None:
    it = scripted(make, "latin1")

    request_id = it.order(it.people(find), receiver.url)["request_id"]
    [arrived] = receiver.await_(1)

    with pytest.raises(UnicodeDecodeError):
        arrived.body.decode()
    assert orjson.loads(arrived.body.decode("latin-1"))["people"]
    assert it.polled(request_id)["webhook_result"]["status"] == "success"


def test_huge_is_more_than_a_receiver_takes(make: Callable[..., Apollo], receiver: Receiver) -> None:
    it = scripted(make, "huge")

    request_id = it.order(it.people(has_mobile), receiver.url)["request_id"]
    [arrived] = receiver.await_(1)

    assert len(arrived.body) > 256 << 10
    assert arrived.json()["people"]
    assert len(it.poll(request_id).content) < 10_000


def test_nothing_is_found_and_nothing_charged(make: Callable[..., Apollo], receiver: Receiver) -> None:
    it = scripted(make, "nothing")

    it.order(it.people(has_mobile, 2), receiver.url)
    body = receiver.await_(1)[0].json()

    assert (body["status"], body["credits_consumed"], body["missing_records"]) == ("success", 0, 2)
    assert [(person["status"], person["phone_numbers"]) for person in body["people"]] == [("failed", [])] * 2
    assert it.phones["charged"] == 0


def test_foreign_holds_somebody_nobody_asked_for(make: Callable[..., Apollo], receiver: Receiver) -> None:
    it = scripted(make, "foreign")
    [mobile] = it.people(has_mobile)

    it.order([mobile], receiver.url)
    body = receiver.await_(1)[0].json()

    asked, foreign = body["people"]
    assert asked["id"] == apollo.person_id(mobile) != foreign["id"]
    assert foreign["phone_numbers"]
    assert (body["total_requested_enrichments"], body["credits_consumed"]) == (1, 8)
    assert set(it.ledger.phones) == {asked["id"]}


def test_chunked_has_no_length(make: Callable[..., Apollo], receiver: Receiver) -> None:
    it = scripted(make, "chunked")

    request_id = it.order(it.people(has_mobile), receiver.url)["request_id"]
    [arrived] = receiver.await_(1)

    assert arrived.headers["Transfer-Encoding"] == "chunked"
    assert "Content-Length" not in arrived.headers
    assert arrived.json() == it.polled(request_id)["webhook_result"]


def test_failed_says_so_to_polls_and_holds_the_numbers(make: Callable[..., Apollo], receiver: Receiver) -> None:
    it = scripted(make, "failed")
    request_id = it.order(it.people(has_mobile), receiver.url)["request_id"]

    until(lambda: it.phones["by_request"][0]["attempts"])
    polled = it.polled(request_id)

    assert (polled["webhook_status"], bool(polled["failure_reason"])) == ("failed", True)
    assert polled["last_dispatched_at"]
    assert polled["webhook_result"]["people"][0]["phone_numbers"]
    quiet(receiver, 0, 0.1)
    assert it.phones["charged"] == 8


def test_a_script_counts_the_orders_and_is_listed_and_forgotten(
    make: Callable[..., Apollo], receiver: Receiver
) -> None:
    it = make(tidy=True, reveal_delay_s=0)
    listed = it.control("callbacks", [{"what": "never", "nth": 2, "times": 2}, {"what": "double", "nth": 3}])
    assert [(each["what"], each["nth"], each["times"], each["fired"]) for each in listed] == [
        ("never", 2, 2, 0),
        ("double", 3, 1, 0),
    ]

    for index in range(4):
        it.order([index], receiver.url)
    receiver.await_(2)
    quiet(receiver, 2, 0.1)

    listed = requests.get(f"{it.url}/_sandbox/callbacks", timeout=9).json()
    assert [(each["met"], each["fired"]) for each in listed] == [(4, 2), (4, 0)]
    assert listed == it.app.extensions["callbacks"].listed()
    assert [told["what"] for told in it.phones["by_request"]] == ["", "never", "never", ""]
    assert requests.delete(f"{it.url}/_sandbox/callbacks", timeout=9).json() == []
    assert it.app.extensions["callbacks"].listed() == []


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"what": "sometimes"}, "nothing that becomes of a callback is called 'sometimes'"),
        ({"what": 7}, "nothing that becomes of a callback is called 7"),
        ({}, 'a callback is an object with "what"'),
        ({"what": "late", "when": "after"}, "a callback has no when; it may have nth, seconds, times, what"),
        ({"what": "late", "nth": 0}, '"nth" is a whole number of at least 1, not 0'),
        ({"what": "late", "times": True}, '"times" is a whole number of at least 1, not True'),
        ({"what": "late", "seconds": -1}, '"seconds" is a number of at least 0, not -1'),
    ],
)
def test_a_script_that_is_none_is_refused_and_nothing_of_it_is_taken(
    make: Callable[..., Apollo], wrong: Any, sentence: str
) -> None:
    it = make()

    assert it.control("callbacks", [{"what": "late"}, wrong], status=400)["error"].startswith(sentence)
    assert it.app.extensions["callbacks"].listed() == []


def test_how_long_reveals_take_can_be_set(make: Callable[..., Apollo], receiver: Receiver) -> None:
    it = make(tidy=True, reveal_delay_s=60)
    it.control("phones", {"reveal_delay_s": 0})

    request_id = it.order([1], receiver.url)["request_id"]

    assert it.poll(request_id).status_code == 200, "a reveal of no time is finished, whatever the courier does"
    receiver.await_(1)
    for wrong in ({}, [], {"delay": 1}, {"reveal_delay_s": "1"}, {"age_days": -1}):
        assert "error" in it.control("phones", wrong, status=400)


def test_every_word_of_the_script_is_tried_here() -> None:
    words = {name.split("_")[1] for name in globals() if name.startswith("test_")}

    assert set(WHAT) <= words
