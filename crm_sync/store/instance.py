"""This installation's name for itself and how far it has come: in the database, and in a small file outside it.

A database that was restored from a backup has forgotten what was bought since, and would buy it again. The file has
not: it is never restored together with the database (README, "Backups and copies"). Both hold an epoch that rises
before a run may spend and while it spends; a file that is ahead of its database tells of a restore.

Whether spending is held is decided by pipeline/restore.py; here it is kept, in the same transaction that would have
raised the epoch, and store/journal.py looks at it before each call.
"""

from __future__ import annotations

import fcntl
import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path

import orjson
from sqlalchemy import Connection, func, insert, select, text, update

from crm_sync import crash
from crm_sync.errors import HeldError, StoreError
from crm_sync.store.engine import Store
from crm_sync.store.tables import batches, instance

#: Raising, holding and releasing are one at a time for all processes (SQLite's writers take turns anyway).
_EPOCH_LOCK = 0x63726D74
#: Calls planned within so long of the newest one are asked when the newest answer came: longer than a call may wait
#: for the pace and its answer together.
_OPEN_FOR = timedelta(hours=6)
#: A release goes so far past the epoch in the file at hand: files of other machines may have seen more than it.
LEAP = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """What the file holds: the name of the database it belongs to, and the highest epoch seen of it."""

    id: str
    epoch: int
    at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """What the database says of itself. `home`: the server and database it was made in, "" where that is a file;
    `noted_at`: up to when it knows all that was bought, at least; `held`: why nothing may be spent, "" when it may."""

    id: str
    epoch: int
    home: str
    noted_at: datetime | None
    held: str
    why: str
    held_at: datetime | None
    released_at: datetime | None
    released_by: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Hold:
    """Why nothing may be spent, in a word of pipeline/restore.Why and in a sentence. `here_only`: this machine is at
    fault, and others that share the database go on."""

    why: str
    sentence: str
    here_only: bool = False


#: (what the database says, what the file says, the database's home now) -> a hold, or None for none.
Judge = Callable[[Standing | None, Mark | None, str], Hold | None]


