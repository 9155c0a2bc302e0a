"""The first form: tasks, dead letters, positions."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision, down_revision = "0001", None


def upgrade() -> None:
    op.create_table(
        "tasks",
        sa.Column("id", sa.String, primary_key=True),
        sa.Column("function", sa.String, nullable=False, server_default=""),
        sa.Column("version", sa.BigInteger, nullable=False, server_default="0"),
        sa.Column("site", sa.String, nullable=False, server_default=""),
        sa.Column("status", sa.String, nullable=False),
        sa.Column("principal", sa.String, nullable=False, server_default=""),
        sa.Column("rule", sa.String),
        sa.Column("rule_version", sa.BigInteger),
        sa.Column("event_id", sa.String),
        sa.Column("items", sa.BigInteger, nullable=False, server_default="0"),
        sa.Column("attempts", sa.BigInteger, nullable=False, server_default="0"),
        sa.Column("worker", sa.String, nullable=False, server_default=""),
        sa.Column("submitted", sa.BigInteger, nullable=False, server_default="0"),
        sa.Column("started", sa.BigInteger, nullable=False, server_default="0"),
        sa.Column("finished", sa.BigInteger, nullable=False, server_default="0"),
        sa.Column("stored", sa.BigInteger, nullable=False, server_default="0"),
        sa.Column("accepted", sa.Boolean, nullable=False),
        sa.Column("cause", sa.LargeBinary),
        sa.Column("error", sa.LargeBinary),
        sa.Column("result", sa.LargeBinary),
    )
    unusual, fired = sa.text("status <> 'succeeded'"), sa.text("rule IS NOT NULL")
    op.create_index("tasks_newest", "tasks", ["submitted"])
    op.create_index("tasks_unusual", "tasks", ["submitted"], sqlite_where=unusual, postgresql_where=unusual)
    op.create_index("tasks_of_rule", "tasks", ["rule", "submitted"], sqlite_where=fired, postgresql_where=fired)
    op.create_table(
        "deadletters",
        sa.Column("id", sa.String, primary_key=True),
        sa.Column("at", sa.BigInteger, nullable=False),
        sa.Column("record", sa.LargeBinary, nullable=False),
    )
    op.create_index("deadletters_newest", "deadletters", ["at"])
    op.create_table(
        "positions",
        sa.Column("topic", sa.String, primary_key=True),
        sa.Column("partition", sa.Integer, primary_key=True),
        sa.Column("next", sa.BigInteger, nullable=False),
    )
    op.create_table("projection", sa.Column("form", sa.Integer, nullable=False))
