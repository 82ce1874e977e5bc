"""What the adapters share, and what they read from their frameworks, tested without any framework."""

from __future__ import annotations

import sys
import time
from types import SimpleNamespace
from typing import Any

import pytest

from mlflow_sysmetrics.training.adapters import lightning_metrics
from mlflow_sysmetrics.training.adapters.epochs import Epoch, Mean, epoch_name
from mlflow_sysmetrics.training.adapters.training_log import Choices, learning_rate_of
from mlflow_sysmetrics.training.best_epoch import MonitoredMetric
from mlflow_sysmetrics.training.extras import first_installed


@pytest.mark.parametrize(
    ("given", "ours"),
    [
        ("train/loss", "train_loss"),
        ("train_loss", "train_loss"),
        ("val/f1/macro", "val_f1/macro"),
        ("valid_loss", "val_loss"),
        ("validation_loss", "val_loss"),
        ("eval_loss", "val_loss"),
        ("validity", "validity"),
        ("loss", "loss"),
    ],
)
def test_a_frameworks_name_becomes_ours(given: str, ours: str) -> None:
    assert epoch_name(given) == ours


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"logging_steps": 0}, "logging_steps must be an integer >= 1, got 0"),
        ({"logging_steps": True}, "logging_steps must be an integer >= 1, got True"),
        ({"system_metrics_interval": 2.5}, "system_metrics_interval must be an integer >= 1, got 2.5"),
        ({"tracking_uri": "http://there"}, "tracking_uri='http://there' needs run_id="),
        ({"monitor": "val_temperature"}, "cannot infer .* 'val_temperature'; pass mode="),
        ({"mode": "max"}, "mode='max' needs monitor="),
        ({"monitor": "val_f1", "mode": "most"}, "mode must be 'min' or 'max', got 'most'"),
        ({"monitor": "val_f1@5"}, "MLflow does not accept the metric name 'val_f1@5'"),
    ],
)
def test_the_error_about_an_invalid_argument_names_it(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Choices(**wrong)


def test_a_mean_is_weighted_and_starts_afresh() -> None:
    mean = Mean()
    mean.add(1.0, 3)
    mean.add(5.0, 1)
    assert mean.take() == 2.0
    assert mean.take() is None


def test_an_epoch_lasts_until_the_end_of_its_validation(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(time, "perf_counter", lambda: now)
    epoch = Epoch()
    now = 103.0
    epoch.end(1)
    now = 105.0
    epoch.add({"val_loss": 1.0})
    now = 200.0
    assert epoch.summary() == {"train_loss": None, "val_loss": 1.0, "duration_seconds": 5.0}


def test_the_error_about_a_missing_framework_says_what_to_install() -> None:
    with pytest.raises(ModuleNotFoundError, match=r"needs no_such_framework.*: pip install the-framework"):
        first_installed("no_such_framework.part", "nor_this", install="the-framework")


def test_of_two_packages_the_loaded_one_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = SimpleNamespace()
    monkeypatch.setitem(sys.modules, "a_framework_that_is_loaded", loaded)  # type: ignore[arg-type]
    assert first_installed("turtledemo", "a_framework_that_is_loaded", install="it") is loaded


def test_a_missing_dependency_of_a_framework_is_the_frameworks_own_error() -> None:
    with pytest.raises(ModuleNotFoundError, match=r"No module named 'json\.nothing'"):
        first_installed("json.nothing", install="json")


def test_the_learning_rate_is_that_of_the_first_group() -> None:
    assert learning_rate_of(SimpleNamespace(param_groups=[{"lr": 0.1}, {"lr": 0.2}])) == 0.1
    assert learning_rate_of(SimpleNamespace(param_groups=[])) is None
    assert learning_rate_of(None) is None


def lightning_trainer(**known: Any) -> SimpleNamespace:
    return SimpleNamespace(
        **{
            "callback_metrics": {},
            "logged_metrics": {},
            "callbacks": [],
            "loggers": [],
            "early_stopping_callbacks": [],
            "checkpoint_callbacks": [],
            "max_epochs": 3,
            "max_steps": -1,
            "current_epoch": 1,
            "global_step": 10,
            "should_stop": True,
            **known,
        }
    )


def test_lightning_metrics_of_steps_alone_are_not_metrics_of_the_epoch() -> None:
    logged = {
        "train_loss": 1,
        "acc": 2,
        "acc_step": 3,
        "acc_epoch": 4,
        "f1": 5,
        "val_loss": 6,
        "test_loss": 7,
    }
    trainer = lightning_trainer(callback_metrics=logged)
    found = lightning_metrics.epoch(trainer, {"train_loss", "acc", "acc_step"})
    assert found == {"acc": 4, "f1": 5}
    assert lightning_metrics.validation(trainer) == {"val_loss": 6}


def test_lightning_accuracies_are_found_under_the_usual_names() -> None:
    for logged in ({"train_acc": 0.5}, {"train/accuracy_step": 0.5}, {"acc": 0.5}):
        found = lightning_metrics.step(lightning_trainer(callback_metrics=logged), {"loss": 1.0})
        assert found == {"accuracy": 0.5}
    assert lightning_metrics.step(lightning_trainer(callback_metrics={"train_loss": 2.0}), None) == {
        "accuracy": None,
        "loss": 2.0,
    }


def test_lightning_callbacks_define_the_monitored_metric() -> None:
    watching = SimpleNamespace(monitor="val/acc", mode="max")
    silent = SimpleNamespace(monitor=None, mode="min")
    trainer = lightning_trainer(early_stopping_callbacks=[], checkpoint_callbacks=[silent, watching])
    assert lightning_metrics.monitor(trainer) == MonitoredMetric("val_acc", "max")
    assert lightning_metrics.monitor(lightning_trainer()) is None


@pytest.mark.parametrize(
    ("known", "early"),
    [
        ({}, True),
        ({"should_stop": False}, False),
        ({"current_epoch": 3}, False),
        ({"max_steps": 10}, False),
        ({"max_epochs": -1}, True),
        ({"max_epochs": None}, True),
    ],
)
def test_lightning_has_stopped_early_if_epochs_or_steps_are_left(known: dict[str, Any], early: bool) -> None:
    assert lightning_metrics.stopped_early(lightning_trainer(**known)) is early


def test_lightning_keys_are_left_to_a_module_only_if_they_go_to_mlflow() -> None:
    class MLFlowLogger:
        pass

    logged = {"train/loss_step": 1.0}
    rate = {"learning_rate": 0.1, "batch_time_seconds": 0.5}
    to_csv = lightning_trainer(logged_metrics=logged)
    to_mlflow = lightning_trainer(logged_metrics=logged, loggers=[MLFlowLogger()])
    assert "loss" not in lightning_metrics.step(to_csv, {"loss": 1.0}, **rate)
    assert lightning_metrics.step(to_mlflow, {"loss": 1.0}, **rate) == {
        "accuracy": None,
        "loss": None,
        **rate,
    }
