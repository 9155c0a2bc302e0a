"""What a database's error means for the projection: whose fault it is. Pure.

    RECORD    the database refuses this record for what it holds; others would go through
    DAMAGED   the file of the store is damaged or gone: nothing will go through until it is made anew
    AWAY      anything else: it does not answer, is full, locked, shutting down. Waiting helps, or somebody who looks

Sources: SQLite result codes (sqlite.org/rescode.html); PostgreSQL error codes (appendix A), of which psycopg makes
an OperationalError also for limits of a single row (class 54).
"""

from __future__ import annotations

import sqlite3
from enum import Enum

from sqlalchemy.exc import DataError, IntegrityError, StatementError

_DAMAGED = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}
_TOO_BIG = sqlite3.SQLITE_TOOBIG
_BUSY = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}
_OF_A_RECORD = ("22", "23", "54")  # data exception, integrity constraint violation, program limit exceeded
_NO_TEXT = "Could not decode to UTF-8"  # what Python's driver says of a text in a row, without a code; we wrote UTF-8
_OF_A_VALUE = (ValueError, OverflowError, TypeError)  # raised while a value is made into a parameter


class StoreDamaged(Exception):
    """The store's file is damaged or gone; it must be made anew from Kafka."""


class Fault(Enum):
    RECORD = "record"
    DAMAGED = "damaged"
    AWAY = "away"


def fault(error: Exception) -> Fault:
    """Return whose fault an error of the database is."""
    if isinstance(error, StoreDamaged):
        return Fault.DAMAGED
    cause = error.orig if isinstance(error, StatementError) else error
    code = _sqlite_code(cause)
    if code in _DAMAGED or isinstance(cause, UnicodeDecodeError) or str(cause).startswith(_NO_TEXT):
        return Fault.DAMAGED
    if isinstance(error, DataError | IntegrityError) or isinstance(cause, _OF_A_VALUE) or code == _TOO_BIG:
        return Fault.RECORD
    state = getattr(cause, "sqlstate", None) or ""
    return Fault.RECORD if state[:2] in _OF_A_RECORD else Fault.AWAY


def is_locked(error: Exception) -> bool:
    """Return whether another process holds SQLite's lock."""
    return _sqlite_code(error.orig if isinstance(error, StatementError) else error) in _BUSY


def _sqlite_code(cause: BaseException | None) -> int | None:
    """Return SQLite's primary result code."""
    code = getattr(cause, "sqlite_errorcode", None)
    return None if code is None else code & 0xFF
