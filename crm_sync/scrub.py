"""What no text of ours may hold, cut out of it: the last of several nets, for words that others wrote."""

from __future__ import annotations

import re

#: Whatever follows /webhooks/, also where the slashes are doubled or encoded; and a token that stands elsewhere, as in
#: a Referer: who reads one may ring for its order.
_HOOK = re.compile(r"(?:/|%2f)+webhooks(?:/|%2f)+[^\s\"'<>]*", re.IGNORECASE)
_TOKEN = re.compile(r"v1_[0-9a-f]{16}_[0-9a-f]{32}[0-9a-f_]*", re.IGNORECASE)
_EMAIL = re.compile(r"[^\s\"'<>(),;:=/…\[\]{}]+@[^\s\"'<>(),;:=/\[\]{}@]+\.[^\s\"'<>(),;:=/\[\]{}@.]+")
#: Seven digits and more behind a plus, with what people put between them.
_PHONE = re.compile(r"\+\(?\d(?:[\s().\-/]{0,2}\d){6,14}(?!\d)")
#: user:password@ of an address, and what is named like a secret.
_PASSWORD = re.compile(r"(?<=://)[^\s/@]+@")
_NAMED = re.compile(
    r"(?P<name>(?:x-)?api[_-]?key|access[_-]?token|refresh[_-]?token|client[_-]?secret|session[_-]?id|password|passwd|"
    r"secret|bearer|authorization|token)(?P<between>[\"']?\s*[:=]\s*[\"']?(?:bearer\s+|basic\s+)?|\s+(?=\S{16}))"
    r"(?P<value>[^\s\"'&,;]+)",
    re.IGNORECASE,
)


def scrubbed(text: str) -> str:
    """`text` without mail addresses, phone numbers, passwords and tokens, on one line for each it had."""
    text = _PASSWORD.sub("…@", masked(text))
    text = _NAMED.sub(lambda found: f"{found['name']}{found['between']}…", text)
    text = _PHONE.sub("(a number)", _EMAIL.sub("(an address)", text))
    return "".join(each if each.isprintable() or each == "\n" else " " for each in text)


def masked(text: str) -> str:
    """`text` without tokens of callback addresses."""
    return _TOKEN.sub("v1_…", _HOOK.sub("/webhooks/apollo/…", text))
