"""Which file system holds a folder, and whether its changes are notified."""

from __future__ import annotations

from pathlib import Path

import pytest

from upon.triggers.mounts import file_system, is_shared

MOUNTS = """\
22 1 0:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
23 22 0:2 / /data rw - nfs4 server:/data rw
24 23 0:3 / /data/local\\040disk rw - xfs /dev/sdb rw
25 22 0:4 / /mnt rw master:2 propagate_from:1 - ext4 /dev/sdc rw
26 22 0:5 / /mnt rw - lustre mds:/l rw
"""


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/home/x", "ext4"),
        ("/data", "nfs4"),
        ("/data/scan", "nfs4"),
        ("/database", "ext4"),
        ("/data/local disk/x", "xfs"),
        ("/mnt/x", "lustre"),
    ],
)
def test_the_innermost_and_topmost_mount_counts(path: str, kind: str) -> None:
    assert file_system(path, MOUNTS) == kind


def test_this_machine_answers(tmp_path: Path) -> None:
    assert file_system(str(tmp_path))


def test_shared_file_systems_are_known() -> None:
    assert all(map(is_shared, ["nfs", "nfs4", "cifs", "smb3", "lustre", "gpfs", "fuse.sshfs", "fuse", "beegfs", "9p"]))
    assert not any(map(is_shared, ["ext4", "xfs", "btrfs", "tmpfs", "overlay", "zfs", "fuseblk", "fuse.overlayfs", ""]))
