"""A backup of the database: one file that is whole, taken while it is in use, and put back whole or not at all.

SQLite: a copy by its online backup. PostgreSQL: an archive of pg_dump (custom format), put back by pg_restore and psql
in one transaction; the three programs are PostgreSQL's own and must not be older than the server.

Never in it: the state file, which tells a restored database from one that knows all it bought (store/instance.py), and
CRM_SYNC_SECRET_KEY, which opens the answers in it. The note of erasures is copied beside it, and only ever added to.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from crm_sync.errors import ConfigError, StoreError
from crm_sync.store import copies
from crm_sync.store.engine import Store, known_schemas
from crm_sync.store.tables import metadata

_SQLITE_HEAD = b"SQLite format 3\x00"
_ARCHIVE_HEAD = b"PGDMP"
#: As psql's pg_restore writes the rows of a table: a COPY, its rows, and "\.".
_VERSION_ROW = re.compile(r"^COPY [^\n]*alembic_version [^\n]*\n([^\n\\]+)\n", re.MULTILINE)
_TABLES = ("alembic_version", *metadata.tables)
#: Somebody who reads the database for longer is not waited for.
_LOCK_WAIT_S = 30


@dataclass(frozen=True, slots=True, kw_only=True)
class Backup:
    """What a file holds: `dialect` of the database it is of, and the `schema` of that one."""

    path: Path
    dialect: str
    schema: str
    size: int


# --- make one ----------------------------------------------------------------------------------------------------


def back_up(store: Store, target: Path, erasures: Path) -> Backup:
    """The database as it is at one moment, in a new file that only its owner may read, read back once; and the note of
    erasures beside it (`erasures_beside`), where there is one. Runs may go on meanwhile.

    Raises:
        ConfigError: `target` is there already, or its folder is not; pg_dump is not installed.
        StoreError: the database or the disk did not take part; `target` is not there.
    """
    if target.exists():
        raise ConfigError(f"{target} is there already; a backup replaces nothing: name another file")
    if not target.parent.is_dir():
        raise ConfigError(f"The folder {target.parent} does not exist; create it")
    if store.path is not None:
        copies.copy(store.path, target)
    else:
        _dump(store, target)
    try:
        found = read(target)
        if not found.schema:
            raise StoreError(f"{store.shown_url} is empty: there is nothing to back up")
        if erasures.exists():
            _add_lines(erasures_beside(target), erasures)
    except BaseException:
        with suppress(OSError):
            target.unlink()
        raise
    return found


def read(path: Path) -> Backup:
    """What is in a backup; of an archive all is read, so that one that was cut short is told.

    Raises:
        ConfigError: it cannot be opened, or is no backup.
        StoreError: it is damaged.
    """
    try:
        with path.open("rb") as file:
            head = file.read(len(_SQLITE_HEAD))
        size = path.stat().st_size
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from error
    if head == _SQLITE_HEAD:
        return Backup(path=path, dialect="sqlite", schema=copies.schema_in(path), size=size)
    if head.startswith(_ARCHIVE_HEAD):
        _run(["pg_restore", "--file", os.devnull, str(path)], {}, f"{path} cannot be read whole")
        rows = _run(
            ["pg_restore", "--data-only", "--table", "alembic_version", "--file", "-", str(path)],
            {},
            f"{path} cannot be read",
        )
        row = _VERSION_ROW.search(rows)
        return Backup(path=path, dialect="postgresql", schema=row[1].strip() if row else "", size=size)
    raise ConfigError(f"{path} is no backup of crm-sync: neither a SQLite database nor an archive of pg_dump")


def erasures_beside(backup: Path) -> Path:
    return backup.with_name(backup.name + ".erasures")


# --- put one back --------------------------------------------------------------------------------------------------


def check(store: Store, found: Backup) -> None:
    """
    Raises:
        ConfigError: it is of another kind of database than `store`.
        StoreError: it has a schema that this version does not know.
    """
    if found.dialect != store.dialect:
        raise ConfigError(f"{found.path} is of {found.dialect}, and CRM_SYNC_DATABASE_URL names {store.dialect}")
    if not found.schema:
        raise ConfigError(f"{found.path} holds a database, and none of crm-sync")
    if found.schema not in known_schemas():
        raise StoreError(
            f"{found.path} has schema {found.schema}, which this crm-sync does not know: it was made by a newer "
            "version; upgrade crm-sync first"
        )


def put_back(store: Store, found: Backup, erasures: Path, *, now: datetime) -> Path | None:
    """The database becomes what the backup holds; returns where the SQLite file is that it replaced, None where
    PostgreSQL kept nothing. Erasures noted beside the backup are added to `erasures`. `store` is closed: what it had
    open is not the database any more.

    Raises:
        ConfigError, StoreError: as `check`, or the database or the disk did not take part; it is as it was.
    """
    check(store, found)
    beside = erasures_beside(found.path)
    if beside.exists():
        _add_lines(erasures, beside)
    if store.path is None:
        _load(store, found.path)
        store.close()
        return None
    made = store.path.with_name(store.path.name + ".restoring")
    aside = store.path.with_name(f"{store.path.name}.replaced-{now:%Y%m%dT%H%M%SZ}")
    copies.copy(found.path, made)
    store.close()
    copies.put_in_place(made, store.path, aside)
    return aside


def _add_lines(target: Path, source: Path) -> None:
    """Those of `source` that are not in `target`: an older note never takes the place of a newer one."""
    try:
        known = target.read_bytes().splitlines() if target.exists() else []
        new = [line for line in source.read_bytes().splitlines() if line not in set(known)]
        if not new:
            return
        opened = os.open(target, os.O_CREAT | os.O_APPEND | os.O_WRONLY | os.O_CLOEXEC, 0o600)
        with os.fdopen(opened, "ab") as file:
            file.write(b"".join(line + b"\n" for line in new))
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise StoreError(
            f"The note of erasures {source} could not be added to {target} ({error.strerror}): people who were erased "
            "would be there again"
        ) from error


# --- PostgreSQL's own programs ---------------------------------------------------------------------------------------


def _dump(store: Store, target: Path) -> None:
    made = target.with_name(f"{target.name}.{os.getpid()}.new")
    where, environment = _connection(store)
    try:
        os.close(os.open(made, os.O_CREAT | os.O_TRUNC | os.O_WRONLY | os.O_CLOEXEC, 0o600))
        command = [
            "pg_dump",
            "--format=custom",
            "--no-owner",
            "--no-privileges",
            "--file",
            str(made),
            "--dbname",
            where,
        ]
        # Ours alone: extensions, schemas and other people's tables are not ours to put back.
        command += [f"--table={name}" for name in _TABLES]
        _run(command, environment, f"{store.shown_url} could not be backed up")
        with made.open("rb") as file:
            os.fsync(file.fileno())
        made.replace(target)
    except OSError as error:
        raise StoreError(f"{target} cannot be written: {error.strerror}") from error
    finally:
        with suppress(OSError):
            made.unlink()


def _load(store: Store, archive: Path) -> None:
    """All in one transaction of psql, which is committed only when the whole archive has gone through it."""
    where, environment = _connection(store)
    tables = ", ".join(f'"{name}"' for name in _TABLES)
    refused = f"{archive} could not be put back into {store.shown_url}; it is as it was"
    command = ["psql", "--no-psqlrc", "--quiet", "--set", "ON_ERROR_STOP=1", "--output", os.devnull, "--dbname", where]
    with (
        _started(command, environment, stdin=subprocess.PIPE) as (psql, psql_said),
        _started(
            ["pg_restore", "--no-owner", "--no-privileges", "--file", "-", str(archive)], {}, stdout=subprocess.PIPE
        ) as (reader, reader_said),
    ):
        assert psql.stdin is not None
        assert reader.stdout is not None
        try:
            # Also what a newer schema has added: it would be there already when the migration makes it.
            psql.stdin.write(
                f"begin; set local lock_timeout = '{_LOCK_WAIT_S}s'; drop table if exists {tables} cascade;\n".encode()
            )
            while piece := reader.stdout.read(1 << 20):
                psql.stdin.write(piece)
            if reader.wait() == 0:
                psql.stdin.write(b"\ncommit;\n")
            psql.stdin.close()
        except BrokenPipeError:
            reader.kill()
        if psql.wait() != 0 or reader.wait() != 0:
            raise StoreError(f"{refused}: {_first_line(psql_said() or reader_said())}")


def _connection(store: Store) -> tuple[str, dict[str, str]]:
    """libpq's words for the database, and the password, which no list of processes may show."""
    from psycopg.conninfo import make_conninfo

    _, words = store.engine.dialect.create_connect_args(store.engine.url)
    password = words.pop("password", None)
    words.pop("context", None)  # psycopg's own
    return make_conninfo(**words), {"PGPASSWORD": str(password)} if password else {}


