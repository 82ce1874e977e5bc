"""Serves PyTorch models through `mlflow.pyfunc` that MLflow's own wrapper cannot serve.

MLflow's wrapper takes one array and expects one tensor. Models that take several tensors by name, or that
return outputs like Hugging Face's, are saved with a copy of this file as their loader. So are models in
bfloat16, which NumPy lacks: they take and return float32. The copy travels with the model, so that serving it
needs torch and NumPy only: this file imports nothing of its package.
"""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Mapping
from importlib import import_module
from typing import Any

_NUMBERED = re.compile(r"input_\d+")


class ServedModel:
    """The object that `mlflow.pyfunc` calls: arrays in, arrays out.

    Attributes:
        pytorch_model: the model, in evaluation mode.
    """

    def __init__(self, pytorch_model: Any, device: str) -> None:
        self.pytorch_model = pytorch_model
        self._device = device
        torch = import_module("torch")
        floats = (one for one in pytorch_model.parameters() if one.is_floating_point())
        # The first layer decides what the model takes; later ones may differ, such as norms kept in float32.
        self._takes_bfloat16 = next((one.dtype is torch.bfloat16 for one in floats), False)

    def get_raw_model(self) -> Any:
        """Returns the model itself, for MLflow's `unwrap_python_model` and the like."""
        return self.pytorch_model

    def predict(self, data: Any, params: Mapping[str, Any] | None = None) -> Any:  # noqa: ARG002 - pyfunc passes it by name
        """Returns what the model returns for an array, or for arrays by name."""
        torch = import_module("torch")
        with torch.no_grad():
            return plain_outputs(call(self.pytorch_model, self._tensors(data)))

    def _tensors(self, data: Any) -> Any:
        torch, numpy = import_module("torch"), import_module("numpy")
        if isinstance(data, Mapping):
            return {name: self._tensors(value) for name, value in data.items()}
        tensor = torch.tensor(numpy.asarray(data), device=self._device)
        return tensor.bfloat16() if self._takes_bfloat16 and tensor.is_floating_point() else tensor


def _load_pyfunc(path: str, model_config: Mapping[str, Any] | None = None) -> ServedModel:
    """Loads a model; `mlflow.pyfunc` calls this function of a loader module."""
    from mlflow.environment_variables import MLFLOW_DEFAULT_PREDICTION_DEVICE
    from mlflow.pytorch import _load_model

    torch = import_module("torch")
    device = (
        (model_config or {}).get("device")
        or MLFLOW_DEFAULT_PREDICTION_DEVICE.get()
        or ("cuda" if torch.cuda.is_available() else "cpu")
    )
    return ServedModel(_load_model(path).to(device), device)


def call(model: Any, inputs: Any) -> Any:
    """Calls a model with a tensor, or with tensors by name in the form that its `forward` accepts."""
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
        TypeError: it contains no tensor.
    """
    torch = import_module("torch")
    logits = outputs.get("logits") if isinstance(outputs, Mapping) else getattr(outputs, "logits", None)
    if logits is not None:  # Hugging Face's outputs also contain the loss and hidden states
        return as_arrays(logits)
    if isinstance(outputs, (tuple, list)) and len(outputs) == 1:
        return plain_outputs(outputs[0])
    if isinstance(outputs, (tuple, list)):
        outputs = {f"output_{position}": value for position, value in enumerate(outputs)}
    if isinstance(outputs, Mapping):
        tensors = {name: value for name, value in outputs.items() if isinstance(value, torch.Tensor)}
        if tensors:
            return as_arrays(tensors)
    if not isinstance(outputs, torch.Tensor):
        raise TypeError(f"the model must return a tensor or tensors, got {type(outputs).__name__}")
    return as_arrays(outputs)


def as_arrays(sample: Any) -> Any:
    """Returns a sample with NumPy arrays instead of tensors, which MLflow would describe as "any"."""
    if isinstance(sample, Mapping):
        return {str(name): as_arrays(value) for name, value in sample.items()}
    torch = sys.modules.get("torch")
    if torch is None or not isinstance(sample, torch.Tensor):
        return sample
    dense = sample.detach().cpu().to_dense() if sample.layout != torch.strided else sample.detach().cpu()
    if dense.dtype == torch.bfloat16:  # NumPy has no such type
        dense = dense.float()
    # Copied, because an array made from a CPU tensor shares the caller's memory.
    return dense.resolve_conj().resolve_neg().numpy().copy()