class StateFile:
    """The file outside the database; written whole or not at all, and on the disk before it is relied upon."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self) -> Mark | None:
        """None where there is no file.

        Raises:
            StoreError: there is one, and it cannot be read.
        """
        try:
            content = orjson.loads(self.path.read_bytes())
            moment = datetime.fromisoformat(content["noted_at"])
            return Mark(id=str(content["instance"]), epoch=int(content["epoch"]), at=moment)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise StoreError(
                f"The state file {self.path} cannot be read ({error.strerror}); check its owner"
            ) from error
        except (ValueError, KeyError, TypeError):
            raise StoreError(
                f"The state file {self.path} holds no state of crm-sync, so nobody can tell whether the database was "
                "restored from a backup. `crm-sync restore accept` writes it anew"
            ) from None

    def note(self, mark: Mark, *, instead: bool = False) -> None:
        """Note an epoch, unless the file has seen a higher one of this database. `instead`: whatever it holds.

        Raises:
            StoreError: it cannot be written, so nothing may be spent.
        """
        try:
            with self._turn():
                known = None if instead else self.read()
                if known is None or known.id != mark.id or known.epoch < mark.epoch:
                    self._replace(mark)
        except OSError as error:
            raise StoreError(
                f"The state file {self.path} cannot be written ({error.strerror}), and without it a restored database "
                "could not be told: nothing is spent. Make room, or name another place in CRM_SYNC_STATE_FILE"
            ) from error

    def begin(self, mark: Mark) -> Mark:
        """Make the file for a database that has none yet; where another process was first, its one counts."""
        try:
            with self._turn():
                known = self.read()
                if known is None:
                    self._replace(mark)
                return known or mark
        except OSError as error:
            raise StoreError(
                f"The state file {self.path} cannot be written ({error.strerror}): nothing is spent. Make room, or "
                "name another place in CRM_SYNC_STATE_FILE"
            ) from error

    @contextmanager
    def _turn(self) -> Iterator[None]:
        """The folder is locked instead of a lock file beside the file: one thing less to lie about."""
        folder = os.open(self.path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(folder, fcntl.LOCK_EX)
            yield
        finally:
            os.close(folder)

    def _replace(self, mark: Mark) -> None:
        made = self.path.with_name(f"{self.path.name}.{os.getpid()}.new")
        content = {"instance": mark.id, "epoch": mark.epoch, "noted_at": mark.at.isoformat()}
        descriptor = os.open(made, os.O_CREAT | os.O_TRUNC | os.O_WRONLY | os.O_CLOEXEC, 0o600)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(orjson.dumps(content) + b"\n")
                file.flush()
                os.fsync(file.fileno())
            made.replace(self.path)
        except OSError:
            with suppress(OSError):
                made.unlink()
            raise
        folder = os.open(self.path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(folder)  # the new name too
        finally:
            os.close(folder)


class Instance:
    """The installation: its row in the database, and its file."""

    def __init__(self, store: Store, file: StateFile) -> None:
        self._store = store
        self.file = file

    @property
    def is_shared(self) -> bool:
        """Several machines may use one PostgreSQL, each with a file of its own."""
        return self._store.dialect == "postgresql"

    @property
    def database_path(self) -> Path | None:
        return self._store.path

    @property
    def erasures_path(self) -> Path:
        """Where erasures are noted outside the database (store/erasures.py)."""
        beside = self._store.path or self.file.path
        return beside.with_name(beside.name + ".erasures")

    def standing(self) -> Standing | None:
        """None for a database that never spent."""
        with self._store.read() as connection:
            return _standing(connection)

    def home(self) -> str:
        with self._store.read() as connection:
            return _home(connection)

    def known_until(self) -> datetime | None:
        """The newest moment of which this database knows what was bought; None where it never spent."""
        with self._store.read() as connection:
            standing = _standing(connection)
            newest = connection.execute(select(func.max(batches.c.planned_at))).scalar()
            moments = [standing.noted_at if standing is not None else None]
            if newest is not None:
                recent = batches.c.planned_at >= newest - _OPEN_FOR
                answered = batches.c.state.in_(("received", "done"))
                moments.append(connection.execute(select(func.max(batches.c.sent_at)).where(recent)).scalar())
                # Not of calls in doubt: theirs is the time at which the doubt was noted, which may be today's.
                moments.append(
                    connection.execute(select(func.max(batches.c.answered_at)).where(recent, answered)).scalar()
                )
        return max((moment for moment in moments if moment is not None), default=None)

    # --- spending -----------------------------------------------------------------------------------------------

    def begin(self, judge: Judge, *, now: datetime) -> int:
        """Before a run may spend: raise the epoch, then note it in the file; returns it.

        Raises:
            HeldError: nothing may be spent, until a person says so where the hold is kept in the database.
            StoreError: the database or the file cannot be relied upon.
        """
        why_not = self._store.why_not_durable()
        if why_not:
            raise StoreError(why_not)
        mark = self.file.read()
        if mark is None and self.standing() is None:
            # The file first: a database with an epoch and no file is one that was moved.
            mark = self.file.begin(Mark(id=new_id(), epoch=0, at=now))
            crash.point("epoch.file")
        with self._write() as connection:
            standing, home = _standing(connection), _home(connection)
            hold = _kept(standing) or judge(standing, mark, home)
            raised = standing
            if hold is None:
                raised = _raised(connection, standing, mark, home, now)
                crash.point("epoch.inside")
            elif not hold.here_only and not (standing is not None and standing.held):
                _hold(connection, standing, hold, home, now)
        if hold is not None:
            raise HeldError(hold.sentence, here_only=hold.here_only)
        assert raised is not None
        crash.point("epoch.raised")
        self.file.note(Mark(id=raised.id, epoch=raised.epoch, at=now))
        crash.point("epoch.noted")
        return raised.epoch

    def advance(self, *, now: datetime) -> int:
        """While a run spends: raise and note again, so that a backup made in mid-run is told too.

        Raises:
            HeldError, StoreError: as `begin`.
        """
        with self._write() as connection:
            standing = _standing(connection)
            hold = _kept(standing)
            if hold is None and standing is not None:
                standing = _raised(connection, standing, None, standing.home, now)
        if hold is not None:
            raise HeldError(hold.sentence)
        if standing is None:
            raise HeldError(GONE_BACK)
        self.file.note(Mark(id=standing.id, epoch=standing.epoch, at=now))
        return standing.epoch

    def keep(self, hold: Hold, *, now: datetime) -> None:
        """Keep a hold that was found; one that is kept already stays."""
        with self._write() as connection:
            standing = _standing(connection)
            if standing is None or not standing.held:
                _hold(connection, standing, hold, _home(connection), now)

    # --- a person's word ----------------------------------------------------------------------------------------

    def release(self, *, by: str, new_name: bool, now: datetime) -> Standing:
        """Let it spend again: past every epoch that a file may have seen, and noted in this one. `new_name`: it is an
        installation of its own from now on."""
        mark = self._readable()
        with self._write() as connection:
            standing = _standing(connection)
            seen = max(standing.epoch if standing else 0, mark.epoch if mark else 0)
            values = {
                "id": new_id() if new_name or standing is None else standing.id,
                "epoch": seen + LEAP,
                "home": _home(connection),
                "noted_at": now,
                "held": "",
                "why": "",
                "released_at": now,
                "released_by": by,
            }
            if standing is None:
                connection.execute(insert(instance).values(values))
            else:
                connection.execute(update(instance).values(values))
            released = _standing(connection)
        assert released is not None
        self.file.note(Mark(id=released.id, epoch=released.epoch, at=now), instead=True)
        return released

    def take_here(self, *, now: datetime) -> None:
        """This machine's file belongs to this database from now on; the database is not touched."""
        standing = self.standing()
        if standing is not None:
            self.file.note(Mark(id=standing.id, epoch=standing.epoch, at=now), instead=True)

    def _readable(self) -> Mark | None:
        try:
            return self.file.read()
        except StoreError:
            return None

    @contextmanager
    def _write(self) -> Iterator[Connection]:
        with self._store.write() as connection:
            if connection.dialect.name == "postgresql":
                connection.execute(text("select pg_advisory_xact_lock(:key)"), {"key": _EPOCH_LOCK})
            yield connection


