"""Lightning: a callback that records a training, and has the run of its MLflow logger attached.

Works with ``lightning.pytorch`` and with ``pytorch_lightning``: whichever the program has loaded.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from mlflow_sysmetrics.mlflow_api import fluent_state
from mlflow_sysmetrics.mlflow_api.stores import KILLED
from mlflow_sysmetrics.training.adapters import lightning_metrics as metrics_of
from mlflow_sysmetrics.training.adapters.framework import first_installed
from mlflow_sysmetrics.training.adapters.training_log import Choices, TrainingLog, learning_rate_of

_REMEDY = ", or give the Trainer an MLFlowLogger"

_Callback: Any = first_installed("lightning.pytorch", "pytorch_lightning", install="lightning").Callback


class SysMetricsCallback(_Callback):  # type: ignore[misc] # of either package
    """Records a training with Lightning on the run of its MLFlowLogger, or else on the active run.

    A step is a step of the optimizer, as in ``trainer.global_step``: 1 is the first, batches that only
    accumulate gradients are part of one, and several optimizers count each.

    Args:
        run_id: the run, where it is neither the logger's nor the active one.
        tracking_uri: its tracking server.
        logging_steps: every how many steps one is recorded; by default the Trainer's ``log_every_n_steps``.
        monitor: metric of the epochs that says which was best, such as "val_accuracy"; by default what
            EarlyStopping or ModelCheckpoint monitors, or else the loss.
        mode: "min" or "max".
        log_system_metrics: whether to log what the machine does at the steps of the training.
        system_metrics_interval: every how many steps.

    Raises:
        ValueError: an argument makes no sense.
    """

    def __init__(
        self,
        *,
        run_id: str | None = None,
        tracking_uri: str | None = None,
        logging_steps: int | None = None,
        monitor: str | None = None,
        mode: str | None = None,
        log_system_metrics: bool = False,
        system_metrics_interval: int = 10,
    ) -> None:
        super().__init__()
        self._choices = Choices(
            run_id=run_id,
            tracking_uri=tracking_uri,
            logging_steps=logging_steps,
            monitor=monitor,
            mode=mode,
            log_system_metrics=log_system_metrics,
            system_metrics_interval=system_metrics_interval,
        )
        self._log: TrainingLog | None = None
        self._logger: Any = None
        self._step = 0
        self._step_seconds = 0.0
        self._batch_began = 0.0
        self._learning_rate: object = None
        self._of_steps: frozenset[str] | None = None  # what the module logs at its steps

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Opens the log of a fit; the loggers have made their runs by now."""
        if stage != "fit" or not trainer.is_global_zero:
            return
        self._logger = metrics_of.mlflow_logger(trainer)
        self._log = TrainingLog(
            self._choices,
            remedy=_REMEDY,
            run_id=None if self._logger is None else self._logger.run_id,
            tracking_uri=None if self._logger is None else self._logger.experiment.tracking_uri,
            logging_steps=max(trainer.log_every_n_steps, 1),
            monitor=metrics_of.monitor(trainer),
        )

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Begins at the step of the checkpoint, if there is one; the sanity check is over."""
        self._step = trainer.global_step
        self._step_seconds = 0.0
        self._of_steps = None
        if self._log is not None:
            self._log.epoch_began()

    def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        """Records the epoch before: only now has the module logged all of it."""
        if self._log is not None:
            self._log.write_epoch(metrics_of.epoch(trainer, self._of_steps or ()))
            self._log.epoch_began()

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        """Takes the learning rate before the schedulers change it."""
        self._batch_began = time.perf_counter()
        self._learning_rate = learning_rate_of(trainer.optimizers[0]) if trainer.optimizers else None

    def on_train_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Records a step if the optimizer has made one."""
        log = self._log
        if log is None:
            return
        self._step_seconds += time.perf_counter() - self._batch_began
        if self._of_steps is None:
            self._of_steps = frozenset(trainer.callback_metrics)
        loss = outputs.get("loss") if isinstance(outputs, Mapping) else outputs
        if loss is not None and pl_module.automatic_optimization and trainer.accumulate_grad_batches > 1:
            loss = loss * trainer.accumulate_grad_batches  # Lightning hands out the share in the gradient
        log.batch_loss(loss)
        if trainer.global_step == self._step:
            return
        self._step = trainer.global_step
        found: dict[str, object] = {}
        if log.wants(self._step):
            found = metrics_of.step(
                trainer, outputs, learning_rate=self._learning_rate, batch_time_seconds=self._step_seconds
            )
        log.step(self._step, **found)
        log.machine(self._step)
        self._step_seconds = 0.0

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """Closes the epoch, also one that ``max_steps`` cuts short."""
        if self._log is not None:
            self._log.epoch_ended(trainer.current_epoch + 1)

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        """Takes what the validation has found; of several in one epoch, the last counts."""
        if self._log is not None and not trainer.sanity_checking:
            self._log.epoch_metrics(metrics_of.validation(trainer))

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        """Records the summary."""
        if self._log is not None:
            self._log.write_epoch(metrics_of.epoch(trainer, self._of_steps or ()))
            self._log.finish(total_steps=trainer.global_step, early_stopped=metrics_of.stopped_early(trainer))

    def teardown(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Lets go of the run; of a fit that had nothing left to do, it is all that comes."""
        if self._log is not None:
            self._log.close()
            self._log = None

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        """Hands over what there is. The logger ends its run as FAILED; after Ctrl-C it is to say KILLED."""
        log, self._log = self._log, None
        if log is None:
            return
        ours = self._logger is not None and log.run_id not in fluent_state.active_run_ids()
        if ours and isinstance(exception, KeyboardInterrupt):
            _end_as_killed(self._logger)
        log.close()


def _end_as_killed(logger: Any) -> None:
    """Has a logger end its run as KILLED: Lightning will tell it "failed", and that after our last hook."""

    def finalize(status: str) -> None:
        del logger.finalize
        logger.finalize(KILLED if status == "failed" else status)

    logger.finalize = finalize
