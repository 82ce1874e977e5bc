"""From a batch to its loss: the model, what it returns, and the criterion."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch

from mlflow_sysmetrics.training.trainer.batches import forward_parameters, moved, prepared, samples_in, split


class Outcome(NamedTuple):
    """What came of a batch.

    Attributes:
        loss: a tensor of one element.
        logits: what the model said.
        labels: what is true; None where only the model saw it.
        samples: how many there were.
    """

    loss: torch.Tensor
    logits: Any
    labels: Any
    samples: int


class Forward:
    """Takes batches through a model.

    Args:
        model: is called with what a batch holds: by name, or in order.
        criterion: of logits and labels; None takes the ``loss`` that the model returns.
        device: where to.
        prepare_batch: of the caller; returns inputs and labels of a batch.
    """

    def __init__(
        self,
        model: torch.nn.Module,
        criterion: Callable[[Any, Any], torch.Tensor] | None,
        device: torch.device,
        prepare_batch: Callable[[Any], Any] | None,
    ) -> None:
        self._model = model
        self._criterion = criterion
        self._device = device
        self._prepare = prepare_batch
        self._takes = forward_parameters(model)

    def __call__(self, batch: object) -> Outcome:
        """Returns what comes of a batch."""
        if self._prepare is None:
            inputs, labels = split(batch, self._takes, loss_of_model=self._criterion is None)
        else:
            inputs, labels = prepared(batch, self._prepare)
        inputs, labels = moved(inputs, self._device), moved(labels, self._device)
        output = self._call(inputs)
        logits = _logits(output)
        loss = _loss(output) if self._criterion is None else self._criterion(logits, labels)
        if not isinstance(loss, torch.Tensor) or loss.numel() != 1:
            what = f"a tensor of {tuple(loss.shape)}" if isinstance(loss, torch.Tensor) else f"{loss!r}"
            raise ValueError(f"the loss of a batch is {what}, and not one number; reduce it, as by its mean")
        return Outcome(loss, logits, labels, samples_in(labels, inputs))

    def _call(self, inputs: Any) -> Any:  # noqa: ANN401 - whatever the model takes and returns
        if isinstance(inputs, Mapping):
            return self._model(**inputs)
        if isinstance(inputs, tuple):
            return self._model(*inputs)
        return self._model(inputs)


def _logits(output: Any) -> Any:  # noqa: ANN401 - as above
    """Returns the logits of Hugging Face's outputs; what a model returns otherwise is what it says."""
    if isinstance(output, Mapping) and "logits" in output:
        return output["logits"]
    return getattr(output, "logits", output)


def _loss(output: Any) -> Any:  # noqa: ANN401 - as above
    loss = output.get("loss") if isinstance(output, Mapping) else getattr(output, "loss", None)
    if loss is None:
        raise TypeError(
            f"criterion=None takes the loss from the model, which returned a {type(output).__name__} "
            "without one; pass a criterion, or labels that the model takes"
        )
    return loss
