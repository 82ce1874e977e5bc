"""How long power, heat or a brake held a GPU down.

Source:  fields NVML_FI_DEV_PERF_POLICY_POWER, _THERMAL and, where there is one, _BOARD_LIMIT: nanoseconds
         in which each of them lowered the clocks, counted by the driver. They may overlap, so the largest
         counts and not their sum. Where a device has no such counters, the share of ticks at which
         nvmlDeviceGetCurrentClocksEventReasons (nvmlDeviceGetCurrentClocksThrottleReasons before driver 535)
         names such a reason. Which of the two is decided once.
"""

from __future__ import annotations

from collections.abc import Iterator

from mlflow_sysmetrics.collectors.catalogue import gpu as catalogue
from mlflow_sysmetrics.collectors.contract import PERCENT
from mlflow_sysmetrics.collectors.nvml.alternatives import FirstOf
from mlflow_sysmetrics.collectors.nvml.device import Device, Reading, known
from mlflow_sysmetrics.collectors.nvml.fields import (
    PERF_POLICY_BOARD_LIMIT,
    PERF_POLICY_POWER,
    PERF_POLICY_THERMAL,
    Field,
    Fields,
)
from mlflow_sysmetrics.collectors.nvml.library import Nvml
from mlflow_sysmetrics.collectors.rhythm import Lap
from mlflow_sysmetrics.samples import Sample

_NANOSECONDS = 1e9
_COUNTERS = (Field(PERF_POLICY_POWER), Field(PERF_POLICY_THERMAL))
_MORE_COUNTERS = (*_COUNTERS, Field(PERF_POLICY_BOARD_LIMIT))
# nvmlClocksEventReason* of nvml.h: software power cap, hardware slowdown, thermal slowdown by software and by
# hardware, power brake. Not idle (1), chosen clocks (2), sync boost (0x10), display (0x100).
_HELD_DOWN = 0x04 | 0x08 | 0x20 | 0x40 | 0x80


class Throttling(Reading):
    """Share of time in which a GPU was slower than it could be."""

    name = "throttling"

    def __init__(self, nvml: Nvml, device: Device, fields: Fields) -> None:
        self._device = device
        self._lap = Lap()
        self._before: list[float] = []
        self._counts: FirstOf[list[float] | int] = FirstOf(
            lambda now: fields.values(_MORE_COUNTERS, now),
            lambda now: fields.values(_COUNTERS, now),
            lambda now: nvml.ask("nvmlDeviceGetCurrentClocksEventReasons", device.card),  # noqa: ARG005
            lambda now: nvml.ask("nvmlDeviceGetCurrentClocksThrottleReasons", device.card),  # noqa: ARG005
        )

    def read(self, now: float) -> Iterator[Sample]:
        """Yields the share since the tick before."""
        answer = self._counts(now)
        span = self._lap.seconds(now)
        share = self._grown(answer, span) if isinstance(answer, list) else _named(answer)
        if share is not None and span is not None:
            yield self._device.sample(catalogue.GPU_THROTTLED, share, span)

    def restart(self) -> None:
        """Forgets the counters of another life."""
        self._before = []

    def _grown(self, counts: list[float], span: float | None) -> float | None:
        if any(known(count) is None for count in counts):
            self._before = []
            return None
        if span is None and self._before:
            return None  # too soon after the reading before: the next one covers both
        before, self._before = self._before, counts
        if span is None or not before:
            return None
        grown = [after - old for old, after in zip(before, counts, strict=True)]
        return min(PERCENT * max(grown) / _NANOSECONDS / span, PERCENT) if min(grown) >= 0 else None


def _named(reasons: int) -> float | None:
    if known(reasons) is None:
        return None
    return PERCENT if reasons & _HELD_DOWN else 0.0
