"""The runs of a study's trials on the server: found by their tags, and reduced to one per trial.

A trial can get a second run: the answer to a creation was lost and MLflow repeated the request, or two
processes wrote the outcome of a dead trial at the same time. Every run of a trial has the tags of its study's
run and of the trial's number from its creation on, so any process finds all of them.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Sequence
from typing import Any

from optuna.trial import FrozenTrial

from mlflow_sysmetrics.mlflow_api.stores import RUNNING
from mlflow_sysmetrics.runtime.process_identity import is_gone, this_process
from mlflow_sysmetrics.training.hpo import optuna_study
from mlflow_sysmetrics.training.hpo.store_calls import NotRecorded
from mlflow_sysmetrics.training.hpo.study_run import StudyRun

NUMBER_TAG = "optuna.trial_number"  #: leads from a run to its trial
STATE_TAG = "optuna.trial_state"  #: written with the outcome
PARENT_TAG = "mlflow.parentRunId"
_PAGE_SIZE = 1000
# A process that cannot be seen from here may still write the outcome of a trial that ended so recently:
# MLflow repeats a request for about four minutes.
_MAY_WRITE_SECONDS = 600.0
_METRICS_OF_OURS = ("system/", "trial/")
_PARAMS_OF_OURS = ("hpo/", "trial_number", "study_name")
_log = logging.getLogger("mlflow_sysmetrics")


def runs_by_trial(study_run: StudyRun) -> dict[int, list[Any]]:
    """Returns the runs of each trial by its number; the one to keep comes first.

    Raises:
        Exception: what MLflow raises.
    """
    found: dict[int, list[Any]] = {}
    for run in _search(study_run, ""):
        number = run.data.tags.get(NUMBER_TAG, "")
        if number.isdecimal():
            found.setdefault(int(number), []).append(run)
    return {number: sorted(runs, key=_rank) for number, runs in found.items()}


def run_of_trial(study_run: StudyRun, number: int) -> str | None:
    """Returns the run of a trial; None if it has none.

    Raises:
        Exception: what MLflow raises.
    """
    runs = sorted(_search(study_run, f" and tags.`{NUMBER_TAG}` = '{number}'"), key=_rank)
    return str(runs[0].info.run_id) if runs else None


def delete_duplicates(study_run: StudyRun) -> None:
    """Leaves one run of each finished trial whose outcome the server has."""
    try:
        found = study_run.calls.make(lambda: runs_by_trial(study_run))
        trials = study_run.trials()
        for number, runs in found.items():
            if number < len(trials):
                delete_others(study_run, trials[number], runs)
    except NotRecorded:
        _log.debug("the next optimize() of the study looks for duplicate runs again")


def delete_others(study_run: StudyRun, trial: FrozenTrial, runs: Sequence[Any]) -> None:
    """Deletes the runs of a trial but the first, if that one has the outcome and nothing can miss the others.

    A run that contains data of the objective function is never deleted, nor is one whose process may still
    write to it.

    Args:
        study_run: the run of the study.
        trial: the trial.
        runs: all runs of the trial, as `runs_by_trial` returns them.

    Raises:
        NotRecorded: the server did not accept it.
    """
    if len(runs) == 1 or not _has_outcome(runs[0]) or not trial.state.is_finished() or _is_written(trial):
        return
    surplus = [str(run.info.run_id) for run in runs[1:] if not _has_own_data(run)]
    client = study_run.client

    def delete(run_id: str) -> None:
        if client.get_run(run_id).info.lifecycle_stage == "active":  # another process may have been faster
            client.set_terminated(run_id, "KILLED")
            client.delete_run(run_id)

    for run_id in surplus:
        study_run.calls.make(lambda run_id=run_id: delete(run_id))  # type: ignore[misc]
        _log.info("deleted run %s, a duplicate of the run of trial %d", run_id, trial.number)


def _search(study_run: StudyRun, condition: str) -> Iterable[Any]:
    children = f"tags.`{PARENT_TAG}` = '{study_run.run_id}'{condition}"
    token = None
    while True:
        page = study_run.client.search_runs(
            [study_run.experiment_id], children, max_results=_PAGE_SIZE, page_token=token
        )
        yield from page
        token = page.token
        if not token:
            return


def _rank(run: Any) -> tuple[bool, bool, int, str]:
    """Returns a sort key that is the same in every process: data first, then an outcome, then age."""
    return not _has_own_data(run), not _has_outcome(run), int(run.info.start_time), str(run.info.run_id)


def _has_outcome(run: Any) -> bool:
    return bool(STATE_TAG in run.data.tags and run.info.status != RUNNING)


def _has_own_data(run: Any) -> bool:
    """Returns whether a run has metrics or parameters that the objective function logged."""
    return any(not key.startswith(_METRICS_OF_OURS) for key in run.data.metrics) or any(
        not key.startswith(_PARAMS_OF_OURS) for key in run.data.params
    )


def _is_written(trial: FrozenTrial) -> bool:
    """Returns whether another process may be writing the outcome of a finished trial."""
    process = trial.user_attrs.get(optuna_study.PROCESS)
    ended = trial.datetime_complete
    if process == this_process() or is_gone(process) or ended is None:
        return False
    seconds: float = time.time() - ended.timestamp()
    return seconds < _MAY_WRITE_SECONDS
