"""Every fact about the host, in the order in which they are found: quick ones first, GPUs last.

A fact is a function that yields (tag, value) pairs as it finds them. If it raises `Unavailable` or OSError,
the pairs that it has yielded stay, and the error becomes the reason for the missing ones.
"""

from __future__ import annotations

import contextlib
import platform
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

from mlflow_sysmetrics.errors import ThreadUnavailable, Unavailable
from mlflow_sysmetrics.facts.gpus import NVML, GpuSource, LazyGpuSource, find_gpus, gpu_tags
from mlflow_sysmetrics.facts.operating_systems import OperatingSystem, Sources
from mlflow_sysmetrics.facts.surroundings import scheduler_tags
from mlflow_sysmetrics.facts.values import gigabytes, number
from mlflow_sysmetrics.machine.host import Host
from mlflow_sysmetrics.runtime.bounded_calls import CallTimeout, bounded

_PRESENCE_SECONDS = 0.5  # reading a dozen names takes a millisecond

Tags = Iterator[tuple[str, str]]


class Fact(NamedTuple):
    """One question about the host.

    Attributes:
        name: its name in an error clause.
        find: yields its tags.
        quick: True if it only reads files and asks the running process, so it may be found while a caller
            waits.
        limit_tag: its tag that depends on a limit of the job, which may be changed or lifted live.
    """

    name: str
    find: Callable[[Sources], Tags]
    quick: bool = True
    limit_tag: str | None = None


def _platform(sources: Sources) -> Tags:
    yield "sys.platform", sources.system.platform_name()


def _python(sources: Sources) -> Tags:
    yield "sys.python", f"{platform.python_implementation()} {platform.python_version()}"


def _hostname(sources: Sources) -> Tags:
    yield "sys.hostname", platform.node()


def _os(sources: Sources) -> Tags:
    yield "sys.os", sources.system.os_name(sources.host)


def _memory(sources: Sources) -> Tags:
    memory = sources.system.memory(sources.host)
    yield "sys.memory_gb", gigabytes(memory.total_bytes)
    if memory.limit_bytes is not None:
        yield "sys.memory_limit_gb", gigabytes(memory.limit_bytes)


def _cores(sources: Sources) -> Tags:
    cores = sources.system.cores(sources.host)
    yield "sys.cpu_cores", str(cores.logical)
    if cores.physical is not None:
        yield "sys.cpu_cores_physical", str(cores.physical)
    if cores.effective is not None:
        yield "sys.cpu_cores_effective", number(cores.effective)


def _container(sources: Sources) -> Tags:
    kind = sources.system.container(sources.host)
    if kind is not None:
        yield "sys.container", kind


def _scheduler(sources: Sources) -> Tags:
    yield from scheduler_tags(sources.host.environ)


def _cloud(sources: Sources) -> Tags:
    provider = sources.system.cloud(sources.host)
    if provider is not None:
        yield "sys.cloud", provider


def _cpu(sources: Sources) -> Tags:
    try:
        model = sources.system.cpu_model(sources.host, sources.run)
    except (Unavailable, OSError):
        yield "sys.cpu", platform.machine()
        raise
    yield "sys.cpu", model


def _gpu(sources: Sources) -> Tags:
    yield from gpu_tags(find_gpus(sources.host, sources.run, _gpu_sources(sources.system)))


def _gpu_sources(system: OperatingSystem) -> Iterator[GpuSource]:
    """Yields the sources of GPUs, in the order in which they are asked."""
    yield NVML
    yield from system.GPU_SOURCES


def preload(system: OperatingSystem, host: Host) -> None:
    """Imports the modules that the facts need on this host; see `LazyGpuSource.load`."""
    sources = [source for source in _gpu_sources(system) if isinstance(source, LazyGpuSource)]
    there: dict[str, bool] = {}

    def look() -> None:
        for source in sources:
            with contextlib.suppress(Exception):  # the search says what is wrong
                there[source.module] = source.may_exist(host)

    with contextlib.suppress(ImportError):
        import ctypes  # noqa: F401 - which a look may need; not imported in a thread either
    # A directory of PATH may be on a filesystem that does not answer; nor may a thread be available.
    with contextlib.suppress(CallTimeout, ThreadUnavailable):
        bounded(look, _PRESENCE_SECONDS, name="sysmetrics-presence")
    for source in sources:
        if there.get(source.module, False):
            source.load()


class Limits:
    """Notices that a limit of the job was changed live.

    Args:
        system: functions of the operating system.
        host: the machine.
    """

    def __init__(self, system: OperatingSystem, host: Host) -> None:
        self._system = system
        self._host = host
        self._version = host.files.version

    def watch(self) -> None:
        """Watches the limits in force. To miss no change, call this before reading them."""
        with contextlib.suppress(Exception):  # a fact says what is wrong
            self._system.watch_limits(self._host)

    def have_changed(self) -> bool:
        """Returns whether a limit has changed since the last call that returned True.

        Looks once a second: a program may ask for the tags a thousand times.
        """
        version = self._host.files.check_all(time.monotonic() // 1)
        changed, self._version = version != self._version, version
        return changed


FACTS = (
    Fact("platform", _platform),
    Fact("python", _python),
    Fact("hostname", _hostname),
    Fact("os", _os),
    Fact("memory", _memory, limit_tag="sys.memory_limit_gb"),
    Fact("cores", _cores, limit_tag="sys.cpu_cores_effective"),
    Fact("container", _container),
    Fact("scheduler", _scheduler),
    Fact("cloud", _cloud),
    Fact("cpu", _cpu),
    Fact("gpu", _gpu, quick=False),
)
