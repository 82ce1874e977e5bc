"""Trainings with Hugging Face's Trainer are recorded on the run of its MLflowCallback or the user's."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest
from adapter_program import Trained, run_program

if find_spec("accelerate") is None:  # an import would take seconds
    pytest.skip("transformers with accelerate is not installed", allow_module_level=True)

PROGRAM = """
import gc, tempfile, weakref
import torch, transformers
from transformers import BertConfig, BertForSequenceClassification, EarlyStoppingCallback, TrainerCallback
from transformers.integrations import MLflowCallback
from mlflow_sysmetrics.training.adapters.transformers import SysMetricsCallback
transformers.logging.set_verbosity_error()

class Rows(torch.utils.data.Dataset):
    def __len__(self):
        return 24
    def __getitem__(self, index):
        return {"input_ids": torch.tensor([1, 2, 3, index % 7]), "labels": torch.tensor(index % 2)}

class AtStep4(TrainerCallback):
    def __init__(self, act):
        self.act = act
    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == 4:
            self.act()

class Losses(TrainerCallback):
    def __init__(self):
        self.losses = []
    def on_log(self, args, state, control, logs, **kwargs):
        self.losses += [logs["loss"]] if "loss" in logs else []

def made(*callbacks, report_to="mlflow", ours=True, compute=lambda _: {"accuracy": 0.5}, **options):
    config = BertConfig(
        vocab_size=10, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8
    )
    torch.manual_seed(0)
    options = {
        "num_train_epochs": 2, "logging_steps": 2, "eval_strategy": "epoch", "save_strategy": "no", **options
    }
    arguments = transformers.TrainingArguments(
        output_dir=tempfile.mkdtemp(dir="."), report_to=report_to, use_cpu=True, disable_tqdm=True,
        per_device_train_batch_size=4, **options,
    )
    machine = SysMetricsCallback(log_system_metrics=True, system_metrics_interval=4)
    return transformers.Trainer(
        BertForSequenceClassification(config), arguments, train_dataset=Rows(), eval_dataset=Rows(),
        compute_metrics=compute,
        callbacks=[*([machine] if ours else []), *callbacks],
    )

def newest():
    return mlflow.search_runs(output_format="list", max_results=1)[0].info.run_id

# Before any training: accelerate's shared state holds what cannot be pickled after one.
import copy, pickle
untrained = made(report_to="none", compute=None)  # MLflowCallback cannot be pickled
pickled = pickle.loads(pickle.dumps(untrained))
copied = copy.deepcopy(untrained)
pickled.add_callback(MLflowCallback())
pickled.train()
tell("pickled", newest(), kind=type(pickled).__qualname__, trainer=isinstance(pickled, transformers.Trainer))
copied.add_callback(MLflowCallback())
copied.add_callback(AtStep4(lambda: 1 / 0))
with raised("crash of a copy"):
    copied.train()
tell("crashed copy", newest(), active=str(mlflow.active_run()))

losses = Losses()
trainer = made(losses)
trainer.train()
tell("plain", newest(), losses=losses.losses, active=str(mlflow.active_run()))
trainer.evaluate()
mlflow.end_run()  # of MLflowCallback, which started it to log the evaluation
tell("evaluated later", newest())
reference = weakref.ref(trainer)
del trainer, losses
gc.collect()
tell("collected", gone=reference() is None)

trainer = made(gradient_accumulation_steps=2)
trainer.train()
tell("first of two", newest())
trainer.train()
tell("second of two", newest(), active=str(mlflow.active_run()))

trainer = made(report_to="none")
trainer.add_callback(MLflowCallback())
trainer.train()
tell("MLflowCallback last", newest())

made(max_steps=9).train()
tell("max_steps", newest())
made(eval_strategy="no").train()
tell("no validation", newest())
made(
    EarlyStoppingCallback(1), num_train_epochs=9, save_strategy="epoch",
    load_best_model_at_end=True, metric_for_best_model="accuracy",
).train()
tell("stopped", newest())

