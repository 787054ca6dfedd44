"""What takes how long, for whoever listens (tracing.py); nothing where nobody does.

A span carries ids, counts and words of ours: never anything about a person, and no key.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from datetime import datetime
from typing import Protocol

Value = str | int | float | bool


class Span(Protocol):
    def tell(self, **facts: Value) -> None:
        """What is known only at its end."""
        ...


class Tracer(Protocol):
    def span(self, name: str, facts: Mapping[str, Value]) -> AbstractContextManager[Span]:
        """What this thread does meanwhile; within another span of this thread, or of the one that began it, a part of
        that. An error that ends it is told by its kind alone."""
        ...

    def note(self, name: str, began_at: datetime, facts: Mapping[str, Value]) -> None:
        """Something that began at `began_at`, here or elsewhere, and has just ended."""
        ...


class _Nothing:
    def tell(self, **facts: Value) -> None: ...


_NOTHING = _Nothing()
_tracers: list[Tracer] = []


def listen(tracer: Tracer | None) -> None:
    """From now on `tracer` is told; None: nobody is."""
    _tracers[:] = [tracer] if tracer is not None else []


@contextmanager
def span(name: str, **facts: Value) -> Iterator[Span]:
    if not _tracers:
        yield _NOTHING
        return
    with _tracers[0].span(name, facts) as made:
        yield made


def note(name: str, began_at: datetime, **facts: Value) -> None:
    for tracer in _tracers:
        tracer.note(name, began_at, facts)
