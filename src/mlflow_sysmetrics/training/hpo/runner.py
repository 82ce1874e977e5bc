"""`OptunaRunner`: an Optuna study tracked in MLflow."""

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
    """Searches hyperparameters with Optuna and tracks the study and each trial as MLflow runs.

    Args:
        study_name: the name of the study, in the storage and in MLflow.
        direction: "maximize" or "minimize".
        metric: the name of what the objective function returns, such as "val_f1_macro".
        storage: where Optuna keeps the study: a database URL such as ``sqlite:///study.db``, or an Optuna
            storage. None keeps it in memory, so that no other process can resume it. MLflow's own database is
            refused: Optuna needs one of its own.
        directions: the directions of several objectives, instead of `direction`.
        metrics: the names of several objectives, instead of `metric`.
        sampler: an Optuna sampler, or one of tpe, random, grid, cmaes, gp, qmc, nsgaii, nsgaiii. The default
            is tpe, and nsgaii for several objectives.
        pruner: an Optuna pruner, or one of none, median, percentile, hyperband, successive_halving,
            threshold. The default is none: every trial runs to its end.
        sampler_config: options of the sampler, and optionally its name under "type".
        pruner_config: options of the pruner, and optionally its name under "type".
        seed: seed of the sampler. It makes the suggestions reproducible if trials run one after the other.
        load_if_exists: resume the study of this name in the storage; False raises if it exists.

    Attributes:
        study: the Optuna study.

    Raises:
        ValueError: an argument is invalid, the storage is MLflow's database, or the study in it has other
            objectives.
        ModuleNotFoundError: Optuna is not installed; names the extra that installs it.
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
        from mlflow_sysmetrics.training.hpo.optuna_study import open_optuna_study

        if not isinstance(study_name, str) or not study_name.strip():
            raise ValueError(f"study_name must be a non-empty string, got {study_name!r}")
        self._objectives = objectives_of(direction, metric, directions, metrics)
        self.study = open_optuna_study(
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
        """The id of the study's run; None before the first `optimize`."""
        from mlflow_sysmetrics.training.hpo.optuna_study import STUDY_RUN_ID

        run_id = self.study.user_attrs.get(STUDY_RUN_ID)
        return None if run_id is None else str(run_id)

    def optimize(  # noqa: PLR0917 - existing programs pass the first six by position
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
        """Runs trials until the study has `n_trials`, and returns the result.

        The run of the study is created or resumed, and stays open until this method returns. If a run is
        active, the run of the study becomes its child; the active run stays active and is not changed. Each
        trial has its own run below that of the study, which is the active run of the trial's thread.

        Args:
            objective_fn: called with the trial and a dict of parameters; without a search space, with the
                trial only. Returns the value, or a sequence of values for several objectives.
            n_trials: how many trials the study has when it is done, including failed trials and those of
                earlier processes. A program that died can therefore simply be started again. None continues
                until the timeout, `study.stop()` or Ctrl-C.
            search_space: maps each parameter to a distribution of Optuna, or to a dict such as
                ``{"type": "loguniform", "low": 1e-5, "high": 1e-1}``.
            mlflow_tracking_uri: where the runs are written; by default the current tracking URI.
            mlflow_experiment_name: the experiment of the runs, created if it does not exist; by default the
                current experiment.
            n_jobs: how many trials run in parallel, in threads; -1 means one per CPU.
            timeout: seconds after which no new trial starts.
            catch: exceptions of the objective function that do not end the study.
            callbacks: called after each trial, as in Optuna, with the run of the study active.
            parent_run_name: the name of the study's run; by default HPO_ and the name of the study.
            include_plotlyjs: how hpo_optimization_history.html gets plotly.js: "cdn" downloads it when the
                page is opened, True embeds it (4 MB).
            log_system_metrics: as in `mlflow.start_run`, for all runs of the study.
            progress: show a progress bar; by default only on a terminal.

        Raises:
            ValueError: an argument is invalid; nothing was logged.
            HPOError: a trial raised an exception that is not in `catch`, or the study could not continue. The
                results so far are in MLflow.
            KeyboardInterrupt: Ctrl-C; the results so far are in MLflow.
        """
        from mlflow_sysmetrics.mlflow_api.fluent_state import tracking_scope
        from mlflow_sysmetrics.training.hpo.search_space import distributions_of
        from mlflow_sysmetrics.training.hpo.study import Request, run_study

        request = Request(
            objective_fn=_callable(objective_fn),
            n_trials=_trial_count(n_trials),
            distributions=None if search_space is None else distributions_of(search_space),
            n_jobs=_job_count(n_jobs),
            timeout=_seconds(timeout),
            catch=_exception_types(catch),
            callbacks=tuple(callbacks or ()),
            parent_run_name=parent_run_name,
            include_plotlyjs=include_plotlyjs,
            log_system_metrics=log_system_metrics,
            progress=progress,
        )
        with tracking_scope(mlflow_tracking_uri, mlflow_experiment_name) as elsewhere:
            return run_study(self.study, self._objectives, request, below_active=not elsewhere)


def _callable(objective_fn: Callable[..., Any]) -> Callable[..., Any]:
    if not callable(objective_fn):
        raise ValueError(f"objective_fn must be callable, got {objective_fn!r}")
    return objective_fn


def _trial_count(n_trials: int | None) -> int | None:
    if n_trials is None:
        return None
    if isinstance(n_trials, bool) or not isinstance(n_trials, int) or n_trials < 1:
        raise ValueError(f"n_trials must be an integer >= 1 or None, got {n_trials!r}")
    return n_trials


def _job_count(n_jobs: int) -> int:
    from mlflow_sysmetrics.mlflow_api.fluent_state import one_stack_for_all_threads

    if isinstance(n_jobs, bool) or not isinstance(n_jobs, int) or not (n_jobs >= 1 or n_jobs == -1):
        raise ValueError(f"n_jobs must be an integer >= 1, or -1 for one per CPU, got {n_jobs!r}")
    jobs = (os.cpu_count() or 1) if n_jobs == -1 else n_jobs
    if jobs > 1 and one_stack_for_all_threads():
        raise ValueError(
            f"n_jobs must be 1 with the installed MLflow, whose threads share one active run, got {n_jobs}. "
            "Update MLflow, or start several processes with n_jobs=1 and one storage."
        )
    return jobs


def _seconds(timeout: float | None) -> float | None:
    if timeout is None:
        return None
    if isinstance(timeout, bool) or not isinstance(timeout, (int, float)) or not timeout > 0:
        raise ValueError(f"timeout must be a number of seconds > 0 or None, got {timeout!r}")
    return float(timeout)


def _exception_types(catch: type[Exception] | Iterable[type[Exception]]) -> tuple[type[Exception], ...]:
    types = (catch,) if isinstance(catch, type) else tuple(catch)
    for one in types:
        if not (isinstance(one, type) and issubclass(one, Exception)):
            raise ValueError(f"catch must contain only subclasses of Exception, got {one!r}")
    return types
