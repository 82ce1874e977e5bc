"""Keras: a callback for ``model.fit`` that records a training on its run, with any backend."""

from __future__ import annotations

import sys
import time
from typing import Any

from mlflow_sysmetrics.training.adapters.training_log import Choices, TrainingLog
from mlflow_sysmetrics.training.extras import first_installed

_Callback: Any = first_installed("keras", install="keras").callbacks.Callback

_LOGGING_STEPS = 100  # the default of `Trainer`


class SysMetricsCallback(_Callback):  # type: ignore[misc] # keras has no types
    """Records a training with Keras on the active run.

    A step is a batch, counted over all epochs and fits. Keras does not expose the loss of a single batch:
    ``train/loss_step`` and ``train/accuracy_step`` are its running means since the start of the epoch.

    With the torch backend, only the first process of a distributed training records. With any other backend,
    pass the callback in one process only.

    Args:
        run_id: the run; the active run by default.
        tracking_uri: the run's tracking server; needs `run_id`.
        logging_steps: records the first step and every step whose number is a multiple of this.
        monitor: the metric that ranks the epochs, such as "val_accuracy"; by default the first of
            val_f1_macro, val_loss and train_loss that the training has.
        mode: "min" or "max"; inferred from the name by default.
        log_system_metrics: whether to log hardware metrics at the steps of the training.
        system_metrics_interval: steps between two of these.

    Raises:
        ValueError: an argument is invalid, or does not go with another.
    """

    # Lets Keras call the batch hooks from a thread; otherwise it waits for the device at every batch.
    async_safe = True

    def __init__(
        self,
        *,
        run_id: str | None = None,
        tracking_uri: str | None = None,
        logging_steps: int = _LOGGING_STEPS,
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
        self._epochs = 0
        self._steps_before = 0  # the current epoch
        self._steps = 0
        self._begun: dict[int, tuple[float, object]] = {}  # by batch: start time and learning rate

    def on_train_begin(self, logs: Any = None) -> None:
        """Opens the log; continues the steps of an earlier fit."""
        if not _is_first_process():
            return
        self._log = TrainingLog(self._choices)
        optimizer = self.model.optimizer
        self._steps = int(optimizer.iterations) * (optimizer.gradient_accumulation_steps or 1)
        self._epochs = 0

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Records the epoch before."""
        self._steps_before = self._steps
        self._begun.clear()
        if self._log is not None:
            self._log.epoch_began()

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        """Starts the timer and reads the learning rate before it changes."""
        if self._log is not None:
            step = self._steps_before + batch + self._per_call()
            rate = self.model.optimizer.learning_rate if self._log.wants(step) else None
            # The backend's own tensor: one of torch stays on its device until the recorder is flushed.
            self._begun[batch] = (time.perf_counter(), getattr(rate, "value", rate))

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Records a step; with ``steps_per_execution``, one that represents as many batches."""
        log = self._log
        if log is None:
            return
        now = time.perf_counter()
        first = batch - batch % self._per_call()
        began, rate = self._begun.pop(first, (now, None))
        step = self._steps_before + batch + 1
        self._steps = max(self._steps, step)  # Keras's threads may call in another order
        metrics = logs or {}
        log.step(
            step,
            loss=metrics.get("loss"),
            accuracy=metrics.get("accuracy", metrics.get("acc")),
            learning_rate=rate,
            batch_time_seconds=(now - began) / (batch - first + 1),
        )
        log.machine(step)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Takes the metrics of the epoch and of its validation."""
        self._epochs = epoch + 1
        if self._log is not None:
            self._log.epoch_metrics(
                {
                    name if name.startswith("val_") else f"train_{name}": value
                    for name, value in (logs or {}).items()
                    if name not in {"learning_rate", "lr"}
                }
            )
            self._log.epoch_ended(self._epochs)

    def on_train_end(self, logs: Any = None) -> None:
        """Records the summary."""
        log, self._log = self._log, None
        if log is not None:
            planned = (self.params or {}).get("epochs") or self._epochs
            log.finish(total_steps=self._steps, early_stopped=self._epochs < planned)

    def _per_call(self) -> int:
        """Returns the number of batches between two calls of a callback."""
        return int(getattr(self.model, "steps_per_execution", None) or 1)


def _is_first_process() -> bool:
    """Returns whether this process records: the only one of a training, or torch's first."""
    distributed = sys.modules.get("torch.distributed")
    return distributed is None or not distributed.is_initialized() or distributed.get_rank() == 0
