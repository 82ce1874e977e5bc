"""Search spaces, and the messages for invalid ones."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("optuna", reason="Optuna is not installed")

import optuna
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from mlflow_sysmetrics.training.hpo.search_space import distributions_of, suggested


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ({"type": "float", "low": 0, "high": 1}, FloatDistribution(0.0, 1.0)),
        ({"type": "float", "low": 0, "high": 1, "step": 0.25}, FloatDistribution(0.0, 1.0, step=0.25)),
        ({"type": "float", "low": 1e-3, "high": 1, "log": True}, FloatDistribution(1e-3, 1.0, log=True)),
        ({"type": "uniform", "low": 0, "high": 1}, FloatDistribution(0.0, 1.0)),
        ({"type": "loguniform", "low": "1e-5", "high": "1e-1"}, FloatDistribution(1e-5, 1e-1, log=True)),
        ({"type": "int", "low": 1, "high": 4}, IntDistribution(1, 4)),
        ({"type": "int", "low": 16, "high": 128, "step": 16}, IntDistribution(16, 128, step=16)),
        ({"type": "int", "low": 1, "high": 1024, "log": True}, IntDistribution(1, 1024, log=True)),
        ({"type": "categorical", "choices": ["a", 1, None]}, CategoricalDistribution(["a", 1, None])),
        (IntDistribution(1, 4), IntDistribution(1, 4)),
    ],
)
def test_an_entry_becomes_a_distribution(given: Any, meant: object) -> None:
    assert distributions_of({"name": given}) == {"name": meant}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"type": "integer", "low": 1, "high": 2}, "type must be one of categorical, int, .* got 'integer'"),
        ({"low": 1, "high": 2}, "type must be one of .* got None"),
        ({"type": "float", "low": 2, "high": 1}, "low must be <= high, got low=2 and high=1"),
        (
            {"type": "float", "low": 0, "high": 1, "log": True},
            "low must be > 0 on a logarithmic scale, got 0",
        ),
        ({"type": "loguniform", "low": 0, "high": 1}, "low must be > 0 on a logarithmic scale, got 0"),
        ({"type": "float", "high": 1}, "type 'float' requires 'low'"),
        ({"type": "categorical"}, "type 'categorical' requires 'choices'"),
        ({"type": "categorical", "choices": []}, "choices must not be empty"),
        ({"type": "categorical", "choices": "abc"}, "choices must be a list, got 'abc'"),
        ({"type": "categorical", "choices": [[1, 2]]}, r"must be a string, number, .* got \[1, 2\]"),
        ({"type": "int", "low": 0.5, "high": 1}, "low must be an integer, got 0.5"),
        ({"type": "int", "low": True, "high": 3}, "low must be an integer, got True"),
        ({"type": "int", "low": 0, "high": float("inf")}, "high must be an integer, got inf"),
        ({"type": "float", "low": "one", "high": 3}, "low must be a finite number, got 'one'"),
        ({"type": "float", "low": float("nan"), "high": 3}, "low must be a finite number, got nan"),
        ({"type": "float", "low": 0, "high": float("inf")}, "high must be a finite number, got inf"),
        ({"type": "float", "low": 0, "high": 1, "step": 0}, "step must be > 0, got 0"),
        ({"type": "float", "low": 1, "high": 2, "step": 0.5, "log": True}, "log and step cannot be combined"),
        ({"type": "float", "low": 1, "high": 2, "log": "yes"}, "log must be true or false, got 'yes'"),
        (
            {"type": "uniform", "low": 1, "high": 2, "steps": 2},
            "'uniform' accepts only high, low, got 'steps'",
        ),
        ([1, 2], r"must be a distribution of Optuna or a mapping .* got \[1, 2\]"),
    ],
)
def test_an_invalid_entry_is_named(given: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        distributions_of({"fine": {"type": "int", "low": 1, "high": 2}, "wrong": given})
    assert "search_space['wrong']" in str(caught.value)


def test_a_trial_suggests_a_value_for_each_parameter() -> None:
    space = distributions_of(
        {
            "depth": {"type": "int", "low": 2, "high": 8, "step": 2},
            "rate": {"type": "loguniform", "low": 1e-4, "high": 1e-2},
            "kind": {"type": "categorical", "choices": ["a", "b"]},
        }
    )
    trial = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=1)).ask()
    found = suggested(trial, space)
    assert found == trial.params
    assert found["depth"] in {2, 4, 6, 8}
    assert 1e-4 <= found["rate"] <= 1e-2
    assert found["kind"] in {"a", "b"}
