"""The run of a trial while the trial is carried out: active in its thread, and ended as the trial ends."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import mlflow
import optuna
from mlflow.entities import Metric, Param, RunTag
from optuna.trial import FrozenTrial

from mlflow_sysmetrics.mlflow_api import fluent_state
from mlflow_sysmetrics.mlflow_api.active_runs import discard
from mlflow_sysmetrics.mlflow_api.fluent_state import (
    finish_monitor,
    left_active,
    one_stack_for_all_threads,
    only_active,
    run_stack,
)
from mlflow_sysmetrics.runtime.process_identity import this_process
from mlflow_sysmetrics.training.hpo import outcome
from mlflow_sysmetrics.training.hpo.objectives import Objectives
from mlflow_sysmetrics.training.hpo.outcome import Outcome
from mlflow_sysmetrics.training.hpo.store_calls import (
    NotRecorded,
    StoreCalls,
    params_of,
    tag_value,
    trial_run_name,
    write,
)
from mlflow_sysmetrics.training.hpo.study_run import StudyRun

# FOLDED trial_record: What a trial's run says of the trial: pure, so that it can be written late, or twice.

#: The tag by which the run of a trial is found.
NUMBER = "optuna.trial_number"
STATE = "optuna.trial_state"
#: The tag that says why a trial did not complete.
ENDED_BECAUSE = "hpo.ended_because"


def params_of_trial(study_name: str, number: int, params: Mapping[str, object]) -> list[Param]:
    """Returns the parameters of a trial's run."""
    known = {
        "trial_number": str(number),
        **params_of("hpo", params),
        "study_name": tag_value(study_name)[:500],  # the shortest limit of any MLflow
    }
    return [Param(key, value) for key, value in known.items()]


def metrics_of_trial(trial: FrozenTrial, outcome: Outcome, objectives: Objectives) -> list[Metric]:
    """Returns the metrics of a trial's run: its values, and what it has reported on the way as a curve."""
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


def tags_of_trial(outcome: Outcome) -> list[RunTag]:
    """Returns the tags that say how a trial has ended."""
    tags = [RunTag(STATE, outcome.state.name)]
    if outcome.reason is not None:
        tags.append(RunTag(ENDED_BECAUSE, tag_value(outcome.reason)))
    return tags


# FOLDED trial_publication: Writes all that is to say of a trial that has ended, into its run or into one that is made for it now.

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


def _late_run(study_run: StudyRun, trial: FrozenTrial) -> Any:
    """Makes the run of a trial that could not be made when it began."""
    name = trial_run_name(trial.number)
    began = trial.datetime_start
    return study_run.client.create_run(
        study_run.experiment_id,
        start_time=None if began is None else int(began.timestamp() * 1000),
        tags=fluent_state.run_tags(below(study_run, trial.number), name),
        run_name=name,
    )


_log = logging.getLogger("mlflow_sysmetrics")


class TrialRun:
    """The run of one trial.

    Attributes:
        number: of the trial, Optuna's.
        run_id: None where it could not be started yet.
        outcome: how the trial has ended; None as long as it has not.
        recorded: whether all that is to say of it is on the server.
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
        """How long the trial has been carried out."""
        return time.monotonic() - self._began

    @contextmanager
    def active(self) -> Iterator[None]:
        """Starts the run and makes it the one active run of this thread for a ``with`` block.

        Where it cannot be started none is active: what the objective function logs then makes a run, which
        becomes the trial's at its end.
        """
        study_run = self._study_run
        self._trial.set_user_attr(outcome.PARENT, study_run.run_id)
        self._trial.set_user_attr(outcome.PROCESS, this_process())
        with only_active():
            try:
                run = _started_below(
                    study_run.run,
                    study_run.calls,
                    run_name=trial_run_name(self.number),
                    experiment_id=study_run.experiment_id,
                    tags=below(study_run, self.number),
                    log_system_metrics=study_run.log_system_metrics,
                )
            except NotRecorded:
                pass
            else:
                self._take(run)
                run_stack().append(run)
            self._began = time.monotonic()
            yield

    def _take(self, run: Any) -> None:
        self.run_id = str(run.info.run_id)
        self._trial.set_user_attr(outcome.RUN, self.run_id)

    def tell_params(self, params: Mapping[str, object]) -> None:
        """Writes the parameters at the beginning, so that a trial that dies has them."""
        run_id, study_run = self.run_id, self._study_run
        if run_id is None:
            return
        told = params_of_trial(study_run.study.study_name, self.number, params)
        try:
            study_run.calls.make(lambda: write(study_run.client, run_id, params=told))
        except NotRecorded:
            return  # they are written again at the end

    def end(self, outcome: Outcome) -> None:
        """Ends the run, and before it those that were started in it; the first call counts.

        Called in the trial's own thread, or in another for a trial that does not come to an end.
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
        """Replaces how the trial has ended; `record` writes it."""
        self.outcome = outcome
        self.recorded = False

    def record(self) -> None:
        """Writes how the trial has ended; where the server is away, `recorded` stays False."""
        outcome = self.outcome
        if outcome is None:
            return
        trial = self._study_run.trials()[self.number]
        try:
            self.run_id = publish(self._study_run, trial, outcome, self.run_id)
        except NotRecorded:
            return
        self.recorded = True

    def _adopt(self, run_id: str) -> None:
        """Makes a run that the objective function's logging has made the trial's."""
        study_run = self._study_run
        tags = {**below(study_run, self.number), "mlflow.runName": trial_run_name(self.number)}
        pairs = [RunTag(key, value) for key, value in tags.items()]
        try:
            study_run.calls.make(lambda: write(study_run.client, run_id, tags=pairs))
        except NotRecorded:
            return
        self.run_id = run_id

    def _end_stray(self, run_id: str, status: str) -> None:
        client = self._study_run.client
        try:
            self._study_run.calls.make(lambda: client.set_terminated(run_id, status))
        except NotRecorded:
            _log.debug("run %s, which a trial has left open, may be left RUNNING", run_id)
        finish_monitor(run_id)


def _started_below(parent: Any, calls: StoreCalls, **named: Any) -> Any:
    """Starts a run below another by `mlflow.start_run` and returns it; it is not yet active here.

    Raises:
        NotRecorded: it could not be started in time.
    """

    def start() -> Any:
        # As the one active run its parent is the new run's parent in every MLflow; `parent_run_id=` came
        # with 2.15, and costs a request.
        with only_active(parent):
            return mlflow.start_run(nested=True, **named)

    # Where threads share the active runs, another thread would change what is active here.
    return calls.make(start, undo=discard, here=one_stack_for_all_threads())
