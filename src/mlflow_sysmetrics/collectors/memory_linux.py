"""Memory: how much of its limit the job holds, and the host's memory if that is something else.

Source:  /proc/meminfo: MemTotal, MemAvailable, SwapTotal, SwapFree in KiB; on kernels before 3.14 free +
         buffers + cached as available memory. If a cgroup limits the job: its working set.
Units:   megabytes (1e6 bytes); percent of MemTotal, or of the smallest limit on the job's cgroup and its
         ancestors. Used memory of the host is total minus available, as in psutil 7.
Cost:    one read of /proc/meminfo, of which four lines are parsed; two more reads per group with a limit.
         A change of the limits is looked for at every tick, by 1 us per file that sets one.
Absent:  swap, if there is none.
Check:   free -m; cat /sys/fs/cgroup/memory.max /sys/fs/cgroup/memory.current
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import ClassVar, NamedTuple

from mlflow_sysmetrics.collectors.catalogue import memory as catalogue
from mlflow_sysmetrics.collectors.contract import KIBIBYTE, MEGABYTE, PERCENT, Collector
from mlflow_sysmetrics.collectors.kernel_files import number_after
from mlflow_sysmetrics.collectors.own_group import GroupMemory, LimitWatch
from mlflow_sysmetrics.collectors.rhythm import LIMITS_SECONDS, Pause
from mlflow_sysmetrics.errors import Unavailable
from mlflow_sysmetrics.machine.cgroups import (
    ControllerDirectory,
    GroupLimit,
    controller_directory,
    memory_limits,
)
from mlflow_sysmetrics.machine.host import Host, read_short
from mlflow_sysmetrics.machine.reasons import Malformed, why_unread
from mlflow_sysmetrics.samples import Family, Metric, Sample


class Memory(NamedTuple):
    """Memory of the host, in bytes; `swap` is used swap space, None if there is none."""

    total: int
    available: int
    swap: int | None = None


def parse_meminfo(text: bytes) -> Memory:
    """Returns total and available memory and used swap space from the text of /proc/meminfo.

    Raises:
        Malformed: the text has no total, or nothing about available memory.
    """
    total = number_after(b"MemTotal:", text)
    available = number_after(b"MemAvailable:", text)
    if available is None:
        parts = [number_after(label, text) for label in (b"MemFree:", b"Buffers:", b"Cached:")]
        known = [part for part in parts if part is not None]
        available = sum(known) if known else None
    if not total or available is None:
        raise Malformed("/proc/meminfo has no MemTotal, or nothing about available memory")
    swap_total, swap_free = number_after(b"SwapTotal:", text), number_after(b"SwapFree:", text)
    # LXC combines its own total with the available memory of the host, hence the bounds.
    swap = max(swap_total - swap_free, 0) * KIBIBYTE if swap_total and swap_free is not None else None
    return Memory(total * KIBIBYTE, min(available, total) * KIBIBYTE, swap)


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
        self._path = str(host.root / "proc/meminfo")
        self._look = Pause(LIMITS_SECONDS)
        self._watch = LimitWatch(host, "memory")
        try:
            memory = parse_meminfo(read_short(self._path))
        except (OSError, ValueError) as error:
            raise Unavailable(why_unread(error)) from error
        self._total = memory.total
        self._job = _find_job(host, memory.total)

    def collect(self, now: float) -> Iterator[Sample]:
        """Yields used and available memory and used swap space.

        Raises:
            Unavailable: the job's cgroup is gone; a new collector finds its group.
        """
        changed = self._watch.changed(now) or (self._job is not None and self._job.is_outdated())
        memory = parse_meminfo(read_short(self._path))
        used = memory.total - memory.available
        # The memory of a virtual machine may grow and shrink.
        if self._look.renew_if_over(now) or changed or memory.total != self._total:
            self._total = memory.total
            self._job = _find_job(self._host, memory.total)
        if self._job is not None:
            yield catalogue.HOST_MEMORY_USAGE_PERCENTAGE.sample(PERCENT * used / memory.total)
            yield from self._job.samples(memory)
            return
        yield catalogue.MEMORY_USAGE.sample(used / MEGABYTE)
        yield catalogue.MEMORY_USAGE_PERCENTAGE.sample(PERCENT * used / memory.total)
        yield catalogue.MEMORY_AVAILABLE.sample(memory.available / MEGABYTE)
        if memory.swap is not None:
            yield catalogue.SWAP_USAGE.sample(memory.swap / MEGABYTE)


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
        yield catalogue.MEMORY_USAGE.sample(held / MEGABYTE)
        # Above the limit only briefly, or if the limit is memory.high, which the kernel does not enforce
        # strictly.
        yield catalogue.MEMORY_USAGE_PERCENTAGE.sample(min(PERCENT * held / self._limit, PERCENT))
        left = [
            max(limit - (held if group is self._own else group.working_set()), 0.0)
            for limit, group in self._groups
        ]
        yield catalogue.MEMORY_AVAILABLE.sample(min([float(memory.available), *left]) / MEGABYTE)
        swap = self._own.swap() if memory.swap is not None else None
        if swap is not None:
            yield catalogue.SWAP_USAGE.sample(swap / MEGABYTE)


def _readable(host: Host, directory: ControllerDirectory) -> Iterator[tuple[str, GroupMemory]]:
    for path in directory.paths:
        with contextlib.suppress(Unavailable):
            yield path, GroupMemory(host, directory, path)
