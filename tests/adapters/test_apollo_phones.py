"""Phone numbers ordered at the wire, delivered and polled: what is sent, and that nothing delivered can do harm."""

from __future__ import annotations

import json
import re
import time
from decimal import Decimal
from typing import Any

import orjson
import pytest
import requests
from hypothesis import given, settings
from hypothesis import strategies as st

from adapters.apollo import phones, wire
from adapters.apollo.archive import ApolloArchive
from adapters.http import BoundedSession
from crm_sync.config.model import Phones
from crm_sync.domain.enrichment import MatchKeys, Purpose, Verdict
from crm_sync.domain.reveals import Ordering, PersonPhones, PhoneNumber, Polled, PollState
from crm_sync.errors import (
    ContractError,
    CredentialsError,
    ProviderError,
    RateLimitError,
    RefusedError,
    TransientError,
)
from crm_sync.mapping.phones import judge, wanted
from crm_sync.ports import Window
from crm_sync.store.traces import Person
from tests.adapters.test_apollo_client import BASE, KEY, PAYLOADS, Bench, Wire, a_whole_apollo
from tests.factories import unjournaled
from tests.payloads.hostile_deliveries import SHAPES, corpus, paths, put

PERSON, COMPANY, PHONE = Purpose.PERSON, Purpose.COMPANY, Purpose.PHONE
CALLBACK = "https://sync.example/webhooks/apollo/v1_k1_0f3c_1790000000_ab-cd"
ENCODED = "https%3A%2F%2Fsync.example%2Fwebhooks%2Fapollo%2Fv1_k1_0f3c_1790000000_ab-cd"
MARTA_ID, SECOND_ID, THIRD_ID = (f"00000000000000000064a7f{n}" for n in (1, 2, 3))
MARTA = MatchKeys(purpose=PHONE, apollo_id=MARTA_ID)
SECOND = MatchKeys(purpose=PHONE, apollo_id=SECOND_ID)
BY_MAIL = MatchKeys(purpose=PERSON, email="marta.oyelaran@orchardgrid.example", last_name="Oyelaran")
REQUEST = "-6120457783914420518"
PENDING = (PAYLOADS / "bulk_match_response_phone_pending.json").read_bytes()
READY = (PAYLOADS / "poll_success_phone.json").read_bytes()


def payload(name: str) -> Any:
    return orjson.loads((PAYLOADS / f"{name}.json").read_bytes())


@pytest.fixture
def bench() -> Bench:
    return Bench()


@pytest.fixture
def wired(monkeypatch: pytest.MonkeyPatch) -> Wire:
    adapter = Wire()
    monkeypatch.setattr(BoundedSession, "get_adapter", lambda _session, _url: adapter)
    return adapter


# --- ordering


def test_an_order_by_id_is_exactly_this_request(bench: Bench, wired: Any) -> None:
    wired.post(f"{BASE}/people/bulk_match", content=PENDING)

    given = bench.apollo.ask(PHONE, [MARTA, SECOND], leaving=unjournaled, callback=CALLBACK)

    sent = wired.last_request
    assert sent.url == (
        f"{BASE}/people/bulk_match?reveal_personal_emails=false&reveal_phone_number=true&webhook_url={ENCODED}"
    )
    assert sent.json() == {"details": [{"id": MARTA_ID}, {"id": SECOND_ID}]}
    assert sent.headers["x-api-key"] == KEY
    assert given.request_id == REQUEST
    assert given.credits == 2
    assert bench.pace.events[0] == "acquire people/bulk_match"


def test_an_order_with_the_match_sends_the_persons_keys(bench: Bench, wired: Any) -> None:
    wired.post(f"{BASE}/people/bulk_match", content=PENDING)

    bench.apollo.ask(PERSON, [BY_MAIL, BY_MAIL], leaving=unjournaled, callback=CALLBACK)

    assert f"&webhook_url={ENCODED}" in wired.last_request.url
    assert wired.last_request.json()["details"][0] == {
        "email": "marta.oyelaran@orchardgrid.example",
        "last_name": "Oyelaran",
    }


