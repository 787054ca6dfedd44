"""What counts as an empty field."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from crm_sync.domain.records import Value


def is_blank(value: Value) -> bool:
    """None, nothing but blanks, or no choice. A checkbox is never blank, and nought is a number."""
    if not value:
        return value is None or value == "" or value == ()
    return isinstance(value, str) and value.isspace()


def is_placeholder(value: Value, placeholders: frozenset[str]) -> bool:
    """`placeholders` are in their `placeholder_form`."""
    return bool(placeholders) and isinstance(value, str) and placeholder_form(value) in placeholders


def placeholder_form(text: str) -> str:
    """Trimmed and without case, nothing else: "-" must stay itself, and "n/a" must not meet a Ms Na."""
    return text.strip().casefold()


def lacking(values: Mapping[str, Value], fields: Sequence[str], placeholders: frozenset[str]) -> tuple[str, ...]:
    """Those of `fields` that are blank or hold a placeholder."""
    found = []
    for field in fields:
        value = values.get(field)
        if is_blank(value) or is_placeholder(value, placeholders):
            found.append(field)
    return tuple(found)
