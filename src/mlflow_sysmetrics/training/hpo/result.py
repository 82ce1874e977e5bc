"""The result of a study."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import optuna


@dataclass(frozen=True)
class HPOResult:
    """What a study found, and where it is in MLflow.

    Trial numbers are Optuna's and start at 0: `trial_0001` is the run of trial 0.

    Attributes:
        study_name: the name of the study.
        parent_run_id: the run of the study; the runs of its trials are its children.
        experiment_id: the experiment of these runs.
        tracking_uri: the tracking server that has them; not in the repr, as it may contain credentials.
        best_trial_number: None if no trial completed or if there are several objectives.
        best_value: the value of the best trial; None if there is no best trial.
        best_params: the parameters of the best trial; empty if there is no best trial.
        best_run_id: the run of the best trial; None if there is no best trial or it has no run.
        pareto_trial_numbers: the trials on the Pareto front; with one objective, the best trial.
        total_trials: trials started by any process; the sum of the next four.
        completed_trials: trials that returned a value.
        pruned_trials: trials that were pruned.
        failed_trials: trials that raised, returned no usable value, were interrupted, or died.
        running_trials: trials that other processes are running.
        unrecorded_trials: trials whose run could not be written because the tracking server was unreachable;
            the next `optimize` of the study writes them.
        study: the Optuna study, for everything else.
    """

    study_name: str
    parent_run_id: str
    experiment_id: str
    tracking_uri: str = field(repr=False)
    best_trial_number: int | None
    best_value: float | None
    best_params: Mapping[str, Any]
    best_run_id: str | None
    pareto_trial_numbers: tuple[int, ...]
    total_trials: int
    completed_trials: int
    pruned_trials: int
    failed_trials: int
    running_trials: int
    unrecorded_trials: int
    study: optuna.Study = field(repr=False, compare=False)
