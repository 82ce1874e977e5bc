"""Samplers and pruners by their names."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("optuna", reason="samplers and pruners are Optuna's")

import optuna

from mlflow_sysmetrics.training.hpo.strategies import pruner_of, sampler_of


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
def test_a_pruner_by_its_name(given: Any, config: Any, kind: str) -> None:
    assert type(pruner_of(given, config)).__name__ == kind


@pytest.mark.parametrize(
    ("given", "several", "kind"),
    [(None, False, "TPESampler"), (None, True, "NSGAIISampler"), ("Random", False, "RandomSampler")],
)
def test_a_sampler_by_its_name(given: Any, several: bool, kind: str) -> None:
    assert type(sampler_of(given, None, 3, several=several)).__name__ == kind


@pytest.mark.parametrize(
    ("given", "config", "seed", "complaint"),
    [
        ("tpee", None, None, "There is no sampler 'tpee'; known are tpe, random"),
        (3, None, None, "There is no sampler 3"),
        ("tpe", {"trials": 3}, None, "The sampler 'tpe' cannot be made of"),
        ("tpe", {"type": "random"}, None, "sampler='tpe', and sampler_config has the type 'random'"),
        ("tpe", {"seed": 1}, 2, "seed=2, and sampler_config has the seed 1"),
        (optuna.samplers.RandomSampler(), None, 2, "seed=2 belongs into the sampler"),
        (optuna.samplers.RandomSampler(), {"seed": 1}, None, "goes with the name of a sampler"),
    ],
)
def test_a_sampler_that_cannot_be_had(given: Any, config: Any, seed: Any, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        sampler_of(given, config, seed, several=False)


def test_the_same_seed_suggests_the_same() -> None:
    values = [
        optuna.create_study(sampler=sampler_of("tpe", None, seed, several=False))
        .ask()
        .suggest_float("x", 0, 1)
        for seed in (1, 1, 2)
    ]
    assert values[0] == values[1] != values[2]
