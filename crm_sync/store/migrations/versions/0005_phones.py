"""Phone reveals: what was ordered and what it cost, whose number is awaited, and by what a delivery is believed.

The two tables of 0004 are made anew: nothing ordered a reveal before this version, so nobody could have a token, and
they are empty.
"""

import sqlalchemy as sa
from alembic import op

from crm_sync.store.tables import Credits, Moment

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.drop_table("deliveries")
    op.drop_table("reveal_orders")
    serial = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
    op.create_table(
        "reveal_orders",
        sa.Column("id", sa.String(length=32), nullable=False),
        sa.Column("state", sa.String(length=12), nullable=False),
        sa.Column("created_at", Moment(), nullable=False),
        sa.Column("deliveries", sa.Integer(), nullable=False),
        sa.Column("received_bytes", sa.BigInteger(), nullable=False),
        sa.Column("poll_needed", sa.Integer(), nullable=False),
        sa.Column("batch_id", sa.BigInteger(), nullable=True),
        sa.Column("sync", sa.String(length=200), nullable=False),
        sa.Column("run_id", sa.String(length=32), nullable=False),
        sa.Column("request_id", sa.String(length=40), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("to_come", Credits(), nullable=False),
        sa.Column("billed", Credits(), nullable=True),
        sa.Column("polls", sa.Integer(), nullable=False),
        sa.Column("next_poll_at", Moment(), nullable=True),
        sa.Column("gives_up_at", Moment(), nullable=False),
        sa.ForeignKeyConstraint(["batch_id"], ["batches.id"]),
        sa.PrimaryKeyConstraint("id"),
        sqlite_with_rowid=False,
    )
    op.create_index("reveal_orders_by_batch", "reveal_orders", ["batch_id"], unique=False)
    op.create_index("reveal_orders_by_poll", "reveal_orders", ["next_poll_at"], unique=False)
    skipped = sa.text("state = 'skipped'")
    op.create_index(
        "reveal_orders_skipped", "reveal_orders", ["id"], unique=False, sqlite_where=skipped, postgresql_where=skipped
    )
    op.create_table(
        "deliveries",
        sa.Column("id", serial, autoincrement=True, nullable=False),
        sa.Column("order_id", sa.String(length=32), nullable=False),
        sa.Column("digest", sa.LargeBinary(length=32), nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.Column("size", sa.Integer(), nullable=False),
        sa.Column("state", sa.String(length=12), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("received_at", Moment(), nullable=False),
        sa.Column("times", sa.Integer(), nullable=False),
        sa.Column("source", sa.String(length=10), nullable=False),
        sa.Column("belief", sa.String(length=10), nullable=False),
        sa.Column("try_at", Moment(), nullable=True),
        sa.Column("ended_at", Moment(), nullable=True),
        sa.ForeignKeyConstraint(["order_id"], ["reveal_orders.id"]),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("deliveries_once", "deliveries", ["order_id", "digest"], unique=True)
    op.create_index("deliveries_by_state", "deliveries", ["state", "id"], unique=False)
    op.create_table(
        "phone_waits",
        sa.Column("id", serial, autoincrement=True, nullable=False),
        sa.Column("crm", sa.String(length=200), nullable=False),
        sa.Column("object_type", sa.String(length=100), nullable=False),
        sa.Column("record_id", sa.String(length=64), nullable=False),
        sa.Column("sync", sa.String(length=200), nullable=False),
        sa.Column("run_id", sa.String(length=32), nullable=False),
        sa.Column("person", sa.LargeBinary(length=16), nullable=False),
        sa.Column("identity", sa.LargeBinary(length=16), nullable=False),
        sa.Column("batch_id", sa.BigInteger(), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("order_id", sa.String(length=32), nullable=True),
        sa.Column("state", sa.String(length=12), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("asked_at", Moment(), nullable=False),
        sa.Column("settled_at", Moment(), nullable=True),
        sa.Column("settled_run", sa.String(length=32), nullable=False),
        sa.Column("delivery_id", sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(["run_id"], ["runs.id"]),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("phone_waits_by_record", "phone_waits", ["record_id", "object_type", "crm", "sync"], unique=True)
    op.create_index("phone_waits_by_person", "phone_waits", ["person"], unique=False)
    op.create_index("phone_waits_by_order", "phone_waits", ["order_id"], unique=False)
    op.create_index("phone_waits_by_run", "phone_waits", ["run_id", "state"], unique=False)
