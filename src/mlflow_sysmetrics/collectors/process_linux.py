"""CPU time, memory, threads and files of this process and all its descendants.

Source:  /proc/<pid>/stat, /proc/self/statm, CPU clocks (clock_getcpuclockid(3)), /proc/<pid>/fd,
         /proc/<pid>/smaps_rollup; /proc/loadavg shows whether a process was started.
Units:   percent of one core; megabytes (1e6 bytes); counts.
Cost:    10 us; for each child 0.3 us, and 8 us more for each of the 25 that are read in turn. While there are
         no children, these are looked for and threads are counted every 5 s and when a point is due, open
         files every 5 s; at the other ticks only /proc/self/statm is read.
         Private memory is read in a thread beside the ticks: 0.1 ms per process, 0.8 ms for one of 200 MB,
         130 ms for one of 4 GB, altogether at most 0.02 % of a core.
Absent:  CPU time in the first 0.15 s. Private memory until all processes were read once, and, after resident
         memory has changed by a tenth, until they were read again; on Linux before 4.14. Memory, threads and
         files of a child that may not be read, which is not counted among the children either; its CPU time
         counts all the same. CPU time that a child used after its last tick, if its parent ignores SIGCHLD
         or ended before it: the kernel adds that to no counter.
Check:   ps -o pid,ppid,nlwp,rss,cputimes --ppid <pid>; ls /proc/<pid>/fd | wc -l; pidstat -T ALL -p <pid> 1
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from mlflow_sysmetrics.collectors import bounds
from mlflow_sysmetrics.collectors.catalogue import cpu_and_memory as catalogue
from mlflow_sysmetrics.collectors.contract import MEGABYTE, Collector
from mlflow_sysmetrics.collectors.processes.member import Member
from mlflow_sysmetrics.collectors.processes.tree import ProcessTree
from mlflow_sysmetrics.collectors.processes.tree_samples import METRICS, ProcessSamples
from mlflow_sysmetrics.collectors.processes.uss import read_smaps_rollup
from mlflow_sysmetrics.errors import Unavailable
from mlflow_sysmetrics.machine.host import Host
from mlflow_sysmetrics.machine.reasons import why_unread
from mlflow_sysmetrics.samples import Family, Kind, Metric, Sample

_make = tuple.__new__  # a third of the cost of calling the class
_RSS, _GAUGE = catalogue.PROCESS_RSS.name, Kind.GAUGE
_MOST_BYTES = bounds.HOST_BYTES.most


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
            raise Unavailable(why_unread(error)) from error

    def levels(self, now: float) -> Sequence[Sample]:
        """Returns resident memory if this process is alone, as most are; else everything."""
        resident = self._tree.resident_alone(now)
        if resident is None or resident > _MOST_BYTES:
            return self.collect(now)
        return (_make(Sample, (_RSS, _GAUGE, resident / MEGABYTE, None)),)

    def collect(self, now: float) -> Sequence[Sample]:
        """Returns the tree's usage; CPU time since the last reading that was old enough."""
        tree = self._tree
        used = tree.look_at_own(now)
        if used is None:
            used, members = tree.look(now), tree.members()
            if not members:  # the processes of the job have ended, and this one is not one of them
                return ()
            holdings = [member.holding for member in members]
            samples = self._samples.take(now, used, members, holdings, tree.roots)
        else:
            samples = self._samples.take(now, used, (tree.own,), (tree.own.holding,))
        self.gaps = self._samples.gaps
        return samples
