"""Edits on top of the world, in a temporary SQLite file: a million written records need no memory."""

from __future__ import annotations

import os
import sqlite3
import tempfile
import threading
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import orjson


class Overlay:
    """(object type, index) -> the fields that differ from the world. Safe to use from several threads.

    The values are whatever JSON holds; a dict handed out is the caller's own.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        handle, self._path = tempfile.mkstemp(prefix="crm-sync-sandbox-", suffix=".db")
        os.close(handle)
        self._db = sqlite3.connect(self._path, check_same_thread=False, isolation_level=None)
        # Nobody needs this file after a crash.
        self._db.executescript(
            "PRAGMA journal_mode=OFF; PRAGMA synchronous=OFF; PRAGMA locking_mode=EXCLUSIVE;"
            "CREATE TABLE edits (object TEXT, place INTEGER, fields BLOB, PRIMARY KEY (object, place)) WITHOUT ROWID"
        )

    def get(self, object_type: str, index: int) -> dict[str, Any] | None:
        with self._lock:
            row = self._db.execute(
                "SELECT fields FROM edits WHERE object = ? AND place = ?", (object_type, index)
            ).fetchone()
        return orjson.loads(row[0]) if row else None

    def range(self, object_type: str, first: int, last: int) -> dict[int, dict[str, Any]]:
        """The edits of first <= index < last."""
        with self._lock:
            rows = self._db.execute(
                "SELECT place, fields FROM edits WHERE object = ? AND place >= ? AND place < ?",
                (object_type, first, last),
            ).fetchall()
        return {place: orjson.loads(fields) for place, fields in rows}

    def put(self, object_type: str, index: int, fields: Mapping[str, Any]) -> None:
        """Replace all edits of one record."""
        self.put_many(object_type, [(index, fields)])

    def put_many(self, object_type: str, edits: Iterable[tuple[int, Mapping[str, Any]]]) -> None:
        rows = [(object_type, index, orjson.dumps(dict(fields))) for index, fields in edits]
        with self._lock:
            self._db.execute("BEGIN")
            self._db.executemany("INSERT OR REPLACE INTO edits VALUES (?, ?, ?)", rows)
            self._db.execute("COMMIT")

    def count(self, object_type: str) -> int:
        with self._lock:
            return int(self._db.execute("SELECT count(*) FROM edits WHERE object = ?", (object_type,)).fetchone()[0])

    def items(self, object_type: str, *, limit: int) -> Iterator[tuple[int, dict[str, Any]]]:
        with self._lock:
            rows = self._db.execute(
                "SELECT place, fields FROM edits WHERE object = ? ORDER BY place LIMIT ?", (object_type, limit)
            ).fetchall()
        for place, fields in rows:
            yield place, orjson.loads(fields)

    def close(self) -> None:
        with self._lock:
            self._db.close()
        Path(self._path).unlink(missing_ok=True)
