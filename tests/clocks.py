"""A clock that tests turn by hand: sleeping takes no time and moves it on."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta


class FakeClock:
    """ports.Clock; `slept` holds what was asked of `sleep`."""

    def __init__(self, moment: datetime = datetime(2026, 10, 8, 12, 0, tzinfo=UTC)) -> None:
        self.moment = moment
        self.slept: list[float] = []
        self._lock = threading.Lock()

    def now(self) -> datetime:
        return self.moment

    def sleep(self, seconds: float) -> None:
        with self._lock:
            self.slept.append(seconds)
            self.moment += timedelta(seconds=seconds)

    def forward(self, seconds: float) -> None:
        self.moment += timedelta(seconds=seconds)
