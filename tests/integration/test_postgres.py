"""The task store on a real PostgreSQL, from Debian's package, started for these tests alone."""

from __future__ import annotations

import asyncio
import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import pytest
from sqlalchemy import create_engine, text

from tests.conftest import missing
from tests.services import DEADLINE, Records, Running, eventually, invocation, result, service
from tests.unit.service.test_schema import holds_what_it_held, made_by_the_first_revision
from upon import api
from upon.messages import Cause, Failure, InvocationBatch, Started, Timings
from upon.service.store.store import Store
from upon.topics import Topics


class Postgres:
    """A PostgreSQL server of the tests' own, on 127.0.0.1."""

    def __init__(self, programs: Path, folder: Path) -> None:
        self.programs, self.folder = programs, folder
        with socket.create_server(("127.0.0.1", 0)) as one:
            self.port = one.getsockname()[1]

    def run(self, program: str, *words: str) -> None:
        """Run one of its programs, as the user `postgres` if we are root: it refuses to run as root."""
        command = [str(self.programs / program), *words]
        if os.geteuid() == 0:
            command = ["setpriv", "--reuid=postgres", "--regid=postgres", "--init-groups", *command]
        done = subprocess.run(command, cwd=self.folder, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, f"{program}: {done.stdout}{done.stderr}"

    def start(self) -> None:
        options = f"-p {self.port} -h 127.0.0.1 -k {self.folder} -c fsync=off"
        self.run("pg_ctl", "-D", f"{self.folder}/data", "-w", "-l", f"{self.folder}/log", "-o", options, "start")

    def stop(self) -> None:
        self.run("pg_ctl", "-D", f"{self.folder}/data", "-w", "-m", "immediate", "stop")

    def database(self, name: str) -> str:
        """Make a database and return its URL."""
        engine = create_engine(self.url("postgres"), isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            connection.execute(text(f'CREATE DATABASE "{name}"'))
        engine.dispose()
        return self.url(name).replace("+psycopg", "")

    def url(self, database: str) -> str:
        return f"postgresql+psycopg://postgres@127.0.0.1:{self.port}/{database}"


@pytest.fixture(scope="module")
def postgres() -> Iterator[Postgres]:
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    if not found:
        missing("PostgreSQL is not installed: apt-get install postgresql")
    folder = Path(tempfile.mkdtemp(prefix="upon-postgres-"))
    if os.geteuid() == 0:
        user = pwd.getpwnam("postgres")
        os.chown(folder, user.pw_uid, user.pw_gid)
    one = Postgres(found[-1], folder)
    try:
        one.run("initdb", "-D", f"{folder}/data", "-A", "trust", "-U", "postgres", "-E", "UTF8", "--no-sync")
        one.start()
        yield one
        one.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def records(kafka: str, topics: Topics) -> Records:
    return Records(kafka, topics)


@pytest.fixture
async def running(kafka: str, topics: Topics, records: Records, postgres: Postgres) -> AsyncIterator[Running]:
    await records.announce()
    async with service(kafka, topics, UPON_DATABASE=postgres.database(topics.prefix)) as one:
        yield one


async def test_the_whole_way_in_any_order(running: Running, records: Records) -> None:
    cause = Cause(rule="r", rule_revision=1, event_id="e", event_type="a", event_source="/x")
    await records.results(started=[Started(id="a", started=5)])
    assert (await running.task_with("a", "running")).started is not None
    await records.results(result("a", {"n": 1}, cause=cause), result("a", 2))
    done = await running.task_with("a", "succeeded")
    assert (done.result, done.rule, done.function) == ({"n": 1}, "r", "pow")
    at = 1_767_225_600_000_000_000
    one = invocation("a", cause=cause, version=3)
    await records.invocations(InvocationBatch(site="local", principal="anna", submitted=at, invocations=(one,)))
    failure = Failure(type="E\x00", message="bad\x00", traceback="\x00")
    await records.results(result("b\x00", status="failed", failure=failure), started=[Started(id="a", started=9)])
    await records.results(result("c"))
    await running.task_with("c", "succeeded")
    task = await running.task("a")
    assert (task.status, task.version, task.principal) == ("succeeded", 3, "anna")
    failed = await running.ask("GET", "/v1/tasks?status=failed")
    assert [(one["id"], one["error"]["type"]) for one in failed] == [("b\\x00", "E\x00")]
    assert [one["id"] for one in await running.ask("GET", "/v1/tasks?rule=r")] == ["a"]
    assert [one["id"] for one in await running.ask("GET", "/v1/tasks?function=pow&status=succeeded")] == ["c", "a"]


async def test_kill_9_in_the_middle_of_the_projection(
    running: Running, records: Records, postgres: Postgres, topics: Topics
) -> None:
    total = 5_000
    ids = [f"t{n}" for n in range(total)]

    async def produce() -> None:
        for start in range(0, total, 250):
            some = ids[start : start + 250]
            await records.invocations(InvocationBatch(site="local", invocations=tuple(map(invocation, some))))
            await records.results(*[result(id) for id in some])

    producing = asyncio.create_task(produce())

    async def under_way() -> bool:
        return bool(await running.ask("GET", "/v1/tasks?limit=1"))

    await eventually(under_way, "some tasks are stored")
    await running.kill()
    await running.start()
    await producing

    async def all_there() -> bool:
        return bool((await running.ask("GET", "/v1/status"))["lag"].get("service", 1) == 0)

    await eventually(all_there, "the projection has caught up")
    engine = create_engine(postgres.url(topics.prefix))
    with engine.connect() as connection:
        counted = connection.execute(text("SELECT status, accepted, count(*) FROM tasks GROUP BY 1, 2")).all()
    engine.dispose()
    assert [tuple(row) for row in counted] == [("succeeded", True, total)]


async def test_no_record_stops_the_projection(
    running: Running, records: Records, postgres: Postgres, topics: Topics
) -> None:
    engine = create_engine(postgres.url(topics.prefix))
    with engine.begin() as connection:  # what the database refuses and the projection could not foresee
        connection.execute(text("ALTER TABLE tasks ADD CONSTRAINT unforeseen CHECK (worker <> 'refused')"))
    engine.dispose()
    nul = Failure(type="E\x00", message="\x00" * 9, traceback="\x00")
    huge = Timings(started=2**64 - 1, finished=2**64 - 1)
    good = [result(f"good-{n}") for n in range(20)]
    await records.results(*good[:5], result("x" * 12_000), result("n\x00ul", status="failed", failure=nul))
    await records.write(topics.results, b"no result", b"\x91" * 5_000)
    await records.results(*good[5:10], result("huge", timings=huge, attempts=2**63, function="f" * 10_000))
    await records.results(*good[10:15])
    await records.results(result("refused", worker="refused"))
    await records.results(*good[15:])
    for one in good:
        await running.task_with(one.id, "succeeded")
    assert (await running.task("huge")).attempts == 2**63 - 1
    found: list[api.DeadLetterView] = []

    async def all_buried() -> bool:
        found[:] = msgspec.convert(await running.ask("GET", "/v1/deadletters"), list[api.DeadLetterView])
        return len(found) >= 4

    await eventually(all_buried, "what cannot be stored is in the dead letters")
    reasons = sorted(one.reason for one in found)
    assert len(reasons) == 4
    assert [one.part for one in found] == ["service"] * 4
    assert sum("an id has 1 to 200 characters, not 12,000" in one for one in reasons) == 1
    assert sum("the task store refuses it" in one and "unforeseen" in one for one in reasons) == 1


async def test_two_services_on_one_database(kafka: str, topics: Topics, records: Records, postgres: Postgres) -> None:
    await records.announce()
    url = postgres.database(topics.prefix)
    total = 3_000
    async with service(kafka, topics, UPON_DATABASE=url) as first, service(kafka, topics, UPON_DATABASE=url) as second:
        both = (first, second)
        made = await asyncio.gather(*(both[n % 2].register("shared", f"code {n % 10}".encode()) for n in range(40)))
        versions = {one.code: one.version for one in made}
        assert {(one.code, one.version) for one in made} == set(versions.items()), "one code has one version"
        assert sorted(versions.values()) == list(range(1, 11)), "one version has one code"

        async def produce() -> None:
            for start in range(0, total, 100):
                ids = [f"t{n}" for n in range(start, start + 100)]
                await records.invocations(InvocationBatch(site="local", invocations=tuple(map(invocation, ids))))
                await records.results(*map(result, ids))

        producing = asyncio.create_task(produce())

        async def under_way() -> bool:
            return bool(await second.ask("GET", "/v1/tasks?limit=1"))

        await eventually(under_way, "some tasks are stored")
        await first.kill()
        await producing

        async def all_there() -> bool:
            return bool((await second.ask("GET", "/v1/status"))["lag"].get("service", 1) == 0)

        await eventually(all_there, "the other one has gone on")
        assert (await second.register("shared", b"code 11")).version == 11
        engine = create_engine(postgres.url(topics.prefix))
        with engine.connect() as connection:
            counted = connection.execute(text("SELECT status, accepted, count(*) FROM tasks GROUP BY 1, 2")).all()
        engine.dispose()
        assert [tuple(row) for row in counted] == [("succeeded", True, total)]
        assert "deadlock" not in first.last_log() + second.last_log()


def test_a_store_of_the_first_form_keeps_its_rows(postgres: Postgres) -> None:
    url = postgres.database("first-form")
    engine = create_engine(postgres.url("first-form"))
    made_by_the_first_revision(engine, stamped=False)
    engine.dispose()
    stores = [Store(url), Store(url)]
    with ThreadPoolExecutor(2) as pool:  # two services that are upgraded at once
        list(pool.map(Store.open, stores))
    for store in stores:
        holds_what_it_held(store)
        store.close()


async def test_a_database_that_is_away_holds_up_no_result(
    running: Running, records: Records, postgres: Postgres
) -> None:
    async with running.stream() as stream:
        await stream.ask(api.Attach(request=1, group="g"))
        postgres.stop()
        try:
            await records.results(result("while away", group="g"))
            assert set(await stream.results(1)) == {"while away"}
            said = await running.refused("GET", "/v1/tasks/x", status=503)
            assert said.error == "ServiceUnavailable"
        finally:
            postgres.start()
    task = await eventually(lambda: _there(running, "while away"), "the projection goes on", DEADLINE)
    assert task.status == "succeeded"


async def test_no_database_no_start(kafka: str, topics: Topics) -> None:
    with socket.create_server(("127.0.0.1", 0)) as one:
        port = one.getsockname()[1]
    with pytest.raises(AssertionError, match="cannot be opened") as caught:
        async with service(kafka, topics, UPON_DATABASE=f"postgresql://me:secret@127.0.0.1:{port}/x"):
            pass
    assert "secret" not in str(caught.value)


async def _there(running: Running, id: str) -> api.Task | None:
    try:
        return await running.task(id)
    except AssertionError:  # not yet
        return None
