"""`upon install-service`: a systemd unit that runs this home's system."""

from __future__ import annotations

import os
import re
import shutil
import sys
from pathlib import Path
from typing import Annotated

import typer

NAME = re.compile(r"[A-Za-z0-9_.-]{1,100}")
NOT_KEPT = ("UPON_HOME", "UPON_DEBUG", "UPON_SERVICE")
"""Variables that say where a command looks, not what a system is."""


def install_service(
    home: Annotated[Path | None, typer.Option(help="the folder of this system (default: UPON_HOME)")] = None,
    system: Annotated[
        bool, typer.Option("--system", help="a unit of the machine in /etc/systemd/system, started at boot; needs root")
    ] = False,
    user: Annotated[str | None, typer.Option(help="with --system: whom it runs as (default: the home's owner)")] = None,
    name: Annotated[str, typer.Option(help="the unit's name, for several systems on one machine")] = "upon",
    show: Annotated[bool, typer.Option("--print", help="print the unit, write nothing")] = False,
) -> None:
    """Write a systemd unit that runs the system of this home: your own, or with --system the machine's.

    The unit runs `upon up` with this Python. UPON_… variables that are set now, such as UPON_LISTEN and UPON_TOKEN,
    are kept in HOME/environment, readable by its owner alone.

    Example: upon install-service --system --home /var/lib/upon
    """
    from upon.config import Home, write_private
    from upon.embedded import systemd
    from upon.errors import ConfigError

    if not NAME.fullmatch(name):
        raise ConfigError(f"--name {name}: use letters, digits, '.', '_' and '-'")
    if user is not None and not system:
        raise ConfigError("--user says whom a unit of the machine runs as: give --system too")
    place = Home(home)
    environment = place.path / "environment"
    owner = (user or _owner(place.path)) if system else ""
    if user is not None and not _known(user):
        raise ConfigError(f"--user {user}: no such user; make one with `useradd --system {user}`")
    text = systemd.unit(place.path, Path(sys.executable), environment=environment, user=owner)
    if show:
        typer.echo(text, nl=False)
        return
    variables = {n: v for n, v in os.environ.items() if n.startswith("UPON_") and n not in NOT_KEPT}
    place.make()
    if variables or not environment.exists():
        write_private(environment, systemd.environment_file(variables))
    if system and os.geteuid() == 0:  # the user that the unit runs as owns the home
        for path in (place.path, environment):
            shutil.chown(path, owner)
    units = Path("/etc/systemd/system") if system else _config() / "systemd" / "user"
    units.mkdir(parents=True, exist_ok=True)
    unit = units / f"{name}.service"
    unit.write_text(text)
    control = "systemctl" if system else "systemctl --user"
    typer.echo(f"wrote {unit}; start it now and at each boot with")
    typer.echo(f"  {control} daemon-reload && {control} enable --now {name}")
    if not system:
        typer.echo("  loginctl enable-linger   # so that it runs also while you are not logged in")


def _owner(home: Path) -> str:
    import pwd

    existing = next(folder for folder in (home, *home.parents) if folder.exists())
    return pwd.getpwuid(existing.stat().st_uid).pw_name


def _known(user: str) -> bool:
    import pwd

    try:
        pwd.getpwnam(user)
    except KeyError:
        return False
    return True


def _config() -> Path:
    return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
