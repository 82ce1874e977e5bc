"""Trainings with Keras on the torch backend are recorded."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest
from adapter_program import Trained, run_program

# Not imported here: Keras chooses its backend at import.
if find_spec("keras") is None or find_spec("torch") is None:
    pytest.skip("keras or torch, its backend here, is not installed", allow_module_level=True)

PROGRAM = """
import keras, numpy, threading
from mlflow_sysmetrics.training.adapters.keras import SysMetricsCallback

rows = numpy.random.default_rng(0).random((30, 4)).astype("float32")
labels = (rows.sum(1) > 2).astype("float32")

class Watching(keras.callbacks.Callback):
    async_safe = True
    def __init__(self):
        super().__init__()
        self.losses, self.epochs = {}, []
    def on_train_batch_end(self, batch, logs=None):
        self.losses[len(self.epochs) * 3 + batch + 1] = logs["loss"]
    def on_epoch_end(self, epoch, logs=None):
        self.epochs.append(logs)

class AtBatch3(keras.callbacks.Callback):
    def __init__(self, act):
        super().__init__()
        self.act = act
    def on_train_batch_end(self, batch, logs=None):
        if batch == 2:
            self.act()

def made():
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1, activation="sigmoid")])
    rate = keras.optimizers.schedules.InverseTimeDecay(0.5, 1, 1.0)
    model.compile(keras.optimizers.SGD(rate), "binary_crossentropy", metrics=["accuracy"])
    return model

def ours(**options):
    return SysMetricsCallback(logging_steps=1, **options)

with mlflow.start_run() as run:
    watching, model = Watching(), made()
    callback = ours(monitor="val_accuracy", mode="max", log_system_metrics=True, system_metrics_interval=2)
    model.fit(
        rows, labels, batch_size=8, epochs=2, validation_split=0.2, verbose=0,
        callbacks=[callback, watching, mlflow.keras.MlflowCallback()],
    )
    model.evaluate(rows, labels, verbose=0, callbacks=[callback])
    model.predict(rows, verbose=0, callbacks=[callback])
tell("plain", run.info.run_id, losses=watching.losses, epochs=watching.epochs)

with mlflow.start_run() as run:
    model, callback = made(), ours()
    model.fit(rows, labels, batch_size=10, epochs=1, verbose=0, callbacks=[callback])
    model.fit(rows, labels, batch_size=10, initial_epoch=1, epochs=2, verbose=0, callbacks=[callback])
tell("twice", run.info.run_id)

def endless():
    while True:
        yield rows[:8], labels[:8]
with mlflow.start_run() as run:
    made().fit(endless(), steps_per_epoch=4, epochs=1, verbose=0, callbacks=[ours()])
tell("unknown length", run.info.run_id)

with mlflow.start_run() as run:
    stopping = keras.callbacks.EarlyStopping("loss", mode="max", patience=0)
    made().fit(rows, labels, epochs=9, verbose=0, callbacks=[stopping, ours()])
tell("stopped", run.info.run_id)

with raised("no run"):
    made().fit(rows, labels, verbose=0, callbacks=[ours()])

with raised("crash"), mlflow.start_run() as run:
    tell("crashed", run.info.run_id)
    made().fit(rows, labels, batch_size=8, verbose=0, callbacks=[ours(), AtBatch3(lambda: 1 / 0)])

class Odd(keras.callbacks.Callback):
    def on_train_batch_end(self, batch, logs=None):
        logs["accuracy"] = "high"
    def on_epoch_end(self, epoch, logs=None):
        logs.update({"a@b": 1.0, "curve": [1, 2]})
with mlflow.start_run() as run:
    made().fit(rows, labels, batch_size=10, epochs=2, verbose=0, callbacks=[Odd(), ours()])
tell("odd values", run.info.run_id)

