"""Averages over an epoch, weighted by samples and kept on the device."""

from __future__ import annotations

import torch

from mlflow_sysmetrics.training.trainer.classification import Guesses
from mlflow_sysmetrics.training.trainer.forward import Outcome

# Adding up takes as long for many values as for one; so many are put by, small ones all of them.
_PUT_BY = 64


class Averages:
    """Loss and accuracy of the batches of an epoch; the device is asked once, at the end.

    Args:
        device: where the losses are.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._wide = (
            torch.float32 if device.type == "mps" else torch.float64
        )  # Apple's has no double precision
        self._loss = torch.zeros((), dtype=self._wide, device=device)
        self._right = torch.zeros((), dtype=torch.int64, device=device)
        self._counted = torch.zeros((), dtype=torch.int64, device=device)
        self._samples = 0
        self._size = 0  # of the batches that are put by
        self._losses: list[torch.Tensor] = []
        self._guesses: list[Guesses] = []

    def add(self, outcome: Outcome, found: Guesses | None = None) -> None:
        """Adds a batch."""
        if outcome.samples != self._size or len(self._losses) >= _PUT_BY:
            self._add_up()
            self._size = outcome.samples
        self._losses.append(outcome.loss.detach())
        self._samples += outcome.samples
        if found is not None:
            self._guesses.append(found)

    def metrics(self) -> dict[str, float]:
        """Returns ``loss``, and ``accuracy`` of a classification; what is undefined is absent."""
        self._add_up()
        found = {"loss": self._loss.item() / self._samples} if self._samples else {}
        if counted := self._counted.item():
            found["accuracy"] = self._right.item() / counted
        return found

    def _add_up(self) -> None:
        if self._losses:
            together = torch.stack([one.reshape(()) for one in self._losses]).to(self._device, self._wide)
            self._loss.add_(together.sum(), alpha=self._size)
        if self._guesses:
            right, counted = Guesses(
                torch.cat([one.predicted.flatten() for one in self._guesses]),
                torch.cat([one.actual.flatten() for one in self._guesses]),
                self._guesses[0].ignored,
                self._guesses[0].classes,
            ).right()
            self._right += right
            self._counted += counted
        self._losses, self._guesses = [], []
