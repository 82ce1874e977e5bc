"""What Trainer records on a run: names, axes, the summary, the best weights."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from counting_server import CountingServer
from programs import Program, Store

from installed import require

require("torch", "ignite")

from trainer_programs import TRAINING

STEPS = [1, 5, 10, 15, 20, 25, 30, 35]
EPOCHS = [1, 2, 3]
STEP_KEYS = ["train/loss_step", "train/accuracy_step", "train/learning_rate", "train/batch_time_seconds"]
EPOCH_KEYS = [
    *("epoch/train_loss", "epoch/train_accuracy", "epoch/duration_seconds", "epoch/val_loss"),
    *(
        f"epoch/val_{name}"
        for name in ("accuracy", "f1_macro", "f1_micro", "precision_macro", "recall_macro")
    ),
]
FINAL_KEYS = [
    *("final/best_val_f1_macro", "final/best_epoch", "final/total_epochs", "final/total_steps"),
    *("final/early_stopped", "final/duration_seconds"),
]


def axes(store: Store, run_id: str) -> dict[str, list[int]]:
    """Returns the steps of each series of a run."""
    keys = store.client.get_run(run_id).data.metrics
    return {key: [point.step for point in store.points(run_id, key)] for key in keys}


def values(store: Store, run_id: str, key: str) -> list[float]:
    return [point.value for point in store.points(run_id, key)]


def test_every_name_has_its_axis_and_there_are_no_others(program: Program, store: Store) -> None:
    code = f"""{TRAINING}
with mlflow.start_run(log_system_metrics=False) as run:
    trainer(log_system_metrics=True, system_metrics_interval=7).train()
print(run.info.run_id)
"""
    (run_id,) = program(store.uri, code).words
    found = axes(store, run_id)
    of_machine = {key: found.pop(key) for key in list(found) if key.startswith("system/")}
    assert found == {
        **dict.fromkeys(STEP_KEYS, STEPS),
        **dict.fromkeys(EPOCH_KEYS, EPOCHS),
        **{key: [36] for key in FINAL_KEYS},
    }
    names = ("system/cpu_percent", "system/memory_used_gb", "system/memory_percent")
    assert of_machine == {key: [7, 14, 21, 28, 35] for key in names}


def test_a_regression_has_losses_only(program: Program, store: Store) -> None:
    code = f"""{TRAINING}
pairs = [(x[:40], y[:40, None].float()), (x[40:], y[40:, None].float())]
network = torch.nn.Linear(8, 1)
with mlflow.start_run(log_system_metrics=False) as run:
    print(sorted(trainer(train_loader=pairs, val_loader=pairs, criterion=torch.nn.MSELoss(),
                         num_epochs=1).train()))
    print(run.info.run_id)
"""
    *names, run_id = program(store.uri, code).words
    assert "'best_val_loss'," in names
    found = axes(store, run_id)
    assert not [key for key in found if "accuracy" in key or "f1" in key]
    assert found["train/loss_step"] == [1]
    assert found["epoch/val_loss"] == found["epoch/train_loss"] == [1]
    assert found["final/best_val_loss"] == [2]


def test_losses_on_the_server_equal_those_of_a_hand_written_loop(program: Program, store: Store) -> None:
    code = f"""{TRAINING}
import copy, json
same = copy.deepcopy(network)
torch.manual_seed(3)
with mlflow.start_run(log_system_metrics=False) as run:
    trainer(logging_steps=1, gradient_accumulation_steps=5, gradient_clip=0.5).train()
torch.manual_seed(3)
optimizer, criterion, losses = torch.optim.Adam(same.parameters(), 0.01), torch.nn.CrossEntropyLoss(), []
for epoch in range(3):
    batches = list(train)
    for first in range(0, len(batches), 5):
        part = batches[first:first + 5]
        optimizer.zero_grad()
        for one, label in part:
            loss = criterion(same(one), label)
            (loss / len(part)).backward()
            losses.append(loss.item())
        torch.nn.utils.clip_grad_norm_(same.parameters(), 0.5)
        optimizer.step()
    list(val)
print(run.info.run_id, json.dumps(losses, separators=(",", ":")))
"""
    run_id, losses = program(store.uri, code).words
    assert values(store, run_id, "train/loss_step") == pytest.approx(json.loads(losses), abs=1e-6)


EARLY = f"""{TRAINING}
class Worse(torch.nn.CrossEntropyLoss):  # from the second epoch on, the model learns to be wrong
    def forward(self, logits, labels):
        return super().forward(logits, labels) * (1 if engine.state.epoch < 2 or not network.training else -1)
best = {{}}
def keep():
    if engine.state.epoch == 1:
        best.update({{name: one.clone() for name, one in network.state_dict().items()}})