@pytest.mark.parametrize(
    ("address", "encoded"),
    [
        ("https://h.example/a%20b", "https%3A%2F%2Fh.example%2Fa%2520b"),
        ("https://h.example/a?b=c&d=e+f#g", "https%3A%2F%2Fh.example%2Fa%3Fb%3Dc%26d%3De%2Bf%23g"),
        ("https://h.example:8443/ä b~-_.", "https%3A%2F%2Fh.example%3A8443%2F%C3%A4%20b~-_."),
        ("http://127.0.0.1:5000/webhooks/apollo/x", "http%3A%2F%2F127.0.0.1%3A5000%2Fwebhooks%2Fapollo%2Fx"),
    ],
)
def test_the_address_is_encoded_once_whatever_is_in_it(bench: Bench, wired: Any, address: str, encoded: str) -> None:
    wired.post(f"{BASE}/people/bulk_match", content=PENDING)

    bench.apollo.ask(PHONE, [MARTA, SECOND], leaving=unjournaled, callback=address)

    assert wired.last_request.url.partition("&webhook_url=")[2] == encoded


def test_the_older_contract_has_key_flags_and_address_in_the_body(wired: Any) -> None:
    bench = Bench(auth="body")
    wired.post(f"{BASE}/people/bulk_match", content=PENDING)

    bench.apollo.ask(PHONE, [MARTA, SECOND], leaving=unjournaled, callback=CALLBACK)

    assert wired.last_request.url == f"{BASE}/people/bulk_match"
    assert wired.last_request.json() == {
        "api_key": KEY,
        "reveal_personal_emails": False,
        "reveal_phone_number": True,
        "webhook_url": CALLBACK,
        "details": [{"id": MARTA_ID}, {"id": SECOND_ID}],
    }


@pytest.mark.parametrize(("purpose", "callback"), [(PHONE, ""), (COMPANY, CALLBACK)])
def test_numbers_need_a_callback_and_companies_have_none(bench: Bench, purpose: Purpose, callback: str) -> None:
    with pytest.raises(ValueError, match="callback"):
        bench.apollo.ask(purpose, [MARTA], leaving=unjournaled, callback=callback)
    with pytest.raises(ValueError, match="ask"):
        bench.apollo.ask_one(PHONE, MARTA, leaving=unjournaled)


def test_a_call_that_reveals_may_cost_nine_a_person(bench: Bench) -> None:
    assert bench.apollo.most(PHONE) == Decimal(9)
    assert bench.apollo.most(PERSON, reveals=True) == Decimal(9)
    assert bench.apollo.most(PERSON) == bench.apollo.most(COMPANY) == Decimal(1)
    assert bench.apollo.endpoint(PHONE, single=False) == "people/bulk_match"


@pytest.mark.parametrize("status", [400, 403, 422, 200])
def test_a_refused_address_stops_the_orders_and_is_no_records_fault(bench: Bench, wired: Any, status: int) -> None:
    words = next(row["body"] for row in payload("http_errors") if "webhook_url" in str(row.get("body", "")))
    wired.post(f"{BASE}/people/bulk_match", status_code=status, json=words)

    with pytest.raises(CredentialsError, match="CRM_SYNC_PUBLIC_URL") as refused:
        bench.apollo.ask(PHONE, [MARTA, SECOND], leaving=unjournaled, callback=CALLBACK)

    assert not isinstance(refused.value, RefusedError)
    assert CALLBACK not in str(refused.value)


def test_a_broken_server_that_speaks_of_the_address_proves_nothing(bench: Bench, wired: Any) -> None:
    wired.post(f"{BASE}/people/bulk_match", status_code=500, json={"error": "no webhook_url"})

    with pytest.raises(ProviderError, match="may have been charged"):
        bench.apollo.ask(PHONE, [MARTA], leaving=unjournaled, callback=CALLBACK)


# --- what was ordered


@pytest.mark.parametrize(
    ("name", "ordering", "words"),
    [
        ("bulk_match_response_phone_pending", Ordering.ACCEPTED, ""),
        ("bulk_match_response_phone_skipped", Ordering.SKIPPED, "earlier order"),
        ("bulk_match_response_waterfall_accepted", Ordering.ACCEPTED, ""),
        ("bulk_match_response_waterfall_partial", Ordering.ACCEPTED, ""),
        ("bulk_match_response_none_matched", Ordering.NOBODY, "none of these people"),
        ("bulk_match_response_mixed", Ordering.NOTHING, "does not speak of a reveal"),
        ("bulk_match_response_seed_style", Ordering.NOTHING, "was the flag understood"),
    ],
)
def test_each_documented_answer_tells_what_will_come(bench: Bench, name: str, ordering: Ordering, words: str) -> None:
    told = bench.apollo.order_answer((PAYLOADS / f"{name}.json").read_bytes())

    assert told.ordering is ordering
    assert words in told.reason
    assert bool(told.reason) == (ordering is not Ordering.ACCEPTED)


