"""What a call about people orders besides the people: the flags, and where the phone numbers are to be sent."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote, urlsplit

from werkzeug.datastructures import MultiDict

from crm_sync.sandbox.apollo.errors import Refusal

FLAGS = {"reveal_personal_emails", "reveal_phone_number", "run_waterfall_email", "run_waterfall_phone", "webhook_url"}
_NOT_YET = ("run_waterfall_email", "run_waterfall_phone")
#: The sandbox never talks to anything outside this machine; the service itself demands https (contracts/apollo.md 3).
_HOSTS = ("127.0.0.1", "localhost", "::1")
_URL = re.compile(r"[A-Za-z0-9\-._~:/?#\[\]!$&'()*+,;=%]+\Z")
_NO_URL = {"error": "Please add a valid 'webhook_url' parameter"}


def webhook_of(
    content: Mapping[str, Any], query: MultiDict[str, str], *, flags_in_body: bool, variant: str
) -> str | None:
    """Where the ordered phone numbers go, None when the call orders none.

    `flags_in_body`: the older contract, in which a flag may stand in the body; else a reveal there is ignored without a
    word, with its URL (contracts/apollo.md 2.1).

    Raises:
        Refusal: flags that the sandbox or the service takes no part in.
    """
    for flag in _NOT_YET:
        if str(query.get(flag, content.get(flag, "false"))).lower() == "true":
            raise Refusal(422, {"error": f"sandbox: {flag} is not simulated yet"})
    for name in ("reveal_phone_number", "webhook_url"):
        if len(query.getlist(name)) > 1:
            raise Refusal(422, {"error": f"sandbox: {name} is given more than once"})
    url = query.get("webhook_url") or (content.get("webhook_url") if flags_in_body else None)
    if _is_set(query.get("reveal_phone_number")) or (flags_in_body and _is_set(content.get("reveal_phone_number"))):
        return _checked(url, variant)
    is_ignored = not flags_in_body and _is_set(content.get("reveal_phone_number"))
    if url or (content.get("webhook_url") and not is_ignored):
        raise Refusal(422, {"error": "webhook_url is only allowed with reveal_phone_number"})
    return None


def _is_set(flag: object) -> bool:
    if flag in (None, "", False, "false"):
        return False
    if flag in (True, "true"):
        return True
    # What the service makes of "True" or "1" is not known: who sends it does not know either.
    raise Refusal(422, {"error": f"sandbox: reveal_phone_number is true or false, not {flag!r}"})


def _checked(url: object, variant: str) -> str:
    if not isinstance(url, str) or not url:
        raise Refusal(422, _NO_URL)
    if "://" not in url and "%" in url:
        # Encoded twice: what the query's decoding left is no URL yet (contracts/apollo.md 3: "encode once").
        if variant == "b":
            raise Refusal(422, _NO_URL)
        url = unquote(url)
    if not _URL.match(url):
        raise Refusal(422, _NO_URL)
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise Refusal(422, _NO_URL) from None
    if parts.scheme not in ("http", "https") or not parts.hostname or port == 0:
        raise Refusal(422, _NO_URL)
    if parts.scheme != "http" or parts.hostname not in _HOSTS:
        message = f"sandbox: webhook_url is http on {', '.join(_HOSTS[:-1])} or {_HOSTS[-1]}, nothing outside"
        raise Refusal(422, {"error": message})
    return url
