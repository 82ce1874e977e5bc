"""Averages over an epoch, weighted by samples and kept on the device."""

from __future__ import annotations

import torch

from mlflow_sysmetrics.training.trainer.classification import Guesses
from mlflow_sysmetrics.training.trainer.forward import Outcome


class Averages:
    """Loss and accuracy of the batches of an epoch; the device is asked once, at the end.

    Args:
        device: where the losses are.
    """

    def __init__(self, device: torch.device) -> None:
        wide = torch.float32 if device.type == "mps" else torch.float64  # Apple's has no double precision
        self._loss = torch.zeros((), dtype=wide, device=device)
        self._samples = 0
        self._right: torch.Tensor | None = None
        self._counted: torch.Tensor | None = None

    def add(self, outcome: Outcome, found: Guesses | None) -> torch.Tensor | None:
        """Adds a batch; returns its accuracy, on the device, if it has one."""
        self._loss.add_(outcome.loss.detach().reshape(()).to(self._loss.device), alpha=outcome.samples)
        self._samples += outcome.samples
        if found is None:
            return None
        right, counted = found.right(), found.counted.sum()
        self._right = right if self._right is None else self._right + right
        self._counted = counted if self._counted is None else self._counted + counted
        return right / counted

    def metrics(self) -> dict[str, float]:
        """Returns ``loss``, and ``accuracy`` of a classification; what is undefined is absent."""
        found = {"loss": self._loss.item() / self._samples} if self._samples else {}
        if self._right is not None and self._counted is not None and (counted := self._counted.item()):
            found["accuracy"] = self._right.item() / counted
        return found