mlflow.start_run()
tell("interrupted", mlflow.active_run().info.run_id)
made().fit(rows, labels, batch_size=8, verbose=0, callbacks=[ours(), AtBatch3(interrupt)])
"""


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, empty_database: Path) -> Trained:
    return run_program("keras", PROGRAM, tmp_path_factory, empty_database, KERAS_BACKEND="torch")


def test_every_name_is_there_and_no_others(trained: Trained) -> None:
    assert trained.ours("plain") == {
        "train/loss_step",
        "train/accuracy_step",
        "train/learning_rate",
        "train/batch_time_seconds",
        "epoch/train_loss",
        "epoch/train_accuracy",
        "epoch/val_loss",
        "epoch/val_accuracy",
        "epoch/duration_seconds",
        "final/best_val_accuracy",
        "final/best_epoch",
        "final/total_epochs",
        "final/total_steps",
        "final/early_stopped",
        "final/duration_seconds",
    }


def test_losses_of_steps_are_keras_running_means(trained: Trained) -> None:
    losses = trained.told["plain"]["losses"]
    assert trained.series("plain", "train/loss_step") == [
        (int(step), pytest.approx(loss)) for step, loss in sorted(losses.items())
    ]
    assert len(losses) == 6


def test_epochs_have_the_values_of_keras(trained: Trained) -> None:
    for epoch, logs in enumerate(trained.told["plain"]["epochs"], 1):
        for key, name in (("train_loss", "loss"), ("val_accuracy", "val_accuracy")):
            assert (epoch, pytest.approx(logs[name])) in trained.series("plain", f"epoch/{key}")


def test_the_learning_rate_is_that_of_the_step(trained: Trained) -> None:
    assert trained.series("plain", "train/learning_rate") == [
        (step, pytest.approx(0.5 / step)) for step in range(1, 7)
    ]


def test_metrics_that_mlflow_logs_for_keras_are_unchanged(trained: Trained) -> None:
    assert trained.steps("plain", "loss") == [0, 1]
    assert "validation_loss" in trained.metrics("plain")
    assert trained.steps("plain", "system/memory_percent") == [2, 4, 6]


def test_a_second_fit_continues_the_axes(trained: Trained) -> None:
    assert trained.steps("twice", "train/loss_step") == [1, 2, 3, 4, 5, 6]
    assert trained.steps("twice", "epoch/train_loss") == [1, 2]
    assert "final/best_train_loss" in trained.ours("twice")


def test_a_training_of_unknown_length_has_steps(trained: Trained) -> None:
    assert trained.steps("unknown length", "train/loss_step") == [1, 2, 3, 4]
    assert trained.metrics("unknown length")["final/early_stopped"] == 0


def test_early_stopping_is_recorded(trained: Trained) -> None:
    metrics = trained.metrics("stopped")
    assert (metrics["final/early_stopped"], metrics["final/total_epochs"]) == (1, 2)


def test_without_a_run_nothing_is_trained(trained: Trained) -> None:
    message = trained.told["no run"]["raised"]
    assert message.startswith("NoActiveRunError: ")
    assert "with mlflow.start_run():" in message


def test_a_crash_inside_a_with_block_keeps_the_points_so_far(trained: Trained) -> None:
    assert trained.told["crash"]["raised"].startswith("ZeroDivisionError")
    assert trained.status("crashed") == "FAILED"
    assert trained.steps("crashed", "train/loss_step") == [1, 2, 3]
    assert not {key for key in trained.ours("crashed") if key.startswith("final/")}


def test_values_that_are_not_numbers_are_left_out_with_one_warning_each(trained: Trained) -> None:
    assert trained.steps("odd values", "train/loss_step") == [1, 2, 3, 4, 5, 6]
    assert "train/accuracy_step" not in trained.ours("odd values")
    assert trained.steps("odd values", "epoch/train_loss") == [1, 2]
    for name in ("accuracy", "train_a@b", "train_curve"):
        assert trained.stderr.count(f"metric {name!r} is not recorded") == 1


def test_ctrl_c_ends_a_bare_run_as_killed(trained: Trained) -> None:
    assert "KeyboardInterrupt" in trained.stderr
    assert trained.status("interrupted") == "KILLED"
    assert trained.steps("interrupted", "train/loss_step") == [1, 2, 3]