def _run(command: Sequence[str], environment: dict[str, str], refused: str) -> str:
    with _started(command, environment, stdout=subprocess.PIPE) as (child, said):
        assert child.stdout is not None
        out = child.stdout.read().decode(errors="replace")
        if child.wait() != 0:
            raise StoreError(f"{refused}: {_first_line(said())}{_cure(said())}")
    return out


@contextmanager
def _started(
    command: Sequence[str], environment: dict[str, str], *, stdin: int = subprocess.DEVNULL, stdout: int | None = None
) -> Iterator[tuple[subprocess.Popen[bytes], Callable[[], str]]]:
    """The program, and what it has said on its error output; gone at the end, whatever happened.

    Raises:
        ConfigError: it is not installed.
    """
    import tempfile

    with tempfile.TemporaryFile() as errors:

        def said() -> str:
            errors.seek(0)
            return errors.read().decode(errors="replace")

        try:
            child = subprocess.Popen(  # noqa: S603 - our own words and the admin's own settings
                command,
                stdin=stdin,
                stdout=stdout if stdout is not None else subprocess.DEVNULL,
                stderr=errors,
                env=os.environ | {"LC_ALL": "C"} | environment,
            )
        except OSError as error:
            raise ConfigError(
                f"{command[0]} is not here ({error.strerror}): install PostgreSQL's client programs (Debian: "
                "postgresql-client), of the server's version or newer"
            ) from error
        with child:
            try:
                yield child, said
            finally:
                if child.poll() is None:
                    child.kill()


def _cure(said: str) -> str:
    """The one thing that goes wrong on a machine where all else is right."""
    if "server version mismatch" not in said:
        return ""
    detail = next((line.partition("detail: ")[2] for line in said.splitlines() if "detail: " in line), "")
    return f" ({detail}). Install PostgreSQL's client programs of the server's version or newer"


def _first_line(said: str) -> str:
    """What went wrong, without the rows that psql quotes behind it."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    wrong = [line for line in lines if "error:" in line.lower()]
    return (wrong or lines or ["it gave no reason"])[0]
