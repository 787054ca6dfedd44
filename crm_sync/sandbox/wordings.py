"""How each service words an error that a script of faults calls for.

A Wording takes the fault's name (its first three digits are the status) and the call, and answers (content type,
further headers, body), or None where the service has no such answer.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

Worded = tuple[str, Mapping[str, str], bytes]

#: What stands in front of a service answers by itself: any of them may, and none of it is the service's JSON.
_EDGE = {
    "408": "Request Timeout",
    "413": "Request Entity Too Large",
    "414": "URI Too Long",
    "431": "Request Header Fields Too Large",
}

# --- Apollo (contracts/apollo-payloads/http_errors.json; contracts/apollo.md 4) ---------------------------------------

UNKNOWN_KEY = b"Invalid API key. See the API documentation for how to authenticate."
_APOLLO: Mapping[str, Any] = {
    "400": {"status": "failed", "error_code": "INVALID_REQUEST", "error_message": "invalid request, missing details"},
    "403": {
        "error": "This API key is not authorized to access this endpoint. Request an API key from your administrator "
        "that includes this endpoint in its configured scope.",
        "error_code": "API_INACCESSIBLE",
    },
    "404": {"error": "Not found"},
    "422": {
        "status": "failed",
        "error_code": "UNKNOWN_ERROR",
        "error_message": "no implicit conversion of Symbol into Integer",
    },
    "429": {"message": "The maximum number of api calls allowed is 600 times per hour."},
}
#: The poll's own (contracts/apollo-payloads/poll_errors.json); no other endpoint answers 410.
_APOLLO_POLL: Mapping[str, Any] = {
    "400": {"error_code": "invalid_request_id"},
    "404": {"error_code": "request_id_unknown"},
    "410": {"error_code": "request_id_expired"},
}


def apollo(what: str, call: str) -> Worded | None:
    if what in ("408", "413", "414"):
        return _page(what)
    if what == "401":
        return "text/plain", {}, UNKNOWN_KEY
    if what in ("500", "503", "504"):
        return "text/plain", {}, b""  # "unspecified"
    own = _APOLLO_POLL.get(what) if "/webhook_result/" in call else None
    said = own or _APOLLO.get("429" if what == "429_without_retry_after" else what)
    if said is None:
        return None
    # One of the refusals comes as text that holds JSON.
    kind = "text/plain" if what == "400" and call.endswith("bulk_enrich") else "application/json"
    return kind, {}, orjson.dumps(said)


# --- Salesforce (contracts/salesforce.md 2.3 and 2.4) -----------------------------------------------------------------

_SALESFORCE = {
    "400": ("JSON_PARSER_ERROR", "Unexpected character ('<' (code 60)): expected a valid value at [line:1, column:2]"),
    "401": ("INVALID_SESSION_ID", "Session expired or invalid"),
    "403": ("REQUEST_LIMIT_EXCEEDED", "ConcurrentRequests (Concurrent API Requests) Limit exceeded."),
    "403_daily": ("REQUEST_LIMIT_EXCEEDED", "TotalRequests Limit exceeded."),
    "403_permission": ("API_DISABLED_FOR_ORG", "The REST API is not enabled for this Organization."),
    "404": ("NOT_FOUND", "The requested resource does not exist"),
    "410": ("UNSUPPORTED_API_VERSION", "The API version is retired; use a later one."),
    "429": ("REQUEST_LIMIT_EXCEEDED", "ConcurrentRequests (Concurrent API Requests) Limit exceeded."),
    "429_without_retry_after": (
        "REQUEST_LIMIT_EXCEEDED",
        "ConcurrentRequests (Concurrent API Requests) Limit exceeded.",
    ),
    "500": ("UNKNOWN_EXCEPTION", "An unexpected error occurred. Please include this ErrorId if you contact support."),
    "503": ("SERVER_UNAVAILABLE", "Server is temporarily unavailable; please try again."),
    "504": ("SERVER_UNAVAILABLE", "Server is temporarily unavailable; please try again."),
}
#: The token service's own shape.
_SALESFORCE_LOGIN = {
    "400": {"error": "invalid_grant", "error_description": "authentication failure"},
    "401": {"error": "invalid_client", "error_description": "invalid client credentials"},
}


def salesforce(what: str, call: str) -> Worded | None:
    kind = "application/json;charset=UTF-8"
    if "/oauth2/" in call and what in _SALESFORCE_LOGIN:
        return kind, {}, orjson.dumps(_SALESFORCE_LOGIN[what])
    if what in _EDGE:
        reason = _EDGE[what]
        return "text/html", {}, f"<h1>Bad Message {what}</h1><pre>reason: {reason}</pre>".encode()
    if what in ("406", "420"):  # the edge's ways of saying "too much at once"
        return "text/html", {}, b"<html><body>Your request could not be served. Please try again.</body></html>"
    if what not in _SALESFORCE:
        return None
    code, message = _SALESFORCE[what]
    if what == "400" and call.startswith("GET"):
        code, message = "MALFORMED_QUERY", "unexpected token: 'FORM'"
    return kind, {}, orjson.dumps([{"message": message, "errorCode": code}])


# --- HubSpot (contracts/hubspot.md 4 and 5) ---------------------------------------------------------------------------

_HUBSPOT: Mapping[str, Mapping[str, Any]] = {
    "400": {"message": "Invalid input JSON on line 1, column 1: Unexpected character", "category": "VALIDATION_ERROR"},
    "401": {"message": "The OAuth token used to make this call is invalid.", "category": "INVALID_AUTHENTICATION"},
    "401_expired": {
        "message": "The OAuth token used to make this call expired 7 second(s) ago.",
        "category": "EXPIRED_AUTHENTICATION",
    },
    "403": {
        "message": "This app hasn't been granted all required scopes to make this call.",
        "category": "MISSING_SCOPES",
        "errors": [
            {
                "message": "One or more of the following scopes are required.",
                "context": {"requiredGranularScopes": ["crm.objects.contacts.write"]},
            }
        ],
    },
    "404": {"message": "resource not found", "category": "OBJECT_NOT_FOUND"},
    "409": {"message": "Contact already exists. Existing ID: 51", "category": "CONFLICT"},
    "423": {"message": "The record is locked by another operation. Try again in two seconds."},
    "429": {
        "message": "You have reached your ten_secondly_rolling limit.",
        "errorType": "RATE_LIMIT",
        "policyName": "TEN_SECONDLY_ROLLING",
        "requestId": "sandbox",
    },
    "429_daily": {
        "message": "You have reached your daily limit.",
        "errorType": "RATE_LIMIT",
        "policyName": "DAILY",
        "requestId": "sandbox",
    },
    "477": {"message": "Migration in progress"},
    "500": {"message": "internal error", "category": "ERROR"},
    "503": {"message": "internal error", "category": "ERROR"},
    "504": {"message": "internal error", "category": "ERROR"},
}
#: The token service's own shape: the code stands where the word "error" stands elsewhere.
_HUBSPOT_TOKEN = {
    "400": {"status": "BAD_REFRESH_TOKEN", "message": "missing or unknown refresh token"},
    "401": {"status": "BAD_CLIENT_SECRET", "message": "missing or invalid client secret"},
}
#: Cloudflare's, in front of HubSpot.
_CLOUDFLARE = {
    "521": "Web server is down",
    "522": "Connection timed out",
    "523": "Origin is unreachable",
    "524": "A timeout occurred",
    "525": "SSL handshake failed",
    "526": "Invalid SSL certificate",
    "530": "Origin DNS error",
}


def hubspot(what: str, call: str) -> Worded | None:
    kind, ids = "application/json;charset=utf-8", {"correlationId": "sandbox"}
    if "/oauth/" in call and what in _HUBSPOT_TOKEN:
        return kind, {}, orjson.dumps(_HUBSPOT_TOKEN[what] | ids)
    if what in ("408", "413", "414"):
        return _page(what)
    if what in _CLOUDFLARE:
        title = f"{what}: {_CLOUDFLARE[what]}"
        return "text/html; charset=UTF-8", {}, f"<!DOCTYPE html><title>{title}</title><h1>Error {title}</h1>".encode()
    said = _HUBSPOT.get("429" if what == "429_without_retry_after" else what)
    return None if said is None else (kind, {}, orjson.dumps({"status": "error", **said, **ids}))


def _page(what: str) -> Worded:
    title = f"{what} {_EDGE[what]}"
    return "text/html", {}, f"<html><head><title>{title}</title></head><body><h1>{title}</h1></body></html>".encode()
