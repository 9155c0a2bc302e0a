"""Locks that a forked child finds open: whoever held one in the parent is not there any more to release it."""

from __future__ import annotations

import os
import threading
from typing import Any


def lock() -> Any:
    """Return a reentrant lock for a module's own state, which lives as long as the process."""
    made = threading.RLock()
    os.register_at_fork(after_in_child=made._at_fork_reinit)  # type: ignore[attr-defined]
    return made
