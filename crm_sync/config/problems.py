"""What is wrong with a configuration, and where: the sentences every surface shows."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from crm_sync.errors import ConfigError

#: Keys and list positions from the root of the file: ("syncs", "contacts", "match", "need_one_of", 0).
Path = tuple[str | int, ...]


class Severity(StrEnum):
    """Only an error stops `config apply`; a warning is probably a mistake; a note is good to know."""

    ERROR = "error"
    WARNING = "warning"
    NOTE = "note"


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One finding. `line` and `column` count from 1, in characters; `path` is dotted ("syncs.contacts.fields.Title").

    `suggestion` is what to write instead or to do next, a whole sentence, "" when the message says it all.
    """

    file: str
    line: int
    column: int
    path: str
    message: str
    suggestion: str = ""
    severity: Severity = Severity.ERROR

    def __str__(self) -> str:
        kind = "" if self.severity is Severity.ERROR else f"{self.severity}: "
        where = f"{self.path}: " if self.path else ""
        hint = f" {self.suggestion}" if self.suggestion else ""
        return f"{self.file}:{self.line}:{self.column}: {kind}{where}{self.message}{hint}"


class InvalidConfigError(ConfigError):
    """A configuration that cannot be used. Its text is one line per problem."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))


def dotted(path: Path) -> str:
    """`path` as people write it: syncs.contacts.match.need_one_of[0]."""
    text = ""
    for step in path:
        text += f"[{step}]" if isinstance(step, int) else f".{step}" if text else step
    return text


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The one of `known` somebody who wrote `word` most likely meant, None when nothing is close."""
    by_folded: dict[str, str] = {}
    for candidate in known:
        by_folded.setdefault(candidate.casefold(), candidate)
    folded = word.casefold()
    if folded in by_folded:
        return by_folded[folded]
    # difflib's ratio of 0.6 accepts "schedul" and "estimated_employees" and refuses words that merely share letters.
    close = difflib.get_close_matches(folded[:200], by_folded, n=1, cutoff=0.6)
    if close:
        return by_folded[close[0]]
    # "prod" is production and "EQUALS" is EQ, when nothing else begins alike.
    alike = [
        c for c in by_folded if (len(folded) > 2 and c.startswith(folded)) or (len(c) > 1 and folded.startswith(c))
    ]
    if len(alike) == 1:
        return by_folded[alike[0]]
    return None


def did_you_mean(word: str, known: Iterable[str], *, at_most: int = 12) -> str:
    """The sentence behind "unknown …": the nearest one, else the whole list when it is short enough to read."""
    options = list(known)
    match = nearest(word, options)
    if match is not None:
        return f"Did you mean {match}?"
    return f"Known here: {', '.join(options)}." if 0 < len(options) <= at_most else ""


def shown(value: str, *, limit: int = 60) -> str:
    """`value` from the file, short and on one line, for a message."""
    flat = " ".join(value.split())
    return f'"{flat}"' if len(flat) <= limit else f'"{flat[: limit - 1]}…"'
