"""Which run, sync, order or delivery a log line is about, told once for all lines below."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar

_IDS: ContextVar[Mapping[str, str]] = ContextVar("crm_sync_log_ids", default={})  # noqa: B039 - never changed in place


@contextmanager
def log_ids(**ids: object) -> Iterator[None]:
    """Every line that this thread logs meanwhile carries these ids; never anything about a person."""
    token = _IDS.set({**_IDS.get(), **{name: str(value) for name, value in ids.items()}})
    try:
        yield
    finally:
        _IDS.reset(token)


def current_ids() -> Mapping[str, str]:
    return _IDS.get()
