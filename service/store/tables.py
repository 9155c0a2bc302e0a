"""The tables of the task store: a projection of Kafka, and how far it has come.

    tasks         one row per task: what the service lists; the result itself as the record had it
    generations   of tasks that were tried again (`upon tasks retry`): one row per generation, the newest included
    deadletters   one row per dead letter, the record whole, and whether somebody dealt with it
    positions     (topic, partition) → the next offset to take in; written with the rows, in one transaction

Times are nanoseconds since the epoch, 0 = not yet. Only what is listed or filtered by is a column of its own:
a result's payload may have 16 MB, and each index costs as much as the row.

A change here needs a revision in `migrations`.
"""

from __future__ import annotations

from typing import Any

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

metadata = MetaData()


def _task_columns() -> list[Column[Any]]:
    return [
        Column("function", String, nullable=False, server_default=""),
        Column("version", BigInteger, nullable=False, server_default="0"),
        Column("site", String, nullable=False, server_default=""),
        Column("status", String, nullable=False),
        Column("principal", String, nullable=False, server_default=""),
        Column("group", String, nullable=False, server_default=""),  # who waits for the result: an Executor
        Column("rule", String),
        Column("rule_revision", BigInteger),
        Column("event_id", String),
        Column("subject", String),  # the event's
        Column("items", BigInteger, nullable=False, server_default="0"),
        Column("attempts", BigInteger, nullable=False, server_default="0"),
        Column("worker", String, nullable=False, server_default=""),
        Column("submitted", BigInteger, nullable=False, server_default="0"),
        Column("started", BigInteger, nullable=False, server_default="0"),
        Column("finished", BigInteger, nullable=False, server_default="0"),
        Column("stored", BigInteger, nullable=False, server_default="0"),  # when the result came into this table
        Column("accepted", Boolean, nullable=False),  # its invocation was seen (a result can come first)
        Column("partition", BigInteger, nullable=False, server_default="-1"),  # where its invocation is in Kafka, to be
        Column("record_offset", BigInteger, nullable=False, server_default="-1"),  # sent again; -1 = not seen
        Column("cause", LargeBinary),  # messages.Cause
        Column("error", LargeBinary),  # api.TaskError, MessagePack
        Column("result", LargeBinary),  # messages.Result
    ]


tasks = Table(
    "tasks",
    metadata,
    Column("id", String, primary_key=True),
    Column("generation", BigInteger, nullable=False, server_default="0"),  # how often it was tried again by hand
    *_task_columns(),
)

_unusual, _fired = text("status <> 'succeeded'"), text("rule IS NOT NULL")
Index("tasks_newest", tasks.c.submitted, tasks.c.id)
Index("tasks_unusual", tasks.c.status, tasks.c.submitted, tasks.c.id, sqlite_where=_unusual, postgresql_where=_unusual)
Index("tasks_of_rule", tasks.c.rule, tasks.c.submitted, tasks.c.id, sqlite_where=_fired, postgresql_where=_fired)

generations = Table(
    "generations",
    metadata,
    Column("id", String, primary_key=True),
    Column("generation", BigInteger, primary_key=True, autoincrement=False),
    *_task_columns(),
)

deadletters = Table(
    "deadletters",
    metadata,
    Column("id", String, primary_key=True),
    Column("at", BigInteger, nullable=False),
    Column("record", LargeBinary, nullable=False),  # messages.DeadLetter
    *(
        Column(name, String, nullable=False, server_default="")
        for name in ("origin", "part", "reason", "rule", "action", "event_id", "function", "site")
    ),
    Column("status", String, nullable=False, server_default="open"),  # open, retried, dropped
    Column("resolved", BigInteger, nullable=False, server_default="0"),
    Column("resolved_by", String, nullable=False, server_default=""),
    Column("size", BigInteger, nullable=False, server_default="0"),  # bytes of the record that could not be processed
)

Index("deadletters_newest", deadletters.c.at, deadletters.c.id)

positions = Table(
    "positions",
    metadata,
    Column("topic", String, primary_key=True),
    Column("partition", Integer, primary_key=True),
    Column("next", BigInteger, nullable=False),
)
