"""A systemd unit that runs a system, as text. Pure.

The whole system is one unit: its supervisor starts the parts in their order and restarts them. It says when it is
ready (`Type=notify`), and secrets stand in a file of the home that its owner alone can read, not in the unit.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from upon.errors import ConfigError

STOP = 30
"""Seconds that systemd waits for the system to stop; it needs 5."""
START = 180
"""… and to start; Kafka's jars may have to be fetched first."""
FILES = 65_536
"""Open files: Kafka has some for each partition, the service one for each client."""


def unit(home: Path, python: Path, *, environment: Path, user: str = "") -> str:
    """Return the unit's text.

    Args:
        home: of the system.
        python: the interpreter that has Upon.
        environment: file with the variables it runs with; it may be missing.
        user: whom a unit of the machine runs as; empty: a unit of the user's own manager.
    """
    owner = f"User={user}\n" if user else ""
    needs = "Wants=network-online.target\nAfter=network-online.target local-fs.target\n" if user else ""
    return f"""\
# Written by `upon install-service`. Change it with `systemctl{"" if user else " --user"} edit`, not here.
[Unit]
Description=Upon, event-driven functions, in {_plain(home)}
{needs}
[Service]
Type=notify
NotifyAccess=main
{owner}EnvironmentFile=-{_plain(environment)}
ExecStart={_quoted(python)} -m upon up --home {_quoted(home)}
KillMode=mixed
Delegate=yes
TimeoutStartSec={START}
TimeoutStopSec={STOP}
Restart=on-failure
RestartSec=5
LimitNOFILE={FILES}

[Install]
WantedBy={"multi-user.target" if user else "default.target"}
"""


def environment_file(variables: Mapping[str, str]) -> str:
    """Return the file of the variables, one a line, quoted as systemd reads them (systemd.exec(5))."""
    lines = ["# What `upon up` runs with under systemd: docs/operations.md names every variable."]
    for name, value in sorted(variables.items()):
        if "\n" in value:
            raise ConfigError(f"{name} has a line break in its value, which a unit cannot have")
        escaped = value.replace("\\", "\\\\").replace('"', '\\"')
        lines.append(f'{name}="{escaped}"')
    return "\n".join(lines) + "\n"


def _quoted(path: Path) -> str:
    text = str(path).replace("%", "%%").replace("\\", "\\\\").replace('"', '\\"').replace("$", "$$")
    return f'"{text}"' if any(character in text for character in " \t'\"\\;") else text


def _plain(path: Path) -> str:
    """Return a path as a setting takes it that is not split into words."""
    return str(path).replace("%", "%%")
