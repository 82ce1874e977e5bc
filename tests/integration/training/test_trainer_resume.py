"""A killed training resumes on its own run, and no point has two values."""

from __future__ import annotations

import signal
import subprocess
from collections import Counter
from pathlib import Path

import pytest
from programs import Program, Store

from installed import require

require("torch", "ignite")

from trainer_programs import TRAINING

SPAN = [*range(1, 61)]
# Five epochs of twelve steps. DIE_AT in the environment is the step at which it kills itself.
JOB = f"""{TRAINING}
import numpy
from ignite.engine import Events
network.append(torch.nn.Dropout(0.1))  # draws random numbers in each step
train = torch.utils.data.DataLoader(data, batch_size=8, shuffle=True, generator=torch.Generator().manual_seed(4))
optimizer = torch.optim.Adam(network.parameters(), numpy.logspace(-3, -1, 3)[1])  # 0.01, of NumPy
one = trainer(train_loader=train, num_epochs=5, logging_steps=1, save_dir="kept", patience=50, optimizer=optimizer,
              scheduler=torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.97), log_system_metrics=True,
              system_metrics_interval=4)
die_at = int(os.environ.get("DIE_AT", "0"))
@one.engine.on(Events.ITERATION_COMPLETED)
def die(engine):
    if engine.state.iteration == die_at:
        mlflow_sysmetrics.flush(60)
        os.kill(os.getpid(), 9)
with mlflow.start_run(run_id=run_to_resume("kept"), log_system_metrics=False) as run:
    summary = one.train()
print(run.info.run_id, summary["total_steps"], summary["total_epochs"], summary["best_epoch"])
"""


def points(store: Store, run_id: str, key: str) -> list[tuple[int, float]]:
    return [(point.step, point.value) for point in store.client.get_metric_history(run_id, key)]


@pytest.mark.parametrize("die_at", [7, 31, 48])
@pytest.mark.every_database
def test_a_killed_training_resumes_as_if_nothing_had_happened(
    program: Program, store: Store, die_at: int
) -> None:
    """In the first epoch, in the third, and in the last step of the fourth."""
    killed = program(store.uri, JOB, check=False, DIE_AT=str(die_at))
    assert killed.returncode == -signal.SIGKILL
    run_id, steps, epochs, best_epoch = program(store.uri, JOB).words
    Path("kept").rename("kept before")
    whole, *ended = program(store.uri, JOB).words
    assert whole != run_id
    assert [steps, epochs, best_epoch] == ended
    losses = points(store, run_id, "train/loss_step")
    assert [step for step, _ in losses] == SPAN
    assert losses == points(store, whole, "train/loss_step")
    for key in ("epoch/train_loss", "epoch/val_f1_macro", "train/learning_rate", "final/best_val_f1_macro"):
        assert points(store, run_id, key) == points(store, whole, key), key
    for key in store.client.get_run(run_id).data.metrics:
        assert max(Counter(step for step, _ in points(store, run_id, key)).values()) == 1, key
    assert [step for step, _ in points(store, run_id, "system/cpu_percent")] == SPAN[3::4]


def test_a_finished_training_is_not_repeated_but_can_be_extended(program: Program, store: Store) -> None:
    first = program(store.uri, JOB).words
    assert program(store.uri, JOB).words == first
    run_id = first[0]
    assert [step for step, _ in points(store, run_id, "final/total_steps")] == [60]
    more = program(store.uri, JOB.replace("num_epochs=5", "num_epochs=6")).words
    assert more[:3] == [run_id, "72", "6"]
    assert points(store, run_id, "final/total_steps") == [(60, 60), (72, 72)]
    assert [step for step, _ in points(store, run_id, "epoch/val_loss")] == [1, 2, 3, 4, 5, 6]


def test_a_resumed_training_records_the_same_steps(program: Program, store: Store) -> None:
    code = JOB.replace("logging_steps=1", "logging_steps=7")
    program(store.uri, code, check=False, DIE_AT="31")
    run_id = program(store.uri, code).words[0]
    assert [step for step, _ in points(store, run_id, "train/loss_step")] == [1, *range(7, 61, 7)]


