"""What was measured on: machine and versions, without which a figure says nothing."""

from __future__ import annotations

import importlib.metadata
import os
import platform

import psutil

LIBRARIES = ("upon", "aiokafka", "faust-streaming", "kafka-python", "pyzmq", "aiohttp", "msgspec", "sqlalchemy")


def describe() -> str:
    """Return two lines on machine and versions."""
    memory = psutil.virtual_memory().total / 1024**3
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in LIBRARIES)
    return (
        f"{os.cpu_count()} cores ({_processor()}), {memory:.0f} GiB, {platform.system()} {platform.release()}, "
        f"Python {platform.python_version()}\nKafka 4.1.0, {versions}"
    )


def _processor() -> str:
    try:
        with open("/proc/cpuinfo") as file:
            return next(line.partition(":")[2].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
