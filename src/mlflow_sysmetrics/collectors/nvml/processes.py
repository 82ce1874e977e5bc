"""Which processes on a device are the job's, and how much device memory they hold.

Source:  nvmlDeviceGetComputeRunningProcesses, which lists process ids; the parents of each from
         /proc/<pid>/stat, elsewhere through psutil, up to this process.
Absent:  under WDDM and for some MIG slices NVML does not report a process's memory. In a container with its
         own process ids NVML may list the host's: then none is ours, some do not exist here, and there is a
         gap instead of a series. Processes of other jobs alone cause no gap: they exist here.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

import psutil

from mlflow_sysmetrics.collectors import bounds
from mlflow_sysmetrics.collectors.catalogue import gpu as catalogue
from mlflow_sysmetrics.collectors.contract import MEGABYTE
from mlflow_sysmetrics.collectors.nvml.device import Device, Reading, possible
from mlflow_sysmetrics.collectors.nvml.library import Handle, Nvml, NvmlError, Verdict
from mlflow_sysmetrics.collectors.nvml.support import FirstOf
from mlflow_sysmetrics.collectors.processes.stat import read_process_stat
from mlflow_sysmetrics.collectors.rhythm import Pause
from mlflow_sysmetrics.machine.host import Host
from mlflow_sysmetrics.samples import Sample

_TREE_SECONDS = 10.0  # a process joins or leaves the tree when it starts or is orphaned
_NO_PROCESS = -1  # in place of a parent's id
_MOST_GENERATIONS = 64  # ids that are reused during the walk could form a cycle


class Tree:
    """Knows which process ids belong to this process or the others of its job, and to their descendants.

    Args:
        host: the machine to look at.
    """

    def __init__(self, host: Host) -> None:
        proc = str(host.root / "proc")
        has_proc = os.path.isdir(proc)
        self._parent: Callable[[int], int] = (lambda pid: _listed_parent(proc, pid)) if has_proc else _parent
        self._own = os.getpid()
        self._job = host.job
        self._pause = Pause(_TREE_SECONDS, read=False)
        self._known: dict[int, bool | None] = {}

    def holds(self, pid: int, now: float) -> bool:
        """True if a process is this one or a descendant."""
        return bool(self._ours(pid, now))

    def lacks(self, pid: int, now: float) -> bool:
        """True if no process with this id exists here."""
        return self._ours(pid, now) is None

    def _ours(self, pid: int, now: float) -> bool | None:
        """Returns whether a process is in the tree; None if there is no such process."""
        if pid in self._roots:
            return True
        if self._pause.renew_if_over(now):
            self._known.clear()
        if pid not in self._known:
            self._known[pid] = self._descends(pid)
        return self._known[pid]

    @property
    def _roots(self) -> tuple[int, ...]:
        return self._job.roots or (self._own,)

    def _descends(self, pid: int) -> bool | None:
        parent = self._parent(pid)
        if parent == _NO_PROCESS:
            return None
        for _ in range(_MOST_GENERATIONS):
            if parent in self._roots:
                return True
            if parent <= 1:
                return False
            parent = self._parent(parent)
        return False


def _listed_parent(proc: str, pid: int) -> int:
    try:
        return read_process_stat(f"{proc}/{pid}").parent
    except FileNotFoundError:
        return _NO_PROCESS  # it has ended, or has a different id here
    except (OSError, ValueError):
        return 0


def _parent(pid: int) -> int:
    try:
        return psutil.Process(pid).ppid()
    except psutil.NoSuchProcess:
        return _NO_PROCESS
    except (psutil.Error, ValueError):
        return 0


class ProcessMemory(Reading):
    """Device memory that the job's processes hold."""

    name = "process memory"

    def __init__(self, nvml: Nvml, device: Device, tree: Tree) -> None:
        self._device = device
        self._tree = tree
        # The bindings request the newest version of the structure, which this driver may not have.
        self._processes: FirstOf[list[Handle]] = FirstOf(
            lambda: nvml.ask("nvmlDeviceGetComputeRunningProcesses", device.handle),
            lambda: nvml.ask("nvmlDeviceGetComputeRunningProcesses_v2", device.handle),
        )

    def read(self, now: float) -> Iterator[Sample]:
        """Yields the memory; nothing while none of the job's processes is on the device."""
        held = [possible(one.usedGpuMemory, bounds.GPU_BYTES) for one in self.ours(now)]
        known_sizes = [one for one in held if one is not None]
        if held and len(known_sizes) == len(held):
            yield self._device.sample(catalogue.GPU_PROCESS_MEMORY, sum(known_sizes) / MEGABYTE)

    def ours(self, now: float) -> list[Handle]:
        """Returns the device's processes that belong to the job.

        Raises:
            NvmlError: NVML does not list them, or only by ids that are meaningless here.
        """
        listed = self._processes()
        ours = [one for one in listed if self._tree.holds(one.pid, now)]
        if not ours and any(self._tree.lacks(one.pid, now) for one in listed):
            raise NvmlError(
                "NVML lists processes that do not exist here: this container has its own process ids",
                Verdict.UNUSABLE,
            )
        return ours
