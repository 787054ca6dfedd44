"""The token in the address that Apollo calls back: who has it may ring for one order, and for nothing else.

Apollo signs nothing (contracts/apollo.md 3, 2026-11), so the address is the secret. It stands in the path and has only
characters that survive being encoded once or twice: v1_<key>_<order>_<expiry>_<mark>.
"""

from __future__ import annotations

import hmac
import re
import secrets
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta

from crm_sync.store.vault import Master

#: Longer than Apollo keeps results (30 days, contracts/apollo.md 3).
LIVES_FOR = timedelta(days=35)
_KNOWN_FOR_S = 1.0
_PURPOSE = b"crm-sync webhook"
_FORM = re.compile(r"v1_([0-9a-f]{16})_([0-9a-f]{32})_([0-9]{1,11})_([0-9a-f]{32})\Z", re.ASCII)
#: No token is longer; what is longer is not looked at.
_LONGEST = 110
#: Marks a token whose key nobody has, so that it takes as long as another forged one.
_NOBODY = Master.of(secrets.token_hex(16))


def new_order_id() -> str:
    """128 random bits, as 32 hexadecimal digits."""
    return secrets.token_hex(16)


class HookTokens:
    """Makes and reads tokens of one installation: `ring` newest first, `instance` tells its name for itself, which
    changes when a copy of it is made."""

    def __init__(self, ring: Sequence[Master], instance: Callable[[], str]) -> None:
        self._newest = ring[0]
        self._by_name = {master.fingerprint: master for master in ring}
        self._instance = instance
        self._known = ("", 0.0)

    def make(self, order_id: str, *, now: datetime) -> str:
        expiry = str(int((now + LIVES_FOR).timestamp()))
        mark = self._newest.mark(_message(self._instance(), self._newest.fingerprint, order_id, expiry))
        return f"v1_{self._newest.fingerprint}_{order_id}_{expiry}_{mark.hex()}"

    def read(self, token: str, *, now: datetime) -> str | None:
        """The order that a token stands for; None for a forged one, one of another installation or of a key that was
        taken out of the ring, and one that has expired."""
        found = _FORM.match(token) if len(token) <= _LONGEST else None
        if found is None:
            return None
        name, order_id, expiry, mark = found.groups()
        master = self._by_name.get(name, _NOBODY)

        def is_of(instance: str) -> bool:
            return hmac.compare_digest(master.mark(_message(instance, name, order_id, expiry)), bytes.fromhex(mark))

        # What is not of the name we knew may be of a new one; so every forged token costs a query, and no genuine one.
        is_ours = is_of(self._name()) or is_of(self._name(anew=True))
        is_alive = now < datetime.fromtimestamp(int(expiry), UTC)
        return order_id if is_ours and is_alive and master is not _NOBODY else None

    def _name(self, *, anew: bool = False) -> str:
        """As it was up to a second ago: the query was a third of what a delivery costs (2 cores, SQLite, 2026-11)."""
        name, until = self._known
        if anew or time.monotonic() > until:
            name = self._instance()
            self._known = (name, time.monotonic() + _KNOWN_FOR_S)
        return name


def _message(instance: str, name: str, order_id: str, expiry: str) -> bytes:
    return b"|".join((_PURPOSE, b"v1", name.encode(), instance.encode(), order_id.encode(), expiry.encode()))
