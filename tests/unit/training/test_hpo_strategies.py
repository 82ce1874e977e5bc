"""Samplers and pruners by name."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("optuna", reason="Optuna is not installed")

import optuna

from mlflow_sysmetrics.training.hpo.optuna_study import pruner_of, sampler_of


@pytest.mark.parametrize(
    ("given", "config", "kind"),
    [
        (None, None, "NopPruner"),
        ("none", None, "NopPruner"),
        (None, {"type": "none"}, "NopPruner"),
        ("median", {"n_startup_trials": 3}, "MedianPruner"),
        ("MedianPruner", None, "MedianPruner"),
        ("hyperband", {"max_resource": 9}, "HyperbandPruner"),
        ({"type": "successive-halving"}, None, "SuccessiveHalvingPruner"),
        (optuna.pruners.ThresholdPruner(upper=1.0), None, "ThresholdPruner"),
    ],
)
def test_a_pruner_by_name(given: Any, config: Any, kind: str) -> None:
    assert type(pruner_of(given, config)).__name__ == kind


@pytest.mark.parametrize(
    ("given", "several", "kind"),
    [(None, False, "TPESampler"), (None, True, "NSGAIISampler"), ("Random", False, "RandomSampler")],
)
def test_a_sampler_by_name(given: Any, several: bool, kind: str) -> None:
    assert type(sampler_of(given, None, 3, several=several)).__name__ == kind


@pytest.mark.parametrize(
    ("given", "config", "seed", "message"),
    [
        ("tpee", None, None, "sampler must be one of tpe, random, .* got 'tpee'"),
        (3, None, None, "sampler must be one of .* got 3"),
        ("tpe", {"trials": 3}, None, "invalid options for sampler 'tpe': {'trials': 3}"),
        ("tpe", {"type": "random"}, None, "sampler='tpe' contradicts the type 'random' in sampler_config"),
        ("tpe", {"seed": 1}, 2, "seed=2 contradicts the seed 1 in sampler_config"),
        (optuna.samplers.RandomSampler(), None, 2, "seed=2 cannot be combined with a sampler object"),
        (optuna.samplers.RandomSampler(), {"seed": 1}, None, "requires the sampler as a name"),
    ],
)
def test_an_invalid_sampler_is_rejected(given: Any, config: Any, seed: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        sampler_of(given, config, seed, several=False)


def test_the_same_seed_suggests_the_same_values() -> None:
    values = [
        optuna.create_study(sampler=sampler_of("tpe", None, seed, several=False))
        .ask()
        .suggest_float("x", 0, 1)
        for seed in (1, 1, 2)
    ]
    assert values[0] == values[1] != values[2]
