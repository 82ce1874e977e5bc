"""Batches: what of them goes into the model, what are the labels, and how they get onto a device."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch

# FOLDED forward: From a batch to its loss: the model, what it returns, and the criterion.


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

    def _call(self, inputs: Any) -> Any:
        if isinstance(inputs, Mapping):
            return self._model(**inputs)
        if isinstance(inputs, tuple):
            return self._model(*inputs)
        return self._model(inputs)


def _logits(output: Any) -> Any:
    """Returns the logits of Hugging Face's outputs; what a model returns otherwise is what it says."""
    if isinstance(output, Mapping) and "logits" in output:
        return output["logits"]
    return getattr(output, "logits", output)


def _loss(output: Any) -> Any:
    loss = output.get("loss") if isinstance(output, Mapping) else getattr(output, "loss", None)
    if loss is None:
        raise TypeError(
            f"criterion=None takes the loss from the model, which returned a {type(output).__name__} "
            "without one; pass a criterion, or labels that the model takes"
        )
    return loss


# What collators call them: Hugging Face's first.
LABELS = ("labels", "label", "targets", "target")
_REMEDY = "pass prepare_batch=, a function that returns (inputs, labels)"


class Parameters(NamedTuple):
    """What a model's `forward` takes.

    Attributes:
        names: of its parameters, without self.
        takes_all: it has ``**kwargs``, or does not tell.
    """

    names: frozenset[str]
    takes_all: bool


def unwrapped(model: torch.nn.Module) -> torch.nn.Module:
    """Returns the model inside one that is compiled or wrapped for several GPUs."""
    while True:
        if isinstance(model, (torch.nn.DataParallel, torch.nn.parallel.DistributedDataParallel)):
            model = model.module
        elif isinstance(getattr(model, "_orig_mod", None), torch.nn.Module):  # of torch.compile
            model = model._orig_mod  # noqa: SLF001 - it has no public name
        else:
            return model


def forward_parameters(model: torch.nn.Module) -> Parameters:
    """Returns what the `forward` of a model takes."""
    try:
        found = inspect.signature(unwrapped(model).forward).parameters.values()
    except (TypeError, ValueError):  # of a scripted module
        return Parameters(frozenset(), takes_all=True)
    names = frozenset(one.name for one in found if one.kind not in {one.VAR_KEYWORD, one.VAR_POSITIONAL})
    return Parameters(names, any(one.kind is one.VAR_KEYWORD for one in found))


def split(batch: object, takes: Parameters, *, loss_of_model: bool) -> tuple[Any, Any]:
    """Returns what goes into the model, and the labels.

    Args:
        batch: a dict, whose labels are taken out and whose other keys are matched to `forward`; or a tuple
            or list that ends with the labels.
        takes: what `forward` takes.
        loss_of_model: whether the model computes its loss itself, and so gets the labels, too.

    Raises:
        TypeError: it is neither, or nothing of it fits; names the remedy.
    """
    if isinstance(batch, Mapping):
        return _split_mapping(batch, takes, loss_of_model=loss_of_model)
    if not isinstance(batch, (tuple, list)) or len(batch) < 2:  # noqa: PLR2004 - inputs and labels
        raise TypeError(
            f"a batch is a {type(batch).__name__}, neither a dict nor (inputs, labels); {_REMEDY}"
        )
    if loss_of_model:
        raise TypeError(
            "criterion=None takes the loss from the model, which finds its labels in a dict only; "
            "pass a criterion"
        )
    return tuple(batch[:-1]), batch[-1]


def _split_mapping(
    batch: Mapping[str, Any], takes: Parameters, *, loss_of_model: bool
) -> tuple[dict[str, Any], Any]:
    key = next((name for name in LABELS if name in batch), None)
    if key is None and not loss_of_model:
        raise TypeError(f"a batch has the keys {sorted(batch)}, none of which is {LABELS}; {_REMEDY}")
    inputs = {
        name: value
        for name, value in batch.items()
        if (name != key or loss_of_model) and (takes.takes_all or name in takes.names)
    }
    if not inputs:
        raise TypeError(
            f"a batch has the keys {sorted(batch)}, and forward() takes {sorted(takes.names)}; {_REMEDY}"
        )
    return inputs, None if key is None else batch[key]


def prepared(batch: object, prepare: Callable[[Any], Any]) -> tuple[Any, Any]:
    """Returns what a function of the caller's makes of a batch.

    Raises:
        TypeError: that is no pair.
    """
    found = prepare(batch)
    if not isinstance(found, (tuple, list)) or len(found) != 2:  # noqa: PLR2004 - inputs and labels
        raise TypeError(f"prepare_batch returned a {type(found).__name__}, and not (inputs, labels)")
    return found[0], found[1]


def moved(value: Any, device: torch.device) -> Any:
    """Returns a batch on a device: tensors, what has a `to` method, and what containers hold of them."""
    if isinstance(value, torch.Tensor):
        return value.to(device, non_blocking=True)
    if isinstance(value, Mapping):
        return {key: moved(one, device) for key, one in value.items()}
    if hasattr(value, "to"):  # a graph; a packed sequence, which is a tuple as well
        return value.to(device)
    if isinstance(value, tuple) and hasattr(value, "_fields"):  # a named one
        return type(value)(*(moved(one, device) for one in value))
    if isinstance(value, (tuple, list)):
        return type(value)(moved(one, device) for one in value)
    return value


def samples_in(labels: object, inputs: object) -> int:
    """Returns how many samples a batch has: the first dimension of the labels, else of the first input."""
    for one in (labels, inputs):
        tensor = _first_tensor(one)
        if tensor is not None:
            return int(tensor.shape[0])
    return 1


def _first_tensor(value: object) -> torch.Tensor | None:
    if isinstance(value, torch.Tensor):
        return value if value.ndim else None
    parts: Sequence[object] = ()
    if isinstance(value, Mapping):
        parts = list(value.values())
    elif isinstance(value, (tuple, list)):
        parts = value
    return next((found for found in map(_first_tensor, parts) if found is not None), None)
