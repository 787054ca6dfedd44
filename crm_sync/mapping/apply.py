"""From what Apollo knows to what the CRM should hold; compiled once a run, pure."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from crm_sync.config.expressions import Condition, Operator, TemplatePart, parse_template, parse_when
from crm_sync.config.model import Band, FieldMapping
from crm_sync.domain.changes import WantedValue, WriteRule
from crm_sync.domain.enrichment import Enrichment
from crm_sync.domain.records import FieldKind, FieldSchema, ObjectSchema, Value
from crm_sync.errors import ConfigError
from crm_sync.mapping.coerce import NotFitting, coercer, plain, rounded
from crm_sync.mapping.picklists import Choices, fold
from crm_sync.mapping.transforms import TRANSFORMS

#: Reads one attribute of an answer: a text, number, bool or list; None where Apollo has no value.
Read = Callable[[Enrichment], Any]
#: An attribute's value in the CRM's terms; blank when there is none for it. Collects words that no entry takes.
Shape = Callable[[Any, list[tuple[str, str]]], Value]

NO_CHOICE = "Apollo's word for it has no value in this picklist yet"
NO_BAND = "the number is in no band"
NOT_MET = "Apollo has a value, and the condition is not met: "

#: So many answers a picklist remembers; Apollo's closed lists have at most 147 words.
_REMEMBERED = 1_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Mapped:
    """What one answer asks for. `unmapped`: (CRM field, Apollo word) pairs that no picklist entry takes."""

    wanted: tuple[WantedValue, ...]
    unmapped: tuple[tuple[str, str], ...] = ()


class Mapper:
    """One object's field mappings against its live schema.

    Raises:
        ConfigError: a mapped field is not there.
    """

    def __init__(self, fields: Sequence[FieldMapping], schema: ObjectSchema) -> None:
        missing = [mapping.field for mapping in fields if mapping.field not in schema.fields]
        if missing:
            raise ConfigError(
                f"{schema.crm}: {schema.object_type} has no field {missing[0]} that this user may see; "
                "run `crm-sync config check`"
            )
        self._steps = tuple(_Step(mapping, schema.fields[mapping.field]) for mapping in fields)

    def want(self, enrichment: Enrichment) -> Mapped:
        """One WantedValue per mapping, in order."""
        unmapped: list[tuple[str, str]] = []
        wanted = tuple([step.want(enrichment, unmapped) for step in self._steps])
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
        self._shape = _shape(mapping, field)
        self._refused: WantedValue | None = None
        if not field.writable and mapping.rule is not WriteRule.NEVER:
            self._refused = self._no(problem=field.why_not or "the CRM does not let this user write it")
        # Picklist and band values are few: the same WantedValue serves every record that gets one.
        self._made: dict[Value, WantedValue] | None = {} if mapping.bands or _has_choices(field) else None
        self._nothing = self._no()
        self._not_met = self._no(NOT_MET + mapping.when)
        self._unplaced = self._no(
            NO_BAND if mapping.bands else NO_CHOICE if _has_choices(field) or mapping.picklist is not None else ""
        )

    def want(self, enrichment: Enrichment, unmapped: list[tuple[str, str]]) -> WantedValue:
        try:
            value = self._read(enrichment)
            if value is None or value == "" or value == []:
                return self._nothing
            if self._when is not None and not self._when(enrichment):
                return self._not_met
            if self._refused is not None:
                return self._refused
            shaped = self._shape(value, unmapped)
        except NotFitting as problem:
            return self._no(problem=str(problem))
        if shaped is None or shaped == "" or shaped == ():
            return self._unplaced
        if self._made is None:
            return WantedValue(self._field, self._source, self._rule, shaped)
        made = self._made.get(shaped)
        if made is None:
            made = WantedValue(self._field, self._source, self._rule, shaped)
            if len(self._made) < _REMEMBERED:
                self._made[shaped] = made
        return made

    def _no(self, note: str = "", problem: str = "") -> WantedValue:
        return WantedValue(
            field=self._field, source=self._source, rule=self._rule, value=None, note=note, problem=problem
        )


# --- values -----------------------------------------------------------------------------------------------------


def _has_choices(field: FieldSchema) -> bool:
    """Only then are there choices to find: HubSpot leaves out some options that other objects own."""
    return field.kind in (FieldKind.PICKLIST, FieldKind.MULTI_PICKLIST) and bool(field.choices)


def _shape(mapping: FieldMapping, field: FieldSchema) -> Shape:
    """Transforms, then bands or picklist or rounding and cutting, then the field's own limits."""
    if mapping.bands:
        return _banded(mapping, field)
    if _has_choices(field) or mapping.picklist is not None:
        return _chosen(mapping, field)
    coerce = coercer(field, cut_to=mapping.max)
    transform, step = _transform(mapping), mapping.round
    separator = ", " if mapping.join is None else mapping.join
    several = field.kind is FieldKind.MULTI_PICKLIST

    def shape(value: Any, _unmapped: list[tuple[str, str]]) -> Value:
        if isinstance(value, list):
            parts = [part for part in map(transform, _words(value)) if part]
            if several:
                return tuple(dict.fromkeys(parts))
            value = separator.join(parts)
        elif isinstance(value, str):
            value = transform(value)
            if not value or value.isspace():
                return None
        elif step is not None and isinstance(value, int | float | Decimal) and not isinstance(value, bool):
            value = rounded(value, step)
        return coerce(value)

    return shape


