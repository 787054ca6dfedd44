"""Backups: whole while the database is in use, and put back whole or not at all."""

from __future__ import annotations

import os
import resource
import sqlite3
import stat
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from alembic import command
from sqlalchemy import text

from crm_sync.errors import ConfigError, StoreError
from crm_sync.store import backups, copies, engine
from crm_sync.store.engine import SCHEMA_VERSION, ReplacedError, Store
from crm_sync.store.runs import Runs
from tests.factories import a_run
from tests.postgres import programs_in_path

NOW = datetime(2026, 11, 28, 6, 0, tzinfo=UTC)


@pytest.fixture(autouse=True)
def _programs_of_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    programs_in_path(monkeypatch)


def runs_in(store: Store) -> set[str]:
    return {run.id for run in Runs(store).latest(limit=1000)}


def add_run(store: Store, name: str) -> None:
    Runs(store).open(a_run(id=name), owner="here:1")


def add_state(store: Store) -> None:
    """Into a table that every schema has as it is today."""
    with store.write() as connection:
        connection.execute(
            text("insert into record_states values ('s', 'Contact', '1', 'Updated', :seen, 0, 'r')"), {"seen": b"x"}
        )


def states_in(store: Store) -> int | None:
    with store.read() as connection:
        return connection.execute(text("select count(*) from record_states")).scalar()


def backed_up(store: Store, folder: Path, name: str = "backup") -> backups.Backup:
    return backups.back_up(store, folder / name, folder / "none.erasures")


def put_back(store: Store, found: backups.Backup, folder: Path) -> Path | None:
    return backups.put_back(store, found, folder / "note.erasures", now=NOW)


@pytest.fixture
def again(database_url: str) -> Iterator[Store]:
    """The database opened anew, as the next process does."""
    made = Store(database_url)
    yield made
    made.close()


def test_a_backup_put_back_is_the_database_as_it_was(store: Store, again: Store, tmp_path: Path) -> None:
    add_run(store, "before")
    found = backed_up(store, tmp_path)
    add_run(store, "after")
    again.close()

    put_back(store, found, tmp_path)

    back = Store(store.engine.url.render_as_string(hide_password=False).replace("+psycopg", ""))
    assert (found.dialect, found.schema) == (store.dialect, SCHEMA_VERSION)
    assert runs_in(back) == {"before"}
    add_run(back, "next")
    assert runs_in(back) == {"before", "next"}
    assert back.schema_version() == SCHEMA_VERSION
    back.close()


def test_a_backup_is_for_its_owner_alone_and_replaces_nothing(store: Store, tmp_path: Path) -> None:
    found = backed_up(store, tmp_path)

    with pytest.raises(ConfigError, match="is there already"):
        backed_up(store, tmp_path)

    assert stat.S_IMODE(found.path.stat().st_mode) == 0o600
    assert [each.name for each in tmp_path.iterdir() if each.name.endswith(".new")] == []


def test_a_backup_taken_while_others_write_holds_whole_transactions(store: Store, tmp_path: Path) -> None:
    """Each transaction writes a run and its record; a copy in mid-write would have one without the other."""
    stop = threading.Event()

    def write() -> None:
        number = 0
        while not stop.is_set():
            number += 1
            with store.write() as connection:
                for sync in ("one", "two"):
                    connection.execute(
                        text("insert into record_states values (:sync, 'Contact', :id, 'Updated', :seen, 0, 'r')"),
                        {"sync": sync, "id": str(number), "seen": b"x"},
                    )

    writer = threading.Thread(target=write)
    writer.start()
    try:
        found = [backed_up(store, tmp_path, f"backup{number}") for number in range(5)]
    finally:
        stop.set()
        writer.join()

    for each in found:
        put_back(store, each, tmp_path)
        back = Store(store.engine.url.render_as_string(hide_password=False).replace("+psycopg", ""))
        with back.read() as connection:
            counts = connection.execute(
                text("select sync, count(*), max(cast(record_id as integer)) from record_states group by sync")
            ).all()
        back.close()
        assert len({(count, newest) for _, count, newest in counts}) <= 1


def test_a_backup_of_the_schema_before_is_put_back_over_a_newer_one_and_migrated(
    database_url: str, tmp_path: Path
) -> None:
    """What the newer schema added must be gone, or the migration would find it there."""
    old = Store(database_url)
    with old.write() as connection:
        config = engine._alembic_config()
        config.attributes["connection"] = connection
        command.upgrade(config, "0003")
    add_state(old)
    found = backed_up(old, tmp_path)
    old.migrate()

    put_back(old, found, tmp_path)

    back = Store(database_url)
    assert found.schema == "0003"
    assert back.schema_version() == "0003"
    assert back.migrate() == ("0003", SCHEMA_VERSION)
    assert states_in(back) == 1
    back.close()


