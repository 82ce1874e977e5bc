"""Brings Optuna and the runs of a study into agreement after a process died before it could write."""

from __future__ import annotations

import logging
from typing import Any

import optuna
from optuna.trial import TrialState

from mlflow_sysmetrics.mlflow_api.stores import RUNNING
from mlflow_sysmetrics.runtime.process_identity import is_gone, this_process
from mlflow_sysmetrics.training.hpo import optuna_study
from mlflow_sysmetrics.training.hpo.child_runs import delete_duplicates, runs_by_trial
from mlflow_sysmetrics.training.hpo.outcome import from_optuna
from mlflow_sysmetrics.training.hpo.store_calls import NotRecorded
from mlflow_sysmetrics.training.hpo.study_run import StudyRun
from mlflow_sysmetrics.training.hpo.trial_run import write_outcome

_log = logging.getLogger("mlflow_sysmetrics")


def fail_dead_trials(study: optuna.Study) -> None:
    """Marks running trials in Optuna as failed if their process is dead.

    Call it before this process runs any trial of the study.
    """
    own = this_process()
    unknown = []
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        process = trial.user_attrs.get(optuna_study.PROCESS)
        if process == own or is_gone(process):
            study.tell(trial.number, state=TrialState.FAIL, skip_if_finished=True)
            _log.info("mlflow-sysmetrics: trial %d died with its process", trial.number)
        else:
            unknown.append(trial.number)
    if unknown:
        _log.warning(
            "mlflow-sysmetrics: trials %s of study %r belong to processes that cannot be seen from here, and "
            "count as running. If they are dead, end them with study.tell(number, "
            "state=optuna.trial.TrialState.FAIL), or use a storage with heartbeat_interval.",
            ", ".join(str(number) for number in unknown),
            study.study_name,
        )


def reconcile(study_run: StudyRun) -> None:
    """Writes the outcomes of finished trials whose runs are still RUNNING or were never created.

    A trial with more than one run keeps one.

    Only trials that were started for this run of the study count. Call it before this process runs any trial.
    """
    finished = [
        trial
        for trial in study_run.trials()
        if trial.state.is_finished() and trial.user_attrs.get(optuna_study.STUDY_RUN_ID) == study_run.run_id
    ]
    if not finished:
        return
    try:
        found = study_run.calls.make(lambda: runs_by_trial(study_run))
        for trial in finished:
            runs = found.get(trial.number)
            if not runs:
                write_outcome(study_run, trial, from_optuna(trial, None), None)
            elif runs[0].info.status == RUNNING:
                run = runs[0]
                write_outcome(study_run, trial, from_optuna(trial, _last_seen(run)), str(run.info.run_id))
    except NotRecorded:
        _log.debug("the next optimize() of the study tries again")
        return
    if any(len(runs) > 1 for runs in found.values()):
        delete_duplicates(study_run)


def _last_seen(run: Any) -> int:
    """Returns the time of the newest metric of a run, or of its start, in milliseconds since 1970."""
    # From MLflow 2.8 on, only the protocol buffer has the timestamps in every version.
    times = [int(metric.timestamp) for metric in run.data.to_proto().metrics]
    return max([int(run.info.start_time), *times])
