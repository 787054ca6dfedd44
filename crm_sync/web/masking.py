"""The token of a callback's address stays out of the logs: who reads one there may ring for its order."""

from __future__ import annotations

import logging

from crm_sync.scrub import masked

__all__ = ["mask_logs", "masked"]
#: Those that tell a path: waitress of what breaks off, Flask of an error of ours, gunicorn of each request.
_LOGGERS = ("waitress", "crm_sync.web", "gunicorn.access", "gunicorn.error")
_FORMATTER = logging.Formatter()


def mask_logs() -> None:
    """Let no logger that tells a request's path tell a token. A filter of a logger outlives what gunicorn does to its
    handlers at a reload; one of the root logger would not see what others log."""
    for name in _LOGGERS:
        logger = logging.getLogger(name)
        if _mask not in logger.filters:
            logger.addFilter(_mask)


def _mask(record: logging.LogRecord) -> bool:
    record.msg, record.args = masked(record.getMessage()), None
    if record.exc_info:
        record.exc_text = masked(_FORMATTER.formatException(record.exc_info))  # a formatter takes it as it is
    return True
