"""The graphics cards that the kernel drives: where each is in /sys, and by which names processes open it.

/sys/class/drm/card<n>/device is the PCI device. Its `uevent` has one line with the driver and one with the
slot, its directory `drm` lists the device's nodes in /dev/dri. A platform device there, such as a partition
of an MI300 (driver amdgpu_xcp), has no vendor and no sensors.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from mlflow_sysmetrics.collectors.kernel_files import listed, text_of
from mlflow_sysmetrics.collectors.presence import GRAPHICS_CARDS
from mlflow_sysmetrics.errors import Unavailable
from mlflow_sysmetrics.machine.host import Host

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
