"""One peer, measured in the peers' own environment: no-ops per second with single submits, and the round trip.

    python benchmarks/peer.py NAME FOLDER        one line of JSON: version, rate, times in ms

Each peer is a context that yields (submit, wait, version): `submit(number)` returns a handle, `wait(handles)` the
values in order. Each is used as its own documentation says, on this machine alone, with two workers. Run by
`python -m benchmarks.peers`; imports nothing of Upon's, for that is not installed there.
"""

from __future__ import annotations

import importlib.metadata
import json
import logging
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

WORKERS = 2
ROUND_TRIPS = 200
WARM_UP = 100
SECONDS = 4.0
"""About how long the burst is to take: its length is found by a pilot."""
PILOT = 200
MOST = 30_000
PATIENCE = 120.0

Peer = tuple[Callable[[int], Any], Callable[[list[Any]], list[int]], str]


def noop(value: int = 0) -> int:
    """Return what comes in: all that is measured is the way."""
    return value


def measure(submit: Callable[[int], Any], wait: Callable[[list[Any]], list[int]]) -> tuple[float, list[float]]:
    """Return no-ops per second over single submits, and ms of round trips, one at a time."""
    wait([submit(number) for number in range(WARM_UP)])
    times = []
    for number in range(ROUND_TRIPS):
        began = time.perf_counter()
        assert wait([submit(number)]) == [number]
        times.append((time.perf_counter() - began) * 1000)
    rate = _burst(submit, wait, PILOT)
    return _burst(submit, wait, min(MOST, max(PILOT, int(rate * SECONDS)))), times


def _burst(submit: Callable[[int], Any], wait: Callable[[list[Any]], list[int]], count: int) -> float:
    began = time.perf_counter()
    values = wait([submit(number) for number in range(count)])
    took = time.perf_counter() - began
    assert values == list(range(count))
    return count / took


@contextmanager
def process_pool(folder: Path) -> Iterator[Peer]:
    import multiprocessing
    from concurrent.futures import ProcessPoolExecutor

    with ProcessPoolExecutor(WORKERS, mp_context=multiprocessing.get_context("forkserver")) as pool:
        yield lambda number: pool.submit(noop, number), _results, sys.version.split()[0]


@contextmanager
def parsl_htex(folder: Path) -> Iterator[Peer]:
    import parsl
    from parsl.config import Config
    from parsl.executors import HighThroughputExecutor
    from parsl.launchers import SimpleLauncher
    from parsl.providers import LocalProvider

    executor = HighThroughputExecutor(
        label="htex",
        address="127.0.0.1",
        loopback_address="127.0.0.1",
        max_workers_per_node=WORKERS,
        encrypted=True,
        provider=LocalProvider(init_blocks=1, max_blocks=1, launcher=SimpleLauncher()),
    )
    with parsl.load(Config(executors=[executor], run_dir=str(folder / "parsl"), usage_tracking=0)):
        app = parsl.python_app(noop)
        yield app, _results, importlib.metadata.version("parsl")
        parsl.dfk().cleanup()


@contextmanager
def dask(folder: Path) -> Iterator[Peer]:
    from distributed import Client, LocalCluster

    with (
        LocalCluster(
            n_workers=WORKERS, threads_per_worker=1, host="127.0.0.1", dashboard_address=None, local_directory=folder
        ) as cluster,
        Client(cluster) as client,
    ):
        submit = lambda number: client.submit(noop, number, pure=False)  # noqa: E731
        yield submit, client.gather, importlib.metadata.version("distributed")


@contextmanager
def ray(folder: Path) -> Iterator[Peer]:
    import ray as library

    library.init(num_cpus=WORKERS, include_dashboard=False, _temp_dir=str(folder), _node_ip_address="127.0.0.1")
    try:
        remote = library.remote(noop)
        yield remote.remote, library.get, library.__version__
    finally:
        library.shutdown()


@contextmanager
def celery(folder: Path) -> Iterator[Peer]:
    with _redis(folder) as url:
        os.environ["PEER_REDIS"] = url
        command = [sys.executable, "-m", "celery", "--app", "peer_tasks:celery_app", "worker", "--concurrency",
                   str(WORKERS), "--loglevel", "ERROR", "--without-gossip", "--without-mingle"]  # fmt: skip
        with _process(command, folder):
            import peer_tasks

            wait = lambda found: [one.get(timeout=PATIENCE) for one in found]  # noqa: E731
            yield peer_tasks.celery_noop.delay, wait, importlib.metadata.version("celery")


