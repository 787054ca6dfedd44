"""What is known, by the identity that was asked, and the paid answers it came from. Written by store/journal.py."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import select

from crm_sync.domain.enrichment import MatchKeys, Purpose
from crm_sync.store.engine import Store
from crm_sync.store.journal import body_name, keys_of, request_name
from crm_sync.store.tables import answers, batches
from crm_sync.store.vault import Vault


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredAnswer:
    """Where a known answer stands. `verdict` is a Verdict's value, or one of store/journal.py's; `source` bulk, single,
    alias (the same answer by another name of the same person), employer (the company that came with a person, thinner
    than a company's own answer) or stamp (the CRM says that it
    was bought, and the answer is not here)."""

    verdict: str
    source: str
    batch_id: int
    position: int
    obtained_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredBatch:
    """One paid call with its raw answer."""

    id: int
    purpose: Purpose
    single: bool
    keys: tuple[MatchKeys, ...]
    body: bytes


class Answers:
    """The index of what is known, and the raw answers behind it."""

    def __init__(self, store: Store, vault: Vault) -> None:
        self._store = store
        self._vault = vault

    def identity(self, key: str) -> bytes:
        """What the store writes where it means the person or company of a MatchKeys.key."""
        return self._vault.digest(key)

    def digest(self, key: str) -> bytes | None:
        """What stands for a MatchKeys.key in the tables; None for the key of nobody."""
        return self._vault.digest(key) if key else None

    def look_up(self, purpose: Purpose, keys: Iterable[str]) -> dict[str, StoredAnswer]:
        """What is known about each of these MatchKeys.key; the caller judges whether it is fresh."""
        by_digest = {self._vault.digest(key): key for key in keys if key}
        found: dict[str, StoredAnswer] = {}
        digests = list(by_digest)
        with self._store.read() as connection:
            for start in range(0, len(digests), 500):
                rows = connection.execute(
                    select(
                        answers.c.key,
                        answers.c.verdict,
                        answers.c.source,
                        answers.c.batch_id,
                        answers.c.position,
                        answers.c.obtained_at,
                    ).where(answers.c.purpose == purpose.value, answers.c.key.in_(digests[start : start + 500]))
                )
                for key, verdict, source, batch_id, position, obtained_at in rows:
                    found[by_digest[bytes(key)]] = StoredAnswer(
                        verdict=verdict, source=source, batch_id=batch_id, position=position, obtained_at=obtained_at
                    )
        return found

    def load(self, batch_ids: Iterable[int]) -> dict[int, StoredBatch]:
        """The paid calls that have a raw answer."""
        wanted = sorted(set(batch_ids))
        found: dict[int, StoredBatch] = {}
        with self._store.read() as connection:
            for start in range(0, len(wanted), 100):
                rows = connection.execute(
                    select(
                        batches.c.id,
                        batches.c.purpose,
                        batches.c.single,
                        batches.c.fingerprint,
                        batches.c.request,
                        batches.c.body,
                    ).where(batches.c.id.in_(wanted[start : start + 100]), batches.c.body.is_not(None))
                )
                for batch_id, purpose, single, fingerprint, request, body in rows:
                    found[batch_id] = StoredBatch(
                        id=batch_id,
                        purpose=Purpose(purpose),
                        single=bool(single),
                        keys=keys_of(self._vault.unseal(request, request_name(fingerprint))),
                        body=self._vault.unseal(body, body_name(batch_id)),
                    )
        return found
