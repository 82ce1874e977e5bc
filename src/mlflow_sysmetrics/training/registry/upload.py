"""A saved model, put into a run; the run may be any, and the active one is not touched.

Not by MLflow's own `log_model`: on MLflow 2.8 that logs to the active run and starts one where there is none;
on MLflow 3 it downloads the whole history of every metric of the run, which are millions of points where
system metrics are on, and puts the model of another run into the experiment of the active one.
"""

from __future__ import annotations

import contextlib
import itertools
import json
from dataclasses import dataclass
from typing import Any

from mlflow_sysmetrics.mlflow_api.fluent_state import record_logged_model, run_tags
from mlflow_sysmetrics.training.registry.saving import SavedModel

_VERSIONS_TAG = "mlflow.modelVersions"  # by which MLflow 3's pages lead from a logged model to its versions


@dataclass(frozen=True)
class Source:
    """Where a version of a registered model comes from.

    Attributes:
        uri: of the files.
        model_id: of MLflow 3's logged model; None on MLflow 2.
    """

    uri: str
    model_id: str | None = None


def put_into_run(client: Any, run: Any, saved: SavedModel, artifact_path: str) -> Source:
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
            if error.error_code != "ENDPOINT_NOT_FOUND":  # a server of MLflow 2
                raise
        else:
            return _as_logged_model(client, run, saved, logged)
    return _as_artifacts(client, run, saved, artifact_path)


def link(client: Any, source: Source, model_name: str, version: str) -> None:
    """Notes at a logged model which version was made of it, as `mlflow.register_model` does."""
    if source.model_id is not None:
        client.set_logged_model_tags(
            source.model_id, {_VERSIONS_TAG: json.dumps([{"name": model_name, "version": version}])}
        )


def _as_logged_model(client: Any, run: Any, saved: SavedModel, logged: Any) -> Source:
    from mlflow.entities import LoggedModelOutput, LoggedModelStatus

    saved.description.model_id = saved.description.model_uuid = logged.model_id
    saved.description.run_id = run.info.run_id
    saved.description.artifact_path = logged.artifact_location
    try:
        saved.write_description()
        client.log_model_artifacts(logged.model_id, str(saved.path))
        client.log_outputs(run.info.run_id, [LoggedModelOutput(logged.model_id, step=0)])
    except BaseException:  # whatever ends the upload, Ctrl-C too: no model stays pending; it is raised on
        with contextlib.suppress(Exception):  # the store's, and what went wrong first is what is told
            client.finalize_logged_model(logged.model_id, LoggedModelStatus.FAILED)
        raise
    client.finalize_logged_model(logged.model_id, LoggedModelStatus.READY)
    return Source(f"models:/{logged.model_id}", logged.model_id)


def _as_artifacts(client: Any, run: Any, saved: SavedModel, artifact_path: str) -> Source:
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
    """Returns a path of a run where nothing is yet: the one that was asked for, else with a number.

    A version on MLflow 2 is the files at a path of its run. A second model there would take the place of the
    first, also for whoever serves the version that was made of that.
    """
    from mlflow.store.artifact.artifact_repository_registry import (
        get_artifact_repository,
    )

    # Not `client.list_artifacts`: MLflow 3's looks for logged models too, which a server of MLflow 2 has not.
    artifacts = get_artifact_repository(run.info.artifact_uri)
    asked = artifact_path.strip("/")
    paths = itertools.chain([asked], (f"{asked}_{number}" for number in itertools.count(2)))
    return next(path for path in paths if not artifacts.list_artifacts(path))
