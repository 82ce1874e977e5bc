"""Facts of a Linux host, from the text files of /proc, /sys and /etc.

Other Unix systems are read the same way: what they lack becomes a clause in the error tag.

CPU:    /proc/cpuinfo, whose format depends on the architecture: x86 names the model; Arm gives the numbers of
        the implementer and the part, IBM Z that of the machine; POWER, MIPS, RISC-V and small boards have
        their own keys.
Check:  cat /proc/cpuinfo /etc/os-release
"""

from __future__ import annotations

import platform
import re
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

from mlflow_sysmetrics.errors import Unavailable
from mlflow_sysmetrics.facts.gpus import DRM, NVIDIA_SMI
from mlflow_sysmetrics.facts.surroundings import cloud, container
from mlflow_sysmetrics.facts.values import MOST_HOST_BYTES, Cores, Memory
from mlflow_sysmetrics.machine.cgroups import limit_files, smallest_memory_limit
from mlflow_sysmetrics.machine.command import RunCommand
from mlflow_sysmetrics.machine.cpu_share import cpu_share
from mlflow_sysmetrics.machine.host import Host

if platform.machine().startswith(("aarch64", "arm", "s390")):
    # Here, and not in the thread that looks for facts: see `facts.gpus.LazyGpuSource.preload`.
    import mlflow_sysmetrics.facts.cpu_parts  # noqa: F401

# In the order of the search: POWER, MIPS, RISC-V, 32-bit Arm boards.
_ARM_ARCHITECTURE = "ARMv"  # "ARMv7 Processor rev 3 (v7l)", as 32-bit programs are told
_IBM_Z = r"^vendor_id\s*: IBM/S390"
_OTHER_KEYS = ("cpu", "cpu model", "uarch", "hardware")


def parse_cpu_model(text: str) -> str:
    """Returns the CPU's name; different kinds of core are joined by " + ".

    Raises:
        Unavailable: the text names no CPU.
    """
    blocks = list(_blocks(text))
    names = _distinct(block.get("model name", "") for block in blocks)
    for name in names:
        if not name.startswith(_ARM_ARCHITECTURE):
            return name
    parts = _distinct(_arm_name(block) for block in blocks)
    if parts:
        return " + ".join(parts)
    for name in names:
        return name
    if re.search(_IBM_Z, text, re.MULTILINE):
        return _ibm_z_name(text)
    for key in _OTHER_KEYS:
        for name in _distinct(block.get(key, "") for block in blocks):
            return name
    raise Unavailable("/proc/cpuinfo names no model")


def parse_physical_cores(text: str) -> int | None:
    """Returns the number of distinct (socket, core) pairs; None if the text has no core ids."""
    cores = {
        (block.get("physical id", "0"), block["core id"]) for block in _blocks(text) if "core id" in block
    }
    return len(cores) or None


def _blocks(text: str) -> Iterator[dict[str, str]]:
    """Yields the lines of each processor, with keys in lower case."""
    for block in text.split("\n\n"):
        pairs = (line.partition(":") for line in block.splitlines())
        yield {key.strip().lower(): value.strip() for key, colon, value in pairs if colon}


def _arm_name(block: dict[str, str]) -> str:
    implementer, part = block.get("cpu implementer", ""), block.get("cpu part", "")
    if not implementer or not part:
        return ""
    from mlflow_sysmetrics.facts.cpu_parts import ARM_MAKERS, ARM_PARTS

    maker = ARM_MAKERS.get(implementer, f"implementer {implementer}")
    return ARM_PARTS.get((implementer, part), f"{maker} part {part}")


def _ibm_z_name(text: str) -> str:
    """Returns "IBM z15", or the machine's number if it is unknown; each CPU's line or block has it."""
    machine = re.search(r"\bmachine\s*[=:]\s*(\w{4})\b", text)
    if machine is None:
        return "IBM Z"
    from mlflow_sysmetrics.facts.cpu_parts import IBM_Z_MACHINES

    return IBM_Z_MACHINES.get(machine[1], f"IBM Z machine {machine[1]}")


def _distinct(names: Iterator[str]) -> list[str]:
    return list(dict.fromkeys(filter(None, names)))


__all__ = [
    "GPU_SOURCES",
    "cloud",
    "container",
    "cores",
    "cpu_model",
    "memory",
    "os_name",
    "platform_name",
    "watch_limits",
]

GPU_SOURCES = (NVIDIA_SMI, DRM)

_CPU_DIRECTORY = "sys/devices/system/cpu"


def cpu_model(host: Host, run: RunCommand) -> str:
    """Returns the model that /proc/cpuinfo names."""
    return parse_cpu_model(host.read_text("proc/cpuinfo"))


def cores(host: Host) -> Cores:
    """Returns the online CPUs, their physical cores, and the share of this job."""
    share = cpu_share(host)
    return Cores(logical=len(share.online), physical=_physical_cores(host), effective=share.cores)


def memory(host: Host) -> Memory:
    """Returns MemTotal, and the smallest cgroup limit if it is below MemTotal."""
    total = re.search(r"^MemTotal:\s+(\d{1,30}) kB", host.read_text("proc/meminfo"), re.MULTILINE)
    if total is None:
        raise Unavailable("/proc/meminfo has no MemTotal")
    total_bytes = int(total[1]) * 1024
    if not 0 < total_bytes <= MOST_HOST_BYTES:
        raise Unavailable(f"/proc/meminfo has a MemTotal of {total[1]} kB, which no machine has")
    limit_bytes = smallest_memory_limit(host)
    is_held = limit_bytes is not None and limit_bytes < total_bytes
    return Memory(total_bytes=total_bytes, limit_bytes=limit_bytes if is_held else None)


def watch_limits(host: Host) -> None:
    """Watches the limits of the job's cgroup, and which that is."""
    files = [limit_files(host, controller) for controller in ("cpu", "cpuset", "memory")]
    host.files.watch([str(host.root / "proc/self/cgroup"), *chain.from_iterable(files)])


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
    """Returns what `platform.platform()` does, without starting `uname -p` as that function does."""
    libc = "".join(platform.libc_ver())
    kernel = f"{platform.system()}-{platform.release()}-{platform.machine()}"
    return f"{kernel}-with-{libc}" if libc else kernel


def _physical_cores(host: Host) -> int | None:
    counted = parse_physical_cores(host.read_text("proc/cpuinfo"))
    if counted is not None:
        return counted
    # Arm's cpuinfo has no core ids; the threads of one core share one list of siblings.
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
