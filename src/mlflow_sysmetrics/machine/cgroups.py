"""The job's own control group: where its files lie, per controller, and the limits in force on it.

The limits are those of the job's own group and of every visible ancestor. The smallest one counts: a child
may promise itself more than its parent allows.

Source:  /proc/self/cgroup (the group in each hierarchy) and /proc/self/mountinfo (where that hierarchy is
         mounted, and which group the mount shows as its root). Limits: memory.max, memory.high, cpu.max,
         cpuset.cpus.effective; v1 memory.limit_in_bytes, hierarchical_memory_limit in memory.stat,
         cpu.cfs_quota_us, cpu.cfs_period_us, cpuset.effective_cpus.
Layouts: v2, v1, and hybrid, where each controller lies in one of the two.
Absent:  no cgroup mount (macOS, Windows, a kernel without cgroups); a limit that is not set.
Check:   cat /proc/self/cgroup; grep cgroup /proc/self/mountinfo
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import Literal, NamedTuple

from mlflow_sysmetrics.errors import Unavailable
from mlflow_sysmetrics.machine.host import Host
from mlflow_sysmetrics.machine.mounts import Mount, below_root, read_mounts
from mlflow_sysmetrics.machine.reasons import words_for

Version = Literal[1, 2]
V1: Version = 1
V2: Version = 2

_UNIFIED = ""  # how /proc/self/cgroup names the controllers of v2


class ControllerDirectory(NamedTuple):
    """Where one controller keeps the files of the job's own group.

    Attributes:
        version: 1 or 2; it decides the file names.
        group: name of the group in this hierarchy.
        paths: the group's directory, then its ancestors up to the mount, each relative to the host's root as
            `Host.read_text` takes it.
    """

    version: Version
    group: str
    paths: tuple[str, ...]

    @property
    def own(self) -> str:
        """Directory of the job's own group."""
        return self.paths[0]


def controller_directory(host: Host, controller: str) -> ControllerDirectory:
    """Returns where `controller` ("memory", "cpu", "cpuset", "io", ...) keeps the job's group.

    Raises:
        Unavailable: no mounted hierarchy has that controller.
    """
    groups, mounts = _read(host)
    # In a hybrid layout a controller that is bound to a v1 hierarchy does not exist in v2.
    if controller in groups:
        return _directory(host, groups[controller], mounts, V1, controller)
    return _directory(host, groups.get(_UNIFIED), mounts, V2, controller)


def unified_directory(host: Host) -> ControllerDirectory:
    """Returns where v2 keeps the job's group; in a hybrid layout the files that belong to no controller.

    Raises:
        Unavailable: this machine does not mount v2.
    """
    groups, mounts = _read(host)
    return _directory(host, groups.get(_UNIFIED), mounts, V2, "unified")


def _read(host: Host) -> tuple[dict[str, str], tuple[Mount, ...]]:
    try:
        groups = parse_own_groups(host.read_text("proc/self/cgroup"))
    except OSError as error:
        raise Unavailable(f"no cgroup: {words_for(error)}") from error
    return groups, read_mounts(host)


def _directory(
    host: Host, group: str | None, mounts: tuple[Mount, ...], version: Version, controller: str
) -> ControllerDirectory:
    if group is None:
        raise Unavailable(f"no cgroup has the {controller} controller")
    for mount in mounts:
        if shows(mount, version, controller):
            paths = tuple(path for path in group_paths(group, mount) if _is_directory(host, path))
            if paths:
                return ControllerDirectory(version, group, paths)
    raise Unavailable(f"no cgroup with the {controller} controller is mounted")


def parse_own_groups(text: str) -> dict[str, str]:
    """Returns controller -> group from /proc/self/cgroup; the v2 group has the key ""."""
    groups = {}
    for controllers, group in re.findall(r"^\d+:([^:\n]*):(.*)$", text, re.MULTILINE):
        groups.update(dict.fromkeys(controllers.split(","), group))
    return groups


def shows(mount: Mount, version: Version, controller: str) -> bool:
    """True if a mount is the hierarchy of that version that contains a controller."""
    if version == V2:
        return mount.filesystem == "cgroup2"  # one hierarchy for all of them
    return mount.filesystem == "cgroup" and controller in mount.options.split(",")


def group_paths(group: str, mount: Mount) -> tuple[str, ...]:
    """Returns the directories of `group` and its ancestors below `mount`, the group's own first.

    The mount's root is stripped: inside a Docker container on v1, group and root are both
    ``/docker/<id>``, and the files lie in the mount point itself. For a group outside the mount ("/../other",
    the root of another namespace) the result is the mount point, its nearest visible ancestor.
    """
    root = mount.root.rstrip("/")
    inside = group[len(root) :] if group == root or group.startswith(root + "/") else ""
    names = [name for name in inside.split("/") if name]
    if ".." in names:
        names = []
    top = mount.point.strip("/")
    return tuple("/".join((top, *names[:depth])) for depth in range(len(names), -1, -1))


def _is_directory(host: Host, path: str) -> bool:
    return os.path.isdir(below_root(host, path))


# In v1 the kernel writes "no limit" as the largest whole number of pages, which depends on the page size. No
# machine has an exbibyte, so every larger value means no limit.
_NO_LIMIT_BYTES = 2**60
_MOST_CPUS = 65_536  # the largest kernel is built for 8192; a longer list is invalid


