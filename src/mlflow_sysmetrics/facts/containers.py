"""What kind of container a Linux process runs in.

Source:  marks that the runtimes leave: environment variables (Kubernetes, Apptainer, and `container`, by
         systemd's Container Interface), marker files in the root, group names, the snapshot's owner.
Absent:  none of these marks.
"""

from __future__ import annotations

import re

from mlflow_sysmetrics.machine.host import Host

# Apptainer also sets the variable of Singularity, which it descends from.
_VARIABLES = (
    ("KUBERNETES_SERVICE_HOST", "kubernetes"),
    ("APPTAINER_CONTAINER", "apptainer"),
    ("SINGULARITY_CONTAINER", "singularity"),
)

# Podman writes a .dockerenv too when it stands in for Docker.
_FILES = (
    ("var/run/secrets/kubernetes.io", "kubernetes"),
    (".singularity.d", "singularity"),
    ("run/.containerenv", "podman"),
    (".dockerenv", "docker"),
)

_NAMED_BY_RUNTIME = frozenset({"docker", "podman", "lxc", "containerd"})

_GROUP_MARKS = (
    (re.compile(r"[/:]kubepods"), "kubernetes"),
    (re.compile(r"/docker[/-]"), "docker"),
    (re.compile(r"/libpod[_-]"), "podman"),
    (re.compile(r"/lxc[./]"), "lxc"),
    (re.compile(r"/nerdctl-|cri-containerd"), "containerd"),
)


def container(host: Host) -> str | None:
    """Returns the innermost kind that can be recognised; None outside of containers."""
    for variable, kind in _VARIABLES:
        if host.environ.get(variable):
            return kind
    for path, kind in _FILES:
        if (host.root / path).exists():
            return kind
    named = host.environ.get("container", "")
    if named in _NAMED_BY_RUNTIME:
        return named
    return _marked_by_kernel(host)


def _marked_by_kernel(host: Host) -> str | None:
    groups = _text(host, "proc/self/cgroup")
    for mark, kind in _GROUP_MARKS:
        if mark.search(groups):
            return kind
    # In a private cgroup namespace the group is "/"; the root's overlay still names containerd's snapshots.
    if re.search(r"^\S+ \S+ \S+ / / .*/io\.containerd\.", _text(host, "proc/self/mountinfo"), re.MULTILINE):
        return "containerd"
    if "microsoft" in _text(host, "proc/sys/kernel/osrelease").lower():
        return "wsl"
    return None


def _text(host: Host, path: str) -> str:
    try:
        return host.read_text(path)
    except OSError:
        return ""