one = trainer(criterion=Worse(), patience=2, num_epochs=9, save_dir="kept")
engine = one.engine
from ignite.engine import Events
engine.add_event_handler(Events.EPOCH_COMPLETED, keep)
"""


def test_it_stops_early_and_keeps_the_best_weights(program: Program, store: Store) -> None:
    code = f"""{EARLY}
with mlflow.start_run() as run:
    summary = one.train()
assert (summary["best_epoch"], summary["total_epochs"], summary["total_steps"]) == (1, 3, 36), summary
assert summary["early_stopped"] is True
assert all(torch.equal(best[name], value) for name, value in network.state_dict().items())
path = mlflow.artifacts.download_artifacts(run_id=run.info.run_id, artifact_path="checkpoints/best_checkpoint.pt")
found = torch.load(path, weights_only=True)
assert all(torch.equal(best[name], value) for name, value in found["model_state_dict"].items())
assert (found["epoch"], found["monitor"], found["run_id"]) == (1, "val_f1_macro", run.info.run_id)
assert found["metrics"]["val_f1_macro"] == summary["best_val_f1_macro"]
assert [one.path for one in mlflow.MlflowClient().list_artifacts(run.info.run_id, "checkpoints")] == [
    "checkpoints/best_checkpoint.pt"]
print(run.info.run_id)
"""
    (run_id,) = program(store.uri, code).words
    assert values(store, run_id, "final/early_stopped") == [1]
    assert values(store, run_id, "final/best_epoch") == [1]


def test_the_last_weights_stay_if_the_best_are_not_to_be_restored(program: Program, store: Store) -> None:
    code = f"""{EARLY.replace("patience=2", "patience=2, restore_best=False")}
with mlflow.start_run():
    one.train()
assert not all(torch.equal(best[name], value) for name, value in network.state_dict().items())
"""
    program(store.uri, code)


def test_a_plateau_is_detected_in_the_monitored_metric(program: Program, store: Store) -> None:
    code = f"""{TRAINING}
optimizer = torch.optim.SGD(network.parameters(), 0.0)
scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, mode="max", patience=1, factor=0.5)
optimizer.param_groups[0]["lr"] = 1e-30
seen = []
scheduler.step, step = lambda value: (seen.append(value), step(value)), scheduler.step
with mlflow.start_run(log_system_metrics=False) as run:
    trainer(optimizer=optimizer, scheduler=scheduler, scheduler_interval="step").train()
history = mlflow.MlflowClient().get_metric_history(run.info.run_id, "epoch/val_f1_macro")
assert seen == [point.value for point in history], (seen, history)
"""
    program(store.uri, code)


def test_a_nan_loss_is_recorded_and_training_continues(program: Program, store: Store) -> None:
    code = f"""{TRAINING}
with torch.no_grad():
    network[0].weight[0, 0] = torch.nan
with mlflow.start_run(log_system_metrics=False) as run:
    summary = trainer(val_loader=None).train()
assert "best_train_loss" not in summary and "best_epoch" not in summary, summary
print(run.info.run_id)
with mlflow.start_run(log_system_metrics=False) as run:
    try:
        trainer(val_loader=None, stop_on_nan=True).train()
    except FloatingPointError as error:
        print(run.info.run_id, str(error).replace(" ", "_"))
"""
    run_id, stopped, message = program(store.uri, code).words
    assert axes(store, run_id)["train/loss_step"] == STEPS
    assert store.client.get_run(run_id).data.metrics["final/total_epochs"] == 3
    assert axes(store, stopped)["train/loss_step"] == [1]
    assert message == "the_loss_of_step_1_is_nan"


def test_an_exception_flushes_the_points_and_leaves_the_run_to_its_owner(
    program: Program, store: Store
) -> None:
    code = f"""{TRAINING}
one = trainer()
from ignite.engine import Events
@one.engine.on(Events.ITERATION_COMPLETED(once=20))
def fail():
    raise KeyboardInterrupt
with mlflow.start_run(log_system_metrics=False) as run:
    try:
        one.train()
    except KeyboardInterrupt:
        print(run.info.run_id, mlflow.active_run().info.run_id == run.info.run_id)
    try:
        one.train()
    except RuntimeError as error:
        print("again" if "has trained already" in str(error) else error)
"""
    run_id, active, again = program(store.uri, code).words
    assert (active, again) == ("True", "again")
    found = axes(store, run_id)
    assert found["train/loss_step"] == [1, 5, 10, 15]
    assert found["epoch/val_loss"] == [1]
    assert not [key for key in found if key.startswith("final/")]
    assert [one.path for one in store.client.list_artifacts(run_id, "checkpoints")] == [
        "checkpoints/best_checkpoint.pt"
    ]


def test_numbers_of_the_user_are_recorded_with_the_epoch(program: Program, store: Store) -> None:
    code = f"""{TRAINING}
