"""The job's own control group: where its files lie, and the limits in force on it.

Source:  /proc/self/cgroup (which group, per hierarchy) and /proc/self/mountinfo (where that hierarchy is
         mounted, and which group its mount shows as its root).
Layouts: v2, v1, and hybrid, where each controller lies in one of the two.
Limits:  the smallest over the own group and every ancestor that is visible; a child may promise itself more
         than its parent gives.
Absent:  no cgroup mount (macOS, Windows, a kernel without them).
Check:   cat /proc/self/cgroup; grep cgroup /proc/self/mountinfo
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

from mlflow_sysmetrics.errors import Unavailable
from mlflow_sysmetrics.host import Host

Version = Literal[1, 2]
V1: Version = 1
V2: Version = 2

# Kernels write "no limit" in v1 as the largest whole number of pages, which depends on the page size. No
# machine has an exbibyte, so whatever is above it means the same.
_NO_LIMIT_BYTES = 2**60


@dataclass(frozen=True, slots=True)
class CgroupMount:
    """One mounted hierarchy.

    Attributes:
        root: the group that the mount shows as its root, seen from the own cgroup namespace.
        mount_point: where, as an absolute path.
        version: 1 or 2.
        controllers: those of a v1 hierarchy; empty for v2, whose one mount serves all.
    """

    root: str
    mount_point: str
    version: Version
    controllers: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class ControllerDirectory:
    """Where one controller keeps the own group's files.

    Attributes:
        version: 1 or 2; it decides the file names.
        paths: the own group's directory first, then its ancestors up to the mount, each relative to the
            host's root as `Host.read_text` takes it.
    """

    version: Version
    paths: tuple[str, ...]

    @property
    def own(self) -> str:
        """The own group's directory."""
        return self.paths[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class CgroupLimits:
    """What the own group may use; None where nothing limits it.

    Attributes:
        memory_bytes: smallest memory limit.
        cpu_cores: smallest CPU quota, in cores: 1.5 is 150 ms of CPU in each 100 ms.
        cpus: CPUs that the cpuset allows.
    """

    memory_bytes: int | None = None
    cpu_cores: float | None = None
    cpus: frozenset[int] | None = None


def controller_directory(host: Host, controller: str) -> ControllerDirectory:
    """Returns where `controller` ("memory", "cpu", "cpuset", "io", ...) keeps the own group's files.

    Raises:
        Unavailable: this machine mounts no hierarchy with that controller.
    """
    try:
        groups = parse_own_groups(host.read_text("proc/self/cgroup"))
        mounts = parse_cgroup_mounts(host.read_text("proc/self/mountinfo"))
    except OSError as error:
        raise Unavailable(f"no cgroup: {error.strerror}") from error
    # In a hybrid layout a controller that is bound to a v1 hierarchy does not exist in v2.
    version = V1 if controller in groups else V2
    group = groups.get(controller, groups.get(""))
    if group is None:
        raise Unavailable(f"no cgroup has the {controller} controller")
    for mount in mounts:
        if mount.version == version and (version == V2 or controller in mount.controllers):
            paths = tuple(path for path in group_paths(group, mount) if _is_directory(host.root / path))
            if paths:
                return ControllerDirectory(version, paths)
    raise Unavailable(f"no cgroup with the {controller} controller is mounted")


def limits(host: Host, *, host_memory_bytes: int | None = None) -> CgroupLimits:
    """Returns the limits on the own group; all None where there is no cgroup.

    Args:
        host: the machine to read.
        host_memory_bytes: its whole memory; a limit that is not below it limits nothing.
    """
    memory = _smallest(host, "memory", _memory_limits)
    if memory is not None and host_memory_bytes is not None and memory >= host_memory_bytes:
        memory = None
    return CgroupLimits(
        memory_bytes=None if memory is None else int(memory),
        cpu_cores=_smallest(host, "cpu", _cpu_quotas),
        cpus=_allowed_cpus(host),
    )


def parse_own_groups(text: str) -> dict[str, str]:
    """Returns controller -> group from /proc/self/cgroup; the v2 group has the key ""."""
    groups = {}
    for controllers, group in re.findall(r"^\d+:([^:\n]*):(.*)$", text, re.MULTILINE):
        groups.update(dict.fromkeys(controllers.split(","), group))
    return groups


# Fields of one line: id, parent, device, root, mount point, options ..., " - ", type, source, super options.
_MOUNT = re.compile(r"^\S+ \S+ \S+ (\S+) (\S+) .* - (cgroup2?) \S+ (\S+)$", re.MULTILINE)


def parse_cgroup_mounts(text: str) -> tuple[CgroupMount, ...]:
    """Returns the cgroup mounts of /proc/self/mountinfo, in their order there."""
    return tuple(
        CgroupMount(_unescaped(root), _unescaped(mount_point), V2)
        if filesystem == "cgroup2"
        else CgroupMount(_unescaped(root), _unescaped(mount_point), V1, frozenset(options.split(",")))
        for root, mount_point, filesystem, options in _MOUNT.findall(text)
    )


def group_paths(group: str, mount: CgroupMount) -> tuple[str, ...]:
    """Returns the directories of `group` and its ancestors below `mount`, the group's own first.

    The mount's root is stripped: inside a Docker container on v1, group and root both read
    ``/docker/<id>`` and the files lie in the mount point itself. A group that lies outside of what the mount
    shows ("/../other", a root of another namespace) leaves the mount point, the nearest that is visible.
    """
    root = mount.root.rstrip("/")
    inside = group[len(root) :] if group == root or group.startswith(root + "/") else ""
    names = [name for name in inside.split("/") if name]
    if ".." in names:
        names = []
    top = mount.mount_point.strip("/")
    return tuple("/".join((top, *names[:depth])) for depth in range(len(names), -1, -1))


def parse_memory_limit(text: str) -> int | None:
    """Returns the bytes in memory.max, memory.high or memory.limit_in_bytes; None for no limit."""
    limit = _whole_number(text)
    return limit if limit is not None and 0 < limit < _NO_LIMIT_BYTES else None


def parse_cpu_quota(quota: str, period: str) -> float | None:
    """Returns quota / period in cores; None for no limit ("max" in v2, -1 in v1)."""
    quota_us, period_us = _whole_number(quota), _whole_number(period)
    return quota_us / period_us if quota_us and period_us and quota_us > 0 else None


def parse_cpu_list(text: str) -> frozenset[int]:
    """Returns the CPUs of a kernel list such as "0-3,8".

    Raises:
        ValueError: the text is no such list.
    """
    cpus: set[int] = set()
    for part in filter(None, text.strip().split(",")):
        first, _, last = part.partition("-")
        cpus.update(range(int(first), int(last or first) + 1))
    return frozenset(cpus)


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


_LimitsOf = Callable[[Version, Callable[[str], str]], Iterable[float | None]]


def _smallest(host: Host, controller: str, limits_of: _LimitsOf) -> float | None:
    try:
        directory = controller_directory(host, controller)
    except Unavailable:
        return None
    found: list[float] = []
    for path in directory.paths:
        read = partial(_text, host, path)
        found += [limit for limit in limits_of(directory.version, read) if limit is not None]
    return min(found, default=None)


# What the kernel enforces already takes the ancestors into account; plain cpuset.cpus is the last resort.
_CPUSET_FILES: Mapping[Version, tuple[str, ...]] = {
    1: ("cpuset.effective_cpus", "cpuset.cpus"),
    2: ("cpuset.cpus.effective",),
}


def _allowed_cpus(host: Host) -> frozenset[int] | None:
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


def _text(host: Host, path: str, name: str) -> str:
    """Returns a file's text, or "": the root group has no limits, nor has one whose controller is off."""
    try:
        return host.read_text(f"{path}/{name}")
    except OSError:
        return ""


def _is_directory(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError:  # one that may not be entered is of no more use than one that is missing
        return False


def _whole_number(text: str) -> int | None:
    try:
        return int(text)
    except ValueError:
        return None


def _unescaped(path: str) -> str:
    r"""Undoes mountinfo's octal escapes: a space in a path is written ``\040``."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), path)