def _banded(mapping: FieldMapping, field: FieldSchema) -> Shape:
    choices = Choices(field.choices) if _has_choices(field) else None
    coerce = coercer(field)

    def placed(band: Band) -> str | None:
        return band.value if choices is None else choices.find(band.value)

    bands = [(band.low, band.high, placed(band)) for band in mapping.bands]

    def find(number: float) -> str | None:
        for low, high, value in bands:
            if (low is None or number >= low) and (high is None or number <= high):
                if value is None:
                    raise NotFitting("the band's value is not an active value of this picklist")
                return value
        return None

    def shape(value: Any, _unmapped: list[tuple[str, str]]) -> Value:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise NotFitting("Apollo's value is not a number, so it is in no band")
        found = find(value)
        if found is None and isinstance(value, float) and math.isfinite(value):
            # 1..50 and 51.. are neighbours: 50.4 belongs to the lower one.
            found = find(math.floor(value))
        if found is None or field.kind is FieldKind.MULTI_PICKLIST:
            return () if found is None else (found,)
        return coerce(found)

    return shape


def _chosen(mapping: FieldMapping, field: FieldSchema) -> Shape:
    """Apollo's word -> the CRM's value by the mapping's table, else by the live choices; only active values."""
    choices = Choices(field.choices) if _has_choices(field) else None
    # A word of the table whose value is not active any more is unmapped: the admin did not mean a namesake of it.
    table = {
        word: value if choices is None else choices.find(value) for word, value in (mapping.picklist or {}).items()
    }
    transform, asks, coerce = _transform(mapping), mapping.unmapped == "ask", coercer(field)
    fallback = mapping.unmapped_use or None if mapping.unmapped == "use" else None
    if fallback is not None and choices is not None:
        fallback = choices.find(fallback)
    known: dict[str, str | None] = {}

    def find(word: str) -> str | None:
        try:
            return known[word]
        except KeyError:
            folded = fold(word)
            found = table[folded] if folded in table else choices.find(word) if choices is not None else None
            if len(known) < _REMEMBERED:
                known[word] = found
            return found

    def one(word: str, unmapped: list[tuple[str, str]]) -> str | None:
        word = transform(word).strip()
        found = find(word) if word else None
        if found is not None or not word:
            return found
        if asks:
            unmapped.append((mapping.field, word))
        return fallback

    def shape(value: Any, unmapped: list[tuple[str, str]]) -> Value:
        if field.kind is FieldKind.MULTI_PICKLIST:
            words = _words(value) if isinstance(value, list) else [plain(value)]
            return tuple(dict.fromkeys(found for word in words if (found := one(word, unmapped)) is not None))
        found = one(value if isinstance(value, str) else plain(value), unmapped)
        return found if choices is not None or found is None else coerce(found)

    return shape


