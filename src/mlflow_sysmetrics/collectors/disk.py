"""Space of the filesystems that the job works on.

Source:  statvfs of the working directory and of the paths in MLFLOW_SYSMETRICS_DISKS (GetDiskFreeSpaceEx on
         Windows), through `shutil.disk_usage`; once per filesystem, told apart by /proc/self/mountinfo
         (st_dev where there is none).
Units:   megabytes (1e6 bytes); percent of what ordinary users may use, as in df and psutil.
Cost:    one system call per filesystem; once a minute a read of the mount table.
Absent:  a path that does not exist, does not answer or has no size. It is tried again once a minute.
Check:   df .
"""

from __future__ import annotations

import os
import stat
from collections.abc import Hashable, Iterator, Sequence
from typing import ClassVar, NamedTuple

from mlflow_sysmetrics.collectors.catalogue import disk as catalogue
from mlflow_sysmetrics.collectors.contract import MEGABYTE, PERCENT, Collector
from mlflow_sysmetrics.collectors.rhythm import Pause
from mlflow_sysmetrics.collectors.watched_paths import WatchedPath, watched_paths
from mlflow_sysmetrics.errors import Unavailable
from mlflow_sysmetrics.host import Host
from mlflow_sysmetrics.mounts import Mount, below_root, mount_of, read_mounts, real_path
from mlflow_sysmetrics.samples import Family, Kind, Metric, Sample

# Filesystems are mounted by hand and by automounters: soon enough to be seen, seldom enough to cost nothing.
_LOOK_SECONDS = 60.0
_REMEDY = "mount it, or correct MLFLOW_SYSMETRICS_DISKS"

_PLAIN = (catalogue.DISK_USAGE_PERCENTAGE, catalogue.DISK_USAGE, catalogue.DISK_AVAILABLE)
_NAMED = (
    catalogue.NAMED_DISK_USAGE_PERCENTAGE,
    catalogue.NAMED_DISK_USAGE,
    catalogue.NAMED_DISK_AVAILABLE,
)


class _Filesystem(NamedTuple):
    """A filesystem that is read at every tick: through which path, and the keys of its three series."""

    path: str
    percentage: str
    used: str
    free: str


class Disk(Collector):
    """Space of the working directory's filesystem, and of further ones."""

    family: ClassVar[Family] = Family.DISK
    metrics: ClassVar[tuple[Metric, ...]] = _PLAIN + _NAMED

    def __init__(self, host: Host) -> None:
        self._host = host
        self._paths, self._lasting_gaps = watched_paths(host)
        self._pause = Pause(_LOOK_SECONDS)
        self._filesystems = self._look()
        if not self._filesystems:
            raise Unavailable("; ".join(self.gaps) or "no path to watch")

    def collect(self, now: float) -> Iterator[Sample]:
        """Yields used and available space of each filesystem that answers."""
        if self._pause.over(now):
            self._filesystems = self._look()
        for filesystem in self._filesystems:
            path, percentage, used_key, free_key = filesystem
            try:
                total, used, free = self._host.disk_usage(path)
            except OSError as error:
                self.gaps = (*self.gaps, f"{path}: {error.strerror or error}")
                self._filesystems = [one for one in self._filesystems if one is not filesystem]
                continue
            if 0 <= used <= total and 0 <= free <= total and used + free > 0:
                yield Sample(percentage, Kind.GAUGE, PERCENT * used / (used + free))
                yield Sample(used_key, Kind.GAUGE, used / MEGABYTE)
                yield Sample(free_key, Kind.GAUGE, free / MEGABYTE)

    def _look(self) -> list[_Filesystem]:
        """Returns the filesystems that answer now, each through the first path that lies on it."""
        gaps = list(self._lasting_gaps)
        mounts = read_mounts(self._host)
        found: dict[Hashable, tuple[WatchedPath, _Filesystem]] = {}
        for watched in self._paths:
            path, name = watched
            try:
                total = self._host.disk_usage(path).total
            except OSError as error:
                gaps.append(f"{path}: {error.strerror or error}" + (f"; {_REMEDY}" if name else ""))
                continue
            identity = _identity(self._host, path, mounts)
            if _is_device(self._host, path):
                gaps.append(f"{path} is a device: name a directory on its filesystem")
            elif total <= 0:
                gaps.append(f"the filesystem of {path} tells no size")
            elif identity in found:
                first = found[identity][0]
                gaps.append(f"{path} lies on the filesystem of {first.path}, whose series stand for both")
            else:
                metrics = _PLAIN if name is None else _NAMED
                keys = (metric.key(name=name) for metric in metrics)
                found[identity] = watched, _Filesystem(path, *keys)
        self.gaps: Sequence[str] = tuple(gaps)
        return [filesystem for _, filesystem in found.values()]


def _is_device(host: Host, path: str) -> bool:
    """Tells whether a path is a device node: its filesystem would be /dev, not the one on the device."""
    try:
        mode = os.stat(below_root(host, path)).st_mode  # noqa: PTH116 - a string is what the system call takes
    except OSError:
        return False
    return stat.S_ISBLK(mode) or stat.S_ISCHR(mode)


def _identity(host: Host, path: str, mounts: Sequence[Mount]) -> Hashable:
    """Returns what is the same for two paths on one filesystem; the path itself where nothing tells."""
    mount = mount_of(real_path(host, path), mounts) if mounts else None
    if mount is not None:
        return mount.device
    try:
        return os.stat(below_root(host, path)).st_dev  # noqa: PTH116 - a string is what the system call takes
    except OSError:
        return path
