"""Executor and Client against the whole, real system."""

from __future__ import annotations

import concurrent.futures
import os
import threading
import time

import pytest

from tests.systems import System, wait_for
from upon import Client, Event, Executor, api
from upon.errors import (
    FunctionLoadError,
    FunctionNotFound,
    InputError,
    RemoteError,
    RemoteTraceback,
    ResultError,
    RuleError,
    RuleNotFound,
    SiteNotFound,
    TaskCancelled,
    TaskNotFound,
    TaskTimeout,
    WorkerLost,
)


class Ours(Exception):
    """An exception class that the worker does not have."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


class TakesTwo(Exception):
    def __init__(self, a: int, b: int) -> None:
        super().__init__(f"{a} and {b}")


class Unpicklable(Exception):
    def __reduce__(self) -> tuple[object, ...]:
        raise TypeError("not me")


class NeedsAModule:
    def __reduce__(self) -> tuple[object, ...]:
        return _import_it, ()


def _import_it() -> object:
    import module_that_no_worker_has  # type: ignore[import-not-found]

    return module_that_no_worker_has


def fail(code: int) -> None:
    raise Ours(code)


class TestExecutor:
    def test_the_readme(self, executor: Executor) -> None:
        assert executor.submit(pow, 2, 10).result(60) == 1024
        assert list(executor.map(lambda x: x + 1, range(10_000), chunksize=500))[-1] == 10_000

    def test_many_at_once(self, executor: Executor) -> None:
        futures = [executor.submit(pow, n, 2) for n in range(2000)]
        assert [f.result(60) for f in futures] == [n * n for n in range(2000)]

    def test_from_many_threads(self, executor: Executor) -> None:
        found: dict[int, list[int]] = {}

        def work(number: int) -> None:
            futures = [executor.submit(pow, number, n) for n in range(50)]
            found[number] = [f.result(60) for f in futures]

        threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(90)
        assert found == {number: [number**n for n in range(50)] for number in range(8)}

    def test_types_survive(self, executor: Executor) -> None:
        value = {"a": (1, 2.5, None), 3: {b"x", "y"}, "z": 2**100}
        assert executor.submit(lambda v: v, value).result(60) == value

    def test_an_exception_arrives_as_itself(self, executor: Executor) -> None:
        error = executor.submit(fail, 7).exception(60)
        assert type(error) is Ours
        assert error.code == 7
        assert isinstance(error.__cause__, RemoteTraceback)
        assert "in fail" in str(error.__cause__)

    def test_an_exception_whose_class_takes_other_arguments_arrives_as_itself(self, executor: Executor) -> None:
        def raise_it() -> None:
            raise TakesTwo(1, 2)

        with pytest.raises(TakesTwo, match="1 and 2"):
            executor.submit(raise_it).result(60)

    def test_an_exception_that_does_not_come_back_is_a_remote_error(self, executor: Executor) -> None:
        def raise_it() -> None:
            raise Unpicklable("1 and 2")

        with pytest.raises(RemoteError, match=r"Unpicklable: 1 and 2\n.*rebuilt: TypeError: not me") as caught:
            executor.submit(raise_it).result(60)
        assert "in raise_it" in str(caught.value.__cause__)

    def test_a_result_that_does_not_pickle(self, executor: Executor) -> None:
        with pytest.raises(ResultError, match=r"returned a _thread\.lock"):
            executor.submit(threading.Lock).result(60)

    def test_an_argument_whose_module_the_worker_lacks(self, executor: Executor) -> None:
        with pytest.raises(FunctionLoadError, match="module_that_no_worker_has"):
            executor.submit(id, NeedsAModule()).result(60)

    def test_a_timeout(self, executor: Executor) -> None:
        with pytest.raises(TaskTimeout):
            executor.options(timeout=0.2).submit(time.sleep, 600).result(60)

    def test_a_lost_worker_tells_the_story(self, executor: Executor) -> None:
        with pytest.raises(WorkerLost):
            executor.options(attempts=2).submit(os._exit, 3).result(60)

    def test_retries(self, executor: Executor, tmp_path: object) -> None:
        def third_time(path: str) -> int:
            with open(path, "a+") as file:
                file.write("x")
                file.seek(0)
                count = len(file.read())
            if count < 3:
                raise OSError("not yet")
            return count

        assert executor.options(attempts=5).submit(third_time, f"{tmp_path}/count").result(60) == 3

    def test_a_registered_function_by_name(self, executor: Executor, client: Client) -> None:
        first = client.register(triple, "sdk.named")
        second = client.register(lambda x: -x, "sdk.named")
        assert executor.submit("sdk.named", 5).result(60) == -5
        assert executor.submit(f"sdk.named@{first.version}", 5).result(60) == 15
        future = executor.options(attempts=2).submit("sdk.named", {5}.pop())
        assert future.result(60) == -5
        wait_for(lambda: client.task(future).version == second.version, "its version is known")
        assert list(executor.map("sdk.named", range(3))) == [0, -1, -2]
        with pytest.raises(FunctionNotFound, match=r"'sdk\.nothing' is not registered; there are: .*sdk\.named"):
            executor.submit("sdk.nothing", 5).result(60)

    def test_cancel_kills_what_runs(self, executor: Executor, client: Client) -> None:
        future = executor.submit(time.sleep, 600)
        wait_for(lambda: client.tasks(status="running"), "it runs")
        assert future.cancel()
        wait_for(lambda: client.task(future.id).status == "cancelled", "it is cancelled there as well")
        with pytest.raises(concurrent.futures.CancelledError):
            future.result(60)

    def test_cancelled_by_somebody_else(self, executor: Executor, client: Client) -> None:
        future = executor.submit(time.sleep, 600)
        wait_for(lambda: any(t.id == future.id for t in client.tasks()), "it is known")
        client.cancel(future.id)
        with pytest.raises(TaskCancelled):
            future.result(60)

    def test_a_site_that_is_not_there(self, system: System) -> None:
        with Executor(site="mars", home=system.home) as executor, pytest.raises(SiteNotFound, match=r"'mars'.*local"):
            executor.submit(pow, 2, 2).result(60)

    def test_a_bad_item_of_a_map_fails_alone(self, executor: Executor) -> None:
        found = executor.map(lambda x: 10 // x, [1, 2, 0, 5], chunksize=4)
        assert [next(found), next(found)] == [10, 5]
        with pytest.raises(ZeroDivisionError):
            next(found)
        assert next(found) == 2

    def test_a_million_items(self, executor: Executor) -> None:
        assert sum(executor.map(lambda x: x, range(1_000_000), chunksize=20_000)) == 499_999_500_000

    def test_large_values_travel(self, executor: Executor) -> None:
        data = os.urandom(3_000_000)
        assert all(f.result(60) == data for f in [executor.submit(lambda d: d, data) for _ in range(5)])

    def test_what_was_printed_is_there(self, executor: Executor) -> None:
        future = executor.submit(print, "hello from there")
        future.result(60)
        assert future.stdout == "hello from there\n"


def triple(x: int) -> int:
    """Return three times x."""
    return 3 * x


RULE = """
version: 1
rules:
  - name: sdk-triples
    upon: {type: [sdk.number]}
    run: {function: sdk.triple, site: local, args: ["${data.n}"]}
