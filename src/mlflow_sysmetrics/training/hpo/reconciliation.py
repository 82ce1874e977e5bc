"""Makes the runs of a study say what Optuna knows, after a process that has not come to say it."""

from __future__ import annotations

import logging
from typing import Any

import optuna
from optuna.trial import TrialState

from mlflow_sysmetrics.runtime.process_identity import is_gone, this_process
from mlflow_sysmetrics.training.hpo import outcome
from mlflow_sysmetrics.training.hpo.outcome import found
from mlflow_sysmetrics.training.hpo.store_calls import NotRecorded
from mlflow_sysmetrics.training.hpo.study_run import StudyRun
from mlflow_sysmetrics.training.hpo.trial_run import NUMBER, publish

_RUNNING = "RUNNING"
_PAGE = 1000
_log = logging.getLogger("mlflow_sysmetrics")


def fail_dead_trials(study: optuna.Study) -> None:
    """Tells Optuna which of the running trials have died with their process.

    Called before this process carries out any trial of the study.
    """
    here = this_process()
    unknown = []
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        process = trial.user_attrs.get(outcome.PROCESS)
        if process == here or is_gone(process):
            study.tell(trial.number, state=TrialState.FAIL, skip_if_finished=True)
            _log.info("mlflow-sysmetrics: trial %d has died with its process", trial.number)
        else:
            unknown.append(trial.number)
    if unknown:
        _log.warning(
            "mlflow-sysmetrics: trials %s of study %r are under way in processes that cannot be seen from "
            "here; they count as running. Those that are dead can be ended by study.tell(number, "
            "state=optuna.trial.TrialState.FAIL), or by a storage with heartbeat_interval.",
            ", ".join(str(number) for number in unknown),
            study.study_name,
        )


def reconcile(study_run: StudyRun) -> None:
    """Writes the runs of trials that have ended and whose runs do not say so, or were never made.

    Only trials that were begun for this run of the study count. Called before this process carries out any.
    """
    ended = [
        trial
        for trial in study_run.trials()
        if trial.state.is_finished() and trial.user_attrs.get(outcome.PARENT) == study_run.run_id
    ]
    if not ended:
        return
    try:
        runs = study_run.calls.make(lambda: _runs_of_trials(study_run))
        for trial in ended:
            run = runs.get(trial.number)
            if run is None:
                publish(study_run, trial, found(trial, None), None)
            elif run.info.status == _RUNNING:
                publish(study_run, trial, found(trial, _last_sign(run)), str(run.info.run_id))
    except NotRecorded:
        _log.debug("the next optimize of the study tries again")


def _runs_of_trials(study_run: StudyRun) -> dict[int, Any]:
    """Returns the runs below the run of a study, by the number of their trial."""
    wanted = f"tags.`mlflow.parentRunId` = '{study_run.run_id}'"
    runs: dict[int, Any] = {}
    token = None
    while True:
        page = study_run.client.search_runs(
            [study_run.experiment_id], wanted, max_results=_PAGE, page_token=token
        )
        for run in page:
            number = run.data.tags.get(NUMBER, "")
            if number.isdecimal():
                runs[int(number)] = run
        token = page.token
        if not token:
            return runs


def _last_sign(run: Any) -> int:
    """Returns the time of the newest point of a run, or of its start."""
    # Only the protocol buffer tells a metric's time in every MLflow from 2.8 on.
    times = [int(metric.timestamp) for metric in run.data.to_proto().metrics]
    return max([int(run.info.start_time), *times])
