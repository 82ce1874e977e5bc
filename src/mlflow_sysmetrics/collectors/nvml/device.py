"""One chosen device, and the protocol of a reading."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Protocol

from mlflow_sysmetrics.collectors.bounds import Bound
from mlflow_sysmetrics.collectors.counters import Counters
from mlflow_sysmetrics.collectors.nvml.library import Handle, NvmlError, Verdict
from mlflow_sysmetrics.machine.visible_gpus.selection import Chosen, SliceId
from mlflow_sysmetrics.samples import Metric, Sample


class Device:
    """A GPU, or a MIG slice of one, under its ordinal.

    Attributes:
        ordinal: its number in the keys.
        name: "gpu_0", as in the keys.
        index: index of the GPU in NVML's order.
        slice: the slice of the GPU; None for a whole GPU.
        uuid: identifies the device, so that it can be found again; "" if unknown.
        handle: handle of the device; None while it is lost.
        card: handle of the GPU that the device is, or is a slice of.
    """

    def __init__(self, chosen: Chosen, first: int, uuid: str) -> None:
        self.ordinal = first + chosen.ordinal
        self.name = f"gpu_{self.ordinal}"
        self.index = chosen.index
        self.slice: SliceId | None = chosen.slice
        self.uuid = uuid
        self.handle: Handle = None
        self.card: Handle = None
        # By name: a string caches its hash, that of a metric would be computed at every sample.
        self._keys: dict[str, str] = {}

    def sample(self, metric: Metric, value: float, span: float | None = None) -> Sample:
        """Returns a sample of this device."""
        key = self._keys.get(metric.name)
        if key is None:
            key = self._keys[metric.name] = metric.key(i=self.ordinal)
        return Sample(key, metric.kind, value, span)


class Reading(Protocol):
    """One reading that a device may or may not support.

    Attributes:
        name: its name in `gaps` if it is missing.
        needs: another reading without which this one has no value.
        vouches: True if a reading without error proves that the device is there; False if it may repeat an
            earlier answer.
    """

    name: str
    needs: Reading | None = None
    vouches: bool = True

    def read(self, now: float) -> Iterable[Sample]:
        """Yields the device's answer.

        Raises:
            NvmlError: it has none.
        """

    def restart(self) -> None:
        """Drops state that belongs to a lost handle."""
        return


class Total:
    """Growth of a counter since it was first read.

    Args:
        most: the most that it can grow in a second.
        from_zero: see `Counters`.

    Attributes:
        value: the growth so far.
    """

    def __init__(self, most: float, from_zero: float = 1.0) -> None:
        self.value = 0.0
        self._counter = Counters(most, from_zero=from_zero)

    def follow(self, count: float, now: float) -> bool:
        """Takes the counter's next value. Returns False if it is not believed until another one confirms it.

        A counter that restarted was reset with its driver or device. What it counted before the reset and
        after the last reading is unknown, and is left out.
        """
        step = self._counter.follow((int(count),), now)
        if step is None:
            return False
        self.value += step.grown[0]
        return True


def possible(value: float | None, bound: Bound) -> float | None:
    """Returns a valid value of NVML's; None for "not available".

    Raises:
        NvmlError: no device can have that value; NVML has reported success and 3.7 MW.
    """
    found = known(value)
    if found is not None and not bound.holds(found):
        raise NvmlError(bound.why(), Verdict.UNUSABLE)
    return found


# N/A in NVML's structures: all bits set, in 32 or 64 bits (NVML_VALUE_NOT_AVAILABLE of nvml.h).
_NOT_AVAILABLE = frozenset({2**32 - 1, 2**64 - 1})


def known(value: float | None) -> float | None:
    """Returns a valid value of NVML's; None for its "not available" and for impossible values."""
    if value is None or value in _NOT_AVAILABLE or value < 0 or not math.isfinite(value):
        return None
    return value
