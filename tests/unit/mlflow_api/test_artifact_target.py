"""A store of artifacts whose library is not installed is a sentence that says what to install."""

from __future__ import annotations

import sys

import pytest

from mlflow_sysmetrics.mlflow_api.artifact_target import (
    load_artifact_library,
    missing_artifact_library,
    put_into_store,
)


@pytest.mark.parametrize(
    ("uri", "module", "package"),
    [
        ("s3://bucket/a", "boto3", "boto3"),
        ("r2://bucket@account/a", "boto3", "boto3"),
        ("gs://bucket/a", "google.cloud.storage", "google-cloud-storage"),
        ("wasbs://c@a.blob.core.windows.net", "azure.storage.blob", "azure-storage-blob azure-identity"),
        ("abfss://c@a.dfs.core.windows.net", "azure.storage.filedatalake", "azure-storage-file-datalake"),
        ("hdfs://host/a", "pyarrow", "pyarrow"),
        ("sftp://host/a", "pysftp", "pysftp"),
    ],
)
def test_the_package_to_install_is_named(
    monkeypatch: pytest.MonkeyPatch, uri: str, module: str, package: str
) -> None:
    monkeypatch.setitem(sys.modules, module.partition(".")[0], None)  # an import of it fails
    monkeypatch.setitem(sys.modules, module, None)
    load_artifact_library(uri)
    found = missing_artifact_library(uri)
    assert found is not None
    assert f"pip install {package}" in found
    with pytest.raises(ImportError, match=f"pip install {package}"):
        put_into_store(uri, "name", "text")


@pytest.mark.parametrize(
    "uri", ["/folder", "file:///folder", "dbfs:/folder", "mlflow-artifacts:/1", "own://x"]
)
def test_nothing_is_named_where_nothing_is_needed(uri: str) -> None:
    load_artifact_library(uri)
    assert missing_artifact_library(uri) is None
