"""CPython's own tests of executors (Debian: libpython3.11-testsuite), run against `upon.Executor`.

Taken are those that make sense where the workers are elsewhere. Left out as a whole:
- `InitializerMixin`, `FailingInitializerMixin`: Upon's workers have no initializer; they serve many executors.
- `FutureTests` and the tests of `Future`'s own methods: they make futures by hand, no executor is in them.
- `ThreadPool…` and `ProcessPool…Test`: they look into a pool's threads, processes and queues, share locks, lists and
  semaphores with the workers, or set a pool's size; `test_map_chunksize` is the exception.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import sys
import unittest
from pathlib import Path
from typing import Any

import pytest

from tests.systems import System, wait_for
from upon import Executor

DEBIANS = Path("/usr/lib/python3.11/test/test_concurrent_futures.py")
"""Where the package puts them, for Debian's own Python; another 3.11 reads them there too."""


def cpythons_tests() -> Any:
    if sys.version_info[:2] != (3, 11):
        pytest.skip("written against the tests of CPython 3.11", allow_module_level=True)
    with contextlib.suppress(ImportError):
        return importlib.import_module("test.test_concurrent_futures")
    if not DEBIANS.exists():
        if os.environ.get("CI"):
            raise FileNotFoundError(f"{DEBIANS}: install libpython3.11-testsuite")
        pytest.skip("CPython's tests are not installed (Debian: libpython3.11-testsuite)", allow_module_level=True)
    spec = importlib.util.spec_from_file_location("cpython_executor_tests", DEBIANS)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


cpython: Any = cpythons_tests()


class OnUpon(unittest.TestCase):
    """What CPython's tests expect of the class that they are mixed into: an executor for each test."""

    worker_count = 2
    executor: Executor

    @pytest.fixture(autouse=True)
    def _executor(self, system: System) -> Any:
        self.executor = executor = self.executor_type(home=system.home)
        yield
        for future in executor._unfinished():
            future.cancel()  # what only was to take long
        executor.shutdown()

    executor_type: type[Executor] = Executor


class TestExecutor(cpython.ExecutorTest, OnUpon):  # type: ignore[misc]
    test_max_workers_negative = None  # the number of workers is the site's

    # The one test of a process pool that is about what any executor does.
    test_map_chunksize = cpython.ProcessPoolExecutorTest.test_map_chunksize


class TestWait(cpython.WaitTests, OnUpon):  # type: ignore[misc]
    pass


class TestAsCompleted(cpython.AsCompletedTests, OnUpon):  # type: ignore[misc]
    test_free_reference_yielded_future = None  # no executor is in it
    test_correct_timeout_exception_msg = None  # no executor is in it


class OnceOneHasBegun(Executor):
    """A pool's first tasks have begun when `submit` returns, elsewhere they do a moment later: wait for that."""

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        left = self._unfinished()
        if left and cancel_futures:
            wait_for(lambda: any(one.running() or one.done() for one in left), "one has begun")
        super().shutdown(wait, cancel_futures=cancel_futures)


class TestShutdown(cpython.ExecutorShutdownTest, OnUpon):  # type: ignore[misc]
    executor_type = OnceOneHasBegun

    # Scripts that make an executor of the standard library by name; ours in such scripts: tests/unit/sdk.
    test_interpreter_shutdown = None
    test_submit_after_interpreter_shutdown = None
    test_hang_gh83386 = None