@pytest.mark.parametrize(
    ("tree", "ordering", "words"),
    [
        ({"phone_enrichment": {"status": " PENDING "}}, Ordering.ACCEPTED, ""),
        ({"phone_enrichment": {"status": "failed", "message": "no mobile plan"}}, Ordering.NOTHING, "no mobile plan"),
        ({"phone_enrichment": {"status": "failed", "message": "call +1 512 555 0177"}}, Ordering.NOTHING, "call …"),
        ({"phone_enrichment": {}}, Ordering.NOTHING, "without a status"),
        ({"phone_enrichment": {"status": ["pending"]}}, Ordering.NOTHING, "unreadable"),
        ({"phone_enrichment": "pending"}, Ordering.NOTHING, "does not speak"),
        ({"phone_enrichment": None, "waterfall": {"status": "accepted"}}, Ordering.ACCEPTED, ""),
        ({"waterfall": {"status": "failed", "message": 5}}, Ordering.NOTHING, "waterfall is failed"),
        ({"matches": [None, {}, {"match_confidence": "none", "name": ""}]}, Ordering.NOBODY, ""),
        ({"matches": []}, Ordering.NOBODY, ""),
        ({"matches": [{"match_confidence": 5}]}, Ordering.NOTHING, ""),
        ({"matches": {"id": "x"}}, Ordering.NOTHING, ""),
        ({}, Ordering.NOTHING, ""),
        ([], Ordering.NOTHING, "no JSON object"),
        (None, Ordering.NOTHING, ""),
    ],
)
def test_what_does_not_say_that_numbers_will_come_orders_nothing(tree: Any, ordering: Ordering, words: str) -> None:
    told = phones.read_order_answer(tree)

    assert told.ordering is ordering
    assert words in told.reason


def test_no_type_in_any_place_of_an_answer_breaks_its_reading() -> None:
    tree = {"matches": [{"id": "x"}], "phone_enrichment": {"status": "x", "message": "y"}, "waterfall": {"status": "z"}}
    for path in paths(tree):
        for other in (None, True, 7, 2**70, "pending", [], ["x"], {}, {"status": {"status": "pending"}}):
            phones.read_order_answer(put(tree, path, other))


# --- who answered


def test_people_asked_for_by_id_are_proved_by_id_alone(bench: Bench) -> None:
    ids = [each["id"] for each in payload("bulk_match_response_phone_pending")["matches"]]
    keys = [MatchKeys(purpose=PHONE, apollo_id=apollo_id) for apollo_id in ids]

    read = bench.apollo.read(PHONE, keys, PENDING).enrichments

    assert [(e.verdict, e.apollo_id) for e in read if e] == [(Verdict.MATCHED, apollo_id) for apollo_id in ids]
    assert all("phone_numbers" not in e.person for e in read if e)


@pytest.mark.parametrize(
    ("entries", "verdicts"),
    [
        ([{"id": MARTA_ID}, {"id": SECOND_ID, "match_confidence": "low"}], [Verdict.MATCHED, Verdict.MATCHED]),
        ([{"id": SECOND_ID, "title": "CTO"}, {"id": MARTA_ID, "title": "CEO"}], [Verdict.MATCHED, Verdict.MATCHED]),
        ([{"id": THIRD_ID, "title": "CTO"}, {"id": SECOND_ID}], [Verdict.UNPROVED, Verdict.MATCHED]),
        ([{"id": SECOND_ID}], [Verdict.NO_MATCH, Verdict.MATCHED]),
        ([None, {"id": SECOND_ID, "match_confidence": "none"}], [Verdict.NO_MATCH, Verdict.NO_MATCH]),
    ],
    ids=["no facts are needed", "swapped", "another", "short", "nobody"],
)
def test_another_id_is_another_person(bench: Bench, entries: list[Any], verdicts: list[Verdict]) -> None:
    read = bench.apollo.read(PHONE, [MARTA, SECOND], orjson.dumps({"matches": entries})).enrichments

    assert [e.verdict for e in read if e] == verdicts
    for enrichment, key in zip(read, (MARTA, SECOND), strict=True):
        assert enrichment is not None
        if enrichment.verdict is Verdict.MATCHED:
            assert enrichment.apollo_id == key.apollo_id


