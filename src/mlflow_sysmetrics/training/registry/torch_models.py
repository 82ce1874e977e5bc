"""PyTorch models: tried in evaluation mode without a trace, and saved so that any machine can load them."""

from __future__ import annotations

import copy
import inspect
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from typing import Any

from mlflow_sysmetrics.interruptions import reraise_interruption
from mlflow_sysmetrics.mlflow_api.secrets import cleaned
from mlflow_sysmetrics.training.registry.behaviour import Behaviour, same_random_numbers
from mlflow_sysmetrics.training.registry.serving import as_arrays, call, plain_outputs

_log = logging.getLogger("mlflow_sysmetrics")
# Wrappers around a model in training, and the attribute that holds the model. A wrapper cannot be loaded
# elsewhere: it needs its process group or its compiler.
_WRAPPERS = {"DistributedDataParallel": "module", "DataParallel": "module", "OptimizedModule": "_orig_mod"}


def unwrapped(model: Any) -> Any:
    """Returns the model inside wrappers for parallel training and compilation."""
    while type(model).__name__ in _WRAPPERS and type(model).__module__.startswith("torch."):
        model = getattr(model, _WRAPPERS[type(model).__name__])
    return model


def check_weights(model: Any) -> None:
    """Checks that all weights and buffers of a model have values.

    Raises:
        ValueError: one is not initialized, so there is nothing to save.
    """
    lazy = import_module("torch.nn.parameter").is_lazy
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        if lazy(tensor) or tensor.device.type == "meta":
            why = "is on the device meta" if not lazy(tensor) else "has no shape before the first batch"
            raise ValueError(f"all weights of the model must have values, but {name!r} {why}")


@contextmanager
def evaluating(model: Any) -> Iterator[None]:
    """Puts a model and its parts in evaluation mode inside the ``with`` block, and restores the mode of each.

    `eval` and `train` are not called: they set one mode for all parts, and some models do more in them, such
    as LoRA layers, which merge their weights.
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
    """Returns what a model returns for a sample, and leaves its device and modes unchanged.

    Args:
        model: the model; it may be in training mode.
        sample: a tensor or an array, or several by name or in the order of `forward`, on any device.
    """
    torch = import_module("torch")
    device = device_of(model)
    inputs = named_inputs(model, sample)
    cuda = (device.index or 0,) if device.type == "cuda" else ()
    with same_random_numbers(cuda), evaluating(model), torch.no_grad():
        outputs = call(model, _on_device(inputs, device))
    single = not isinstance(inputs, Mapping) and isinstance(outputs, torch.Tensor)
    # NumPy has no bfloat16: the signature says float32, and the loader in `serving` converts it back.
    single = single and torch.bfloat16 not in {outputs.dtype, getattr(inputs, "dtype", None)}
    return Behaviour(as_arrays(inputs), plain_outputs(outputs), plain=single)


def device_of(model: Any) -> Any:
    """Returns the device of a model's first parameter or buffer."""
    torch = import_module("torch")
    for tensor in (*model.parameters(), *model.buffers()):
        return tensor.device
    return torch.device("cpu")


def named_inputs(model: Any, sample: Any) -> Any:
    """Returns a sample of several tensors by name, the only form of several that MLflow describes."""
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


def on_cpu(model: Any) -> Any:
    """Returns the model if it is on the CPU, otherwise a copy of it there.

    MLflow loads a pickled tensor to the device that it was saved from, so a machine without a GPU could not
    load the model. Where there is a GPU, `mlflow.pyfunc` moves the model to it.
    """
    if all(tensor.device.type == "cpu" for tensor in (*model.parameters(), *model.buffers())):
        return model
    try:
        return cpu_copy(model)
    except Exception as error:  # noqa: BLE001 - from __deepcopy__ of the model or of anything in it
        reraise_interruption(error)
        _log.warning(
            "the model cannot be copied to the CPU (%s), so only a machine with %s will be able to load it",
            cleaned(str(error)),
            device_of(model).type,
        )
        return model


def cpu_copy(model: Any) -> Any:
    """Returns a copy of a model on the CPU, without a second copy of its weights on the device."""
    torch = import_module("torch")
    memo: dict[int, Any] = {}
    for tensor in (*model.parameters(), *model.buffers()):
        # Tensors of other types, such as quantized weights, have their own way of copying.
        if type(tensor) in {torch.nn.Parameter, torch.Tensor}:
            copied = tensor.detach().to("cpu", copy=True)
            parameter = type(tensor) is torch.nn.Parameter
            memo[id(tensor)] = torch.nn.Parameter(copied, tensor.requires_grad) if parameter else copied
    return copy.deepcopy(model, memo).cpu()


def twice(inputs: Any) -> Any:
    """Returns a sample of one row with the row repeated: an export would fix the batch size at one."""
    numpy = import_module("numpy")
    return numpy.repeat(inputs, 2, axis=0) if inputs.shape[0] == 1 else inputs


def _on_device(inputs: Any, device: Any) -> Any:
    torch, numpy = import_module("torch"), import_module("numpy")
    if isinstance(inputs, Mapping):
        return {name: _on_device(value, device) for name, value in inputs.items()}
    if isinstance(inputs, numpy.ndarray):
        return torch.tensor(inputs, device=device)  # copied, because the array may be read-only
    return inputs.to(device) if isinstance(inputs, torch.Tensor) else inputs
