"""Structured logging for every part: one JSON object per line on stderr, or coloured text on a terminal.

Each line says in `event` what happened, in a sentence; in `action` which step it was; and carries the ids.
Normal operation logs nothing at warning level. What a library repeats (each client of a broker that is away does,
many times a second) is let through once in a while.
"""

from __future__ import annotations

import contextlib
import logging
import sys
import time
from typing import Any, TextIO, cast

import structlog

_tracebacks = structlog.processors.ExceptionRenderer(
    # A frame's local variables hold tokens and payloads: they are not for a log.
    structlog.tracebacks.ExceptionDictTransformer(show_locals=False)
)

REPEAT_AFTER = 10.0
"""Seconds before a library's message is logged again."""


class _Repeats(logging.Filter):
    """Lets a message through that this place in the code has not logged for `REPEAT_AFTER`."""

    def __init__(self) -> None:
        super().__init__()
        self._last: dict[tuple[str, int], float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        place, now = (record.pathname, record.lineno), time.monotonic()
        if now - self._last.get(place, -REPEAT_AFTER) < REPEAT_AFTER:
            return False
        self._last[place] = now
        return True


class _Unfailing:
    """A stream that drops what it cannot write: a log on a full disk must not end what it tells of."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        with contextlib.suppress(OSError):
            return self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError):
            self._stream.flush()


class _Stderr:
    """Standard error for who must not end because nobody hears any more, or because a disk is full."""

    def write(self, text: str) -> int:
        with contextlib.suppress(OSError):
            sys.stderr.write(text)
        return len(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError):
            sys.stderr.flush()


def configure(part: str, level: str = "info") -> None:
    """Send this process's logs, and those of the libraries it uses, to stderr.

    Args:
        part: name of the part, on every line.
        level: least level: debug, info, warning or error. Libraries log from warning on.
    """
    least = getattr(logging, level.upper())
    terminal = sys.stderr.isatty()
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    render: list[Any] = (
        [structlog.dev.ConsoleRenderer()] if terminal else [_tracebacks, structlog.processors.JSONRenderer(default=str)]
    )
    structlog.configure(
        processors=[*shared, *render],
        wrapper_class=structlog.make_filtering_bound_logger(least),
        logger_factory=structlog.PrintLoggerFactory(cast(TextIO, _Unfailing(sys.stderr))),
        cache_logger_on_first_use=True,
    )
    structlog.contextvars.bind_contextvars(part=part)
    handler = logging.StreamHandler(_Stderr())
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *render],
            foreign_pre_chain=[*shared, structlog.stdlib.add_logger_name],
        )
    )
    handler.addFilter(_Repeats())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(max(least, logging.WARNING))


def get_logger(name: str) -> structlog.typing.FilteringBoundLogger:
    """Return the logger of a module; call with its `__name__`."""
    return cast(structlog.typing.FilteringBoundLogger, structlog.get_logger(module=name))
