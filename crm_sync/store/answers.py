"""Paid calls and what they brought, kept so that no answer is bought twice."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from decimal import Decimal

import orjson
import zstandard
from sqlalchemy import bindparam, func, insert, select, update

from crm_sync.domain.enrichment import MatchKeys, Purpose, RawAnswer, Verdict
from crm_sync.store.engine import Store
from crm_sync.store.tables import Credits, answers, batches
from crm_sync.store.upsert import upsert

#: The verdict of a key whose paid call left without a readable answer.
IN_DOUBT = "in doubt"


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredAnswer:
    """Where a known answer stands. `verdict` is a Verdict's value or IN_DOUBT; `source` bulk, single or employer (the
    company that came with a person, thinner than a company's own answer)."""

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


@dataclass(frozen=True, slots=True, kw_only=True)
class NewAnswer:
    """One row to keep: `key` is MatchKeys.key."""

    purpose: Purpose
    key: str
    verdict: Verdict
    source: str
    position: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Expansion:
    """What one paid call's answer says, to be indexed. `credits_charged` None: as Apollo said."""

    batch_id: int
    rows: tuple[NewAnswer, ...]
    credits_charged: Decimal | None = None


# Built once: composing a statement costs more than running it.
_SENT = insert(batches)
_RECEIVED = (
    update(batches)
    .where(batches.c.id == bindparam("b_id"))
    .values(
        state="received",
        answered_at=bindparam("b_at"),
        credits=bindparam("b_credits"),
        request_id=bindparam("b_request_id"),
        body=bindparam("b_body"),
    )
)
_DONE = (
    update(batches)
    .where(batches.c.id == bindparam("b_id"))
    .values(state="done", credits=func.coalesce(bindparam("b_credits", type_=Credits()), batches.c.credits))
)
_KEY_NAMES = tuple(field.name for field in fields(MatchKeys))


