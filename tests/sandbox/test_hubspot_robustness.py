"""Any body and any parameter gets an answer in the service's own shape; nothing gets a 500."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.sandbox.hubspot_account import COMPANIES, CONTACTS, Account, contact_id

_NAMES = st.sampled_from(["jobtitle", "email", "hs_object_id", "industry", "hs_seniority", "createdate", "nothing", ""])
_WORDS = st.sampled_from(
    ["", "0", "-1", "x", "EQ", "GT", "BETWEEN", "IN", contact_id(1), "2026-01-01", "9" * 30, "a;b"]
)
_LEAVES = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | _WORDS | _NAMES
_KEYS = st.sampled_from(
    [
        "filterGroups", "filters", "propertyName", "operator", "value", "highValue", "values", "sorts", "direction",
        "properties", "limit", "after", "inputs", "id", "idProperty", "objectWriteTraceId", "propertiesWithHistory",
        "jobtitle",
    ]
)  # fmt: skip
_JSON = st.recursive(
    _LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_KEYS, inner, max_size=4), max_leaves=12
)
_FILTER = st.fixed_dictionaries(
    {"propertyName": _NAMES, "operator": _WORDS}, optional={"value": _WORDS, "highValue": _WORDS, "values": _JSON}
)
_SEARCH = st.fixed_dictionaries(
    {"filterGroups": st.lists(st.fixed_dictionaries({"filters": st.lists(_FILTER, max_size=3)}), max_size=3)},
    optional={"limit": _LEAVES, "after": _LEAVES, "sorts": st.lists(_JSON, max_size=2), "properties": _JSON},
)
_BATCH = st.fixed_dictionaries(
    {
        "inputs": st.lists(
            st.fixed_dictionaries(
                {"id": _WORDS},
                optional={
                    "properties": st.dictionaries(_NAMES, _WORDS | st.none(), max_size=3),
                    "objectWriteTraceId": _WORDS,
                    "idProperty": _NAMES,
                },
            ),
            max_size=3,
        )
    },
    optional={"properties": _JSON, "idProperty": _LEAVES, "propertiesWithHistory": _JSON},
)
_POSTS = (
    f"{CONTACTS}/search", f"{CONTACTS}/batch/read", f"{CONTACTS}/batch/update", f"{COMPANIES}/search",
    f"{COMPANIES}/batch/update", "/crm/v4/associations/contacts/companies/batch/read",
)  # fmt: skip


@pytest.fixture(scope="module")
def account() -> Iterator[Account]:
    account = Account(40)
    # An exception inside becomes a 500 here, as it would for a client.
    account.http.application.testing = False
    account.http.application.config["PROPAGATE_EXCEPTIONS"] = False
    yield account
    account.simulator.close()


def _check(answer: Any) -> None:
    assert answer.status_code in (200, 207, 400, 404, 409), (answer.status_code, answer.text)
    if answer.status_code >= 400:
        assert answer.json["status"] == "error"
        assert answer.json["message"]
        assert answer.json["correlationId"]


@given(path=st.sampled_from(_POSTS), body=_JSON | _SEARCH | _BATCH)
@settings(max_examples=300, deadline=None)
def test_any_json_gets_an_answer_in_shape(account: Account, path: str, body: Any) -> None:
    answer = account.call("POST", path, data=json.dumps(body), content_type="application/json")

    if not (answer.status_code == 500 and answer.json["message"] == "internal error"):  # a search from the epoch on
        _check(answer)


@given(body=_JSON, record=_WORDS.filter(bool), id_property=_NAMES)
@settings(max_examples=100, deadline=None)
def test_any_patch_gets_an_answer_in_shape(account: Account, body: Any, record: str, id_property: str) -> None:
    answer = account.call(
        "PATCH",
        f"{CONTACTS}/{record}",
        query_string={"idProperty": id_property},
        data=json.dumps(body),
        content_type="application/json",
    )

    _check(answer)


@given(query=st.dictionaries(_KEYS | st.sampled_from(["archived", "associations", "dataSensitivity"]), _WORDS))
@settings(max_examples=150, deadline=None)
def test_any_parameters_get_an_answer_in_shape(account: Account, query: dict[str, str]) -> None:
    for path in (CONTACTS, f"{CONTACTS}/{contact_id(3)}", "/crm/v3/properties/contacts"):
        _check(account.get(path, **query))


@pytest.mark.parametrize("path", _POSTS)
@pytest.mark.parametrize("body", [b"", b"{", b"\xff\xfe", b"[]", b"null", b'"x"', b'{"inputs": [1]}'])
def test_what_is_no_json_object_is_a_400(account: Account, path: str, body: bytes) -> None:
    answer = account.call("POST", path, data=body, content_type="application/json")

    assert answer.status_code == 400
    assert answer.json["category"] == "VALIDATION_ERROR"
