"""The service: REST and WebSocket in front of Kafka, and the task store beside it.

    start   topics ─▶ producer, store ─▶ registry caught up, projection and push running ─▶ listen ─▶ ready
    stop    close the door ─▶ what was accepted is in Kafka ─▶ sockets closed ─▶ store closed      (< 3 s)

Guarantees: a submit or an event is answered when Kafka has it (acks=all); a result is pushed without waiting for
the database; the store is a projection of Kafka, so it can be lost. Run as `upon part service`.
"""

from __future__ import annotations

import asyncio
import errno
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from aiohttp import web

from upon.config import Settings
from upon.errors import AddressTaken, ConfigError
from upon.kafka.admin import ensure_topics
from upon.kafka.clients import async_consumer
from upon.kafka.ends import Ends
from upon.kafka.outbox import Outbox
from upon.kafka.places import Places
from upon.logs import get_logger
from upon.messages import MAX_RECORD
from upon.part import Part
from upon.service.context import SERVICE, Service
from upon.service.doors import KEPT_ALIVE, Doors, DoorSite, connection_limit
from upon.service.freeing import Freeing
from upon.service.guard import forever
from upon.service.lag import Lag
from upon.service.output import Outputs
from upon.service.past_events import PastEvents
from upon.service.projector import Projector
from upon.service.push import Hub
from upon.service.registrar import Registrar
from upon.service.rest import routes
from upon.service.rest.auth import bearer
from upon.service.rest.problems import problems
from upon.service.retention import Retention
from upon.service.store.store import Store, store_url
from upon.service.submission import Submission
from upon.service.watch import Watch
from upon.topics import TopicSpec

FLUSH_TIMEOUT = 1.0
"""Seconds that Kafka has at the end to take what was submitted."""
log = get_logger(__name__)


async def main(part: Part, settings: Settings) -> None:
    """Run the service until `part.stopping`.

    Raises:
        ConfigError: no token, a wrong address, or a task store that cannot be opened.
        KafkaUnavailable: no broker answers.
    """
    if not settings.token:
        raise ConfigError("the service needs a token: set UPON_TOKEN, or start it with `upon up`, which makes one")
    host, port = listen_address(settings.listen)
    doors = Doors(connection_limit())
    async with running(settings) as service:
        runner = web.AppRunner(
            application(service, doors),
            access_log=None, handle_signals=False, shutdown_timeout=0.5, keepalive_timeout=KEPT_ALIVE,
            auto_decompress=False,
        )  # fmt: skip
        await runner.setup()
        watching = asyncio.create_task(doors.watch())
        try:
            address = await _listen(runner, host, port, doors)
            part.ready(service=address)
            await _until_stopping(part, service)
        finally:
            watching.cancel()
            await _stop(service, runner)


def application(service: Service, doors: Doors) -> web.Application:
    """Return the aiohttp application over a running service."""
    guards = [problems, doors.middleware, bearer(service.settings.token, routes.OPEN_PATHS)]
    app = web.Application(middlewares=guards, client_max_size=MAX_RECORD)
    app[SERVICE] = service
    routes.add_to(app)
    return app


def listen_address(text: str) -> tuple[str, int]:
    """Split HOST:PORT.

    Raises:
        ConfigError: it is not of that form.
    """
    host, _, port = text.rpartition(":")
    if not host or not (port.isascii() and port.isdigit() and int(port) < 65536):
        raise ConfigError(f"setting listen (environment UPON_LISTEN): HOST:PORT such as 127.0.0.1:8700, not {text!r}")
    return host.strip("[]"), int(port)


