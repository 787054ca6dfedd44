"""From what Apollo knows to what the CRM should hold; compiled once a run, pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from crm_sync.config.expressions import Condition, Operator, TemplatePart, parse_template, parse_when
from crm_sync.config.model import Band, FieldMapping
from crm_sync.domain.changes import WantedValue
from crm_sync.domain.enrichment import Enrichment
from crm_sync.domain.records import FieldSchema, ObjectSchema
from crm_sync.mapping.coerce import Coerce, NotFitting, coercer
from crm_sync.mapping.picklists import choice_index, fold
from crm_sync.mapping.transforms import TRANSFORMS

#: Reads one attribute of an answer: a text, number, bool or list; None where Apollo has no value.
Read = Callable[[Enrichment], Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Mapped:
    """What one answer asks for. `unmapped`: (CRM field, Apollo word) pairs that no picklist entry takes."""

    wanted: tuple[WantedValue, ...]
    unmapped: tuple[tuple[str, str], ...] = ()


class Mapper:
    """One object's field mappings against its live schema."""

    def __init__(self, fields: Sequence[FieldMapping], schema: ObjectSchema) -> None:
        self._steps = tuple(_Step(mapping, schema.fields[mapping.field]) for mapping in fields)

    def want(self, enrichment: Enrichment) -> Mapped:
        """One WantedValue per mapping, in order."""
        unmapped: list[tuple[str, str]] = []
        wanted = tuple(step.want(enrichment, unmapped) for step in self._steps)
        return Mapped(wanted=wanted, unmapped=tuple(unmapped))


def sources(fields: Iterable[FieldMapping]) -> frozenset[str]:
    """Every Apollo path these mappings read, templates and conditions included."""
    paths: set[str] = set()
    for mapping in fields:
        if mapping.source:
            paths.add(mapping.source)
        if mapping.template:
            paths.update(part.path for part in parse_template(mapping.template) if part.path)
        if mapping.when:
            paths.update(condition.path for condition in parse_when(mapping.when))
    return frozenset(paths)


class _Step:
    """One mapping, compiled."""

    def __init__(self, mapping: FieldMapping, field: FieldSchema) -> None:
        self._field = mapping.field
        self._source = mapping.source or mapping.template
        self._rule = mapping.rule
        self._read = _template(parse_template(mapping.template)) if mapping.template else reader(mapping.source)
        self._when = _conditions(parse_when(mapping.when)) if mapping.when else None
        self._when_text = mapping.when
        self._transforms = tuple(TRANSFORMS[name] for name in mapping.transform)
        self._join = mapping.join
        self._max = mapping.max
        self._round = mapping.round
        self._bands = mapping.bands
        self._choose = _Picklist(mapping, field) if field.choices and not mapping.bands else None
        self._coerce: Coerce = coercer(field)
        self._nothing = WantedValue(field=self._field, source=self._source, rule=self._rule, value=None)

    def want(self, enrichment: Enrichment, unmapped: list[tuple[str, str]]) -> WantedValue:
        value = self._read(enrichment)
        if value is None or value == "" or value == []:
            return self._nothing
        if self._when is not None and not self._when(enrichment):
            return self._no(f"Apollo has a value, and the condition is not met: {self._when_text}")
        try:
            shaped = self._shape(value, unmapped)
            if shaped is None:
                return self._no("Apollo's word for it has no value in this picklist yet")
            coerced = self._coerce(shaped)
        except NotFitting as problem:
            return WantedValue(
                field=self._field, source=self._source, rule=self._rule, value=None, problem=str(problem)
            )
        return WantedValue(field=self._field, source=self._source, rule=self._rule, value=coerced)

    def _no(self, note: str) -> WantedValue:
        return WantedValue(field=self._field, source=self._source, rule=self._rule, value=None, note=note)

    def _shape(self, value: Any, unmapped: list[tuple[str, str]]) -> Any:
        """The value after list, transforms, bands, picklist, rounding and cutting; None for an unmapped word."""
        if isinstance(value, list):
            parts = [self._transformed(str(part)) for part in value if part is not None]
            if self._choose is not None:
                return self._choose.several(parts, unmapped) or None
            parts = [part for part in parts if part]
            value = (", " if self._join is None else self._join).join(parts)
        elif isinstance(value, str):
            value = self._transformed(value)
        if self._bands:
            return _band(value, self._bands)
        if self._choose is not None:
            return self._choose.one(str(value), unmapped)
        if self._round is not None and isinstance(value, int | float) and not isinstance(value, bool):
            value = round(value / self._round) * self._round
        if self._max is not None and isinstance(value, str):
            value = cut(value, self._max)
        return value

    def _transformed(self, text: str) -> str:
        for transform in self._transforms:
            text = transform(text)
        return text


