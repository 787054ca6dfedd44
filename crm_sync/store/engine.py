"""The database: how it is opened, and how a transaction begins."""

from __future__ import annotations

import errno
import fcntl
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine, create_engine, event, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError, ProgrammingError, SQLAlchemyError

from crm_sync import crash
from crm_sync.errors import ConfigError, StoreError
from crm_sync.store import copies

T = TypeVar("T")

#: Where two machines may write one file, SQLite's locks and its shared memory do not hold (sqlite.org, "Write-Ahead
#: Logging", 2026-11). 9p and virtiofs are not here: containers and virtual machines keep their own disk on them.
_NETWORK_FILE_SYSTEMS = frozenset(
    {
        "afs", "beegfs", "ceph", "cifs", "davfs", "fuse.ceph", "fuse.gcsfuse", "fuse.glusterfs", "fuse.rclone",
        "fuse.s3fs", "fuse.sshfs", "glusterfs", "gpfs", "lustre", "ncpfs", "nfs", "nfs4", "smb3", "smbfs",
    }
)  # fmt: skip

#: The schema this code was written for: the newest file in migrations/versions.
SCHEMA_VERSION = "0009"
#: The advisory lock of PostgreSQL under which the schema is changed: "crm-sync" as eight bytes.
_MIGRATING = int.from_bytes(b"crm-sync", "big")
#: A schema that was never released; its answers were not encrypted.
_BEFORE_RELEASE = "0001"


#: Compacting waits so long for readers; they hold up nothing but that.
_COMPACT_WAIT_MS = 5_000
#: The other one needs a few writes to a new file.
_WAL_WAIT_S = 30.0


class ReplacedError(StoreError):
    """The database file is not the one that was opened: waiting does not help."""


class _Job:
    """What one thread wants to commit together with others."""

    __slots__ = ("done", "error", "result", "work")

    def __init__(self, work: Callable[[Connection], Any]) -> None:
        self.work = work
        self.result: Any = None
        #: Until the commit, what its caller is told should the thread that commits for it be interrupted.
        self.error: Exception | None = StoreError("The program was interrupted before the database took the request")
        self.done = False


