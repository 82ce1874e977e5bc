"""Where the job's own control group lies: its directories, per controller, with those of its ancestors.

Source:  /proc/self/cgroup (which group, per hierarchy) and /proc/self/mountinfo (where that hierarchy is
         mounted, and which group its mount shows as its root).
Layouts: v2, v1, and hybrid, where each controller lies in one of the two.
Absent:  no cgroup mount (macOS, Windows, a kernel without them).
Check:   cat /proc/self/cgroup; grep cgroup /proc/self/mountinfo
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import Literal

from mlflow_sysmetrics.errors import Unavailable
from mlflow_sysmetrics.machine.host import Host
from mlflow_sysmetrics.machine.mounts import Mount, below_root, read_mounts

Version = Literal[1, 2]
V1: Version = 1
V2: Version = 2

_UNIFIED = ""  # how /proc/self/cgroup names the controllers of v2


@dataclass(frozen=True, slots=True)
class ControllerDirectory:
    """Where one controller keeps the own group's files.

    Attributes:
        version: 1 or 2; it decides the file names.
        group: name of the own group in this hierarchy.
        paths: the own group's directory first, then its ancestors up to the mount, each relative to the
            host's root as `Host.read_text` takes it.
    """

    version: Version
    group: str
    paths: tuple[str, ...]

    @property
    def own(self) -> str:
        """The own group's directory."""
        return self.paths[0]


def controller_directory(host: Host, controller: str) -> ControllerDirectory:
    """Returns where `controller` ("memory", "cpu", "cpuset", "io", ...) keeps the own group's files.

    Raises:
        Unavailable: this machine mounts no hierarchy with that controller.
    """
    groups, mounts = _read(host)
    # In a hybrid layout a controller that is bound to a v1 hierarchy does not exist in v2.
    if controller in groups:
        return _directory(host, groups[controller], mounts, V1, controller)
    return _directory(host, groups.get(_UNIFIED), mounts, V2, controller)


def unified_directory(host: Host) -> ControllerDirectory:
    """Returns where v2 keeps the own group's files; in a hybrid layout those that belong to no controller.

    Raises:
        Unavailable: this machine does not mount v2.
    """
    groups, mounts = _read(host)
    return _directory(host, groups.get(_UNIFIED), mounts, V2, "unified")


def _read(host: Host) -> tuple[dict[str, str], tuple[Mount, ...]]:
    try:
        groups = parse_own_groups(host.read_text("proc/self/cgroup"))
    except OSError as error:
        raise Unavailable(f"no cgroup: {error.strerror}") from error
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
    """Tells whether a mount is the hierarchy of that version in which a controller lies."""
    if version == V2:
        return mount.filesystem == "cgroup2"  # one hierarchy for all of them
    return mount.filesystem == "cgroup" and controller in mount.options.split(",")


def group_paths(group: str, mount: Mount) -> tuple[str, ...]:
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
    top = mount.point.strip("/")
    return tuple("/".join((top, *names[:depth])) for depth in range(len(names), -1, -1))


def _is_directory(host: Host, path: str) -> bool:
    return os.path.isdir(below_root(host, path))  # noqa: PTH112 - false where it may not be entered
