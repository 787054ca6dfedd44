"""Who was erased, noted as digests outside the database: one that is restored from an older backup holds them again.

A line of JSON for each erasure, only ever appended and on the disk before anything is removed. The digests are those of
the suppressions; they say nothing without the key that lies sealed in the database.
"""

from __future__ import annotations

import os
from collections.abc import Collection
from datetime import datetime
from pathlib import Path

import orjson

from crm_sync.errors import StoreError
from crm_sync.mapping.identities import KINDS

#: (kind, digest) as in the table of suppressions.
Digest = tuple[str, bytes]


class Erasures:
    """The note at `path`. `mark` names the key that digests are made with: another database's say nothing here."""

    def __init__(self, path: Path, mark: bytes) -> None:
        self.path = path
        self._mark = mark.hex()

    def read(self) -> set[Digest]:
        """Nobody where there is no such file.

        Raises:
            StoreError: there is one, and it cannot be read: somebody erased could be looked up again.
        """
        try:
            lines = self.path.read_bytes().splitlines()
        except FileNotFoundError:
            return set()
        except OSError as error:
            raise self._trouble(f"cannot be read ({error.strerror})") from error
        found: set[Digest] = set()
        for number, line in enumerate(lines, start=1):
            try:
                entry = orjson.loads(line)
                digests = {(kind, bytes.fromhex(each)) for kind, each in entry["digests"]}
                is_ours = entry["key"] == self._mark
            except (ValueError, KeyError, TypeError):
                raise self._trouble(f"has something in line {number} that is no erasure") from None
            if is_ours:
                found |= {(kind, digest) for kind, digest in digests if kind in KINDS}
        return found

    def note(self, digests: Collection[Digest], *, now: datetime) -> None:
        """
        Raises:
            StoreError: it cannot be written; nothing may be removed yet.
        """
        entry = {
            "at": now.isoformat(timespec="seconds"),
            "key": self._mark,
            "digests": sorted((kind, digest.hex()) for kind, digest in digests),
        }
        self._write(orjson.dumps(entry) + b"\n", os.O_APPEND)

    def forget(self, digests: Collection[Digest], *, now: datetime) -> None:
        """Somebody may be looked up again: the note is written anew without them."""
        known = self.read()
        left = known - set(digests)
        if left != known:
            self._write(b"", os.O_TRUNC)
            self.note(left, now=now)

    def _write(self, content: bytes, how: int) -> None:
        try:
            file = os.open(self.path, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC | how, 0o600)
            try:
                os.write(file, content)
                os.fsync(file)
            finally:
                os.close(file)
        except OSError as error:
            raise self._trouble(f"cannot be written ({error.strerror})") from error

    def _trouble(self, what: str) -> StoreError:
        return StoreError(
            f"The note of erasures {self.path} {what}, and without it a restored database would hold people again who "
            "were erased: put it right, or put the newest copy of it back"
        )
