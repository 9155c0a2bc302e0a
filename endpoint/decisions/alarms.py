"""When something is due for a worker's task: the next first, at a heap's cost, however many workers there are. Pure.

A time that has lost its meaning (the task has ended, or the time was told another way) is passed over when it comes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from heapq import heapify, heappop, heappush

from upon.endpoint.decisions.worker_record import Worker, next_event

SLACK = 64
"""Entries that may be stale beside two for each worker, before the heap is made anew."""


class Alarms:
    """The next event of each worker that runs something; `workers` is the pool's own table."""

    def __init__(self, workers: Mapping[int, Worker]) -> None:
        self._workers = workers
        self._heap: list[tuple[float, int, int]] = []  # monotonic s, worker, seq of its task

    @property
    def next(self) -> float:
        """When `due` has something, in monotonic s; it may have nothing then."""
        return self._heap[0][0] if self._heap else float("inf")

    def set(self, worker: Worker) -> None:
        """Remember a worker's next event."""
        heap, at = self._heap, next_event(worker)
        if at == float("inf"):
            return
        heappush(heap, (at, worker.number, worker.seq))
        if len(heap) > 2 * len(self._workers) + SLACK:
            heap[:] = {entry for entry in heap if self._means(entry)}
            heapify(heap)

    def due(self, now: float) -> Iterator[Worker]:
        """Yield the workers for which something is due now; who has another event after that is to be `set` again."""
        heap = self._heap
        while heap and (heap[0][0] <= now or not self._means(heap[0])):
            entry = heappop(heap)
            if self._means(entry):
                yield self._workers[entry[1]]

    def _means(self, entry: tuple[float, int, int]) -> bool:
        at, number, seq = entry
        worker = self._workers.get(number)
        return worker is not None and worker.running is not None and worker.seq == seq and next_event(worker) == at
