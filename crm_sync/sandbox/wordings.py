"""How Salesforce and HubSpot word an error that a script of faults calls for (contracts/salesforce.md 2.3 and 2.4,
contracts/hubspot.md 5)."""

from __future__ import annotations

from collections.abc import Mapping

import orjson

_SALESFORCE = {
    401: ("INVALID_SESSION_ID", "Session expired or invalid"),
    403: ("REQUEST_LIMIT_EXCEEDED", "ConcurrentRequests (Concurrent API Requests) Limit exceeded."),
    429: ("REQUEST_LIMIT_EXCEEDED", "ConcurrentRequests (Concurrent API Requests) Limit exceeded."),
    500: ("UNKNOWN_EXCEPTION", "An unexpected error occurred. Please include this ErrorId if you contact support."),
    503: ("SERVER_UNAVAILABLE", "Server is temporarily unavailable; please try again."),
    504: ("SERVER_UNAVAILABLE", "Server is temporarily unavailable; please try again."),
}
_HUBSPOT = {
    401: {"status": "error", "message": "The OAuth token used to make this call is invalid.",
          "correlationId": "sandbox", "category": "INVALID_AUTHENTICATION"},
    403: {"status": "error", "message": "This app hasn't been granted all required scopes to make this call.",
          "correlationId": "sandbox", "category": "MISSING_SCOPES",
          "errors": [{"message": "One or more of the following scopes are required.",
                      "context": {"requiredGranularScopes": ["crm.objects.contacts.write"]}}]},
    429: {"status": "error", "message": "You have reached your ten_secondly_rolling limit.", "errorType": "RATE_LIMIT",
          "correlationId": "sandbox", "policyName": "TEN_SECONDLY_ROLLING", "requestId": "sandbox"},
}  # fmt: skip


def salesforce(status: int) -> tuple[str, Mapping[str, str], bytes]:
    code, message = _SALESFORCE[status]
    return "application/json;charset=UTF-8", {}, orjson.dumps([{"message": message, "errorCode": code}])


def hubspot(status: int) -> tuple[str, Mapping[str, str], bytes]:
    body = _HUBSPOT.get(
        status, {"status": "error", "message": "internal error", "correlationId": "sandbox", "category": "ERROR"}
    )
    return "application/json;charset=utf-8", {}, orjson.dumps(body)
