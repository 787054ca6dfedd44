"""Real Salesforce answers, as the cumulusci wheel ships them for its own tests (contracts/salesforce.md 3.3)."""

from __future__ import annotations

import json
from functools import cache
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

_SHARED = "cumulusci/tests/shared_cassettes"


@cache
def _wheel() -> Path:
    # Its dependencies are not installed, so the package is found but never imported.
    return Path(str(distribution("cumulusci").locate_file("")))


@cache
def interactions(cassette: str) -> list[dict[str, Any]]:
    """Return the request and response pairs of a cassette (a path inside the wheel), shared ones included in place."""
    recorded = YAML(typ="safe").load((_wheel() / cassette).read_text(encoding="utf-8"))
    pairs: list[dict[str, Any]] = []
    for entry in recorded.get("interactions", [recorded]):
        if "include_file" in entry:
            pairs += interactions(f"{_SHARED}/{entry['include_file']}")
        else:
            pairs.append(entry)
    return pairs


def describe(name: str) -> dict[str, Any]:
    """Return the recorded describe of Account, Contact, Lead or of everything ("Global")."""
    (pair,) = interactions(f"{_SHARED}/GET_sobjects_{name}_describe.yaml")
    answer: dict[str, Any] = json.loads(pair["response"]["body"]["string"])
    return answer


def answers(cassette: str, method: str, path: str) -> list[tuple[Any, Any]]:
    """Return (request body, answer) of a cassette's calls whose address contains `path`; None for no body."""
    return [
        (
            json.loads(pair["request"]["body"]) if pair["request"]["body"] else None,
            json.loads(pair["response"]["body"]["string"]),
        )
        for pair in interactions(cassette)
        if pair["request"]["method"] == method and path in pair["request"]["uri"]
    ]
