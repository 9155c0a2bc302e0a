"""Which names count, and what a walk sees."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from upon.triggers.readiness import Stamp
from upon.triggers.scanning import SLICE, SLICES_AHEAD, Found, Names, Scan, look, walk


@pytest.mark.parametrize(
    ("below", "wanted"),
    [
        ("a.tif", True),
        ("deep/er/a.tif", True),
        ("a.tif.part", False),
        ("a.tmp", False),
        (".a.tif.swp", False),
        (".hidden/a.tif", False),
        ("deep/.hidden/er/a.tif", False),
        ("x.part/a.tif", False),
        ("", False),
    ],
)
def test_unfinished_and_hidden_names_are_ignored_by_default(below: str, wanted: bool) -> None:
    assert Names("/in").wants(f"/in/{below}".rstrip("/")) is wanted


def test_patterns_choose_names_and_paths() -> None:
    names = Names("/in", patterns=["*.h5", "dark/*"])
    assert [names.wants(f"/in/{n}") for n in ("a.h5", "x/a.h5", "a.tif", "dark/a.tif", "x/dark/a.tif")] == [
        True,
        True,
        False,
        True,
        False,
    ]


def test_ignore_is_what_the_user_says_and_nothing_else() -> None:
    names = Names("/in", ignore=["*.lock", "raw/*"])
    assert [names.wants(f"/in/{n}") for n in ("a.part", ".a", "a.lock", "raw/a", "x/raw/a")] == [
        True,
        True,
        False,
        False,
        True,
    ]
    assert names.enters("/in/x.lock") is False
    assert names.enters("/in") is True


def test_paths_outside_the_folder_never_count() -> None:
    assert not Names("/in").wants("/inside/a")
    assert Names("/").wants("/a")


def test_a_walk_sees_regular_files_below_and_no_loops(tmp_path: Path) -> None:
    (tmp_path / "x" / "y").mkdir(parents=True)
    (tmp_path / ".hid").mkdir()
    for name in ("a", "x/b", "x/y/c", ".hid/d", "e.part"):
        (tmp_path / name).write_text(name)
    (tmp_path / "x" / "loop").symlink_to(tmp_path)
    (tmp_path / "link").symlink_to(tmp_path / "a")
    os.mkfifo(tmp_path / "pipe")
    names = Names(str(tmp_path))

    def found(**options: bool) -> set[str]:
        return {os.path.relpath(path, tmp_path) for path, _ in walk(str(tmp_path), names, inode=True, **options)}

    assert found(recursive=True) == {"a", "link", "x/b", "x/y/c"}
    assert found(recursive=False) == {"a", "link"}


def test_a_stamp_changes_with_the_content_and_not_with_a_rename(tmp_path: Path) -> None:
    first, second = tmp_path / "a", tmp_path / "b"
    first.write_text("1")
    before = look(str(first), inode=True)
    assert before is not None
    first.rename(second)
    assert look(str(first), inode=True) is None
    assert look(str(second), inode=True) == before
    second.write_text("12")
    assert look(str(second), inode=True) != before
    assert look(str(second), inode=False).inode == 0  # type: ignore[union-attr]
    assert look(str(tmp_path), inode=True) is None


def test_a_folder_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        list(walk(str(tmp_path / "no"), Names(str(tmp_path / "no")), recursive=True, inode=True))


def taken(scan: Scan, news: threading.Event) -> list[tuple[str, Stamp]]:
    out: Found = []
    while (found := scan.take()) is not None:
        if not found:
            assert news.wait(30)
            news.clear()
        assert len(found) <= SLICE
        out += found
    return out


def test_a_scan_hands_over_everything_in_slices_and_says_what_is_missing() -> None:
    files = [(f"/in/{n}", Stamp(n, n, n)) for n in range(SLICE * (SLICES_AHEAD + 3) + 1)]
    news = threading.Event()
    scan = Scan(iter(files), ["/in/1", "/in/gone"], news.set)
    assert taken(scan, news) == files
    assert (scan.missing, scan.empty) == ({"/in/gone"}, False)


def test_a_scan_that_finds_nothing_of_what_is_known_says_so() -> None:
    news = threading.Event()
    scan = Scan(iter([("/in/README", Stamp(1, 1, 1))]), ["/in/a", "/in/b"], news.set)
    taken(scan, news)
    assert scan.empty


def test_a_folder_that_cannot_be_read_is_an_error_where_the_scan_is_taken() -> None:
    def fails() -> Iterator[tuple[str, Stamp]]:
        yield from [("/in/a", Stamp(1, 1, 1))]
        raise OSError("no")

    news = threading.Event()
    with pytest.raises(OSError, match="no"):
        taken(Scan(fails(), [], news.set), news)
