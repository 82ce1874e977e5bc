"""What a journal says of the process for later: whether the kernel has killed it for memory."""

from __future__ import annotations

from mlflow_sysmetrics.cgroups import V1, controller_directory
from mlflow_sysmetrics.collectors.fields import number_after
from mlflow_sysmetrics.errors import Unavailable
from mlflow_sysmetrics.host import Host, read_short

_COUNTS = {V1: "memory.oom_control"}  # https://docs.kernel.org/admin-guide/cgroup-v1/memory.html
_COUNTS_V2 = "memory.events"


def footprint(host: Host) -> tuple[str | None, int | None]:
    """Returns the directory of the own memory control group and how many kills it has counted so far.

    A kill counts in the group of the killed process, whoever looks: so the count after the death, minus this
    one, tells what a process cannot tell of itself.
    """
    try:
        group = controller_directory(host, "memory")
    except Unavailable:
        return None, None
    directory = host.root / group.own
    try:
        text = read_short(str(directory / _COUNTS.get(group.version, _COUNTS_V2)))
    except OSError:
        return str(directory), None
    return str(directory), number_after(b"oom_kill ", text)
