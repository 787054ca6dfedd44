"""A process that writes records by a bulk job and notes it in a file, to be killed where CRM_SYNC_CRASH says.

python -m tests.adapters.salesforce_bulk_worker URL BOOK COUNT
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from crm_sync.domain.changes import WriteMode
from crm_sync.ports import WriteRequest
from tests.adapters.salesforce_org import APP, retitle
from tests.clocks import FakeClock

#: The record that is refused for one field.
BAD = 7


class FileBook:
    """ports.JobBook as lines of JSON, on the disk before it returns."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def opened(self, job_id: str, object_type: str, requests: Sequence[WriteRequest]) -> None:
        self._note(job=job_id, state="opened", type=object_type, ids=[request.ref.id for request in requests])

    def uploaded(self, job_id: str) -> None:
        self._note(job=job_id, state="uploaded")

    def ended(self, job_id: str) -> None:
        self._note(job=job_id, state="ended")

    def _note(self, **entry: Any) -> None:
        with self._path.open("a") as file:
            file.write(json.dumps(entry) + "\n")
            file.flush()
            os.fsync(file.fileno())


def main(url: str, book: str, count: int) -> None:
    from adapters.salesforce.client import SalesforceCrm

    crm = SalesforceCrm(name="salesforce", url=url, credentials=APP, clock=FakeClock())
    requests = [
        retitle(n, Title=f"T{n}") if n != BAD else retitle(n, Title="x" * 200, Department="IT") for n in range(count)
    ]
    crm.write("Contact", requests, mode=WriteMode.BULK, jobs=FileBook(Path(book)))
    crm.close()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
