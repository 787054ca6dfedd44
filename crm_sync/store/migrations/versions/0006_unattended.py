"""Runs that wait for a worker, and the schedules that queue them."""

import sqlalchemy as sa
from alembic import op

from crm_sync.store.tables import Moment

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("runs", sa.Column("queued_at", Moment(), nullable=True))
    op.add_column("runs", sa.Column("slot", Moment(), nullable=True))
    op.add_column("runs", sa.Column("continues", sa.String(length=32), nullable=True))
    op.add_column("runs", sa.Column("asked", sa.Text(), nullable=True))
    op.create_index("runs_by_slot", "runs", ["sync", "slot"], unique=True)
    op.create_index("runs_by_continued", "runs", ["continues"], unique=True)
    queued = sa.text("status = 'Queued'")
    op.create_index("runs_queued", "runs", ["queued_at"], sqlite_where=queued, postgresql_where=queued)
    # Two processes of the version before could begin the same sync at the same moment; of those left running all but
    # the newest are closed as what they are: broken off.
    op.execute(
        "update runs set status = 'Failed', reason = 'its process ended before the run did', finished_at = alive_at "
        "where status = 'Running' and kind <> 'phones' and exists (select 1 from runs as newer where "
        "newer.sync = runs.sync and newer.status = 'Running' and newer.kind <> 'phones' and "
        "(newer.started_at, newer.id) > (runs.started_at, runs.id))"
    )
    running = sa.text("status = 'Running' and kind <> 'phones'")
    op.create_index("runs_one_at_a_time", "runs", ["sync"], unique=True, sqlite_where=running, postgresql_where=running)
    op.create_table(
        "schedules",
        sa.Column("sync", sa.String(length=200), nullable=False),
        sa.Column("seen", sa.Text(), nullable=False),
        sa.Column("since", Moment(), nullable=False),
        sa.Column("last_slot", Moment(), nullable=True),
        sa.Column("paused_at", Moment(), nullable=True),
        sa.Column("paused_by", sa.String(length=200), nullable=False),
        sa.PrimaryKeyConstraint("sync"),
    )
