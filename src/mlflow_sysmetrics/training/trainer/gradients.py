"""From losses to optimizer steps: mixed precision, accumulation, clipping."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch

# FOLDED learning_rate: When the learning rate changes: per optimizer step or per epoch, never both.

PER_STEP, PER_EPOCH = "step", "epoch"


class LearningRate:
    """Moves a scheduler on.

    Args:
        scheduler: of torch, or of the same kind; None changes nothing.
        interval: `PER_STEP` or `PER_EPOCH`. One that looks at a metric does so per epoch, whatever this says.
    """

    def __init__(self, scheduler: Any | None, interval: str) -> None:
        self._scheduler = scheduler
        self._looks = isinstance(scheduler, torch.optim.lr_scheduler.ReduceLROnPlateau)
        self._interval = PER_EPOCH if self._looks else interval

    def after_step(self) -> None:
        """Moves on after an optimizer step."""
        if self._scheduler is not None and self._interval == PER_STEP:
            self._scheduler.step()

    def after_epoch(self, metrics: Mapping[str, float], monitored: str) -> None:
        """Moves on after an epoch.

        Args:
            metrics: of the epoch.
            monitored: the name of the one to look at; an epoch without it changes nothing.
        """
        if self._scheduler is None or self._interval != PER_EPOCH:
            return
        if not self._looks:
            self._scheduler.step()
        elif monitored in metrics:
            self._scheduler.step(metrics[monitored])

    def state_dict(self) -> Any:
        """Returns what goes into a checkpoint."""
        return None if self._scheduler is None else self._scheduler.state_dict()

    def load_state_dict(self, state: Any) -> None:
        """Goes on from a checkpoint."""
        if self._scheduler is not None and state is not None:
            self._scheduler.load_state_dict(state)


class Gradients:
    """Applies the gradients of each group of batches.

    Args:
        model: whose gradients are clipped.
        optimizer: applies them.
        learning_rate: moves on after each step that was made.
        group: batches per step; the gradient is that of the mean of their losses.
        clip: largest norm, after unscaling; None does not clip.
        device: where the model is.
        precision: of autocast; None is that of the model.
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
        self._waiting = 0
        # Halves lose small gradients unless losses are scaled up; bfloat16 has the range of a float.
        scaled = precision == torch.float16 and device.type == "cuda"
        self._scaler: Any = torch.amp.GradScaler(device.type) if scaled else None

    def autocast(self) -> AbstractContextManager[Any]:
        """Returns what the forward pass runs in."""
        if self._precision is None:
            return nullcontext()
        context: AbstractContextManager[Any] = torch.autocast(self._device.type, self._precision)
        return context

    def discard(self) -> None:
        """Forgets gradients that were not applied, whoever made them."""
        self._waiting = 0
        self._optimizer.zero_grad()

    def add(self, loss: torch.Tensor) -> None:
        """Adds the gradient of a batch, and applies the group that it completes."""
        if not self._waiting:
            self._optimizer.zero_grad()
        if self._group > 1:
            loss = loss / self._group
        (loss if self._scaler is None else self._scaler.scale(loss)).backward()
        self._waiting += 1
        if self._waiting == self._group:
            self._apply()

    def finish_epoch(self) -> None:
        """Applies the group that the end of the epoch has cut short, as the mean of what is in it."""
        if self._waiting:
            self._apply()

    def _apply(self) -> None:
        stretch = self._group / self._waiting
        self._waiting = 0
        if self._scaler is not None and (self._clip is not None or stretch != 1):
            self._scaler.unscale_(self._optimizer)
        if stretch != 1:
            for parameter in self._model.parameters():
                if parameter.grad is not None:
                    parameter.grad.mul_(stretch)
        if self._clip is not None:
            torch.nn.utils.clip_grad_norm_(self._model.parameters(), self._clip)
        if self._stepped():
            self._learning_rate.after_step()

    def _stepped(self) -> bool:
        """Has the optimizer step; returns whether it has: a scaler leaves out steps with infinities."""
        if self._scaler is None:
            self._optimizer.step()
            return True
        before = self._scaler.get_scale()
        self._scaler.step(self._optimizer)
        self._scaler.update()
        return bool(self._scaler.get_scale() >= before)

    def state_dict(self) -> Any:
        """Returns what goes into a checkpoint."""
        return None if self._scaler is None else self._scaler.state_dict()

    def load_state_dict(self, state: Any) -> None:
        """Goes on from a checkpoint."""
        if self._scaler is not None and state:
            self._scaler.load_state_dict(state)
