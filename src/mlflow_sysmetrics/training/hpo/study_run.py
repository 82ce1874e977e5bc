"""The MLflow run of a study: found again or created, and updated with the progress of the study."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

import mlflow
import optuna
from mlflow import MlflowClient
from mlflow.entities import Metric, Param, RunTag
from mlflow.exceptions import MlflowException
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from mlflow_sysmetrics.mlflow_api.fluent_state import (
    active_experiment_id,
    only_active,
    run_stack,
    use_experiment,
)
from mlflow_sysmetrics.mlflow_api.one_attempt import log_batch, set_terminated
from mlflow_sysmetrics.mlflow_api.outcomes import is_not_found
from mlflow_sysmetrics.training.hpo import optuna_study
from mlflow_sysmetrics.training.hpo.objectives import Objectives
from mlflow_sysmetrics.training.hpo.store_calls import StoreCalls
from mlflow_sysmetrics.training.run_writes import batches, tag_value

_log = logging.getLogger("mlflow_sysmetrics")


@dataclass(frozen=True)
class StudyRun:
    """A study, its run, and the connection to the server that has the run.

    Attributes:
        study: the Optuna study.
        objectives: what is optimized.
        run: MLflow's run object; it is active only where code makes it so.
        client: a client of the run's server.
        calls: makes calls to that server without stopping the study.
        log_system_metrics: as in `mlflow.start_run`, for the runs of the trials.
    """

    study: optuna.Study
    objectives: Objectives
    run: Any
    client: MlflowClient
    calls: StoreCalls
    log_system_metrics: bool | None
    _writing: threading.Lock = field(default_factory=threading.Lock, repr=False)
    _written: set[int] = field(default_factory=set, repr=False)  # trial numbers of the points on the curve

    @property
    def run_id(self) -> str:
        """The id of the study's run."""
        return str(self.run.info.run_id)

    @property
    def experiment_id(self) -> str:
        """The experiment of all runs of the study."""
        return str(self.run.info.experiment_id)

    def trials(self) -> list[FrozenTrial]:
        """Returns all trials of the study, ordered by number."""
        return list(self.study.get_trials(deepcopy=False))

    def write(
        self,
        run_id: str,
        *,
        metrics: Sequence[Metric] = (),
        params: Sequence[Param] = (),
        tags: Sequence[RunTag] = (),
    ) -> None:
        """Writes metrics, parameters and tags to a run of the study.

        Raises:
            NotRecorded: the server did not accept them in time.
        """
        for batch in batches(metrics, params, tags):
            self.calls.write(partial(log_batch, self.client, self.calls.tracking_uri, run_id, batch))

    def end(self, run_id: str, status: str, ended_at: int | None = None) -> None:
        """Ends a run of the study now, or at a time in milliseconds since 1970.

        Raises:
            NotRecorded: the server did not accept it in time.
        """
        self.calls.write(
            partial(set_terminated, self.client, self.calls.tracking_uri, run_id, status, ended_at)
        )

    def log_progress(self) -> None:
        """Writes the progress of the study, unless another thread is writing it: trials do not wait for that.

        Raises:
            NotRecorded: the server did not accept it; the next call writes it too.
        """
        if not self._writing.acquire(blocking=False):
            return
        try:
            self._log(settled_only=True)
        finally:
            self._writing.release()

    def log_final_progress(self) -> None:
        """Writes the progress of the study after its last trial.

        Raises:
            NotRecorded: the server did not accept it.
        """
        self._log(settled_only=False)

    def _log(self, *, settled_only: bool) -> None:
        trials = self.trials()
        metrics = self._count_metrics(trials)
        points: list[BestSoFar] = []
        if not self.objectives.several:
            curve = best_curve(trials, self.study.direction, settled_only=settled_only)
            points = [point for point in curve if point.number not in self._written]
            key = f"best_{self.objectives.metrics[0]}"
            metrics.extend(Metric(key, point.value, point.at, point.number) for point in points)
        self.write(self.run_id, metrics=metrics)
        self._written.update(point.number for point in points)

    def _count_metrics(self, trials: Sequence[FrozenTrial]) -> list[Metric]:
        counts = counts_of(trials)
        values: dict[str, float] = {
            "total_trials": counts.total,
            "completed_trials": counts.completed,
            "pruned_trials": counts.pruned,
            "failed_trials": counts.failed,
        }
        if self.objectives.several:
            values["pareto_trials"] = len(self.study.best_trials)
        elif (best := best_trial_of(self.study)) is not None:
            values["best_trial_number"] = best.number
        at = time.time_ns() // 1_000_000
        # MLflow shows the point with the highest step, and the total only grows.
        return [Metric(key, float(value), at, counts.total) for key, value in values.items()]


