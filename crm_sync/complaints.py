"""What goes wrong in a loop that never ends is logged once, not at each try."""

from __future__ import annotations

import logging
import time

from crm_sync.errors import CrmSyncError

_TELL_AGAIN_S = 3600.0


class Complaints:
    """Of one loop. Each trouble is told when it is new, and again after an hour; `over` makes all of them new."""

    def __init__(self, log: logging.Logger, consequence: str) -> None:
        """`consequence`: what it means, before each trouble: "queued runs wait"."""
        self._log = log
        self._consequence = consequence
        self._told: dict[str, float] = {}

    def about(self, error: Exception) -> None:
        """Of an error that nobody foresaw the log gets the place too."""
        if isinstance(error, CrmSyncError):
            self.tell(f"{self._consequence}: {error}")
        elif self._is_news(type(error).__name__):
            self._log.error("%s: unexpected %s", self._consequence, type(error).__name__, exc_info=error)

    def tell(self, trouble: str) -> None:
        if self._is_news(trouble):
            self._log.warning("%s", trouble)

    def over(self) -> None:
        self._told.clear()

    def _is_news(self, trouble: str) -> bool:
        now = time.monotonic()
        if now - self._told.get(trouble, -_TELL_AGAIN_S) < _TELL_AGAIN_S:
            return False
        self._told[trouble] = now
        return True
