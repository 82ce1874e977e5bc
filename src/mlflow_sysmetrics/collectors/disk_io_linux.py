"""Throughput and busy time of the disks behind the watched filesystems.

Source:  /sys/class/block/<device>/stat, https://docs.kernel.org/block/stat.html
Units:   megabytes (1e6 bytes) per second over all these devices; percent of time for the busiest of them.
Cost:    one read of 5 us per device and tick; every five minutes, or each minute if some are unknown, the
         devices are looked up again in the background.
Absent:  in the first 0.15 s; filesystems without a local device (NFS, tmpfs, ...); busy time of a device
         that does not count it (md before Linux 5.10); at a tick at which a counter is not believed
         (`counters`).
Check:   iostat -x 1; cat /sys/class/block/*/stat
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import ClassVar, NamedTuple

from mlflow_sysmetrics.collectors import bounds
from mlflow_sysmetrics.collectors.block_devices import (
    counting_devices,
    devices_behind,
    physical_disks,
    without_overlaps,
)
from mlflow_sysmetrics.collectors.catalogue import disk_and_network as catalogue
from mlflow_sysmetrics.collectors.contract import MEGABYTE, PERCENT, Collector
from mlflow_sysmetrics.collectors.counters import ALL_ONES, NO_CLOCK, Counters, CounterSet, Step
from mlflow_sysmetrics.collectors.kernel_files import WORD
from mlflow_sysmetrics.collectors.rhythm import LOOK_UP_SECONDS, SHORTEST_RATE_SECONDS, Lap, Pause
from mlflow_sysmetrics.collectors.watched_paths import LOOK_SECONDS, Answers, PathReadings, watched_paths
from mlflow_sysmetrics.errors import Unavailable
from mlflow_sysmetrics.machine.host import Host
from mlflow_sysmetrics.machine.kept_files import KeptFile
from mlflow_sysmetrics.machine.mounts import has_local_device, mount_of, read_mounts, real_path
from mlflow_sysmetrics.machine.reasons import Malformed, quoted, why_unread
from mlflow_sysmetrics.samples import Family, Metric, Sample

_SECTOR_BYTES = 512  # the unit of this file, whatever the size of the device's sectors
_READ, _WRITTEN, _BUSY = 2, 6, 9
_make = tuple.__new__  # a third of the cost of calling the class
_READ_RATE, _WRITE_RATE, _RATE = catalogue.DISK_READ.name, catalogue.DISK_WRITE.name, catalogue.DISK_READ.kind
_BUSY_SHARE = catalogue.DISK_BUSY.name
_BUSY_WRAPS_AT = 2**32  # the kernel prints an unsigned int of milliseconds: 50 days


class DeviceWork(NamedTuple):
    """Work of a device since it came up; `busy_ms` is None if unknown."""

    read_bytes: int
    written_bytes: int
    busy_ms: int | None


def parse_stat(text: bytes) -> DeviceWork:
    """Returns the work of a device since it came up, from the text of its stat file.

    Raises:
        Malformed: the text does not have the counters of a block device.
    """
    fields = text.split(None, _BUSY + 1)
    try:
        read, written, busy = int(fields[_READ]), int(fields[_WRITTEN]), int(fields[_BUSY])
    except (IndexError, ValueError):
        read = written = busy = -1
    # One field more than is used, so a text cut within a number is rejected.
    complete = len(fields) > _BUSY + 1
    if not complete or min(read, written, busy) < 0 or max(read, written, busy) >= WORD:
        raise Malformed(f"{quoted(text)} does not have the counters of a block device")
    # A driver that counts sectors but not time leaves this at 0.
    counts_time = busy > 0 or not (read or written)
    work = read * _SECTOR_BYTES, written * _SECTOR_BYTES, busy if counts_time else None
    return _make(DeviceWork, work)


def busy_between(before: int | None, now: int | None) -> int | None:
    """Returns the milliseconds in which a device was busy between two readings; None if they are unknown."""
    if before is None or now is None:
        return None
    busy = (now - before) % _BUSY_WRAPS_AT
    # A difference of more than half the range means that the counter went back.
    return busy if busy < _BUSY_WRAPS_AT // 2 else None


def _moved(work: Mapping[str, DeviceWork]) -> dict[str, tuple[int, int]]:
    return {name: (one.read_bytes, one.written_bytes) for name, one in work.items()}


_MILLISECONDS = 1000.0


def _busiest(
    before: Mapping[str, DeviceWork], work: Mapping[str, DeviceWork], steps: Mapping[str, Step]
) -> float | None:
    """Returns the share of time in which the busiest device was busy; None if that is unknown of all."""
    busiest = -1.0
    for name, (_, seconds, whole) in steps.items():
        if name in before and whole and seconds:
            milliseconds = busy_between(before[name][2], work[name][2])
            if milliseconds is not None:
                busiest = max(busiest, milliseconds / _MILLISECONDS / seconds)
    return busiest if busiest >= 0 else None


class _Behind(NamedTuple):
    """What lies behind a watched path: its filesystem type ("" if unknown) and its devices, if known."""

    filesystem: str
    devices: frozenset[str] | None


class _Only(NamedTuple):
    """The device of a host that has one, which is read in place."""

    name: str
    file: KeptFile
    counter: Counters


class DiskIoLinux(Collector):
    """Throughput of the devices behind the watched paths, and how busy they are."""

    cumulative = True
    family: ClassVar[Family] = Family.DISK
    metrics: ClassVar[tuple[Metric, ...]] = (catalogue.DISK_READ, catalogue.DISK_WRITE, catalogue.DISK_BUSY)

    def __init__(self, host: Host) -> None:
        self._host = host
        paths = [watched.path for watched in watched_paths(host)[0]]
        self._readings = PathReadings("disk-io", paths, lambda path: _look_behind(host, path))
        self._lap = Lap()
        self._pause = Pause(LOOK_SECONDS, first=0.55)
        self._only: _Only | None = None
        self._stats: dict[str, KeptFile] = {}
        self._stats = self._find(self._readings.first())
        self._counters = CounterSet(
            lambda name: Counters(*[bounds.disk_bytes(name)] * 2, from_zero=bounds.FROM_ZERO)
        )
        self._last = self._read()
        if not self._last:
            raise Unavailable("; ".join(self.gaps))
        self._counters.follow(_moved(self._last), NO_CLOCK)

    def collect(self, now: float) -> Sequence[Sample]:
        """Returns the rates since the last reading that was old enough, for devices present at both readings.

        Raises:
            Unavailable: the devices are gone; a new collector may find others.
        """
        only = self._only
        # An ordinary tick with one device; infinity: the pause has not begun.
        if only is not None and now < self._pause.over_at < math.inf:
            samples = self._ordinary(only, now)
            if samples is not None:
                return samples
        samples = self._collect(now)
        counter = self._counters.only() if len(self._last) == len(self._stats) == 1 else None
        if counter is not None:
            ((name, file),) = self._stats.items()
            self._only = _Only(name, file, counter)
        else:
            self._only = None
        return samples

    def _ordinary(self, only: _Only, now: float) -> Sequence[Sample] | None:
        """Returns the samples of a tick at which nothing is doubted, see `Counters`; None at any other."""
        name, file, counter = only
        span = now - self._lap.began
        busy_before = self._last[name][2]
        if span < SHORTEST_RATE_SECONDS or busy_before is None:
            return None
        try:
            read, written, busy = work = parse_stat(file.read())
        except (OSError, ValueError):  # read again, with what follows from that
            return None
        before_read, before_written = counter.counts
        more_read, more_written, most = read - before_read, written - before_written, counter.surely
        if busy is None or not (0 <= more_read <= most and 0 <= more_written <= most and busy >= busy_before):
            return None
        if read in ALL_ONES or written in ALL_ONES:
            return None
        seconds = now - counter.read_at
        counter.counts, counter.pace = (read, written), (more_read, more_written)
        self._lap.began = counter.read_at = now
        self._last[name] = work
        percent = PERCENT * (busy - busy_before) / _MILLISECONDS / seconds
        return [
            _make(Sample, (_READ_RATE, _RATE, more_read / seconds / MEGABYTE, span)),
            _make(Sample, (_WRITE_RATE, _RATE, more_written / seconds / MEGABYTE, span)),
            _make(Sample, (_BUSY_SHARE, _RATE, min(PERCENT, percent), span)),
        ]

    def _collect(self, now: float) -> Sequence[Sample]:
        span = self._lap.seconds(now)
        if self._pause.renew_if_over(now):
            self._stats = self._find(self._readings.next())
            if not self.gaps:
                self._pause.lengthen(now, LOOK_UP_SECONDS)
        if span is None:
            self._counters.begin(now)
            return ()
        before, work = self._last, self._read()
        moved = {}
        for name, one in work.items():
            moved[name] = one[:2]
        if before.keys() != work.keys():  # a replacement may be there already
            self._pause = Pause(LOOK_SECONDS, read=False)
        steps = self._counters.follow(moved, now)
        if len(steps) == len(work):
            self._last = work
        else:
            self._last = {name: one if name in steps else before.get(name, one) for name, one in work.items()}
        rates = self._counters.rates()
        if rates is None:
            return ()
        samples = [
            catalogue.DISK_READ.sample(rates[0] / MEGABYTE, span),
            catalogue.DISK_WRITE.sample(rates[1] / MEGABYTE, span),
        ]
        busiest = _busiest(before, work, steps)
        if busiest is not None:
            # A request counts in full when it ends, even if it began before the span, hence the cap.
            samples.append(catalogue.DISK_BUSY.sample(min(PERCENT * busiest, PERCENT), span))
        return samples

    def _read(self) -> dict[str, DeviceWork]:
        """Returns the counters of the devices that respond; the others are skipped until the next lookup."""
        work = {}
        for name, stat in tuple(self._stats.items()):
            try:
                work[name] = parse_stat(stat.read())
            except (OSError, ValueError) as error:
                del self._stats[name]
                self.gaps = (*self.gaps, why_unread(error, f"/sys/class/block/{name}/stat"))
        return work

    def _find(self, answers: Answers[_Behind]) -> dict[str, KeptFile]:
        """Returns the devices to read, each with its stat file.

        Raises:
            Unavailable: there are none.
        """
        found, gaps = self._devices(answers)
        names = []
        for device in sorted(found):
            counting = counting_devices(self._host, device)
            names += counting
            if not counting:
                gaps.append(f"{device} keeps no statistics: write 1 to /sys/block/{device}/queue/iostats")
        if not names:
            raise Unavailable("; ".join(gaps))
        self.gaps: Sequence[str] = tuple(gaps)
        directory, known = str(self._host.root / "sys/class/block"), self._stats
        return {name: known.get(name) or self._host.files.keep(f"{directory}/{name}/stat") for name in names}

    def _devices(self, answers: Answers[_Behind]) -> tuple[frozenset[str], list[str]]:
        """Returns the devices behind the watched paths, and the paths without a known device."""
        found: set[str] = set()
        without: list[str] = []  # paths that do not respond are reported by `Disk`
        unknown: list[str] = []
        for path, (filesystem, devices) in answers.values.items():
            if filesystem and not has_local_device(filesystem):
                without.append(f"{path} is on {filesystem}, which has no local device")
            elif devices is None:
                kind = f" ({filesystem})" if filesystem else ""
                unknown.append(f"the devices of {path}{kind} are unknown: all disks are counted")
            else:
                found |= devices
        if unknown or not (found or without):
            # All physical disks together count everything once; devices stacked on them would count it twice.
            disks = physical_disks(self._host)
            return disks, without + unknown + ([] if disks else ["no disk in /sys/block"])
        return without_overlaps(self._host, found), without


def _look_behind(host: Host, path: str) -> _Behind:
    """Finds the devices behind a path; may block."""
    host.disk_usage(path)  # raises OSError for a path of which `Disk` has no series
    mounts = read_mounts(host)
    mount = mount_of(real_path(host, path), mounts)
    if mount is None:
        return _Behind("", None)
    if not has_local_device(mount.filesystem):
        return _Behind(mount.filesystem, None)
    return _Behind(mount.filesystem, devices_behind(host, mount, mounts))
