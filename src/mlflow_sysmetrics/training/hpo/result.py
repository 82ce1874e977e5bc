"""What a study has found."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import optuna


@dataclass(frozen=True)
class HPOResult:
    """What a study has found, and where MLflow has it.

    Every number of a trial is Optuna's, which counts from 0; `trial_0001` is the run of number 0.

    Attributes:
        study_name: the study.
        parent_run_id: the run of the study; the runs of its trials lie below it.
        experiment_id: the experiment of these runs.
        tracking_uri: the server that has them.
        best_trial_number: None without a completed trial, and where there are several objectives.
        best_value: of the best trial; None as above.
        best_params: of the best trial; empty as above.
        best_run_id: the run of the best trial; None as above, and where it could not be recorded.
        pareto_trial_numbers: the trials that no other is better than in every objective; of one objective,
            the best trial.
        total_trials: trials that were begun, in whatever process; the sum of the next four.
        completed_trials: those that returned a value.
        pruned_trials: those that were given up as unpromising.
        failed_trials: those that raised, returned no usable value, were interrupted, or died.
        running_trials: those that other processes are carrying out.
        unrecorded_trials: those whose run could not be written, because the tracking server was not there;
            the next `optimize` of the study writes them.
        study: Optuna's study, for all that is not here.
    """

    study_name: str
    parent_run_id: str
    experiment_id: str
    tracking_uri: str
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
