"""A bug that is put in on purpose, and who is to see it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Mutant:
    """`change` puts it into the product, in a child process. `cells` are kills (tests/faults/crashes.py) that hold
    without it and are violated with it; `tests` are tests that fail with it."""

    name: str
    change: Callable[[], None]
    cells: tuple[str, ...] = ()
    tests: tuple[str, ...] = ()