def test_a_backup_of_a_newer_version_is_refused_and_changes_nothing(store: Store, tmp_path: Path) -> None:
    with store.write() as connection:
        connection.execute(text("update alembic_version set version_num = '9999'"))
    found = backed_up(store, tmp_path)
    with store.write() as connection:
        connection.execute(text(f"update alembic_version set version_num = '{SCHEMA_VERSION}'"))
    add_run(store, "here")

    with pytest.raises(StoreError, match="9999, which this crm-sync does not know"):
        put_back(store, found, tmp_path)

    assert runs_in(store) == {"here"}


def test_a_backup_that_was_cut_short_is_refused_and_changes_nothing(store: Store, tmp_path: Path) -> None:
    for number in range(200):
        add_run(store, f"run{number:03}")
    found = backed_up(store, tmp_path)
    content = found.path.read_bytes()
    found.path.write_bytes(content[: len(content) // 2])
    add_run(store, "after")

    with pytest.raises(StoreError):
        put_back(store, backups.read(found.path), tmp_path)

    assert "after" in runs_in(store)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 something else"])
def test_what_is_no_backup_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "backup").write_bytes(content)

    with pytest.raises(ConfigError, match="is no backup of crm-sync"):
        backups.read(tmp_path / "backup")


def test_a_backup_of_another_kind_of_database_is_refused(sqlite_store: Store, tmp_path: Path) -> None:
    found = backups.Backup(path=tmp_path / "x", dialect="postgresql", schema=SCHEMA_VERSION, size=1)

    with pytest.raises(ConfigError, match="is of postgresql, and CRM_SYNC_DATABASE_URL names sqlite"):
        put_back(sqlite_store, found, tmp_path)


def test_an_empty_database_is_not_backed_up(database_url: str, tmp_path: Path) -> None:
    empty = Store(database_url)

    with pytest.raises(StoreError, match=r"nothing to back up|no matching tables"):
        backed_up(empty, tmp_path)

    assert not (tmp_path / "backup").exists()
    empty.close()


def test_erasures_are_added_and_never_taken_away(store: Store, tmp_path: Path) -> None:
    note, beside = tmp_path / "note.erasures", tmp_path / "backup.erasures"
    note.write_bytes(b"first\n")
    found = backups.back_up(store, tmp_path / "backup", note)
    assert beside.read_bytes() == b"first\n"
    note.write_bytes(b"second\n")  # "first" was lost with the machine, "second" came after the backup

    put_back(store, found, tmp_path)

    assert note.read_bytes() == b"second\nfirst\n"
    assert stat.S_IMODE(beside.stat().st_mode) == 0o600


# --- SQLite alone ------------------------------------------------------------------------------------------------


def test_commits_in_the_write_ahead_log_are_in_the_copy(sqlite_store: Store, tmp_path: Path) -> None:
    """`cp` of the file alone leaves them behind."""
    add_run(sqlite_store, "newest")
    assert sqlite_store.path is not None
    assert sqlite_store.path.with_name(sqlite_store.path.name + "-wal").stat().st_size > 0

    found = backed_up(sqlite_store, tmp_path)

    with sqlite3.connect(found.path) as copy:
        assert copy.execute("select id from runs").fetchall() == [("newest",)]


def test_a_log_of_the_old_file_does_not_get_into_the_new_one(sqlite_store: Store, tmp_path: Path) -> None:
    add_run(sqlite_store, "before")
    found = backed_up(sqlite_store, tmp_path)
    add_run(sqlite_store, "after")
    assert sqlite_store.path is not None
    # Another process has it open and dies without a checkpoint: its log stays.
    reader = sqlite3.connect(sqlite_store.path)
    reader.execute("begin")
    reader.execute("select count(*) from runs").fetchone()

    aside = put_back(sqlite_store, found, tmp_path)

    back = Store(f"sqlite:///{sqlite_store.path}")
    assert runs_in(back) == {"before"}
    assert aside is not None
    with sqlite3.connect(aside) as old:
        assert {name for (name,) in old.execute("select id from runs")} == {"before", "after"}
    reader.close()
    back.close()


def test_who_still_has_the_replaced_file_open_writes_nothing_into_it(sqlite_store: Store, tmp_path: Path) -> None:
    add_run(sqlite_store, "before")
    found = backed_up(sqlite_store, tmp_path)
    other = Store(f"sqlite:///{sqlite_store.path}")

    put_back(sqlite_store, found, tmp_path)

    with pytest.raises(ReplacedError):
        add_run(other, "lost")
    other.close()


def test_a_damaged_database_gets_a_backup_put_back(sqlite_store: Store, tmp_path: Path) -> None:
    add_run(sqlite_store, "before")
    found = backed_up(sqlite_store, tmp_path)
    url = f"sqlite:///{sqlite_store.path}"
    assert sqlite_store.path is not None
    path = sqlite_store.path
    sqlite_store.close()
    path.write_bytes(b"no database any more" * 1000)
    damaged = Store(url)

    aside = put_back(damaged, found, tmp_path)

    back = Store(url)
    assert runs_in(back) == {"before"}
    assert aside is not None
    assert aside.read_bytes().startswith(b"no database")
    back.close()


def test_a_damaged_database_is_not_copied(tmp_path: Path) -> None:
    (tmp_path / "crm_sync.db").write_bytes(b"SQLite format 3\x00" + b"garbage" * 1000)

    with pytest.raises(StoreError):
        copies.copy(tmp_path / "crm_sync.db", tmp_path / "copy")

    assert [each.name for each in tmp_path.iterdir()] == ["crm_sync.db"]


def test_a_backup_that_does_not_fit_leaves_nothing_behind(sqlite_store: Store, tmp_path: Path) -> None:
    """A limit to the size of files stands for a disk that is full half-way."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (64 << 10, hard))
    try:
        with pytest.raises(StoreError, match="could not be copied"):
            backed_up(sqlite_store, tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    assert [each.name for each in tmp_path.iterdir() if each.name.startswith("backup")] == []
    assert backed_up(sqlite_store, tmp_path).size > 64 << 10


# --- the copy before a migration -----------------------------------------------------------------------------------


def at_schema(path: Path, schema: str) -> Store:
    store = Store(f"sqlite:///{path}")
    with store.write() as connection:
        config = engine._alembic_config()
        config.attributes["connection"] = connection
        command.upgrade(config, schema)
    return store


def test_a_migration_copies_the_file_first(tmp_path: Path) -> None:
    store = at_schema(tmp_path / "crm_sync.db", "0003")
    add_state(store)

    store.migrate()

    copy = tmp_path / "crm_sync.db.schema-0003"
    assert store.copy_of("0003") == copy
    assert copies.schema_in(copy) == "0003"
    assert stat.S_IMODE(copy.stat().st_mode) == 0o600
    with sqlite3.connect(copy) as old:
        assert old.execute("select count(*) from record_states").fetchone() == (1,)
    store.close()


def test_nothing_is_migrated_where_no_copy_can_be_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = at_schema(tmp_path / "crm_sync.db", "0003")
    (tmp_path / "crm_sync.db.schema-0003").mkdir()  # a name that cannot be taken

    with pytest.raises(StoreError, match="could not be copied"):
        store.migrate()

    assert store.schema_version() == "0003"
    store.close()


def test_a_second_migration_at_the_same_moment_does_not_copy_over_the_first_ones_copy(tmp_path: Path) -> None:
    first, second = (at_schema(tmp_path / "crm_sync.db", "0003") for _ in range(2))
    begin = threading.Barrier(2)
    threads = [
        threading.Thread(target=lambda store=store: (begin.wait(), store.migrate())) for store in (first, second)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert first.schema_version() == SCHEMA_VERSION
    assert copies.schema_in(first.copy_of("0003")) == "0003"
    first.close()
    second.close()


# --- PostgreSQL alone ------------------------------------------------------------------------------------------------


@pytest.fixture
def postgres_store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    from tests.conftest import database_of

    with database_of("postgresql", request, tmp_path) as url:
        made = Store(url)
        made.ready()
        yield made
        made.close()


@pytest.mark.postgres
def test_other_peoples_tables_are_neither_backed_up_nor_dropped(postgres_store: Store, tmp_path: Path) -> None:
    with postgres_store.write() as connection:
        connection.execute(text("create table somebody_elses (id integer)"))
        connection.execute(text("insert into somebody_elses values (1)"))
    found = backed_up(postgres_store, tmp_path)
    with postgres_store.write() as connection:
        connection.execute(text("insert into somebody_elses values (2)"))

    put_back(postgres_store, found, tmp_path)

    with postgres_store.read() as connection:
        assert connection.execute(text("select count(*) from somebody_elses")).scalar() == 2


@pytest.mark.postgres
def test_a_restore_that_fails_on_its_way_leaves_the_database_as_it_was(postgres_store: Store, tmp_path: Path) -> None:
    add_run(postgres_store, "before")
    found = backed_up(postgres_store, tmp_path)
    add_run(postgres_store, "after")
    holder = postgres_store.engine.connect()
    holder.execute(text("lock table runs in access share mode"))  # a reader who does not go away
    old, backups._LOCK_WAIT_S = backups._LOCK_WAIT_S, 1
    try:
        with pytest.raises(StoreError, match=r"it is as it was: .*lock timeout"):
            put_back(postgres_store, found, tmp_path)
    finally:
        backups._LOCK_WAIT_S = old
        holder.close()

    assert runs_in(postgres_store) == {"before", "after"}


@pytest.mark.postgres
def test_the_password_is_in_no_command(postgres_store: Store) -> None:
    url = postgres_store.engine.url.set(password="hidden-word")
    other = Store(url.render_as_string(hide_password=False).replace("+psycopg", ""))

    where, environment = backups._connection(other)

    assert "hidden-word" not in where
    assert environment == {"PGPASSWORD": "hidden-word"}
    other.close()


@pytest.mark.postgres
def test_without_the_client_programs_the_cure_is_named(
    postgres_store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", os.fspath(tmp_path))

    with pytest.raises(ConfigError, match=r"pg_dump is not here .*postgresql-client"):
        backed_up(postgres_store, tmp_path)
