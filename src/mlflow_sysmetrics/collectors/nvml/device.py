"""One chosen device, and what a reading of it is."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Protocol

from mlflow_sysmetrics.collectors.nvml.library import Handle
from mlflow_sysmetrics.machine.visible_gpus.selection import Chosen, SliceId
from mlflow_sysmetrics.samples import Metric, Sample


class Device:
    """A GPU, or a MIG slice of one, under its ordinal.

    Attributes:
        ordinal: its number in the keys.
        name: "gpu_0", as in the keys.
        index: of the GPU in NVML's order.
        slice: which slice of the GPU it is; None for a whole GPU.
        uuid: of the device, by which it is found again; "" where it never told.
        handle: of the device; None while it is lost.
        card: of the GPU that the device is or is a slice of.
    """

    def __init__(self, chosen: Chosen, first: int, uuid: str) -> None:
        self.ordinal = first + chosen.ordinal
        self.name = f"gpu_{self.ordinal}"
        self.index = chosen.index
        self.slice: SliceId | None = chosen.slice
        self.uuid = uuid
        self.handle: Handle = None
        self.card: Handle = None
        # By name: the hash of a string is kept, that of a metric would be computed at every sample.
        self._keys: dict[str, str] = {}

    def sample(self, metric: Metric, value: float, span: float | None = None) -> Sample:
        """Returns a sample of this device."""
        key = self._keys.get(metric.name)
        if key is None:
            key = self._keys[metric.name] = metric.key(i=self.ordinal)
        return Sample(key, metric.kind, value, span)


class Reading(Protocol):
    """One thing that a device may or may not support.

    Attributes:
        name: what is missing where it is not supported, in `gaps`.
        needs: another reading without which this one has no value.
        vouches: no error shows that the device is there; not so where an earlier answer may stand.
    """

    name: str
    needs: Reading | None = None
    vouches: bool = True

    def read(self, now: float) -> Iterable[Sample]:
        """Yields what the device answers.

        Raises:
            NvmlError: it does not.
        """

    def restart(self) -> None:
        """Forgets what belongs to a handle that was lost."""
        return


class Total:
    """What a counter has grown by since it was first read."""

    def __init__(self) -> None:
        self._last = math.inf
        self.value = 0.0

    def follow(self, count: float) -> float:
        """Takes the counter's next value and returns the total.

        A counter that went back was started again, by a driver that was reloaded or a device that was reset.
        What it had counted in between is not known, and is left out.
        """
        self.value += max(count - self._last, 0)
        self._last = count
        return self.value


# N/A in NVML's structures: all bits set, in 32 or 64 bits (NVML_VALUE_NOT_AVAILABLE of nvml.h).
_NOT_AVAILABLE = frozenset({2**32 - 1, 2**64 - 1})


def known(value: float | None) -> float | None:
    """Returns a value that NVML vouches for; None for its "not available" and for what cannot be."""
    if value is None or value in _NOT_AVAILABLE or value < 0 or not math.isfinite(value):
        return None
    return value
