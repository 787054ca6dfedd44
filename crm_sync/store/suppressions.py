"""Whom to leave alone, as keyed digests: it can be asked about somebody, and never tells who is on it."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, bindparam, delete, exists, func, literal, select

from crm_sync.mapping.identities import KINDS, kind_of
from crm_sync.store.engine import Store
from crm_sync.store.tables import marks, suppressions
from crm_sync.store.upsert import upsert
from crm_sync.store.vault import Vault

BY_HAND = "by hand"
ERASED = "erased"
_LIST, _FILE = "list:", "file:"
_LONGEST_SOURCE = 200
_MARK = "suppressions"
#: So many digests in one question, and rows in one insert.
_AT_ONCE = 500


@dataclass(frozen=True, slots=True)
class Standing:
    """`version` rises with every change; `kinds` are those of which there is anybody at all."""

    version: int
    kinds: frozenset[str]


@dataclass(frozen=True, slots=True)
class Entry:
    """One source that names an identity."""

    identity: str
    source: str
    added_at: datetime


@dataclass(frozen=True, slots=True)
class Change:
    added: int
    removed: int
    total: int


_STANDING = select(
    select(marks.c.number).where(marks.c.name == _MARK).scalar_subquery(),
    *(exists(select(literal(1)).where(suppressions.c.kind == kind)).label(f"has_{kind}") for kind in KINDS),
)
_AMONG = select(suppressions.c.digest).where(
    suppressions.c.kind == bindparam("b_kind"), suppressions.c.digest.in_(bindparam("b_digests", expanding=True))
)


class Suppressions:
    """Identities come in as mapping/identities.py spells them, and leave as digests only. Thread-safe."""

    def __init__(self, store: Store, vault: Vault) -> None:
        self._store = store
        self._vault = vault

    # --- questions ------------------------------------------------------------------------------------------------

    def standing(self) -> Standing:
        with self._store.read() as connection:
            version, *there = connection.execute(_STANDING).one()
        return Standing(version or 0, frozenset(kind for kind, is_there in zip(KINDS, there, strict=True) if is_there))

    def among(self, identities: Iterable[str]) -> frozenset[str]:
        """Those of `identities` that are to be left alone."""
        wanted = self._digests(identities)
        found: set[str] = set()
        if not wanted:
            return frozenset()
        with self._store.read() as connection:
            for kind, by_digest in wanted.items():
                for some in _slices(list(by_digest)):
                    rows = connection.execute(_AMONG, {"b_kind": kind, "b_digests": some}).scalars()
                    found.update(by_digest[bytes(digest)] for digest in rows)
        return frozenset(found)

    def entries(self, identities: Iterable[str]) -> list[Entry]:
        """Each source that names one of `identities`."""
        found = []
        with self._store.read() as connection:
            for kind, by_digest in self._digests(identities).items():
                for some in _slices(list(by_digest)):
                    rows = connection.execute(
                        select(suppressions.c.digest, suppressions.c.source, suppressions.c.added_at)
                        .where(suppressions.c.kind == kind, suppressions.c.digest.in_(some))
                        .order_by(suppressions.c.source)
                    )
                    found += [Entry(by_digest[bytes(digest)], source, at) for digest, source, at in rows]
        return found

    def counts(self) -> list[tuple[str, str, int, datetime]]:
        """(kind, source, how many, the newest), in the order of kinds."""
        query = select(
            suppressions.c.kind, suppressions.c.source, func.count(), func.max(suppressions.c.added_at)
        ).group_by(suppressions.c.kind, suppressions.c.source)
        with self._store.read() as connection:
            rows = [(kind, source, count, newest) for kind, source, count, newest in connection.execute(query)]
        return sorted(rows, key=lambda row: (KINDS.index(row[0]), row[1]))

    def in_source(self, source: str) -> int:
        with self._store.read() as connection:
            query = select(func.count()).select_from(suppressions).where(suppressions.c.source == source)
            return int(connection.execute(query).scalar() or 0)

    # --- changes --------------------------------------------------------------------------------------------------

    def add(self, identities: Collection[str], source: str, *, now: datetime) -> int:
        """How many this source did not name yet."""
        with self._store.write() as connection:
            return self.add_in(connection, identities, source, now=now)

    def add_in(self, connection: Connection, identities: Collection[str], source: str, *, now: datetime) -> int:
        """As `add`, in a transaction of the caller's."""
        rows = self._keys(identities)
        new = rows - self._held(connection, source, rows)
        self._insert(connection, new, source, now)
        return len(new)

    def digests(self, identities: Iterable[str]) -> set[tuple[str, bytes]]:
        """(kind, digest) of each, for what is noted outside the database."""
        return self._keys(identities)

    def add_digests(self, rows: set[tuple[str, bytes]], source: str, *, now: datetime) -> int:
        """As `add`, from a note; takes no lock when nothing of it is new."""
        with self._store.read() as connection:
            new = rows - self._held(connection, source, rows)
        if new:
            with self._store.write() as connection:
                self._insert(connection, new, source, now)
        return len(new)

    def remove(self, identities: Collection[str], sources: Collection[str], *, now: datetime) -> int:
        """Take them off these sources; how many entries that were."""
        removed = 0
        with self._store.write() as connection:
            for kind, by_digest in self._digests(identities).items():
                for some in _slices(list(by_digest)):
                    removed += connection.execute(
                        delete(suppressions).where(
                            suppressions.c.kind == kind,
                            suppressions.c.digest.in_(some),
                            suppressions.c.source.in_(list(sources)),
                        )
                    ).rowcount
            if removed:
                _changed(connection, now)
        return removed

    def replace(self, source: str, identities: Collection[str], *, now: datetime) -> Change:
        """Make `source` name exactly these."""
        rows = self._keys(identities)
        with self._store.write() as connection:
            before = {
                (kind, bytes(digest))
                for kind, digest in connection.execute(
                    select(suppressions.c.kind, suppressions.c.digest).where(suppressions.c.source == source)
                )
            }
            gone = before - rows
            if gone:
                connection.execute(
                    delete(suppressions).where(
                        suppressions.c.kind == bindparam("b_kind"),
                        suppressions.c.digest == bindparam("b_digest"),
                        suppressions.c.source == source,
                    ),
                    [{"b_kind": kind, "b_digest": digest} for kind, digest in gone],
                )
                _changed(connection, now)
            self._insert(connection, rows - before, source, now)
        return Change(added=len(rows - before), removed=len(gone), total=len(rows))

    def forget(self, source: str, *, now: datetime) -> int:
        """Take everybody off this source; how many that were."""
        with self._store.write() as connection:
            count = connection.execute(delete(suppressions).where(suppressions.c.source == source)).rowcount
            if count:
                _changed(connection, now)
        return count

    # --- inside ---------------------------------------------------------------------------------------------------

    def _digests(self, identities: Iterable[str]) -> dict[str, dict[bytes, str]]:
        found: dict[str, dict[bytes, str]] = defaultdict(dict)
        digest = self._vault.digest
        for identity in identities:
            found[kind_of(identity)][digest(identity)] = identity
        return found

    def _keys(self, identities: Iterable[str]) -> set[tuple[str, bytes]]:
        digest = self._vault.digest
        return {(kind_of(identity), digest(identity)) for identity in identities}

    def _held(self, connection: Connection, source: str, rows: set[tuple[str, bytes]]) -> set[tuple[str, bytes]]:
        found: set[tuple[str, bytes]] = set()
        for kind in {kind for kind, _ in rows}:
            for some in _slices([digest for each, digest in rows if each == kind]):
                query = _AMONG.where(suppressions.c.source == source)
                held = connection.execute(query, {"b_kind": kind, "b_digests": some}).scalars()
                found.update((kind, bytes(digest)) for digest in held)
        return found

    def _insert(self, connection: Connection, rows: set[tuple[str, bytes]], source: str, now: datetime) -> None:
        if not rows:
            return
        connection.execute(
            upsert(connection, suppressions, ()),
            # In the order of the key: a list of 200,000 goes in three times as fast.
            [{"kind": kind, "digest": digest, "source": source, "added_at": now} for kind, digest in sorted(rows)],
        )
        _changed(connection, now)


def list_sources(store: Store) -> list[str]:
    """The sources that are lists of a configuration. Needs no key."""
    query = select(suppressions.c.source).where(suppressions.c.source.startswith(_LIST)).distinct()
    with store.read() as connection:
        return sorted(connection.execute(query).scalars())


def list_source(name: str) -> str:
    """The source of a list under `suppress.lists`."""
    return _short(_LIST + name)


def file_source(name: str) -> str:
    """The source of a file that was imported by hand."""
    return _short(_FILE + name)


def _short(source: str) -> str:
    if len(source) <= _LONGEST_SOURCE:
        return source
    return f"{source[:160]}…{hashlib.sha256(source.encode()).hexdigest()[:32]}"


def _changed(connection: Connection, now: datetime) -> None:
    statement = upsert(connection, marks, ("at",), add=("number",))
    connection.execute(statement, {"name": _MARK, "number": 1, "at": now})


def _slices(items: list[Any]) -> Iterator[list[Any]]:
    for start in range(0, len(items), _AT_ONCE):
        yield items[start : start + _AT_ONCE]
