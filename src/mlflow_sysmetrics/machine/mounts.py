"""Which filesystem holds a path, as the kernel's mount table says.

Source:  /proc/self/mountinfo, https://docs.kernel.org/filesystems/proc.html#proc-pid-mountinfo
Absent:  macOS, Windows; a path that no mount of the table holds (a chroot that is no mount point).
Check:   findmnt --target .
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from functools import lru_cache
from typing import NamedTuple

from mlflow_sysmetrics.machine.host import Host, read_bytes

# Their data lie on another machine, or come from a program (a fuse filesystem on a disk of its own calls
# itself fuseblk; it too is a program's). Such a one may stop to answer, and whoever asks waits for ever.
_DISTANT = re.compile(
    r"(nfs4?|cifs|smb3|smbfs|ncpfs|afs|ceph|lustre|gpfs|beegfs|orangefs|pvfs2|panfs|wekafs|9p|virtiofs|"
    r"vboxsf|vmhgfs|drvfs|autofs|fuse|fuse\..*)"
)
# Their data lie in memory.
_IN_MEMORY = re.compile(r"tmpfs|ramfs|rootfs|devtmpfs|hugetlbfs|ocfs2_dlmfs|proc|sysfs|cgroup2?")


class Mount(NamedTuple):
    """One line of the mount table.

    Attributes:
        identity: id of the mount.
        parent: id of the mount that it lies on.
        device: "major:minor" of the filesystem, the same for all its mounts and all subvolumes of a btrfs,
            which `stat` gives devices of their own; major 0 where there is no single block device.
        root: the directory of the filesystem that the mount shows; of cgroup mounts, the group.
        point: absolute path of the mount point.
        filesystem: type: "ext4", "nfs4", "fuse.sshfs".
        source: what is mounted, in the filesystem's own words: "/dev/sda1", "server:/export".
        options: the filesystem's options, escaped as in the table.
    """

    identity: str
    parent: str
    device: str
    root: str
    point: str
    filesystem: str
    source: str
    options: str

    def paths(self, option: str) -> list[str]:
        """Returns the paths that an option lists: ``lowerdir=/a:/b``."""
        _, found, rest = f",{self.options}".partition(f",{option}=")
        listed = rest.partition(",")[0] if found else ""
        return [_unescaped(path) for path in listed.split(":") if path]


# id, parent, device, root, mount point, options, any number of optional fields, " - ", type, source, options.
_LINE = re.compile(r"^(\d+) (\d+) (\d+:\d+) (\S+) (\S+) \S+ (?:\S+ )*?- (\S+) (\S*) (\S+)$", re.MULTILINE)


# Several collectors look up the table once a minute, and it hardly ever changes.
@lru_cache(maxsize=2)
def parse_mountinfo(text: str) -> tuple[Mount, ...]:
    """Returns the mounts in the text of /proc/self/mountinfo; lines of another form are left out."""
    return tuple(Mount._make([*map(_unescaped, fields[:-1]), fields[-1]]) for fields in _LINE.findall(text))


def read_mounts(host: Host) -> tuple[Mount, ...]:
    """Returns the mounts that this process sees; none on a system without /proc/self/mountinfo."""
    try:
        return parse_mountinfo(os.fsdecode(read_bytes(str(host.root / "proc/self/mountinfo"))))
    except OSError:
        return ()


def mount_of(path: str, mounts: Iterable[Mount]) -> Mount | None:
    """Returns the mount that holds an absolute path without links, or None.

    Walks from mount to mount as the kernel does. The order of the table is no help: where an initial RAM disk
    moved the root to its place, the root comes after mounts that lie on it. On the way down, the shortest of
    the next mount points comes first, and so hides what had been mounted below it before.
    """
    holding = [mount for mount in mounts if _is_below(path, mount.point)]
    tops = {mount.identity for mount in holding}
    # The root's own parent is not in the table, or is the mount itself.
    next_ones = [one for one in holding if one.parent not in tops or one.parent == one.identity]
    found = None
    while next_ones:
        found = min(next_ones, key=lambda mount: len(mount.point))
        holding = [mount for mount in holding if mount.identity != found.identity]
        next_ones = [mount for mount in holding if mount.parent == found.identity]
    return found


def is_distant(filesystem: str) -> bool:
    """Tells whether a filesystem of this type answers for another machine or a program, if it answers."""
    return _DISTANT.fullmatch(filesystem) is not None or filesystem == "fuseblk"


def has_local_device(filesystem: str) -> bool:
    """Tells whether a filesystem of this type keeps its data on block devices of this host."""
    return _DISTANT.fullmatch(filesystem) is None and _IN_MEMORY.fullmatch(filesystem) is None


def real_path(host: Host, path: str) -> str:
    """Returns an absolute path with its links followed, as seen from the host's root."""
    root = os.path.realpath(host.root)
    real = os.path.realpath(below_root(host, path))
    return (real.removeprefix(root.rstrip("/")) or "/") if _is_below(real, root) else real


def below_root(host: Host, path: str) -> str:
    """Returns where an absolute path of the host lies for us: a recorded machine has its own root."""
    return str(host.root / path.lstrip("/"))


def _is_below(path: str, directory: str) -> bool:
    return path == directory or path.startswith(directory.rstrip("/") + "/")


def _unescaped(path: str) -> str:
    r"""Undoes the table's octal escapes: a space in a path is written ``\040``."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), path)
