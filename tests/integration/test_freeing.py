"""A service frees the store: real Kafka, task store and files, one round after the other."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from tests.services import TOKEN, Records, eventually, invocation, result
from upon.code_hash import code_hash
from upon.config import Settings
from upon.errors import InputError
from upon.messages import FunctionCode, InvocationBatch
from upon.service import freeing
from upon.service.app import running
from upon.service.context import Service
from upon.service.retention import Retention
from upon.service.store import queries
from upon.store import reference
from upon.store.files import FileStore
from upon.store.payloads import Payloads, Where
from upon.store.reference import ARGUMENTS, RESULT, Reference
from upon.topics import Topics


def settings_of(kafka: str, topics: Topics, home: Path, **values: object) -> Settings:
    return Settings.load(home, kafka=kafka, prefix=topics.prefix, token=TOKEN, **values)


async def ended(service: Service, id: str) -> bool:
    row = await service.store.read(queries.get_task, id)
    return row is not None and row.status in ("succeeded", "failed")


async def test_payloads_go_with_what_needs_them(kafka: str, topics: Topics, tmp_path: Path) -> None:
    records = Records(kafka, topics)
    await records.announce()
    settings = settings_of(kafka, topics, tmp_path)
    store = FileStore.make(settings.store_folder)  # of before there were systems: it is adopted
    payloads = Payloads(lambda: Where(settings.store_folder, 100))

    def there() -> list[str]:
        return sorted(blob.key.partition(".")[0] + blob.key.partition(".")[2][:1] for blob in store.list())

    async with running(settings) as service:
        sent = {id: payloads.dumps(bytes(1000), id, ARGUMENTS) for id in ("done", "failed", "open")}
        await records.invocations(
            InvocationBatch(site="local", invocations=tuple(invocation(id, payload=sent[id]) for id in sent))
        )
        value = payloads.dumps(list(range(1000)), "done", RESULT)
        await records.results(
            result("done", payload=value),
            result("failed", status="failed", payload=b""),
        )
        await eventually(lambda: ended(service, "failed"), "both have ended")
        orphans = [reference.decode(payloads.dumps(bytes(1000), id, RESULT)).key for id in ("unknown", "forgotten")]
        os.utime(store.folder / orphans[1], (0, time.time() - freeing.ORPHAN - 1))
        await service.freeing.free(store)
        assert there() == ["doner", "faileda", "opena", "unknownr"]
        use = await service.freeing.use()
        assert use is not None
        assert (use.id, use.payloads, use.place, use.bound) == (store.id, 4, store.place, 64 * 2**30)
        assert use.bytes > 5000
        assert payloads.loads(value) == list(range(1000))

        pruning = settings_of(kafka, topics, tmp_path, keep_tasks_count=1)
        await Retention(
            pruning, service.store, service.registrar, service.projector, service.ends, service.places
        ).prune()
        await service.freeing.free(store)
        assert there() == ["opena", "unknownr"]  # what is open is no task that ends by being pruned
        await records.results(result("open"))
        await eventually(lambda: ended(service, "open"), "it has ended")
        store.delete(orphans[0])
        await service.freeing.free(store)
        assert there() == []
        assert service.freeing.note == ""


async def test_a_store_that_is_not_ours_or_away_is_said(kafka: str, topics: Topics, tmp_path: Path) -> None:
    await Records(kafka, topics).announce()
    shared = tmp_path / "shared"
    other = FileStore.make(shared, "another/upon")
    other.put("t.a0123456789abcdef").commit()
    async with running(settings_of(kafka, topics, tmp_path / "home", store=str(shared))) as service:
        assert f"the store in {shared} is that of another system (another/upon" in service.freeing.note
        shared.rename(tmp_path / "away")
        shared.write_text("no folder")
        assert await service.freeing.make() is None
        assert f"no store can be made in {shared}" in service.freeing.note
        assert await service.freeing.use() is None
        shared.unlink()
        ours = await service.freeing.make()
        assert ours is not None
        await service.freeing.free(ours)
    assert [blob.key for blob in FileStore(tmp_path / "away").list()] == ["t.a0123456789abcdef"]


async def test_a_hostile_reference_is_refused_where_it_comes_in(kafka: str, topics: Topics, tmp_path: Path) -> None:
    await Records(kafka, topics).announce()
    hostile = reference.encode(Reference("0" * 32, "../../../etc/passwd", 10, 1))
    async with running(settings_of(kafka, topics, tmp_path)) as service:
        code = FunctionCode(hash=code_hash(b"code"), body=b"code", python="3.11")
        await service.registrar.add_code(code)
        with pytest.raises(InputError, match="no such can be"):
            await service.submission.submit("local", "", "me", [invocation("t", code=code.hash, payload=hostile)])
