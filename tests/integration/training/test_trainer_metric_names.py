"""One rule for metric names: MLflow's, applied before the first epoch wherever the name is known by then."""

from __future__ import annotations

import json

import pytest
from programs import Program, Store

from installed import require

require("torch", "ignite")

from trainer_programs import TRAINING

STEPS = f"""{TRAINING}
from ignite.engine import Events
calls, steps = [], []
def attempt(**arguments):
    one = trainer(num_epochs=2, **arguments)
    one.engine.add_event_handler(Events.ITERATION_COMPLETED, lambda: steps.append(1))
    with mlflow.start_run(log_system_metrics=False) as run:
        try:
            one.train()
            print(run.info.run_id)
        except (TypeError, ValueError) as error:
            print(f"{{type(error).__name__}}: {{error}}")
"""


def test_a_name_beyond_ascii_is_recorded_by_every_part(program: Program, store: Store) -> None:
    code = f"""{STEPS}
from mlflow_sysmetrics import MetricRecorder
from mlflow_sysmetrics.training.adapters.training_log import Choices, TrainingLog
attempt(compute_metrics=lambda *_: {{"précision": 0.5}}, early_stopping_metric="val_précision",
      early_stopping_mode="max")
with mlflow.start_run(log_system_metrics=False) as run, MetricRecorder() as recorder:
    recorder.epoch(1, précision=0.5)
print(run.info.run_id)
with mlflow.start_run(log_system_metrics=False) as run:
    mlflow.log_metric("précision", 0.5)
    log = TrainingLog(Choices(monitor="val_précision", mode="max"))
    log.epoch_metrics({{"val_précision": 0.5}})
    log.epoch_ended(1)
    log.finish(total_steps=1, early_stopped=False)
print(run.info.run_id)
"""
    trained, recorded, logged = program(store.uri, code).words
    found = [store.client.get_run(run_id).data.metrics for run_id in (trained, recorded, logged)]
    assert {metrics.get("epoch/val_précision") for metrics in (found[0], found[2])} == {0.5}
    assert {metrics.get("final/best_val_précision") for metrics in (found[0], found[2])} == {0.5}
    assert found[1]["epoch/précision"] == 0.5
    assert found[2]["précision"] == 0.5


@pytest.mark.parametrize("name", ["f1@5", "f1/../f1", "f" * 241])
def test_a_name_that_mlflow_refuses_is_an_error_before_the_first_step(
    program: Program, store: Store, name: str
) -> None:
    code = f"""{STEPS}
attempt(compute_metrics=lambda *_: {{{name!r}: 0.5}}, save_dir="kept")
print(len(steps), os.path.exists("kept"))
"""
    error, counted = program(store.uri, code).stdout.splitlines()[-2:]
    assert error.startswith(f"ValueError: MLflow does not accept the metric name {name!r}")
    assert counted == "0 False"


def test_the_check_of_names_leaves_the_training_as_it_is(program: Program, store: Store) -> None:
    """It draws random numbers and calls `compute_metrics` with a single batch, for which that may fail."""
    code = f"""{STEPS}
import copy, json, random
network.append(torch.nn.Dropout(0.2))
draws = []
def scores(logits, labels):
    draws.append((len(labels), random.random()))
    assert len(labels) == len(x), "too few samples"
    return {{"score": 1.0}}
state = copy.deepcopy(network.state_dict())
for compute in (scores, None):
    network.load_state_dict(state)
    torch.manual_seed(3)
    random.seed(3)
    attempt(compute_metrics=compute, logging_steps=1)
print(json.dumps([size for size, _ in draws]).replace(" ", ""))
"""
    checked, unchecked, sizes = program(store.uri, code).words
    assert json.loads(sizes) == [20, 96, 96]
    losses = [
        [(point.step, point.value) for point in store.client.get_metric_history(run_id, "train/loss_step")]
        for run_id in (checked, unchecked)
    ]
    assert len(losses[0]) == 24
    assert losses[0] == losses[1]


def test_an_iterator_is_left_to_the_validation(program: Program, store: Store) -> None:
    code = f"""{STEPS}
batches = iter(list(val))
one = trainer(val_loader=batches, num_epochs=1, compute_metrics=lambda logits, _: {{"count": len(logits)}})
with mlflow.start_run(log_system_metrics=False) as run:
    one.train()
print(run.info.run_id)
"""
    (run_id,) = program(store.uri, code).words
    assert store.client.get_run(run_id).data.metrics["epoch/val_count"] == 96
