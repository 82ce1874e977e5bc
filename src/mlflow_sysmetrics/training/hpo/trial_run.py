"""The MLflow run of a trial: active in the trial's thread, and ended with the outcome of the trial."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import optuna
from mlflow.entities import Metric, Param, RunTag
from optuna.trial import FrozenTrial

from mlflow_sysmetrics.mlflow_api.active_runs import enter_run
from mlflow_sysmetrics.mlflow_api.fluent_state import finish_monitor, left_active, only_active
from mlflow_sysmetrics.mlflow_api.one_attempt import create_run
from mlflow_sysmetrics.runtime.process_identity import this_process
from mlflow_sysmetrics.training.hpo import optuna_study
from mlflow_sysmetrics.training.hpo.child_runs import NUMBER_TAG, PARENT_TAG, STATE_TAG, run_of_trial
from mlflow_sysmetrics.training.hpo.objectives import Objectives
from mlflow_sysmetrics.training.hpo.outcome import Outcome
from mlflow_sysmetrics.training.hpo.store_calls import NotRecorded
from mlflow_sysmetrics.training.hpo.study_run import StudyRun
from mlflow_sysmetrics.training.run_writes import params_of, tag_value

_REASON_TAG = "hpo.ended_because"
_LONGEST_STUDY_NAME = 500  # the shortest limit for a parameter in any MLflow
_log = logging.getLogger("mlflow_sysmetrics")


class TrialRun:
    """The run of one trial.

    Attributes:
        number: Optuna's number of the trial.
        run_id: None if the run could not be started yet.
        outcome: how the trial ended; None while it is running.
        recorded: True if the server has the complete outcome.
    """

    def __init__(self, study_run: StudyRun, trial: optuna.Trial) -> None:
        self.number = trial.number
        self.run_id: str | None = None
        self.outcome: Outcome | None = None
        self.recorded = False
        self._study_run = study_run
        self._trial = trial
        self._began = time.monotonic()
        self._lock = threading.Lock()
        self._thread = threading.get_ident()

    @property
    def seconds(self) -> float:
        """How long the trial has been running."""
        return time.monotonic() - self._began

    @contextmanager
    def active(self) -> Iterator[None]:
        """Starts the run and makes it the only active run of this thread inside the ``with`` block.

        If it cannot be started, no run is active. MLflow then starts one when the objective function logs
        something, and `end` adopts that run as the trial's.
        """
        self._trial.set_user_attr(optuna_study.STUDY_RUN_ID, self._study_run.run_id)
        self._trial.set_user_attr(optuna_study.PROCESS, this_process())
        with only_active():
            try:
                run = self._start()
            except NotRecorded:
                pass
            else:
                self.run_id = str(run.info.run_id)
                self._trial.set_user_attr(optuna_study.TRIAL_RUN_ID, self.run_id)
                enter_run(run, self._study_run.log_system_metrics)
            self._began = time.monotonic()
            yield

    def log_params(self, params: Mapping[str, object]) -> None:
        """Writes the parameters at the start, so that the run of a trial that dies has them."""
        run_id, study_run = self.run_id, self._study_run
        if run_id is None:
            return
        pairs = _trial_params(study_run.study.study_name, self.number, params)
        try:
            study_run.write(run_id, params=pairs)
        except NotRecorded:
            return  # they are written again at the end

    def end(self, outcome: Outcome) -> None:
        """Ends the run, after the runs that were started inside it. Only the first call has an effect.

        Called in the trial's own thread, or in another one if the trial does not return.
        """
        with self._lock:
            if self.outcome is not None:
                return
            self.outcome = outcome
        strays = left_active(self.run_id) if threading.get_ident() == self._thread else []
        if self.run_id is None and strays:
            self._adopt(strays.pop())
        for stray in strays:
            self._end_stray(stray, outcome.status)
        self.record()
        if self.run_id is not None:
            finish_monitor(self.run_id)

    def correct(self, outcome: Outcome) -> None:
        """Replaces the outcome; `record` writes it."""
        self.outcome = outcome
        self.recorded = False

    def record(self) -> None:
        """Writes the outcome; if the server does not accept it, `recorded` stays False."""
        if self.outcome is None:
            return
        trial = self._study_run.trials()[self.number]
        try:
            self.run_id = write_outcome(self._study_run, trial, self.outcome, self.run_id)
        except NotRecorded:
            return
        self.recorded = True

    def _start(self) -> Any:
        """Creates the run below the study's and returns it; it is not active in this thread yet.

        Raises:
            NotRecorded: the server did not answer in time.
        """
        study_run = self._study_run
        run_id = _create(study_run, self.number, None)
        return study_run.calls.make(lambda: study_run.client.get_run(run_id))

    def _adopt(self, run_id: str) -> None:
        """Makes a run that MLflow started for the objective function the run of this trial."""
        study_run = self._study_run
        tags = {
            **_link_tags(study_run, self.number),
            "mlflow.runName": optuna_study.trial_run_name(self.number),
        }
        pairs = [RunTag(key, value) for key, value in tags.items()]
        try:
            study_run.write(run_id, tags=pairs)
        except NotRecorded:
            return
        self.run_id = run_id

    def _end_stray(self, run_id: str, status: str) -> None:
        try:
            self._study_run.end(run_id, status)
        except NotRecorded:
            _log.debug("run %s was left open by a trial and may stay RUNNING", run_id)
        finish_monitor(run_id)


def write_outcome(study_run: StudyRun, trial: FrozenTrial, outcome: Outcome, run_id: str | None) -> str:
    """Writes how a trial ended and returns its run, which is found or created if `run_id` is None.

    Writing twice has the same effect as writing once.

    Raises:
        NotRecorded: the server did not accept all of it.
    """
    own_run_id = run_id or _run_created_late(study_run, trial)
    study_run.write(
        own_run_id,
        metrics=trial_metrics(trial, outcome, study_run.objectives),
        params=_trial_params(study_run.study.study_name, trial.number, trial.params),
        tags=trial_tags(outcome),
    )
    error = outcome.error
    if error is not None:
        study_run.calls.make(lambda: study_run.client.log_text(own_run_id, error, "error.txt"))
    study_run.end(own_run_id, outcome.status, outcome.ended_at)
    return own_run_id


def trial_metrics(trial: FrozenTrial, outcome: Outcome, objectives: Objectives) -> list[Metric]:
    """Returns the metrics of a trial's run: its values, and the reported intermediate values as a curve."""
    at = outcome.ended_at
    metrics = [Metric("trial/number", float(trial.number), at, 0)]
    if outcome.duration_seconds is not None:
        metrics.append(Metric("trial/duration_seconds", outcome.duration_seconds, at, 0))
    for name, value in zip(objectives.metrics, outcome.values or (), strict=False):
        metrics.append(Metric(f"trial/{name}", value, at, 0))
    metrics.extend(
        Metric("trial/intermediate_value", float(value), at, step)
        for step, value in sorted(trial.intermediate_values.items())
        if math.isfinite(value)
    )
    return metrics


