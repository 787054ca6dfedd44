"""Offices: `office` is Salesforce on SQLite and HubSpot on PostgreSQL, `every_office` each CRM on each database."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from crm_sync.sandbox.run import Sandbox
from tests.conftest import database_of
from tests.journeys.privacy.office import PrivacyOffice


@pytest.fixture(scope="module")
def town() -> Iterator[Sandbox]:
    """One sandbox for a module, tidy and with 60 contacts; each office begins it anew."""
    with Sandbox(contacts=60, tidy=True, unlimited=True, per_minute=None) as sandbox:
        yield sandbox


def _open(
    town: Sandbox, crm: str, database: str, folder: Path, patch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> Iterator[PrivacyOffice]:
    town.renew()
    with database_of(database, request, folder, is_empty=False) as url:
        office = PrivacyOffice(town, crm, url, patch, folder)
        try:
            yield office
        finally:
            office.app.close()


PAIRS = [
    pytest.param(("salesforce", "sqlite"), id="salesforce-sqlite"),
    pytest.param(("hubspot", "postgresql"), id="hubspot-postgresql", marks=pytest.mark.postgres),
]
OTHERS = [
    pytest.param(("hubspot", "sqlite"), id="hubspot-sqlite"),
    pytest.param(("salesforce", "postgresql"), id="salesforce-postgresql", marks=pytest.mark.postgres),
]


@pytest.fixture(params=PAIRS)
def office(
    town: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> Iterator[PrivacyOffice]:
    yield from _open(town, *request.param, tmp_path, monkeypatch, request)


@pytest.fixture(params=PAIRS + OTHERS)
def every_office(
    town: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> Iterator[PrivacyOffice]:
    yield from _open(town, *request.param, tmp_path, monkeypatch, request)


@pytest.fixture(params=PAIRS[:1])
def one_office(
    town: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> Iterator[PrivacyOffice]:
    """For what depends on neither the CRM nor the database."""
    yield from _open(town, *request.param, tmp_path, monkeypatch, request)
