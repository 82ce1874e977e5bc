"""Samplers and pruners, from their names and options as a configuration file has them."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import optuna

from mlflow_sysmetrics.training.hpo import outcome
from mlflow_sysmetrics.training.hpo.objectives import Objectives

# FOLDED optuna_study: Makes a study of Optuna, or goes on with one.


def opened_study(
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
    metrics = study.user_attrs.get(outcome.METRICS)
    if metrics is None:
        study.set_user_attr(outcome.METRICS, list(objectives.metrics))
    elif tuple(metrics) != objectives.metrics:
        raise ValueError(
            f"Study {study.study_name!r} in the storage optimises {', '.join(metrics)}, and "
            f"{', '.join(objectives.metrics)} was asked for. A study keeps its metrics: take another name."
        )


_SAMPLERS: dict[str, Callable[..., optuna.samplers.BaseSampler]] = {
    "tpe": optuna.samplers.TPESampler,
    "random": optuna.samplers.RandomSampler,
    "grid": optuna.samplers.GridSampler,
    "cmaes": optuna.samplers.CmaEsSampler,
    "gp": optuna.samplers.GPSampler,
    "qmc": optuna.samplers.QMCSampler,
    "nsgaii": optuna.samplers.NSGAIISampler,
    "nsgaiii": optuna.samplers.NSGAIIISampler,
}
_PRUNERS: dict[str, Callable[..., optuna.pruners.BasePruner]] = {
    "none": optuna.pruners.NopPruner,
    "median": optuna.pruners.MedianPruner,
    "percentile": optuna.pruners.PercentilePruner,
    "hyperband": optuna.pruners.HyperbandPruner,
    "successive_halving": optuna.pruners.SuccessiveHalvingPruner,
    "threshold": optuna.pruners.ThresholdPruner,
}


def sampler_of(
    given: object, config: Mapping[str, object] | None, seed: int | None, *, several: bool
) -> optuna.samplers.BaseSampler:
    """Returns the sampler that the arguments of `OptunaRunner` mean.

    Args:
        given: a sampler, its name, or None.
        config: its options, and its name under "type" where `given` is None.
        seed: makes it repeat itself, where trials run one after the other.
        several: whether there are several objectives, which has another default.

    Raises:
        ValueError: there is no such sampler, or it has no such option.
    """
    if isinstance(given, optuna.samplers.BaseSampler):
        _nothing_beside("sampler", config)
        if seed is not None:
            raise ValueError(f"seed={seed} belongs into the sampler that is given: {given!r}.")
        return given
    name, options = _chosen("sampler", given, config, _SAMPLERS, "nsgaii" if several else "tpe")
    if seed is not None:
        if options.setdefault("seed", seed) != seed:
            raise ValueError(f"seed={seed}, and sampler_config has the seed {options['seed']!r}.")
        if "seed" not in inspect.signature(_SAMPLERS[name]).parameters:
            raise ValueError(f"The sampler {name!r} takes no seed.")
    made = _made("sampler", _SAMPLERS[name], name, options)
    assert isinstance(made, optuna.samplers.BaseSampler)  # noqa: S101 - for mypy
    return made


def pruner_of(given: object, config: Mapping[str, object] | None) -> optuna.pruners.BasePruner:
    """Returns the pruner that the arguments of `OptunaRunner` mean; None and "none" never prune.

    Raises:
        ValueError: there is no such pruner, or it has no such option.
    """
    if isinstance(given, optuna.pruners.BasePruner):
        _nothing_beside("pruner", config)
        return given
    # To Optuna None means its median pruner, which surprises whoever has written "none" into a file.
    name, options = _chosen("pruner", given, config, _PRUNERS, "none")
    made = _made("pruner", _PRUNERS[name], name, options)
    assert isinstance(made, optuna.pruners.BasePruner)  # noqa: S101 - as above
    return made


def _nothing_beside(what: str, config: Mapping[str, object] | None) -> None:
    if config:
        raise ValueError(
            f"{what}_config={dict(config)!r} goes with the name of a {what}, not with an object."
        )


def _chosen(
    what: str,
    given: object,
    config: Mapping[str, object] | None,
    known: Mapping[str, object],
    default: str,
) -> tuple[str, dict[str, Any]]:
    options: dict[str, Any] = dict(given) if isinstance(given, Mapping) else dict(config or {})
    if isinstance(given, Mapping):
        _nothing_beside(what, config)
        given = None
    if "type" in options:
        if given is not None and given != options["type"]:
            raise ValueError(f"{what}={given!r}, and {what}_config has the type {options['type']!r}.")
        given = options.pop("type")
    name = default if given is None else given
    plain = name.lower().replace("-", "_") if isinstance(name, str) else ""
    for candidate in (plain, plain.removesuffix(what).replace("_", "")):
        if candidate in known:
            return candidate, options
    raise ValueError(
        f"There is no {what} {name!r}; known are {', '.join(known)}, or give Optuna's own object."
    )


def _made(what: str, make: Callable[..., object], name: str, options: Mapping[str, Any]) -> object:
    try:
        return make(**options)
    except (TypeError, ValueError) as error:
        raise ValueError(f"The {what} {name!r} cannot be made of {dict(options)!r}: {error}") from error
