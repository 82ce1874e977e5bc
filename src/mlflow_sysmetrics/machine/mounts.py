"""Which filesystem holds a path, according to the kernel's mount table.

Source:  /proc/self/mountinfo, https://docs.kernel.org/filesystems/proc.html#proc-pid-mountinfo
Absent:  macOS, Windows; a path that no mount of the table holds (a chroot that is not a mount point).
Check:   findmnt --target .
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from functools import lru_cache
from typing import NamedTuple

from mlflow_sysmetrics.machine.host import Host
from mlflow_sysmetrics.machine.kept_files import read_bytes

# Filesystems on another machine, or served by a program (fuseblk, a fuse filesystem on its own disk, is
# served by a program too). They may stop responding, and then a call never returns.
_DISTANT = re.compile(
    r"(nfs4?|cifs|smb3|smbfs|ncpfs|afs|ceph|lustre|gpfs|beegfs|orangefs|pvfs2|panfs|wekafs|9p|virtiofs|"
    r"vboxsf|vmhgfs|drvfs|autofs|fuse|fuse\..*)"
)
# Filesystems in memory.
_IN_MEMORY = re.compile(r"tmpfs|ramfs|rootfs|devtmpfs|hugetlbfs|ocfs2_dlmfs|proc|sysfs|cgroup2?")


class Mount(NamedTuple):
    """One line of the mount table.

    Attributes:
        identity: id of the mount.
        parent: id of the mount on which it lies.
        device: "major:minor" of the filesystem, the same for all its mounts and all subvolumes of a btrfs,
            for which `stat` reports separate devices; major 0 if there is no single block device.
        root: the directory of the filesystem that the mount shows; for cgroup mounts, the group.
        point: absolute path of the mount point.
        filesystem: type: "ext4", "nfs4", "fuse.sshfs".
        source: what is mounted, as the filesystem describes it: "/dev/sda1", "server:/export".
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


# Several collectors read the table once a minute, and it rarely changes.
@lru_cache(maxsize=2)
def parse_mountinfo(text: str) -> tuple[Mount, ...]:
    """Returns the mounts in the text of /proc/self/mountinfo; malformed lines are skipped."""
    return tuple(Mount._make([*map(_unescaped, fields[:-1]), fields[-1]]) for fields in _LINE.findall(text))


def read_mounts(host: Host) -> tuple[Mount, ...]:
    """Returns the mounts that this process sees; none on a system without /proc/self/mountinfo."""
    try:
        return parse_mountinfo(os.fsdecode(read_bytes(str(host.root / "proc/self/mountinfo"))))
    except OSError:
        return ()


def mount_of(path: str, mounts: Iterable[Mount]) -> Mount | None:
    """Returns the mount that holds an absolute path without links, or None.

    Walks from mount to mount as the kernel does. The order of the table does not help: if an initial RAM disk
    moved the root to its place, the root comes after mounts that lie on it. On the way down, the shortest of
    the next mount points comes first, and so hides mounts made below it earlier.
    """
    holding = [mount for mount in mounts if _is_below(path, mount.point)]
    tops = {mount.identity for mount in holding}
    # The root's parent is not in the table, or is the root itself.
    next_ones = [one for one in holding if one.parent not in tops or one.parent == one.identity]
    deepest = None
    while next_ones:
        deepest = min(next_ones, key=lambda mount: len(mount.point))
        holding = [mount for mount in holding if mount.identity != deepest.identity]
        next_ones = [mount for mount in holding if mount.parent == deepest.identity]
    return deepest


def is_distant(filesystem: str) -> bool:
    """True if a filesystem of this type is served by another machine or a program, which may hang."""
    return _DISTANT.fullmatch(filesystem) is not None or filesystem == "fuseblk"


def has_local_device(filesystem: str) -> bool:
    """True if a filesystem of this type keeps its data on block devices of this host."""
    return _DISTANT.fullmatch(filesystem) is None and _IN_MEMORY.fullmatch(filesystem) is None


def real_path(host: Host, path: str) -> str:
    """Returns an absolute path with its links resolved, as seen from the host's root."""
    root = os.path.realpath(host.root)
    real = os.path.realpath(below_root(host, path))
    return (real.removeprefix(root.rstrip("/")) or "/") if _is_below(real, root) else real


def below_root(host: Host, path: str) -> str:
    """Returns where an absolute path of the host is for us: a recorded machine has its own root."""
    return str(host.root / path.lstrip("/"))


def _is_below(path: str, directory: str) -> bool:
    return path == directory or path.startswith(directory.rstrip("/") + "/")


def _unescaped(path: str) -> str:
    r"""Undoes the table's octal escapes: a space in a path is written ``\040``."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), path)