def test_an_address_does_not_prove_another_id() -> None:
    key = MatchKeys(purpose=PHONE, apollo_id=MARTA_ID, email="m@x.example")
    tree = {"matches": [{"id": THIRD_ID, "email": "m@x.example", "title": "CTO"}]}

    read = wire.read_answer(PHONE, [key], tree).enrichments

    assert read[0] is not None
    assert read[0].verdict is Verdict.UNPROVED


def test_a_person_is_cut_out_of_an_order_as_out_of_any_answer() -> None:
    archive = ApolloArchive()
    ids = [each["id"] for each in payload("bulk_match_response_phone_pending")["matches"]]
    keys = [MatchKeys(purpose=PHONE, apollo_id=apollo_id) for apollo_id in ids]
    names = Person(emails=set(), pages=set(), ids={ids[0]}).names()

    rest = archive.without(keys, PENDING, {0}, names)

    assert [e["id"] for e in archive.theirs(keys, PENDING, {0}, names)] == [ids[0]]
    assert ids[0].encode() not in rest
    assert json.loads(rest)["matches"] == [None, *payload("bulk_match_response_phone_pending")["matches"][1:]]
    verdicts = [e.verdict for e in archive.read(PHONE, keys, rest).enrichments if e]
    assert verdicts == [Verdict.NO_MATCH, Verdict.MATCHED]


# --- deliveries


def test_the_documented_native_delivery() -> None:
    read = phones.read_delivery((PAYLOADS / "webhook_phone_native.json").read_bytes())

    assert (read.shape, read.finished, read.request_id, read.credits) == ("native", True, "", Decimal(8))
    assert [person.apollo_id for person in read.people] == [MARTA_ID, SECOND_ID]
    assert read.people[0].numbers[1] == PhoneNumber(
        raw="+44 7700 900142",
        sanitized="+447700900142",
        type="mobile",
        status="valid_number",
        confidence="high",
        dnc="not_found",
        country="United Kingdom",
        position=1,
    )
    assert read.people[1].numbers == ()


def test_a_delivered_nothing_is_an_answer() -> None:
    read = phones.read_delivery((PAYLOADS / "webhook_phone_native_nothing.json").read_bytes())

    assert read.people == (PersonPhones(apollo_id=SECOND_ID, numbers=()),)
    assert read.credits == 0


def test_the_documented_listed_number() -> None:
    read = phones.read_delivery((PAYLOADS / "webhook_phone_dnc.json").read_bytes())

    assert [(n.dnc, n.type, n.confidence) for n in read.people[0].numbers] == [
        ("found", "mobile", "high"),
        ("", "other", ""),
    ]


def test_a_waterfalls_vendors_are_not_the_persons_numbers() -> None:
    tree = payload("webhook_waterfall")
    vendor = tree["people"][0]["waterfall"]["phone_numbers"][0]["vendors"][0]
    vendor["phone_numbers"] = ["+15125550199"]

    read = phones.read_delivery(orjson.dumps(tree))

    assert (read.shape, read.request_id, read.credits) == ("waterfall", REQUEST, Decimal(0))
    assert [n.sanitized for n in read.people[0].numbers] == ["+19165550111"]
    assert read.people[0].numbers[0].position is None


def test_a_polls_answer_is_the_same_delivery_in_an_envelope() -> None:
    read = phones.read_delivery(READY)

    assert (read.shape, read.finished, read.request_id, read.credits) == ("envelope", True, REQUEST, Decimal(8))
    assert read.people == phones.read_delivery((PAYLOADS / "webhook_phone_native.json").read_bytes()).people
    unfinished = phones.read_delivery((PAYLOADS / "poll_in_progress.json").read_bytes())
    assert (unfinished.people, unfinished.finished, unfinished.request_id) == ((), False, REQUEST)


