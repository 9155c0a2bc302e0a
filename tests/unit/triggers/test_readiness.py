"""When a file is ready: the stories one by one, and generated ones."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from upon.triggers.readiness import LOST, REMEMBER, Known, Readiness, Ready, Stamp, same_content, stamp_of

A, B = Stamp(10, 1_000, 7), Stamp(20, 2_000, 7)
PATH = "/in/a.tif"


def test_a_closed_file_is_ready_and_told_again_it_is_not() -> None:
    files = Readiness(2.0, {})
    assert files.closed(PATH, A, 0.0) == Ready(PATH, A, "closed")
    assert [files.closed(PATH, A, 0.0) for _ in range(3)] == [None, None, None]
    assert files.moved(PATH, A, 0.0) is None
    files.seen(PATH, A, 5.0)
    assert files.next_due() is None


def test_each_version_of_an_appending_writer_is_ready_once() -> None:
    files = Readiness(2.0, {})
    assert [files.closed(PATH, stamp, 0.0) is not None for stamp in (A, A, B, B, A)] == [True, False, True, False, True]


def test_a_rename_into_place_is_ready_under_its_new_name() -> None:
    files = Readiness(2.0, {"/in/b": A.version})
    assert files.moved(PATH, A, 0.0) == Ready(PATH, A, "moved")


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
    assert files.closed(PATH, B, 0.0) == Ready(PATH, B, "closed")


def test_a_file_whose_creation_was_notified_waits_for_its_close() -> None:
    files = Readiness(2.0, {})
    files.created(PATH)
    files.seen(PATH, A, 0.0)
    assert files.due(2.0 * LOST - 1) == []
    assert files.judged(PATH, A, 2.0, written=False) is None
    assert files.closed(PATH, A, 0.0) == Ready(PATH, A, "closed")


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


def test_a_file_that_comes_back_unchanged_is_the_same_version_for_long() -> None:
    files = Readiness(2.0, {PATH: A.version})
    files.gone(PATH, 0.0)
    files.seen(PATH, A, 10.0)
    assert files.next_due() is None
    files.gone(PATH, 20.0)
    assert files.forgettable(REMEMBER) == []
    assert files.forgettable(REMEMBER + 20.0) == [PATH]
    assert files.closed(PATH, A, 0.0) is not None


def test_the_inode_is_part_of_a_version_unless_it_is_left_out() -> None:
    assert Stamp(1, 2, 3).version == "1-2-3"
    assert Stamp(1, 2, 0).version == "1-2"


def test_a_mount_that_was_away_for_long_brings_nothing_new() -> None:
    files = Readiness(2.0, {PATH: A.version})
    files.gone(PATH, 0.0)
    files.away(REMEMBER)
    assert files.forgettable(REMEMBER + 1.0) == []
    files.seen(PATH, A, REMEMBER + 1.0)
    assert files.next_due() is None


def test_a_close_does_not_count_while_another_writes() -> None:
    files = Readiness(2.0, {})
    assert files.closed(PATH, A, 0.0, written=True) is None
    assert files.due(10.0) == [], "the other's close will be notified"
    assert files.closed(PATH, B, 11.0) == Ready(PATH, B, "closed")


def test_a_close_that_another_writer_never_makes_does_not_lose_the_file() -> None:
    files = Readiness(2.0, {})
    files.moved(PATH, A, 0.0, written=True)
    assert files.due(2.0 * LOST) == [PATH]
    assert files.judged(PATH, A, 2.0 * LOST, written=False) == Ready(PATH, A, "settled")


def test_quiet_makes_one_version_of_several_closes() -> None:
    files = Readiness(2.0, {}, quiet=1.0)
    assert [files.closed(PATH, stamp, now) for stamp, now in ((A, 0.0), (B, 0.5))] == [None, None]
    assert files.next_due() == 1.5
    assert files.due(1.5) == [PATH]
    assert files.judged(PATH, B, 1.5, written=False) == Ready(PATH, B, "closed")
    assert files.closed(PATH, B, 2.0) is None


COPY = Stamp(10, 500, 7, ctime_ns=1_001)  # A, its time set to the original's just after the copy


def test_a_time_set_by_hand_is_no_new_version() -> None:
    files = Readiness(2.0, {})
    files.closed(PATH, A, 0.0)
    files.seen(PATH, COPY, 1.0, notified=True)
    assert files.judged(PATH, COPY, 3.0, written=False) == Known(A.version, COPY.version)
    files.seen(PATH, COPY, 4.0, notified=True)
    assert files.next_due() is None
    again = Readiness(2.0, {PATH: files.known[PATH].text})
    again.seen(PATH, COPY, 0.0, first=True)
    assert again.next_due() is None
    again.seen(PATH, A, 0.0)
    assert again.due(2.0) == [PATH], "what is not the version seen last is looked at"


def test_a_time_set_by_hand_that_is_followed_by_a_close_is_one() -> None:
    """An older file of equal size was copied over this one: its close comes, if a little later than the scan."""
    files = Readiness(2.0, {PATH: A.version})
    files.seen(PATH, COPY, 1.0, notified=True)
    assert files.closed(PATH, COPY, 1.1) == Ready(PATH, COPY, "closed")


def test_what_a_time_set_by_hand_is() -> None:
    written, day = Stamp(10, 1_000, 7), 86_400_000_000_000
    assert same_content(written, Stamp(10, 500, 7, 1_001), notified=False)
    assert same_content(written, Stamp(10, 500, 7, day), notified=True)
    assert not same_content(written, Stamp(10, 500, 7, day), notified=False), "it may have been overwritten meanwhile"
    assert same_content(written, Stamp(10, 9_000, 7, 8_000), notified=True), "no write makes a time after the change"
    assert not same_content(written, Stamp(10, 8_000, 7, 8_000), notified=True), "this may be a write"
    assert not same_content(written, Stamp(11, 500, 7, 1_001), notified=True)
    assert not same_content(written, Stamp(10, 500, 8, 1_001), notified=True)


@given(st.integers(0, 1 << 60), st.integers(-(1 << 62), 1 << 62), st.integers(0, 1 << 60))
def test_a_version_says_its_stamp(size: int, mtime_ns: int, inode: int) -> None:
    assert stamp_of(Stamp(size, mtime_ns, inode).version) == Stamp(size, mtime_ns, inode)


def test_many_candidates_are_due_in_portions_and_none_is_lost() -> None:
    files = Readiness(2.0, {})
    paths = {f"/in/{n}" for n in range(1000)}
    for path in paths:
        files.seen(path, A, 0.0)
    found: list[str] = []
    while due := files.due(2.0, 64):
        assert len(due) <= 64
        found += due
        for path in due:
            assert files.judged(path, A, 2.0, written=False)
    assert sorted(found) == sorted(paths)


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

    def take(ready: Ready | Known | None) -> None:
        if isinstance(ready, Ready):
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
            disk[path] = Stamp(len(story), int(now * 1000) + 1, 1, int(now * 1000) + 1)
        elif step == "restart":  # what was announced is in the checkpoint; all else is forgotten
            files = Readiness(2.0, dict(announced))
        elif step == "scan":
            scan()
        elif step == "judge":
            judge()
        elif path in disk and step == "created":
            files.created(path)
        elif path in disk:
            take((files.moved if step == "moved" else files.closed)(path, disk[path], now))
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
                self.take(self.files.closed(PATH, self.stamp, self.now))

    def take(self, ready: Ready | Known | None) -> None:
        if isinstance(ready, Ready):
            self.announced.append(ready)

    @invariant()
    def one_event_when_closed_and_none_before(self) -> None:
        if hasattr(self, "announced"):
            assert len(self.announced) == (0 if self.open else 1)


TestOneSlowWriter = OneSlowWriter.TestCase
