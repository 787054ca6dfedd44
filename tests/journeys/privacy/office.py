"""An office with a command line that hears what leaves for Apollo, and ways to look at all that is stored."""

from __future__ import annotations

import sqlite3
from base64 import b64decode
from pathlib import Path
from typing import Any

import orjson
import pytest
from click.testing import CliRunner, Result
from flask import request
from sqlalchemy import select

from crm_sync.cli import cli
from crm_sync.sandbox.run import Sandbox
from crm_sync.store.engine import Store
from crm_sync.store.tables import metadata
from tests.journeys.conftest import Office

SECRET = "a-secret-of-the-tests-long-enough"
#: Person fields in the names of each CRM.
NAMES = {
    "salesforce": {"email": "Email", "title": "Title", "phone": "Phone", "linkedin": "LinkedIn__c"},
    "hubspot": {"email": "email", "title": "jobtitle", "phone": "phone", "linkedin": "hs_linkedin_url"},
}


class PrivacyOffice(Office):
    """An office that listens to what leaves for Apollo, and has a command line."""

    def __init__(
        self, sandbox: Sandbox, crm: str, database_url: str, monkeypatch: pytest.MonkeyPatch, folder: Path
    ) -> None:
        monkeypatch.setenv("CRM_SYNC_SECRET_KEY", SECRET)
        monkeypatch.chdir(folder)
        self.folder = folder
        self.asked: list[str] = []
        super().__init__(sandbox, crm, database_url, monkeypatch)
        service = sandbox.apps["apollo"].view_functions
        for name in ("bulk_match", "match", "bulk_enrich", "enrich"):
            service[name] = self._listening(service[name])

    def _listening(self, view: Any) -> Any:
        def listening(*arguments: Any, **named: Any) -> Any:
            self.asked.append(f"{request.get_data(as_text=True)} {request.query_string.decode()}".lower())
            return view(*arguments, **named)

        return listening

    def has_asked_for(self, *words: str) -> bool:
        return any(word.lower() in asked for word in words for asked in self.asked)

    def command(self, *words: str, say: str = "") -> Result:
        """A command in a process of its own, as far as the store goes."""
        return CliRunner().invoke(cli, list(words), input=say)

    def json(self, *words: str) -> Any:
        result = self.command(*words)
        assert result.exit_code == 0, result.output
        return orjson.loads(result.stdout)

    def name(self, field: str) -> str:
        return NAMES[self.crm][field]

    def person(self, index: int) -> Any:
        """The human behind contact `index` of a tidy world."""
        return self.sandbox.world.person(index)

    def with_suppress(self, section: str) -> None:
        self.apply(f"{self.text}\nsuppress: {section}\n")

    def reasons(self, run_id: str) -> dict[str, int]:
        return {reason: count for _, _, reason, count in self.app.runs.reasons(run_id) if reason}


def all_columns(store: Store) -> dict[str, bytes]:
    """Every value of every column of every table, joined: what a dump would hold, stored files decoded."""
    found = {}
    with store.read() as connection:
        for table in metadata.sorted_tables:
            for row in connection.execute(select(table)):
                for name, value in zip(table.c.keys(), row, strict=True):
                    text = bytes(value) if isinstance(value, bytes | memoryview) else str(value).encode()
                    if (table.name, name) == ("config_versions", "files"):
                        text = b"".join(b64decode(content) for content in orjson.loads(text).values())
                    found[f"{table.name}.{name}"] = found.get(f"{table.name}.{name}", b"") + b"\n" + text
    return found


def raw_bytes(store: Store) -> bytes:
    """The database's files as they lie on the disk; nothing for PostgreSQL."""
    if store.path is None:
        return b""
    files = [store.path, store.path.with_name(store.path.name + "-wal")]
    return b"".join(file.read_bytes() for file in files if file.exists())


def is_sound(path: Path) -> bool:
    connection = sqlite3.connect(path)
    try:
        return bool(connection.execute("pragma integrity_check").fetchone()[0] == "ok")
    finally:
        connection.close()
