"""A person cut out of an answer as it is kept: theirs is gone, everybody else's stays where it was."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from adapters.apollo.archive import ApolloArchive
from crm_sync.domain.enrichment import MatchKeys, Purpose, Verdict
from crm_sync.store.traces import Person

ARCHIVE = ApolloArchive()
PAYLOADS = Path(__file__).parents[1] / "payloads" / "apollo"
ADA = "ada@x.example"


def names(*addresses: str, pages: set[str] | None = None, ids: set[str] | None = None) -> Callable[[bytes], bool]:
    return Person(emails=set(addresses) or {ADA}, pages=pages or set(), ids=ids or set()).names()


def keys(*addresses: str) -> list[MatchKeys]:
    return [MatchKeys(purpose=Purpose.PERSON, email=address) for address in addresses]


def entry(address: str, **more: Any) -> dict[str, Any]:
    return {"id": address[:3] + "0" * 21, "email": address, "title": "VP", "last_name": "X", **more}


def body(*entries: Any, **more: Any) -> bytes:
    return json.dumps(
        {"status": "success", "matches": list(entries), "request_id": -6120457783914420518123, **more}
    ).encode()


def test_their_entry_becomes_empty_and_the_others_keep_their_places() -> None:
    asked = keys(ADA, "bob@x.example", "cyd@x.example")
    answer = body(entry(ADA), entry("bob@x.example"), None)

    rest = ARCHIVE.without(asked, answer, {0}, names())

    assert ADA.encode() not in rest
    verdicts = [e.verdict for e in ARCHIVE.read(Purpose.PERSON, asked, rest).enrichments if e is not None]
    assert verdicts == [Verdict.NO_MATCH, Verdict.MATCHED, Verdict.NO_MATCH]
    assert ARCHIVE.theirs(asked, answer, {0}, names()) == [entry(ADA)]
    assert json.loads(rest)["request_id"] == -6120457783914420518123  # every digit


def test_in_a_recorded_answer_only_the_one_asked_about_is_cut_out() -> None:
    recorded = (PAYLOADS / "bulk_match_response_mixed.json").read_bytes()
    tree = json.loads(recorded)
    address = tree["matches"][0]["email"]
    slug = tree["matches"][0]["linkedin_url"].rpartition("/")[2]
    asked = keys(*(f"p{at}@x.example" if at else address for at in range(len(tree["matches"]))))

    rest = json.loads(ARCHIVE.without(asked, recorded, {0}, names(address, pages={f"in/{slug}"})))

    assert rest["matches"] == [None, *tree["matches"][1:]]
    assert {key: value for key, value in rest.items() if key != "matches"} == {
        key: value for key, value in tree.items() if key != "matches"
    }


def test_an_entry_at_their_place_that_is_provably_somebody_elses_stays() -> None:
    asked = keys(ADA, "bob@x.example")
    swapped = body(entry("bob@x.example"), entry(ADA))

    rest = ARCHIVE.without(asked, swapped, {0}, names())

    assert json.loads(rest)["matches"] == [entry("bob@x.example"), None]


def test_of_an_answer_whose_entries_cannot_be_paired_only_those_proved_to_be_others_stay() -> None:
    asked = keys(ADA, "bob@x.example", "cyd@x.example")
    short = body(entry("bob@x.example"), {"id": "z" * 24, "first_name": "Ada", "title": "CTO", "last_name": "Byron"})

    rest = ARCHIVE.without(asked, short, {0}, names())

    assert json.loads(rest)["matches"] == [entry("bob@x.example"), None]


def test_they_are_found_in_an_answer_to_a_question_about_somebody_else() -> None:
    asked = keys("bob@x.example")
    namesake = body(entry("other@x.example", contact={"emails": [{"email": "ADA@X.example"}]}))

    assert ARCHIVE.mentions(namesake, names())
    assert json.loads(ARCHIVE.without(asked, namesake, set(), names()))["matches"] == [None]


def test_what_stands_outside_of_entries_is_blanked_too() -> None:
    answer = body(None, note=[{"text": f"asked for {ADA}"}], kept="yes")

    rest = json.loads(ARCHIVE.without(keys(ADA), answer, {0}, names()))

    assert rest["note"] == [{"text": ""}]
    assert rest["kept"] == "yes"


@pytest.mark.parametrize("single", [{"person": entry(ADA)}, {"person": None}, {}])
def test_a_single_answer_is_emptied(single: dict[str, Any]) -> None:
    rest = ARCHIVE.without(keys(ADA), json.dumps(single).encode(), {0}, names())

    assert ADA.encode() not in rest
    assert ARCHIVE.read(Purpose.PERSON, keys(ADA), rest).enrichments[0].verdict is Verdict.NO_MATCH  # type: ignore[union-attr]


@pytest.mark.parametrize("broken", [b"\xff<html>", b"[1]", b"", b'{"matches": [', b"[" * 100_000])
def test_what_cannot_be_read_goes_whole_where_it_may_hold_them(broken: bytes) -> None:
    assert ARCHIVE.without(keys(ADA), broken, {0}, names()) == b""
    assert ARCHIVE.without(keys("bob@x.example"), broken, set(), names()) == broken
    assert not ARCHIVE.mentions(broken, names())


def test_an_address_is_found_in_any_spelling_json_has() -> None:
    escaped = body(entry(ADA)).replace(b"@", b"\\u0040")

    assert ADA.encode() not in escaped
    assert ARCHIVE.mentions(escaped, names())
    assert ARCHIVE.mentions(b'{"x": "line\\nada@x.example"}', names())
    assert ARCHIVE.mentions(b'{"x": "http://www.LinkedIn.com/in/Ada-B"}', names(pages={"in/ada-b"}))
    assert ARCHIVE.mentions(b'{"x": "linkedin.com/in/ada-b%c3%b6"}', names(pages={"in/ada-bö"}))
    assert ARCHIVE.mentions(b'{"id": "64A7"}', names(ids={"64a7"}))


@pytest.mark.parametrize(
    "other",
    [
        "ada@x.example.org",
        "ada@x.examples",
        "lady.ada@x.example",
        "x-ada@x.example",
        "linkedin.com/in/ada-b2",
        "164a7",
        "64a7f",
    ],
)
def test_whoever_is_only_spelled_alike_is_somebody_else(other: str) -> None:
    content = json.dumps({"x": other}).encode()

    assert not ARCHIVE.mentions(content, names(ADA, pages={"in/ada-b"}, ids={"64a7"}))


# --- deliveries -------------------------------------------------------------------------------------------------------

ADAS, BOBS = "ada0000000000000000000ff", "b0b0000000000000000000ff"


def a_delivery(*ids: str, **more: Any) -> dict[str, Any]:
    people = [{"id": each, "phone_numbers": [{"raw_number": "+442071234567", "type_cd": "mobile"}]} for each in ids]
    return {"status": "success", "credits_consumed": 8, "people": people, **more}


@pytest.mark.parametrize(
    "wrapped",
    [
        pytest.param(lambda tree: tree, id="native"),
        pytest.param(lambda tree: {**tree, "target_fields": ["phone"], "records_enriched": 1}, id="waterfall"),
        pytest.param(lambda tree: {"webhook_status": "delivered", "webhook_result": tree}, id="envelope"),
    ],
)
def test_an_entry_leaves_a_delivery_and_the_rest_reads_as_before(wrapped: Callable[[Any], Any]) -> None:
    from adapters.apollo.phones import read_delivery

    raw = json.dumps(wrapped(a_delivery(ADAS, BOBS, request_id=-6120457783914420518123))).encode()

    rest = ARCHIVE.delivery_without(raw, names(ids={ADAS}))

    assert ARCHIVE.ids_in(raw) == {ADAS, BOBS}
    assert ARCHIVE.ids_in(rest) == {BOBS}
    assert ARCHIVE.delivered(raw, names(ids={ADAS})) == a_delivery(ADAS)["people"]
    before, after = read_delivery(raw), read_delivery(rest)
    assert after.people == before.people[1:]
    assert (after.credits, after.request_id, after.shape) == (before.credits, before.request_id, before.shape)


def test_recorded_deliveries_are_left_byte_for_byte_when_nobody_in_them_is_meant() -> None:
    for path in sorted(PAYLOADS.glob("*webhook*")) + sorted(PAYLOADS.glob("*callback*")):
        raw = path.read_bytes()

        assert ARCHIVE.delivery_without(raw, names(ids={"0" * 24})) == raw, path.name


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(f'{{"people": [{{"id": "{ADAS}", "phone'.encode(), id="cut short"),
        pytest.param(f"id={ADAS.upper()}&number=%2B442071234567".encode(), id="a form"),
        pytest.param(f'["{ADAS}"]'.encode(), id="a list"),
        pytest.param(json.dumps({"people": {ADAS: ["+442071234567"]}}).encode(), id="the name of a key"),
        pytest.param(b'{"people": [], "x": "\\ud800", "id": "' + ADAS.encode() + b'"}', id="half a character"),
        pytest.param(b"[" * 5_000 + ADAS.encode(), id="deep"),
        pytest.param(b"\xff\xfe " + ADAS.encode(), id="no text"),
    ],
)
def test_what_cannot_be_read_and_mentions_them_goes_whole(raw: bytes) -> None:
    assert ARCHIVE.ids_in(raw) >= {ADAS}
    assert ARCHIVE.delivery_mentions(raw, names(ids={ADAS}))
    assert ARCHIVE.delivered(raw, names(ids={ADAS})) == []
    assert ARCHIVE.delivery_without(raw, names(ids={ADAS})) == b"{}"
    assert ARCHIVE.delivery_without(raw, names(ids={BOBS})) == raw


def test_an_id_in_escapes_or_in_wide_characters_is_found() -> None:
    escaped = json.dumps(a_delivery(ADAS, BOBS)).replace("ada0", "\\u0061da0").encode()
    wide = json.dumps(a_delivery(ADAS, BOBS)).encode("utf-16")

    for raw in (escaped, wide):
        assert ARCHIVE.ids_in(raw) == {ADAS, BOBS}
        assert ARCHIVE.ids_in(ARCHIVE.delivery_without(raw, names(ids={ADAS}))) == {BOBS}


def test_a_text_that_names_them_beside_the_list_is_blanked() -> None:
    raw = json.dumps(a_delivery(BOBS, asked_for=ADAS)).encode()

    assert json.loads(ARCHIVE.delivery_without(raw, names(ids={ADAS}))) == a_delivery(BOBS, asked_for="")
