"""A script of faults: which call, before or after its effect, what goes wrong."""

from __future__ import annotations

import errno
import fnmatch
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

#: How a service words an error status: (name of the fault, call) -> (content type, further headers, body); None where
#: it has no such answer.
Wording = Callable[[str, str], tuple[str, Mapping[str, str], bytes] | None]

_HTML = b"<html><head><title>502 Bad Gateway</title></head><body><h1>502 Bad Gateway</h1></body></html>"
#: Each begins with its status. Not every service has every one: see Faults.what.
_STATUSES = (
    "400", "401", "401_expired", "403", "403_daily", "403_permission", "404", "406", "408", "409", "410", "413", "414",
    "420", "422", "423", "429", "429_daily", "429_without_retry_after", "431", "477", "500", "503", "504", "521", "522",
    "523", "524", "525", "526", "530",
)  # fmt: skip
_TELL_WHEN = frozenset({"429", "477"})
_OTHERS = (
    "502_html", "cut", "garbage", "wrong_type", "empty", "silence", "slow", "reset", "redirect", "huge", "not_utf8",
)  # fmt: skip
WHAT = (*_STATUSES, *_OTHERS)
_MOST = 1_000_000_000
_KEYS = {"call", "nth", "times", "when", "what", "retry_after", "seconds"}

#: status line's number and reason, headers, body
Answer = tuple[str, list[tuple[str, str]], bytes]


@dataclass(slots=True)
class Fault:
    """`call` as in /_sandbox/calls, * for any; the `nth` matching call and the `times` - 1 after it go wrong."""

    call: str
    what: str
    when: str = "before"
    nth: int = 1
    times: int = 1
    retry_after: float = 1.0
    seconds: float = 5.0
    met: int = 0
    fired: int = 0

    def meets(self, call: str) -> bool:
        if not is_meant(self.call, call):
            return False
        self.met += 1
        if self.nth <= self.met < self.nth + self.times:
            self.fired += 1
            return True
        return False


