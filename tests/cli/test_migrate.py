"""migrate: what it says, what it leaves beside a SQLite file, and the way back."""

from __future__ import annotations

from pathlib import Path

import pytest
from alembic import command
from click.testing import CliRunner, Result

from crm_sync.cli import cli
from crm_sync.store import engine
from crm_sync.store.engine import SCHEMA_VERSION, Store
from tests.postgres import programs_in_path


def at_schema(url: str, schema: str) -> None:
    store = Store(url)
    with store.write() as connection:
        config = engine._alembic_config()
        config.attributes["connection"] = connection
        command.upgrade(config, schema)
    store.close()


@pytest.fixture
def folder(database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CRM_SYNC_DATABASE_URL", database_url)
    programs_in_path(monkeypatch)
    return tmp_path


def said(*words: str) -> Result:
    return CliRunner().invoke(cli, list(words))


def test_an_upgrade_and_the_way_back(database_url: str, folder: Path) -> None:
    """As docs/deployment.md has it: back up, migrate; then, with the newer version, put the backup back."""
    at_schema(database_url, "0004")

    backed_up = said("backup", "before.backup")
    refused = said("runs")
    migrated = said("migrate")
    used = said("runs")
    again = said("migrate")
    back = said("restore", "from", "before.backup", "--yes")
    old = said("runs")

    assert backed_up.exit_code == 0, backed_up.output
    assert "run crm-sync migrate" in refused.output
    assert f"schema 0004 → {SCHEMA_VERSION}" in migrated.output
    assert used.exit_code == 0, used.output
    assert f"has schema {SCHEMA_VERSION} already" in again.output
    assert back.exit_code == 0, back.output
    assert "Next: crm-sync migrate" in back.output
    assert "The database has schema 0004" in old.output
    copy = folder / "crm_sync.db.schema-0004"
    assert copy.exists() == database_url.startswith("sqlite")
    assert (str(copy) in migrated.output.replace("\n", "")) == copy.exists()


def test_the_copy_that_a_migration_leaves_can_be_put_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    at_schema("sqlite:///crm_sync.db", "0004")
    said("migrate")

    back = said("restore", "from", "crm_sync.db.schema-0004", "--yes")

    assert back.exit_code == 0, back.output
    assert "The database has schema 0004" in said("runs").output


def test_a_newer_schema_is_refused_by_migrate_and_by_restore(database_url: str, folder: Path) -> None:
    said("migrate")
    said("backup", "newer.backup")
    store = Store(database_url)
    with store.write() as connection:
        connection.exec_driver_sql("update alembic_version set version_num = '9999'")
    store.close()
    said("backup", "unknown.backup")

    migrated = said("migrate")
    ready = said("runs")
    put_back = said("restore", "from", "unknown.backup", "--yes")
    other = said("restore", "from", "newer.backup", "--yes")

    assert migrated.exit_code == 1
    assert "does not know" in migrated.output
    assert "made by a newer version; upgrade crm-sync" in ready.output
    assert put_back.exit_code == 1
    assert "upgrade crm-sync first" in put_back.output
    assert other.exit_code == 0, other.output
