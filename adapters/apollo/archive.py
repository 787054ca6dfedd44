"""Apollo's answers and deliveries as they are kept: who is in one, and one without somebody. Pure; needs no key."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from adapters.apollo import wire
from adapters.apollo.wire import PROVIDER
from adapters.http import parse_object
from crm_sync.domain.enrichment import MatchKeys, Purpose, Reading, Verdict
from crm_sync.errors import ContractError

#: Whether folded JSON names somebody.
Names = Callable[[bytes], bool]

#: What cannot be read as JSON, and what is nested beyond reason.
_UNREADABLE = (ValueError, RecursionError)
#: How Apollo's ids look (contracts/apollo.md 2.1, 2026-10).
_ID = re.compile(rb"(?<![0-9a-z])[0-9a-f]{24}(?![0-9a-z])")
_WORD = re.compile(rb"[\w-]+")
_EMPTY = b"{}"


class ApolloArchive:
    """ports.Archive.

    The answer to a call that orders phone numbers (Purpose.PHONE) holds the people as any other does, and is cut like
    theirs; its keys are Apollo's ids.
    """

    def read(self, purpose: Purpose, keys: Sequence[MatchKeys], body: bytes) -> Reading:
        return wire.read_answer(purpose, keys, parse_object(body, provider=PROVIDER))

    def mentions(self, body: bytes, names: Names) -> bool:
        if names(body.lower()):
            return True
        if b"\\u" not in body and b"\0" not in body:  # Ruby writes some characters as escapes; UTF-16 has zeros
            return False
        try:
            return names(_folded(json.loads(body)))
        except _UNREADABLE:
            return False

    def theirs(self, keys: Sequence[MatchKeys], body: bytes, positions: Collection[int], names: Names) -> list[Any]:
        opened = self._open(keys, body, positions, names)
        return [opened.entries[at] for at in sorted(opened.gone)] if opened is not None else []

    def without(self, keys: Sequence[MatchKeys], body: bytes, positions: Collection[int], names: Names) -> bytes:
        opened = self._open(keys, body, positions, names)
        if opened is None:
            return b"" if positions or names(body.lower()) else body
        for at in opened.gone:
            # In place: the others are paired by their position.
            opened.entries[at] = None
        if "person" in opened.tree:
            opened.tree["person"] = opened.entries[0]
        tree = _scrubbed(opened.tree, names) if names(_folded(opened.tree)) else opened.tree
        return json.dumps(tree, ensure_ascii=False, separators=(",", ":")).encode()

    # --- deliveries -----------------------------------------------------------------------------------------------

    def ids_in(self, body: bytes) -> frozenset[str]:
        tree = _delivery(body)
        people = [entry.get("id") for entry in _people_of(tree) if isinstance(entry, dict)]
        found = {each for each in people if isinstance(each, str)}
        # Of what is no delivery to us somebody may read something all the same.
        text = _folded(tree) if tree is not None else body.lower()
        return frozenset(found | {each.decode() for each in _ID.findall(text)})

    def delivery_mentions(self, body: bytes, names: Names) -> bool:
        return self.mentions(body, names) or (_delivery(body) is None and _names_in_words(body, names))

    def delivered(self, body: bytes, names: Names) -> list[Any]:
        return [entry for entry in _people_of(_delivery(body)) if entry and names(_folded(entry))]

    def delivery_without(self, body: bytes, names: Names) -> bytes:
        if not self.delivery_mentions(body, names):
            return body
        tree = _delivery(body)
        if tree is None:
            return _EMPTY
        people = _people_of(tree)
        people[:] = [entry for entry in people if not names(_folded(entry))]
        rest = _scrubbed(tree, names)
        if names(_folded(rest)):
            return _EMPTY  # by the name of a key
        return json.dumps(rest, ensure_ascii=False, separators=(",", ":")).encode()

    # --- inside ---------------------------------------------------------------------------------------------------

    def _open(self, keys: Sequence[MatchKeys], body: bytes, positions: Collection[int], names: Names) -> _Opened | None:
        try:
            tree = json.loads(body)  # not orjson: numbers beyond 64 bits keep their digits
        except _UNREADABLE:
            return None
        if not isinstance(tree, dict):
            return None
        matches = tree.get("matches")
        entries = matches if isinstance(matches, list) else [tree["person"]] if "person" in tree else []
        spared = set(self._proved_others(keys, body, positions))
        paired = len(entries) == len(keys)
        gone = set()
        for at, entry in enumerate(entries):
            if not entry:
                continue
            is_others = isinstance(entry, dict) and entry.get("id") in spared
            # Unpaired entries that prove to be nobody else's may be theirs.
            is_theirs = at in positions if paired else bool(positions)
            if (is_theirs and not is_others) or names(_folded(entry)):
                gone.add(at)
        return _Opened(tree=tree, entries=entries, gone=gone)

    def _proved_others(self, keys: Sequence[MatchKeys], body: bytes, positions: Collection[int]) -> Iterator[str]:
        try:
            reading = self.read(Purpose.PERSON, keys, body)
        except ContractError:
            return
        for at, enrichment in enumerate(reading.enrichments):
            is_proved = enrichment is not None and enrichment.verdict is Verdict.MATCHED
            if is_proved and at not in positions and enrichment is not None and enrichment.apollo_id:
                yield enrichment.apollo_id


@dataclass(slots=True)
class _Opened:
    """An answer as parsed: its entries about people, and which of them are to go."""

    tree: dict[str, Any]
    entries: list[Any]
    gone: set[int]


def _delivery(body: bytes) -> dict[str, Any] | None:
    """A delivery as parsed, in any of Apollo's three shapes; None for anything else."""
    try:
        tree = json.loads(body)
        json.dumps(tree, ensure_ascii=False).encode()  # a lone surrogate can be read, and not be written again
    except _UNREADABLE:
        return None
    return tree if isinstance(tree, dict) else None


def _people_of(tree: dict[str, Any] | None) -> list[Any]:
    """The list itself: whoever is taken out of it is out of the delivery."""
    if tree is None:
        return []
    result = tree.get("webhook_result")
    holder = result if "people" not in tree and isinstance(result, dict) else tree
    people = holder.get("people")
    return people if isinstance(people, list) else []


def _names_in_words(body: bytes, names: Names) -> bool:
    """Whether one of the words of what cannot be read is a name: nobody can tell where quotes were meant to be."""
    return names(b" ".join(b'"%s"' % word for word in _WORD.findall(body.lower())))


def _folded(tree: Any) -> bytes:
    return json.dumps(tree, ensure_ascii=False).lower().encode()


def _scrubbed(tree: Any, names: Names) -> Any:
    """Without any text that holds one of the names, wherever it stands."""
    if isinstance(tree, dict):
        return {key: _scrubbed(value, names) for key, value in tree.items()}
    if isinstance(tree, list):
        return [_scrubbed(value, names) for value in tree]
    if isinstance(tree, str) and names(_folded(tree)):
        return ""
    return tree