def delivery(*numbers: object, **person: object) -> bytes:
    return orjson.dumps({"people": [{"id": MARTA_ID, "phone_numbers": numbers, **person}]})


A_NUMBER: dict[str, Any] = {"raw_number": "(512) 555-0177", "sanitized_number": "+15125550177"}


def read_numbers(*numbers: object) -> tuple[PhoneNumber, ...]:
    return phones.read_delivery(delivery(*numbers)).people[0].numbers


def test_what_is_unusable_about_one_costs_that_one_only() -> None:
    good = {"id": MARTA_ID, "phone_numbers": [A_NUMBER]}
    people: list[Any] = [
        None, "x", 5, [], {}, {"id": 5, "phone_numbers": []}, {"id": "", "phone_numbers": []},
        {"id": "a\nb", "phone_numbers": []}, {"id": "a" * 65, "phone_numbers": []},
        {"id": SECOND_ID, "phone_numbers": {"0": A_NUMBER}}, good,
    ]  # fmt: skip

    read = phones.read_delivery(orjson.dumps({"people": people}))
    numbers = read_numbers(None, "x", {}, {"raw_number": {"a": 1}}, {"raw_number": 15125550177}, [A_NUMBER], A_NUMBER)

    assert [person.apollo_id for person in read.people] == [MARTA_ID]
    assert [n.sanitized for n in numbers] == ["+15125550177"]


def test_a_person_who_comes_twice_is_one() -> None:
    other = {**A_NUMBER, "sanitized_number": "+15125550178"}
    people = [{"id": MARTA_ID, "phone_numbers": [A_NUMBER]}, {"id": MARTA_ID, "phone_numbers": [other]}]

    read = phones.read_delivery(orjson.dumps({"people": people}))

    assert [[n.sanitized for n in person.numbers] for person in read.people] == [["+15125550177", "+15125550178"]]


@pytest.mark.parametrize(
    ("value", "code"),
    [
        (None, ""),
        (" Not_Found ", "not_found"),
        (True, "(unreadable)"),
        ({}, "(unreadable)"),
        ([], "(unreadable)"),
        (0, "(unreadable)"),
        ("found\x00", "found\N{REPLACEMENT CHARACTER}"),
        ("not_found" + " " * 40 + "x", "not_found" + " " * 31),
        ("x" * 1_000_000, "x" * 40),
    ],
)
def test_a_code_that_cannot_be_read_is_never_taken_for_null(value: object, code: str) -> None:
    (number,) = read_numbers({**A_NUMBER, "dnc_status_cd": value})

    assert number.dnc == code


@pytest.mark.parametrize(
    ("raw", "line"),
    [
        ("  +1\u00a0512\t555 0177 ", "+1 512 555 0177"),
        ("\u202a+1 512 555 0177\u202c", "+1 512 555 0177"),
        ("+1 512 555 0177\x00", ""),
        ("\x1b[31m+15125550177", ""),
        ("+1 512 555 0177" + "7" * 46, ""),
        ({"number": "+1"}, ""),
        (5125550177, ""),
    ],
)
def test_a_number_is_one_short_line_or_nothing(raw: object, line: str) -> None:
    (number,) = read_numbers({**A_NUMBER, "raw_number": raw})

    assert number.raw == line


@pytest.mark.parametrize("position", [-1, True, 1.5, "0", 2**63, [0], None])
def test_a_position_that_is_none_is_no_position(position: object) -> None:
    assert read_numbers({**A_NUMBER, "position": position})[0].position is None


@pytest.mark.parametrize(
    ("request_id", "told"),
    [
        (-6120457783914420518, REQUEST),
        (REQUEST, REQUEST),
        (f" {REQUEST} ", REQUEST),
        (True, ""),
        (1.5, ""),
        (None, ""),
        ([REQUEST], ""),
        ("1" * 41, ""),
        ("1\n2", ""),
    ],
)
def test_a_request_id_keeps_every_digit_or_is_none(request_id: object, told: str) -> None:
    assert phones.read_delivery(orjson.dumps({"people": [], "request_id": request_id})).request_id == told


def test_a_request_id_beyond_64_bits_is_no_float_either() -> None:
    assert phones.read_delivery(b'{"people": [], "request_id": 61204577839144205181}').request_id == (
        "61204577839144205181"
    )


