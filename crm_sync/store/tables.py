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


def millis(moment: datetime) -> int:
    """A time as Moment keeps it, for statements that go straight to the driver."""
    return int(moment.timestamp() * 1000)


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
    Column("cancel_asked_at", Moment),  # somebody said `crm-sync cancel`; seen before the next paid call
    # What a worker carries out was queued first: by a schedule's slot, by `run --queue`, or to go on with a run that
    # broke off. `started_at` is the same moment until one takes it.
    Column("queued_at", Moment),
    Column("slot", Moment),
    Column("continues", String(32)),
    Column("asked", Text),  # JSON of domain.runs.Asked
    Index("runs_by_start", "started_at"),
    Index("runs_by_sync", "sync", "started_at"),
    Index("runs_by_status", "sync", "kind", "status"),
    Index("runs_by_slot", "sync", "slot", unique=True),
    Index("runs_by_continued", "continues", unique=True),
    Index(
        "runs_queued", "queued_at", sqlite_where=text("status = 'Queued'"), postgresql_where=text("status = 'Queued'")
    ),
    # A sync never runs beside itself: the database forbids it. Deliveries are written at any time.
    Index(
        "runs_one_at_a_time",
        "sync",
        unique=True,
        sqlite_where=text("status = 'Running' and kind <> 'phones'"),
        postgresql_where=text("status = 'Running' and kind <> 'phones'"),
    ),
)

#: Each sync's schedule as the scheduler has seen it. `since`: when it first saw this one, or somebody resumed it; slots
#: before do not count. `seen`: the schedule itself, to tell another one.
schedules = Table(
    "schedules",
    metadata,
    Column("sync", String(200), primary_key=True),
    Column("seen", Text, nullable=False),
    Column("since", Moment, nullable=False),
    Column("last_slot", Moment),
    Column("paused_at", Moment),  # None: it is not paused
    Column("paused_by", String(200), nullable=False),
)

#: One row per record per run, with its decisions: the audit. Written before the CRM is asked (outcome "Writing") and
#: confirmed after.
run_records = Table(
    "run_records",
    metadata,
    Column("run_id", String(32), ForeignKey("runs.id"), primary_key=True),
    Column("object_type", String(100), primary_key=True),
    Column("record_id", String(64), primary_key=True),
    # Whose work it was where several workers share the run; at its end a record has one row again.
    Column("share", Integer, primary_key=True, autoincrement=False, server_default=text("0")),
    Column("outcome", String(20), nullable=False),
    Column("reason", Text, nullable=False),
    Column("decisions", LargeBinary),  # JSON, see store/runs.py
    Column("batch_id", BigInteger),
    Column("identity", LargeBinary(16)),  # keyed digest of MatchKeys.key: who was asked for, without saying who
    Column("at", Moment, nullable=False),
    Index("run_records_by_record", "object_type", "record_id"),
)

#: Who takes part in a run that several workers share. Number 0 stands for the run itself and the process that selects:
#: selecting, selected, or stopping (nobody is to go on). The others are working or have ended.
shares = Table(
    "shares",
    metadata,
    Column("run_id", String(32), ForeignKey("runs.id"), primary_key=True),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("state", String(10), nullable=False),  # selecting | selected | stopping; working | ended
    Column("owner", String(200), nullable=False),  # as of runs; "" for number 0, which is the run's
    Column("alive_at", Moment, nullable=False),
    Column("tally", Text, nullable=False),  # JSON of store.shares.Tally
    Index(
        "shares_working", "run_id", sqlite_where=text("state = 'working'"), postgresql_where=text("state = 'working'")
    ),
    sqlite_with_rowid=False,
)

