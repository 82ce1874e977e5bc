"""The CPUs that this job may use: online, in its affinity mask, in its cpuset, and no more than its quota.

Source:  /proc/stat (a line per CPU that is online), Cpus_allowed_list in /proc/self/status, the limits of
         the own cgroup.
Check:   nproc; taskset -cp $$; cat /sys/fs/cgroup/cpu.max
"""

from __future__ import annotations

from dataclasses import dataclass

from mlflow_sysmetrics.errors import Unavailable
from mlflow_sysmetrics.machine.cgroups import allowed_cpus, smallest_cpu_quota
from mlflow_sysmetrics.machine.cpus import parse_affinity, parse_online_cpus
from mlflow_sysmetrics.machine.host import Host


@dataclass(frozen=True, slots=True, kw_only=True)
class CpuShare:
    """What the job may use of the host's CPUs.

    Attributes:
        online: CPUs of the host.
        usable: those of them that the job may run on.
        quota: cores that its cgroup may use at a time; None where that is no less than `usable`.
        held_by_group: whether the job's cgroup holds it below the host, by quota or cpuset, and no affinity
            mask holds it to fewer CPUs than the cpuset; then the group's CPU time is the job's.
    """

    online: frozenset[int]
    usable: frozenset[int]
    quota: float | None
    held_by_group: bool

    @property
    def cores(self) -> float:
        """How many CPUs the job can keep busy."""
        return float(len(self.usable)) if self.quota is None else self.quota

    @property
    def limited(self) -> bool:
        """Whether that is less than the host has."""
        return self.quota is not None or self.usable < self.online


def cpu_share(host: Host) -> CpuShare:
    """Returns what the job may use of the host's CPUs, as it is now.

    Raises:
        OSError: /proc/stat cannot be read.
        Unavailable: /proc/stat lists no CPU.
    """
    online = parse_online_cpus(host.read_text("proc/stat"))
    if not online:
        raise Unavailable("/proc/stat lists no CPU")
    in_group = _within(online, allowed_cpus(host))
    usable = _within(in_group, _affinity(host))
    quota = smallest_cpu_quota(host)
    if quota is not None and quota >= len(usable):
        quota = None
    return CpuShare(
        online=online,
        usable=usable,
        quota=quota,
        held_by_group=quota is not None or (usable == in_group and in_group < online),
    )


def _within(cpus: frozenset[int], allowed: frozenset[int] | None) -> frozenset[int]:
    # A mask without a CPU that is online speaks of another namespace's numbers, as under gVisor.
    return cpus & allowed if allowed is not None and cpus & allowed else cpus


def _affinity(host: Host) -> frozenset[int] | None:
    """Returns the mask of the process's first thread; `os.sched_getaffinity` gives the calling thread's."""
    try:
        return parse_affinity(host.read_text("proc/self/status"))
    except OSError:
        return None
