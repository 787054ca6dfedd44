"""Alembic's entry: always on the connection Store.migrate hands over, inside its transaction."""

from alembic import context

from crm_sync.store.tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    render_as_batch=True,
    compare_type=False,
)
context.run_migrations()
