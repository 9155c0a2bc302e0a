"""Who gets which queued task: a share for each idle worker, and some ahead for those whose tasks are quick.

A worker that holds tasks ahead needs no round trip between them, which makes short tasks fast. Nothing is risked by
it: what waits behind a long task is taken back as soon as another worker has nothing to do (`crowded`).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from upon.dispatcher.protocol import Assignment
from upon.endpoint.channel import MAX_AHEAD, Task, ToWorker
from upon.endpoint.code import CodeCache
from upon.endpoint.instructions import Give, Instruction
from upon.endpoint.worker_record import Worker

AHEAD_BYTES = 1024 * 1024
"""Bytes of arguments past which a worker gets no further task ahead."""
QUICK = 0.01
"""Seconds: a worker whose task has run for longer gets nothing ahead."""


def deal(
    queue: deque[Assignment], workers: Sequence[Worker], codes: CodeCache, now: float, out: list[Instruction]
) -> list[Assignment]:
    """Move tasks from the queue to workers, one to each in turn, so that they begin in the queue's order.

    Args:
        queue: what waits; it is shortened.
        workers: those that can be given tasks; they are changed.
        now: monotonic s.
        out: gets a Give for each worker that has got something.

    Returns:
        Tasks whose code is not in the cache (any more); they are not in the queue either.
    """
    wanting: list[Assignment] = []
    if not queue or not workers:
        return wanting
    share = min(MAX_AHEAD, -(-len(queue) // len(workers)))
    rooms = [(worker, share) for worker in workers if worker.running is None and not worker.ahead]
    rooms += [
        (worker, share - len(worker.ahead))
        for worker in workers
        if worker.running is not None and len(worker.ahead) <= MAX_AHEAD // 2 and now - worker.since < QUICK
    ]
    hands: list[tuple[Worker, list[ToWorker], list[int]]] = [(worker, [], []) for worker, _ in rooms]
    for turn in range(share):
        if not queue:
            break
        for (worker, messages, seqs), (_, room) in zip(hands, rooms, strict=True):
            if turn < room and queue and (worker.ahead_bytes < AHEAD_BYTES or not worker.ahead):
                task = queue.popleft()
                if task.code not in worker.codes:
                    body = codes.get(task.code)
                    if body is None:
                        wanting.append(task)
                        continue
                    worker.codes.add(task.code)
                    messages.append(body)
                seq, worker.next_seq = worker.next_seq, worker.next_seq + 1
                worker.ahead.append((seq, task))
                worker.ahead_bytes += len(task.payload)
                seqs.append(seq)
                messages.append(Task(seq, task.code, task.function, task.payload, task.items, task.cause))
    out.extend(Give(worker.number, messages, seqs) for worker, messages, seqs in hands if messages)
    return wanting


def crowded(workers: Sequence[Worker]) -> Worker | None:
    """Return the worker where tasks wait behind another one while some worker has nothing to do."""
    if not any(worker.running is None and not worker.ahead for worker in workers):
        return None
    fullest = max(workers, key=_load)
    return fullest if fullest.ahead and _load(fullest) > 1 else None


def _load(worker: Worker) -> int:
    return len(worker.ahead) + (worker.running is not None)
