"""Keeping a task of the service alive while Kafka or the database is away; any other end of it ends the service.

A server that does not answer comes back: the task is begun again. What nobody thought of is not papered over: it is
raised, the service ends, and its supervisor starts it again, in a state that is known.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from aiokafka.errors import KafkaError as ClientError
from sqlalchemy.exc import SQLAlchemyError

from upon.errors import KafkaDamaged, UponError
from upon.logs import get_logger

AGAIN_AFTER = 0.5
"""Seconds before a task that failed begins again."""
PASSING = (UponError, ClientError, SQLAlchemyError, OSError)
"""Errors that pass by themselves."""
log = get_logger(__name__)


async def forever(name: str, task: Callable[[], Awaitable[None]]) -> None:
    """Run `task` until cancelled; begin it again when it returns, or Kafka or the database is away.

    Raises:
        KafkaDamaged: a log cannot be read; this does not pass by itself.
    """
    while True:
        try:
            await task()
        except KafkaDamaged:
            raise
        except PASSING as error:
            log.warning("begins again", action="retry", task=name, reason=str(error) or repr(error))
        except BaseExceptionGroup as group:
            rest = group.split(PASSING)[1]
            if damaged := _leaf(group, KafkaDamaged):
                raise damaged from group
            if rest is not None:
                raise
            log.warning("begins again", action="retry", task=name, reason=repr(group.exceptions[0]))
        await asyncio.sleep(AGAIN_AFTER)


def _leaf(group: BaseExceptionGroup[BaseException], kind: type[KafkaDamaged]) -> KafkaDamaged | None:
    """Return the first error of this class in a group: the one with the remedy is what a user shall read."""
    for error in group.exceptions:
        if isinstance(error, kind):
            return error
        if isinstance(error, BaseExceptionGroup) and (found := _leaf(error, kind)):
            return found
    return None