class Answers:
    """The journal of paid calls and the index of what is known."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._local = threading.local()  # zstandard's objects must not be shared between threads

    # --- the index ----------------------------------------------------------------------------------------------

    def look_up(self, purpose: Purpose, keys: Iterable[str]) -> dict[str, StoredAnswer]:
        """What is known about each of these MatchKeys.key; the caller judges whether it is fresh."""
        by_digest = {_digest(key): key for key in keys if key}
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
        wanted = sorted(set(batch_ids))
        found: dict[int, StoredBatch] = {}
        with self._store.read() as connection:
            for start in range(0, len(wanted), 100):
                rows = connection.execute(
                    select(batches.c.id, batches.c.purpose, batches.c.single, batches.c.request, batches.c.body).where(
                        batches.c.id.in_(wanted[start : start + 100]), batches.c.body.is_not(None)
                    )
                )
                for batch_id, purpose, single, request, body in rows:
                    found[batch_id] = StoredBatch(
                        id=batch_id,
                        purpose=Purpose(purpose),
                        single=bool(single),
                        keys=_keys(request),
                        body=self._decompress(body),
                    )
        return found

    # --- the journal --------------------------------------------------------------------------------------------

    def sent(
        self, run_id: str, sync: str, purpose: Purpose, keys: Sequence[MatchKeys], *, single: bool, now: datetime
    ) -> int:
        """Committed before the first byte leaves: from here on the call may have been charged."""
        request = orjson.dumps([{name: value for name in _KEY_NAMES if (value := getattr(key, name))} for key in keys])
        with self._store.write() as connection:
            result = connection.execute(
                _SENT,
                {
                    "run_id": run_id,
                    "sync": sync,
                    "purpose": purpose.value,
                    "single": int(single),
                    "fingerprint": hashlib.sha256(request).hexdigest(),
                    "request": request,
                    "asked": len(keys),
                    "state": "sent",
                    "sent_at": now,
                    "request_id": "",
                    "error": "",
                },
            )
            return int(result.inserted_primary_key[0])  # type: ignore[index]

    def received(self, batch_id: int, raw: RawAnswer, *, now: datetime) -> None:
        """The raw bytes, committed before anything reads them."""
        with self._store.write() as connection:
            connection.execute(
                _RECEIVED,
                {
                    "b_id": batch_id,
                    "b_at": now,
                    "b_credits": raw.credits,
                    "b_request_id": raw.request_id,
                    "b_body": self._compress(raw.body),
                },
            )

    def expand(self, expansions: Sequence[Expansion], *, now: datetime) -> None:
        """Index several answers in one commit.

        An employer's row never replaces a company's own answer.
        """
        own = [_answer_values(row, e.batch_id, now) for e in expansions for row in e.rows if row.source != "employer"]
        employers = {
            row.key: _answer_values(row, e.batch_id, now)
            for e in expansions
            for row in e.rows
            if row.source == "employer"
        }
        with self._store.write() as connection:
            if own:
                connection.execute(
                    upsert(connection, answers, ("verdict", "source", "batch_id", "position", "obtained_at")), own
                )
            if employers:
                connection.execute(upsert(connection, answers, ()), list(employers.values()))
            if expansions:
                connection.execute(_DONE, [{"b_id": e.batch_id, "b_credits": e.credits_charged} for e in expansions])

    def not_charged(self, batch_id: int, state: str, error: str, *, now: datetime) -> None:
        """`state` is "refused" (Apollo said no) or "unsent" (it never left)."""
        self._update(batch_id, state=state, answered_at=now, credits=Decimal(0), error=error)

    def in_doubt(
        self, batch_id: int, purpose: Purpose, keys: Sequence[MatchKeys], body: bytes, error: str, *, now: datetime
    ) -> None:
        """It may have been charged: nobody asks for these keys again until a person or evidence settles it."""
        with self._store.write() as connection:
            connection.execute(
                update(batches)
                .where(batches.c.id == batch_id)
                .values(state="in doubt", answered_at=now, error=error, body=self._compress(body) if body else None)
            )
            connection.execute(
                upsert(connection, answers, ("verdict", "source", "batch_id", "position", "obtained_at")),
                [
                    {
                        "purpose": purpose.value,
                        "key": _digest(key.key),
                        "verdict": IN_DOUBT,
                        "source": "bulk",
                        "batch_id": batch_id,
                        "position": position,
                        "obtained_at": now,
                    }
                    for position, key in enumerate(keys)
                ],
            )

    def unfinished(self, run_id: str) -> list[tuple[int, str]]:
        """(batch id, state) of a dead run's calls that were sent or received and never expanded."""
        with self._store.read() as connection:
            rows = connection.execute(
                select(batches.c.id, batches.c.state).where(
                    batches.c.run_id == run_id, batches.c.state.in_(("sent", "received"))
                )
            )
            return [(row[0], row[1]) for row in rows]

    def asked(self, batch_id: int) -> tuple[Purpose, tuple[MatchKeys, ...], bool]:
        """What a call asked for: (purpose, keys in order, whether by the single endpoint)."""
        with self._store.read() as connection:
            row = connection.execute(
                select(batches.c.purpose, batches.c.request, batches.c.single).where(batches.c.id == batch_id)
            ).one()
        return Purpose(row[0]), _keys(row[1]), bool(row[2])

    def credits_told(self, batch_id: int) -> Decimal | None:
        """What Apollo said the call cost; None where it did not say."""
        with self._store.read() as connection:
            return connection.execute(select(batches.c.credits).where(batches.c.id == batch_id)).scalar()

    def spent(self, run_id: str) -> Decimal:
        """Credits of one run as far as they are known; what is in doubt is not in it."""
        with self._store.read() as connection:
            total = connection.execute(select(func.sum(batches.c.credits)).where(batches.c.run_id == run_id)).scalar()
        return total if total is not None else Decimal(0)

    def _update(self, batch_id: int, **values: object) -> None:
        with self._store.write() as connection:
            connection.execute(update(batches).where(batches.c.id == batch_id).values(values))

    def _compress(self, body: bytes) -> bytes:
        compressor = getattr(self._local, "compressor", None)
        if compressor is None:
            compressor = self._local.compressor = zstandard.ZstdCompressor(level=1)
        return bytes(compressor.compress(body))

    def _decompress(self, body: bytes) -> bytes:
        decompressor = getattr(self._local, "decompressor", None)
        if decompressor is None:
            decompressor = self._local.decompressor = zstandard.ZstdDecompressor()
        return bytes(decompressor.decompress(body))


def _digest(key: str) -> bytes:
    return hashlib.blake2b(key.encode(), digest_size=16).digest()


def _keys(request: bytes) -> tuple[MatchKeys, ...]:
    return tuple(MatchKeys(**{**item, "purpose": Purpose(item["purpose"])}) for item in orjson.loads(request))


def _answer_values(row: NewAnswer, batch_id: int, now: datetime) -> dict[str, object]:
    return {
        "purpose": row.purpose.value,
        "key": _digest(row.key),
        "verdict": row.verdict.value,
        "source": row.source,
        "batch_id": batch_id,
        "position": row.position,
        "obtained_at": now,
    }
