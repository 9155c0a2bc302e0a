"""Code that nobody needs any more, and its end: pure decisions. `upon.service.retention` asks for them now and then.

An Executor's functions have no name: each lambda over other data is other code, and would stay for good. What the
registry says is enough to decide, so that replicas, and a service that was started anew, decide alike:

    created        when code was last registered. The SDK registers what it submits, once in an hour; the service
                   writes the record anew when the last one is `RENEWED` of the limit old.
    so             a task of this code was submitted before `created` + RENEWED of the limit (and an hour)
    it is dropped  when `created` is `limit` old, no version of a function has it, and no task is unfinished that was
                   submitted before `created` + limit / 2: a task may be queued for weeks at a site that is down

For the code of a version that was deleted, `created` is when that was done: until then it was called by its name.

Dropped code is a tombstone in upon.registry. Whoever uses it again registers it again.
"""

from __future__ import annotations

from upon.registry import Registry

RENEWED = 0.25
"""Part of the limit after which code that is registered again is written again."""


def is_due(created: int, now: int, limit: float) -> bool:
    """Tell whether code that is registered now is to be written.

    Args:
        created: when it was last written, ns since the epoch; 0 = never.
        now: ns since the epoch.
        limit: s that unused code is kept; 0 = for good.
    """
    return not created or (limit > 0 and now - created > limit * RENEWED * 1e9)


def unused(registry: Registry, now: int, limit: float, oldest: int) -> list[str]:
    """Return the code that is to be dropped, by hash.

    Args:
        now, limit: as for `is_due`.
        oldest: when the oldest task that is not done was submitted, ns since the epoch; 0 = all are done.
    """
    if limit <= 0:
        return []
    named = {record.code for versions in registry.functions.values() for record in versions.values()}
    used = dict(registry.codes)
    for record in (record for versions in registry.deleted.values() for record in versions.values()):
        used[record.code] = max(used.get(record.code, 0), record.deleted)
    span = int(limit * 1e9)
    return [
        code
        for code in registry.codes
        if used[code] + span < now and code not in named and not (0 < oldest <= used[code] + span // 2)
    ]
