"""What Apollo tells about its rate limits, as windows. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from crm_sync.ports import UNLIMITED, Window

# Three fixed windows per team and endpoint, each opened by its first request (contracts/apollo.md 4, 2026-10).
_WINDOWS = (
    (60.0, "x-rate-limit-minute", "x-minute-usage", "x-minute-requests-left", "minute"),
    (3600.0, "x-rate-limit-hourly", "x-hourly-usage", "x-hourly-requests-left", "hour"),
    (86400.0, "x-rate-limit-24-hour", "x-24-hour-usage", "x-24-hour-requests-left", "day"),
)


def windows_of_headers(headers: Mapping[str, str]) -> tuple[Window, ...]:
    """The windows an answer's headers tell; () when they tell nothing (401 and 403 carry none).

    An empty limit header means unlimited; a missing one means not told, and its window is left out.
    """
    told = []
    for seconds, limit_name, usage_name, left_name, _ in _WINDOWS:
        text = headers.get(limit_name)
        if text is None:
            continue
        window = _window(seconds, text, headers.get(usage_name), headers.get(left_name))
        if window is not None:
            told.append(window)
    return tuple(told)


def windows_of_usage(stats: Mapping[str, Any], endpoint: str) -> tuple[Window, ...]:
    """The windows of `endpoint` ("people/bulk_match") in an answer of usage_stats/api_usage_stats; () when absent.

    Its keys are JSON arrays written as text: '["api/v1/people", "bulk_match"]'.
    """
    for key, value in stats.items():
        try:
            parts = orjson.loads(key)
        except orjson.JSONDecodeError:
            continue
        if not (isinstance(parts, list) and len(parts) == 2 and isinstance(value, dict)):
            continue
        if f"{parts[0]}/{parts[1]}".removeprefix("api/v1/").removeprefix("v1/") == endpoint:
            told = []
            for seconds, *_, name in _WINDOWS:
                usage = value.get(name)
                if isinstance(usage, dict):
                    window = _window(seconds, usage.get("limit"), usage.get("consumed"), usage.get("left_over"))
                    if window is not None:
                        told.append(window)
            return tuple(told)
    return ()


def _window(seconds: float, limit: object, usage: object, left: object) -> Window | None:
    if limit is None or (isinstance(limit, str) and not limit.strip()):
        return Window(seconds=seconds, limit=UNLIMITED)
    most = _whole(limit)
    if most is None or most <= 0:
        return None  # nonsense is not a limit
    remaining = _whole(left)
    if remaining is None:
        used = _whole(usage)
        remaining = None if used is None else most - used
    return Window(
        seconds=seconds,
        limit=min(most, UNLIMITED),
        left=None if remaining is None else min(max(remaining, 0), most),
    )


def _whole(value: object) -> int | None:
    try:
        return int(float(value)) if isinstance(value, str | int | float) else None
    except (ValueError, OverflowError):
        return None
