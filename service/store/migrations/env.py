"""What alembic runs: the revisions, on the connection that `upon.service.store.schema` gives it."""

from __future__ import annotations

from alembic import context

from upon.service.store.tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    render_as_batch=True,
    compare_type=True,
)
context.run_migrations()
