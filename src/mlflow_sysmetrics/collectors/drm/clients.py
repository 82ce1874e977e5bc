"""GPU memory and engine time of this process and its descendants, and the watched GPU that each is on.

Source:  /proc/<pid>/fdinfo/<fd>, https://docs.kernel.org/gpu/drm-usage-stats.html. Only descriptors whose
         link in /proc/<pid>/fd leads to /dev/dri are read, since the driver walks the client's buffers for
         each of them. A few processes are read at each tick.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from mlflow_sysmetrics.collectors import bounds
from mlflow_sysmetrics.collectors.catalogue import gpu as catalogue
from mlflow_sysmetrics.collectors.contract import MEGABYTE
from mlflow_sysmetrics.collectors.drm.watched_gpus import GpuSamples
from mlflow_sysmetrics.collectors.kernel_files import WORD
from mlflow_sysmetrics.collectors.processes.tree import ProcessTree
from mlflow_sysmetrics.collectors.rhythm import Pause, Ration
from mlflow_sysmetrics.errors import Unavailable
from mlflow_sysmetrics.machine.host import Host
from mlflow_sysmetrics.machine.kept_files import read_bytes
from mlflow_sysmetrics.machine.reasons import why_unread
from mlflow_sysmetrics.samples import Sample

_UNITS = {b"": 1, b"KiB": 1024, b"MiB": 1024**2, b"ns": 1}
# A client's memory in a region; later names override earlier ones: all that may lie there, what does lie
# there by its old name (amdgpu), and by its name since Linux 6.5.
_MEMORY = (b"drm-total-", b"drm-memory-", b"drm-resident-")
_PROCESS = "process"  # MLFLOW_SYSMETRICS_GPUS: only GPUs on which the job holds memory


class DrmClient(NamedTuple):
    """One opening of a GPU: file descriptors that were duplicated or inherited share it.

    Attributes:
        slot: PCI slot of the GPU; "" if the driver does not provide it.
        identity: its id among the GPU's clients.
        memory: bytes that it holds, by region.
        busy: nanoseconds that engines have worked for it, by engine class.
        cycles: cycles that engines have worked for it.
        total_cycles: cycles that have passed in that time.
        capacity: engines in a class; 1 if missing.
    """

    slot: str
    identity: int
    memory: Mapping[str, int]
    busy: Mapping[str, int]
    cycles: Mapping[str, int]
    total_cycles: Mapping[str, int]
    capacity: Mapping[str, int]


def parse_fdinfo(text: bytes) -> DrmClient | None:
    """Returns the GPU client behind a file descriptor; None if it is not one."""
    words: dict[bytes, str] = {}
    numbers: dict[bytes, int] = {}
    # A line without its end was cut off.
    for line in text[: text.rfind(b"\n") + 1].splitlines():
        name, _, value = line.partition(b":")
        if name.startswith(b"drm-"):
            first, _, unit = value.strip().partition(b" ")
            words[name] = first.decode("ascii", "replace")
            if first.isdigit() and len(first) <= len(str(WORD)) and unit.strip() in _UNITS:
                numbers[name] = int(first) * _UNITS[unit.strip()]
    identity = numbers.get(b"drm-client-id")
    if b"drm-driver" not in words or identity is None:
        return None
    total_cycles = _by_suffix(b"drm-total-cycles-", numbers)
    memory: dict[str, int] = {}
    for prefix in _MEMORY:
        memory |= _by_suffix(prefix, numbers)
    for engine in total_cycles:
        del memory[f"cycles-{engine}"]  # its name starts with "drm-total-", like a region's size
    capacity = _by_suffix(b"drm-engine-capacity-", numbers)
    busy = _by_suffix(b"drm-engine-", numbers)
    return DrmClient(
        slot=words.get(b"drm-pdev", ""),
        identity=identity,
        memory=memory,
        busy={engine: spent for engine, spent in busy.items() if not engine.startswith("capacity-")},
        cycles=_by_suffix(b"drm-cycles-", numbers),
        total_cycles=total_cycles,
        capacity={engine: number for engine, number in capacity.items() if number},
    )


def _by_suffix(prefix: bytes, numbers: Mapping[bytes, int]) -> dict[str, int]:
    return {
        name.removeprefix(prefix).decode("ascii", "replace"): number
        for name, number in numbers.items()
        if name.startswith(prefix)
    }


_DRI = "/dev/dri/"
_ROUND_SECONDS = 5.0  # half of the default window of a point
_SECONDS_PER_TICK = 200e-6  # one process with 150 files takes this long
_REST = 1000.0  # at most 0.1 % of a core, however slow the driver is


class ClientKey(NamedTuple):
    """Identifies a client: ids are unique per device only, and a driver may not name the device."""

    device: str
    identity: int


class Use(NamedTuple):
    """A client, and the node in /dev/dri that the process has opened."""

    node: str
    client: DrmClient


class DrmClients:
    """Reads the clients of this process and its descendants.

    Args:
        host: the machine to look at.

    Raises:
        Unavailable: this process cannot be read.
    """

    def __init__(self, host: Host) -> None:
        try:
            self._tree = ProcessTree(host)
        except (OSError, ValueError) as error:
            raise Unavailable(f"this process cannot be read: {why_unread(error)}") from error
        self._pause = Pause(_ROUND_SECONDS, read=False)
        self._ration = Ration(_REST)
        self._left: list[str] = []
        self._found: dict[ClientKey, Use] = {}

    def read(self, now: float) -> Mapping[ClientKey, Use] | None:
        """Reads some more processes, if it is time to.

        Args:
            now: seconds of a clock that never goes back.

        Returns:
            All clients at the tick at which a round ends; None at other ticks.
        """
        if not self._ration.over(now) or (not self._left and not self._pause.renew_if_over(now)):
            return None
        self._ration.begin(now)
        began = time.thread_time()
        if not self._left:
            self._begin(now)
        spent = 0.0
        while self._left and spent < _SECONDS_PER_TICK:
            for use in _uses(self._left.pop()):
                client = use.client
                self._found.setdefault(ClientKey(client.slot or use.node, client.identity), use)
            spent = time.thread_time() - began
        self._ration.charge(time.thread_time() - began)
        return None if self._left else self._found

    def _begin(self, now: float) -> None:
        self._found = {}
        with contextlib.suppress(OSError, ValueError):  # the known processes are still read
            self._tree.look(now)
        self._left = [member.directory for member in reversed(self._tree.members())]


def _uses(directory: str) -> Iterator[Use]:
    """Yields the clients of one process; none if it has ended or belongs to another user."""
    try:
        descriptors = os.listdir(f"{directory}/fd")
    except OSError:
        return
    for descriptor in descriptors:
        try:
            target = os.readlink(f"{directory}/fd/{descriptor}")
            client = (
                parse_fdinfo(read_bytes(f"{directory}/fdinfo/{descriptor}"))
                if target.startswith(_DRI)
                else None
            )
        except OSError:  # closed meanwhile
            continue
        if client is not None:
            yield Use(target.removeprefix(_DRI), client)


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
