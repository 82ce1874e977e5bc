"""AMD and Intel GPUs through the kernel's display subsystem.

Source:  /sys/class/drm/card*/device: PCI ids, product name, amount of video memory (amdgpu); for a processor
         with graphics, of the RAM that it may use too.
Order:   AMD's before Intel's; AMD's in ROCm's order, that of the nodes in /sys/class/kfd/kfd/topology, where
         each partition of an MI300 is a device; Intel's, and AMD's without ROCm's driver, in PCI bus order.
Names:   the driver's own, else from amdgpu.ids (libdrm) and pci.ids (pciutils, hwdata) if installed, else the
         PCI ids; with the partition mode if the card is partitioned ("... CPX").
UUIDs:   "GPU-" and the unique_id of amdgpu, as rocminfo prints it; Intel's GPUs have none.
Absent:  no card of either vendor; NVIDIA's are left to NVML and nvidia-smi.
Check:   grep . /sys/class/drm/card*/device/{vendor,device,product_name,mem_info_vram_total,unique_id}
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from mlflow_sysmetrics.facts.values import MOST_GPU_BYTES, Gpu, GpuReport, readable
from mlflow_sysmetrics.machine.command import RunCommand
from mlflow_sysmetrics.machine.host import Host
from mlflow_sysmetrics.machine.visible_gpus.amd import select_amd
from mlflow_sysmetrics.machine.visible_gpus.intel import select_intel

_VENDORS = {"1002": "AMD", "8086": "Intel"}
_AMDGPU_IDS = ("usr/share/libdrm/amdgpu.ids", "opt/amdgpu/share/libdrm/amdgpu.ids")
_PCI_IDS = ("usr/share/misc/pci.ids", "usr/share/hwdata/pci.ids")
_UNIQUE_ID = r"(?!0+$)[0-9a-f]{1,16}"  # amdgpu prints 0 for a chip without one
_WHOLE = ("", "SPX")  # a card that cannot be partitioned, or is not


@dataclass(frozen=True, slots=True)
class _Card:
    """One card: its vendor, its PCI address, its render nodes ("renderD128"), and what it is."""

    vendor: str
    address: str
    nodes: frozenset[str]
    partition: str
    gpu: Gpu


def gpus(host: Host, run: RunCommand) -> GpuReport:
    """Returns the watched AMD and Intel GPUs among those that the kernel drives."""
    paths = (host.root / "sys/class/drm").glob("card*")
    # card0-HDMI-A-1 is a connector
    numbered = sorted((int(path.name[4:]), path) for path in paths if path.name[4:].isdecimal())
    cards = [card for _, path in numbered if (card := _card(host, path / "device")) is not None]
    cards = _once(cards)
    cards.sort(key=lambda card: card.address)
    amd = _compute_devices(host, [card for card in cards if card.vendor == "AMD"])
    intel = [card for card in cards if card.vendor == "Intel"]
    chosen: list[Gpu] = []
    problems: list[str] = []
    for found, selection in (
        (amd, select_amd(host.environ, host.gpus, [gpu.uuid or "" for gpu in amd])),
        (
            [card.gpu for card in intel],
            select_intel(host.environ, host.gpus, [card.address for card in intel]),
        ),
    ):
        chosen += [replace(found[one.index], index=one.index) for one in selection.chosen]
        problems += selection.gaps if found else ()
    return GpuReport(gpus=tuple(chosen), problems=tuple(problems))


def _once(cards: Sequence[_Card]) -> list[_Card]:
    """Returns the cards without further names of a device that was there before."""
    first: dict[str, _Card] = {}
    for place, card in enumerate(cards):
        first.setdefault(card.address or str(place), card)
    return list(first.values())


def parse_amdgpu_name(text: str, device: str, revision: str) -> str | None:
    """Returns the product name of a chip in amdgpu.ids ("device, revision, product", in hex)."""
    pattern = rf"^{device},\s*{revision},\s*(\S.*)$"
    product = re.search(pattern, text, re.MULTILINE | re.IGNORECASE)
    return product[1].strip() if product else None


def parse_pci_name(text: str, vendor: str, device: str) -> str | None:
    """Returns the name of a device in pci.ids, where it is indented below its vendor."""
    section = re.search(rf"^{vendor}  .*\n((?:\t.*\n|#.*\n)*)", text, re.MULTILINE | re.IGNORECASE)
    if section is None:
        return None
    name = re.search(rf"^\t{device}  (\S.*)$", section[1], re.MULTILINE | re.IGNORECASE)
    return name[1].strip() if name else None


def parse_address(uevent: str) -> str:
    """Returns the PCI address ("0000:03:00.0") in a device's uevent, "" if there is none."""
    slot = re.search(r"^PCI_SLOT_NAME=(\S+)$", uevent, re.MULTILINE)
    return slot[1] if slot else ""


