"""Energy and power from a counter of microjoules that a card keeps."""

from __future__ import annotations

from collections.abc import Iterator

from mlflow_sysmetrics.collectors.catalogue import gpu as catalogue
from mlflow_sysmetrics.collectors.contract import PERCENT
from mlflow_sysmetrics.collectors.drm.gpu_samples import GpuSamples
from mlflow_sysmetrics.collectors.drm.hwmon import reading
from mlflow_sysmetrics.collectors.rapl import joules_between
from mlflow_sysmetrics.collectors.rhythm import Lap
from mlflow_sysmetrics.samples import Sample

_MICROJOULES = 1e6
_SECONDS_PER_HOUR = 3600.0
# The driver adds up a register of 32 bits in steps of 2^-14 J when it is read: left alone for as long as that
# takes to fill at 1 kW, it may have started again unseen (kernel, i915_hwmon.c and xe_hwmon.c).
_REGISTER_UJ = 2**32 * 1_000_000 // 2**14


class EnergyCounter:
    """Follows the counter of one card.

    Args:
        path: the counter; "" where the card has none.
        samples: makes the card's samples.
    """

    def __init__(self, path: str, samples: GpuSamples) -> None:
        self._path = path
        self._samples = samples
        self._lap = Lap()
        self._joules = 0.0
        self._last: int | None = None

    def collect(self, now: float, limit: int | None) -> Iterator[Sample]:
        """Yields the energy so far, and the power since the last reading that was old enough.

        Args:
            now: seconds of a clock that never goes back.
            limit: of the power, in microwatts.
        """
        count = reading(self._path)
        if not count:  # a counter that stands at 0 does not count
            return  # the next reading tells what was missed
        if self._last is None:
            self._last = count
        span = self._lap.seconds(now)
        if span is not None:
            before, self._last = self._last, count
            # The driver's own sum never wraps: one that is smaller has started again with the driver.
            joules = joules_between(before, count, _REGISTER_UJ, span) if count >= before else None
            if joules is None:
                return
            self._joules += joules
            yield self._samples.of(catalogue.GPU_POWER_USAGE, joules / span, span)
            if limit:
                # Over the limit only for moments, since it holds on average.
                share = min(PERCENT * joules * _MICROJOULES / span / limit, PERCENT)
                yield self._samples.of(catalogue.GPU_POWER_USAGE_PERCENTAGE, share, span)
        yield self._samples.of(catalogue.GPU_ENERGY, self._joules / _SECONDS_PER_HOUR)

    def rest(self) -> None:
        """Notes that the card is off: what it takes meanwhile is not its average afterwards."""
        self._lap = Lap()
        self._last = None
