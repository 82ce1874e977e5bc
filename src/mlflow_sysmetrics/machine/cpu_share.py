"""The CPUs that this job may use: online, in its affinity mask and its cpuset, and within its quota.

Source:  /proc/stat (one line per online CPU), Cpus_allowed_list in /proc/self/status, the limits of the
         job's cgroup.
Check:   nproc; taskset -cp $$; cat /sys/fs/cgroup/cpu.max
"""

from __future__ import annotations

import re
from typing import NamedTuple

from mlflow_sysmetrics.errors import Unavailable
from mlflow_sysmetrics.machine.cgroups import allowed_cpus, parse_cpu_list, smallest_cpu_quota
from mlflow_sysmetrics.machine.host import Host


class CpuShare(NamedTuple):
    """The job's share of the host's CPUs.

    Attributes:
        online: CPUs of the host.
        usable: CPUs that the job may run on.
        quota: cores that its cgroup may use at a time; None if that is not less than `usable`.
        held_by_group: True if a quota or cpuset of its cgroup limits the job, and no affinity mask limits it
            to fewer CPUs than the cpuset; then the group's CPU time is the job's.
    """

    online: frozenset[int]
    usable: frozenset[int]
    quota: float | None
    held_by_group: bool

    @property
    def cores(self) -> float:
        """Number of CPUs that the job can keep busy."""
        return float(len(self.usable)) if self.quota is None else self.quota

    @property
    def limited(self) -> bool:
        """Whether that is less than the whole host."""
        return self.quota is not None or self.usable < self.online


def cpu_share(host: Host) -> CpuShare:
    """Returns the current share of the job.

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


def parse_online_cpus(text: str) -> frozenset[int]:
    """Returns the CPUs that have a line in /proc/stat."""
    return frozenset(int(cpu) for cpu in re.findall(r"^cpu(\d{1,6}) ", text, re.MULTILINE))


def parse_affinity(text: str) -> frozenset[int] | None:
    """Returns the CPUs of Cpus_allowed_list in /proc/<pid>/status; None if there is no valid list."""
    allowed = re.search(r"^Cpus_allowed_list:\s*(\S+)$", text, re.MULTILINE)
    try:
        return parse_cpu_list(allowed[1]) if allowed else None
    except ValueError:
        return None


def _within(cpus: frozenset[int], allowed: frozenset[int] | None) -> frozenset[int]:
    # A mask without any online CPU uses the numbers of another namespace, as under gVisor.
    return cpus & allowed if allowed is not None and cpus & allowed else cpus


def _affinity(host: Host) -> frozenset[int] | None:
    """Returns the mask of the process's first thread; `os.sched_getaffinity` returns the calling thread's."""
    try:
        return parse_affinity(host.read_text("proc/self/status"))
    except OSError:
        return None
