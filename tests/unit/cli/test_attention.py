from __future__ import annotations

from upon.api import Summary
from upon.cli.attention import attention


def summary(failed: int = 0, deadletters: int = 0, notes: tuple[str, ...] = ()) -> Summary:
    return Summary(tasks={"failed": failed, "pending": 3}, deadletters=deadletters, notes=list(notes), retention={})


def test_nothing_to_look_at_is_no_line() -> None:
    assert attention(summary()) == []


def test_counts_are_said_with_the_command_that_shows_them() -> None:
    assert attention(summary(failed=1)) == ["1 failed task (`upon tasks list --status failed`)"]
    assert attention(summary(deadletters=1)) == ["1 dead letter (`upon deadletters list`)"]
    assert attention(summary(1_200, 2)) == [
        "1,200 failed tasks (`upon tasks list --status failed`), 2 dead letters (`upon deadletters list`)"
    ]


def test_what_was_amiss_with_the_store_is_a_line_of_its_own() -> None:
    assert attention(summary(0, 2, ("made anew",))) == ["2 dead letters (`upon deadletters list`)", "made anew"]
