"""The dispatcher goes and comes back: tasks run on, outcomes are kept, nothing runs twice."""

from __future__ import annotations

from pathlib import Path

from tests.integration.managing import managed
from tests.integration.test_manager import append, wait_for
from upon.dispatcher import protocol
from upon.dispatcher.protocol import Attempt


def effect(log: str, id: str, gate: str) -> str:
    append(log, id + "\n")
    wait_for(gate)
    return id


async def test_what_runs_survives_a_new_dispatcher_and_runs_once(tmp_path: Path) -> None:
    log, gate = str(tmp_path / "log"), str(tmp_path / "gate")
    async with managed(workers=2) as site:
        assert await site.value("done", len, "abc") == 3
        site.assign(*(site.task(id, effect, log, id, gate) for id in ("a", "b", "c")))
        await site.until(lambda: {"a", "b"} <= set(site.begun))
        site.restart()
        await site.until(lambda: len(site.ready) == 2, "Ready again")
        assert set(site.ready[1].held) == {Attempt(id, 1) for id in ("done", "a", "b", "c")}
        await site.until(lambda: len(site.outcomes["done"]) == 2, "the outcome that was not stored, again")
        await site.until(lambda: len(site.begun["a"]) == 2, "Started again")
        # The new dispatcher has read them from Kafka and sends them all again.
        site.assign(*(site.task(id, effect, log, id, gate) for id in ("a", "b", "c")))
        site.assign(site.task("done", len, "abc"))
        await site.until(lambda: len(site.outcomes["done"]) == 3, "the outcome as the answer")
        Path(gate).touch()
        for id in ("a", "b", "c"):
            await site.outcome(id)
        assert sorted(Path(log).read_text().split()) == ["a", "b", "c"]
        site.stored("done", "a", "b", "c")
        # Sent after it on the same socket: once this is done, the manager has heard of the others.
        assert await site.value("after", len, "abc") == 3
        site.restart()
        await site.until(lambda: len(site.ready) == 3, "Ready again")
        assert site.ready[2].held == (Attempt("after", 1),)


async def test_outcomes_wait_while_the_dispatcher_is_away(tmp_path: Path) -> None:
    log, gate = str(tmp_path / "log"), str(tmp_path / "gate")
    async with managed(workers=1) as site:
        site.assign(*(site.task(f"t{n}", effect, log, f"t{n}", gate) for n in range(20)))
        await site.until(lambda: "t0" in site.begun)
        site.router.close()
        Path(gate).touch()
        await site.until(lambda: len(Path(log).read_text().split()) == 20, "the work, done alone")
        site.open(site.address)
        await site.until(lambda: len(site.outcomes) == 20, "all outcomes")


async def test_a_dispatcher_that_does_not_know_it_hears_ready_and_everything_again() -> None:
    async with managed(workers=1) as site:
        await site.value("a", len, "abc")
        site.say(protocol.Beat(known=False))
        await site.until(lambda: len(site.ready) == 2, "Ready again")
        await site.until(lambda: len(site.outcomes["a"]) == 2, "the outcome again")


async def test_a_death_is_told_again_to_a_new_dispatcher() -> None:
    async with managed(workers=1) as site:

        def die() -> None:
            import os

            os._exit(3)

        site.assign(site.task("a", die))
        await site.until(lambda: "a" in site.deaths, "Lost")
        site.restart()
        await site.until(lambda: len(site.deaths["a"]) == 2, "Lost again")
        assert Attempt("a", 1) in site.ready[1].held
        assert "exited by itself with code 3" in site.deaths["a"][1].story
