"""Memory: what the job holds of what it may hold, and the host's where that is something else.

Source:  /proc/meminfo: MemTotal, MemAvailable, SwapTotal, SwapFree in KiB; on kernels before 3.14 free +
         buffers + cached for what is available. Where a cgroup limits the job: its working set.
Units:   megabytes (1e6 bytes); percent of MemTotal, or of the smallest limit over the own cgroup and its
         ancestors. Used of the host is what is not available, as in psutil 7.
Cost:    one read of /proc/meminfo, of which four lines are parsed; two more reads per group with a limit.
         The limits are looked up every two minutes.
Absent:  swap where there is none.
Check:   free -m; cat /sys/fs/cgroup/memory.max /sys/fs/cgroup/memory.current
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import ClassVar, NamedTuple

from mlflow_sysmetrics.collectors.catalogue import memory as catalogue
from mlflow_sysmetrics.collectors.contract import KIBIBYTE, MEGABYTE, PERCENT, Collector
from mlflow_sysmetrics.collectors.kernel_files import number_after
from mlflow_sysmetrics.collectors.own_group import GroupMemory, OwnGroup
from mlflow_sysmetrics.collectors.rhythm import LIMITS_SECONDS, Pause
from mlflow_sysmetrics.errors import Unavailable
from mlflow_sysmetrics.machine.cgroups import (
    ControllerDirectory,
    GroupLimit,
    controller_directory,
    memory_limits,
)
from mlflow_sysmetrics.machine.host import Host, read_short
from mlflow_sysmetrics.samples import Family, Metric, Sample


class Memory(NamedTuple):
    """Memory of the host, in bytes; `swap` is what is used of swap space, None where there is none."""

    total: int
    available: int
    swap: int | None = None


def parse_meminfo(text: bytes) -> Memory:
    """Returns total and available memory and used swap space from the text of /proc/meminfo.

    Raises:
        ValueError: the text has no total, or nothing that tells what is available.
    """
    total = number_after(b"MemTotal:", text)
    available = number_after(b"MemAvailable:", text)
    if available is None:
        parts = [number_after(label, text) for label in (b"MemFree:", b"Buffers:", b"Cached:")]
        known = [part for part in parts if part is not None]
        available = sum(known) if known else None
    if not total or available is None:
        raise ValueError("/proc/meminfo has no MemTotal or nothing that tells what is available")
    swap_total, swap_free = number_after(b"SwapTotal:", text), number_after(b"SwapFree:", text)
    # LXC shows a total of its own beside what is available on the host, hence the bounds.
    swap = max(swap_total - swap_free, 0) * KIBIBYTE if swap_total and swap_free is not None else None
    return Memory(total * KIBIBYTE, min(available, total) * KIBIBYTE, swap)


class MemoryLinux(Collector):
    """Memory in use: the job's, and the host's where that is not the same."""

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
        self._group = OwnGroup(host)
        try:
            memory = parse_meminfo(read_short(self._path))
        except (OSError, ValueError) as error:
            raise Unavailable(str(error)) from error
        self._job = _find_job(host, memory.total)

    def collect(self, now: float) -> Iterator[Sample]:
        """Yields used and available memory and used swap space.

        Raises:
            Unavailable: the job's cgroup is gone, or another one now; a new collector finds it.
        """
        self._group.check(now)
        memory = parse_meminfo(read_short(self._path))
        used = memory.total - memory.available
        if self._look.renew_if_over(now):
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
    """Returns the memory of the job where a limit holds it below the host; None where none does."""
    try:
        directory = controller_directory(host, "memory")
    except Unavailable:
        return None
    limited = [group for group in memory_limits(host, directory) if group.limit < total]
    return _Job(host, directory, limited) if limited else None


class _Job:
    """The job's memory under a limit: what its own group holds, and what each limit over it leaves."""

    def __init__(self, host: Host, directory: ControllerDirectory, limited: list[GroupLimit]) -> None:
        self._limit = min(group.limit for group in limited)
        readable = dict(_readable(host, directory))
        if not readable:
            raise Unavailable(f"the memory of the cgroup {directory.group} cannot be read")
        # A group whose controller is off does not tell; the nearest ancestor that does stands for it.
        self._own = next(iter(readable.values()))
        self._groups = [(group.limit, readable[group.path]) for group in limited if group.path in readable]

    def samples(self, memory: Memory) -> Iterator[Sample]:
        held = self._own.working_set()
        yield catalogue.MEMORY_USAGE.sample(held / MEGABYTE)
        # Over the limit only for moments, or where memory.high is it, at which the kernel does not stop.
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
