"""The tables of the task store: a projection of Kafka, and how far it has come.

    tasks         one row per invocation: what the service lists; the result itself as the record had it
    deadletters   one row per dead letter, the record whole
    positions     (topic, partition) → the next offset to take in; written with the rows, in one transaction
    projection    the form of these tables; another form than `FORM` is dropped and built again from Kafka

Times are nanoseconds since the epoch, 0 = not yet. Only what is listed or filtered by is a column of its own:
a result's payload may have 16 MB, and each index costs as much as the row.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    text,
)

FORM = 2
"""Raise it when a table changes: the store is then built again from Kafka, as far back as its topics reach."""

metadata = MetaData()

tasks = Table(
    "tasks",
    metadata,
    Column("id", String, primary_key=True),
    Column("function", String, nullable=False, server_default=""),
    Column("version", BigInteger, nullable=False, server_default="0"),
    Column("site", String, nullable=False, server_default=""),
    Column("status", String, nullable=False),
    Column("principal", String, nullable=False, server_default=""),
    Column("rule", String),
    Column("rule_revision", BigInteger),
    Column("event_id", String),
    Column("items", BigInteger, nullable=False, server_default="0"),
    Column("attempts", BigInteger, nullable=False, server_default="0"),
    Column("worker", String, nullable=False, server_default=""),
    Column("submitted", BigInteger, nullable=False, server_default="0"),
    Column("started", BigInteger, nullable=False, server_default="0"),
    Column("finished", BigInteger, nullable=False, server_default="0"),
    Column("stored", BigInteger, nullable=False, server_default="0"),  # when the result came into this table
    Column("accepted", Boolean, nullable=False),  # its invocation was seen (a result can come first)
    Column("cause", LargeBinary),  # messages.Cause
    Column("error", LargeBinary),  # api.TaskError, MessagePack
    Column("result", LargeBinary),  # messages.Result
)

Index("tasks_newest", tasks.c.submitted)
Index("tasks_unusual", tasks.c.submitted, sqlite_where=text("status <> 'succeeded'"),
      postgresql_where=text("status <> 'succeeded'"))  # fmt: skip
Index("tasks_of_rule", tasks.c.rule, tasks.c.submitted, sqlite_where=text("rule IS NOT NULL"),
      postgresql_where=text("rule IS NOT NULL"))  # fmt: skip

deadletters = Table(
    "deadletters",
    metadata,
    Column("id", String, primary_key=True),
    Column("at", BigInteger, nullable=False),
    Column("record", LargeBinary, nullable=False),  # messages.DeadLetter
)

Index("deadletters_newest", deadletters.c.at)

positions = Table(
    "positions",
    metadata,
    Column("topic", String, primary_key=True),
    Column("partition", Integer, primary_key=True),
    Column("next", BigInteger, nullable=False),
)

projection = Table("projection", metadata, Column("form", Integer, nullable=False))