@pytest.mark.parametrize(
    ("written", "told"),
    [("8", Decimal(8)), ('"8.5"', Decimal("8.5")), ("1.01", Decimal("1.01")), ("-8", None), ("true", None),
     ('"1e999999999"', None), ("1e300", None), ('"NaN"', None), ("{}", None), ("0.30000000000000004", Decimal("0.3"))],
)  # fmt: skip
def test_credits_are_a_sane_amount_or_not_told(written: str, told: Decimal | None) -> None:
    assert phones.read_delivery(b'{"people": [], "credits_consumed": %s}' % written.encode()).credits == told


@pytest.mark.parametrize(
    "body",
    [
        b"", b"[]", b"null", b"{}", b'{"people": null}', b'{"people": {"id": "x"}}', b"<html>jane@x.example</html>",
        b'{"webhook_result": "jane@x.example"}', b'{"webhook_result": {"people": 5}}', b'{"a": NaN}',
        '{"people": ["Curaçao"]}'.encode("latin-1"), '{"people": []}'.encode("utf-16"), b"[" * 100_000,
    ],
)  # fmt: skip
def test_what_is_no_delivery_says_so_and_shows_nothing_of_it(body: bytes) -> None:
    with pytest.raises(ContractError) as refused:
        phones.read_delivery(body)

    assert re.fullmatch(r"Apollo's delivery cannot be read: [a-z_A-Z8\- ]+", str(refused.value))
    assert refused.value.__cause__ is None


# --- the hostile corpus

HOSTILE = corpus(MARTA_ID)
ROUTES = Phones(
    reveal_when=None,
    route={"mobile": "MobilePhone", "work_direct": "Phone", "home": "HomePhone", "other": "OtherPhone"},
    mark="DoNotCall",
)
SPELLED = re.compile(r"[+(]?[\d ()\-./]{4,30}\Z", re.ASCII)


def digest(body: bytes) -> int:
    """Read, judged and wanted; how many values are to be written."""
    try:
        read = phones.read_delivery(body)
    except ContractError as error:
        assert not re.search(r"\d{4}|@|<", str(error))
        return 0
    written = 0
    for person in read.people[:50]:
        assert 0 < len(person.apollo_id) <= 64
        assert person.apollo_id.isprintable()
        assert len(person.numbers) <= 100
        for n in person.numbers:
            assert all(text.isprintable() for text in (n.raw, n.sanitized, n.type, n.status, n.confidence, n.dnc))
            assert max(map(len, (n.raw, n.sanitized, n.country))) <= 60
            assert max(map(len, (n.type, n.status, n.confidence, n.dnc))) <= 40
        for value in wanted(judge(person.numbers, ROUTES, region="US"), ROUTES):
            assert value.note.isprintable()
            assert not re.search(r"\d{4}|@|<", value.note)
            if isinstance(value.value, str):
                written += 1
                assert SPELLED.match(value.value)
    return written


def test_the_corpus_is_large_and_reaches_the_deep_lines() -> None:
    assert len(HOSTILE) > 1_000
    for make in SHAPES.values():
        assert digest(orjson.dumps(make(MARTA_ID))) == 1
    assert sum(digest(body) for body in HOSTILE.values()) > len(HOSTILE) / 3


@pytest.mark.parametrize("name", HOSTILE)
def test_no_body_does_more_than_be_refused(name: str) -> None:
    began = time.process_time()

    digest(HOSTILE[name])

    assert time.process_time() - began < 1.0


def test_no_body_does_more_to_a_poll() -> None:
    for name, body in HOSTILE.items():
        for status in (200, 400, 403, 404, 410, 418):
            try:
                polled = phones.read_poll(status, body, request_id=REQUEST)
            except ContractError:
                continue
            assert polled.state is not PollState.READY or status == 200, name


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.floats(allow_nan=False) | st.text(max_size=30),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
PLACES = {shape: list(paths(make(MARTA_ID))) for shape, make in SHAPES.items()}


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.sampled_from(sorted(SHAPES)), st.lists(st.tuples(st.integers(0, 10_000), VALUES), max_size=4), st.data())
def test_any_mutation_of_a_valid_body_is_read_or_refused(
    shape: str, changes: list[tuple[int, Any]], data: st.DataObject
) -> None:
    tree = SHAPES[shape](MARTA_ID)
    for place, value in changes:
        reachable = [path for path in paths(tree) if len(path) > 1] or [()]
        tree = put(tree, reachable[place % len(reachable)], value)
    body = json.dumps(tree).encode()

    digest(body)
    cut = data.draw(st.integers(0, len(body)))
    digest(body[:cut])
    digest(body[:cut] + data.draw(st.binary(max_size=4)) + body[cut:])


