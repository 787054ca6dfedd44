"""What a record itself says about being left alone: the CRM's own opt-out fields, and the admin's conditions. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from crm_sync.config.expressions import Condition, Operator
from crm_sync.config.model import Suppress
from crm_sync.domain.records import ObjectSchema, Value
from crm_sync.mapping.coerce import plain
from crm_sync.ports import Selection

Values = Mapping[str, Value]
#: Whether this user may read a field ("Individual.ShouldForget") of the object in question.
Readable = Callable[[str], bool]


@dataclass(frozen=True, slots=True, kw_only=True)
class OptOut:
    """A checkbox of the CRM by which somebody says no. `is_email`: to e-mail, not to enrichment by name. `expected`:
    its absence is worth a word, because the object has it unless somebody hid it or never switched it on."""

    field: str
    said: str
    is_email: bool = False
    expected: bool = True


_INDIVIDUAL = (
    # "Preference to not process personal data, which can include collecting, storing, and sharing" and "wants all
    # their personal data deleted" (Salesforce object reference, Individual, seen 2026-11). Its other boxes are about
    # tracking, profiling, location and marketing.
    OptOut(field="Individual.HasOptedOutProcessing", said="Don't Process"),
    OptOut(field="Individual.ShouldForget", said="Forget this Individual"),
)
# Salesforce has no field of its own for enrichment. Its e-mail opt-out is where a person's objection to marketing
# stands (contracts/salesforce.md 2.6), so it counts unless suppress.email_opt_out says otherwise; DoNotCall is about
# calls only.
_PERSON = (OptOut(field="HasOptedOutOfEmail", said="Email Opt Out", is_email=True), *_INDIVIDUAL)
_OPT_OUTS: Mapping[str, tuple[OptOut, ...]] = {
    "Contact": _PERSON,
    "Lead": _PERSON,
    # Only where person accounts are on.
    "Account": (
        OptOut(field="PersonHasOptedOutOfEmail", said="Email Opt Out", is_email=True, expected=False),
        OptOut(field="PersonIndividual.HasOptedOutProcessing", said="Don't Process", expected=False),
        OptOut(field="PersonIndividual.ShouldForget", said="Forget this Individual", expected=False),
    ),
    # contracts/hubspot.md 5 (2026-11): "opt-out should be honoured".
    "contacts": (OptOut(field="hs_contact_enrichment_opt_out", said="Contact enrichment opt out"),),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Sign:
    """One way in which a record says no: `holds` on the values of `fields`, told as `words`."""

    fields: tuple[str, ...]
    holds: Callable[[Values], bool]
    words: str


def readable(schema: ObjectSchema, check_selection: Callable[[Selection], list[str]]) -> Readable:
    """By the live schema; `check_selection` (ports.Crm) knows of parents, at no call beyond describe."""
    parents = {each.relationship for each in schema.fields.values() if each.relationship}

    def can_read(field: str) -> bool:
        relation, dot, _ = field.partition(".")
        if not dot:
            return field in schema.fields
        return relation in parents and not check_selection(Selection(object_type=schema.object_type, fields=(field,)))

    return can_read


def signs(object_type: str, schema: ObjectSchema, suppress: Suppress, readable: Readable) -> tuple[Sign, ...]:
    """All that can be seen on this object. A condition on a field that it has not got does not apply to it."""
    own = tuple(
        Sign(fields=(each.field,), holds=_test(_is_true(each.field)), words=f"{each.said} ({each.field})")
        for each in _counted(object_type, suppress)
        if readable(each.field)
    )
    return own + tuple(
        Sign(
            fields=tuple(dict.fromkeys(condition.path for condition in entry)),
            holds=_all([_test(condition) for condition in entry]),
            words=shown(entry),
        )
        for entry in suppress.when
        if not missing(entry, schema)
    )


def honoured(object_type: str, suppress: Suppress, readable: Readable) -> tuple[OptOut, ...]:
    """The CRM's own opt-outs that are seen and looked at."""
    return tuple(each for each in _counted(object_type, suppress) if readable(each.field))


def unseen(object_type: str, suppress: Suppress, readable: Readable) -> tuple[OptOut, ...]:
    """Opt-outs that this user does not see: whether anybody opted out is not known."""
    return tuple(each for each in _counted(object_type, suppress) if each.expected and not readable(each.field))


def missing(entry: Iterable[Condition], schema: ObjectSchema) -> tuple[str, ...]:
    return tuple(dict.fromkeys(each.path for each in entry if each.path not in schema.fields))


def shown(entry: Iterable[Condition]) -> str:
    """A condition as it stands in the configuration."""
    return " and ".join(_shown(condition) for condition in entry)


def _shown(condition: Condition) -> str:
    if condition.operator in (Operator.IS_BLANK, Operator.IS_NOT_BLANK):
        return f"{condition.path} {condition.operator.value}"
    value = ", ".join(condition.values)
    return f"{condition.path} {condition.operator.value} {f'[{value}]' if condition.operator is Operator.IN else value}"


def _counted(object_type: str, suppress: Suppress) -> Iterable[OptOut]:
    enriches = suppress.email_opt_out == "enrich"
    return (each for each in _OPT_OUTS.get(object_type, ()) if not (each.is_email and enriches))


def _is_true(field: str) -> Condition:
    return Condition(path=field, operator=Operator.EQUALS, values=("true",))


def _all(tests: list[Callable[[Values], bool]]) -> Callable[[Values], bool]:
    return tests[0] if len(tests) == 1 else lambda values: all(test(values) for test in tests)


def _test(condition: Condition) -> Callable[[Values], bool]:
    """As a mapping's `when` compares: trimmed and without case; != asks for a value that is there and is another."""
    path, operator = condition.path, condition.operator
    wanted = frozenset(value.strip().casefold() for value in condition.values)
    if operator is Operator.IS_BLANK:
        return lambda values: not _words(values.get(path))
    if operator is Operator.IS_NOT_BLANK:
        return lambda values: bool(_words(values.get(path)))
    if operator is Operator.DIFFERS:
        return lambda values: bool(found := _words(values.get(path))) and wanted.isdisjoint(found)
    return lambda values: not wanted.isdisjoint(_words(values.get(path)))


def _words(value: Value) -> tuple[str, ...]:
    if value is None or value == "":
        return ()
    if isinstance(value, tuple):
        return tuple(word for part in value for word in _words(part))
    word = plain(value).strip().casefold()
    return (word,) if word else ()
