"""What a task prints is shown while it runs, at a bounded rate; short and silent tasks are not looked at."""

from __future__ import annotations

import itertools
import os
import sys
import time
from pathlib import Path

from tests.integration.managing import Site, managed
from upon.dispatcher import protocol
from upon.endpoint.printing import PIECE


def pieces(site: Site, id: str) -> list[protocol.Piece]:
    outputs = [message for message in site.heard if isinstance(message, protocol.Output)]
    return [piece for output in outputs for piece in output.pieces if piece.id == id]


def speak_until(path: str) -> None:
    print("begun é")
    print("an error", file=sys.stderr)
    os.system("echo a child")
    while not os.path.exists(path):
        time.sleep(0.01)
    print("the end")


def flood_until(path: str) -> None:
    line = b"x" * 1023 + b"\n"
    while not os.path.exists(path):
        os.write(1, line * 64)


async def test_what_a_task_prints_is_said_while_it_runs(tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    async with managed(workers=1) as site:
        site.assign(site.task("a", speak_until, str(gate), attempt=3))
        await site.until(lambda: pieces(site, "a"), "output")
        assert "a" not in site.outcomes
        (piece,) = pieces(site, "a")
        assert piece == protocol.Piece("a", 3, 0, 9 + 9 + 8, "begun é\nan error\na child\n")
        gate.touch()
        assert (await site.outcome("a")).stdout == "begun é\nan error\na child\nthe end\n"


async def test_output_without_end_is_said_in_bounded_pieces_and_ends_where_the_result_does(
    tmp_path: Path,
) -> None:
    gate = tmp_path / "gate"
    async with managed(workers=1) as site:
        site.assign(site.task("a", flood_until, str(gate)))
        await site.until(lambda: len(pieces(site, "a")) >= 3, "output")
        gate.touch()
        text = (await site.outcome("a")).stdout
        seen = pieces(site, "a")
        assert all(0 < piece.end - piece.start <= PIECE for piece in seen)
        assert all(set(piece.text) == {"x", "\n"} for piece in seen)
        assert all(before.end < after.start for before, after in itertools.pairwise(seen))
        dropped = int(text[1:].split()[0].replace(",", ""))
        assert seen[-1].end <= dropped + 64 * 1024, "places count all that was printed, also what is gone"


async def test_quick_and_silent_tasks_say_nothing(tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    async with managed(workers=2) as site:
        site.assign(site.task("long", speak_until, str(gate)))
        await site.until(lambda: pieces(site, "long"), "output")
        for n in range(20):
            site.assign(site.task(f"quick{n}", print, n))
        for n in range(20):
            assert (await site.outcome(f"quick{n}")).stdout == f"{n}\n"
        gate.touch()
        await site.outcome("long")
        assert {piece.id for out in site.heard if isinstance(out, protocol.Output) for piece in out.pieces} == {"long"}


async def test_a_dispatcher_of_an_older_version_is_not_told(tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    async with managed(workers=1) as site:
        site.say(protocol.Beat(True, "s", version=3))
        site.assign(site.task("a", speak_until, str(gate)))
        await site.until(lambda: sum(isinstance(one, protocol.Heartbeat) for one in site.heard) > 4, "some seconds")
        gate.touch()
        await site.outcome("a")
        assert not pieces(site, "a")
