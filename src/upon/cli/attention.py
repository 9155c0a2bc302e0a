"""What somebody should look at, in a line or two: failed tasks, dead letters, what is amiss with store or registry."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from upon.api import Summary


def attention(summary: Summary) -> list[str]:
    """Return the lines; none: there is nothing to look at."""
    said = []
    if failed := summary.tasks.get("failed", 0):
        said.append(f"{failed:,} failed task{'' if failed == 1 else 's'} (`upon tasks list --status failed`)")
    if letters := summary.deadletters:
        said.append(f"{letters:,} dead letter{'' if letters == 1 else 's'} (`upon deadletters list`)")
    return [*([", ".join(said)] if said else []), *summary.notes]
