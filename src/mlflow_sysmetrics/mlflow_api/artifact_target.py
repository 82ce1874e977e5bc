"""Small files in what MLflow can write artifacts to: object stores, DBFS, a run of its own."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from mlflow_sysmetrics.mlflow_api.tracking_uris import redacted

# MLflow is imported by the functions: a program that writes no such file does not wait for it.


def put_into_store(uri: str, name: str, text: str) -> None:
    """Writes a text as an artifact under a URI such as gs://bucket/folder.

    Raises:
        Exception: what the store's library raises, or MLflow for a scheme that it does not know.
    """
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    with tempfile.TemporaryDirectory() as folder:
        get_artifact_repository(uri).log_artifact(str(_written(folder, name, text)))


def remove_from_store(uri: str, name: str) -> None:
    """Removes an artifact under a URI, if it is there.

    Raises:
        Exception: it is there still, or that cannot be told; what the store's library raises.
    """
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    try:
        get_artifact_repository(uri).delete_artifacts(name)
    except Exception:  # each store's library has its own for what is not there
        if not _is_absent(uri, name):
            raise


def put_into_run(tracking_uri: str, run_id: str, name: str, text: str) -> None:
    """Writes a text as an artifact of a run.

    Args:
        tracking_uri: without secrets; where it is the one in force, that one is used with its secrets.
        run_id: of the run.
        name: of the artifact.
        text: what is written.

    Raises:
        Exception: what MLflow or the store's library raises.
    """
    from mlflow.tracking import MlflowClient, get_tracking_uri

    in_force = str(get_tracking_uri())
    uri = in_force if redacted(in_force) == redacted(tracking_uri) else tracking_uri
    with tempfile.TemporaryDirectory() as folder:
        MlflowClient(uri).log_artifact(run_id, str(_written(folder, name, text)))


def artifacts_of_run(tracking_uri: str, artifact_uri: str) -> Any:
    """Returns the artifact repository of a run, also of a server that hands artifacts on itself.

    MLflow before 3 looks for that server under the tracking URI in force, which is another one until a
    preflight has succeeded.
    """
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
    from mlflow.store.artifact.mlflow_artifacts_repo import MlflowArtifactsRepository

    if artifact_uri.startswith("mlflow-artifacts:"):
        artifact_uri = MlflowArtifactsRepository.resolve_uri(artifact_uri, tracking_uri)
    return get_artifact_repository(artifact_uri)


def get_from_store(uri: str, name: str) -> str:
    """Returns the text of an artifact under a URI.

    Raises:
        FileNotFoundError: it is not among what lies there.
        OSError: the store could not be read.
        UnicodeDecodeError: it is no text.
    """
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    with tempfile.TemporaryDirectory() as folder:
        try:
            repository = get_artifact_repository(uri)
            found = Path(repository.download_artifacts(name, folder))
        except Exception as error:
            # Each store's library has exceptions of its own for what is not there.
            if _is_absent(uri, name):
                raise FileNotFoundError(f"{redacted(uri)}/{name} does not exist") from error
            # Not its words, which may hold a signed URL: whoever wants them looks at the cause.
            raise OSError(f"{redacted(uri)}/{name} could not be read ({type(error).__name__})") from error
        return found.read_text(encoding="utf-8")


def _is_absent(uri: str, name: str) -> bool:
    """Tells whether a store answers, and does not list the file."""
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    try:
        listed = [one.path for one in get_artifact_repository(uri).list_artifacts()]
    except Exception:  # noqa: BLE001 - of the store's library: it does not answer, or does not list
        return False
    return name not in listed


def _written(folder: str, name: str, text: str) -> Path:
    path = Path(folder, name)
    path.write_text(text, encoding="utf-8")
    return path
