"""The keeper stops what is named when the supervisor goes; one that was killed has a successor that knows all."""

from __future__ import annotations

import os
import signal
import subprocess

from tests.systems import wait_for
from upon.embedded.groups import Groups


def _sleeper() -> subprocess.Popen[bytes]:
    return subprocess.Popen(["sleep", "600"], start_new_session=True)


def test_a_killed_keeper_has_a_successor_that_stops_what_is_left() -> None:
    groups = Groups()
    left, over = _sleeper(), _sleeper()
    try:
        groups.add(left.pid)
        groups.add(over.pid)
        assert not groups.check()
        os.kill(groups.keeper, signal.SIGKILL)
        wait_for(groups.check, "that the keeper is missed")
        groups.discard(over.pid)
        groups.close()
        assert left.wait(10) == -signal.SIGTERM
        assert over.poll() is None
    finally:
        for process in (left, over):
            process.kill()
            process.wait()


def test_naming_a_group_to_a_dead_keeper_is_no_error() -> None:
    groups = Groups()
    os.kill(groups.keeper, signal.SIGKILL)
    os.waitid(os.P_PID, groups.keeper, os.WEXITED | os.WNOWAIT)
    groups.add(1 << 22)
    groups.close()
