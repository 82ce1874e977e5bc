"""CPU time, memory, threads and files of this process and its descendants, on a host that is not Linux.

Source:  psutil.Process of this process and of those in children(recursive=True).
Units:   percent of one core; megabytes (1e6 bytes); counts.
Cost:    five calls for each process. The children are listed at most every 3 s, private memory is read at
         most every minute, and both less often if they are expensive.
Absent:  CPU time in the first 0.15 s; open files on Windows; private memory until all processes were read
         once. Memory, threads and files of a child that may not be read. Neither macOS nor Windows adds the
         CPU time of a child to its parent, so time that a child used after it was last seen is lost.
Check:   python -c "import psutil; print(psutil.Process(<pid>).as_dict())"
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import psutil

from mlflow_sysmetrics.collectors.contract import Collector
from mlflow_sysmetrics.collectors.processes.psutil_tree import PsutilTree
from mlflow_sysmetrics.collectors.processes.tree_samples import METRICS, ProcessSamples
from mlflow_sysmetrics.collectors.psutil_errors import why_refused
from mlflow_sysmetrics.errors import Unavailable
from mlflow_sysmetrics.machine.host import Host
from mlflow_sysmetrics.samples import Family, Metric, Sample


def _read_uss(process: psutil.Process) -> int | None:
    try:
        return int(process.memory_full_info().uss)
    except (psutil.Error, OSError):
        return None


class ProcessPsutil(Collector):
    """CPU time, memory, threads and files of the process tree."""

    family: ClassVar[Family] = Family.PROCESS
    metrics: ClassVar[tuple[Metric, ...]] = METRICS

    def __init__(self, host: Host) -> None:
        self._samples = ProcessSamples(_read_uss)
        try:
            self._tree = PsutilTree(host.job)
        except (psutil.Error, OSError) as error:
            raise Unavailable(why_refused("Process", error)) from error

    def collect(self, now: float) -> Sequence[Sample]:
        """Returns the tree's usage; CPU time since the last reading that was old enough."""
        try:
            used = self._tree.look(now)
        except (psutil.Error, OSError) as error:
            raise Unavailable(why_refused("Process", error)) from error
        samples = self._samples.take(now, used, self._tree.processes(), self._tree.holdings())
        self.gaps = self._samples.gaps
        return samples
