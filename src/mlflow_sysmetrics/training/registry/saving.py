"""A model on this machine's disk, as MLflow saves it; what fails in that, fails before anything is logged."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from mlflow_sysmetrics.training.registry.behaviour import Behaviour, example_of
from mlflow_sysmetrics.training.registry.flavors import PT2, Flavor, library_of
from mlflow_sysmetrics.training.registry.quiet import without_noise

_log = logging.getLogger("mlflow_sysmetrics")
_DESCRIPTION = "MLmodel"  # MLflow's name of the file that says what is saved
_OWN_LOADER = "mlflow_sysmetrics.training.registry.serving"


@dataclass(frozen=True)
class Interface:
    """What a model takes and returns, as it is written beside it.

    Attributes:
        signature: MLflow's; None if it is not known, False if the caller wants none.
        input_example: a few rows; None if there are none.
        plain: whether MLflow's own `pyfunc` wrapper can serve it.
    """

    signature: Any
    input_example: Any
    plain: bool


@dataclass(frozen=True)
class SavedModel:
    """A model in a directory.

    Attributes:
        path: the directory.
        description: MLflow's `Model`, which is written there as "MLmodel".
    """

    path: Path
    description: Any

    def write_description(self) -> None:
        """Writes the description anew, after it has changed."""
        self.description.save(str(self.path / _DESCRIPTION))


def interface_of(  # noqa: PLR0917 - each of another kind
    flavor: Flavor,
    model: Any,
    sample: Any,
    signature: Any,
    input_example: Any,
    options: Mapping[str, Any],
) -> Interface:
    """Tries a model on a sample and returns what it takes and returns.

    A model that fails on its sample is registered all the same, without a signature: the training that it
    came from may have taken days.
    """
    given = sample if sample is not None else (input_example if input_example is not False else None)
    if given is None:
        return Interface(signature, None, plain=True)
    try:
        behaviour = flavor.try_on(model, given, options)
        found = _signature(behaviour) if signature is None else signature
    except Exception as error:  # noqa: BLE001 - the model's own, on a sample that may not be for it
        _log.warning(
            "the model is saved without signature and input example, since it fails on the sample: %s: %s",
            type(error).__name__,
            error,
        )
        return Interface(signature, None, plain=True)
    example = None if input_example is False else example_of(behaviour.inputs)
    return Interface(found, example, behaviour.plain)


def save(  # noqa: PLR0917 - each of another kind
    flavor: Flavor,
    model: Any,
    path: Path,
    interface: Interface,
    serialization_format: str,
    options: Mapping[str, Any],
) -> SavedModel:
    """Saves a model with MLflow's module for it.

    Raises:
        Exception: what MLflow and the library of the model raise where it cannot be saved.
    """
    from mlflow.models import Model

    library = library_of(flavor)
    description = Model()
    known = inspect.signature(library.save_model).parameters
    named = {"serialization_format": serialization_format} if "serialization_format" in known else {}
    example = interface.input_example
    if example is not None:
        example = flavor.example(example, serialization_format)
    wanted = options if interface.plain else _requiring_us(options)
    with without_noise(), flavor.ready_to_save(model, serialization_format) as ready:
        library.save_model(
            ready,
            str(path),
            mlflow_model=description,
            signature=interface.signature,
            input_example=example,
            **named,
            **wanted,
        )
    saved = SavedModel(path, description)
    if not interface.plain:
        description.flavors["python_function"]["loader_module"] = _OWN_LOADER
        saved.write_description()
    return saved


def check_exportable(interface: Interface, serialization_format: str) -> None:
    """Checks what saving a graph needs.

    Raises:
        ValueError: there is no sample, or MLflow cannot export with one like that.
    """
    if serialization_format == PT2 and (
        not interface.plain or not hasattr(interface.input_example, "shape") or not interface.signature
    ):
        raise ValueError(
            f"serialization_format={PT2!r} traces the model, so it needs a sample_input that works, "
            "of one tensor, and one tensor as output; leave it out to save with pickle"
        )


def _signature(behaviour: Behaviour) -> Any:
    from mlflow.models import infer_signature

    return infer_signature(behaviour.inputs, behaviour.outputs)


def _requiring_us(options: Mapping[str, Any]) -> dict[str, Any]:
    """Returns options that require this package; a file or an environment is the caller's own."""
    try:
        ours = f"mlflow-sysmetrics=={version('mlflow-sysmetrics')}"
    except PackageNotFoundError:  # a source tree that is not installed
        ours = "mlflow-sysmetrics"
    if isinstance(listed := options.get("pip_requirements"), (list, tuple)):
        return {**options, "pip_requirements": [*listed, ours]}
    if listed is not None or options.get("conda_env") is not None:
        return dict(options)
    extra = options.get("extra_pip_requirements") or []
    if isinstance(extra, str):
        return dict(options)
    return {**options, "extra_pip_requirements": [*extra, ours]}
