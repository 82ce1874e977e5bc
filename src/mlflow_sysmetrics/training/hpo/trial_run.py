"""The run of a trial while the trial is carried out: active in its thread, and ended as the trial ends."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import optuna
from mlflow.entities import RunTag

from mlflow_sysmetrics.training.hpo import marks
from mlflow_sysmetrics.training.hpo.active_runs import (
    finish_monitor,
    left_active,
    only_active,
    run_stack,
    started_below,
)
from mlflow_sysmetrics.training.hpo.outcome import Outcome
from mlflow_sysmetrics.training.hpo.processes import this_process
from mlflow_sysmetrics.training.hpo.run_names import trial_run_name
from mlflow_sysmetrics.training.hpo.run_writer import write
from mlflow_sysmetrics.training.hpo.store_calls import NotRecorded
from mlflow_sysmetrics.training.hpo.study_run import StudyRun
from mlflow_sysmetrics.training.hpo.trial_publication import below, publish
from mlflow_sysmetrics.training.hpo.trial_record import params_of_trial

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
        self._trial.set_user_attr(marks.PARENT, study_run.run_id)
        self._trial.set_user_attr(marks.PROCESS, this_process())
        with only_active():
            try:
                run = started_below(
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

    def _take(self, run: Any) -> None:  # noqa: ANN401 - of MLflow
        self.run_id = str(run.info.run_id)
        self._trial.set_user_attr(marks.RUN, self.run_id)

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
