"""When a file is ready: the stories one by one, and generated ones."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from upon.triggers.readiness import LOST, REMEMBER, Readiness, Ready, Stamp

A, B = Stamp(10, 1_000, 7), Stamp(20, 2_000, 7)
PATH = "/in/a.tif"


def test_a_closed_file_is_ready_and_told_again_it_is_not() -> None:
    files = Readiness(2.0, {})
    assert files.closed(PATH, A) == Ready(PATH, A, "closed")
    assert [files.closed(PATH, A) for _ in range(3)] == [None, None, None]
    assert files.moved(PATH, A) is None
    files.seen(PATH, A, 5.0)
    assert files.next_due() is None


def test_each_version_of_an_appending_writer_is_ready_once() -> None:
    files = Readiness(2.0, {})
    assert [files.closed(PATH, stamp) is not None for stamp in (A, A, B, B, A)] == [True, False, True, False, True]


def test_a_rename_into_place_is_ready_under_its_new_name() -> None:
    files = Readiness(2.0, {"/in/b": A.version})
    assert files.moved(PATH, A) == Ready(PATH, A, "moved")


def test_what_a_scan_sees_must_stand_still() -> None:
    files = Readiness(2.0, {})
    files.seen(PATH, A, 0.0, first=True)
    assert files.due(1.9) == []
    assert files.next_due() == 2.0
    files.seen(PATH, A, 1.5, first=True)
    assert files.due(2.0) == [PATH]
    assert files.judged(PATH, A, 2.0, written=False) == Ready(PATH, A, "found")
    assert files.next_due() is None


def test_a_file_that_grows_between_scans_is_settled_later() -> None:
    files = Readiness(2.0, {})
    files.seen(PATH, A, 0.0, first=True)
    assert files.judged(PATH, B, 2.0, written=False) is None
    assert files.next_due() == 4.0
    assert files.judged(PATH, B, 4.0, written=False) == Ready(PATH, B, "settled")


def test_a_file_that_is_being_written_is_not_ready_however_long_it_stands_still() -> None:
    files = Readiness(2.0, {})
    files.seen(PATH, A, 0.0)
    assert all(files.judged(PATH, A, now, written=True) is None for now in (2.0, 4.0, 6.0))
    assert files.closed(PATH, B) == Ready(PATH, B, "closed")


def test_a_file_whose_creation_was_notified_waits_for_its_close() -> None:
    files = Readiness(2.0, {})
    files.created(PATH)
    files.seen(PATH, A, 0.0)
    assert files.due(2.0 * LOST - 1) == []
    assert files.judged(PATH, A, 2.0, written=False) is None
    assert files.closed(PATH, A) == Ready(PATH, A, "closed")


def test_a_close_that_was_lost_does_not_lose_the_file() -> None:
    files = Readiness(2.0, {})
    files.created(PATH)
    files.seen(PATH, A, 0.0)
    assert files.due(2.0 * LOST) == [PATH]
    assert files.judged(PATH, A, 2.0 * LOST, written=False) == Ready(PATH, A, "settled")


def test_known_versions_are_not_repeated_after_a_restart_and_new_ones_are_found() -> None:
    files = Readiness(2.0, {PATH: A.version})
    files.seen(PATH, A, 0.0, first=True)
    assert files.next_due() is None
    files.seen(PATH, B, 1.0, first=True)
    assert files.judged(PATH, B, 3.0, written=False) == Ready(PATH, B, "found")


def test_a_file_that_comes_back_unchanged_is_the_same_version_for_a_day() -> None:
    files = Readiness(2.0, {PATH: A.version})
    files.gone(PATH, 0.0)
    files.seen(PATH, A, 10.0)
    assert files.next_due() is None
    files.gone(PATH, 20.0)
    assert files.forgettable(REMEMBER) == []
    assert files.forgettable(REMEMBER + 20.0) == [PATH]
    assert files.closed(PATH, A) is not None


def test_the_inode_is_part_of_a_version_unless_it_is_left_out() -> None:
    assert Stamp(1, 2, 3).version == "1-2-3"
    assert Stamp(1, 2, 0).version == "1-2"


STORY = st.lists(
    st.tuples(
        st.sampled_from(["write", "closed", "moved", "created", "scan", "judge", "late hint", "restart"]),
        st.sampled_from(["/in/a", "/in/b"]),
        st.floats(0.1, 5.0),
    ),
    max_size=60,
)


@given(STORY)
def test_each_version_is_ready_at_most_once_and_the_last_one_at_least_once(story: list[tuple[str, str, float]]) -> None:
    files, now, announced = Readiness(2.0, {}), 0.0, []
    disk: dict[str, Stamp] = {}

    def take(ready: Ready | None) -> None:
        if ready is not None:
            assert ready.stamp == disk[ready.path], "announced what is not there"
            announced.append((ready.path, ready.stamp.version))

    def judge() -> None:
        for path in files.due(now):
            take(files.judged(path, disk[path], now, written=False))

    def scan() -> None:
        for path, stamp in disk.items():
            files.seen(path, stamp, now)

    for step, path, passed in story:
        now += passed
        if step == "write":
            disk[path] = Stamp(len(story), int(now * 1000) + 1, 1)
        elif step == "restart":  # what was announced is in the checkpoint; all else is forgotten
            files = Readiness(2.0, dict(announced))
        elif step == "scan":
            scan()
        elif step == "judge":
            judge()
        elif path in disk and step == "created":
            files.created(path)
        elif path in disk:
            take(files.moved(path, disk[path]) if step == "moved" else files.closed(path, disk[path]))
        assert len(announced) == len(set(announced)), "a version twice"
    for _ in range(2):
        scan()
        now += 2.0 * LOST
        judge()
    assert {(path, stamp.version) for path, stamp in disk.items()} <= set(announced)


class OneSlowWriter(RuleBasedStateMachine):
    """A writer opens once, writes as slowly as it likes and closes once, while scans and hints go on: one event."""

    @initialize()
    def begin(self) -> None:
        self.files, self.now, self.size, self.open = Readiness(2.0, {}), 0.0, 0, True
        self.announced: list[Ready] = []
        self.files.created(PATH)

    @property
    def stamp(self) -> Stamp:
        return Stamp(self.size, self.size + 1, 1)

    @rule(passed=st.floats(0.0, 30.0))
    def wait(self, passed: float) -> None:
        self.now += passed

    @rule()
    def write(self) -> None:
        if self.open:
            self.size += 1

    @rule()
    def scan(self) -> None:
        self.files.seen(PATH, self.stamp, self.now)

    @rule()
    def judge(self) -> None:
        for path in self.files.due(self.now):
            self.take(self.files.judged(path, self.stamp, self.now, written=self.open))

    @rule(times=st.integers(1, 4))
    def close(self, times: int) -> None:
        if self.open:
            self.open = False
            for _ in range(times):  # watchdog was seen to tell one close four times
                self.take(self.files.closed(PATH, self.stamp))

    def take(self, ready: Ready | None) -> None:
        if ready is not None:
            self.announced.append(ready)

    @invariant()
    def one_event_when_closed_and_none_before(self) -> None:
        if hasattr(self, "announced"):
            assert len(self.announced) == (0 if self.open else 1)


TestOneSlowWriter = OneSlowWriter.TestCase
