"""The best epoch of a training, and early stopping.

`Trainer` and the adapters share these rules, so the same metrics give the same best epoch with either. The
section "The best epoch" of docs/how_to/training.md lists them.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from mlflow_sysmetrics.mlflow_api.metric_names import check_metric_name

CLASSIFICATION = ("accuracy", "f1_macro", "f1_micro", "precision_macro", "recall_macro")
MIN, MAX = "min", "max"

# The first one that a training has. Frameworks never compute a macro F1 on their own: where there is one, the
# training asked for it, and it often still improves while the validation loss already rises.
DEFAULT_METRICS = ("val_f1_macro", "val_loss", "train_loss")

_MINIMISED = frozenset({"error", "mae", "mape", "mse", "nll", "perplexity", "rmse"})
_MAXIMISED = frozenset(
    {"acc", "accuracy", "auc", "auroc", "dice", "f1", "iou", "map", "precision", "r2", "recall", "score"}
)


class MonitoredMetric(NamedTuple):
    """The metric that ranks the epochs.

    Attributes:
        name: its name within ``epoch/``, such as "val_loss".
        mode: `MIN` if smaller values are better, `MAX` if larger ones are.
    """

    name: str
    mode: str


def mode_of(name: str) -> str | None:
    """Returns the mode that a metric's name implies, or None if it implies none."""
    words = set(re.split(r"[\W_]+", name.lower()))
    if "loss" in name.lower() or words & _MINIMISED:
        return MIN
    return MAX if words & _MAXIMISED else None


def monitored_metric(
    name: str | None, mode: str | None, *, name_argument: str = "monitor", mode_argument: str = "mode"
) -> MonitoredMetric | None:
    """Returns the metric that the user monitors, or None if the user named none.

    Args:
        name: its name.
        mode: "min" or "max"; None infers it from the name.
        name_argument: what the user knows `name` as, for messages.
        mode_argument: what the user knows `mode` as, for messages.

    Raises:
        ValueError: the mode is unknown, has no metric or cannot be inferred, or MLflow refuses the name.
    """
    if mode is not None and mode not in {MIN, MAX}:
        raise ValueError(f"{mode_argument} must be 'min' or 'max', got {mode!r}")
    if name is None:
        if mode is not None:
            raise ValueError(f"{mode_argument}={mode!r} needs {name_argument}=..., the metric it applies to")
        return None
    check_metric_name(f"final/best_{name}", name=name)  # the longest of its keys
    chosen_mode = mode or mode_of(name)
    if chosen_mode is None:
        raise ValueError(
            f"cannot infer from the name whether to minimise or maximise {name!r}; "
            f'pass {mode_argument}="min" or {mode_argument}="max"'
        )
    return MonitoredMetric(name, chosen_mode)


class BestEpoch:
    """Follows one metric over the epochs.

    Args:
        metric: the metric; None follows the first of `DEFAULT_METRICS` that the training has. If one that is
            listed earlier appears later, as with a validation every two epochs, it takes over from then on.
        patience: epochs without improvement after which training should stop; None never stops it.
        min_delta: a change of at most this much is not an improvement for `patience`. It can still make the
            epoch the best one.

    Attributes:
        name: the metric's name; empty until an epoch has one of the default metrics.
        value: its best value; None until there is one.
        epoch: the epoch of that value; 0 until there is one.
    """

    def __init__(
        self, metric: MonitoredMetric | None, *, patience: int | None = None, min_delta: float = 0.0
    ) -> None:
        self.value: float | None = None
        self.epoch = 0
        self._metric = metric
        self._patience = patience
        self._min_delta = min_delta
        self.name, self._mode = metric or MonitoredMetric("", MIN)
        self._waited = 0
        self._reference: float | None = None  # the value that the next improvement is measured from

    @property
    def candidates(self) -> tuple[str, ...]:
        """Names of the metrics that `update` reads."""
        return DEFAULT_METRICS if self._metric is None else (self._metric.name,)

    @property
    def should_stop(self) -> bool:
        """Whether the patience is exhausted."""
        return self._patience is not None and self._waited >= self._patience

    def check_available(self, metrics: Mapping[str, float]) -> None:
        """Checks that the first epoch has the metric.

        Raises:
            ValueError: it does not; lists the metrics that it has.
        """
        if self._waited or self.value is not None or any(name in metrics for name in self.candidates):
            return
        available = ", ".join(sorted(metrics)) or "none"
        if self._metric is None:
            raise ValueError(
                f"an epoch must have one of {', '.join(DEFAULT_METRICS)}, but its batches have no samples; "
                f"its metrics: {available}"
            )
        raise ValueError(
            f"early_stopping_metric must be a metric of this training, got {self.name!r}; "
            f"its metrics: {available}"
        )

    def update(self, epoch: int, metrics: Mapping[str, float]) -> bool:
        """Takes the metrics of an epoch; returns whether it is the best so far.

        Of equal values, the first is the best. An epoch without the metric, or whose value is NaN or
        infinite, is never the best.
        """
        self._choose_default(metrics)
        value = metrics.get(self.name, math.nan)
        self._waited += 1
        if not math.isfinite(value):
            return False
        if self._reference is None or self._gain(value, self._reference) > self._min_delta:
            self._reference, self._waited = value, 0
        if self.value is not None and self._gain(value, self.value) <= 0:
            return False
        self.value, self.epoch = value, epoch
        return True

    def summary(self) -> dict[str, float]:
        """Returns ``best_<metric>`` and ``best_epoch``; empty if there is no best epoch."""
        return {} if self.value is None else {f"best_{self.name}": self.value, "best_epoch": self.epoch}

    def state_dict(self) -> dict[str, Any]:
        """Returns the state for a checkpoint."""
        return {
            "name": self.name,
            "mode": self._mode,
            "value": self.value,
            "epoch": self.epoch,
            "waited": self._waited,
            "reference": self._reference,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores the state of a checkpoint, unless a different metric is monitored now."""
        saved = MonitoredMetric(state["name"], state["mode"])
        if not saved.name or self._metric not in {None, saved}:
            return
        self._follow(saved)
        self.value, self.epoch = state["value"], state["epoch"]
        self._waited, self._reference = state["waited"], state["reference"]

    def _choose_default(self, metrics: Mapping[str, float]) -> None:
        if self._metric is not None:
            return
        for name in DEFAULT_METRICS:
            if name == self.name:
                return
            if name in metrics:
                self._follow(MonitoredMetric(name, mode_of(name) or MIN))
                return

    def _follow(self, metric: MonitoredMetric) -> None:
        self.name, self._mode = metric
        self.value, self.epoch = None, 0
        self._waited, self._reference = 0, None

    def _gain(self, value: float, over: float) -> float:
        return over - value if self._mode == MIN else value - over
