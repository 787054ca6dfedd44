"""A script of callbacks: which order's, and what becomes of it on the way to the receiver."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from crm_sync.sandbox.faults import check_number, listed_words

#: What can become of a callback. Where not said otherwise the body is the documented native one, and a poll has it too.
WHAT = {
    "early": "delivered before the order's own answer leaves",
    "late": "delivered `seconds` after the reveal finished; a poll has it since then",
    "double": "the same bytes twice",
    "reversed": "held back until the callback of a later order was sent",
    "never": "not sent; a poll has it",
    "changed": "delivered, then once more with other numbers, which a poll has from then on",
    "enveloped": "as a poll's answer: request_id, webhook_status, webhook_result",
    "waterfall": "the shape of a waterfall's callback; a poll has that shape too",
    "latin1": "a body that is not UTF-8",
    "huge": "a body over 256 KiB; the poll's is as usual",
    "nothing": "nothing was found for anybody, and nothing is charged",
    "foreign": "with a person more than were ordered; a poll has them too",
    "chunked": "in chunks, without a Content-Length",
    "failed": "not delivered, says the poll, which has the numbers all the same",
}
_KEYS = {"what", "nth", "times", "seconds"}


@dataclass(slots=True)
class Script:
    """What becomes of the callback of the `nth` order from now on and of the `times` - 1 after it."""

    what: str
    nth: int = 1
    times: int = 1
    seconds: float = 2.0
    met: int = 0
    fired: int = 0

    def meets(self) -> bool:
        self.met += 1
        return self.nth <= self.met < self.nth + self.times


class Callbacks:
    """The script in force. Thread-safe. Orders are counted when they are made, those that start no reveal are none."""

    def __init__(self, script: Any = ()) -> None:
        self._lock = threading.Lock()
        self._scripts: list[Script] = []
        self.add(list(script))

    def add(self, script: Any) -> None:
        """
        Raises:
            ValueError: the script is not one; nothing of it is taken.
        """
        if not isinstance(script, list):
            raise ValueError("a script is a list of callbacks")
        scripts = [_script(entry) for entry in script]
        with self._lock:
            self._scripts += scripts

    def clear(self) -> None:
        with self._lock:
            self._scripts.clear()

    def listed(self) -> list[dict[str, Any]]:
        with self._lock:
            return [{name: getattr(script, name) for name in script.__slots__} for script in self._scripts]

    def take(self) -> Script | None:
        """What becomes of the order that is made now, None for nothing out of the ordinary."""
        with self._lock:
            met = [script for script in self._scripts if script.meets()]
            if not met:
                return None
            met[0].fired += 1
            return met[0]


def _script(entry: Any) -> Script:
    if not isinstance(entry, Mapping) or "what" not in entry:
        raise ValueError('a callback is an object with "what"')
    unknown = set(entry) - _KEYS
    if unknown:
        raise ValueError(f"a callback has no {listed_words(unknown)}; it may have {listed_words(_KEYS)}")
    if not isinstance(entry["what"], str) or entry["what"] not in WHAT:
        raise ValueError(
            f"nothing that becomes of a callback is called {entry['what']!r}; there are {listed_words(WHAT)}"
        )
    for name in ("nth", "times"):
        check_number(name, entry.get(name, 1), 1, whole=True)
    check_number("seconds", entry.get("seconds", 0), 0, whole=False)
    return Script(**entry)