# --- polls


def test_a_finished_poll_hands_on_its_bytes(bench: Bench, wired: Any) -> None:
    headers = {"x-rate-limit-minute": "50", "x-minute-requests-left": "49"}
    wired.get(f"{BASE}/webhook_result/{REQUEST}", content=READY, headers=headers)

    polled = bench.apollo.poll(REQUEST)

    assert polled == Polled(state=PollState.READY, body=READY)
    assert bench.apollo.read_delivery(polled.body).people[0].apollo_id == MARTA_ID
    assert bench.pace.events == ["acquire webhook_result", "answered"]
    assert bench.pace.windows == [(Window(seconds=60, limit=50, left=49),)]
    assert bench.apollo.calls() == {"webhook_result": 1}
    assert wired.last_request.headers["x-api-key"] == KEY
    assert not wired.last_request.body


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        (0, Polled(state=PollState.PENDING, retry_after_s=10.0)),
        (1, Polled(state=PollState.UNKNOWN, reason="Apollo does not know this request")),
        (2, Polled(state=PollState.EXPIRED, reason="Apollo keeps a result for 30 days, and they are over")),
        (3, Polled(state=PollState.UNKNOWN, reason="Apollo cannot read this request's id")),
    ],
)
def test_each_documented_poll_error_says_whether_to_wait(bench: Bench, wired: Any, row: int, expected: Polled) -> None:
    told = payload("poll_errors")[row]
    wired.get(f"{BASE}/webhook_result/{REQUEST}", status_code=told["http_status"], json=told["body"])

    polled = bench.apollo.poll(REQUEST)

    assert polled == expected
    assert (polled.state is PollState.PENDING) != told["terminal"]
    assert len(wired.request_history) == 1


def an_envelope(**changes: object) -> bytes:
    return orjson.dumps({**payload("poll_success_phone"), **changes})


@pytest.mark.parametrize(
    ("body", "state", "words"),
    [
        ((PAYLOADS / "poll_in_progress.json").read_bytes(), PollState.PENDING, ""),
        (an_envelope(webhook_status="in_progress"), PollState.PENDING, ""),
        (an_envelope(webhook_status="failed", failure_reason="HTTP 500 from the receiver"), PollState.READY, ""),
        (an_envelope(webhook_status="failed", webhook_result=None), PollState.FAILED, "gave up"),
        (
            an_envelope(webhook_status="failed", webhook_result=None, failure_reason="no number of jane@x.example"),
            PollState.FAILED,
            "gave up: no number of …",
        ),
        (an_envelope(webhook_status="success", webhook_result=None), PollState.PENDING, "is not there"),
        (an_envelope(webhook_status="dispatched"), PollState.READY, ""),
        (an_envelope(request_id=-6120457783914420518), PollState.READY, ""),
        (an_envelope(request_id=None), PollState.READY, ""),
    ],
)
def test_a_200_is_read_by_its_result(body: bytes, state: PollState, words: str) -> None:
    polled = phones.read_poll(200, body, request_id=REQUEST)

    assert polled.state is state
    assert words in polled.reason
    assert polled.body == (body if state is PollState.READY else b"")


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (200, an_envelope(request_id="-6120457783914420519")),
        (200, an_envelope(request_id=-6120457783914420224)),  # after a trip through a float
        (200, an_envelope(webhook_result="text")),
        (200, b"{}"),
        (200, b"<html>"),
        (404, b"<html>not here</html>"),
        (404, b'{"error": "Not found"}'),
        (400, b'{"error_code": "INVALID_REQUEST"}'),
        (403, b"<html>proxy</html>"),
        (418, b"{}"),
    ],
)
def test_what_says_nothing_about_the_request_is_a_broken_contract(status: int, body: bytes) -> None:
    with pytest.raises(ContractError):
        phones.read_poll(status, body, request_id=REQUEST)


