"""Facts of a Linux host, from the text files of /proc, /sys and /etc.

An other Unix is read the same way: what it has not becomes a clause in the error tag.
"""

from __future__ import annotations

import platform
import re
from pathlib import Path

from mlflow_sysmetrics.cgroups import CgroupLimits, limits, parse_cpu_list
from mlflow_sysmetrics.errors import Unavailable
from mlflow_sysmetrics.facts import cpuinfo, drm, nvidia_smi
from mlflow_sysmetrics.facts.clouds import cloud
from mlflow_sysmetrics.facts.command import RunCommand
from mlflow_sysmetrics.facts.containers import container
from mlflow_sysmetrics.facts.values import Cores, Memory
from mlflow_sysmetrics.host import Host

__all__ = [
    "GPU_SOURCES",
    "cloud",
    "container",
    "cores",
    "cpu_model",
    "memory",
    "os_name",
    "platform_name",
]

GPU_SOURCES = (nvidia_smi.gpus, drm.gpus)

_CPU_DIRECTORY = "sys/devices/system/cpu"


def cpu_model(host: Host, run: RunCommand) -> str:  # noqa: ARG001 - the contract's; no command is needed here
    """Returns the model that /proc/cpuinfo names."""
    return cpuinfo.parse_cpu_model(host.read_text("proc/cpuinfo"))


def cores(host: Host) -> Cores:
    """Returns the CPUs that are online, their physical cores, and the share of this job."""
    online = parse_online_cpus(host.read_text("proc/stat"))
    if not online:
        raise Unavailable("/proc/stat lists no CPU")
    return Cores(
        logical=len(online),
        physical=_physical_cores(host),
        effective=effective_cores(online, _affinity(host), limits(host)),
    )


def memory(host: Host) -> Memory:
    """Returns MemTotal, and the smallest cgroup limit below it."""
    total = re.search(r"^MemTotal:\s+(\d+) kB", host.read_text("proc/meminfo"), re.MULTILINE)
    if total is None:
        raise Unavailable("/proc/meminfo has no MemTotal")
    total_bytes = int(total[1]) * 1024
    limit_bytes = limits(host, host_memory_bytes=total_bytes).memory_bytes
    return Memory(total_bytes=total_bytes, limit_bytes=limit_bytes)


def os_name(host: Host) -> str:
    """Returns PRETTY_NAME of os-release(5)."""
    for path in ("etc/os-release", "usr/lib/os-release"):
        try:
            text = host.read_text(path)
        except OSError:
            continue
        name = re.search(r"^PRETTY_NAME=([\"']?)(.*)\1\s*$", text, re.MULTILINE)
        if name and name[2]:
            return name[2]
    raise Unavailable("os-release has no PRETTY_NAME")


def platform_name() -> str:
    """Returns what `platform.platform()` does, which starts `uname -p` only to throw its answer away."""
    libc = "".join(platform.libc_ver())
    kernel = f"{platform.system()}-{platform.release()}-{platform.machine()}"
    return f"{kernel}-with-{libc}" if libc else kernel


def parse_online_cpus(text: str) -> frozenset[int]:
    """Returns the CPUs that have a line of their own in /proc/stat."""
    return frozenset(int(cpu) for cpu in re.findall(r"^cpu(\d+) ", text, re.MULTILINE))


def parse_affinity(text: str) -> frozenset[int] | None:
    """Returns the CPUs of Cpus_allowed_list in /proc/<pid>/status."""
    allowed = re.search(r"^Cpus_allowed_list:\s*(\S+)$", text, re.MULTILINE)
    return parse_cpu_list(allowed[1]) if allowed else None


def effective_cores(online: frozenset[int], affinity: frozenset[int] | None, limited: CgroupLimits) -> float:
    """Returns how many CPUs the job can keep busy.

    Those that are online, in its affinity mask and in its cpuset, but no more than its quota.
    """
    usable = online
    for allowed in (affinity, limited.cpus):
        # A mask without a CPU that is online speaks of another namespace's numbers, as under gVisor.
        if allowed is not None and usable & allowed:
            usable &= allowed
    return min(float(len(usable)), limited.cpu_cores or float(len(usable)))


def _affinity(host: Host) -> frozenset[int] | None:
    """Returns the mask of the process's first thread; `os.sched_getaffinity` gives the calling thread's."""
    try:
        return parse_affinity(host.read_text("proc/self/status"))
    except OSError:
        return None


def _physical_cores(host: Host) -> int | None:
    counted = cpuinfo.parse_physical_cores(host.read_text("proc/cpuinfo"))
    if counted is not None:
        return counted
    # Arm's cpuinfo does not tell; the threads of one core share one list of siblings.
    siblings = {
        _text(path / "topology/thread_siblings_list")
        for path in (host.root / _CPU_DIRECTORY).glob("cpu[0-9]*")
    }
    return len(siblings - {""}) or None


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii", errors="replace").strip()
    except OSError:
        return ""
