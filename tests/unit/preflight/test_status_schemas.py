"""The JSON Schema files in docs/ describe what is written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator, ValidationError

from mlflow_sysmetrics.errors import Attempt
from mlflow_sysmetrics.preflight.status_files.documents import STAGES, JobStatus, RunInfo
from mlflow_sysmetrics.preflight.status_files.files import INFO_FILE, STATUS_FILE, StatusFiles

DOCS = Path(__file__).parents[3] / "docs" / "reference"
RUN = RunInfo(run_id="0" * 32, experiment_id="7", experiment_name="mnist", tracking_uri="sqlite:///runs.db")


def schema(name: str) -> Any:
    return json.loads((DOCS / name).read_text(encoding="utf-8"))


def validator(name: str) -> Draft202012Validator:
    return Draft202012Validator(schema(name))


def written(folder: Path, name: str) -> Any:
    return json.loads((folder / name).read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", ["mlflow_status.schema.json", "mlflow_info.schema.json"])
def test_the_schemas_are_valid(name: str) -> None:
    Draft202012Validator.check_schema(schema(name))


@pytest.mark.parametrize("stage", STAGES)
def test_a_status_file_of_every_stage_is_valid(tmp_path: Path, stage: Any) -> None:
    StatusFiles(tmp_path).write_status(JobStatus(stage=stage))
    validator("mlflow_status.schema.json").validate(written(tmp_path, STATUS_FILE))


def test_a_status_file_with_everything_in_it_is_valid(tmp_path: Path) -> None:
    now = JobStatus(stage="waiting").timestamp
    status = JobStatus(
        stage="failed",
        tracking_uri="https://mlflow.example",
        experiment_name="mnist",
        experiment_id="7",
        run_id="0" * 32,
        step=4,
        error="metric missing",
        error_type="RunVerificationError",
        attempts=(Attempt(1, 1, now, 0.1, None, "refused"), Attempt(1, 2, now, 0.2, 200, None)),
        client_version="3.17.2",
        server_version="3.17.2",
    )
    StatusFiles(tmp_path).write_status(status)
    validator("mlflow_status.schema.json").validate(written(tmp_path, STATUS_FILE))


@pytest.mark.parametrize("ended", [False, True])
def test_an_info_file_is_valid(tmp_path: Path, ended: bool) -> None:
    moment = JobStatus(stage="waiting").timestamp
    run = RunInfo(
        run_id=RUN.run_id,
        experiment_id=RUN.experiment_id,
        experiment_name=RUN.experiment_name,
        tracking_uri=RUN.tracking_uri,
        run_name="first" if ended else None,
        status="FINISHED" if ended else "RUNNING",
        started_at=moment,
        ended_at=moment if ended else None,
    )
    StatusFiles(tmp_path).write_info(run)
    validator("mlflow_info.schema.json").validate(written(tmp_path, INFO_FILE))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("schema", 2),
        ("stage", "paused"),
        ("timestamp", "2026-03-01T12:00:00"),
        ("attempts", [{"n": 1}]),
        ("weather", "fine"),
    ],
)
def test_an_unknown_key_or_value_is_not_valid(tmp_path: Path, key: str, value: object) -> None:
    StatusFiles(tmp_path).write_status(JobStatus(stage="waiting"))
    document = {**written(tmp_path, STATUS_FILE), key: value}
    with pytest.raises(ValidationError):
        validator("mlflow_status.schema.json").validate(document)


def test_the_schemas_list_every_stage_and_every_run_status() -> None:
    assert schema("mlflow_status.schema.json")["properties"]["stage"]["enum"] == list(STAGES)
    statuses = ["RUNNING", "SCHEDULED", "FINISHED", "FAILED", "KILLED"]
    assert schema("mlflow_info.schema.json")["properties"]["status"]["enum"] == statuses