class _Picklist:
    """Apollo's word -> the CRM's value: the mapping's table, else the live choices by value or label."""

    def __init__(self, mapping: FieldMapping, field: FieldSchema) -> None:
        self._field = mapping.field
        live = choice_index(field.choices)
        table = mapping.picklist or {}
        # A table may name a label; a value that is not active any more counts as unmapped, never written.
        self._table = {word: live[fold(value)] for word, value in table.items() if fold(value) in live}
        if mapping.picklist is None:
            self._table = live
        self._fallback = live.get(fold(mapping.unmapped_use)) if mapping.unmapped == "use" else None
        self._asks = mapping.unmapped == "ask"

    def one(self, word: str, unmapped: list[tuple[str, str]]) -> str | None:
        found = self._table.get(fold(word))
        if found is not None:
            return found
        if self._asks:
            unmapped.append((self._field, word))
        return self._fallback

    def several(self, words: Sequence[str], unmapped: list[tuple[str, str]]) -> tuple[str, ...]:
        found = (self.one(word, unmapped) for word in words)
        return tuple(dict.fromkeys(value for value in found if value is not None))


def reader(path: str) -> Read:
    """Reads "person.title", "organization.primary_phone.sanitized_number", "person.organization.name"."""
    first, *rest = path.split(".")
    if len(rest) == 1:
        name = rest[0]
        if first == "person":
            return lambda enrichment: enrichment.person.get(name)
        return lambda enrichment: enrichment.organization.get(name)

    def read(enrichment: Enrichment) -> Any:
        value: Any = enrichment.person if first == "person" else enrichment.organization
        for name in rest:
            if not isinstance(value, Mapping):
                return None
            value = value.get(name)
        return value

    return read


def _template(parts: tuple[TemplatePart, ...]) -> Read:
    """Fills the placeholders; where one is blank, the separators around it go too ("Leeds, " is "Leeds")."""
    pieces = [(part.text, reader(part.path) if part.path else None) for part in parts]

    def render(enrichment: Enrichment) -> str:
        text = pending = ""
        for literal, read in pieces:
            if read is None:
                pending += literal
                continue
            value = read(enrichment)
            shown = ", ".join(map(str, value)) if isinstance(value, list) else "" if value is None else str(value)
            if shown:
                text += (pending if text or pending.strip(" ,;/|-–") else "") + shown
                pending = ""
            elif text or pending.strip(" ,;/|-–"):
                pending = pending if pending.strip(" ,;/|-–") else ""
        if not text:
            return ""
        return text + pending.rstrip(" ,;/|-–") if pending.strip(" ,;/|-–") else text

    return render


def _conditions(conditions: tuple[Condition, ...]) -> Callable[[Enrichment], bool]:
    tests = [_condition(condition) for condition in conditions]
    return lambda enrichment: all(test(enrichment) for test in tests)


def _condition(condition: Condition) -> Callable[[Enrichment], bool]:
    read, operator = reader(condition.path), condition.operator
    values = frozenset(value.strip().casefold() for value in condition.values)

    def words(enrichment: Enrichment) -> frozenset[str]:
        value = read(enrichment)
        listed = value if isinstance(value, list) else [value]
        return frozenset(str(word).strip().casefold() for word in listed if word is not None and str(word).strip())

    if operator is Operator.IS_BLANK:
        return lambda enrichment: not words(enrichment)
    if operator is Operator.IS_NOT_BLANK:
        return lambda enrichment: bool(words(enrichment))
    if operator is Operator.DIFFERS:
        return lambda enrichment: bool(found := words(enrichment)) and not (found & values)
    return lambda enrichment: bool(words(enrichment) & values)


def _band(value: Any, bands: tuple[Band, ...]) -> str:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise NotFitting("Apollo's value is not a number, so it is in no band")
    for band in bands:
        if (band.low is None or value >= band.low) and (band.high is None or value <= band.high):
            return band.value
    raise NotFitting("the number is in no band")


def cut(text: str, length: int) -> str:
    """At most `length` characters, cut after a whole word where one ends in the second half."""
    if len(text) <= length:
        return text
    head = text[:length]
    if text[length].isspace():
        return head.rstrip()
    at = head.rfind(" ")
    return (head[:at] if at >= length // 2 else head).rstrip(" ,;")
