"""Upon an event, run a function where it belongs.

    from upon import Client, Event, Executor

Names are imported when they are first used: a part that needs one of them does not pay for the others.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from upon.events import Event as Event
    from upon.sdk.asynchronous import AsyncClient as AsyncClient
    from upon.sdk.client import Client as Client
    from upon.sdk.executor import Executor as Executor

__version__ = "0.1.0"
__all__ = ["AsyncClient", "Client", "Event", "Executor", "__version__"]

_HOMES = {
    "AsyncClient": "upon.sdk.asynchronous",
    "Client": "upon.sdk.client",
    "Executor": "upon.sdk.executor",
    "Event": "upon.events",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        from importlib import import_module

        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'upon' has no attribute {name!r}")
