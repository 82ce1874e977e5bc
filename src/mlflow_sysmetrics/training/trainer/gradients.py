"""From the loss of a batch to an optimizer step: mixed precision, accumulation, clipping, learning rate."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch

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
