"""The log of `serve`, `worker` and wsgi:app: one line an event, as JSON or key=value, with ids and without people."""

from __future__ import annotations

import logging
import sys
import traceback
from collections.abc import Mapping, MutableMapping
from typing import Any, TextIO

import orjson
import structlog

from crm_sync.errors import CrmSyncError
from crm_sync.log_ids import current_ids
from crm_sync.scrub import scrubbed

#: Their debug lines repeat addresses, headers and bodies of requests; the scheduler's tell of its own workings.
_TALKATIVE = (
    "urllib3", "requests", "hubspot", "simple_salesforce", "zeep", "requests_oauthlib", "asyncio", "apprise",
    "apscheduler",
)  # fmt: skip
_FIRST = ("time", "level", "event", "logger")
#: What an error of these says holds nothing of a record; of any other only its kind is told, and where it was.
_TOLD_WHOLE = (CrmSyncError, OSError)


def set_up(*, kind: str = "auto", level: str = "info", stream: TextIO | None = None) -> None:
    """Let everything that is logged in this process go to `stream` (standard error), one line an event. `kind`: json |
    text | auto, which is text on a terminal."""
    out = stream or sys.stderr
    as_text = kind == "text" or (kind == "auto" and out.isatty())
    handler = logging.StreamHandler(out)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[
                structlog.stdlib.add_log_level,
                structlog.stdlib.add_logger_name,
                structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
                _with_ids,
            ],
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                _with_error,
                _clean,
                structlog.processors.LogfmtRenderer(key_order=_FIRST, drop_missing=True)
                if as_text
                else structlog.processors.JSONRenderer(serializer=_json),
            ],
        )
    )
    root = logging.getLogger()
    for other in tuple(root.handlers):
        root.removeHandler(other)
    root.addHandler(handler)
    root.setLevel(level.upper())
    for name in _TALKATIVE:
        logging.getLogger(name).setLevel(logging.WARNING)


def _with_ids(_logger: Any, _method: str, entry: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    entry.update(current_ids())
    return entry


def _with_error(_logger: Any, _method: str, entry: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """The traceback of an error, by files and lines: neither the values nor the words it was raised with are ours."""
    found = entry.pop("exc_info", None)
    error = found[1] if isinstance(found, tuple) else found
    if isinstance(error, BaseException):
        entry["error"] = _told(error)
        entry["traceback"] = "\n".join(
            f"{frame.filename}:{frame.lineno} {frame.name}" for frame in traceback.extract_tb(error.__traceback__)
        )
    return entry


def is_told_whole(error: BaseException) -> bool:
    """Whether what the error says may be told, once it is cleaned."""
    return isinstance(error, _TOLD_WHOLE)


def _told(error: BaseException) -> str:
    kind = type(error).__name__
    return f"{kind}: {error}" if is_told_whole(error) else kind


def _clean(_logger: Any, _method: str, entry: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    for name, value in entry.items():
        if isinstance(value, str):
            entry[name] = scrubbed(value)
        elif value is not None and not isinstance(value, int | float | bool):
            entry[name] = scrubbed(str(value))
    return entry


def _json(entry: Mapping[str, Any], **_: Any) -> str:
    ordered = {name: entry[name] for name in _FIRST if name in entry}
    return orjson.dumps({**ordered, **entry}, default=str).decode()
