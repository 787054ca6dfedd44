"""Who may call: keys, scopes and limits, and the body as an object (contracts/apollo.md 1 and 4)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import orjson
from flask import request

from crm_sync.sandbox.apollo.errors import Refusal, failed
from crm_sync.sandbox.apollo.limits import Limits
from crm_sync.sandbox.wordings import UNKNOWN_KEY


class Gate:
    """What every call passes first. `limits` of the endpoints that charge; another set of them is given to `admit`."""

    def __init__(
        self, api_key: str, limits: Limits, *, key_in_body: bool, scopes: Sequence[str] | None, variant: str
    ) -> None:
        self._api_key = api_key
        self._limits = limits
        self._key_in_body = key_in_body
        self._scopes = scopes
        self._variant = variant

    def admit(self, endpoint: str, *, limits: Limits | None = None) -> tuple[dict[str, Any], dict[str, str]]:
        """(the body, the answer's rate headers)."""
        content = self._content(endpoint)
        self.check_key(content)
        content.pop("api_key", None)
        if self._scopes is not None and endpoint not in self._scopes:
            raise Refusal(
                403,
                {
                    "error": f"This API key is not authorized to access api/v1/{endpoint}. Request an API key "
                    "from your administrator that includes this endpoint in its configured scope.",
                    "error_code": "API_INACCESSIBLE",
                },
            )
        headers, full = (limits or self._limits).take(endpoint)
        if full is not None:
            wait, window, most = full
            message = f"The maximum number of api calls allowed for api/v1/{endpoint} is {most} times per {window}."
            raise Refusal(429, {"message": message}, {**headers, "retry-after": str(wait)})
        return content, headers

    def check_key(self, content: Mapping[str, Any]) -> None:
        if self._key_in_body:
            given = content.get("api_key") or request.args.get("api_key")
        else:
            given = request.headers.get("x-api-key")
            if given is None and ("api_key" in content or "api_key" in request.args):
                if self._variant == "b":
                    raise Refusal(401, {"error": "Invalid access credentials."})
                message = "API key must be passed in the X-Api-Key header for security reasons"
                raise Refusal(422, {"error": message, "error_code": "INVALID_API_KEY_LOCATION"})
        if given != self._api_key:
            raise Refusal(401, UNKNOWN_KEY, text=True)

    def _content(self, endpoint: str) -> dict[str, Any]:
        raw = request.get_data()
        if not raw:
            return {}
        try:
            content = orjson.loads(raw)
        except ValueError:
            raise Refusal(400, failed("INVALID_REQUEST", f"invalid request, no JSON body for {endpoint}")) from None
        if not isinstance(content, dict):
            raise Refusal(422, failed("UNKNOWN_ERROR", "no implicit conversion of Symbol into Integer"))
        return content
