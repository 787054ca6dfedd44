"""A run that several workers share: their shares, and the records of it that are still to be done."""

import sqlalchemy as sa
from alembic import op

from crm_sync.store.tables import Moment

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    of_run = sa.text("0")
    for table in ("batches", "write_jobs"):
        op.add_column(table, sa.Column("share", sa.Integer(), nullable=False, server_default=of_run))
    if op.get_bind().dialect.name == "postgresql":
        op.add_column("run_records", sa.Column("share", sa.Integer(), nullable=False, server_default=of_run))
        op.drop_constraint("run_records_pkey", "run_records", type_="primary")
        op.create_primary_key("run_records_pkey", "run_records", ["run_id", "object_type", "record_id", "share"])
    else:
        _copy_run_records()
    op.create_table(
        "shares",
        sa.Column("run_id", sa.String(length=32), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("state", sa.String(length=10), nullable=False),
        sa.Column("owner", sa.String(length=200), nullable=False),
        sa.Column("alive_at", Moment(), nullable=False),
        sa.Column("tally", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["run_id"], ["runs.id"]),
        sa.PrimaryKeyConstraint("run_id", "number"),
        sqlite_with_rowid=False,
    )
    is_working = sa.text("state = 'working'")
    op.create_index("shares_working", "shares", ["run_id"], sqlite_where=is_working, postgresql_where=is_working)
    op.create_table(
        "chunks",
        sa.Column("run_id", sa.String(length=32), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("records", sa.LargeBinary(), nullable=False),
        sa.Column("share", sa.Integer(), nullable=True),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("try_at", Moment(), nullable=False),
        sa.ForeignKeyConstraint(["run_id"], ["runs.id"]),
        sa.PrimaryKeyConstraint("run_id", "number"),
        sqlite_with_rowid=False,
    )
    is_open = sa.text("share is null")
    op.create_index("chunks_open", "chunks", ["run_id", "number"], sqlite_where=is_open, postgresql_where=is_open)


def _copy_run_records() -> None:
    """SQLite cannot change a primary key."""
    op.rename_table("run_records", "run_records_before")
    op.create_table(
        "run_records",
        sa.Column("run_id", sa.String(length=32), nullable=False),
        sa.Column("object_type", sa.String(length=100), nullable=False),
        sa.Column("record_id", sa.String(length=64), nullable=False),
        sa.Column("share", sa.Integer(), nullable=False, server_default=sa.text("0")),
        sa.Column("outcome", sa.String(length=20), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("decisions", sa.LargeBinary(), nullable=True),
        sa.Column("batch_id", sa.BigInteger(), nullable=True),
        sa.Column("identity", sa.LargeBinary(length=16), nullable=True),
        sa.Column("at", Moment(), nullable=False),
        sa.ForeignKeyConstraint(["run_id"], ["runs.id"]),
        sa.PrimaryKeyConstraint("run_id", "object_type", "record_id", "share"),
    )
    columns = "run_id, object_type, record_id, outcome, reason, decisions, batch_id, identity, at"
    op.execute(f"insert into run_records ({columns}) select {columns} from run_records_before")  # noqa: S608 - no input
    op.drop_table("run_records_before")
    op.create_index("run_records_by_record", "run_records", ["object_type", "record_id"], unique=False)
