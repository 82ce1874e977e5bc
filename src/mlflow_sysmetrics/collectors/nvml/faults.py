"""Errors that a GPU counts itself: memory errors and replaced rows.

Source:  nvmlDeviceGetTotalEccErrors, volatile counters, corrected and uncorrected;
         nvmlDeviceGetRemappedRows; or the fields of the same counters. Both every ten seconds: they rarely
         change, and take a driver long.
Absent:  devices without ECC; the counters of a GPU in MIG mode.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence

from mlflow_sysmetrics.collectors import bounds
from mlflow_sysmetrics.collectors.catalogue import gpu as catalogue
from mlflow_sysmetrics.collectors.nvml.device import Device, Reading, Total, known
from mlflow_sysmetrics.collectors.nvml.fields import (
    ECC_CORRECTED,
    ECC_UNCORRECTED,
    REMAPPED_CORRECTABLE,
    REMAPPED_UNCORRECTABLE,
    Field,
    Fields,
)
from mlflow_sysmetrics.collectors.nvml.library import FirstOf, Nvml
from mlflow_sysmetrics.collectors.rhythm import Pause
from mlflow_sysmetrics.samples import Metric, Sample

_SECONDS = 10.0
_CORRECTED, _UNCORRECTED = 0, 1  # NVML_MEMORY_ERROR_TYPE_*
_VOLATILE = 0  # NVML_VOLATILE_ECC: since the driver was loaded


class _Counted(Reading):
    """A count of events that is read rarely and repeated in between."""

    metric: Metric
    most: float  # events per second
    fields: Sequence[int]  # where else the counts are
    vouches = False

    def __init__(self, nvml: Nvml, device: Device, fields: Fields) -> None:
        self._device = device
        count, others = self.count, [Field(number) for number in self.fields]
        self._ask: FirstOf[Sequence[float]] = FirstOf(
            lambda _: count(nvml, device),
            lambda now: fields.values(others, now),
        )
        self._pause = Pause(_SECONDS, read=False)
        self._total = Total(self.most, bounds.FROM_ZERO)
        self._known = False

    def read(self, now: float) -> Iterator[Sample]:
        """Yields the number of events since the collector was built."""
        if self._pause.renew_if_over(now) or not self._known:
            self._known = False  # until it is answered
            counts = [known(count) for count in self._ask(now)]
            found = [count for count in counts if count is not None]
            if len(found) < len(counts):
                return
            if not self._total.follow(sum(found), now):
                return
            self._known = True
        yield self._device.sample(self.metric, self._total.value)

    def restart(self) -> None:
        """Reads again: the known count may predate a reset."""
        self._known = False

    @staticmethod
    @abstractmethod
    def count(nvml: Nvml, device: Device) -> tuple[int, ...]:
        """Returns the counts that add up to the events."""


class EccErrors(_Counted):
    """Memory errors."""

    name = "ECC errors"
    metric = catalogue.GPU_ECC_ERRORS
    most = bounds.ECC_ERRORS
    fields = (ECC_CORRECTED, ECC_UNCORRECTED)

    @staticmethod
    def count(nvml: Nvml, device: Device) -> tuple[int, ...]:
        """Returns the corrected and the uncorrected ones."""
        return tuple(
            nvml.ask("nvmlDeviceGetTotalEccErrors", device.card, kind, _VOLATILE)
            for kind in (_CORRECTED, _UNCORRECTED)
        )


class RemappedRows(_Counted):
    """Replaced rows of memory."""

    name = "remapped rows"
    metric = catalogue.GPU_REMAPPED_ROWS
    most = bounds.REMAPPED_ROWS
    fields = (REMAPPED_CORRECTABLE, REMAPPED_UNCORRECTABLE)

    @staticmethod
    def count(nvml: Nvml, device: Device) -> tuple[int, ...]:
        """Returns those replaced because of corrected and because of uncorrected errors."""
        corrected, uncorrected, *_ = nvml.ask("nvmlDeviceGetRemappedRows", device.card)
        return corrected, uncorrected
