"""The filesystem source on a real folder, a real kernel and a real Kafka."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from tests.reading import EventReader, reading
from tests.source_process import SourceProcess, sources_running
from tests.systems import wait_for
from upon.events import Event
from upon.topics import Topics

FAST = "settle: 500ms, poll: 200ms"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "in coming"
    made.mkdir()
    return made


@pytest.fixture(params=["inotify", "polling"])
def source(request: pytest.FixtureRequest, kafka: str, topics: Topics, tmp_path: Path, folder: Path):  # type: ignore[no-untyped-def]
    text = (
        f"version: 1\nsources:\n  - {{name: in, kind: filesystem, path: ../in coming, mode: {request.param}, {FAST}}}\n"
    )
    with sources_running(tmp_path / "home", kafka, topics, text) as running:
        running.mode = request.param  # type: ignore[attr-defined]
        yield running


@pytest.fixture
def reader(kafka: str, topics: Topics):  # type: ignore[no-untyped-def]
    with reading(kafka, topics) as one:
        yield one


def barrier(reader: EventReader, folder: Path, name: str = "last.end") -> list[Event]:
    """Write one more file and read until it is there: what came before it has been decided by then."""
    (folder / name).write_text("end")
    return reader.until(lambda events: str(folder / name) in reader.subjects(), f"the file {name}")


def names(reader: EventReader, folder: Path) -> Counter[str]:
    return Counter(os.path.relpath(subject, folder) for subject in reader.subjects())


def test_a_written_file_is_announced_once_with_what_a_rule_needs(
    source: SourceProcess, reader: EventReader, folder: Path
) -> None:
    path = folder / "a.tif"
    path.write_bytes(b"x" * 1000)
    reader.until(lambda events: len(events) == 1, "the event")
    barrier(reader, folder)
    assert names(reader, folder) == {"a.tif": 1, "last.end": 1}
    event = reader.events[0]
    found = path.stat()
    assert event.type == "upon.file.ready"
    assert event.subject == str(path)
    assert event.source.endswith("/in%20coming")
    assert event.source.startswith("upon:filesystem:")
    assert event.data["path"] == str(path)
    assert event.data["size"] == 1000
    assert event.data["version"] == f"1000-{found.st_mtime_ns}-{found.st_ino}"
    assert event.data["mtime"].endswith("Z")
    assert event.data["reason"] == ("closed" if source.mode == "inotify" else "settled")  # type: ignore[attr-defined]


def test_a_slow_writer_in_another_process_makes_one_event(
    source: SourceProcess, reader: EventReader, folder: Path
) -> None:
    """It pauses for longer than `settle`, flushing each part, as an instrument does."""
    code = (
        "import sys, time\n"
        "with open(sys.argv[1], 'wb') as f:\n"
        "    for n in range(4):\n"
        "        f.write(b'x' * 1000); f.flush(); time.sleep(0.8)\n"
    )
    subprocess.run([sys.executable, "-c", code, str(folder / "slow.h5")], check=True)
    reader.until(lambda events: len(events) == 1, "the event")
    barrier(reader, folder)
    assert names(reader, folder)["slow.h5"] == 1
    assert reader.events[0].data["size"] == 4000


def test_temporary_names_are_ignored_and_a_rename_into_place_counts(
    source: SourceProcess, reader: EventReader, folder: Path
) -> None:
    for name in ("b.part", "c.tmp", ".d"):
        (folder / name).write_text(name)
    (folder / "a.part").write_text("whole")
    (folder / "a.part").rename(folder / "a")
    reader.until(lambda events: len(events) == 1, "the renamed file")
    barrier(reader, folder)
    assert names(reader, folder) == {"a": 1, "last.end": 1}
    assert reader.events[0].data["reason"] == ("moved" if source.mode == "inotify" else "settled")  # type: ignore[attr-defined]


def test_an_appending_writer_makes_one_event_for_each_version_it_leaves(
    source: SourceProcess, reader: EventReader, folder: Path
) -> None:
    for size in (1, 2, 3):
        with (folder / "log").open("a") as file:
            file.write("x")
        reader.until(lambda events: bool(events) and events[-1].data["size"] == size, f"version of size {size}")  # noqa: B023
    with (folder / "log").open("a"):
        pass  # closed, unchanged: no new version
    barrier(reader, folder)
    assert names(reader, folder) == {"log": 3, "last.end": 1}
    assert len({event.id for event in reader.events}) == 4


def test_files_in_fast_nested_folders_are_all_announced_once(
    source: SourceProcess, reader: EventReader, folder: Path
) -> None:
    """A folder is filled before the kernel can be asked to watch it."""
    for n in range(200):
        deep = folder / f"scan{n % 10}" / f"row{n % 7}" / f"n{n}"
        deep.mkdir(parents=True)
        (deep / "image").write_text(str(n))
    reader.until(lambda events: len(set(reader.subjects())) == 200, "200 files")
    barrier(reader, folder)
    assert len(names(reader, folder)) == 201
    assert set(names(reader, folder).values()) == {1}


def test_a_folder_moved_in_whole_and_a_hard_link(source: SourceProcess, reader: EventReader, folder: Path) -> None:
    outside = folder.parent / "outside" / "deep"
    outside.mkdir(parents=True)
    (outside / "a").write_text("a")
    (folder.parent / "b").write_text("b")
    (folder.parent / "outside").rename(folder / "inside")
    os.link(folder.parent / "b", folder / "b")
    reader.until(lambda events: len(set(reader.subjects())) == 2, "both")
    barrier(reader, folder)
    assert names(reader, folder) == {"inside/deep/a": 1, "b": 1, "last.end": 1}
    (folder / "inside").rename(folder / "renamed")
    (folder / "renamed" / "deep" / "new").write_text("new")
    reader.until(lambda events: str(folder / "renamed/deep/new") in reader.subjects(), "a file in a renamed folder")


def test_what_was_completed_while_it_was_down_is_found_and_nothing_else_is_repeated(
    source: SourceProcess, reader: EventReader, folder: Path
) -> None:
    (folder / "before").write_text("1")
    (folder / "changed").write_text("1")
    reader.until(lambda events: len(events) == 2, "both")
    source.stop()
    (folder / "while down").write_text("2")
    (folder / "changed").write_text("22")
    source.start()
    reader.until(lambda events: len(events) == 4, "what came while it was down")
    barrier(reader, folder)
    assert names(reader, folder) == {"before": 1, "changed": 2, "while down": 1, "last.end": 1}
    assert {event.data["reason"] for event in reader.events[2:4]} == {"found"}


def test_a_folder_that_vanishes_fails_the_source_until_it_is_back(
    source: SourceProcess, reader: EventReader, folder: Path
) -> None:
    (folder / "a").write_text("1")
    reader.until(lambda events: len(events) == 1, "the first")
    folder.rename(folder.parent / "away")
    (folder.parent / "away" / "b").write_text("2")
    (folder.parent / "away").rename(folder)
    reader.until(lambda events: str(folder / "b") in reader.subjects(), "the file from meanwhile", timeout=100)
    assert names(reader, folder) == {"a": 1, "b": 1}


def test_a_folder_that_is_away_for_a_moment_loses_nothing(
    source: SourceProcess, reader: EventReader, folder: Path
) -> None:
    """Again and again for so short that it watches the same folder all the time: some of the files are notified, and
    looked for at the folder's path, while it is elsewhere."""
    away = folder.parent / "away"
    for number in range(100):
        folder.rename(away)
        (away / f"{number}").write_text("1")
        away.rename(folder)
    reader.until(lambda events: len(events) == 100, "all files, before the next scan")
    assert names(reader, folder) == {f"{number}": 1 for number in range(100)}


