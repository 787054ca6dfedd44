"""Apollo's words -> a CRM's picklist values."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from functools import cache
from importlib.resources import files

from crm_sync.domain.records import Choice

#: What `picklist_file: builtin:…` may name; each is crm_sync/data/<name>.csv.
BUILTIN_TABLES = ("salesforce_industry", "salesforce_seniority", "hubspot_industry", "hubspot_seniority")

_DROPPED = str.maketrans("", "", "&-/,._ \t\n\r")


def fold(word: str) -> str:
    """The form in which words are compared: "Hospital & Health Care" and "HOSPITAL_HEALTH_CARE" are one.

    Lower case, without blanks, punctuation and the word "and". Providers took the older LinkedIn list and wrote the
    ampersand in three ways (contracts/hubspot.md 6.3, 2026-11), so no rule on single characters is right.
    """
    lowered = word.casefold().replace("&", " ").replace("_", " ")
    if "and" in lowered:
        lowered = " ".join(part for part in lowered.split() if part != "and")
    return lowered.translate(_DROPPED)


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
