"""The run of a study: found again where there is one, and told how far the study has come."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import mlflow
import optuna
from mlflow import MlflowClient
from mlflow.entities import Metric
from mlflow.exceptions import MlflowException
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from mlflow_sysmetrics.mlflow_api.fluent_state import (
    active_experiment_id,
    only_active,
    run_stack,
    use_experiment,
)
from mlflow_sysmetrics.training.hpo import outcome
from mlflow_sysmetrics.training.hpo.objectives import Objectives
from mlflow_sysmetrics.training.hpo.store_calls import StoreCalls, tag_value, write

# FOLDED progress: How far a study has come: counts, and the best value as a curve over its trials. Pure.


@dataclass(frozen=True)
class Counts:
    """How many trials of a study have come how far; one that is only queued has not begun."""

    completed: int
    pruned: int
    failed: int
    running: int

    @property
    def total(self) -> int:
        """Trials that were begun."""
        return self.completed + self.pruned + self.failed + self.running


class BestSoFar(NamedTuple):
    """The best value among the trials up to a number.

    Attributes:
        number: of the trial that completed.
        value: the best one among it and those with lower numbers.
        at: milliseconds since 1970 when it completed; the same each time this is asked, so that a point that
            is written twice is one point.
    """

    number: int
    value: float
    at: int


def counts_of(trials: Sequence[FrozenTrial]) -> Counts:
    """Returns how many trials have come how far."""

    def count(state: TrialState) -> int:
        return sum(trial.state is state for trial in trials)

    return Counts(
        completed=count(TrialState.COMPLETE),
        pruned=count(TrialState.PRUNED),
        failed=count(TrialState.FAIL),
        running=count(TrialState.RUNNING),
    )


def best_curve(
    trials: Sequence[FrozenTrial], direction: StudyDirection, *, settled_only: bool
) -> Iterator[BestSoFar]:
    """Yields a point per completed trial, in the order of their numbers.

    Args:
        trials: in the order of their numbers.
        direction: which value is better.
        settled_only: ends before the first trial that is under way. Of parallel trials a later one may end
            first; a point that was written then could be wrong, and MLflow takes nothing back.
    """
    best: float | None = None
    for trial in trials:
        if settled_only and not trial.state.is_finished():
            return
        if trial.state is not TrialState.COMPLETE or trial.datetime_complete is None or not _feasible(trial):
            continue
        value = float(trial.values[0])
        better = min if direction is StudyDirection.MINIMIZE else max
        best = value if best is None else better(best, value)
        yield BestSoFar(trial.number, best, int(trial.datetime_complete.timestamp() * 1000))


def _feasible(trial: FrozenTrial) -> bool:
    """Returns whether a trial keeps to the constraints of its study, as Optuna's own best trial has to."""
    return all(value <= 0 for value in trial.system_attrs.get("constraints") or ())


_log = logging.getLogger("mlflow_sysmetrics")
_GONE = frozenset({"RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"})


@dataclass(frozen=True)
class StudyRun:
    """A study, its run, and the way to the server that has both.

    Attributes:
        study: of Optuna.
        objectives: what is optimised.
        run: MLflow's active run; active nowhere but where it is made so.
        client: of the run's server.
        calls: the way to it that does not hold up a study.
        log_system_metrics: as of `mlflow.start_run`, for the runs of the trials.
    """

    study: optuna.Study
    objectives: Objectives
    run: Any
    client: MlflowClient
    calls: StoreCalls
    log_system_metrics: bool | None
    _turn: threading.Lock = field(default_factory=threading.Lock, repr=False)
    _written: set[int] = field(default_factory=set, repr=False)  # numbers of the points of the curve

    @property
    def run_id(self) -> str:
        """The run of the study."""
        return str(self.run.info.run_id)

    @property
    def experiment_id(self) -> str:
        """The experiment of all runs of the study."""
        return str(self.run.info.experiment_id)

    def trials(self) -> list[FrozenTrial]:
        """Returns all trials of the study, in the order of their numbers."""
        return list(self.study.get_trials(deepcopy=False))

    def tell_progress(self) -> None:
        """Writes how far the study has come, unless another thread is just doing so: no trial waits for that.

        Raises:
            NotRecorded: the server has not taken it; the next time it is written with the rest.
        """
        if not self._turn.acquire(blocking=False):
            return
        try:
            self._tell(settled_only=True)
        finally:
            self._turn.release()

    def tell_end(self) -> None:
        """Writes how far the study has come, when it has ended.

        Raises:
            NotRecorded: the server has not taken it.
        """
        self._tell(settled_only=False)

    def _tell(self, *, settled_only: bool) -> None:
        trials = self.trials()
        metrics = self._counts(trials)
        points: list[BestSoFar] = []
        if not self.objectives.several:
            curve = best_curve(trials, self.study.direction, settled_only=settled_only)
            points = [point for point in curve if point.number not in self._written]
            key = f"best_{self.objectives.metrics[0]}"
            metrics.extend(Metric(key, point.value, point.at, point.number) for point in points)
        self.calls.make(lambda: write(self.client, self.run_id, metrics=metrics))
        self._written.update(point.number for point in points)

    def _counts(self, trials: Sequence[FrozenTrial]) -> list[Metric]:
        counts = counts_of(trials)
        told: dict[str, float] = {
            "total_trials": counts.total,
            "completed_trials": counts.completed,
            "pruned_trials": counts.pruned,
            "failed_trials": counts.failed,
        }
        if self.objectives.several:
            told["pareto_trials"] = len(self.study.best_trials)
        elif (best := best_trial_of(self.study)) is not None:
            told["best_trial_number"] = best.number
        at = time.time_ns() // 1_000_000
        # MLflow shows the point with the highest step: by then most trials had been begun.
        return [Metric(key, float(value), at, counts.total) for key, value in told.items()]


