"""Which sources shall run: what was applied last, in the home.

    HOME/sources/applied.json     {"file": where it came from, "text": the YAML, as it was applied}

The text is kept, not the file alone: a file that is being edited, or is away, changes nothing that runs. The part
`sources` looks at the record once a second and takes up what is new. Without a record it runs the sources of the
setting `sources`, else of HOME/sources.yaml, else none.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from upon.config import Settings, write_private
from upon.errors import ConfigError
from upon.triggers.sources_file import Fault, SourceSpec, read_each, read_text

FILE = "applied.json"


@dataclass(frozen=True, slots=True)
class Wanted:
    """The sources that shall run, and those that cannot: `file` names where they stand, empty if nowhere."""

    file: str
    specs: tuple[SourceSpec, ...] = ()
    faults: tuple[Fault, ...] = ()


def apply(home: Path, file: Path) -> Wanted:
    """Make the sources of a file those that run; return them.

    Raises:
        ConfigError: something in the file is wrong, and nothing has changed; or the home cannot be written.
    """
    wanted = _read(read_text(file), file.absolute())
    if wanted.faults:
        raise wanted.faults[0].error
    place = home / "sources" / FILE
    try:
        place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_private(place, json.dumps({"file": str(file.absolute()), "text": read_text(file)}))
    except OSError as error:
        raise ConfigError(f"{place}: cannot be written: {error.strerror}") from error
    return wanted


def forget(home: Path) -> None:
    """Forget what was applied: the sources of the setting, or of HOME/sources.yaml, run again."""
    (home / "sources" / FILE).unlink(missing_ok=True)


def mark(home: Path) -> tuple[int, int]:
    """Return what differs whenever something was applied."""
    try:
        found = (home / "sources" / FILE).stat()
    except OSError:
        return 0, 0
    return found.st_mtime_ns, found.st_ino


def file_of(settings: Settings) -> str:
    """Return where the sources that run stand: the file that was applied last, or that of the settings; empty: none."""
    try:
        return str(json.loads((settings.places.path / "sources" / FILE).read_text())["file"])
    except (OSError, ValueError, KeyError, TypeError):
        return settings.sources


def wanted(settings: Settings) -> Wanted:
    """Return the sources to run.

    Raises:
        ConfigError: the record or the file cannot be read, or names no sources as a whole.
    """
    home = settings.places.path
    place = home / "sources" / FILE
    try:
        record = json.loads(place.read_text())
        return _read(record["text"], Path(record["file"]))
    except FileNotFoundError:
        pass
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{place}: cannot be read ({error}); `upon sources apply FILE` writes it anew") from error
    default = home / "sources.yaml"
    file = Path(settings.sources) if settings.sources else default
    if file == default and not default.exists():
        return Wanted("")
    return _read(read_text(file), file.absolute())


def _read(text: str, file: Path) -> Wanted:
    specs, faults = read_each(text, str(file), file.parent)
    return Wanted(str(file), tuple(specs), tuple(faults))
