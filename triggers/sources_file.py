"""The YAML file that names the sources to run.

    version: 1
    sources:
      - {name: incoming, kind: filesystem, path: ./incoming, settle: 2s}

Paths in it are relative to the file. Every error says file:line:column, the field, what is wrong and what is allowed.
A source that is wrong does not spoil the others: whoever runs a file takes those that are right (`read_each`).
Not here: what the fields of a kind mean; the kind's own `Config` says so.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from upon.errors import ConfigError
from upon.triggers.registry import find_source
from upon.triggers.source import Source, SourceConfig
from upon.yaml_positions import Path as FieldPath
from upon.yaml_positions import Positions, YamlError, field_name, load


@dataclass(frozen=True, slots=True)
class SourceSpec:
    """A source to run: its class and its validated configuration."""

    cls: type[Source[Any]]
    config: SourceConfig

    @property
    def name(self) -> str:
        return self.config.name


@dataclass(frozen=True, slots=True)
class Fault:
    """A source that cannot run as it is written: its name, or its place in the file, and why."""

    name: str
    error: ConfigError


def read_text(path: Path) -> str:
    """Return what a sources file says.

    Raises:
        ConfigError: it cannot be read.
    """
    try:
        return path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8"
        raise ConfigError(f"sources file {path}: cannot be read: {reason}") from error


def read_each(text: str, file: str, folder: Path) -> tuple[list[SourceSpec], list[Fault]]:
    """Return the sources that a YAML text names, in its order, and what is wrong with the others.

    Args:
        text: the YAML.
        file: the file's name, for messages.
        folder: what relative paths are relative to.

    Raises:
        ConfigError: the text as a whole names no sources: with file:line:column and field.
    """
    try:
        data, positions = load(text, file)
    except YamlError as error:
        raise ConfigError(str(error)) from error
    return _Reader(file, folder, positions).sources(data)


def read_sources(text: str, file: str, folder: Path) -> list[SourceSpec]:
    """Return the sources that a YAML text names, all of them right. Arguments as for `read_each`.

    Raises:
        ConfigError: the first thing that is wrong, with file:line:column and field.
    """
    specs, faults = read_each(text, file, folder)
    if faults:
        raise faults[0].error
    return specs


def spec(kind: str, values: dict[str, Any], folder: Path | None = None) -> SourceSpec:
    """Return one source made from values in code, as `upon watch` does.

    Raises:
        ConfigError: the kind or a value is wrong.
    """
    cls = find_source(kind)
    try:
        return SourceSpec(
            cls, cls.Config.model_validate({**values, "kind": kind}, context={"folder": folder or Path.cwd()})
        )
    except ValidationError as error:
        first = error.errors()[0]
        raise ConfigError(
            f"source {values.get('name', kind)!r}: {field_name(first['loc'])}: {_problem(first)}"
        ) from error


class _Reader:
    """Checks a document from its top down, and knows where everything stands."""

    def __init__(self, file: str, folder: Path, positions: Positions) -> None:
        self.file, self.folder, self.positions = file, folder, positions

    def sources(self, data: Any) -> tuple[list[SourceSpec], list[Fault]]:
        if data is None:
            raise ConfigError(f"{self.file}: is empty; it needs `version: 1` and `sources:`")
        if not isinstance(data, dict):
            raise self.error((), "must be a mapping with `version` and `sources`")
        if data.get("version") != 1:
            raise self.error(("version",), "must be 1, the version of this format")
        for key in data:
            if key not in ("version", "sources"):
                raise self.error((key,), "unknown field; there are: version, sources", at_key=True)
        entries = data.get("sources")
        if not isinstance(entries, list):
            raise self.error(("sources",), "must be a list of sources, each with name and kind")
        specs: dict[str, tuple[int, SourceSpec]] = {}
        faults: list[Fault] = []
        for index, entry in enumerate(entries):
            try:
                found = self.source(entry, ("sources", index))
                if found.name in specs:
                    line = self.positions[("sources", specs[found.name][0])][0]
                    raise self.error(
                        ("sources", index, "name"), f"{found.name!r} names a source already, in line {line}"
                    )
                specs[found.name] = index, found
            except ConfigError as error:
                name = entry.get("name") if isinstance(entry, dict) else None
                faults.append(Fault(name if isinstance(name, str) else f"sources[{index}]", error))
        return [spec for _, spec in specs.values()], faults

    def source(self, entry: Any, path: FieldPath) -> SourceSpec:
        if not isinstance(entry, dict):
            raise self.error(path, "must be a mapping with name and kind")
        if not isinstance(entry.get("kind"), str):
            raise self.error((*path, "kind"), "is required: the kind of the source, such as filesystem")
        try:
            cls = find_source(entry["kind"])
        except ConfigError as error:
            raise self.error((*path, "kind"), str(error)) from error
        try:
            return SourceSpec(cls, cls.Config.model_validate(entry, context={"folder": self.folder}))
        except ValidationError as error:
            first = error.errors()[0]
            unknown = first["type"] == "extra_forbidden"
            problem = f"unknown field; there are: {', '.join(cls.Config.model_fields)}" if unknown else _problem(first)
            raise self.error((*path, *first["loc"]), problem, at_key=unknown) from error

    def error(self, path: FieldPath, problem: str, *, at_key: bool = False) -> ConfigError:
        line, column = self.positions.key(path) if at_key else self.positions.nearest(path)
        name = field_name(path)
        return ConfigError(f"{self.file}:{line}:{column}: {name + ': ' if name else ''}{problem}")


def _problem(error: Any) -> str:
    """Return what pydantic found, in our words where they are plainer."""
    if error["type"] == "missing":
        return "is required"
    message = str(error["msg"]).removeprefix("Value error, ")
    return message if repr(error["input"]) in message else f"{message}, not {error['input']!r}"
