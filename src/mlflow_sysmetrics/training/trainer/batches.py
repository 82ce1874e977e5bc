"""From a batch to its loss: inputs and labels, their device, the model and the criterion."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch

_LABELS = ("labels", "label", "targets", "target")  # Hugging Face's name first
_PAIR = 2  # inputs and labels
_REMEDY = "pass prepare_batch=, a function that returns (inputs, labels)"


class Outcome(NamedTuple):
    """The result of a forward pass.

    Attributes:
        loss: a tensor of one element.
        logits: the output of the model.
        labels: the labels of the batch; None if only the model received them.
        samples: number of samples in the batch.
    """

    loss: torch.Tensor
    logits: Any
    labels: Any
    samples: int


class Forward:
    """Runs batches through a model.

    Args:
        model: is called with the inputs of a batch, by name or by position.
        criterion: computes the loss from logits and labels; None uses the ``loss`` that the model returns.
        device: where tensors are moved to.
        prepare_batch: the user's function that returns inputs and labels of a batch.
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
        """Returns loss, logits and labels of a batch."""
        if self._prepare is None:
            inputs, labels = split(batch, self._takes, loss_of_model=self._criterion is None)
        else:
            inputs, labels = prepared(batch, self._prepare)
        inputs, labels = moved(inputs, self._device), moved(labels, self._device)
        output = self._call(inputs)
        logits = _logits(output)
        loss = _loss(output) if self._criterion is None else self._criterion(logits, labels)
        if not isinstance(loss, torch.Tensor) or loss.numel() != 1:
            what = f"a tensor of shape {tuple(loss.shape)}" if isinstance(loss, torch.Tensor) else f"{loss!r}"
            raise ValueError(f"the loss of a batch must be a tensor of one element, got {what}; use its mean")
        return Outcome(loss, logits, labels, samples_in(labels, inputs))

    def _call(self, inputs: Any) -> Any:
        if isinstance(inputs, Mapping):
            return self._model(**inputs)
        if isinstance(inputs, tuple):
            return self._model(*inputs)
        return self._model(inputs)


class Parameters(NamedTuple):
    """The parameters of a model's `forward`.

    Attributes:
        names: their names, without self.
        takes_all: whether it accepts any name: it has ``**kwargs``, or no signature to read.
    """

    names: frozenset[str]
    takes_all: bool


def forward_parameters(model: torch.nn.Module) -> Parameters:
    """Returns the parameters of a model's `forward`."""
    try:
        parameters = inspect.signature(unwrapped(model).forward).parameters.values()
    except (TypeError, ValueError):  # a scripted module
        return Parameters(frozenset(), takes_all=True)
    names = frozenset(one.name for one in parameters if one.kind not in {one.VAR_KEYWORD, one.VAR_POSITIONAL})
    return Parameters(names, any(one.kind is one.VAR_KEYWORD for one in parameters))


def unwrapped(model: torch.nn.Module) -> torch.nn.Module:
    """Returns the model inside one that is compiled, or wrapped for several GPUs."""
    while True:
        if isinstance(model, (torch.nn.DataParallel, torch.nn.parallel.DistributedDataParallel)):
            model = model.module
        elif isinstance(getattr(model, "_orig_mod", None), torch.nn.Module):  # torch.compile
            model = model._orig_mod  # noqa: SLF001 - there is no public name for it
        else:
            return model


def split(batch: object, takes: Parameters, *, loss_of_model: bool) -> tuple[Any, Any]:
    """Splits a batch into inputs and labels.

    Args:
        batch: a dict that contains the labels, and whose other keys are matched to the parameters of
            `forward`; or a tuple or list whose last item is the labels.
        takes: the parameters of `forward`.
        loss_of_model: whether the model computes its loss and therefore needs the labels, too.

    Raises:
        TypeError: it is neither, or no key matches; gives the remedy.
    """
    if isinstance(batch, Mapping):
        return _split_mapping(batch, takes, loss_of_model=loss_of_model)
    if not isinstance(batch, (tuple, list)) or len(batch) < _PAIR:
        raise TypeError(
            f"a batch must be a dict or (inputs, labels), got a {type(batch).__name__}; {_REMEDY}"
        )
    if loss_of_model:
        raise TypeError(
            "criterion=None uses the model's own loss, which needs a batch that is a dict with the labels; "
            "pass a criterion"
        )
    return tuple(batch[:-1]), batch[-1]


def _split_mapping(
    batch: Mapping[str, Any], takes: Parameters, *, loss_of_model: bool
) -> tuple[dict[str, Any], Any]:
    key = next((name for name in _LABELS if name in batch), None)
    if key is None and not loss_of_model:
        raise TypeError(f"a batch must have one of the keys {_LABELS}, got {sorted(batch)}; {_REMEDY}")
    inputs = {
        name: value
        for name, value in batch.items()
        if (name != key or loss_of_model) and (takes.takes_all or name in takes.names)
    }
    if not inputs:
        raise TypeError(
            f"a batch must have a key that forward() takes, one of {sorted(takes.names)}, "
            f"got {sorted(batch)}; {_REMEDY}"
        )
    return inputs, None if key is None else batch[key]


def prepared(batch: object, prepare: Callable[[Any], Any]) -> tuple[Any, Any]:
    """Returns the inputs and labels that the user's function makes of a batch.

    Raises:
        TypeError: it does not return a pair.
    """
    pair = prepare(batch)
    if not isinstance(pair, (tuple, list)) or len(pair) != _PAIR:
        raise TypeError(f"prepare_batch must return (inputs, labels), got a {type(pair).__name__}")
    return pair[0], pair[1]


def moved(value: Any, device: torch.device) -> Any:
    """Moves tensors, and other objects with a `to` method, to a device, also inside containers."""
    if isinstance(value, torch.Tensor):
        return value.to(device, non_blocking=True)
    if isinstance(value, Mapping):
        return {key: moved(one, device) for key, one in value.items()}
    if hasattr(value, "to"):  # a graph, or a packed sequence, which is a tuple as well
        return value.to(device)
    if isinstance(value, tuple) and hasattr(value, "_fields"):  # a named tuple
        return type(value)(*(moved(one, device) for one in value))
    if isinstance(value, (tuple, list)):
        return type(value)(moved(one, device) for one in value)
    return value


def samples_in(labels: object, inputs: object) -> int:
    """Returns the number of samples: the first dimension of the labels, or else of the first input."""
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


def _logits(output: Any) -> Any:
    """Returns the ``logits`` of Hugging Face's outputs; any other output as it is."""
    if isinstance(output, Mapping) and "logits" in output:
        return output["logits"]
    return getattr(output, "logits", output)


def _loss(output: Any) -> Any:
    loss = output.get("loss") if isinstance(output, Mapping) else getattr(output, "loss", None)
    if loss is None:
        raise TypeError(
            f"criterion=None uses the model's loss, but it returned a {type(output).__name__} without one; "
            "pass a criterion, or batches with the labels that the model takes"
        )
    return loss
