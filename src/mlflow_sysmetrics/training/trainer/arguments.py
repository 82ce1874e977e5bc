"""The arguments of Trainer, checked before anything is done. Imports without torch."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlflow_sysmetrics.runtime.local_paths import local_directory
from mlflow_sysmetrics.training.best_epoch import CLASSIFICATION, MAX, MIN, MonitoredMetric, monitored_metric

_OF_TRAINING = ("train_loss", "train_accuracy")
_OF_VALIDATION = ("val_loss", *(f"val_{name}" for name in CLASSIFICATION))
_DTYPES = ("float16", "bfloat16")


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """The arguments of `Trainer`, which describes them.

    Raises:
        TypeError: an argument has the wrong type.
        ValueError: an argument is out of range, or does not go with another.
    """

    model: Any
    train_loader: Any
    val_loader: Any
    optimizer: Any
    criterion: Callable[[Any, Any], Any] | None
    device: Any
    num_epochs: int
    patience: int | None
    gradient_clip: float | None
    gradient_accumulation_steps: int
    scheduler: Any
    save_dir: str | os.PathLike[str] | None
    use_amp: bool
    amp_dtype: Any
    early_stopping_metric: str | None
    early_stopping_mode: str | None
    min_delta: float
    logging_steps: int
    log_system_metrics: bool
    system_metrics_interval: int
    scheduler_interval: str
    prepare_batch: Callable[[Any], Any] | None
    compute_metrics: Callable[[Any, Any], Mapping[str, Any]] | None
    restore_best: bool
    progress: bool | None
    run_id: str | None
    resume: bool
    stop_on_nan: bool
    upload_timeout: float
    log_params: bool
    config: Mapping[str, Any] | None

    def __post_init__(self) -> None:
        for name in ("num_epochs", "gradient_accumulation_steps", "logging_steps", "system_metrics_interval"):
            _check_count(name, getattr(self, name))
        if self.patience is not None:
            _check_count("patience", self.patience)
        if self.gradient_clip is not None:
            _check_number("gradient_clip", self.gradient_clip, positive=True)
        _check_number("min_delta", self.min_delta)
        _check_number("upload_timeout", self.upload_timeout)
        _check_choice("scheduler_interval", self.scheduler_interval, ("step", "epoch"))
        _check_choice("amp_dtype", self.amp_name, _DTYPES)
        if self.early_stopping_mode is not None:
            _check_choice("early_stopping_mode", self.early_stopping_mode, (MIN, MAX))
        for name in ("criterion", "prepare_batch", "compute_metrics"):
            if getattr(self, name) is not None and not callable(getattr(self, name)):
                raise TypeError(f"{name} must be callable, got {getattr(self, name)!r}")
        if self.config is not None and not isinstance(self.config, Mapping):
            raise TypeError(f"config must be a mapping such as a dict, got {self.config!r}")
        self._check_loaders()
        self._check_optimizer()
        self._check_metric()
        _ = self.directory

    @property
    def amp_name(self) -> str:
        """The name of `amp_dtype`, which may be a type of torch."""
        return str(self.amp_dtype).removeprefix("torch.")

    @property
    def directory(self) -> Path | None:
        """The directory of the checkpoints, or None.

        Raises:
            TypeError: `save_dir` is not a path.
            ValueError: it does not name a directory of this machine.
        """
        # Absolute: the program may change its working directory while it trains.
        return None if self.save_dir is None else local_directory("save_dir", self.save_dir)

    @property
    def monitored(self) -> MonitoredMetric | None:
        """The metric of `early_stopping_metric`, or None.

        Raises:
            ValueError: its mode is missing, or MLflow refuses its name.
        """
        return monitored_metric(
            self.early_stopping_metric,
            self.early_stopping_mode,
            name_argument="early_stopping_metric",
            mode_argument="early_stopping_mode",
        )

    def _check_loaders(self) -> None:
        for name in ("train_loader", "val_loader"):
            loader = getattr(self, name)
            if loader is None and name == "val_loader":
                continue
            if not hasattr(loader, "__iter__") and not hasattr(loader, "__getitem__"):
                raise TypeError(f"{name} must be iterable, such as a DataLoader, got {loader!r}")
            if length(loader) == 0:
                raise ValueError(f"{name} is empty: it has no batches")

    def _check_optimizer(self) -> None:
        groups = getattr(self.optimizer, "param_groups", None)
        if groups is None or not hasattr(self.model, "parameters"):
            raise TypeError(
                "model must be a torch.nn.Module and optimizer a torch.optim.Optimizer, "
                f"got a {type(self.model).__name__} and a {type(self.optimizer).__name__}"
            )
        own = {id(parameter) for parameter in self.model.parameters()}
        if not any(id(parameter) in own for group in groups for parameter in group["params"]):
            raise ValueError(
                "optimizer has none of the model's parameters; create it from this model's parameters()"
            )
        if self.scheduler is not None and not hasattr(self.scheduler, "step"):
            raise TypeError(f"scheduler must have a method step(), got {self.scheduler!r}")

    def _check_metric(self) -> None:
        """Checks that the metric can exist, as far as that is known before it is computed."""
        name = self.early_stopping_metric
        if name is not None:
            known = _OF_TRAINING if self.val_loader is None else (*_OF_TRAINING, *_OF_VALIDATION)
            computes = self.val_loader is not None and self.compute_metrics is not None
            if name not in known and not (computes and name.startswith("val_")):
                more = ", or a value of compute_metrics with the prefix val_" if computes else ""
                raise ValueError(
                    f"early_stopping_metric must be one of {', '.join(known)}{more}, got {name!r}"
                )
        _ = self.monitored


def length(loader: object) -> int | None:
    """Returns the number of a loader's batches, or None if the loader does not know it."""
    try:
        return len(loader)  # type: ignore[arg-type]
    except TypeError:  # without __len__, or that of a DataLoader over an iterable dataset
        return None


def _check_count(name: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"{name} must be an integer >= 1, got {value!r}")


def _check_number(name: str, value: object, *, positive: bool = False) -> None:
    if (
        isinstance(value, bool)
        or not isinstance(value, (int, float))
        or not value >= 0
        or (positive and not value)
    ):
        raise ValueError(f"{name} must be a number {'> 0' if positive else '>= 0'}, got {value!r}")


def _check_choice(name: str, value: object, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, choices))}, got {value!r}")
