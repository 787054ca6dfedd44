"""What Apollo can fill: every attribute a mapping may name, with its type and a sample.

The list is data (crm_sync/data/apollo_attributes.json), written from contracts/apollo.md 2 and its payloads,
2026-10. The samples are invented.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from importlib.resources import files
from types import MappingProxyType

import orjson


class AttributeKind(StrEnum):
    """What an attribute's value is."""

    TEXT = "text"
    LONG_TEXT = "long text"
    EMAIL = "email"
    PHONE = "phone"
    URL = "url"
    INTEGER = "whole number"
    NUMBER = "number"
    BOOLEAN = "yes/no"
    DATE = "date"
    #: A list of texts.
    LIST = "list"

    @property
    def is_number(self) -> bool:
        return self in (AttributeKind.INTEGER, AttributeKind.NUMBER)


@dataclass(frozen=True, slots=True, kw_only=True)
class Attribute:
    """One attribute. `vocabulary` names the closed list its words come from: "seniority", "industry", ….

    `refused` is set for what Apollo sends and no mapping may use; it says why, as the end of "… cannot be mapped: ".
    """

    path: str
    kind: AttributeKind
    sample: str | int | float | bool | tuple[str, ...]
    description: str
    vocabulary: str = ""
    refused: str = ""

    @property
    def is_person(self) -> bool:
        return self.path.startswith("person.")


@cache
def _vocabularies() -> Mapping[str, tuple[str, ...]]:
    lists = orjson.loads(files("crm_sync").joinpath("data/apollo_vocabularies.json").read_bytes())
    return {name: tuple(words) for name, words in lists.items()}


def vocabulary(name: str) -> tuple[str, ...]:
    """The words of one of Apollo's closed lists (Attribute.vocabulary), empty for an unknown name."""
    return _vocabularies().get(name, ())


@cache
def _all() -> Mapping[str, Attribute]:
    rows = orjson.loads(files("crm_sync").joinpath("data/apollo_attributes.json").read_bytes())
    found: dict[str, Attribute] = {}
    for row in rows:
        sample = tuple(row["sample"]) if isinstance(row["sample"], list) else row["sample"]
        found[row["path"]] = Attribute(**{**row, "kind": AttributeKind(row["kind"]), "sample": sample})
    return MappingProxyType(found)


def attributes() -> tuple[Attribute, ...]:
    """Everything a mapping may name, person first, in the order an admin looks for it."""
    return tuple(attribute for attribute in _all().values() if not attribute.refused)


def find(path: str) -> Attribute | None:
    """The attribute by its dotted path, None when there is no such one; look at `refused` before using it."""
    return _all().get(path)
