"""Every fact about the host, in the order in which they are found: quick ones first, GPUs last.

A fact is a function that yields (tag, value) pairs as it finds them. If it raises `Unavailable` or OSError,
the pairs that it has yielded stay, and the error becomes the reason for the missing ones. Facts that differ
by operating system come from the module `linux`, `macos` or `windows`.
"""

from __future__ import annotations

import contextlib
import platform
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from importlib import import_module
from typing import NamedTuple, Protocol, cast

from mlflow_sysmetrics.errors import ThreadUnavailable, Unavailable
from mlflow_sysmetrics.facts.gpus import NVML, GpuSource, LazyGpuSource, find_gpus, gpu_tags
from mlflow_sysmetrics.facts.surroundings import scheduler_tags
from mlflow_sysmetrics.facts.values import Cores, Memory, gigabytes, number, shortened
from mlflow_sysmetrics.interruptions import reraise_interruption
from mlflow_sysmetrics.log import Log
from mlflow_sysmetrics.machine.command import RunCommand
from mlflow_sysmetrics.machine.host import Host
from mlflow_sysmetrics.machine.mounts import is_distant, mount_of, read_mounts, real_path
from mlflow_sysmetrics.runtime.bounded_calls import CallTimeout, PendingCall, bounded
from mlflow_sysmetrics.runtime.native import Lock

_logger = Log(__name__)
_FREE_SPACE_SECONDS = 0.25  # a local filesystem takes 0.1 ms; one that does not answer delays a program once
_PRESENCE_SECONDS = 0.5  # reading a dozen names takes a millisecond

Tags = Iterator[tuple[str, str]]


class OperatingSystem(Protocol):
    """What each of the modules provides; every function raises `Unavailable` with the reason."""

    @property
    def GPU_SOURCES(self) -> Sequence[GpuSource]:  # noqa: N802 - a constant of each module
        """Sources of GPUs to ask after NVML, in this order."""

    def cpu_model(self, host: Host, run: RunCommand) -> str:
        """Returns the CPU's name as its maker writes it."""

    def cores(self, host: Host) -> Cores:
        """Returns the number of CPUs, and how many of them this job may use."""

    def memory(self, host: Host) -> Memory:
        """Returns the memory of the host, and the limit on this job."""

    def watch_limits(self, host: Host) -> None:
        """Has `Host.files` notice changes of what `memory` and `cores` take into account."""

    def os_name(self, host: Host) -> str:
        """Returns the operating system's name and version, as its maker writes them."""

    def platform_name(self) -> str:
        """Returns what `platform.platform()` returns, without starting a process."""

    def container(self, host: Host) -> str | None:
        """Returns the kind of container that this job runs in."""

    def cloud(self, host: Host) -> str | None:
        """Returns the cloud provider and, if the machine provides it, the instance type."""


def operating_system(platform: str = sys.platform) -> OperatingSystem:
    """Returns the module for `sys.platform`; an unknown Unix is read as far as it resembles Linux."""
    name = {"darwin": "macos", "win32": "windows"}.get(platform, "linux")
    return cast("OperatingSystem", import_module(f"mlflow_sysmetrics.facts.{name}"))


class Sources(NamedTuple):
    """Everything that a fact may read.

    Attributes:
        host: files, environment, disks and NVML of the machine.
        system: functions of the operating system.
        run: runs a command, within the budget of all commands.
    """

    host: Host
    system: OperatingSystem
    run: RunCommand


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


class FreeSpace:
    """Free space of the working directory, whose filesystem may not answer.

    Args:
        host: the machine.
    """

    def __init__(self, host: Host) -> None:
        self._host = host
        self._local: str | None = None  # a working directory that is not on a filesystem of another machine
        self.after_fork()

    def after_fork(self) -> None:
        """Forgets, in a forked child, the thread and the lock of the parent."""
        self._lock = Lock()
        self._pending: PendingCall[tuple[str, int]] | None = None
        self._gives_up_at = 0.0

    def read(self) -> int:
        """Returns the free space in bytes.

        Raises:
            OSError: the directory cannot be read.
            Unavailable: its filesystem does not answer.
        """
        directory = self._host.working_directory()
        if directory == self._local:
            return self._host.disk_usage(".").free
        try:
            with self._lock:
                pending, gives_up_at = self._ask(), self._gives_up_at
        except ThreadUnavailable:
            return self._look()[1]
        try:
            found, free = pending.result(gives_up_at - time.monotonic())
        except CallTimeout:
            raise Unavailable("the working directory's filesystem does not answer") from None
        finally:
            if pending.is_done and self._pending is pending:
                self._pending = None
        if found != directory:  # an answer that comes late, of an earlier directory
            raise Unavailable("the working directory has just changed")
        return free

    def _ask(self) -> PendingCall[tuple[str, int]]:
        if self._pending is None:
            self._pending = PendingCall(self._look, "sysmetrics-free-space")
            self._gives_up_at = time.monotonic() + _FREE_SPACE_SECONDS
        return self._pending

    def _look(self) -> tuple[str, int]:
        directory = self._host.working_directory()
        free = self._host.disk_usage(".").free
        mount = mount_of(real_path(self._host, directory), read_mounts(self._host))
        if mount is None or not is_distant(mount.filesystem):
            self._local = directory
        return directory, free


def look_for(fact: Fact, sources: Sources) -> tuple[dict[str, str], str]:
    """Returns a fact's tags, and why some are missing ("" if none is)."""
    tags: dict[str, str] = {}
    reason = ""
    try:
        for tag, value in fact.find(sources):
            tags[tag] = shortened(value)
    except Unavailable as error:
        reason = str(error)
    except OSError as error:
        reraise_interruption(error)  # where no thread can be started, this is the program's
        reason = without_path(error)
    except Exception as error:  # no fact may break the others, or the run
        reraise_interruption(error)
        _logger.debug("Looking for the fact %s failed", fact.name, exc_info=True)
        reason = type(error).__name__
    return {tag: value for tag, value in tags.items() if value}, reason


def without_path(error: OSError) -> str:
    """Returns the reason without the file's name: a path may contain a user's name."""
    return error.strerror or type(error).__name__


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
