"""`OptunaRunner`: a study of Optuna, tracked by MLflow."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from mlflow_sysmetrics.training.extras import needed
from mlflow_sysmetrics.training.hpo.objectives import objectives_of

if TYPE_CHECKING:
    import optuna

    from mlflow_sysmetrics.training.hpo.result import HPOResult


class OptunaRunner:
    """Searches hyperparameters with Optuna, and has MLflow show a run of the study and one for each trial.

    Args:
        study_name: the study, in the storage and in MLflow.
        direction: "maximize" or "minimize".
        metric: what the objective function returns, such as "val_f1_macro".
        storage: where Optuna keeps the study: an address of a database such as ``sqlite:///study.db``, or a
            storage of Optuna. None keeps it in memory, so it cannot be resumed by another process.
        directions: of several objectives, in place of `direction`.
        metrics: the names of several objectives, in place of `metric`.
        sampler: a sampler of Optuna, or tpe, random, grid, cmaes, gp, qmc, nsgaii, nsgaiii. By default tpe,
            and nsgaii of several objectives.
        pruner: a pruner of Optuna, or none, median, percentile, hyperband, successive_halving, threshold. By
            default none: every trial is carried out to its end.
        sampler_config: the sampler's options, and its name under "type".
        pruner_config: the pruner's options, likewise.
        seed: of the sampler. Trials that run one after the other are then suggested the same again.
        load_if_exists: go on with a study of this name in the storage; False refuses.

    Attributes:
        study: Optuna's study.
        parent_run_id: the run of the study, once `optimize` has made it; None before.

    Raises:
        ValueError: an argument makes no sense, or the study in the storage has other objectives.
        ModuleNotFoundError: Optuna is not installed; says which extra brings it.
    """

    def __init__(
        self,
        study_name: str,
        direction: str = "maximize",
        metric: str | None = None,
        storage: str | optuna.storages.BaseStorage | None = None,
        *,
        directions: Sequence[str] | None = None,
        metrics: Sequence[str] | None = None,
        sampler: str | Mapping[str, Any] | optuna.samplers.BaseSampler | None = None,
        pruner: str | Mapping[str, Any] | optuna.pruners.BasePruner | None = None,
        sampler_config: Mapping[str, Any] | None = None,
        pruner_config: Mapping[str, Any] | None = None,
        seed: int | None = None,
        load_if_exists: bool = True,
    ) -> None:
        needed("optuna", extra="hpo", by="OptunaRunner")
        from mlflow_sysmetrics.training.hpo.strategies import opened_study

        if not isinstance(study_name, str) or not study_name.strip():
            raise ValueError(f"study_name is a name, and is {study_name!r}.")
        self._objectives = objectives_of(direction, metric, directions, metrics)
        self.study = opened_study(
            study_name,
            self._objectives,
            storage,
            sampler=sampler,
            sampler_config=sampler_config,
            pruner=pruner,
            pruner_config=pruner_config,
            seed=seed,
            load_if_exists=load_if_exists,
        )

    @property
    def parent_run_id(self) -> str | None:
        """The run of the study; None before the first `optimize`."""
        from mlflow_sysmetrics.training.hpo import outcome

        run_id = self.study.user_attrs.get(outcome.PARENT)
        return None if run_id is None else str(run_id)

    def optimize(  # noqa: PLR0917 - the first six are positional in programs that exist
        self,
        objective_fn: Callable[..., Any],
        n_trials: int | None = None,
        search_space: Mapping[str, Any] | None = None,
        mlflow_tracking_uri: str | None = None,
        mlflow_experiment_name: str | None = None,
        n_jobs: int = 1,
        *,
        timeout: float | None = None,
        catch: type[Exception] | Iterable[type[Exception]] = (),
        callbacks: Iterable[Callable[[optuna.Study, optuna.trial.FrozenTrial], None]] | None = None,
        parent_run_name: str | None = None,
        include_plotlyjs: bool | str = "cdn",
        log_system_metrics: bool | None = None,
        progress: bool | None = None,
    ) -> HPOResult:
        """Carries out trials until the study has as many as wanted, and returns what it has found.

        The run of the study is made, or found again, and is open for as long as this runs; it is put below
        the run that is active, which stays active and is not touched. Each trial runs in a run below that
        of the study, which is the active run of its thread.

        Args:
            objective_fn: called with the trial and a dict of parameters; without a search space, with the
                trial only. Returns the value, or a sequence of them where there are several objectives.
            n_trials: how many trials the study is to have in the end, with those of earlier processes,
                failed ones and dead ones. So a program that has died is simply started again. None goes on
                until the timeout, `study.stop()` or Ctrl-C.
            search_space: a distribution of Optuna for each parameter, or a dict such as
                ``{"type": "loguniform", "low": 1e-5, "high": 1e-1}``.
            mlflow_tracking_uri: where the runs are; by default the tracking URI that is in force.
            mlflow_experiment_name: the experiment of the runs, made if there is none; by default the one
                that is in force.
            n_jobs: how many trials at a time, in threads; -1 is one per CPU.
            timeout: in seconds; after it no trial is begun.
            catch: what the objective function may raise without ending the study.
            callbacks: called after each trial as Optuna does, with the run of the study active.
            parent_run_name: by default HPO_ and the name of the study.
            include_plotlyjs: how hpo_optimization_history.html comes by plotly's library: "cdn" loads it
                when it is looked at, True puts 4 MB into the page.
            log_system_metrics: as of `mlflow.start_run`, for all these runs.
            progress: whether a progress bar is shown; by default on a terminal.

        Raises:
            ValueError: an argument makes no sense; nothing was logged.
            HPOError: a trial has raised what is not in `catch`, or the study could not go on. What it had
                found is in MLflow.
            KeyboardInterrupt: Ctrl-C; likewise.
        """
        from mlflow_sysmetrics.mlflow_api.fluent_state import tracking_scope
        from mlflow_sysmetrics.training.hpo import study as of_study
        from mlflow_sysmetrics.training.hpo.search_space import distributions_of

        request = of_study.Request(
            objective_fn=_callable(objective_fn),
            n_trials=_count(n_trials),
            distributions=None if search_space is None else distributions_of(search_space),
            n_jobs=_jobs(n_jobs),
            timeout=_seconds(timeout),
            catch=_exceptions(catch),
            callbacks=tuple(callbacks or ()),
            parent_run_name=parent_run_name,
            include_plotlyjs=include_plotlyjs,
            log_system_metrics=log_system_metrics,
            progress=progress,
        )
        with tracking_scope(mlflow_tracking_uri, mlflow_experiment_name) as elsewhere:
            return of_study.optimized(self.study, self._objectives, request, below_active=not elsewhere)


def _callable(objective_fn: Callable[..., Any]) -> Callable[..., Any]:
    if not callable(objective_fn):
        raise ValueError(f"objective_fn is a function, and is {objective_fn!r}.")
    return objective_fn


def _count(n_trials: int | None) -> int | None:
    if n_trials is None:
        return None
    if isinstance(n_trials, bool) or not isinstance(n_trials, int) or n_trials < 1:
        raise ValueError(f"n_trials is a whole number from 1 up, or None; it is {n_trials!r}.")
    return n_trials


def _jobs(n_jobs: int) -> int:
    from mlflow_sysmetrics.mlflow_api.fluent_state import one_stack_for_all_threads

    if isinstance(n_jobs, bool) or not isinstance(n_jobs, int) or not (n_jobs >= 1 or n_jobs == -1):
        raise ValueError(f"n_jobs is a whole number from 1 up, or -1 for one per CPU; it is {n_jobs!r}.")
    jobs = (os.cpu_count() or 1) if n_jobs == -1 else n_jobs
    if jobs > 1 and one_stack_for_all_threads():
        raise ValueError(
            f"n_jobs={n_jobs} needs an MLflow in which each thread has its own active run; the installed "
            "one has one for all. Update MLflow, or start several processes with n_jobs=1 and one storage."
        )
    return jobs


def _seconds(timeout: float | None) -> float | None:
    if timeout is None:
        return None
    if isinstance(timeout, bool) or not isinstance(timeout, (int, float)) or not timeout > 0:
        raise ValueError(f"timeout is a number of seconds above 0, or None; it is {timeout!r}.")
    return float(timeout)


def _exceptions(catch: type[Exception] | Iterable[type[Exception]]) -> tuple[type[Exception], ...]:
    kinds = (catch,) if isinstance(catch, type) else tuple(catch)
    for kind in kinds:
        if not (isinstance(kind, type) and issubclass(kind, Exception)):
            raise ValueError(f"catch has {kind!r}, which is no type of exception.")
    return kinds
