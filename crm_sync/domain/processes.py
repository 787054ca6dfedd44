"""The processes that work on one database, and what must be the same in all of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Process:
    """One long-lived process. `role`: serve | worker | web.

    `agree`: setting -> what stands for its value, of those that must be the same wherever they are read; a role that
    does not read one does not name it.
    """

    id: str
    role: str
    host: str
    pid: int
    version: str
    agree: Mapping[str, str]
    began_at: datetime
    seen_at: datetime

    @property
    def shown(self) -> str:
        return f"{self.role} on {self.host} (process {self.pid})"


def differences(mine: Process, other: Process) -> list[str]:
    """In what another process differs from this one, a few words each; nothing where both may work on one database."""
    told = []
    if other.version != mine.version:
        told.append(f"it is crm-sync {other.version} and this is {mine.version}")
    settings = sorted(name for name in mine.agree.keys() & other.agree.keys() if mine.agree[name] != other.agree[name])
    if settings:
        told.append(f"it has another {', '.join(settings)}")
    return told


def said_of(mine: Process, other: Process) -> str:
    """One sentence about another process that differs, "" about one that does not."""
    told = differences(mine, other)
    return f"{other.shown} works on the same database and differs: {'; '.join(told)}" if told else ""
