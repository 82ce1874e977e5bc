"""Studies of hyperparameters: a run for the study, a run below it for each trial, and their true ends.

Importing this needs no Optuna; making an `OptunaRunner` does.
"""

from mlflow_sysmetrics.training.hpo.result import HPOResult
from mlflow_sysmetrics.training.hpo.runner import OptunaRunner

__all__ = ["HPOResult", "OptunaRunner"]
