"""Trainer and the adapters agree on the best epoch: the table of docs/how_to/training.md, run through both."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from adapter_program import Trained, run_program

from installed import require

require("torch", "ignite")

from trainer_programs import TRAINING

NAN, INF = "nan", "inf"
# By name: the metric and its mode, the metrics of each epoch, and the best value and epoch that are recorded.
TABLE: dict[str, tuple[dict[str, str], list[dict[str, Any]], dict[str, float]]] = {
    "macro F1 by default": (
        {},
        [{"train_loss": 1, "val_loss": 1, "val_f1_macro": 0.5}, {"val_loss": 2, "val_f1_macro": 0.75}],
        {"best_val_f1_macro": 0.75, "best_epoch": 2},
    ),
    "validation loss by default": (
        {},
        [{"train_loss": 2, "val_loss": 1}, {"train_loss": 1, "val_loss": 2}],
        {"best_val_loss": 1, "best_epoch": 1},
    ),
    "training loss by default": (
        {},
        [{"train_loss": 2}, {"train_loss": 1}],
        {"best_train_loss": 1, "best_epoch": 2},
    ),
    "a default that appears later": (
        {},
        [{"train_loss": 1}, {"train_loss": 2, "val_loss": 3}, {"train_loss": 1}],
        {"best_val_loss": 3, "best_epoch": 2},
    ),
    "a NaN default": ({}, [{"train_loss": 1, "val_loss": NAN}], {}),
    "maximised by its name": (
        {"name": "val_accuracy"},
        [{"val_accuracy": 0.5}, {"val_accuracy": 0.75}],
        {"best_val_accuracy": 0.75, "best_epoch": 2},
    ),
    "minimised by its name": (
        {"name": "val_mae"},
        [{"val_mae": 2}, {"val_mae": 1}, {"val_mae": 3}],
        {"best_val_mae": 1, "best_epoch": 2},
    ),
    "minimised on request": (
        {"name": "val_accuracy", "mode": "min"},
        [{"val_accuracy": 0.5}, {"val_accuracy": 0.75}],
        {"best_val_accuracy": 0.5, "best_epoch": 1},
    ),
    "a mode for a name that implies none": (
        {"name": "val_temperature", "mode": "max"},
        [{"val_temperature": 1}, {"val_temperature": 2}],
        {"best_val_temperature": 2, "best_epoch": 2},
    ),
    "a tie": (
        {"name": "val_f1"},
        [{"val_f1": 0.5}, {"val_f1": 0.75}, {"val_f1": 0.75}],
        {"best_val_f1": 0.75, "best_epoch": 2},
    ),
    "less than min_delta": (
        {"name": "val_loss"},
        [{"val_loss": 1}, {"val_loss": 0.999999}],
        {"best_val_loss": 0.999999, "best_epoch": 2},
    ),
    "NaN and infinities": (
        {"name": "val_accuracy"},
        [{"val_accuracy": NAN}, {"val_accuracy": 0.5}, {"val_accuracy": INF}, {"val_accuracy": NAN}],
        {"best_val_accuracy": 0.5, "best_epoch": 2},
    ),
    "never finite": ({"name": "val_loss"}, [{"val_loss": NAN}, {"val_loss": f"-{INF}"}], {}),
    "missing in an epoch": (
        {"name": "val_loss"},
        [{"val_loss": 2}, {"train_loss": 1}, {"val_loss": 1}],
        {"best_val_loss": 1, "best_epoch": 3},
    ),
    "a name beyond ASCII": (
        {"name": "val_précision", "mode": "max"},
        [{"val_précision": 0.5}, {"val_précision": 0.25}],
        {"best_val_précision": 0.5, "best_epoch": 1},
    ),
}

PROGRAM = f"""{TRAINING}
from ignite.engine import Events
from mlflow_sysmetrics.training.adapters.training_log import Choices, TrainingLog

def by_trainer(chosen, epochs):
    named = {{"early_stopping_" + key.replace("name", "metric"): value for key, value in chosen.items()}}
    # With compute_metrics, the constructor cannot know which metrics there will be.
    one = trainer(**named, num_epochs=len(epochs), compute_metrics=lambda *_: {{}})
    @one.engine.on(Events.EPOCH_COMPLETED)
    def replace(engine):
        engine.state.metrics.clear()
        engine.state.metrics.update(epochs[engine.state.epoch - 1])
    one.train()

def by_adapter(chosen, epochs):
    log = TrainingLog(Choices(monitor=chosen.get("name"), mode=chosen.get("mode")))
    for number, metrics in enumerate(epochs, 1):
        log.epoch_began()
        log.epoch_metrics(metrics)
        log.epoch_ended(number)
    log.finish(total_steps=len(epochs), early_stopped=False)

for name, (chosen, epochs, _) in json.loads({json.dumps(json.dumps(TABLE))}).items():
    epochs = [{{key: float(value) for key, value in metrics.items()}} for metrics in epochs]
    for path in (by_trainer, by_adapter):
        with mlflow.start_run(log_system_metrics=False) as run:
            path(chosen, epochs)
        tell(f"{{path.__name__}} {{name}}", run.info.run_id)
"""


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, empty_database: Path) -> Trained:
    return run_program("best_epoch", PROGRAM, tmp_path_factory, empty_database)


@pytest.mark.parametrize("name", TABLE)
@pytest.mark.parametrize("path", ["by_trainer", "by_adapter"])
def test_the_best_epoch_is_the_same_by_either_path(trained: Trained, path: str, name: str) -> None:
    assert trained.returncode == 0, trained.stderr
    found = {key.removeprefix("final/"): value for key, value in trained.metrics(f"{path} {name}").items()}
    assert {key: value for key, value in found.items() if key.startswith("best_")} == TABLE[name][2]
