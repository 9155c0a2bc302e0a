"""Tasks that are tried again, and where their invocations are; dead letters by what they are about, and resolved."""

from __future__ import annotations

from typing import Any

import msgspec
import sqlalchemy as sa
from alembic import op

revision, down_revision = "0002", "0001"

_LATER: list[Any] = [
    ("generation", sa.BigInteger, False, "0"),
    ("group", sa.String, False, ""),
    ("subject", sa.String, True, None),
    ("partition", sa.BigInteger, False, "-1"),
    ("record_offset", sa.BigInteger, False, "-1"),
]
_ABOUT = ("origin", "part", "reason", "rule", "action", "event_id", "function", "site")


def upgrade() -> None:
    for name, kind, nullable, default in _LATER:
        op.add_column("tasks", sa.Column(name, kind, nullable=nullable, server_default=default))
    op.execute("ALTER TABLE tasks RENAME COLUMN rule_version TO rule_revision")
    _name_revisions()
    unusual, fired = sa.text("status <> 'succeeded'"), sa.text("rule IS NOT NULL")
    for index in ("tasks_newest", "tasks_unusual", "tasks_of_rule"):
        op.drop_index(index, "tasks")
    op.create_index("tasks_newest", "tasks", ["submitted", "id"])
    listed = ["status", "submitted", "id"]
    op.create_index("tasks_unusual", "tasks", listed, sqlite_where=unusual, postgresql_where=unusual)
    op.create_index("tasks_of_rule", "tasks", ["rule", "submitted", "id"], sqlite_where=fired, postgresql_where=fired)
    _generations()
    for name in _ABOUT:
        op.add_column("deadletters", sa.Column(name, sa.String, nullable=False, server_default=""))
    op.add_column("deadletters", sa.Column("status", sa.String, nullable=False, server_default="open"))
    op.add_column("deadletters", sa.Column("resolved", sa.BigInteger, nullable=False, server_default="0"))
    op.add_column("deadletters", sa.Column("resolved_by", sa.String, nullable=False, server_default=""))
    op.add_column("deadletters", sa.Column("size", sa.BigInteger, nullable=False, server_default="0"))
    op.drop_index("deadletters_newest", "deadletters")
    op.create_index("deadletters_newest", "deadletters", ["at", "id"])
    _fill_deadletters()
    op.drop_table("projection")


def _name_revisions() -> None:
    """What fired a task names a revision of a rule now, no version: in its cause, and in its result."""
    tasks = sa.table("tasks", sa.column("id"), sa.column("cause"), sa.column("result"))
    connection = op.get_bind()
    ids = connection.execute(sa.select(tasks.c.id).where(tasks.c.cause.is_not(None))).scalars().all()
    for id in ids:  # one at a time: a result may have 16 MB
        cause, result = connection.execute(sa.select(tasks.c.cause, tasks.c.result).where(tasks.c.id == id)).one()
        values = {"cause": _renamed(cause), "result": result}
        if result is not None:
            found = msgspec.msgpack.decode(result)
            if isinstance(found.get("cause"), dict):
                found["cause"] = msgspec.msgpack.decode(_renamed(msgspec.msgpack.encode(found["cause"])))
            values["result"] = msgspec.msgpack.encode(found)
        connection.execute(tasks.update().where(tasks.c.id == id).values(**values))


def _renamed(cause: bytes) -> bytes:
    found = msgspec.msgpack.decode(cause)
    if "rule_version" in found:
        found["rule_revision"] = found.pop("rule_version")
    return msgspec.msgpack.encode(found)


def _generations() -> None:
    op.create_table(
        "generations",
        sa.Column("id", sa.String, primary_key=True),
        sa.Column("generation", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("function", sa.String, nullable=False, server_default=""),
        sa.Column("version", sa.BigInteger, nullable=False, server_default="0"),
        sa.Column("site", sa.String, nullable=False, server_default=""),
        sa.Column("status", sa.String, nullable=False),
        sa.Column("principal", sa.String, nullable=False, server_default=""),
        sa.Column("group", sa.String, nullable=False, server_default=""),
        sa.Column("rule", sa.String),
        sa.Column("rule_revision", sa.BigInteger),
        sa.Column("event_id", sa.String),
        sa.Column("subject", sa.String),
        sa.Column("items", sa.BigInteger, nullable=False, server_default="0"),
        sa.Column("attempts", sa.BigInteger, nullable=False, server_default="0"),
        sa.Column("worker", sa.String, nullable=False, server_default=""),
        sa.Column("submitted", sa.BigInteger, nullable=False, server_default="0"),
        sa.Column("started", sa.BigInteger, nullable=False, server_default="0"),
        sa.Column("finished", sa.BigInteger, nullable=False, server_default="0"),
        sa.Column("stored", sa.BigInteger, nullable=False, server_default="0"),
        sa.Column("accepted", sa.Boolean, nullable=False),
        sa.Column("partition", sa.BigInteger, nullable=False, server_default="-1"),
        sa.Column("record_offset", sa.BigInteger, nullable=False, server_default="-1"),
        sa.Column("cause", sa.LargeBinary),
        sa.Column("error", sa.LargeBinary),
        sa.Column("result", sa.LargeBinary),
    )


def _fill_deadletters() -> None:
    """Letters were untagged; what they are about stands in the record alone."""
    letters = sa.table("deadletters", sa.column("id"), sa.column("record"), sa.column("size"),
                       *(sa.column(name) for name in _ABOUT))  # fmt: skip
    connection = op.get_bind()
    for id, record in connection.execute(sa.select(letters.c.id, letters.c.record)).all():
        found = msgspec.msgpack.decode(record)
        found.setdefault("type", "letter")
        about = {name: str(found.get(name, ""))[:4000].replace("\x00", "\\x00") for name in _ABOUT}
        values = {**about, "record": msgspec.msgpack.encode(found), "size": len(found.get("value", b""))}
        connection.execute(letters.update().where(letters.c.id == id).values(**values))