with raised("no run"):
    made(report_to="none").train()
with raised("a handled crash"), mlflow.start_run() as run:
    try:
        made(AtStep4(lambda: 1 / 0)).train()
    except ZeroDivisionError:
        status = mlflow.get_run(run.info.run_id).info.status
        tell("the user's run", run.info.run_id, status=status, active=mlflow.active_run() is not None)

saving = made(AtStep4(lambda: 1 / 0), save_strategy="steps", save_steps=3)
with raised("crash"):
    saving.train()
tell("crashed", newest(), active=str(mlflow.active_run()))
with mlflow.start_run(run_id=newest()):
    resumed = made()
    resumed.train(resume_from_checkpoint=os.path.join(saving.args.output_dir, "checkpoint-3"))
tell("resumed", newest())

uri = os.environ["MLFLOW_TRACKING_URI"]
alone = mlflow.MlflowClient().create_run("0").info.run_id
tell("named run", alone)
named = made(report_to="none", ours=False)
named.add_callback(SysMetricsCallback(run_id=alone, tracking_uri=uri))
mlflow.set_tracking_uri("sqlite:///elsewhere.db")
named.train()
mlflow.set_tracking_uri(uri)

def told_and_interrupted():
    tell("interrupted", mlflow.active_run().info.run_id)
    interrupt()
made(AtStep4(told_and_interrupted)).train()
"""


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, empty_database: Path) -> Trained:
    return run_program("transformers", PROGRAM, tmp_path_factory, empty_database)


def test_a_trainer_can_be_pickled_and_is_recorded_as_before(trained: Trained) -> None:
    """A class of ours takes the place of the Trainer's, and pickle finds classes by their names."""
    told = trained.told["pickled"]
    assert (told["kind"], told["trainer"]) == ("Trainer", True)
    assert trained.steps("pickled", "epoch/train_loss") == [1, 2]
    assert trained.status("pickled") == "FINISHED"
    assert trained.told["crash of a copy"]["raised"] == "ZeroDivisionError: division by zero"
    assert trained.status("crashed copy") == "FAILED"
    assert trained.told["crashed copy"]["active"] == "None"


def test_every_name_is_there_and_no_others(trained: Trained) -> None:
    assert trained.ours("plain") == {
        "train/loss_step",
        "train/learning_rate",
        "train/batch_time_seconds",
        "epoch/train_loss",
        "epoch/val_loss",
        "epoch/val_accuracy",
        "epoch/duration_seconds",
        "final/best_val_loss",
        "final/best_epoch",
        "final/total_epochs",
        "final/total_steps",
        "final/early_stopped",
        "final/duration_seconds",
    }


def test_losses_are_those_that_the_trainer_reports(trained: Trained) -> None:
    losses = trained.told["plain"]["losses"]
    assert trained.series("plain", "train/loss_step") == [
        (step, pytest.approx(loss)) for step, loss in zip(range(2, 13, 2), losses, strict=True)
    ]
    assert trained.series("plain", "epoch/train_loss") == [
        (1, pytest.approx(sum(losses[:3]) / 3)),
        (2, pytest.approx(sum(losses[3:]) / 3)),
    ]


def test_an_evaluation_belongs_to_the_epoch_that_it_follows(trained: Trained) -> None:
    assert trained.series("plain", "epoch/val_accuracy") == [(1, 0.5), (2, 0.5)]
    assert not trained.ours("evaluated later")


def test_metrics_that_the_trainer_logs_itself_are_unchanged(trained: Trained) -> None:
    assert {"loss", "eval_loss", "learning_rate", "epoch"} <= trained.metrics("plain").keys()
    assert trained.steps("plain", "loss") == [2, 4, 6, 8, 10, 12]