class Store:
    """One database, SQLite or PostgreSQL; safe to use from several threads.

    SQLite runs in WAL with synchronous=FULL (a commit survives a power cut) and every writing transaction begins
    IMMEDIATE: a deferred one that reads first fails at once with "database is locked" when somebody wrote in between,
    whatever the busy time-out (design/reliability.md 0.8). Writers of one machine take turns by a file lock beside
    the database, because SQLite's own busy handler sleeps in steps of up to 100 ms (design/performance.md 1).
    """

    #: How long a paid answer waits for a database that does not take it: a server that restarts, a lock, a full disk.
    patience_s = 300.0

    def __init__(self, url: str) -> None:
        try:
            parsed = make_url(url)
        except SQLAlchemyError as error:
            raise ConfigError(
                "CRM_SYNC_DATABASE_URL is not a database URL; write sqlite:///crm_sync.db or "
                "postgresql://user:password@host/database"
            ) from error
        name = parsed.get_backend_name()
        if name == "postgresql":
            parsed = parsed.set(drivername="postgresql+psycopg")
        elif name != "sqlite":
            raise ConfigError(
                f"CRM_SYNC_DATABASE_URL names {name}; crm-sync runs on sqlite and postgresql. "
                "Write sqlite:///crm_sync.db or postgresql://user:password@host/database"
            )
        elif not parsed.database or parsed.database == ":memory:":
            raise ConfigError("CRM_SYNC_DATABASE_URL names no file; write sqlite:///crm_sync.db")
        self.dialect = name
        self.shown_url = parsed.render_as_string(hide_password=True)
        self.path = Path(parsed.database) if name == "sqlite" and parsed.database else None
        self._turn = threading.Lock()
        self._leading = threading.Lock()
        self._jobs: list[_Job] = []
        self._jobs_lock = threading.Lock()
        self._writer: Connection | None = None
        self._lock_file: int | None = None
        self._opened: tuple[int, int] | None = None
        if self.path is not None:
            self._create_private(self.path)
        self.engine: Engine = create_engine(
            parsed,
            pool_pre_ping=name == "postgresql",
            **({"connect_args": {"timeout": 30.0}} if name == "sqlite" else {"pool_size": 8}),
        )
        if name == "sqlite":
            event.listen(self.engine, "connect", _prepare_sqlite)
            event.listen(self.engine, "begin", _begin_sqlite)

    def _create_private(self, path: Path) -> None:
        """Make the file readable by its owner alone: it will hold people's data."""
        if not path.parent.is_dir():
            raise ConfigError(
                f"The database folder {path.parent} does not exist; create it or change CRM_SYNC_DATABASE_URL"
            )
        if path.is_dir():
            raise ConfigError(f"The database {path} is a folder; name a file in it in CRM_SYNC_DATABASE_URL")
        kind = network_file_system(path)
        if kind:
            raise ConfigError(
                f"The database {path} lies on a network file system ({kind}), where SQLite cannot keep two writers "
                "apart and a commit may be lost: put it on a disk of this machine, or use PostgreSQL "
                "(CRM_SYNC_DATABASE_URL)"
            )
        try:
            _make_file(path)
            self._opened = _identity(path.stat())
            self._lock_file = os.open(path.with_name(path.name + ".lock"), os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise StoreError(
                f"The database {path} cannot be opened ({error.strerror}); check the folder's owner and rights"
            ) from error

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """A transaction that may write; committed at the end, rolled back by an exception. Keep it short."""
        if self._lock_file is None:
            with self._translated(), self.engine.begin() as connection:
                yield connection
            return
        with self._turn:
            fcntl.flock(self._lock_file, fcntl.LOCK_EX)
            try:
                self._refuse_replaced()
                with self._translated():
                    # One connection is kept for writing: taking one from the pool costs more than a small commit.
                    if self._writer is None:
                        self._writer = self.engine.connect().execution_options(crm_sync_writes=True)
                    with self._writer.begin():
                        yield self._writer
            except BaseException:
                self._drop_writer()
                raise
            finally:
                fcntl.flock(self._lock_file, fcntl.LOCK_UN)

    def together(self, work: Callable[[Connection], T]) -> T:
        """Do `work` in a writing transaction that it may share with what other threads ask for at the same moment.

        Who comes first leads: it commits for everybody who waits, so that ten threads pay for one fsync
        (design/performance.md 1). Returns after the commit. An error of one's work is raised to its caller alone: the
        others' are done again without it, so `work` may be called twice.
        """
        job = _Job(work)
        with self._jobs_lock:
            self._jobs.append(job)
        with self._leading:
            if not job.done:
                with self._jobs_lock:
                    jobs, self._jobs = self._jobs, []
                self._lead(jobs)
        if job.error is not None:
            raise job.error
        return job.result  # type: ignore[no-any-return]

    def patiently(self, work: Callable[[Connection], T]) -> T:
        """As `together`, and again while the database does not take it: for what must not be lost.

        Raises:
            StoreError: it did not take it for `patience_s`.
        """
        until = time.monotonic() + self.patience_s
        nap = 0.05
        while True:
            try:
                return self.together(work)
            except ReplacedError:
                raise
            except StoreError:
                if time.monotonic() + nap > until:
                    raise
            time.sleep(nap)
            nap = min(2 * nap, 2.0)

    def _lead(self, jobs: list[_Job]) -> None:
        try:
            with self.write() as connection:
                results = [job.work(connection) for job in jobs]
            for job, result in zip(jobs, results, strict=True):
                job.result, job.error = result, None
        except Exception as error:  # noqa: BLE001 - each caller gets its own error
            if len(jobs) == 1:
                jobs[0].error = error
            else:
                for job in jobs:
                    self._lead([job])
        finally:
            for job in jobs:
                job.done = True

    def _refuse_replaced(self) -> None:
        """A file that was deleted, or replaced by a backup, is still open to us and takes every commit, which nobody
        would ever see again."""
        if self.path is None or self._opened is None:
            return
        try:
            found = _identity(os.stat(self.path))  # noqa: PTH116 - once a commit: a Path costs twice as much
        except OSError:
            found = None
        if found != self._opened:
            raise ReplacedError(
                f"The database {self.path} was moved, deleted or replaced while it was in use; nothing more is spent "
                "or written. Start again once it is in its place"
            )

    def why_not_durable(self) -> str:
        """Why a commit may be lost with a crash of the server, "" when none is; SQLite's are set as they must be."""
        if self.dialect != "postgresql":
            return ""
        names = ("fsync", "synchronous_commit")
        with self.read() as connection:
            found = {name: connection.execute(text(f"show {name}")).scalar() for name in names}
        off = [name for name in names if found[name] == "off"]
        if not off:
            return ""
        return (
            f"PostgreSQL runs with {' and '.join(f'{name} = off' for name in off)}: a crash of the server would forget "
            "what was bought, and it would be bought again. Nothing is spent until it is on (postgresql.conf, or ALTER "
            "DATABASE … SET synchronous_commit = on)"
        )

    def _drop_writer(self) -> None:
        """After an error its state is nobody's guess."""
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.invalidate()
            writer.close()

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A consistent view; nothing may be written through it."""
        with self._translated(), self.engine.connect() as connection, connection.begin():
            yield connection

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except DBAPIError as error:
            if getattr(error.orig, "sqlstate", "") in LENT:
                raise StoreError(
                    f"The database {self.shown_url} did not take the request: {_cause(error)}. It is a pooler that "
                    "lends out sessions by the transaction: let it keep them (pool_mode = session)"
                ) from error
            if isinstance(error, IntegrityError | ProgrammingError | DataError):
                raise  # a fault of ours, not of the database
            raise StoreError(
                f"The database {self.shown_url} did not take the request: {_cause(error)}. {_cure(error)}"
            ) from error

    def compact(self) -> str:
        """Let what was deleted be gone from the files too, not only from the tables; "" when it is, else why not.

        SQLite leaves copies of rows in free pages and in the write-ahead log, PostgreSQL in dead rows.
        """
        if self.dialect == "postgresql":
            with self._translated(), self.engine.connect() as connection:
                connection.execution_options(isolation_level="AUTOCOMMIT").exec_driver_sql("VACUUM")
            return ""
        assert self._lock_file is not None
        with self._turn:
            fcntl.flock(self._lock_file, fcntl.LOCK_EX)
            raw = self.engine.raw_connection()
            try:
                cursor = raw.cursor()
                cursor.execute(f"PRAGMA busy_timeout={_COMPACT_WAIT_MS}")
                cursor.execute("VACUUM")
                cursor.execute("PRAGMA wal_checkpoint(TRUNCATE)")
                is_busy = bool(cursor.fetchall()[0][0])
                cursor.close()
            except sqlite3.OperationalError as error:
                return str(error)
            finally:
                raw.invalidate()  # its waiting time is another one now
                fcntl.flock(self._lock_file, fcntl.LOCK_UN)
        return "another process is reading the database" if is_busy else ""

    def schema_version(self) -> str:
        """The schema the database has: "" when it is empty."""
        with self.read() as connection:
            return self._schema_seen_by(connection)

    def _schema_seen_by(self, connection: Connection) -> str:
        if not self.engine.dialect.has_table(connection, "alembic_version"):
            return ""
        return connection.execute(text("select version_num from alembic_version")).scalar() or ""

    def ready(self) -> None:
        """Make sure that the schema is the one this code knows; an empty database gets it.

        Raises:
            StoreError: the schema is older (migrate it) or newer (upgrade crm-sync), never guessed.
        """
        found = self.schema_version()
        if found == SCHEMA_VERSION:
            return
        if found == "":
            self.migrate()
        elif found == _BEFORE_RELEASE:
            raise StoreError(
                f"The database has schema {found}, of a version from before the first release: move the file away, or "
                "name a new database in CRM_SYNC_DATABASE_URL"
            )
        elif found in known_schemas():
            raise StoreError(
                f"The database has schema {found} and this crm-sync needs {SCHEMA_VERSION}: run crm-sync migrate"
            )
        else:
            raise StoreError(
                f"The database has schema {found}, which this crm-sync ({SCHEMA_VERSION}) does not know: "
                "it was made by a newer version; upgrade crm-sync"
            )

    def migrate(self) -> tuple[str, str]:
        """Bring the schema to SCHEMA_VERSION; returns (before, after). Refuses a schema it does not know.

        It is done whole or not at all. A SQLite file is copied first (`copy_of`): whoever goes back to the version
        before needs its database.
        """
        from alembic import command

        before = self.schema_version()
        if before and before not in known_schemas():
            raise StoreError(
                f"The database has schema {before}, which this crm-sync does not know; upgrade crm-sync first"
            )
        crash.point("store.migrate.before")
        with self.write() as connection:
            if connection.dialect.name == "postgresql":  # two processes that start at once on an empty database
                connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _MIGRATING})
            elif before not in ("", SCHEMA_VERSION) and self._schema_seen_by(connection) == before:
                assert self.path is not None
                # Nobody writes meanwhile: what the copy lacks is not in the database either.
                copies.copy(self.path, self.copy_of(before))
            config = _alembic_config()
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
            crash.point("store.migrate.inside")
        crash.point("store.migrate.after")
        return before, self.schema_version()

    def copy_of(self, schema: str) -> Path:
        """Where `migrate` leaves a SQLite file as it was with that schema."""
        assert self.path is not None
        return self.path.with_name(f"{self.path.name}.schema-{schema}")

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None
        self.engine.dispose()
        if self._lock_file is not None:
            os.close(self._lock_file)
            self._lock_file = None


def _make_file(path: Path) -> None:
    """An empty file for its owner alone, where there is none. One that is there is never opened: closing it would take
    away the locks of every connection that this process has to it (POSIX; sqlite.org, "How To Corrupt", 2.2), and the
    next process to end would delete the log under them.

    Raises:
        OSError: it cannot be made, or not be read and written.
    """
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600))
    except FileExistsError:
        if not os.access(path, os.R_OK | os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES)) from None


def _identity(found: os.stat_result) -> tuple[int, int]:
    return found.st_dev, found.st_ino


def network_file_system(path: Path, mounts: Path = Path("/proc/self/mountinfo")) -> str:
    """The type of the network file system that `path` lies on, "" for any other, or where the system does not tell."""
    try:
        lines = mounts.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    folder = path.parent.resolve()
    best, kind = -1, ""
    for line in lines:
        # man 5 proc_pid_mountinfo: the mount point is the fifth field, the type the first one behind the hyphen.
        head, _, tail = line.partition(" - ")
        fields, types = head.split(" "), tail.split(" ")
        if len(fields) < 5 or not types:
            continue
        point = Path(fields[4].replace("\\040", " "))
        if len(point.parts) > best and folder.is_relative_to(point):
            best, kind = len(point.parts), types[0]
    return kind if kind in _NETWORK_FILE_SYSTEMS else ""


def _prepare_sqlite(connection: Any, _record: object) -> None:
    # Python's own implicit BEGIN would be a deferred one; we begin by hand (see _begin_sqlite).
    connection.isolation_level = None
    cursor = connection.cursor()
    _use_wal(cursor)
    cursor.execute("PRAGMA synchronous=FULL")
    cursor.execute("PRAGMA foreign_keys=ON")
    cursor.execute("PRAGMA wal_autocheckpoint=4000")
    cursor.execute("PRAGMA secure_delete=ON")  # the default of some builds, not of all: people's data is overwritten
    cursor.close()


def _use_wal(cursor: sqlite3.Cursor) -> None:
    """Of two that turn one new file to WAL at the same moment SQLite refuses one at once: its busy handler is not asked
    for this change (seen with 3.40.1, 2026-11), so the waiting is ours."""
    until = time.monotonic() + _WAL_WAIT_S
    while True:
        try:
            cursor.execute("PRAGMA journal_mode=WAL")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorname != "SQLITE_BUSY" or time.monotonic() > until:
                raise
            time.sleep(0.01)
        else:
            return


def _begin_sqlite(connection: Connection) -> None:
    writes = connection.get_execution_options().get("crm_sync_writes", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _cause(error: DBAPIError) -> str:
    """The driver's first line; it names no values, only what is wrong with the file or the server."""
    return str(error.orig).strip().splitlines()[0] if error.orig else type(error).__name__


#: By the name of SQLite's error, which begins with the kind.
_CURES = {
    "SQLITE_NOTADB": "The file is damaged, or no SQLite database: put a backup of it back, or name another file in "
    "CRM_SYNC_DATABASE_URL",
    "SQLITE_CORRUPT": "The file is damaged: put a backup of it back, or name another file in CRM_SYNC_DATABASE_URL",
    "SQLITE_READONLY": "Give the user that runs crm-sync the right to write the file and its folder",
    "SQLITE_PERM": "Give the user that runs crm-sync the right to write the file and its folder",
    "SQLITE_CANTOPEN": "Give the user that runs crm-sync the right to write the file and its folder",
    "SQLITE_FULL": "Make room on its disk",
    "SQLITE_IOERR": "Check its disk: it may be full, gone or broken",
    "SQLITE_BUSY": "Another program holds it; try again, and end that program if it lasts",
}
_IS_IT_THERE = "Check that it is running and takes connections, and what CRM_SYNC_DATABASE_URL says of it"


#: What was prepared is there already, or is not there: in another client's session.
LENT = ("42P05", "26000")


def _cure(error: DBAPIError) -> str:
    name = getattr(error.orig, "sqlite_errorname", "")
    return next((cure for kind, cure in _CURES.items() if name.startswith(kind)), _IS_IT_THERE)


def _alembic_config() -> Any:
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    return config


def known_schemas() -> set[str]:
    """Those that this version can bring to SCHEMA_VERSION, and that one."""
    from alembic.script import ScriptDirectory

    return {script.revision for script in ScriptDirectory.from_config(_alembic_config()).walk_revisions()}
