"""A SQLite file, copied whole while others use it, and put in the place of another.

`cp` of a file that is in use takes half of a transaction, or leaves the newest ones behind in the -wal file; and a -wal
file of the old database beside a new one may be replayed into it (sqlite.org, "How To Corrupt An SQLite Database File",
1.2 and 1.4, 2026-11). SQLite's online backup takes one consistent state and does not hold up writers.
"""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing, suppress
from pathlib import Path

from crm_sync.errors import StoreError

#: Beside the file in use: what SQLite itself keeps there.
_COMPANIONS = ("-wal", "-shm", "-journal")


def copy(source: Path, target: Path) -> None:
    """`target` is a single file that only its owner may read, checked and on the disk before it has its name; one that
    was there is replaced.

    Raises:
        StoreError: it cannot be read, written, or is damaged; `target` is as it was.
    """
    made = target.with_name(f"{target.name}.{os.getpid()}.new")
    try:
        os.close(os.open(made, os.O_CREAT | os.O_TRUNC | os.O_WRONLY | os.O_CLOEXEC, 0o600))
        with (
            closing(sqlite3.connect(f"{source.resolve().as_uri()}?mode=rw", uri=True, timeout=30)) as reader,
            closing(sqlite3.connect(made)) as writer,
        ):
            reader.backup(writer)
            writer.execute("PRAGMA journal_mode=DELETE")  # a copy is one file
            found = writer.execute("PRAGMA quick_check(1)").fetchone()[0]
        if found != "ok":
            raise StoreError(f"{source} is damaged ({str(found).splitlines()[0]}): no copy of it was made")
        _to_disk(made)
        made.replace(target)
        _to_disk(target.parent)
    except (OSError, sqlite3.Error) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise StoreError(f"{source} could not be copied to {target}: {reason}") from error
    finally:
        for each in (made, *companions(made)):
            with suppress(OSError):
                each.unlink()


def put_in_place(made: Path, place: Path, aside: Path) -> None:
    """`made` becomes the database at `place`; what was there goes to `aside`, with SQLite's companions of it.

    Killed in between, there is either the old database, or none: an empty one that begins in its place is told by the
    state file, and spends nothing.

    Raises:
        StoreError: it cannot be done; what was there is at `place` or at `aside`.
    """
    try:
        # What the old one still has in its -wal file comes into the file itself, if it can be opened at all.
        with suppress(sqlite3.Error), closing(sqlite3.connect(f"{place.resolve().as_uri()}?mode=rw", uri=True)) as old:
            old.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        if place.exists():
            place.rename(aside)
        for companion, kept in zip(companions(place), companions(aside), strict=True):
            if companion.exists():
                companion.rename(kept)
        made.rename(place)
        _to_disk(place.parent)
    except OSError as error:
        raise StoreError(
            f"{made} could not be put in the place of {place}: {error.strerror}. What was there is at {place} or at "
            f"{aside}"
        ) from error


def schema_in(path: Path) -> str:
    """The schema of crm-sync that a SQLite file has, "" where it has none.

    Raises:
        StoreError: it cannot be read, or is no SQLite database.
    """
    try:
        with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)) as reader:
            found = reader.execute("select 1 from sqlite_master where name = 'alembic_version'").fetchone()
            row = reader.execute("select version_num from alembic_version").fetchone() if found else None
    except sqlite3.Error as error:
        raise StoreError(f"{path} cannot be read as a database: {error}") from error
    return str(row[0]) if row else ""


def companions(path: Path) -> list[Path]:
    return [path.with_name(path.name + end) for end in _COMPANIONS]


def _to_disk(path: Path) -> None:
    opened = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)
