"""Alerts: what is wrong, and who is still to be told of it; indexes for what is looked at all the time."""

import sqlalchemy as sa
from alembic import op

from crm_sync.store.tables import Moment

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_index("runs_by_sync", "runs", ["sync", "started_at"], unique=False)
    op.create_index("runs_by_status", "runs", ["sync", "kind", "status"], unique=False)
    is_open = sa.text("state = 'open'")
    op.create_index("reviews_open", "reviews", ["id"], unique=False, sqlite_where=is_open, postgresql_where=is_open)
    awaited = sa.text("state IN ('due', 'waiting')")
    op.create_index(
        "phone_waits_open",
        "phone_waits",
        ["sync", "asked_at"],
        unique=False,
        sqlite_where=awaited,
        postgresql_where=awaited,
    )
    op.create_table(
        "alert_states",
        sa.Column("alert", sa.String(length=300), nullable=False),
        sa.Column("subject", sa.String(length=200), nullable=False),
        sa.Column("state", sa.String(length=10), nullable=False),
        sa.Column("since", Moment(), nullable=False),
        sa.Column("title", sa.Text(), nullable=False),
        sa.Column("what", sa.Text(), nullable=False),
        sa.Column("advice", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("alert", "subject"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "alert_notices",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("alert", sa.String(length=300), nullable=False),
        sa.Column("subject", sa.String(length=200), nullable=False),
        sa.Column("kind", sa.String(length=10), nullable=False),
        sa.Column("address", sa.LargeBinary(length=16), nullable=False),
        sa.Column("shown", sa.String(length=200), nullable=False),
        sa.Column("title", sa.Text(), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.Column("state", sa.String(length=12), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("error", sa.Text(), nullable=False),
        sa.Column("made_at", Moment(), nullable=False),
        sa.Column("try_at", Moment(), nullable=False),
        sa.Column("ended_at", Moment(), nullable=True),
        sa.PrimaryKeyConstraint("id"),
    )
    waiting = sa.text("state = 'waiting'")
    op.create_index(
        "alert_notices_waiting",
        "alert_notices",
        ["try_at"],
        unique=False,
        sqlite_where=waiting,
        postgresql_where=waiting,
    )
    op.create_index("alert_notices_by_alert", "alert_notices", ["alert", "subject", "address"], unique=False)
