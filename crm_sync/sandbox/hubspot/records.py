"""One object type's records: the world underneath, what was written on top, and what the search index knows of it."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from crm_sync.sandbox.hubspot import moments, sources
from crm_sync.sandbox.hubspot.properties import BY_TYPE, MODIFIED, SINGULAR, TYPE_IDS, Property
from crm_sync.sandbox.overlay import Overlay

#: What differs from the world, as kept in the overlay: "values" (property -> text, None erased), "history" (property ->
#: newest first [text, ms, source type, source id]), "updated" (ms), and where it is so "archived" (ms), "into" (index
#: of the record it was merged into).
Stored = dict[str, Any]

#: A record that is not made yet, as the index sees it until it catches up.
_UNBORN: Stored = {"unborn": True}

#: The id of the record at index 0; the others follow one by one. They grow by a digit within the first few records:
#: whoever compares them as text goes astray at once (contracts/hubspot.md 2.2, 2026-11).
FIRST_ID = {"contacts": 9_999_999_981, "companies": 999_999_996}
_CHUNK = 512
#: HubSpot keeps so many versions of a property (45 on contacts, 20 on the others).
_VERSIONS = {"contacts": 45, "companies": 20}


class Row:
    """One record: `base` is what the world says (None for one born here), `stored` what was written since."""

    __slots__ = ("base", "index", "stored")

    def __init__(self, index: int, base: Any, stored: Stored | None) -> None:
        self.index = index
        self.base = base
        self.stored = stored

    @property
    def is_living(self) -> bool:
        stored = self.stored
        return stored is None or not ("archived" in stored or "into" in stored or "unborn" in stored)


Getter = Callable[[Row], str | None]


class Table:
    """All records of one type. Every method is called with the portal's lock held."""

    def __init__(
        self,
        name: str,
        *,
        count: int,
        base: Callable[[int], Any],
        first_values: Callable[[], Mapping[str, sources.Source]],
        key_prefix: str,
        overlay: Overlay,
        lag_s: float,
        now: Callable[[], float] = time.time,
    ) -> None:
        self.name = name
        self.singular = SINGULAR[name]
        self.type_id = TYPE_IDS[name]
        self.modified = MODIFIED[name]
        self.properties: dict[str, Property] = {each.name: each for each in BY_TYPE[name]}
        self.native = count
        self.count = count
        self.archived: set[int] = set()
        #: Called with the indexes of records that the search index sees anew.
        self.seen_anew: list[Callable[[Iterable[int]], None]] = []
        self._first_id = FIRST_ID[name]
        self._base = base
        self._first_values = first_values
        self._key_prefix = key_prefix
        self._overlay = overlay
        self._lag_s = lag_s
        self._now = now
        #: One byte per record: was it ever written? Spares a look into the overlay for the others.
        self._edited = bytearray(count)
        #: What the index still believes of records written just now: index -> (until, as it was before) in order.
        self._lagging: dict[int, deque[tuple[float, Stored | None]]] = {}
        self._queue: deque[tuple[float, int]] = deque()
        self._getters: dict[str, Getter] = {}
        #: Values of unique properties that were written or merged here: property -> value -> index.
        self._taken: dict[str, dict[str, int]] = {"email": {}, "external_key": {}, "domain": {}}

    # --- ids ---

    def id_of(self, index: int) -> str:
        return str(self._first_id + index)

    def index_of(self, record_id: str) -> int | None:
        """The index of the record that was ever given this id."""
        if not record_id.isdecimal():
            return None
        index = int(record_id) - self._first_id
        return index if 0 <= index < self.count else None

    def first_from(self, record_id: int) -> int:
        """The index of the first record whose id is `record_id` or more."""
        return min(max(record_id - self._first_id, 0), self.count)

    def survivor(self, index: int) -> int:
        """The record that this one was merged into at last, itself when it was not."""
        while (stored := self.stored(index)) is not None and "into" in stored:
            index = stored["into"]
        return index

    # --- reading ---

    def stored(self, index: int) -> Stored | None:
        return self._overlay.get(self.name, index) if self._edited[index] else None

    def row(self, index: int) -> Row:
        return Row(index, self._base(index) if index < self.native else None, self.stored(index))

    def rows(self, first: int, last: int, *, as_indexed: bool = False) -> Iterator[Row]:
        """The records of first <= index < last in order, archived ones too; `as_indexed`: as the search sees them."""
        edited, base, native = self._edited, self._base, self.native
        for start in range(first, last, _CHUNK):
            end = min(start + _CHUNK, last)
            if edited.find(1, start, end) < 0:
                for index in range(start, end):
                    yield Row(index, base(index), None)
                continue
            edits = self._overlay.range(self.name, start, end)
            for index in range(start, end):
                stored = edits.get(index)
                if as_indexed and index in self._lagging:
                    stored = self._lagging[index][0][1]
                yield Row(index, base(index) if index < native else None, stored)

    def indexed(self, index: int) -> Row:
        """The record as the search sees it."""
        lagging = self._lagging.get(index)
        if lagging is None:
            return self.row(index)
        return Row(index, self._base(index) if index < self.native else None, lagging[0][1])

    def getter(self, name: str) -> Getter:
        """The function that reads one property of a row."""
        getter = self._getters.get(name)
        if getter is None:
            getter = self._getters[name] = self._make_getter(name)
        return getter

    def _make_getter(self, name: str) -> Getter:
        if name == "hs_object_id":
            return lambda row: self.id_of(row.index)
        if name == self.modified:
            return lambda row: moments.iso(self.modified_ms(row))
        if name in _DERIVED:
            dependency, derive = _DERIVED[name]
            of = self.getter(dependency)
            return lambda row: derive(value) if (value := of(row)) else None
        source = self._first_values().get(name)
        if name == "createdate":
            source = lambda index, _base: moments.iso(sources.created_ms(index))  # noqa: E731
        elif source is None:
            source = _nothing

        def get(row: Row) -> str | None:
            stored = row.stored
            if stored is not None:
                values = stored["values"]
                if name in values:
                    return values[name]  # type: ignore[no-any-return]
            return source(row.index, row.base) if row.base is not None else None

        return get

    @staticmethod
    def modified_ms(row: Row) -> int:
        return row.stored["updated"] if row.stored is not None else sources.modified_ms(row.index)

    def created_at(self, row: Row) -> str:
        return self.getter("createdate")(row) or moments.iso(sources.created_ms(row.index))

    def history(self, row: Row, name: str) -> list[list[Any]]:
        """The versions of a property, newest first: [text, ms, source type, source id]."""
        written = list(row.stored["history"].get(name, ())) if row.stored is not None else []
        if row.base is not None:
            first = self.getter(name)(Row(row.index, row.base, None))
            if first is not None:
                kind = ("IMPORT", "CRM_UI", "FORM")[row.index % 3]
                written.append([first, sources.created_ms(row.index), kind, f"first:{row.index % 3}"])
        return written[: _VERSIONS[self.name]]

    def by_unique(self, name: str, value: str) -> int | None:
        """The record, living or not, that holds this value of a property no two records share."""
        for index in (self._taken[name].get(value), self._native_holder(name, value)):
            if index is None:
                continue
            row = self.row(self.survivor(index))
            held = [self.getter(name)(row)]
            if name == "email":
                held += (self.getter("hs_additional_emails")(row) or "").split(";")
            if value in held:
                return row.index
        return None

    #: Set by the portal: which record of the world has a value of a property.
    native_holder: Callable[[str, str], int | None]

    def _native_holder(self, name: str, value: str) -> int | None:
        if name == "external_key":
            index = sources.key_index(self._key_prefix, value)
        else:
            index = self.native_holder(name, value)
        return index if index is not None and index < self.native else None

    # --- writing ---

    def write(
        self,
        changes: Iterable[tuple[int, Mapping[str, str | None]]],
        *,
        source: str,
        source_id: str,
        repeats: bool = False,
    ) -> None:
        """Give records new values, stamp them as modified now, and keep the versions; with `repeats` also those of
        values that were there already."""
        ms = round(self._now() * 1000)
        puts: list[tuple[int, Stored]] = []
        for index, values in changes:
            row = self.row(index)
            before = {name: self.getter(name)(row) for name in values}
            changed = {
                name: value
                for name, value in values.items()
                if before[name] != value or (repeats and value is not None)
            }
            stored = self._opened(row)
            for name, value in changed.items():
                stored["values"][name] = value
                versions = stored["history"].setdefault(name, [])
                versions.insert(0, [value or "", ms, source, source_id])
                del versions[_VERSIONS[self.name] :]
                if value is not None and name in self._taken:
                    self._taken[name][value] = index
            stored["updated"] = ms
            puts.append((index, stored))
        self._put(puts)

    def archive(self, index: int, *, archived: bool) -> None:
        stored = self._opened(self.row(index))
        stored.pop("archived", None)
        self.archived.discard(index)
        if archived:
            stored["archived"] = round(self._now() * 1000)
            self.archived.add(index)
        self._put([(index, stored)])

    def merge(self, primary: int, other: int) -> int:
        """Merge two living records into a third with a new id, as HubSpot does; returns its index."""
        ms = round(self._now() * 1000)
        winner, loser = self.row(primary), self.row(other)
        kept = [name for name, each in self.properties.items() if not each.calculated and name not in _OWN]
        values = {name: self.getter(name)(winner) or self.getter(name)(loser) for name in kept}
        values = {name: value for name, value in values.items() if value is not None}
        values["createdate"] = min(self.created_at(winner), self.created_at(loser))
        forebears = [self.getter("hs_merged_object_ids")(row) or "" for row in (winner, loser)]
        ids = [self.id_of(primary), self.id_of(other)]
        values["hs_merged_object_ids"] = ";".join(part for part in (*ids, *forebears) if part)
        if self.name == "contacts":
            addresses = [self.getter(name)(loser) for name in ("email", "hs_additional_emails")]
            others = ";".join(dict.fromkeys(a for a in addresses if a and a != values.get("email")))
            if others:
                values["hs_additional_emails"] = others
            values["hs_calculated_merged_vids"] = ";".join(f"{each}:{ms}" for each in ids)
        source = f"MERGE_{self.name.upper()}"
        born: Stored = {
            "values": values,
            "history": {name: [[value, ms, source, "merge"]] for name, value in values.items()},
            "updated": ms,
        }
        index = self.count
        self.count += 1
        self._edited.append(0)
        for name, taken in self._taken.items():
            also = values.get("hs_additional_emails") if name == "email" else None
            taken.update((value, index) for value in (values.get(name), *(also or "").split(";")) if value)
        gone = []
        for row in (winner, loser):
            stored = self._opened(row)
            stored |= {"into": index, "updated": ms}
            gone.append((row.index, stored))
        self._put([(index, born), *gone])
        return index

    @staticmethod
    def _opened(row: Row) -> Stored:
        """What is stored of a record, ready to be changed; a row read by itself owns it."""
        if row.stored is None:
            return {"values": {}, "history": {}, "updated": sources.modified_ms(row.index)}
        return row.stored

    def _put(self, puts: list[tuple[int, Stored]]) -> None:
        if self._lag_s > 0:
            until = self._now() + self._lag_s
            for index, _ in puts:
                before = self.stored(index) if self._edited[index] or index < self.native else _UNBORN
                self._lagging.setdefault(index, deque()).append((until, before))
                self._queue.append((until, index))
        self._overlay.put_many(self.name, puts)
        for index, _ in puts:
            self._edited[index] = 1
        if self._lag_s <= 0:
            self._tell(index for index, _ in puts)

    def catch_up(self) -> None:
        """Let the search index see what was written longer ago than the lag."""
        now = self._now()
        seen: list[int] = []
        while self._queue and self._queue[0][0] <= now:
            _, index = self._queue.popleft()
            lagging = self._lagging[index]
            lagging.popleft()
            if not lagging:
                del self._lagging[index]
            seen.append(index)
        if seen:
            self._tell(seen)

    def _tell(self, indexes: Iterable[int]) -> None:
        listed = list(indexes)
        for tell in self.seen_anew:
            tell(listed)

    # --- the sandbox's own view ---

    def written(self) -> int:
        """How many records were ever written."""
        return self._edited.count(1)

    def edits(self, *, limit: int) -> Iterator[tuple[str, Mapping[str, Any]]]:
        for index, stored in self._overlay.items(self.name, limit=limit):
            yield self.id_of(index), stored["values"]


#: Properties that a record has by itself, whatever was written.
_OWN = ("hs_object_id", "createdate", "lastmodifieddate", "hs_lastmodifieddate", "hs_merged_object_ids")


def _nothing(_index: int, _base: Any) -> str | None:
    return None


def _digits(text: str) -> str:
    return "".join(c for c in text if c.isdigit())


#: Calculated properties: what they follow, and how.
_DERIVED: Mapping[str, tuple[str, Callable[[str], str | None]]] = {
    "hs_email_domain": ("email", lambda text: text.rpartition("@")[2]),
    "hs_calculated_phone_number": ("phone", lambda text: f"+{_digits(text)}"),
    "hs_searchable_calculated_phone_number": ("phone", lambda text: _digits(text)[-10:]),
}
