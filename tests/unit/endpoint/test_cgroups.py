"""What is written into a cgroup's files and read from them, where a folder stands in for one: their forms."""

from __future__ import annotations

from pathlib import Path

from upon.dispatcher.protocol import Assignment
from upon.endpoint.cgroups import bound, exceeded
from upon.endpoint.channel import Task
from upon.endpoint.confinement import confined
from upon.endpoint.decisions.worker_record import Worker, bounded
from upon.messages import Resources


def folder(path: Path, events: str) -> str:
    for name in ("memory.max", "memory.swap.max"):
        (path / name).write_text("max\n")
    (path / "memory.events").write_text(events)
    return str(path)


def test_a_bound_holds_while_the_task_runs(tmp_path: Path) -> None:
    cgroup = folder(tmp_path, "")
    with confined(Task(0, "c", "f", b"", memory=1000), cgroup):
        assert (tmp_path / "memory.max").read_text().startswith("1000")
        assert (tmp_path / "memory.swap.max").read_text().startswith("0")
    assert (tmp_path / "memory.max").read_text().startswith("max")
    bound(str(tmp_path / "nothing"), 1000)


def test_a_kill_for_the_bound_is_told_apart_from_others(tmp_path: Path) -> None:
    quiet = "low 0\nhigh 0\nmax 3\noom 0\noom_kill 0\noom_group_kill 0\n"
    cgroup = folder(tmp_path, quiet)
    assert exceeded(cgroup) == 0
    (tmp_path / "memory.events").write_text(quiet.replace("oom_kill 0", "oom_kill 1"))
    assert exceeded(cgroup) == 0, "the whole system had no memory"
    (tmp_path / "memory.events").write_text(quiet.replace("oom 0", "oom 1").replace("oom_kill 0", "oom_kill 1"))
    (tmp_path / "memory.max").write_text("1000\n")
    assert exceeded(cgroup) == 1000
    (tmp_path / "memory.peak").write_text("1004\n")
    assert exceeded(cgroup) == 1004
    assert exceeded(str(tmp_path / "nothing")) == 0


def test_who_is_bounded_by_the_kernel_is_not_looked_at() -> None:
    task = Assignment("a", 1, "c", "f", b"", resources=Resources(memory=1000))
    assert bounded([Worker(1, pid=7, running=task)]) == [(1, 7, 1000)]
    assert bounded([Worker(1, pid=7, running=task, capped=True)]) == []
