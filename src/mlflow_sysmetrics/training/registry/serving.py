"""Serves PyTorch models through `mlflow.pyfunc` that MLflow's own wrapper cannot serve.

MLflow's wrapper takes one array and expects one tensor. Models that take several tensors by name, or that
return outputs like Hugging Face's, are saved with this module as their loader and with this package among
their requirements. So are models in bfloat16, which NumPy lacks: they take and return float32. Saved models
refer to this module by its path.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any

from mlflow_sysmetrics.training.registry.torch_models import call, plain_outputs


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
