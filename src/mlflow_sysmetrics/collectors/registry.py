"""Every collector in one explicit list per system, named by its module and class and imported when needed.

A host has a handful of the sources that the list knows, so only the modules of those are imported: `resolve`
asks the entry's cheap check first (`presence`). A collector whose source is absent keeps its place and its
reason, and is imported if the source appears later.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterable, Sequence
from importlib import import_module
from typing import TypeAlias, cast

from mlflow_sysmetrics.collectors import presence
from mlflow_sysmetrics.collectors.contract import Collector
from mlflow_sysmetrics.errors import ThreadUnavailable, Unavailable
from mlflow_sysmetrics.machine.host import Host
from mlflow_sysmetrics.runtime.bounded_calls import CallTimeout, bounded
from mlflow_sysmetrics.samples import Family

_PRESENCE_SECONDS = 1.0  # reading a dozen names takes a millisecond

Absence: TypeAlias = Callable[[Host], str | None]
"""Returns why a source is absent, or None if it may be there."""


def _never_absent(host: Host) -> None:
    """Leaves the decision to the collector's constructor."""


class CollectorEntry:
    """One collector of the registry. Calling it builds the collector, as calling the class does.

    Attributes:
        module: name of its module in this package.
        name: name of its class.
        family: the family that switches it.
        part: what it reads of its family, in words; "" for the one that the family is named after.
        absence: returns why its source is absent, without importing the module.
    """

    __slots__ = ("absence", "family", "module", "name", "part")

    def __init__(
        self, module: str, name: str, family: Family, absence: Absence = _never_absent, part: str = ""
    ) -> None:
        self.module = module
        self.name = name
        self.family = family
        self.absence = absence
        self.part = part

    def load(self) -> type[Collector]:
        """Returns the class, importing its module."""
        module = import_module(f"mlflow_sysmetrics.collectors.{self.module}")
        return cast("type[Collector]", getattr(module, self.name))

    def __call__(self, host: Host) -> Collector:
        """Builds the collector.

        Raises:
            Unavailable: the host does not have its source.
        """
        reason = self.absence(host)
        if reason is not None:
            raise Unavailable(reason)
        return self.load()(host)


AnyCollector: TypeAlias = "type[Collector] | CollectorEntry"
"""What a probe accepts: a class, or an entry of the registry."""


Build: TypeAlias = Callable[[Host], Collector]
"""Builds a collector."""


def name_of(collector: AnyCollector) -> str:
    """Returns how `status()`, `doctor` and the log name a collector: its family, and its part of that.

    For example "cpu", "cpu (throttling)", "gpu (nvidia)"; the class name of one that is not listed here.
    """
    if not isinstance(collector, CollectorEntry):
        listed = next((entry for entry in (*LINUX, *PORTABLE) if entry.name == collector.__name__), None)
        if listed is None:
            return collector.__name__
        collector = listed
    return f"{collector.family.value} ({collector.part})" if collector.part else collector.family.value


def load_classes(collectors: Iterable[CollectorEntry]) -> tuple[type[Collector], ...]:
    """Returns the classes of some entries, importing all of their modules."""
    return tuple(entry.load() for entry in collectors)


def resolve(collector: AnyCollector, host: Host) -> Build:
    """Returns what builds a collector, with its modules imported if the host may have its source.

    For the thread that starts the sampler, not for the sampler itself: a process that forks while another
    thread imports a module leaves that module locked in the child.
    """
    if isinstance(collector, CollectorEntry) and collector.absence(host) is not None:
        return collector
    return _loaded(collector)


