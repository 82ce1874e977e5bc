"""AMD's GPUs, and those of them that are watched."""

from __future__ import annotations

from typing import NamedTuple

from mlflow_sysmetrics.collectors.drm.cards import AMD, Card, cards
from mlflow_sysmetrics.collectors.drm.kfd import compute_devices, uuid_of
from mlflow_sysmetrics.collectors.sysfs import text_of
from mlflow_sysmetrics.errors import Unavailable
from mlflow_sysmetrics.machine.host import Host
from mlflow_sysmetrics.machine.visible_gpus import select_amd
from mlflow_sysmetrics.machine.visible_gpus.wanted import without_indices

_WHOLE = ("", "SPX")  # a card that cannot be divided, or is not


class AmdDevice(NamedTuple):
    """One of ROCm's devices: a card, or a partition of one.

    Attributes:
        uuid: as ROCR_VISIBLE_DEVICES takes it; "" where the device has none.
        nodes: names of its files in /dev/dri.
        card: where its sensors are; None for a partition but the first, which has none.
        partitioned: it is a partition, so that the card's load and memory are not its own.
    """

    uuid: str
    nodes: frozenset[str]
    card: Card | None
    partitioned: bool


def amd_devices(host: Host) -> list[AmdDevice]:
    """Returns all devices in ROCm's order; where ROCm has none, the cards in that of the PCI bus."""
    found = cards(host, AMD)
    by_node = {node: card for card in found for node in card.nodes}
    devices = [
        _device(by_node.get(device.node), device.node, device.uuid) for device in compute_devices(host)
    ]
    if any(device.card for device in devices):
        return devices
    return [_device(card, "", "") for card in found]


def watched_amd_devices(host: Host) -> tuple[dict[int, AmdDevice], tuple[str, ...]]:
    """Returns the devices to watch by their ordinals, and what stays unknown about these.

    Raises:
        Unavailable: there is none.
    """
    devices = amd_devices(host)
    if not devices:
        raise Unavailable("no AMD GPU in /sys/class/drm")
    wanted = without_indices(host.gpus) if host.gpu_ordinals.first("amd", 0) else host.gpus
    selection = select_amd(host.environ, wanted, [device.uuid for device in devices])
    if not selection.chosen:
        raise Unavailable("; ".join(("no AMD GPU that this job may see", *selection.gaps)))
    first = host.gpu_ordinals.first("amd", selection.places)
    watched = {first + one.ordinal: devices[one.index] for one in selection.chosen}
    for ordinal, device in watched.items():
        if device.uuid:
            host.gpu_ordinals.assign(device.uuid, ordinal)
    return watched, selection.gaps


def _device(card: Card | None, node: str, uuid: str) -> AmdDevice:
    if card is None:
        return AmdDevice(uuid, frozenset({node}), None, partitioned=True)
    mode = text_of(f"{card.device}/current_compute_partition")
    return AmdDevice(uuid or _uuid(card), card.nodes, card, partitioned=mode not in _WHOLE)


def _uuid(card: Card) -> str:
    try:
        return uuid_of(int(text_of(f"{card.device}/unique_id"), 16))
    except ValueError:  # cards before Vega have none
        return ""
