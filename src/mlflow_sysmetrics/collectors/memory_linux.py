"""Memory: how much of its limit the job holds, and the host's memory if that is something else.

Source:  /proc/meminfo: MemTotal, MemAvailable, SwapTotal, SwapFree in KiB; where MemAvailable is missing
         (before Linux 3.14) or reads 0 although memory is free (giampaolo/psutil#1915), free + buffers +
         cached + reclaimable slab memory - shared memory. If a cgroup limits the job: its working set.
Units:   megabytes (1e6 bytes); percent of MemTotal, or of the smallest limit on the job's cgroup and its
         ancestors. Used memory of the host is total minus available, as in psutil 7.
Cost:    one read of /proc/meminfo, of which four lines are parsed; two more reads per group with a limit.
         Limits may change: half of the files that set one are read at every other tick, 1 us each.
Absent:  swap, if there is none.
Check:   free -m; cat /sys/fs/cgroup/memory.max /sys/fs/cgroup/memory.current
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Sequence
from typing import ClassVar, NamedTuple

from mlflow_sysmetrics.collectors import bounds
from mlflow_sysmetrics.collectors.catalogue import cpu_and_memory as catalogue
from mlflow_sysmetrics.collectors.contract import KIBIBYTE, MEGABYTE, PERCENT, Collector
from mlflow_sysmetrics.collectors.kernel_files import number_after
from mlflow_sysmetrics.collectors.own_group import GroupMemory, LimitWatch
from mlflow_sysmetrics.collectors.rhythm import LOOK_UP_SECONDS, Pause
from mlflow_sysmetrics.errors import Unavailable
from mlflow_sysmetrics.machine.cgroups import (
    ControllerDirectory,
    GroupLimit,
    controller_directory,
    memory_limits,
)
from mlflow_sysmetrics.machine.host import Host
from mlflow_sysmetrics.machine.reasons import Malformed, why_unread
from mlflow_sysmetrics.samples import Family, Kind, Metric, Sample


class Memory(NamedTuple):
    """Memory of the host, in bytes.

    Attributes:
        total: all of it.
        available: what programs can have without swapping.
        swap: used swap space; None if there is none.
        doubt: why `available` is an estimate although the kernel gives a value.
    """

    total: int
    available: int
    swap: int | None = None
    doubt: str = ""


def parse_meminfo(text: bytes) -> Memory:
    """Returns total and available memory and used swap space from the text of /proc/meminfo.

    Raises:
        Malformed: the text has no total, or nothing about available memory.
    """
    doubt = ""
    # In every kernel since 3.14 these are the first line and the third.
    fields = text.split(None, 8)
    if len(fields) > 8 and fields[0] == b"MemTotal:" and fields[6] == b"MemAvailable:":  # noqa: PLR2004
        text_of_total, text_of_available = fields[1], fields[7]
        total = int(text_of_total) if text_of_total.isdigit() else None
        available = int(text_of_available) if text_of_available.isdigit() else None
    else:
        total, available = number_after(b"MemTotal:", text), number_after(b"MemAvailable:", text)
    if not available:
        estimate = _estimate(text)
        # Of a machine that is really out of memory little can be reclaimed.
        if available is None or (total and estimate and estimate > total * _NEGLIGIBLE):
            doubt = "" if available is None else _ZERO_AVAILABLE
            available = estimate
    if not total or total > _MOST_KIBIBYTES or available is None:
        raise Malformed("/proc/meminfo has no MemTotal, or nothing about available memory")
    # LXC combines its own total with the available memory of the host, hence the bounds.
    available = min(available, total)
    swap = None
    if _NO_SWAP not in text:
        swap_total, swap_free = number_after(b"SwapTotal:", text), number_after(b"SwapFree:", text)
        if swap_total and swap_free is not None:
            swap = max(swap_total - swap_free, 0) * KIBIBYTE
    return _make(Memory, (total * KIBIBYTE, available * KIBIBYTE, swap, doubt))


_make = tuple.__new__
_USAGE, _PERCENTAGE = catalogue.MEMORY_USAGE.name, catalogue.MEMORY_USAGE_PERCENTAGE.name
_AVAILABLE, _SWAP = catalogue.MEMORY_AVAILABLE.name, catalogue.SWAP_USAGE.name
_GAUGE = Kind.GAUGE
_NO_GAPS: tuple[str, ...] = ()
_MOST_KIBIBYTES = bounds.HOST_BYTES.most / KIBIBYTE
_NO_SWAP = b"\nSwapTotal:             0 kB\n"
_NEGLIGIBLE = 0.05
_ZERO_AVAILABLE = (
    "MemAvailable in /proc/meminfo reads 0, which its other lines refute: available memory is estimated from "
    "what is free or can be reclaimed"
)


def _estimate(text: bytes) -> int | None:
    """Returns the memory that is free or can be reclaimed, in KiB; None if the text has nothing about it."""
    labels = (b"MemFree:", b"Buffers:", b"Cached:", b"SReclaimable:")
    known = [part for part in (number_after(label, text) for label in labels) if part is not None]
    if not known:
        return None
    # Files of tmpfs are in Cached, but only swapping frees them.
    return max(sum(known) - (number_after(b"Shmem:", text) or 0), known[0])


class MemoryLinux(Collector):
    """Memory in use: the job's, and the host's if that is different."""

    family: ClassVar[Family] = Family.MEMORY
    metrics: ClassVar[tuple[Metric, ...]] = (
        catalogue.MEMORY_USAGE,
        catalogue.MEMORY_USAGE_PERCENTAGE,
        catalogue.MEMORY_AVAILABLE,
        catalogue.SWAP_USAGE,
        catalogue.HOST_MEMORY_USAGE_PERCENTAGE,
    )

    def __init__(self, host: Host) -> None:
        self._host = host
        self._file = host.files.keep(str(host.root / "proc/meminfo"))
        self._look = Pause(LOOK_UP_SECONDS, first=0.2)
        self._watch = LimitWatch(host, "memory")
        try:
            memory = parse_meminfo(self._file.read())
        except (OSError, ValueError) as error:
            raise Unavailable(why_unread(error)) from error
        self._total = memory.total
        self._job = _find_job(host, memory.total)

    def collect(self, now: float) -> Sequence[Sample]:
        """Returns used and available memory and used swap space.

        Raises:
            Unavailable: the job's cgroup is gone; a new collector finds its group.
        """
        changed = self._watch.changed(now) or (self._job is not None and self._job.is_outdated())
        total, available, swap, doubt = memory = parse_meminfo(self._file.read())
        used = total - available
        look = self._look
        # Infinity: the pause has not begun.
        is_over = not now < look.over_at < math.inf and look.renew_if_over(now)
        if is_over or changed or total != self._total:  # the memory of a virtual machine may grow and shrink
            self._total = total
            self._job = _find_job(self._host, total)
        self.gaps = (doubt,) if doubt else _NO_GAPS
        if self._job is not None:
            samples = [catalogue.HOST_MEMORY_USAGE_PERCENTAGE.sample(PERCENT * used / total)]
            samples += self._job.samples(memory)
            self.gaps += self._job.gaps
            return samples
        samples = [
            _make(Sample, (_USAGE, _GAUGE, used / MEGABYTE, None)),
            _make(Sample, (_PERCENTAGE, _GAUGE, PERCENT * used / total, None)),
            _make(Sample, (_AVAILABLE, _GAUGE, available / MEGABYTE, None)),
        ]
        if swap is not None:
            samples.append(_make(Sample, (_SWAP, _GAUGE, swap / MEGABYTE, None)))
        return samples


def _find_job(host: Host, total: int) -> _Job | None:
    """Returns the memory of the job if it is limited to less than the host's; else None."""
    try:
        directory = controller_directory(host, "memory")
    except Unavailable:
        return None
    limited = [group for group in memory_limits(host, directory) if group.limit < total]
    return _Job(host, directory, limited) if limited else None


