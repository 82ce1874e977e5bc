"""Writes all that is to say of a trial that has ended, into its run or into one that is made for it now."""

from __future__ import annotations

from typing import Any

from optuna.trial import FrozenTrial

from mlflow_sysmetrics.tracking import mlflow_state
from mlflow_sysmetrics.training.hpo.active_runs import discard
from mlflow_sysmetrics.training.hpo.outcome import Outcome
from mlflow_sysmetrics.training.hpo.run_names import trial_run_name
from mlflow_sysmetrics.training.hpo.run_writer import write
from mlflow_sysmetrics.training.hpo.study_run import StudyRun
from mlflow_sysmetrics.training.hpo.trial_record import (
    NUMBER,
    metrics_of_trial,
    params_of_trial,
    tags_of_trial,
)

_PARENT_TAG = "mlflow.parentRunId"


def publish(study_run: StudyRun, trial: FrozenTrial, outcome: Outcome, run_id: str | None) -> str:
    """Writes how a trial has ended; again, it writes the same. Returns its run.

    Raises:
        NotRecorded: the server has not taken all of it.
    """
    make, client = study_run.calls.make, study_run.client
    found = run_id or str(make(lambda: _late_run(study_run, trial), undo=discard).info.run_id)

    def say() -> None:
        write(
            client,
            found,
            metrics=metrics_of_trial(trial, outcome, study_run.objectives),
            params=params_of_trial(study_run.study.study_name, trial.number, trial.params),
            tags=tags_of_trial(outcome),
        )
        if outcome.error is not None:
            client.log_text(found, outcome.error, "error.txt")
        client.set_terminated(found, status=outcome.status, end_time=outcome.ended_at)

    make(say)
    return found


def below(study_run: StudyRun, number: int) -> dict[str, str]:
    """Returns the tags that make a run that of a trial."""
    return {_PARENT_TAG: study_run.run_id, NUMBER: str(number)}


def _late_run(study_run: StudyRun, trial: FrozenTrial) -> Any:  # noqa: ANN401 - of MLflow
    """Makes the run of a trial that could not be made when it began."""
    name = trial_run_name(trial.number)
    began = trial.datetime_start
    return study_run.client.create_run(
        study_run.experiment_id,
        start_time=None if began is None else int(began.timestamp() * 1000),
        tags=mlflow_state.run_tags(below(study_run, trial.number), name),
        run_name=name,
    )
