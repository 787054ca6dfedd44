"""Apollo's words -> a CRM's picklist values."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from importlib.resources import files

from crm_sync.domain.records import Choice

#: What `picklist_file: builtin:…` may name; each is crm_sync/data/<name>.csv.
BUILTIN_TABLES = ("salesforce_industry", "salesforce_seniority", "hubspot_industry", "hubspot_seniority")

_DROPPED = str.maketrans("", "", "&-/,._")


def fold(word: str) -> str:
    """The form in which words are compared: "Hospital & Health Care" and "HOSPITAL_HEALTH_CARE" are one.

    Lower case, without blanks, punctuation and the word "and". Providers took the older LinkedIn list and wrote the
    ampersand in three ways (contracts/hubspot.md 6.3, 2026-11), so no rule on single characters is right.
    """
    parts = word.casefold().replace("&", " ").replace("_", " ").split()
    return "".join(part for part in parts if part != "and").translate(_DROPPED)


@cache
def builtin_table(name: str) -> Mapping[str, str]:
    """A ready table: folded Apollo word -> CRM value."""
    text = files("crm_sync").joinpath(f"data/{name}.csv").read_text(encoding="utf-8")
    return {fold(row["apollo"]): row["crm"] for row in csv.DictReader(text.splitlines())}


def choice_index(choices: tuple[Choice, ...]) -> dict[str, str]:
    """Folded value or label -> value, active choices only; a value wins over another choice's label."""
    index = {fold(choice.label): choice.value for choice in choices if choice.active}
    index.update({fold(choice.value): choice.value for choice in choices if choice.active})
    return index


class Choices:
    """A picklist's active values, found by value or label: as written first, then folded.

    A form that fits several choices ("A" and "A-" fold alike) finds none of them: better unmapped than wrong.
    """

    def __init__(self, choices: tuple[Choice, ...]) -> None:
        active = [choice for choice in choices if choice.active]
        self._exact = _unambiguous(active, str)
        self._folded = _unambiguous(active, fold)

    def find(self, word: str) -> str | None:
        """The value the API takes, None when no active choice goes by that word."""
        found = self._exact.get(word)
        return self._folded.get(fold(word)) if found is None else found


def _unambiguous(choices: Iterable[Choice], form: Callable[[str], str]) -> dict[str, str]:
    values: dict[str, set[str]] = {}
    labels: dict[str, set[str]] = {}
    for choice in choices:
        values.setdefault(form(choice.value), set()).add(choice.value)
        labels.setdefault(form(choice.label), set()).add(choice.value)
    return {word: next(iter(found)) for word, found in (labels | values).items() if word and len(found) == 1}
