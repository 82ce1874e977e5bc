"""PyTorch models: tried in evaluation mode and left as they were, saved so that any machine can load them."""

from __future__ import annotations

import copy
import inspect
import logging
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from typing import Any

from mlflow_sysmetrics.training.registry.behaviour import Behaviour, as_arrays, same_random_numbers

_log = logging.getLogger("mlflow_sysmetrics")
_NUMBERED = re.compile(r"input_\d+")
# What stands around a model while it is trained, and where the model is in it. Neither can be loaded
# elsewhere: one needs its process group, the other its compiler.
_WRAPPINGS = {"DistributedDataParallel": "module", "DataParallel": "module", "OptimizedModule": "_orig_mod"}


def unwrapped(model: Any) -> Any:
    """Returns the model inside of what trains it in parallel or compiles it."""
    while type(model).__name__ in _WRAPPINGS and type(model).__module__.startswith("torch."):
        model = getattr(model, _WRAPPINGS[type(model).__name__])
    return model


def check_weights(model: Any) -> None:
    """Checks that a model has its weights.

    Raises:
        ValueError: some are still to be made, so that there is nothing to save.
    """
    lazy = import_module("torch.nn.parameter").is_lazy
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        if lazy(tensor) or tensor.device.type == "meta":
            why = "is on the device meta" if not lazy(tensor) else "has no shape before the first batch"
            raise ValueError(f"the model cannot be registered: its {name!r} {why}, so it has no values")


@contextmanager
def evaluating(model: Any) -> Iterator[None]:
    """Has a model and its parts in evaluation mode inside the ``with`` block, and each as before after it.

    Not by `eval` and `train`: they give all parts one mode, and some models do more in them, as LoRA's
    layers, which merge their weights.
    """
    before = [(module, module.training) for module in model.modules()]
    try:
        for module, _ in before:
            module.training = False
        yield
    finally:
        for module, training in before:
            module.training = training


def try_on(model: Any, sample: Any) -> Behaviour:
    """Returns what a model makes of a sample, on the device and in the modes that it is left in.

    Args:
        model: may be in training.
        sample: a tensor or array; several by name, or in the order of `forward`. Its device does not matter.
    """
    torch = import_module("torch")
    device = device_of(model)
    inputs = named_inputs(model, sample)
    cuda = (device.index or 0,) if device.type == "cuda" else ()
    with same_random_numbers(cuda), evaluating(model), torch.no_grad():
        outputs = call(model, _on_device(inputs, device))
    single = not isinstance(inputs, Mapping) and isinstance(outputs, torch.Tensor)
    # NumPy has no such type: what is described is float32, which our own loader brings back to it.
    single = single and torch.bfloat16 not in {outputs.dtype, getattr(inputs, "dtype", None)}
    return Behaviour(as_arrays(inputs), plain_outputs(outputs), plain=single)


def device_of(model: Any) -> Any:
    """Returns the device of a model's first parameter or buffer."""
    torch = import_module("torch")
    for tensor in (*model.parameters(), *model.buffers()):
        return tensor.device
    return torch.device("cpu")


def named_inputs(model: Any, sample: Any) -> Any:
    """Returns a sample of several tensors by their names, since MLflow describes several only so."""
    if isinstance(sample, Mapping):
        return {str(name): value for name, value in sample.items()}
    if not isinstance(sample, (tuple, list)) or not all(hasattr(one, "shape") for one in sample):
        return sample
    try:
        names = list(inspect.signature(model.forward).bind(*sample).arguments)
    except (TypeError, ValueError):
        names = []
    if len(names) != len(sample):  # forward(*args)
        names = [f"input_{position}" for position in range(len(sample))]
    return dict(zip(names, sample, strict=True))


def call(model: Any, inputs: Any) -> Any:
    """Calls a model with a tensor, or with tensors by name as its `forward` takes them."""
    if not isinstance(inputs, Mapping):
        return model(inputs)
    if all(map(_NUMBERED.fullmatch, inputs)):
        return model(*inputs.values())
    try:
        inspect.signature(model.forward).bind(**inputs)
    except (TypeError, ValueError):
        return model(inputs)  # forward(batch)
    return model(**inputs)


def plain_outputs(outputs: Any) -> Any:
    """Returns what a model returned as an array, or as arrays by name.

    Raises:
        TypeError: there is no tensor in it.
    """
    torch = import_module("torch")
    logits = outputs.get("logits") if isinstance(outputs, Mapping) else getattr(outputs, "logits", None)
    if logits is not None:  # of Hugging Face, which has the loss and hidden states beside it
        return as_arrays(logits)
    if isinstance(outputs, (tuple, list)) and len(outputs) == 1:
        return plain_outputs(outputs[0])
    if isinstance(outputs, (tuple, list)):
        outputs = {f"output_{position}": value for position, value in enumerate(outputs)}
    if isinstance(outputs, Mapping):
        found = {name: value for name, value in outputs.items() if isinstance(value, torch.Tensor)}
        if found:
            return as_arrays(found)
    if not isinstance(outputs, torch.Tensor):
        raise TypeError(f"the model returned {type(outputs).__name__}, which has no tensor in it")
    return as_arrays(outputs)


def on_cpu(model: Any) -> Any:
    """Returns a model, or a copy of it on the CPU if it is on another device.

    MLflow loads a pickled tensor where it was saved, so a machine without a GPU could not load the model at
    all; where there is one, `mlflow.pyfunc` moves the model there.
    """
    if all(tensor.device.type == "cpu" for tensor in (*model.parameters(), *model.buffers())):
        return model
    try:
        return cpu_copy(model)
    except Exception as error:  # noqa: BLE001 - the model's own __deepcopy__, and of whatever is in it
        _log.warning(
            "the model cannot be copied to the CPU (%s), so only a machine with %s will be able to load it",
            error,
            device_of(model).type,
        )
        return model


def cpu_copy(model: Any) -> Any:
    """Returns a copy of a model on the CPU; its weights are copied to the host at once."""
    torch = import_module("torch")
    memo: dict[int, Any] = {}
    for tensor in (*model.parameters(), *model.buffers()):
        # Those of other kinds, as quantised weights, know best how they are copied.
        if type(tensor) in {torch.nn.Parameter, torch.Tensor}:
            copied = tensor.detach().to("cpu", copy=True)
            parameter = type(tensor) is torch.nn.Parameter
            memo[id(tensor)] = torch.nn.Parameter(copied, tensor.requires_grad) if parameter else copied
    return copy.deepcopy(model, memo).cpu()


def twice(inputs: Any) -> Any:
    """Returns a sample of one row with that row twice: an export takes one row for the only size there is."""
    numpy = import_module("numpy")
    return numpy.repeat(inputs, 2, axis=0) if inputs.shape[0] == 1 else inputs


def _on_device(inputs: Any, device: Any) -> Any:
    torch, numpy = import_module("torch"), import_module("numpy")
    if isinstance(inputs, Mapping):
        return {name: _on_device(value, device) for name, value in inputs.items()}
    if isinstance(inputs, numpy.ndarray):
        return torch.tensor(inputs, device=device)  # a copy, as the array may be read-only
    return inputs.to(device) if isinstance(inputs, torch.Tensor) else inputs
