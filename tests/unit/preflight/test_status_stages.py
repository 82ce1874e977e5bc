"""The content of the two files, and how a status file of this or a newer version is read."""

from __future__ import annotations

import json
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest

from mlflow_sysmetrics.errors import Attempt
from mlflow_sysmetrics.preflight.status_files.documents import (
    STAGES,
    JobStatus,
    RunInfo,
    run_document,
    status_document,
    status_from,
)

NOON = datetime(2026, 3, 1, 12, 0, tzinfo=timezone.utc)
REFUSED = Attempt(1, 1, NOON, 0.25, None, "Connection refused")
BUSY = Attempt(2, 1, NOON + timedelta(seconds=10), 1.5, 503, "HTTP 503 Service Unavailable")
FAILED = JobStatus(
    stage="failed",
    tracking_uri="https://mlflow.example",
    experiment_name="mnist",
    experiment_id="7",
    run_id="0" * 32,
    step=1,
    error="no response at https://mlflow.example",
    error_type="ServerUnreachableError",
    attempts=(REFUSED, BUSY),
    client_version="3.17.2",
    server_version="3.17.1",
    timestamp=NOON + timedelta(seconds=12),
)
RUN = RunInfo(
    run_id="0" * 32,
    experiment_id="7",
    experiment_name="mnist",
    tracking_uri="https://mlflow.example",
    run_name="first",
    started_at=NOON,
)


def through_json(document: dict[str, Any]) -> Any:
    return json.loads(json.dumps(document))


def newer(**changes: object) -> dict[str, Any]:
    return {**status_document(FAILED), "schema": 2, **changes}


def test_a_status_is_read_as_it_was_written() -> None:
    assert status_from(through_json(status_document(FAILED))) == FAILED


def test_unknown_values_are_null_and_read_as_none() -> None:
    early = JobStatus(stage="initializing", timestamp=NOON)
    document = through_json(status_document(early))
    assert document["run_id"] is None
    assert status_from(document) == early


@pytest.mark.parametrize("stage", STAGES)
def test_every_stage_is_read_back(stage: Any) -> None:
    assert status_from(status_document(JobStatus(stage=stage))).stage == stage


def test_times_are_written_in_utc_with_their_offset() -> None:
    there = NOON.astimezone(timezone(timedelta(hours=5, minutes=30)))
    assert (
        status_document(JobStatus(stage="failed", timestamp=there))["timestamp"]
        == "2026-03-01T12:00:00.000+00:00"
    )


def test_neither_document_contains_the_password_of_the_tracking_uri() -> None:
    uri = "https://anna:hunter2@mlflow.example"
    status = JobStatus(
        stage="failed",
        tracking_uri=uri,
        error=f"no response at {uri}",
        attempts=(Attempt(1, 1, NOON, 0.0, None, f"no route to {uri}"),),
    )
    run = RunInfo(run_id="1", experiment_id="1", experiment_name="e", tracking_uri=uri)
    assert "hunter2" not in json.dumps([status_document(status), run_document(run)])


def test_a_token_of_the_environment_is_masked_in_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "sesame-sesame")
    status = JobStatus(stage="failed", error="the proxy says: sesame-sesame is not welcome")
    assert "sesame" not in json.dumps(status_document(status))


def test_a_running_run_has_no_end_time() -> None:
    document = run_document(RUN)
    assert document["status"] == "RUNNING"
    assert document["started_at"] == "2026-03-01T12:00:00.000+00:00"
    assert document["ended_at"] is None


def test_unknown_keys_of_a_newer_schema_are_ignored() -> None:
    assert status_from(newer(weather="fine")) == FAILED


def test_an_unknown_stage_of_a_newer_schema_is_kept() -> None:
    assert status_from(newer(stage="paused")).stage == "paused"


def test_keys_missing_from_a_newer_schema_are_none() -> None:
    document = newer()
    del document["run_id"], document["attempts"]
    status = status_from(document)
    assert status.run_id is None
    assert status.attempts == ()


def test_an_invalid_attempt_of_a_newer_schema_is_skipped() -> None:
    listed = [*newer()["attempts"], {"n": 3, "at": "soon"}, "four"]
    assert status_from(newer(attempts=listed)).attempts == FAILED.attempts


def test_a_time_that_ends_in_z_is_utc() -> None:
    assert status_from(newer(timestamp="2026-03-01T12:00:00Z")).timestamp == NOON


@pytest.mark.parametrize(
    ("document", "problem"),
    [
        ([], "it must be a JSON object"),
        ({}, 'its "schema" must be an integer >= 1, got None'),
        ({**status_document(FAILED), "schema": True}, 'its "schema" must be an integer >= 1, got True'),
        ({**status_document(FAILED), "schema": 0}, 'its "schema" must be an integer >= 1, got 0'),
        ({**status_document(FAILED), "stage": "paused"}, "its \"stage\" must be one of .*, got 'paused'"),
        ({**status_document(FAILED), "stage": 3}, 'its "stage" must be one of .*, got 3'),
        (
            {**status_document(FAILED), "timestamp": "2026-03-01T12:00:00"},
            "must be a time with an offset from UTC, got ",
        ),
        ({**status_document(FAILED), "timestamp": None}, "must be a time with an offset from UTC, got "),
    ],
)
def test_an_invalid_document_is_rejected_with_the_reason(document: object, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        status_from(document)
