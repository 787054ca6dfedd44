"""A lock that one process has at a time and that goes with it, however it ends."""

from __future__ import annotations

import fcntl
import hashlib
import os
from types import TracebackType

from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError

from crm_sync.errors import StoreError
from crm_sync.store.engine import LENT, Store

KEEP_SESSIONS = "let PgBouncer pool by the session (pool_mode = session), or name the server in CRM_SYNC_DATABASE_URL"


class Exclusive:
    """SQLite: a lock on a file beside the database; PostgreSQL: a session's advisory lock, on a connection of its own.

    Both vanish with the process (design/performance.md 6): there is nothing to expire and nothing to clean up.
    """

    def __init__(self, store: Store, name: str) -> None:
        self._store = store
        self._name = name
        self._file: int | None = None
        self._connection: Connection | None = None

    def take(self) -> bool:
        """Have it, or see that somebody else has; True while it is had.

        Raises:
            StoreError: the database cannot be asked.
        """
        if self._store.path is not None:
            return self._take_file()
        return self._take_session()

    @staticmethod
    def key_of(name: str) -> int:
        """PostgreSQL's number of the lock."""
        return int.from_bytes(hashlib.sha256(f"crm-sync {name}".encode()).digest()[:8], "big", signed=True)

    def release(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None
        self._drop()

    def __enter__(self) -> Exclusive:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()

    def _take_file(self) -> bool:
        if self._file is not None:
            return True
        assert self._store.path is not None
        path = self._store.path.with_name(f"{self._store.path.name}.{self._name}")
        try:
            file = os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise StoreError(f"{path} cannot be opened ({error.strerror}); check the folder's rights") from error
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(file)
            return False
        self._file = file
        return True

    def _take_session(self) -> bool:
        key = self.key_of(self._name)
        try:
            if self._connection is not None:
                self._connection.exec_driver_sql("select 1")  # the lock is gone with the server's session
                return True
            connection = self._store.engine.connect().execution_options(isolation_level="AUTOCOMMIT")
            if connection.execute(text("select pg_try_advisory_lock(:key)"), {"key": key}).scalar():
                self._connection = connection
                return True
            connection.close()
        except DBAPIError as error:
            self._drop()
            raise StoreError(
                f"The database {self._store.shown_url} cannot be asked for the lock {self._name}"
            ) from error
        return False

    def _drop(self) -> None:
        """The lock goes with its session, so that one must end; given back to the pool it would go on."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.invalidate()
            connection.close()


_ASK_IN_TURN = 4


def why_not_exclusive(store: Store) -> str:
    """Why such a lock would not hold, "" when it does.

    A pooler (PgBouncer) that lends the server's sessions out by the transaction gives two connections of ours one
    session, in which an advisory lock keeps nobody out; and a statement that the driver prepared is looked for in a
    session that never saw it. It lends the one that was given back last, so that two connections which ask in turn meet
    each other's, unless others are quick, or it is slow to take one back: so they ask several times.

    Raises:
        StoreError: the database cannot be asked.
    """
    if store.path is not None:
        return ""
    session = text("select pg_backend_pid()")
    try:
        with store.engine.connect() as first, store.engine.connect() as second:
            first.execution_options(isolation_level="AUTOCOMMIT")
            met: list[set[int]] = [set(), set()]
            for _ in range(_ASK_IN_TURN):
                met[0].add(first.execute(session).scalar_one())
                with second.begin():  # which keeps it until its end
                    met[1].add(second.execute(session).scalar_one())
                    met[0].add(first.execute(session).scalar_one())
            is_lent = len(met[0]) > 1 or met[0] == met[1]
    except DBAPIError as error:
        if getattr(error.orig, "sqlstate", "") not in LENT:
            raise StoreError(f"The database {store.shown_url} cannot be asked whether it keeps sessions") from error
        is_lent = True
    if not is_lent:
        return ""
    return (
        f"{store.shown_url} is a pooler that lends out sessions by the transaction: the locks by which one process at "
        "a time is the scheduler, or writes phones, do not hold there"
    )
