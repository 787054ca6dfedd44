"""The account's limits: each app's ten seconds, the day all private apps share, five searches a second for all."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

from crm_sync.sandbox.hubspot.auth import Caller
from crm_sync.sandbox.hubspot.errors import RequestError, correlation_id

BURST_S = 10.0
SEARCH_S = 1.0
#: What a public OAuth app may call in ten seconds, whatever the account bought (contracts/hubspot.md 4, 2026-11).
OAUTH_BURST = 110


class Limits:
    """Thread-safe. None is no limit, and no header. Windows roll, and refused calls count in them as well: whether
    HubSpot's do is not known (contracts/hubspot.md 4, 2026-11), and whoever respects this respects either."""

    def __init__(
        self,
        *,
        burst: int | None,
        daily: int | None,
        used_today: int = 0,
        searches_per_s: int | None,
        time_zone: str,
        now: Callable[[], float] = time.time,
    ) -> None:
        self.daily = daily
        self.used_today = used_today
        self.refused = 0
        self._burst = burst
        self._searches_per_s = searches_per_s
        self._zone = ZoneInfo(time_zone)
        self._now = now
        self._lock = threading.Lock()
        self._calls: dict[str, deque[float]] = {}
        self._searches: deque[float] = deque()
        self._day = self._today()

    def take(self, caller: Caller, *, is_search: bool) -> dict[str, str]:
        """Count a call and return the headers its answer gets.

        Raises:
            RequestError: 429, with the same headers.
        """
        with self._lock:
            policy, headers = self._count(caller, is_search)
            if policy:
                self.refused += 1
        if policy:
            raise RequestError(
                429,
                f"You have reached your {policy.lower()} limit.",
                extra={"errorType": "RATE_LIMIT", "policyName": policy, "requestId": correlation_id()},
                headers=headers,
            )
        return headers

    def _count(self, caller: Caller, is_search: bool) -> tuple[str, dict[str, str]]:
        """The policy that is broken, "" for none, and the headers."""
        if self._day != self._today():
            self._day, self.used_today = self._today(), 0
        policy = ""
        if not caller.is_oauth:
            if self.daily is not None and self.used_today >= self.daily:
                policy = "DAILY"
            self.used_today += 1
        now = self._now()
        if is_search:
            # Searches have their own limit, not the burst's, and no headers (contracts/hubspot.md 2.1, 2026-11).
            if self._searches_per_s is not None and _arrived(self._searches, now, SEARCH_S) > self._searches_per_s:
                policy = policy or "SECONDLY"
            return policy, {}
        headers: dict[str, str] = {}
        if self._burst is not None:
            limit = min(self._burst, OAUTH_BURST) if caller.is_oauth else self._burst
            arrived = _arrived(self._calls.setdefault(caller.app, deque()), now, BURST_S)
            if arrived > limit:
                policy = policy or "TEN_SECONDLY_ROLLING"
            headers = {
                "X-HubSpot-RateLimit-Max": str(limit),
                "X-HubSpot-RateLimit-Remaining": str(max(limit - arrived, 0)),
                "X-HubSpot-RateLimit-Interval-Milliseconds": str(round(BURST_S * 1000)),
            }
        if not caller.is_oauth and self.daily is not None:
            headers["X-HubSpot-RateLimit-Daily"] = str(self.daily)
            headers["X-HubSpot-RateLimit-Daily-Remaining"] = str(max(self.daily - self.used_today, 0))
        return policy, headers

    def resets_at(self) -> str:
        """The account's next midnight, as UTC."""
        tomorrow = datetime.combine(self._today() + timedelta(days=1), datetime.min.time(), self._zone)
        return tomorrow.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")

    def utc_offset(self) -> timedelta:
        return datetime.fromtimestamp(self._now(), self._zone).utcoffset() or timedelta()

    def _today(self) -> date:
        return datetime.fromtimestamp(self._now(), self._zone).date()


def _arrived(window: deque[float], now: float, seconds: float) -> int:
    """Add a call to a rolling window and say how many it holds."""
    while window and window[0] <= now - seconds:
        window.popleft()
    window.append(now)
    return len(window)
