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


class Launcher(NamedTuple):
    """Variables of one scheduler or launcher; of several the most specific first.

    Attributes:
        name: its name in tags.
        marks: one of them is set in its processes.
        job: ids, of which the first that is set names the job.
        node: names of the node.
        size: number of processes of the job.
        rank: number of this process in the job.
        local_rank: number of this process on its node.
        local_size: number of processes on this node.
        nodes: number of nodes.
        node_rank: number of this node; none if the launcher's own is wrong.
        attempt: how often the job was restarted.
    """

    name: str
    marks: tuple[str, ...]
    job: tuple[str, ...] = ()
    node: tuple[str, ...] = ()
    size: tuple[str, ...] = ()
    rank: tuple[str, ...] = ()
    local_rank: tuple[str, ...] = ()
    local_size: tuple[str, ...] = ()
    nodes: tuple[str, ...] = ()
    node_rank: tuple[str, ...] = ()
    attempt: tuple[str, ...] = ()


LAUNCHERS = (
    Launcher(
        "slurm",
        ("SLURM_JOB_ID",),
        ("SLURM_JOB_ID",),
        ("SLURMD_NODENAME", "SLURM_NODEID"),
        # Of the step: SLURM_NTASKS is also set in a batch script, which is one process.
        size=("SLURM_STEP_NUM_TASKS",),
        rank=("SLURM_PROCID",),
        local_rank=("SLURM_LOCALID",),
        nodes=("SLURM_STEP_NUM_NODES",),
        node_rank=("SLURM_NODEID",),
        attempt=("SLURM_RESTART_COUNT",),
    ),
    Launcher(
        "lsf",
        ("LSB_JOBID",),
        ("LSB_JOBID",),
        size=("JSM_NAMESPACE_SIZE",),
        rank=("JSM_NAMESPACE_RANK",),
        local_rank=("JSM_NAMESPACE_LOCAL_RANK",),
        local_size=("JSM_NAMESPACE_LOCAL_SIZE",),
    ),
    # Its tasks are started by MPI, which numbers them.
    Launcher("pbs", ("PBS_JOBID",), ("PBS_JOBID",), ("PBS_NODENUM",)),
    # NODE_NAME and POD_NAME by the usual downward API names; a pod's host name is its own name. An Indexed
    # Job, and each job of a JobSet, numbers its pods; those of a TrainJob are started by torchrun or MPI.
    Launcher(
        "kubernetes",
        ("KUBERNETES_SERVICE_HOST",),
        ("POD_NAME", "HOSTNAME"),
        ("NODE_NAME",),
        rank=("JOB_COMPLETION_INDEX",),
        node_rank=("JOB_COMPLETION_INDEX",),
    ),
    # Set by the raylet for its workers.
    Launcher("ray", ("RAY_JOB_ID", "RAY_RAYLET_PID"), ("RAY_JOB_ID",)),
    Launcher("dask", ("DASK_SCHEDULER_ADDRESS", "DASK_WORKER_NAME"), (), ("DASK_WORKER_NAME",)),
    Launcher(
        "submitit",
        ("SUBMITIT_LOCAL_JOB_ID",),
        ("SUBMITIT_LOCAL_JOB_ID",),
        size=("SUBMITIT_LOCAL_NTASKS",),
        rank=("SUBMITIT_LOCAL_GLOBALID",),
        local_rank=("SUBMITIT_LOCAL_LOCALID",),
        nodes=("SUBMITIT_LOCAL_JOB_NUM_NODES",),
        node_rank=("SUBMITIT_LOCAL_NODEID",),
    ),
    # MPICH, Intel MPI, Cray.
    Launcher(
        "mpi",
        ("PMI_RANK",),
        ("PMI_JOBID", "PMI_PORT"),
        size=("PMI_SIZE",),
        rank=("PMI_RANK",),
        local_rank=("MPI_LOCALRANKID", "PMI_LOCAL_RANK"),
        local_size=("MPI_LOCALNRANKS", "PMI_LOCAL_SIZE"),
    ),
    # Open MPI, with its own or another PMIx server. It numbers nodes by OMPI_COMM_WORLD_NODE_RANK: not nodes,
    # but the processes on one.
    Launcher(
        "mpi",
        ("OMPI_COMM_WORLD_RANK",),
        ("PMIX_NAMESPACE", "OMPI_MCA_ess_base_jobid"),
        size=("OMPI_COMM_WORLD_SIZE",),
        rank=("OMPI_COMM_WORLD_RANK",),
        local_rank=("OMPI_COMM_WORLD_LOCAL_RANK",),
        local_size=("OMPI_COMM_WORLD_LOCAL_SIZE",),
    ),
    # What torch's env:// expects: DeepSpeed, Lightning, Ray Train, PyTorchJob, scripts.
    Launcher(
        "env",
        ("WORLD_SIZE",),
        size=("WORLD_SIZE",),
        rank=("RANK",),
        local_rank=("LOCAL_RANK",),
        local_size=("LOCAL_WORLD_SIZE", "LOCAL_SIZE"),
        node_rank=("NODE_RANK", "CROSS_RANK"),
    ),
    Launcher(
        "torchrun",
        ("TORCHELASTIC_RUN_ID",),
        ("TORCHELASTIC_RUN_ID",),
        ("GROUP_RANK",),
        size=("WORLD_SIZE",),
        rank=("RANK",),
        local_rank=("LOCAL_RANK",),
        local_size=("LOCAL_WORLD_SIZE",),
        nodes=("GROUP_WORLD_SIZE",),
        node_rank=("GROUP_RANK",),
        attempt=("TORCHELASTIC_RESTART_COUNT",),
    ),
    # Its NODE_RANK and GROUP_RANK are numbers of tasks, several of which may share a host.
    Launcher(
        "spark",
        ("PYSPARK_TORCH_DISTRIBUTOR_RDZV_ID",),
        ("PYSPARK_TORCH_DISTRIBUTOR_RDZV_ID",),
        size=("WORLD_SIZE",),
        rank=("RANK",),
        attempt=("TORCHELASTIC_RESTART_COUNT",),
    ),
)
NOT_AN_ID = "none"  #: torchrun's id of a job without one


def scheduler_tags(environ: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Yields sys.scheduler, sys.job_id and sys.node, if known."""
    present = [launcher for launcher in launchers(environ) if launcher.name != "env"]
    if not present:
        return
    yield "sys.scheduler", present[0].name
    job = first_set(environ, present[0].job)
    if job and job != NOT_AN_ID:
        yield "sys.job_id", job
    node = next(filter(None, (first_set(environ, launcher.node) for launcher in present)), None)
    if node:
        yield "sys.node", node


def launchers(environ: Mapping[str, str]) -> list[Launcher]:
    """Returns the schedulers and launchers that started this process, the outermost first."""
    return [launcher for launcher in LAUNCHERS if first_set(environ, launcher.marks)]


def first_set(environ: Mapping[str, str], variables: tuple[str, ...]) -> str | None:
    """Returns the first value that is not empty; None if there is none."""
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
