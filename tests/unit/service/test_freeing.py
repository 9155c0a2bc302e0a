"""What of the store is freed, and what stays."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from upon.service.freeing import ORPHAN, YOUNG, Ended, choose
from upon.store.reference import ARGUMENTS, RESULT, new_key
from upon.store.store import Blob

NOW, DAY = 1_000_000_000.0, 86400.0
KEEP = 7 * DAY


def blob(task: str, kind: str = "r", age: float = 10.0, size: int = 1) -> Blob:
    return Blob(new_key(task, RESULT if kind == "r" else ARGUMENTS), size, NOW - age)


def ended(status: str, ago: float = 10.0) -> Ended:
    return Ended(status, int((NOW - ago) * 1e9))


def freed(blobs: list[Blob], tasks: dict[str, Ended], known: set[str] | None = None, bound: int = 0) -> list[str]:
    found = choose(blobs, tasks, known or set(), NOW, KEEP, bound)
    assert len({one.key for one in found}) == len(found)
    return [one.key.partition(".")[0] + one.key.partition(".")[2][0] for one in found]


def test_arguments_stay_until_their_task_has_succeeded_or_cannot_be_tried_again() -> None:
    tasks = {
        "runs": Ended("running", 0),
        "waits": Ended("pending", 0),
        "done": ended("succeeded"),
        "failed": ended("failed"),
        "cancelled": ended("cancelled"),
        "old": ended("failed", KEEP + 1),
    }
    assert freed([blob(task, "a", age=8 * DAY) for task in tasks], tasks) == ["donea", "olda"]


def test_results_stay_for_a_time_after_the_end() -> None:
    tasks = {"new": ended("succeeded"), "failed": ended("failed", KEEP - 1), "old": ended("succeeded", KEEP + 1),
             "runs": Ended("running", 0)}  # fmt: skip
    assert freed([blob(task, age=30 * DAY) for task in tasks], tasks) == ["oldr"]


def test_what_no_record_names_goes_after_a_day() -> None:
    assert freed([blob("new", age=ORPHAN - 1), blob("old", age=ORPHAN + 1)], {}) == ["oldr"]
    parts = [Blob(f".{new_key('t', RESULT)}.part", 1, NOW - age) for age in (ORPHAN - 1, ORPHAN + 1)]
    assert choose(parts, {}, set(), NOW, KEEP, 0) == parts[1:]


def test_what_a_pruned_task_had_goes_at_once() -> None:
    assert freed([blob("pruned"), blob("pruned", "a"), blob("unknown")], {}, {"pruned"}) == ["prunedr", "pruneda"]


def test_of_a_task_whose_id_is_no_name_of_a_file_the_age_tells() -> None:
    assert len(freed([blob("a/b", age=KEEP - 1)], {})) == 0
    assert len(freed([blob("a/b", age=KEEP + 1)], {})) == 1


def test_past_the_bound_those_go_that_ended_first() -> None:
    tasks = {f"t{n}": ended("succeeded", YOUNG + 100 - n) for n in range(4)} | {"young": ended("succeeded", YOUNG - 1)}
    tasks["runs"] = Ended("running", 0)
    blobs = [blob(task, size=10) for task in reversed(tasks)]
    assert freed(blobs, tasks, bound=60) == []
    assert freed(blobs, tasks, bound=45) == ["t0r", "t1r"]
    assert freed(blobs, tasks, bound=1) == ["t0r", "t1r", "t2r", "t3r"]
    assert freed([*blobs, blob("t9", "a", size=100)], tasks | {"t9": ended("succeeded")}, bound=60) == ["t9a"]


@given(
    st.lists(st.tuples(st.sampled_from("ar"), st.integers(0, 20), st.integers(0, 10**10)), max_size=20),
    st.dictionaries(
        st.integers(0, 20).map(lambda n: f"t{n}"),
        st.sampled_from(["pending", "running", "succeeded", "failed"]),
        max_size=20,
    ),
    st.integers(0, 10**11),
)
def test_what_a_task_that_is_not_done_needs_is_never_freed(
    found: list[tuple[str, int, int]], statuses: dict[str, str], bound: int
) -> None:
    tasks = {id: ended(status, 2 * DAY) for id, status in statuses.items()}
    blobs = [blob(f"t{n}", kind, age=40 * DAY, size=size) for kind, n, size in found]
    gone = {one[:-1] for one in freed(blobs, tasks, set(statuses), bound)}
    assert not any(statuses.get(id) in ("pending", "running") for id in gone)
