"""An installation on SQLite whose receiver real servers serve."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.webhooks.servers import SERVERS, Installation, Served, served


@pytest.fixture
def installation(tmp_path: Path) -> Iterator[Installation]:
    with Installation(tmp_path, f"sqlite:///{tmp_path}/crm_sync.db") as made:
        yield made


@pytest.fixture(params=SERVERS)
def server(request: pytest.FixtureRequest, installation: Installation) -> Iterator[Served]:
    with served(request.param, installation.folder) as made:
        yield made
