"""The files of a model: saved on this machine by MLflow, then logged to a run, active or not.

A model that cannot be saved therefore fails before anything is logged. MLflow's own `log_model` is not used:
on MLflow 2.8 it logs to the active run, and starts one if there is none; on MLflow 3 it downloads the whole
history of every metric of the run, millions of points with system metrics, and puts the model of another run
into the experiment of the active one.
"""

from __future__ import annotations

import contextlib
import hashlib
import inspect
import itertools
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlflow_sysmetrics.interruptions import reraise_interruption
from mlflow_sysmetrics.mlflow_api.fluent_state import record_logged_model, run_tags
from mlflow_sysmetrics.mlflow_api.outcomes import lacks_call
from mlflow_sysmetrics.mlflow_api.secrets import cleaned
from mlflow_sysmetrics.training.registry import serving
from mlflow_sysmetrics.training.registry.behaviour import Behaviour, example_of
from mlflow_sysmetrics.training.registry.flavors import PT2, Flavor, library_of
from mlflow_sysmetrics.training.registry.quiet import without_noise

_DESCRIPTION = "MLmodel"  # MLflow's file name for the description of a saved model
_VERSIONS_TAG = "mlflow.modelVersions"  # links a logged model to its versions on MLflow 3's pages
_log = logging.getLogger("mlflow_sysmetrics")


@dataclass(frozen=True)
class Interface:
    """What a model takes and returns, as it is saved with the model.

    Attributes:
        signature: MLflow's signature; None if unknown, False if the caller wants none.
        input_example: a few rows; None if there are none.
        plain: whether MLflow's own `pyfunc` wrapper can serve the model.
    """

    signature: Any
    input_example: Any
    plain: bool


@dataclass(frozen=True)
class SavedModel:
    """A model in a directory.

    Attributes:
        path: the directory.
        description: MLflow's `Model`, which is saved there as "MLmodel".
    """

    path: Path
    description: Any

    def write_description(self) -> None:
        """Writes the description again after a change."""
        self.description.save(str(self.path / _DESCRIPTION))


@dataclass(frozen=True)
class Source:
    """Where a version of a registered model comes from.

    Attributes:
        uri: the URI of the files.
        model_id: the id of MLflow 3's logged model; None on MLflow 2.
    """

    uri: str
    model_id: str | None = None


def interface_of(
    flavor: Flavor,
    model: Any,
    sample: Any,
    *,
    signature: Any,
    input_example: Any,
    options: Mapping[str, Any],
) -> Interface:
    """Tries a model on a sample and returns what it takes and returns.

    A model that fails on its sample is still registered, without a signature: its training may have taken
    days.
    """
    given = sample if sample is not None else (input_example if input_example is not False else None)
    if given is None:
        return Interface(signature, None, plain=True)
    try:
        behaviour = flavor.try_on(model, given, options)
        final_signature = _inferred_signature(behaviour) if signature is None else signature
    except Exception as error:  # noqa: BLE001 - the model's own, on a sample that may not fit it
        reraise_interruption(error)
        _log.warning(
            "the model fails on the sample, so it is saved without signature and input example: %s: %s",
            type(error).__name__,
            cleaned(str(error)),
        )
        return Interface(signature, None, plain=True)
    example = None if input_example is False else example_of(behaviour.inputs)
    return Interface(final_signature, example, behaviour.plain)


def check_exportable(interface: Interface, serialization_format: str) -> None:
    """Checks that a model can be exported, if the format requires it.

    Raises:
        ValueError: there is no sample, or MLflow cannot export a model with such a sample.
    """
    if serialization_format == PT2 and (
        not interface.plain or not hasattr(interface.input_example, "shape") or not interface.signature
    ):
        raise ValueError(
            f"serialization_format={PT2!r} traces the model, so it requires a working sample_input of one "
            "tensor and one tensor as output; leave it out to save with pickle"
        )


def save(
    flavor: Flavor,
    model: Any,
    path: Path,
    interface: Interface,
    *,
    serialization_format: str,
    options: Mapping[str, Any],
) -> SavedModel:
    """Saves a model with MLflow's module for it.

    Raises:
        Exception: what MLflow and the model's library raise if it cannot be saved.
    """
    from mlflow.models import Model

    library = library_of(flavor)
    description = Model()
    known = inspect.signature(library.save_model).parameters
    named = {"serialization_format": serialization_format} if "serialization_format" in known else {}
    example = interface.input_example
    if example is not None:
        example = flavor.example(example, serialization_format)
    wanted, loader = (dict(options), None) if interface.plain else _with_loader(options, path.parent)
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
    if loader is not None:
        description.flavors["python_function"]["loader_module"] = loader
        saved.write_description()
    return saved


