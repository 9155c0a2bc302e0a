"""The rule index: how long an event takes among many rules, and one rule's change.

    python -m benchmarks.matching

No servers. Rules are of three kinds: by type and subject, by a field of data, by a field that no other rule names.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from upon.streams.matcher import Matcher
from upon.streams.patterns import Pattern, parse_pattern

SIZES = (10, 1_000, 100_000)


@dataclass(frozen=True, slots=True)
class Numbered:
    pattern: Pattern
    enabled: bool = True


def spec(number: int) -> dict[str, Any]:
    match number % 3:
        case 0:
            return {"type": ["upon.file.ready"], "subject": [{"wildcard": f"/data/{number}/*.h5"}]}
        case 1:
            return {"type": ["sample.ready"], "data": {"sample": {"id": [f"S-{number}"]}}}
        case _:
            return {"data": {f"field{number}": [{"exists": True}, "x"], "kind": [f"k{number}"]}}


def event(number: int) -> dict[str, Any]:
    return {
        "specversion": "1.0", "id": str(number), "source": "/lab", "type": "upon.file.ready",
        "subject": f"/data/{number}/scan.h5",
        "data": {"size": number, "kind": f"k{number + 2}", f"field{number + 2}": "x", "sample": {"id": "S-1"}},
    }  # fmt: skip


def seconds(work: Callable[[], object], times: int) -> float:
    """Return the least CPU time of one call, s."""
    best = float("inf")
    for _ in range(times):
        before = time.process_time()
        work()
        best = min(best, time.process_time() - before)
    return best


def main() -> None:
    for size in SIZES:
        rules = [Numbered(parse_pattern(spec(number))) for number in range(size)]
        before = time.process_time()
        matcher = Matcher(rules)
        built = time.process_time() - before
        events = [event(number) for number in range(0, min(size, 300) - 2, 3)]
        found = sum(len(matcher.match(one)) for one in events)
        assert found == 2 * len(events), found
        each = seconds(lambda m=matcher, some=events: [m.match(one) for one in some], 7) / len(events)  # type: ignore[misc]
        extra = [Numbered(parse_pattern(spec(size + number))) for number in range(300)]
        change = seconds(lambda m=matcher, some=extra: [m.remove(m.add(one)) for one in some], 3) / len(extra)  # type: ignore[misc]
        print(f"{size:>7,} rules: {each * 1e6:6.1f} µs an event, {change * 1e3:7.4f} ms a rule's change, "
              f"{built:5.2f} s to build")  # fmt: skip


if __name__ == "__main__":
    main()