def test_system_metrics_are_recorded_once(trained: Trained) -> None:
    steps = trained.steps("plain", "system/system_memory_usage_percentage")
    assert steps
    assert len(trained.series("plain", "system/system_memory_usage_percentage")) == len(
        {
            (point.timestamp, point.step)
            for point in trained.store.points(
                trained.told["plain"]["run_id"], "system/system_memory_usage_percentage"
            )
        }
    )
    assert trained.steps("plain", "system/memory_percent") == [4, 8, 12]


def test_a_trainer_is_still_garbage_collected(trained: Trained) -> None:
    assert trained.told["collected"]["gone"]


def test_a_second_training_has_its_own_run(trained: Trained) -> None:
    names = ("first of two", "second of two")
    assert len({trained.told[name]["run_id"] for name in names}) == 2
    for name in names:
        assert trained.steps(name, "train/loss_step") == [2, 4, 6]
        assert trained.status(name) == "FINISHED"
        assert "system/system_memory_usage_percentage" in trained.metrics(name)
    assert trained.told["second of two"]["active"] == "None"


def test_the_order_of_the_callbacks_does_not_matter(trained: Trained) -> None:
    assert trained.ours("MLflowCallback last") == trained.ours("plain")
    assert trained.status("MLflowCallback last") == "FINISHED"


def test_max_steps_within_an_epoch_is_not_an_early_stop(trained: Trained) -> None:
    assert trained.steps("max_steps", "epoch/val_loss") == [1, 2]
    metrics = trained.metrics("max_steps")
    assert (metrics["final/total_steps"], metrics["final/early_stopped"]) == (9, 0)
    assert trained.steps("max_steps", "final/total_steps") == [9]


def test_without_validation_the_training_loss_ranks_the_epochs(trained: Trained) -> None:
    assert "final/best_train_loss" in trained.ours("no validation")
    assert not {key for key in trained.ours("no validation") if "val" in key}


def test_early_stopping_and_the_metric_of_the_best_model_are_recorded(trained: Trained) -> None:
    metrics = trained.metrics("stopped")
    assert metrics["final/early_stopped"] == 1
    assert (metrics["final/best_val_accuracy"], metrics["final/best_epoch"]) == (0.5, 1)
    assert metrics["final/total_epochs"] == 2


def test_without_a_run_nothing_is_trained_and_the_error_names_the_remedy(trained: Trained) -> None:
    message = trained.told["no run"]["raised"]
    assert message.startswith("NoActiveRunError: ")
    assert 'report_to="mlflow"' in message


def test_a_run_of_the_user_is_ended_by_the_user(trained: Trained) -> None:
    assert trained.told["a handled crash"]["raised"] is None
    assert trained.told["the user's run"]["status"] == "RUNNING"
    assert trained.told["the user's run"]["active"]
    assert trained.status("the user's run") == "FINISHED"
    assert trained.steps("the user's run", "train/loss_step") == [2]


def test_a_crash_ends_the_run_as_failed_and_a_resume_continues_it(trained: Trained) -> None:
    assert trained.told["crash"]["raised"].startswith("ZeroDivisionError")
    assert trained.told["crashed"]["active"] == "None"
    # The same run, resumed from step 3 by the user.
    assert trained.told["resumed"]["run_id"] == trained.told["crashed"]["run_id"]
    assert trained.steps("resumed", "train/loss_step") == [2, 4, 6, 8, 10, 12]
    assert trained.steps("resumed", "epoch/val_loss") == [1, 2]


def test_a_named_run_on_another_server_is_recorded_and_attached(trained: Trained) -> None:
    assert trained.steps("named run", "train/loss_step") == [2, 4, 6, 8, 10, 12]
    assert "system/system_memory_usage_percentage" in trained.metrics("named run")
    assert trained.status("named run") == "RUNNING"  # its creator ends it


def test_ctrl_c_ends_the_run_as_killed(trained: Trained) -> None:
    assert "KeyboardInterrupt" in trained.stderr
    assert trained.status("interrupted") == "KILLED"
    assert trained.steps("interrupted", "train/loss_step") == [2]
