"""Facts of a Linux host, from the text files of /proc, /sys and /etc.

An other Unix is read the same way: what it has not becomes a clause in the error tag.
"""

from __future__ import annotations

import platform
import re
from pathlib import Path

from mlflow_sysmetrics.errors import Unavailable
from mlflow_sysmetrics.facts import cpuinfo, drm_gpus, nvidia_smi
from mlflow_sysmetrics.facts.surroundings import cloud, container
from mlflow_sysmetrics.facts.values import Cores, Memory
from mlflow_sysmetrics.machine.cgroups import smallest_memory_limit
from mlflow_sysmetrics.machine.command import RunCommand
from mlflow_sysmetrics.machine.cpu_share import cpu_share
from mlflow_sysmetrics.machine.host import Host

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

GPU_SOURCES = (nvidia_smi.gpus, drm_gpus.gpus)

_CPU_DIRECTORY = "sys/devices/system/cpu"


def cpu_model(host: Host, run: RunCommand) -> str:
    """Returns the model that /proc/cpuinfo names."""
    return cpuinfo.parse_cpu_model(host.read_text("proc/cpuinfo"))


def cores(host: Host) -> Cores:
    """Returns the CPUs that are online, their physical cores, and the share of this job."""
    share = cpu_share(host)
    return Cores(logical=len(share.online), physical=_physical_cores(host), effective=share.cores)


def memory(host: Host) -> Memory:
    """Returns MemTotal, and the smallest cgroup limit below it."""
    total = re.search(r"^MemTotal:\s+(\d+) kB", host.read_text("proc/meminfo"), re.MULTILINE)
    if total is None:
        raise Unavailable("/proc/meminfo has no MemTotal")
    total_bytes = int(total[1]) * 1024
    limit_bytes = smallest_memory_limit(host)
    is_held = limit_bytes is not None and limit_bytes < total_bytes
    return Memory(total_bytes=total_bytes, limit_bytes=limit_bytes if is_held else None)


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
