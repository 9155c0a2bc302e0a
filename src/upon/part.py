"""The life cycle of a part: a process that a supervisor, a container engine or a person starts and stops.

    starting ──ready()──▶ ready ──SIGTERM / SIGINT──▶ stopping ──▶ exit 0
        └────────────────────┴────── exception ──────▶ logged, exit 1     (a UponError: exit 2, one line;
                                                                        KafkaDamaged, which does not pass: exit 3;
                                                                        AddressTaken: exit 4)

A part's `main(part, settings)` calls `part.ready(...)` once it can do its work and returns soon after
`part.stopping` is set. The supervisor learns of readiness through the file descriptor in UPON_READY_FD:
one JSON line with what the part wants known. Not here: restarts (the supervisor's) and daemonizing.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import signal
import socket
from collections.abc import Awaitable, Callable
from typing import Any

from upon.config import Settings
from upon.errors import AddressTaken, KafkaDamaged, KafkaUnavailable, UponError
from upon.kafka.answers import answers
from upon.logs import configure, get_logger
from upon.machine import refusal

READY_FD = "UPON_READY_FD"
SUPERVISOR = "UPON_SUPERVISOR"
"""The environment variable in which a part has its supervisor: process id and start time."""
CLIENT_MARK = "@"
"""Stands in a Kafka client id before the system that the client belongs to: HOST/PID:START of its supervisor."""
KAFKA_PATIENCE = 120.0
"""Seconds that a part waits for the broker at its start."""
YOUNG_OBJECTS = 20_000
"""How many new objects the garbage collector lets come before it looks at them."""
log = get_logger(__name__)


class Part:
    """What a running part has of its own process.

    Attributes:
        name: such as ``dispatcher``.
        stopping: set when the part shall stop.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.stopping = asyncio.Event()

    def ready(self, **info: Any) -> None:
        """Tell the supervisor, if there is one, that the part does its work; `info` must be JSON."""
        _collect_seldom()
        log.info("ready", action="ready", pid=os.getpid(), **info)
        descriptor = os.environ.pop(READY_FD, None)
        if descriptor is None:
            return
        with os.fdopen(int(descriptor), "w") as pipe:
            pipe.write(json.dumps({"part": self.name, "pid": os.getpid(), **info}) + "\n")


def _collect_seldom() -> None:
    """Have the garbage collector leave alone what is there now, and look at new objects in larger lots.

    A part under load makes and drops thousands of objects at a time, none of them in a cycle; with Python's own
    thresholds looking at them takes a third of its time.
    """
    gc.freeze()
    gc.set_threshold(YOUNG_OBJECTS, 20, 20)


def client_id(name: str) -> str:
    """Return how a part calls itself to Kafka: its name, and its system if `upon up` runs it."""
    supervisor = os.environ.get(SUPERVISOR)
    return f"{name}{CLIENT_MARK}{socket.gethostname()}/{supervisor}" if supervisor else name


Main = Callable[[Part, Settings], Awaitable[None]]


def run_part(name: str, settings: Settings, main: Main, *, needs_kafka: bool = True) -> int:
    """Run a part until it is told to stop; return its exit code.

    0 stopped, 1 bug, 2 a UponError, 3 one that does not pass by itself, 4 another program has its address.

    Args:
        name: on every line of its log.
        settings: handed to `main`.
        main: the part itself; its imports are done by now, so they overlap with Kafka's start.
        needs_kafka: wait for the broker before `main` begins.
    """
    configure(name, settings.log_level)
    try:
        asyncio.run(_run(name, settings, main, needs_kafka))
    except UponError as error:
        log.error(str(error), action="stop", error=type(error).__name__)
        return 3 if isinstance(error, KafkaDamaged) else 4 if isinstance(error, AddressTaken) else 2
    except Exception as error:
        if said := refusal(error):
            log.error(said, action="stop", error=type(error).__name__)
            return 1
        log.exception("stopped by an unexpected error", action="stop")
        return 1
    return 0


async def _run(name: str, settings: Settings, main: Main, needs_kafka: bool) -> None:
    part = Part(name)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, part.stopping.set)
    if needs_kafka and not await _kafka_answers(part, settings.need_kafka()):
        return
    await main(part, settings)
    log.info("stopped", action="stop")


async def _kafka_answers(part: Part, kafka: str) -> bool:
    """Wait for the broker; return False if the part is told to stop before.

    Raises:
        KafkaUnavailable: it does not answer within `KAFKA_PATIENCE`.
    """
    answering = asyncio.create_task(answers(kafka, KAFKA_PATIENCE))
    stopping = asyncio.create_task(part.stopping.wait())
    await asyncio.wait({answering, stopping}, return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    if not answering.done():
        answering.cancel()
        return False
    if not answering.result():
        raise KafkaUnavailable(f"no Kafka answers at {kafka} after {KAFKA_PATIENCE:.0f} s; `upon doctor` looks into it")
    return True