GONE_BACK = (
    "The database went back in time while this run was under way: a backup was put over it. Nothing more is bought; "
    "`crm-sync restore status` tells what to do"
)


def new_id() -> str:
    return secrets.token_hex(8)


def _standing(connection: Connection) -> Standing | None:
    row = connection.execute(select(instance)).first()
    if row is None:
        return None
    return Standing(
        id=row.id,
        epoch=row.epoch,
        home=row.home,
        noted_at=row.noted_at,
        held=row.held,
        why=row.why,
        held_at=row.held_at,
        released_at=row.released_at,
        released_by=row.released_by,
    )


def _kept(standing: Standing | None) -> Hold | None:
    return Hold(why=standing.why, sentence=standing.held) if standing is not None and standing.held else None


def _raised(connection: Connection, standing: Standing | None, mark: Mark | None, home: str, now: datetime) -> Standing:
    if standing is None:
        raised = _fresh(mark.id if mark is not None else new_id(), home, now)
        connection.execute(insert(instance).values(_values(raised)))
        return raised
    # The journal's time never goes back, or a clock set back would make known stamps look like news.
    noted_at = max(now, standing.noted_at) if standing.noted_at is not None else now
    raised = replace(standing, epoch=standing.epoch + 1, noted_at=noted_at)
    connection.execute(update(instance).values(epoch=raised.epoch, noted_at=raised.noted_at))
    return raised


def _hold(connection: Connection, standing: Standing | None, hold: Hold, home: str, now: datetime) -> None:
    if standing is None:
        connection.execute(
            insert(instance).values(_values(replace(_fresh(new_id(), home, now), epoch=0, noted_at=None)))
        )
    connection.execute(update(instance).values(held=hold.sentence, why=hold.why, held_at=now))


def _fresh(name: str, home: str, now: datetime) -> Standing:
    return Standing(
        id=name,
        epoch=1,
        home=home,
        noted_at=now,
        held="",
        why="",
        held_at=None,
        released_at=None,
        released_by="",
    )


def _values(standing: Standing) -> dict[str, object]:
    return {name: getattr(standing, name) for name in Standing.__slots__}


def _home(connection: Connection) -> str:
    """Which server and which database of it this is: both survive a restore in place and a fail-over, and neither
    survives a dump or a template (PostgreSQL 18 documentation, pg_control_system, 2026-11)."""
    if connection.dialect.name != "postgresql":
        return ""
    number = connection.execute(text("select oid from pg_database where datname = current_database()")).scalar()
    may_ask = connection.execute(text("select has_function_privilege('pg_control_system()', 'execute')")).scalar()
    server = connection.execute(text("select system_identifier from pg_control_system()")).scalar() if may_ask else ""
    return f"{server}:{number}"
