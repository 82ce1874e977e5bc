"""A search space: what may be written in a configuration file, or Optuna's own distributions."""

from __future__ import annotations

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
        space: by the parameter's name, a distribution of Optuna, or a mapping such as
            ``{"type": "loguniform", "low": 1e-5, "high": 1e-1}``. The types are categorical, int, float,
            uniform and loguniform.

    Raises:
        ValueError: one of them cannot be searched; names it, what is wrong and what is allowed.
    """
    if not isinstance(space, Mapping):
        raise ValueError(f"search_space maps names to what is searched, and is {space!r}.")
    return {_name(name): _distribution(name, given) for name, given in space.items()}


def suggested(trial: optuna.Trial, distributions: Mapping[str, BaseDistribution]) -> dict[str, Any]:
    """Returns a value for each parameter, as this trial's sampler suggests."""
    return {name: _suggest(trial, name, one) for name, one in distributions.items()}


def _suggest(trial: optuna.Trial, name: str, one: BaseDistribution) -> Any:
    if isinstance(one, FloatDistribution):
        return trial.suggest_float(name, one.low, one.high, step=one.step, log=one.log)
    if isinstance(one, IntDistribution):
        return trial.suggest_int(name, one.low, one.high, step=one.step, log=one.log)
    return trial.suggest_categorical(name, cast("CategoricalDistribution", one).choices)


def _name(name: object) -> str:
    if not isinstance(name, str) or not name:
        raise ValueError(f"search_space[{name!r}]: a parameter's name is a string.")
    return name


def _distribution(name: str, given: object) -> BaseDistribution:
    where = f"search_space[{name!r}]"
    if isinstance(given, (FloatDistribution, IntDistribution, CategoricalDistribution)):
        return given
    if not isinstance(given, Mapping):
        raise ValueError(
            f"{where} is {given!r}: neither a distribution of Optuna nor a mapping such as "
            '{"type": "float", "low": 0.0, "high": 0.5}.'
        )
    kind = given.get("type")
    if kind not in _KEYS:
        raise ValueError(f"{where} has the type {kind!r}; known are {', '.join(_KEYS)}.")
    if strange := [key for key in given if key != "type" and key not in _KEYS[kind]]:
        known = ", ".join(sorted(_KEYS[kind]))
        raise ValueError(f"{where} has {strange[0]!r}, which type {kind!r} does not know; it knows {known}.")
    try:
        return _categorical(given) if kind == "categorical" else _numeric(kind, given)
    except KeyError as missing:
        raise ValueError(f"{where} lacks {missing.args[0]!r}, which type {kind!r} needs.") from None
    except (TypeError, ValueError) as error:
        raise ValueError(f"{where} cannot be searched: {error}") from None


def _categorical(given: Mapping[str, Any]) -> BaseDistribution:
    choices = given["choices"]
    if isinstance(choices, str) or not hasattr(choices, "__iter__"):
        raise ValueError(f"choices is a list, and is {choices!r}.")
    choices = list(choices)
    for one in choices:
        if one is not None and not isinstance(one, (bool, int, float, str)):
            raise ValueError(
                f"the choice {one!r} is no text, number, bool or None, and a storage could not keep it; "
                "name the choices, and look them up by name in the objective function."
            )
    return CategoricalDistribution(choices)


def _numeric(kind: str, given: Mapping[str, Any]) -> BaseDistribution:
    whole = kind == "int"
    log = kind == "loguniform" or given.get("log", False)
    if not isinstance(log, bool):
        raise ValueError(f"log is true or false, and is {log!r}.")
    low, high = (_number(given[key], key, whole=whole) for key in ("low", "high"))
    step = given.get("step")
    if step is not None:
        step = _number(step, "step", whole=whole)
        if step <= 0:
            raise ValueError(f"step is {step}, and has to be above 0.")
        if log and (not whole or step != 1):
            raise ValueError("log and step cannot be had together.")
    if low > high:
        raise ValueError(f"low is {low}, which is above high, {high}.")
    if log and low <= 0:
        raise ValueError(f"low is {low}, and on a logarithmic scale it has to be above 0.")
    if whole:
        return IntDistribution(int(low), int(high), log=log, step=1 if step is None else int(step))
    return FloatDistribution(float(low), float(high), log=log, step=step)


def _number(value: object, key: str, *, whole: bool) -> float:
    if isinstance(value, str):  # YAML 1.1 reads 1e-5 as text
        try:
            value = int(value) if whole else float(value)
        except ValueError:
            raise ValueError(f"{key} is {value!r}, which is no {'whole ' * whole}number.") from None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or value != value:  # noqa: PLR0124 - NaN
        raise ValueError(f"{key} is {value!r}, which is no {'whole ' * whole}number.")
    if value in {float("inf"), float("-inf")} or (whole and value != int(value)):
        raise ValueError(f"{key} is {value!r}, which is no {'whole' if whole else 'finite'} number.")
    return value