"""


class TestClient:
    def test_functions(self, client: Client) -> None:
        first = client.register(triple, "sdk.triple")
        assert client.register(triple, "sdk.triple").version == first.version
        assert client.function("sdk.triple").description == "Return three times x."
        assert "def triple" in client.function(f"sdk.triple@{first.version}").source
        assert "sdk.triple" in {f.name for f in client.functions()}
        with pytest.raises(FunctionNotFound, match=r"sdk\.triple"):
            client.function("sdk.nothing")

    def test_invoke_and_wait(self, client: Client) -> None:
        client.register(triple, "sdk.triple")
        future = client.invoke("sdk.triple", 5)
        assert future.result(60) == 15
        assert client.wait(future) == client.wait(future.id, 60) == 15
        assert client.wait(client.invoke("sdk.triple", x=5), 60) == 15
        assert client.wait(client.start("sdk.triple", [5]), 60) == 15
        assert client.task(future).status == "succeeded"
        with pytest.raises(TypeError, match="unexpected keyword argument"):
            client.invoke("sdk.triple", y=5).result(60)
        with pytest.raises(InputError, match="not plain JSON"):
            client.invoke("sdk.triple", object())
        with pytest.raises(FunctionNotFound):
            client.invoke("sdk.nothing")
        with pytest.raises(SiteNotFound):
            client.invoke("sdk.triple", 5, site="mars")

    def test_a_future_of_invoke_is_one_of_concurrent_futures(self, client: Client) -> None:
        client.register(time.sleep, "sdk.sleep")
        client.register(triple, "sdk.triple")
        long, short = client.invoke("sdk.sleep", 600), client.invoke("sdk.triple", 5)
        assert concurrent.futures.wait([long, short], 60, concurrent.futures.FIRST_COMPLETED).done == {short}
        wait_for(long.running, "it runs")
        with pytest.raises(TimeoutError, match=f"{long.id} is not done yet; it runs on"):
            client.wait(long, 0.1)
        assert long.cancel()
        wait_for(lambda: client.task(long).status == "cancelled", "it is cancelled at the site too")

    def test_wait_gives_python_objects_of_anybodys_task(self, client: Client, executor: Executor) -> None:
        future = executor.submit(lambda: {1, 2})
        assert client.wait(future.id, 60) == {1, 2}
        assert future.result(60) == {1, 2}
        assert client.wait(future.id, 60) == {1, 2}, "long after"

    def test_wait_has_an_end(self, client: Client, executor: Executor) -> None:
        with pytest.raises(TaskNotFound):
            client.wait("nothing", 30)
        future = executor.submit(time.sleep, 600)
        with pytest.raises(TimeoutError, match="it runs on"):
            client.wait(future.id, 2)
        future.cancel()

    def test_rules_are_listed_page_by_page(self, client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
        names = [f"paged-{n}" for n in range(5)]
        client.apply_rules("rules:\n" + "\n".join(
            f"  - {{name: {name}, upon: {{type: [x]}}, run: {{function: f}}}}" for name in names
        ))  # fmt: skip
        for page in (2, 5, 1_000):
            monkeypatch.setattr("upon.sdk.rules.PAGE", page)
            found = [rule.name for rule in client.rules()]
            assert found == sorted(found)
            assert [name for name in found if name in names] == names
        for name in names:
            client.delete_rule(name)

    def test_a_rule_from_apply_to_delete(self, client: Client) -> None:
        client.register(triple, "sdk.triple")
        (rule,) = client.apply_rules(RULE, "rules.yaml")
        assert rule.name in {r.name for r in client.rules()}
        with client.watch(events=True, tasks=True) as changes:
            seen: list[api.EventSeen | api.TaskChanged] = []

            def fired() -> api.Task | None:
                client.publish(Event(type="sdk.number", source="/test", subject="S", data={"n": 14}))
                while (change := changes.next(0.5)) is not None:
                    seen.append(change)
                    if isinstance(change, api.TaskChanged) and change.task.rule == "sdk-triples":
                        return change.task
                return None

            task = wait_for(fired, "the rule has fired")
        assert client.wait(task.id, 60) == 42
        whole = client.task(task.id)
        assert whole.event is not None
        assert (whole.event.subject, whole.rule_revision) == ("S", rule.revision)
        assert any(isinstance(change, api.EventSeen) and change.event["type"] == "sdk.number" for change in seen)
        client.delete_rule("sdk-triples")
        with pytest.raises(RuleNotFound):
            client.delete_rule("sdk-triples")

    def test_a_wrong_rule_keeps_its_place(self, client: Client) -> None:
        with pytest.raises(RuleError) as caught:
            client.apply_rules("version: 1\nrules:\n  - name: x\n    upn: {}\n", "mine.yaml")
        assert (caught.value.file, caught.value.line > 0) == ("mine.yaml", True)

    def test_several_events_at_once(self, client: Client) -> None:
        events = [Event(type="sdk.many", source="/test", subject=str(n)) for n in range(10)]
        assert client.publish(events) == [event.id for event in events]
        assert client.publish([]) == []

    def test_what_there_is(self, client: Client) -> None:
        assert [site.name for site in client.sites()] == ["local"]
        assert client.status().kafka
        assert isinstance(client.deadletters(limit=1), list)
        assert len(client.tasks(limit=1)) <= 1
        with pytest.raises(TaskNotFound):
            client.task("nothing")
        with pytest.raises(TaskNotFound):
            client.cancel("nothing")


def test_what_a_task_asks_for_is_checked_at_once_and_travels(system: System) -> None:
    with Executor(home=system.home) as executor:
        asked = executor.options(memory="300MB", priority=3, limits={"sdk": 1})
        assert asked.submit(pow, 2, 3).result(60) == 8
        for wrong in ({"cores": 0}, {"memory": "much"}, {"priority": 5000}, {"limits": {"": 1}}, {"accelerators": -1}):
            with pytest.raises(InputError):
                executor.options(**wrong)  # type: ignore[arg-type]
    with Client(home=system.home) as client:
        client.register(triple, "sdk.asked")
    asking = ("--memory", "300MB", "--cores", "1", "--priority", "1", "--kwargs", '{"x": 2}')
    assert system.run("invoke", "sdk.asked", *asking).stdout.strip() == "6"
