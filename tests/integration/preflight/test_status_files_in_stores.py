"""Status files in MLflow's artifact stores: a store with its own scheme, and a run."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from programs import Store

from mlflow_sysmetrics.preflight.status_files.documents import JobStatus, RunInfo
from mlflow_sysmetrics.preflight.status_files.files import INFO_FILE, StatusFiles, read_status

# MLflow's and its libraries', on the Pythons and SQLAlchemys of today.
pytestmark = pytest.mark.filterwarnings("ignore")

FAILED = JobStatus(stage="failed", step=1, error="nothing answers")
SIGNED = "https://account.blob.example/jobs?sig=hunter2"


class Bucket:
    """Provides MLflow with repositories for bucket://..., in a local directory.

    Attributes:
        failure: raised by every repository; None if they work.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.failure: Exception | None = None

    def __call__(self, uri: str, **_: object) -> Any:
        from mlflow.store.artifact.local_artifact_repo import LocalArtifactRepository

        if self.failure is not None:
            raise self.failure
        return LocalArtifactRepository(str(self.folder / uri.partition("://")[2]))


@pytest.fixture
def bucket(tmp_path: Path) -> Iterator[Bucket]:
    """A store that is registered in MLflow for the scheme "bucket"."""
    from mlflow.store.artifact import artifact_repository_registry as module

    made = Bucket(tmp_path / "objects")
    module._artifact_repository_registry.register("bucket", made)
    yield made
    module._artifact_repository_registry._registry.pop("bucket")


def test_a_status_is_read_back_from_its_store(bucket: Bucket) -> None:
    StatusFiles("bucket://jobs/first/").write_status(FAILED)
    assert (bucket.folder / "jobs" / "first" / "mlflow_status.json").is_file()
    assert read_status("bucket://jobs/first").error == "nothing answers"
    assert read_status("bucket://jobs/first/mlflow_status.json").error == "nothing answers"


def test_each_stage_replaces_the_one_before(bucket: Bucket) -> None:
    assert bucket.failure is None
    files = StatusFiles("bucket://jobs/first")
    files.write_status(JobStatus(stage="waiting"))
    files.write_status(FAILED)
    assert read_status("bucket://jobs/first").stage == "failed"


def test_reading_a_missing_status_from_a_store_raises_file_not_found(bucket: Bucket) -> None:
    (bucket.folder / "jobs").mkdir(parents=True)
    with pytest.raises(FileNotFoundError, match=r"bucket://jobs/mlflow_status\.json does not exist"):
        read_status("bucket://jobs")


def test_a_store_that_refuses_causes_one_warning_without_its_signature(
    bucket: Bucket, caplog: pytest.LogCaptureFixture
) -> None:
    bucket.failure = PermissionError(f"403 for {SIGNED}")
    files = StatusFiles("bucket://anna:hunter2@jobs/first")
    files.write_status(JobStatus(stage="waiting"))
    files.write_status(FAILED)
    (said,) = [one.getMessage() for one in caplog.records if one.levelno >= logging.WARNING]
    assert "could not be written to bucket://jobs/first: 403 for https://account.blob.example/jobs" in said
    assert "hunter2" not in caplog.text


def test_a_store_that_refuses_a_reader_raises_an_error_without_its_signature(bucket: Bucket) -> None:
    bucket.failure = PermissionError(f"403 for {SIGNED}")
    with pytest.raises(OSError, match=r"could not be read \(PermissionError\)") as raised:
        read_status("bucket://anna:hunter2@jobs/first")
    assert "hunter2" not in str(raised.value)


def test_the_info_file_becomes_an_artifact_of_its_run(store: Store, tmp_path: Path) -> None:
    client = store.client
    experiment = client.create_experiment("mnist", artifact_location=(tmp_path / "artifacts").as_uri())
    run_id = client.create_run(experiment).info.run_id
    run = RunInfo(
        run_id=run_id,
        experiment_id=experiment,
        experiment_name="mnist",
        tracking_uri=store.uri,
        status="FAILED",
    )
    StatusFiles(None).write_info(run, run_artifact=True)
    (found,) = (tmp_path / "artifacts").rglob(INFO_FILE)
    assert json.loads(found.read_text())["status"] == "FAILED"
    assert [one.path for one in client.list_artifacts(run_id)] == [INFO_FILE]
