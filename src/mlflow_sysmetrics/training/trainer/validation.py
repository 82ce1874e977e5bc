"""A pass over the validation set, and its metrics."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any

import torch

from mlflow_sysmetrics.training.trainer.averages import Averages
from mlflow_sysmetrics.training.trainer.classification import ClassCounts, guesses
from mlflow_sysmetrics.training.trainer.engines import new_engine
from mlflow_sysmetrics.training.trainer.forward import Forward, Outcome
from mlflow_sysmetrics.training.trainer.loaders import Passes
from mlflow_sysmetrics.training.values import number

_PREFIX = "val_"


class Validation:
    """Validates a model.

    Args:
        model: is put into evaluation mode.
        forward: takes batches through it.
        loader: of the batches.
        device: where they are.
        criterion: what computed the loss, if not the model.
        compute_metrics: of the caller; of all logits and labels, on the CPU. None computes those of a
            classification.
        autocast: returns what the forward pass runs in.

    Attributes:
        engine: of Ignite, for handlers of the caller.
    """

    def __init__(  # noqa: PLR0913 - one for each thing that it needs
        self,
        model: torch.nn.Module,
        forward: Forward,
        loader: Any,  # noqa: ANN401 - whatever can be iterated
        *,
        device: torch.device,
        criterion: object,
        compute_metrics: Callable[[Any, Any], Mapping[str, Any]] | None,
        autocast: Callable[[], AbstractContextManager[Any]],
    ) -> None:
        self.engine = new_engine(self._step)
        self._model = model
        self._forward = forward
        self._passes = Passes(loader)
        self._device = device
        self._criterion = criterion
        self._compute = compute_metrics
        self._autocast = autocast

    def run(self) -> dict[str, float]:
        """Returns the metrics of one pass, by name, with ``val_``."""
        self._averages = Averages(self._device)
        self._counts = ClassCounts()
        self._collected: list[tuple[torch.Tensor, torch.Tensor]] = []
        self._model.eval()
        self.engine.state.epoch_length = None  # which may be another one than last time
        self.engine.run(self._passes, max_epochs=1)
        if not self._passes.batches:
            raise ValueError(
                "val_loader gave no batch; an iterator gives its batches only once, a DataLoader always"
            )
        found = {**self._averages.metrics(), **self._counts.metrics(), **self._computed()}
        return {name if name.startswith(_PREFIX) else f"{_PREFIX}{name}": one for name, one in found.items()}

    def _step(self, _engine: object, batch: object) -> torch.Tensor:
        with torch.no_grad(), self._autocast():
            outcome = self._forward(batch)
        self._averages.add(outcome)
        if self._compute is not None:
            self._collected.append(_on_cpu(outcome))
        elif (found := guesses(outcome.logits, outcome.labels, self._criterion)) is not None:
            self._counts.add(found)
        return outcome.loss

    def _computed(self) -> dict[str, float]:
        if self._compute is None:
            return {}
        logits, labels = (torch.cat(parts) for parts in zip(*self._collected, strict=True))
        self._collected = []
        found = self._compute(logits, labels)
        if not isinstance(found, Mapping):
            raise TypeError(f"compute_metrics returned a {type(found).__name__}, and not values by name")
        return {
            str(name): number(f"{name} of compute_metrics", value)
            for name, value in found.items()
            if value is not None
        }


def _on_cpu(outcome: Outcome) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns logits and labels of a batch in main memory, the logits in full precision."""
    if not isinstance(outcome.logits, torch.Tensor) or not isinstance(outcome.labels, torch.Tensor):
        raise TypeError(
            "compute_metrics needs logits and labels that are tensors; they are "
            f"{type(outcome.logits).__name__} and {type(outcome.labels).__name__}"
        )
    return outcome.logits.detach().float().cpu(), outcome.labels.cpu()