def test_a_close_counts_when_nobody_writes_any_more(source: SourceProcess, reader: EventReader, folder: Path) -> None:
    """`touch` closes a file after opening it for writing, while its writer holds it open."""
    with (folder / "a.h5").open("wb") as file:
        file.write(b"x" * 1000)
        file.flush()
        subprocess.run(["touch", str(folder / "a.h5")], check=True)
        barrier(reader, folder, "meanwhile")
        file.write(b"x" * 5000)
    reader.until(lambda events: len(events) == 2, "the event")
    barrier(reader, folder)
    assert names(reader, folder) == {"meanwhile": 1, "a.h5": 1, "last.end": 1}
    assert reader.events[1].data["size"] == 6000


def test_a_copy_whose_time_is_set_afterwards_is_one_version(
    source: SourceProcess, reader: EventReader, folder: Path
) -> None:
    original = folder.parent / "original"
    original.write_text("x" * 100)
    os.utime(original, (1_000_000_000, 1_000_000_000))
    shutil.copyfile(original, folder / "copy")
    reader.until(lambda events: len(events) == 1, "the copy")
    shutil.copystat(original, folder / "copy")  # as shutil.copy2 does, a little later
    source.stop()
    (folder / "while down").write_text("x")
    source.start()
    reader.until(lambda events: str(folder / "while down") in reader.subjects(), "what the same scan found")
    barrier(reader, folder)
    assert names(reader, folder) == {"copy": 1, "while down": 1, "last.end": 1}


