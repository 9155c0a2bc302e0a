from __future__ import annotations

import pytest

from upon.cli.tasks import the_one
from upon.errors import TaskNotFound


def test_a_beginning_that_is_the_only_one() -> None:
    ids = ["abc1", "abd2", "own"]
    assert the_one("abc", ids) == "abc1"
    assert the_one("own", ids) == "own"
    assert the_one("unknown", ids) == "unknown"
    with pytest.raises(TaskNotFound, match="2 tasks begin with ab: abc1, abd2"):
        the_one("ab", ids)
