"""Several requests in one: POST composite, each subrequest answered by the same routes as if it had come alone."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import orjson
from flask import Flask, Response
from werkzeug.datastructures import Headers

from crm_sync.sandbox.salesforce.errors import RequestCode, RequestError

#: Subrequests of one call, and how many of them may be queries or collections (contracts/salesforce.md 2.2).
MAX_SUBREQUESTS = 25
MAX_COLLECTIONS = 5
#: Marks a subrequest's environment: it was admitted and counted with the call that brought it.
ADMITTED = "crm_sync.admitted"

_REFERENCE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_]*\Z")
_RESOURCE = re.compile(r"/services/data/v\d\d\.0/(sobjects|query|queryAll|composite/sobjects)(?:[/?]|\Z)")
_COLLECTIONS = frozenset({"query", "queryAll", "composite/sobjects"})
_KEYS = frozenset({"method", "url", "referenceId", "body", "httpHeaders"})
#: They belong to the call, and no subrequest has its own.
_OF_THE_CALL = frozenset({"accept", "authorization", "content-type"})


def run(app: Flask, payload: object) -> dict[str, Any]:
    """Answer POST composite: {"compositeResponse": [...]} in the order of the subrequests, whatever becomes of each.

    Subrequests do not refer to each other ("@{one.id}"), and all together or nothing is not simulated.

    Raises:
        RequestError: 400, nothing was done.
    """
    if not isinstance(payload, dict) or not isinstance(payload.get("compositeRequest"), list):
        raise _incomplete("compositeRequest")
    if foreign := [key for key in payload if key not in ("compositeRequest", "allOrNone", "collateSubrequests")]:
        raise _unreadable(f'Unrecognized field "{foreign[0]}"')
    if payload.get("allOrNone", False) is not False:
        raise _unreadable("The crm-sync sandbox does not simulate allOrNone of a composite request.")
    if not isinstance(payload.get("collateSubrequests", True), bool):
        raise _incomplete("collateSubrequests")
    subrequests = payload["compositeRequest"]
    if not subrequests:
        raise _incomplete("compositeRequest")
    if len(subrequests) > MAX_SUBREQUESTS:
        raise RequestError(
            400, RequestCode.LIMIT_EXCEEDED, f"The request may have at most {MAX_SUBREQUESTS} subrequests"
        )
    resources = [_checked(each) for each in subrequests]
    if sum(resource in _COLLECTIONS for resource in resources) > MAX_COLLECTIONS:
        raise RequestError(
            400, RequestCode.LIMIT_EXCEEDED, f"At most {MAX_COLLECTIONS} subrequests may be queries or collections"
        )
    references = [each["referenceId"] for each in subrequests]
    if twice := [each for each in references if references.count(each) > 1]:
        raise _unreadable(f"Duplicate referenceId: {twice[0]}")
    return {"compositeResponse": [_answer(app, each) for each in subrequests]}


def _checked(subrequest: object) -> str:
    """The resource of a subrequest that is well formed.

    Raises:
        RequestError: 400 for the whole call.
    """
    if not isinstance(subrequest, dict):
        raise _incomplete("subrequest")
    for key in ("method", "url", "referenceId"):
        if not isinstance(subrequest.get(key), str):
            raise _incomplete(key)
    if foreign := [key for key in subrequest if key not in _KEYS]:
        raise _unreadable(f'Unrecognized field "{foreign[0]}"')
    if not _REFERENCE.match(subrequest["referenceId"]):
        raise _unreadable(
            f"Provided referenceId ('{subrequest['referenceId']}') must start with a letter or a number, and it can"
            " contain only letters, numbers and underscores ('_')."
        )
    headers = subrequest.get("httpHeaders", {})
    if not isinstance(headers, dict) or not all(isinstance(value, str) for value in headers.values()):
        raise _incomplete("httpHeaders")
    if forbidden := [name for name in headers if name.lower() in _OF_THE_CALL]:
        raise _unreadable(f"The header {forbidden[0]} cannot be set for a subrequest")
    found = _RESOURCE.match(subrequest["url"])
    if found is None:
        raise _unreadable(f"The url {subrequest['url'][:80]} is not one that a composite request may have")
    return found[1]


def _answer(app: Flask, subrequest: Mapping[str, Any]) -> dict[str, Any]:
    method = subrequest["method"]
    headers = Headers(subrequest.get("httpHeaders", {}))
    body = orjson.dumps(subrequest["body"]) if "body" in subrequest else None
    if method in ("POST", "PATCH", "PUT"):
        headers["Content-Type"] = "application/json"
    with app.test_request_context(
        subrequest["url"], method=method, headers=headers, data=body, environ_overrides={ADMITTED: True}
    ):
        return _shown(app.full_dispatch_request(), subrequest["referenceId"])


def _shown(response: Response, reference: str) -> dict[str, Any]:
    """One entry of a compositeResponse, as recorded (cumulusci, TestCompositeParallelSalesforce)."""
    content = response.get_data()
    return {
        "body": orjson.loads(content) if content else None,
        "httpHeaders": {},
        "httpStatusCode": response.status_code,
        "referenceId": reference,
    }


def _incomplete(what: str) -> RequestError:
    return _unreadable(f"The Request body is either invalid or incomplete: {what}")


def _unreadable(message: str) -> RequestError:
    return RequestError(400, RequestCode.JSON_PARSER_ERROR, message)
