"""`upon part NAME`: one part of a system, in the foreground. `upon up` and container engines run it."""

from __future__ import annotations

import gc
import importlib
from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

MAINS = {
    "service": "upon.service.app",
    "streams": "upon.streams.app",
    "dispatcher": "upon.dispatcher.process",
    "manager": "upon.endpoint.manager",
    "sources": "upon.triggers.runner",
}
"""Where each part's `main(part, settings)` is."""
EXTRAS = {"dispatcher": "endpoint", "manager": "endpoint"}
"""The extra of pyproject.toml with what a part needs, where it is not called like the part."""
WITHOUT_KAFKA = ("manager", "sources")
"""Parts that work before Kafka answers: an instrument does not wait for it."""

Name = Enum("Name", {name: name for name in MAINS}, type=str)  # type: ignore[misc]


def part(
    name: Annotated[Name, typer.Argument(help="which part to run")],
    home: Annotated[Path | None, typer.Option(help="the folder of this system (default: UPON_HOME)")] = None,
) -> None:
    """Run one part alone, until SIGTERM or Ctrl-C.

    It is told everything by its environment (UPON_KAFKA, UPON_LISTEN, UPON_TOKEN, UPON_SITE, …) and the profile in
    its home, and waits by itself for Kafka. docker-compose.yml shows the parts of a larger system.

    Example: UPON_KAFKA=kafka:9092 UPON_SITE=alcf upon part dispatcher
    """
    from upon.config import Settings
    from upon.errors import ConfigError
    from upon.part import run_part

    settings = Settings.load(home)
    gc.disable()  # a tenth of what the imports take is looking for garbage, and they make none
    try:
        main = importlib.import_module(MAINS[name.value]).main
    except ModuleNotFoundError as error:
        extra = EXTRAS.get(name.value, name.value)
        raise ConfigError(
            f"the part {name.value} needs {error.name}: pip install 'upon[{extra}]', or 'upon[embedded]' for all parts"
        ) from error
    finally:
        gc.enable()
    raise typer.Exit(run_part(name.value, settings, main, needs_kafka=name.value not in WITHOUT_KAFKA))
