"""The receiver keeps to its OpenAPI document, whatever a fuzzer makes of it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from typing import Any

import pytest
import requests
from ruamel.yaml import YAML

from tests.webhooks.servers import Installation, Served
from webhooks.openapi import document

MAX_EXAMPLES = 150
CHECKS = (
    "not_a_server_error,status_code_conformance,content_type_conformance,response_headers_conformance,"
    "response_schema_conformance"
)


def schema(token: str) -> dict[str, Any]:
    return YAML(typ="safe").load(document(token))  # type: ignore[no-any-return]


def test_the_token_stands_where_the_examples_are() -> None:
    told = subprocess.run(
        [sys.executable, "-m", "webhooks.openapi", "-"], input="v1_abc\n", capture_output=True, text=True, check=True
    ).stdout

    assert told == document("v1_abc")
    [parameter] = schema("v1_abc")["paths"]["/webhooks/apollo/{token}"]["post"]["parameters"]
    assert parameter["example"] == "v1_abc"


def test_a_method_or_path_that_is_not_documented_gets_the_one_answer(
    server: Served, installation: Installation
) -> None:
    address = f"{server.url}{installation.address()}"
    answers = [
        requests.request(method, address, data=b"{}", timeout=10, allow_redirects=False)
        for method in ("GET", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "QUERY", "PROPFIND")
    ]
    answers.append(requests.post(f"{server.url}/webhooks/apollo/v1_x", data=b"{}", timeout=10))

    assert {(each.status_code, each.content, one_of(each.headers)) for each in answers} == {
        (404, b"not found\n", one_of(answers[0].headers))
    }


def one_of(headers: Mapping[str, str]) -> frozenset[tuple[str, str]]:
    return frozenset((name, value) for name, value in headers.items() if name != "Date")


@pytest.mark.parametrize("mode", ["positive", "all"])
def test_a_fuzzer_finds_only_what_is_documented(server: Served, installation: Installation, mode: str) -> None:
    # Its own check of undocumented methods wants 405, which would tell that something is here (test above).
    order = installation.order()
    token = installation.token(order)
    file = installation.folder / "openapi.yaml"
    file.write_text(document(token))

    run = subprocess.run(
        [
            sys.executable, "-m", "schemathesis.cli", "run", str(file), "--url", server.url, "--mode", mode,
            "--max-examples", str(MAX_EXAMPLES), "--generation-deterministic", "--no-color",
            "--checks", CHECKS,
            "--suppress-health-check", "all", "--phases", "examples,coverage,fuzzing",
            "--report", "ndjson", "--report-dir", str(installation.folder / "report"),
        ],
        capture_output=True, text=True, cwd=installation.folder, timeout=240, check=False,
    )  # fmt: skip

    assert run.returncode == 0, run.stdout[-4000:] + run.stderr[-2000:]
    assert installation.kept(), run.stdout[-4000:]  # it did come further than 404
