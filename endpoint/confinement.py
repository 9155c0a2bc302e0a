"""What a task sees of its node when it was promised resources: its cores and its accelerators, for as long as it runs.

The environment is put back after every task (`upon.endpoint.leftovers`); the cores are, here.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

from upon.endpoint.channel import Task

VISIBLE = ("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES", "ZE_AFFINITY_MASK")
"""Variables that tell libraries which accelerators there are: of NVIDIA, AMD, Intel."""


@contextlib.contextmanager
def confined(task: Task) -> Iterator[None]:
    """Let what is called within see a task's resources, and no others."""
    if task.accelerators is not None:
        os.environ.update(dict.fromkeys(VISIBLE, ",".join(task.accelerators)))
    if not task.cores or not hasattr(os, "sched_setaffinity"):
        yield
        return
    before = os.sched_getaffinity(0)
    with contextlib.suppress(OSError):  # a core that went meanwhile
        os.sched_setaffinity(0, task.cores)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            os.sched_setaffinity(0, before)
