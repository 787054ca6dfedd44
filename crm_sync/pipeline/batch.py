"""Full tens of distinct match keys; the same person asked for twice is one look-up fanned out to all."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from dataclasses import dataclass

from crm_sync.domain.enrichment import MatchKeys
from crm_sync.pipeline.walk import Due


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Distinct keys for one paid call, in order. `single`: one key, for the single endpoint."""

    keys: tuple[MatchKeys, ...]
    single: bool = False


class Desk:
    """Where due records wait for their answer, by key. Thread-safe.

    A key is open from the moment it is taken until `answered`. One that comes back later, because its page was looked
    up before the answer was there, is held by the journal's guard and served from the store.
    """

    def __init__(self, per_call: int) -> None:
        self._per_call = per_call
        self._lock = threading.Lock()
        self._filling: list[MatchKeys] = []
        self._waiting: dict[str, list[Due]] = {}

    def take(self, due: Due, *, alone: bool = False) -> Batch | None:
        """Let a record wait; returns a batch when this one filled it, or when it is to be asked for `alone`."""
        key = due.keys.key
        with self._lock:
            waiting = self._waiting.get(key)
            if waiting is not None:
                waiting.append(due)
                return None
            self._waiting[key] = [due]
            if alone:
                return Batch(keys=(due.keys,), single=True)
            self._filling.append(due.keys)
            return self._close() if len(self._filling) == self._per_call else None

    def rest(self) -> Batch | None:
        """The last batch, which may be smaller."""
        with self._lock:
            return self._close() if self._filling else None

    def waiting(self, key: str) -> list[Due]:
        """The records that wait for this key so far."""
        with self._lock:
            return list(self._waiting.get(key, ()))

    def answered(self, key: str) -> list[Due]:
        """All records that wait for this key; it is closed now."""
        with self._lock:
            return self._waiting.pop(key, [])

    def _close(self) -> Batch:
        batch = Batch(keys=tuple(self._filling))
        self._filling = []
        return batch


def likely_same_together(batches: Iterable[Batch], per_call: int) -> list[Batch]:
    """The same keys in as many calls, those that may be one person in one call: Apollo charges a person once a call,
    however often the call names them (contracts/apollo.md 2.1, 2026-10).

    May be one: the same LinkedIn page, or the same name at the same employer, whatever addresses they gave. Calls for
    the single endpoint stay as they are.
    """
    formed = list(batches)
    keys = [key for batch in formed if not batch.single for key in batch.keys]
    return [batch for batch in formed if batch.single] + [Batch(keys=call) for call in _regrouped(keys, per_call)]


def _regrouped(keys: list[MatchKeys], per_call: int) -> list[tuple[MatchKeys, ...]]:
    groups: dict[str, list[MatchKeys]] = {}
    for key in keys:
        groups.setdefault(_soft_identity(key) or key.key, []).append(key)
    if len(groups) == len(keys):
        return [tuple(keys[at : at + per_call]) for at in range(0, len(keys), per_call)]
    calls: list[list[MatchKeys]] = [[] for _ in range(-(-len(keys) // per_call))]
    for group in sorted(groups.values(), key=len, reverse=True):
        fitting = next((call for call in calls if len(call) + len(group) <= per_call), None)
        if fitting is not None:
            fitting += group
            continue
        for key in group:  # it fits nowhere whole
            next(call for call in calls if len(call) < per_call).append(key)
    return [tuple(call) for call in calls]


def _soft_identity(key: MatchKeys) -> str:
    if key.linkedin_url:
        return key.linkedin_url
    name = (key.name or f"{key.first_name} {key.last_name}").strip().casefold()
    return f"{name}@{key.domain}" if name and key.domain else ""
