"""The training loop on Ignite's engines: batches, optimizer steps, epochs. Knows nothing about runs.

An optimizer step has mixed precision, accumulation, clipping, and the learning rate.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch

from mlflow_sysmetrics.training.trainer.arguments import Arguments
from mlflow_sysmetrics.training.trainer.batches import Forward
from mlflow_sysmetrics.training.trainer.engines import Events, Passes, new_engine
from mlflow_sysmetrics.training.trainer.validation import Averages, Predictions, Validation, predictions

_PER_STEP, _PER_EPOCH = "step", "epoch"


class LearningRate:
    """Advances a scheduler per optimizer step or per epoch, never both.

    Args:
        scheduler: a scheduler of torch, or of the same interface; None leaves the learning rate alone.
        interval: "step" or "epoch". ReduceLROnPlateau needs the metric of an epoch, so it always advances per
            epoch.
    """

    def __init__(self, scheduler: Any | None, interval: str) -> None:
        self._scheduler = scheduler
        self._needs_metric = isinstance(scheduler, torch.optim.lr_scheduler.ReduceLROnPlateau)
        self._interval = _PER_EPOCH if self._needs_metric else interval

    def after_step(self) -> None:
        """Advances the scheduler after an optimizer step, if that is its interval."""
        if self._scheduler is not None and self._interval == _PER_STEP:
            self._scheduler.step()

    def after_epoch(self, metrics: Mapping[str, float], monitored: str) -> None:
        """Advances the scheduler after an epoch, if that is its interval.

        Args:
            metrics: metrics of the epoch.
            monitored: name of the metric for ReduceLROnPlateau; without it the scheduler does not advance.
        """
        if self._scheduler is None or self._interval != _PER_EPOCH:
            return
        if not self._needs_metric:
            self._scheduler.step()
        elif monitored in metrics:
            self._scheduler.step(metrics[monitored])

    def state_dict(self) -> Any:
        """Returns the state for a checkpoint."""
        return None if self._scheduler is None else self._scheduler.state_dict()

    def load_state_dict(self, state: Any) -> None:
        """Restores the state of a checkpoint."""
        if self._scheduler is not None and state is not None:
            self._scheduler.load_state_dict(state)


class Gradients:
    """Accumulates the gradients of a group of batches and applies them.

    Args:
        model: its gradients are clipped.
        optimizer: applies the gradients.
        learning_rate: advances after each optimizer step.
        group: batches per step; the gradient is that of their mean loss.
        clip: largest norm of the gradients, after unscaling; None does not clip.
        device: device of the model.
        precision: type for autocast; None computes in the model's precision.
    """

    def __init__(
        self,
        model: torch.nn.Module,
        optimizer: torch.optim.Optimizer,
        learning_rate: LearningRate,
        *,
        group: int,
        clip: float | None,
        device: torch.device,
        precision: torch.dtype | None,
    ) -> None:
        self._model = model
        self._optimizer = optimizer
        self._learning_rate = learning_rate
        self._group = group
        self._clip = clip
        self._device = device
        self._precision = precision
        self._accumulated = 0
        # float16 loses small gradients unless losses are scaled up; bfloat16 has the range of float32.
        scaled = precision == torch.float16 and device.type == "cuda"
        self._scaler: Any = torch.amp.GradScaler(device.type) if scaled else None

    def autocast(self) -> AbstractContextManager[Any]:
        """Returns the context for the forward pass."""
        if self._precision is None:
            return nullcontext()
        context: AbstractContextManager[Any] = torch.autocast(self._device.type, self._precision)
        return context

    def discard(self) -> None:
        """Discards gradients that were not applied, including those from before the training."""
        self._accumulated = 0
        self._optimizer.zero_grad()

    def add(self, loss: torch.Tensor) -> None:
        """Adds the gradient of a batch; applies the group when it is complete."""
        if not self._accumulated:
            self._optimizer.zero_grad()
        if self._group > 1:
            loss = loss / self._group
        (loss if self._scaler is None else self._scaler.scale(loss)).backward()
        self._accumulated += 1
        if self._accumulated == self._group:
            self._apply()

    def finish_epoch(self) -> None:
        """Applies a group that the end of the epoch has cut short, as the mean of its batches."""
        if self._accumulated:
            self._apply()

    def state_dict(self) -> Any:
        """Returns the state for a checkpoint."""
        return None if self._scaler is None else self._scaler.state_dict()

    def load_state_dict(self, state: Any) -> None:
        """Restores the state of a checkpoint."""
        if self._scaler is not None and state:
            self._scaler.load_state_dict(state)

    def _apply(self) -> None:
        correction = self._group / self._accumulated  # 1 unless the group was cut short
        self._accumulated = 0
        if self._scaler is not None and (self._clip is not None or correction != 1):
            self._scaler.unscale_(self._optimizer)
        if correction != 1:
            for parameter in self._model.parameters():
                if parameter.grad is not None:
                    parameter.grad.mul_(correction)
        if self._clip is not None:
            torch.nn.utils.clip_grad_norm_(self._model.parameters(), self._clip)
        if self._stepped():
            self._learning_rate.after_step()

    def _stepped(self) -> bool:
        """Steps the optimizer; returns False if the scaler skipped the step because of infinite gradients."""
        if self._scaler is None:
            self._optimizer.step()
            return True
        before = self._scaler.get_scale()
        self._scaler.step(self._optimizer)
        self._scaler.update()
        return bool(self._scaler.get_scale() >= before)


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
