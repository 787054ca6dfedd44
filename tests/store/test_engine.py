"""How the database is opened, migrated and refused."""

from __future__ import annotations

import multiprocessing
import sqlite3
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection, column, event, insert, inspect, table, text
from sqlalchemy.exc import IntegrityError

from crm_sync.domain.records import FieldKind
from crm_sync.domain.runs import RunStatus, SyncRun
from crm_sync.errors import ConfigError, StoreError
from crm_sync.store import engine
from crm_sync.store.engine import SCHEMA_VERSION, Store
from crm_sync.store.provenance import Provenance
from crm_sync.store.runs import _RECORD, RunRecord, Runs, _record_row, run_values
from crm_sync.store.tables import metadata, millis
from crm_sync.store.tables import runs as runs_table
from crm_sync.store.write_jobs import WriteJobs
from tests.factories import NOON, a_decision, a_run, a_vault


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


def test_a_database_of_the_version_before_is_upgraded_with_what_is_in_it(database_url: str) -> None:
    """0002 had no provenance, reviews and write_jobs; its runs and records are what `track` and undo go by."""
    from alembic import command

    store = Store(database_url)
    with store.write() as connection:
        config = engine._alembic_config()
        config.attributes["connection"] = connection
        command.upgrade(config, "0002")
    runs = Runs(store)
    later = NOON + timedelta(minutes=1)
    _open_as_before(store, a_run(), a_run(id="twice", status=RunStatus.RUNNING))
    _open_as_before(store, a_run(id="at once", status=RunStatus.RUNNING, started_at=later))
    record = RunRecord(
        object_type="Contact", record_id="1", outcome="Updated", reason="", decisions=(a_decision(new="CTO"),)
    )
    _settle_as_before(store, a_run().id, record)

    with pytest.raises(StoreError, match="run crm-sync migrate"):
        store.ready()
    versions = store.migrate()

    last = Provenance(store, a_vault(store)).last_writes("salesforce", "Contact", ["1"])
    with store.read() as connection:
        differences = compare_metadata(MigrationContext.configure(connection), metadata)
    assert versions == ("0002", SCHEMA_VERSION)
    assert differences == []
    assert list(runs.records(a_run().id)) == [record]
    assert last["1"]["Title"].holds("CTO", FieldKind.TEXT)
    assert WriteJobs(store).open() == []
    assert [run.id for run, _, _ in runs.unfinished()] == ["at once"], (
        "two that ran beside each other are one and a dead one"
    )
    store.close()


def _open_as_before(store: Store, *made: SyncRun) -> None:
    """With the columns that its schema has."""
    with store.write() as connection:
        there = {column["name"] for column in inspect(connection).get_columns("runs")}
        for run in made:
            values = run_values(run) | {"owner": "here:1", "alive_at": run.started_at}
            connection.execute(insert(runs_table).values({name: values[name] for name in values if name in there}))


def _settle_as_before(store: Store, run_id: str, record: RunRecord) -> None:
    """Without the column of who shares the run."""
    row = dict(zip(_RECORD, _record_row(run_id, 0, record, millis(NOON)), strict=True))
    del row["share"]
    with store.write() as connection:
        connection.execute(insert(table("run_records", *map(column, row))), [row])


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
    with pytest.raises(ConfigError, match="does not exist; create it"):
        Store(f"sqlite:///{tmp_path}/nowhere/x.db")


def test_an_unreachable_postgresql_is_a_store_error_without_its_password() -> None:
    store = Store("postgresql://ada:hunter2@127.0.0.1:1/x?connect_timeout=2")

    with pytest.raises(StoreError) as caught:
        store.ready()

    assert "hunter2" not in str(caught.value)
    assert "Check that it is running" in str(caught.value)
    assert "CRM_SYNC_DATABASE_URL" in str(caught.value)


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

    with pytest.raises(StoreError, match="put a backup of it back, or name another file in CRM_SYNC_DATABASE_URL"):
        store.ready()


