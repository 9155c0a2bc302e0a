"""Which tasks are said to run far beyond their function's usual time."""

from __future__ import annotations

from tests.unit.dispatcher.world import Machine, ended, ready, record
from upon.dispatcher import protocol
from upon.dispatcher.announcer import MAX_MANAGERS, bounded
from upon.dispatcher.decisions.instructions import Heard
from upon.dispatcher.decisions.stragglers import ENOUGH, FUNCTIONS, LEAST, NAMED, UsualTimes, stragglers
from upon.dispatcher.decisions.waiting import Depths
from upon.messages import ManagerStatus, Straggler

SECOND = 1_000_000_000


def found(m: Machine) -> tuple[Straggler, ...]:
    return stragglers(m.state.book.managers.values(), m.state.attempts.usual, m.mono)


def known(m: Machine, seconds: float, offset: int = 0) -> None:
    """Let the function have run a few times, so long each."""
    for n in range(offset, offset + ENOUGH):
        m.do(record(n, f"k{n}"), ended(f"k{n}", started=SECOND, finished=SECOND + int(seconds * SECOND)))
        m.store(f"k{n}")


def begin(m: Machine, id: str, offset: int, ran: float = 0.0) -> None:
    m.do(record(offset, id), Heard("m1", protocol.Started((protocol.Begun(id, 1, 5, 7, ran),))))


def alive(m: Machine, seconds: float) -> None:
    """Let time pass, in which the manager is heard."""
    m.mono += seconds
    m.do(Heard("m1", protocol.Heartbeat(1)))


def machine(slots: int = 1) -> Machine:
    m = Machine(depths=Depths(prefetch=0, horizon=0))
    m.do(ready(slots=slots))
    return m


def test_a_task_that_runs_ten_times_as_long_as_nine_of_ten() -> None:
    m = machine()
    known(m, 10.0)
    begin(m, "long", 100)
    alive(m, 99.0)
    assert found(m) == ()
    alive(m, 2.0)
    (one,) = found(m)
    assert (one.id, one.function, one.worker, one.started) == ("long", "f", "m1/7", 5)
    assert (one.ran, one.usual) == (101.0, 10.0)
    m.do(ended("long", started=5, finished=6))
    assert found(m) == ()


def test_not_before_half_a_minute_and_not_of_a_function_that_is_new() -> None:
    m = machine()
    begin(m, "new", 0)
    alive(m, 3600.0)
    assert found(m) == ()
    m.do(ended("new", started=5, finished=6))
    known(m, 0.001, offset=1)
    begin(m, "long", 100)
    alive(m, LEAST - 1)
    assert found(m) == ()
    alive(m, 2.0)
    assert len(found(m)) == 1


def test_one_that_ran_before_this_dispatcher_was_there() -> None:
    m = machine()
    known(m, 1.0)
    begin(m, "long", 100, ran=600.0)
    assert found(m)[0].ran == 600.0


def test_how_long_it_ran_does_not_depend_on_the_wall_clock() -> None:
    m = machine()
    known(m, 1.0)
    m.do(record(100, "a"), Heard("m1", protocol.Started((protocol.Begun("a", 1, 2**62, 7),))))
    alive(m, 40.0)
    assert found(m)[0].ran == 40.0


def test_one_call_that_took_for_ever_is_not_what_is_usual() -> None:
    usual = UsualTimes()
    for n in range(60):
        usual.observe("c", [10_000.0 if n % 20 == 0 else 1.0])
    assert usual.usual("c") == 1.0


def test_a_chunk_counts_by_its_items() -> None:
    usual = UsualTimes()
    usual.observe("c", [0.05] * ENOUGH)
    assert usual.usual("c", 1000) == 50.0


def test_what_is_kept_and_what_is_named_is_bounded() -> None:
    usual = UsualTimes()
    for n in range(FUNCTIONS + 10):
        usual.observe(str(n), [1.0])
    assert len(usual._times) == FUNCTIONS
    m = machine(slots=NAMED + 5)
    known(m, 0.1)
    for n in range(NAMED + 5):
        begin(m, f"t{n}", 100 + n, ran=100.0 + n)
    assert [one.id for one in found(m)] == [f"t{n}" for n in reversed(range(5, NAMED + 5))]


def test_the_status_of_a_large_site_fits_into_a_record() -> None:
    managers = [ManagerStatus(id=f"m{n}", host="h", pid=n, workers=tuple(range(64)), slots=64) for n in range(5000)]
    named = bounded(managers)
    assert len(named) == MAX_MANAGERS
    assert not any(manager.workers for manager in named)
    assert bounded(managers[:3]) == tuple(managers[:3])
