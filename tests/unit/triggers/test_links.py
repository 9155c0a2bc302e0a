"""Links that lead out of a watched folder: the way, and whom it must belong to."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from upon.triggers.links import refusal, trusted, way

ME, STRANGER, DETECTOR = 1000, 1001, 1002


@pytest.mark.parametrize(
    ("links", "owner", "may"),
    [
        ({ME}, DETECTOR, True),
        ({0}, DETECTOR, True),
        ({DETECTOR}, DETECTOR, True),
        ({STRANGER}, STRANGER, True),
        ({STRANGER}, ME, False),
        ({STRANGER}, 0, False),
        ({ME, STRANGER}, ME, False),
        (set(), 0, True),
    ],
)
def test_whoever_made_a_link_could_have_put_the_content_there(links: set[int], owner: int, may: bool) -> None:
    assert trusted(links, owner, ME) is may


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "outside" / "deep").mkdir(parents=True)
    (tmp_path / "outside" / "deep" / "file").write_text("x")
    made = tmp_path / "in"
    made.mkdir()
    (made / "own").write_text("x")
    return made


def test_the_way_follows_links_of_every_kind(folder: Path) -> None:
    file = str(folder.parent / "outside" / "deep" / "file")
    (folder / "absolute").symlink_to(file)
    (folder / "relative").symlink_to("../in/../outside//./deep/file")
    (folder / "chain").symlink_to("relative")
    (folder / "within").symlink_to(folder / "own")
    (folder / "sub").symlink_to(folder.parent / "outside")
    (folder.parent / "another name").symlink_to(folder)
    for name in ("absolute", "relative", "chain", "sub/deep/file"):
        found = way(str(folder / name), str(folder))
        assert (found.target, found.inside) == (file, False), name
        assert found.links == {os.geteuid()}
    assert way(str(folder / "own"), str(folder)).links == set()
    for place in (folder, folder.parent / "another name"):
        assert way(str(place / "within"), str(place)).inside
        assert way(str(place / "own"), str(place)).inside
        assert not way(str(place / "chain"), str(place)).inside


def test_loops_end_and_what_is_gone_is_not_refused(folder: Path) -> None:
    (folder / "loop").symlink_to("loop")
    with pytest.raises(OSError, match="more than 40 links"):
        way(str(folder / "loop"), str(folder))
    assert refusal(str(folder / "loop"), str(folder)) is None
    assert refusal(str(folder / "gone"), str(folder)) is None


def test_our_own_link_out_of_the_folder_is_none_to_refuse(folder: Path) -> None:
    (folder / "link").symlink_to(folder.parent / "outside" / "deep" / "file")
    assert refusal(str(folder / "link"), str(folder)) is None
