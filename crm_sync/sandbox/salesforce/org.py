"""The org's records: the world underneath, what was written on top, and how to get at one field quickly."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from functools import lru_cache
from typing import Any

from crm_sync.sandbox.overlay import Overlay
from crm_sync.sandbox.salesforce import clock, ids, soql, sources
from crm_sync.sandbox.salesforce.errors import RequestCode, RequestError
from crm_sync.sandbox.salesforce.schema import Field, SObject
from crm_sync.sandbox.world import World

#: Rows whose edits are fetched together while streaming.
_CHUNK = 512


class Row:
    """One record: `base` is what the world says, `edits` what was written since (API name -> stored value)."""

    __slots__ = ("base", "edits", "index")

    def __init__(self, index: int, base: Any, edits: Mapping[str, Any] | None) -> None:
        self.index = index
        self.base = base
        self.edits = edits

    @property
    def is_deleted(self) -> bool:
        return self.edits is not None and bool(self.edits.get("IsDeleted"))


Getter = Callable[[Row], Any]


class Org:
    """All records of all objects, as the service would hand them out."""

    def __init__(
        self, world: World, objects: Mapping[str, SObject], *, overlay: Overlay, now: Callable[[], float] = time.time
    ) -> None:
        self.objects = objects
        self.now = now
        self.lock = threading.RLock()
        self._overlay = overlay
        counts = {"Account": world.accounts, "Contact": world.contacts, "Lead": world.leads}
        self._counts = {name: counts.get(name, world.contacts) for name in objects}
        #: One byte per record: was it ever written? Spares a look into the overlay for the others.
        self._edited = {name: bytearray(count) for name, count in self._counts.items()}
        #: Parents are read once per child that names them, so the last ones used are kept.
        self._bases: dict[str, Callable[[int], Any]] = {
            "Account": lru_cache(maxsize=4096)(world.account),
            "Contact": world.contact,
            "Lead": sources.leads(world),
            "Individual": world.contact,
        }
        self._getters: dict[tuple[str, str], Getter] = {}

    def redefine(self, name: str, field: Field) -> None:
        """Put a field in the place of the one with its name."""
        before = self.objects[name]
        fields = tuple(field if each.name == field.name else each for each in before.fields)
        by_name = {each.name: each for each in fields}
        by_lower = {key: by_name.get(each.name, each) for key, each in before.by_lower.items()}
        changed = replace(before, fields=fields, by_name=by_name, by_lower=by_lower)
        with self.lock:
            self.objects = {**self.objects, name: changed}

    def object_name(self, name: str) -> str | None:
        """Return the object's own spelling of `name`, None where there is no such object."""
        return next((known for known in self.objects if known.lower() == name.lower()), None)

    def count(self, name: str) -> int:
        return self._counts[name]

    def id_of(self, name: str, index: int) -> str:
        return ids.encode(self.objects[name].prefix, index)

    def index_of(self, name: str, record_id: str) -> int | None:
        """Return the index of a record by its id of 15 or 18 characters, deleted or not; None where it never was."""
        full = ids.normalise(record_id)
        if full is None or full[:3] != self.objects[name].prefix:
            return None
        index = ids.number(full)
        return index if 0 <= index < self._counts[name] else None

    def object_of(self, record_id: str) -> str | None:
        """Return the object a well-formed id belongs to by its prefix."""
        return next((name for name, sobject in self.objects.items() if record_id[:3] == sobject.prefix), None)

    def place(self, name: str, record_id: str) -> tuple[int, bool]:
        """Return how many records of `name` have a smaller id, and whether the record with this id was ever made."""
        full = ids.normalise(record_id) or record_id
        prefix = self.objects[name].prefix
        if full[:3] != prefix:
            return (0 if full[:3] < prefix else self._counts[name]), False
        before = ids.place(full)
        return min(before, self._counts[name]), self.index_of(name, full) is not None

    def row(self, name: str, index: int) -> Row:
        edits = self._overlay.get(name, index) if self._edited[name][index] else None
        return Row(index, self._bases[name](index), edits)

    def rows(self, name: str, first: int, last: int, *, only: frozenset[int] | None, descending: bool) -> Iterator[Row]:
        """Stream the records [first, last), of them only `only` where given; deleted ones too."""
        if only is not None:
            for index in sorted((index for index in only if first <= index < last), reverse=descending):
                yield self.row(name, index)
            return
        base, edited = self._bases[name], self._edited[name]
        starts = range(first, last, _CHUNK)
        for start in reversed(starts) if descending else starts:
            end = min(start + _CHUNK, last)
            indexes = range(start, end)
            if descending:
                indexes = indexes[::-1]
            if edited.find(1, start, end) < 0:
                for index in indexes:
                    yield Row(index, base(index), None)
                continue
            edits = self._overlay.range(name, start, end)
            for index in indexes:
                yield Row(index, base(index), edits.get(index))

    def getter(self, name: str, field: str) -> Getter:
        """Return the function that reads one field of a row."""
        getter = self._getters.get((name, field))
        if getter is None:
            getter = self._getters[name, field] = self._make_getter(name, field)
        return getter

    def _make_getter(self, name: str, field: str) -> Getter:
        described = self.objects[name].by_name[field]
        if described.type == "address":
            return self._address_getter(name, field.removesuffix("Address"))
        if field == "Name" and name != "Account":
            first, last = self.getter(name, "FirstName"), self.getter(name, "LastName")
            return lambda row: " ".join(part for part in (first(row), last(row)) if part)
        default = False if described.type == "boolean" else None
        source = sources.of(name, field) or (lambda _row: default)

        def get(row: Row) -> Any:
            edits = row.edits
            if edits is not None and field in edits:
                return edits[field]
            return source(row)

        return get

    def _address_getter(self, name: str, prefix: str) -> Getter:
        parts = ["City", "Country", "GeocodeAccuracy", "Latitude", "Longitude", "PostalCode", "State", "Street"]
        getters = [(part[0].lower() + part[1:], self.getter(name, prefix + part)) for part in parts]

        def get(row: Row) -> dict[str, Any] | None:
            address = {part: read(row) for part, read in getters}
            return address if any(value is not None for value in address.values()) else None

        return get

    def canonical(self, name: str, path: soql.Path, text: str) -> tuple[str, ...]:
        """Return a path in the org's own spelling.

        Raises:
            RequestError: 400 INVALID_FIELD, or MALFORMED_QUERY for a parent that is not simulated.
        """
        names = path.names
        if len(names) > 1 and names[0].lower() == name.lower():
            names = names[1:]
        spelled: list[str] = []
        current = name
        for relationship in names[:-1]:
            parent = self.objects[current].parents.get(relationship.lower())
            if parent is None or parent.relationship is None:
                raise self._no_parent(current, relationship, path, text)
            spelled.append(parent.relationship)
            current = parent.refers_to[0]
        field = self.objects[current].field(names[-1])
        if field is None:
            raise soql.error_at(
                text,
                path.position,
                f"No such column '{names[-1]}' on entity '{current}'. If you are attempting to use a custom field, be"
                " sure to append the '__c' after the custom field name. Please reference your WSDL or the describe"
                " call for the appropriate names.",
                RequestCode.INVALID_FIELD,
            )
        return (*spelled, field.name)

    def _no_parent(self, name: str, relationship: str, path: soql.Path, text: str) -> RequestError:
        known = {field.relationship.lower() for field in self.objects[name].fields if field.relationship}
        if relationship.lower() in known:
            return soql.error_at(
                text, path.position, f"The crm-sync sandbox does not simulate the parent {name}.{relationship}."
            )
        return soql.error_at(
            text,
            path.position,
            f"Didn't understand relationship '{relationship}' in field path. If you are attempting to use a custom"
            " relationship, be sure to append the '__r' after the custom relationship name. Please reference your"
            " WSDL or the describe call for the appropriate names.",
            RequestCode.INVALID_FIELD,
        )

    def resolve(self, name: str, path: soql.Path, text: str) -> tuple[Field, Getter]:
        """Return the field a path ends at and the function that reads it, through parents, from a row of `name`.

        Raises:
            RequestError: as `canonical`.
        """
        *parents, field_name = self.canonical(name, path, text)
        steps: list[Callable[[Row], Row | None]] = []
        for relationship in parents:
            step, name = self._step(name, relationship)
            steps.append(step)
        field = self.objects[name].by_name[field_name]
        last = self.getter(name, field_name)
        if not steps:
            return field, last

        def get(row: Row) -> Any:
            current: Row | None = row
            for step in steps:
                current = step(current)  # type: ignore[arg-type]
                if current is None:
                    return None
            return last(current)  # type: ignore[arg-type]

        return field, get

    def _step(self, name: str, relationship: str) -> tuple[Callable[[Row], Row | None], str]:
        """The function from a row to its parent's row, and the parent's object."""
        link = self.objects[name].parents[relationship.lower()]
        target = link.refers_to[0]
        field = link.name
        read = self.getter(name, field)
        born_with = sources.parent(name, field)

        def step(row: Row) -> Row | None:
            if born_with is not None and (row.edits is None or field not in row.edits):
                index = born_with(row)
            else:
                index = self.index_of(target, read(row) or "")
            return None if index is None else self.row(target, index)

        return step, target

    def renderer(self, name: str, tree: Mapping[str, Any]) -> Callable[[Row, str], dict[str, Any]]:
        """Return the function that makes a row's JSON object. `tree` has the fields to show, in order: None for a
        field, a tree again for a parent. The function's second argument is "/services/data/v62.0"."""
        prefix = self.objects[name].prefix
        encode = ids.encode
        parts: list[tuple[str, Callable[[Row, str], Any] | None, Getter]] = []
        for key, below in tree.items():
            if below is None:
                parts.append((key, None, self.getter(name, key)))
            else:
                step, target = self._step(name, key)
                parts.append((key, self.renderer(target, below), step))

        def render(row: Row, root: str) -> dict[str, Any]:
            url = f"{root}/sobjects/{name}/{encode(prefix, row.index)}"
            shown: dict[str, Any] = {"attributes": {"type": name, "url": url}}
            for key, parent, get in parts:
                value = get(row)
                shown[key] = value if parent is None or value is None else parent(value, root)
            return shown

        return render

    def write(self, name: str, changes: Iterable[tuple[int, Mapping[str, Any]]], *, by: str) -> None:
        """Store new field values and stamp each record as modified now by the user `by`. Hold `lock`."""
        moment = clock.stamp(self.now())
        stamps = {"LastModifiedDate": moment, "SystemModstamp": moment, "LastModifiedById": by}
        merged: dict[int, dict[str, Any]] = {}
        for index, values in changes:
            known = merged.get(index)
            if known is None:
                known = dict(self._overlay.get(name, index) or {}) if self._edited[name][index] else {}
            merged[index] = known | dict(values) | stamps
        self._overlay.put_many(name, merged.items())
        edited = self._edited[name]
        for index in merged:
            edited[index] = 1

    def written(self, name: str) -> int:
        """How many records were ever written."""
        return self._edited[name].count(1)

    def edits(self, name: str, *, limit: int) -> Iterator[tuple[str, dict[str, Any]]]:
        """The first `limit` records that were written: id, and what differs from the world."""
        for index, fields in self._overlay.items(name, limit=limit):
            yield self.id_of(name, index), fields

    def close(self) -> None:
        self._overlay.close()
