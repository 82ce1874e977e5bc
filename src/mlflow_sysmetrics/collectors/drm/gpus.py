"""The watched GPUs of one vendor at one tick: which are awake and wanted, and which readings are missing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol

from mlflow_sysmetrics.collectors.drm.cards import Card, asleep
from mlflow_sysmetrics.collectors.drm.clients import DrmClient, GpuPlace, GpuProcesses
from mlflow_sysmetrics.collectors.drm.watched_gpus import GpuSamples
from mlflow_sysmetrics.errors import Unavailable
from mlflow_sysmetrics.machine.host import Host
from mlflow_sysmetrics.samples import Sample

# A reloaded driver gives its files other names. A single reading may fail for other reasons.
_GONE_SECONDS = 30.0


class DrmGpu(Protocol):
    """One GPU with a card.

    Attributes:
        card: where its files are.
        samples: makes its samples.
        gaps: which readings are missing, and why.
        has_sensors: True if it has readings at every tick while it is switched on.
    """

    card: Card
    samples: GpuSamples
    gaps: tuple[str, ...]
    has_sensors: bool

    def collect(self, now: float, clients: Sequence[DrmClient] | None) -> Iterator[Sample]:
        """Yields the readings of the device.

        Args:
            now: seconds of a clock that never goes back.
            clients: its clients in the job's processes; None at a tick without news.
        """

    def rest(self) -> None:
        """Records that the device is switched off."""


class DrmGpus:
    """Reads the GPUs of one vendor.

    Args:
        host: the machine to look at.
        gpus: the GPUs with a card.
        places: how the clients of all GPUs are recognised, by ordinal.
        samples: makes their samples, by ordinal.

    Attributes:
        gaps: which readings are missing, and why.
    """

    def __init__(
        self,
        host: Host,
        gpus: Sequence[DrmGpu],
        places: Mapping[int, GpuPlace],
        samples: Mapping[int, GpuSamples],
    ) -> None:
        self._gpus = gpus
        self._samples = samples
        self._processes = GpuProcesses(host, places)
        self._spoke_at: dict[int, float] = {}
        self.gaps = self._current_gaps(())

    def collect(self, now: float) -> Iterator[Sample]:
        """Yields the readings of each device.

        Raises:
            Unavailable: a device no longer responds; a new collector may find it again.
        """
        clients = self._processes.read(now)
        if clients is not None:
            yield from self._processes.memory(now, clients, self._samples)
        resting: list[DrmGpu] = []
        for gpu in self._gpus:
            ordinal = gpu.samples.ordinal
            if not self._processes.is_shown(ordinal):
                gpu.rest()  # its series end here, and energy is not interpolated across the gap
                self._spoke_at.pop(ordinal, None)
                continue
            if asleep(gpu.card):
                gpu.rest()
                resting.append(gpu)
                self._spoke_at.pop(ordinal, None)
                continue
            for sample in gpu.collect(now, None if clients is None else clients[ordinal]):
                self._spoke_at[ordinal] = now
                yield sample
            if gpu.has_sensors and now - self._spoke_at.get(ordinal, now) >= _GONE_SECONDS:
                raise Unavailable(f"gpu_{ordinal} no longer responds")
        self.gaps = self._current_gaps(resting)

    def _current_gaps(self, resting: Sequence[DrmGpu]) -> tuple[str, ...]:
        return (
            *self._processes.gaps,
            *(gap for gpu in self._gpus for gap in gpu.gaps),
            *(f"gpu_{gpu.samples.ordinal} is switched off" for gpu in resting),
        )
