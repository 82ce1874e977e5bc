"""Which epoch is the best, and whether it is time to stop."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

# FOLDED metric_names: Names of the metrics of an epoch, and which way they improve.

CLASSIFICATION = ("accuracy", "f1_macro", "f1_micro", "precision_macro", "recall_macro")
MIN, MAX = "min", "max"

_WORDS_OF_MIN = frozenset({"loss", "error", "mae", "mse", "rmse", "perplexity"})
_WORDS_OF_MAX = frozenset(
    {"accuracy", "f1", "precision", "recall", "auc", "auroc", "r2", "iou", "dice", "score", "map"}
)


def mode_of(name: str) -> str | None:
    """Returns whether less (`MIN`) or more (`MAX`) of a metric is better; None where the name is silent."""
    words = set(name.lower().split("_"))
    if words & _WORDS_OF_MIN:
        return MIN
    return MAX if words & _WORDS_OF_MAX else None


# The first of these that a training has is looked at, unless another is asked for.
_BY_DEFAULT = ("val_f1_macro", "val_loss", "train_loss")


class Monitor:
    """Follows one metric over the epochs.

    Args:
        name: of the metric; None is the first of val_f1_macro, val_loss, train_loss that there is.
        mode: `min` or `max`; None is what the name tells.
        patience: epochs without improvement after which it is time to stop; None never stops.
        min_delta: what is no more than this is no improvement. The best epoch is the best all the same.

    Attributes:
        name: of the metric; empty as long as that is open.
        best: its best value; None while there is none.
        best_epoch: when that was; 0 while there is none.
        exhausted: whether it is time to stop.
    """

    def __init__(self, name: str | None, mode: str | None, patience: int | None, min_delta: float) -> None:
        self.name = name or ""
        self.best: float | None = None
        self.best_epoch = 0
        self._mode = mode
        self._patience = patience
        self._min_delta = min_delta
        self._waited = 0
        self._reference: float | None = None  # what the next improvement is measured from

    def update(self, epoch: int, metrics: Mapping[str, float]) -> bool:
        """Looks at an epoch; returns whether it is the best so far. NaN and infinities never are.

        Raises:
            ValueError: the metric has never been there, or there is none; lists those that are.
        """
        self._settle(metrics)
        value = metrics.get(self.name, math.nan)
        self._waited += 1
        if not math.isfinite(value):
            return False
        if self._reference is None or self._gain(value, self._reference) > self._min_delta:
            self._reference, self._waited = value, 0
        if self.best is not None and self._gain(value, self.best) <= 0:
            return False
        self.best, self.best_epoch = value, epoch
        return True

    @property
    def exhausted(self) -> bool:
        """Whether it is time to stop."""
        return self._patience is not None and self._waited >= self._patience

    def _gain(self, value: float, over: float) -> float:
        return over - value if self._mode == MIN else value - over

    def _settle(self, metrics: Mapping[str, float]) -> None:
        """Chooses the metric in the first epoch, and looks whether it is there."""
        if not self.name:
            self.name = next((name for name in _BY_DEFAULT if name in metrics), "")
            if not self.name:
                raise ValueError(
                    f"an epoch has none of {', '.join(_BY_DEFAULT)}: its batches have no samples; "
                    f"it has {', '.join(sorted(metrics)) or 'nothing'}"
                )
        elif self.best is None and self._waited == 0 and self.name not in metrics:
            raise ValueError(
                f"early_stopping_metric={self.name!r} is none of what this training has: "
                f"{', '.join(sorted(metrics))}"
            )
        self._mode = self._mode or mode_of(self.name)

    def state_dict(self) -> dict[str, Any]:
        """Returns what goes into a checkpoint."""
        return {
            "name": self.name,
            "mode": self._mode,
            "best": self.best,
            "best_epoch": self.best_epoch,
            "waited": self._waited,
            "reference": self._reference,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on from a checkpoint, unless another metric is followed now."""
        if self.name and state["name"] and self.name != state["name"]:
            return
        self.name, self._mode = self.name or state["name"], self._mode or state["mode"]
        self.best, self.best_epoch = state["best"], state["best_epoch"]
        self._waited, self._reference = state["waited"], state["reference"]
