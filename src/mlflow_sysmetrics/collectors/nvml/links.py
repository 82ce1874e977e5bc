"""Bytes over PCI Express and NVLink on devices without GPM.

Source:  fields NVML_FI_DEV_PCIE_COUNT_TX_BYTES and _RX_BYTES, in bytes; for all links together
         NVML_FI_DEV_NVLINK_THROUGHPUT_DATA_TX and _RX, in KiB. Never nvmlDeviceGetPcieThroughput, which
         blocks for 20 ms.
Absent:  a counter that may have 32 bits: it would wrap within a second, unseen. It is used once it has been
         seen beyond that range. At ticks at which a counter went back.
"""

from __future__ import annotations

from collections.abc import Iterator

from mlflow_sysmetrics.collectors import bounds
from mlflow_sysmetrics.collectors.catalogue import gpu as catalogue
from mlflow_sysmetrics.collectors.contract import MEGABYTE
from mlflow_sysmetrics.collectors.counters import Counters
from mlflow_sysmetrics.collectors.nvml import fields as field
from mlflow_sysmetrics.collectors.nvml.device import Device, Reading, known
from mlflow_sysmetrics.collectors.nvml.fields import Field, Fields
from mlflow_sysmetrics.collectors.nvml.gpm import Profile
from mlflow_sysmetrics.collectors.rhythm import Lap
from mlflow_sysmetrics.samples import Metric, Sample

_32_BITS, _64_BITS = 2**32, 2**64


class _Link(Reading):
    """The two directions of one kind of link."""

    fields: tuple[Field, ...]
    metrics: tuple[Metric, ...]
    unit_bytes: int
    most_bytes: float  # per second
    believed_beyond: int
    vouches = False

    def __init__(self, device: Device, fields: Fields, profile: Profile) -> None:
        self._device = device
        self._fields = fields
        self._profile = profile
        self._lap = Lap()
        self._primed = False
        self._counters = self._new_counters()

    def read(self, now: float) -> Iterator[Sample]:
        """Yields the rates since the previous tick."""
        counted = self._profile.counted
        self.vouches = self._profile.supported is False or not counted.isdisjoint(self.metrics)
        if not self.vouches:
            return  # GPM has them, or may have them
        counts = [known(count) for count in self._fields.values(self.fields, now)]
        span = self._lap.seconds(now)
        if span is None and self._primed:
            return  # too soon after the previous reading: the next one covers both
        self._primed = True
        for metric, counter, count in zip(self.metrics, self._counters, counts, strict=True):
            step = None if count is None else counter.follow((int(count),), now)
            if step and step.span and count is not None and count - step.grown[0] >= self.believed_beyond:
                counted.add(metric)
                rate = step.grown[0] * self.unit_bytes / MEGABYTE / step.span
                yield self._device.sample(metric, rate, span)

    def restart(self) -> None:
        """Drops counters that may predate a reset."""
        self._counters = self._new_counters()
        self._primed = False

    def _new_counters(self) -> list[Counters]:
        most = self.most_bytes / self.unit_bytes
        return [Counters(most, wraps_at=_64_BITS) for _ in self.fields]


class Pcie(_Link):
    """PCI Express."""

    name = "PCIe"
    fields = (Field(field.PCIE_RX_BYTES), Field(field.PCIE_TX_BYTES))
    metrics = (catalogue.GPU_PCIE_RECEIVE, catalogue.GPU_PCIE_TRANSMIT)
    unit_bytes = 1
    most_bytes = bounds.PCIE_BYTES
    believed_beyond = _32_BITS  # nvml.h: "Value can be wrapped", without saying where


class Nvlink(_Link):
    """All NVLinks of the device."""

    name = "NVLink"
    fields = (
        Field(field.NVLINK_DATA_RX, field.ALL_LINKS),
        Field(field.NVLINK_DATA_TX, field.ALL_LINKS),
    )
    metrics = (catalogue.GPU_NVLINK_RECEIVE, catalogue.GPU_NVLINK_TRANSMIT)
    unit_bytes = 1024
    most_bytes = bounds.NVLINK_BYTES
    believed_beyond = 0
