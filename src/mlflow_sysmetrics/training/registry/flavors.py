"""The kinds of models that can be registered, told apart without importing their libraries."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from types import ModuleType
from typing import Any, Protocol

from mlflow_sysmetrics.training.registry import torch_models
from mlflow_sysmetrics.training.registry.behaviour import Behaviour, as_arrays, rows_of, same_random_numbers
from mlflow_sysmetrics.training.registry.quiet import same_root_logger

AUTO = "auto"
PT2 = "pt2"
# What we give to `save_model` ourselves; the model is its first argument, whatever that is called.
_OURS = {
    "path",
    "mlflow_model",
    "signature",
    "input_example",
    "serialization_format",
    "export_model",
    "kwargs",
}


class Flavor(Protocol):
    """Knows how models of one library are tried and saved.

    Attributes:
        module: MLflow's module for them.
        formats: in which they can be saved, the one of "auto" first.
    """

    module: str
    formats: tuple[str, ...]

    def check(self, model: Any) -> None:
        """Raises ValueError for a model that nobody could load."""

    def try_on(self, model: Any, sample: Any, options: Mapping[str, Any]) -> Behaviour:
        """Returns what a model makes of a sample."""

    def example(self, inputs: Any, serialization_format: str) -> Any:
        """Returns an input example as saving in this format needs it."""

    def ready_to_save(self, model: Any, serialization_format: str) -> Any:
        """Returns a context manager that yields what is to be saved."""


class SklearnFlavor:
    """scikit-learn's estimators, and those of libraries that follow its rules."""

    module = "mlflow.sklearn"
    # As MLflow 2 does. skops, MLflow 3's default, asks the caller to list the types of the model.
    formats: tuple[str, ...] = ("cloudpickle", "pickle", "skops")

    def check(self, model: Any) -> None:
        """Raises nothing: one that is not fitted may be fitted by whoever loads it."""

    def try_on(self, model: Any, sample: Any, options: Mapping[str, Any]) -> Behaviour:
        """Returns what a model makes of a sample."""
        inputs = as_arrays(rows_of(sample))
        with same_random_numbers():
            outputs = getattr(model, options.get("pyfunc_predict_fn", "predict"))(inputs)
        return Behaviour(inputs, outputs)

    def example(self, inputs: Any, serialization_format: str) -> Any:  # noqa: ARG002
        """Returns an input example as saving in this format needs it."""
        return inputs

    @contextmanager
    def ready_to_save(self, model: Any, serialization_format: str) -> Iterator[Any]:  # noqa: ARG002
        """Yields what is to be saved."""
        yield model


class TorchFlavor:
    """PyTorch's modules."""

    module = "mlflow.pytorch"
    # pickle as MLflow 2 does: it keeps the batch axis free whatever the sample, and takes any model.
    formats: tuple[str, ...] = ("pickle", PT2)

    def check(self, model: Any) -> None:
        """Raises ValueError for a model that nobody could load."""
        torch_models.check_weights(torch_models.unwrapped(model))

    def try_on(self, model: Any, sample: Any, options: Mapping[str, Any]) -> Behaviour:  # noqa: ARG002
        """Returns what a model makes of a sample."""
        return torch_models.try_on(torch_models.unwrapped(model), sample)

    def example(self, inputs: Any, serialization_format: str) -> Any:
        """Returns an input example as saving in this format needs it."""
        return torch_models.twice(inputs) if serialization_format == PT2 else inputs

    @contextmanager
    def ready_to_save(self, model: Any, serialization_format: str) -> Iterator[Any]:
        """Yields what is to be saved."""
        inner = torch_models.unwrapped(model)
        if serialization_format == PT2:  # the export keeps the mode, and its weights stay on their device
            with torch_models.evaluating(inner):
                yield inner
        else:
            yield torch_models.on_cpu(inner)


def flavor_of(model: object) -> Flavor:
    """Returns the flavor of a model.

    Raises:
        TypeError: it is neither of PyTorch nor of scikit-learn.
    """
    # A model is of a library only if that has been imported.
    torch, sklearn = sys.modules.get("torch.nn"), sys.modules.get("sklearn.base")
    if torch is not None and isinstance(model, torch.Module):
        return TorchFlavor()
    if sklearn is not None and isinstance(model, sklearn.BaseEstimator):
        return SklearnFlavor()
    kind = f"{type(model).__module__}.{type(model).__qualname__}"
    given = f"the class {model.__qualname__}" if isinstance(model, type) else f"a {kind}"
    raise TypeError(
        f"register_model takes a torch.nn.Module or a scikit-learn estimator, not {given}; "
        "log other models with MLflow's module for them, register them with mlflow.register_model, "
        "and promote them with mlflow_sysmetrics.promote"
    )


def library_of(flavor: Flavor) -> ModuleType:
    """Returns MLflow's module for the models of a flavor."""
    with same_root_logger():
        return import_module(flavor.module)


def checked_format(flavor: Flavor, wanted: str) -> str:
    """Returns the format to save in.

    Raises:
        ValueError: these models, or this MLflow, have no such format.
    """
    chosen = flavor.formats[0] if wanted == AUTO else wanted
    if chosen not in flavor.formats:
        known = ", ".join(map(repr, (AUTO, *flavor.formats)))
        raise ValueError(
            f"there is no serialization_format {wanted!r} for {flavor.module}; it is one of {known}"
        )
    parameters = inspect.signature(library_of(flavor).save_model).parameters
    if chosen == PT2 and "serialization_format" not in parameters:
        raise ValueError(
            f"serialization_format={PT2!r} needs a newer MLflow 3; leave it out, or upgrade MLflow"
        )
    return chosen


def checked_options(flavor: Flavor, options: Mapping[str, Any]) -> None:
    """Checks what is handed on to `save_model`.

    Raises:
        TypeError: it takes no such argument.
    """
    parameters = list(inspect.signature(library_of(flavor).save_model).parameters)
    known = set(parameters[1:]) - _OURS
    if unknown := sorted(set(options) - known):
        raise TypeError(
            f"register_model has no argument {unknown[0]!r}, and {flavor.module}.save_model neither; "
            f"that takes {', '.join(sorted(known))}"
        )
