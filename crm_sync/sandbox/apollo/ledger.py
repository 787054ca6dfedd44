"""What Apollo charged, for whom, and for which answer (contracts/apollo.md 5)."""

from __future__ import annotations

import threading
from collections import Counter
from dataclasses import dataclass
from decimal import Decimal

PHONE_CREDITS = 8


@dataclass(frozen=True, slots=True)
class Answered:
    """One question about people that was answered: `credits` charged for it at once, `request_id` as the caller was
    told."""

    endpoint: str
    request_id: str
    credits: int


@dataclass(frozen=True, slots=True)
class Revealed:
    """One person's reveal that has finished: `credits` charged for it, `request_id` of the order it belongs to."""

    request_id: str
    apollo_id: str
    credits: int


class Ledger:
    """Every credit, by person and company, and each answer about people with what it cost.

    `charged`: single credits by person and company, also of those people whose phone was ordered with the same call;
    of these again in `charged_with_reveal`. `phones`: how often a person's mobile was charged. `revealed`: each reveal
    that finished, also those that cost nothing.
    """

    def __init__(self, balance: Decimal) -> None:
        self._lock = threading.Lock()
        self.balance = balance
        self.begun_with = balance
        self.charged: Counter[str] = Counter()
        self.charged_with_reveal: Counter[str] = Counter()
        self.answered: list[Answered] = []
        self.phones: Counter[str] = Counter()
        self.revealed: list[Revealed] = []

    def charge(self, apollo_id: str, *, with_reveal: bool = False) -> bool:
        """One credit for one person or company; False when there is none left."""
        with self._lock:
            if self.balance < 1:
                return False
            self.balance -= 1
            self.charged[apollo_id] += 1
            if with_reveal:
                self.charged_with_reveal[apollo_id] += 1
            return True

    def charge_phone(self, apollo_id: str) -> bool:
        """The price of one person's mobile; False when there is not so much left."""
        with self._lock:
            if self.balance < PHONE_CREDITS:
                return False
            self.balance -= PHONE_CREDITS
            self.phones[apollo_id] += 1
            return True
