"""The numbered versions of crm_sync.yaml."""

from __future__ import annotations

import hashlib
from base64 import b64decode, b64encode
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import orjson
from sqlalchemy import Row, func, insert, select

from crm_sync.store.engine import Store
from crm_sync.store.tables import config_versions as table


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfigVersion:
    """One applied configuration; `text` is byte for byte what was applied, comments too.

    `files` are the picklist files it names, as they were then: a version must mean the same for ever.
    """

    number: int
    text: bytes
    files: Mapping[str, bytes]
    digest: str
    author: str
    note: str
    created_at: datetime


class ConfigVersions:
    """Where every process reads what to do."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def latest(self) -> ConfigVersion | None:
        with self._store.read() as connection:
            row = connection.execute(select(table).order_by(table.c.number.desc()).limit(1)).first()
        return _version(row) if row else None

    def newest_number(self) -> int | None:
        with self._store.read() as connection:
            number: int | None = connection.execute(select(func.max(table.c.number))).scalar()
        return number

    def get(self, number: int) -> ConfigVersion | None:
        with self._store.read() as connection:
            row = connection.execute(select(table).where(table.c.number == number)).first()
        return _version(row) if row else None

    def history(self) -> list[ConfigVersion]:
        """Newest first."""
        with self._store.read() as connection:
            return [_version(row) for row in connection.execute(select(table).order_by(table.c.number.desc()))]

    def add(self, text: bytes, files: Mapping[str, bytes], *, author: str, note: str, now: datetime) -> ConfigVersion:
        """The next version; the newest one itself when text and files are the same to the byte."""
        packed = orjson.dumps({name: b64encode(content).decode() for name, content in sorted(files.items())})
        digest = hashlib.sha256(text + b"\0" + packed).hexdigest()
        with self._store.write() as connection:
            newest = connection.execute(select(table).order_by(table.c.number.desc()).limit(1)).first()
            if newest is not None and newest.digest == digest:
                return _version(newest)
            number = (connection.execute(select(func.max(table.c.number))).scalar() or 0) + 1
            values: dict[str, Any] = {
                "number": number,
                "text": text,
                "digest": digest,
                "author": author,
                "note": note,
                "created_at": now,
            }
            connection.execute(insert(table).values(values | {"files": packed}))
        return ConfigVersion(files=files, **values)


def _version(row: Row[Any]) -> ConfigVersion:
    return ConfigVersion(
        number=row.number,
        text=bytes(row.text),
        files={name: b64decode(content) for name, content in orjson.loads(row.files).items()},
        digest=row.digest,
        author=row.author,
        note=row.note,
        created_at=row.created_at,
    )
