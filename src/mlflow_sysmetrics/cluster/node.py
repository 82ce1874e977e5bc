"""Which node this process is on: a machine or a pod, never a rank.

Source:  the boot id, the host name, the UTS namespace that the name belongs to, and the container's id in
         the path of the cgroup. Containers of one pod share the namespace, tasks of one job the whole node,
         also if each has its own mount namespace or cgroup.
Absent:  the boot id and namespaces on systems other than Linux, where the host name alone decides.
"""

from __future__ import annotations

import hashlib
import re
import socket

from mlflow_sysmetrics.cluster.job import Job
from mlflow_sysmetrics.machine.host import Host
from mlflow_sysmetrics.settings import CLUSTER

HOST_ID = "MLFLOW_SYSMETRICS_HOST_ID"  #: replaces what is read here, where several nodes look like one
NODE_NAMES = "MLFLOW_SYSMETRICS_NODE_NAMES"  #: rank or host
ATTACH = "MLFLOW_SYSMETRICS_ATTACH"  #: env: to the run of MLFLOW_RUN_ID when MLflow is imported
_HOST = "host"
_RANK = "rank"

_CONTAINER = re.compile(
    r"kubepods[^\n]*?pod([0-9a-f_-]{32,36})|(?:docker|libpod|nerdctl)[-/]([0-9a-f]{12,64})"
)
_UNNAMED = "node"
CHOICES = {CLUSTER: ("auto", "off"), ATTACH: ("env",), NODE_NAMES: (_RANK, _HOST)}  #: by variable


def node_identity(host: Host | None = None) -> str:
    """Returns what tells this node from all others, as 16 hexadecimal digits."""
    host = host or Host()
    given = host.environ.get(HOST_ID)
    parts = (
        [given]
        if given
        else [
            _text(host, "proc/sys/kernel/random/boot_id").strip(),
            socket.gethostname(),
            _namespace(host),
            "".join(
                part for found in _CONTAINER.findall(_text(host, "proc/self/cgroup"))[:1] for part in found
            ),
        ]
    )
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def node_name(job: Job | None, smallest: int | None, host: Host | None = None) -> str | None:
    """Returns the name of this node in the keys; None if the job has one node.

    Args:
        job: the job.
        smallest: the smallest node rank of its processes here; None if unknown.
        host: the machine.
    """
    if job is not None and not job.spans_nodes:
        return None
    environ = (host or Host()).environ
    wanted = environ.get(NODE_NAMES, "").strip().lower()
    if wanted not in {"", _HOST, _RANK}:
        from mlflow_sysmetrics.settings import warn_once

        warn_once(NODE_NAMES, wanted, f"is ignored, using {_RANK}: it must be {_RANK} or {_HOST}")
    if wanted != _HOST and smallest is not None:
        return f"node_{smallest}"
    return re.sub(r"[^\w.-]", "_", socket.gethostname()).strip(".") or _UNNAMED


def _namespace(host: Host) -> str:
    try:
        return str((host.root / "proc/self/ns/uts").stat().st_ino)
    except OSError:  # not Linux
        return ""


def _text(host: Host, path: str) -> str:
    try:
        return host.read_text(path)
    except OSError:
        return ""
