"""The training kit: what a training team would otherwise write in every repository.

Steps and epochs, a training loop, hyperparameter optimisation, registered models. Each name is loaded when it
is first used, so that importing this package loads neither torch nor Optuna.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mlflow_sysmetrics.training.hpo import HPOResult, OptunaRunner
    from mlflow_sysmetrics.training.recorder import MetricRecorder
    from mlflow_sysmetrics.training.registry import (
        find_version,
        load_model,
        promote,
        register_model,
        save_model_to_mlflow,
    )
    from mlflow_sysmetrics.training.system_metrics import SystemMetricsLogger
    from mlflow_sysmetrics.training.trainer import Trainer, run_to_resume

_HOME = {
    "HPOResult": "hpo",
    "MetricRecorder": "recorder",
    "OptunaRunner": "hpo",
    "SystemMetricsLogger": "system_metrics",
    "Trainer": "trainer",
    "find_version": "registry",
    "load_model": "registry",
    "promote": "registry",
    "register_model": "registry",
    "run_to_resume": "trainer",
    "save_model_to_mlflow": "registry",
}

__all__ = [
    "HPOResult",
    "MetricRecorder",
    "OptunaRunner",
    "SystemMetricsLogger",
    "Trainer",
    "find_version",
    "load_model",
    "promote",
    "register_model",
    "run_to_resume",
    "save_model_to_mlflow",
]


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
