"""The address under which Apollo delivers, and whether a delivery that is sent there arrives."""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable

from crm_sync import crash
from crm_sync.errors import CrmSyncError, StoreError
from crm_sync.ports import Clock
from crm_sync.store.deliveries import Deliveries
from crm_sync.store.hook_tokens import HookTokens, new_order_id

SETTING = "CRM_SYNC_PUBLIC_URL"
#: A problem is looked at anew after so long, and so is its absence.
_LOOK_AGAIN_S = 60.0
_PATH = "/webhooks/apollo/"


class PublicAddress:
    """ports.Callbacks. `send` posts bytes to a path below the address and returns the status, or raises a
    CrmSyncError; it is None where no address is set. Thread-safe."""

    def __init__(
        self,
        base_url: str,
        *,
        tokens: Callable[[], HookTokens],
        deliveries: Callable[[], Deliveries],
        send: Callable[[str, bytes], int] | None,
        clock: Clock,
    ) -> None:
        self._base_url = base_url.rstrip("/")
        self._tokens = tokens
        self._deliveries = deliveries
        self._send = send
        self._clock = clock
        self._lock = threading.Lock()
        self._looked_at: float | None = None
        self._problem = ""

    def url_of(self, order_id: str) -> str:
        return f"{self._base_url}{self._path(order_id)}"

    def _path(self, order_id: str) -> str:
        return f"{_PATH}{self._tokens().make(order_id, now=self._clock.now())}"

    def problem(self) -> str:
        with self._lock:
            if self._looked_at is None or time.monotonic() - self._looked_at > _LOOK_AGAIN_S:
                self._problem = self._probe()
                self._looked_at = time.monotonic()
            return self._problem

    def _probe(self) -> str:
        """Send ourselves a delivery, and see it arrive in our own database: an answer alone could be anybody's."""
        if self._send is None:
            return f"{SETTING} is not set, so Apollo has no address to deliver phone numbers to"
        order_id, content = new_order_id(), b'{"probe":"%s"}' % secrets.token_hex(16).encode()
        deliveries = self._deliveries()
        try:
            deliveries.open_order(order_id, now=self._clock.now())
            deliveries.sent(order_id)
            crash.point("probe.sent")
            status = self._send(self._path(order_id), content)
            crash.point("probe.answered")
            arrived = deliveries.probed(order_id, content)
        except StoreError:
            raise
        except CrmSyncError as error:
            deliveries.probed(order_id, content)
            return f"{self._base_url} ({SETTING}) cannot be reached: {error}. Start crm-sync serve, and check the way"
        if status == 200 and arrived:
            return ""
        if status == 200:
            return (
                f"{self._base_url} ({SETTING}) took our own delivery, and it did not arrive in this database: another "
                "installation answers there"
            )
        return (
            f"{self._base_url} ({SETTING}) answered our own delivery with HTTP {status}: let POST {_PATH}… through to "
            "crm-sync serve, which must use this database and this CRM_SYNC_SECRET_KEY"
        )
