"""Full tens of distinct match keys; the same person asked for twice is one look-up fanned out to all."""

from __future__ import annotations

import threading
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

    def answered(self, key: str) -> list[Due]:
        """All records that wait for this key; it is closed now."""
        with self._lock:
            return self._waiting.pop(key, [])

    def _close(self) -> Batch:
        batch = Batch(keys=tuple(self._filling))
        self._filling = []
        return batch
