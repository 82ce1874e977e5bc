"""Epochs of a training with a framework: their names, their mean loss and their metrics."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from mlflow_sysmetrics.training.values import Pending

_PREFIXES = (("train", "train"), ("validation", "val"), ("valid", "val"), ("val", "val"), ("eval", "val"))


def epoch_name(name: str) -> str:
    """Returns the epoch metric for a framework's name: ``val_loss`` for ``val/loss`` and ``valid_loss``."""
    for given, ours in _PREFIXES:
        if name.startswith((f"{given}_", f"{given}/")):
            return f"{ours}_{name[len(given) + 1 :]}"
    return name


class Mean:
    """A weighted mean of losses that does not wait for a device."""

    def __init__(self) -> None:
        self._known = 0.0
        self._pending: Any = None  # a sum on the accelerator
        self._weight = 0.0

    def add(self, value: float | Pending, weight: float) -> None:
        """Adds a value, or the mean of `weight` values."""
        if isinstance(value, Pending):
            # In single precision: a sum of half-precision losses stops growing after a few hundred.
            term = value.tensor.float() * weight
            self._pending = term if self._pending is None else self._pending + term
        else:
            self._known += value * weight
        self._weight += weight

    def take(self) -> Any:
        """Returns the mean, as float or tensor, and starts afresh; None if nothing was added."""
        if not self._weight:
            return None
        total = self._known if self._pending is None else self._pending + self._known
        mean = total / self._weight
        self._known, self._pending, self._weight = 0.0, None, 0.0
        return mean


class Epoch:
    """The current epoch, or one that has ended and still awaits its validation."""

    def __init__(self) -> None:
        self.number: int | None = None  #: from 1, once it has ended
        self.losses = Mean()
        self.metrics: dict[str, object] = {}
        self._began = self._last = time.perf_counter()

    def add(self, metrics: Mapping[str, object]) -> None:
        """Adds metrics of the epoch; a later value replaces an earlier one."""
        self.metrics.update(metrics)
        self._last = time.perf_counter()

    def end(self, number: int) -> None:
        """Marks the end of the epoch's batches; `number` counts from 1."""
        self.number = number
        self._last = time.perf_counter()

    def summary(self) -> dict[str, object]:
        """Returns the epoch's metrics; its duration lasts until the end of its validation."""
        duration = self._last - self._began
        return {"train_loss": self.losses.take(), **self.metrics, "duration_seconds": duration}
