"""Whether the source of a collector can exist on a host, from the name of a directory or two.

Each function returns why the source is absent, in the same words as its collector, or None if it may be
there. The registry calls them before it imports the collector's modules, at the start of a run: they read
names and one-line files of the kernel, and start no driver.
"""

from __future__ import annotations

from mlflow_sysmetrics.collectors.kernel_files import listed, text_of
from mlflow_sysmetrics.machine.host import Host
from mlflow_sysmetrics.machine.visible_gpus.environment import hides_nvidia_gpus
from mlflow_sysmetrics.machine.visible_gpus.selection import follows_environment

AMD, INTEL = "0x1002", "0x8086"  # PCI ids of the vendors
GRAPHICS_CARDS = "sys/class/drm"
AMD_COMPUTE_NODES = "sys/class/kfd/kfd/topology/nodes"
INFINIBAND = "sys/class/infiniband"
POWERCAP = "sys/class/powercap"

NO_NVIDIA_DRIVER = "NVML: driver not found"
NO_VISIBLE_NVIDIA_GPU = "NVML: no device that this job may see"
NO_AMD_GPU = f"no AMD GPU in /{GRAPHICS_CARDS}"
NO_INTEL_GPU = f"no Intel GPU in /{GRAPHICS_CARDS}"
NO_INFINIBAND = f"no port in /{INFINIBAND}"
NO_RAPL = f"no RAPL package in /{POWERCAP}"
NOT_MACOS = "this is not macOS"


def no_nvidia_driver(host: Host) -> str | None:
    """Looks for the driver's library; NVIDIA GPUs that the environment hides are absent too."""
    if follows_environment(host.wanted_gpus) and hides_nvidia_gpus(host.environ):
        return NO_VISIBLE_NVIDIA_GPU
    return None if host.may_have_nvml() else NO_NVIDIA_DRIVER


def no_amd_gpu(host: Host) -> str | None:
    """Looks for a card of AMD's, and for the nodes of its compute driver."""
    found = _has_card(host, AMD) or listed(str(host.root / AMD_COMPUTE_NODES))
    return None if found else NO_AMD_GPU


def no_intel_gpu(host: Host) -> str | None:
    """Looks for a card of Intel's."""
    return None if _has_card(host, INTEL) else NO_INTEL_GPU


def no_amd_or_intel_gpu(host: Host) -> str | None:
    """Looks for a card of either vendor."""
    reasons = [reason for reason in (no_amd_gpu(host), no_intel_gpu(host)) if reason]
    return "; ".join(reasons) if len(reasons) > 1 else None


def no_infiniband(host: Host) -> str | None:
    """Looks for an InfiniBand or RoCE adapter."""
    return None if listed(str(host.root / INFINIBAND)) else NO_INFINIBAND


def no_powercap(host: Host) -> str | None:
    """Looks for any zone of the powercap framework."""
    return None if listed(str(host.root / POWERCAP)) else NO_RAPL


def not_macos(host: Host) -> str | None:
    """Compares the operating system."""
    return None if host.platform == "darwin" else NOT_MACOS


def _has_card(host: Host, vendor: str) -> bool:
    directory = str(host.root / GRAPHICS_CARDS)
    return any(text_of(f"{directory}/{name}/device/vendor") == vendor for name in listed(directory))
