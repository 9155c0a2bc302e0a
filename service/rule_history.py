"""How much of the rules' history is kept, and what of it can go: pure. `upon.service.retention` asks now and then.

    activations   kept: those that decide over an event that Kafka still has, and of each rule the last `CHANGES`
    revisions     kept: those that kept activations name, and of each rule the newest (its number is given once)

One record of activations is about all rules of a request; it stays as long as one of them needs it.
"""

from __future__ import annotations

from collections.abc import Iterator

from upon.registry import Registry

CHANGES = 20
"""Changes of each rule that its history shows, however old they are."""


def prunable(registry: Registry, before: int, changes: int = CHANGES) -> Iterator[bytes]:
    """Yield the keys of records that nothing needs, activations first: without them revisions mean nothing.

    None as long as each rule has few changes.

    Args:
        before: Kafka has no event that is older, ns since the epoch.
        changes: how many of each rule are kept, at least 1.
    """
    if all(len(timeline) <= changes for timeline in registry.timelines.values()):
        return
    needed: set[int] = set()
    for timeline in registry.timelines.values():
        last = len(timeline) - changes
        needed.update(
            one.number
            for index, one in enumerate(timeline)
            if index >= last or timeline[index + 1].since >= before  # until then, events met it
        )
    gone = registry.activations.keys() - needed
    yield from (f"activations/{number}".encode() for number in sorted(gone))
    for rule, revisions in registry.revisions.items():
        if len(revisions) > 1:  # the newest stays
            named = {one.activation.revision for one in registry.timelines.get(rule, ()) if one.number not in gone}
            yield from (f"rule/{rule}@{one}".encode() for one in sorted(revisions)[:-1] if one not in named)
