"""Trainings with Lightning are recorded on the run of its MLFlowLogger."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest
from adapter_program import Trained, run_program

if find_spec("lightning") is None:  # an import would take seconds
    pytest.skip("lightning is not installed", allow_module_level=True)

PROGRAM = """
import logging
logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
import torch, lightning.pytorch as pl
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger, MLFlowLogger
from mlflow_sysmetrics.training.adapters.lightning import SysMetricsCallback

class Module(pl.LightningModule):
    def __init__(self, at_step_4=lambda: None, log_as="train_loss"):
        super().__init__()
        self.layer, self.at_step_4, self.log_as = torch.nn.Linear(4, 1), at_step_4, log_as
        self.losses = []
    def training_step(self, batch, index):
        if self.global_step == 3:
            self.at_step_4()
        loss = self.layer(batch[0]).pow(2).mean()
        self.losses.append(float(loss))
        self.log(self.log_as, loss, on_step=True, on_epoch=self.log_as == "train/loss")
        self.log("train_acc", 0.25)
        return loss
    def on_train_epoch_end(self):
        self.log("train_f1", 0.5)
    def validation_step(self, batch, index):
        self.log("val_loss", 10.0 + self.current_epoch)
        self.log("val/acc", 0.75)
    def configure_optimizers(self):
        optimizer = torch.optim.SGD(self.parameters(), lr=0.1)
        return [optimizer], [{"scheduler": torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.1)}]

class TwoOptimizers(Module):
    automatic_optimization = False
    def training_step(self, batch, index):
        for optimizer in self.optimizers():
            optimizer.zero_grad()
            self.manual_backward(self.layer(batch[0]).pow(2).mean())
            optimizer.step()
        return {"loss": torch.tensor(3.0), "accuracy": torch.tensor(0.125)}
    def configure_optimizers(self):
        return [torch.optim.SGD(self.parameters(), lr=0.1) for _ in range(2)]

torch.manual_seed(0)
batches = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(torch.randn(24, 4)), batch_size=4)

def trainer(name, *callbacks, logger=None, max_epochs=2, logging_steps=1, machine=False, **options):
    logger = logger or MLFlowLogger(run_name=name, tracking_uri=os.environ["MLFLOW_TRACKING_URI"])
    ours = SysMetricsCallback(
        logging_steps=logging_steps, log_system_metrics=machine, system_metrics_interval=4
    )
    made = pl.Trainer(
        accelerator="cpu", max_epochs=max_epochs, logger=logger, callbacks=[ours, *callbacks],
        enable_progress_bar=False, enable_model_summary=False,
        enable_checkpointing=any(isinstance(one, ModelCheckpoint) for one in callbacks), **options,
    )
    if isinstance(logger, MLFlowLogger):
        tell(name, logger.run_id)
    return made

module = Module()
trainer("plain", machine=True).fit(module, batches, batches)
tell("plain", told["plain"]["run_id"], losses=module.losses)
module = Module()
trainer("accumulating", accumulate_grad_batches=4, val_check_interval=0.5).fit(module, batches, batches)
tell("accumulating", told["accumulating"]["run_id"], losses=module.losses)
trainer("no validation", max_epochs=1, logging_steps=4).fit(Module(), batches)
trainer("max_steps", max_steps=8).fit(Module(), batches, batches)
trainer("two optimizers", max_epochs=1).fit(TwoOptimizers(), batches)
trainer("own key", max_epochs=1, log_every_n_steps=2).fit(Module(log_as="train/loss"), batches)
trainer("stopped", EarlyStopping("val_loss"), max_epochs=9).fit(Module(), batches, batches)
trainer("validated").validate(Module(), batches, verbose=False)

first = trainer("resumed", ModelCheckpoint(save_last=True), max_epochs=1)
first.fit(Module(), batches, batches)
again = trainer("resumed", max_epochs=2, logger=first.logger)
again.fit(Module(), batches, batches, ckpt_path=first.checkpoint_callback.last_model_path)

continued = trainer("continued", max_epochs=1)
continued.fit(Module(), batches, batches)
continued.fit_loop.max_epochs = 2
continued.fit(continued.lightning_module, batches, batches)

with raised("dry run without a run"):
    trainer("dry", fast_dev_run=True).fit(Module(), batches, batches)
with mlflow.start_run() as run, raised("dry run"):
    trainer("dry", fast_dev_run=True, logger=CSVLogger("csv")).fit(Module(), batches, batches)
