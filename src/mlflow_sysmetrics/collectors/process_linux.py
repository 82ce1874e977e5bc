"""What this process and all its descendants use.

Source:  /proc/<pid>/stat, CPU clocks (clock_getcpuclockid(3)), /proc/<pid>/fd, /proc/<pid>/smaps_rollup;
         /proc/loadavg tells whether any process was born since.
Units:   percent of one core; megabytes (1e6 bytes); counts.
Cost:    17 us; for each child 0.3 us, and 8 us more for each of the 25 that are read in turn. Private memory
         takes 0.1 ms per process, 0.8 ms for one of 200 MB: at most 0.02 % of a core goes into its rounds.
Absent:  CPU time in the first 0.15 s. Private memory until all were read once, and after resident memory has
         moved by a tenth until they were read again; on Linux before 4.14. A child that may not be read has
         no memory, threads and files here and is not among the children; its CPU time counts all the same.
         What a child used after its last tick, where its parent ignores SIGCHLD or has ended before it: the
         kernel moves that to nobody.
Check:   ps -o pid,ppid,nlwp,rss,cputimes --ppid <pid>; ls /proc/<pid>/fd | wc -l; pidstat -T ALL -p <pid> 1
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from mlflow_sysmetrics.collectors.contract import Collector
from mlflow_sysmetrics.collectors.processes.member import Member
from mlflow_sysmetrics.collectors.processes.tree import ProcessTree
from mlflow_sysmetrics.collectors.processes.tree_samples import METRICS, ProcessSamples
from mlflow_sysmetrics.collectors.processes.uss import read_smaps_rollup
from mlflow_sysmetrics.errors import Unavailable
from mlflow_sysmetrics.machine.host import Host
from mlflow_sysmetrics.samples import Family, Metric, Sample


def _read_uss(member: Member) -> int | None:
    return read_smaps_rollup(member.directory)


class ProcessLinux(Collector):
    """CPU time, memory, threads and files of the process tree."""

    family: ClassVar[Family] = Family.PROCESS
    metrics: ClassVar[tuple[Metric, ...]] = METRICS

    def __init__(self, host: Host) -> None:
        self._samples = ProcessSamples(_read_uss)
        try:
            self._tree = ProcessTree(host)
        except (OSError, ValueError) as error:
            raise Unavailable(str(error)) from error

    def collect(self, now: float) -> Iterator[Sample]:
        """Yields what the tree uses and holds; CPU time since the last reading that was old enough."""
        used = self._tree.look(now)
        members = self._tree.members()
        yield from self._samples.take(now, used, members, [member.holding for member in members])
        self.gaps = self._samples.gaps
