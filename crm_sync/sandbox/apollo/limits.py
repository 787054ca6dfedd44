"""Apollo's rate limits: three fixed windows for each endpoint, opened by the first request in them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

#: (name of the limit header, name in the usage headers, seconds)
WINDOWS = (("minute", "minute", 60.0), ("hourly", "hourly", 3600.0), ("24-hour", "24-hour", 86_400.0))


class Limits:
    """Counts the calls of one team. `most`: calls a minute, an hour, a day; None is unlimited."""

    def __init__(
        self, most: tuple[int | None, int | None, int | None], *, now: Callable[[], float] = time.monotonic
    ) -> None:
        self.most = most
        self._now = now
        self._lock = threading.Lock()
        self._open: dict[tuple[str, int], tuple[float, int]] = {}
        self.refused = 0
        #: How many calls were taken in each minute that has ended, by endpoint.
        self.minutes: dict[str, list[int]] = {}

    def take(self, endpoint: str) -> tuple[dict[str, str], tuple[int, str, int] | None]:
        """(headers, None), or (headers, (retry-after seconds, window's name, its limit)) when a window is full."""
        headers: dict[str, str] = {}
        full: tuple[int, str, int] | None = None
        with self._lock:
            now = self._now()
            states = []
            for place, (most, (_, _, seconds)) in enumerate(zip(self.most, WINDOWS, strict=True)):
                began, used = self._open.get((endpoint, place), (now, 0))
                if now - began >= seconds:
                    if place == 0:
                        self.minutes.setdefault(endpoint, []).append(used)
                    began, used = now, 0
                states.append((began, used))
                if most is not None and used >= most:
                    wait = int(began + seconds - now) + 1
                    if full is None or wait > full[0]:
                        full = (wait, ("minute", "hour", "day")[place], most)
            for place, (began, used) in enumerate(states):
                now_used = used + (full is None)
                self._open[endpoint, place] = (began, now_used)
                limit, usage, _ = WINDOWS[place]
                most = self.most[place]
                headers[f"x-rate-limit-{limit}"] = "" if most is None else str(most)
                if most is not None:
                    headers[f"x-{usage}-usage"] = str(now_used)
                    headers[f"x-{usage}-requests-left"] = str(max(most - now_used, 0))
            if full is not None:
                self.refused += 1
        return headers, full

    def usage(self, endpoint: str) -> dict[str, dict[str, int | None]]:
        with self._lock:
            found = {}
            for place, name in enumerate(("minute", "hour", "day")):
                most = self.most[place]
                _, used = self._open.get((endpoint, place), (0.0, 0))
                found[name] = {
                    "limit": most,
                    "consumed": used,
                    "left_over": None if most is None else max(most - used, 0),
                }
            return found
