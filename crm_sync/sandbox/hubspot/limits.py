"""HubSpot's pots: ten seconds for an app, a day for the account, a second for search."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable


class Limits:
    """None is unlimited. Refused calls count too (contracts/hubspot.md 4)."""

    def __init__(self, *, burst: int | None, daily: int | None, search: int | None, now: Callable[[], float]) -> None:
        self.burst, self.daily, self.search = burst, daily, search
        self._now = now
        self._lock = threading.Lock()
        self._recent: deque[float] = deque()
        self._searches: deque[float] = deque()
        self._today = 0
        self.refused = 0

    def take_search(self) -> str | None:
        """The policy that refuses, None when the call may pass."""
        with self._lock:
            now = self._now()
            while self._searches and now - self._searches[0] >= 1.0:
                self._searches.popleft()
            self._searches.append(now)
            self._today += 1
            return self._refuse("SECONDLY") if self.search is not None and len(self._searches) > self.search else None

    def take(self) -> tuple[str | None, dict[str, str]]:
        with self._lock:
            now = self._now()
            while self._recent and now - self._recent[0] >= 10.0:
                self._recent.popleft()
            self._recent.append(now)
            self._today += 1
            headers: dict[str, str] = {}
            if self.burst is not None:
                headers["X-HubSpot-RateLimit-Max"] = str(self.burst)
                headers["X-HubSpot-RateLimit-Remaining"] = str(max(self.burst - len(self._recent), 0))
                headers["X-HubSpot-RateLimit-Interval-Milliseconds"] = "10000"
            if self.daily is not None:
                headers["X-HubSpot-RateLimit-Daily"] = str(self.daily)
                headers["X-HubSpot-RateLimit-Daily-Remaining"] = str(max(self.daily - self._today, 0))
            if self.daily is not None and self._today > self.daily:
                return self._refuse("DAILY"), headers
            if self.burst is not None and len(self._recent) > self.burst:
                return self._refuse("TEN_SECONDLY_ROLLING"), headers
            return None, headers

    def _refuse(self, policy: str) -> str:
        self.refused += 1
        return policy