from ignite.engine import Events
one = trainer(early_stopping_metric="val_mine", early_stopping_mode="max",
              compute_metrics=lambda logits, labels: {{"mine": logits.shape[0] + labels[0] * 0, "no": None}})
@one.engine.on(Events.EPOCH_COMPLETED)
def add(engine):
    engine.state.metrics["own"] = engine.state.epoch * 10
    engine.state.metrics["tensor"] = torch.tensor(0.5)
    engine.state.metrics["text"] = "not a number"
with mlflow.start_run(log_system_metrics=False) as run:
    one.train()
print(run.info.run_id)
"""
    (run_id,) = program(store.uri, code).words
    assert values(store, run_id, "epoch/own") == [10, 20, 30]
    assert values(store, run_id, "epoch/tensor") == [0.5, 0.5, 0.5]
    assert values(store, run_id, "epoch/val_mine") == [96, 96, 96]
    found = axes(store, run_id)
    assert found["final/best_val_mine"] == [36]
    assert not {"epoch/val_f1_macro", "epoch/text", "epoch/val_no"} & set(found)


def test_each_epoch_is_reported_to_a_study_which_may_prune(program: Program, store: Store) -> None:
    pytest.importorskip("optuna")
    code = f"""{TRAINING}
import optuna
optuna.logging.set_verbosity(optuna.logging.ERROR)
class Second(optuna.pruners.BasePruner):
    def prune(self, study, trial):
        return trial.number == 1 and trial.last_step == 2
study = optuna.create_study(direction="maximize", pruner=Second())
def objective(trial):
    with mlflow.start_run(log_system_metrics=False) as run:
        trial.set_user_attr("run", run.info.run_id)
        return trainer().train(trial=trial)["best_val_f1_macro"]
study.optimize(objective, n_trials=2)
for trial in study.trials:
    print(trial.state.name, len(trial.intermediate_values), trial.user_attrs["run"])
"""
    state, told, run_id, pruned, told_pruned, pruned_id = program(store.uri, code).words
    assert (state, told, pruned, told_pruned) == ("COMPLETE", "3", "PRUNED", "2")
    assert axes(store, run_id)["final/best_val_f1_macro"] == [36]
    assert axes(store, pruned_id)["final/total_epochs"] == [24]
    assert store.client.list_artifacts(run_id, "checkpoints")
    assert not store.client.list_artifacts(pruned_id, "checkpoints")


@pytest.mark.parametrize("mode", ["hang", "500", "refuse"])
def test_a_server_that_refuses_points_delays_no_step(
    program: Program, server: CountingServer, mode: str
) -> None:
    """Its log-batch hangs or fails during the training; afterwards it receives all points."""
    code = f"""{TRAINING}
from ignite.engine import Events
with mlflow.start_run(log_system_metrics=False) as run:
    one = trainer(log_system_metrics=True, upload_timeout=1)
    longest = [0.0, time.monotonic()]
    @one.engine.on(Events.ITERATION_COMPLETED)
    def time_step():
        now = time.monotonic()
        longest[:] = max(longest[0], now - longest[1]), now
    one.train()
    print(run.info.run_id, longest[0])
"""
    server.mode(mode)
    done = program(server.url, code, MLFLOW_SYSMETRICS_FLUSH_TIMEOUT="1")
    run_id, longest = done.words
    assert float(longest) < 10  # a request to it takes 15 s and more
    assert "is not among the artifacts of run" in done.stderr  # it refuses artifacts, too
    server.mode("ok")
    sync = """
        import runpy
        sys.argv[1:] = ["sync"]
        runpy.run_module("mlflow_sysmetrics.cli", run_name="__main__")
    """
    program(server.url, sync)
    points = server.points(run_id)
    assert [point["step"] for point in points["train/loss_step"]] == STEPS
    assert [point["step"] for point in points["final/total_steps"]] == [36]


def test_the_warning_about_a_checkpoint_says_how_to_log_it_later(
    program: Program, server: CountingServer, tmp_path: Path
) -> None:
    code = f"""{TRAINING}
with mlflow.start_run(log_system_metrics=False) as run:
    trainer(num_epochs=1, save_dir="kept").train()
print(run.info.run_id)
"""
    done = program(server.url, code)
    (run_id,) = done.words
    remedy = (
        f"mlflow artifacts log-artifact --run-id {run_id} --local-file {tmp_path}/kept/best_checkpoint.pt"
    )
    assert f"{remedy} --artifact-path checkpoints" in done.stderr
    assert (tmp_path / "kept" / "best_checkpoint.pt").exists()
