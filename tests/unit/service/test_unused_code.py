"""Which code is dropped, and when code is written again."""

from __future__ import annotations

import pytest

from upon.messages import FunctionCode, FunctionRecord
from upon.registry import Registry
from upon.service.unused_code import is_due, unused

DAY = 86400 * 10**9
LIMIT = 8 * 86400.0
NOW = 100 * DAY


def registry(**days: int) -> Registry:
    """Return a registry with code by hash, and how many days ago it was registered."""
    found = Registry()
    for hash, ago in days.items():
        found.apply(FunctionCode(hash=hash, body=b"b", python="3.11", created=NOW - ago * DAY))
    return found


def test_what_is_old_and_has_no_name_is_dropped() -> None:
    found = registry(old=9, new=7, named=9)
    found.apply(FunctionRecord(name="f", version=1, code="named"))
    assert unused(found, NOW, LIMIT, 0) == ["old"]
    assert unused(found, NOW, 0, 0) == [], "0 = for good"
    found.remove(b"function/f@1")
    assert sorted(unused(found, NOW, LIMIT, 0)) == ["named", "old"]


def test_code_of_a_deleted_version_counts_from_then_on() -> None:
    """It was registered long ago, and called by its name until it was deleted."""
    found = registry(old=90)
    found.apply(FunctionRecord(name="f", version=1, code="old"))
    found.apply(FunctionRecord(name="f", version=1, code="old", deleted=NOW - DAY))
    assert unused(found, NOW, LIMIT, NOW) == []
    later = NOW + 8 * DAY
    assert unused(found, later, LIMIT, NOW - 2 * DAY) == [], "a task that was submitted by name waits still"
    assert unused(found, later, LIMIT, later) == ["old"]


@pytest.mark.parametrize(("days_ago", "dropped"), [(30, []), (13, []), (6, []), (4, ["old"]), (1, ["old"])])
def test_what_an_unfinished_task_may_need_stays(days_ago: int, dropped: list[str]) -> None:
    """`old` was registered 9 days ago, for the last time: no task of it was submitted much later."""
    assert unused(registry(old=9), NOW, LIMIT, NOW - days_ago * DAY) == dropped


def test_code_that_is_used_is_written_again_now_and_then() -> None:
    assert is_due(0, NOW, LIMIT)
    assert is_due(0, NOW, 0)
    assert not is_due(NOW - 1 * DAY, NOW, LIMIT)
    assert is_due(NOW - 3 * DAY, NOW, LIMIT)
    assert not is_due(NOW - 300 * DAY, NOW, 0), "kept for good"


def test_a_registry_holds_no_bodies() -> None:
    found = Registry()
    found.apply(FunctionCode(hash="h", body=b"b" * 1000, python="3.11", created=5))
    assert found.codes == {"h": 5}
    found.remove(b"code/h")
    assert found.codes == {}
