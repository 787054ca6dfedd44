"""How the database is opened, migrated and refused."""

from __future__ import annotations

import multiprocessing
import sqlite3
import stat
import threading
import time
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError

from crm_sync.errors import ConfigError, StoreError
from crm_sync.store import engine
from crm_sync.store.engine import SCHEMA_VERSION, Store
from crm_sync.store.tables import metadata


def test_an_empty_database_gets_the_schema_by_itself(database_url: str) -> None:
    store = Store(database_url)

    store.ready()

    assert store.schema_version() == SCHEMA_VERSION
    store.close()


def test_the_migrations_make_exactly_the_tables_the_code_knows(store: Store) -> None:
    with store.read() as connection:
        differences = compare_metadata(MigrationContext.configure(connection), metadata)

    assert differences == []


def test_the_newest_migration_is_the_version_the_code_asks_for() -> None:
    from alembic.script import ScriptDirectory

    assert ScriptDirectory.from_config(engine._alembic_config()).get_current_head() == SCHEMA_VERSION


def test_a_schema_of_a_newer_version_is_refused_and_not_touched(store: Store) -> None:
    with store.write() as connection:
        connection.execute(text("update alembic_version set version_num = '9999'"))

    with pytest.raises(StoreError, match="made by a newer version; upgrade crm-sync"):
        store.ready()
    with pytest.raises(StoreError, match="upgrade crm-sync first"):
        store.migrate()
    assert store.schema_version() == "9999"


def test_what_a_failed_transaction_wrote_is_gone(store: Store) -> None:
    def fail_half_way() -> None:
        with store.write() as connection:
            connection.execute(
                text("insert into record_states values ('s', 'Contact', '1', 'Updated', :seen, 0, 'r')"), {"seen": b"x"}
            )
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail_half_way()

    with store.read() as connection:
        assert connection.execute(text("select count(*) from record_states")).scalar() == 0


def test_writing_goes_on_after_a_transaction_failed_in_the_database_itself(store: Store) -> None:
    with store.write() as connection:
        connection.execute(text("create table rows_ (n integer primary key)"))
        connection.execute(text("insert into rows_ values (1)"))

    def collide() -> None:
        with store.write() as connection:
            connection.execute(text("insert into rows_ values (2)"))
            connection.execute(text("insert into rows_ values (1)"))

    for _ in range(3):
        with pytest.raises(IntegrityError):
            collide()

    with store.write() as connection:
        connection.execute(text("insert into rows_ values (3)"))
    with store.read() as connection:
        assert list(connection.execute(text("select n from rows_ order by n")).scalars()) == [1, 3]


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("mysql://localhost/x", "runs on sqlite and postgresql"),
        ("nonsense", "is not a database URL"),
        ("sqlite://", "names no file"),
        ("sqlite:///:memory:", "names no file"),
    ],
)
def test_a_database_url_that_cannot_be_is_refused_with_an_example(url: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        Store(url)


def test_a_database_in_a_folder_that_is_not_there_says_so(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="does not exist; create it"):
        Store(f"sqlite:///{tmp_path}/nowhere/x.db")


def test_an_unreachable_postgresql_is_a_store_error_without_its_password() -> None:
    store = Store("postgresql://ada:hunter2@127.0.0.1:1/x?connect_timeout=2")

    with pytest.raises(StoreError) as caught:
        store.ready()

    assert "hunter2" not in str(caught.value)
    assert "crm-sync doctor" in str(caught.value)


def test_the_sqlite_file_is_for_its_owner_alone_and_durable(tmp_path: Path) -> None:
    store = Store(f"sqlite:///{tmp_path}/x.db")
    store.ready()

    with store.read() as connection:
        journal = connection.execute(text("pragma journal_mode")).scalar()
        synchronous = connection.execute(text("pragma synchronous")).scalar()

    assert stat.S_IMODE((tmp_path / "x.db").stat().st_mode) == 0o600
    assert (journal, synchronous) == ("wal", 2)
    store.close()


def test_a_file_that_is_no_database_is_refused_in_words(tmp_path: Path) -> None:
    (tmp_path / "x.db").write_bytes(b"this is not a database at all, it only looks like one" * 40)
    store = Store(f"sqlite:///{tmp_path}/x.db")

    with pytest.raises(StoreError, match="did not take the request"):
        store.ready()


def _hold(path: str, seconds: float, ready: multiprocessing.synchronize.Event) -> None:
    store = Store(f"sqlite:///{path}")
    with store.write():
        ready.set()
        time.sleep(seconds)
    store.close()


def test_a_writer_waits_for_the_writer_of_another_process(tmp_path: Path) -> None:
    """A deferred transaction would fail at once with "database is locked"."""
    path = tmp_path / "x.db"
    store = Store(f"sqlite:///{path}")
    store.ready()
    context = multiprocessing.get_context("spawn")
    ready = context.Event()
    other = context.Process(target=_hold, args=(str(path), 1.0, ready))
    other.start()
    assert ready.wait(30)

    began = time.monotonic()
    with store.write() as connection:
        connection.execute(text("select 1"))

    assert time.monotonic() - began > 0.3
    other.join()
    store.close()


def test_threads_that_read_and_then_write_never_meet_a_locked_database(store: Store) -> None:
    errors: list[BaseException] = []

    def work(number: int) -> None:
        try:
            for turn in range(20):
                with store.write() as connection:
                    connection.execute(text("select count(*) from record_states")).scalar()
                    connection.execute(
                        text("insert into record_states values ('s', 'Contact', :id, 'Updated', :seen, 0, 'r')"),
                        {"id": f"{number}-{turn}", "seen": b"x"},
                    )
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    with store.read() as connection:
        assert connection.execute(text("select count(*) from record_states")).scalar() == 120
    assert errors == []


def test_another_programs_plain_sqlite_can_read_along(sqlite_store: Store) -> None:
    with sqlite_store.write():
        rows = sqlite3.connect(str(sqlite_store.path)).execute("select count(*) from runs").fetchone()

    assert rows == (0,)


def test_compacting_leaves_nothing_of_what_was_deleted_in_the_files(tmp_path: Path) -> None:
    store = Store(f"sqlite:///{tmp_path}/crm_sync.db")
    store.ready()
    with store.write() as connection:
        connection.execute(text("create table people (name text)"))
        for number in range(500):
            connection.execute(text("insert into people values (:name)"), {"name": f"ada-{number}-" + "x" * 500})
    with store.write() as connection:
        connection.execute(text("delete from people where name like 'ada-7%'"))

    said = store.compact()

    files = b"".join(path.read_bytes() for path in tmp_path.iterdir() if path.is_file())
    assert said == ""
    assert b"ada-7" not in files
    assert b"ada-8" in files
    store.close()


def test_compacting_while_somebody_reads_says_so_and_breaks_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "_COMPACT_WAIT_MS", 50)
    store = Store(f"sqlite:///{tmp_path}/crm_sync.db")
    store.ready()
    other = sqlite3.connect(tmp_path / "crm_sync.db", isolation_level=None)
    other.execute("begin")
    other.execute("select count(*) from runs").fetchone()

    said = store.compact()

    other.execute("rollback")
    other.close()
    assert said
    assert store.compact() == ""
    store.close()


def test_compacting_a_postgresql_database_works_too(store: Store) -> None:
    assert store.compact() == ""
