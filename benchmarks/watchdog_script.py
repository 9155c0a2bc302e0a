"""What beamlines write today, measured in the same run: a process pool, and a watchdog script over one."""

from __future__ import annotations

import multiprocessing
import os
import queue
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from watchdog.events import FileClosedEvent, FileSystemEventHandler
from watchdog.observers import Observer

EVENTS = 300


def process_pool() -> ProcessPoolExecutor:
    """Return the standard library's answer to `Executor`: one machine, in memory, lost with the process."""
    return ProcessPoolExecutor(os.cpu_count(), mp_context=multiprocessing.get_context("forkserver"))


def started_at(path: str) -> int:
    """Return when the function began, ns."""
    return time.time_ns()


def measure() -> tuple[list[float], list[float]]:
    """Return ms from file complete to started, and to result, of the script that beamlines write today."""
    started, finished = [], []
    results: queue.Queue[tuple[str, int]] = queue.Queue()
    with tempfile.TemporaryDirectory(prefix="upon-peer-") as folder, process_pool() as pool:

        class Handler(FileSystemEventHandler):
            def on_closed(self, event: FileClosedEvent) -> None:  # type: ignore[override]
                future = pool.submit(started_at, str(event.src_path))
                future.add_done_callback(lambda f: results.put((str(event.src_path), f.result())))

        pool.submit(started_at, "").result()
        observer = Observer()
        observer.schedule(Handler(), folder)
        observer.start()
        try:
            for number in range(EVENTS):
                path = Path(folder) / f"frame_{number:04}.dat"
                with path.open("wb") as file:
                    file.write(b"x" * 10_000)
                complete = time.time_ns()
                _, began = results.get(timeout=30)
                started.append((began - complete) / 1e6)
                finished.append((time.time_ns() - complete) / 1e6)
        finally:
            observer.stop()
            observer.join()
    return started, finished
