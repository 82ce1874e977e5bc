"""`python -m mlflow_sysmetrics.examples`: each step of the check list of the document that the kit came from."""

from __future__ import annotations

import pytest
from programs import Program, Store

from installed import require

require("torch", "optuna", "ignite")

MODULE = """
from mlflow_sysmetrics.examples.__main__ import main
sys.exit(main({arguments!r}))
"""
# Metrics of a training run, by their axis. Those of a GPU are absent without one.
BY_STEP = ("train/loss_step", "train/accuracy_step", "train/learning_rate", "train/batch_time_seconds")
OF_MACHINE = ("system/cpu_percent", "system/memory_used_gb")
BY_EPOCH = (
    *("epoch/train_loss", "epoch/train_accuracy", "epoch/val_loss", "epoch/val_f1_macro"),
    "epoch/duration_seconds",
)
FINAL = ("final/best_val_f1_macro", "final/total_epochs", "final/total_steps", "final/early_stopped")


def example(program: Program, store: Store, *arguments: str) -> str:
    return str(program(store.uri, MODULE.format(arguments=list(arguments))).stdout)


def test_a_short_training_has_everything_that_the_document_shows(program: Program, store: Store) -> None:
    printed = example(program, store, "train", "task=criteria", "training.num_epochs=2")
    assert "mlflow ui --backend-store-uri" in printed
    experiment = store.client.get_experiment_by_name("training_criteria")
    (run,) = store.client.search_runs([experiment.experiment_id])
    assert run.info.status == "FINISHED"
    steps = [point.step for point in store.points(run.info.run_id, "train/loss_step")]
    assert steps == list(range(1, 19))  # 9 batches of 32 in each of 2 epochs
    for key in BY_STEP:
        assert [point.step for point in store.points(run.info.run_id, key)] == steps, key
    for key in OF_MACHINE:
        assert [point.step for point in store.points(run.info.run_id, key)] == steps[1::2], key
    for key in BY_EPOCH:
        assert [point.step for point in store.points(run.info.run_id, key)] == [1, 2], key
    assert set(FINAL) <= run.data.metrics.keys()
    params = run.data.params
    assert params["model.encoder_name"] == "bag-of-words"
    assert params["training.batch_size"] == "32"
    assert params["training.optimizer.lr"] == "0.05"
    paths = {one.path for one in store.client.list_artifacts(run.info.run_id)}
    assert {"config.yaml", "checkpoints"} <= paths
    (checkpoint,) = store.client.list_artifacts(run.info.run_id, "checkpoints")
    assert checkpoint.path == "checkpoints/best_checkpoint.pt"
    assert run.data.metrics["final/best_val_f1_macro"] > 0.3  # guessing has 0.1


def test_a_search_has_a_run_for_the_study_and_one_for_each_trial(program: Program, store: Store) -> None:
    printed = example(program, store, "hpo", "stage=stage0", "task=criteria")
    assert "4 of 4 trials completed" in printed
    experiment = store.client.get_experiment_by_name("hpo_criteria")
    runs = {run.info.run_name: run for run in store.client.search_runs([experiment.experiment_id])}
    assert set(runs) == {"HPO_criteria_stage0", *(f"trial_{number:04d}" for number in range(1, 5))}
    parent = runs.pop("HPO_criteria_stage0")
    assert {"best_val_f1_macro", "best_trial_number", "total_trials"} <= parent.data.metrics.keys()
    assert {"best_hpo/learning_rate", "best_hpo/batch_size"} <= parent.data.params.keys()
    for run in runs.values():
        assert run.data.tags["mlflow.parentRunId"] == parent.info.run_id
        assert {"hpo/learning_rate", "trial_number", "study_name"} <= run.data.params.keys()
        expected = {"trial/val_f1_macro", "train/loss_step", "epoch/val_f1_macro", *OF_MACHINE}
        assert expected <= run.data.metrics.keys()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "usage: python -m"),
        (["fly"], "usage: python -m"),
        (["train", "task"], "must be one of task, seed, model.encoder_name"),
        (["train", "training.epochs=2"], "training.num_epochs"),
        (["train", "training=2"], "must be one of"),
        (["train", "training.num_epochs=two"], "training.num_epochs must be like 5, got 'two'"),
        (["hpo", "stage=stage9"], "stage must be one of stage0, stage1, stage2, got 'stage9'"),
    ],
)
def test_a_wrong_argument_is_named(
    capsys: pytest.CaptureFixture[str], arguments: list[str], said: str
) -> None:
    from mlflow_sysmetrics.examples.__main__ import main

    assert main(arguments) == 2
    shown = capsys.readouterr()
    assert said in shown.out + shown.err
