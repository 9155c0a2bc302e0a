"""What kind of file system holds a folder: does the kernel see, and so notify, every change in it?"""

from __future__ import annotations

import os
import re
from pathlib import Path

#: File systems that other machines write to as well: their changes are never notified here.
SHARED = re.compile(
    r"(nfs|cifs|smb|lustre|gpfs|beegfs|ceph|glusterfs|orangefs|pvfs|afs|9p|virtiofs|ocfs|gfs|panfs|wekafs|fuse)"
)
#: File systems in user space that only this machine writes to.
OWN = re.compile(r"fuseblk$|fuse\.(ntfs|exfat|overlay|fuse-overlayfs|mergerfs|bindfs)")


def file_system(path: str, mountinfo: str | None = None) -> str:
    """Return the type of the file system that holds `path`, such as ``ext4``; empty where that cannot be known.

    Args:
        mountinfo: text of /proc/self/mountinfo; default: read it.
    """
    if mountinfo is None:
        try:
            mountinfo = Path("/proc/self/mountinfo").read_text()
        except OSError:
            return ""
    place = os.path.realpath(path)
    best, kind = "", ""
    for line in mountinfo.splitlines():
        fields, _, after = line.partition(" - ")
        mount = re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), fields.split()[4])
        inside = place == mount or place.startswith(mount.rstrip("/") + "/")
        if inside and len(mount) >= len(best):  # of two on one place, the later lies on top
            best, kind = mount, after.split()[0]
    return kind


def is_shared(kind: str) -> bool:
    """Return whether a file system of this type may change without this machine's kernel being told."""
    return SHARED.match(kind) is not None and OWN.match(kind) is None
