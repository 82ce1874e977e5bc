"""Facts of a Windows host: the registry, psutil, and CIM for its GPUs.

Check:  powershell -Command "Get-CimInstance Win32_VideoController | Format-List"
"""

from __future__ import annotations

import importlib
import json
import ntpath
import platform
import re
from collections.abc import Mapping
from typing import Any

import psutil

from mlflow_sysmetrics.errors import Unavailable
from mlflow_sysmetrics.facts.values import Cores, Gpu, GpuReport, Memory
from mlflow_sysmetrics.machine.command import RunCommand
from mlflow_sysmetrics.machine.host import Host

_CPU_KEY = r"HARDWARE\DESCRIPTION\System\CentralProcessor\0"

_QUERY = (
    "[Console]::OutputEncoding = [Text.Encoding]::UTF8; "
    "Get-CimInstance Win32_VideoController | "
    "Select-Object Name, AdapterRAM, DriverVersion | ConvertTo-Json -Compress"
)

# Display adapters that cannot compute: Windows' fallback drivers, remote sessions, virtual monitors,
# hypervisors, and the management controllers of servers.
_NOT_A_GPU = re.compile(
    r"^Microsoft |virtual (display|desktop|monitor)|remote|indirect|mirror|\bIdd|VMware|VirtualBox|QXL|VirtIO"
    r"|Parsec|Citrix|spacedesk|DisplayLink|ASPEED|Matrox",
    re.IGNORECASE,
)

_NAMELESS = "unknown GPU"  # keeps the place of a controller without a name
# AdapterRAM has 32 bits: it is about this large for every GPU with 4 GiB or more.
_SATURATED_BYTES = 4_000_000_000


def cpu_model(host: Host, run: RunCommand) -> str:
    """Returns the processor's name in the registry."""
    try:
        registry = importlib.import_module("winreg")  # its types exist on Windows only
    except ImportError as error:
        raise Unavailable("this is not Windows") from error
    return read_processor_name(registry)


def read_processor_name(registry: Any) -> str:
    """Returns ProcessorNameString from `registry`, the winreg module.

    Raises:
        Unavailable: the registry does not have it.
    """
    try:
        with registry.OpenKey(registry.HKEY_LOCAL_MACHINE, _CPU_KEY) as key:
            name, _ = registry.QueryValueEx(key, "ProcessorNameString")
    except OSError as error:
        raise Unavailable("the registry has no ProcessorNameString") from error
    return str(name).strip()


def cores(host: Host) -> Cores:
    """Returns the cores, and how many are in this process's affinity mask."""
    logical = psutil.cpu_count()
    if logical is None:
        raise Unavailable("the number of CPUs is unknown")
    process = psutil.Process()
    allowed = len(process.cpu_affinity()) if hasattr(process, "cpu_affinity") else logical
    return Cores(logical=logical, physical=psutil.cpu_count(logical=False), effective=min(allowed, logical))


def memory(host: Host) -> Memory:
    """Returns the host's memory."""
    return Memory(total_bytes=psutil.virtual_memory().total)


def watch_limits(host: Host) -> None:
    """Does nothing: no file shows such a change."""


def os_name(host: Host) -> str:
    """Returns the product, edition and build: "Windows 11 Professional 10.0.22631"."""
    release, version, _, _ = platform.win32_ver()
    if not version:
        raise Unavailable("this is not Windows")
    edition = platform.win32_edition() or ""
    return " ".join(filter(None, ("Windows", release, edition, version)))


def platform_name() -> str:
    """Returns `platform.platform()`, which only calls system interfaces on Windows."""
    return platform.platform()


def container(host: Host) -> str | None:
    """Returns None: Windows containers are not recognised."""
    return None


def cloud(host: Host) -> str | None:
    """Returns None: Windows has no DMI files."""
    return None


def video_controllers(host: Host, run: RunCommand) -> GpuReport:
    """Returns the GPUs among the video controllers that CIM lists."""
    # The full path, since Windows would look for the name in the working directory first.
    system_root = host.environ.get("SystemRoot", r"C:\Windows")
    powershell = ntpath.join(system_root, "System32", "WindowsPowerShell", "v1.0", "powershell.exe")
    printed = run((powershell, "-NoProfile", "-NonInteractive", "-Command", _QUERY))
    return GpuReport(gpus=parse_video_controllers(printed))


GPU_SOURCES = (video_controllers,)


def parse_video_controllers(text: str) -> tuple[Gpu, ...]:
    """Returns the GPUs in the JSON of Win32_VideoController, without adapters that only display.

    Raises:
        Unavailable: the text is not such JSON.
    """
    try:
        controllers = json.loads(text.lstrip("\ufeff"))
        # PowerShell 5 writes a single object instead of a list of one.
        listed = controllers if isinstance(controllers, list) else [controllers]
        names = [controller["Name"] or "" for controller in listed]
        gpus = tuple(
            _gpu(controller)
            for controller, name in zip(listed, names, strict=True)
            if not _NOT_A_GPU.search(name)
        )
    except (ValueError, KeyError, TypeError) as error:
        raise Unavailable("PowerShell did not print a list of video controllers") from error
    if listed and not any(names):
        raise Unavailable("PowerShell did not print a list of video controllers")
    return gpus


def _gpu(controller: Mapping[str, Any]) -> Gpu:
    memory_bytes = controller.get("AdapterRAM")
    known = isinstance(memory_bytes, int) and 0 < memory_bytes < _SATURATED_BYTES
    return Gpu(
        name=controller["Name"] or _NAMELESS,
        memory_bytes=memory_bytes if known else None,
        driver=controller.get("DriverVersion"),
    )
