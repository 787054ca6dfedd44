"""A script of edits at the same time: which call, and what a colleague changes just before or just after its effect."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from crm_sync.sandbox.faults import check_number, is_meant, listed_words

#: A simulator's `edit`: (object type, record id, fields) -> the record. Raises ValueError with a sentence.
Make = Callable[[str, str, dict[str, Any]], dict[str, Any]]

_NEEDED = {"call", "object", "id", "fields"}
_KEYS = _NEEDED | {"nth", "times", "when"}


@dataclass(slots=True)
class Edit:
    """`call` as in /_sandbox/calls, * for any; with the `nth` matching call and the `times` - 1 after it the record is
    edited. `refused`: what the simulator said to the last edit that it did not take."""

    call: str
    object: str
    id: str
    fields: Mapping[str, Any]
    nth: int = 1
    times: int = 1
    when: str = "before"
    met: int = 0
    fired: int = 0
    refused: str = ""

    def meets(self, call: str) -> bool:
        if not is_meant(self.call, call):
            return False
        self.met += 1
        return self.nth <= self.met < self.nth + self.times


class Edits:
    """The script in force. Thread-safe. `make` carries an edit out."""

    def __init__(self, make: Make) -> None:
        self._make = make
        self._lock = threading.Lock()
        self._edits: list[Edit] = []

    def add(self, script: Any) -> None:
        """
        Raises:
            ValueError: the script is not one, or names no record that is there; nothing of it is taken.
        """
        if not isinstance(script, list):
            raise ValueError("a script is a list of edits")
        edits = [_edit(entry) for entry in script]
        for edit in edits:
            self._make(edit.object, edit.id, {})
        with self._lock:
            self._edits += edits

    def clear(self) -> None:
        with self._lock:
            self._edits.clear()

    def listed(self) -> list[dict[str, Any]]:
        with self._lock:
            return [{name: getattr(edit, name) for name in edit.__slots__} for edit in self._edits]

    def take(self, call: str) -> list[Edit]:
        """The edits this call meets, to be made when their time comes."""
        if not self._edits:
            return []
        with self._lock:
            return [edit for edit in self._edits if edit.meets(call)]

    def make(self, edits: Iterable[Edit], when: str) -> None:
        """Those of `edits` that come `when`. One that the simulator refuses says so in the list, not to the caller."""
        for edit in edits:
            if edit.when != when:
                continue
            try:
                self._make(edit.object, edit.id, dict(edit.fields))
            except ValueError as error:
                edit.refused = str(error)
            else:
                with self._lock:
                    edit.fired += 1


def _edit(entry: Any) -> Edit:
    if not isinstance(entry, Mapping) or not set(entry) >= _NEEDED:
        raise ValueError('an edit is an object with "call", "object", "id" and "fields"')
    unknown = set(entry) - _KEYS
    if unknown:
        raise ValueError(f"an edit has no {listed_words(unknown)}; it may have {listed_words(_KEYS)}")
    if not all(isinstance(entry[name], str) for name in ("call", "object", "id")):
        raise ValueError('"call", "object" and "id" are texts')
    if not isinstance(entry["fields"], Mapping) or not entry["fields"]:
        raise ValueError('"fields" is an object of the fields to change')
    for name in ("nth", "times"):
        check_number(name, entry.get(name, 1), 1, whole=True)
    if entry.get("when", "before") not in ("before", "after"):
        raise ValueError('"when" is before or after')
    return Edit(**entry)
