"""Facts of a Mac: sysctl and psutil for the host, system_profiler for its GPUs.

Check:  /usr/sbin/system_profiler SPDisplaysDataType -json
"""

from __future__ import annotations

import json
import platform
import re
from collections.abc import Mapping
from typing import Any

import psutil

from mlflow_sysmetrics.errors import Unavailable
from mlflow_sysmetrics.facts.values import Cores, Gpu, GpuReport, Memory
from mlflow_sysmetrics.machine.command import RunCommand
from mlflow_sysmetrics.machine.host import Host

# Absolute, since a Conda or Homebrew directory in PATH may hold another sysctl.
_SYSCTL = ("/usr/sbin/sysctl", "-n", "machdep.cpu.brand_string")
_SYSTEM_PROFILER = ("/usr/sbin/system_profiler", "SPDisplaysDataType", "-json")

_NAMELESS = "unknown GPU"  # keeps the place of a card without a name
_UNIT_BYTES = {"MB": 2**20, "GB": 2**30}


def cpu_model(host: Host, run: RunCommand) -> str:
    """Returns the processor's brand: "Apple M2 Max"."""
    brand = run(_SYSCTL).strip()
    if not brand:
        raise Unavailable("sysctl printed nothing")
    return brand


def cores(host: Host) -> Cores:
    """Returns the cores; macOS has neither quotas nor affinity masks."""
    logical = psutil.cpu_count()
    if logical is None:
        raise Unavailable("the number of CPUs is unknown")
    return Cores(logical=logical, physical=psutil.cpu_count(logical=False), effective=logical)


def memory(host: Host) -> Memory:
    """Returns the host's memory."""
    return Memory(total_bytes=psutil.virtual_memory().total)


def watch_limits(host: Host) -> None:
    """Does nothing: no file shows such a change."""


def os_name(host: Host) -> str:
    """Returns the product's name and version: "macOS 14.5"."""
    version = platform.mac_ver()[0]
    if not version:
        raise Unavailable("this is not macOS")
    return f"macOS {version}"


def platform_name() -> str:
    """Returns what `platform.platform()` does, without starting a process as that function does."""
    machine = platform.machine()
    processor = "arm" if machine.startswith("arm") else "i386"
    return f"macOS-{platform.mac_ver()[0]}-{machine}-{processor}-64bit"


def container(host: Host) -> str | None:
    """Returns None: containers on a Mac run in a Linux virtual machine."""
    return None


def cloud(host: Host) -> str | None:
    """Returns None: a Mac has no DMI files."""
    return None


def displays(host: Host, run: RunCommand) -> GpuReport:
    """Returns the GPUs that system_profiler lists, with or without a display."""
    return GpuReport(gpus=parse_displays(run(_SYSTEM_PROFILER)))


GPU_SOURCES = (displays,)


def parse_displays(text: str) -> tuple[Gpu, ...]:
    """Returns the GPUs in system_profiler's JSON.

    Raises:
        Unavailable: the text is not such JSON.
    """
    try:
        cards = json.loads(text)["SPDisplaysDataType"]
        gpus = tuple(_gpu(card) for card in cards)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise Unavailable("system_profiler did not print a list of displays") from error
    if gpus and all(gpu.name == _NAMELESS for gpu in gpus):
        raise Unavailable("system_profiler did not print a list of displays")
    return gpus


def _gpu(card: Mapping[str, Any]) -> Gpu:
    # A GPU without its own video memory omits the value (Apple) or reports "shared" (Intel).
    own_memory = card.get("spdisplays_vram") or card.get("_spdisplays_vram")
    unified = "spdisplays_vram_shared" in card or (
        own_memory is None and "Apple" in card.get("spdisplays_vendor", "")
    )
    return Gpu(
        name=card.get("sppci_model") or card.get("_name") or _NAMELESS,
        memory_bytes=None if unified or own_memory is None else _bytes(own_memory),
        unified=unified,
    )


def _bytes(text: str) -> int | None:
    """Returns the bytes of "1536 MB" or "4 GB"."""
    size = re.fullmatch(r"(\d+) (MB|GB)", text.strip())
    return int(size[1]) * _UNIT_BYTES[size[2]] if size else None
