"""AMD and Intel GPUs through the kernel's display subsystem.

Source:  /sys/class/drm/card*/device: PCI ids, product name, amount of video memory (amdgpu).
Names:   the driver's own, else amdgpu.ids (libdrm) and pci.ids (pciutils, hwdata) where they are installed,
         else the PCI ids.
Absent:  no card of either vendor; NVIDIA's are left to NVML and nvidia-smi.
Check:   grep . /sys/class/drm/card*/device/{vendor,device,product_name,mem_info_vram_total}
"""

from __future__ import annotations

import re
from pathlib import Path

from mlflow_sysmetrics.command import RunCommand
from mlflow_sysmetrics.facts.values import Gpu, GpuReport
from mlflow_sysmetrics.host import Host

_VENDORS = {"1002": "AMD", "8086": "Intel"}
_AMDGPU_IDS = ("usr/share/libdrm/amdgpu.ids", "opt/amdgpu/share/libdrm/amdgpu.ids")
_PCI_IDS = ("usr/share/misc/pci.ids", "usr/share/hwdata/pci.ids")


def gpus(host: Host, run: RunCommand) -> GpuReport:  # noqa: ARG001 - the contract of a GPU source
    """Returns the AMD and Intel GPUs that the kernel drives."""
    cards = [
        (int(path.name.removeprefix("card")), path)
        for path in (host.root / "sys/class/drm").glob("card*")
        if path.name.removeprefix("card").isdecimal()  # card0-HDMI-A-1 is a connector
    ]
    found = (_gpu(host, path / "device") for _, path in sorted(cards))
    return GpuReport(gpus=tuple(gpu for gpu in found if gpu is not None))


def parse_amdgpu_name(text: str, device: str, revision: str) -> str | None:
    """Returns the product that amdgpu.ids ("device, revision, product" in hex) gives to a chip."""
    pattern = rf"^{device},\s*{revision},\s*(\S.*)$"
    product = re.search(pattern, text, re.MULTILINE | re.IGNORECASE)
    return product[1].strip() if product else None


def parse_pci_name(text: str, vendor: str, device: str) -> str | None:
    """Returns the name that pci.ids gives to a device; its lines are indented below their vendor's."""
    section = re.search(rf"^{vendor}  .*\n((?:\t.*\n|#.*\n)*)", text, re.MULTILINE | re.IGNORECASE)
    if section is None:
        return None
    name = re.search(rf"^\t{device}  (\S.*)$", section[1], re.MULTILINE | re.IGNORECASE)
    return name[1].strip() if name else None


def _gpu(host: Host, device_directory: Path) -> Gpu | None:
    vendor_id = _pci_id(device_directory / "vendor")
    vendor = _VENDORS.get(vendor_id)
    if vendor is None:
        return None
    memory = _text(device_directory / "mem_info_vram_total")
    return Gpu(
        name=_text(device_directory / "product_name")
        or _looked_up_name(host, device_directory, vendor_id, vendor),
        memory_bytes=int(memory) if memory.isdecimal() else None,
    )


def _looked_up_name(host: Host, device_directory: Path, vendor_id: str, vendor: str) -> str:
    device_id = _pci_id(device_directory / "device")
    revision = _pci_id(device_directory / "revision")
    for path in _AMDGPU_IDS if vendor == "AMD" else ():
        product = parse_amdgpu_name(_text(host.root / path), device_id, revision)
        if product is not None:
            return product
    for path in _PCI_IDS:
        name = parse_pci_name(_text(host.root / path) + "\n", vendor_id, device_id)
        if name is not None:
            return f"{vendor} {name}"
    return f"{vendor} GPU [{vendor_id}:{device_id}]"


def _pci_id(path: Path) -> str:
    """Returns "744c" of "0x744c"."""
    return _text(path).removeprefix("0x").lower()


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""
