"""The graphics cards that the kernel drives, and AMD's compute devices in ROCm's order.

Cards:   /sys/class/drm/card<n>/device is the PCI device. Its `uevent` has one line with the driver and one
         with the slot, its directory `drm` lists the device's nodes in /dev/dri. A platform device there,
         such as a partition of an MI300 (driver amdgpu_xcp), has no vendor and no sensors.
Compute: /sys/class/kfd/kfd/topology/nodes/<n>/properties describes a processor in lines of a name and a
         number; a node with `simd_count` is a GPU. ROCm's device k is the k-th such node, which is not the
         order of the PCI bus: each partition of an MI300 has its own, and `drm_render_minor` is the number of
         the node in /dev/dri that opens it. In a container the kernel refuses (EPERM) to describe devices
         that the container may not open, and ROCm does not count these.
         https://github.com/torvalds/linux/blob/master/drivers/gpu/drm/amd/amdkfd/kfd_topology.c
"""

from __future__ import annotations

import re
from typing import NamedTuple

from mlflow_sysmetrics.collectors.kernel_files import listed, number_after, text_of
from mlflow_sysmetrics.collectors.presence import AMD_COMPUTE_NODES, GRAPHICS_CARDS
from mlflow_sysmetrics.errors import Unavailable
from mlflow_sysmetrics.machine.host import Host
from mlflow_sysmetrics.machine.kept_files import read_short
from mlflow_sysmetrics.machine.reasons import Malformed, why_unread

_CARD = re.compile(r"card\d+")  # card0-HDMI-A-1 is a connector
_SLOT = re.compile(r"[0-9a-f]{4,}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]")
_NODE = re.compile(r"(?:card|renderD)\d+")


class Card(NamedTuple):
    """One graphics card.

    Attributes:
        slot: its PCI slot, "0000:03:00.0".
        device: directory of the PCI device.
        primary: directory of its primary node, in which i915 has further files.
        driver: name of the kernel's driver.
        nodes: names of its files in /dev/dri.
    """

    slot: str
    device: str
    primary: str
    driver: str
    nodes: frozenset[str]


def cards(host: Host, vendor: str) -> list[Card]:
    """Returns the cards of one vendor in PCI bus order.

    Args:
        host: the machine to look at.
        vendor: `presence.AMD` or `presence.INTEL`.

    Raises:
        Unavailable: a card has no slot, so that their order is unknown.
    """
    directory = str(host.root / GRAPHICS_CARDS)
    found: dict[str, Card] = {}
    for name in filter(_CARD.fullmatch, listed(directory)):
        primary = f"{directory}/{name}"
        device = f"{primary}/device"
        if text_of(f"{device}/vendor") == vendor:
            event = parse_uevent(text_of(f"{device}/uevent"))
            slot = event.get("PCI_SLOT_NAME", "")
            if not _SLOT.fullmatch(slot):
                raise Unavailable(f"/{GRAPHICS_CARDS}/{name}/device/uevent: no PCI slot")
            nodes = frozenset({name, *filter(_NODE.fullmatch, listed(f"{device}/drm"))})
            found.setdefault(slot, Card(slot, device, primary, event.get("DRIVER", ""), nodes))
    return [found[slot] for slot in sorted(found)]


def parse_uevent(text: str) -> dict[str, str]:
    """Returns the assignments in the text of a `uevent`."""
    return {
        name: value for name, equals, value in (line.partition("=") for line in text.splitlines()) if equals
    }


def asleep(card: Card) -> bool:
    """True if the kernel has switched the card off; reading a sensor would switch it on again."""
    # https://docs.kernel.org/power/runtime_pm.html; most drivers wake the card for any of their files.
    return text_of(f"{card.device}/power/runtime_status") == "suspended"


class ComputeDevice(NamedTuple):
    """One GPU, or one partition of a GPU.

    Attributes:
        node: its name in /dev/dri, "renderD128".
        uuid: the UUID as ROCR_VISIBLE_DEVICES takes it, "GPU-e7e23432f77c7e0d"; "" if the device has none.
    """

    node: str
    uuid: str


def parse_properties(text: bytes) -> ComputeDevice | None:
    """Returns the GPU that the properties of a node describe; None if they describe a CPU.

    Raises:
        Malformed: they describe neither.
    """
    minor = number_after(b"drm_render_minor ", text)
    simds = number_after(b"simd_count ", text)
    if simds is None or (simds and not minor):
        raise Malformed("neither a CPU nor a GPU")
    if not simds:
        return None
    return ComputeDevice(f"renderD{minor}", uuid_of(number_after(b"unique_id ", text)))


def uuid_of(unique_id: int | None) -> str:
    """Returns a device's UUID as ROCm writes it; "" for a device without one."""
    return f"GPU-{unique_id:016x}" if unique_id else ""


def compute_devices(host: Host) -> list[ComputeDevice]:
    """Returns the GPUs that ROCm sees, in its order; none if the kernel has no amdkfd.

    Raises:
        Unavailable: a node cannot be parsed. Without it the following devices would have wrong numbers.
    """
    directory = str(host.root / AMD_COMPUTE_NODES)
    devices = []
    for name in sorted(filter(str.isdecimal, listed(directory)), key=int):
        try:
            device = parse_properties(read_short(f"{directory}/{name}/properties"))
        except PermissionError:  # not a device of this container
            continue
        except (OSError, ValueError) as error:
            raise Unavailable(why_unread(error, f"/{AMD_COMPUTE_NODES}/{name}/properties")) from error
        if device is not None:
            devices.append(device)
    return devices
