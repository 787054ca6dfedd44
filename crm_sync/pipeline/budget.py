"""What may still be spent, and on which day it counts."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from zoneinfo import ZoneInfo

from crm_sync.config.model import Budget
from crm_sync.store.journal import LOOKUPS, PHONES, Room, Spent


def day_of(now: datetime, timezone: str) -> str:
    """The budget's day: a date in the configuration's time zone."""
    return now.astimezone(ZoneInfo(timezone)).date().isoformat()


def room(budget: Budget, spent: Spent, *, max_credits: Decimal | None = None, purse: str = LOOKUPS) -> Room:
    """What may be reserved now: the least that any limit leaves, and that limit in words.

    `max_credits` bounds this run beside the budget's own limits, whatever it buys. What is open or in doubt is in
    `spent` at worst cost. Phones have a purse of their own where `phones_per_month` is set; else the limits of the
    look-ups hold for both together.
    """
    whole_run = spent.run + spent.phones_run
    limits: list[tuple[Decimal | None, Decimal, str]] = [(max_credits, whole_run, "--max-credits")]
    if budget.phones_per_month is None:
        limits += [
            (budget.per_run, whole_run, "budget.per_run"),
            (budget.per_day, spent.day + spent.phones_day, "budget.per_day"),
            (budget.per_month, spent.month + spent.phones_month, "budget.per_month"),
        ]
    elif purse == PHONES:
        limits.append((budget.phones_per_month, spent.phones_month, "budget.phones_per_month"))
    else:
        limits += [
            (budget.per_run, spent.run, "budget.per_run"),
            (budget.per_day, spent.day, "budget.per_day"),
            (budget.per_month, spent.month, "budget.per_month"),
        ]
    rooms = [
        Room(credits=max(limit - used, Decimal(0)), limit=f"{name} of {limit:f} credits")
        for limit, used, name in limits
        if limit is not None
    ]
    return min(rooms, key=lambda each: each.credits or Decimal(0), default=Room())
