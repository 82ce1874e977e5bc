"""Which AMD and Intel GPUs are watched, whether they are still the same, and the keys of their samples."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from typing import Generic, NamedTuple, TypeVar

from mlflow_sysmetrics.collectors.drm.cards import Card, cards, compute_devices, uuid_of
from mlflow_sysmetrics.collectors.kernel_files import text_of
from mlflow_sysmetrics.collectors.presence import AMD, INTEL, NO_AMD_GPU, NO_INTEL_GPU
from mlflow_sysmetrics.collectors.rhythm import DEVICES_SECONDS, Pause
from mlflow_sysmetrics.errors import Unavailable
from mlflow_sysmetrics.machine.host import Host
from mlflow_sysmetrics.machine.visible_gpus.amd import select_amd
from mlflow_sysmetrics.machine.visible_gpus.intel import select_intel
from mlflow_sysmetrics.machine.visible_gpus.selection import without_indices
from mlflow_sysmetrics.samples import Metric, Sample

_WHOLE = ("", "SPX")  # a card that cannot be partitioned, or is not


class AmdDevice(NamedTuple):
    """One of ROCm's devices: a card, or a partition of one.

    Attributes:
        uuid: the UUID as ROCR_VISIBLE_DEVICES takes it; "" if the device has none.
        nodes: names of its files in /dev/dri.
        card: the card with its sensors; None for every partition but the first.
        partitioned: True for a partition: the card's load and memory are not its own.
    """

    uuid: str
    nodes: frozenset[str]
    card: Card | None
    partitioned: bool


def amd_devices(host: Host) -> list[AmdDevice]:
    """Returns all devices in ROCm's order; if ROCm has none, the cards in PCI bus order."""
    all_cards = cards(host, AMD)
    by_node = {node: card for card in all_cards for node in card.nodes}
    devices = [
        _device(by_node.get(device.node), device.node, device.uuid) for device in compute_devices(host)
    ]
    if any(device.card for device in devices):
        return devices
    return [_device(card, "", "") for card in all_cards]


def watched_amd_devices(host: Host) -> tuple[dict[int, AmdDevice], tuple[str, ...]]:
    """Returns the devices to watch by ordinal, and what is uncertain about them.

    Raises:
        Unavailable: there is none.
    """
    devices = amd_devices(host)
    if not devices:
        raise Unavailable(NO_AMD_GPU)
    given = host.wanted_amd_gpus
    wanted = without_indices(given) if host.gpu_ordinals.first("amd", 0) else given
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


def watched_intel_cards(host: Host) -> tuple[dict[int, Card], tuple[str, ...]]:
    """Returns the cards to watch by ordinal, and what is uncertain about them.

    Raises:
        Unavailable: there is none.
    """
    all_cards = cards(host, INTEL)
    if not all_cards:
        raise Unavailable(NO_INTEL_GPU)
    wanted = without_indices(host.gpus) if host.gpu_ordinals.first("intel", 0) else host.gpus
    selection = select_intel(host.environ, wanted, [card.slot for card in all_cards])
    if not selection.chosen:
        raise Unavailable("; ".join(("no Intel GPU that this job may see", *selection.gaps)))
    first = host.gpu_ordinals.first("intel", selection.places)
    return {first + one.ordinal: all_cards[one.index] for one in selection.chosen}, selection.gaps


Found = TypeVar("Found")


class RepeatedSearch(Generic[Found]):
    """Repeats the search for GPUs from time to time: one may be added, removed, or partitioned differently.

    Args:
        host: the machine to look at. Its environment is frozen here, since a GPU library that the program has
            started does not read it again either.
        find: returns the GPUs, or raises `Unavailable`.

    Attributes:
        found: the GPUs that were there at first.
    """

    def __init__(self, host: Host, find: Callable[[Host], Found]) -> None:
        host = replace(host, environ=dict(host.environ))
        self._find = partial(find, host)
        self._pause = Pause(DEVICES_SECONDS)
        self._job, self._gpus = host.job, host.job.gpus
        self.found = self._find()

    def check(self, now: float) -> None:
        """Repeats the search if it is due, or if other processes of the job have come.

        Args:
            now: seconds of a clock that never goes back.

        Raises:
            Unavailable: the GPUs have changed; a new collector finds them.
        """
        before, self._gpus = self._gpus, self._job.gpus
        is_due = self._pause.renew_if_over(now) or before != self._gpus
        if is_due and self._find() != self.found:
            raise Unavailable("the GPUs have changed")


class GpuSamples:
    """Makes the samples of a GPU.

    Args:
        ordinal: its number in the keys.
        metrics: the metrics that it may have.
    """

    def __init__(self, ordinal: int, metrics: Iterable[Metric]) -> None:
        self.ordinal = ordinal
        # By name, since hashing a metric covers all its texts, which costs more than a reading.
        self._keys = {metric.name: metric.key(i=ordinal) for metric in metrics}

    def of(self, metric: Metric, value: float, span: float | None = None) -> Sample:
        """Returns a sample of a metric."""
        return Sample(self._keys[metric.name], metric.kind, value, span)
