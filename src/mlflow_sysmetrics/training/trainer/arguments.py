"""What a trainer is asked to do, looked at before it does anything. Needs no torch."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlflow_sysmetrics.training.best_epoch import CLASSIFICATION, mode_of
from mlflow_sysmetrics.training.trainer.loaders import length

_OF_TRAINING = ("train_loss", "train_accuracy")
_OF_VALIDATION = ("val_loss", *(f"val_{name}" for name in CLASSIFICATION))
_DTYPES = ("float16", "bfloat16")


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """The arguments of `Trainer`, where they are described.

    Raises:
        TypeError: one is not of the kind that it should be.
        ValueError: one is out of range, or does not go with another.
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
            _check_choice("early_stopping_mode", self.early_stopping_mode, ("min", "max"))
        for name in ("criterion", "prepare_batch", "compute_metrics"):
            if getattr(self, name) is not None and not callable(getattr(self, name)):
                raise TypeError(f"{name}={getattr(self, name)!r} cannot be called")
        self._check_loaders()
        self._check_optimizer()
        self._check_metric()

    @property
    def amp_name(self) -> str:
        """The name of the precision, of which torch has a type as well."""
        return str(self.amp_dtype).removeprefix("torch.")

    @property
    def directory(self) -> Path | None:
        """Where checkpoints are kept."""
        # The program may change its directory while it trains.
        return None if self.save_dir is None else Path(self.save_dir).absolute()

    def _check_loaders(self) -> None:
        for name in ("train_loader", "val_loader"):
            loader = getattr(self, name)
            if loader is None and name == "val_loader":
                continue
            if not hasattr(loader, "__iter__") and not hasattr(loader, "__getitem__"):
                raise TypeError(f"{name}={loader!r} cannot be iterated; pass a DataLoader")
            if length(loader) == 0:
                raise ValueError(f"{name} is empty: it has no batch")

    def _check_optimizer(self) -> None:
        groups = getattr(self.optimizer, "param_groups", None)
        if groups is None or not hasattr(self.model, "parameters"):
            raise TypeError(
                f"optimizer is a {type(self.optimizer).__name__} and model a {type(self.model).__name__}; "
                "pass a torch.nn.Module and a torch.optim.Optimizer"
            )
        own = {id(parameter) for parameter in self.model.parameters()}
        if not any(id(parameter) in own for group in groups for parameter in group["params"]):
            raise ValueError(
                "optimizer has none of the model's parameters; make it with model.parameters() of this model"
            )
        if self.scheduler is not None and not hasattr(self.scheduler, "step"):
            raise TypeError(f"scheduler={self.scheduler!r} has no step()")

    def _check_metric(self) -> None:
        """Looks whether the metric can be there, as far as that can be told before it is computed."""
        name = self.early_stopping_metric
        if name is None:
            return
        known = _OF_TRAINING if self.val_loader is None else (*_OF_TRAINING, *_OF_VALIDATION)
        computed = (
            self.val_loader is not None and self.compute_metrics is not None and name.startswith("val_")
        )
        if name not in known and not computed:
            more = "; what compute_metrics returns begins with val_" if self.compute_metrics else ""
            raise ValueError(f"early_stopping_metric={name!r} is none of {', '.join(known)}{more}")
        if self.early_stopping_mode is None and mode_of(name) is None:
            raise ValueError(
                f"whether less or more of {name} is better its name does not tell; pass early_stopping_mode="
            )


def _check_count(name: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"{name}={value!r} is no whole number from 1 on")


def _check_number(name: str, value: object, *, positive: bool = False) -> None:
    if (
        isinstance(value, bool)
        or not isinstance(value, (int, float))
        or not value >= 0
        or (positive and not value)
    ):
        raise ValueError(f"{name}={value!r} is no number {'above 0' if positive else 'from 0 on'}")


def _check_choice(name: str, value: object, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ValueError(f"{name}={value!r} is none of {', '.join(choices)}")
