"""PyTorch-Ignite: `attach` records the trainings of an engine on their runs."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from mlflow_sysmetrics.training.adapters.training_log import Choices, TrainingLog, learning_rate_of
from mlflow_sysmetrics.training.extras import first_installed

_LOGGING_STEPS = 100  # the default of `Trainer`

_distributed: Any = first_installed("ignite.distributed", install="pytorch-ignite")
_Events: Any = first_installed("ignite.engine", install="pytorch-ignite").Events


def attach(
    trainer: Any,
    evaluator: Any = None,
    *,
    optimizer: Any = None,
    output_transform: Callable[[Any], Any] | None = None,
    run_id: str | None = None,
    tracking_uri: str | None = None,
    logging_steps: int = _LOGGING_STEPS,
    monitor: str | None = None,
    mode: str | None = None,
    log_system_metrics: bool = False,
    system_metrics_interval: int = 10,
) -> None:
    """Records each training with an Ignite engine on the run that is active when `trainer.run` is called.

    A step is an iteration of the trainer, ``trainer.state.iteration``. The output of its process function
    must be the loss of the batch, a mapping with ``loss`` and optionally ``accuracy``, or a sequence that
    starts with the loss. Metrics attached to the trainer become ``epoch/train_...``, those of the evaluator
    ``epoch/val_...``.

    Args:
        trainer: the engine that trains.
        evaluator: the engine that validates, called from a handler of the trainer.
        optimizer: the source of ``train/learning_rate``.
        output_transform: converts any other output of the process function to one of these.
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
    choices = Choices(
        run_id=run_id,
        tracking_uri=tracking_uri,
        logging_steps=logging_steps,
        monitor=monitor,
        mode=mode,
        log_system_metrics=log_system_metrics,
        system_metrics_interval=system_metrics_interval,
    )
    recording = _Recording(choices, optimizer, output_transform or (lambda output: output))
    for event, hook in (
        (_Events.STARTED, recording.started),
        (_Events.EPOCH_STARTED, recording.epoch_started),
        (_Events.ITERATION_STARTED, recording.iteration_started),
        (_Events.ITERATION_COMPLETED, recording.iteration_completed),
        (_Events.EPOCH_COMPLETED, recording.epoch_completed),
        (_Events.TERMINATE, recording.terminated),
        (_Events.COMPLETED, recording.completed),
    ):
        trainer.add_event_handler(event, hook)
    if evaluator is not None:
        evaluator.add_event_handler(_Events.COMPLETED, recording.evaluated)


class _Recording:
    """The handlers of one trainer; none for exceptions, which Ignite swallows as soon as one handles them."""

    def __init__(self, choices: Choices, optimizer: Any, output_transform: Callable[[Any], Any]) -> None:
        self._choices = choices
        self._optimizer = optimizer
        self._output_transform = output_transform
        self._log: TrainingLog | None = None
        self._began = 0.0
        self._learning_rate: object = None
        self._in_epoch = False

    def started(self) -> None:
        """Opens the log of a training on the first process."""
        self._log = TrainingLog(self._choices) if _distributed.get_rank() == 0 else None
        self._in_epoch = False

    def epoch_started(self, trainer: Any) -> None:
        """Records the epoch before: all handlers have finished with it only now."""
        self._write_epoch(trainer, trainer.state.epoch - 1)
        if self._log is not None:
            self._log.epoch_began()

    def iteration_started(self) -> None:
        """Starts the timer and reads the learning rate before a scheduler changes it."""
        self._began = time.perf_counter()
        self._learning_rate = learning_rate_of(self._optimizer)

    def iteration_completed(self, trainer: Any) -> None:
        """Records a step."""
        log = self._log
        if log is None:
            return
        seconds = time.perf_counter() - self._began
        self._in_epoch = True
        metrics = _named(self._output_transform(trainer.state.output))
        log.batch_loss(metrics.get("loss"))
        step = trainer.state.iteration
        log.step(
            step,
            accuracy=metrics.get("accuracy"),
            learning_rate=self._learning_rate,
            batch_time_seconds=seconds,
        )
        log.machine(step)

    def epoch_completed(self, trainer: Any) -> None:
        """Marks the end of the epoch; its validation comes before or after this."""
        self._in_epoch = False
        if self._log is not None:
            self._log.epoch_ended(trainer.state.epoch)

    def evaluated(self, evaluator: Any) -> None:
        """Takes the metrics of the evaluator."""
        if self._log is not None:
            self._log.epoch_metrics(_of("val", evaluator.state.metrics))

    def terminated(self, trainer: Any) -> None:
        """Finishes a training whose COMPLETED event is skipped."""
        if trainer.should_terminate == "skip_completed":
            self.completed(trainer)

    def completed(self, trainer: Any) -> None:
        """Records the summary."""
        self._write_epoch(trainer, trainer.state.epoch)
        log, self._log = self._log, None
        if log is not None:
            log.finish(total_steps=trainer.state.iteration, early_stopped=_stopped_early(trainer))

    def _write_epoch(self, trainer: Any, number: int) -> None:
        """Records the epoch that has ended, even one that was terminated midway."""
        if self._log is None:
            return
        if self._in_epoch:
            self._in_epoch = False
            self._log.epoch_ended(number)
        self._log.write_epoch(_of("train", trainer.state.metrics))


def _named(output: Any) -> Mapping[str, object]:
    """Returns the loss in the output of a process function, and the accuracy if there is one."""
    if isinstance(output, Mapping):
        return {"loss": output.get("loss"), "accuracy": output.get("accuracy", output.get("acc"))}
    if isinstance(output, Sequence) and not isinstance(output, str):
        return {"loss": output[0] if output else None}
    return {"loss": output}


def _of(part: str, metrics: Mapping[str, object]) -> dict[str, object]:
    """Returns the metrics of an engine under the names of epoch metrics."""
    return {
        name if name.startswith(f"{part}_") else f"{part}_{name}": value
        for name, value in metrics.items()
        if not isinstance(value, Mapping)  # Ignite adds its items as metrics, too
    }


def _stopped_early(trainer: Any) -> bool:
    """Returns whether the training was terminated before the epochs or iterations of `run` were done."""
    state = trainer.state
    max_iters = getattr(state, "max_iters", None)  # Ignite 0.5.2 has no such limit
    if max_iters is not None:
        return bool(state.iteration < max_iters)
    all_epochs = state.epoch == state.max_epochs
    done = all_epochs and state.epoch_length and state.iteration >= state.epoch * state.epoch_length
    return bool(trainer.should_terminate) and not done
