"""Moments as HubSpot takes and gives them: milliseconds or ISO 8601 with Z."""

from __future__ import annotations

import re
import time
from datetime import UTC, date, datetime

DAY_MS = 86_400_000

_DATETIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,6})?Z\Z")
_DATE = re.compile(r"\d{4}-\d\d-\d\d\Z")
_MS = re.compile(r"-?\d{1,14}\Z")


def iso(ms: int) -> str:
    """2026-11-22T12:00:00.000Z."""
    seconds, rest = divmod(ms, 1000)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(seconds))}.{rest:03d}Z"


def datetime_ms(text: str) -> int | None:
    """A datetime value in milliseconds, None where HubSpot would not read it."""
    if _MS.match(text):
        return int(text)
    if not _DATETIME.match(text):
        return None
    try:
        return round(datetime.fromisoformat(text[:-1] + "+00:00").timestamp() * 1000)
    except ValueError:
        return None


def date_ms(text: str) -> int | None:
    """A date value as its midnight in UTC, in milliseconds; other milliseconds are no date."""
    if _MS.match(text):
        return int(text) if int(text) % DAY_MS == 0 else None
    if not _DATE.match(text):
        return None
    try:
        day = date.fromisoformat(text)
    except ValueError:
        return None
    return round(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp() * 1000)
