"""A search space, from what a configuration file can hold or from Optuna's own distributions."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, cast

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

_KEYS = {
    "categorical": {"choices"},
    "int": {"low", "high", "log", "step"},
    "float": {"low", "high", "log", "step"},
    "uniform": {"low", "high"},
    "loguniform": {"low", "high"},
}


def distributions_of(space: Mapping[str, object]) -> dict[str, BaseDistribution]:
    """Returns the distribution of each parameter.

    Args:
        space: maps the name of each parameter to a distribution of Optuna, or to a mapping such as
            ``{"type": "loguniform", "low": 1e-5, "high": 1e-1}``. The types are categorical, int, float,
            uniform and loguniform.

    Raises:
        ValueError: an entry is invalid; names the parameter, what was given and what is allowed.
    """
    if not isinstance(space, Mapping):
        raise ValueError(f"search_space must map parameter names to distributions, got {space!r}")
    return {_name(name): _distribution(name, given) for name, given in space.items()}


def suggested(trial: optuna.Trial, distributions: Mapping[str, BaseDistribution]) -> dict[str, Any]:
    """Returns a value for each parameter, suggested by the sampler of the trial's study."""
    return {name: _suggest(trial, name, one) for name, one in distributions.items()}


def _suggest(trial: optuna.Trial, name: str, one: BaseDistribution) -> Any:
    if isinstance(one, FloatDistribution):
        return trial.suggest_float(name, one.low, one.high, step=one.step, log=one.log)
    if isinstance(one, IntDistribution):
        return trial.suggest_int(name, one.low, one.high, step=one.step, log=one.log)
    return trial.suggest_categorical(name, cast("CategoricalDistribution", one).choices)


def _name(name: object) -> str:
    if not isinstance(name, str) or not name:
        raise ValueError(f"search_space keys must be non-empty strings, got {name!r}")
    return name


def _distribution(name: str, given: object) -> BaseDistribution:
    where = f"search_space[{name!r}]"
    if isinstance(given, (FloatDistribution, IntDistribution, CategoricalDistribution)):
        return given
    if not isinstance(given, Mapping):
        raise ValueError(
            f"{where} must be a distribution of Optuna or a mapping such as "
            f'{{"type": "float", "low": 0.0, "high": 0.5}}, got {given!r}'
        )
    kind = given.get("type")
    if kind not in _KEYS:
        raise ValueError(f"{where}: type must be one of {', '.join(_KEYS)}, got {kind!r}")
    if unknown := [key for key in given if key != "type" and key not in _KEYS[kind]]:
        allowed = ", ".join(sorted(_KEYS[kind]))
        raise ValueError(f"{where}: type {kind!r} accepts only {allowed}, got {unknown[0]!r}")
    try:
        return _categorical(given) if kind == "categorical" else _numeric(kind, given)
    except KeyError as missing:
        raise ValueError(f"{where}: type {kind!r} requires {missing.args[0]!r}") from None
    except (TypeError, ValueError) as error:
        raise ValueError(f"{where}: {error}") from None


def _categorical(given: Mapping[str, Any]) -> BaseDistribution:
    choices = given["choices"]
    if isinstance(choices, str) or not hasattr(choices, "__iter__"):
        raise ValueError(f"choices must be a list, got {choices!r}")
    choices = list(choices)
    if not choices:
        raise ValueError("choices must not be empty, got []")
    for one in choices:
        if one is not None and not isinstance(one, (bool, int, float, str)):
            raise ValueError(
                f"each choice must be a string, number, bool or None, which a storage can keep, got {one!r}; "
                "use names as choices and look them up in the objective function"
            )
    return CategoricalDistribution(choices)


def _numeric(kind: str, given: Mapping[str, Any]) -> BaseDistribution:
    whole = kind == "int"
    log = kind == "loguniform" or given.get("log", False)
    if not isinstance(log, bool):
        raise ValueError(f"log must be true or false, got {log!r}")
    low, high = (_number(given[key], key, whole=whole) for key in ("low", "high"))
    step = given.get("step")
    if step is not None:
        step = _number(step, "step", whole=whole)
        if step <= 0:
            raise ValueError(f"step must be > 0, got {step}")
        if log and (not whole or step != 1):
            raise ValueError(f"log and step cannot be combined, got step={step}; leave one out")
    if low > high:
        raise ValueError(f"low must be <= high, got low={low} and high={high}")
    if log and low <= 0:
        raise ValueError(f"low must be > 0 on a logarithmic scale, got {low}")
    if whole:
        return IntDistribution(int(low), int(high), log=log, step=1 if step is None else int(step))
    return FloatDistribution(float(low), float(high), log=log, step=step)


def _number(value: object, key: str, *, whole: bool) -> float:
    wanted = "an integer" if whole else "a finite number"
    if isinstance(value, str):  # YAML 1.1 reads 1e-5 as a string
        try:
            value = int(value) if whole else float(value)
        except ValueError:
            raise ValueError(f"{key} must be {wanted}, got {value!r}") from None
    if (
        isinstance(value, bool)
        or not isinstance(value, (int, float))
        or (isinstance(value, float) and not math.isfinite(value))
        or (whole and value != int(value))
    ):
        raise ValueError(f"{key} must be {wanted}, got {value!r}")
    return value