def log_to_run(client: Any, run: Any, saved: SavedModel, artifact_path: str) -> Source:
    """Logs a saved model to a run and returns where it is."""
    if hasattr(client, "create_logged_model"):
        from mlflow.exceptions import MlflowException

        try:
            logged = client.create_logged_model(
                run.info.experiment_id,
                name=artifact_path,
                source_run_id=run.info.run_id,
                tags=run_tags({}, None),
                params=run.data.params,
            )
        except MlflowException as error:
            if not lacks_call(error):  # as of an MLflow 2 server
                raise
        else:
            return _log_model(client, run, saved, logged)
    return _log_artifacts(client, run, saved, artifact_path)


def link_to_version(client: Any, source: Source, model_name: str, version: str) -> None:
    """Records at a logged model which version was made from it, as `mlflow.register_model` does."""
    if source.model_id is not None:
        client.set_logged_model_tags(
            source.model_id, {_VERSIONS_TAG: json.dumps([{"name": model_name, "version": version}])}
        )


def _inferred_signature(behaviour: Behaviour) -> Any:
    from mlflow.models import infer_signature

    return infer_signature(behaviour.inputs, behaviour.outputs)


def _with_loader(options: Mapping[str, Any], folder: Path) -> tuple[dict[str, Any], str]:
    """Adds the loader of `serving` to the code that travels with a model.

    Args:
        options: arguments of MLflow's `save_model`.
        folder: where the copy is written.

    Returns:
        The arguments, and the name of the loader's module, which is that of its content: a process may load
        models that were saved with different versions of it.
    """
    source = Path(serving.__file__).read_bytes()
    name = f"mlflow_sysmetrics_serving_{hashlib.sha256(source).hexdigest()[:12]}"
    file = folder / f"{name}.py"
    file.write_bytes(source)
    return {**options, "code_paths": [*(options.get("code_paths") or ()), str(file)]}, name


def _log_model(client: Any, run: Any, saved: SavedModel, logged: Any) -> Source:
    """Logs the files as MLflow 3 does, to a logged model."""
    from mlflow.entities import LoggedModelOutput, LoggedModelStatus

    saved.description.model_id = saved.description.model_uuid = logged.model_id
    saved.description.run_id = run.info.run_id
    saved.description.artifact_path = logged.artifact_location
    try:
        saved.write_description()
        client.log_model_artifacts(logged.model_id, str(saved.path))
        client.log_outputs(run.info.run_id, [LoggedModelOutput(logged.model_id, step=0)])
    except BaseException:  # whatever ends the upload, including Ctrl-C: no model stays pending; raised again
        with contextlib.suppress(Exception):  # the store's; the first exception is the one to report
            client.finalize_logged_model(logged.model_id, LoggedModelStatus.FAILED)
        raise
    client.finalize_logged_model(logged.model_id, LoggedModelStatus.READY)
    return Source(f"models:/{logged.model_id}", logged.model_id)


def _log_artifacts(client: Any, run: Any, saved: SavedModel, artifact_path: str) -> Source:
    """Logs the files as MLflow 2 does, as artifacts of the run."""
    from mlflow.store.artifact.runs_artifact_repo import RunsArtifactRepository

    artifact_path = _free_path(run, artifact_path)
    saved.description.run_id = run.info.run_id
    saved.description.artifact_path = artifact_path
    saved.write_description()
    client.log_artifacts(run.info.run_id, str(saved.path), artifact_path)
    record_logged_model(client, run.info.run_id, saved.description)
    uri = RunsArtifactRepository.get_underlying_uri(f"runs:/{run.info.run_id}/{artifact_path}")
    return Source(str(uri))


def _free_path(run: Any, artifact_path: str) -> str:
    """Returns a path of a run that is not in use: the requested one, or that with a number.

    On MLflow 2 a version refers to the files at a path of its run. A second model at the same path would
    replace the first, also for services that load the first model's version.
    """
    from mlflow.store.artifact.artifact_repository_registry import (
        get_artifact_repository,
    )

    # `client.list_artifacts` of MLflow 3 also looks for logged models, which an MLflow 2 server does not
    # have.
    artifacts = get_artifact_repository(run.info.artifact_uri)
    requested = artifact_path.strip("/")
    paths = itertools.chain([requested], (f"{requested}_{number}" for number in itertools.count(2)))
    return next(path for path in paths if not artifacts.list_artifacts(path))
