"""Parameters and configuration on the run, and the run of a training that was started without one."""

from __future__ import annotations

import pytest
from programs import Program, Store

from installed import require

require("torch", "ignite")

from trainer_programs import TRAINING

CONFIG = """{"task": "criteria", "training": {"batch_size": "eight"}, "long": "x" * 9000, "a(b)": 1,
             "many": {str(number): number for number in range(250)}}"""


def newest(store: Store) -> str:
    """Returns the id of the run that was started last."""
    return str(store.client.search_runs(["0"], max_results=1)[0].info.run_id)


@pytest.mark.every_database
def test_parameters_and_configuration_are_on_the_run(program: Program, store: Store) -> None:
    code = f"""{TRAINING}
with mlflow.start_run(log_system_metrics=False) as run:
    trainer(num_epochs=1, config={CONFIG}).train()
print(run.info.run_id, mlflow.artifacts.load_text(run.info.artifact_uri + "/config.yaml").splitlines()[0])
"""
    run_id, *line = program(store.uri, code).words
    assert line == ["task:", "criteria"]
    params = store.client.get_run(run_id).data.params
    assert params["training.optimizer.lr"] == "0.01"
    assert params["training.batch_size"] == "eight"  # the user's value goes before ours
    assert params["a_b_"] == "1"
    assert params["long"].endswith("x...")
    assert params["many.249"] == "249"
    assert params["model.parameters"] == str(8 * 16 + 16 + 16 * 3 + 3)


def test_nothing_is_logged_if_not_wanted(program: Program, store: Store) -> None:
    code = f"""{TRAINING}
with mlflow.start_run(log_system_metrics=False) as run:
    trainer(num_epochs=1, log_params=False).train()
print(run.info.run_id)
"""
    (run_id,) = program(store.uri, code).words
    assert store.client.get_run(run_id).data.params == {}


def test_a_training_without_a_run_starts_one_and_ends_it(program: Program, store: Store) -> None:
    code = f"""{TRAINING}
trainer(num_epochs=1).train()
print(mlflow.active_run())
"""
    assert program(store.uri, code).words == ["None"]
    run = store.client.get_run(newest(store))
    assert run.info.status == "FINISHED"
    assert run.data.params["training.num_epochs"] == "1"
    assert "final/total_epochs" in run.data.metrics
    assert store.keys(run.info.run_id)


@pytest.mark.parametrize(
    ("failure", "status"),
    [
        ("raise ValueError('a crash')", "FAILED"),
        ("raise KeyboardInterrupt", "KILLED"),
        ("raise type('TrialPruned', (Exception,), {})('no hope')", "KILLED"),
    ],
)
def test_its_own_run_ends_as_the_training_does(
    program: Program, store: Store, failure: str, status: str
) -> None:
    code = f"""{TRAINING}
from ignite.engine import Events
one = trainer()
@one.engine.on(Events.ITERATION_COMPLETED(once=3))
def fail(engine):
    {failure}
one.train()
"""
    assert program(store.uri, code, check=False).returncode != 0
    run = store.client.get_run(newest(store))
    assert run.info.status == status
    assert run.data.metrics["train/loss_step"]


def test_a_restarted_training_continues_its_own_run_and_keeps_its_parameters(
    program: Program, store: Store
) -> None:
    code = f"""{TRAINING}
print(trainer(num_epochs=1, save_dir="kept").train()["total_epochs"])
print(trainer(num_epochs=2, save_dir="kept").train()["total_epochs"])
"""
    assert program(store.uri, code).words == ["1", "2"]
    (run,) = store.client.search_runs(["0"])
    assert run.info.status == "FINISHED"
    assert run.data.params["training.num_epochs"] == "1"  # MLflow never changes a parameter
    assert [point.step for point in store.points(run.info.run_id, "epoch/train_loss")] == [1, 2]