def trial_tags(outcome: Outcome) -> list[RunTag]:
    """Returns the tags that describe how a trial ended."""
    tags = [RunTag(STATE_TAG, outcome.state.name)]
    if outcome.reason is not None:
        tags.append(RunTag(_REASON_TAG, tag_value(outcome.reason)))
    return tags


def _trial_params(study_name: str, number: int, params: Mapping[str, object]) -> list[Param]:
    known = {
        "trial_number": str(number),
        **params_of("hpo", params),
        "study_name": tag_value(study_name)[:_LONGEST_STUDY_NAME],
    }
    return [Param(key, value) for key, value in known.items()]


def _link_tags(study_run: StudyRun, number: int) -> dict[str, str]:
    """Returns the tags that link a run to its trial and to the run of the study."""
    return {PARENT_TAG: study_run.run_id, NUMBER_TAG: str(number)}


def _run_created_late(study_run: StudyRun, trial: FrozenTrial) -> str:
    """Returns the run of a trial that has none yet as far as this process knows; creates it if it has none.

    Raises:
        NotRecorded: the server did not answer in time.
    """
    found = study_run.calls.make(lambda: run_of_trial(study_run, trial.number))
    if found is not None:
        return found
    began = trial.datetime_start
    return _create(study_run, trial.number, None if began is None else int(began.timestamp() * 1000))


def _create(study_run: StudyRun, number: int, started_at: int | None) -> str:
    """Creates the run of a trial, which started now or at a time in milliseconds since 1970.

    Raises:
        NotRecorded: the server did not answer in time.
    """

    def attempt(seconds: float) -> str:
        return create_run(
            study_run.client,
            study_run.calls.tracking_uri,
            study_run.experiment_id,
            optuna_study.trial_run_name(number),
            _link_tags(study_run, number),
            started_at=started_at,
            seconds=seconds,
        )

    return study_run.calls.create(attempt, lambda: run_of_trial(study_run, number))
