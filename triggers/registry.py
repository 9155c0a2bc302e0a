"""Finding sources by kind, through the entry-point group `upon.sources`.

Built-in sources are registered there as well (pyproject.toml), so a stranger's are found in the same way:

    [project.entry-points."upon.sources"]
    balance = "my_lab.balance:BalanceSource"
"""

from __future__ import annotations

from importlib.metadata import EntryPoint, entry_points
from typing import Any

from upon.errors import ConfigError
from upon.triggers.source import Source

GROUP = "upon.sources"


def kinds() -> dict[str, EntryPoint]:
    """Return every kind that is installed, by name."""
    return {entry.name: entry for entry in sorted(entry_points(group=GROUP), key=lambda entry: entry.name)}


def find_source(kind: str) -> type[Source[Any]]:
    """Return the class of a kind.

    Raises:
        ConfigError: there is no such kind, or it cannot be imported; the message says what to install.
    """
    found = kinds()
    if kind not in found:
        raise ConfigError(f"no source is of kind {kind!r}; there are: {', '.join(found) or 'none'}")
    entry = found[kind]
    try:
        cls = entry.load()
    except ImportError as error:
        package = entry.dist.name if entry.dist else "its package"
        extra = f"pip install '{package}[{'sources' if kind == 'filesystem' else kind}]'"
        raise ConfigError(f"source kind {kind!r} cannot be imported ({error}): {extra}") from error
    if not (isinstance(cls, type) and issubclass(cls, Source)):
        raise ConfigError(
            f"entry point {kind!r} of {GROUP}, {entry.value}, is no subclass of upon.triggers.source.Source"
        )
    return cls
