"""Where small files cost least."""

from __future__ import annotations

import os
import shutil

#: A container's memory file system may have 64 MiB, and a PostgreSQL's log alone takes a gigabyte.
_ROOM = 4 << 30


def memory_folder() -> str | None:
    """A folder in memory: what the tests kill is a process, not the machine, so that no disk is needed."""
    folder = "/dev/shm"
    return folder if os.access(folder, os.W_OK) and shutil.disk_usage(folder).free > _ROOM else None
