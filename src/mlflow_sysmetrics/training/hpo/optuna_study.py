"""Makes a study of Optuna, or goes on with one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import optuna

from mlflow_sysmetrics.training.hpo import marks
from mlflow_sysmetrics.training.hpo.objectives import Objectives
from mlflow_sysmetrics.training.hpo.strategies import pruner_of, sampler_of


def opened_study(  # noqa: PLR0913 - those of a study
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
    """Returns a study; its arguments are those of `OptunaRunner`.

    Raises:
        ValueError: an argument makes no sense, or a study of this name has other objectives.
        optuna.exceptions.DuplicatedStudyError: there is one, and it is not to be gone on with.
    """
    of_pruner = pruner_of(pruner, pruner_config)
    of_sampler = sampler_of(
        sampler, sampler_config, seed, several=objectives.several
    )  # checked before a study is made
    study = optuna.create_study(
        study_name=name,
        storage=storage,
        directions=[optuna.study.StudyDirection[one.upper()] for one in objectives.directions],
        pruner=of_pruner,
        sampler=of_sampler,
        load_if_exists=load_if_exists,
    )
    _check_objectives(study, objectives)
    if seed is not None and (done := len(study.get_trials(deepcopy=False))):
        # The same seed would suggest what the first trials had once more.
        study.sampler = sampler_of(sampler, sampler_config, seed + done, several=objectives.several)
    return study


def _check_objectives(study: optuna.Study, objectives: Objectives) -> None:
    directions = tuple(direction.name.lower() for direction in study.directions)
    if directions != objectives.directions:
        raise ValueError(
            f"Study {study.study_name!r} in the storage has the directions {', '.join(directions)}, and "
            f"{', '.join(objectives.directions)} were asked for. A study keeps them: take another name."
        )
    metrics = study.user_attrs.get(marks.METRICS)
    if metrics is None:
        study.set_user_attr(marks.METRICS, list(objectives.metrics))
    elif tuple(metrics) != objectives.metrics:
        raise ValueError(
            f"Study {study.study_name!r} in the storage optimises {', '.join(metrics)}, and "
            f"{', '.join(objectives.metrics)} was asked for. A study keeps its metrics: take another name."
        )
