"""The study in Optuna's storage: opened or resumed, and the attributes that are kept there."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import optuna

from mlflow_sysmetrics.training.hpo.objectives import Objectives
from mlflow_sysmetrics.training.hpo.storage import check_storage
from mlflow_sysmetrics.training.hpo.strategies import pruner_of, sampler_of

# User attributes in Optuna's storage, by which a later process finds the runs of a study and its trials.
STUDY_RUN_ID = "mlflow_parent_run_id"  #: of a study: its run; of a trial: the study run it was started for
TRIAL_RUN_ID = "mlflow_run_id"  #: of a trial: its run
PROCESS = "mlflow_sysmetrics_process"  #: of a trial: the process that runs it, see `runtime.process_identity`
ERROR = "error"  #: of a trial: what it raised, or what was wrong with what it returned
METRICS = "metrics"  #: of a study: the names of its objectives


def open_optuna_study(
    name: str,
    objectives: Objectives,
    storage: str | optuna.storages.BaseStorage | None,
    *,
    sampler: object,
    sampler_config: Mapping[str, Any] | None,
    pruner: object,
    pruner_config: Mapping[str, Any] | None,
    seed: int | None,
    load_if_exists: bool,
) -> optuna.Study:
    """Creates a study, or loads the one of that name; the arguments are those of `OptunaRunner`.

    Raises:
        ValueError: an argument is invalid, the storage is MLflow's database, or the existing study has other
            objectives.
        optuna.exceptions.DuplicatedStudyError: the study exists and `load_if_exists` is False.
    """
    # Both are built first, so that invalid options leave no study in the storage.
    chosen_pruner = pruner_of(pruner, pruner_config)
    chosen_sampler = sampler_of(sampler, sampler_config, seed, several=objectives.several)
    check_storage(storage)
    study = optuna.create_study(
        study_name=name,
        storage=storage,
        directions=[optuna.study.StudyDirection[one.upper()] for one in objectives.directions],
        pruner=chosen_pruner,
        sampler=chosen_sampler,
        load_if_exists=load_if_exists,
    )
    _check_objectives(study, objectives)
    if seed is not None and (existing := len(study.get_trials(deepcopy=False))):
        # The unchanged seed would suggest the parameters of the first trials again.
        study.sampler = sampler_of(sampler, sampler_config, seed + existing, several=objectives.several)
    return study


def _check_objectives(study: optuna.Study, objectives: Objectives) -> None:
    directions = tuple(direction.name.lower() for direction in study.directions)
    if directions != objectives.directions:
        raise ValueError(
            f"Study {study.study_name!r} exists with the directions {', '.join(directions)}, got "
            f"{', '.join(objectives.directions)}. Directions cannot change; choose another study_name."
        )
    metrics = study.user_attrs.get(METRICS)
    if metrics is None:
        study.set_user_attr(METRICS, list(objectives.metrics))
    elif tuple(metrics) != objectives.metrics:
        raise ValueError(
            f"Study {study.study_name!r} exists with the metrics {', '.join(metrics)}, got "
            f"{', '.join(objectives.metrics)}. Metrics cannot change; choose another study_name."
        )


def trial_run_name(number: int) -> str:
    """Returns the name of a trial's run. Names count from 1, Optuna's trial numbers from 0."""
    return f"trial_{number + 1:04d}"
