"""Small files in the places where MLflow can write artifacts: object stores, DBFS, a run."""

from __future__ import annotations

import tempfile
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from mlflow_sysmetrics.interruptions import reraise_interruption
from mlflow_sysmetrics.mlflow_api.clients import open_client
from mlflow_sysmetrics.mlflow_api.fluent_state import current_tracking_uri
from mlflow_sysmetrics.mlflow_api.tracking_uris import redacted

#: By the name in an ImportError: the package to install. A longer name precedes its own prefix.
ARTIFACT_LIBRARIES = (
    ("boto3", "boto3"),
    ("botocore", "boto3"),
    ("google.cloud", "google-cloud-storage"),
    ("google", "google-cloud-storage"),
    ("azure.storage.filedatalake", "azure-storage-file-datalake azure-identity"),
    ("azure.storage", "azure-storage-blob azure-identity"),
    ("azure.identity", "azure-identity"),
    ("azure", "azure-storage-blob azure-identity"),
    ("pyarrow", "pyarrow"),
    ("pysftp", "pysftp"),
    ("paramiko", "paramiko"),
    ("databricks", "databricks-sdk"),
)
# By scheme: the module that MLflow imports for it.
_MODULES = {
    "s3": "boto3",
    "r2": "boto3",
    "b2": "boto3",
    "gs": "google.cloud.storage",
    "wasb": "azure.storage.blob",
    "wasbs": "azure.storage.blob",
    "abfss": "azure.storage.filedatalake",
    "hdfs": "pyarrow",
    "viewfs": "pyarrow",
    "sftp": "pysftp",
}

# The functions import MLflow: a program that writes no such file does not wait for it.

_LONGEST_TEXT = 16_000_000  # what is read here are status files of a few kilobytes


def put_into_store(uri: str, name: str, text: str) -> None:
    """Writes a text as an artifact under a URI such as gs://bucket/folder.

    Raises:
        ImportError: the store's library is not installed; says which one to install.
        Exception: what the store's library raises, or MLflow for an unknown scheme.
    """
    missing = missing_artifact_library(uri)
    if missing is not None:
        raise ImportError(missing)
    with tempfile.TemporaryDirectory() as folder:
        _repository(uri).log_artifact(str(_written(folder, name, text)))


def remove_from_store(uri: str, name: str) -> None:
    """Removes an artifact under a URI, if it exists.

    Raises:
        Exception: it still exists, or that is unknown; what the store's library raises.
    """
    try:
        _repository(uri).delete_artifacts(name)
    except Exception as error:  # each store's library has its own exception for a missing file
        reraise_interruption(error)
        if not _is_absent(uri, name):
            raise


def get_from_store(uri: str, name: str) -> str:
    """Returns the text of an artifact under a URI.

    Raises:
        FileNotFoundError: it does not exist.
        OSError: the store could not be read.
        UnicodeDecodeError: it is not text.
    """
    with tempfile.TemporaryDirectory() as folder:
        try:
            path = Path(_repository(uri).download_artifacts(name, folder))
        except Exception as error:
            reraise_interruption(error)
            # Each store's library has its own exception for a missing file.
            if _is_absent(uri, name):
                raise FileNotFoundError(f"{redacted(uri)}/{name} does not exist") from error
            # Without its text, which may hold a signed URL; the cause has it.
            raise OSError(f"{redacted(uri)}/{name} could not be read ({type(error).__name__})") from error
        if path.stat().st_size > _LONGEST_TEXT:
            raise OSError(
                f"{redacted(uri)}/{name} could not be read (it is larger than {_LONGEST_TEXT} bytes)"
            )
        return path.read_text(encoding="utf-8")


def put_into_run(tracking_uri: str, run_id: str, name: str, text: str) -> None:
    """Writes a text as an artifact of a run.

    Args:
        tracking_uri: without secrets. If it names the current one, that is used, with its secrets.
        run_id: id of the run.
        name: name of the artifact.
        text: the content.

    Raises:
        Exception: what MLflow or the store's library raises.
    """
    in_force = current_tracking_uri()
    uri = in_force if redacted(in_force) == redacted(tracking_uri) else tracking_uri
    with tempfile.TemporaryDirectory() as folder:
        open_client(uri).log_artifact(run_id, str(_written(folder, name, text)))


def artifacts_of_run(tracking_uri: str, artifact_uri: str) -> Any:
    """Returns the artifact repository of a run, also if the tracking server is a proxy for its artifacts.

    MLflow before 3 looks for that proxy under the current tracking URI, which is another one until a
    preflight has succeeded.
    """
    from mlflow.store.artifact.mlflow_artifacts_repo import MlflowArtifactsRepository

    if artifact_uri.startswith("mlflow-artifacts:"):
        artifact_uri = MlflowArtifactsRepository.resolve_uri(artifact_uri, tracking_uri)
    return _repository(artifact_uri)


def load_artifact_library(artifact_uri: str) -> None:
    """Imports the library of an artifact store, if it is installed; on a slow disk this takes seconds."""
    with suppress(ImportError):
        module = _MODULES.get(urlsplit(artifact_uri).scheme)
        if module is not None:
            import_module(module)


def missing_artifact_library(artifact_uri: str) -> str | None:
    """Returns what to install for an artifact store; None if that is unknown or nothing is missing."""
    scheme = urlsplit(artifact_uri).scheme
    module = _MODULES.get(scheme)
    if module is None:
        return None
    try:
        import_module(module)
    except ImportError:
        package = next(package for name, package in ARTIFACT_LIBRARIES if module.startswith(name))
        return f"Install the library for {scheme}:// where the training runs: pip install {package}."
    return None


def _repository(uri: str) -> Any:
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    return get_artifact_repository(uri)


def _is_absent(uri: str, name: str) -> bool:
    """Returns whether a store answers and does not list the file."""
    try:
        listed = [one.path for one in _repository(uri).list_artifacts()]
    except Exception as error:  # noqa: BLE001 - of the store's library: it does not answer, or does not list
        reraise_interruption(error)
        return False
    return name not in listed


def _written(folder: str, name: str, text: str) -> Path:
    path = Path(folder, name)
    path.write_text(text, encoding="utf-8")
    return path
