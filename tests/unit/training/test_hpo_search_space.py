"""What may be searched, and what is said of what may not."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("optuna", reason="spaces become distributions of Optuna")

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
def test_a_space_means_a_distribution(given: Any, meant: object) -> None:
    assert distributions_of({"name": given}) == {"name": meant}


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        ({"type": "integer", "low": 1, "high": 2}, "has the type 'integer'; known are categorical, int"),
        ({"low": 1, "high": 2}, "has the type None"),
        ({"type": "float", "low": 2, "high": 1}, "low is 2, which is above high, 1"),
        ({"type": "float", "low": 0, "high": 1, "log": True}, "low is 0, and on a logarithmic scale"),
        ({"type": "loguniform", "low": 0, "high": 1}, "low is 0, and on a logarithmic scale"),
        ({"type": "float", "high": 1}, "lacks 'low', which type 'float' needs"),
        ({"type": "categorical"}, "lacks 'choices'"),
        ({"type": "categorical", "choices": []}, "cannot be searched"),
        ({"type": "categorical", "choices": "abc"}, "choices is a list, and is 'abc'"),
        ({"type": "categorical", "choices": [[1, 2]]}, r"the choice \[1, 2\] is no text, number"),
        ({"type": "int", "low": 0.5, "high": 1}, "low is 0.5, which is no whole number"),
        ({"type": "int", "low": True, "high": 3}, "low is True, which is no whole number"),
        ({"type": "float", "low": "one", "high": 3}, "low is 'one', which is no number"),
        ({"type": "float", "low": float("nan"), "high": 3}, "low is nan, which is no number"),
        ({"type": "float", "low": 0, "high": float("inf")}, "high is inf, which is no finite number"),
        ({"type": "float", "low": 0, "high": 1, "step": 0}, "step is 0, and has to be above 0"),
        ({"type": "float", "low": 1, "high": 2, "step": 0.5, "log": True}, "log and step cannot"),
        ({"type": "float", "low": 1, "high": 2, "log": "yes"}, "log is true or false, and is 'yes'"),
        ({"type": "uniform", "low": 1, "high": 2, "steps": 2}, "has 'steps', which type 'uniform' does not"),
        ([1, 2], "neither a distribution of Optuna nor a mapping"),
    ],
)
def test_what_cannot_be_searched_is_named(given: Any, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint) as caught:
        distributions_of({"fine": {"type": "int", "low": 1, "high": 2}, "wrong": given})
    assert "search_space['wrong']" in str(caught.value)


def test_a_trial_suggests_a_value_of_each() -> None:
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