@contextmanager
def dramatiq(folder: Path) -> Iterator[Peer]:
    with _redis(folder) as url:
        os.environ["PEER_REDIS"] = url
        command = [sys.executable, "-m", "dramatiq", "peer_tasks:dramatiq_broker", "--processes", str(WORKERS),
                   "--threads", "1"]  # fmt: skip
        with _process(command, folder):
            import peer_tasks

            def wait(found: list[Any]) -> list[int]:
                return [one.get_result(block=True, timeout=int(PATIENCE * 1000)) for one in found]

            yield peer_tasks.dramatiq_noop.send, wait, importlib.metadata.version("dramatiq")


@contextmanager
def zeromq(folder: Path) -> Iterator[Peer]:
    """What pickle, a Future for each task and a socket cost: nothing is kept, retried or watched.

    Tasks share a message when 64 wait, or when results are waited for.
    """
    import pickle
    from concurrent.futures import Future

    import zmq

    context = zmq.Context()
    socket = context.socket(zmq.DEALER)
    socket.set_hwm(0)
    port = socket.bind_to_random_port("tcp://127.0.0.1")
    code = "import peer, sys; peer.zeromq_worker(int(sys.argv[1]))"
    workers = [
        subprocess.Popen([sys.executable, "-c", code, str(port)], cwd=Path(__file__).parent) for _ in range(WORKERS)
    ]
    queued: list[tuple[int, bytes]] = []
    unfinished: dict[int, Future[int]] = {}

    def submit(number: int) -> Future[int]:
        future: Future[int] = Future()
        unfinished[id(future)] = future
        queued.append((id(future), pickle.dumps((int, (number,), {}))))
        if len(queued) >= 64:
            leave()
        return future

    def leave() -> None:
        if queued:
            socket.send(pickle.dumps(queued))
            queued.clear()

    def wait(found: list[Any]) -> list[int]:
        leave()
        while unfinished:
            for task, result in pickle.loads(socket.recv()):
                unfinished.pop(task).set_result(pickle.loads(result))
        return _results(found)

    try:
        yield submit, wait, str(zmq.__version__)
    finally:
        for one in workers:
            one.kill()
            one.wait()
        context.destroy(linger=0)


def zeromq_worker(port: int) -> None:
    """Answer until killed."""
    import pickle

    import zmq

    socket = zmq.Context().socket(zmq.DEALER)
    socket.set_hwm(0)
    socket.connect(f"tcp://127.0.0.1:{port}")
    while True:
        done = []
        for task, call in pickle.loads(socket.recv()):
            function, args, kwargs = pickle.loads(call)
            done.append((task, pickle.dumps(function(*args, **kwargs))))
        socket.send(pickle.dumps(done))


def _results(found: list[Any]) -> list[int]:
    return [one.result(timeout=PATIENCE) for one in found]


@contextmanager
def _redis(folder: Path) -> Iterator[str]:
    """A Redis of our own, on 127.0.0.1, without persistence."""
    import socket

    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
    with _process(command, folder):
        import redis

        client = redis.Redis(port=port)
        give_up = time.monotonic() + 10
        while True:
            try:
                client.ping()
                break
            except redis.ConnectionError:
                if time.monotonic() > give_up:
                    raise
                time.sleep(0.02)
        yield f"redis://127.0.0.1:{port}/0"


@contextmanager
def _process(command: list[str], folder: Path) -> Iterator[None]:
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parent)}
    with (folder / f"{Path(command[0]).name}.log").open("ab") as log:
        process = subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=log)
    try:
        yield
    finally:
        process.terminate()
        process.wait(20)


PEERS = {peer.__name__: peer for peer in (process_pool, zeromq, parsl_htex, dask, ray, celery, dramatiq)}


def main() -> None:
    """Measure one peer."""
    logging.disable(logging.WARNING)
    with PEERS[sys.argv[1]](Path(sys.argv[2])) as (submit, wait, version):
        rate, times = measure(submit, wait)
        print(json.dumps({"version": version, "rate": rate, "times": times}), flush=True)


if __name__ == "__main__":
    main()
