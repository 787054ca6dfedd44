"""A Selection as SOQL: every name checked against describe, every text through one escaper. Decides, does not talk."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC
from difflib import get_close_matches
from urllib.parse import quote_plus

from adapters.salesforce import wire
from adapters.salesforce.where import Column, WhereError, compose, literal, parse
from crm_sync.domain.records import FieldKind, FieldSchema, ObjectSchema, Record
from crm_sync.errors import ConfigError
from crm_sync.ports import Selection, Within

#: Rows of one REST query answer at most (contracts/salesforce.md 2.1).
PAGE = 2_000
#: Bytes of an encoded query. URI and headers together end at 16,384 (1.3), and a token may have 2,000.
_MOST_QUERY = 13_000
_MOST_IDS = 250
_FEWEST_IDS = 25
#: What a placeholder can stand in.
_WORDS = frozenset(
    {FieldKind.TEXT, FieldKind.LONG_TEXT, FieldKind.EMAIL, FieldKind.PHONE, FieldKind.URL, FieldKind.PICKLIST}
)
_MOST_STEPS = 5  # parents in one path
_ANY_ID = "0" * 18

Describe = Callable[[str], ObjectSchema]


class Names:
    """One object's fields and parents' fields by the names a person writes, case ignored as in SOQL."""

    def __init__(self, schema: ObjectSchema, describe: Describe) -> None:
        """`describe` also answers for parents, and raises ConfigError for what it cannot show."""
        self._schema = schema
        self._describe = describe

    def column(self, name: str, *, filtered: bool) -> Column:
        """
        Raises:
            WhereError: there is no such field, or it cannot be filtered by (`filtered`) or read.
        """
        schema, path = self._schema, []
        *parents, last = name.split(".")
        if len(parents) > _MOST_STEPS:
            raise WhereError(f"{name} goes through more than {_MOST_STEPS} parents")
        for parent in parents:
            link = _relationship(schema, parent)
            path.append(link.relationship)
            try:
                schema = self._describe(link.refers_to[0])
            except ConfigError as error:
                raise WhereError(f"{name} cannot be read: {error}") from None
        field = _field(schema, last)
        if filtered and not field.filterable:
            raise WhereError(f"Salesforce cannot filter by {field.name} ({field.native_type}); leave it out")
        if field.native_type in wire.COMPOUND:
            raise WhereError(f"{field.name} cannot be read as one value: {field.why_not or 'it is a compound field'}")
        return Column(".".join([*path, field.name]), field)

    def filtered(self, name: str) -> Column:
        return self.column(name, filtered=True)

    def own(self, name: str) -> Column:
        """As `column`, for what stands in the record itself."""
        if "." in name:
            raise WhereError(f"{name} belongs to a parent; only {self._schema.object_type}'s own fields can stand here")
        return self.column(name, filtered=False)


def _relationship(schema: ObjectSchema, name: str) -> FieldSchema:
    wanted = name.casefold()
    links = {f.relationship: f for f in schema.fields.values() if f.relationship}
    link = next((f for relationship, f in links.items() if relationship.casefold() == wanted), None)
    if link is None:
        near = get_close_matches(name, links, n=1)
        hint = f"did you mean {near[0]}?" if near else f"it has {', '.join(sorted(links)) or 'none'}"
        raise WhereError(f"{schema.object_type} has no parent {name}, or this user may not see it; {hint}")
    if len(link.refers_to) != 1:
        raise WhereError(
            f"{schema.object_type}'s {name} may be a {' or a '.join(link.refers_to) or 'record of several objects'}; "
            "fields of such a parent cannot be used"
        )
    return link


def _field(schema: ObjectSchema, name: str) -> FieldSchema:
    found = schema.fields.get(name)
    if found is None:
        wanted = name.casefold()
        found = next((f for f in schema.fields.values() if f.name.casefold() == wanted), None)
    if found is None:
        near = get_close_matches(name, schema.fields, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise WhereError(f"{schema.object_type} has no field {name}, or this user may not see it{hint}")
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What to ask for a Selection.

    `paths` maps each name asked for, and each of `missing_any`, to its column. The query reads `columns`; `rest` are
    own fields that it has no room for, to be retrieved by id after each page. `exact`: the query leaves out what lacks
    nothing; otherwise the records have to be looked at (`lacks`). `portions` are the ids to ask for, () for any.
    """

    object_type: str
    paths: Mapping[str, str]
    columns: tuple[str, ...]
    rest: tuple[str, ...]
    conditions: tuple[str, ...]
    exact: bool
    portions: tuple[tuple[str, ...], ...]

    def query(self, *, ids: Sequence[str], after: str, limit: int, whole: bool = False) -> str:
        """`whole`: with `rest`, for a way that has room for them."""
        columns = (*self.columns, *self.rest) if whole else self.columns
        return _query(columns, self.object_type, self.conditions, ids, after, limit)