@pytest.mark.parametrize("wait", [True, "10", None, -5, 1e9, {}])
def test_a_wait_that_is_none_is_not_told(wait: object) -> None:
    body = orjson.dumps({"error_code": "result_pending", "retry_after_seconds": wait})

    told = phones.read_poll(404, body, request_id=REQUEST).retry_after_s

    assert told == {-5: 0.0, 1e9: 86_400.0}.get(wait if type(wait) in (int, float) else 0)  # type: ignore[call-overload]


@pytest.mark.parametrize(
    "reply",
    [
        {"status_code": 403, "json": {"error": "not accessible", "error_code": "API_INACCESSIBLE"}},
        {"status_code": 403, "json": {"message": "upgrade your plan"}},
        {"status_code": 401, "text": "Invalid API key. See https://docs.apollo.io/"},
    ],
)
def test_a_key_that_may_not_poll_is_told_apart(bench: Bench, wired: Any, reply: dict[str, Any]) -> None:
    wired.get(f"{BASE}/webhook_result/{REQUEST}", **reply)

    assert bench.apollo.poll(REQUEST).state is PollState.NOT_ALLOWED


@pytest.mark.parametrize("request_id", ["", "-", "+5", "1 2", "12/../x", "0x10", "٣", "1" * 40, "5\n", "a3f"])
def test_an_id_that_is_none_is_not_sent(bench: Bench, wired: Any, request_id: str) -> None:
    assert bench.apollo.poll(request_id).state is PollState.UNKNOWN
    assert wired.request_history == []


def test_a_429_parks_the_polls_and_tells_how_long(bench: Bench, wired: Any) -> None:
    wired.get(f"{BASE}/webhook_result/{REQUEST}", status_code=429, headers={"retry-after": "600"})

    with pytest.raises(RateLimitError) as first:
        bench.apollo.poll(REQUEST)
    with pytest.raises(RateLimitError) as second:
        bench.apollo.poll(REQUEST)

    assert first.value.retry_after_s == second.value.retry_after_s == 600.0
    assert bench.pace.events == ["acquire webhook_result", "answered", "park webhook_result"]
    assert len(wired.request_history) == 1


@pytest.mark.parametrize(
    "hiccup", [{"status_code": 503}, {"exc": requests.ReadTimeout}, {"exc": requests.ConnectTimeout}]
)
def test_a_poll_is_repeated_after_a_hiccup(bench: Bench, wired: Any, hiccup: dict[str, Any]) -> None:
    wired.get(f"{BASE}/webhook_result/{REQUEST}", [hiccup, {"content": READY}])

    assert bench.apollo.poll(REQUEST).state is PollState.READY
    assert bench.pace.events == ["acquire webhook_result", "answered"] * 2


def test_a_poll_that_stays_unanswered_is_transient(bench: Bench, wired: Any) -> None:
    wired.get(f"{BASE}/webhook_result/{REQUEST}", status_code=500)

    with pytest.raises(TransientError):
        bench.apollo.poll(REQUEST)


def test_the_older_contract_polls_with_its_key_in_the_query(wired: Any) -> None:
    bench = Bench(auth="body")
    wired.get(f"{BASE}/webhook_result/{REQUEST}", content=READY)

    bench.apollo.poll(REQUEST)

    assert wired.last_request.qs == {"api_key": [KEY]}


# --- doctor


@pytest.mark.parametrize(
    ("reply", "words"),
    [
        ({"status_code": 404, "json": {"error_code": "request_id_unknown"}}, "the key may use it"),
        ({"status_code": 400, "json": {"error_code": "invalid_request_id"}}, "the key may use it"),
        ({"status_code": 403, "json": {"error_code": "API_INACCESSIBLE"}}, "may not poll (scope webhook_result_read)"),
        ({"status_code": 404, "json": {"error": "Not found"}}, "not told: "),
        ({"status_code": 503}, "not told: "),
    ],
)
def test_access_to_polls_is_told_and_never_a_failure(
    bench: Bench, wired: Any, reply: dict[str, Any], words: str
) -> None:
    a_whole_apollo(wired)
    wired.get(f"{BASE}/webhook_result/0", **reply)

    checks = {check.name: check for check in bench.apollo.check_access()}

    assert checks["Apollo webhook_result"].ok
    assert words in checks["Apollo webhook_result"].detail
