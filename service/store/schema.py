"""The form of the task store's tables: made new, or brought up to date by alembic when an older store is opened.

Guarantee: rows stay. Several services that open one database at once wait for each other (the caller holds the lock).
alembic is imported for an older store alone: it is a fifth of what a service takes to start.
Not here: the tables (`tables`), the revisions (`migrations`).
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import Column, Connection, MetaData, String, Table, insert, inspect, select

from upon.errors import ConfigError
from upon.logs import get_logger
from upon.service.store.tables import metadata

if TYPE_CHECKING:
    from alembic.config import Config

FIRST = "0001"
"""The form of stores from before revisions were written down."""
NEWEST = "0002"
"""The form that `tables` describes."""
log = get_logger(__name__)

_written = Table("alembic_version", MetaData(), Column("version_num", String(32), primary_key=True))


def is_current(connection: Connection) -> bool:
    """Return whether the tables have the newest form."""
    return _form(connection) == NEWEST


def bring_up_to_date(connection: Connection, to: str = NEWEST) -> None:
    """Make the tables, or change their form to the newest one (or to the revision `to`), within the transaction.

    Raises:
        ConfigError: the store was made by a newer version of Upon.
    """
    found = _form(connection)
    if found is None and to == NEWEST and not inspect(connection).has_table("tasks"):
        metadata.create_all(connection)
        _written.create(connection, checkfirst=True)
        connection.execute(insert(_written).values(version_num=NEWEST))
    elif found != to:
        _change(connection, found, to)


def _form(connection: Connection) -> str | None:
    """Return the form that a store says it has, None if it says nothing."""
    if not inspect(connection).has_table(_written.name):
        return None
    return connection.execute(select(_written.c.version_num)).scalar_one_or_none()


def _change(connection: Connection, found: str | None, to: str) -> None:
    from alembic import command
    from alembic.script import ScriptDirectory

    config = _config()
    known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
    if found is not None and found not in known:
        raise ConfigError(f"the task store has the form {found}, which a newer Upon made: upgrade this one")
    config.attributes["connection"] = connection
    if found is None and inspect(connection).has_table("tasks"):
        command.stamp(config, FIRST)
        found = FIRST
    if found is not None and found != to:
        log.info("the task store's tables change their form", action="migrate", before=found)
    command.upgrade(config, to)


def _config() -> Config:
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).resolve().parent / "migrations"))
    return config