def open_study_run(
    study: optuna.Study,
    objectives: Objectives,
    *,
    run_name: str | None,
    log_system_metrics: bool | None,
    below_active: bool,
) -> StudyRun:
    """Resumes the run of a study, or creates one.

    Args:
        study: the Optuna study.
        objectives: what is optimized.
        run_name: the name of a new run; by default HPO_ and the name of the study.
        log_system_metrics: as in `mlflow.start_run`.
        below_active: makes a new run a child of the run that is active in this thread, if any.

    Raises:
        Exception: what MLflow raises; without this run there is no study.
    """
    client = MlflowClient()
    options: dict[str, Any] = {"log_system_metrics": log_system_metrics}
    existing = _existing_run(study, client)
    if existing is not None:
        _use_experiment_of(existing)
        with only_active():
            run = mlflow.start_run(run_id=existing.info.run_id, **options)
    else:
        with only_active(*(run_stack() if below_active else ())):
            run = mlflow.start_run(
                run_name=run_name or f"HPO_{study.study_name}",
                nested=True,
                tags=_tags(study, objectives),
                **options,
            )
        study.set_user_attr(optuna_study.STUDY_RUN_ID, run.info.run_id)
    calls = StoreCalls(mlflow.get_tracking_uri())
    return StudyRun(study, objectives, run, client, calls, log_system_metrics)


def _existing_run(study: optuna.Study, client: MlflowClient) -> Any:
    run_id = study.user_attrs.get(optuna_study.STUDY_RUN_ID)
    if run_id is None:
        return None
    try:
        run = client.get_run(run_id)
    except MlflowException as error:
        if not is_not_found(error):
            raise
        why = "is not on this tracking server"
    else:
        if run.info.lifecycle_stage == "active":
            return run
        why = "was deleted"
    _log.warning(
        "mlflow-sysmetrics: run %s of study %r %s. The study continues in a new run, without the runs of its "
        "earlier trials.",
        run_id,
        study.study_name,
        why,
    )
    return None


def _use_experiment_of(run: Any) -> None:
    """Sets the experiment of a run: MLflow resumes only runs of the experiment that is set."""
    experiment_id = str(run.info.experiment_id)
    requested = active_experiment_id()
    if requested is not None and requested != experiment_id:
        _log.warning(
            "mlflow-sysmetrics: the study resumes its run %s, which is in experiment %s, not in the "
            "requested experiment %s.",
            run.info.run_id,
            experiment_id,
            requested,
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


@dataclass(frozen=True)
class Counts:
    """How many trials of a study are in each state; queued trials do not count."""

    completed: int
    pruned: int
    failed: int
    running: int

    @property
    def total(self) -> int:
        """Trials that were started."""
        return self.completed + self.pruned + self.failed + self.running


def counts_of(trials: Sequence[FrozenTrial]) -> Counts:
    """Counts trials by state."""

    def count(state: TrialState) -> int:
        return sum(trial.state is state for trial in trials)

    return Counts(
        completed=count(TrialState.COMPLETE),
        pruned=count(TrialState.PRUNED),
        failed=count(TrialState.FAIL),
        running=count(TrialState.RUNNING),
    )


class BestSoFar(NamedTuple):
    """A point on the curve of the best value.

    Attributes:
        number: number of a completed trial.
        value: the best value of that trial and all with lower numbers.
        at: when the trial completed, in milliseconds since 1970. It never changes, so that a point that is
            written twice is one point.
    """

    number: int
    value: float
    at: int


def best_curve(
    trials: Sequence[FrozenTrial], direction: StudyDirection, *, settled_only: bool
) -> Iterator[BestSoFar]:
    """Yields one point per completed trial, ordered by number.

    Args:
        trials: ordered by number.
        direction: which value is better.
        settled_only: stops before the first unfinished trial. Of parallel trials a later one may finish
            first; a point written then could become wrong, and MLflow cannot take points back.
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


def best_trial_of(study: optuna.Study) -> FrozenTrial | None:
    """Returns the best trial of a study with one objective; None if no trial completed."""
    try:
        return study.best_trial
    except ValueError:
        return None


def _feasible(trial: FrozenTrial) -> bool:
    """Returns whether a trial satisfies the study's constraints, which Optuna requires of its best trial."""
    return all(value <= 0 for value in trial.system_attrs.get("constraints") or ())
