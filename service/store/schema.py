"""The form of the task store's tables: brought up to date by alembic when a store is opened.

Guarantee: rows stay. Several services that open one database at once wait for each other (the caller holds the lock).
Not here: the tables (`tables`), the revisions (`migrations`).
"""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, inspect

from upon.errors import ConfigError
from upon.logs import get_logger

FIRST = "0001"
"""The form of stores from before revisions were written down."""
log = get_logger(__name__)


def is_current(connection: Connection) -> bool:
    """Return whether the tables have the newest form."""
    return MigrationContext.configure(connection).get_current_revision() == _scripts().get_current_head()


def bring_up_to_date(connection: Connection, to: str = "head") -> None:
    """Make the tables, or change their form to the newest one (or to the revision `to`), within the transaction.

    Raises:
        ConfigError: the store was made by a newer version of Upon.
    """
    scripts = _scripts()
    found = MigrationContext.configure(connection).get_current_revision()
    known = {script.revision for script in scripts.walk_revisions()}
    if found is not None and found not in known:
        raise ConfigError(f"the task store has the form {found}, which a newer Upon made: upgrade this one")
    config = _config()
    config.attributes["connection"] = connection
    if found is None and inspect(connection).has_table("tasks"):
        command.stamp(config, FIRST)
        found = FIRST
    if found is not None and found != scripts.get_current_head():
        log.info("the task store's tables change their form", action="migrate", before=found)
    command.upgrade(config, to)


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).resolve().parent / "migrations"))
    return config


def _scripts() -> ScriptDirectory:
    return ScriptDirectory.from_config(_config())