@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_training_killed_at_its_first_checkpoint_can_be_restarted(
    program: Program, store: Store, moment: str
) -> None:
    deadly = f"""
from mlflow_sysmetrics.training.trainer.checkpoints import Checkpoints
whole = Checkpoints.try_out
def try_out(self, state):
    if {moment!r} == "after":
        whole(self, state)
    os.kill(os.getpid(), 9)
Checkpoints.try_out = try_out
with mlflow.start_run("""
    killed = program(store.uri, JOB.replace("with mlflow.start_run(", deadly.lstrip(), 1), check=False)
    assert killed.returncode == -signal.SIGKILL
    assert program(store.uri, JOB).words[1:3] == ["60", "5"]


def test_an_epoch_that_cannot_be_recorded_leaves_no_checkpoint(program: Program, store: Store) -> None:
    """Otherwise a resume would fail, too: it would try to record that epoch again."""
    handler = "one.engine.on(Events.EPOCH_COMPLETED)(lambda engine: engine.state.metrics.update({'f1 (macro)': 1.0}))"
    code = JOB.replace("die_at =", f"{handler}\ndie_at =", 1)
    failed = program(store.uri, code, check=False)
    assert "ValueError: MLflow does not accept the metric name 'f1 (macro)'" in failed.stderr
    assert program(store.uri, JOB).words[1:3] == ["60", "5"]


def test_a_stop_at_nan_keeps_the_weights_of_the_epoch_before(program: Program, store: Store) -> None:
    code = f"""{TRAINING}
criterion = torch.nn.CrossEntropyLoss()
calls = []
def broken(logits, labels):
    if network.training:
        calls.append(1)
    return criterion(logits, labels) * (float("nan") if len(calls) == 15 else 1)
try:
    with mlflow.start_run() as run:
        trainer(criterion=broken, stop_on_nan=True, logging_steps=100, save_dir="kept").train()
except FloatingPointError as error:
    print(error)
kept = torch.load("kept/latest_checkpoint.pt", weights_only=True)
print(kept["epoch"], all(torch.isfinite(one).all() for one in kept["model_state_dict"].values()))
"""
    lines = program(store.uri, code).stdout.splitlines()
    assert lines[-2:] == ["train_loss of epoch 2 is nan", "1 True"]


def test_a_directory_of_another_run_is_an_error_before_training(program: Program, store: Store) -> None:
    (first, *_) = program(store.uri, JOB, DIE_AT="0").words
    code = JOB.replace('run_id=run_to_resume("kept"), ', "")
    found = program(store.uri, code, check=False)
    kept = str(Path("kept").absolute())
    assert f"ValueError: save_dir={kept!r} must belong to run " in found.stderr
    assert f", but it holds the training of run {first}. To resume that, use" in found.stderr
    anew = program(store.uri, code.replace('save_dir="kept"', 'save_dir="kept", resume=False')).words
    assert anew[0] != first
    assert anew[1:3] == ["60", "5"]
    assert [step for step, _ in points(store, anew[0], "train/loss_step")] == SPAN


def test_it_finds_its_run_if_none_is_active(program: Program, store: Store) -> None:
    killed = program(store.uri, JOB, check=False, DIE_AT="20")
    assert killed.returncode == -signal.SIGKILL
    code = JOB.replace(
        'with mlflow.start_run(run_id=run_to_resume("kept"), log_system_metrics=False) as run:', "if True:"
    )
    code = code.replace("print(run.info.run_id,", "print(mlflow.active_run(),")
    nothing, steps, *_ = program(store.uri, code).words
    assert (nothing, steps) == ("None", "60")
    (run,) = store.client.search_runs(["0"])
    assert [step for step, _ in points(store, run.info.run_id, "train/loss_step")] == SPAN


def test_a_program_without_a_directory_leaves_no_files(
    program: Program, store: Store, tmp_path: Path
) -> None:
    code = f"""{TRAINING}
with mlflow.start_run(log_system_metrics=False):
    trainer(num_epochs=1).train()
"""
    (tmp_path / "temporary").mkdir()
    program(store.uri, code, TMPDIR=str(tmp_path / "temporary"))
    left = subprocess.run(["ls", tmp_path / "temporary"], capture_output=True, text=True, check=True)
    assert "checkpoint" not in left.stdout
