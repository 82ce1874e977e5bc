"""The kinds of models that can be registered, recognized without importing their libraries."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from importlib import import_module
from types import ModuleType
from typing import Any, Protocol

from mlflow_sysmetrics.training.registry import torch_models
from mlflow_sysmetrics.training.registry.behaviour import Behaviour, rows_of, same_random_numbers
from mlflow_sysmetrics.training.registry.names import AUTO
from mlflow_sysmetrics.training.registry.quiet import same_root_logger
from mlflow_sysmetrics.training.registry.serving import as_arrays

PT2 = "pt2"
# Arguments of `save_model` that are set here. Its first parameter is the model, whatever its name.
_OWN_ARGUMENTS = {
    "path",
    "mlflow_model",
    "signature",
    "input_example",
    "serialization_format",
    "export_model",
    "kwargs",
}


class Flavor(Protocol):
    """How models of one library are tried and saved.

    Attributes:
        module: MLflow's module for these models.
        formats: the formats in which they can be saved; "auto" is the first.
    """

    module: str
    formats: tuple[str, ...]

    def check(self, model: Any, /) -> None:
        """Raises ValueError for a model that could not be loaded again."""

    def try_on(self, model: Any, sample: Any, options: Mapping[str, Any], /) -> Behaviour:
        """Returns what a model returns for a sample."""

    def example(self, inputs: Any, serialization_format: str, /) -> Any:
        """Returns an input example as saving in this format needs it."""

    def ready_to_save(self, model: Any, serialization_format: str, /) -> AbstractContextManager[Any]:
        """Returns a context manager that yields the object to save."""


class SklearnFlavor:
    """Estimators of scikit-learn, and of libraries that follow its conventions."""

    module = "mlflow.sklearn"
    # The default of MLflow 2. The default of MLflow 3, skops, requires the caller to list the model's types.
    formats: tuple[str, ...] = ("cloudpickle", "pickle", "skops")

    def check(self, _model: Any, /) -> None:
        """Accepts every estimator: one that is not fitted can be fitted after loading."""

    def try_on(self, model: Any, sample: Any, options: Mapping[str, Any], /) -> Behaviour:
        """Returns what a model returns for a sample."""
        inputs = as_arrays(rows_of(sample))
        with same_random_numbers():
            outputs = getattr(model, options.get("pyfunc_predict_fn", "predict"))(inputs)
        return Behaviour(inputs, outputs)

    def example(self, inputs: Any, _format: str, /) -> Any:
        """Returns the input example unchanged."""
        return inputs

    @contextmanager
    def ready_to_save(self, model: Any, _format: str, /) -> Iterator[Any]:
        """Yields the model itself."""
        yield model


class TorchFlavor:
    """Modules of PyTorch."""

    module = "mlflow.pytorch"
    # pickle, the default of MLflow 2, accepts any model and leaves the batch axis free whatever the sample.
    formats: tuple[str, ...] = ("pickle", PT2)

    def check(self, model: Any, /) -> None:
        """Raises ValueError for a model without values in its weights."""
        torch_models.check_weights(torch_models.unwrapped(model))

    def try_on(self, model: Any, sample: Any, _options: Mapping[str, Any], /) -> Behaviour:
        """Returns what a model returns for a sample."""
        return torch_models.try_on(torch_models.unwrapped(model), sample)

    def example(self, inputs: Any, serialization_format: str, /) -> Any:
        """Returns an input example as saving in this format needs it."""
        return torch_models.twice(inputs) if serialization_format == PT2 else inputs

    @contextmanager
    def ready_to_save(self, model: Any, serialization_format: str, /) -> Iterator[Any]:
        """Yields the object to save."""
        inner = torch_models.unwrapped(model)
        if serialization_format == PT2:  # an export keeps the mode, and its weights stay on their device
            with torch_models.evaluating(inner):
                yield inner
        else:
            yield torch_models.on_cpu(inner)


def flavor_of(model: object) -> Flavor:
    """Returns the flavor of a model.

    Raises:
        TypeError: it is neither a PyTorch module nor a scikit-learn estimator.
    """
    # A model can only be of a library that is already imported.
    torch, sklearn = sys.modules.get("torch.nn"), sys.modules.get("sklearn.base")
    if torch is not None and isinstance(model, torch.Module):
        return TorchFlavor()
    if sklearn is not None and isinstance(model, sklearn.BaseEstimator):
        return SklearnFlavor()
    kind = f"{type(model).__module__}.{type(model).__qualname__}"
    given = f"the class {model.__qualname__}" if isinstance(model, type) else f"a {kind}"
    raise TypeError(
        f"model must be a torch.nn.Module or a scikit-learn estimator, got {given}; log other models with "
        "MLflow's module for them, register them with mlflow.register_model, and promote them with "
        "mlflow_sysmetrics.promote"
    )


def library_of(flavor: Flavor) -> ModuleType:
    """Returns MLflow's module for the models of a flavor."""
    with same_root_logger():
        return import_module(flavor.module)


def checked_format(flavor: Flavor, wanted: str) -> str:
    """Returns the format in which a model is saved.

    Raises:
        ValueError: the flavor or the installed MLflow does not support the format.
    """
    chosen = flavor.formats[0] if wanted == AUTO else wanted
    if chosen not in flavor.formats:
        known = ", ".join(map(repr, (AUTO, *flavor.formats)))
        raise ValueError(f"serialization_format must be one of {known} for {flavor.module}, got {wanted!r}")
    parameters = inspect.signature(library_of(flavor).save_model).parameters
    if chosen == PT2 and "serialization_format" not in parameters:
        raise ValueError(
            f"serialization_format={PT2!r} requires a newer MLflow 3; leave it out or upgrade MLflow"
        )
    return chosen


def checked_options(flavor: Flavor, options: Mapping[str, Any]) -> None:
    """Checks the arguments that are passed on to `save_model`.

    Raises:
        TypeError: `save_model` does not accept one of them.
    """
    parameters = list(inspect.signature(library_of(flavor).save_model).parameters)
    known = set(parameters[1:]) - _OWN_ARGUMENTS
    if unknown := sorted(set(options) - known):
        raise TypeError(
            f"register_model got an unexpected argument {unknown[0]!r}; "
            f"of {flavor.module}.save_model it passes on {', '.join(sorted(known))}"
        )
