"""The loop itself, on Ignite's engines: batches, gradients, epochs; nothing of runs."""

from __future__ import annotations

from typing import Any

import torch

from mlflow_sysmetrics.training.trainer.arguments import Arguments
from mlflow_sysmetrics.training.trainer.batches import Forward
from mlflow_sysmetrics.training.trainer.engines import Events, new_engine
from mlflow_sysmetrics.training.trainer.gradients import Gradients, LearningRate
from mlflow_sysmetrics.training.trainer.loaders import Passes, announce_epoch
from mlflow_sysmetrics.training.trainer.validation import Averages, Guesses, Validation, guesses


class Loop:
    """Trains a model epoch by epoch, and validates it after each.

    After an epoch its metrics are in ``engine.state.metrics``, after a step its loss is in
    ``engine.state.output``: on the device, where asking for it waits.

    Args:
        arguments: of `Trainer`.

    Attributes:
        engine: of Ignite.
        device: where the model is.
        gradients: applied by this loop.
        learning_rate: moved on by this loop after steps.
        validation: after each epoch; None where there is none.
        step_rate: the learning rate that the last step had.
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
        self._guesses: Guesses | None = None
        self.step_rate: Any = None
        self._averages = Averages(self.device)
        self.engine = new_engine(self._step)
        self.engine.add_event_handler(Events.EPOCH_STARTED, self._begin_epoch)
        self.engine.add_event_handler(Events.EPOCH_COMPLETED, self._end_epoch)

    def run(self, *, epoch: int, step: int, num_epochs: int) -> None:
        """Trains from after an epoch, and the steps that were done by then, to the last epoch."""
        state = self.engine.state
        state.epoch, state.iteration, state.max_epochs = epoch, step, num_epochs
        self.gradients.discard()
        self.engine.run(self._passes)

    def step_accuracy(self) -> torch.Tensor | None:
        """Returns the accuracy of the last step, on the device; None where it is no classification."""
        if self._guesses is None:
            return None
        right, counted = self._guesses.right()
        return right / counted

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
        announce_epoch(self._loader, engine.state.epoch - 1)
        self._model.train()

    def _step(self, _engine: object, batch: object) -> torch.Tensor:
        with self.gradients.autocast():
            outcome = self._forward(batch)
        rate = self._optimizer.param_groups[0]["lr"]
        self.step_rate = rate.clone() if isinstance(rate, torch.Tensor) else rate
        self.gradients.add(outcome.loss)
        self._guesses = guesses(outcome.logits, outcome.labels, self._criterion)
        self._averages.add(outcome, self._guesses)
        return outcome.loss.detach()

    def _end_epoch(self, engine: Any) -> None:
        engine.state.epoch_length = None  # the next epoch ends where the loader does, too
        if not self._passes.batches:
            raise ValueError(
                f"train_loader gave no batch in epoch {engine.state.epoch}; an iterator gives its batches "
                "only once, a DataLoader always"
            )
        self.gradients.finish_epoch()
        found = {f"train_{name}": value for name, value in self._averages.metrics().items()}
        if self.validation is not None:
            found |= self.validation.run()
        engine.state.metrics.update(found)


def _precision(arguments: Arguments, device: torch.device) -> torch.dtype | None:
    if not arguments.use_amp:
        return None
    # CPUs have nothing for halves that autocast would gain by; bfloat16 is what they have.
    if device.type == "cpu" or arguments.amp_name == "bfloat16":
        return torch.bfloat16
    return torch.float16