tell("dry run", run.info.run_id)
with raised("barebones"):
    pl.Trainer(barebones=True, max_epochs=1, callbacks=[SysMetricsCallback()]).fit(Module(), batches)

with raised("no run"):
    trainer("no run", logger=CSVLogger("csv")).fit(Module(), batches)
with mlflow.start_run() as run:
    trainer("active run", logger=CSVLogger("csv"), max_epochs=1).fit(Module(), batches)
    tell("active run", run.info.run_id, status=mlflow.get_run(run.info.run_id).info.status)

os.environ["MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING"] = "false"
trainer("switched off", max_epochs=1).fit(Module(), batches)
del os.environ["MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING"]

def crash():
    raise ValueError("a crash")
crashing = trainer("crashed")
with raised("crash"):
    crashing.fit(Module(at_step_4=crash), batches, batches)
trainer("interrupted").fit(Module(at_step_4=interrupt), batches, batches)
"""


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, empty_database: Path) -> Trained:
    return run_program("lightning", PROGRAM, tmp_path_factory, empty_database)


def test_every_name_is_there_and_no_others(trained: Trained) -> None:
    assert trained.ours("plain") == {
        "train/loss_step",
        "train/accuracy_step",
        "train/learning_rate",
        "train/batch_time_seconds",
        "epoch/train_loss",
        "epoch/train_f1",
        "epoch/val_loss",
        "epoch/val_acc",
        "epoch/duration_seconds",
        "final/best_val_loss",
        "final/best_epoch",
        "final/total_epochs",
        "final/total_steps",
        "final/early_stopped",
        "final/duration_seconds",
    }


def test_a_dry_run_is_not_recorded(trained: Trained) -> None:
    """Lightning switches its own loggers off in it, to try the code without a trace."""
    for name in ("dry run without a run", "dry run", "barebones"):
        assert trained.told[name].get("raised") is None
    assert not trained.ours("dry run")


def test_losses_of_steps_are_those_of_the_module(trained: Trained) -> None:
    losses = trained.told["plain"]["losses"]
    assert len(losses) == 12
    assert trained.series("plain", "train/loss_step") == [
        (step, pytest.approx(loss)) for step, loss in enumerate(losses, 1)
    ]


def test_epochs_count_from_1_without_the_sanity_check(trained: Trained) -> None:
    losses = trained.told["plain"]["losses"]
    assert trained.series("plain", "epoch/train_loss") == [
        (1, pytest.approx(sum(losses[:6]) / 6)),
        (2, pytest.approx(sum(losses[6:]) / 6)),
    ]
    assert trained.series("plain", "epoch/val_loss") == [(1, 10.0), (2, 11.0)]
    assert trained.series("plain", "epoch/train_f1") == [(1, 0.5), (2, 0.5)]  # logged in its last hook


def test_the_learning_rate_is_that_of_the_step_and_not_of_the_next(trained: Trained) -> None:
    rates = [rate for _, rate in trained.series("plain", "train/learning_rate")]
    assert rates == [pytest.approx(0.1)] * 6 + [pytest.approx(0.01)] * 6


def test_the_summary_is_at_the_last_step(trained: Trained) -> None:
    found = {key: trained.series("plain", f"final/{key}") for key in ("best_val_loss", "best_epoch")}
    assert found == {"best_val_loss": [(12, 10.0)], "best_epoch": [(12, 1.0)]}
    metrics = trained.metrics("plain")
    assert metrics["final/total_epochs"] == 2
    assert metrics["final/total_steps"] == 12
    assert metrics["final/early_stopped"] == 0


def test_the_run_of_the_logger_has_system_metrics_unless_they_are_switched_off(
    trained: Trained,
) -> None:
    assert "system/system_memory_usage_percentage" in trained.metrics("plain")
    assert trained.steps("plain", "system/memory_percent") == [4, 8, 12]
    assert not [key for key in trained.metrics("switched off") if key.startswith("system/")]
    assert trained.status("plain") == "FINISHED"


def test_batches_whose_gradients_accumulate_are_one_step(trained: Trained) -> None:
    losses = trained.told["accumulating"]["losses"]
    groups = [losses[0:4], losses[4:6], losses[6:10], losses[10:12]]
    assert trained.series("accumulating", "train/loss_step") == [
        (step, pytest.approx(sum(group) / len(group))) for step, group in enumerate(groups, 1)
    ]
    assert trained.steps("accumulating", "epoch/val_loss") == [1, 2]  # two validations each: the last counts


def test_without_validation_the_training_loss_ranks_the_epochs(trained: Trained) -> None:
    ours = trained.ours("no validation")
    assert "final/best_train_loss" in ours
    assert not {key for key in ours if "val" in key}
    assert trained.steps("no validation", "train/loss_step") == [1, 4]
    assert trained.steps("no validation", "final/total_steps") == [6]


def test_max_steps_within_an_epoch_is_not_an_early_stop(trained: Trained) -> None:
    assert trained.steps("max_steps", "epoch/train_loss") == [1, 2]
    metrics = trained.metrics("max_steps")
    assert (metrics["final/total_steps"], metrics["final/early_stopped"]) == (8, 0)


def test_each_of_several_optimizers_counts_as_in_lightning(trained: Trained) -> None:
    assert trained.series("two optimizers", "train/loss_step") == [(step, 3.0) for step in range(2, 13, 2)]
    assert trained.series("two optimizers", "train/accuracy_step")[0] == (2, 0.125)


def test_a_key_that_the_module_logs_itself_is_left_to_it(trained: Trained) -> None:
    # Lightning's axis counts from 0.
    assert trained.steps("own key", "train/loss_step") == [1, 3, 5]
    assert trained.steps("own key", "train/learning_rate") == [1, 2, 3, 4, 5, 6]


def test_early_stopping_is_recorded(trained: Trained) -> None:
    metrics = trained.metrics("stopped")
    assert metrics["final/early_stopped"] == 1
    assert metrics["final/total_epochs"] < 9
    assert metrics["final/best_epoch"] == 1


def test_a_validation_alone_records_nothing(trained: Trained) -> None:
    assert trained.ours("validated") == set()
    assert trained.status("validated") == "FINISHED"


@pytest.mark.parametrize("name", ["resumed", "continued"])
def test_a_continued_training_continues_the_axes(trained: Trained, name: str) -> None:
    assert trained.steps(name, "train/loss_step") == list(range(1, 13))
    assert trained.steps(name, "epoch/val_loss") == [1, 2]


def test_without_a_run_nothing_is_trained_and_the_error_names_the_remedy(trained: Trained) -> None:
    message = trained.told["no run"]["raised"]
    assert message.startswith("NoActiveRunError: ")
    assert "MLFlowLogger" in message


def test_a_run_of_the_user_stays_open(trained: Trained) -> None:
    assert "final/total_steps" in trained.ours("active run")
    assert trained.told["active run"]["status"] == "RUNNING"
    assert trained.status("active run") == "FINISHED"


def test_a_crash_ends_the_run_as_failed_with_the_points_so_far(trained: Trained) -> None:
    assert trained.told["crash"]["raised"] == "ValueError: a crash"
    assert trained.status("crashed") == "FAILED"
    assert trained.steps("crashed", "train/loss_step") == [1, 2, 3]
    assert not {key for key in trained.ours("crashed") if key.startswith("final/")}


def test_ctrl_c_ends_the_run_as_killed(trained: Trained) -> None:
    assert trained.returncode == 1
    assert trained.status("interrupted") == "KILLED"
    assert trained.steps("interrupted", "train/loss_step") == [1, 2, 3]


def test_the_older_package_of_lightning_works_too(
    tmp_path_factory: pytest.TempPathFactory, empty_database: Path
) -> None:
    if find_spec("pytorch_lightning") is None:
        pytest.skip("pytorch_lightning is not installed")
    code = """
    import torch, pytorch_lightning as pl
    from pytorch_lightning.demos.boring_classes import BoringModel
    from pytorch_lightning.loggers import MLFlowLogger
    from mlflow_sysmetrics.training.adapters.lightning import SysMetricsCallback
    logger = MLFlowLogger(tracking_uri=os.environ["MLFLOW_TRACKING_URI"])
    tell("plain", logger.run_id, is_one=issubclass(SysMetricsCallback, pl.Callback), lightning="lightning.pytorch" in sys.modules)
    pl.Trainer(
        max_epochs=1, limit_train_batches=3, accelerator="cpu", logger=logger, callbacks=[SysMetricsCallback(logging_steps=1)],
        enable_progress_bar=False, enable_model_summary=False, enable_checkpointing=False,
    ).fit(BoringModel())
    """
    trained = run_program("pytorch_lightning", code, tmp_path_factory, empty_database)
    assert (trained.told["plain"]["is_one"], trained.told["plain"]["lightning"]) == (True, False)
    assert trained.steps("plain", "train/loss_step") == [1, 2, 3]
    assert "system/system_memory_usage_percentage" in trained.metrics("plain")
