"""Which GPU clients of the job's processes belong to which watched AMD or Intel GPU."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from mlflow_sysmetrics.collectors import bounds
from mlflow_sysmetrics.collectors.catalogue import gpu as catalogue
from mlflow_sysmetrics.collectors.contract import MEGABYTE
from mlflow_sysmetrics.collectors.drm.clients import DrmClient, DrmClients, Use
from mlflow_sysmetrics.collectors.drm.gpu_samples import GpuSamples
from mlflow_sysmetrics.errors import Unavailable
from mlflow_sysmetrics.machine.host import Host
from mlflow_sysmetrics.samples import Sample

_PROCESS = "process"  # MLFLOW_SYSMETRICS_GPUS: only GPUs on which the job holds memory


class GpuPlace(NamedTuple):
    """How the clients of a GPU are recognised.

    Attributes:
        slot: its PCI slot; "" for a partition, which shares the slot and is recognised by its node.
        nodes: names of its files in /dev/dri.
        regions: its own memory regions, as the driver names them, without the number of a tile.
    """

    slot: str
    nodes: frozenset[str]
    regions: tuple[str, ...]


class GpuProcesses:
    """Assigns clients to GPUs, and adds up their memory.

    Args:
        host: the machine to look at.
        places: the watched GPUs, by ordinal.

    Attributes:
        gaps: why nothing is known.
    """

    def __init__(self, host: Host, places: Mapping[int, GpuPlace]) -> None:
        self._places = places
        self._only_used = host.gpus.strip().lower() == _PROCESS
        self._used: frozenset[int] = frozenset()
        self._read_at: float | None = None
        self.gaps: Sequence[str] = ()
        self._clients: DrmClients | None = None
        try:
            self._clients = DrmClients(host)
        except Unavailable as reason:
            self.gaps = (f"no process memory: {reason}",)
        # A container may show a card under another card's name, but the driver reports its real slot.
        self._by_slot = {place.slot: ordinal for ordinal, place in places.items() if place.slot}
        self._by_node = {node: ordinal for ordinal, place in places.items() for node in place.nodes}

    def read(self, now: float) -> Mapping[int, list[DrmClient]] | None:
        """Returns the clients of each watched GPU; None at a tick without news."""
        uses = None if self._clients is None else self._clients.read(now)
        if uses is None:
            return None
        clients: dict[int, list[DrmClient]] = {ordinal: [] for ordinal in self._places}
        for use in uses.values():
            ordinal = self._ordinal(use)
            if ordinal is not None:
                clients[ordinal].append(use.client)
        self._used = frozenset(ordinal for ordinal in clients if self._bytes(ordinal, clients[ordinal]))
        return clients

    def is_used(self, ordinal: int) -> bool:
        """True if the job holds memory of a GPU."""
        return ordinal in self._used

    def is_shown(self, ordinal: int) -> bool:
        """True if the user wants to see a GPU: with "process", only if the job uses it."""
        return not self._only_used or self.is_used(ordinal)

    def memory(
        self, now: float, clients: Mapping[int, list[DrmClient]], samples: Mapping[int, GpuSamples]
    ) -> Iterator[Sample]:
        """Yields the memory of each GPU that the job's processes hold, for the GPUs that they use."""
        span = None if self._read_at is None or now <= self._read_at else now - self._read_at
        self._read_at = now
        for ordinal in self._used:
            if self._places[ordinal].regions:
                held = self._bytes(ordinal, clients[ordinal])
                if bounds.GPU_BYTES.holds(held):
                    yield samples[ordinal].of(catalogue.GPU_PROCESS_MEMORY, held / MEGABYTE, span)

    def _ordinal(self, use: Use) -> int | None:
        by_slot = self._by_slot.get(use.client.slot)
        return self._by_node.get(use.node) if by_slot is None else by_slot

    def _bytes(self, ordinal: int, clients: Sequence[DrmClient]) -> int:
        """Returns the GPU memory that clients hold, or host memory for a GPU without its own."""
        regions = self._places[ordinal].regions
        return sum(
            size
            for client in clients
            for region, size in client.memory.items()
            if not regions or region.rstrip("0123456789") in regions
        )