def best_trial_of(study: optuna.Study) -> FrozenTrial | None:
    """Returns the best trial of a study with one objective; None where none has completed."""
    try:
        return study.best_trial
    except ValueError:
        return None


def opened(
    study: optuna.Study,
    objectives: Objectives,
    *,
    run_name: str | None,
    log_system_metrics: bool | None,
    below_active: bool,
) -> StudyRun:
    """Returns the run of a study: the one that it has, RUNNING again, or a new one.

    Args:
        study: of Optuna.
        objectives: what is optimised.
        run_name: of a new one; by default HPO_ and the name of the study.
        log_system_metrics: as of `mlflow.start_run`.
        below_active: whether a new one belongs below the run that is active here, if any.

    Raises:
        Exception: what MLflow raises; without it there is no study.
    """
    client = MlflowClient()
    wanted: dict[str, Any] = {"log_system_metrics": log_system_metrics}
    earlier = _earlier(study, client)
    if earlier is not None:
        _stay_in_experiment(earlier)
        with only_active():
            run = mlflow.start_run(run_id=earlier.info.run_id, **wanted)
    else:
        with only_active(*(run_stack() if below_active else ())):
            run = mlflow.start_run(
                run_name=run_name or f"HPO_{study.study_name}",
                nested=True,
                tags=_tags(study, objectives),
                **wanted,
            )
        study.set_user_attr(outcome.PARENT, run.info.run_id)
    calls = StoreCalls(mlflow.get_tracking_uri())
    return StudyRun(study, objectives, run, client, calls, log_system_metrics)


def _earlier(study: optuna.Study, client: MlflowClient) -> Any:
    run_id = study.user_attrs.get(outcome.PARENT)
    if run_id is None:
        return None
    try:
        run = client.get_run(run_id)
    except MlflowException as error:
        if error.error_code not in _GONE:
            raise
        why = "is not on this tracking server"
    else:
        if run.info.lifecycle_stage == "active":
            return run
        why = "was deleted"
    _log.warning(
        "mlflow-sysmetrics: the run %s of study %r %s; a new one begins, without its trials so far.",
        run_id,
        study.study_name,
        why,
    )
    return None


def _stay_in_experiment(run: Any) -> None:
    """Puts the experiment of a run in force: MLflow resumes no run of another, and shows no runs below it."""
    experiment_id = str(run.info.experiment_id)
    wanted = active_experiment_id()
    if wanted is not None and wanted != experiment_id:
        _log.warning(
            "mlflow-sysmetrics: the study goes on in its run %s, which is in experiment %s and not in %s.",
            run.info.run_id,
            experiment_id,
            wanted,
        )
    use_experiment(experiment_id)


def _tags(study: optuna.Study, objectives: Objectives) -> dict[str, str]:
    return {
        "mlflow_sysmetrics.kind": "hpo_study",
        "optuna.study_name": tag_value(study.study_name),
        "optuna.metric": tag_value(", ".join(objectives.metrics)),
        "optuna.direction": ", ".join(objectives.directions),
        "optuna.sampler": type(study.sampler).__name__,
        "optuna.pruner": type(study.pruner).__name__,
    }