def test_a_folder_is_no_database(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is a folder; name a file in it in CRM_SYNC_DATABASE_URL"):
        Store(f"sqlite:///{tmp_path}")


@pytest.mark.parametrize(
    ("pragma", "cure"),
    [("query_only = 1", "the right to write the file and its folder"), ("max_page_count = 1", "Make room on its disk")],
)
def test_what_sqlite_refuses_is_told_with_its_own_cure(tmp_path: Path, pragma: str, cure: str) -> None:
    store = Store(f"sqlite:///{tmp_path}/x.db")

    def write() -> None:
        with store.write() as connection:
            connection.exec_driver_sql(f"pragma {pragma}")
            connection.exec_driver_sql("create table more (x)")

    with pytest.raises(StoreError, match=cure):
        write()
    store.close()


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


# --- together -----------------------------------------------------------------------------------------------------


class Tally:
    """A table that works write to, and how often the database committed."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.commits = 0
        with store.write() as connection:
            connection.execute(text("create table tally (thread integer, turn integer, primary key (thread, turn))"))
        event.listen(store.engine, "commit", self._count)

    def _count(self, _: Connection) -> None:
        self.commits += 1

    def add(self, connection: Connection, thread: int, turn: int) -> tuple[int, int]:
        connection.execute(text("insert into tally values (:thread, :turn)"), {"thread": thread, "turn": turn})
        return thread, turn

    def rows(self) -> list[tuple[int, int]]:
        with self.store.read() as connection:
            return [(row[0], row[1]) for row in connection.execute(text("select * from tally order by thread, turn"))]


def in_threads(work: Callable[[int], None], count: int) -> None:
    """Run work(0) … work(count - 1) at the same time; what one of them raises is raised."""
    errors: list[BaseException] = []

    def guarded(number: int) -> None:
        try:
            work(number)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=guarded, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


@contextmanager
def while_somebody_leads(store: Store) -> Iterator[None]:
    """The works that are asked for meanwhile wait, and are then committed together."""
    leading, go_on = threading.Event(), threading.Event()

    def hold(_: Connection) -> None:
        leading.set()
        assert go_on.wait(30)

    leader = threading.Thread(target=store.together, args=(hold,))
    leader.start()
    assert leading.wait(30)
    try:
        yield
    finally:
        go_on.set()
        leader.join()


def waiting(store: Store, count: int) -> None:
    """Return when so many works wait."""
    for _ in range(3000):
        if len(store._jobs) >= count:
            return
        time.sleep(0.01)
    raise AssertionError(f"only {len(store._jobs)} works came")


def test_what_threads_do_together_is_all_committed_and_each_gets_its_own_result(store: Store) -> None:
    tally = Tally(store)
    results: dict[int, list[tuple[int, int]]] = {}

    def work(thread: int) -> None:
        results[thread] = [
            store.together(lambda connection, turn=turn: tally.add(connection, thread, turn))  # type: ignore[misc]
            for turn in range(50)
        ]

    in_threads(work, 8)

    assert tally.rows() == [(thread, turn) for thread in range(8) for turn in range(50)]
    assert results == {thread: [(thread, turn) for turn in range(50)] for thread in range(8)}


def test_what_waits_for_a_commit_shares_the_next_one(store: Store) -> None:
    tally = Tally(store)

    def work(thread: int) -> None:
        store.together(lambda connection: tally.add(connection, thread, 0))

    before = tally.commits
    with while_somebody_leads(store):
        crowd = threading.Thread(target=in_threads, args=(work, 8))
        crowd.start()
        waiting(store, 8)
    crowd.join()
    commits = tally.commits - before

    assert commits == 2  # the leader's own, and one for all eight
    assert len(tally.rows()) == 8


def test_under_contention_there_are_fewer_commits_than_works(store: Store) -> None:
    tally = Tally(store)

    def work(thread: int) -> None:
        for turn in range(50):
            store.together(lambda connection, turn=turn: tally.add(connection, thread, turn))  # type: ignore[misc]

    before = tally.commits
    in_threads(work, 8)
    commits = tally.commits - before

    assert commits < 400
    assert len(tally.rows()) == 400


def test_alone_a_work_is_committed_when_it_returns(store: Store, database_url: str) -> None:
    tally = Tally(store)

    result = store.together(lambda connection: tally.add(connection, 1, 2))

    other = Store(database_url)
    with other.read() as connection:
        assert connection.execute(text("select count(*) from tally")).scalar() == 1
    other.close()
    assert result == (1, 2)


class OwnError(Exception):
    """One caller's fault."""


@pytest.mark.parametrize("fault", ["its own error", "a row that is there already"])
def test_an_error_reaches_its_caller_alone(store: Store, fault: str) -> None:
    tally = Tally(store)
    raised: dict[int, BaseException] = {}
    results: dict[int, tuple[int, int]] = {}

    def work(thread: int) -> None:
        def do(connection: Connection) -> tuple[int, int]:
            if thread == 3 and fault == "its own error":
                tally.add(connection, 3, 77)
                raise OwnError
            return tally.add(connection, 3 if thread == 5 else thread, 0)

        try:
            results[thread] = store.together(do)
        except (OwnError, IntegrityError) as error:
            raised[thread] = error

    if fault == "a row that is there already":
        store.together(lambda connection: tally.add(connection, 3, 0))
    with while_somebody_leads(store):
        crowd = threading.Thread(target=in_threads, args=(work, 8))
        crowd.start()
        waiting(store, 8)
    crowd.join()

    if fault == "its own error":
        assert {thread: type(error) for thread, error in raised.items()} == {3: OwnError}
        assert tally.rows() == [(thread, 0) for thread in (0, 1, 2, 3, 4, 6, 7)]
    else:
        assert {thread: type(error) for thread, error in raised.items()} == {3: IntegrityError, 5: IntegrityError}
        assert tally.rows() == [(thread, 0) for thread in (0, 1, 2, 3, 4, 6, 7)]
    assert results == {thread: (3 if thread == 5 else thread, 0) for thread in range(8) if thread not in raised}


def test_after_an_error_the_next_work_is_done_as_ever(store: Store) -> None:
    tally = Tally(store)

    def fail(connection: Connection) -> None:
        tally.add(connection, 1, 1)
        raise OwnError

    for _ in range(3):
        with pytest.raises(OwnError):
            store.together(fail)
    store.together(lambda connection: tally.add(connection, 1, 1))

    assert tally.rows() == [(1, 1)]


def test_a_disk_that_is_full_is_told_to_everybody_who_waits(sqlite_store: Store) -> None:
    """Nobody may believe that a call is journaled when it is not."""
    tally = Tally(sqlite_store)
    limit = "pragma max_page_count = 1"  # as many as there are
    event.listen(sqlite_store.engine, "checkout", lambda connection, *_: connection.execute(limit))
    sqlite_store.together(lambda connection: connection.execute(text(limit)).scalar())
    told: list[str] = []

    def work(thread: int) -> None:
        def fill(connection: Connection) -> None:
            for turn in range(2000):
                tally.add(connection, thread, turn)

        try:
            sqlite_store.together(fill)
        except StoreError as error:
            told.append(str(error))

    with while_somebody_leads(sqlite_store):
        crowd = threading.Thread(target=in_threads, args=(work, 4))
        crowd.start()
        waiting(sqlite_store, 4)
    crowd.join()

    assert len(told) == 4
    assert all("database or disk is full" in line for line in told)
    assert tally.rows() == []


def test_a_leader_that_is_interrupted_lets_nobody_believe_in_a_commit(store: Store) -> None:
    """Ctrl-C in the thread that commits for the others: their calls must not leave."""
    tally = Tally(store)
    raised: list[BaseException] = []
    returned: list[int] = []

    def work(thread: int) -> None:
        def do(connection: Connection) -> tuple[int, int]:
            if thread == 0:
                raise KeyboardInterrupt
            return tally.add(connection, thread, 0)

        try:
            store.together(do)
            returned.append(thread)
        except BaseException as error:
            raised.append(error)

    with while_somebody_leads(store):
        crowd = threading.Thread(target=in_threads, args=(work, 4))
        crowd.start()
        waiting(store, 4)
    crowd.join()

    committed = [thread for thread, _ in tally.rows()]
    assert sorted(returned) == committed
    assert len(returned) + len(raised) == 4


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
    careless = sqlite3.connect(tmp_path / "crm_sync.db")  # as a SQLite without secure_delete leaves it
    careless.execute("pragma secure_delete=off")
    careless.execute("delete from people where name like 'ada-7%'")
    careless.commit()
    careless.close()

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


MOUNTS = """\
22 27 0:21 / /proc rw,relatime - proc proc rw
27 1 8:1 / / rw,relatime - ext4 /dev/sda1 rw
30 27 0:40 / /mnt/share rw,relatime shared:1 - nfs4 server:/export rw,vers=4.2
31 30 8:2 / /mnt/share/local rw,relatime - xfs /dev/sdb1 rw
32 27 0:41 / /home/ada/my\\040files rw - cifs //server/files rw
33 27 0:42 / /work rw - 9p host rw
34 27 0:43 / /srv rw - fuse.sshfs ada@host: rw
nonsense
"""


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/var/lib/crm_sync.db", ""),
        ("/mnt/share/crm_sync.db", "nfs4"),
        ("/mnt/share/deep/down/crm_sync.db", "nfs4"),
        ("/mnt/share/local/crm_sync.db", ""),
        ("/mnt/shared.db", ""),
        ("/home/ada/my files/crm_sync.db", "cifs"),
        ("/srv/crm_sync.db", "fuse.sshfs"),
        ("/work/crm_sync.db", ""),
    ],
)
def test_a_network_file_system_is_told_by_the_mount_the_file_lies_on(tmp_path: Path, path: str, kind: str) -> None:
    mounts = tmp_path / "mountinfo"
    mounts.write_text(MOUNTS)

    assert engine.network_file_system(Path(path), mounts) == kind


