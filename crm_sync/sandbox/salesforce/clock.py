"""Moments as the service writes them."""

from __future__ import annotations

import re
import time
from datetime import UTC, date, datetime, timedelta

#: Time zone offsets in a written value may lack the colon; a value without any offset is refused.
_WRITTEN = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d(?::\d\d(?:\.\d{1,3})?)?)(Z|[+-]\d\d:?\d\d)\Z")
#: The service's range of dates.
_FIRST_YEAR, _LAST_YEAR = 1700, 4000


def stamp(seconds: float) -> str:
    """Return epoch seconds as 2026-11-01T00:00:00.000+0000: whole seconds, which sort as text."""
    return time.strftime("%Y-%m-%dT%H:%M:%S.000+0000", time.gmtime(seconds))


def render(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.000+0000")


def read_datetime(text: str) -> str | None:
    """Return a written datetime in the service's form, None where the service would not read it."""
    match = _WRITTEN.match(text)
    if match is None:
        return None
    body, offset = match.groups()
    if offset != "Z" and ":" not in offset:
        offset = f"{offset[:3]}:{offset[3:]}"
    try:
        moment = datetime.fromisoformat(body + ("+00:00" if offset == "Z" else offset)).astimezone(UTC)
    except (ValueError, OverflowError):
        return None
    return render(moment) if _FIRST_YEAR <= moment.year <= _LAST_YEAR else None


def read_date(text: str) -> str | None:
    """Return YYYY-MM-DD, None where the service would not read it (it also takes a datetime's day; we do not)."""
    if not re.match(r"\d{4}-\d\d-\d\d\Z", text):
        return None
    try:
        day = date.fromisoformat(text)
    except ValueError:
        return None
    return text if _FIRST_YEAR <= day.year <= _LAST_YEAR else None


def date_range(keyword: str, count: int, today: date) -> tuple[date, date]:
    """Return the first day of a SOQL date literal and the first day after it. The org's time zone is UTC, its weeks
    begin on Sunday."""
    day = timedelta(days=1)
    sunday = today - day * ((today.weekday() + 1) % 7)
    month = today.replace(day=1)
    year = today.replace(month=1, day=1)
    last_month = (month - day).replace(day=1)
    fixed = {
        "TODAY": (today, today + day),
        "YESTERDAY": (today - day, today),
        "TOMORROW": (today + day, today + 2 * day),
        "THIS_WEEK": (sunday, sunday + 7 * day),
        "LAST_WEEK": (sunday - 7 * day, sunday),
        "THIS_MONTH": (month, (month + 31 * day).replace(day=1)),
        "LAST_MONTH": (last_month, month),
        "THIS_YEAR": (year, year.replace(year=year.year + 1)),
        "LAST_YEAR": (year.replace(year=year.year - 1), year),
        "LAST_90_DAYS": (today - 90 * day, today + day),
    }
    if keyword in fixed:
        return fixed[keyword]
    span = timedelta(days=count)
    if keyword == "LAST_N_DAYS":
        return today - span, today + day
    if keyword == "NEXT_N_DAYS":
        return today + day, today + span + day
    return today - span, today - span + day