def _words(value: list[Any]) -> list[str]:
    return [plain(part) for part in value if part is not None]


def _transform(mapping: FieldMapping) -> Callable[[str], str]:
    transforms = tuple(TRANSFORMS[name] for name in mapping.transform)
    if len(transforms) == 1:
        return transforms[0]

    def apply(text: str) -> str:
        for transform in transforms:
            text = transform(text)
        return text

    return apply


# --- reading an answer ------------------------------------------------------------------------------------------


def reader(path: str) -> Read:
    """Reads "person.title" or "organization.primary_phone.sanitized_number"."""
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


#: Stands for a blank placeholder while a template is rendered; no value holds it.
_GAP = "\0"
_SEPARATORS = r"[\s,;/|·•–—-]*"
_EMPTY_BRACKETS = re.compile(rf"([(\[{{]){_SEPARATORS}{_GAP}(?:{_SEPARATORS}{_GAP})*{_SEPARATORS}[)\]}}]")
_GAPS = re.compile(rf"({_SEPARATORS}){_GAP}(?:{_SEPARATORS}{_GAP})*({_SEPARATORS})")


def _template(parts: tuple[TemplatePart, ...]) -> Read:
    """Fills the placeholders; blank when all of them are.

    Where one is blank, one of the separators around it goes too, and brackets that would be empty: of "Leeds, " stays
    "Leeds", of "Leeds (, UK)" stays "Leeds (UK)".
    """
    pieces = [(part.text, reader(part.path) if part.path else None) for part in parts]

    def render(enrichment: Enrichment) -> str:
        shown: list[str] = []
        gaps = filled = False
        for literal, read in pieces:
            if read is None:
                shown.append(literal)
                continue
            text = _shown(read(enrichment))
            if text:
                filled = True
                shown.append(text)
            else:
                gaps = True
                shown.append(_GAP)
        if not filled:
            return ""
        return _tidied("".join(shown)) if gaps else "".join(shown)

    return render


def _tidied(text: str) -> str:
    text = _EMPTY_BRACKETS.sub(_GAP, text)

    def joint(match: re.Match[str]) -> str:
        at_start, at_end = match.start() == 0, match.end() == len(text)
        after_bracket = text[match.start() - 1 : match.start()] in ("(", "[", "{")
        before_close = text[match.end() : match.end() + 1] in (")", "]", "}", ".", "!", "?")
        if at_start or at_end or after_bracket or before_close:
            return ""
        return match[1] or match[2]

    return _GAPS.sub(joint, text)


def _shown(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(word for word in map(str.strip, _words(value)) if word).replace(_GAP, "")
    return "" if value is None else plain(value).strip().replace(_GAP, "")


# --- conditions -------------------------------------------------------------------------------------------------


def _conditions(conditions: tuple[Condition, ...]) -> Callable[[Enrichment], bool]:
    tests = [_condition(condition) for condition in conditions]
    if len(tests) == 1:
        return tests[0]
    return lambda enrichment: all(test(enrichment) for test in tests)


def _condition(condition: Condition) -> Callable[[Enrichment], bool]:
    read, operator = reader(condition.path), condition.operator
    values = frozenset(value.strip().casefold() for value in condition.values)
    if operator is Operator.IS_BLANK:
        return lambda enrichment: not _compared(read(enrichment))
    if operator is Operator.IS_NOT_BLANK:
        return lambda enrichment: bool(_compared(read(enrichment)))
    if operator is Operator.DIFFERS:
        return lambda enrichment: bool(found := _compared(read(enrichment))) and values.isdisjoint(found)
    return lambda enrichment: not values.isdisjoint(_compared(read(enrichment)))


def _compared(value: Any) -> tuple[str, ...]:
    """The words a condition compares: trimmed, without case; a group of values counts as one that equals nothing."""
    if isinstance(value, str):
        word = value.strip().casefold()
        return (word,) if word else ()
    if isinstance(value, list):
        return tuple(word for part in value for word in _compared(part))
    if isinstance(value, Mapping):
        return (_GAP,) if value else ()
    return () if value is None else (plain(value).casefold(),)