def test_where_the_system_tells_no_mounts_nothing_is_refused(tmp_path: Path) -> None:
    assert engine.network_file_system(tmp_path / "x.db", tmp_path / "no such file") == ""


def test_sqlite_on_a_network_file_system_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "network_file_system", lambda path: "nfs4")

    with pytest.raises(ConfigError, match=r"lies on a network file system \(nfs4\).*or use PostgreSQL"):
        Store(f"sqlite:///{tmp_path}/x.db")


def test_what_must_not_be_lost_is_tried_again_until_the_database_takes_it(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, tries = Store.write, []

    def away(self: Store) -> object:
        tries.append(1)
        if len(tries) < 4:
            raise StoreError("The database did not take the request")
        return write(self)

    monkeypatch.setattr(Store, "write", away)

    assert store.patiently(lambda connection: connection.execute(text("select 7")).scalar()) == 7
    assert len(tries) == 4


def test_patience_has_an_end_and_a_replaced_file_none(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Store, "patience_s", 0.3)
    errors = [StoreError("away"), engine.ReplacedError("replaced")]
    tries: list[int] = []

    def away(self: Store) -> object:
        tries.append(1)
        raise errors[0]

    monkeypatch.setattr(Store, "write", away)
    with pytest.raises(StoreError, match="away"):
        store.patiently(lambda connection: None)
    patient = len(tries)
    del errors[0]
    with pytest.raises(engine.ReplacedError):
        store.patiently(lambda connection: None)

    assert patient > 2
    assert len(tries) == patient + 1


@pytest.mark.parametrize("how", ["deleted", "replaced"])
def test_a_database_that_was_deleted_or_replaced_takes_no_commit(sqlite_store: Store, how: str) -> None:
    path = sqlite_store.path
    assert path is not None
    content = path.read_bytes()
    path.rename(path.with_suffix(".away"))
    if how == "replaced":
        path.write_bytes(content)

    with pytest.raises(StoreError, match="was moved, deleted or replaced while it was in use"), sqlite_store.write():
        pass

    path.with_suffix(".away").replace(path)
    with sqlite_store.write() as connection:
        assert connection.execute(text("select 1")).scalar() == 1


def test_a_new_file_that_another_process_is_just_turning_to_wal_is_waited_for(tmp_path: Path) -> None:
    """SQLite's own waiting does not cover this change: it answers "database is locked" at once, whatever time-out."""
    path = tmp_path / "crm_sync.db"
    other = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    other.execute("BEGIN IMMEDIATE")
    release = threading.Timer(0.3, other.rollback)
    release.start()
    store = Store(f"sqlite:///{path}")

    store.ready()

    assert store.schema_version() == SCHEMA_VERSION
    store.close()
    release.join()
    other.close()


def test_processes_that_start_at_once_on_an_empty_database_migrate_it_once(database_url: str) -> None:
    stores = [Store(database_url) for _ in range(4)]
    begin = threading.Barrier(len(stores))
    failed: list[BaseException] = []

    def start(store: Store) -> None:
        begin.wait()
        try:
            store.migrate()
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=start, args=(store,)) for store in stores]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    versions = {store.schema_version() for store in stores}
    for store in stores:
        store.close()

    assert failed == []
    assert versions == {SCHEMA_VERSION}


def test_a_second_store_of_one_process_takes_no_lock_of_the_first(tmp_path: Path) -> None:
    """Closing a file gives up all locks that the process has on it: another process's end then deletes the log under
    the first store, and the database is damaged."""
    url = f"sqlite:///{tmp_path}/crm_sync.db"
    first = Store(url)
    first.ready()
    second = Store(url)
    second.ready()
    second.close()
    write = (
        "import sqlite3, sys; c = sqlite3.connect(sys.argv[1]); "
        "c.execute('create table other (x)'); c.commit(); c.close()"
    )
    subprocess.run([sys.executable, "-c", write, f"{tmp_path}/crm_sync.db"], check=True)

    assert (tmp_path / "crm_sync.db-wal").exists()
    with first.write() as connection:
        connection.execute(text("insert into other values (1)"))
    with first.read() as connection:
        assert connection.execute(text("pragma integrity_check")).scalar() == "ok"
    first.close()
