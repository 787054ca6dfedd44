"""Every table. Changing one means a new file in migrations/versions."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from sqlalchemy import (
    BigInteger,
    Column,
    Dialect,
    Double,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    TypeDecorator,
    text,
)

metadata = MetaData()


class Moment(TypeDecorator[datetime]):
    """An aware UTC datetime, kept as milliseconds since 1970: the same number, and order, on both databases."""

    impl = BigInteger
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> Any:  # noqa: ARG002
        return None if value is None else int(value.timestamp() * 1000)

    def process_result_value(self, value: Any, dialect: Dialect) -> datetime | None:  # noqa: ARG002
        return None if value is None else datetime.fromtimestamp(value / 1000, UTC)


class Credits(TypeDecorator[Decimal]):
    """Credits as whole millionths: Apollo charges decimals (1.01), and sums must be exact on both databases."""

    impl = BigInteger
    cache_ok = True

    def process_bind_param(self, value: Decimal | None, dialect: Dialect) -> Any:  # noqa: ARG002
        return None if value is None else int((value * 1_000_000).to_integral_value())

    def process_result_value(self, value: Any, dialect: Dialect) -> Decimal | None:  # noqa: ARG002
        return None if value is None else (Decimal(value) / 1_000_000).normalize() + 0


_Serial = BigInteger().with_variant(Integer, "sqlite")  # SQLite numbers rows by itself only for INTEGER

config_versions = Table(
    "config_versions",
    metadata,
    Column("number", Integer, primary_key=True),
    Column("text", LargeBinary, nullable=False),  # byte for byte, comments too
    Column("files", LargeBinary, nullable=False),  # JSON: name -> base64 of the files it names
    Column("digest", String(64), nullable=False),
    Column("author", String(200), nullable=False),
    Column("note", Text, nullable=False),
    Column("created_at", Moment, nullable=False),
)

runs = Table(
    "runs",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("sync", String(200), nullable=False),
    Column("crm", String(200), nullable=False),
    Column("object_type", String(100), nullable=False),
    Column("kind", String(10), nullable=False),
    Column("status", String(30), nullable=False),
    Column("reason", Text, nullable=False),
    Column("trigger", String(100), nullable=False),
    Column("config_version", Integer, ForeignKey("config_versions.number")),
    Column("started_at", Moment, nullable=False),
    Column("finished_at", Moment),
    Column("counts", Text, nullable=False),  # JSON of domain.runs.Counts
    Column("credits", Credits, nullable=False),
    Column("calls", Text, nullable=False),  # JSON: "provider operation" -> count
    Column("owner", String(200), nullable=False),  # host and process, to tell a dead run from a live one
    Column("alive_at", Moment, nullable=False),
    Column("left_out", Text, nullable=False),  # JSON: reason -> records not selected
    Column("parents", Text, nullable=False),  # JSON of domain.runs.Counts for the account: section
    Index("runs_by_start", "started_at"),
)

#: One row per record per run, with its decisions: the audit. Written before the CRM is asked (outcome "Writing") and
#: confirmed after.
run_records = Table(
    "run_records",
    metadata,
    Column("run_id", String(32), ForeignKey("runs.id"), primary_key=True),
    Column("object_type", String(100), primary_key=True),
    Column("record_id", String(64), primary_key=True),
    Column("outcome", String(20), nullable=False),
    Column("reason", Text, nullable=False),
    Column("decisions", LargeBinary),  # JSON, see store/records.py
    Column("batch_id", BigInteger),
    Column("at", Moment, nullable=False),
    Index("run_records_by_record", "object_type", "record_id"),
)

#: The last attempt at each record by each sync: what keeps a second run from doing the same again.
record_states = Table(
    "record_states",
    metadata,
    Column("sync", String(200), primary_key=True),
    Column("object_type", String(100), primary_key=True),
    Column("record_id", String(64), primary_key=True),
    Column("outcome", String(20), nullable=False),
    Column("seen", LargeBinary(16), nullable=False),  # digest of what the attempt was based on
    Column("attempted_at", Moment, nullable=False),
    Column("run_id", String(32), nullable=False),
    Index("record_states_by_age", "sync", "attempted_at"),
    sqlite_with_rowid=False,
)

#: Paid calls: committed as sent before the first byte leaves, and with the raw answer before anything reads it.
batches = Table(
    "batches",
    metadata,
    Column("id", _Serial, primary_key=True, autoincrement=True),
    Column("run_id", String(32), ForeignKey("runs.id"), nullable=False),
    Column("sync", String(200), nullable=False),
    Column("purpose", String(10), nullable=False),
    Column("single", Integer, nullable=False),
    Column("fingerprint", String(64), nullable=False),
    Column("request", LargeBinary, nullable=False),  # zstd JSON: the MatchKeys asked, in order
    Column("asked", Integer, nullable=False),
    Column("state", String(10), nullable=False),
    Column("sent_at", Moment, nullable=False),
    Column("answered_at", Moment),
    Column("credits", Credits),
    Column("request_id", String(40), nullable=False),
    Column("body", LargeBinary),  # zstd, the raw bytes
    Column("error", Text, nullable=False),
    Index("batches_by_run", "run_id"),
    # Only the few that somebody must look at: an index over all states would be rewritten twice a call.
    Index(
        "batches_in_doubt", "id", sqlite_where=text("state = 'in doubt'"), postgresql_where=text("state = 'in doubt'")
    ),
)

#: What is known, by the identity that was asked: one row per person or company, whoever asked.
answers = Table(
    "answers",
    metadata,
    Column("purpose", String(10), primary_key=True),
    Column("key", LargeBinary(16), primary_key=True),  # digest of MatchKeys.key: no address in clear
    Column("verdict", String(10), nullable=False),
    Column("source", String(10), nullable=False),  # bulk | single | employer
    Column("batch_id", BigInteger, nullable=False),
    Column("position", Integer, nullable=False),
    Column("obtained_at", Moment, nullable=False),
    sqlite_with_rowid=False,
)

#: Apollo's picklist values that no table maps, as the walks meet them.
unmapped_values = Table(
    "unmapped_values",
    metadata,
    Column("sync", String(200), primary_key=True),
    Column("field", String(200), primary_key=True),
    Column("value", String(400), primary_key=True),
    Column("seen", BigInteger, nullable=False),
    Column("first_at", Moment, nullable=False),
    Column("last_at", Moment, nullable=False),
)

# --- pace: the shared rate limit, see store/pace.py ---

#: One row per endpoint of the enricher. Times are seconds since 1970 (Double: windows are counted to the millisecond
#: and finer).
pace = Table(
    "pace",
    metadata,
    Column("endpoint", String(100), primary_key=True),
    Column("parked_until", Double, nullable=False),
    Column("limits", Text, nullable=False),  # JSON: seconds of the window -> calls
    Column("state", LargeBinary, nullable=False),  # JSON of store.pace.Ledger
)
