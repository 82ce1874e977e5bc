"""How long a power limit, heat or a power brake slowed a GPU down.

Source:  fields NVML_FI_DEV_PERF_POLICY_POWER, _THERMAL and, if there is one, _BOARD_LIMIT: nanoseconds in
         which each of them lowered the clocks, counted by the driver. They may overlap, so the largest
         counts, not their sum. No counter covers a brake or, on some devices, heat. Therefore
         nvmlDeviceGetCurrentClocksEventReasons (nvmlDeviceGetCurrentClocksThrottleReasons before driver 535)
         is read too, which returns the current reasons: a tick at which it names a reason without a counter,
         or whose counter did not change, counts in full. For a device without counters only these count.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from mlflow_sysmetrics.collectors.catalogue import gpu as catalogue
from mlflow_sysmetrics.collectors.contract import PERCENT
from mlflow_sysmetrics.collectors.counters import Counters, Step
from mlflow_sysmetrics.collectors.nvml.device import Device, Reading, known
from mlflow_sysmetrics.collectors.nvml.fields import (
    PERF_POLICY_BOARD_LIMIT,
    PERF_POLICY_POWER,
    PERF_POLICY_THERMAL,
    Field,
    Fields,
)
from mlflow_sysmetrics.collectors.nvml.library import FirstOf, Nvml, NvmlError, Verdict
from mlflow_sysmetrics.collectors.rhythm import CLOCKS_DIFFER, Lap
from mlflow_sysmetrics.samples import Sample

_NANOSECONDS = 1e9
_COUNTERS = (Field(PERF_POLICY_POWER), Field(PERF_POLICY_THERMAL))
_MORE_COUNTERS = (*_COUNTERS, Field(PERF_POLICY_BOARD_LIMIT))
# nvmlClocksEventReason* of nvml.h: software power cap, hardware slowdown, thermal slowdown by software and by
# hardware, power brake. Not idle (1), chosen clocks (2), sync boost (0x10), display (0x100).
_HELD_DOWN = 0x04 | 0x08 | 0x20 | 0x40 | 0x80
# The reasons that a growing counter covers, more exactly than one look per tick, in the order of
# `_MORE_COUNTERS`. A hardware slowdown comes with its cause: heat, or the brake, which has its own bit.
_COUNTED = (0x04, 0x08 | 0x20 | 0x40, 0)


class Throttling(Reading):
    """Share of time in which a GPU was slower than it could be."""

    name = "throttling"

    def __init__(self, nvml: Nvml, device: Device, fields: Fields) -> None:
        self._device = device
        self._lap = Lap()
        self._counters: Counters | None = None
        self._named = self._silent = False
        self._counts: FirstOf[list[float]] = FirstOf(
            lambda now: fields.values(_MORE_COUNTERS, now),
            lambda now: fields.values(_COUNTERS, now),
        )
        self._uncounted = False
        self._mask: FirstOf[int] = FirstOf(
            lambda: nvml.ask("nvmlDeviceGetCurrentClocksEventReasons", device.card),
            lambda: nvml.ask("nvmlDeviceGetCurrentClocksThrottleReasons", device.card),
        )

    def read(self, now: float) -> Iterator[Sample]:
        """Yields the share since the previous tick."""
        counts, trouble = self._counted(now)
        try:
            reasons = self._reasons(counted=counts is not None)
        except NvmlError as error:
            if trouble and error.verdict is not Verdict.LOST:
                raise NvmlError(trouble, Verdict.TROUBLE) from error  # to be asked again soon
            raise
        span = self._lap.seconds(now)
        step = Step((), span or 0.0) if counts is None else self._grown(counts, now, too_soon=span is None)
        if span is None or step is None or (counts is None and reasons is None):
            return
        yield self._device.sample(catalogue.GPU_THROTTLED, _share(step.grown, reasons or 0, step.span), span)

    def restart(self) -> None:
        """Drops counters that may predate a reset."""
        self._counters = None

    def _counted(self, now: float) -> tuple[list[float] | None, str]:
        """Returns the counters, or None and why they are unknown; "" if the device has none."""
        if self._uncounted:
            return None, ""
        try:
            return self._counts(now), ""
        except NvmlError as error:
            if error.verdict is Verdict.LOST:
                raise
            self._uncounted = error.verdict in (Verdict.UNSUPPORTED, Verdict.FORBIDDEN)
            return None, "" if self._uncounted else str(error)

    def _reasons(self, *, counted: bool) -> int | None:
        """Returns the current reasons; None if they are unknown, but there are counters.

        Raises:
            NvmlError: they are needed, but not available.
        """
        if counted and self._silent:
            return None
        try:
            reasons = self._mask()
        except NvmlError as error:
            permanent = error.verdict in (Verdict.UNSUPPORTED, Verdict.FORBIDDEN)
            if not counted or self._named or not permanent:
                raise
            self._silent = True
            return None
        self._named = True
        return reasons if known(reasons) is not None else None

    def _grown(self, counts: list[float], now: float, *, too_soon: bool) -> Step | None:
        """Returns the nanoseconds by which each counter has grown; None if unknown."""
        if any(known(count) is None for count in counts):
            self._counters = None
            return None
        if self._counters is None:
            self._counters = Counters(*[CLOCKS_DIFFER * _NANOSECONDS] * len(counts))
        elif too_soon:
            return None  # too soon after the previous reading: the next one covers both
        step = self._counters.follow(tuple(map(int, counts)), now)
        return step if step and step.span else None


def _share(grown: Sequence[float], reasons: int, span: float) -> float:
    for nanoseconds, bits in zip(grown, _COUNTED, strict=False):
        if nanoseconds:
            reasons &= ~bits
    if reasons & _HELD_DOWN:
        return PERCENT
    return min(PERCENT * max(grown, default=0.0) / _NANOSECONDS / span, PERCENT)
