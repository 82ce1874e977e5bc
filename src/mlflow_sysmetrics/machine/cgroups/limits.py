"""The limits in force on the job: those of its own control group and of every ancestor that is visible.

The smallest one counts; a child may promise itself more than its parent gives.

Source:  memory.max, memory.high, cpu.max, cpuset.cpus.effective; v1 memory.limit_in_bytes,
         hierarchical_memory_limit in memory.stat, cpu.cfs_quota_us, cpu.cfs_period_us,
         cpuset.effective_cpus.
Absent:  what is not limited; everything where there is no cgroup.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import NamedTuple

from mlflow_sysmetrics.errors import Unavailable
from mlflow_sysmetrics.machine.cgroups.placement import V2, ControllerDirectory, Version, controller_directory
from mlflow_sysmetrics.machine.cpus import parse_cpu_list
from mlflow_sysmetrics.machine.host import Host

# Kernels write "no limit" in v1 as the largest whole number of pages, which depends on the page size. No
# machine has an exbibyte, so whatever is above it means the same.
_NO_LIMIT_BYTES = 2**60


class GroupLimit(NamedTuple):
    """A limit, and the directory of the group that has it."""

    path: str
    limit: float


def smallest_memory_limit(host: Host) -> int | None:
    """Returns the smallest memory limit on the own group, in bytes; None where there is none."""
    limit = _smallest(host, "memory", memory_limits)
    return None if limit is None else int(limit)


def smallest_cpu_quota(host: Host) -> float | None:
    """Returns the smallest CPU quota on the own group, in cores; None where there is none."""
    return _smallest(host, "cpu", cpu_quotas)


def allowed_cpus(host: Host) -> frozenset[int] | None:
    """Returns the CPUs that the cpuset allows the own group; None where there is no cpuset."""
    try:
        directory = controller_directory(host, "cpuset")
    except Unavailable:
        return None
    for path in directory.paths:
        for name in _CPUSET_FILES[directory.version]:
            try:
                cpus = parse_cpu_list(_text(host, path, name))
            except ValueError:
                continue
            if cpus:
                return cpus
    return None


def memory_limits(host: Host, directory: ControllerDirectory) -> list[GroupLimit]:
    """Returns the groups that have a memory limit, from the own one upwards, with their limits in bytes."""
    return list(_group_limits(host, directory, _memory_limits))


def cpu_quotas(host: Host, directory: ControllerDirectory) -> list[GroupLimit]:
    """Returns the groups that have a CPU quota, from the own one upwards, with their quotas in cores."""
    return list(_group_limits(host, directory, _cpu_quotas))


def parse_memory_limit(text: str) -> int | None:
    """Returns the bytes in memory.max, memory.high or memory.limit_in_bytes; None for no limit."""
    limit = _whole_number(text)
    return limit if limit is not None and 0 < limit < _NO_LIMIT_BYTES else None


def parse_cpu_quota(quota: str, period: str) -> float | None:
    """Returns quota / period in cores; None for no limit ("max" in v2, -1 in v1)."""
    quota_us, period_us = _whole_number(quota), _whole_number(period)
    return quota_us / period_us if quota_us and period_us and quota_us > 0 and period_us > 0 else None


_LimitsOf = Callable[[Version, Callable[[str], str]], Iterable[float | None]]


def _group_limits(host: Host, directory: ControllerDirectory, limits_of: _LimitsOf) -> Iterator[GroupLimit]:
    for path in directory.paths:
        found = [
            limit for limit in limits_of(directory.version, partial(_text, host, path)) if limit is not None
        ]
        if found:
            yield GroupLimit(path, min(found))


def _memory_limits(version: Version, read: Callable[[str], str]) -> Iterable[int | None]:
    if version == V2:
        # memory.high does not kill, but reclaim holds the group there: it cannot use more for long.
        return [parse_memory_limit(read("memory.max")), parse_memory_limit(read("memory.high"))]
    # memory.stat knows the smallest limit of ancestors that a container's mount does not show.
    inherited = re.search(r"^hierarchical_memory_limit (\d+)", read("memory.stat"), re.MULTILINE)
    return [
        parse_memory_limit(read("memory.limit_in_bytes")),
        parse_memory_limit(inherited[1]) if inherited else None,
    ]


def _cpu_quotas(version: Version, read: Callable[[str], str]) -> Iterable[float | None]:
    if version == V2:
        quota, _, period = read("cpu.max").strip().partition(" ")
        return [parse_cpu_quota(quota, period)]
    return [parse_cpu_quota(read("cpu.cfs_quota_us"), read("cpu.cfs_period_us"))]


def _smallest(
    host: Host, controller: str, groups_of: Callable[[Host, ControllerDirectory], list[GroupLimit]]
) -> float | None:
    try:
        groups = groups_of(host, controller_directory(host, controller))
    except Unavailable:
        return None
    return min((group.limit for group in groups), default=None)


# What the kernel enforces already takes the ancestors into account; plain cpuset.cpus is the last resort.
_CPUSET_FILES: Mapping[Version, tuple[str, ...]] = {
    1: ("cpuset.effective_cpus", "cpuset.cpus"),
    2: ("cpuset.cpus.effective",),
}


def _text(host: Host, path: str, name: str) -> str:
    """Returns a file's text, or "": the root group has no limits, nor has one whose controller is off.

    A text without an end was cut off, and a limit with fewer digits is worse than none.
    """
    try:
        text = host.read_text(f"{path}/{name}")
    except OSError:
        return ""
    return text if text.endswith("\n") else ""


def _whole_number(text: str) -> int | None:
    try:
        return int(text)
    except ValueError:
        return None
