"""The projector's reading and writing, on a real store, fed with what a reader would give."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any, cast

from aiokafka import ConsumerRecord

from tests.services import eventually, invocation, result
from upon.messages import InvocationBatch, Message, ResultBatch, encode
from upon.service.projector import Projector
from upon.service.store.store import Store
from upon.topics import Topics

TOPICS = Topics("t")
Batches = list[list[ConsumerRecord[Any, Any]]]


def record(topic: str, offset: int, value: Message) -> ConsumerRecord[Any, Any]:
    data = encode(value)
    return ConsumerRecord(topic, 0, offset, 1_000, 0, None, data, 0, None, len(data), ())


def results(offset: int, id: str) -> list[ConsumerRecord[Any, Any]]:
    return [record(TOPICS.results, offset, ResultBatch(site="local", results=(result(id),)))]


class Given:
    """A reader that gives what it is given."""

    def __init__(self) -> None:
        self.batches: asyncio.Queue[Batches] = asyncio.Queue()

    async def next(self, _timeout: float) -> Batches:
        return await self.batches.get()


async def test_a_topic_made_anew_beside_records_of_another_is_read_on(tmp_path: Path) -> None:
    """What was read before it, in the same breath, is written first; the writer is told, or both wait for ever."""
    store = Store(f"sqlite:///{tmp_path / 'tasks.db'}")
    store.open()
    projector = Projector("", TOPICS, store, cast(Any, None), cast(Any, None), site_topics=lambda _: [])
    batch = InvocationBatch(site="local", principal="p", submitted=10, invocations=(invocation("i"),))
    invoked = [record(TOPICS.invocations("local"), 3, batch)]
    reader = Given()
    tasks = [asyncio.create_task(projector._write_all()), asyncio.create_task(projector._read_all(cast(Any, reader)))]

    async def written(wanted: dict[tuple[str, int], int]) -> bool:
        return projector.written == wanted and await asyncio.to_thread(store.positions) == wanted

    try:
        reader.batches.put_nowait([results(10, "before")])
        await eventually(lambda: written({(TOPICS.results, 0): 11}), "the writer has nothing to do", 20)
        reader.batches.put_nowait([invoked, results(0, "anew")])
        all_ = {(TOPICS.results, 0): 1, (TOPICS.invocations("local"), 0): 4}
        await eventually(lambda: written(all_), "all is in the store, and the topic counts from its beginning", 20)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        projector.close()
        store.close()
