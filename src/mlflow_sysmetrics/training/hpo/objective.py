"""The objective function as Optuna calls it: the user's, within its trial's run."""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Callable, Mapping
from typing import Any

import optuna
from optuna.distributions import BaseDistribution

from mlflow_sysmetrics.training.hpo import marks, outcome
from mlflow_sysmetrics.training.hpo.interruption import Interruption
from mlflow_sysmetrics.training.hpo.search_space import suggested
from mlflow_sysmetrics.training.hpo.study_run import StudyRun
from mlflow_sysmetrics.training.hpo.trial_run import TrialRun


class TrackedObjective:
    """Carries out trials, each in its own run, and remembers how they ended.

    Args:
        function: of the user.
        distributions: what to search; None where the function suggests by itself.
        study_run: of the study.
        catch: what a trial may raise without ending the study.
        interruption: interrupts the trials that are under way in other threads than the main one.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        distributions: Mapping[str, BaseDistribution] | None,
        study_run: StudyRun,
        catch: tuple[type[Exception], ...],
        interruption: Interruption,
    ) -> None:
        self._function = function
        self._distributions = distributions
        self._study_run = study_run
        self._catch = catch
        self._interruption = interruption
        self._context = contextvars.copy_context()  # MLflow keeps its workspace there
        self._lock = threading.Lock()
        self.runs: dict[int, TrialRun] = {}
        self.first_failure: tuple[int, BaseException] | None = None

    def __call__(self, trial: optuna.Trial) -> tuple[float, ...]:
        """Returns what the function has returned, as Optuna wants it."""
        run = TrialRun(self._study_run, trial)
        with self._lock:
            self.runs[trial.number] = run
        try:
            with run.active():
                return self._carried_out(trial, run)
        except optuna.TrialPruned:
            raise
        except BaseException as error:  # the objective's: its run is to end as it did, and it is raised on
            run.end(outcome.raised(error, run.seconds))  # where even its run could not be made active
            if not isinstance(error, self._catch):
                with self._lock:
                    self.first_failure = self.first_failure or (trial.number, error)
                trial.study.stop()
            if not isinstance(error, (Exception, KeyboardInterrupt)):  # SystemExit: Optuna lets it through
                trial.study.tell(trial, state=optuna.trial.TrialState.FAIL, skip_if_finished=True)
            raise

    def settled(self) -> int:
        """Writes what is missing of the trials that were carried out here; returns how many still are."""
        trials = self._study_run.trials()
        missing = 0
        for number, run in list(self.runs.items()):
            if run.outcome is not None and run.outcome.state is not trials[number].state:
                run.correct(outcome.interrupted(run.seconds))  # between the end of its run and its own
            if run.outcome is None or run.recorded:
                continue
            # A server that has just been silent is not asked for each of a hundred trials.
            if not (missing and self._study_run.calls.silent):
                run.record()
            missing += not run.recorded
        return missing

    def _carried_out(self, trial: optuna.Trial, run: TrialRun) -> tuple[float, ...]:
        try:
            with self._interruption.reaches():
                returned = self._called(trial, run)
        except optuna.TrialPruned as pruned:
            run.end(outcome.pruned(str(pruned), run.seconds))
            raise
        except BaseException as error:  # whatever it is, it is how its run ends
            if not isinstance(error, KeyboardInterrupt):
                trial.set_user_attr(marks.ERROR, outcome.told(error))
            run.end(outcome.raised(error, run.seconds))
            raise
        try:
            values = self._study_run.objectives.values_of(returned)
        except ValueError as error:
            trial.set_user_attr(marks.ERROR, str(error))
            run.end(outcome.unusable(str(error), run.seconds))
            return ()  # not as many as there are objectives: Optuna calls that failed, and goes on
        run.end(outcome.completed(values, run.seconds))
        return values

    def _called(self, trial: optuna.Trial, run: TrialRun) -> object:
        if self._distributions is None:
            run.tell_params({})
            return self._within_context(trial)
        params = suggested(trial, self._distributions)
        run.tell_params(params)
        return self._within_context(trial, params)

    def _within_context(self, *arguments: object) -> object:
        if threading.current_thread() is threading.main_thread():
            return self._function(*arguments)
        return self._context.copy().run(self._function, *arguments)
