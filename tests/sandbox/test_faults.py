"""The script of faults: which there are for each service, and that they speak its language."""

from __future__ import annotations

from pathlib import Path

import orjson
import pytest
import requests

from crm_sync.sandbox import wordings
from crm_sync.sandbox.faults import WHAT, Faults
from crm_sync.sandbox.run import Sandbox

SERVICES = {"apollo": wordings.apollo, "salesforce": wordings.salesforce, "hubspot": wordings.hubspot}
#: Documented and observed error bodies (contracts/apollo.md 4).
_RECORDED = Path(__file__).parent.parent / "payloads" / "apollo" / "http_errors.json"


def test_each_fault_belongs_to_a_service() -> None:
    assert set(WHAT) == {what for said in SERVICES.values() for what in Faults(said).what}


@pytest.mark.parametrize("service", SERVICES)
def test_a_fault_of_another_service_is_refused_with_a_sentence(service: str) -> None:
    faults = Faults(SERVICES[service])
    others = set(WHAT) - set(faults.what)

    assert others
    for what in others:
        with pytest.raises(ValueError, match="this service never answers"):
            faults.add([{"call": "*", "what": "500"}, {"call": "*", "what": what}])
    assert faults.listed() == []


def test_a_fault_nobody_has_is_refused_with_a_sentence() -> None:
    with pytest.raises(ValueError, match="no fault is called '418'"):
        Faults(wordings.apollo).add([{"call": "*", "what": "418"}])


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"times": "two"}, "\"times\" is a whole number of at least 1, not 'two'"),
        ({"times": 0}, '"times" is a whole number of at least 1, not 0'),
        ({"nth": 1.5}, '"nth" is a whole number of at least 1, not 1.5'),
        ({"nth": True}, '"nth" is a whole number of at least 1, not True'),
        ({"seconds": None}, '"seconds" is a number of at least 0, not None'),
        ({"retry_after": -1}, '"retry_after" is a number of at least 0, not -1'),
        ({"call": 7}, '"call" and "what" are texts'),
        ({"what": ["500"]}, '"call" and "what" are texts'),
        ({"when": "later"}, '"when" is before or after'),
        ({"when": []}, '"when" is before or after'),
    ],
)
def test_a_fault_of_the_wrong_type_is_refused_with_a_sentence_and_none_of_its_script_is_taken(
    wrong: dict[str, object], sentence: str
) -> None:
    with Sandbox(contacts=5) as sandbox:
        url = f"{sandbox.apollo_url}/_sandbox/faults"

        answer = requests.post(
            url, json=[{"call": "*", "what": "500"}, {"call": "*", "what": "500", **wrong}], timeout=9
        )

        assert answer.status_code == 400
        assert answer.json() == {"error": sentence}
        assert requests.get(url, timeout=9).json() == []


def _apollo_keys(status: int, kind: str) -> list[set[str]]:
    recorded = orjson.loads(_RECORDED.read_bytes())
    return [
        set(each.get("body") or orjson.loads(each["body_text"]))
        for each in recorded
        if each["http_status"] == status and each["content_type"] == kind
    ]


@pytest.mark.parametrize(
    ("what", "call"),
    [
        ("400", "POST /api/v1/people/bulk_match"),
        ("400", "POST /api/v1/organizations/bulk_enrich"),
        ("403", "*"),
        ("422", "*"),
        ("429", "*"),
    ],
)
def test_apollo_words_its_refusals_as_recorded(what: str, call: str) -> None:
    worded = wordings.apollo(what, call)

    assert worded is not None
    assert set(orjson.loads(worded[2])) in _apollo_keys(int(what), worded[0])


def test_a_spoiled_answer_has_the_shape_of_the_services_own() -> None:
    """What the simulator itself answers to an unknown key, and what the script lets it answer, differ in words only."""
    with Sandbox(contacts=5) as sandbox:
        contacts = f"{sandbox.hubspot_url}/crm/v3/properties/contacts"
        token = f"{sandbox.salesforce_url}/services/oauth2/token"
        query = f"{sandbox.salesforce_url}/services/data/v62.0/query?q=x"
        for service, url, what, wrong in (
            (
                "hubspot",
                contacts,
                "401",
                lambda url: requests.get(url, headers={"Authorization": "Bearer x"}, timeout=9),
            ),
            (
                "salesforce",
                query,
                "401",
                lambda url: requests.get(url, headers={"Authorization": "Bearer x"}, timeout=9),
            ),
            ("salesforce", token, "400", lambda url: requests.post(url, data={"grant_type": "x"}, timeout=9)),
        ):
            own = wrong(url)
            sandbox.faults[service].add([{"call": "*", "what": what}])
            spoiled = wrong(url)

            assert (spoiled.status_code, own.status_code) == (int(what), int(what))
            assert spoiled.headers["Content-Type"].lower() == own.headers["Content-Type"].lower()
            assert _shape(spoiled.json()) == _shape(own.json())


def _shape(value: object) -> object:
    if isinstance(value, dict):
        return {key: _shape(each) for key, each in value.items()}
    return [_shape(each) for each in value] if isinstance(value, list) else type(value)


@pytest.mark.parametrize("what", ["429", "477"])
def test_who_is_told_to_wait_is_told_how_long(what: str) -> None:
    with Sandbox(contacts=5) as sandbox:
        sandbox.faults["hubspot"].add([{"call": "*", "what": what, "retry_after": 7}])

        answer = requests.get(f"{sandbox.hubspot_url}/crm/v3/properties/contacts", timeout=9)

        assert (answer.status_code, answer.headers["Retry-After"]) == (int(what), "7")


def test_a_sandbox_begins_again_on_the_same_addresses() -> None:
    with Sandbox(contacts=5, unlimited=True) as sandbox:
        settings = sandbox.settings()
        ask = {"details": [{"email": sandbox.world.person(1).email}]}
        headers = {"x-api-key": settings["CRM_SYNC_APOLLO_API_KEY"]}
        url = f"{sandbox.apollo_url}/api/v1/people/bulk_match"
        sandbox.faults["apollo"].add([{"call": "*", "what": "500", "nth": 2}])
        first = requests.post(url, json=ask, headers=headers, timeout=9)

        sandbox.renew("apollo")
        second = [requests.post(url, json=ask, headers=headers, timeout=9) for _ in range(2)]

        assert sandbox.settings() == settings
        assert [answer.status_code for answer in (first, *second)] == [200, 200, 200]
        assert sandbox.traffic["apollo"].calls() == {"POST /api/v1/people/bulk_match": 2}
        state = requests.get(f"{sandbox.apollo_url}/_sandbox/state", timeout=9).json()
        assert state["credits"]["charged"] == 2
