"""Models in MLflow's registry: registered with their description, promoted, and loaded by alias or stage."""

from __future__ import annotations

from mlflow_sysmetrics.errors import PromotionError
from mlflow_sysmetrics.training.registry.loading import find_version, load_model
from mlflow_sysmetrics.training.registry.model_logging import save_model_to_mlflow
from mlflow_sysmetrics.training.registry.promotion import promote
from mlflow_sysmetrics.training.registry.registration import register_model

__all__ = [
    "PromotionError",
    "find_version",
    "load_model",
    "promote",
    "register_model",
    "save_model_to_mlflow",
]
