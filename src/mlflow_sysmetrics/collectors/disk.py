"""Space of the filesystems on which the job works.

Source:  statvfs of the working directory and of the paths in MLFLOW_SYSMETRICS_DISKS (GetDiskFreeSpaceEx on
         Windows), through `shutil.disk_usage`; once per filesystem, identified by /proc/self/mountinfo
         (st_dev if there is none).
Units:   megabytes (1e6 bytes); percent of the space open to ordinary users, as in df and psutil.
Cost:    one system call per filesystem every 5 s. A look at the paths, each in its own thread, since a
         network filesystem may not respond: once a minute if there is one, whose space is the result of that
         look, or if a path is missing; else every five minutes.
Absent:  a path that does not exist, does not respond for 30 s or has no size. It is tried again once a
         minute.
Check:   df .
"""

from __future__ import annotations

import os
import stat
from collections.abc import Hashable, Sequence
from typing import ClassVar, NamedTuple

from mlflow_sysmetrics import settings
from mlflow_sysmetrics.collectors.catalogue import disk_and_network as catalogue
from mlflow_sysmetrics.collectors.contract import MEGABYTE, PERCENT, Collector
from mlflow_sysmetrics.collectors.rhythm import LOOK_UP_SECONDS, SLOW_SECONDS, Pause
from mlflow_sysmetrics.collectors.watched_paths import LOOK_SECONDS, Answers, PathReadings, watched_paths
from mlflow_sysmetrics.errors import Unavailable
from mlflow_sysmetrics.machine.host import DiskUsage, Host
from mlflow_sysmetrics.machine.mounts import below_root, is_distant, mount_of, read_mounts, real_path
from mlflow_sysmetrics.machine.reasons import why_unread
from mlflow_sysmetrics.samples import Family, Kind, Metric, Sample

_REMEDY = "mount it, or correct MLFLOW_SYSMETRICS_DISKS"

_GAUGE = Kind.GAUGE  # looked up in the class it costs more than a sample
_make = tuple.__new__
_PLAIN = (catalogue.DISK_USAGE_PERCENTAGE, catalogue.DISK_USAGE, catalogue.DISK_AVAILABLE)
_NAMED = (
    catalogue.NAMED_DISK_USAGE_PERCENTAGE,
    catalogue.NAMED_DISK_USAGE,
    catalogue.NAMED_DISK_AVAILABLE,
)


class _Place(NamedTuple):
    """What is known about a watched path.

    Attributes:
        usage: space of its filesystem at the last look.
        filesystem: identity of the filesystem, or the path itself if that is unknown.
        is_device: True for a device node: its filesystem would be /dev, not the one on the device.
        is_distant: True if the filesystem may stop responding, so that only the background look reads it.
    """

    usage: DiskUsage
    filesystem: Hashable
    is_device: bool
    is_distant: bool


class _Series(NamedTuple):
    """A filesystem that has series: the path through which it is read, and the three keys."""

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
        watched, self._lasting_gaps = watched_paths(host)
        self._names = dict(watched)
        self._readings = PathReadings("disk", self._names, lambda path: _look_at(host, path))
        self._pause = Pause(LOOK_SECONDS)
        self._rest = Pause(SLOW_SECONDS, read=False)
        self._samples: list[Sample] = []
        self._places: dict[str, _Place] = {}
        first = self._readings.first()
        self._series = self._choose(first)
        for path, why in first.silent.items():
            if self._names[path] is not None:  # a directory that the user asked for
                settings.warn_once(settings.DISKS, path, f"is not watched yet: {why}; {_REMEDY}")
        if not self._series:
            raise Unavailable("; ".join(self.gaps) or "no path to watch")

    def levels(self, now: float) -> Sequence[Sample]:
        """Returns nothing while the last reading is less than 5 s old."""
        return () if now < self._rest.over_at and now < self._pause.over_at else self.collect(now)

    def collect(self, now: float) -> Sequence[Sample]:
        """Returns used and available space of each filesystem that responds, as of the last 5 s."""
        if now < self._rest.over_at and now < self._pause.over_at:
            return self._samples
        self._rest.renew_if_over(now)
        if self._pause.renew_if_over(now):
            answers = self._readings.next()
            self._series = self._choose(answers)
            if not (self.gaps or any(place.is_distant for place in answers.values.values())):
                self._pause.lengthen(now, LOOK_UP_SECONDS)
        self._samples = self._read()
        return self._samples

    def _read(self) -> list[Sample]:
        samples = []
        for series in self._series:
            path, percentage, key_used, key_free = series
            place = self._places[path]
            try:
                usage = place.usage if place.is_distant else self._host.disk_usage(path)
            except OSError as error:
                self.gaps = (*self.gaps, why_unread(error, path))
                self._series = [one for one in self._series if one is not series]
                continue
            total, used, free = usage
            if 0 <= used <= total and 0 <= free <= total and used + free > 0:
                samples.append(_make(Sample, (percentage, _GAUGE, PERCENT * used / (used + free), None)))
                samples.append(_make(Sample, (key_used, _GAUGE, used / MEGABYTE, None)))
                samples.append(_make(Sample, (key_free, _GAUGE, free / MEGABYTE, None)))
        return samples

    def _choose(self, answers: Answers[_Place]) -> list[_Series]:
        """Returns the series of the filesystems that respond, each through the first path on it."""
        gaps = [*self._lasting_gaps]
        gaps += [why + (f"; {_REMEDY}" if self._names[path] else "") for path, why in answers.silent.items()]
        self._places = answers.values
        first: dict[Hashable, str] = {}
        chosen = []
        for path, place in answers.values.items():
            if place.is_device:
                gaps.append(f"{path} is a device: give a directory on its filesystem")
            elif place.usage.total <= 0:
                gaps.append(f"the filesystem of {path} reports no size")
            elif place.filesystem in first:
                other = first[place.filesystem]
                gaps.append(f"{path} is on the same filesystem as {other}, whose series cover both")
            else:
                first[place.filesystem] = path
                name = self._names[path]
                metrics = _PLAIN if name is None else _NAMED
                chosen.append(_Series(path, *(metric.key(name=name) for metric in metrics)))
        self.gaps: Sequence[str] = tuple(gaps)
        return chosen


def _look_at(host: Host, path: str) -> _Place:
    """Looks at a path; may block."""
    usage = host.disk_usage(path)
    mounts = read_mounts(host)
    mount = mount_of(real_path(host, path), mounts) if mounts else None
    try:
        status = os.stat(below_root(host, path))
    except OSError:
        status = None
    filesystem: Hashable = path
    if mount is not None:
        filesystem = mount.device
    elif status is not None:
        filesystem = status.st_dev
    is_device = status is not None and (stat.S_ISBLK(status.st_mode) or stat.S_ISCHR(status.st_mode))
    return _Place(usage, filesystem, is_device, is_distant=mount is not None and is_distant(mount.filesystem))
