"""Freeing the store: of large arguments and results what nobody needs any more. Its content is never read here.

    arguments   until their task has succeeded; of one that failed or was cancelled as long as results, to try it again
    results     so long after their task's end (`UPON_KEEP_PAYLOADS`), and no longer than the task is in the task store
    past the bound (`UPON_KEEP_PAYLOADS_BYTES`)   those go whose tasks ended first, but for the last hour's
    of no task, or not written to their end       a day after they were written: who wrote them may be about to say so

An Executor's client deletes what it has taken by itself; what it leaves, killed in between, is found here. Whose a
payload is stands in its key, so a round is one listing, some queries by id, and deletions. What a round has deleted
another one, of this service or another, finds gone.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Mapping, Set
from typing import NamedTuple

from upon import api
from upon.config import Settings
from upon.errors import KafkaUnavailable, ServiceUnavailable, StoreError
from upon.kafka.admin import cluster_id
from upon.logs import get_logger
from upon.messages import FINAL
from upon.service.projector import Projector
from upon.service.registrar import KAFKA_TIMEOUT, Registrar
from upon.service.store import queries
from upon.service.store.store import Store
from upon.store.files import FileStore
from upon.store.reference import ARGUMENTS, is_key, owner_and_kind
from upon.store.store import Blob

EVERY = 60.0
"""Seconds between two rounds at least; they take at most a twentieth of the time."""
ORPHAN = 24 * 3600.0
"""Seconds that something of no task stays."""
YOUNG = 3600.0
"""Seconds after its task's end that a payload stays whatever the bound: a client may be on its way to it."""
log = get_logger(__name__)


class Ended(NamedTuple):
    """What the task store knows of a task. `stored`: when its result came there (ns), 0 = it has none."""

    status: str
    stored: int


class Freeing:
    """Makes, measures and frees a deployment's store.

    Args:
        settings: where it is and what is kept.
        tasks: the task store.
        registrar, projector: say whether that knows of all tasks.
    """

    def __init__(self, settings: Settings, tasks: Store, registrar: Registrar, projector: Projector) -> None:
        self._settings, self._tasks = settings, tasks
        self._registrar, self._projector = registrar, projector
        self._owner = ""
        self._known: set[str] = set()  # owners that were there, with a task, at the last round
        self.note = ""
        """What is wrong with the store, for who looks at the system; empty: nothing."""

    async def make(self) -> FileStore | None:
        """Make the store, if it is not there; None: it cannot be used, `note` says why."""
        if not self._owner:
            self._owner = f"{await cluster_id(self._settings.need_kafka())}/{self._settings.prefix}"
        ours = not self._settings.store  # what is in our home is ours, also behind another Kafka
        try:
            return await asyncio.to_thread(FileStore.make, self._settings.store_folder, self._owner, ours)
        except StoreError as error:
            self._say(error)
            return None

    async def run(self) -> None:
        """Free the store again and again, until cancelled."""
        while True:
            began = time.monotonic()
            try:
                if (store := await self.make()) is not None:
                    await self.free(store)
                    self.note = ""
            except StoreError as error:
                self._say(error)
            except (ServiceUnavailable, KafkaUnavailable) as error:
                log.debug("nothing is freed this time", action="store", reason=str(error))
            await asyncio.sleep(max(EVERY, 20 * (time.monotonic() - began)))

    def _say(self, error: StoreError) -> None:
        if self.note != str(error):
            log.warning("the store of large payloads cannot be used", action="store", reason=str(error))
        self.note = str(error)

    async def use(self) -> api.StoreUse | None:
        """Return how large the store is now; None if it cannot be read."""
        try:
            return await asyncio.to_thread(self._use)
        except StoreError:
            return None

    def _use(self) -> api.StoreUse:
        store = FileStore(self._settings.store_folder)
        sizes = [blob.size for blob in store.list()]
        bound = self._settings.keep_payloads_bytes
        return api.StoreUse(id=store.id, place=store.place, payloads=len(sizes), bytes=sum(sizes), bound=bound)

    async def free(self, store: FileStore) -> None:
        """Free once, if the task store knows all tasks that Kafka has."""
        blobs = await asyncio.to_thread(lambda: list(store.list()))
        if not blobs:
            return
        built = self._tasks.built
        await self._projector.catch_up(set(self._registrar.registry.sites), KAFKA_TIMEOUT)
        found: dict[str, Ended] = {}
        owners = sorted({owner for blob in blobs if (owner := _owner(blob))})
        for at in range(0, len(owners), queries.MAX_IDS):
            rows = await self._tasks.read(queries.ends, owners[at : at + queries.MAX_IDS])
            found |= {row.id: Ended(row.status, row.stored) for row in rows}
        if built != self._tasks.built:  # made anew meanwhile: it knew of nothing
            return
        keep = self._settings.keep_payloads or float("inf")
        needless = choose(blobs, found, self._known, time.time(), keep, self._settings.keep_payloads_bytes)
        self._known = set(found)
        await asyncio.to_thread(_delete, store, needless)
        if needless:
            size = sum(one.size for one in needless)
            log.info("freed", action="store", payloads=len(needless), bytes=size)


def choose(  # noqa: PLR0917
    blobs: Iterable[Blob], tasks: Mapping[str, Ended], known: Set[str], now: float, keep: float, bound: int
) -> list[Blob]:
    """Return what nobody needs.

    Args:
        blobs: all that there is.
        tasks: what is known of their tasks, by owner.
        known: owners that had a task before: those that have none now were pruned.
        now: s since the epoch.
        keep: s that payloads of ended tasks stay.
        bound: bytes that all may have together; 0 = any number.
    """
    needless: list[Blob] = []
    ended: list[tuple[float, Blob]] = []
    total = 0
    for blob in blobs:
        owner, kind = owner_and_kind(blob.key) if is_key(blob.key) else ("", "")
        task = tasks.get(owner)
        if owner.startswith("~"):  # of a task whose id is no name of a file: its age has to tell
            end = blob.modified
        elif task is None:
            if now - blob.modified > ORPHAN or (owner and owner in known):
                needless.append(blob)
            continue
        elif task.status not in FINAL:
            total += blob.size
            continue
        else:
            end = task.stored / 1e9
        if now - end > keep or (task is not None and kind == ARGUMENTS and task.status == "succeeded"):
            needless.append(blob)
            continue
        total += blob.size
        if now - end > YOUNG:
            ended.append((end, blob))
    for _, blob in sorted(ended, key=lambda one: one[0]) if bound else ():
        if total <= bound:
            break
        needless.append(blob)
        total -= blob.size
    return needless


def _owner(blob: Blob) -> str:
    """Return whose a blob is; empty if that is no task's id."""
    owner = owner_and_kind(blob.key)[0] if is_key(blob.key) else ""
    return "" if owner.startswith("~") else owner


def _delete(store: FileStore, needless: Iterable[Blob]) -> None:
    for blob in needless:
        store.delete(blob.key)
