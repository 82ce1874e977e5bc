"""Trainings with PyTorch-Ignite are recorded."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import pytest
from adapter_program import Trained, run_program

if find_spec("ignite") is None:  # an import would take seconds
    pytest.skip("pytorch-ignite is not installed", allow_module_level=True)

PROGRAM = """
import torch
from ignite.engine import Engine, Events, create_supervised_evaluator, create_supervised_trainer
from ignite.handlers import EarlyStopping
from ignite.metrics import Accuracy, ConfusionMatrix, Loss, RunningAverage
from mlflow_sysmetrics.training.adapters.ignite import attach

batches = [(torch.randn(4, 3), torch.randint(0, 2, (4,))) for _ in range(5)]
criterion = torch.nn.functional.cross_entropy

def trainer(name=None, evaluates="after", at=None, process=None, **options):
    torch.manual_seed(0)
    model = torch.nn.Linear(3, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    made = create_supervised_trainer(model, optimizer, criterion) if process is None else Engine(process)
    losses = []
    made.add_event_handler(Events.ITERATION_COMPLETED, lambda: losses.append(made.state.output))
    metrics = {"loss": Loss(criterion), "accuracy": Accuracy(), "matrix": ConfusionMatrix(2)}
    evaluator = create_supervised_evaluator(model, metrics=metrics) if evaluates else None
    def evaluate():
        evaluator.run(batches)
    if evaluates == "before":
        made.add_event_handler(Events.EPOCH_COMPLETED, evaluate)
    attach(made, evaluator, optimizer=optimizer, logging_steps=1, **options)
    if evaluates == "after":
        made.add_event_handler(Events.EPOCH_COMPLETED, evaluate)
    if at is not None:
        made.add_event_handler(Events.ITERATION_COMPLETED(once=7), at, made)
    if name is not None:
        tell(name, mlflow.active_run().info.run_id)
    made.losses, made.evaluator = losses, evaluator
    return made

for evaluates in ("after", "before"):
    with mlflow.start_run():
        made = trainer(
            evaluates, evaluates, monitor="val_accuracy", mode="max",
            log_system_metrics=True, system_metrics_interval=5,
        )
        RunningAverage(output_transform=lambda loss: 2.0).attach(made, "smooth")
        made.run(batches, max_epochs=2)
        tell(evaluates, told[evaluates]["run_id"], losses=made.losses)
        made.evaluator.run(batches)

with mlflow.start_run():
    trainer("no validation", evaluates=None).run(batches, max_epochs=1)
with mlflow.start_run():
    trainer("max_iters").run(batches, max_iters=7)
with mlflow.start_run():
    trainer("terminated", at=lambda made: made.terminate()).run(batches, max_epochs=4)
with mlflow.start_run():
    trainer("skipping", at=lambda made: made.terminate(skip_completed=True)).run(batches, max_epochs=4)
with mlflow.start_run():
    trainer("cut epoch", at=lambda made: made.terminate_epoch(skip_epoch_completed=True)).run(
        batches, max_epochs=3
    )
with mlflow.start_run():
    made = trainer("stopped")
    stop = EarlyStopping(patience=1, score_function=lambda _: 0.0, trainer=made)
    made.evaluator.add_event_handler(Events.COMPLETED, stop)
    made.run(batches, max_epochs=9)
with mlflow.start_run():
    made = trainer("continued", evaluates=None)
    made.run(batches, max_epochs=1)
    made.run(batches, max_epochs=2)
with mlflow.start_run():
    outputs = iter([{"loss": torch.tensor(1.0), "accuracy": 0.5}, (2.0, "more"), torch.ones(4), None])
    trainer("outputs", evaluates=None, process=lambda engine, batch: next(outputs)).run(
        batches, max_epochs=1, epoch_length=4
    )

with raised("no run"):
    trainer().run(batches, max_epochs=1)
with mlflow.start_run():
    made = trainer("swallowed", at=lambda made: 1 / 0)
    made.add_event_handler(Events.EXCEPTION_RAISED, lambda error: None)
    with raised("swallowed by its user"):
        made.run(batches, max_epochs=2)
with raised("wrong mode"):
    attach(Engine(lambda engine, batch: 0.0), monitor="val_temperature")

mlflow.start_run()
trainer("crashed", at=lambda made: 1 / 0).run(batches, max_epochs=2)
"""


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, empty_database: Path) -> Trained:
    return run_program("ignite", PROGRAM, tmp_path_factory, empty_database)


@pytest.mark.parametrize("name", ["after", "before"])
def test_every_name_is_there_whether_the_evaluation_runs_before_or_after(trained: Trained, name: str) -> None:
    assert trained.ours(name) == {
        "train/loss_step",
        "train/learning_rate",
        "train/batch_time_seconds",
        "epoch/train_loss",
        "epoch/train_smooth",
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
    assert trained.steps(name, "epoch/val_accuracy") == [1, 2]
    assert trained.steps(name, "system/memory_percent") == [5, 10]


def test_losses_are_the_outputs_of_the_process_function(trained: Trained) -> None:
    losses = trained.told["after"]["losses"]
    assert trained.series("after", "train/loss_step") == [
        (step, pytest.approx(loss)) for step, loss in enumerate(losses, 1)
    ]
    assert trained.series("after", "epoch/train_loss") == [
        (1, pytest.approx(sum(losses[:5]) / 5)),
        (2, pytest.approx(sum(losses[5:]) / 5)),
    ]
    assert trained.series("after", "train/learning_rate") == [(step, 0.5) for step in range(1, 11)]


def test_a_metric_that_is_not_a_number_is_left_out_with_one_warning(trained: Trained) -> None:
    assert trained.stderr.count("metric 'val_matrix' is not recorded") == 1


def test_without_validation_the_training_loss_ranks_the_epochs(trained: Trained) -> None:
    assert "final/best_train_loss" in trained.ours("no validation")
    assert not {key for key in trained.ours("no validation") if "val" in key}


@pytest.mark.parametrize(
    ("name", "epochs", "steps", "early"),
    [
        ("max_iters", [1, 2], 7, 0),
        ("terminated", [1, 2], 7, 1),
        ("skipping", [1, 2], 7, 1),
        ("cut epoch", [1, 2, 3], 12, 0),
    ],
)
def test_an_epoch_that_is_cut_short_counts_as_an_epoch(
    trained: Trained, name: str, epochs: list[int], steps: int, early: int
) -> None:
    assert trained.steps(name, "epoch/train_loss") == epochs
    metrics = trained.metrics(name)
    assert (metrics["final/total_steps"], metrics["final/early_stopped"]) == (steps, early)


def test_early_stopping_is_recorded(trained: Trained) -> None:
    metrics = trained.metrics("stopped")
    assert metrics["final/early_stopped"] == 1
    assert metrics["final/total_epochs"] == 2


def test_a_second_run_with_more_epochs_continues(trained: Trained) -> None:
    assert trained.steps("continued", "train/loss_step") == list(range(1, 11))
    assert trained.steps("continued", "epoch/train_loss") == [1, 2]


def test_outputs_may_be_mappings_or_sequences_and_any_other_is_left_out(trained: Trained) -> None:
    assert trained.series("outputs", "train/loss_step") == [(1, 1.0), (2, 2.0)]
    assert trained.series("outputs", "train/accuracy_step") == [(1, 0.5)]
    assert trained.series("outputs", "epoch/train_loss") == [(1, 1.5)]
    assert trained.stderr.count("metric 'loss' is not recorded") == 1


def test_without_a_run_nothing_is_trained(trained: Trained) -> None:
    assert trained.told["no run"]["raised"].startswith("NoActiveRunError: ")


def test_a_monitor_whose_name_implies_no_mode_needs_one(trained: Trained) -> None:
    assert (
        "cannot infer from the name whether to minimise or maximise 'val_temperature'"
        in trained.told["wrong mode"]["raised"]
    )


def test_a_handler_that_swallows_exceptions_still_does(trained: Trained) -> None:
    assert trained.told["swallowed by its user"]["raised"] is None
    assert trained.status("swallowed") == "FINISHED"


def test_an_exception_that_ends_the_program_ends_its_run_as_failed(trained: Trained) -> None:
    assert trained.returncode == 1
    assert trained.status("crashed") == "FAILED"
    assert trained.steps("crashed", "train/loss_step") == list(range(1, 8))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # Ignite's import of torch.jit
@pytest.mark.parametrize(("iteration", "stopped"), [(8, False), (5, True)])
def test_an_ignite_without_a_limit_of_iterations_ends_as_any_other(iteration: int, stopped: bool) -> None:
    """As 0.5.2, the oldest that the extra allows."""
    from mlflow_sysmetrics.training.adapters.ignite import _stopped_early

    state = SimpleNamespace(iteration=iteration, epoch=2, max_epochs=2, epoch_length=4)
    assert _stopped_early(SimpleNamespace(state=state, should_terminate=True)) is stopped
