"""Samplers and pruners of Optuna, built from names and options as a configuration file gives them."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import optuna

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
T = TypeVar("T")


def sampler_of(
    given: object, config: Mapping[str, object] | None, seed: int | None, *, several: bool
) -> optuna.samplers.BaseSampler:
    """Returns the sampler described by the arguments of `OptunaRunner`.

    Args:
        given: a sampler, its name, a mapping with its name under "type", or None.
        config: its options; also its name under "type" if `given` is None.
        seed: makes the suggestions reproducible if trials run one after the other.
        several: True for several objectives, which have another default sampler.

    Raises:
        ValueError: the sampler does not exist, or does not accept an option.
    """
    if isinstance(given, optuna.samplers.BaseSampler):
        _check_no_config("sampler", config)
        if seed is not None:
            raise ValueError(
                f"seed={seed} cannot be combined with a sampler object; pass the seed to {given!r} itself"
            )
        return given
    name, options = _chosen("sampler", given, config, _SAMPLERS, "nsgaii" if several else "tpe")
    if seed is not None:
        if options.setdefault("seed", seed) != seed:
            raise ValueError(
                f"seed={seed} contradicts the seed {options['seed']!r} in sampler_config; pass only one"
            )
        if "seed" not in inspect.signature(_SAMPLERS[name]).parameters:
            raise ValueError(f"sampler {name!r} does not accept a seed, got seed={seed}; leave it out")
    return _built("sampler", _SAMPLERS[name], name, options)


def pruner_of(given: object, config: Mapping[str, object] | None) -> optuna.pruners.BasePruner:
    """Returns the pruner described by the arguments of `OptunaRunner`; None and "none" never prune.

    Raises:
        ValueError: the pruner does not exist, or does not accept an option.
    """
    if isinstance(given, optuna.pruners.BasePruner):
        _check_no_config("pruner", config)
        return given
    # To Optuna, None means its median pruner, which would surprise anyone who wrote "none" in a file.
    name, options = _chosen("pruner", given, config, _PRUNERS, "none")
    return _built("pruner", _PRUNERS[name], name, options)


def _check_no_config(kind: str, config: Mapping[str, object] | None) -> None:
    if config:
        raise ValueError(
            f"{kind}_config={dict(config)!r} requires the {kind} as a name, got an object; "
            "pass the options to the object itself"
        )


def _chosen(
    kind: str,
    given: object,
    config: Mapping[str, object] | None,
    known: Mapping[str, object],
    default: str,
) -> tuple[str, dict[str, Any]]:
    options: dict[str, Any] = dict(given) if isinstance(given, Mapping) else dict(config or {})
    if isinstance(given, Mapping):
        _check_no_config(kind, config)
        given = None
    if "type" in options:
        if given is not None and given != options["type"]:
            raise ValueError(
                f"{kind}={given!r} contradicts the type {options['type']!r} in {kind}_config; pass only one"
            )
        given = options.pop("type")
    name = default if given is None else given
    plain = name.lower().replace("-", "_") if isinstance(name, str) else ""
    for candidate in (plain, plain.removesuffix(kind).replace("_", "")):
        if candidate in known:
            return candidate, options
    raise ValueError(f"{kind} must be one of {', '.join(known)} or an Optuna {kind}, got {name!r}")


def _built(kind: str, factory: Callable[..., T], name: str, options: Mapping[str, Any]) -> T:
    try:
        return factory(**options)
    except (TypeError, ValueError) as error:
        raise ValueError(f"invalid options for {kind} {name!r}: {dict(options)!r}: {error}") from error
