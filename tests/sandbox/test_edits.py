"""The script of a colleague's edits: made just before or just after the call it names, on both CRMs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import requests

from crm_sync.sandbox import hubspot, salesforce
from crm_sync.sandbox.run import Sandbox
from tests.sandbox import hubspot_account, salesforce_org


@dataclass
class Place:
    """One CRM of a sandbox: its calls as a caller makes them, and its script of edits."""

    sandbox: Sandbox
    service: str
    url: str
    object: str
    field: str
    id_of: Callable[[int], str]
    read_call: str
    write_call: str
    session: requests.Session

    @property
    def script(self) -> str:
        return f"{self.url}/_sandbox/edits"

    def add(self, *edits: dict[str, Any]) -> requests.Response:
        return requests.post(self.script, json=list(edits), timeout=9)

    def listed(self) -> list[dict[str, Any]]:
        return list(requests.get(self.script, timeout=9).json())

    def an_edit(self, index: int = 0, **changes: Any) -> dict[str, Any]:
        whom = {"object": self.object, "id": self.id_of(index), "fields": {self.field: "a colleague's"}}
        return {"call": self.read_call, **whom, **changes}

    def read(self, index: int = 0) -> Any:
        """The field as a caller reads it: this is a call that edits may meet."""
        if self.service == "hubspot":
            body = {"properties": [self.field], "inputs": [{"id": self.id_of(index)}]}
            answer = self.session.post(f"{self.url}/crm/v3/objects/contacts/batch/read", json=body, timeout=9).json()
            return answer["results"][0]["properties"][self.field]
        body = {"ids": [self.id_of(index)], "fields": [self.field]}
        answer = self.session.post(
            f"{self.url}/services/data/v62.0/composite/sobjects/Contact", json=body, timeout=9
        ).json()
        return answer[0][self.field]

    def write(self, text: str, index: int = 0) -> requests.Response:
        if self.service == "hubspot":
            body = {"inputs": [{"id": self.id_of(index), "properties": {self.field: text}}]}
            return self.session.post(f"{self.url}/crm/v3/objects/contacts/batch/update", json=body, timeout=9)
        record = {"attributes": {"type": "Contact"}, "Id": self.id_of(index), self.field: text}
        return self.session.patch(
            f"{self.url}/services/data/v62.0/composite/sobjects",
            json={"allOrNone": False, "records": [record]},
            timeout=9,
        )

    def held(self, index: int = 0) -> Any:
        """The field as it is, asked behind the service's back."""
        shown = self.sandbox.apps[self.service].extensions["simulator"].edit(self.object, self.id_of(index), {})
        return shown.get("properties", shown)[self.field]


def _salesforce(sandbox: Sandbox) -> Place:
    known = salesforce.Credentials()
    session = requests.Session()
    token = session.post(
        f"{sandbox.salesforce_url}/services/oauth2/token",
        data={"grant_type": "client_credentials"},
        auth=(known.consumer_key, known.consumer_secret),
        timeout=9,
    ).json()["access_token"]
    session.auth = None
    session.headers["Authorization"] = f"Bearer {token}"
    root = "/services/data/v<version>/composite/sobjects"
    return Place(
        sandbox, "salesforce", sandbox.salesforce_url, "Contact", "Title", salesforce_org.contact_id,
        f"POST {root}/*", f"PATCH {root}", session,
    )  # fmt: skip


def _hubspot(sandbox: Sandbox) -> Place:
    session = requests.Session()
    session.headers["Authorization"] = f"Bearer {hubspot.TOKEN}"
    root = "POST /crm/v3/objects/*/batch"
    return Place(
        sandbox, "hubspot", sandbox.hubspot_url, "contacts", "jobtitle", hubspot_account.contact_id,
        f"{root}/read", f"{root}/update", session,
    )  # fmt: skip


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    with Sandbox(contacts=20, unlimited=True) as sandbox:
        yield sandbox