@asynccontextmanager
async def running(settings: Settings) -> AsyncIterator[Service]:
    """Connect and start all pieces, caught up with Kafka; stop them at the end."""
    kafka, topics = settings.need_kafka(), settings.topics
    store = Store(store_url(settings))
    async with AsyncExitStack() as stack:
        stack.callback(store.close)
        opening = asyncio.create_task(asyncio.to_thread(store.open))
        await ensure_topics(kafka, topics.shared(settings.partitions), settings.replication)
        ends = Ends(kafka, await stack.enter_async_context(async_consumer(kafka, "upon-service-ends")))
        outbox = _outbox(settings, lambda: service)
        await outbox.start()
        stack.push_async_callback(outbox.stop, 0.0)  # `_stop` has waited for what was accepted
        await opening
        registrar = Registrar(kafka, topics, outbox, ends, store.turn, settings.keep_code)
        projector = Projector(
            kafka, topics, store, outbox, ends, site_topics=lambda site: topics.of_site(site, settings.partitions)
        )
        stack.callback(projector.close)
        hub = Hub(kafka, topics)
        watch = Watch(kafka, topics, store)
        lag = Lag(kafka, topics, ends, projector)
        stack.push_async_callback(lag.close)
        places = Places(kafka, "upon-service-places", ends)
        service = Service(
            settings=settings,
            topics=topics,
            outbox=outbox,
            ends=ends,
            registrar=registrar,
            submission=Submission(topics, registrar, outbox),
            store=store,
            projector=projector,
            hub=hub,
            outputs=Outputs(kafka, topics),
            watch=watch,
            lag=lag,
            failure=asyncio.get_running_loop().create_future(),
            places=places,
            past_events=PastEvents(topics.events, ends, places),
            freeing=Freeing(settings, store, registrar, projector),
        )
        await service.freeing.make()
        await stack.enter_async_context(_tasks(service))
        yield service


@asynccontextmanager
async def _tasks(service: Service) -> AsyncIterator[None]:
    """Run the pieces that run by themselves, from caught up to the end."""
    registrar, projector = service.registrar, service.projector
    projecting, pushing = asyncio.Event(), asyncio.Event()
    tasks = [
        asyncio.create_task(forever("follow the registry", registrar.run)),
        asyncio.create_task(forever("push results", lambda: service.hub.run(pushing))),
        asyncio.create_task(forever("watch tasks", service.watch.run)),
        asyncio.create_task(forever("follow the output", service.outputs.run)),
    ]
    retention = Retention(service.settings, service.store, registrar, projector, service.ends, service.places)
    new_sites = asyncio.Event()
    registrar.site_listeners.append(new_sites.set)
    projector.listeners += [service.watch.changed, service.outputs.changed]

    async def add_sites() -> None:
        while True:
            new_sites.clear()
            await projector.add_sites(set(registrar.registry.sites))
            await new_sites.wait()

    tasks.append(asyncio.create_task(service.outbox.failed()))
    for task in tasks:
        task.add_done_callback(service.ended)
    try:
        await service.unless_failed(registrar.caught_up.wait())
        await service.unless_failed(pushing.wait())
        project = lambda: projector.run(set(registrar.registry.sites), projecting)  # noqa: E731
        tasks.append(asyncio.create_task(forever("project", project)))
        tasks.append(asyncio.create_task(forever("add sites", add_sites)))
        tasks.append(asyncio.create_task(forever("prune", retention.run)))
        tasks.append(asyncio.create_task(forever("free the store", service.freeing.run)))
        for task in tasks[-4:]:
            task.add_done_callback(service.ended)
        await service.unless_failed(projecting.wait())
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _outbox(settings: Settings, service: Callable[[], Service]) -> Outbox:
    """The way to Kafka; a topic that is gone is made anew if it is a shared one or that of a known site."""

    def spec_of(topic: str) -> TopicSpec | None:
        site = settings.topics.site_of(topic)
        return settings.spec_of(topic) if site is None or site in service().registrar.registry.sites else None

    return Outbox(settings.need_kafka(), "upon-service", spec_of=spec_of, replication=settings.replication)


async def _until_stopping(part: Part, service: Service) -> None:
    """Wait until the part is to stop. Raises what ended one of the service's pieces unexpectedly."""
    stopping = asyncio.create_task(part.stopping.wait())
    waited: set[asyncio.Future[Any]] = {stopping, service.failure}
    await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    if service.failure.done():
        service.failure.result()


async def _listen(runner: web.AppRunner, host: str, port: int, doors: Doors) -> str:
    try:
        await DoorSite(runner, host, port, doors).start()
    except OSError as error:
        raise (AddressTaken if error.errno == errno.EADDRINUSE else ConfigError)(
            f"cannot listen on {host}:{port}: {error.strerror or error}; choose another address with UPON_LISTEN"
        ) from error
    bound = runner.addresses[0]
    return f"http://{f'[{bound[0]}]' if ':' in bound[0] else bound[0]}:{bound[1]}"


async def _stop(service: Service, runner: web.AppRunner) -> None:
    """Take no more, answer what was taken, close."""
    for site in list(runner.sites):
        await site.stop()
    await service.outbox.flush(FLUSH_TIMEOUT)
    await asyncio.gather(*(one.close() for one in service.connections), return_exceptions=True)
    await runner.cleanup()
