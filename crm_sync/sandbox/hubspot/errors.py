"""Refusals in HubSpot's own shape (contracts/hubspot.md 5, 2026-11)."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

#: Of a record's findings HubSpot may list fewer in `errors` than in `message` (one live capture: 3 and 4).
_MOST_LISTED = 3


class RequestError(Exception):
    """A call refused as a whole. `category` "" leaves the field out, as 423, 429 and 477 do; `extra` wins."""

    def __init__(
        self,
        status: int,
        message: str,
        category: str = "",
        *,
        errors: Iterable[Mapping[str, Any]] = (),
        context: Mapping[str, Sequence[str]] | None = None,
        extra: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.category = category
        self.errors = list(errors)
        self.context = context
        self.extra = dict(extra or {})
        self.headers = dict(headers or {})

    def body(self) -> dict[str, Any]:
        body: dict[str, Any] = {"status": "error", "message": self.message, "correlationId": correlation_id()}
        if self.category:
            body["category"] = self.category
        if self.errors:
            body["errors"] = self.errors
        if self.context:
            body["context"] = self.context
        return body | self.extra


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What is wrong with the value sent for one property."""

    property: str
    code: str
    message: str


def correlation_id() -> str:
    return str(uuid.uuid4())


def invalid(
    message: str, *, errors: Iterable[Mapping[str, Any]] = (), context: Mapping[str, Sequence[str]] | None = None
) -> RequestError:
    return RequestError(400, message, "VALIDATION_ERROR", errors=errors, context=context)


def bad_json(detail: str) -> RequestError:
    return invalid(f"Invalid input JSON on line 1, column 1: {detail}")


def wrong_type(what: str, wanted: str) -> RequestError:
    return bad_json(f"Cannot deserialize value of type `{wanted}` for {what}")


def not_found() -> RequestError:
    return RequestError(404, "resource not found", "OBJECT_NOT_FOUND")


def values_message(findings: Iterable[Finding]) -> str:
    """The findings as JSON text inside the message."""
    listed = [
        {"isValid": False, "message": each.message, "error": each.code, "name": each.property} for each in findings
    ]
    return f"Property values were not valid: {orjson.dumps(listed).decode()}"


def values_errors(findings: Iterable[Finding]) -> list[dict[str, Any]]:
    """The first few of the findings, one a property and code, as HubSpot repeats them beside the message."""
    distinct = {(each.property, each.code): each for each in findings}
    return [
        {"message": each.message, "code": each.code, "context": {"propertyName": [each.property]}}
        for each in list(distinct.values())[:_MOST_LISTED]
    ]


def values_refused(findings: Sequence[Finding]) -> RequestError:
    """The 400 for a whole batch: it says neither which record nor how many."""
    return invalid(values_message(findings), errors=values_errors(findings))


def not_found_entry(singular: str, ids: Sequence[str]) -> dict[str, Any]:
    """The entry of a 207 for records that are not there."""
    return {
        "status": "error",
        "category": "OBJECT_NOT_FOUND",
        "message": f"Could not get some {singular} objects, they may be deleted or not exist. "
        "Check that ids are valid.",
        "context": {"ids": list(ids)},
    }