class GroupLimit(NamedTuple):
    """A limit, and the directory of the group that sets it."""

    path: str
    limit: float


def smallest_memory_limit(host: Host) -> int | None:
    """Returns the smallest memory limit on the job's group, in bytes; None without a limit."""
    limit = _smallest(host, "memory", memory_limits)
    return None if limit is None else int(limit)


def smallest_cpu_quota(host: Host) -> float | None:
    """Returns the smallest CPU quota on the job's group, in cores; None without a quota."""
    return _smallest(host, "cpu", cpu_quotas)


def allowed_cpus(host: Host) -> frozenset[int] | None:
    """Returns the CPUs that the cpuset allows the job's group; None without a cpuset."""
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
    """Returns the groups with a memory limit, from the job's own upwards, and their limits in bytes."""
    return list(_group_limits(host, directory, _memory_limits))


def cpu_quotas(host: Host, directory: ControllerDirectory) -> list[GroupLimit]:
    """Returns the groups with a CPU quota, from the job's own upwards, and their quotas in cores."""
    return list(_group_limits(host, directory, _cpu_quotas))


def limit_files(host: Host, controller: str) -> list[str]:
    """Returns the paths of the files in which a limit of the job may change, or appear.

    Args:
        host: the machine to read.
        controller: "cpu", "cpuset" or "memory".
    """
    try:
        directory = controller_directory(host, controller)
    except Unavailable:
        return []
    names = _LIMIT_FILES[directory.version, controller]
    found = []
    for path in directory.paths:
        files, is_complete = _files_to_watch(str(host.root / path), names)
        found += files
        if controller == "cpuset" and is_complete:  # what takes effect is what the groups above allow, too
            break
    return found


def _files_to_watch(group: str, names: Iterable[str]) -> tuple[list[str], bool]:
    """Returns the files of one group that are to be watched, and whether it has all that are named."""
    files = [f"{group}/{name}" for name in names]
    present = [file for file in files if os.path.exists(file)]
    if len(present) == len(files):
        return files, True
    # The files of a controller that is enabled later appear with its name among the controllers (v2).
    controllers = f"{group}/cgroup.controllers"
    return [controllers, *present] if os.path.exists(controllers) else files, False


def parse_memory_limit(text: str) -> int | None:
    """Returns the bytes in memory.max, memory.high or memory.limit_in_bytes; None for no limit."""
    limit = _whole_number(text)
    return limit if limit is not None and 0 < limit < _NO_LIMIT_BYTES else None


def parse_cpu_quota(quota: str, period: str) -> float | None:
    """Returns quota / period in cores; None for no limit ("max" in v2, -1 in v1)."""
    quota_us, period_us = _whole_number(quota), _whole_number(period)
    return quota_us / period_us if quota_us and period_us and quota_us > 0 and period_us > 0 else None


def parse_cpu_list(text: str) -> frozenset[int]:
    """Returns the CPUs of a kernel list such as "0-3,8".

    Raises:
        ValueError: the text is not a list of CPUs.
    """
    cpus: set[int] = set()
    for part in filter(None, text.strip().split(",")):
        first, _, last = part.partition("-")
        end = int(last or first)
        if end >= _MOST_CPUS:
            raise ValueError(f"{text[:40]!r} is not a list of CPUs")
        cpus.update(range(int(first), end + 1))
    return frozenset(cpus)


_LimitsOf = Callable[[Version, Callable[[str], str]], Iterable[float | None]]


def _group_limits(host: Host, directory: ControllerDirectory, limits_of: _LimitsOf) -> Iterator[GroupLimit]:
    for path in directory.paths:
        limits = [
            limit for limit in limits_of(directory.version, partial(_text, host, path)) if limit is not None
        ]
        if limits:
            yield GroupLimit(path, min(limits))


def _memory_limits(version: Version, read: Callable[[str], str]) -> Iterable[int | None]:
    if version == V2:
        # memory.high does not kill, but reclaim keeps the group there: it cannot use more for long.
        return [parse_memory_limit(read("memory.max")), parse_memory_limit(read("memory.high"))]
    # memory.stat includes the limits of ancestors that a container's mount does not show.
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


_LIMIT_FILES: Mapping[tuple[Version, str], tuple[str, ...]] = {
    (V1, "cpu"): ("cpu.cfs_quota_us", "cpu.cfs_period_us"),
    (V1, "cpuset"): ("cpuset.effective_cpus",),
    (V1, "memory"): ("memory.limit_in_bytes",),
    (V2, "cpu"): ("cpu.max",),
    (V2, "cpuset"): ("cpuset.cpus.effective",),
    (V2, "memory"): ("memory.max", "memory.high"),
}

# The effective files already take the ancestors into account; plain cpuset.cpus is the last resort.
_CPUSET_FILES: Mapping[Version, tuple[str, ...]] = {
    1: ("cpuset.effective_cpus", "cpuset.cpus"),
    2: ("cpuset.cpus.effective",),
}


def _text(host: Host, path: str, name: str) -> str:
    """Returns a file's text, or "" if it is missing.

    The root group has no limits, nor has a group whose controller is off.
    A text without a final newline was cut off, and a limit with fewer digits is worse than none.
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
