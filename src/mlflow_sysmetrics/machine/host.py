"""The machine to look at, as one argument.

Everything that reads the machine takes a `Host`. The real one is `Host()`; a recorded one has a different
root, a different environment and canned answers, so no test patches anything.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from mlflow_sysmetrics.machine.kept_files import KeptFiles, read_bytes
from mlflow_sysmetrics.machine.visible_gpus.selection import GpuOrdinals, follows_environment

if TYPE_CHECKING:
    from mlflow_sysmetrics.machine.command import RunCommand


class DiskUsage(NamedTuple):
    """Space of one filesystem, in bytes; `free` is available to ordinary users."""

    total: int
    used: int
    free: int


def _disk_usage(path: str) -> DiskUsage:
    if sys.platform == "win32":
        return DiskUsage(*shutil.disk_usage(path))
    # As shutil does, in half the time.
    found = os.statvfs(path)
    size, blocks, free, available = found[1:5]
    return _make(DiskUsage, (blocks * size, (blocks - free) * size, available * size))


_make = tuple.__new__


def _process_seconds(pid: int) -> float:
    # The clock id of another process's CPU time, as clock_getcpuclockid(3) of glibc and musl computes it: one
    # system call of 0.3 us, exact to the nanosecond; reading /proc/<pid>/stat takes ten times as long.
    return time.clock_gettime((~pid << 3) | 2)


def _has_children() -> bool:
    # The kernel's answer, in 1 us: it reaps none of them, and knows those of all threads and all kinds.
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT | _WALL)
    except ChildProcessError:
        return False
    except OSError:  # a sandbox
        return True
    return True


_WALL = 0x40000000  # __WALL of waitid(2)


def _affinity() -> Collection[int]:
    # Of the main thread, as `taskset -p` sets it, in 0.4 us. Without the CPUs that are offline.
    return os.sched_getaffinity(os.getpid()) if sys.platform == "linux" else ()


def _run(command: Sequence[str]) -> str:
    from mlflow_sysmetrics.machine.command import Commands  # rarely needed

    # Each command has its own budget, since one runs every few seconds, for days.
    return Commands(os.environ)(command)


def _load_nvml() -> Any:
    import pynvml  # noqa: TID251 - collectors get NVML from here; 7 ms, spent only when needed

    return pynvml


def _finds_nvml() -> bool:
    if "pynvml" in sys.modules:  # the program uses the bindings already, which know where the library is
        return True
    if sys.platform != "linux":  # elsewhere the bindings search more than one place
        return True
    try:
        import ctypes

        ctypes.CDLL("libnvidia-ml.so.1")  # as the bindings do; loading the library does not start NVML
    except (ImportError, OSError):  # a Python without ctypes cannot use the bindings
        return False
    return True


_ROOT = Path("/")


class JobScope:
    """Which processes and GPUs of the machine are the job's, where it has more than this process.

    Empty unless the processes of a job share a sampler. It changes while the collectors run: those that use
    it compare `version`.

    Attributes:
        version: how often it has changed.
        roots: ids of the processes that are the job's with all their descendants; empty for this process.
        gpus: UUIDs of the job's GPUs; empty for those that the environment shows.
    """

    __slots__ = ("gpus", "roots", "version")

    def __init__(self) -> None:
        self.version = 0
        self.roots: tuple[int, ...] = ()
        self.gpus: tuple[str, ...] = ()

    def update(self, roots: Iterable[int] = (), gpus: Iterable[str] = ()) -> None:
        """Replaces the processes and the GPUs."""
        found = tuple(roots), tuple(gpus)
        if found != (self.roots, self.gpus):
            self.roots, self.gpus = found
            self.version += 1


_AMD_UUID = re.compile(r"GPU-[0-9a-f]{16}", re.IGNORECASE)  # NVIDIA's have 32 digits in five groups
JOB_SCOPE = JobScope()  #: of this process

if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=JOB_SCOPE.update)


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """Where the answers of a machine come from.

    Attributes:
        root: directory that replaces ``/`` (it contains ``proc`` and ``sys``).
        platform: its operating system, as `sys.platform`.
        environ: environment variables of the job, read when they are needed.
        disk_usage: space of the filesystem that holds a path, in bytes; raises OSError.
        working_directory: returns the job's working directory; raises OSError if it no longer exists.
        disks: further directories whose filesystems the user wants watched.
        gpus: which GPUs the user wants watched, as `Settings.gpus`.
        job: which processes and GPUs are the job's, beyond this process and what its environment shows.
        gpu_ordinals: numbers the GPUs of all vendors; shared by the collectors of one daemon.
        files: files that are read at every tick, and changes of the job's cgroup and its limits; shared by
            the collectors of a daemon.
        affinity: returns the CPUs that the process may run on, only to notice a change; raises OSError.
        process_seconds: returns the CPU time of a living process, by id; raises OSError.
        has_nvml: returns False if NVIDIA's driver is certainly not installed; None looks for its library,
            unless `load_nvml` is a stand-in.
        load_nvml: returns the `pynvml` module (nvidia-ml-py); raises ImportError.
        run: runs a tool of the operating system, never on the sampling thread; raises `Unavailable`.
    """

    root: Path = _ROOT
    platform: str = sys.platform
    environ: Mapping[str, str] = field(default_factory=lambda: os.environ)
    disk_usage: Callable[[str], DiskUsage] = _disk_usage
    working_directory: Callable[[], str] = os.getcwd
    disks: tuple[str, ...] = ()
    gpus: str = "visible"
    job: JobScope = JOB_SCOPE
    gpu_ordinals: GpuOrdinals = field(default_factory=GpuOrdinals)
    files: KeptFiles = field(default_factory=KeptFiles)
    affinity: Callable[[], Collection[int]] = _affinity
    process_seconds: Callable[[int], float] = _process_seconds
    has_nvml: Callable[[], bool] | None = None
    load_nvml: Callable[[], Any] = _load_nvml
    run: RunCommand = _run

    @property
    def wanted_gpus(self) -> str:
        """Which NVIDIA GPUs are watched, as `gpus`: those of all processes of the job as a list of UUIDs."""
        return self._wanted([uuid for uuid in self.job.gpus if not _AMD_UUID.fullmatch(uuid)])

    @property
    def wanted_amd_gpus(self) -> str:
        """Which AMD GPUs are watched, as `wanted_gpus`."""
        return self._wanted([uuid for uuid in self.job.gpus if _AMD_UUID.fullmatch(uuid)])

    def _wanted(self, of_job: Sequence[str]) -> str:
        return ",".join(of_job) if of_job and follows_environment(self.gpus) else self.gpus

    def may_have_children(self) -> bool:
        """Returns False if this process certainly has no child processes."""
        return self.root is not _ROOT or sys.platform != "linux" or _has_children()

    def may_have_nvml(self) -> bool:
        """Returns False if NVIDIA's driver is certainly not installed."""
        if self.has_nvml is not None:
            return self.has_nvml()
        return self.load_nvml is not _load_nvml or _finds_nvml()

    def read_text(self, path: str) -> str:
        """Returns the text of ``root/path``.

        Raises:
            OSError: the file is missing or may not be read.
        """
        return read_bytes(str(self.root / path)).decode("utf-8", "replace")