def test_a_time_that_no_calendar_has_spoils_nothing(
    kafka: str, topics: Topics, small_disk: Path, tmp_path: Path
) -> None:
    text = f"version: 1\nsources: [{{name: in, kind: filesystem, path: {small_disk}, {FAST}}}]\n"
    (small_disk / "odd").write_text("x")
    os.utime(small_disk / "odd", ns=(0, 300_000_000_000 * 10**9))
    with sources_running(tmp_path / "home", kafka, topics, text) as source, reading(kafka, topics) as reader:
        reader.until(lambda events: str(small_disk / "odd") in reader.subjects(), "the odd file")
        assert reader.events[0].data["mtime"] is None
        barrier(reader, small_disk)
        assert not source.logged("fail")


def test_a_folder_that_another_takes_the_place_of_is_watched(
    source: SourceProcess, reader: EventReader, folder: Path
) -> None:
    (folder / "a").write_text("1")
    reader.until(lambda events: len(events) == 1, "the first")
    other = folder.parent / "other"
    other.mkdir()
    os.rename(folder, folder.parent / "away")
    os.rename(other, folder)
    (folder / "b").write_text("2")
    barrier(reader, folder)
    reader.until(lambda events: len(events) == 3, "both")
    assert names(reader, folder) == {"a": 1, "b": 1, "last.end": 1}


def test_closes_that_follow_each_other_are_one_version_when_quiet_is_asked_for(
    kafka: str, topics: Topics, tmp_path: Path, folder: Path
) -> None:
    text = f"version: 1\nsources: [{{name: in, kind: filesystem, path: {folder}, quiet: 1s, mode: inotify, {FAST}}}]\n"
    with sources_running(tmp_path / "home", kafka, topics, text), reading(kafka, topics) as reader:
        for size in (1, 2, 3):
            (folder / "log").write_text("x" * size)
        barrier(reader, folder)
        assert names(reader, folder) == {"log": 1, "last.end": 1}
        assert reader.events[0].data["size"] == 3


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a link to another user")
def test_a_strangers_link_to_a_file_of_ours_is_refused(
    source: SourceProcess, reader: EventReader, folder: Path
) -> None:
    secret, raw = folder.parent / "secret", folder.parent / "raw"
    for path in (secret, raw):
        path.write_text("x")
    os.chown(raw, 4711, 4711)
    for name, target, owner in (("ours", secret, 0), ("theirs", raw, 4711), ("hostile", secret, 4711)):
        made = folder.parent / name
        made.symlink_to(target)
        os.lchown(made, owner, owner)
        os.rename(made, folder / name)
    reader.until(lambda events: len(events) == 2, "the links that may be")
    wait_for(lambda: source.logged("refuse"), "the refusal")
    barrier(reader, folder)
    assert names(reader, folder) == {"ours": 1, "theirs": 1, "last.end": 1}
    assert [line["path"] for line in source.logged("refuse")] == [str(folder / "hostile")]
    assert f"leads out of the folder, to {secret}" in source.logged("refuse")[0]["event"]