def resolve_all(collectors: Sequence[AnyCollector], host: Host) -> list[Build]:
    """Returns what builds each of some collectors; see `resolve`.

    Looks for their sources in another thread. What has not been found out within a second is left to the
    sampler, so that a driver library on a dead filesystem does not hang the program.
    """
    absent: dict[AnyCollector, bool] = {}

    def look() -> None:
        for one in collectors:
            with contextlib.suppress(Exception):  # the guard of the sampler says what is wrong
                absent[one] = isinstance(one, CollectorEntry) and one.absence(host) is not None

    with contextlib.suppress(ImportError):
        import ctypes  # noqa: F401 - which a look may need: not imported in a thread, see `resolve`

    with contextlib.suppress(CallTimeout, ThreadUnavailable):
        bounded(look, _PRESENCE_SECONDS, name="sysmetrics-presence")
    return [one if absent.get(one, False) else _loaded(one) for one in collectors]


def _loaded(collector: AnyCollector) -> Build:
    if not isinstance(collector, CollectorEntry):
        return collector
    try:
        return collector.load()
    except ImportError:  # raised again when the entry is called, where the sampler's guard reports it
        return collector


# In the order of a tick.
LINUX = (
    CollectorEntry("cpu_linux", "CpuLinux", Family.CPU),
    CollectorEntry("throttling_linux", "ThrottlingLinux", Family.CPU, part="throttling"),
    CollectorEntry("memory_linux", "MemoryLinux", Family.MEMORY),
    CollectorEntry("oom_linux", "OomLinux", Family.MEMORY, part="out-of-memory kills"),
    CollectorEntry("pressure_linux", "PressureLinux", Family.PRESSURE),
    CollectorEntry("process_linux", "ProcessLinux", Family.PROCESS),
    CollectorEntry("disk", "Disk", Family.DISK),
    CollectorEntry("disk_io_linux", "DiskIoLinux", Family.DISK, part="throughput"),
    CollectorEntry("network_linux", "NetworkLinux", Family.NETWORK),
    CollectorEntry(
        "infiniband_linux", "InfinibandLinux", Family.FABRIC, presence.no_infiniband, part="InfiniBand"
    ),
    CollectorEntry("energy_linux", "EnergyLinux", Family.ENERGY, presence.no_powercap),
    CollectorEntry("nvidia", "Nvidia", Family.GPU, presence.no_nvidia_driver, part="nvidia"),
    CollectorEntry(
        "nvidia_profile", "NvidiaProfile", Family.GPU_PROFILE, presence.no_nvidia_driver, part="nvidia"
    ),
    CollectorEntry("amd_linux", "AmdLinux", Family.GPU, presence.no_amd_gpu, part="amd"),
    CollectorEntry("intel_gpu_linux", "IntelLinux", Family.GPU, presence.no_intel_gpu, part="intel"),
    CollectorEntry(
        "drm_clocks_linux", "DrmClocks", Family.GPU_PROFILE, presence.no_amd_or_intel_gpu, part="amd, intel"
    ),
    CollectorEntry("torch_allocator", "TorchAllocator", Family.GPU, part="torch"),
)
PORTABLE = (
    CollectorEntry("cpu_psutil", "CpuPsutil", Family.CPU),
    CollectorEntry("memory_psutil", "MemoryPsutil", Family.MEMORY),
    CollectorEntry("process_psutil", "ProcessPsutil", Family.PROCESS),
    CollectorEntry("disk", "Disk", Family.DISK),
    CollectorEntry("disk_io_psutil", "DiskIoPsutil", Family.DISK, part="throughput"),
    CollectorEntry("network_psutil", "NetworkPsutil", Family.NETWORK),
    CollectorEntry("nvidia", "Nvidia", Family.GPU, presence.no_nvidia_driver, part="nvidia"),
    CollectorEntry(
        "nvidia_profile", "NvidiaProfile", Family.GPU_PROFILE, presence.no_nvidia_driver, part="nvidia"
    ),
    CollectorEntry("apple_gpu", "AppleGpu", Family.GPU, presence.not_macos, part="apple"),
    CollectorEntry("torch_allocator", "TorchAllocator", Family.GPU, part="torch"),
)
COLLECTORS = LINUX if sys.platform == "linux" else PORTABLE
