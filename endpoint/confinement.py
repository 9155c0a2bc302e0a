"""What a task sees of its node when it was promised resources: its cores, its accelerators, its memory.

For as long as it runs: the environment is put back after every task (`upon.endpoint.leftovers`), cores and memory are
here. Memory is bounded here where the worker's cgroup can do that; else its manager looks (`upon.endpoint.memory`).
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

from upon.endpoint import cgroups
from upon.endpoint.channel import Task

VISIBLE = ("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES", "ZE_AFFINITY_MASK")
"""Variables that tell libraries which accelerators there are: of NVIDIA, AMD, Intel."""


@contextlib.contextmanager
def confined(task: Task, cgroup: str = "") -> Iterator[None]:
    """Let what is called within see a task's resources, and no others.

    Args:
        task: what was promised.
        cgroup: path of the worker's, if it bounds memory.
    """
    if task.accelerators is not None:
        os.environ.update(dict.fromkeys(VISIBLE, ",".join(task.accelerators)))
    if not task.cores and not (task.memory and cgroup):
        yield
        return
    with _bound(cgroup, task.memory), _on(task.cores):
        yield


@contextlib.contextmanager
def _bound(cgroup: str, memory: int) -> Iterator[None]:
    if not (cgroup and memory):
        yield
        return
    cgroups.bound(cgroup, memory)
    try:
        yield
    finally:
        cgroups.bound(cgroup, 0)


@contextlib.contextmanager
def _on(cores: tuple[int, ...]) -> Iterator[None]:
    if not cores or not hasattr(os, "sched_setaffinity"):
        yield
        return
    before = os.sched_getaffinity(0)
    with contextlib.suppress(OSError):  # a core that went meanwhile
        os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            os.sched_setaffinity(0, before)
