"""What managers say, in the order in which it is to be taken in: from the router's messages and broken connections to
the state machine's inputs.

Not here: sockets (`upon.dispatcher.router`), what follows from it (`upon.dispatcher.decisions.state`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import suppress
from itertools import chain

from upon.dispatcher import protocol, wire
from upon.dispatcher.decisions.instructions import Heard, ManagerGone
from upon.dispatcher.router import Gone, Router
from upon.dispatcher.tenure import Term
from upon.logs import get_logger

log = get_logger(__name__)


def hear(router: Router, term: Term) -> Iterator[Heard | ManagerGone]:
    """Yield what has come since this was called last.

    The last words of a connection that broke come before the news that it did. The first word of a new connection
    is Ready, and comes after it: else the manager would be gone as soon as it is back, with all that it holds.

    Who does not bear this dispatcher's epoch yet is told of it, and reports anew: what it said that it holds may have
    changed under the dispatcher before, until it turned away from it. Outcomes count at once.
    """
    broken = dict.fromkeys(router.broken())
    for said in router.receive():
        if isinstance(said, Gone):
            yield _broke(said.manager)
            continue
        manager, frames = said
        try:
            message = wire.from_manager(frames)
        except wire.ProtocolError as error:
            log.warning(f"manager {manager} was rejected: {error}", action="reject", manager=manager)
            router.send(manager, wire.pack(protocol.Reject(str(error)), term.epoch))
            continue
        if manager in broken and isinstance(message, protocol.Ready):
            del broken[manager]
            yield _broke(manager)
        ours = wire.epoch_of(frames) == term.epoch
        if not ours and not isinstance(message, protocol.Bye):
            router.send(manager, wire.pack(protocol.Beat(False, term.session), term.epoch))
        if ours or isinstance(message, protocol.Results):
            yield Heard(manager, message)
    yield from map(_broke, broken)
    for manager in router.locked_out():
        why = protocol.Reject("its key was removed from the dispatcher's managers")
        router.send(manager, wire.pack(why, term.epoch))
        yield ManagerGone(manager, "was locked out: its key was removed")


async def turn_away(router: Router, wake: asyncio.Event) -> None:
    """Let managers connect and say what they like, and answer nothing: another dispatcher is the active one."""
    while True:
        for _ in chain(router.broken(), router.receive(), router.locked_out()):
            pass
        await _more(router, wake)


async def win_over(router: Router, wake: asyncio.Event, term: Term) -> list[Heard | ManagerGone]:
    """Have managers turn to this dispatcher, for `HEARD_WITHIN` s; return what they said meanwhile.

    Who has turned takes nothing from the dispatcher before, not even that an outcome is stored. So the results that are
    in Kafka after this, and what managers have said, are together all that was done.
    """
    said: list[Heard | ManagerGone] = []
    with suppress(TimeoutError):
        async with asyncio.timeout(protocol.HEARD_WITHIN):
            while True:
                said += hear(router, term)
                await _more(router, wake)
    return said


async def _more(router: Router, wake: asyncio.Event) -> None:
    """Wait until there may be something to hear."""
    if router.pending():
        await asyncio.sleep(0)
    else:
        await wake.wait()
        wake.clear()


def _broke(manager: str) -> ManagerGone:
    return ManagerGone(manager, "its connection broke")
