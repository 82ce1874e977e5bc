"""Hyperparameter studies: one MLflow run for the study and one below it for each trial.

Importing this package does not need Optuna; creating an `OptunaRunner` does.
"""

from mlflow_sysmetrics.training.hpo.result import HPOResult
from mlflow_sysmetrics.training.hpo.runner import OptunaRunner

__all__ = ["HPOResult", "OptunaRunner"]
