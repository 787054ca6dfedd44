"""How fast HubSpot may be called: five searches a second, the app's burst window, and the account's day."""

from __future__ import annotations

import heapq
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from crm_sync.ports import Clock

#: Of the burst window, the share that is left free; below it calls are spread out instead of running into a 429.
_MARGIN = 0.1
#: Of the day's calls, the share that is left to the account's other apps (they share one pot, contracts/hubspot.md 4).
_DAILY_RESERVE = 0.01
#: What was told of the day is believed this long; then one call may find out anew (midnight may have passed).
_DAILY_BELIEVED_S = 900.0
_LONGEST_INTERVAL_S = 60.0


class SearchPace:
    """At most `per_s` searches arrive in any second, for all threads of this instance.

    A permission comes back one second after its call's **answer**: whatever the network does, the next request cannot
    arrive within a second of the one it follows (design/performance.md 5). HubSpot sends no limit headers on searches.
    """

    def __init__(self, *, per_s: int, clock: Clock) -> None:
        self._clock = clock
        self._changed = threading.Condition()
        self._free_at = [0.0] * per_s

    @contextmanager
    def turn(self) -> Iterator[None]:
        with self._changed:
            while not self._free_at:
                self._changed.wait()
            free_at = heapq.heappop(self._free_at)
        try:
            while (wait := free_at - self._now()) > 0:
                self._clock.sleep(wait)
            yield
        finally:
            with self._changed:
                heapq.heappush(self._free_at, self._now() + 1.0)
                self._changed.notify()

    def _now(self) -> float:
        return self._clock.now().timestamp()


@dataclass(frozen=True, slots=True, kw_only=True)
class DayLeft:
    """Calls the account may still make today, and how many it may make in all."""

    left: int
    limit: int

    @property
    def is_low(self) -> bool:
        return self.left < self.limit * _DAILY_RESERVE


class HeaderPace:
    """What HubSpot's own headers tell of the burst window and the day, kept for all threads."""

    def __init__(self, *, clock: Clock) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._not_before = 0.0
        self._day: tuple[float, DayLeft] | None = None
        self._calls_per_s: float | None = None

    @property
    def calls_per_s(self) -> float | None:
        """The burst limit spread over its window, None before any answer told it."""
        return self._calls_per_s

    def wait(self) -> None:
        """Hold back while the burst window is nearly used up."""
        while True:
            with self._lock:
                wait = self._not_before - self._now()
            if wait <= 0:
                return
            self._clock.sleep(wait)

    def learn(self, headers: Mapping[str, str]) -> None:
        """Take an answer's limit headers; searches and OAuth apps lack some or all of them."""
        limit, left = _count(headers, "max"), _count(headers, "remaining")
        interval_s = min((_count(headers, "interval-milliseconds") or 10_000) / 1000.0, _LONGEST_INTERVAL_S)
        day, day_left = _count(headers, "daily"), _count(headers, "daily-remaining")
        with self._lock:
            if limit and left is not None:
                self._calls_per_s = limit / interval_s
                if left < limit * _MARGIN:
                    # The window rolls: the fewer are left, the longer until the oldest calls fall out of it.
                    self._not_before = max(self._not_before, self._now() + interval_s / (left + 1))
            if day and day_left is not None:
                self._day = (self._now(), DayLeft(left=day_left, limit=day))

    def day(self) -> DayLeft | None:
        """What is left of the day, None when HubSpot did not say lately."""
        with self._lock:
            if self._day is None or self._now() - self._day[0] > _DAILY_BELIEVED_S:
                return None
            return self._day[1]

    def _now(self) -> float:
        return self._clock.now().timestamp()


def _count(headers: Mapping[str, str], name: str) -> int | None:
    text = (headers.get(f"x-hubspot-ratelimit-{name}") or "").strip()
    return int(text) if text.isdecimal() else None
