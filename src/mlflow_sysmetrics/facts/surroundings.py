"""Where the job runs: its container, the scheduler or launcher that started it, and the cloud.

Container: marks left by the runtimes: environment variables (Kubernetes, Apptainer, and `container`, from
           systemd's Container Interface), marker files in the root, group names, the owner of the snapshot.
Scheduler: environment variables that each scheduler documents for its jobs. Only the variables named here
           are read. Schedulers that allocate machines come before launchers that start processes on them:
           torchrun inside Slurm is a Slurm job. The node's name comes from the first that provides one.
Cloud:     the firmware's DMI strings in /sys/class/dmi/id, which the providers document for identifying
           their machines. The metadata service is never queried: a tag does not justify network traffic.
Absent:    no such marks or variables; bare metal, an unlisted provider, a container that hides /sys.
Check:     grep . /sys/class/dmi/id/{sys_vendor,product_name,bios_version,chassis_asset_tag}
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from mlflow_sysmetrics.machine.host import Host

# Apptainer, a descendant of Singularity, sets Singularity's variable too.
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
    """Returns the innermost container runtime that is recognised; None outside of containers."""
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
    # In a private cgroup namespace the group is "/", but the root's overlay still names containerd's
    # snapshots.
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


class _Scheduler(NamedTuple):
    """Variables of one scheduler, the most specific first."""

    name: str
    marks: tuple[str, ...]
    job: tuple[str, ...]
    node: tuple[str, ...]


_SCHEDULERS = (
    _Scheduler("slurm", ("SLURM_JOB_ID",), ("SLURM_JOB_ID",), ("SLURMD_NODENAME", "SLURM_NODEID")),
    _Scheduler("lsf", ("LSB_JOBID",), ("LSB_JOBID",), ()),
    _Scheduler("pbs", ("PBS_JOBID",), ("PBS_JOBID",), ("PBS_NODENUM",)),
    # NODE_NAME and POD_NAME by the usual downward API names; a pod's host name is its own name.
    _Scheduler("kubernetes", ("KUBERNETES_SERVICE_HOST",), ("POD_NAME", "HOSTNAME"), ("NODE_NAME",)),
    # Set by the raylet for its workers.
    _Scheduler("ray", ("RAY_JOB_ID", "RAY_RAYLET_PID"), ("RAY_JOB_ID",), ()),
    _Scheduler("dask", ("DASK_SCHEDULER_ADDRESS", "DASK_WORKER_NAME"), (), ("DASK_WORKER_NAME",)),
    _Scheduler("torchrun", ("TORCHELASTIC_RUN_ID",), ("TORCHELASTIC_RUN_ID",), ("GROUP_RANK",)),
)


def scheduler_tags(environ: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Yields sys.scheduler, sys.job_id and sys.node, if known."""
    present = [scheduler for scheduler in _SCHEDULERS if _first(environ, scheduler.marks)]
    if not present:
        return
    yield "sys.scheduler", present[0].name
    job = _first(environ, present[0].job)
    if job and job != "none":  # torchrun's id for a run without one
        yield "sys.job_id", job
    node = next(filter(None, (_first(environ, scheduler.node) for scheduler in present)), None)
    if node:
        yield "sys.node", node


def _first(environ: Mapping[str, str], variables: tuple[str, ...]) -> str | None:
    values = (environ.get(variable, "") for variable in variables)
    return next((value for value in values if value), None)


class _Mark(NamedTuple):
    """A DMI string that identifies a provider; `type_file` holds the instance type, if any."""

    file: str
    start: str
    provider: str
    type_file: str | None = None


_MARKS = (
    _Mark("sys_vendor", "amazon ec2", "aws", "product_name"),
    _Mark("bios_vendor", "amazon ec2", "aws", "product_name"),
    # On Xen instances all other strings are "HVM domU".
    _Mark("bios_version", "4.2.amazon", "aws"),
    _Mark("bios_version", "4.11.amazon", "aws"),
    _Mark("product_name", "google compute engine", "gcp"),
    # "MSFT AZURE VM" in ASCII codes; sys_vendor alone is the same for every Hyper-V machine.
    _Mark("chassis_asset_tag", "7783-7084-3265-9085-8269-3286-77", "azure"),
    _Mark("chassis_asset_tag", "oraclecloud.com", "oracle"),
    _Mark("sys_vendor", "alibaba cloud", "alibaba"),
    _Mark("sys_vendor", "digitalocean", "digitalocean"),
    _Mark("sys_vendor", "hetzner", "hetzner"),
    _Mark("sys_vendor", "scaleway", "scaleway", "product_name"),
    _Mark("sys_vendor", "tencent cloud", "tencent"),
)


def cloud(host: Host) -> str | None:
    """Returns "aws p5.48xlarge", "gcp"; None if no provider is recognised."""
    for mark in _MARKS:
        if _dmi(host, mark.file).lower().startswith(mark.start):
            instance_type = _dmi(host, mark.type_file) if mark.type_file else ""
            return f"{mark.provider} {instance_type}".strip()
    return None


def _dmi(host: Host, name: str) -> str:
    try:
        return host.read_text(f"sys/class/dmi/id/{name}").strip()
    except OSError:
        return ""
