"""Carries out a study in its run, from the first trial to the summary."""

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
from mlflow_sysmetrics.mlflow_api.fluent_state import finish_monitor, only_active
from mlflow_sysmetrics.mlflow_api.stores import FAILED, FINISHED
from mlflow_sysmetrics.preflight.context import status_of
from mlflow_sysmetrics.training.hpo import outcome
from mlflow_sysmetrics.training.hpo.objectives import Objectives
from mlflow_sysmetrics.training.hpo.outcome import told
from mlflow_sysmetrics.training.hpo.reconciliation import fail_dead_trials, reconcile
from mlflow_sysmetrics.training.hpo.result import HPOResult
from mlflow_sysmetrics.training.hpo.store_calls import NotRecorded
from mlflow_sysmetrics.training.hpo.study_run import StudyRun, best_trial_of, counts_of, opened
from mlflow_sysmetrics.training.hpo.summary import write_summary
from mlflow_sysmetrics.training.hpo.trials import Interruption, TrackedObjective, carry_out

Callback = Callable[[optuna.Study, FrozenTrial], None]
_log = logging.getLogger("mlflow_sysmetrics")


@dataclass(frozen=True)
class Request:
    """What `OptunaRunner.optimize` was asked for, checked; its attributes are that method's arguments."""

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


def optimized(
    study: optuna.Study, objectives: Objectives, request: Request, *, below_active: bool
) -> HPOResult:
    """Carries out a study and returns what it has found.

    Raises:
        HPOError: a trial or a callback has raised something that is not in `catch`; the summary is written.
        BaseException: Ctrl-C and the like; the summary is written too.
    """
    fail_dead_trials(study)
    study_run = opened(
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
        _carried_out(study_run, objective, interruption, request)
        status = FINISHED
    except BaseException as error:  # whatever ends the study is how its run ends
        status = status_of(error)
        raise
    finally:
        missing = _closed(study_run, objective, status, request)
    return _result(study_run, missing)


def _carried_out(
    study_run: StudyRun, objective: TrackedObjective, interruption: Interruption, request: Request
) -> None:
    study = study_run.study
    left = None
    if request.n_trials is not None:
        left = request.n_trials - counts_of(study_run.trials()).total
        if left <= 0:
            _log.info("study %r has the %d trials that are wanted", study.study_name, request.n_trials)
            return
    callbacks = _Callbacks(study_run, request)
    try:
        carry_out(
            study,
            objective,
            interruption,
            n_jobs=request.n_jobs,
            n_trials=left,
            timeout=request.timeout,
            catch=request.catch,
            callbacks=[callbacks],
            show_progress_bar=_wants_bar(request),
        )
    except Exception as error:  # the sampler's, the storage's, a callback's or the objective's
        if objective.first_failure is None:
            # Of a callback, of the storage, or of the sampler.
            raise HPOError(f"Study {study.study_name!r} could not go on: {told(error)}") from error
    # With n_jobs above 1 Optuna drops what the last trials and their callbacks raise.
    if objective.first_failure is not None:
        number, failure = objective.first_failure
        if not isinstance(failure, Exception):
            raise failure
        raise HPOError(
            f"Trial {number} of study {study.study_name!r} failed: {told(failure)}. The study has ended "
            f"there; what it had found is in MLflow. Give catch=({type(failure).__name__},) to go on then."
        ) from failure
    if callbacks.failure is not None:
        raise HPOError(
            f"A callback of study {study.study_name!r} failed: {told(callbacks.failure)}."
        ) from callbacks.failure


class _Callbacks:
    """What happens after each trial: the study's run is told, and the user's callbacks are called in it."""

    def __init__(self, study_run: StudyRun, request: Request) -> None:
        self._study_run = study_run
        self._request = request
        self.failure: Exception | None = None

    def __call__(self, study: optuna.Study, trial: FrozenTrial) -> None:
        try:
            self._study_run.tell_progress()
        except NotRecorded:
            _log.debug("the progress of the study is told after the next trial")
        wanted = self._request.n_trials
        # Other processes may be at work on the same study.
        if wanted is not None and counts_of(self._study_run.trials()).total >= wanted:
            study.stop()
        try:
            with only_active(self._study_run.run):
                for callback in self._request.callbacks:
                    callback(study, trial)
        except Exception as error:  # a callback of the user's; it is raised on
            self.failure = self.failure or error
            study.stop()
            raise


def _wants_bar(request: Request) -> bool:
    # Without an end in sight there is nothing to show; Optuna would warn.
    measurable = request.n_trials is not None or (request.timeout is not None and request.n_jobs == 1)
    wanted = sys.stderr.isatty() if request.progress is None else request.progress
    return measurable and wanted


def _closed(study_run: StudyRun, objective: TrackedObjective, status: str, request: Request) -> int:
    """Writes what is owed, and the summary, and ends the study's run; returns how many trials are missing."""
    missing = objective.settled()
    said = write_summary(study_run, request.include_plotlyjs)
    client, run_id = study_run.client, study_run.run_id
    try:
        study_run.calls.make(lambda: client.set_terminated(run_id, status))
    except NotRecorded:
        said = False
    finish_monitor(run_id)
    if missing or not said:
        _log.warning(
            "mlflow-sysmetrics: study %r is not complete on the tracking server (trials missing there: %d). "
            "Optuna has all of it: optimize() of the same study, in the same storage, writes the rest.",
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
        best_run_id=None if best is None else best.user_attrs.get(outcome.RUN),
        pareto_trial_numbers=tuple(sorted(trial.number for trial in front)),
        total_trials=counts.total,
        completed_trials=counts.completed,
        pruned_trials=counts.pruned,
        failed_trials=counts.failed,
        running_trials=counts.running,
        unrecorded_trials=missing,
        study=study,
    )
