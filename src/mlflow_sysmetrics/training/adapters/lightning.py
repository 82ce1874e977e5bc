"""Lightning: a callback that records a training and attaches the run of its MLFlowLogger.

Works with ``lightning.pytorch`` and ``pytorch_lightning``, whichever the program has loaded.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from mlflow_sysmetrics.mlflow_api import fluent_state
from mlflow_sysmetrics.mlflow_api.stores import KILLED
from mlflow_sysmetrics.training.adapters import lightning_metrics as metrics_of
from mlflow_sysmetrics.training.adapters.training_log import Choices, TrainingLog, learning_rate_of
from mlflow_sysmetrics.training.extras import first_installed

_REMEDY = ", or give the Trainer an MLFlowLogger"

_Callback: Any = first_installed("lightning.pytorch", "pytorch_lightning", install="lightning").Callback


class SysMetricsCallback(_Callback):  # type: ignore[misc] # a class of either package
    """Records a training with Lightning on the run of its MLFlowLogger, or on the active run if it has none.

    A step is a step of the optimizer, ``trainer.global_step``, from 1. Batches whose gradients accumulate are
    one step; with several optimizers, each of their steps counts.

    A ``fast_dev_run`` and a ``barebones`` Trainer, whose loggers Lightning switches off, are not recorded.

    Args:
        run_id: the run; by default the logger's, or else the active run.
        tracking_uri: the run's tracking server; needs `run_id`.
        logging_steps: records the first step and every step whose number is a multiple of this; by default
            the Trainer's ``log_every_n_steps``.
        monitor: the metric that ranks the epochs, such as "val_accuracy"; by default the one of EarlyStopping
            or ModelCheckpoint, or else the first of val_f1_macro, val_loss and train_loss that the training
            has.
        mode: "min" or "max"; inferred from the name by default.
        log_system_metrics: whether to log hardware metrics at the steps of the training.
        system_metrics_interval: steps between two of these.

    Raises:
        ValueError: an argument is invalid, or does not go with another.
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
        self._of_steps: frozenset[str] | None = None  # metrics that the module logs at steps

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Opens the log of a fit; the loggers have created their runs by now."""
        if stage != "fit" or not trainer.is_global_zero or metrics_of.is_dry_run(trainer):
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
        """Starts at the step of the checkpoint, if there is one; the sanity check is over."""
        self._step = trainer.global_step
        self._step_seconds = 0.0
        self._of_steps = None
        if self._log is not None:
            self._log.epoch_began()

    def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        """Records the epoch before: the module has logged all of it only now."""
        if self._log is not None:
            self._log.write_epoch(metrics_of.epoch(trainer, self._of_steps or ()))
            self._log.epoch_began()

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        """Starts the timer and reads the learning rate before the schedulers change it."""
        self._batch_began = time.perf_counter()
        self._learning_rate = learning_rate_of(trainer.optimizers[0]) if trainer.optimizers else None

    def on_train_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Records a step, if the optimizer has made one."""
        log = self._log
        if log is None:
            return
        self._step_seconds += time.perf_counter() - self._batch_began
        if self._of_steps is None:
            self._of_steps = frozenset(trainer.callback_metrics)
        loss = outputs.get("loss") if isinstance(outputs, Mapping) else outputs
        if loss is not None and pl_module.automatic_optimization and trainer.accumulate_grad_batches > 1:
            loss = loss * trainer.accumulate_grad_batches  # Lightning returns the loss scaled for its share
        log.batch_loss(loss)
        if trainer.global_step == self._step:
            return
        self._step = trainer.global_step
        metrics: dict[str, object] = {}
        if log.wants(self._step):
            metrics = metrics_of.step(
                trainer, outputs, learning_rate=self._learning_rate, batch_time_seconds=self._step_seconds
            )
        log.step(self._step, **metrics)
        log.machine(self._step)
        self._step_seconds = 0.0

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """Marks the end of the epoch, even one that ``max_steps`` cuts short."""
        if self._log is not None:
            self._log.epoch_ended(trainer.current_epoch + 1)

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        """Takes the metrics of the validation; of several in one epoch, the last counts."""
        if self._log is not None and not trainer.sanity_checking:
            self._log.epoch_metrics(metrics_of.validation(trainer))

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        """Records the summary."""
        if self._log is not None:
            self._log.write_epoch(metrics_of.epoch(trainer, self._of_steps or ()))
            self._log.finish(total_steps=trainer.global_step, early_stopped=metrics_of.stopped_early(trainer))

    def teardown(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Closes the log; the only hook of a fit that has nothing left to do."""
        if self._log is not None:
            self._log.close()
            self._log = None

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        """Closes the log. The logger will end its run as FAILED; after Ctrl-C it should be KILLED."""
        log, self._log = self._log, None
        if log is None:
            return
        ours = self._logger is not None and log.run_id not in fluent_state.active_run_ids()
        if ours and isinstance(exception, KeyboardInterrupt):
            _end_as_killed(self._logger)
        log.close()


def _end_as_killed(logger: Any) -> None:
    """Makes a logger end its run as KILLED: Lightning reports "failed" to it, after our last hook."""

    def finalize(status: str) -> None:
        del logger.finalize
        logger.finalize(KILLED if status == "failed" else status)

    logger.finalize = finalize