class Faults:
    """The script in force. Thread-safe.

    `what`: the names of all faults this service can have at any call; some calls have further ones of their own.
    """

    def __init__(self, wording: Wording) -> None:
        self.what = (*(name for name in _STATUSES if wording(name, "*") is not None), *_OTHERS)
        self._wording = wording
        self._lock = threading.Lock()
        self._faults: list[Fault] = []

    def add(self, script: Any) -> None:
        """
        Raises:
            ValueError: the script is not one; nothing of it is taken.
        """
        if not isinstance(script, list):
            raise ValueError("a script is a list of faults")
        faults = [_fault(entry, self._at(entry)) for entry in script]
        with self._lock:
            self._faults += faults

    def _at(self, entry: Any) -> tuple[str, ...]:
        """The names of all faults that the entry's call can have."""
        call = entry.get("call") if isinstance(entry, Mapping) else None
        if not isinstance(call, str):
            return self.what
        own = (name for name in _STATUSES if name not in self.what and self._wording(name, call) is not None)
        return (*self.what, *own)

    def clear(self) -> None:
        with self._lock:
            self._faults.clear()

    def listed(self) -> list[dict[str, Any]]:
        with self._lock:
            return [{name: getattr(fault, name) for name in fault.__slots__} for fault in self._faults]

    def take(self, call: str) -> Fault | None:
        """The fault this call meets, if any."""
        if not self._faults:
            return None
        with self._lock:
            met = [fault for fault in self._faults if fault.meets(call)]
        return met[0] if met else None

    def spoil(self, fault: Fault, call: str, answer: Answer | None, connection: socket.socket | None) -> Answer:
        """What the caller gets instead of the `answer` to its `call` (None: nothing was done).

        Raises:
            ConnectionResetError: the caller gets no whole answer; what there is went out on the `connection`.
        """
        what = fault.what
        if what in _STATUSES:
            kind, headers, body = self._wording(what, call) or ("text/plain", {}, b"")
            if what in _TELL_WHEN:
                headers = {**headers, "Retry-After": f"{fault.retry_after:g}"}
            return f"{what[:3]} Error", [("Content-Type", kind), *headers.items()], body
        if what == "502_html":
            return "502 Bad Gateway", [("Content-Type", "text/html")], _HTML
        if what == "garbage":
            return "200 OK", [("Content-Type", "application/json")], b'{"status": "succ\x00\xff<!'
        if what == "wrong_type":
            return "200 OK", [("Content-Type", "application/json")], b'["unexpected"]'
        if what == "empty":
            return "200 OK", [("Content-Type", "application/json")], b""
        if what == "not_utf8":
            return "500 Error", [("Content-Type", "text/html; charset=utf-8")], "<p>Défaillance</p>".encode("latin-1")
        if what == "huge":
            return "200 OK", [("Content-Type", "application/json")], b'{"filler": "' + b"x" * (48 << 20) + b'"}'
        if what == "redirect":
            return "302 Found", [("Location", "http://127.0.0.2:9/elsewhere")], b""
        if what == "slow" and answer is not None:
            time.sleep(fault.seconds)
            return answer
        self._break(fault, answer, connection)
        raise ConnectionResetError(errno.ECONNRESET, "spoiled by the script of faults")

    def _break(self, fault: Fault, answer: Answer | None, connection: socket.socket | None) -> None:
        if connection is None:
            return
        if fault.what in ("silence", "slow"):
            time.sleep(fault.seconds)
        elif fault.what == "cut":
            body = answer[2] if answer is not None else b'{"status": "success", "matches": [{"id": "0000'
            half = body[: max(len(body) // 2, 1)]
            head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(body) + 64}\r\n\r\n"
            connection.sendall(head.encode() + half)
        if fault.what == "reset":
            # With a linger time of nought, closing sends RST at once.
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            connection.close()
        else:
            connection.shutdown(socket.SHUT_RDWR)


def _fault(entry: Any, whats: Iterable[str]) -> Fault:
    if not isinstance(entry, Mapping) or not {"call", "what"} <= set(entry):
        raise ValueError('a fault is an object with "call" and "what"')
    unknown = set(entry) - _KEYS
    if unknown:
        raise ValueError(f"a fault has no {listed_words(unknown)}; it may have {listed_words(_KEYS)}")
    if not isinstance(entry["call"], str) or not isinstance(entry["what"], str):
        raise ValueError('"call" and "what" are texts')
    for name in ("nth", "times"):
        check_number(name, entry.get(name, 1), 1, whole=True)
    for name in ("retry_after", "seconds"):
        check_number(name, entry.get(name, 0), 0, whole=False)
    if entry["what"] not in WHAT:
        raise ValueError(f"no fault is called {entry['what']!r}; there are {listed_words(whats)}")
    if entry["what"] not in whats:
        raise ValueError(f"this service never answers {entry['what']!r}; it may have {listed_words(whats)}")
    if entry.get("when", "before") not in ("before", "after"):
        raise ValueError('"when" is before or after')
    return Fault(**entry)


def is_meant(pattern: str, call: str) -> bool:
    """Whether `call` ("METHOD path-template") matches `pattern`, in which * stands for anything."""
    return fnmatch.fnmatchcase(call, pattern.replace("[", "[[]"))


def check_number(name: str, value: Any, least: int, *, whole: bool) -> None:
    """
    Raises:
        ValueError: `value` is none of at least `least`; the sentence says `name`.
    """
    is_number = isinstance(value, int if whole else int | float) and not isinstance(value, bool)
    if not is_number or not least <= value < _MOST:
        kind = "a whole number" if whole else "a number"
        raise ValueError(f'"{name}" is {kind} of at least {least}, not {value!r}')


def listed_words(words: Iterable[str]) -> str:
    return ", ".join(sorted(words))