#: What is to be done of such a run: the records that were selected, cut into pieces, each taken by one share at a time.
#: They go with the run's end.
chunks = Table(
    "chunks",
    metadata,
    Column("run_id", String(32), ForeignKey("runs.id"), primary_key=True),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("records", LargeBinary, nullable=False),  # JSON: record ids
    Column("share", Integer),  # None: nobody has it
    Column("attempt", Integer, nullable=False),
    Column("try_at", Moment, nullable=False),
    Index(
        "chunks_open",
        "run_id",
        "number",
        sqlite_where=text("share is null"),
        postgresql_where=text("share is null"),
    ),
    sqlite_with_rowid=False,
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

#: What crm-sync wrote last into a record's fields, as far as the audit has been purged or a person released a field:
#: JSON, CRM field -> [keyed digest of the value, milliseconds, 1 where it was released]. See store/provenance.py.
provenance = Table(
    "provenance",
    metadata,
    Column("crm", String(200), primary_key=True),
    Column("object_type", String(100), primary_key=True),
    Column("record_id", String(64), primary_key=True),
    Column("fields", LargeBinary, nullable=False),
    sqlite_with_rowid=False,
)

#: What waits for a person: one row for a field whose rule is `review`, or for a whole record ("" as field) that Apollo
#: may have taken for somebody else, or whose employer has changed. The values stand in the run's record.
reviews = Table(
    "reviews",
    metadata,
    Column("id", _Serial, primary_key=True, autoincrement=True),
    Column("sync", String(200), nullable=False),
    Column("crm", String(200), nullable=False),
    Column("object_type", String(100), nullable=False),
    Column("record_id", String(64), nullable=False),
    Column("field", String(200), nullable=False),
    Column("kind", String(20), nullable=False),  # field | match | job_change
    Column("proposal", LargeBinary(16), nullable=False),  # digest of what is proposed: refused once, it stays refused
    Column("reason", Text, nullable=False),
    Column("run_id", String(32), ForeignKey("runs.id"), nullable=False),
    Column("state", String(10), nullable=False),  # open | accepted | refused
    Column("created_at", Moment, nullable=False),
    Column("resolved_at", Moment),
    Column("resolved_by", String(200), nullable=False),
    Index("reviews_by_record", "object_type", "record_id", "sync", "field", unique=True),
    Index("reviews_open", "id", sqlite_where=text("state = 'open'"), postgresql_where=text("state = 'open'")),
)

#: Bulk jobs of a CRM whose results were not fetched yet: noted before the upload, so that the next process can.
write_jobs = Table(
    "write_jobs",
    metadata,
    Column("crm", String(200), primary_key=True),
    Column("job_id", String(64), primary_key=True),
    Column("run_id", String(32), ForeignKey("runs.id"), nullable=False),
    Column("share", Integer, nullable=False, server_default=text("0")),
    Column("object_type", String(100), nullable=False),
    Column("records", LargeBinary, nullable=False),  # JSON: the record ids in it
    Column("uploaded", Integer, nullable=False),
    Column("opened_at", Moment, nullable=False),
)

#: Calls that ordered something which Apollo delivers later: whoever has the token of one may ring for it. `state`:
#: planned (nothing has left, so nobody can know the token), sent, then by Apollo's answer open, skipped, nothing; not
#: sent (it never left, or was refused), in doubt (its answer is lost); closed (all it could bring is there), expired
#: (nothing came in time). "probe" rings for nothing: it proves that the public address leads here.
reveal_orders = Table(
    "reveal_orders",
    metadata,
    Column("id", String(32), primary_key=True),  # 128 random bits, in the token
    Column("state", String(12), nullable=False),
    Column("created_at", Moment, nullable=False),
    Column("deliveries", Integer, nullable=False),  # distinct bodies
    Column("received_bytes", BigInteger, nullable=False),
    Column("poll_needed", Integer, nullable=False),  # a delivery was too large to be taken, or could not be read
    Column("batch_id", BigInteger, ForeignKey("batches.id")),  # the paid call; None for a probe
    Column("sync", String(200), nullable=False),
    Column("run_id", String(32), nullable=False),
    Column("request_id", String(40), nullable=False),  # what Apollo is polled by
    Column("reason", Text, nullable=False),
    Column("to_come", Credits, nullable=False),  # worst cost of what is delivered later, reserved until it is billed
    Column("billed", Credits),  # what the delivery cost, booked once
    Column("polls", Integer, nullable=False),
    Column("next_poll_at", Moment),  # None: it is not polled (any more)
    Column("gives_up_at", Moment, nullable=False),
    Index("reveal_orders_by_batch", "batch_id"),
    Index("reveal_orders_by_poll", "next_poll_at"),
    # Each settled delivery looks whether one of these few is done with.
    Index(
        "reveal_orders_skipped",
        "id",
        sqlite_where=text("state = 'skipped'"),
        postgresql_where=text("state = 'skipped'"),
    ),
    sqlite_with_rowid=False,
)

#: What was delivered, or fetched by a poll, one row for each distinct body, as it came: committed before it is
#: acknowledged, read later.
deliveries = Table(
    "deliveries",
    metadata,
    Column("id", _Serial, primary_key=True, autoincrement=True),
    Column("order_id", String(32), ForeignKey("reveal_orders.id"), nullable=False),
    Column("digest", LargeBinary(32), nullable=False),  # SHA-256 of the bytes
    Column("body", LargeBinary, nullable=False),  # sealed zstd
    Column("size", Integer, nullable=False),
    Column("state", String(12), nullable=False),  # new | waiting | done | late | quarantined | dead
    Column("attempts", Integer, nullable=False),
    Column("reason", Text, nullable=False),
    Column("received_at", Moment, nullable=False),
    Column("times", Integer, nullable=False),  # how often the same bytes came
    Column("source", String(10), nullable=False),  # callback | poll
    Column("belief", String(10), nullable=False),  # "" not read yet | token | poll: by what it is believed
    Column("try_at", Moment),  # waiting: not before
    Column("ended_at", Moment),
    Index("deliveries_once", "order_id", "digest", unique=True),
    Index("deliveries_by_state", "state", "id"),
)

#: Whose phone was asked for: one row a record and sync, for its newest reveal. Kept by Apollo's person id, not by the
#: order: a reveal that was "skipped" gets its numbers under an earlier order's token. `state`: due (chosen, nothing has
#: left), waiting, then applied | kept | no number | listed | held | skipped | rejected | expired | not ordered.
phone_waits = Table(
    "phone_waits",
    metadata,
    Column("id", _Serial, primary_key=True, autoincrement=True),
    Column("crm", String(200), nullable=False),
    Column("object_type", String(100), nullable=False),
    Column("record_id", String(64), nullable=False),
    Column("sync", String(200), nullable=False),
    Column("run_id", String(32), ForeignKey("runs.id"), nullable=False),
    Column("person", LargeBinary(16), nullable=False),  # keyed digest of Apollo's person id
    Column("identity", LargeBinary(16), nullable=False),  # keyed digest of MatchKeys.key: whom the record was about
    Column("batch_id", BigInteger, nullable=False),  # the answer that told Apollo's id, and its place there
    Column("position", Integer, nullable=False),
    Column("order_id", String(32)),
    Column("state", String(12), nullable=False),
    Column("reason", Text, nullable=False),
    Column("asked_at", Moment, nullable=False),
    Column("settled_at", Moment),
    Column("settled_run", String(32), nullable=False),
    Column("delivery_id", BigInteger),
    Index("phone_waits_by_record", "record_id", "object_type", "crm", "sync", unique=True),
    Index("phone_waits_by_person", "person"),
    Index("phone_waits_by_order", "order_id"),
    Index("phone_waits_by_run", "run_id", "state"),
    # Who waits is looked at every half minute; nearly all waits have ended.
    Index(
        "phone_waits_open",
        "sync",
        "asked_at",
        sqlite_where=text("state IN ('due', 'waiting')"),
        postgresql_where=text("state IN ('due', 'waiting')"),
    ),
)

#: Paid calls, the intent journal. Planned (nothing has left), sent (committed before the first byte leaves), received
#: (the raw bytes, committed before anything reads them), done (indexed in `answers`); refused or unsent (nothing was
#: charged); in doubt, and from there not charged, charged or accepted (store/journal.py).
batches = Table(
    "batches",
    metadata,
    Column("id", _Serial, primary_key=True, autoincrement=True),
    Column("run_id", String(32), ForeignKey("runs.id"), nullable=False),
    Column("share", Integer, nullable=False, server_default=text("0")),
    Column("sync", String(200), nullable=False),
    Column("purpose", String(10), nullable=False),
    Column("single", Integer, nullable=False),
    Column("endpoint", String(60), nullable=False),
    Column("fingerprint", String(64), nullable=False),
    Column("request", LargeBinary, nullable=False),  # sealed zstd JSON: the MatchKeys asked, in order
    Column("asked", Integer, nullable=False),
    Column("state", String(12), nullable=False),
    Column("day", String(10), nullable=False),  # the budget's day, in the configuration's time zone
    Column("purse", String(10), nullable=False),  # lookups | phones
    Column("most", Credits, nullable=False),  # worst-case cost, reserved until the call is settled
    Column("planned_at", Moment, nullable=False),
    Column("sent_at", Moment),
    Column("answered_at", Moment),
    Column("credits", Credits),
    Column("told", Credits),  # as Apollo itself reported; None: `credits` is counted by us
    Column("request_id", String(40), nullable=False),
    Column("body", LargeBinary),  # sealed zstd, the raw bytes
    Column("error", Text, nullable=False),
    Column("resolved_at", Moment),
    Column("resolved_by", String(200), nullable=False),
    Index("batches_by_run", "run_id"),
    Index("batches_by_time", "planned_at"),
    # Only the few that somebody must look at: an index over all states would be rewritten three times a call.
    Index(
        "batches_in_doubt", "id", sqlite_where=text("state = 'in doubt'"), postgresql_where=text("state = 'in doubt'")
    ),
)

#: What is known or being asked, by the identity that was asked: one row per person or company, whoever asked. The
#: primary key is the spend guard: a key with a live or fresh row cannot be planned into a second paid call.
answers = Table(
    "answers",
    metadata,
    Column("purpose", String(10), primary_key=True),
    Column("key", LargeBinary(16), primary_key=True),  # keyed digest of MatchKeys.key: no address in clear
    Column("verdict", String(10), nullable=False),
    Column("source", String(10), nullable=False),  # bulk | single | employer | stamp | delivery
    Column("batch_id", BigInteger, nullable=False),
    Column("position", Integer, nullable=False),
    Column("obtained_at", Moment, nullable=False),
    sqlite_with_rowid=False,
)

#: The journal's credits summed by day and run, changed in the same commit as the journal: what budgets look at.
#: `reserved` at worst cost for calls that are open or in doubt, `settled` as Apollo reported, `doubted` at worst cost
#: for calls in doubt that a person gave up on.
spending = Table(
    "spending",
    metadata,
    Column("day", String(10), primary_key=True),
    Column("run_id", String(32), ForeignKey("runs.id"), primary_key=True),
    Column("purse", String(10), primary_key=True),
    Column("sync", String(200), nullable=False),
    Column("calls", BigInteger, nullable=False),
    Column("reserved", Credits, nullable=False),
    Column("settled", Credits, nullable=False),
    Column("doubted", Credits, nullable=False),
    Index("spending_by_run", "run_id"),
)

#: What Apollo's own meter said and when: evidence about calls in doubt (pipeline/doubt.py).
balances = Table(
    "balances",
    metadata,
    Column("id", _Serial, primary_key=True, autoincrement=True),
    Column("at", Moment, nullable=False),
    Column("used", Credits),
    Column("left_over", Credits, nullable=False),
    Index("balances_by_time", "at"),
)

#: Data keys, wrapped by the keys of CRM_SYNC_SECRET_KEY (store/vault.py).
data_keys = Table(
    "data_keys",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("purpose", String(10), nullable=False),  # seal | index
    Column("wrapped", LargeBinary, nullable=False),
    Column("master", String(16), nullable=False),  # fingerprint of the key that wraps it
    Column("created_at", Moment, nullable=False),
)

#: Whom to leave alone, as keyed digests: nobody can read from it who they are.
suppressions = Table(
    "suppressions",
    metadata,
    Column("kind", String(10), primary_key=True),  # email | domain | linkedin | record | phone | apollo
    Column("digest", LargeBinary(16), primary_key=True),
    Column("source", String(200), primary_key=True),  # by hand | erased | list:FILE | file:FILE
    Column("added_at", Moment, nullable=False),
    Index("suppressions_by_source", "source"),
    sqlite_with_rowid=False,
)

#: Small facts about this database: how often "suppressions" changed, when it was "purged".
marks = Table(
    "marks",
    metadata,
    Column("name", String(40), primary_key=True),
    Column("number", BigInteger, nullable=False),
    Column("at", Moment, nullable=False),
)

#: One row: this database's name for itself, and how far it has come; the same is noted outside it (store/instance.py).
instance = Table(
    "instance",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("epoch", BigInteger, nullable=False),
    Column("home", String(60), nullable=False),  # PostgreSQL: its server and number there, to tell a copy
    Column("noted_at", Moment),  # up to when it knows all that was bought, at least
    Column("held", Text, nullable=False),  # why nothing may be spent; "" when it may
    Column("why", String(12), nullable=False),  # the same in a word of pipeline/restore.Why
    Column("held_at", Moment),
    Column("released_at", Moment),
    Column("released_by", String(200), nullable=False),
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

#: What is wrong at this moment, by alert (a rule of the configuration in words) and subject (a sync, a budget, a
#: provider): pending (not for long enough to be told) or firing. Gone when it is over.
alert_states = Table(
    "alert_states",
    metadata,
    Column("alert", String(300), primary_key=True),
    Column("subject", String(200), primary_key=True),
    Column("state", String(10), nullable=False),
    Column("since", Moment, nullable=False),
    Column("title", Text, nullable=False),
    Column("what", Text, nullable=False),
    Column("advice", Text, nullable=False),
    sqlite_with_rowid=False,
)

#: What is to be told, to one address each: made in the transaction that changes the state, so that it is made once,
#: however many processes see the change. `address` is a keyed digest: the address itself may hold a password.
alert_notices = Table(
    "alert_notices",
    metadata,
    Column("id", _Serial, primary_key=True, autoincrement=True),
    Column("alert", String(300), nullable=False),
    Column("subject", String(200), nullable=False),
    Column("kind", String(10), nullable=False),  # began | recovered
    Column("address", LargeBinary(16), nullable=False),
    Column("shown", String(200), nullable=False),  # the address as a person may see it
    Column("title", Text, nullable=False),
    Column("body", Text, nullable=False),
    Column("state", String(12), nullable=False),  # waiting | told | superseded | given up
    Column("attempts", Integer, nullable=False),
    Column("error", Text, nullable=False),
    Column("made_at", Moment, nullable=False),
    Column("try_at", Moment, nullable=False),
    Column("ended_at", Moment),
    Index(
        "alert_notices_waiting",
        "try_at",
        sqlite_where=text("state = 'waiting'"),
        postgresql_where=text("state = 'waiting'"),
    ),
    Index("alert_notices_by_alert", "alert", "subject", "address"),
)

#: The long-lived processes at work, each of which notes itself every half minute. `agree`: JSON, each setting that must
#: be the same in all of them -> a keyed digest of its value, in hexadecimal digits.
processes = Table(
    "processes",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("role", String(10), nullable=False),  # serve | worker | web
    Column("host", String(255), nullable=False),
    Column("pid", Integer, nullable=False),
    Column("version", String(60), nullable=False),
    Column("agree", Text, nullable=False),
    Column("began_at", Moment, nullable=False),
    Column("seen_at", Moment, nullable=False),
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