def plan(selection: Selection, names: Names, schema: ObjectSchema) -> Plan | None:
    """None when no record can satisfy the selection.

    Raises:
        WhereError: the first thing that is wrong with it.
    """
    columns = {name: names.column(name, filtered=False).path for name in selection.fields}
    missing = {name: names.own(name) for name in selection.missing_any}
    paths = {**columns, **{name: column.path for name, column in missing.items()}}
    conditions = []
    if selection.where is not None:
        conditions.append(compose(parse(_text(selection.where), names.filtered)))
    if selection.within is not None:
        conditions += _within(selection.within, names)
    if "IsConverted" in schema.fields:
        # A converted lead takes no update (CANNOT_UPDATE_CONVERTED_LEAD, contracts/salesforce.md 2.3).
        conditions.append("IsConverted = false")
    blank, exact = _blank(missing.values(), selection.placeholders)
    if blank:
        conditions.append(blank)
    ids = sorted({full for each in selection.ids if (full := wire.long_id(each)) is not None})
    if (missing and exact and not blank) or (selection.ids and not ids):
        return None
    everything = tuple(dict.fromkeys(["Id", *paths.values()]))
    needed = tuple(path for path in everything if "." in path or path == "Id")
    for chosen in (everything, needed):
        size = _portion(chosen, selection.object_type, conditions, with_ids=bool(ids))
        if size:
            return Plan(
                object_type=selection.object_type,
                paths=paths,
                columns=chosen,
                rest=tuple(path for path in everything if path not in chosen),
                conditions=tuple(conditions),
                exact=exact,
                portions=tuple(tuple(ids[at : at + size]) for at in range(0, len(ids), size)) or ((),),
            )
    length = _length(needed, selection.object_type, conditions, ())
    raise WhereError(
        f"the selection of {selection.object_type} takes {length:,} bytes as a query, and Salesforce lets "
        f"{_MOST_QUERY:,} through; shorten where, missing_any or placeholders"
    )


def problems(selection: Selection, names: Names, schema: ObjectSchema) -> list[str]:
    """Everything that is wrong with a selection, a sentence each."""
    found: list[str] = []

    def tried(act: Callable[[], object]) -> None:
        try:
            act()
        except WhereError as error:
            if str(error) not in found:
                found.append(str(error))

    for name in selection.fields:
        tried(lambda name=name: names.column(name, filtered=False))  # type: ignore[misc]
    for name in selection.missing_any:
        tried(lambda name=name: names.own(name))  # type: ignore[misc]
    if selection.where is not None:
        tried(lambda: parse(_text(selection.where), names.filtered))
    if selection.within is not None:
        tried(lambda: _within(selection.within, names))  # type: ignore[arg-type]
    if not found:
        tried(lambda: plan(selection, names, schema))
    return found


def lacks(record: Record, selection: Selection, placeholders: frozenset[str]) -> bool:
    """Whether one of `missing_any` is blank or holds a placeholder (`folded`)."""
    for name in selection.missing_any:
        value = record.values.get(name)
        if value is None or value == ():
            return True
        if isinstance(value, str):
            text = value.strip().casefold()
            if not text or text in placeholders:
                return True
    return False


def folded(placeholders: Iterable[str]) -> frozenset[str]:
    return frozenset(word.strip().casefold() for word in placeholders)


def _text(where: object) -> str:
    if not isinstance(where, str) or not where.strip():
        raise WhereError('where must be a SOQL condition, such as "AccountId != null"')
    return where


def _within(within: Within, names: Names) -> tuple[str, str]:
    """Both bounds. A moment has no quotes, and Z: the + of an offset would have to be encoded
    (contracts/salesforce.md 2.1, 2026-11)."""
    column = names.filtered(within.field)
    forms = {FieldKind.DATE: "%Y-%m-%d", FieldKind.DATETIME: "%Y-%m-%dT%H:%M:%SZ"}
    form = forms.get(column.schema.kind)
    if form is None:
        raise WhereError(
            f"{column.path} is {column.schema.kind.value} and cannot be searched by time; "
            "name a date, or a date and time"
        )
    first, last = (moment.astimezone(UTC).strftime(form) for moment in (within.first, within.last))
    return f"{column.path} >= {first}", f"{column.path} <= {last}"


def _blank(missing: Iterable[Column], placeholders: Sequence[str]) -> tuple[str, bool]:
    """(condition, whether it is exact); ("", False) when the records have to be looked at."""
    words = ", ".join(dict.fromkeys(literal(word.strip()) for word in placeholders if word.strip()))
    parts = []
    for column in missing:
        if column.schema.kind is FieldKind.BOOLEAN:
            continue  # a checkbox is never blank
        if not column.schema.filterable:
            return "", False
        parts.append(f"{column.path} = null")
        if words and column.schema.kind in _WORDS:
            parts.append(f"{column.path} IN ({words})")  # SOQL compares texts without case
    return (f"({' OR '.join(parts)})" if parts else ""), True


def _portion(columns: Sequence[str], object_type: str, conditions: Sequence[str], *, with_ids: bool) -> int:
    """How many ids fit one query (any number when there are none to ask for), 0 when it is too long anyway."""
    if not with_ids:
        return 1 if _length(columns, object_type, conditions, ()) <= _MOST_QUERY else 0
    size = _MOST_IDS
    while size >= _FEWEST_IDS:
        if _length(columns, object_type, conditions, [_ANY_ID] * size) <= _MOST_QUERY:
            return size
        size //= 2
    return 0


def _length(columns: Sequence[str], object_type: str, conditions: Sequence[str], ids: Sequence[str]) -> int:
    return len(quote_plus(_query(columns, object_type, conditions, ids, _ANY_ID, PAGE)))


def _query(
    columns: Sequence[str], object_type: str, conditions: Sequence[str], ids: Sequence[str], after: str, limit: int
) -> str:
    terms = list(conditions)
    if ids:
        terms.append(f"Id IN ({', '.join(literal(each) for each in ids)})")
    if after:
        terms.append(f"Id > {literal(after)}")
    clause = f" WHERE {' AND '.join(terms)}" if terms else ""
    # Names are describe's, texts the escaper's, the limit is a number of ours.
    return f"SELECT {', '.join(columns)} FROM {object_type}{clause} ORDER BY Id LIMIT {limit}"  # noqa: S608
