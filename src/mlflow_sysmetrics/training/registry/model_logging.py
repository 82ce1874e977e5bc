"""Logs a model to a run, with signature and example; the registry is not involved."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mlflow_sysmetrics.errors import NoActiveRunError
from mlflow_sysmetrics.mlflow_api.outcomes import is_not_found
from mlflow_sysmetrics.training.registry import names
from mlflow_sysmetrics.training.registry.flavors import checked_format, checked_options, flavor_of
from mlflow_sysmetrics.training.registry.model_files import (
    Source,
    check_exportable,
    interface_of,
    log_to_run,
    save,
)


@dataclass(frozen=True)
class LoggedModel:
    """A model on a run.

    Attributes:
        run_id: the run.
        source: where its files are.
        client: the client that has logged it.
    """

    run_id: str
    source: Source
    client: Any = field(repr=False, compare=False)


def save_model_to_mlflow(
    model: Any,
    sample_input: Any = None,
    artifact_path: str = "model",
    signature: Any = None,
    input_example: Any = None,
    *,
    serialization_format: str = names.AUTO,
    run_id: str | None = None,
    **log_model_kwargs: Any,
) -> str:
    """Logs a model to a run, with signature and input example, and without registering it.

    The model is left as it was, as by `register_model`, which takes the same arguments.

    Args:
        model: a `torch.nn.Module` or a scikit-learn estimator.
        sample_input: one or more rows of input, from which signature and input example are derived.
        artifact_path: the name of the model in its run.
        signature: MLflow's signature, instead of an inferred one; False for none.
        input_example: an example, instead of the first rows of the sample; False for none.
        serialization_format: as in `register_model`.
        run_id: the run to log to; by default the active run.
        **log_model_kwargs: arguments of `save_model` in MLflow's module for the model.

    Returns:
        The URI of the model, for `mlflow.pyfunc.load_model`.

    Raises:
        NoActiveRunError: there is no active run and no `run_id`.
        TypeError: the model is of another library, or an argument is unknown.
        ValueError: the name, format or run is invalid, or the model has no weights yet.
        Exception: what MLflow raises if the model cannot be saved or logged.
    """
    logged = log_model(
        model,
        sample_input,
        by="save_model_to_mlflow",
        artifact_path=artifact_path,
        signature=signature,
        input_example=input_example,
        serialization_format=serialization_format,
        run_id=run_id,
        options=log_model_kwargs,
    )
    return logged.source.uri


def log_model(
    model: Any,
    sample_input: Any,
    *,
    by: str,
    artifact_path: str,
    signature: Any,
    input_example: Any,
    serialization_format: str,
    run_id: str | None,
    options: Mapping[str, Any],
) -> LoggedModel:
    """Logs a model to a run, for `save_model_to_mlflow` and `register_model`, which describe the arguments.

    ``by`` names the public function, for messages; ``options`` are its ``log_model_kwargs``.
    """
    if not isinstance(artifact_path, str) or not artifact_path.strip("/ "):
        raise ValueError(f"artifact_path must be a name such as 'model', got {artifact_path!r}")
    flavor = flavor_of(model)
    checked_options(flavor, options)
    chosen = checked_format(flavor, serialization_format)
    from mlflow.tracking import MlflowClient

    client = MlflowClient()
    flavor.check(model)
    run = _run(client, run_id, by)
    with tempfile.TemporaryDirectory(prefix="mlflow-sysmetrics-") as folder:
        interface = interface_of(
            flavor, model, sample_input, signature=signature, input_example=input_example, options=options
        )
        check_exportable(interface, chosen)
        path = Path(folder, "model")
        saved = save(flavor, model, path, interface, serialization_format=chosen, options=options)
        return LoggedModel(str(run.info.run_id), log_to_run(client, run, saved, artifact_path), client)


def _run(client: Any, run_id: str | None, by: str) -> Any:
    """Returns the run to log to."""
    import mlflow
    from mlflow.exceptions import MlflowException

    if run_id is not None and not isinstance(run_id, str):
        raise ValueError(f"run_id must be a string, got {run_id!r}; pass run.info.run_id")
    if run_id is None:
        active = mlflow.active_run()
        if active is None:
            raise NoActiveRunError(
                f"{by} needs a run to log the model to, and no run is active: call it inside "
                "`with mlflow.start_run():`, or pass run_id=..."
            )
        run_id = active.info.run_id
    try:
        run = client.get_run(run_id)
    except MlflowException as error:
        if is_not_found(error):
            raise ValueError(
                f"run_id must name a run on the current tracking server, got {run_id!r}; there is no such run"
            ) from error
        raise
    if run.info.lifecycle_stage == "deleted":
        raise ValueError(f"run {run_id!r} is deleted; restore it, or pass another run_id")
    return run
