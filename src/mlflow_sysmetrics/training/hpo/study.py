"""Runs a study inside its MLflow run, from the first trial to the summary."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import mlflow
import optuna
from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial

from mlflow_sysmetrics.errors import HPOError
from mlflow_sysmetrics.interruptions import reraise_interruption
from mlflow_sysmetrics.mlflow_api.fluent_state import autologging, finish_monitor, only_active
from mlflow_sysmetrics.mlflow_api.stores import FAILED, FINISHED
from mlflow_sysmetrics.preflight.api import status_of
from mlflow_sysmetrics.training.hpo import optuna_study
from mlflow_sysmetrics.training.hpo.child_runs import delete_duplicates
from mlflow_sysmetrics.training.hpo.objectives import Objectives
from mlflow_sysmetrics.training.hpo.outcome import one_line
from mlflow_sysmetrics.training.hpo.reconciliation import fail_dead_trials, reconcile
from mlflow_sysmetrics.training.hpo.result import HPOResult
from mlflow_sysmetrics.training.hpo.store_calls import NotRecorded
from mlflow_sysmetrics.training.hpo.study_run import StudyRun, best_trial_of, counts_of, open_study_run
from mlflow_sysmetrics.training.hpo.summary import write_summary
from mlflow_sysmetrics.training.hpo.trials import Interruption, TrackedObjective, run_trials

Callback = Callable[[optuna.Study, FrozenTrial], None]
_log = logging.getLogger("mlflow_sysmetrics")


@dataclass(frozen=True)
class Request:
    """The checked arguments of `OptunaRunner.optimize`."""

    objective_fn: Callable[..., Any]
    n_trials: int | None
    distributions: Mapping[str, BaseDistribution] | None
    n_jobs: int
    timeout: float | None
    catch: tuple[type[Exception], ...]
    callbacks: tuple[Callback, ...]
    parent_run_name: str | None
    include_plotlyjs: bool | str
    log_system_metrics: bool | None
    progress: bool | None


def run_study(
    study: optuna.Study, objectives: Objectives, request: Request, *, below_active: bool
) -> HPOResult:
    """Runs a study and returns its result. The summary is written however the study ends.

    Raises:
        HPOError: a trial raised an exception that is not in `catch`, or a callback raised.
        BaseException: Ctrl-C and the like.
    """
    fail_dead_trials(study)
    study_run = open_study_run(
        study,
        objectives,
        run_name=request.parent_run_name,
        log_system_metrics=request.log_system_metrics,
        below_active=below_active,
    )
    interruption = Interruption()
    objective = TrackedObjective(
        request.objective_fn, request.distributions, study_run, request.catch, interruption
    )
    status = FAILED
    try:
        reconcile(study_run)
        _run_missing_trials(study_run, objective, interruption, request)
        status = FINISHED
    except BaseException as error:  # whatever ends the study decides the status of its run
        status = status_of(error)
        raise
    finally:
        missing = _close(study_run, objective, status, request)
    return _result(study_run, missing)


def _run_missing_trials(
    study_run: StudyRun, objective: TrackedObjective, interruption: Interruption, request: Request
) -> None:
    study = study_run.study
    missing = None
    if request.n_trials is not None:
        missing = request.n_trials - counts_of(study_run.trials()).total
        if missing <= 0:
            _log.info("study %r already has the requested %d trials", study.study_name, request.n_trials)
            return
    if request.n_jobs > 1 and (frameworks := autologging()):
        _log.warning(
            "mlflow-sysmetrics: MLflow's autologging (%s) misses a training that begins while one in another "
            "thread is running. For complete autologging, use n_jobs=1 in several processes with a storage.",
            ", ".join(frameworks),
        )
    callbacks = _Callbacks(study_run, request)
    try:
        run_trials(
            study,
            objective,
            interruption,
            n_jobs=request.n_jobs,
            n_trials=missing,
            timeout=request.timeout,
            catch=request.catch,
            callbacks=[callbacks],
            show_progress_bar=_shows_progress_bar(request),
        )
    except Exception as error:  # the sampler's, the storage's, a callback's or the objective function's
        if objective.first_failure is None and error is not callbacks.failure:
            reraise_interruption(error)
            raise HPOError(f"Study {study.study_name!r} cannot continue: {one_line(error)}") from error
    _raise_failure(study, objective, callbacks)


def _raise_failure(study: optuna.Study, objective: TrackedObjective, callbacks: _Callbacks) -> None:
    """Raises what a trial or a callback raised: with n_jobs > 1 Optuna drops the exceptions of the last ones.

    Raises:
        HPOError: a trial or a callback failed.
        BaseException: a trial raised something that is not an Exception.
    """
    if objective.first_failure is not None:
        number, failure = objective.first_failure
        if not isinstance(failure, Exception):
            raise failure
        raise HPOError(
            f"Trial {number} of study {study.study_name!r} failed: {one_line(failure)}. The study has ended; "
            f"its results so far are in MLflow. Pass catch=({type(failure).__name__},) to continue after "
            "such failures."
        ) from failure
    if callbacks.failure is not None:
        raise HPOError(
            f"A callback of study {study.study_name!r} failed: {one_line(callbacks.failure)}"
        ) from callbacks.failure


class _Callbacks:
    """Runs after each trial: logs the progress of the study and calls the user's callbacks in its run.

    Attributes:
        failure: the first exception of a callback; None if none raised.
    """

    def __init__(self, study_run: StudyRun, request: Request) -> None:
        self._study_run = study_run
        self._request = request
        self.failure: Exception | None = None

    def __call__(self, study: optuna.Study, trial: FrozenTrial) -> None:
        try:
            self._study_run.log_progress()
        except NotRecorded:
            _log.debug("the progress of the study will be written after the next trial")
        wanted = self._request.n_trials
        # Other processes may be working on the same study.
        if wanted is not None and counts_of(self._study_run.trials()).total >= wanted:
            study.stop()
        try:
            with only_active(self._study_run.run):
                for callback in self._request.callbacks:
                    callback(study, trial)
        except Exception as error:  # a callback's; it is raised again
            self.failure = self.failure or error
            study.stop()
            raise


def _shows_progress_bar(request: Request) -> bool:
    # Optuna warns if a progress bar is requested and the end is unknown.
    measurable = request.n_trials is not None or (request.timeout is not None and request.n_jobs == 1)
    wanted = sys.stderr.isatty() if request.progress is None else request.progress
    return measurable and wanted


def _close(study_run: StudyRun, objective: TrackedObjective, status: str, request: Request) -> int:
    """Writes missing outcomes and the summary, ends the study's run, and returns the count still missing."""
    missing = objective.write_missing()
    if objective.runs and not study_run.calls.silent:
        delete_duplicates(study_run)
    complete = write_summary(study_run, include_plotlyjs=request.include_plotlyjs)
    run_id = study_run.run_id
    try:
        study_run.end(run_id, status)
    except NotRecorded:
        complete = False
    finish_monitor(run_id)
    if missing or not complete:
        _log.warning(
            "mlflow-sysmetrics: study %r is incomplete on the tracking server (missing trials: %d). Optuna "
            "has all of it: call optimize() again for the same study and storage to write the rest.",
            study_run.study.study_name,
            missing,
        )
    return missing


def _result(study_run: StudyRun, missing: int) -> HPOResult:
    study, trials = study_run.study, study_run.trials()
    counts = counts_of(trials)
    best = None if study_run.objectives.several else best_trial_of(study)
    front: Sequence[FrozenTrial] = (
        study.best_trials if study_run.objectives.several else [best] if best else []
    )
    return HPOResult(
        study_name=study.study_name,
        parent_run_id=study_run.run_id,
        experiment_id=study_run.experiment_id,
        tracking_uri=mlflow.get_tracking_uri(),
        best_trial_number=None if best is None else best.number,
        best_value=None if best is None else best.value,
        best_params={} if best is None else dict(best.params),
        best_run_id=None if best is None else best.user_attrs.get(optuna_study.TRIAL_RUN_ID),
        pareto_trial_numbers=tuple(sorted(trial.number for trial in front)),
        total_trials=counts.total,
        completed_trials=counts.completed,
        pruned_trials=counts.pruned,
        failed_trials=counts.failed,
        running_trials=counts.running,
        unrecorded_trials=missing,
        study=study,
    )
