"""The training loop on Ignite's engines: batches, gradients, epochs, validation. Knows nothing about runs."""

from __future__ import annotations

from typing import Any

import torch

from mlflow_sysmetrics.training.trainer.arguments import Arguments
from mlflow_sysmetrics.training.trainer.batches import Forward
from mlflow_sysmetrics.training.trainer.engines import Events, Passes, new_engine
from mlflow_sysmetrics.training.trainer.gradients import Gradients, LearningRate
from mlflow_sysmetrics.training.trainer.validation import Averages, Predictions, Validation, predictions


class Loop:
    """Trains a model epoch by epoch and validates it after each.

    After an epoch its metrics are in ``engine.state.metrics``. After a step its loss is in
    ``engine.state.output``, still on the device: reading it waits.

    Args:
        arguments: the arguments of `Trainer`.

    Attributes:
        engine: Ignite's engine.
        device: device of the model.
        gradients: accumulates and applies gradients.
        learning_rate: advances the scheduler; after an epoch, the caller does.
        validation: validates after each epoch; None without `val_loader`.
        step_rate: the learning rate of the last step.
    """

    def __init__(self, arguments: Arguments) -> None:
        self.device = torch.device(arguments.device)
        self._model = arguments.model.to(self.device)
        self._optimizer = arguments.optimizer
        self._criterion = arguments.criterion
        self._loader = arguments.train_loader
        self._passes = Passes(self._loader)
        self._forward = Forward(self._model, self._criterion, self.device, arguments.prepare_batch)
        self.learning_rate = LearningRate(arguments.scheduler, arguments.scheduler_interval)
        self.gradients = Gradients(
            self._model,
            self._optimizer,
            self.learning_rate,
            group=arguments.gradient_accumulation_steps,
            clip=arguments.gradient_clip,
            device=self.device,
            precision=_precision(arguments, self.device),
        )
        self.validation = self._validation(arguments)
        self._predictions: Predictions | None = None
        self.step_rate: Any = None
        self._averages = Averages(self.device)
        self.engine = new_engine(self._step)
        self.engine.add_event_handler(Events.EPOCH_STARTED, self._begin_epoch)
        self.engine.add_event_handler(Events.EPOCH_COMPLETED, self._end_epoch)

    def run(self, *, epoch: int, step: int, num_epochs: int) -> None:
        """Trains up to epoch `num_epochs`, starting after `epoch` epochs and `step` steps."""
        state = self.engine.state
        state.epoch, state.iteration, state.max_epochs = epoch, step, num_epochs
        self.gradients.discard()
        self.engine.run(self._passes)

    def step_accuracy(self) -> torch.Tensor | None:
        """Returns the accuracy of the last step, on the device; None if this is not a classification."""
        if self._predictions is None:
            return None
        correct, counted = self._predictions.correct()
        return correct / counted

    def _validation(self, arguments: Arguments) -> Validation | None:
        if arguments.val_loader is None:
            return None
        return Validation(
            self._model,
            self._forward,
            arguments.val_loader,
            device=self.device,
            criterion=self._criterion,
            compute_metrics=arguments.compute_metrics,
            autocast=self.gradients.autocast,
        )

    def _begin_epoch(self, engine: Any) -> None:
        engine.state.metrics.clear()
        self._averages = Averages(self.device)
        _announce_epoch(self._loader, engine.state.epoch - 1)
        self._model.train()

    def _step(self, _engine: object, batch: object) -> torch.Tensor:
        with self.gradients.autocast():
            outcome = self._forward(batch)
        rate = self._optimizer.param_groups[0]["lr"]
        self.step_rate = rate.clone() if isinstance(rate, torch.Tensor) else rate
        self.gradients.add(outcome.loss)
        self._predictions = predictions(outcome.logits, outcome.labels, self._criterion)
        self._averages.add(outcome, self._predictions)
        return outcome.loss.detach()

    def _end_epoch(self, engine: Any) -> None:
        engine.state.epoch_length = None  # the next epoch may have another number of batches
        if not self._passes.batches:
            raise ValueError(
                f"train_loader yielded no batches in epoch {engine.state.epoch}; "
                "an iterator yields its batches only once, a DataLoader every time"
            )
        self.gradients.finish_epoch()
        metrics = {f"train_{name}": value for name, value in self._averages.metrics().items()}
        if self.validation is not None:
            metrics |= self.validation.run()
        engine.state.metrics.update(metrics)


def _precision(arguments: Arguments, device: torch.device) -> torch.dtype | None:
    if not arguments.use_amp:
        return None
    # On a CPU, autocast gains nothing from float16.
    if device.type == "cpu" or arguments.amp_name == "bfloat16":
        return torch.bfloat16
    return torch.float16


def _announce_epoch(loader: object, epoch: int) -> None:
    """Passes the epoch, counted from 0, to a distributed sampler, which shuffles by it."""
    for name in ("sampler", "batch_sampler"):
        set_epoch = getattr(getattr(loader, name, None), "set_epoch", None)
        if callable(set_epoch):
            set_epoch(epoch)
