"""`upon invoke`: run a registered function by hand."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from upon.cli.options import HomeOption, connect, json_object, value

if TYPE_CHECKING:
    from upon.api import Site, Task
    from upon.sdk.client import Client

FIRST_LOOK = 2.0
"""Seconds until a task that has not begun is worth a word about its site."""
LOOK_AGAIN = 5.0
"""Seconds after which the task is looked at although no change was pushed."""


def invoke(
    function: Annotated[str, typer.Argument(help="its name, with @VERSION for an older one", metavar="NAME")],
    args: Annotated[
        list[str] | None, typer.Argument(help="after --; each is JSON, or else text", metavar="ARG")
    ] = None,
    *,
    site: Annotated[str, typer.Option(help="where it runs")] = "local",
    kwargs: Annotated[str, typer.Option(help="keyword arguments as a JSON object", metavar="JSON")] = "{}",
    timeout: Annotated[float | None, typer.Option(min=0.001, help="s that one attempt may take")] = None,
    cores: Annotated[int | None, typer.Option(min=1, help="cores that it has for itself")] = None,
    memory: Annotated[str | None, typer.Option(help="memory that it may take, such as 4GB", metavar="SIZE")] = None,
    accelerators: Annotated[int | None, typer.Option(min=0, help="GPUs and the like that it has for itself")] = None,
    priority: Annotated[int | None, typer.Option(help="among your tasks; higher ones begin first")] = None,
    memoize: Annotated[
        bool, typer.Option("--memoize", help="take the result of the same call, if there is one")
    ] = False,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="print the result, or the task's id at once")] = True,
    home: HomeOption = None,
) -> None:
    """Run a registered function and print its result as JSON. Exit code 1, with the error, if it fails.

    Example: upon invoke thumbs.make --site local -- /data/a.png
    """
    from upon.sdk.options import Options

    keywords = json_object(kwargs, "--kwargs")
    arguments = [value(one) for one in args or ()]
    asked = Options().but(
        timeout=timeout, cores=cores, memory=memory, accelerators=accelerators, priority=priority, memoize=memoize
    )
    with connect(home) as client:
        id = client.start(function, arguments, keywords, site=site, options=asked)
        if not wait:
            typer.echo(id)
            return
        task = wait_until_done(client, id, site)
    _print(task)


def wait_until_done(client: Client, id: str, site: str) -> Task:
    """Return a task once it has ended; say meanwhile, on stderr, why it does not begin.

    Its result is not unpickled here: the CLI lacks the function's modules.
    """
    from upon.api import TaskChanged
    from upon.errors import TaskNotFound
    from upon.messages import FINAL

    give_up = time.monotonic() + LOOK_AGAIN
    said, pause = "", FIRST_LOOK
    with client.watch(tasks=True) as changes:
        while True:
            waits = ""
            try:
                task = client.task(id)
                if task.status in FINAL:
                    return task
                if pause > FIRST_LOOK and task.status == "pending":
                    waits = why_it_waits(site, client.sites())
            except TaskNotFound:  # submitted a moment ago, not in the task store yet
                if time.monotonic() > give_up:
                    raise
            if waits != said:
                typer.echo(waits or f"site {site} is up again", err=True)
            said = waits
            look_again = time.monotonic() + pause
            pause = LOOK_AGAIN
            while (left := look_again - time.monotonic()) > 0:
                change = changes.next(left)
                if isinstance(change, TaskChanged) and (change.missed or change.task.id == id):
                    break


def why_it_waits(name: str, sites: Sequence[Site]) -> str:
    """Return why nothing begins at a site, and what can be done; empty if things do."""
    from upon.cli.output import when

    site = next((one for one in sites if one.name == name), None)
    if site is None or (site.state == "up" and site.slots):
        return ""
    if site.state == "up":
        what, until = f"site {name} is up without a manager", "one comes"
    else:
        what = f"site {name} is down: its dispatcher on {site.host} was last heard of at {when(site.seen)}"
        until = "it is back"
    return f"{what}; the task waits until {until}. Ctrl-C stops the waiting, not the task"


def _print(task: Task) -> None:
    from upon.cli.output import print_error, print_json

    if task.status == "succeeded":
        print_json(task.result)
        return
    from rich.console import Console
    from rich.text import Text

    out = Console(stderr=True, highlight=False)
    if task.error is None:
        out.print(Text("error", "bold red"), Text(f"task {task.id} {task.status}"), soft_wrap=True)
    else:
        print_error(task.error, out)
    raise typer.Exit(1)
