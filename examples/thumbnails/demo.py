"""`make demo`: the main job on one machine. Images land in a folder, a rule matches, a function runs, results show.

    python demo.py [WORK_FOLDER]        default .demo, made anew

Exit code 0 only when every image was processed exactly once and its thumbnail is there.
"""

from __future__ import annotations

import json
import shutil
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import skimage
from rich.console import Console
from rich.table import Table

from upon import Client
from upon.api import EventSeen, Task, TaskChanged
from upon.events import time_ns

HERE = Path(__file__).parent
LAST_RESULT = 120.0
"""Seconds that the demo waits for results after the last image."""

console = Console(highlight=False)


@dataclass
class Seen:
    """What the demo saw, by path of the image."""

    complete: dict[str, int] = field(default_factory=dict)  # ns, from the instrument
    tasks: dict[str, list[str]] = field(default_factory=dict)  # ids of the tasks
    done: dict[str, Task] = field(default_factory=dict)
    arrived: dict[str, int] = field(default_factory=dict)  # ns, when the result was here


def main() -> int:
    """Run the demo; return the exit code."""
    work = Path(sys.argv[1] if len(sys.argv) > 1 else ".demo").resolve()
    home, incoming = work / "home", work / "incoming"
    if home.exists():  # of a demo that was killed
        upon("down", home=home)
    shutil.rmtree(work, ignore_errors=True)
    incoming.mkdir(parents=True)
    (work / "sources.yaml").write_text(
        f"version: 1\nsources:\n  - {{name: incoming, kind: filesystem, path: {incoming}}}\n"
    )
    upon("up", "--detach", "--sources", str(work / "sources.yaml"), home=home)
    try:
        upon("functions", "register", f"{HERE / 'thumbs.py'}:make_thumbnail", "--name", "thumbs.make", home=home)
        upon("rules", "apply", str(HERE / "rules.yaml"), home=home)
        with Client(home=home) as client:
            warm_up(client, work)
            seen = watch_the_job(client, incoming)
            return summarize(client, seen)
    finally:
        upon("down", home=home)


def upon(*words: str, home: Path) -> None:
    """Run a command of the CLI, shown as a user would type it."""
    console.print(f"[dim]$ upon {' '.join(words)}[/]", soft_wrap=True)
    subprocess.run([sys.executable, "-m", "upon", *words, "--home", str(home)], check=True)


def warm_up(client: Client, work: Path) -> None:
    """Let every worker import what the function needs, which takes seconds once: as an instrument's night begins."""
    slots = sum(site.slots for site in client.sites())
    console.print(f"[dim]warming up: {slots} workers import scikit-image[/]")
    images = [work / f"warm_up_{number}.tif" for number in range(slots)]
    for image in images:
        shutil.copy(Path(skimage.__file__).parent / "data" / "multipage.tif", image)
    for future in [client.invoke("thumbs.make", str(image)) for image in images]:
        future.result(timeout=LAST_RESULT)


def watch_the_job(client: Client, incoming: Path) -> Seen:
    """Start the instrument and show all that happens, until every image has its result or time is up."""
    seen, finished = Seen(), threading.Event()
    changes = client.watch(events=True, tasks=True)
    console.print(f"[dim]$ python instrument.py {incoming}[/]", soft_wrap=True)
    instrument = subprocess.Popen(
        [sys.executable, str(HERE / "instrument.py"), str(incoming)], stdout=subprocess.PIPE, text=True
    )

    def read_instrument() -> None:
        assert instrument.stdout is not None
        for line in instrument.stdout:
            image = json.loads(line)
            seen.complete[image["path"]] = image["complete"]
        finished.set()

    reader = threading.Thread(target=read_instrument)
    reader.start()
    try:
        show(changes, seen, finished)
    finally:
        changes.close()
        instrument.wait()
        reader.join()
    if instrument.returncode:
        raise SystemExit("the instrument failed")
    return seen


def show(changes: Any, seen: Seen, finished: threading.Event) -> None:
    """Print events and tasks as they come."""
    deadline = None
    for change in each(changes):
        match change:
            case EventSeen(event=event) if event["type"] == "upon.file.ready":
                name, size = Path(event["subject"]).name, event["data"]["size"]
                console.print(
                    f"[cyan]event[/]   {event['type']}  {name}  {size:,} bytes, {event['data']['reason']}",
                    soft_wrap=True,
                )
            case TaskChanged(task=task) if task.event is not None:
                note_task(task, seen)
        if finished.is_set():
            deadline = deadline or time.monotonic() + LAST_RESULT
            if seen.complete.keys() <= seen.done.keys() or time.monotonic() > deadline:
                return


def each(changes: Any) -> Iterator[Any]:
    """Yield what comes; None at least every 0.2 s, so that the caller can look at the clock."""
    while True:
        yield changes.next(timeout=0.2)


def note_task(task: Task, seen: Seen) -> None:
    """Remember a task and print it when it is new or has ended."""
    assert task.event is not None
    path = task.event.subject
    ids = seen.tasks.setdefault(path, [])
    if task.id not in ids:
        ids.append(task.id)
        console.print(f"[blue]match[/]   {task.rule} → {task.function}@{task.version} at {task.site}")
    if task.status == "succeeded":
        seen.arrived.setdefault(path, time.time_ns())
        seen.done[path] = task
        figures = ", ".join(f"{key} {value}" for key, value in task.result.items() if key not in ("shape", "thumbnail"))
        console.print(
            f"[green]result[/]  {Path(path).name}  at {task.site}, {task.duration:.0f} ms: {figures}", soft_wrap=True
        )
    elif task.status in ("failed", "cancelled"):
        seen.done[path] = task
        console.print(f"[red]{task.status}[/]  {Path(path).name}: {task.error and task.error.message}")


def summarize(client: Client, seen: Seen) -> int:
    """Print the table, check that each image was processed exactly once, and return the exit code."""
    table = Table("image", "mean", "to started", "ran", "to result", title="What happened (ms)")
    wrong, to_started, to_result = [], [], []
    stored = client.tasks(rule="thumbnail-of-each-image", limit=1000)
    for path, complete in seen.complete.items():
        name, task = Path(path).name, seen.done.get(path)
        of_image = [t for t in stored if t.event is not None and t.event.subject == path]
        if task is None or task.status != "succeeded" or task.started is None:
            wrong.append(f"{name}: {'no result' if task is None else task.status}")
            continue
        if len(of_image) != 1 or of_image[0].attempts != 1:
            wrong.append(f"{name}: {len(of_image)} tasks, {sum(t.attempts for t in of_image)} attempts")
        if not Path(path).with_suffix(".thumb.png").is_file():
            wrong.append(f"{name}: no thumbnail")
        started, result = (time_ns(task.started) - complete) / 1e6, (seen.arrived[path] - complete) / 1e6
        to_started.append(started)
        to_result.append(result)
        table.add_row(name, str(task.result["mean"]), f"{started:.1f}", f"{task.duration:.0f}", f"{result:.1f}")
    console.print(table)
    for label, figures in (("function started", to_started), ("result here", to_result)):
        if figures:
            console.print(
                f"file complete → {label}: p50 {statistics.median(figures):.1f} ms, max {max(figures):.1f} ms"
            )
    for line in wrong:
        console.print(f"[red]{line}[/]")
    if wrong or not seen.complete:
        return 1
    console.print(f"[green]{len(seen.complete)} images, each processed exactly once[/]")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
