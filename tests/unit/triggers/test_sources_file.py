"""The sources file: what it says, and what is wrong with it, where."""

from __future__ import annotations

from pathlib import Path

import pytest

from upon.config import Settings
from upon.errors import ConfigError
from upon.triggers.applied import apply, forget, mark, wanted
from upon.triggers.filesystem import FilesystemSource
from upon.triggers.registry import find_source, kinds
from upon.triggers.sources import plan
from upon.triggers.sources_file import read_each, read_sources, read_text, spec

GOOD = """\
version: 1
sources:
  - {name: incoming, kind: filesystem, path: ./incoming, settle: 2s}
  - name: other
    kind: filesystem
    path: /data/other
    recursive: false
    patterns: ["*.h5"]
"""


def test_reads_each_source_with_paths_relative_to_the_file(tmp_path: Path) -> None:
    first, second = read_sources(GOOD, "sources.yaml", tmp_path)
    assert (first.cls, first.name) == (FilesystemSource, "incoming")
    assert first.config.path == tmp_path / "incoming"  # type: ignore[attr-defined]
    assert first.config.settle == 2.0  # type: ignore[attr-defined]
    assert second.config.path == Path("/data/other")  # type: ignore[attr-defined]
    assert second.config.recursive is False  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "s.yaml: is empty; it needs `version: 1` and `sources:`"),
        ("[]", "s.yaml:1:1: must be a mapping"),
        ("sources: []", "s.yaml:1:1: version: must be 1"),
        ("version: 2\nsources: []", "s.yaml:1:10: version: must be 1"),
        ("version: 1\nsource: []", "s.yaml:2:1: source: unknown field; there are: version, sources"),
        ("version: 1\nsources: {}", "s.yaml:2:10: sources: must be a list"),
        ("version: 1\nsources: [x]", "s.yaml:2:11: sources[0]: must be a mapping"),
        ("version: 1\nsources:\n  - name: a", "s.yaml:3:5: sources[0].kind: is required"),
        (
            "version: 1\nsources:\n  - {name: a, kind: filesystme, path: x}",
            "s.yaml:3:21: sources[0].kind: no source is of kind 'filesystme'; there are: epics, filesystem, globus",
        ),
        ("version: 1\nsources:\n  - {name: a, kind: filesystem}", "s.yaml:3:5: sources[0].path: is required"),
        (
            "version: 1\nsources:\n  - name: a\n    kind: filesystem\n    path: x\n    settle: soon",
            "s.yaml:6:13: sources[0].settle: 'soon' is not a duration: write",
        ),
        (
            "version: 1\nsources:\n  - name: a\n    kind: filesystem\n    path: x\n    settel: 2s",
            "s.yaml:6:5: sources[0].settel: unknown field; there are: name, kind, path, recursive",
        ),
        (
            "version: 1\nsources:\n  - {name: a, kind: filesystem, path: x, mode: inotfy}",
            "s.yaml:3:48: sources[0].mode: Input should be 'auto', 'inotify' or 'polling', not 'inotfy'",
        ),
        (
            "version: 1\nsources:\n  - {name: a b, kind: filesystem, path: x}",
            "s.yaml:3:12: sources[0].name: use letters, digits",
        ),
        (
            "version: 1\nsources:\n  - {name: a, kind: filesystem, path: x}\n  - {name: a, kind: filesystem, path: y}",
            "s.yaml:4:12: sources[1].name: 'a' names a source already, in line 3",
        ),
        ("version: 1\nversion: 1", "s.yaml:2:1: key 'version' stands twice, first in line 1"),
        (
            "version: 1\nsources:\n  - {name: b, kind: epics, pvs: [A, {name: B, deadband: -1}]}",
            "s.yaml:3:57: sources[0].pvs[1].deadband: Input should be greater than or equal to 0, not -1",
        ),
    ],
)
def test_says_where_and_what_is_wrong(text: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read_sources(text, "s.yaml", Path("/"))
    assert str(caught.value).startswith(message)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no\.yaml: cannot be read: No such file"):
        read_text(tmp_path / "no.yaml")


def test_a_source_made_in_code_is_checked_alike() -> None:
    assert spec("filesystem", {"name": "w", "path": Path("x")}, Path("/data")).config.path == Path("/data/x")  # type: ignore[attr-defined]
    with pytest.raises(ConfigError, match="source 'w': settle: 'x' is not a duration"):
        spec("filesystem", {"name": "w", "path": "x", "settle": "x"})


def test_built_in_sources_are_entry_points_like_any_other() -> None:
    assert {"filesystem", "globus", "epics"} <= set(kinds())
    assert find_source("filesystem") is FilesystemSource


def test_every_option_of_every_built_in_source_is_described() -> None:
    for kind in kinds():
        for name, field in find_source(kind).Config.model_fields.items():
            assert field.description, f"{kind}.{name}"


def test_one_wrong_source_leaves_the_others() -> None:
    text = (
        GOOD + "  - {name: bad, kind: filesystem}\n  - {kind: nothing}\n  - {name: other, kind: filesystem, path: x}\n"
    )
    specs, faults = read_each(text, "s.yaml", Path("/"))
    assert [spec.name for spec in specs] == ["incoming", "other"]
    assert [fault.name for fault in faults] == ["bad", "sources[3]", "other"]
    assert str(faults[0].error).startswith("s.yaml:9:5: sources[2].path: is required")


def test_what_was_applied_is_what_runs_until_something_else_is(tmp_path: Path) -> None:
    settings = Settings.load(tmp_path / "home")
    home = settings.places.path
    assert wanted(settings).specs == ()
    (tmp_path / "sources.yaml").write_text(GOOD)
    before = mark(home)
    apply(home, tmp_path / "sources.yaml")
    assert mark(home) != before
    (tmp_path / "sources.yaml").write_text("half of an ed")
    found = wanted(settings)
    assert [spec.name for spec in found.specs] == ["incoming", "other"]
    assert found.specs[0].config.model_dump()["path"] == tmp_path / "incoming"
    with pytest.raises(ConfigError):
        apply(home, tmp_path / "sources.yaml")
    assert wanted(settings) == found
    forget(home)
    assert wanted(settings).specs == ()


def test_only_what_changed_is_started_anew() -> None:
    a, b, b2, c = (spec("filesystem", {"name": name, "path": path}) for name, path in ("aA", "bB", "bX", "cC"))
    assert plan({}, [a, b]) == ([], [a, b])
    assert plan({"a": a, "b": b}, [a, b2, c]) == (["b"], [b2, c])
    assert plan({"a": a, "b": b}, []) == (["a", "b"], [])
    assert plan({"a": a}, [a]) == ([], [])