def parse_compute_device(properties: str) -> tuple[str, str | None] | None:
    """Returns render node ("renderD128") and UUID of one of ROCm's nodes, None for a node without a GPU."""
    numbers = dict(
        re.findall(r"^(simd_count|drm_render_minor|unique_id) ([1-9]\d{0,19})$", properties, re.MULTILINE)
    )
    if not numbers.keys() >= {"simd_count", "drm_render_minor"}:
        return None
    unique = int(numbers.get("unique_id", "0"))
    return f"renderD{numbers['drm_render_minor']}", f"GPU-{unique:016x}" if unique else None


def _compute_devices(host: Host, cards: Sequence[_Card]) -> list[Gpu]:
    """Returns AMD's devices in ROCm's order; the further partitions of a card follow it there."""
    by_node = {node: card for card in cards for node in card.nodes}
    nodes = _topology(host)
    if by_node.keys().isdisjoint(node for node, _ in nodes):
        return [card.gpu for card in cards]
    devices: list[Gpu] = []
    card = None
    for node, uuid in nodes:
        card = by_node.get(node, card)
        gpu = _partition(card) if card else Gpu(name="AMD GPU")
        own = gpu.uuid if node in by_node else None
        devices.append(replace(gpu, uuid=uuid or own))
    return devices


def _partition(card: _Card) -> Gpu:
    """Returns the card, or one of its partitions, whose memory the card's files do not give."""
    if card.partition in _WHOLE:
        return card.gpu
    return replace(card.gpu, name=f"{card.gpu.name} {card.partition}", memory_bytes=None)


def _topology(host: Host) -> list[tuple[str, str | None]]:
    nodes = (host.root / "sys/class/kfd/kfd/topology/nodes").glob("*")
    numbered = sorted((int(path.name), path) for path in nodes if path.name.isdecimal())
    devices = (parse_compute_device(_text(path / "properties")) for _, path in numbered)
    return [device for device in devices if device is not None]


def _card(host: Host, device_directory: Path) -> _Card | None:
    vendor_id = _pci_id(device_directory / "vendor")
    vendor = _VENDORS.get(vendor_id)
    if vendor is None:
        return None
    unique = _text(device_directory / "unique_id")
    gpu = Gpu(
        name=readable(_text(device_directory / "product_name"))
        or _looked_up_name(host, device_directory, vendor_id, vendor),
        memory_bytes=_memory_bytes(device_directory),
        uuid=f"GPU-{unique:0>16}" if re.fullmatch(_UNIQUE_ID, unique) else None,
    )
    return _Card(
        vendor=vendor,
        address=parse_address(_text(device_directory / "uevent")),
        nodes=frozenset(path.name for path in (device_directory / "drm").glob("renderD*")),
        partition=_text(device_directory / "current_compute_partition"),
        gpu=gpu,
    )


def _memory_bytes(device_directory: Path) -> int | None:
    """Returns the memory that `gpu_{i}_memory_usage_megabytes` counts; None if the driver does not say.

    A processor with graphics uses RAM: what is reserved for it (vram), and what it may use in addition (gtt).
    """
    # Only processors with graphics report the voltage of the north bridge (kernel, amdgpu hwmon).
    integrated = any((device_directory / "hwmon").glob("hwmon*/in1_input"))
    regions = ("vram", "gtt") if integrated else ("vram",)
    totals = [_text(device_directory / f"mem_info_{region}_total") for region in regions]
    known = [int(total) for total in totals if re.fullmatch("[0-9]{1,18}", total)]
    return sum(known) if len(known) == len(totals) and sum(known) <= MOST_GPU_BYTES else None


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
    """Returns "744c" for "0x744c"."""
    return _text(path).removeprefix("0x").lower()


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""
