"""When the learning rate changes: per optimizer step or per epoch, never both."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

PER_STEP, PER_EPOCH = "step", "epoch"


class LearningRate:
    """Moves a scheduler on.

    Args:
        scheduler: of torch, or of the same kind; None changes nothing.
        interval: `PER_STEP` or `PER_EPOCH`. One that looks at a metric does so per epoch, whatever this says.
    """

    def __init__(self, scheduler: Any | None, interval: str) -> None:  # noqa: ANN401 - of whatever library
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

    def state_dict(self) -> Any:  # noqa: ANN401 - of the scheduler
        """Returns what goes into a checkpoint."""
        return None if self._scheduler is None else self._scheduler.state_dict()

    def load_state_dict(self, state: Any) -> None:  # noqa: ANN401 - as above
        """Goes on from a checkpoint."""
        if self._scheduler is not None and state is not None:
            self._scheduler.load_state_dict(state)
