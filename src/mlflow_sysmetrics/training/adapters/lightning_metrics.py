"""Reads the metrics of a Lightning Trainer and gives them our names."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from mlflow_sysmetrics.training.adapters.epochs import epoch_name
from mlflow_sysmetrics.training.best_epoch import MonitoredMetric

# Our name of a step metric, and its key.
_STEP_KEYS = {
    "loss": "train/loss_step",
    "accuracy": "train/accuracy_step",
    "learning_rate": "train/learning_rate",
    "batch_time_seconds": "train/batch_time_seconds",
}
_ACCURACIES = ("accuracy", "acc")


def mlflow_logger(trainer: Any) -> Any:
    """Returns the Trainer's MLFlowLogger, of either package, or None."""
    for logger in trainer.loggers:
        if any(kind.__name__ == "MLFlowLogger" for kind in type(logger).__mro__):
            return logger
    return None


def is_dry_run(trainer: Any) -> bool:
    """Returns whether Lightning has switched its own loggers off, to try the code or measure its overhead."""
    return bool(getattr(trainer, "fast_dev_run", False) or getattr(trainer, "barebones", False))


def monitor(trainer: Any) -> MonitoredMetric | None:
    """Returns the metric that EarlyStopping or ModelCheckpoint monitors, or None."""
    for callback in (*trainer.early_stopping_callbacks, *trainer.checkpoint_callbacks):
        if getattr(callback, "monitor", None):
            return MonitoredMetric(epoch_name(callback.monitor), callback.mode)
    return None


def step(trainer: Any, outputs: Any, **known: object) -> dict[str, object]:
    """Returns the metrics of a step, apart from the mean of its losses.

    A key that the module logs itself is left to the module: Lightning counts steps from 0, we count from 1,
    and a series has one axis.

    Args:
        trainer: the Lightning Trainer.
        outputs: the return value of the module's training step.
        known: values that the callback has measured.
    """
    returned = outputs if isinstance(outputs, Mapping) else {}
    logged = {**trainer.callback_metrics, **returned}
    metrics = {"accuracy": _first(logged, _ACCURACIES), **known}
    if outputs is None or (isinstance(outputs, Mapping) and outputs.get("loss") is None):
        metrics["loss"] = _first(logged, ("loss",))  # with manual optimization it need not be returned
    if logs_to_mlflow(trainer):
        metrics |= {name: None for name, key in _STEP_KEYS.items() if key in trainer.logged_metrics}
    return metrics


def epoch(trainer: Any, of_steps: Collection[str]) -> dict[str, object]:
    """Returns the metrics that the module has logged for the training part of an epoch.

    Args:
        trainer: the Lightning Trainer.
        of_steps: names that are logged at steps; their last value does not describe the epoch, their mean
            does.
    """
    metrics: dict[str, object] = {}
    for name, value in trainer.callback_metrics.items():
        base = name.removesuffix("_epoch")
        ours = epoch_name(base)
        if (
            (base == name and name in of_steps)
            or name.endswith("_step")
            or ours.startswith(("val_", "test_"))
        ):
            continue
        metrics[ours] = value
    return metrics


def validation(trainer: Any) -> dict[str, object]:
    """Returns the metrics that the module has logged for a validation."""
    named = {
        epoch_name(name.removesuffix("_epoch")): value for name, value in trainer.callback_metrics.items()
    }
    return {
        name: value for name, value in named.items() if name.startswith("val_") and not name.endswith("_step")
    }


def stopped_early(trainer: Any) -> bool:
    """Returns whether the training was stopped before all its epochs and steps were done."""
    epochs, steps = trainer.max_epochs, trainer.max_steps
    all_epochs = epochs is not None and 0 <= epochs <= trainer.current_epoch
    all_steps = 0 <= steps <= trainer.global_step
    return bool(trainer.should_stop) and not all_epochs and not all_steps


def logs_to_mlflow(trainer: Any) -> bool:
    """Returns whether the module's metrics go to MLflow, by a logger or by autologging."""
    autologs = any(type(callback).__module__.startswith("mlflow.") for callback in trainer.callbacks)
    return autologs or mlflow_logger(trainer) is not None


def _first(logged: Mapping[str, object], names: tuple[str, ...]) -> object:
    """Returns the first value of a step with one of these names, with or without the prefix of training."""
    for name in names:
        for key in (name, f"train_{name}", f"train/{name}"):
            for found in (f"{key}_step", key):
                if found in logged:
                    return logged[found]
    return None