class _Job:
    """The job's memory under a limit: what its own group holds, and what each limit above it leaves."""

    def __init__(self, host: Host, directory: ControllerDirectory, limited: list[GroupLimit]) -> None:
        self.gaps: tuple[str, ...] = ()
        self._limit = min(group.limit for group in limited)
        readable = dict(_readable(host, directory))
        if not readable:
            raise Unavailable(f"the memory of the cgroup {directory.group} cannot be read")
        # A group whose controller is off has no files; its nearest ancestor with files represents it.
        self._own = next(iter(readable.values()))
        self._groups = [(group.limit, readable[group.path]) for group in limited if group.path in readable]
        self._inherited = self._own.inherited

    def is_outdated(self) -> bool:
        """Returns whether a limit that no file of the job's own groups shows has changed (v1)."""
        return self._own.inherited != self._inherited

    def samples(self, memory: Memory) -> Iterator[Sample]:
        held = self._own.working_set()
        why = _why_impossible(self._own, memory)
        self.gaps = (f"no memory usage of the job: {why}",) if why else ()
        if why:
            return
        yield catalogue.MEMORY_USAGE.sample(held / MEGABYTE)
        # Above the limit only briefly, or if the limit is memory.high, which the kernel does not enforce
        # strictly.
        yield catalogue.MEMORY_USAGE_PERCENTAGE.sample(min(PERCENT * held / self._limit, PERCENT))
        left = [
            max(limit - size, 0.0)
            for limit, group in self._groups
            for size in [held if group is self._own else group.working_set()]
            if not _why_impossible(group, memory)
        ]
        yield catalogue.MEMORY_AVAILABLE.sample(min([float(memory.available), *left]) / MEGABYTE)
        swap = self._own.swap() if memory.swap is not None else None
        if swap is not None and bounds.HOST_BYTES.holds(swap):
            yield catalogue.SWAP_USAGE.sample(swap / MEGABYTE)


def _why_impossible(group: GroupMemory, memory: Memory) -> str:
    """Returns why the usage that a group shows cannot be true; "" if it can."""
    if not group.usage:
        return "its cgroup shows 0 bytes, although this process is in it"
    # Under LXC the total is that of the container, which may be exceeded for a moment.
    return "its cgroup shows more than the machine has" if group.usage > 2 * memory.total else ""


def _readable(host: Host, directory: ControllerDirectory) -> Iterator[tuple[str, GroupMemory]]:
    for path in directory.paths:
        with contextlib.suppress(Unavailable):
            yield path, GroupMemory(host, directory, path)
