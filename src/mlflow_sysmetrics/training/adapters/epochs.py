"""The epochs of a training: the mean of their losses, when their numbers are complete, which was the best."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from typing import Any, NamedTuple

from mlflow_sysmetrics.training.values import Pending

_DEFAULTS = ("val_loss", "train_loss")  # what is minimised where nobody says what counts
_MODES = ("min", "max")


class Monitor(NamedTuple):
    """Which number of an epoch says how good it was."""

    name: str
    mode: str


def checked_monitor(name: str | None, mode: str | None) -> Monitor | None:
    """Returns what the user monitors; None where nothing was named.

    Raises:
        ValueError: the mode is unknown, or is needed and not given.
    """
    if mode is not None and mode not in _MODES:
        raise ValueError(f"mode={mode!r} is neither 'min' nor 'max'")
    if name is None:
        if mode is not None:
            raise ValueError(f"mode={mode!r} needs monitor=..., the name of a metric of the epochs")
        return None
    if mode is None and "loss" not in name:
        raise ValueError(f"monitor={name!r} needs mode='min' or mode='max': only of a loss it is clear")
    return Monitor(name, mode or "min")


def epoch_name(name: str) -> str:
    """Returns a framework's name as that of an epoch: ``val_loss`` for ``val/loss`` and ``valid_loss``."""
    for given, ours in (
        ("train", "train"),
        ("validation", "val"),
        ("valid", "val"),
        ("val", "val"),
        ("eval", "val"),
    ):
        if name.startswith((f"{given}_", f"{given}/")):
            return f"{ours}_{name[len(given) + 1 :]}"
    return name


class Mean:
    """A mean of losses that waits for no device."""

    def __init__(self) -> None:
        self._known = 0.0
        self._pending: Any = None  # a sum that lies on an accelerator
        self._weight = 0.0

    def add(self, value: float | Pending, weight: float) -> None:
        """Takes a value, or the mean of as many as the weight says."""
        if isinstance(value, Pending):
            # In single precision: a sum of half-precision losses stops growing after a few hundred.
            term = value.tensor.float() * weight
            self._pending = term if self._pending is None else self._pending + term
        else:
            self._known += value * weight
        self._weight += weight

    def take(self) -> Any:
        """Returns the mean, a float or a tensor, and begins anew; None of nothing."""
        if not self._weight:
            return None
        total = self._known if self._pending is None else self._pending + self._known
        mean = total / self._weight
        self._known, self._pending, self._weight = 0.0, None, 0.0
        return mean


class Epoch:
    """The epoch that is under way, or that has ended and may still be told of its validation."""

    def __init__(self) -> None:
        self.number: int | None = None  #: from 1, once it has ended
        self.losses = Mean()
        self.metrics: dict[str, object] = {}
        self._began = self._last = time.perf_counter()

    def add(self, metrics: Mapping[str, object]) -> None:
        """Takes metrics of the epoch; the later ones count."""
        self.metrics.update(metrics)
        self._last = time.perf_counter()

    def end(self, number: int) -> None:
        """Says that the batches of the epoch are over, and which it was, from 1."""
        self.number = number
        self._last = time.perf_counter()

    def summary(self) -> dict[str, object]:
        """Returns what there is to record of the epoch; the time is up to the end of its validation."""
        duration = self._last - self._began
        return {"train_loss": self.losses.take(), **self.metrics, "duration_seconds": duration}


class Best:
    """The best value of what is monitored, and its epoch.

    Args:
        monitor: what is; by default the loss of the validation, or else that of the training.
    """

    def __init__(self, monitor: Monitor | None) -> None:
        self._monitors = (monitor,) if monitor else tuple(Monitor(name, "min") for name in _DEFAULTS)
        self._found: dict[str, tuple[float, int]] = {}

    def look(self, metrics: Mapping[str, Any], epoch: int) -> None:
        """Takes the metrics of an epoch; those that are monitored are numbers."""
        for name, mode in self._monitors:
            if metrics.get(name) is None:
                continue
            value = float(metrics[name])
            best = self._found.get(name)
            if math.isnan(value):
                continue
            if best is None or (value < best[0] if mode == "min" else value > best[0]):
                self._found[name] = (value, epoch)

    def summary(self) -> dict[str, float]:
        """Returns the best value and its epoch; nothing where nothing was monitored."""
        for name, _ in self._monitors:
            if name in self._found:
                value, epoch = self._found[name]
                return {f"best_{name}": value, "best_epoch": epoch}
        return {}