@pytest.fixture(params=["salesforce", "hubspot"])
def place(request: pytest.FixtureRequest, sandbox: Sandbox) -> Iterator[Place]:
    sandbox.renew(request.param)
    found = _salesforce(sandbox) if request.param == "salesforce" else _hubspot(sandbox)
    with found.session:
        yield found


def test_an_edit_before_a_read_is_read_and_one_after_it_is_not(place: Place) -> None:
    before = place.read()

    place.add(place.an_edit(0), place.an_edit(1, nth=2, when="after"))
    first, second = place.read(0), place.read(1)

    assert first == "a colleague's" != before
    assert second != "a colleague's"
    assert place.held(1) == "a colleague's"


@pytest.mark.parametrize(("when", "stands"), [("before", "ours"), ("after", "a colleague's")])
def test_an_edit_before_a_write_is_gone_over_and_one_after_it_stands(place: Place, when: str, stands: str) -> None:
    place.add(place.an_edit(call=place.write_call, when=when))

    answer = place.write("ours")

    assert answer.status_code == 200
    assert place.held() == stands


def test_an_edit_comes_with_the_nth_call_and_as_often_as_it_says(place: Place) -> None:
    place.add(place.an_edit(nth=2, times=2))

    seen = []
    for n in range(4):
        seen.append(place.read())
        place.write(f"ours {n}")

    assert seen[1:] == ["a colleague's", "a colleague's", "ours 2"]
    assert [(each["met"], each["fired"]) for each in place.listed()] == [(4, 2)]


def test_an_edit_with_a_call_whose_answer_is_lost_comes_before_the_caller_notices(place: Place) -> None:
    place.sandbox.faults[place.service].add([{"call": "*", "what": "reset", "when": "after"}])
    place.add(place.an_edit(call=place.write_call, when="after"))

    with pytest.raises(requests.ConnectionError):
        place.write("ours")

    assert place.held() == "a colleague's"


def test_a_script_is_held_by_tests_too_and_forgotten(place: Place) -> None:
    place.sandbox.edits[place.service].add([place.an_edit()])
    assert [each["fired"] for each in place.listed()] == [0]

    assert requests.delete(place.script, timeout=9).json() == []

    assert place.read() != "a colleague's"
    assert place.sandbox.edits[place.service].listed() == []


def test_an_edit_that_the_record_refuses_at_its_time_is_told_in_the_list(place: Place) -> None:
    place.add(place.an_edit(fields={"no_such_field": "x"}))

    place.read()

    [listed] = place.listed()
    assert (listed["fired"], "no_such_field" in listed["refused"]) == (0, True)


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"id": "77"}, "77"),
        ({"object": "deals"}, "deals"),
        ({"fields": {}}, '"fields" is an object of the fields to change'),
        ({"fields": ["jobtitle"]}, '"fields" is an object of the fields to change'),
        ({"nth": 0}, '"nth" is a whole number of at least 1, not 0'),
        ({"times": True}, '"times" is a whole number of at least 1, not True'),
        ({"when": "during"}, '"when" is before or after'),
        ({"call": 7}, '"call", "object" and "id" are texts'),
        ({"what": "500"}, "an edit has no what; it may have call, fields, id, nth, object, times, when"),
    ],
)
def test_an_edit_that_is_none_is_refused_with_a_sentence_and_none_of_its_script_is_taken(
    place: Place, wrong: dict[str, Any], sentence: str
) -> None:
    answer = place.add(place.an_edit(), place.an_edit(1, **wrong))

    assert answer.status_code == 400
    assert sentence in answer.json()["error"]
    assert place.listed() == []


@pytest.mark.parametrize("script", [None, {}, "x", ["x"], [{"call": "*"}]])
def test_what_is_no_script_is_refused(place: Place, script: Any) -> None:
    answer = requests.post(place.script, json=script, timeout=9)

    assert answer.status_code == 400
    assert answer.json()["error"]


def test_apollos_people_cannot_be_edited() -> None:
    with Sandbox(contacts=5) as sandbox, pytest.raises(ValueError, match="edit a record of a CRM"):
        sandbox.edits["apollo"].add([{"call": "*", "object": "people", "id": "1", "fields": {"title": "x"}}])
