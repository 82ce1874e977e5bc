"""What the disks behind the watched filesystems do.

Source:  /sys/class/block/<device>/stat, https://docs.kernel.org/block/stat.html
Units:   megabytes (1e6 bytes) per second over all these devices; percent of time for the busiest of them.
Cost:    one read of 5 us per device at a tick; once a minute they are looked up anew, beside
         the tick.
Absent:  in the first 0.15 s; filesystems without a local device (NFS, tmpfs, ...); busy time of a device
         that does not count it (md before Linux 5.10).
Check:   iostat -x 1; cat /sys/class/block/*/stat
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import ClassVar, NamedTuple

from mlflow_sysmetrics.collectors.block_devices import (
    counting_devices,
    devices_behind,
    physical_disks,
    without_overlaps,
)
from mlflow_sysmetrics.collectors.block_stat import DeviceWork, parse_stat, work_between
from mlflow_sysmetrics.collectors.catalogue import disk as catalogue
from mlflow_sysmetrics.collectors.contract import MEGABYTE, PERCENT, Collector
from mlflow_sysmetrics.collectors.path_readings import LOOK_SECONDS, Answers, PathReadings
from mlflow_sysmetrics.collectors.rhythm import Lap, Pause
from mlflow_sysmetrics.collectors.watched_paths import watched_paths
from mlflow_sysmetrics.errors import Unavailable
from mlflow_sysmetrics.machine.host import Host, read_short
from mlflow_sysmetrics.machine.mounts import has_local_device, mount_of, read_mounts, real_path
from mlflow_sysmetrics.samples import Family, Metric, Sample

_MILLISECONDS = 1000.0


class _Behind(NamedTuple):
    """What lies behind a watched path: type of its filesystem ("" if unknown), and the devices if known."""

    filesystem: str
    devices: frozenset[str] | None


class DiskIoLinux(Collector):
    """Bytes that the devices behind the watched paths move, and how busy they are."""

    family: ClassVar[Family] = Family.DISK
    metrics: ClassVar[tuple[Metric, ...]] = (catalogue.DISK_READ, catalogue.DISK_WRITE, catalogue.DISK_BUSY)

    def __init__(self, host: Host) -> None:
        self._host = host
        paths = [watched.path for watched in watched_paths(host)[0]]
        self._readings = PathReadings("disk-io", paths, lambda path: _look_behind(host, path))
        self._lap = Lap()
        self._pause = Pause(LOOK_SECONDS)
        self._stats = self._find(self._readings.first())
        self._last = self._read()
        if not self._last:
            raise Unavailable("; ".join(self.gaps))

    def collect(self, now: float) -> Iterator[Sample]:
        """Yields the rates since the last reading that was old enough, of the devices that were there.

        Raises:
            Unavailable: the devices are gone; a new collector may find others.
        """
        span = self._lap.seconds(now)
        if self._pause.renew_if_over(now):
            self._stats = self._find(self._readings.next())
        if span is None:
            return
        before, self._last = self._last, self._read()
        if before.keys() - self._last.keys():  # what took the place of one that is gone may be there already
            self._pause = Pause(LOOK_SECONDS, read=False)
        pairs = ((before[name], counters) for name, counters in self._last.items() if name in before)
        works = [work for pair in pairs if (work := work_between(*pair)) is not None]
        if not works:
            return
        yield catalogue.DISK_READ.sample(sum(work.read_bytes for work in works) / MEGABYTE / span, span)
        yield catalogue.DISK_WRITE.sample(sum(work.written_bytes for work in works) / MEGABYTE / span, span)
        busy = [work.busy_ms for work in works if work.busy_ms is not None]
        if busy:
            # A request that began before counts whole when it ends, hence the cap.
            yield catalogue.DISK_BUSY.sample(min(PERCENT * max(busy) / _MILLISECONDS / span, PERCENT), span)

    def _read(self) -> dict[str, DeviceWork]:
        """Returns the counters of the devices that answer; the others wait for the next look."""
        found = {}
        for name, stat in tuple(self._stats.items()):
            try:
                found[name] = parse_stat(read_short(stat))
            except (OSError, ValueError) as error:
                del self._stats[name]
                reason = getattr(error, "strerror", None) or error
                self.gaps = (*self.gaps, f"/sys/class/block/{name}/stat: {reason}")
        return found

    def _find(self, answers: Answers[_Behind]) -> dict[str, str]:
        """Returns the devices to read, each with the path of its stat file.

        Raises:
            Unavailable: there are none.
        """
        found, gaps = self._devices(answers)
        names = []
        for device in sorted(found):
            counting = counting_devices(self._host, device)
            names += counting
            if not counting:
                gaps.append(f"{device} counts nothing: write 1 to /sys/block/{device}/queue/iostats")
        if not names:
            raise Unavailable("; ".join(gaps))
        self.gaps: Sequence[str] = tuple(gaps)
        return {name: str(self._host.root / "sys/class/block" / name / "stat") for name in names}

    def _devices(self, answers: Answers[_Behind]) -> tuple[frozenset[str], list[str]]:
        """Returns the devices behind the watched paths, and which paths have none that is known."""
        found: set[str] = set()
        without: list[str] = []  # paths that do not answer are named by `Disk`
        unknown: list[str] = []
        for path, (filesystem, devices) in answers.values.items():
            if filesystem and not has_local_device(filesystem):
                without.append(f"{path} is on {filesystem}, which has no local device")
            elif devices is None:
                kind = f" ({filesystem})" if filesystem else ""
                unknown.append(f"the devices of {path}{kind} cannot be told: all disks count")
            else:
                found |= devices
        if unknown or not (found or without):
            # With all physical disks everything is counted; with what is stacked on them, twice.
            disks = physical_disks(self._host)
            return disks, without + unknown + ([] if disks else ["no disk in /sys/block"])
        return without_overlaps(self._host, found), without


def _look_behind(host: Host, path: str) -> _Behind:
    """Looks for the devices behind a path, for as long as it takes."""
    host.disk_usage(path)  # raises OSError for a path that `Disk` has no series of
    mounts = read_mounts(host)
    mount = mount_of(real_path(host, path), mounts)
    if mount is None:
        return _Behind("", None)
    if not has_local_device(mount.filesystem):
        return _Behind(mount.filesystem, None)
    return _Behind(mount.filesystem, devices_behind(host, mount, mounts))
